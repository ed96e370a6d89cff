//! Reading valid JSON where it lies: members, items and paths as slices of the text.
//!
//! Everything here expects text that [`super::Scratch`] has accepted, and stays total on any
//! other: a broken text ends an iteration early, it never panics.

use std::borrow::Cow;

use super::text::unescape;

/// One JSON value as its own text, without surrounding space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawValue<'a>(&'a str);

/// One JSON object as its own text, braces included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawObject<'a>(&'a str);

/// A member's name as it is written between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawKey<'a>(&'a str);

/// One member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name.
    pub key: RawKey<'a>,
    /// Its value.
    pub value: RawValue<'a>,
}

/// What a value is, told by its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A number
    Number,
    /// A string
    Text,
    /// An array
    Array,
    /// An object
    Object,
}

/// Members of an object, in order.
#[derive(Debug, Clone)]
pub struct Members<'a> {
    text: &'a str,
    at: usize,
}

/// Items of an array, in order.
#[derive(Debug, Clone)]
pub struct Items<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> RawValue<'a> {
    /// JSON's `null`.
    pub const NULL: RawValue<'static> = RawValue("null");

    /// The value in `text`, which the caller knows to be valid JSON.
    pub fn new(text: &'a str) -> Self {
        Self(text.trim_ascii())
    }

    /// The text as it came.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// What it is.
    pub fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::Text,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    /// Whether it is `null`.
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The unescaped text of a string; borrowed unless it holds an escape.
    pub fn as_text(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(unescape(inner))
    }

    /// The value as an object.
    pub fn as_object(self) -> Option<RawObject<'a>> {
        RawObject::new(self.0)
    }

    /// The items of an array.
    pub fn as_array(self) -> Option<Items<'a>> {
        (self.kind() == Kind::Array).then_some(Items {
            text: self.0,
            at: 1,
        })
    }

    /// The digits of a number that is written as a plain integer: no fraction, no exponent,
    /// and not `-0`.
    pub fn as_integer_text(self) -> Option<&'a str> {
        let digits = self.0.strip_prefix('-').unwrap_or(self.0);
        let is_integer = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        (is_integer && self.0 != "-0").then_some(self.0)
    }
}

impl<'a> RawObject<'a> {
    /// The empty object.
    pub const EMPTY: RawObject<'static> = RawObject("{}");

    /// The object in `text`, which the caller knows to be valid JSON; `None` for another kind.
    pub fn new(text: &'a str) -> Option<Self> {
        let text = text.trim_ascii();
        text.starts_with('{').then_some(Self(text))
    }

    /// The text as it came.
    pub fn text(self) -> &'a str {
        self.0
    }

    /// Its members, in order.
    pub fn members(self) -> Members<'a> {
        Members {
            text: self.0,
            at: 1,
        }
    }

    /// Whether it has no member.
    pub fn is_empty(self) -> bool {
        self.members().next().is_none()
    }

    /// The value of one member.
    pub fn get(self, name: &str) -> Option<RawValue<'a>> {
        self.members()
            .find(|member| member.key.is(name))
            .map(|member| member.value)
    }

    /// The value at a path of member names.
    pub fn get_path<S: AsRef<str>>(self, path: &[S]) -> Option<RawValue<'a>> {
        let (first, rest) = path.split_first()?;
        let mut value = self.get(first.as_ref())?;
        for name in rest {
            value = value.as_object()?.get(name.as_ref())?;
        }
        Some(value)
    }
}

impl<'a> RawKey<'a> {
    pub(super) fn new(inner: &'a str) -> Self {
        Self(inner)
    }

    /// The name as it is written, escapes and all, without quotes.
    pub fn escaped(self) -> &'a str {
        self.0
    }

    /// The name.
    pub fn name(self) -> Cow<'a, str> {
        unescape(self.0)
    }

    /// Whether this is the member called `name`.
    pub fn is(self, name: &str) -> bool {
        self.0 == name || (self.0.contains('\\') && self.name() == name)
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        let bytes = self.text.as_bytes();
        let quote = skip_space_and(bytes, self.at, b',');
        if bytes.get(quote) != Some(&b'"') {
            self.at = bytes.len();
            return None;
        }
        let key_end = string_end(bytes, quote + 1);
        let value_start = skip_space_and(bytes, key_end, b':');
        let value_end = value_end(bytes, value_start);
        self.at = value_end;
        Some(Member {
            key: RawKey(self.text.get(quote + 1..key_end - 1)?),
            value: RawValue(self.text.get(value_start..value_end)?),
        })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = RawValue<'a>;

    fn next(&mut self) -> Option<RawValue<'a>> {
        let bytes = self.text.as_bytes();
        let start = skip_space_and(bytes, self.at, b',');
        if matches!(bytes.get(start), None | Some(b']')) {
            self.at = bytes.len();
            return None;
        }
        let end = value_end(bytes, start);
        self.at = end.max(start + 1);
        self.text.get(start..end).map(RawValue)
    }
}

/// First byte at or after `at` that is no JSON space.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn skip_space_and(bytes: &[u8], at: usize, delimiter: u8) -> usize {
    let at = skip_space(bytes, at);
    if bytes.get(at) == Some(&delimiter) {
        skip_space(bytes, at + 1)
    } else {
        at
    }
}

/// Position after the closing quote of the string whose first byte is at `at`; never less than
/// `at + 1`, so that callers may step back over the quote.
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len().max(at.min(bytes.len()) + 1)
}

/// Position after the value that begins at `at`, by counting brackets outside strings.
pub(super) fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at + 1).min(bytes.len()),
        Some(b'{' | b'[') => container_end(bytes, at + 1),
        _ => scalar_end(bytes, at),
    }
}

fn container_end(bytes: &[u8], mut at: usize) -> usize {
    let mut open = 1_usize;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'"' => at = string_end(bytes, at),
            b'{' | b'[' => open += 1,
            b'}' | b']' => {
                open -= 1;
                if open == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    bytes.len()
}

fn scalar_end(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r') {
            break;
        }
        at += 1;
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, &str)> {
        RawObject::new(text)
            .unwrap()
            .members()
            .map(|member| (member.key.name().into_owned(), member.value.text()))
            .collect()
    }

    #[test]
    fn members_are_slices_of_the_text() {
        let text = " { \"a\" : 1.50 ,\n\"b\\n\":{\"c\":[1,\"}\"]}, \"d\":\"x\\\"y\" , \"\":null }";
        assert_eq!(
            pairs(text),
            [
                ("a".to_owned(), "1.50"),
                ("b\n".to_owned(), "{\"c\":[1,\"}\"]}"),
                ("d".to_owned(), "\"x\\\"y\""),
                (String::new(), "null"),
            ]
        );
        assert!(RawObject::new("{ }").unwrap().is_empty());
    }

    #[test]
    fn paths_lead_through_objects_only() {
        let object = RawObject::new(r#"{"a":{"b":{"c":7}},"d":[{"e":1}]}"#).unwrap();
        assert_eq!(object.get_path(&["a", "b", "c"]).unwrap().text(), "7");
        assert_eq!(object.get_path(&["a", "x"]), None);
        assert_eq!(object.get_path(&["d", "e"]), None);
        assert_eq!(object.get_path::<&str>(&[]), None);
    }

    #[test]
    fn items_of_an_array_come_in_order() {
        let items: Vec<_> = RawValue::new("[ 1 , [2,3],\"a,b\" ]")
            .as_array()
            .unwrap()
            .map(RawValue::text)
            .collect();
        assert_eq!(items, ["1", "[2,3]", "\"a,b\""]);
        assert_eq!(RawValue::new("[]").as_array().unwrap().count(), 0);
    }

    #[test]
    fn only_plain_integers_are_integers() {
        for (text, expected) in [
            ("10", true),
            ("-10", true),
            ("0", true),
            ("-0", false),
            ("1.0", false),
            ("1e3", false),
            ("\"1\"", false),
            ("null", false),
        ] {
            assert_eq!(
                RawValue::new(text).as_integer_text().is_some(),
                expected,
                "{text}"
            );
        }
    }
}
