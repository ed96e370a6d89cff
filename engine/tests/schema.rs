//! A schema refuses what does not fit, and points at it.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use syncline_engine::event::{Defaults, Surface, parse};
use syncline_engine::json::Scratch;
use syncline_engine::refusal::{Code, Refusal};
use syncline_engine::schema::Schema;

const CONTACT: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["email"],
    "additionalProperties": false,
    "properties": {
        "email": {"type": "string", "format": "email"},
        "status": {"enum": ["active", "inactive"]},
        "age": {"type": "integer", "minimum": 0},
        "phone": {"type": ["string", "null"]},
        "code": {"type": "string", "pattern": "^[A-Z]{2}$"},
        "address": {
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"type": "string"}, "a/b": {"type": "string"}}
        },
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}}
    },
    "$defs": {"tag": {"type": "string", "maxLength": 5}}
}"##;

fn check(operation: &str, data: &str) -> Result<(), Refusal> {
    let schema = Schema::compile(CONTACT).unwrap();
    let event = format!(r#"{{"operation":"{operation}","record_id":"1","data":{data}}}"#);
    let mut scratch = Scratch::new();
    let event = parse(
        event.as_bytes(),
        &mut scratch,
        &Defaults::default(),
        Surface::Stream,
    );
    schema.check(&event.unwrap())
}

fn check_refused(operation: &str, data: &str, pointer: &str) {
    let refusal = check(operation, data).expect_err(data);
    assert_eq!(refusal.code, Code::Schema);
    assert_eq!(refusal.pointer.as_deref(), Some(pointer), "{refusal}");
    assert!(!refusal.detail.contains("s3cret"), "{refusal}");
}

#[test]
fn a_whole_record_is_held_to_the_whole_schema() {
    let good = r#"{"email":"ada@example.com","status":"active","tags":["a"],"phone":null}"#;
    assert_eq!(check("CREATE", good), Ok(()));
    assert_eq!(check("UPSERT", good), Ok(()));
    for (data, pointer) in [
        ("{}", "/data/email"),
        (r#"{"email":"s3cret"}"#, "/data/email"),
        (r#"{"email":"a@b.c","age":-1}"#, "/data/age"),
        (r#"{"email":"a@b.c","status":"s3cret"}"#, "/data/status"),
        (r#"{"email":"a@b.c","code":"s3cret"}"#, "/data/code"),
        (r#"{"email":"a@b.c","address":{}}"#, "/data/address/city"),
        (
            r#"{"email":"a@b.c","address":{"city":"x","a/b":1}}"#,
            "/data/address/a~1b",
        ),
        (
            r#"{"email":"a@b.c","tags":["ok","s3cret"]}"#,
            "/data/tags/1",
        ),
        (r#"{"email":"a@b.c","extra~":1}"#, "/data/extra~0"),
        (r#"{"email":null}"#, "/data/email"),
    ] {
        check_refused("CREATE", data, pointer);
    }
}

#[test]
fn a_change_is_held_to_what_the_schema_says_of_its_fields() {
    for data in [
        "{}",
        r#"{"status":"inactive"}"#,
        r#"{"address":{"a/b":"x"}}"#,
        r#"{"status":null,"phone":null,"address":null}"#,
    ] {
        assert_eq!(check("UPDATE", data), Ok(()), "{data}");
    }
    check_refused("UPDATE", r#"{"status":"gone"}"#, "/data/status");
    check_refused("UPDATE", r#"{"email":null}"#, "/data/email");
    check_refused("UPDATE", r#"{"unknown":1}"#, "/data/unknown");
}

#[test]
fn what_carries_no_fields_passes() {
    let schema = Schema::compile(CONTACT).unwrap();
    let mut scratch = Scratch::new();
    let bytes = br#"{"operation":"DELETE","record_id":"1"}"#;
    let event = parse(bytes, &mut scratch, &Defaults::default(), Surface::Stream).unwrap();
    assert_eq!(schema.check(&event), Ok(()));
}

#[test]
fn a_schema_that_cannot_be_right_is_refused_when_it_loads() {
    for (schema, detail) in [
        ("{", "is not JSON"),
        (r#"{"type":"text"}"#, ""),
        (r#"{"$ref":"https://example.com/contact.json"}"#, ""),
        (r##"{"$ref":"#/$defs/absent"}"##, ""),
        (r#"{"properties":{"a":{"pattern":"("}}}"#, ""),
    ] {
        let error = Schema::compile(schema).expect_err(schema);
        assert!(error.detail.contains(detail), "{schema}: {error}");
    }
}
