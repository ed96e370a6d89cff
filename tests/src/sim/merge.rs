//! RFC 7396 once more, from the text of the RFC, so that the engine's and the mock's are checked
//! against something that is neither.

use serde_json::{Map, Value};

/// `MergePatch(Target, Patch)` of RFC 7396 section 2, for objects.
pub fn merge_patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
            continue;
        }
        let Value::Object(inner) = value else {
            target.insert(name.clone(), value.clone());
            continue;
        };
        let mut merged = match target.remove(name) {
            Some(Value::Object(before)) => before,
            _ => Map::new(),
        };
        merge_patch(&mut merged, inner);
        target.insert(name.clone(), Value::Object(merged));
    }
}

/// Whether two objects have the same members, in whatever order.
#[must_use]
pub fn same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len()
        && a.iter()
            .all(|(name, value)| b.get(name).is_some_and(|other| same_value(value, other)))
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => same(a, b),
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_examples_of_the_rfc_hold() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let (Value::Object(mut target), Value::Object(patch)) = (target, patch) else {
                continue;
            };
            merge_patch(&mut target, &patch);
            assert_eq!(Value::Object(target), result);
        }
    }
}
