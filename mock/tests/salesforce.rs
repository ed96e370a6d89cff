//! What a Salesforce org does that callers have to know of.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod caller;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};
use syncline_mock::{AccountConfig, Change, ProviderKind};

use caller::{Caller, EPOCH, config};

const DATA: &str = "/services/data/v62.0";

fn org(faults: &str) -> Caller {
    Caller::new(ProviderKind::Salesforce, faults)
}

fn path(below: &str) -> String {
    format!("{DATA}/{below}")
}

fn create(org: &mut Caller, object: &str, fields: &Value) -> String {
    let (status, body) = org.post(&path(&format!("sobjects/{object}/")), fields);
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

fn contact(org: &mut Caller, key: &str) -> String {
    let fields = json!({"LastName": key, "External_Id__c": key});
    create(org, "Contact", &fields)
}

/// A row of a collection of contacts.
fn row(fields: Value) -> Value {
    let mut row = json!({"attributes": {"type": "Contact"}});
    row.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    row
}

fn upsert_rows(org: &mut Caller, rows: &[Value]) -> Value {
    let body = json!({"allOrNone": false, "records": rows});
    let (status, body) = org.patch(&path("composite/sobjects/Contact/External_Id__c"), &body);
    assert_eq!(status, 200, "{body}");
    body
}

fn error_code(body: &Value) -> &str {
    body[0]["errorCode"].as_str().unwrap()
}

#[test]
fn a_record_lives_from_its_create_to_its_delete() {
    let mut org = org("");
    let fields = json!({"LastName": "Lovelace", "FirstName": "Ada", "Email": "ada@example.com"});
    let reply = org.reply(Method::POST, &path("sobjects/Contact/"), &fields);
    assert_eq!(reply.status, 201);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let id = body["id"].as_str().unwrap();
    assert_eq!(body, json!({"id": id, "success": true, "errors": []}));
    assert_eq!(id.len(), 18);
    let record = path(&format!("sobjects/Contact/{id}"));
    assert_eq!(reply.header("location"), Some(record.as_str()));

    let changes = json!({"Email": null, "Status__c": "A"});
    assert_eq!(org.patch(&record, &changes), (204, Value::Null));
    let (_, shown) = org.get(&format!("{record}?fields=Id,Name,Email,Status__c"));
    assert_eq!(
        shown,
        json!({
            "attributes": {"type": "Contact", "url": record},
            "Id": id, "Name": "Ada Lovelace", "Email": null, "Status__c": "A",
        })
    );
    let short = path(&format!("sobjects/Contact/{}", &id[..15]));
    assert_eq!(org.get(&short).0, 200);
    assert_eq!(org.delete(&record), (204, Value::Null));
    let (status, body) = org.delete(&record);
    assert_eq!((status, error_code(&body)), (404, "ENTITY_IS_DELETED"));
    assert_eq!(org.get(&record).0, 404);
}

#[test]
fn an_upsert_tells_whether_it_created_and_takes_no_key_in_its_body() {
    let mut org = org("");
    let target = path("sobjects/Contact/External_Id__c/c%2F1");
    let (status, body) = org.patch(&target, &json!({"LastName": "A"}));
    let id = body["id"].clone();
    assert_eq!((status, &body["created"]), (201, &json!(true)));
    let (status, body) = org.patch(&target, &json!({"LastName": "B"}));
    let known = json!({"id": id, "success": true, "errors": [], "created": false});
    assert_eq!((status, body), (200, known));
    let shown = org.fields_of(id.as_str().unwrap());
    assert_eq!(shown, json!({"LastName": "B", "External_Id__c": "c/1"}));

    let keyed = json!({"LastName": "B", "External_Id__c": "c/1"});
    let (status, body) = org.patch(&target, &keyed);
    assert_eq!((status, error_code(&body)), (400, "INVALID_FIELD"));
    let absent = path("sobjects/Contact/External_Id__c/c-9?updateOnly=true");
    assert_eq!(org.patch(&absent, &json!({"LastName": "B"})).0, 404);
    let unknown = path("sobjects/Contact/Nothing__c/c-1");
    let (status, body) = org.patch(&unknown, &json!({"LastName": "B"}));
    assert_eq!((status, error_code(&body)), (404, "NOT_FOUND"));
    let old = "/services/data/v45.0/sobjects/Contact/External_Id__c/c%2F1";
    assert_eq!(org.patch(old, &json!({"Title": "C"})), (204, Value::Null));
}

#[test]
fn a_key_of_several_records_is_answered_with_their_paths() {
    let mut org = org("");
    let fields = json!({"LastName": "A", "Email": "a@example.com"});
    let one = create(&mut org, "Contact", &fields);
    let two = create(&mut org, "Contact", &fields);
    let target = path("sobjects/Contact/Email/A%40example.com");
    let urls = json!([
        path(&format!("sobjects/Contact/{one}")),
        path(&format!("sobjects/Contact/{two}")),
    ]);
    assert_eq!(
        org.patch(&target, &json!({"Title": "x"})),
        (300, urls.clone())
    );
    assert_eq!(org.get(&target), (300, urls));
    assert_eq!(org.account.violations().duplicate_creates, 0);
}

#[test]
fn a_second_record_of_a_unique_key_is_refused_in_any_case() {
    let mut org = org("");
    let first = contact(&mut org, "c-1");
    let again = json!({"LastName": "B", "External_Id__c": "C-1"});
    let (status, body) = org.post(&path("sobjects/Contact"), &again);
    assert_eq!(status, 400);
    assert_eq!(
        body,
        json!([{
            "message": format!(
                "duplicate value found: External_Id__c duplicates value on record with id: {}",
                &first[..15]
            ),
            "errorCode": "DUPLICATE_VALUE",
            "fields": ["External_Id__c"],
        }])
    );
}

#[test]
fn fields_are_checked_one_by_one() {
    let mut org = org("");
    let long = "x".repeat(256);
    for (fields, code) in [
        (json!({"FirstName": "A"}), "REQUIRED_FIELD_MISSING"),
        (json!({"LastName": "A", "first_name": "A"}), "INVALID_FIELD"),
        (
            json!({"LastName": "A", "Email": "nobody"}),
            "INVALID_EMAIL_ADDRESS",
        ),
        (json!({"LastName": long}), "STRING_TOO_LONG"),
        (
            json!({"LastName": "A", "Name": "B"}),
            "INVALID_FIELD_FOR_INSERT_UPDATE",
        ),
        (json!({"LastName": "A", "AccountId": "a-1"}), "MALFORMED_ID"),
        (
            json!({"LastName": "A", "AccountId": "0015e0000000009AAA"}),
            "INVALID_CROSS_REFERENCE_KEY",
        ),
        (json!({"LastName": ["A"]}), "JSON_PARSER_ERROR"),
        (
            json!({"LastName": "A", "poison": true}),
            "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        ),
    ] {
        let (status, body) = org.post(&path("sobjects/Contact"), &fields);
        assert_eq!((status, error_code(&body)), (400, code), "{fields}");
    }
    assert_eq!(org.account.records().count(), 0);
    assert_eq!(org.post(&path("sobjects/Nothing"), &json!({})).0, 404);
    let (status, body) = org.post(&path("sobjects/Contact"), &json!("no JSON"));
    assert_eq!((status, error_code(&body)), (400, "JSON_PARSER_ERROR"));
}

#[test]
fn an_object_tells_its_fields_with_those_that_records_brought() {
    let mut org = org("");
    create(
        &mut org,
        "Contact",
        &json!({"LastName": "A", "Score__c": 3}),
    );
    let (status, page) = org.get(&path("sobjects/Contact/describe"));
    assert_eq!((status, &page["name"]), (200, &json!("Contact")));
    let fields = page["fields"].as_array().unwrap();
    let field = |name: &str| {
        let mut fields = fields.iter();
        fields
            .find(|field| field["name"] == name)
            .unwrap_or(&Value::Null)
    };
    assert_eq!(field("Score__c")["custom"], true);
    assert_eq!(field("External_Id__c")["externalId"], true);
    assert_eq!(
        (&field("AccountId")["type"], &field("Id")["type"]),
        (&json!("reference"), &json!("id"))
    );
    assert_eq!(field("LastName")["nillable"], false);
    assert_eq!(field("Nothing"), &Value::Null);
    assert_eq!(org.get(&path("sobjects/Nothing/describe")).0, 404);
}

#[test]
fn a_parent_is_named_by_id_or_by_its_own_key() {
    let mut org = org("");
    let account = create(
        &mut org,
        "Account",
        &json!({"Name": "Acme", "External_Id__c": "a-1"}),
    );
    let by_key = json!({"LastName": "A", "Account": {"External_Id__c": "a-1"}});
    let child = create(&mut org, "Contact", &by_key);
    assert_eq!(org.fields_of(&child)["AccountId"], account);
    let by_id = json!({"LastName": "B", "AccountId": &account[..15]});
    let child = create(&mut org, "Contact", &by_id);
    assert_eq!(org.fields_of(&child)["AccountId"], account);

    let type_last = json!({"External_Id__c": "a-1", "attributes": {"type": "Account"}});
    let late = json!({"LastName": "C", "Account": type_last});
    let (status, body) = org.post(&path("sobjects/Contact"), &late);
    assert_eq!((status, error_code(&body)), (400, "JSON_PARSER_ERROR"));
    let nobody = json!({"LastName": "C", "Account": {"External_Id__c": "a-9"}});
    let (_, body) = org.post(&path("sobjects/Contact"), &nobody);
    assert_eq!(error_code(&body), "INVALID_FIELD");
}

#[test]
fn a_collection_answers_row_by_row_in_the_order_asked() {
    let mut org = org("");
    let rows = upsert_rows(
        &mut org,
        &[
            row(json!({"External_Id__c": "c-1", "LastName": "A"})),
            row(json!({"External_Id__c": "c-2"})),
            row(json!({"External_Id__c": "c-3", "LastName": "C"})),
        ],
    );
    assert_eq!(rows[0]["created"], true);
    assert_eq!(rows[1]["success"], false);
    assert_eq!(rows[1]["errors"][0]["statusCode"], "REQUIRED_FIELD_MISSING");
    assert_eq!(rows[2]["success"], true);
    let call = org.account.journal().get(1).unwrap();
    assert_eq!((call.records, call.object.as_deref()), (3, Some("Contact")));

    let ids = [
        rows[0]["id"].as_str().unwrap(),
        rows[2]["id"].as_str().unwrap(),
    ];
    let update = json!({"records": [
        row(json!({"id": ids[1], "Title": "x"})),
        // As jsforce writes it.
        json!({"id": ids[0], "attributes": {"type": "Contact"}, "Title": "y"}),
    ]});
    let (_, rows) = org.patch(&path("composite/sobjects"), &update);
    assert_eq!(
        (&rows[0]["id"], &rows[1]["id"]),
        (&json!(ids[1]), &json!(ids[0]))
    );
    let read = json!({"ids": [ids[1], "0035e0000000009AAA"], "fields": ["Title"]});
    let (_, rows) = org.post(&path("composite/sobjects/Contact"), &read);
    assert_eq!((&rows[0]["Title"], &rows[1]), (&json!("x"), &Value::Null));
    let target = format!("composite/sobjects?ids={},{},{}", ids[0], ids[1], ids[0]);
    let (_, rows) = org.delete(&path(&target));
    assert_eq!(rows[2]["errors"][0]["statusCode"], "ENTITY_IS_DELETED");
    assert_eq!(org.account.records().count(), 0);
}

#[test]
fn rows_that_share_a_key_are_all_turned_down_whatever_their_case() {
    let mut org = org("");
    let rows = upsert_rows(
        &mut org,
        &[
            row(json!({"External_Id__c": "c-1", "LastName": "A"})),
            row(json!({"External_Id__c": "c-2", "LastName": "B"})),
            row(json!({"External_Id__c": "C-1", "LastName": "C"})),
        ],
    );
    for index in [0, 2] {
        let error = &rows[index]["errors"][0];
        assert_eq!(error["statusCode"], "DUPLICATE_VALUE");
        let message = error["message"].as_str().unwrap();
        assert!(
            message.starts_with("Duplicate external id specified"),
            "{message}"
        );
    }
    assert_eq!(rows[1]["success"], true);
    assert_eq!(org.account.records().count(), 1);
}

#[test]
fn a_collection_that_is_not_well_formed_is_refused_whole() {
    let mut org = org("");
    let untyped = json!({"External_Id__c": "c-1", "attributes": {}});
    let many: Vec<Value> = (0..201)
        .map(|n| row(json!({"External_Id__c": n.to_string(), "LastName": "A"})))
        .collect();
    let mut types = Vec::new();
    for n in 0..11 {
        let object = if n % 2 == 0 { "Contact" } else { "Account" };
        types.push(json!({"attributes": {"type": object}, "LastName": "A", "Name": "B"}));
    }
    for (below, records) in [
        (
            "composite/sobjects/Contact/External_Id__c",
            json!([untyped]),
        ),
        ("composite/sobjects/Contact/External_Id__c", json!(many)),
        ("composite/sobjects", json!(types)),
    ] {
        let body = json!({"records": records});
        let method = if below.ends_with("sobjects") {
            Method::POST
        } else {
            Method::PATCH
        };
        let (status, body) = org.call(method, &path(below), &body);
        assert_eq!(status, 400, "{body}");
    }
    assert_eq!(org.account.records().count(), 0);
}

#[test]
fn all_or_none_takes_the_good_rows_back() {
    let mut org = org("");
    let body = json!({"allOrNone": true, "records": [
        row(json!({"External_Id__c": "c-1", "LastName": "A"})),
        row(json!({"External_Id__c": "c-2"})),
    ]});
    let (_, rows) = org.patch(&path("composite/sobjects/Contact/External_Id__c"), &body);
    let codes: Vec<_> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| &row["errors"][0]["statusCode"])
        .collect();
    assert_eq!(
        codes,
        [
            "ALL_OR_NONE_OPERATION_ROLLED_BACK",
            "REQUIRED_FIELD_MISSING"
        ]
    );
    assert_eq!(org.account.records().count(), 0);
}

#[test]
fn a_locked_row_fails_alone() {
    let mut org = org("lock=0.5");
    let rows: Vec<Value> = (0..100)
        .map(|n| row(json!({"External_Id__c": n.to_string(), "LastName": "A"})))
        .collect();
    let results = upsert_rows(&mut org, &rows);
    let locked = results
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["errors"][0]["statusCode"] == "UNABLE_TO_LOCK_ROW");
    let locked = locked.count();
    assert!((30..70).contains(&locked), "{locked}");
    assert_eq!(org.account.records().count(), 100 - locked);
}

#[test]
fn a_composite_call_is_one_call_and_later_parts_use_what_earlier_ones_made() {
    let mut org = org("");
    let body = json!({"allOrNone": true, "compositeRequest": [
        {"method": "POST", "url": path("sobjects/Account"), "referenceId": "acme",
         "body": {"Name": "Acme"}},
        {"method": "POST", "url": path("sobjects/Contact"), "referenceId": "ada",
         "body": {"LastName": "A", "AccountId": "@{acme.id}"}},
        {"method": "GET", "url": path("sobjects/Contact/@{ada.id}?fields=AccountId"),
         "referenceId": "read"},
    ]});
    let reply = org.reply(Method::POST, &path("composite"), &body);
    assert_eq!(
        reply.header("sforce-limit-info"),
        Some("api-usage=1/100000")
    );
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    let parts = &answer["compositeResponse"];
    assert_eq!(parts[2]["httpStatusCode"], 200);
    assert_eq!(parts[2]["body"]["AccountId"], parts[0]["body"]["id"]);

    let heavy = json!({"method": "GET", "url": path("query?q=x"), "referenceId": "q"});
    let body = json!({"compositeRequest": vec![heavy; 6]});
    assert_eq!(org.post(&path("composite"), &body).0, 400);
    let body = json!({"allOrNone": true, "compositeRequest": [
        {"method": "POST", "url": path("sobjects/Account"), "referenceId": "a",
         "body": {"Name": "B"}},
        {"method": "POST", "url": path("sobjects/Account"), "referenceId": "b", "body": {}},
    ]});
    let (_, answer) = org.post(&path("composite"), &body);
    assert_eq!(
        answer["compositeResponse"][0]["body"][0]["errorCode"],
        "PROCESSING_HALTED"
    );
    assert_eq!(org.account.records().count(), 2);
}

#[test]
fn a_polling_query_pages_over_a_snapshot() {
    let mut org = org("");
    org.header("sforce-query-options", "batchSize=200");
    for n in 0..450 {
        contact(&mut org, &format!("c-{n}"));
    }
    let query = path(
        "query/?q=SELECT+Id,External_Id__c,SystemModstamp+FROM+Contact+WHERE+SystemModstamp+%3E%3D\
         +2026-11-20T00:00:00.000Z+ORDER+BY+SystemModstamp,+Id",
    );
    let (status, mut page) = org.get(&query);
    assert_eq!((status, &page["totalSize"]), (200, &json!(450)));
    assert_eq!(
        page["records"][0]["SystemModstamp"],
        "2026-11-20T10:00:00.000+0000"
    );
    let mut seen = Vec::new();
    contact(&mut org, "later");
    loop {
        for record in page["records"].as_array().unwrap() {
            seen.push(record["External_Id__c"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["nextRecordsUrl"].as_str() else {
            break;
        };
        assert_eq!(page["done"], false);
        let next = next.to_owned();
        page = org.get(&next).1;
    }
    assert_eq!(page["done"], true);
    assert_eq!(seen.len(), 450);
    assert!(!seen.contains(&"later".to_owned()));
    let lost = org.get(&path("query/01g5e0000000009-200"));
    assert_eq!(error_code(&lost.1), "INVALID_QUERY_LOCATOR");
    let (_, count) = org.get(&path("query?q=SELECT+COUNT()+FROM+Contact"));
    assert_eq!(count["totalSize"], 451);
    for (text, code) in [
        ("SELECT+Nothing+FROM+Contact", "INVALID_FIELD"),
        ("SELECT+Id+FROM+Nothing", "INVALID_TYPE"),
        ("SELECT+Id", "MALFORMED_QUERY"),
    ] {
        let (status, body) = org.get(&path(&format!("query?q={text}")));
        assert_eq!((status, error_code(&body)), (400, code));
    }
}

#[test]
fn changes_and_deletes_are_told_by_span_of_time() {
    let mut org = org("");
    let (one, two) = (contact(&mut org, "c-1"), contact(&mut org, "c-2"));
    org.wait(Duration::from_secs(100));
    org.edit("Contact", Some(&one), Change::MergeInto(two.clone()));
    org.wait(Duration::from_secs(100));
    let span = "start=2026-11-20T10:01:00%2B00:00&end=2026-11-20T10:03:00%2B00:00";
    let (_, page) = org.get(&path(&format!("sobjects/Contact/updated/?{span}")));
    assert_eq!(
        page,
        json!({"ids": [two], "latestDateCovered": "2026-11-20T10:03:00.000+0000"})
    );
    let (_, page) = org.get(&path(&format!("sobjects/Contact/deleted/?{span}")));
    let at = "2026-11-20T10:01:40.000+0000";
    assert_eq!(
        page["deletedRecords"],
        json!([{"id": one, "deletedDate": at}])
    );
    assert_eq!(
        page["earliestDateAvailable"],
        "2026-11-20T10:00:00.000+0000"
    );
    let (_, rows) = org.get(&path(
        "queryAll?q=SELECT+Id+FROM+Contact+WHERE+IsDeleted=true",
    ));
    assert_eq!(rows["records"][0]["Id"], one);
    let backwards = "start=2026-11-20T10:03:00Z&end=2026-11-20T10:01:00Z";
    let (status, body) = org.get(&path(&format!("sobjects/Contact/updated?{backwards}")));
    assert_eq!(
        (status, error_code(&body)),
        (400, "INVALID_REPLICATION_DATE")
    );
    let old = "start=2026-11-01T10:03:00Z&end=2026-11-20T10:01:00Z";
    assert_eq!(
        org.get(&path(&format!("sobjects/Contact/deleted?{old}"))).0,
        400
    );
}

#[test]
fn a_record_that_changed_later_is_not_written_under_a_precondition() {
    let mut org = org("");
    let id = contact(&mut org, "c-1");
    let record = path(&format!("sobjects/Contact/{id}"));
    org.wait(Duration::from_secs(10));
    org.header("if-modified-since", "Fri, 20 Nov 2026 10:00:05 GMT");
    assert_eq!(org.get(&record), (304, Value::Null));
    org.header("if-unmodified-since", "Fri, 20 Nov 2026 10:00:05 GMT");
    assert_eq!(org.patch(&record, &json!({"Title": "a"})).0, 204);
    assert_eq!(org.get(&record).0, 200);
    assert_eq!(org.patch(&record, &json!({"Title": "b"})).0, 412);
    assert_eq!(org.fields_of(&id)["Title"], "a");
}

#[test]
fn the_day_and_long_calls_are_limited_and_every_reply_tells_the_use() {
    let limits = ["daily=3/24h", "long_running=1/open"];
    let mut org = Caller::of(AccountConfig {
        limits: limits.iter().map(|limit| limit.parse().unwrap()).collect(),
        ..config(ProviderKind::Salesforce)
    });
    let versions = org.get("/services/data").1;
    assert_eq!(
        versions.as_array().unwrap().last().unwrap()["version"],
        "67.0"
    );
    let (_, page) = org.get(&path("limits"));
    assert_eq!(page["DailyApiRequests"], json!({"Max": 3, "Remaining": 1}));
    contact(&mut org, "c-1");
    let reply = org.reply(Method::GET, &path("limits"), &Value::Null);
    assert_eq!(reply.status, 403);
    assert_eq!(reply.header("sforce-limit-info"), Some("api-usage=3/3"));
    assert_eq!(reply.retry_after_s, None);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let said = json!([{"message": "TotalRequests Limit exceeded.", "errorCode": "REQUEST_LIMIT_EXCEEDED"}]);
    assert_eq!(body, said);
    let counted = org.account.violations();
    assert_eq!(
        counted.by_limit,
        [("daily".to_owned(), 1), ("long_running".to_owned(), 0)]
    );

    org.wait(Duration::from_secs(24 * 60 * 60));
    let slow = syncline_mock::Request::bare(Method::GET, "/services/data/v62.0/limits");
    let headers = org.headers.clone();
    let open = org.account.arrive_with(org.now, &slow, headers);
    org.wait(Duration::from_secs(20));
    let (status, body) = org.get(&path("limits"));
    assert_eq!(status, 403);
    assert_eq!(
        body[0]["message"],
        "ConcurrentPerOrgLongTxn Limit exceeded."
    );
    org.account.finish(org.now, open.call);
    assert_eq!(org.get(&path("limits")).0, 200);
}

#[test]
fn a_session_is_opened_by_a_grant_and_its_end_is_told_by_401_alone() {
    let mut org = Caller::of(AccountConfig {
        provider: ProviderKind::Salesforce,
        epoch: EPOCH,
        base_url: "https://org.example".into(),
        ..AccountConfig::default()
    });
    let (status, body) = org.get(&path("limits"));
    assert_eq!(
        (status, body),
        (
            401,
            json!([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])
        )
    );
    let ask = |form: &str| json!(form);
    let form = ask("grant_type=client_credentials&client_id=app&client_secret=s");
    let (status, minted) = org.post("/services/oauth2/token", &form);
    assert_eq!(
        (status, &minted["instance_url"]),
        (200, &json!("https://org.example"))
    );
    assert!(minted.get("expires_in").is_none() && minted.get("refresh_token").is_none());
    let token = minted["access_token"].as_str().unwrap();
    org.header("authorization", &format!("Bearer {token}"));
    assert_eq!(org.get(&path("limits")).0, 200);
    org.account.expire_tokens();
    assert_eq!(org.get(&path("limits")).0, 401);

    let claims = json!({"iss": "app", "sub": "me", "aud": "x", "exp": EPOCH.as_secs() + 180});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let assertion = format!("{}.{}.c2ln", part(&json!({"alg": "RS256"})), part(&claims));
    let grant = "urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer";
    let form = ask(&format!("grant_type={grant}&assertion={assertion}"));
    assert_eq!(org.post("/services/oauth2/token", &form).0, 200);
    let (status, body) = org.post("/services/oauth2/token", &ask("grant_type=password"));
    assert_eq!(
        (status, &body["error"]),
        (400, &json!("unsupported_grant_type"))
    );
    org.header("authorization", "Basic abc");
    assert_eq!(
        error_code(&org.get(&path("limits")).1),
        "INVALID_AUTH_HEADER"
    );
    assert_eq!(org.account.violations().total, 0);
}

#[test]
fn maintenance_is_told_as_a_server_that_is_away() {
    let mut org = org("maintenance=1");
    let (status, body) = org.get(&path("limits"));
    assert_eq!((status, error_code(&body)), (503, "SERVER_UNAVAILABLE"));
}

#[test]
fn two_writes_of_a_record_at_a_time_overlap_whichever_way_they_name_it() {
    let mut org = org("");
    let id = contact(&mut org, "c-1");
    let by_id = path(&format!("sobjects/Contact/{id}"));
    let body = json!({"Title": "x"});
    let rows = json!({"records": [row(json!({"External_Id__c": "c-1", "Title": "y"}))]});
    let by_id = syncline_mock::Request::json(Method::PATCH, &by_id, &body);
    let target = path("composite/sobjects/Contact/External_Id__c");
    let by_key = syncline_mock::Request::json(Method::PATCH, &target, &rows);
    let one = org
        .account
        .arrive_with(org.now, &by_id, org.headers.clone());
    let two = org
        .account
        .arrive_with(org.now, &by_key, org.headers.clone());
    org.account.finish(org.now, one.call);
    org.account.finish(org.now, two.call);
    assert_eq!(org.account.violations().overlaps, 1);
    assert_eq!(org.fields_of(&id)["Title"], "y");
}
