//! JSON pointers (RFC 6901) into replies, read without building a tree.

use std::fmt;

use serde::de::{
    Deserialize as _, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::TemplateError;

/// A compiled pointer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pointer {
    parts: Vec<String>,
}

/// Where a pointer led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landing<'de> {
    /// JSON text of the value.
    Value(&'de str),
    /// An array on the way exists but has no such item: an empty list of results.
    PastArrayEnd,
    /// Some part on the way does not exist.
    Nowhere,
}

/// The text is not one JSON object, or where any value would do, not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAnObject;

impl Pointer {
    /// The whole document, or a place in it.
    pub(crate) fn parse_any(text: &str) -> Result<Pointer, TemplateError> {
        if text.is_empty() {
            return Ok(Pointer { parts: Vec::new() });
        }
        Pointer::parse(text)
    }

    pub(crate) fn parse(text: &str) -> Result<Pointer, TemplateError> {
        let not_a_pointer = || TemplateError::NotAPointer(text.to_owned());
        let parts = text.strip_prefix('/').ok_or_else(not_a_pointer)?;
        let parts = parts
            .split('/')
            .map(|part| {
                let bad_escape = part
                    .split('~')
                    .skip(1)
                    .any(|after| !after.starts_with(['0', '1']));
                if bad_escape {
                    Err(not_a_pointer())
                } else {
                    Ok(part.replace("~1", "/").replace("~0", "~"))
                }
            })
            .collect::<Result<_, _>>()?;
        Ok(Pointer { parts })
    }

    /// Whether a part of it is a place in a list.
    pub(crate) fn enters_list(&self) -> bool {
        self.parts.iter().any(|part| array_index(part).is_some())
    }

    /// This pointer with another place in the first list on its way.
    pub(crate) fn at_item(&self, item: usize) -> Pointer {
        let mut parts = self.parts.clone();
        if let Some(part) = parts.iter_mut().find(|part| array_index(part).is_some()) {
            *part = item.to_string();
        }
        Pointer { parts }
    }

    /// This pointer with the part `placeholder` replaced.
    pub(crate) fn with(&self, placeholder: &str, name: Option<&str>) -> Option<Pointer> {
        let replaced = |part: &String| match name {
            _ if part != placeholder => Some(part.clone()),
            Some(name) => Some(name.to_owned()),
            None => None,
        };
        let parts = self.parts.iter().map(replaced).collect::<Option<_>>()?;
        Some(Pointer { parts })
    }

    /// Reads all of `text`, which must be one JSON object, and answers where the pointer leads.
    /// Of a name that comes twice, the last counts, as most readers have it.
    pub(crate) fn find<'de>(&self, text: &'de str) -> Result<Landing<'de>, NotAnObject> {
        if !text.trim_ascii_start().starts_with('{') {
            return Err(NotAnObject);
        }
        self.find_any(text)
    }

    /// As [`Pointer::find`], whatever JSON value `text` is.
    pub(crate) fn find_any<'de>(&self, text: &'de str) -> Result<Landing<'de>, NotAnObject> {
        let mut landing = Landing::Nowhere;
        let mut json = serde_json::Deserializer::from_str(text);
        let walk = Walk {
            parts: &self.parts,
            landing: &mut landing,
        };
        walk.deserialize(&mut json)
            .and_then(|()| json.end())
            .map_err(|_| NotAnObject)?;
        Ok(landing)
    }
}

/// Whether `text` is one JSON object.
pub(crate) fn is_object(text: &str) -> bool {
    text.trim_ascii_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Text of a JSON string, or a number's own digits; an id keeps its spelling, since a number read
/// as a float may come back as another.
pub(crate) fn scalar_text(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str(json).ok(),
        b'-' | b'0'..=b'9' => Some(json.to_owned()),
        _ => None,
    }
}

/// Steps down one part at a time; recursion is as deep as the pointer, whatever the text does.
struct Walk<'p, 'l, 'de> {
    parts: &'p [String],
    landing: &'l mut Landing<'de>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        *self.landing = Landing::Nowhere;
        if self.parts.is_empty() {
            *self.landing = Landing::Value(<&RawValue>::deserialize(deserializer)?.get());
            return Ok(());
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let (part, rest) = self
            .parts
            .split_first()
            .expect("a walk at its end does not visit");
        while let Some(wanted) = members.next_key_seed(IsName(part))? {
            if wanted {
                members.next_value_seed(Walk {
                    parts: rest,
                    landing: &mut *self.landing,
                })?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (part, rest) = self
            .parts
            .split_first()
            .expect("a walk at its end does not visit");
        let Some(wanted) = array_index(part) else {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        for _ in 0..wanted {
            if items.next_element::<IgnoredAny>()?.is_none() {
                *self.landing = Landing::PastArrayEnd;
                return Ok(());
            }
        }
        if items
            .next_element_seed(Walk {
                parts: rest,
                landing: &mut *self.landing,
            })?
            .is_none()
        {
            *self.landing = Landing::PastArrayEnd;
            return Ok(());
        }
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a member's name without keeping it.
struct IsName<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// RFC 6901, section 4: digits without a leading zero.
fn array_index(part: &str) -> Option<usize> {
    let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || (part.len() > 1 && part.starts_with('0')) {
        return None;
    }
    part.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn check(pointer: &str, text: &str, expected: Result<Landing<'_>, NotAnObject>) {
        assert_eq!(
            Pointer::parse(pointer).unwrap().find(text),
            expected,
            "{pointer} in {text}"
        );
    }

    #[test]
    fn a_pointer_leads_to_the_text_of_a_value() {
        check(
            "/id",
            r#"{"a":[1],"id": 12345678901234567890123 ,"b":2}"#,
            Ok(Landing::Value("12345678901234567890123")),
        );
        check(
            "/results/0/id",
            r#"{"results":[{"id":"x"},{"id":"y"}]}"#,
            Ok(Landing::Value("\"x\"")),
        );
        check(
            "/results/1/id",
            r#"{"results":[{"id":"x"},{"id":"y"}]}"#,
            Ok(Landing::Value("\"y\"")),
        );
        check("/a~1b/~0", r#"{"a/b":{"~":1}}"#, Ok(Landing::Value("1")));
        check("/id", r#"{"\u0069d":1}"#, Ok(Landing::Value("1")));
        check("/id", r#"{"id":1,"id":2}"#, Ok(Landing::Value("2")));
    }

    #[test]
    fn an_empty_list_and_a_missing_member_are_told_apart() {
        check(
            "/results/0/id",
            r#"{"results":[]}"#,
            Ok(Landing::PastArrayEnd),
        );
        check(
            "/results/2/id",
            r#"{"results":[1]}"#,
            Ok(Landing::PastArrayEnd),
        );
        check("/results/0/id", r#"{"results":[{}]}"#, Ok(Landing::Nowhere));
        for results in ["{}", "null", "1", "-1", "1.5", "\"x\"", "true", "[1]"] {
            check(
                "/results/0/id",
                &format!("{{\"results\":{results}}}"),
                Ok(Landing::Nowhere),
            );
        }
        check("/results/0/id", "{}", Ok(Landing::Nowhere));
        check("/a/01", r#"{"a":[1,2]}"#, Ok(Landing::Nowhere));
    }

    #[test]
    fn a_list_or_a_plain_value_can_be_the_whole_document() {
        let find = |pointer: &str, text| Pointer::parse_any(pointer).unwrap().find_any(text);
        assert_eq!(
            find("/0/errorCode", r#"[{"errorCode":"X"}]"#),
            Ok(Landing::Value("\"X\""))
        );
        assert_eq!(find("", " [1, 2] "), Ok(Landing::Value("[1, 2]")));
        assert_eq!(find("/0", "7"), Ok(Landing::Nowhere));
        assert_eq!(find("", "<html>"), Err(NotAnObject));
        let key = Pointer::parse("/properties/{external_id_field}").unwrap();
        assert_eq!(key.with("{external_id_field}", None), None);
        assert_eq!(
            key.with("{external_id_field}", Some("key")),
            Pointer::parse("/properties/key").ok()
        );
    }

    #[test]
    fn anything_but_one_whole_object_is_refused() {
        let deep = format!("{{\"id\":1,\"a\":{}", "[".repeat(1_000_000));
        for text in [
            "",
            "[]",
            "1",
            "null",
            "<html>",
            "{\"id\":1",
            "{\"id\":1}x",
            "{\"id\":1}{}",
            "{id:1}",
            deep.as_str(),
        ] {
            check("/id", text, Err(NotAnObject));
            assert!(!is_object(text));
        }
    }

    #[test]
    fn a_pointer_that_is_none_is_refused() {
        for text in ["", "id", "#/id", "/a~2", "/a~"] {
            assert_eq!(
                Pointer::parse(text),
                Err(TemplateError::NotAPointer(text.to_owned()))
            );
        }
    }

    #[test]
    fn ids_keep_their_spelling() {
        let rows = [
            ("\"a\\u0062\"", Some("ab")),
            ("42", Some("42")),
            ("-1.0", Some("-1.0")),
            ("1e3", Some("1e3")),
        ];
        for (json, text) in rows {
            assert_eq!(scalar_text(json).as_deref(), text);
        }
        for json in ["null", "true", "{}", "[1]", "\"\\ud800\""] {
            assert_eq!(scalar_text(json), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn any_bytes_are_answered_as_a_tree_would(text in "[\\[\\]{}\":,0-9a-b \\\\]{0,24}") {
            let tree = serde_json::from_str::<Value>(&text).ok().filter(Value::is_object);
            let pointer = Pointer::parse("/a/0").unwrap();
            match (pointer.find(&text), tree) {
                (Ok(Landing::Value(value)), Some(tree)) => {
                    let value = serde_json::from_str::<Value>(value).ok();
                    prop_assert_eq!(tree.pointer("/a/0"), value.as_ref());
                }
                (Ok(_), Some(tree)) => prop_assert_eq!(tree.pointer("/a/0"), None),
                (Err(NotAnObject), tree) => prop_assert_eq!(tree, None),
                (Ok(_), None) => prop_assert!(false, "read {} as an object", text),
            }
        }
    }
}
