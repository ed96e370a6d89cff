//! JSON:API, numbers as ids, no look-up of prospects.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_engine::provider::CallKind::{Create, Lookup, Read, Update};
use syncline_engine::provider::{PauseScope, RenderError, RetryAfter, Verdict};

use crate::support::{
    batch_body, classes, classify, classify_batch, definition, done, parts, reply, request, subject,
};

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
fn outreach_lists_many_records_at_once_and_leaves_out_what_is_not_there() {
    let (line, _) = batch_body("outreach", Read, "prospects");
    assert!(
        line.contains("/api/v2/prospects?filter[id]=r0%2Cr1&"),
        "{line}"
    );
    let reply = reply(200, json!({"data": [{"id": "r1", "attributes": {"a": 1}}]}));
    let verdict = classify_batch("outreach", Read, "prospects", 2, &reply);
    assert_eq!(classes(verdict), ["gone", "done"]);
    let second = r#"{"a":1}"#.to_owned();
    assert_eq!(
        parts("outreach", "prospects", 2, &reply),
        [None, Some(second)]
    );
}
