//! Many records in one call: what shares a call, how it is written, and whose result is whose.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use syncline_engine::provider::CallKind::{Create, Delete, Lookup, Read, Update, Upsert};
use syncline_engine::provider::{
    BatchGroup, BatchItem, BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Field,
    RenderError, Reply, ReplyHeaders, RestSettings, Subject, Verdict, shipped,
};

fn rest() -> Definition {
    let definition = Definition::parse(shipped("rest").unwrap()).unwrap();
    definition.with_batch_items_max(100)
}

fn group(definition: &Definition) -> BatchGroup {
    definition.batch_group(Update, "contact").unwrap()
}

fn item(
    kind: CallKind,
    record_id: &'static str,
    remote_id: Option<&'static str>,
    fields: &'static [Field<'static>],
) -> BatchItem<'static> {
    BatchItem {
        kind,
        subject: Subject {
            object: "contact",
            record_id,
            remote_id,
            fields,
        },
    }
}

fn body(definition: &Definition, items: &[BatchItem<'_>]) -> Value {
    let request = definition.render_batch(group(definition), items).unwrap();
    serde_json::from_slice(&request.body).unwrap()
}

fn reply(status: u16, body: &Value) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from(body.to_string()),
        body_end: BodyEnd::Complete,
    }
}

fn classify(items: &[(CallKind, &str)], reply: &Reply) -> BatchVerdict {
    let items: Vec<_> = items
        .iter()
        .map(|&(kind, record_id)| BatchItemRef {
            kind,
            record_id,
            remote_id: None,
        })
        .collect();
    let definition = rest();
    let now = "2026-11-21T10:00:00Z".parse().unwrap();
    definition.classify_batch(group(&definition), &items, reply, now)
}

fn classes(verdict: &BatchVerdict) -> Vec<&'static str> {
    match verdict {
        BatchVerdict::Items(verdicts) => verdicts.iter().map(Verdict::class).collect(),
        other => panic!("{other:?}"),
    }
}

const NAME: &[Field<'static>] = &[Field {
    name: "name",
    value: "\"A\"",
}];

#[test]
fn writes_of_one_object_share_a_call_and_what_no_batch_takes_goes_alone() {
    let definition = rest();
    for kind in [Create, Upsert, Update, Delete] {
        assert_eq!(
            definition.batch_group(kind, "contact"),
            Some(group(&definition))
        );
    }
    for kind in [Read, Lookup] {
        assert_eq!(definition.batch_group(kind, "contact"), None);
    }
    assert_ne!(
        definition.batch_group(Create, "account"),
        Some(group(&definition))
    );
}

#[test]
fn an_account_sets_how_many_records_a_call_takes_up_to_what_the_provider_does() {
    let unset = Definition::parse(shipped("rest").unwrap()).unwrap();
    assert_eq!(unset.batch_group(Update, "contact"), None);
    let one = unset.clone().with_batch_items_max(1);
    assert_eq!(one.batch_group(Update, "contact"), None);
    let none = unset.clone().with_batch_items_max(0);
    assert_eq!(none.batch_group(Update, "contact"), None);
    let some = unset.clone().with_batch_items_max(7);
    assert_eq!(some.batch_items_max(group(&some)), 7);
    let many = unset.with_batch_items_max(usize::MAX);
    assert_eq!(many.batch_items_max(group(&many)), 1000);
}

#[test]
fn plain_rest_sends_records_as_documented() {
    let definition = rest();
    let items = [
        item(Create, "c-1", None, NAME),
        item(Upsert, "c\"2", Some("7"), &[]),
        item(Delete, "c-3", Some("9"), &[]),
    ];
    let request = definition.render_batch(group(&definition), &items).unwrap();
    assert_eq!(request.method.as_str(), "POST");
    assert_eq!(request.path_and_query, "/contact/batch");
    assert_eq!(request.kind, Create);
    assert_eq!(
        String::from_utf8(request.body.to_vec()).unwrap(),
        concat!(
            r#"{"records":[{"external_id":"c-1","operation":"create","fields":{"name":"A"}},"#,
            r#"{"external_id":"c\"2","operation":"upsert","id":"7","fields":{}},"#,
            r#"{"external_id":"c-3","operation":"delete","id":"9","fields":{}}]}"#
        )
    );
}

#[test]
fn an_account_changes_the_batch_request() {
    let settings = RestSettings {
        batch: Some("PUT /bulk/{object}".to_owned()),
        batch_body: Some(json!({"$each": {"key": "{record_id}", "$fields": true}})),
        ..RestSettings::default()
    };
    let definition = rest().with_rest(&settings).unwrap();
    let request = definition.render_batch(group(&definition), &[item(Upsert, "c-1", None, NAME)]);
    let request = request.unwrap();
    assert_eq!(request.method.as_str(), "PUT");
    assert_eq!(request.path_and_query, "/bulk/contact");
    assert_eq!(request.body, r#"[{"key":"c-1","name":"A"}]"#);

    let settings = RestSettings {
        batch_body: Some(json!({"rows": {"$each": {"key": "{record_id}", "$fields": true}}})),
        ..settings
    };
    let definition = rest().with_rest(&settings).unwrap();
    assert_eq!(
        body(&definition, &[item(Upsert, "c-1", None, NAME)]),
        json!({"rows": [{"key": "c-1", "name": "A"}]})
    );

    let settings = RestSettings {
        batch_body: Some(json!({"rows": {"$fields": true}})),
        ..settings
    };
    let refused = rest().with_rest(&settings).unwrap_err();
    assert!(
        refused.to_string().starts_with("`rest.batch_body`"),
        "{refused}"
    );
}

#[test]
fn records_that_cannot_go_together_are_named() {
    let definition = rest();
    let render = |items: &[BatchItem<'_>]| definition.render_batch(group(&definition), items);
    let refused = |index, source| {
        Err(RenderError::Item {
            index,
            source: Box::new(source),
        })
    };
    let a = item(Update, "c-1", Some("1"), &[]);
    let b = item(Update, "c-2", Some("2"), &[]);
    assert_eq!(render(&[a, b, a]), refused(2, RenderError::RepeatedKey));
    let elsewhere = BatchItem {
        subject: Subject {
            object: "account",
            ..b.subject
        },
        ..b
    };
    assert_eq!(render(&[a, elsewhere]), refused(1, RenderError::OtherGroup));
    let read = BatchItem { kind: Read, ..b };
    assert_eq!(render(&[a, read]), refused(1, RenderError::OtherGroup));
    assert_eq!(
        render(&[]),
        Err(RenderError::BatchSize {
            items: 0,
            limit: 100
        })
    );
}

#[test]
fn a_body_over_its_bound_asks_for_fewer_records_but_never_for_less_than_one() {
    let long = format!("\"{}\"", "x".repeat(600_000));
    let fields = [Field {
        name: "note",
        value: &long,
    }];
    let definition = rest();
    let item = |record_id| BatchItem {
        kind: Upsert,
        subject: Subject {
            object: "contact",
            record_id,
            remote_id: None,
            fields: &fields,
        },
    };
    let limit = definition.batch_bytes_max(group(&definition));
    let two = definition.render_batch(group(&definition), &[item("a"), item("b")]);
    assert!(
        matches!(two, Err(RenderError::BatchTooLarge { bytes, limit: found }) if bytes > found && found == limit),
    );
    let one = definition.render_batch(group(&definition), &[item("a")]);
    assert!(one.unwrap().body.len() < limit);
}

#[test]
fn results_find_their_records_in_any_order() {
    let items = [
        (Create, "c-1"),
        (Upsert, "c-2"),
        (Update, "c-3"),
        (Delete, "c-4"),
        (Create, "10"),
    ];
    let verdict = classify(
        &items,
        &reply(
            200,
            &json!({"results": [
                {"external_id": "c-4", "status": 404, "error": "gone"},
                {"external_id": "c-2", "status": 201, "id": 22},
                {"external_id": 10, "status": 200},
                {"external_id": "c-3", "status": 204, "id": "33"},
                {"external_id": "unasked", "status": 200},
                {"external_id": "c-1", "status": 422, "error": "no e-mail"},
            ]}),
        ),
    );
    let done = |remote_id: Option<&str>, created| Verdict::Done {
        remote_id: remote_id.map(str::to_owned),
        created,
    };
    assert_eq!(
        verdict,
        BatchVerdict::Items(vec![
            Verdict::Permanent {
                detail: r#"{"external_id":"c-1","status":422,"error":"no e-mail"}"#.to_owned()
            },
            done(Some("22"), true),
            done(None, false),
            done(None, false),
            done(Some("10"), false),
        ])
    );
}

#[test]
fn the_status_of_a_record_means_what_it_means_for_a_call() {
    let rows: &[(CallKind, u16, &str)] = &[
        (Create, 201, "done"),
        (Create, 409, "duplicate"),
        (Create, 500, "unknown"),
        (Upsert, 500, "transient"),
        (Update, 404, "gone"),
        (Delete, 410, "done"),
        (Update, 412, "conflict"),
        (Update, 429, "throttled"),
        (Update, 401, "unauthorized"),
        (Delete, 409, "permanent"),
        (Update, 302, "permanent"),
        (Update, 0, "unknown"),
    ];
    for &(kind, status, class) in rows {
        let verdict = classify(
            &[(kind, "c-1"), (Update, "c-2")],
            &reply(
                200,
                &json!({"results": [{"external_id": "c-1", "status": status}]}),
            ),
        );
        assert_eq!(classes(&verdict), [class, "unknown"], "{kind} {status}");
    }
}

#[test]
fn a_record_that_the_reply_does_not_tell_of_or_tells_of_twice_is_unknown() {
    let two = [(Update, "c-1"), (Upsert, "c-2")];
    let of = |results: Value| classify(&two, &reply(200, &json!({ "results": results })));
    let c1 = json!({"external_id": "c-1", "status": 200});
    let c2 = json!({"external_id": "c-2", "status": 200, "id": "2"});
    assert_eq!(classes(&of(json!([]))), ["unknown", "unknown"]);
    assert_eq!(classes(&of(json!([c1]))), ["done", "unknown"]);
    assert_eq!(classes(&of(json!([c1, c2, c1]))), ["done", "done"]);
    let refused = json!({"external_id": "c-1", "status": 422});
    assert_eq!(classes(&of(json!([c1, c2, refused]))), ["unknown", "done"]);
    let garbage = [
        json!({"external_id": "c-1"}),
        json!({"external_id": "c-1", "status": "fine"}),
        json!({"status": 200}),
        json!(7),
        json!(null),
    ];
    for garbage in garbage {
        assert_eq!(classes(&of(json!([garbage, c2]))), ["unknown", "done"]);
    }
}

#[test]
fn a_success_without_a_list_is_unknown_as_a_whole() {
    for body in [json!({}), json!([]), json!({"results": null}), json!("ok")] {
        let verdict = classify(&[(Update, "c-1"), (Update, "c-2")], &reply(200, &body));
        assert!(
            matches!(verdict, BatchVerdict::Whole(Verdict::Unknown { .. })),
            "{body}"
        );
    }
    let cut = Reply {
        body_end: BodyEnd::Broken,
        ..reply(200, &json!({"results": []}))
    };
    assert!(matches!(
        classify(&[(Update, "c-1")], &cut),
        BatchVerdict::Whole(Verdict::Unknown { .. })
    ));
}

#[test]
fn a_refused_call_says_something_of_all_its_records_or_asks_to_be_halved() {
    let two = [(Create, "c-1"), (Update, "c-2")];
    let keyed = [(Upsert, "c-1"), (Update, "c-2")];
    let whole =
        |items: &[(CallKind, &str)], status| match classify(items, &reply(status, &json!({}))) {
            BatchVerdict::Whole(verdict) => verdict.class(),
            BatchVerdict::Split { .. } => "split",
            BatchVerdict::Items(verdicts) => verdicts[0].class(),
        };
    for status in [400, 403, 404, 405, 409, 412, 413, 422, 302] {
        assert_eq!(whole(&two, status), "split", "{status}");
    }
    assert_eq!(whole(&two, 429), "throttled");
    assert_eq!(whole(&two, 401), "unauthorized");
    for status in [408, 500, 502, 503] {
        assert_eq!(whole(&two, status), "unknown", "{status}");
        assert_eq!(whole(&keyed, status), "transient", "{status}");
    }
    assert_eq!(whole(&two, 199), "unknown");
}

#[test]
fn a_refused_call_of_one_record_is_that_records_verdict() {
    let one = |kind, status| {
        let verdict = classify(&[(kind, "c-1")], &reply(status, &json!({})));
        classes(&verdict)
    };
    assert_eq!(one(Update, 422), ["permanent"]);
    // The call's own path may be what is missing: that says nothing of the record.
    assert_eq!(one(Update, 404), ["permanent"]);
    assert_eq!(one(Create, 409), ["duplicate"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_reply_gives_one_verdict_per_record_and_harms_nobody(
        status in prop_oneof![Just(200u16), 0u16..700],
        text in "(\\{\"results\":\\[)?([\\[\\]{}\":,0-9a-b \\\\]|\"external_id\":\"a\"|\"status\":200){0,12}(\\]\\})?",
        count in 1usize..5,
    ) {
        let ids = ["a", "b", "0", "1", "2"];
        let items: Vec<_> = ids[..count].iter().map(|id| (Upsert, *id)).collect();
        let reply = Reply { body: Bytes::from(text), ..reply(status, &json!({})) };
        match classify(&items, &reply) {
            BatchVerdict::Items(verdicts) => prop_assert_eq!(verdicts.len(), count),
            BatchVerdict::Split { .. } => prop_assert!(count > 1 && !(200..300).contains(&status)),
            BatchVerdict::Whole(verdict) => prop_assert!(verdict.class() != "done"),
        }
    }

    #[test]
    fn every_record_of_a_rendered_batch_gets_back_what_was_said_of_it(
        ids in proptest::collection::hash_set("\\PC{1,8}", 1..20),
        rotate in 0usize..20,
    ) {
        let ids: Vec<String> = ids.into_iter().collect();
        let items: Vec<BatchItem<'_>> = ids
            .iter()
            .map(|id| BatchItem {
                kind: Upsert,
                subject: Subject { object: "contact", record_id: id, remote_id: None, fields: &[] },
            })
            .collect();
        let definition = rest();
        let sent = body(&definition, &items);
        let mut results: Vec<Value> = sent["records"].as_array().unwrap().iter().enumerate()
            .map(|(at, record)| {
                let status = if at % 3 == 0 { 422 } else { 201 };
                json!({"external_id": record["external_id"], "status": status, "id": format!("r{at}")})
            })
            .collect();
        let by = rotate % results.len();
        results.rotate_left(by);
        let refs: Vec<_> = ids.iter().map(|id| (Upsert, id.as_str())).collect();
        let verdict = classify(&refs, &reply(200, &json!({ "results": results })));
        let BatchVerdict::Items(verdicts) = verdict else { panic!("{verdict:?}") };
        for (at, verdict) in verdicts.iter().enumerate() {
            let expected = (at % 3 != 0).then(|| format!("r{at}"));
            match verdict {
                Verdict::Done { remote_id, created } => {
                    prop_assert!(*created);
                    prop_assert_eq!(remote_id, &expected);
                }
                other => prop_assert!(expected.is_none() && other.class() == "permanent"),
            }
        }
    }
}
