//! Which of System A's fields a mapping speaks of: what comes back, what is required.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use syncline_engine::json::RawObject;
use syncline_engine::mapping::{Direction, FieldSettings, Mapping, MappingSettings, Write};

fn field(local: &str, remote: &str) -> FieldSettings {
    FieldSettings {
        local: local.to_owned(),
        remote: remote.to_owned(),
        ..FieldSettings::default()
    }
}

fn compiled(fields: Vec<FieldSettings>) -> Mapping {
    let settings = MappingSettings {
        remote: "Contact".to_owned(),
        external_id: None,
        fields,
        match_keys: Vec::new(),
        deleted: None,
    };
    Mapping::compile("contact", &settings).unwrap()
}

#[test]
fn what_lies_within_an_object_that_comes_back_comes_back() {
    let mapping = compiled(vec![
        field("address", "Address__c"),
        field("geo.lat", "Lat"),
        FieldSettings {
            direction: Direction::Out,
            ..field("owner", "Owner")
        },
    ]);
    for (pointer, comes_back) in [
        ("/address", true),
        ("/address/street", true),
        ("/addressee", false),
        ("/geo/lat", true),
        ("/geo", false),
        ("/owner", false),
        ("/owner/name", false),
    ] {
        assert_eq!(mapping.comes_back(pointer), comes_back, "{pointer}");
    }
}

#[test]
fn what_is_required_is_judged_and_nothing_else() {
    let required = FieldSettings {
        required: true,
        ..field("address.city", "City")
    };
    let mapping = compiled(vec![required, field("geo.lat", "Lat")]);
    for (data, write, pointer) in [
        (r#"{"address":{"city":"a"},"geo":7}"#, Write::Create, None),
        (
            r#"{"address":7}"#,
            Write::Create,
            Some("/data/address/city"),
        ),
        (r#"{"address":7}"#, Write::Update, None),
        (
            r#"{"address":null}"#,
            Write::Update,
            Some("/data/address/city"),
        ),
    ] {
        let checked = mapping.check_required(RawObject::new(data).unwrap(), write);
        let found = checked.err().map(|failure| failure.pointer);
        assert_eq!(found.as_deref(), pointer, "{data} {write:?}");
    }
}
