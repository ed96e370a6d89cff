//! The schema of a change: what a record's schema says of the fields that are there.

use serde_json::{Map, Value};

/// What speaks of absent members, or of the record as a whole. `not` and `if` go too: a weaker
/// schema inside them would refuse more, not less; and `unevaluatedProperties`, which counts on
/// what they evaluate.
const OF_WHOLE_RECORDS: [&str; 9] = [
    "required",
    "minProperties",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "not",
    "unevaluatedProperties",
];

/// Drops what a change cannot be held to, from the record and from the objects in it. Arrays are
/// replaced as a whole (RFC 7396), so what they hold is held to all of its schema.
pub(super) fn partial(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else {
        return schema.clone();
    };
    let mut kept = Map::new();
    for (keyword, value) in keywords {
        let (keyword, value) = match keyword.as_str() {
            dropped if OF_WHOLE_RECORDS.contains(&dropped) => continue,
            // Two weaker alternatives may both fit.
            "oneOf" => ("anyOf", each(value)),
            "allOf" | "anyOf" => (keyword.as_str(), each(value)),
            "properties" | "patternProperties" | "$defs" | "definitions" => {
                (keyword.as_str(), members(value))
            }
            "additionalProperties" => (keyword.as_str(), partial(value)),
            other => (other, value.clone()),
        };
        match (keyword, kept.get_mut(keyword)) {
            // `anyOf` beside a `oneOf`: both have to hold.
            ("anyOf", Some(present)) => {
                let both = [present.take(), value].map(|any_of| {
                    let mut one = Map::new();
                    one.insert("anyOf".to_owned(), any_of);
                    Value::Object(one)
                });
                kept.remove("anyOf");
                push_all_of(&mut kept, both);
            }
            ("allOf", Some(Value::Array(present))) => {
                present.extend(value.as_array().into_iter().flatten().cloned());
            }
            _ => {
                kept.insert(keyword.to_owned(), value);
            }
        }
    }
    Value::Object(kept)
}

fn push_all_of(schema: &mut Map<String, Value>, more: [Value; 2]) {
    match schema.get_mut("allOf") {
        Some(Value::Array(present)) => present.extend(more),
        _ => {
            schema.insert("allOf".to_owned(), Value::Array(more.into()));
        }
    }
}

fn each(schemas: &Value) -> Value {
    match schemas {
        Value::Array(schemas) => schemas.iter().map(partial).collect(),
        other => other.clone(),
    }
}

fn members(schemas: &Value) -> Value {
    match schemas {
        Value::Object(schemas) => {
            let members = schemas.iter().map(|(name, s)| (name.clone(), partial(s)));
            Value::Object(members.collect())
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_speaks_of_absent_members_is_dropped_where_objects_merge() {
        let whole = json!({
            "type": "object",
            "required": ["email"],
            "minProperties": 2,
            "properties": {
                "required": {"type": "string", "minLength": 1},
                "address": {"type": "object", "required": ["city"], "additionalProperties": false},
                "phones": {"type": "array", "items": {"type": "object", "required": ["number"]}}
            },
            "oneOf": [{"required": ["a"]}, {"properties": {"b": {"type": "string"}}}],
            "not": {"required": ["c"]}
        });
        assert_eq!(
            partial(&whole),
            json!({
                "type": "object",
                "properties": {
                    "required": {"type": "string", "minLength": 1},
                    "address": {"type": "object", "additionalProperties": false},
                    "phones": {"type": "array", "items": {"type": "object", "required": ["number"]}}
                },
                "anyOf": [{}, {"properties": {"b": {"type": "string"}}}]
            })
        );
    }

    #[test]
    fn alternatives_beside_alternatives_all_stay() {
        let both = json!({"anyOf": [{"a": 1}], "oneOf": [{"b": 1}], "allOf": [{"c": 1}]});
        assert_eq!(
            partial(&both),
            json!({"allOf": [{"anyOf": [{"a": 1}]}, {"anyOf": [{"b": 1}]}, {"c": 1}]})
        );
    }
}
