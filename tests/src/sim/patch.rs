//! What several patches amount to, said once more so that the engine's folding is checked against
//! something that is not its own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// A place in an object: the names on the way.
type Path = Vec<String>;

/// Makes `first` the patch that does what both do, one after the other: a null stays a null.
pub(super) fn compose(first: &mut Map<String, Value>, second: &Map<String, Value>) {
    for (name, change) in second {
        match (first.get_mut(name), change) {
            (Some(Value::Object(before)), Value::Object(change)) => compose(before, change),
            _ => {
                first.insert(name.clone(), change.clone());
            }
        }
    }
}

/// Whether one patch can say what these do in a row. RFC 7396 has no words for "drop what was
/// there, then set these members of it".
pub(super) fn composable(patches: &[&Map<String, Value>]) -> bool {
    let mut whole = Map::new();
    patches.iter().all(|patch| {
        let fits = fits_upon(&whole, patch);
        compose(&mut whole, patch);
        fits
    })
}

fn fits_upon(beneath: &Map<String, Value>, patch: &Map<String, Value>) -> bool {
    patch
        .iter()
        .all(|(name, change)| match (beneath.get(name), change) {
            (Some(Value::Object(before)), Value::Object(change)) => fits_upon(before, change),
            (Some(_), Value::Object(_)) => false,
            _ => true,
        })
}

/// Whether nothing of `patch` is left once `later` ones were laid upon it: every place that it
/// writes is written again, or lies within one that is.
pub(super) fn is_overwritten(patch: &Map<String, Value>, later: &[&Map<String, Value>]) -> bool {
    let written: BTreeSet<Path> = later.iter().flat_map(|patch| places(patch)).collect();
    places(patch).iter().all(|place| {
        let replaced = (1..=place.len()).any(|length| written.contains(&place[..length]));
        replaced || written.iter().any(|other| other.starts_with(place))
    })
}

/// Whether each top-level field of `patch` is replaced as a whole by a later one.
pub(super) fn is_replaced(patch: &Map<String, Value>, later: &[&Map<String, Value>]) -> bool {
    patch.keys().all(|name| {
        let mut writes = later.iter().filter_map(|patch| patch.get(name));
        writes.any(|value| !value.is_object())
    })
}

/// The places that a patch writes: those of everything in it that is not an object, and of empty
/// objects.
fn places(patch: &Map<String, Value>) -> Vec<Path> {
    let mut places = Vec::new();
    for (name, value) in patch {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                for mut place in self::places(inner) {
                    place.insert(0, name.clone());
                    places.push(place);
                }
            }
            _ => places.push(vec![name.clone()]),
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::merge::merge_patch;
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    fn overwritten(patch: Value, later: Value) -> bool {
        is_overwritten(&object(patch), &[&object(later)])
    }

    #[test]
    fn a_patch_is_overwritten_when_every_place_it_writes_is_written_again() {
        assert!(overwritten(json!({"a": 1}), json!({"a": 2, "b": 1})));
        assert!(!overwritten(json!({"a": 1, "b": 1}), json!({"a": 2})));
        assert!(overwritten(json!({"a": {"x": 1}}), json!({"a": {"x": 2}})));
        assert!(!overwritten(json!({"a": {"x": 1}}), json!({"a": {"y": 2}})));
        assert!(overwritten(json!({"a": {"x": 1}}), json!({"a": null})));
        assert!(overwritten(json!({"a": 1}), json!({"a": {"x": 1}})));
        assert!(!is_replaced(
            &object(json!({"a": {"x": 1}})),
            &[&object(json!({"a": {"x": 2}}))]
        ));
    }

    #[test]
    fn one_patch_does_what_composable_ones_do_in_a_row() {
        let (first, second) = (
            object(json!({"a": {"x": 1}, "b": 1})),
            object(json!({"a": {"y": null}, "b": null})),
        );
        assert!(composable(&[&first, &second]));
        let mut in_a_row = object(json!({"a": {"y": 9, "z": 9}}));
        let mut at_once = in_a_row.clone();
        merge_patch(&mut in_a_row, &first);
        merge_patch(&mut in_a_row, &second);
        let mut whole = first.clone();
        compose(&mut whole, &second);
        merge_patch(&mut at_once, &whole);
        assert_eq!(in_a_row, at_once);
    }

    #[test]
    fn an_object_upon_what_replaced_one_has_no_words() {
        for beneath in [json!({"a": null}), json!({"a": 1}), json!({"a": [1]})] {
            assert!(!composable(&[
                &object(beneath),
                &object(json!({"a": {"x": 1}}))
            ]));
        }
    }
}
