//! Collections, error codes and recorded replies.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_engine::provider::CallKind::{Create, Delete, Lookup, Read, Update, Upsert};
use syncline_engine::provider::{
    BatchItem, BatchVerdict, CallKind, RenderError, RetryAfter, Subject, Verdict,
};

use crate::support::{
    batch_body, classes, classify, classify_batch, definition, done, parts, reply, request, subject,
};

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
    // System A's name of an object that has no mapping leads there too.
    assert_eq!(
        request(&own, Update, "account").0,
        "PATCH /services/data/v62.0/sobjects/Account/7001"
    );
    assert_eq!(
        own.batch_group(Update, "account"),
        own.batch_group(Update, "Account")
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
fn salesforce_is_asked_for_many_keys_in_one_query_and_leaves_out_what_is_not_there() {
    let (line, body) = batch_body("salesforce", Lookup, "Contact");
    assert_eq!(
        line,
        "GET /services/data/v62.0/query?q=SELECT%20Id,External_Id__c%20FROM%20Contact%20WHERE%20\
         External_Id__c%20IN%20(%27c-0%27%2C%27c-1%27)"
    );
    assert_eq!(body, Value::Null);
    let row = |id: &str, key: &str| json!({"Id": id, "External_Id__c": key});
    let rows = json!({"totalSize": 4, "done": true, "records": [
        row("003A", "c-1"), row("003B", "C-2"), row("003C", "c-3"), row("003D", "c-3"),
    ]});
    let verdict = classify_batch("salesforce", Lookup, "Contact", 4, &reply(200, &rows));
    let BatchVerdict::Items(verdicts) = verdict else {
        panic!("{verdict:?}")
    };
    let found = |id: &str| Verdict::Found {
        remote_id: id.to_owned(),
    };
    assert_eq!(
        verdicts[..3],
        [Verdict::Absent, found("003A"), found("003B")]
    );
    assert_eq!(
        verdicts[3],
        Verdict::Ambiguous {
            detail: "003C and 003D have this key".to_owned()
        }
    );
    let none = json!({"totalSize": 0, "done": true, "records": []});
    let none = classify_batch("salesforce", Lookup, "Contact", 2, &reply(200, &none));
    assert_eq!(classes(none), ["absent", "absent"]);
    let cut = classify_batch("salesforce", Lookup, "Contact", 2, &reply(200, "{}"));
    assert_eq!(classes(cut), ["whole", "unknown"]);
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
    let no_field = json!([{"message": "Provided external ID field does not exist or is not accessible: Key__c", "errorCode": "NOT_FOUND"}]);
    let verdict = classify_batch("salesforce", Upsert, "Contact", 2, &reply(404, &no_field));
    assert_eq!(classes(verdict), ["whole", "permission"]);
    let spent = json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
    let verdict = classify_batch("salesforce", Create, "Contact", 2, &reply(403, &spent));
    assert_eq!(classes(verdict), ["whole", "quota_exhausted"]);
}

#[test]
fn salesforce_shows_many_records_at_once_in_the_order_asked_for() {
    let (line, body) = batch_body("salesforce", Read, "Contact");
    assert!(line.starts_with("POST /services/data/v"), "{line}");
    assert!(line.ends_with("/composite/sobjects/Contact"), "{line}");
    assert_eq!(body["ids"], json!(["r0", "r1"]));
    let reply = reply(200, json!([{"Id": "r0", "LastName": "A"}, null]));
    let verdict = classify_batch("salesforce", Read, "Contact", 2, &reply);
    assert_eq!(classes(verdict), ["done", "gone"]);
    let first = r#"{"Id":"r0","LastName":"A"}"#.to_owned();
    assert_eq!(
        parts("salesforce", "Contact", 2, &reply),
        [Some(first), None]
    );
}
