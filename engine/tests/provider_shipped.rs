//! The definitions that ship: requests as the vendors document them, recorded replies classified
//! as they say.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use syncline_engine::provider::CallKind::{Create, Delete, Lookup, Read, Update, Upsert};
use syncline_engine::provider::{
    BatchItem, BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Field, PauseScope,
    RenderError, Reply, ReplyHeaders, RetryAfter, Subject, Verdict, lint, shipped, shipped_ids,
};

const FIELDS: &[Field<'static>] = &[
    Field {
        name: "LastName",
        value: "\"Lovelace\"",
    },
    Field {
        name: "Score",
        value: "1.50",
    },
    Field {
        name: "Phone",
        value: "null",
    },
];

fn definition(id: &str) -> Definition {
    Definition::parse(shipped(id).unwrap()).unwrap()
}

fn subject(object: &'static str) -> Subject<'static> {
    Subject {
        object,
        record_id: "c/42",
        remote_id: Some("7001"),
        fields: FIELDS,
    }
}

fn request(definition: &Definition, kind: CallKind, object: &'static str) -> (String, String) {
    let request = definition.render(kind, &subject(object)).unwrap();
    let line = format!("{} {}", request.method.as_str(), request.path_and_query);
    (line, String::from_utf8(request.body.to_vec()).unwrap())
}

fn reply(status: u16, body: impl ToString) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from(body.to_string()),
        body_end: BodyEnd::Complete,
    }
}

fn classify(id: &str, kind: CallKind, reply: &Reply) -> Verdict {
    definition(id).classify(kind, "c-42", reply, now())
}

fn now() -> jiff::Timestamp {
    "2026-11-21T10:00:00Z".parse().unwrap()
}

fn done(remote_id: Option<&str>, created: bool) -> Verdict {
    Verdict::Done {
        remote_id: remote_id.map(str::to_owned),
        created,
    }
}

/// The reply of a batch of `kind` whose records are `c-0`, `c-1` … with remote ids `r0`, `r1` …
fn classify_batch(
    id: &str,
    kind: CallKind,
    object: &str,
    count: usize,
    reply: &Reply,
) -> BatchVerdict {
    let ids: Vec<_> = (0..count)
        .map(|at| (format!("c-{at}"), format!("r{at}")))
        .collect();
    let items: Vec<_> = ids
        .iter()
        .map(|(record_id, remote_id)| BatchItemRef {
            kind,
            record_id,
            remote_id: (kind != Create).then_some(remote_id),
        })
        .collect();
    let definition = definition(id);
    let group = definition.batch_group(kind, object).unwrap();
    definition.classify_batch(group, &items, reply, now())
}

fn classes(verdict: BatchVerdict) -> Vec<&'static str> {
    match verdict {
        BatchVerdict::Items(verdicts) => verdicts.iter().map(Verdict::class).collect(),
        BatchVerdict::Whole(verdict) => vec!["whole", verdict.class()],
        BatchVerdict::Split { .. } => vec!["split"],
    }
}

fn batch_body(id: &str, kind: CallKind, object: &'static str) -> (String, Value) {
    let definition = definition(id);
    let items: Vec<_> = [("c-0", "r0"), ("c-1", "r1")]
        .map(|(record_id, remote_id)| BatchItem {
            kind,
            subject: Subject {
                object,
                record_id,
                remote_id: Some(remote_id),
                fields: if kind == Delete { &[] } else { &FIELDS[..1] },
            },
        })
        .to_vec();
    let group = definition.batch_group(kind, object).unwrap();
    let request = definition.render_batch(group, &items).unwrap();
    let line = format!("{} {}", request.method.as_str(), request.path_and_query);
    let body = match request.body.is_empty() {
        true => Value::Null,
        false => serde_json::from_slice(&request.body).unwrap(),
    };
    (line, body)
}

#[test]
fn every_shipped_definition_is_without_fault() {
    let ids: Vec<_> = shipped_ids().collect();
    assert_eq!(
        ids,
        ["hubspot", "outreach", "pipedrive", "rest", "salesforce"]
    );
    for id in ids {
        assert_eq!(lint(shipped(id).unwrap()), [], "{id}");
    }
}

#[test]
fn every_definition_but_plain_rest_names_its_host_or_leaves_it_to_the_account() {
    let hosts: Vec<_> = shipped_ids()
        .map(|id| (id, definition(id).base_url().map(str::to_owned)))
        .collect();
    let hosts: Vec<_> = hosts
        .iter()
        .map(|(id, host)| (*id, host.as_deref()))
        .collect();
    assert_eq!(
        hosts,
        [
            ("hubspot", Some("https://api.hubapi.com")),
            ("outreach", Some("https://api.outreach.io")),
            ("pipedrive", Some("https://api.pipedrive.com")),
            ("rest", None),
            ("salesforce", None),
        ]
    );
}

#[test]
fn salesforce_is_asked_as_documented() {
    let fields = r#""LastName":"Lovelace","Score":1.50,"Phone":null}"#;
    let path = "/services/data/v62.0/sobjects/Contact";
    let rows = [
        (
            Create,
            format!("POST {path}/"),
            format!(r#"{{"External_Id__c":"c/42",{fields}"#),
        ),
        (
            Upsert,
            format!("PATCH {path}/External_Id__c/c%2F42"),
            format!("{{{fields}"),
        ),
        (Update, format!("PATCH {path}/7001"), format!("{{{fields}")),
        (Delete, format!("DELETE {path}/7001"), String::new()),
        (Read, format!("GET {path}/7001"), String::new()),
        (
            Lookup,
            format!("GET {path}/External_Id__c/c%2F42?fields=Id"),
            String::new(),
        ),
    ];
    for (kind, line, body) in rows {
        assert_eq!(
            request(&definition("salesforce"), kind, "Contact"),
            (line, body),
            "{kind}"
        );
    }
    let newer = definition("salesforce").with_api_version("v67.0").unwrap();
    assert!(request(&newer, Read, "Contact").0.contains("/v67.0/"));
    for version in ["", "..", "v1/x", "v 1"] {
        assert!(
            newer.clone().with_api_version(version).is_err(),
            "{version:?}"
        );
    }
    let own = definition("salesforce").with_external_id("Contact", "Key__c");
    assert!(
        request(&own, Lookup, "Contact")
            .0
            .contains("/Key__c/c%2F42")
    );
    // An object that nobody named a key for.
    assert_eq!(
        own.render(Upsert, &subject("Case")),
        Err(RenderError::NoExternalId("Case".to_owned()))
    );
    assert_eq!(own.batch_group(Upsert, "Case"), None);
    assert!(own.batch_group(Update, "Case").is_some());
}

#[test]
fn a_salesforce_batch_is_a_collection_with_attributes_first() {
    let record = |id: &str, value: &str| json!({"attributes": {"type": "Contact"}, id: value, "LastName": "Lovelace"});
    let (line, body) = batch_body("salesforce", Upsert, "Contact");
    assert_eq!(
        line,
        "PATCH /services/data/v62.0/composite/sobjects/Contact/External_Id__c"
    );
    assert_eq!(
        body.to_string(),
        json!({"allOrNone": false, "records": [record("External_Id__c", "c-0"), record("External_Id__c", "c-1")]})
            .to_string()
    );
    let (line, body) = batch_body("salesforce", Update, "Contact");
    assert_eq!(line, "PATCH /services/data/v62.0/composite/sobjects");
    assert_eq!(body["records"][1], record("id", "r1"));
    let (line, body) = batch_body("salesforce", Delete, "Contact");
    assert_eq!(
        line,
        "DELETE /services/data/v62.0/composite/sobjects?ids=r0%2Cr1&allOrNone=false"
    );
    assert_eq!(body, Value::Null);
    // Keys are compared without case there.
    let definition = definition("salesforce");
    let item = |record_id| BatchItem {
        kind: Upsert,
        subject: Subject {
            record_id,
            ..subject("Contact")
        },
    };
    let group = definition.batch_group(Upsert, "Contact").unwrap();
    assert_eq!(
        definition.render_batch(group, &[item("a-1"), item("A-1")]),
        Err(RenderError::Item {
            index: 1,
            source: Box::new(RenderError::RepeatedKey)
        })
    );
}

#[test]
fn each_recorded_salesforce_reply_is_classified_as_documented() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/salesforce-replies");
    if !folder.is_dir() {
        println!(
            "skipped: each_recorded_salesforce_reply_is_classified_as_documented (no recorded replies beside the project)"
        );
        return;
    }
    let rows: &[(&str, u16, CallKind, &str)] = &[
        ("sobject/create_success_response.json", 201, Create, "done"),
        (
            "sobject/upsert_created_success_response.json",
            201,
            Upsert,
            "done",
        ),
        (
            "sobject/upsert_updated_success_response.json",
            204,
            Upsert,
            "done",
        ),
        (
            "sobject/upsert_error_response.json",
            404,
            Upsert,
            "permission",
        ),
        (
            "sobject/upsert_multiple_error_response.json",
            300,
            Upsert,
            "ambiguous",
        ),
        (
            "sobject/upsert_multiple_error_response.json",
            300,
            Lookup,
            "ambiguous",
        ),
        (
            "sobject/write_error_response.json",
            400,
            Create,
            "permanent",
        ),
        (
            "sobject/write_error_response.json",
            400,
            Update,
            "permanent",
        ),
        ("sobject/query_error_response.json", 400, Read, "permanent"),
        ("sobject/search_error_response.json", 400, Read, "permanent"),
        ("sobject/delete_error_response.json", 404, Delete, "done"),
        ("sobject/delete_error_response.json", 404, Update, "gone"),
        (
            "sobject/sobject_find_error_response.json",
            404,
            Read,
            "gone",
        ),
        (
            "sobject/sobject_find_error_response.json",
            404,
            Lookup,
            "permission",
        ),
        (
            "sobject/sobject_find_success_response.json",
            200,
            Read,
            "done",
        ),
        (
            "sobject/sobject_find_success_response.json",
            200,
            Lookup,
            "found",
        ),
        (
            "sobject/sobject_select_success_response.json",
            200,
            Lookup,
            "found",
        ),
        ("expired_session_response.json", 401, Update, "unauthorized"),
        ("expired_session_response.json", 403, Update, "unauthorized"),
        ("auth_error_response.json", 400, Update, "permanent"),
        // What is no answer to the call is not understood as one.
        (
            "sobject/recent_success_response.json",
            200,
            Create,
            "unknown",
        ),
        (
            "sobject/query_success_response.json",
            200,
            Create,
            "unknown",
        ),
        ("sobject/query_empty_response.json", 200, Lookup, "unknown"),
        (
            "sobject/list_sobjects_success_response.json",
            200,
            Lookup,
            "unknown",
        ),
    ];
    for (file, status, kind, class) in rows {
        let body = std::fs::read_to_string(folder.join(file)).unwrap();
        let verdict = classify("salesforce", *kind, &reply(*status, body));
        assert_eq!(
            verdict.class(),
            *class,
            "{file} {status} {kind}: {verdict:?}"
        );
    }
    let many = folder.join("sobject/upsert_multiple_error_response.json");
    let many = classify(
        "salesforce",
        Upsert,
        &reply(300, std::fs::read_to_string(many).unwrap()),
    );
    assert!(
        many.detail().unwrap().contains("/sobjects/Whizbang/bar"),
        "the candidates"
    );
}

#[test]
fn salesforce_errors_mean_what_their_codes_say() {
    let error = |code: &str, message: &str| json!([{"message": message, "errorCode": code}]);
    let rows: &[(u16, &str, &str, CallKind, &str)] = &[
        (
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "TotalRequests Limit exceeded.",
            Update,
            "quota_exhausted",
        ),
        (
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "ConcurrentPerOrgLongTxn Limit exceeded.",
            Update,
            "throttled",
        ),
        (
            403,
            "REQUEST_LIMIT_EXCEEDED",
            "something new",
            Create,
            "quota_exhausted",
        ),
        (
            400,
            "UNABLE_TO_LOCK_ROW",
            "unable to obtain exclusive access",
            Create,
            "contention",
        ),
        (503, "SERVER_UNAVAILABLE", "", Update, "transient"),
        (503, "SERVER_UNAVAILABLE", "", Create, "unknown"),
        (
            404,
            "ENTITY_IS_DELETED",
            "entity is deleted",
            Update,
            "gone",
        ),
        (
            404,
            "ENTITY_IS_DELETED",
            "entity is deleted",
            Delete,
            "done",
        ),
        (
            404,
            "NOT_FOUND",
            "The requested resource does not exist",
            Lookup,
            "absent",
        ),
        (
            404,
            "NOT_FOUND",
            "The requested resource does not exist",
            Create,
            "permission",
        ),
        (
            400,
            "INVALID_CROSS_REFERENCE_KEY",
            "invalid cross reference id",
            Update,
            "permanent",
        ),
        (412, "PRECONDITION_FAILED", "", Update, "conflict"),
        (
            400,
            "REQUIRED_FIELD_MISSING",
            "Required fields are missing: [LastName]",
            Create,
            "permanent",
        ),
        (400, "NEVER_SEEN_BEFORE", "", Update, "permanent"),
        (500, "UNKNOWN_EXCEPTION", "", Upsert, "transient"),
    ];
    for (status, code, message, kind, class) in rows {
        let verdict = classify("salesforce", *kind, &reply(*status, error(code, message)));
        assert_eq!(verdict.class(), *class, "{status} {code} {kind}");
    }
    let exhausted = reply(
        403,
        error("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    );
    let verdict = classify("salesforce", Update, &exhausted);
    assert!(verdict.says_nothing_about_record());
    assert!(matches!(
        verdict,
        Verdict::QuotaExhausted { retry_after: RetryAfter::Wait(wait), limit: Some(limit), .. }
            if wait == Duration::from_secs(900) && limit == "daily"
    ));
    let duplicate = |id: &str| {
        let message =
            format!("duplicate value found: Key__c duplicates value on record with id: {id}");
        match classify(
            "salesforce",
            Create,
            &reply(400, error("DUPLICATE_VALUE", &message)),
        ) {
            Verdict::Duplicate { remote_id, .. } => remote_id,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        duplicate("001U000001c83gK").as_deref(),
        Some("001U000001c83gK")
    );
    assert_eq!(duplicate("<unknown>"), None);
}

#[test]
fn salesforce_collections_answer_in_order_with_errors_of_their_own() {
    let error = |code: &str, message: &str| json!({"success": false, "errors": [{"statusCode": code, "message": message, "fields": []}]});
    let results = json!([
        {"id": "0031", "success": true, "errors": [], "created": true},
        {"id": "0032", "success": true, "errors": [], "created": false},
        error("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record"),
        error("DUPLICATE_VALUE", "Duplicate external id specified: c-3"),
        error("DUPLICATE_VALUE", "duplicate value found: Key__c duplicates value on record with id: 0039"),
        error("REQUIRED_FIELD_MISSING", "Required fields are missing: [LastName]"),
        error("ENTITY_IS_DELETED", "entity is deleted"),
        {"success": true, "errors": []},
    ]);
    let verdict = classify_batch("salesforce", Upsert, "Contact", 8, &reply(200, &results));
    let BatchVerdict::Items(verdicts) = &verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(verdicts[0], done(Some("0031"), true));
    assert_eq!(verdicts[1], done(Some("0032"), false));
    assert_eq!(
        classes(verdict),
        [
            "done",
            "done",
            "contention",
            "contention",
            "duplicate",
            "permanent",
            "gone",
            "unknown"
        ]
    );
    // A row too few: nobody knows whose result is whose.
    let short = classify_batch("salesforce", Upsert, "Contact", 9, &reply(200, &results));
    assert_eq!(classes(short), ["whole", "unknown"]);
    let deleted = json!([{"id": "r0", "success": true, "errors": []}, error("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")]);
    let verdict = classify_batch("salesforce", Delete, "Contact", 2, &reply(200, &deleted));
    assert_eq!(classes(verdict), ["done", "done"]);
    let malformed = json!([{"message": "Unexpected character", "errorCode": "JSON_PARSER_ERROR"}]);
    let verdict = classify_batch("salesforce", Update, "Contact", 2, &reply(400, &malformed));
    assert_eq!(classes(verdict), ["split"]);
    let spent = json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
    let verdict = classify_batch("salesforce", Create, "Contact", 2, &reply(403, &spent));
    assert_eq!(classes(verdict), ["whole", "quota_exhausted"]);
}

#[test]
fn hubspot_is_asked_as_documented_in_each_of_its_versions() {
    let v3 = definition("hubspot");
    let dated = definition("hubspot").with_api_version("2026-03").unwrap();
    let properties = r#""LastName":"Lovelace","Score":"1.50","Phone":"""#;
    let rows = [
        (
            Create,
            "POST ROOT/contacts".to_owned(),
            format!(r#"{{"properties":{{"external_id":"c/42",{properties}}},"associations":[]}}"#),
        ),
        (
            Upsert,
            "POST ROOT/contacts/batch/upsert".to_owned(),
            format!(
                r#"{{"inputs":[{{"id":"c/42","idProperty":"external_id","objectWriteTraceId":"0","properties":{{"external_id":"c/42",{properties}}}}}]}}"#
            ),
        ),
        (
            Update,
            "PATCH ROOT/contacts/7001".to_owned(),
            format!(r#"{{"properties":{{{properties}}}}}"#),
        ),
        (
            Delete,
            "DELETE ROOT/contacts/7001".to_owned(),
            String::new(),
        ),
        (
            Lookup,
            "GET ROOT/contacts/c%2F42?idProperty=external_id".to_owned(),
            String::new(),
        ),
    ];
    for (kind, line, body) in rows {
        for (definition, root) in [(&v3, "/crm/v3/objects"), (&dated, "/crm/objects/2026-03")] {
            assert_eq!(
                request(definition, kind, "contacts"),
                (line.replace("ROOT", root), body.clone()),
                "{kind}"
            );
        }
    }
}

#[test]
fn hubspot_results_are_found_by_trace_or_key_and_its_errors_beside_them() {
    // Recorded in this shape: results in another order, errors apart, status 207.
    let partial = json!({
        "status": "COMPLETE",
        "results": [
            {"id": "902", "new": true, "properties": {"external_id": "c-2"}},
            {"id": "900", "new": false, "objectWriteTraceId": "0", "properties": {}},
        ],
        "numErrors": 2,
        "errors": [
            {"status": "error", "category": "VALIDATION_ERROR", "message": "Email address x is invalid", "context": {"objectWriteTraceId": ["1"]}},
            {"status": "error", "category": "CONFLICT", "message": "Contact already exists. Existing ID: 3401", "context": {"objectWriteTraceId": ["3"]}},
        ],
    });
    let verdict = classify_batch("hubspot", Upsert, "contacts", 5, &reply(207, &partial));
    let BatchVerdict::Items(verdicts) = verdict else {
        panic!("{verdict:?}")
    };
    assert_eq!(verdicts[0], done(Some("900"), false));
    assert_eq!(verdicts[1].class(), "permanent");
    assert_eq!(verdicts[2], done(Some("902"), true));
    assert!(matches!(&verdicts[3], Verdict::Duplicate { remote_id: Some(id), .. } if id == "3401"));
    assert_eq!(verdicts[4].class(), "unknown");
}

#[test]
fn a_hubspot_success_without_results_wrote_nothing() {
    let empty = json!({"status": "COMPLETE", "results": [], "errors": []});
    let upsert = classify_batch("hubspot", Upsert, "contacts", 3, &reply(207, &empty));
    assert_eq!(classes(upsert), ["whole", "transient"]);
    // A create is looked up all the same: the next one like it might have written.
    let create = classify_batch("hubspot", Create, "contacts", 3, &reply(200, &empty));
    assert_eq!(classes(create), ["whole", "unknown"]);
    let archived = classify_batch("hubspot", Delete, "contacts", 2, &reply(204, ""));
    assert_eq!(classes(archived), ["done", "done"]);
}

#[test]
fn a_hubspot_upsert_alone_is_a_batch_of_one() {
    let of = |status, body: Value| classify("hubspot", Upsert, &reply(status, body));
    let result = json!({"results": [{"id": "901", "new": true, "properties": {}}]});
    assert_eq!(of(200, result), done(Some("901"), true));
    let refused =
        json!({"results": [], "errors": [{"category": "VALIDATION_ERROR", "message": "no"}]});
    assert_eq!(of(207, refused).class(), "permanent");
    let bad = json!({"status": "error", "category": "VALIDATION_ERROR", "message": "Property \"x\" does not exist"});
    assert_eq!(of(400, bad).class(), "permanent");
    assert_eq!(of(404, json!({})).class(), "permanent");
}

#[test]
fn hubspot_refusals_name_their_limit() {
    let refusal = |policy: &str, message: &str| json!({"status": "error", "message": message, "errorType": "RATE_LIMIT", "policyName": policy});
    let daily = classify(
        "hubspot",
        Update,
        &reply(429, refusal("DAILY", "You have reached your daily limit.")),
    );
    assert!(
        matches!(&daily, Verdict::QuotaExhausted { limit: Some(limit), .. } if limit == "daily")
    );
    let burst = classify(
        "hubspot",
        Update,
        &reply(429, refusal("TEN_SECONDLY_ROLLING", "")),
    );
    assert!(matches!(
        &burst,
        Verdict::Throttled { limit: Some(limit), retry_after: RetryAfter::Wait(wait), .. }
            if limit == "burst" && *wait == Duration::from_secs(10)
    ));
    let secondly = classify(
        "hubspot",
        Lookup,
        &reply(429, refusal("", "You have reached your secondly limit.")),
    );
    assert!(
        matches!(secondly, Verdict::Throttled { limit: None, retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(1))
    );
    let locked = classify("hubspot", Update, &reply(423, json!({})));
    assert!(
        matches!(locked, Verdict::Contention { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(2))
    );
    let mut moving = reply(477, json!({}));
    moving.retry_after = Some("3600".to_owned());
    let moving = classify("hubspot", Update, &moving);
    assert!(
        matches!(moving, Verdict::Maintenance { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(3600))
    );
    let scopes = classify(
        "hubspot",
        Create,
        &reply(403, json!({"category": "MISSING_SCOPES"})),
    );
    assert!(matches!(
        scopes,
        Verdict::Permission {
            pause: PauseScope::Object,
            ..
        }
    ));
    let twice =
        json!({"message": "Duplicate IDs found in batch input: [12877907025]. IDs must be unique"});
    let twice = classify_batch("hubspot", Upsert, "contacts", 2, &reply(400, &twice));
    assert_eq!(classes(twice), ["split"]);
}

#[test]
fn outreach_is_asked_in_json_api() {
    let definition = definition("outreach");
    assert_eq!(
        request(&definition, Create, "prospects"),
        (
            "POST /api/v2/prospects".to_owned(),
            r#"{"data":{"type":"prospect","attributes":{"externalId":"c/42","LastName":"Lovelace","Score":1.50,"Phone":null}}}"#.to_owned()
        )
    );
    let (line, body) = request(&definition, Update, "prospects");
    assert_eq!(line, "PATCH /api/v2/prospects/7001");
    assert!(
        body.starts_with(r#"{"data":{"type":"prospect","id":7001,"attributes":{"#),
        "{body}"
    );
    assert_eq!(
        request(&definition, Lookup, "accounts").0,
        "GET /api/v2/accounts?filter[customId]=c%2F42&page[size]=2&count=false&newFilterSyntax=true"
    );
    assert_eq!(
        definition.render(Lookup, &subject("prospects")),
        Err(RenderError::NoLookup("prospects".to_owned()))
    );
    assert_eq!(
        definition.headers(),
        [
            ("accept".to_owned(), "application/vnd.api+json".to_owned()),
            (
                "content-type".to_owned(),
                "application/vnd.api+json".to_owned()
            )
        ]
    );
    assert_eq!(definition.batch_group(Update, "prospects"), None);
}

#[test]
fn outreach_replies_are_read() {
    let of = |kind, status, body: Value| classify("outreach", kind, &reply(status, body));
    assert_eq!(
        of(Create, 201, json!({"data": {"type": "prospect", "id": 12}})),
        done(Some("12"), true)
    );
    let hit = json!({"type": "account", "id": 5});
    assert_eq!(of(Lookup, 200, json!({"data": []})), Verdict::Absent);
    assert_eq!(of(Lookup, 200, json!({"data": [hit]})).class(), "found");
    assert_eq!(
        of(Lookup, 200, json!({"data": [hit, {"id": 6}]})).class(),
        "ambiguous"
    );
    let error =
        |id: &str, detail: &str| json!({"errors": [{"id": id, "title": "x", "detail": detail}]});
    assert_eq!(
        of(Update, 422, error("validationError", "Name can't be blank")).class(),
        "permanent"
    );
    assert_eq!(
        of(
            Create,
            422,
            error("validationError", "Contact has already been taken")
        )
        .class(),
        "duplicate"
    );
    assert_eq!(
        of(Update, 403, error("unauthorizedOauthScope", "")).class(),
        "permission"
    );
    assert_eq!(
        of(Update, 403, error("unauthorizedRequest", "")).class(),
        "permanent"
    );
    assert!(matches!(
        of(Update, 415, json!({})),
        Verdict::Permission {
            pause: PauseScope::Account,
            ..
        }
    ));
    assert_eq!(
        of(Update, 404, error("resourceNotFound", "")).class(),
        "gone"
    );
    let mut closed = reply(503, error("scheduledServerMaintenance", ""));
    closed.retry_after = Some("2026-11-21T10:30:00Z".to_owned());
    assert!(matches!(
        classify("outreach", Create, &closed),
        Verdict::Maintenance { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(1800)
    ));
    for reset in ["90", "1795255290", "2026-11-21T10:01:30Z"] {
        let mut full = reply(429, error("rateLimitExceeded", ""));
        full.headers.keep("x-ratelimit-reset", reset);
        assert!(
            matches!(
                classify("outreach", Update, &full),
                Verdict::Throttled { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(90)
            ),
            "{reset}"
        );
    }
}

#[test]
fn pipedrive_is_asked_as_documented() {
    let definition = definition("pipedrive").with_external_id("persons", "f00");
    let fields: &[Field<'_>] = &[
        Field {
            name: "name",
            value: "\"Ada\"",
        },
        Field {
            name: "emails",
            value: "\"a@b.c\"",
        },
        Field {
            name: "phones",
            value: "null",
        },
        Field {
            name: "custom_fields",
            value: r#"{"beef":1,"f00":"other"}"#,
        },
    ];
    let subject = Subject {
        fields,
        ..subject("persons")
    };
    let body = |kind| {
        let request = definition.render(kind, &subject).unwrap();
        String::from_utf8(request.body.to_vec()).unwrap()
    };
    let plain =
        r#""name":"Ada","emails":[{"value":"a@b.c","primary":true,"label":"work"}],"phones":[]"#;
    assert_eq!(
        body(Create),
        format!(r#"{{"custom_fields":{{"f00":"c/42","beef":1}},{plain}}}"#)
    );
    assert_eq!(
        body(Update),
        format!(r#"{{{plain},"custom_fields":{{"beef":1,"f00":"other"}}}}"#)
    );
    assert_eq!(
        request(&definition, Lookup, "persons").0,
        "GET /api/v2/persons/search?term=c%2F42&fields=custom_fields&exact_match=true&limit=2"
    );
    assert_eq!(definition.operation(Upsert), None);
}

#[test]
fn a_pipedrive_day_is_told_from_a_burst_by_a_header() {
    let mut refused = reply(
        429,
        json!({"success": false, "error": "Request over limit"}),
    );
    refused.retry_after = Some("3".to_owned());
    assert!(matches!(
        classify("pipedrive", Update, &refused),
        Verdict::Throttled { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(3)
    ));
    refused
        .headers
        .keep("x-daily-ratelimit-token-remaining", "0");
    assert!(matches!(
        classify("pipedrive", Update, &refused),
        Verdict::QuotaExhausted { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(3600)
    ));
    let found =
        json!({"success": true, "data": {"items": [{"result_score": 1, "item": {"id": 3}}]}});
    assert_eq!(
        classify("pipedrive", Lookup, &reply(200, found)).class(),
        "found"
    );
    let none = json!({"success": true, "data": {"items": []}});
    assert_eq!(
        classify("pipedrive", Lookup, &reply(200, none)),
        Verdict::Absent
    );
    let no = json!({"success": false, "error": "no"});
    assert_eq!(
        classify("pipedrive", Update, &reply(200, no)).class(),
        "permanent"
    );
}

#[test]
fn replies_tell_of_the_limits() {
    let read = |id: &str, headers: &[(&str, &str)]| {
        let mut reply = reply(200, "{}");
        for (name, value) in headers {
            reply.headers.keep(name, value);
        }
        let definition = definition(id);
        let readings = definition.observe(&reply, now());
        readings
            .iter()
            .map(|reading| {
                (
                    reading.limit.to_owned(),
                    reading.used,
                    reading.remaining,
                    reading.max,
                    reading
                        .window
                        .or(reading.resets_in)
                        .map(|window| window.as_secs()),
                )
            })
            .collect::<Vec<_>>()
    };
    let row = |limit: &str, used, remaining, max, seconds| {
        (limit.to_owned(), used, remaining, max, seconds)
    };
    assert_eq!(
        read("salesforce", &[("sforce-limit-info", "api-usage=22/15000")]),
        [row("daily", Some(22), None, Some(15_000), None)]
    );
    assert_eq!(
        read(
            "salesforce",
            &[("sforce-limit-info", "api-usage=22/15000, api-bursts=1/750")]
        )[1],
        row("bursts", Some(1), None, Some(750), None)
    );
    assert_eq!(
        read(
            "hubspot",
            &[
                ("x-hubspot-ratelimit-max", "110"),
                ("x-hubspot-ratelimit-remaining", "108"),
                ("x-hubspot-ratelimit-interval-milliseconds", "10000"),
            ]
        ),
        [row("burst", None, Some(108), Some(110), Some(10))]
    );
    assert_eq!(
        read(
            "outreach",
            &[
                ("x-ratelimit-remaining", "9"),
                ("x-ratelimit-reset", "1795255290")
            ]
        ),
        [row("hourly", None, Some(9), None, Some(90))]
    );
    assert_eq!(read("salesforce", &[("sforce-limit-info", "soon")]), []);
    assert_eq!(read("rest", &[("x-ratelimit-remaining", "9")]), []);
}

#[test]
fn contacts_have_a_mapping_without_any_configuration() {
    for (id, remote, last_name) in [
        ("salesforce", "Contact", "LastName"),
        ("hubspot", "contacts", "lastname"),
        ("pipedrive", "persons", "last_name"),
    ] {
        let definition = definition(id);
        let mapping = definition.default_mapping("contact").unwrap();
        assert_eq!(mapping.remote, remote);
        assert!(
            mapping
                .fields
                .iter()
                .any(|field| field.local == "last_name" && field.remote == last_name)
        );
        assert_eq!(definition.default_mapping("invoice"), None);
    }
    assert_eq!(definition("rest").default_mapping("contact"), None);
}
