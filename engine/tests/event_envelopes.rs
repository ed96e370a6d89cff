//! CloudEvents and Debezium envelopes become events, or are refused with their place.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use syncline_engine::event::{self, Defaults, Event, Operation, SourceTable, Surface};
use syncline_engine::json::Scratch;
use syncline_engine::refusal::{Code, Refusal};

const SOURCES: &[SourceTable<'static>] = &[
    SourceTable {
        object: "contact",
        table: "public.contacts",
        key: "id",
    },
    SourceTable {
        object: "order",
        table: "shop.orders",
        key: "order/no",
    },
    SourceTable {
        object: "note",
        table: "notes",
        key: "id",
    },
];

fn parse(text: &str) -> Result<Event<'_>, Refusal> {
    let defaults = Defaults {
        sources: SOURCES,
        ..Defaults::default()
    };
    event::parse(
        text.as_bytes(),
        &mut Scratch::new(),
        &defaults,
        Surface::Stream,
    )
}

fn check_refused(text: &str, code: Code, pointer: &str) {
    let refusal = parse(text).expect_err(text);
    assert_eq!(refusal.code, code, "{text}: {refusal}");
    assert_eq!(
        refusal.pointer.as_deref(),
        Some(pointer),
        "{text}: {refusal}"
    );
}

/// A CloudEvent in which `change` replaces the member of the same name, or adds one.
fn cloud_event(change: (&str, &str)) -> String {
    let mut members = vec![
        ("specversion", r#""1.0""#),
        ("source", r#""/crm/eu""#),
        ("id", r#""A234""#),
        ("type", r#""com.example.contact.updated""#),
        ("subject", r#""c-42""#),
        ("time", r#""2026-11-20T10:00:00Z""#),
        ("datacontenttype", r#""application/json""#),
        ("data", r#"{"email":"ada@example.com"}"#),
    ];
    match members.iter_mut().find(|member| member.0 == change.0) {
        Some(member) => *member = change,
        None => members.push(change),
    }
    members.retain(|member| !member.1.is_empty());
    let members: Vec<_> = members
        .iter()
        .map(|(k, v)| format!("\"{k}\":{v}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

#[test]
fn a_cloud_event_becomes_an_event() {
    let text = cloud_event(("priority", "2"));
    let event = parse(&text).unwrap();
    assert_eq!(event.operation, Operation::Update);
    assert_eq!(event.object, "contact");
    assert_eq!(event.record_id.as_deref(), Some("c-42"));
    assert_eq!(event.event_id.as_deref(), Some("/crm/eu A234"));
    assert_eq!(event.changed_at_ms, Some(1_795_168_800_000));
    assert_eq!(event.data.unwrap().text(), r#"{"email":"ada@example.com"}"#);
    assert_eq!(event.priority.get(), 2);
}

#[test]
fn the_type_of_a_cloud_event_ends_in_object_and_verb() {
    for (kind, object, operation) in [
        ("com.example.contact.created", "contact", Operation::Create),
        ("deal.updated", "deal", Operation::Update),
        ("a.b.c.upserted", "c", Operation::Upsert),
        (
            "com.ex\\u0061mple.cont\\u0061ct.deleted",
            "contact",
            Operation::Delete,
        ),
    ] {
        let text = cloud_event(("type", &format!("\"{kind}\"")));
        let event = parse(&text).unwrap();
        assert_eq!((&*event.object, event.operation), (object, operation));
    }
    for kind in [
        "contact",
        "updated",
        ".updated",
        "com..updated",
        "contact.merged",
        "a.b.",
    ] {
        let text = cloud_event(("type", &format!("\"{kind}\"")));
        check_refused(&text, Code::InvalidField, "/type");
    }
}

#[test]
fn extension_attributes_of_a_cloud_event_are_kept() {
    let text = cloud_event(("partitionkey", "\"p1\""));
    let event = parse(&text).unwrap();
    assert_eq!(event.extras[0].name, "partitionkey");
    assert_eq!(event.extras[0].value.text(), "\"p1\"");
    let text = cloud_event(("provider", "\"salesforce\""));
    assert_eq!(
        parse(&text).unwrap().provider.as_deref(),
        Some("salesforce")
    );
}

#[test]
fn a_cloud_event_that_is_none_is_refused_with_its_place() {
    for (change, code, pointer) in [
        (
            ("specversion", "\"0.3\""),
            Code::InvalidField,
            "/specversion",
        ),
        (("specversion", "1.0"), Code::InvalidField, "/specversion"),
        (("source", ""), Code::MissingField, "/source"),
        (("source", "\"a b\""), Code::InvalidField, "/source"),
        (("source", "\"\""), Code::InvalidField, "/source"),
        (("id", ""), Code::MissingField, "/id"),
        (("id", "7"), Code::InvalidField, "/id"),
        (("type", ""), Code::MissingField, "/type"),
        (("subject", ""), Code::RecordIdRequired, "/record_id"),
        (("time", "\"noon\""), Code::InvalidField, "/time"),
        (("data", ""), Code::MissingField, "/data"),
        (("data", "\"text\""), Code::InvalidField, "/data"),
        (
            ("datacontenttype", "\"text/xml\""),
            Code::InvalidField,
            "/datacontenttype",
        ),
        (
            ("data_base64", "\"AA==\""),
            Code::InvalidField,
            "/data_base64",
        ),
        (
            ("operation", "\"UPDATE\""),
            Code::InvalidField,
            "/operation",
        ),
        (("record_id", "\"other\""), Code::InvalidField, "/record_id"),
        (
            ("Not-An-Attribute", "1"),
            Code::UnknownField,
            "/Not-An-Attribute",
        ),
        (("nested", "{}"), Code::UnknownField, "/nested"),
    ] {
        check_refused(&cloud_event(change), code, pointer);
    }
}

#[test]
fn a_change_envelope_becomes_an_upsert_or_a_delete() {
    let source = r#""source":{"connector":"postgresql","db":"app","schema":"public","table":"contacts","ts_ms":1000,"lsn":3}"#;
    for op in ["c", "u", "r"] {
        let text = format!(
            r#"{{"before":{{"id":7,"a":1}},"after":{{"id":7,"a":1.50}},{source},"op":"{op}","ts_ms":2000,"transaction":null}}"#
        );
        let event = parse(&text).unwrap();
        assert_eq!(event.operation, Operation::Upsert);
        assert_eq!(event.object, "contact");
        assert_eq!(event.record_id.as_deref(), Some("7"));
        assert_eq!(event.data.unwrap().text(), r#"{"id":7,"a":1.50}"#);
        assert_eq!(event.before.unwrap().text(), r#"{"id":7,"a":1}"#);
        assert_eq!(event.changed_at_ms, Some(1000));
    }
    let text = format!(r#"{{"before":{{"id":"7"}},"after":null,{source},"op":"d","ts_us":1}}"#);
    let event = parse(&text).unwrap();
    assert_eq!(event.operation, Operation::Delete);
    assert_eq!(event.record_id.as_deref(), Some("7"));
    assert_eq!(event.data, None);
}

#[test]
fn an_envelope_beside_its_schema_is_found_under_payload() {
    let wrapped =
        |payload: &str| format!(r#"{{"schema":{{"type":"struct"}},"payload":{payload}}}"#);
    let text = wrapped(
        r#"{"op":"c","source":{"db":"shop","table":"orders"},"after":{"order/no":"o-1"},"ts_ms":5}"#,
    );
    let event = parse(&text).unwrap();
    assert_eq!(event.object, "order");
    assert_eq!(event.record_id.as_deref(), Some("o-1"));
    assert_eq!(event.changed_at_ms, Some(5));
    let text =
        wrapped(r#"{"op":"c","source":{"db":"shop","table":"orders"},"after":{"order/no":1.5}}"#);
    check_refused(&text, Code::InvalidField, "/payload/after/order~1no");
    check_refused(&wrapped(r#"{"a":1}"#), Code::UnknownField, "/schema");
}

#[test]
fn a_change_envelope_that_cannot_be_placed_is_refused() {
    let of =
        |op: &str, source: &str, rest: &str| format!(r#"{{"op":"{op}","source":{source},{rest}}}"#);
    let note = r#"{"schema":"any","table":"notes"}"#;
    for (text, code, pointer) in [
        (of("t", note, r#""after":null"#), Code::InvalidField, "/op"),
        (
            of("c", "\"x\"", r#""after":{"id":1}"#),
            Code::InvalidField,
            "/source",
        ),
        (
            of("c", r#"{"table":"other"}"#, r#""after":{"id":1}"#),
            Code::InvalidField,
            "/source",
        ),
        (
            of(
                "c",
                r#"{"schema":"private","table":"contacts"}"#,
                r#""after":{"id":1}"#,
            ),
            Code::InvalidField,
            "/source",
        ),
        (
            of(
                "c",
                r#"{"schema":"public","table":"acts"}"#,
                r#""after":{"id":1}"#,
            ),
            Code::InvalidField,
            "/source",
        ),
        (
            of("c", note, r#""after":null"#),
            Code::MissingField,
            "/after",
        ),
        (
            of("d", note, r#""before":null"#),
            Code::MissingField,
            "/before",
        ),
        (
            of("u", note, r#""after":{"a":1}"#),
            Code::RecordIdRequired,
            "/record_id",
        ),
        (
            of("u", note, r#""after":{"id":1},"nope":1"#),
            Code::UnknownField,
            "/nope",
        ),
    ] {
        check_refused(&text, code, pointer);
    }
    parse(&of("u", note, r#""after":{"id":1},"x_kept":1"#)).unwrap();
}
