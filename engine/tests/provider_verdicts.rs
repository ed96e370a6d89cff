//! Status classes: what each reply, and each lack of one, means for the operation.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::Duration;

use bytes::Bytes;
use syncline_engine::provider::{
    BodyEnd, CallKind, DETAIL_BYTES_MAX, Definition, NoReply, NotSent, Reply, ReplyHeaders,
    RestSettings, RetryAfter, SendFailure, Verdict, shipped,
};

use syncline_engine::provider::CallKind::{Create, Delete, Lookup, Read, Update, Upsert};

const WRITES: &[CallKind] = &[Create, Upsert, Update, Delete];
/// What a plain account can be asked for.
const ALL: &[CallKind] = &[Create, Upsert, Update, Delete, Read, Lookup];

fn rest() -> Definition {
    Definition::parse(shipped("rest").unwrap()).unwrap()
}

fn reply(status: u16, body: impl AsRef<[u8]>) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::copy_from_slice(body.as_ref()),
        body_end: BodyEnd::Complete,
    }
}

fn classify(kind: CallKind, reply: &Reply) -> Verdict {
    let now = "1994-11-06T08:49:00Z".parse().unwrap();
    let verdict = rest().classify(kind, "c-42", reply, now);
    assert!(
        verdict
            .detail()
            .is_none_or(|detail| detail.len() <= DETAIL_BYTES_MAX)
    );
    verdict
}

fn done(remote_id: Option<&str>, created: bool) -> Verdict {
    Verdict::Done {
        remote_id: remote_id.map(str::to_owned),
        created,
    }
}

#[test]
fn each_error_status_has_one_class_per_kind_of_call() {
    let keyed: &[CallKind] = &[Upsert, Update, Delete, Read, Lookup];
    let reads: &[CallKind] = &[Read, Lookup];
    let rows: &[(&[u16], &[CallKind], &str)] = &[
        (&[429], ALL, "throttled"),
        (&[401], ALL, "unauthorized"),
        (
            &[408, 425, 500, 501, 502, 503, 504, 507, 521, 599],
            keyed,
            "transient",
        ),
        (
            &[408, 425, 500, 501, 502, 503, 504, 507, 521, 599],
            &[Create],
            "unknown",
        ),
        (&[404, 410], &[Update, Read], "gone"),
        (&[404, 410], &[Delete], "done"),
        (&[404, 410], &[Create, Upsert, Lookup], "permanent"),
        (&[409], &[Create, Upsert, Update], "duplicate"),
        (&[409], &[Delete, Read, Lookup], "permanent"),
        (&[412], WRITES, "conflict"),
        (&[412], reads, "permanent"),
        (&[300, 301, 302, 303, 304, 307, 308], ALL, "permanent"),
        (
            &[
                400, 402, 403, 405, 406, 411, 413, 414, 415, 418, 422, 423, 428, 431, 451, 499,
            ],
            ALL,
            "permanent",
        ),
        (&[100, 101, 199, 600, 999], ALL, "unknown"),
    ];
    for (statuses, kinds, class) in rows {
        for status in *statuses {
            for kind in *kinds {
                // Neither the body nor its end changes what an error status means.
                for body in ["", "{}", r#"{"id":"7"}"#, "<html>", "\u{0}"] {
                    for body_end in [
                        BodyEnd::Complete,
                        BodyEnd::TooLarge,
                        BodyEnd::Broken,
                        BodyEnd::Deadline,
                    ] {
                        let reply = Reply {
                            body_end,
                            ..reply(*status, body)
                        };
                        assert_eq!(
                            classify(*kind, &reply).class(),
                            *class,
                            "{status} {kind} {body}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn a_503_pauses_the_account_only_if_it_says_when_to_come_back() {
    for kind in ALL {
        let told = Reply {
            retry_after: Some("7".to_owned()),
            ..reply(503, "busy")
        };
        let Verdict::Throttled {
            retry_after,
            detail,
            ..
        } = classify(*kind, &told)
        else {
            panic!("{kind}");
        };
        assert_eq!(retry_after, RetryAfter::Wait(Duration::from_secs(7)));
        assert_eq!(detail, "busy");

        let garbage = Reply {
            retry_after: Some("soon".to_owned()),
            ..reply(503, "")
        };
        assert!(matches!(
            classify(*kind, &garbage),
            Verdict::Throttled {
                retry_after: RetryAfter::BackOff,
                ..
            }
        ));
    }
    let elsewhere = Reply {
        retry_after: Some("7".to_owned()),
        ..reply(502, "")
    };
    assert_eq!(classify(Update, &elsewhere).class(), "transient");
}

#[test]
fn a_429_is_throttled_with_or_without_a_time() {
    let mut throttled = reply(429, "");
    assert!(matches!(
        classify(Create, &throttled),
        Verdict::Throttled {
            retry_after: RetryAfter::BackOff,
            ..
        }
    ));
    throttled.retry_after = Some("Sun, 06 Nov 1994 10:00:30 GMT".to_owned());
    throttled.date = Some("Sun, 06 Nov 1994 10:00:00 GMT".to_owned());
    assert!(matches!(
        classify(Create, &throttled),
        Verdict::Throttled { retry_after: RetryAfter::Wait(wait), .. } if wait == Duration::from_secs(30)
    ));
}

#[test]
fn a_success_is_done_with_an_empty_body_or_an_object_and_unknown_with_anything_else() {
    for status in [200, 201, 202, 204, 206, 299] {
        for body in ["", " \r\n", "{}", " {\"a\":[1]}\n", "\u{feff}{}"] {
            for kind in WRITES {
                assert_eq!(
                    classify(*kind, &reply(status, body)).class(),
                    "done",
                    "{status} {kind} {body:?}"
                );
            }
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        for body in [
            "[]",
            "null",
            "true",
            "7",
            "\"ok\"",
            "OK",
            "<html></html>",
            "{",
            "{}{}",
            "{\"id\":",
            "{'id':1}",
            deep.as_str(),
        ] {
            for kind in ALL {
                assert_eq!(
                    classify(*kind, &reply(status, body)).class(),
                    "unknown",
                    "{status} {kind} {body:?}"
                );
            }
        }
        for kind in ALL {
            assert_eq!(
                classify(*kind, &reply(status, b"{\"a\":\"\xff\"}")).class(),
                "unknown"
            );
        }
    }
}

#[test]
fn a_success_whose_body_cannot_be_read_to_its_end_is_unknown() {
    for body_end in [BodyEnd::TooLarge, BodyEnd::Broken, BodyEnd::Deadline] {
        for kind in ALL {
            let cut = Reply {
                body_end,
                ..reply(200, r#"{"id":"7"}"#)
            };
            assert_eq!(classify(*kind, &cut).class(), "unknown");
        }
    }
}

#[test]
fn a_create_or_upsert_always_ends_with_a_remote_id_kept_as_text() {
    let long = "x".repeat(512);
    let rows = [
        (r#"{"id":"003xx"}"#, "003xx"),
        (r#"{"ok":true,"id":7}"#, "7"),
        (
            r#"{"id":12345678901234567890123}"#,
            "12345678901234567890123",
        ),
        (r#"{"id":007}"#, ""),
        (r#"{"id":1.0}"#, "1.0"),
        (r#"{"id":"gr\u00fcn"}"#, "grün"),
        (&format!(r#"{{"id":"{long}"}}"#), &long),
        // Without one, the record id is the remote id.
        ("", "c-42"),
        ("{}", "c-42"),
        (r#"{"id":null}"#, "c-42"),
        (r#"{"id":""}"#, "c-42"),
        (r#"{"id":{}}"#, "c-42"),
        (r#"{"data":{"id":7}}"#, "c-42"),
        // One that no request could carry.
        (&format!(r#"{{"id":"{long}x"}}"#), ""),
        (r#"{"id":"a\nb"}"#, ""),
        (r#"{"id":"\ud800"}"#, ""),
    ];
    for (body, remote_id) in rows {
        for kind in [Create, Upsert] {
            let verdict = classify(kind, &reply(200, body));
            if remote_id.is_empty() {
                assert_eq!(verdict.class(), "unknown", "{body}");
            } else {
                assert_eq!(verdict, done(Some(remote_id), false), "{body}");
            }
        }
    }
    assert_eq!(
        classify(Upsert, &reply(201, r#"{"id":7}"#)),
        done(Some("7"), true)
    );
    assert_eq!(
        classify(Update, &reply(200, r#"{"id":7}"#)),
        done(None, false)
    );
}

#[test]
fn a_look_up_tells_found_from_absent_from_not_understood() {
    let rows = [
        (
            r#"{"results":[{"id":"003"}]}"#,
            Verdict::Found {
                remote_id: "003".to_owned(),
            },
        ),
        (
            r#"{"results":[{"id":3},{"id":4}],"n":2}"#,
            Verdict::Found {
                remote_id: "3".to_owned(),
            },
        ),
        (r#"{"results":[]}"#, Verdict::Absent),
    ];
    for (body, verdict) in rows {
        assert_eq!(classify(Lookup, &reply(200, body)), verdict);
    }
    for body in [
        "",
        "{}",
        r#"{"error":"x"}"#,
        r#"{"results":null}"#,
        r#"{"results":[{}]}"#,
        r#"{"results":[{"id":null}]}"#,
    ] {
        assert_eq!(
            classify(Lookup, &reply(200, body)).class(),
            "unknown",
            "{body}"
        );
    }
}

#[test]
fn a_read_needs_a_record() {
    assert_eq!(
        classify(Read, &reply(200, r#"{"id":7,"email":"x"}"#)),
        done(None, false)
    );
    assert_eq!(classify(Read, &reply(204, "")).class(), "unknown");
}

#[test]
fn an_account_says_where_the_ids_are() {
    let settings = RestSettings {
        id_at: Some("/data/id".to_owned()),
        found_at: Some("/data/0/key".to_owned()),
        ..RestSettings::default()
    };
    let definition = rest().with_rest(&settings).unwrap();
    let now = "1994-11-06T08:49:00Z".parse().unwrap();
    let created = definition.classify(Create, "c", &reply(201, r#"{"id":1,"data":{"id":2}}"#), now);
    assert_eq!(created, done(Some("2"), true));
    let found = definition.classify(Lookup, "c", &reply(200, r#"{"data":[{"key":"k"}]}"#), now);
    assert_eq!(
        found,
        Verdict::Found {
            remote_id: "k".to_owned()
        }
    );
    let absent = definition.classify(Lookup, "c", &reply(200, r#"{"data":[]}"#), now);
    assert_eq!(absent, Verdict::Absent);
}

#[test]
fn the_detail_is_the_providers_own_words() {
    assert_eq!(
        classify(Update, &reply(422, r#"{"error":"no"}"#)).detail(),
        Some(r#"{"error":"no"}"#)
    );
    assert_eq!(
        classify(Update, &reply(422, "")).detail(),
        Some("HTTP 422 without a body")
    );
    assert_eq!(
        classify(Update, &reply(200, "<a>\n")).detail(),
        Some("HTTP 200 whose body is not a JSON object: <a>\\n")
    );
    let long = classify(Update, &reply(422, "\n".repeat(5000)));
    assert_eq!(long.detail(), Some("HTTP 422 without a body"));
    let long = classify(Update, &reply(200, "x\n".repeat(5000)));
    assert!(long.detail().unwrap().ends_with('…'));
}

#[test]
fn a_call_that_never_left_is_unreachable_and_one_without_an_answer_unknown() {
    for cause in [
        NotSent::Resolve,
        NotSent::Connect,
        NotSent::Tls,
        NotSent::Closed,
        NotSent::Deadline,
    ] {
        let verdict = SendFailure::BeforeSent {
            cause,
            detail: "x".to_owned(),
        }
        .verdict();
        assert_eq!(verdict.class(), "unreachable");
        assert!(verdict.says_nothing_about_record());
    }
    let verdict = SendFailure::BeforeSent {
        cause: NotSent::Unsendable,
        detail: "x".to_owned(),
    }
    .verdict();
    assert_eq!(
        verdict,
        Verdict::Permanent {
            detail: "not sent (unsendable): x".to_owned()
        }
    );
    let verdict = SendFailure::BeforeSent {
        cause: NotSent::Unauthorized,
        detail: "x".to_owned(),
    }
    .verdict();
    assert_eq!(verdict.class(), "unauthorized");
    assert!(verdict.says_nothing_about_record());
    for cause in [NoReply::Closed, NoReply::Deadline, NoReply::Malformed] {
        let verdict = SendFailure::AfterSent {
            cause,
            detail: "x\n".to_owned(),
        }
        .verdict();
        assert_eq!(
            verdict,
            Verdict::Unknown {
                detail: format!("sent, no reply ({cause}): x\\n")
            }
        );
        assert!(!verdict.says_nothing_about_record());
    }
}

#[test]
fn only_failures_of_the_account_burn_no_attempt() {
    let mut told = reply(503, "");
    told.retry_after = Some("1".to_owned());
    for free in [reply(429, ""), reply(401, ""), told] {
        assert!(
            classify(Update, &free).says_nothing_about_record(),
            "{}",
            free.status
        );
    }
    for status in [200, 302, 400, 403, 404, 408, 409, 412, 422, 425, 500, 503] {
        assert!(
            !classify(Update, &reply(status, "")).says_nothing_about_record(),
            "{status}"
        );
    }
}
