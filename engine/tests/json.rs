//! Validation takes exactly what the contract allows, and the raw readers agree with serde_json.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use syncline_engine::event::EVENT_BYTES_MAX;
use syncline_engine::json::{Kind, RawObject, RawValue, Scratch};
use syncline_engine::refusal::{Code, Refusal};

fn validate(bytes: &[u8]) -> Result<(), Refusal> {
    Scratch::new().validate(bytes, EVENT_BYTES_MAX).map(drop)
}

fn check_refused(bytes: &[u8], code: Code, pointer: Option<&str>) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
    let refusal = validate(bytes).expect_err(&shown);
    assert_eq!(refusal.code, code, "{shown}: {refusal}");
    assert_eq!(refusal.pointer.as_deref(), pointer, "{shown}: {refusal}");
}

#[test]
fn valid_documents_are_taken() {
    for text in [
        "{}",
        "[]",
        "[[]   ]",
        "null",
        "true",
        "false",
        "42",
        "-0",
        "\"\"",
        "\"x\"",
        " [1] ",
        "[1\n]",
        "[1,null,null,null,2]",
        "{\"\":0}",
        "{\"a\":[]}",
        "{\"title\":\"\\u041f\\u043e\\u043b\"}",
        "{\n\"a\": \"b\"\n}",
        "[123e65]",
        "[0e+1]",
        "[0e1]",
        "[ 4]",
        "[-0]",
        "[-123]",
        "[1E22]",
        "[1E-2]",
        "[1E+2]",
        "[123e-10000000]",
        "[123.456e78]",
        "[-0.000000000000000000000000000000000000000000000000000000000000000000000000000001]",
        "[\"\\u0060\\u012a\\u12AB\"]",
        "[\"\\uD801\\udc37\"]",
        "[\"\\ud83d\\ude39\\ud83d\\udc8d\"]",
        "[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]",
        "[\"\\\\u0000\"]",
        "[\"\\u0000\"]",
        "[\"a/*b*/c\"]",
        "[\"\u{10ffff}\u{7f}\u{feff}\"]",
        "[\"\u{2028}\u{200b}\"]",
        "[9223372036854775807,-9223372036854775808,18446744073709551615]",
        "[0.1234567890123456789012345678901234567890]",
        "[12345678901234567890.123]",
        "[1e308,1e-400]",
        "{\"a\":1,\"A\":2}",
        "{\"a\":{\"a\":{\"a\":1}}}",
    ] {
        assert_eq!(validate(text.as_bytes()), Ok(()), "{text}");
    }
}

#[test]
fn malformed_documents_are_refused_with_their_place() {
    for (text, pointer) in [
        ("", ""),
        (" ", ""),
        ("{", ""),
        ("}", ""),
        ("[", "/0"),
        ("[1", ""),
        ("[1,]", "/1"),
        ("[,1]", "/0"),
        ("[1,,2]", "/1"),
        ("[1 2]", ""),
        ("[1]x", ""),
        ("[1]]", ""),
        ("{}{}", ""),
        ("{\"a\":1}#", ""),
        ("{\"a\"}", "/a"),
        ("{\"a\" \"b\"}", "/a"),
        ("{\"a\":}", "/a"),
        ("{\"a\":1,}", ""),
        ("{,\"a\":1}", ""),
        ("{\"a\":1 \"b\":2}", ""),
        ("{a:1}", ""),
        ("{'a':1}", ""),
        ("{1:1}", ""),
        ("{\"a\":{\"b\":tru}}", "/a/b"),
        ("[nul]", "/0"),
        ("[True]", "/0"),
        ("[NaN]", "/0"),
        ("[-Infinity]", "/0"),
        ("[+1]", "/0"),
        ("[01]", ""),
        ("[-01]", ""),
        ("[.5]", "/0"),
        ("[1.]", "/0"),
        ("[1.e1]", "/0"),
        ("[1e]", "/0"),
        ("[1e+]", "/0"),
        ("[-]", "/0"),
        ("[0x1]", ""),
        ("[1_000]", ""),
        ("[\"]", "/0"),
        ("[\"\\\"]", "/0"),
        ("[\"\\x00\"]", "/0"),
        ("[\"\\a\"]", "/0"),
        ("[\"\\u00A\"]", "/0"),
        ("[\"\\u{41}\"]", "/0"),
        ("[\"\u{1}\"]", "/0"),
        ("[\"a\nb\"]", "/0"),
        ("[\"a\tb\"]", "/0"),
        ("['a']", "/0"),
        ("[\u{a0}1]", "/0"),
        ("[1]\u{c}", ""),
        ("// c\n1", ""),
        ("[1 /* c */]", ""),
        ("\u{feff}{}", ""),
        ("{\"n\":{\"~/\":[0,?]}}", "/n/~0~1/1"),
    ] {
        check_refused(text.as_bytes(), Code::Malformed, Some(pointer));
    }
}

#[test]
fn lone_surrogates_are_refused() {
    for inner in [
        "\\ud800",
        "\\udc00",
        "\\ud800\\ud800",
        "\\ud800x",
        "\\ud800\\n",
        "\\uDFFF\\uD800",
        "\\ud83d\\u0041",
    ] {
        let text = format!("{{\"a\":\"{inner}\"}}");
        check_refused(text.as_bytes(), Code::Malformed, Some("/a"));
        let key = format!("{{\"{inner}\":1}}");
        check_refused(key.as_bytes(), Code::Malformed, Some(""));
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    for bytes in [
        b"[\"\xff\"]".as_slice(),
        b"[\"\xc0\xaf\"]",
        b"[\"\xed\xa0\x80\"]",
        b"[\"\xf4\x90\x80\x80\"]",
        b"[\"\xe2\x82\"]",
        b"\xff\xfe{\0}\0",
    ] {
        check_refused(bytes, Code::NotUtf8, None);
    }
    let refusal = validate(b"[\"ab\xff\"]").unwrap_err();
    assert_eq!(refusal.detail, "not UTF-8 at byte 4");
}

#[test]
fn nesting_is_taken_to_64_levels() {
    let nested = |levels: usize, open: &str, close: &str| {
        format!("{}1{}", open.repeat(levels), close.repeat(levels)).into_bytes()
    };
    assert_eq!(validate(&nested(64, "[", "]")), Ok(()));
    assert_eq!(validate(&nested(64, "{\"a\":", "}")), Ok(()));
    check_refused(&nested(65, "[", "]"), Code::TooDeep, Some(&"/0".repeat(64)));
    check_refused(
        &nested(65, "{\"a\":", "}"),
        Code::TooDeep,
        Some(&"/a".repeat(64)),
    );
    check_refused(
        &b"[".repeat(1_000_000),
        Code::TooDeep,
        Some(&"/0".repeat(64)),
    );
}

#[test]
fn a_mebibyte_is_taken_and_one_byte_more_is_not() {
    let mut text = b"[\"".to_vec();
    text.resize(EVENT_BYTES_MAX - 2, b'a');
    text.extend_from_slice(b"\"]");
    assert_eq!(validate(&text), Ok(()));
    text.push(b' ');
    check_refused(&text, Code::TooLarge, None);
}

#[test]
fn a_member_named_twice_is_refused_at_any_depth() {
    for (text, pointer) in [
        (r#"{"a":1,"a":1}"#, "/a"),
        (r#"{"a":1,"\u0061":2}"#, "/a"),
        (r#"{"":1,"":2}"#, "/"),
        (r#"{"x":{"a":1,"b":2,"a":3}}"#, "/x/a"),
        (r#"{"x":[0,{"é":1,"\u00e9":3}]}"#, "/x/1/é"),
        (r#"{"a/b":1,"c":{},"a\/b":1}"#, "/a~1b"),
        (r#"{"a\u0000":1,"a\u0000":1}"#, "/a\u{0}"),
        (
            r#"{"a_name_longer_than_8":1,"a_name_LONGER_than_8":1,"a_name_longer_than_8":1}"#,
            "/a_name_longer_than_8",
        ),
    ] {
        check_refused(text.as_bytes(), Code::DuplicateKey, Some(pointer));
    }
}

#[test]
fn wide_objects_are_checked_as_narrow_ones_are() {
    for members in [2, 31, 32, 33, 64, 1_000, 60_000] {
        let names = |count: usize| {
            (0..count)
                .map(|n| format!("\"key{n}\":0"))
                .collect::<Vec<_>>()
        };
        let unique = format!("{{{}}}", names(members).join(","));
        assert_eq!(validate(unique.as_bytes()), Ok(()), "{members}");
        let mut twice = names(members - 1);
        twice.push("\"k\\u0065y0\":1".to_owned());
        let twice = format!("{{{}}}", twice.join(","));
        check_refused(twice.as_bytes(), Code::DuplicateKey, Some("/key0"));
    }
}

#[test]
fn numbers_that_cannot_be_carried_are_refused_with_their_place() {
    for (text, pointer) in [
        ("[18446744073709551616]", "/0"),
        ("[-9223372036854775809]", "/0"),
        ("{\"a\":{\"b\":1e400}}", "/a/b"),
        ("{\"a\":-1e309}", "/a"),
        ("{\"a\":100000000000000000000000000000}", "/a"),
    ] {
        check_refused(text.as_bytes(), Code::NumberPrecision, Some(pointer));
    }
}

#[test]
fn buffers_carry_nothing_from_one_document_to_the_next() {
    let mut scratch = Scratch::new();
    let documents: [(&[u8], bool); 6] = [
        (br#"{"long":"a\nb","list":[1,2,3,{"x":"y"}]}"#, true),
        (b"[[[[", false),
        (br#"{"a":1}"#, true),
        (b"\xff", false),
        (br#"{"a":1,"a":2}"#, false),
        (b"{}", true),
    ];
    for (document, valid) in documents.iter().cycle().take(60) {
        let outcome = scratch.validate_object(document, EVENT_BYTES_MAX);
        assert_eq!(outcome.is_ok(), *valid);
        if let Ok(found) = outcome {
            assert_eq!(found.members().count(), found.object().members().count());
        }
    }
}

/// Any JSON text: values of every kind, with odd spacing and escapes.
fn any_json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>()
            .prop_filter("JSON has no NaN", |n| n.is_finite())
            .prop_map(|n| format!("{n:e}")),
        "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
        any_string(),
    ];
    scalar.prop_recursive(4, 48, 8, |inner| {
        let space = "[ \t\r\n]{0,2}";
        let item = (space, inner.clone(), space).prop_map(|(a, v, b)| format!("{a}{v}{b}"));
        let member = (space, any_string(), space, inner, space)
            .prop_map(|(a, k, b, v, c)| format!("{a}{k}{b}:{c}{v}"));
        prop_oneof![
            prop::collection::vec(item, 0..8).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(member, 0..8).prop_map(|all| format!("{{{}}}", all.join(","))),
        ]
    })
}

fn any_string() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[a-c]{1,2}",
        1 => Just("\\u0061".to_owned()),
        1 => Just("\\\"".to_owned()),
        1 => Just("\\\\".to_owned()),
        1 => Just("\\ud83d\\ude00".to_owned()),
        1 => Just("{[,:]}".to_owned()),
        1 => Just("é€😀".to_owned()),
        1 => Just("\\n".to_owned()),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn has_duplicate(text: &str) -> bool {
    fn walk(value: RawValue<'_>) -> bool {
        match value.kind() {
            Kind::Object => {
                let mut seen = BTreeMap::new();
                value.as_object().unwrap().members().any(|member| {
                    seen.insert(member.key.name().into_owned(), ()).is_some() || walk(member.value)
                })
            }
            Kind::Array => value.as_array().unwrap().any(walk),
            _ => false,
        }
    }
    walk(RawValue::new(text))
}

/// The value as serde_json sees it, rebuilt from our raw readers alone.
fn rebuild(value: RawValue<'_>) -> Value {
    match value.kind() {
        Kind::Object => {
            let members = value.as_object().unwrap().members();
            Value::Object(
                members
                    .map(|m| (m.key.name().into_owned(), rebuild(m.value)))
                    .collect(),
            )
        }
        Kind::Array => Value::Array(value.as_array().unwrap().map(rebuild).collect()),
        Kind::Text => Value::String(value.as_text().unwrap().into_owned()),
        _ => serde_json::from_str(value.text()).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_valid_json_is_taken_and_reads_as_serde_json_reads_it(text in any_json()) {
        let judged = validate(text.as_bytes());
        match serde_json::from_str::<Value>(&text) {
            Ok(_) if has_duplicate(&text) => {
                // Whichever stands first in the text.
                let code = judged.unwrap_err().code;
                prop_assert!(matches!(code, Code::DuplicateKey | Code::NumberPrecision), "{code}");
            }
            Ok(expected) => match judged {
                Ok(()) => prop_assert_eq!(rebuild(RawValue::new(&text)), expected),
                // serde_json turns an integer beyond 64 bits into an f64; we refuse to.
                Err(refusal) => prop_assert_eq!(refusal.code, Code::NumberPrecision),
            },
            Err(_) => {
                let code = judged.unwrap_err().code;
                prop_assert!(matches!(code, Code::NumberPrecision | Code::DuplicateKey), "{code}");
            }
        }
    }

    #[test]
    fn one_changed_byte_is_judged_as_serde_json_judges_it(
        text in any_json(),
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\u0123eE+-. tfn".to_vec())],
    ) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let ours = validate(&bytes);
        let theirs = serde_json::from_slice::<Value>(&bytes);
        match (ours, theirs) {
            (Ok(()), Ok(_)) => {}
            (Ok(()), Err(error)) => prop_assert!(false, "taken, but {error}: {bytes:?}"),
            (Err(refusal), Ok(_)) => prop_assert!(
                matches!(refusal.code, Code::DuplicateKey | Code::NumberPrecision),
                "{refusal}"
            ),
            (Err(refusal), Err(_)) => prop_assert!(
                refusal.detail != "not valid JSON",
                "no place was found: {bytes:?}"
            ),
        }
    }

    #[test]
    fn the_members_found_by_the_tape_are_those_found_in_the_text(text in any_json()) {
        let mut scratch = Scratch::new();
        if let Ok(found) = scratch.validate_object(text.as_bytes(), EVENT_BYTES_MAX) {
            let by_tape: Vec<_> = found.members().collect();
            let by_text: Vec<_> = RawObject::new(&text).unwrap().members().collect();
            prop_assert_eq!(by_tape, by_text);
        }
    }

    #[test]
    fn reading_unvalidated_text_never_panics(text in "[\\[\\]{}\",:\\\\u0-9a-f é]{0,40}") {
        let value = RawValue::new(&text);
        let _text = value.as_text();
        let _nested = has_duplicate(&text);
        if let Some(object) = value.as_object() {
            let _found = object.get_path(&["a", "b"]);
        }
        let _hash = syncline_engine::json::canonical_hash(value);
    }

    #[test]
    fn validating_any_bytes_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _judged = validate(&bytes);
    }
}
