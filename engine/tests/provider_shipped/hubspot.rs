//! Trace ids, partial results and limits by name.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_engine::provider::CallKind::{Create, Delete, Lookup, Match, Read, Update, Upsert};
use syncline_engine::provider::{BatchVerdict, PauseScope, RestSettings, RetryAfter, Verdict};

use crate::support::{
    batch_body, classes, classify, classify_batch, definition, done, parts, reply, request,
};

#[test]
fn hubspot_is_asked_as_documented_in_each_of_its_versions() {
    let v3 = definition("hubspot");
    let settings = RestSettings {
        api_version: Some("2026-03".to_owned()),
        ..RestSettings::default()
    };
    let dated = definition("hubspot").with_rest(&settings).unwrap();
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
            Read,
            "GET ROOT/contacts/7001?properties=LastName%2CScore%2CPhone".to_owned(),
            String::new(),
        ),
        (
            Lookup,
            "GET ROOT/contacts/c%2F42?idProperty=external_id".to_owned(),
            String::new(),
        ),
        (
            Match,
            "POST ROOT/contacts/search".to_owned(),
            r#"{"filterGroups":[{"filters":[{"propertyName":"LastName","operator":"EQ","value":"Lovelace"},{"propertyName":"Score","operator":"EQ","value":"1.50"},{"propertyName":"Phone","operator":"EQ","value":""}]}],"properties":["hs_object_id"],"limit":10}"#.to_owned(),
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
fn hubspot_is_asked_for_many_keys_at_once_and_says_which_are_not_there() {
    let (line, body) = batch_body("hubspot", Lookup, "contacts");
    assert_eq!(line, "POST /crm/v3/objects/contacts/batch/read");
    assert_eq!(
        body,
        json!({"idProperty": "external_id", "inputs": [{"id": "c-0"}, {"id": "c-1"}],
               "properties": ["external_id"], "propertiesWithHistory": []})
    );
    // Keys are told apart without case there, and shown as they were written first.
    let partial = json!({
        "status": "COMPLETE",
        "results": [{"id": "902", "properties": {"external_id": "C-2"}}],
        "numErrors": 1,
        "errors": [{"status": "error", "category": "OBJECT_NOT_FOUND",
                    "message": "Could not get some CONTACT objects, they may be deleted or not exist.",
                    "context": {"ids": ["c-0", "c-3"]}}],
    });
    let verdict = classify_batch("hubspot", Lookup, "contacts", 4, &reply(207, &partial));
    let BatchVerdict::Items(verdicts) = verdict else {
        panic!("{verdict:?}")
    };
    let found = |id: &str| Verdict::Found {
        remote_id: id.to_owned(),
    };
    assert_eq!(verdicts[0], Verdict::Absent);
    assert_eq!(verdicts[1].class(), "unknown", "neither found nor missing");
    assert_eq!(verdicts[2], found("902"));
    assert_eq!(verdicts[3], Verdict::Absent);
    let failed = classify_batch("hubspot", Lookup, "contacts", 2, &reply(502, ""));
    assert_eq!(classes(failed), ["whole", "transient"]);
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
fn hubspot_shows_many_records_at_once_each_as_if_it_were_read_alone() {
    let (line, body) = batch_body("hubspot", Read, "contacts");
    assert_eq!(line, "POST /crm/v3/objects/contacts/batch/read");
    assert_eq!(body["inputs"], json!([{"id": "r0"}, {"id": "r1"}]));
    let partial = json!({
        "status": "COMPLETE",
        "results": [{"id": "r2", "properties": {"a": "2"}}, {"id": "r0", "properties": {"a": "0"}}],
        "errors": [{"category": "OBJECT_NOT_FOUND", "context": {"ids": ["r1"]}}],
    });
    let reply = reply(207, &partial);
    let verdict = classify_batch("hubspot", Read, "contacts", 4, &reply);
    assert_eq!(classes(verdict), ["done", "gone", "done", "unknown"]);
    assert_eq!(
        parts("hubspot", "contacts", 4, &reply),
        [
            Some(r#"{"a":"0"}"#.to_owned()),
            None,
            Some(r#"{"a":"2"}"#.to_owned()),
            None
        ]
    );
}
