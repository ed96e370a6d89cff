//! Section 4.1 of the contract, row by row.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use std::borrow::Cow;
use std::path::Path;

use proptest::prelude::*;
use syncline_engine::event::{self, Defaults, Event, Operation, Surface};
use syncline_engine::json::Scratch;
use syncline_engine::refusal::{Code, Refusal};

fn parse<'a>(text: &'a str, surface: Surface) -> Result<Event<'a>, Refusal> {
    event::parse(
        text.as_bytes(),
        &mut Scratch::new(),
        &Defaults::default(),
        surface,
    )
}

fn taken(text: &str) -> Event<'_> {
    parse(text, Surface::Stream).unwrap_or_else(|refusal| panic!("{text}: {refusal}"))
}

fn check_refused(text: &str, code: Code, pointer: &str) {
    let refusal = parse(text, Surface::Stream).expect_err(text);
    assert_eq!(refusal.code, code, "{text}: {refusal}");
    assert_eq!(
        refusal.pointer.as_deref(),
        Some(pointer),
        "{text}: {refusal}"
    );
}

/// An UPDATE of record 1 with `members` beside.
fn update_with(members: &str) -> String {
    format!(r#"{{"operation":"UPDATE","record_id":"1","data":{{}},{members}}}"#)
}

#[test]
fn the_example_of_the_contract_is_read_whole() {
    let event = taken(
        r#"{"operation":"UPDATE","provider":"salesforce","object":"contact","record_id":"c-42",
 "data":{"first_name":"Ada","email":"ada@example.com","status":"active"},
 "event_id":"01J...","changed_at":"2026-11-20T10:00:00.123Z","priority":5}"#,
    );
    assert_eq!(event.operation, Operation::Update);
    assert_eq!(event.provider.as_deref(), Some("salesforce"));
    assert_eq!(event.object, "contact");
    assert_eq!(event.record_id.as_deref(), Some("c-42"));
    assert_eq!(
        event.data.unwrap().text(),
        r#"{"first_name":"Ada","email":"ada@example.com","status":"active"}"#
    );
    assert_eq!(event.event_id.as_deref(), Some("01J..."));
    assert_eq!(event.changed_at_ms, Some(1_795_168_800_123));
    assert_eq!(event.priority.get(), 5);
    assert_eq!(event.before, None);
    assert_eq!(event.seq, None);
}

#[test]
fn the_founding_documents_requests_work_as_printed() {
    let update = r#"{"operation":"UPDATE","provider":"salesforce","record_id":"sf_123","data":{"name":"John Doe","email":"john@example.com"}}"#;
    assert_eq!(taken(update).record_id.as_deref(), Some("sf_123"));

    let create = r#"{"operation":"CREATE","provider":"salesforce","record_data":{"data":{"name":"John Doe","email":"john@example.com"}}}"#;
    let event = parse(create, Surface::Http).unwrap();
    assert_eq!(event.record_id, None);
    assert_eq!(
        event.data.unwrap().get("name").unwrap().text(),
        "\"John Doe\""
    );

    let nested = r#"{"operation":"UPDATE","provider":"salesforce_prod","record_id":"sf_003xx000004TmiQ","record_data":{"data":{"a":1}},"priority":3}"#;
    let event = taken(nested);
    assert_eq!(event.data.unwrap().text(), r#"{"a":1}"#);
    assert_eq!(event.priority.get(), 3);

    let task = r#"{"crm":"salesforce","action":"update","record_id":"10","payload":{"id":10,"name":"Test"}}"#;
    let event = taken(task);
    assert_eq!(event.provider.as_deref(), Some("salesforce"));
    assert_eq!(event.operation, Operation::Update);
    assert_eq!(event.record_id.as_deref(), Some("10"));
    assert_eq!(event.data.unwrap().text(), r#"{"id":10,"name":"Test"}"#);
}

#[test]
fn an_operation_is_read_in_any_case_and_under_each_name() {
    for (written, operation) in [
        ("CREATE", Operation::Create),
        ("read", Operation::Read),
        ("Update", Operation::Update),
        ("uPsErT", Operation::Upsert),
        ("DELETE", Operation::Delete),
    ] {
        for name in ["operation", "op", "action"] {
            let text = format!(r#"{{"{name}":"{written}","record_id":"1","data":{{}}}}"#);
            assert_eq!(taken(&text).operation, operation, "{text}");
        }
    }
    check_refused(
        r#"{"op":"MERGE","record_id":"1"}"#,
        Code::InvalidField,
        "/op",
    );
    check_refused(
        r#"{"operation":5,"record_id":"1"}"#,
        Code::InvalidField,
        "/operation",
    );
    check_refused(
        r#"{"record_id":"1","data":{}}"#,
        Code::MissingField,
        "/operation",
    );
    check_refused("{}", Code::MissingField, "/operation");
    check_refused("[]", Code::Malformed, "");
    check_refused("7", Code::Malformed, "");
}

#[test]
fn every_alias_is_its_field() {
    for (alias, read) in [
        (r#""crm":"sf""#, "provider"),
        (r#""created_at":1000"#, "changed"),
        (r#""updated_at":"1970-01-01T00:00:01Z""#, "changed"),
    ] {
        let text = update_with(alias);
        let event = taken(&text);
        match read {
            "provider" => assert_eq!(event.provider.as_deref(), Some("sf")),
            _ => assert_eq!(event.changed_at_ms, Some(1000)),
        }
    }
    for data in [
        r#""data":{"a":1}"#,
        r#""payload":{"a":1}"#,
        r#""record_data":{"data":{"a":1}}"#,
    ] {
        let text = format!(r#"{{"op":"update","record_id":"1",{data}}}"#);
        assert_eq!(taken(&text).data.unwrap().text(), r#"{"a":1}"#);
    }
    let by_record_data = r#"{"op":"update","record_data":{"id":7,"data":{}}}"#;
    assert_eq!(taken(by_record_data).record_id.as_deref(), Some("7"));
}

#[test]
fn an_alias_may_repeat_its_name_but_not_contradict_it() {
    for agreeing in [
        r#""op":"update""#,
        r#""action":"UPDATE","op":"Update""#,
        r#""provider":"sf","crm":"sf""#,
        r#""payload":{ }"#,
        r#""record_data":{"id":1,"data":{}}"#,
        r#""changed_at":1000,"updated_at":"1970-01-01T00:00:01.000Z""#,
    ] {
        taken(&update_with(agreeing));
    }
    for (contradicting, pointer) in [
        (r#""op":"DELETE""#, "/op"),
        (r#""op":"nonsense""#, "/op"),
        (r#""provider":"sf","crm":"hs""#, "/crm"),
        (r#""payload":{"a":1}"#, "/payload"),
        (r#""record_data":{"data":{"a":1}}"#, "/record_data/data"),
        (r#""record_data":{"id":"2"}"#, "/record_data/id"),
        (r#""changed_at":1000,"created_at":2000"#, "/created_at"),
        (r#""event_id":"e","id":"f""#, "/id"),
    ] {
        check_refused(&update_with(contradicting), Code::InvalidField, pointer);
    }
}

#[test]
fn id_is_the_event_id_beside_a_record_id_and_the_record_id_alone() {
    let beside = taken(r#"{"id":"e-1","op":"delete","record_id":"r-1"}"#);
    assert_eq!(beside.record_id.as_deref(), Some("r-1"));
    assert_eq!(beside.event_id.as_deref(), Some("e-1"));

    let nested = taken(r#"{"id":"e-1","op":"update","record_data":{"id":"r-1","data":{}}}"#);
    assert_eq!(nested.record_id.as_deref(), Some("r-1"));
    assert_eq!(nested.event_id.as_deref(), Some("e-1"));

    let alone = taken(r#"{"id":10,"op":"delete","event_id":"e-1"}"#);
    assert_eq!(alone.record_id.as_deref(), Some("10"));
    assert_eq!(alone.event_id.as_deref(), Some("e-1"));

    taken(r#"{"id":"e-1","op":"delete","record_id":"r-1","event_id":"e-1"}"#);
}

#[test]
fn a_record_id_is_text_or_an_integer_within_bounds() {
    let with = |id: &str| format!(r#"{{"op":"delete","record_id":{id}}}"#);
    for (written, read) in [
        ("10", "10"),
        ("\"10\"", "10"),
        ("-3", "-3"),
        ("18446744073709551615", "18446744073709551615"),
        ("\"a b/ü\\u00e9\\\"\"", "a b/üé\""),
        ("\" \"", " "),
        ("\"\u{202e}x\"", "\u{202e}x"),
    ] {
        assert_eq!(taken(&with(written)).record_id.as_deref(), Some(read));
    }
    let longest = "é".repeat(256);
    let text = with(&format!("\"{longest}\""));
    assert_eq!(taken(&text).record_id.as_deref(), Some(longest.as_str()));
    for refused in [
        "\"\"",
        "1.0",
        "1e3",
        "-0",
        "true",
        "{}",
        "[1]",
        "\"a\\nb\"",
        "\"a\\u0000\"",
        "\"\u{7f}\"",
        "\"\u{85}\"",
    ] {
        check_refused(&with(refused), Code::InvalidField, "/record_id");
    }
    let too_long = with(&format!("\"{longest}x\""));
    check_refused(&too_long, Code::InvalidField, "/record_id");
    check_refused(
        &with("18446744073709551616"),
        Code::NumberPrecision,
        "/record_id",
    );
}

#[test]
fn only_a_create_over_http_may_leave_out_the_record_id() {
    for operation in Operation::OF_PRODUCERS {
        let text = format!(r#"{{"op":"{}","data":{{}}}}"#, operation.as_str());
        let refusal = parse(&text, Surface::Stream).unwrap_err();
        assert_eq!(refusal.code, Code::RecordIdRequired);
        match parse(&text, Surface::Http) {
            Ok(event) => {
                assert_eq!(operation, Operation::Create);
                assert_eq!(event.record_id, None);
            }
            Err(refusal) => {
                assert_ne!(operation, Operation::Create);
                assert_eq!(refusal.code, Code::RecordIdRequired);
            }
        }
    }
    check_refused(
        r#"{"op":"update","record_id":null,"data":{}}"#,
        Code::RecordIdRequired,
        "/record_id",
    );
}

#[test]
fn data_is_needed_where_fields_are_written_and_is_an_object() {
    for operation in Operation::OF_PRODUCERS {
        for data in ["", r#","data":null"#] {
            let text = format!(r#"{{"op":"{}","record_id":"1"{data}}}"#, operation.as_str());
            if operation.writes_fields() {
                check_refused(&text, Code::MissingField, "/data");
            } else {
                assert_eq!(taken(&text).data, None);
            }
        }
    }
    for data in ["[]", "\"x\"", "1", "true"] {
        let text = format!(r#"{{"op":"delete","record_id":"1","data":{data}}}"#);
        check_refused(&text, Code::InvalidField, "/data");
    }
    check_refused(
        r#"{"op":"update","record_id":"1","record_data":{"data":[]}}"#,
        Code::InvalidField,
        "/record_data/data",
    );
    check_refused(
        r#"{"op":"update","record_id":"1","record_data":[]}"#,
        Code::InvalidField,
        "/record_data",
    );
}

#[test]
fn data_is_carried_digit_by_digit() {
    let data = r#"{ "price" : 10.10, "big":9007199254740993,"e":1E2,"long":0.1000000000000000055511151231257827 , "t":"\u00e9"}"#;
    let text = format!(r#"{{"op":"update","record_id":"1","data":{data} }}"#);
    assert_eq!(taken(&text).data.unwrap().text(), data);
}

#[test]
fn the_object_defaults_to_the_configured_then_the_only_mapped_one() {
    let bytes = br#"{"op":"delete","record_id":"1"}"#;
    let object = |default_object, only_mapped| {
        let defaults = Defaults {
            default_object,
            only_mapped,
            sources: &[],
        };
        let event = event::parse(bytes, &mut Scratch::new(), &defaults, Surface::Stream);
        event.unwrap().object.into_owned()
    };
    assert_eq!(object(Some("contact"), Some("deal")), "contact");
    assert_eq!(object(None, Some("deal")), "deal");
    assert_eq!(object(None, None), "record");
}

#[test]
fn a_priority_is_an_integer_from_1_to_10() {
    let event = taken(r#"{"op":"delete","record_id":"1"}"#);
    assert_eq!(event.priority.get(), 5);
    for priority in 1..=10_u8 {
        let text = update_with(&format!(r#""priority":{priority}"#));
        assert_eq!(taken(&text).priority.get(), priority);
    }
    for refused in ["0", "11", "-1", "1.0", "256", "\"5\"", "true"] {
        let text = update_with(&format!(r#""priority":{refused}"#));
        check_refused(&text, Code::InvalidField, "/priority");
    }
}

#[test]
fn instants_are_rfc_3339_or_integer_milliseconds() {
    for field in ["changed_at", "created_at", "updated_at", "scheduled_at"] {
        for written in ["1795168800123", "\"2026-11-20T12:00:00.123+02:00\""] {
            let text = update_with(&format!(r#""{field}":{written}"#));
            let event = taken(&text);
            let read = match field {
                "scheduled_at" => event.scheduled_at_ms,
                _ => event.changed_at_ms,
            };
            assert_eq!(read, Some(1_795_168_800_123), "{text}");
        }
        for refused in [
            "\"tomorrow\"",
            "\"2026-11-20\"",
            "1.5",
            "9999999999999999",
            "{}",
        ] {
            let text = update_with(&format!(r#""{field}":{refused}"#));
            check_refused(&text, Code::InvalidField, &format!("/{field}"));
        }
    }
}

#[test]
fn an_unknown_field_is_refused_unless_it_begins_with_x() {
    check_refused(&update_with(r#""nope":1"#), Code::UnknownField, "/nope");
    check_refused(
        &update_with(r#""Provider":"sf""#),
        Code::UnknownField,
        "/Provider",
    );
    check_refused(&update_with(r#""a/b~":1"#), Code::UnknownField, "/a~1b~0");
    check_refused(
        &update_with(r#""source":"x""#),
        Code::UnknownField,
        "/source",
    );
    check_refused(
        r#"{"op":"update","record_id":"1","record_data":{"data":{},"x":1}}"#,
        Code::UnknownField,
        "/record_data/x",
    );
    let text = update_with(r#""x_batch":{"n": 1.50},"x_":null"#);
    let event = taken(&text);
    let kept: Vec<_> = event
        .extras
        .iter()
        .map(|x| (&*x.name, x.value.text()))
        .collect();
    assert_eq!(kept, [("x_batch", "{\"n\": 1.50}"), ("x_", "null")]);
}

#[test]
fn fields_of_the_producers_own_are_bounded() {
    let many: Vec<_> = (0..65).map(|n| format!(r#""x_{n}":0"#)).collect();
    taken(&update_with(&many[..64].join(",")));
    check_refused(&update_with(&many.join(",")), Code::InvalidField, "/x_64");
    let long = format!("x_{}", "a".repeat(255));
    let refusal = parse(&update_with(&format!(r#""{long}":0"#)), Surface::Stream).unwrap_err();
    assert_eq!(refusal.code, Code::InvalidField);
    assert!(refusal.pointer.unwrap().len() < 140);
}

#[test]
fn the_lesser_fields_are_read_and_checked() {
    let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let text = update_with(&format!(
        r#""schema_version":3,"tenant":"acme","traceparent":"{traceparent}","correlation_id":"c","seq":9,"remote_id":5001,"before":{{"a":1}}"#
    ));
    let event = taken(&text);
    assert_eq!(event.schema_version.as_deref(), Some("3"));
    assert_eq!(event.tenant.as_deref(), Some("acme"));
    assert_eq!(event.traceparent.as_deref(), Some(traceparent));
    assert_eq!(event.correlation_id.as_deref(), Some("c"));
    assert_eq!(event.seq, Some(9));
    assert_eq!(event.remote_id.as_deref(), Some("5001"));
    assert_eq!(event.before.unwrap().text(), r#"{"a":1}"#);
    for (member, pointer) in [
        (r#""traceparent":"00-x""#, "/traceparent"),
        (
            r#""traceparent":"00-00000000000000000000000000000000-00f067aa0ba902b7-01""#,
            "/traceparent",
        ),
        (r#""traceparent":"a\r\nX-Evil: 1""#, "/traceparent"),
        (r#""seq":-1"#, "/seq"),
        (r#""seq":"9""#, "/seq"),
        (r#""tenant":"""#, "/tenant"),
        (r#""remote_id":"a\tb""#, "/remote_id"),
        (r#""before":[]"#, "/before"),
        (r#""provider":7"#, "/provider"),
        (r#""object":"""#, "/object"),
        (r#""correlation_id":1.5"#, "/correlation_id"),
    ] {
        check_refused(&update_with(member), Code::InvalidField, pointer);
    }
}

#[test]
fn null_says_the_same_as_leaving_a_field_out() {
    let text = update_with(
        r#""provider":null,"object":null,"before":null,"priority":null,"changed_at":null,"seq":null,"id":null,"op":null"#,
    );
    let plain = r#"{"operation":"UPDATE","record_id":"1","data":{}}"#;
    assert_eq!(taken(&text), taken(plain));
}

#[test]
fn names_are_the_same_however_they_are_escaped() {
    let text = r#"{"\u006fp":"\u0055PDATE","record_id":"\u0031","data":{}}"#;
    let event = taken(text);
    assert_eq!(event.operation, Operation::Update);
    assert_eq!(event.record_id.as_deref(), Some("1"));
    let contradicts = r#"{"op":"UPDATE","\u006fp":"UPDATE","record_id":"1","data":{}}"#;
    check_refused(contradicts, Code::DuplicateKey, "/op");
}

#[test]
fn texts_without_escapes_are_not_copied() {
    let text = r#"{"op":"update","provider":"sf","record_id":"1","event_id":"e","data":{}}"#;
    let event = taken(text);
    for part in [&event.provider, &event.record_id, &event.event_id] {
        assert!(matches!(part, Some(Cow::Borrowed(_))));
    }
}

#[test]
fn a_refusal_never_repeats_a_value() {
    let secret = "hunter2";
    for text in [
        update_with(r#""priority":"hunter2""#),
        update_with(r#""changed_at":"hunter2""#),
        update_with(r#""traceparent":"hunter2""#),
        update_with(r#""provider":"a","crm":"hunter2""#),
        r#"{"op":"hunter2","record_id":"1"}"#.to_owned(),
        r#"{"op":"update","record_id":"1","data":"hunter2"}"#.to_owned(),
        r#"{"op":"update","record_id":"hunter2","data":{"a":hunter2}}"#.to_owned(),
    ] {
        let refusal = parse(&text, Surface::Stream).unwrap_err();
        assert!(!format!("{refusal:?}").contains(secret), "{refusal:?}");
    }
}

#[test]
fn the_same_body_is_told_from_another() {
    let base = r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"}}"#;
    let hash = taken(base).body_hash();
    for same in [
        r#"{ "operation":"UPDATE", "record_id":1, "event_id":"e", "payload":{"b":"x","a":1}}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"\u0078"},"seq":7,"correlation_id":"z"}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"priority":5,"object":"record"}"#,
    ] {
        assert_eq!(taken(same).body_hash(), hash, "{same}");
    }
    for other in [
        r#"{"op":"upsert","record_id":"1","event_id":"e","data":{"a":1,"b":"x"}}"#,
        r#"{"op":"update","record_id":"2","event_id":"e","data":{"a":1,"b":"x"}}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1.0,"b":"x"}}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1}}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"before":{}}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"changed_at":0}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"scheduled_at":0}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"provider":"sf"}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"tenant":"sf"}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"x_a":1}"#,
        r#"{"op":"update","record_id":"1","event_id":"e","data":{"a":1,"b":"x"},"priority":4}"#,
    ] {
        assert_ne!(taken(other).body_hash(), hash, "{other}");
    }
}

#[test]
fn the_hash_of_a_body_is_part_of_the_log_format() {
    let text = r#"{"op":"upsert","provider":"sf","object":"o","record_id":"1","remote_id":"r","data":{"a":[1,"é",null],"b":{}},"before":{},"changed_at":1,"priority":2,"scheduled_at":3,"schema_version":"4","tenant":"t","x_a":true}"#;
    assert_eq!(taken(text).body_hash(), 0xb7ab_4457_1f8c_66c8);
    assert_eq!(
        taken(r#"{"op":"delete","record_id":"1"}"#).body_hash(),
        0x0900_d702_87e3_e8e0
    );
}

#[test]
fn a_recorded_organisation_is_taken_whole() {
    let name = "a_recorded_organisation_is_taken_whole";
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/records/npsp_events.ndjson");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: {name} (no recorded events beside the repository)");
        return;
    };
    let mut scratch = Scratch::new();
    let defaults = Defaults::default();
    let mut events = 0;
    for line in text.lines() {
        let event = event::parse(line.as_bytes(), &mut scratch, &defaults, Surface::Stream);
        let event = event.unwrap_or_else(|refusal| panic!("{line}: {refusal}"));
        assert_eq!(event.operation, Operation::Create);
        events += 1;
    }
    assert_eq!(events, 611);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_members_are_read_or_refused_without_panic(
        members in prop::collection::vec((
            prop::sample::select(vec![
                "operation", "op", "action", "provider", "crm", "object", "record_id", "id",
                "remote_id", "data", "payload", "record_data", "before", "event_id", "changed_at",
                "created_at", "updated_at", "priority", "scheduled_at", "schema_version", "tenant",
                "traceparent", "correlation_id", "seq", "x_a", "specversion", "source", "type",
                "subject", "time", "after", "ts_ms", "schema",
            ]),
            prop::sample::select(vec![
                "null", "true", "0", "7", "-1", "1.5", "\"\"", "\"UPDATE\"", "\"c\"", "\"1.0\"",
                "\"a.contact.updated\"", "{}", "[]", "{\"id\":1,\"data\":{\"a\":1}}",
                "{\"op\":\"c\",\"source\":{\"table\":\"t\"},\"after\":{}}",
                "\"2026-11-20T10:00:00Z\"", "\"\\u0000\"",
            ]),
        ), 0..8),
    ) {
        let mut members = members;
        members.sort_unstable();
        members.dedup_by_key(|member| member.0);
        let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let text = format!("{{{}}}", members.join(","));
        let _parsed = parse(&text, Surface::Http);
    }

    #[test]
    fn any_bytes_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let defaults = Defaults::default();
        let parsed = event::parse(&bytes, &mut Scratch::new(), &defaults, Surface::Http);
        prop_assert!(parsed.is_err());
        let _control = event::looks_like_control(&bytes);
        let _seq = event::seq_of(&bytes);
    }
}
