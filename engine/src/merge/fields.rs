//! A record as a set of fields: each leaf of a JSON object by its pointer.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::json::{DEPTH_MAX, ObjectWriter, RawObject, RawValue, canonical_hash};

/// The leaves of a JSON object, by JSON Pointer. Arrays and empty objects are leaves; a leaf may be
/// `null`, which clears it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// The leaves of `object`.
    #[must_use]
    pub fn of(object: RawObject<'_>) -> Self {
        let mut fields = Self::default();
        fields.add(&mut String::new(), object, 0);
        fields
    }

    /// The leaves of the text of an object; none when it is no object.
    #[must_use]
    pub fn parse(json: &str) -> Self {
        RawObject::new(json).map(Self::of).unwrap_or_default()
    }

    fn add(&mut self, at: &mut String, object: RawObject<'_>, depth: usize) {
        let above = at.len();
        for member in object.members() {
            push_name(at, &member.key.name());
            match member.value.as_object() {
                Some(inner) if !inner.is_empty() && depth < DEPTH_MAX => {
                    self.add(at, inner, depth + 1);
                }
                _ => self.set(at, member.value.text()),
            }
            at.truncate(above);
        }
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many fields there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Pointers and values as JSON texts, in the order of the pointers.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(at, value)| (at.as_str(), value.as_str()))
    }

    /// The value of a field as JSON text.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&str> {
        self.0.get(pointer).map(String::as_str)
    }

    /// Sets a field. What it takes the place of goes: fields beneath it, and a leaf above it. An empty
    /// object takes no field's place, as in RFC 7396.
    pub fn set(&mut self, pointer: &str, value: &str) {
        let empty = RawValue::new(value)
            .as_object()
            .is_some_and(RawObject::is_empty);
        if empty && self.beneath(pointer).next().is_some() {
            return;
        }
        self.remove_beneath(pointer);
        let above = pointer.match_indices('/').skip(1);
        for (end, _) in above {
            self.0.remove(&pointer[..end]);
        }
        self.0.insert(pointer.to_owned(), value.to_owned());
    }

    /// Takes a field out, and all beneath it.
    pub fn remove(&mut self, pointer: &str) {
        self.remove_beneath(pointer);
        self.0.remove(pointer);
    }

    /// Lays `newer` on top.
    pub fn lay(&mut self, newer: &Self) {
        for (pointer, value) in newer.iter() {
            self.set(pointer, value);
        }
    }

    /// Whether `pointer`, one above it or one beneath it is a field here.
    #[must_use]
    pub fn touches(&self, pointer: &str) -> bool {
        let above = pointer.match_indices('/').skip(1);
        self.0.contains_key(pointer)
            || above
                .into_iter()
                .any(|(end, _)| self.0.contains_key(&pointer[..end]))
            || self.beneath(pointer).next().is_some()
    }

    /// The object that has these fields.
    #[must_use]
    pub fn to_json(&self) -> String {
        let leaves: Vec<(Vec<String>, &str)> = self
            .iter()
            .map(|(at, value)| (names(at).collect(), value))
            .collect();
        let mut out = Vec::new();
        write(&leaves, 0, &mut out);
        String::from_utf8(out).expect("an object is written of texts")
    }

    fn remove_beneath(&mut self, pointer: &str) {
        let beneath: Vec<String> = self.beneath(pointer).cloned().collect();
        for pointer in beneath {
            self.0.remove(&pointer);
        }
    }

    fn beneath(&self, pointer: &str) -> impl Iterator<Item = &String> {
        let first = format!("{pointer}/");
        let range = (Bound::Included(first.clone()), Bound::Unbounded);
        self.0
            .range::<String, _>(range)
            .map(|(at, _)| at)
            .take_while(move |at| at.starts_with(&first))
    }
}

/// Whether two values as JSON texts say the same. A cleared field and one that was never set do.
#[must_use]
pub(super) fn same(one: Option<&str>, other: Option<&str>) -> bool {
    let (one, other) = (one.unwrap_or("null"), other.unwrap_or("null"));
    one == other || canonical_hash(RawValue::new(one)) == canonical_hash(RawValue::new(other))
}

/// Whether two values may be one value in two spellings: texts that differ in case, in space at
/// their ends, or in how a number to dial is punctuated; a number and its text.
#[must_use]
pub(super) fn alike(one: &str, other: &str) -> bool {
    let (one, other) = (bare(one), bare(other));
    one == other
        || matches!((dialled(&one), dialled(&other)), (Some(one), Some(other)) if one == other)
}

fn bare(value: &str) -> String {
    let value = RawValue::new(value);
    let text = value.as_text().unwrap_or_else(|| value.text().into());
    match text.trim().to_lowercase() {
        text if text == "null" => String::new(),
        text => text,
    }
}

/// The digits of a number to dial; `None` for other texts.
fn dialled(text: &str) -> Option<String> {
    const DIGITS_MIN: usize = 7;
    let punctuation = |c: char| matches!(c, '+' | '-' | '(' | ')' | '.' | '/' | ' ');
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let only = text.chars().all(|c| c.is_ascii_digit() || punctuation(c));
    (only && digits.len() >= DIGITS_MIN).then_some(digits)
}

fn push_name(pointer: &mut String, name: &str) {
    pointer.push('/');
    for character in name.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

fn names(pointer: &str) -> impl Iterator<Item = String> {
    let names = pointer.split('/').skip(1);
    names.map(|name| name.replace("~1", "/").replace("~0", "~"))
}

/// Writes leaves that agree in their first `depth` names. They come sorted, so that those of one
/// inner object lie side by side.
fn write(leaves: &[(Vec<String>, &str)], depth: usize, out: &mut Vec<u8>) {
    let mut object = ObjectWriter::open(out);
    let mut at = 0;
    while at < leaves.len() {
        let name = &leaves[at].0[depth];
        let group = leaves[at..]
            .iter()
            .take_while(|(names, _)| names[depth] == *name)
            .count();
        let place = object.member(name);
        if leaves[at].0.len() == depth + 1 {
            place.extend_from_slice(leaves[at].1.as_bytes());
        } else {
            write(&leaves[at..at + group], depth + 1, place);
        }
        at += group;
    }
    object.close();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json::compose_patches;

    fn there_and_back(json: &str) -> String {
        Fields::parse(json).to_json()
    }

    #[test]
    fn a_record_is_its_leaves() {
        let fields = Fields::parse(r#"{"a":1,"b":{"c":"x","d":{"e":null}},"f":[{"g":1}],"h":{}}"#);
        let told: Vec<_> = fields.iter().collect();
        let expected = [
            ("/a", "1"),
            ("/b/c", r#""x""#),
            ("/b/d/e", "null"),
            ("/f", r#"[{"g":1}]"#),
            ("/h", "{}"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn names_with_slashes_and_neighbours_in_sorting_survive() {
        for json in [
            r#"{"a":{"b":1},"a-b":2,"a.b":3}"#,
            r#"{"a/b":{"c~d":1}}"#,
            r#"{"":{"":1}}"#,
        ] {
            assert!(same(Some(json), Some(&there_and_back(json))), "{json}");
        }
    }

    #[test]
    fn a_leaf_takes_the_place_of_an_object_and_an_object_that_of_a_leaf() {
        let mut fields = Fields::parse(r#"{"a":{"b":1,"c":2}}"#);
        fields.lay(&Fields::parse(r#"{"a":null}"#));
        assert_eq!(fields.to_json(), r#"{"a":null}"#);
        fields.lay(&Fields::parse(r#"{"a":{"c":3}}"#));
        assert_eq!(fields.to_json(), r#"{"a":{"c":3}}"#);
        assert!(fields.touches("/a") && fields.touches("/a/c/d") && !fields.touches("/a/b"));
    }

    #[test]
    fn values_are_alike_in_other_spellings_only() {
        for (one, other, expected) in [
            (r#""Ada ""#, r#""ada""#, true),
            (r#""+49 (30) 1234-567""#, r#""+49301234567""#, true),
            ("1", r#""1""#, true),
            ("null", r#""""#, true),
            (r#""ada""#, r#""bob""#, false),
            (r#""12 34""#, r#""1234""#, false),
        ] {
            assert_eq!(alike(one, other), expected, "{one} {other}");
        }
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof!["[0-9]", Just("null".to_owned()), Just("[1,{}]".to_owned())];
        let object = leaf.prop_recursive(3, 12, 3, |inner| {
            prop::collection::btree_map("[ab/~-]{1,2}", inner, 1..3).prop_map(|members| {
                let mut out = Vec::new();
                let mut object = ObjectWriter::open(&mut out);
                for (name, value) in &members {
                    object.raw(name, value);
                }
                object.close();
                String::from_utf8(out).unwrap()
            })
        });
        object.prop_filter("an object", |json| json.starts_with('{'))
    }

    proptest! {
        #[test]
        fn leaves_say_all_of_a_record(json in json()) {
            let again = there_and_back(&json);
            prop_assert!(same(Some(&json), Some(&again)), "{json} {again}");
        }

        #[test]
        fn laying_is_what_patches_do(first in json(), second in json()) {
            let mut fields = Fields::parse(&first);
            fields.lay(&Fields::parse(&second));
            let mut patched = Vec::new();
            let (one, other) = (RawObject::new(&first).unwrap(), RawObject::new(&second).unwrap());
            compose_patches(one, other, &mut patched);
            let patched = String::from_utf8(patched).unwrap();
            prop_assert_eq!(fields, Fields::parse(&patched));
        }
    }
}
