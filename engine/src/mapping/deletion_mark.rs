//! A field by which an account's records are marked as deleted, in place of being removed.

use super::Mapping;
use super::settings::{MappingError, error};
use crate::json::{ObjectWriter, RawObject, RawValue, Scratch};

/// Bytes of a mark's value: it is a word, a truth value or a number.
const VALUE_BYTES_MAX: usize = 256;

/// `deleted` of `[objects.X.to.Y]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeletionMarkSettings {
    /// The provider's field; not a path.
    pub remote: String,
    /// JSON: what it holds in a record that is deleted.
    pub value: String,
    /// JSON: what it holds in any other.
    pub otherwise: String,
}

/// How an account's records are marked as deleted.
#[derive(Debug, Clone)]
pub struct DeletionMark {
    remote: String,
    value: String,
    otherwise: String,
}

impl DeletionMark {
    /// Checks the settings against the rest of their mapping.
    pub(super) fn compile(
        settings: &DeletionMarkSettings,
        mapping: &Mapping,
    ) -> Result<Self, MappingError> {
        let DeletionMarkSettings {
            remote,
            value,
            otherwise,
        } = settings;
        let refuse = |part: &str, detail: &'static str| {
            let place = format!("deleted{part}");
            Err(error(place, detail))
        };
        if mapping.is_plain() {
            return refuse(
                "",
                "needs `fields`: unmapped records have the mark as a field",
            );
        }
        if remote.is_empty() || remote.contains('.') {
            return refuse(".remote", "is the name of one field");
        }
        let mapped = mapping.outbound.output.iter().map(|node| node.name());
        let mut taken = mapped
            .chain(mapping.remote_fields())
            .chain(mapping.external_id());
        if taken.any(|name| name == remote) {
            return refuse(".remote", "is mapped as well");
        }
        for (part, text) in [(".value", value), (".otherwise", otherwise)] {
            let literal = Scratch::new().validate(text.as_bytes(), VALUE_BYTES_MAX);
            if literal.map_or(true, |literal| literal.text().starts_with(['{', '['])) {
                return refuse(part, "is a text, a number, a truth value or null");
            }
        }
        if same(RawValue::new(value), RawValue::new(otherwise)) {
            return refuse(".otherwise", "is what marks a record as deleted");
        }
        Ok(Self {
            remote: remote.clone(),
            value: value.clone(),
            otherwise: otherwise.clone(),
        })
    }

    /// The provider's field.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// Whether an account's record shows it.
    pub fn stands_in(&self, record: RawObject<'_>) -> bool {
        let shown = record.get(&self.remote);
        shown.is_some_and(|shown| same(shown, RawValue::new(&self.value)))
    }

    /// The fields that mark a record, a JSON object.
    pub fn fields(&self) -> String {
        let mut out = Vec::new();
        let mut object = ObjectWriter::open(&mut out);
        object.raw(&self.remote, &self.value);
        object.close();
        String::from_utf8(out).expect("an object is written of texts")
    }

    /// Fields, the text of a JSON object, with one that takes the mark away.
    pub fn lifted_in(&self, fields: &str) -> String {
        let mut out = Vec::new();
        let mut object = ObjectWriter::open(&mut out);
        for member in RawObject::new(fields)
            .into_iter()
            .flat_map(RawObject::members)
        {
            let place = object.member_escaped(member.key.escaped());
            place.extend_from_slice(member.value.text().as_bytes());
        }
        object.raw(&self.remote, &self.otherwise);
        object.close();
        String::from_utf8(out).expect("an object is written of texts")
    }
}

/// Whether two values say the same: an account may show a truth value or a number as a text.
fn same(one: RawValue<'_>, other: RawValue<'_>) -> bool {
    match (one.as_text(), other.as_text()) {
        (Some(one), Some(other)) => one == other,
        (Some(text), None) => text == other.text(),
        (None, Some(text)) => text == one.text(),
        (None, None) => one.text() == other.text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapping::{FieldSettings, MappingSettings};

    fn marked_by(remote: &str, value: &str, otherwise: &str) -> Result<Mapping, MappingError> {
        let email = FieldSettings {
            local: "email".to_owned(),
            remote: "Email".to_owned(),
            ..FieldSettings::default()
        };
        let settings = MappingSettings {
            remote: "Contact".to_owned(),
            external_id: Some("Key__c".to_owned()),
            fields: vec![email],
            match_keys: Vec::new(),
            deleted: Some(DeletionMarkSettings {
                remote: remote.to_owned(),
                value: value.to_owned(),
                otherwise: otherwise.to_owned(),
            }),
        };
        Mapping::compile("contact", &settings)
    }

    #[track_caller]
    fn shows(value: &str, record: &str) -> bool {
        let mapping = marked_by("Gone__c", value, "null").unwrap();
        let mark = mapping.deletion_mark().unwrap();
        mark.stands_in(RawObject::new(record).unwrap())
    }

    #[test]
    fn a_mark_is_known_by_its_value_in_either_spelling() {
        assert!(shows("true", r#"{"Gone__c":true}"#));
        assert!(shows("true", r#"{"Gone__c":"true"}"#));
        assert!(shows(r#""1""#, r#"{"Gone__c":1}"#));
        assert!(shows(r#""yes""#, r#"{"Email":"a","Gone__c":"yes"}"#));
    }

    #[test]
    fn what_does_not_show_the_mark_is_not_deleted() {
        assert!(!shows("true", r#"{"Gone__c":false}"#));
        assert!(!shows("true", r#"{"Gone__c":null}"#));
        assert!(!shows("true", r#"{"Email":"true"}"#));
        assert!(!shows("true", "{}"));
    }

    #[test]
    fn a_mark_is_set_alone_and_lifted_beside_other_fields() {
        let mapping = marked_by("Gone__c", "true", "false").unwrap();
        let mark = mapping.deletion_mark().unwrap();
        assert_eq!(mark.fields(), r#"{"Gone__c":true}"#);
        let lifted = mark.lifted_in(r#"{"Email":"a@b.c"}"#);
        assert_eq!(lifted, r#"{"Email":"a@b.c","Gone__c":false}"#);
    }

    #[test]
    fn a_mark_is_read_with_the_other_fields() {
        let mapping = marked_by("Gone__c", "true", "false").unwrap();
        let read: Vec<&str> = mapping.remote_fields().collect();
        assert_eq!(read, ["Email", "Gone__c"]);
    }

    #[test]
    fn a_mark_that_cannot_be_one_is_refused_with_its_place() {
        let refused = |remote, value, otherwise| {
            let refused: MappingError = marked_by(remote, value, otherwise).unwrap_err();
            refused.place
        };
        assert_eq!(refused("Email", "true", "false"), "deleted.remote");
        assert_eq!(refused("Key__c", "true", "false"), "deleted.remote");
        assert_eq!(refused("a.b", "true", "false"), "deleted.remote");
        assert_eq!(refused("Gone__c", "[1]", "false"), "deleted.value");
        assert_eq!(refused("Gone__c", "true", r#""true""#), "deleted.otherwise");
    }

    #[test]
    fn records_without_a_mapping_cannot_be_marked() {
        let settings = MappingSettings {
            remote: "Contact".to_owned(),
            deleted: Some(DeletionMarkSettings {
                remote: "Gone__c".to_owned(),
                value: "true".to_owned(),
                otherwise: "false".to_owned(),
            }),
            ..MappingSettings::default()
        };
        let refused = Mapping::compile("contact", &settings).unwrap_err();
        assert_eq!(refused.place, "deleted");
    }
}
