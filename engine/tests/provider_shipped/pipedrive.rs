//! Wrapped fields, custom fields, a day told from a burst.

use std::time::Duration;

use serde_json::json;
use syncline_engine::provider::CallKind::{Create, Lookup, Update, Upsert};
use syncline_engine::provider::{Field, RetryAfter, Subject, Verdict};

use crate::support::{classify, definition, reply, request, subject};

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
