//! Mappings carry fields out and back, and refuse at load what they could not.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use proptest::prelude::*;
use syncline_engine::json::{RawObject, write_string};
use syncline_engine::mapping::{
    Direction, FieldSettings, MapFailure, MapFailureCause, Mapping, MappingSettings, OnNull, Write,
    keep_reference, write_unmapped,
};

fn field(local: &str, remote: &str) -> FieldSettings {
    FieldSettings {
        local: local.to_owned(),
        remote: remote.to_owned(),
        ..FieldSettings::default()
    }
}

fn converted(local: &str, remote: &str, convert: &[&str]) -> FieldSettings {
    FieldSettings {
        convert: convert.iter().map(|&name| name.to_owned()).collect(),
        lossy: true,
        ..field(local, remote)
    }
}

fn values(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(l, r)| ((*l).to_owned(), (*r).to_owned()))
        .collect()
}

fn settings(fields: Vec<FieldSettings>) -> MappingSettings {
    MappingSettings {
        remote: "Contact".to_owned(),
        external_id: Some("External_Id__c".to_owned()),
        fields,
        match_keys: Vec::new(),
        deleted: None,
    }
}

fn compiled(fields: Vec<FieldSettings>) -> Mapping {
    Mapping::compile("contact", &settings(fields)).unwrap()
}

fn out(mapping: &Mapping, data: &str, write: Write) -> Result<String, MapFailure> {
    let mut out = Vec::new();
    mapping.apply(
        RawObject::new(data).unwrap(),
        write,
        &keep_reference,
        &mut out,
    )?;
    Ok(String::from_utf8(out).unwrap())
}

fn back(mapping: &Mapping, remote: &str) -> Result<String, MapFailure> {
    let mut out = Vec::new();
    mapping.unapply(RawObject::new(remote).unwrap(), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn check_compile_error(fields: Vec<FieldSettings>, place: &str, detail: &str) {
    let error = Mapping::compile("contact", &settings(fields)).unwrap_err();
    assert_eq!(error.place, place, "{error}");
    assert!(error.detail.contains(detail), "{error}");
}

/// The mapping printed in the contract.
fn contract() -> Mapping {
    compiled(vec![
        FieldSettings {
            required: true,
            ..field("first_name", "FirstName")
        },
        converted("email", "Email", &["trim", "lowercase"]),
        FieldSettings {
            values: values(&[("active", "A"), ("inactive", "I")]),
            ..field("status", "Status__c")
        },
        FieldSettings {
            reference: Some("account".to_owned()),
            ..field("account_id", "AccountId")
        },
    ])
}

#[test]
fn the_mapping_of_the_contract_maps() {
    let data = r#"{"status":"active","email":" Ada@Example.com ","first_name":"Ada","unmapped":1}"#;
    assert_eq!(
        out(&contract(), data, Write::Create).unwrap(),
        r#"{"FirstName":"Ada","Email":"ada@example.com","Status__c":"A"}"#
    );
    assert_eq!(
        back(
            &contract(),
            r#"{"Status__c":"I","FirstName":"Eve","Other":2}"#
        )
        .unwrap(),
        r#"{"first_name":"Eve","status":"inactive"}"#
    );
    assert_eq!(contract().remote(), "Contact");
    assert_eq!(contract().external_id(), Some("External_Id__c"));
}

#[test]
fn null_clears_absent_stays_out_and_values_keep_their_digits() {
    let mapping = compiled(vec![field("a", "A"), field("b", "B"), field("c", "C")]);
    assert_eq!(
        out(&mapping, r#"{"c": 10.10,"a":null}"#, Write::Update).unwrap(),
        r#"{"A":null,"C":10.10}"#
    );
    assert_eq!(out(&mapping, "{}", Write::Update).unwrap(), "{}");
    let null = out(
        &contract(),
        r#"{"email":null,"status":null}"#,
        Write::Update,
    );
    assert_eq!(null.unwrap(), r#"{"Email":null,"Status__c":null}"#);
}

#[test]
fn paths_nest_on_both_sides() {
    let mapping = compiled(vec![
        field("address.city", "MailingCity"),
        field("zip", "Mailing.Code.Zip"),
        field("address.geo.lat", "Mailing.Lat"),
        field("land", "Mailing.Code.Country"),
    ]);
    let data = r#"{"zip":"1","address":{"city":"Paris","geo":{"lat":48.85}},"land":"FR"}"#;
    let mapped =
        r#"{"MailingCity":"Paris","Mailing":{"Code":{"Zip":"1","Country":"FR"},"Lat":48.85}}"#;
    assert_eq!(out(&mapping, data, Write::Create).unwrap(), mapped);
    assert_eq!(
        back(&mapping, mapped).unwrap(),
        r#"{"address":{"city":"Paris","geo":{"lat":48.85}},"zip":"1","land":"FR"}"#
    );
    assert_eq!(
        out(&mapping, r#"{"address":{"city":"Rome"}}"#, Write::Update).unwrap(),
        r#"{"MailingCity":"Rome"}"#,
        "no empty object around absent fields"
    );
    assert_eq!(
        out(&mapping, r#"{"address":null}"#, Write::Update).unwrap(),
        r#"{"MailingCity":null,"Mailing":{"Lat":null}}"#,
        "clearing an object clears what lies in it"
    );
    let failure = out(&mapping, r#"{"address":"Paris"}"#, Write::Update).unwrap_err();
    assert_eq!(failure.pointer, "/data/address/city");
}

#[test]
fn required_binds_create_and_upsert_and_an_update_only_by_clearing() {
    for (data, write, fails) in [
        (r#"{"first_name":"A"}"#, Write::Create, false),
        (r#"{"email":"a"}"#, Write::Create, true),
        (r#"{"first_name":null}"#, Write::Create, true),
        (r#"{"email":"a"}"#, Write::Upsert, true),
        (r#"{"first_name":null}"#, Write::Upsert, true),
        (r#"{"email":"a"}"#, Write::Update, false),
        (r#"{"first_name":null}"#, Write::Update, true),
    ] {
        let mapped = out(&contract(), data, write);
        assert_eq!(mapped.is_err(), fails, "{data} {write:?}");
        let checked = contract().check_required(RawObject::new(data).unwrap(), write);
        assert_eq!(checked.is_err(), fails, "{data} {write:?}");
        if let Err(failure) = mapped {
            assert_eq!(failure.cause, MapFailureCause::Required);
            assert_eq!(failure.pointer, "/data/first_name");
        }
    }
}

#[test]
fn a_default_fills_a_create_and_a_constant_every_whole_record() {
    let mapping = compiled(vec![
        FieldSettings {
            default: Some("\"active\"".to_owned()),
            required: true,
            values: values(&[("active", "A")]),
            ..field("status", "Status")
        },
        FieldSettings {
            constant: Some("[1, 2]".to_owned()),
            ..field("", "Type")
        },
        field("name", "Name"),
    ]);
    let data = r#"{"name":"x"}"#;
    assert_eq!(
        out(&mapping, data, Write::Create).unwrap(),
        r#"{"Status":"A","Type":[1, 2],"Name":"x"}"#
    );
    assert!(
        out(&mapping, data, Write::Upsert).is_err(),
        "a default is no value of an upsert"
    );
    assert_eq!(
        out(&mapping, r#"{"status":"active"}"#, Write::Upsert).unwrap(),
        r#"{"Status":"A","Type":[1, 2]}"#
    );
    assert_eq!(
        out(&mapping, data, Write::Update).unwrap(),
        r#"{"Name":"x"}"#
    );
    assert_eq!(
        back(&mapping, r#"{"Type":3,"Name":"y"}"#).unwrap(),
        r#"{"name":"y"}"#
    );
}

#[test]
fn converters_convert_and_say_what_they_cannot() {
    for (convert, local, remote) in [
        (&["trim"][..], r#"" a b ""#, Some(r#""a b""#)),
        (&["lowercase"], r#""ÀB""#, Some(r#""àb""#)),
        (&["uppercase"], r#""àb""#, Some(r#""ÀB""#)),
        (&["trim", "number"], r#"" 10.50 ""#, Some("10.50")),
        (
            &["number"],
            r#""12345678901234567890.10""#,
            Some("12345678901234567890.10"),
        ),
        (&["number"], r#""010""#, None),
        (&["number"], "10", None),
        (&["text"], "10.50", Some(r#""10.50""#)),
        (&["text"], r#""10""#, None),
        (&["text", "number"], "1e5", Some("1e5")),
        (
            &["date"],
            r#""2026-11-20T23:30:00-01:00""#,
            Some(r#""2026-11-21""#),
        ),
        (&["date"], r#""2026-11-20""#, None),
        (
            &["datetime"],
            r#""2026-11-20""#,
            Some(r#""2026-11-20T00:00:00Z""#),
        ),
        (&["datetime"], r#""2026-02-30""#, None),
        (&["datetime"], r#""2026-11-20T00:00:00Z""#, None),
        (&["epoch_ms"], r#""1970-01-01T00:00:01.5Z""#, Some("1500")),
        (
            &["date:-02:00"],
            r#""2026-11-21T01:30:00Z""#,
            Some(r#""2026-11-20""#),
        ),
        (
            &["datetime:+02:00"],
            r#""2026-11-20""#,
            Some(r#""2026-11-20T00:00:00+02:00""#),
        ),
        (
            &["zone:+02:00"],
            r#""2026-11-20T10:00:00Z""#,
            Some(r#""2026-11-20T12:00:00.000+02:00""#),
        ),
        (&["epoch_s"], r#""1970-01-01T00:01:00Z""#, Some("60")),
        (&["yes_no"], "true", Some(r#""yes""#)),
        (&["yes_no"], r#""true""#, None),
        (&["one_zero"], "false", Some("0")),
        (&["to_bool", "yes_no"], r#"" ON ""#, Some(r#""yes""#)),
        (&["to_bool"], "2", None),
        (&["join:;"], r#"["a","b c"]"#, Some(r#""a;b c""#)),
        (&["join:;"], r#"["a;b"]"#, None),
        (&["join:;"], r#"[1]"#, None),
        (&["split:, "], r#""a, b""#, Some(r#"["a","b"]"#)),
        (&["split:,"], r#""a,,b""#, None),
        (&["phone:49"], r#""030 1234567""#, Some(r#""+49301234567""#)),
        (&["phone"], r#""n/a""#, None),
        (&["max:3"], r#""abc""#, Some(r#""abc""#)),
        (&["max:3"], r#""abcd""#, None),
        (&["truncate:3"], r#""äbcd""#, Some(r#""äbc""#)),
        (&["ellipsis:3"], r#""äbcd""#, Some(r#""äb…""#)),
        (
            &["html_to_text"],
            r#""<p>a &amp; b</p>""#,
            Some(r#""a & b""#),
        ),
        // The names of the founding documents.
        (&["to_upper"], r#""a""#, Some(r#""A""#)),
        (&["to_lower"], r#""A""#, Some(r#""a""#)),
        (&["to_string"], "1.50", Some(r#""1.50""#)),
        (&["to_string"], "true", Some(r#""true""#)),
        (&["to_int"], r#"" 42.9 ""#, Some("42")),
        (&["to_int"], "true", Some("1")),
        (&["to_int"], r#""x""#, None),
        (&["to_float"], r#"" 1.50 ""#, Some("1.50")),
        (&["to_bool"], r#""no""#, Some("false")),
        (
            &["format_phone"],
            r#""(415) 555-0100""#,
            Some(r#""4155550100""#),
        ),
        (
            &["format_email"],
            r#"" Ada@Example.com ""#,
            Some(r#""ada@example.com""#),
        ),
        (&["format_email"], r#""ada""#, None),
        (
            &["format_date"],
            r#""2026-11-20T10:00:00Z""#,
            Some(r#""2026-11-20""#),
        ),
        (&["format_date"], r#""2026-11-20""#, Some(r#""2026-11-20""#)),
        (&["clean_html"], r#""<b>a</b>""#, Some(r#""a""#)),
        (&["truncate_255"], r#""a""#, Some(r#""a""#)),
        (
            &["remove_special_chars"],
            r#""Ada & Söhne! (A-1)""#,
            Some(r#""Ada  Söhne A-1""#),
        ),
        (&["trim"], "true", None),
        (&["trim"], "{}", None),
        (&["trim"], "1", None),
    ] {
        let mapping = compiled(vec![converted("f", "F", convert)]);
        let mapped = out(&mapping, &format!("{{\"f\":{local}}}"), Write::Create);
        match remote {
            Some(remote) => assert_eq!(mapped.unwrap(), format!("{{\"F\":{remote}}}")),
            None => {
                let failure = mapped.expect_err(local);
                assert_eq!(failure.cause, MapFailureCause::Value);
                assert_eq!(failure.pointer, "/data/f");
            }
        }
    }
}

#[test]
fn converters_have_a_way_back() {
    for (convert, remote, local) in [
        (&["trim"][..], r#"" x""#, Some(r#"" x""#)),
        (&["number"], "10.50", Some(r#""10.50""#)),
        (&["text"], r#""10.50""#, Some("10.50")),
        (&["text"], r#""ten""#, None),
        (
            &["datetime"],
            r#""2026-11-20T00:00:00.000+00:00""#,
            Some(r#""2026-11-20""#),
        ),
        (&["datetime"], r#""2026-11-20T00:00:01Z""#, None),
        (&["epoch_ms"], "1500", Some(r#""1970-01-01T00:00:01.500Z""#)),
        (&["epoch_ms"], "1e300", None),
        (&["epoch_s"], "60", Some(r#""1970-01-01T00:01:00.000Z""#)),
        (&["yes_no"], r#""no""#, Some("false")),
        (&["yes_no"], r#""maybe""#, None),
        (&["one_zero"], "1", Some("true")),
        (&["join:;"], r#""a;b""#, Some(r#"["a","b"]"#)),
        (&["join:;"], r#""""#, Some("[]")),
        (&["split:;"], r#"["a","b"]"#, Some(r#""a;b""#)),
        (
            &["datetime:+02:00"],
            r#""2026-11-19T22:00:00Z""#,
            Some(r#""2026-11-20""#),
        ),
        (
            &["zone:+02:00"],
            r#""2026-11-20T12:00:00+02:00""#,
            Some(r#""2026-11-20T10:00:00.000Z""#),
        ),
        (&["truncate:3"], r#""abc""#, Some(r#""abc""#)),
    ] {
        let mapping = compiled(vec![converted("f", "F", convert)]);
        let mapped = back(&mapping, &format!("{{\"F\":{remote}}}"));
        match local {
            Some(local) => assert_eq!(mapped.unwrap(), format!("{{\"f\":{local}}}")),
            None => assert_eq!(mapped.expect_err(remote).pointer, "/F"),
        }
    }
}

fn parted(locals: &[&str], remotes: &[&str]) -> FieldSettings {
    let texts = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
    FieldSettings {
        locals: texts(locals),
        remotes: texts(remotes),
        lossy: true,
        ..FieldSettings::default()
    }
}

#[test]
fn names_are_joined_and_split() {
    let joined = compiled(vec![FieldSettings {
        remote: "Name".to_owned(),
        ..parted(&["first_name", "last_name"], &[])
    }]);
    let split = compiled(vec![FieldSettings {
        local: "name".to_owned(),
        ..parted(&[], &["FirstName", "LastName"])
    }]);
    let ada = r#"{"first_name":"Mary Ann","last_name":"Smith"}"#;
    assert_eq!(
        out(&joined, ada, Write::Create).unwrap(),
        r#"{"Name":"Mary Ann Smith"}"#
    );
    assert_eq!(back(&joined, r#"{"Name":"Mary Ann Smith"}"#).unwrap(), ada);
    let remote = r#"{"FirstName":"Mary Ann","LastName":"Smith"}"#;
    assert_eq!(
        out(&split, r#"{"name":" Mary Ann  Smith"}"#, Write::Update).unwrap(),
        remote
    );
    assert_eq!(
        back(&split, remote).unwrap(),
        r#"{"name":"Mary Ann Smith"}"#
    );
    assert_eq!(
        out(&split, r#"{"name":"Cher"}"#, Write::Update).unwrap(),
        r#"{"FirstName":null,"LastName":"Cher"}"#
    );
    assert_eq!(
        out(&split, r#"{"name":null}"#, Write::Update).unwrap(),
        r#"{"FirstName":null,"LastName":null}"#
    );
    let cher = r#"{"first_name":null,"last_name":"Cher"}"#;
    assert_eq!(
        out(&joined, cher, Write::Update).unwrap(),
        r#"{"Name":"Cher"}"#
    );
    let failure = out(&joined, r#"{"last_name":"Smith"}"#, Write::Update).unwrap_err();
    assert_eq!(failure.cause, MapFailureCause::Value);
    assert_eq!(failure.pointer, "/data/first_name");
    assert_eq!(out(&joined, "{}", Write::Update).unwrap(), "{}");
}

#[test]
fn a_null_clears_or_does_not() {
    let check = |on_null, expected_out: &str, expected_back: &str| {
        let mapping = compiled(vec![FieldSettings {
            on_null,
            ..field("a", "A")
        }]);
        assert_eq!(
            out(&mapping, r#"{"a":null}"#, Write::Update).unwrap(),
            expected_out
        );
        assert_eq!(back(&mapping, r#"{"A":null}"#).unwrap(), expected_back);
        let value = out(&mapping, r#"{"a":1}"#, Write::Update).unwrap();
        assert_eq!(value, r#"{"A":1}"#);
    };
    check(OnNull::Clear, r#"{"A":null}"#, r#"{"a":null}"#);
    check(OnNull::Omit, "{}", r#"{"a":null}"#);
    check(OnNull::Keep, "{}", "{}");
}

#[test]
fn a_field_may_go_one_way_only() {
    let mapping = compiled(vec![
        FieldSettings {
            direction: Direction::Out,
            lossy: false,
            ..converted("a", "A", &["lowercase"])
        },
        FieldSettings {
            direction: Direction::In,
            ..field("owner", "OwnerId")
        },
    ]);
    let data = r#"{"a":"X","owner":"me"}"#;
    assert_eq!(out(&mapping, data, Write::Update).unwrap(), r#"{"A":"x"}"#);
    assert_eq!(
        back(&mapping, r#"{"A":"x","OwnerId":"you"}"#).unwrap(),
        r#"{"owner":"you"}"#
    );
}

#[test]
fn an_expression_stands_where_no_converter_fits() {
    let mapping = compiled(vec![
        FieldSettings {
            cel: Some(r#"data.amount > 1000.0 ? "gold" : "blue""#.to_owned()),
            ..field("", "Tier__c")
        },
        FieldSettings {
            cel: Some(r#"data.city + " (" + data.country + ")""#.to_owned()),
            cel_in: Some(r#"remote.Place.substring(0, remote.Place.indexOf(" ("))"#.to_owned()),
            lossy: true,
            ..field("city", "Place")
        },
    ]);
    assert_eq!(
        out(
            &mapping,
            r#"{"amount":1500.5,"city":"Paris","country":"FR"}"#,
            Write::Create
        )
        .unwrap(),
        r#"{"Tier__c":"gold","Place":"Paris (FR)"}"#
    );
    assert_eq!(
        out(&mapping, r#"{"amount":1}"#, Write::Update).unwrap(),
        r#"{"Tier__c":"blue"}"#,
        "what a change does not tell is left out"
    );
    assert_eq!(
        back(&mapping, r#"{"Tier__c":"gold","Place":"Rome (IT)"}"#).unwrap(),
        r#"{"city":"Rome"}"#
    );
}

#[test]
fn a_required_expression_needs_a_value_for_a_whole_record() {
    let mapping = compiled(vec![FieldSettings {
        cel: Some("data.first.upperAscii()".to_owned()),
        required: true,
        ..field("", "First")
    }]);
    let ada = r#"{"first":"Ada"}"#;
    assert_eq!(
        out(&mapping, ada, Write::Create).unwrap(),
        r#"{"First":"ADA"}"#
    );
    let failure = out(&mapping, "{}", Write::Create).unwrap_err();
    assert_eq!(failure.cause, MapFailureCause::Required);
    assert_eq!(out(&mapping, "{}", Write::Update).unwrap(), "{}");
}

#[test]
fn equal_settings_have_equal_versions() {
    let version = |fields| compiled(fields).version();
    assert_eq!(
        version(vec![field("a", "A")]),
        version(vec![field("a", "A")])
    );
    let other = converted("a", "A", &["trim"]);
    assert_ne!(version(vec![field("a", "A")]), version(vec![other]));
}

#[test]
fn a_value_outside_the_table_fails_without_being_repeated() {
    let failure = out(&contract(), r#"{"status":"hunter2"}"#, Write::Update).unwrap_err();
    assert_eq!(failure.cause, MapFailureCause::Value);
    assert_eq!(failure.pointer, "/data/status");
    assert!(!format!("{failure:?}").contains("hunter2"));
    assert_eq!(
        back(&contract(), r#"{"Status__c":"X"}"#)
            .unwrap_err()
            .pointer,
        "/Status__c"
    );
}

#[test]
fn a_reference_becomes_the_parents_own_id_or_waits() {
    let data = RawObject::new(r#"{"account_id":7,"first_name":"A"}"#).unwrap();
    let mapping = contract();
    assert_eq!(mapping.references(data), [("account", "7".into())]);
    let linked = |object: &str, id: &str| Some(format!("{object}:{id}"));
    let mut written = Vec::new();
    mapping
        .apply(data, Write::Create, &linked, &mut written)
        .unwrap();
    assert_eq!(
        String::from_utf8(written).unwrap(),
        r#"{"FirstName":"A","AccountId":"account:7"}"#
    );
    let mut untouched = b"before".to_vec();
    let failure = mapping
        .apply(data, Write::Create, &|_, _| None, &mut untouched)
        .unwrap_err();
    assert_eq!(failure.cause, MapFailureCause::Unlinked);
    assert_eq!(failure.pointer, "/data/account_id");
    assert_eq!(untouched, b"before");
    assert_eq!(
        out(&mapping, r#"{"account_id":null}"#, Write::Update).unwrap(),
        r#"{"AccountId":null}"#
    );
}

#[test]
fn one_local_field_may_feed_two_and_comes_back_from_the_first() {
    let mapping = compiled(vec![field("email", "Email"), field("email", "Username")]);
    assert_eq!(
        out(&mapping, r#"{"email":"a"}"#, Write::Create).unwrap(),
        r#"{"Email":"a","Username":"a"}"#
    );
    assert_eq!(
        back(&mapping, r#"{"Username":"b","Email":"a"}"#).unwrap(),
        r#"{"email":"a"}"#
    );
}

#[test]
fn without_a_mapping_fields_go_as_they_are_but_for_a_repeated_id() {
    for (data, record_id, expected, fields) in [
        (r#"{"id":10,"name":"Test"}"#, "10", r#"{"name":"Test"}"#, 1),
        (
            r#"{"id":"10","name":"Test"}"#,
            "10",
            r#"{"name":"Test"}"#,
            1,
        ),
        (
            r#"{"id":11,"name":"Test"}"#,
            "10",
            r#"{"id":11,"name":"Test"}"#,
            2,
        ),
        (r#"{"id":10.0}"#, "10", r#"{"id":10.0}"#, 1),
        (
            r#"{ "a" : 1.50, "b":null }"#,
            "1",
            r#"{"a":1.50,"b":null}"#,
            2,
        ),
        ("{}", "1", "{}", 0),
    ] {
        let mut out = Vec::new();
        let count = write_unmapped(RawObject::new(data).unwrap(), record_id, &mut out);
        assert_eq!(
            (String::from_utf8(out).unwrap().as_str(), count),
            (expected, fields)
        );
    }
}

#[test]
fn settings_that_cannot_be_right_are_refused_with_their_place() {
    let default = |json: &str| FieldSettings {
        default: Some(json.to_owned()),
        ..field("a", "A")
    };
    for (fields, place, detail) in [
        (vec![field("a", "")], "fields[0].remote", "missing"),
        (vec![field("", "A")], "fields[0].local", "missing"),
        (vec![field("a..b", "A")], "fields[0].local", "empty part"),
        (
            vec![field("a", "A.B.C.D.E.F.G.H.I")],
            "fields[0].remote",
            "levels",
        ),
        (
            vec![field("a", "A"), field("b", "A")],
            "fields[1].remote",
            "another field",
        ),
        (
            vec![field("a", "A.B"), field("b", "A")],
            "fields[1].remote",
            "another field",
        ),
        (
            vec![field("a", "A"), field("b", "A.B")],
            "fields[1].remote",
            "another field",
        ),
        (
            vec![field("a", "A"), field("a.b", "B")],
            "fields[1].local",
            "another field",
        ),
        (
            vec![FieldSettings {
                convert: vec!["number".to_owned(), "rot13".to_owned()],
                ..field("a", "A")
            }],
            "fields[0].convert[1]",
            "unknown converter",
        ),
        (
            vec![FieldSettings {
                lossy: false,
                ..converted("a", "A", &["trim"])
            }],
            "fields[0].convert[0]",
            "lossy = true",
        ),
        (
            vec![converted("a", "A", &["number", "trim"])],
            "fields[0].convert[1]",
            "cannot follow `number`",
        ),
        (
            vec![FieldSettings {
                values: values(&[("a", "x"), ("b", "x")]),
                ..field("a", "A")
            }],
            "fields[0].values",
            "entry 1",
        ),
        (
            vec![FieldSettings {
                values: values(&[("1", "x")]),
                ..converted("a", "A", &["number"])
            }],
            "fields[0].values",
            "not numbers",
        ),
        (vec![default("{\"a\":")], "fields[0].default", "not JSON"),
        (
            vec![FieldSettings {
                convert: vec!["number".to_owned()],
                ..default("\"ten\"")
            }],
            "fields[0].default",
            "number",
        ),
        (
            vec![FieldSettings {
                constant: Some("1".to_owned()),
                ..field("a", "A")
            }],
            "fields[0].constant",
            "only `remote`",
        ),
        (
            vec![FieldSettings {
                reference: Some("account".to_owned()),
                ..converted("a", "A", &["trim"])
            }],
            "fields[0].reference",
            "converted",
        ),
        (
            vec![converted("a", "A", &["truncate"])],
            "fields[0].convert[0]",
            "needs a number",
        ),
        (
            vec![converted("a", "A", &["trim:3"])],
            "fields[0].convert[0]",
            "takes no argument",
        ),
        (
            vec![converted("a", "A", &["zone:Europe/Paris"])],
            "fields[0].convert[0]",
            "offset",
        ),
        (
            vec![FieldSettings {
                lossy: false,
                ..converted("a", "A", &["truncate:10"])
            }],
            "fields[0].convert[0]",
            "lossy = true",
        ),
        (
            vec![FieldSettings {
                lossy: false,
                remote: "Name".to_owned(),
                ..parted(&["a", "b"], &[])
            }],
            "fields[0].locals",
            "lossy = true",
        ),
        (
            vec![FieldSettings {
                remote: "Name".to_owned(),
                ..parted(&["a"], &[])
            }],
            "fields[0].locals",
            "2 to 8",
        ),
        (
            vec![parted(&["a", "b"], &["A", "B"])],
            "fields[0].remotes",
            "single path",
        ),
        (
            vec![FieldSettings {
                remote: "Name".to_owned(),
                ..parted(&["a", "b..c"], &[])
            }],
            "fields[0].locals[1]",
            "empty part",
        ),
        (
            vec![FieldSettings {
                separator: Some(";".to_owned()),
                ..field("a", "A")
            }],
            "fields[0].separator",
            "locals",
        ),
        (
            vec![FieldSettings {
                cel: Some("data.a +".to_owned()),
                ..field("", "A")
            }],
            "fields[0].cel",
            "is not CEL",
        ),
        (
            vec![FieldSettings {
                cel: Some("remote.a".to_owned()),
                ..field("", "A")
            }],
            "fields[0].cel",
            "`remote` is not known",
        ),
        (
            vec![FieldSettings {
                cel: Some("data.a".to_owned()),
                cel_in: Some("remote.A".to_owned()),
                ..field("a", "A")
            }],
            "fields[0].cel_in",
            "lossy = true",
        ),
        (
            vec![FieldSettings {
                direction: Direction::In,
                required: true,
                ..field("a", "A")
            }],
            "fields[0].required",
            "not sent",
        ),
    ] {
        check_compile_error(fields, place, detail);
    }
    let many = (0..1_001)
        .map(|n| field(&format!("f{n}"), &format!("F{n}")))
        .collect();
    check_compile_error(many, "fields", "more than 1000");
}

/// A field without loss, and a strategy for what it carries.
fn lossless() -> impl Strategy<Value = (FieldSettings, String)> {
    let text = any::<String>().prop_map(|text| {
        let mut json = Vec::new();
        write_string(&mut json, &text);
        String::from_utf8(json).unwrap()
    });
    let number = "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,20})?";
    let step = |name: &str| FieldSettings {
        lossy: false,
        ..converted("a.b", "X.Y", &[name])
    };
    let table = FieldSettings {
        values: values(&[("é", "1"), ("b", "é"), ("", "b")]),
        ..field("a.b", "X.Y")
    };
    prop_oneof![
        text.prop_map(|json| (field("a.b", "X.Y"), json)),
        number.prop_map({
            let f = step("text");
            move |json| (f.clone(), json)
        }),
        number.prop_map({
            let f = step("number");
            move |n| (f.clone(), format!("\"{n}\""))
        }),
        prop::sample::select(&["true", "false"][..]).prop_map({
            let f = step("yes_no");
            move |json| (f.clone(), json.to_owned())
        }),
        prop::collection::vec("[a-zé ]{1,8}", 0..5).prop_map({
            let f = step("join:;");
            move |items| (f.clone(), serde_json::to_string(&items).unwrap())
        }),
        (1900..2100_u32, 1..=12_u32, 1..=28_u32).prop_map({
            let f = step("datetime:-03:30");
            move |(y, m, d)| (f.clone(), format!("\"{y}-{m:02}-{d:02}\""))
        }),
        (1900..2100_u32, 1..=12_u32, 1..=28_u32).prop_map({
            let f = step("datetime");
            move |(y, m, d)| (f.clone(), format!("\"{y}-{m:02}-{d:02}\""))
        }),
        prop::sample::select(&["\"é\"", "\"b\"", "\"\"", "null"][..])
            .prop_map(move |json| (table.clone(), json.to_owned())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_not_declared_lossy_comes_back_as_it_went((field, json) in lossless()) {
        let mapping = compiled(vec![field]);
        let data = format!("{{\"a\":{{\"b\":{json}}}}}");
        let mapped = out(&mapping, &data, Write::Create).unwrap();
        prop_assert_eq!(back(&mapping, &mapped).unwrap(), data);
    }

    #[test]
    fn any_record_is_mapped_or_refused(
        members in prop::collection::btree_map(
            prop::sample::select(&["first_name", "email", "status", "account_id", "x"][..]),
            prop::sample::select(&["null", "1", "1.5", "\"a\"", "\"active\"", "[]", "{}"][..]),
            0..5,
        ),
        write in prop::sample::select(&[Write::Create, Write::Upsert, Write::Update][..]),
    ) {
        let members: Vec<_> = members.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        let data = format!("{{{}}}", members.join(","));
        if let Ok(mapped) = out(&contract(), &data, write) {
            prop_assert!(serde_json::from_str::<serde_json::Value>(&mapped).is_ok(), "{mapped}");
        }
    }
}
