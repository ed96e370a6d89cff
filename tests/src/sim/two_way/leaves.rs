//! Records as sets of places and values, said once more so that the engine's reading of them is
//! checked against something that is not its own.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Each value of an object that is no object itself, by the names on the way to it.
pub(in crate::sim) type Leaves = BTreeMap<String, Value>;

/// The leaves of an object; a null is a leaf.
pub(in crate::sim) fn leaves(fields: &Map<String, Value>) -> Leaves {
    let mut found = Leaves::new();
    collect("", fields, &mut found);
    found
}

/// The leaves of a record, values as whoever compares spellings sees them.
pub(in crate::sim) fn shown(fields: &Map<String, Value>) -> Leaves {
    let mut found = leaves(fields);
    found.retain(|_, value| !value.is_null());
    for value in found.values_mut() {
        *value = normal(value);
    }
    found
}

/// A value without what a provider may do to its spelling.
pub(in crate::sim) fn normal(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.trim().to_lowercase()),
        other => other.clone(),
    }
}

fn collect(above: &str, fields: &Map<String, Value>, found: &mut Leaves) {
    for (name, value) in fields {
        let at = format!("{above}/{name}");
        match value {
            Value::Object(inner) => collect(&at, inner, found),
            value => {
                found.insert(at, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_compared_leaf_by_leaf_in_normal_spelling() {
        let record = json!({"a": " Ada ", "b": {"c": 1, "d": null}, "e": {}});
        let Value::Object(record) = record else {
            unreachable!("it was just written as one");
        };
        let shown = shown(&record);
        let expected = [("/a", json!("ada")), ("/b/c", json!(1))];
        let expected = expected.map(|(at, value)| (at.to_owned(), value));
        assert_eq!(shown, Leaves::from(expected));
        assert_eq!(leaves(&record).len(), 3);
    }
}
