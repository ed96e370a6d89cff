//! Fields by which records are found.

use serde_json::{Map, Value};

use super::text_of;

/// A field that names records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyField {
    /// For every object when absent.
    object: Option<String>,
    pub(super) field: String,
    pub(super) unique: bool,
    /// Whether it holds the caller's own key; the others are e-mail addresses and the like.
    pub(super) external: bool,
}

impl KeyField {
    /// A unique field of every object that holds the caller's own key.
    pub(crate) fn external(field: &str) -> Self {
        Self {
            object: None,
            field: field.to_owned(),
            unique: true,
            external: true,
        }
    }

    /// The same for one object alone.
    pub(crate) fn of(self, object: &str) -> Self {
        Self {
            object: Some(object.to_owned()),
            ..self
        }
    }

    /// The same, but several records may share a value.
    pub(crate) fn shared(self) -> Self {
        Self {
            unique: false,
            ..self
        }
    }

    /// The same, but it does not hold the caller's own key.
    pub(crate) fn incidental(self) -> Self {
        Self {
            external: false,
            ..self
        }
    }

    /// One as it is typed, `FIELD` or `OBJECT.FIELD`; the field of an object may lie one deeper.
    pub(crate) fn typed(text: &str) -> Self {
        match text.split_once('.') {
            Some((object, field)) => Self::external(field).of(object),
            None => Self::external(text),
        }
    }

    /// Its values among these fields; a list has several, and each item may be an object with a
    /// `value`.
    pub(super) fn texts_in(&self, fields: &Map<String, Value>) -> Vec<String> {
        let value = match self.field.split_once('.') {
            Some((outer, inner)) => fields.get(outer).and_then(|outer| outer.get(inner)),
            None => fields.get(&self.field),
        };
        match value {
            Some(Value::Array(items)) => {
                let values = items.iter().map(|item| item.get("value").unwrap_or(item));
                values.filter_map(text_of).collect()
            }
            Some(value) => text_of(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn is_of(&self, object: &str) -> bool {
        self.object.as_deref().is_none_or(|own| own == object)
    }
}
