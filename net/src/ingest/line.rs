//! The lines encoding: cuts a byte stream into lines, and knows the control lines.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

use crate::subscription::{NAME_BYTES_MAX, OBJECTS_MAX};

/// Cuts a stream into lines. A line that lies whole in the bytes just read is not copied; one
/// that does not is put together in a buffer that never exceeds the longest line allowed.
#[derive(Debug)]
pub(crate) struct LineReader {
    line_bytes_max: usize,
    /// The start of a line whose end has not come.
    partial: Vec<u8>,
    /// `partial` was handed out whole and is to be emptied.
    spent: bool,
    /// The line under way is too long; its bytes are dropped up to its end.
    skipping: bool,
}

/// One line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Up to `line_bytes_max` bytes.
    Text(&'a [u8]),
    /// A longer one, whose text is gone.
    TooLong,
}

impl LineReader {
    pub(crate) fn new(line_bytes_max: usize) -> Self {
        LineReader {
            line_bytes_max,
            partial: Vec::new(),
            spent: false,
            skipping: false,
        }
    }

    /// The next whole line; takes what it uses from `input`, all of it when there is none.
    pub(crate) fn next<'r, 'i: 'r>(&'r mut self, input: &mut &'i [u8]) -> Option<Line<'r>> {
        if self.spent {
            self.spent = false;
            self.partial.clear();
            // A long line now and then must not hold its memory for the life of a connection.
            self.partial.shrink_to(PARTIAL_BYTES_KEPT);
        }
        let Some(end) = memchr(b'\n', input) else {
            self.keep(input);
            *input = &[];
            return None;
        };
        let (line, rest) = (&input[..end], &input[end + 1..]);
        *input = rest;
        if self.partial.is_empty() && !self.skipping {
            return Some(if line.len() > self.line_bytes_max {
                Line::TooLong
            } else {
                Line::Text(line)
            });
        }
        self.keep(line);
        if std::mem::take(&mut self.skipping) {
            return Some(Line::TooLong);
        }
        self.spent = true;
        Some(Line::Text(&self.partial))
    }

    /// Whether a line has begun and not ended.
    pub(crate) fn is_mid_line(&self) -> bool {
        self.skipping || (!self.spent && !self.partial.is_empty())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.partial.len() + bytes.len() > self.line_bytes_max {
            self.skipping = true;
            self.partial = Vec::new();
        } else {
            self.partial.extend_from_slice(bytes);
        }
    }
}

/// What the buffer of a partial line keeps between lines; a few events of common size.
const PARTIAL_BYTES_KEPT: usize = 16 << 10;

/// The text without blanks around it.
pub(crate) fn trim(line: &[u8]) -> &[u8] {
    line.trim_ascii()
}

/// A line about the session instead of a record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ControlLine<'a> {
    /// `{"hello":{...}}`
    Hello(Hello<'a>),
    /// `{"subscribe":{...}}`
    Subscribe(Subscribe<'a>),
    /// Begins like a hello and is none; why.
    Malformed(String),
}

/// Who the client is.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello<'a> {
    /// The name under which events are numbered; absent: anonymous.
    #[serde(borrow, default)]
    pub(crate) producer: Option<Cow<'a, str>>,
    /// The API key.
    #[serde(borrow, default)]
    pub(crate) key: Option<Cow<'a, str>>,
}

impl Hello<'_> {
    /// Why the producer's name cannot be used.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let name = self.producer.as_deref()?;
        if name.is_empty() || name.len() > PRODUCER_BYTES_MAX {
            return Some("producer must have 1 to 128 bytes");
        }
        name.chars()
            .any(char::is_control)
            .then_some("producer must have no control characters")
    }
}

/// Which changes a client wants.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Subscribe<'a> {
    /// The name under which its acks are remembered.
    #[serde(borrow)]
    pub(crate) consumer: Cow<'a, str>,
    /// Whose changes; absent: of every object.
    #[serde(default)]
    pub(crate) objects: Option<Vec<String>>,
}

impl Subscribe<'_> {
    /// Where and why it cannot be taken.
    pub(crate) fn fault(&self) -> Option<(&'static str, &'static str)> {
        let bad = |name: &str| {
            let length = name.len();
            length == 0 || length > NAME_BYTES_MAX || name.chars().any(char::is_control)
        };
        if bad(&self.consumer) {
            let fault = "a consumer has 1 to 128 bytes and no control characters";
            return Some(("/subscribe/consumer", fault));
        }
        let objects = self.objects.as_ref()?;
        if objects.is_empty() || objects.len() > OBJECTS_MAX {
            let fault = "name 1 to 256 objects, or leave them out for all";
            return Some(("/subscribe/objects", fault));
        }
        let fault = "an object has 1 to 128 bytes and no control characters";
        let any = objects.iter().any(|name| bad(name));
        any.then_some(("/subscribe/objects", fault))
    }
}

/// Longest producer name; it stands in every event's frame in the log.
pub(crate) const PRODUCER_BYTES_MAX: usize = 128;

impl<'a> ControlLine<'a> {
    /// Reads a trimmed line; `None`: it is an event.
    pub(crate) fn parse(line: &'a [u8]) -> Option<ControlLine<'a>> {
        let key = line.strip_prefix(b"{")?.trim_ascii_start();
        if key.starts_with(b"\"subscribe\"") {
            #[derive(Deserialize)]
            #[serde(deny_unknown_fields)]
            struct SubscribeLine<'a> {
                #[serde(borrow)]
                subscribe: Subscribe<'a>,
            }
            return Some(match serde_json::from_slice::<SubscribeLine<'_>>(line) {
                Ok(line) => ControlLine::Subscribe(line.subscribe),
                Err(error) => ControlLine::Malformed(error.to_string()),
            });
        }
        if !key.starts_with(b"\"hello\"") {
            return None;
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct HelloLine<'a> {
            #[serde(borrow)]
            hello: Hello<'a>,
        }
        Some(match serde_json::from_slice::<HelloLine<'_>>(line) {
            Ok(line) => ControlLine::Hello(line.hello),
            Err(error) => ControlLine::Malformed(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `text` in pieces of `step` bytes.
    fn lines(text: &[u8], step: usize, line_bytes_max: usize) -> (Vec<Option<Vec<u8>>>, bool) {
        let mut reader = LineReader::new(line_bytes_max);
        let mut found = Vec::new();
        for mut piece in text.chunks(step) {
            while let Some(line) = reader.next(&mut piece) {
                found.push(match line {
                    Line::Text(text) => Some(text.to_vec()),
                    Line::TooLong => None,
                });
            }
        }
        (found, reader.is_mid_line())
    }

    #[test]
    fn a_line_too_long_is_dropped_without_being_kept() {
        let mut reader = LineReader::new(8);
        for _ in 0..100 {
            assert_eq!(reader.next(&mut &b"aaaa"[..]), None);
            assert!(reader.partial.capacity() <= 16);
        }
        let mut rest = &b"a\nnext\n"[..];
        assert_eq!(reader.next(&mut rest), Some(Line::TooLong));
        assert_eq!(reader.next(&mut rest), Some(Line::Text(b"next")));
        assert!(!reader.is_mid_line());
    }

    #[test]
    fn a_line_of_the_largest_size_passes_and_one_byte_more_does_not() {
        for step in 1..20 {
            let (found, _) = lines(b"12345678\n123456789\n\n1\n", step, 8);
            let expected = [Some(&b"12345678"[..]), None, Some(b""), Some(b"1")];
            assert_eq!(found, expected.map(|l| l.map(<[u8]>::to_vec)));
        }
    }

    #[test]
    fn a_line_without_its_end_is_no_line() {
        let (found, mid_line) = lines(b"{}\n{\"a\":1}", 3, 64);
        assert_eq!(found, [Some(b"{}".to_vec())]);
        assert!(mid_line);
    }

    #[test]
    fn hello_and_subscribe_are_known_by_their_first_key() {
        let hello = |producer: Option<&'static str>, key: Option<&'static str>| {
            Some(ControlLine::Hello(Hello {
                producer: producer.map(Cow::from),
                key: key.map(Cow::from),
            }))
        };
        assert_eq!(
            ControlLine::parse(br#"{"hello":{"producer":"billing","key":"k"}}"#),
            hello(Some("billing"), Some("k"))
        );
        assert_eq!(
            ControlLine::parse(br#"{ "hello" : {} }"#),
            hello(None, None)
        );
        let subscribe = |objects: Option<&[&str]>| {
            Some(ControlLine::Subscribe(Subscribe {
                consumer: "c".into(),
                objects: objects.map(|names| names.iter().map(|&name| name.into()).collect()),
            }))
        };
        assert_eq!(
            ControlLine::parse(br#"{"subscribe":{"consumer":"c"}}"#),
            subscribe(None)
        );
        assert_eq!(
            ControlLine::parse(br#"{"subscribe":{"consumer":"c","objects":["a","b"]}}"#),
            subscribe(Some(&["a", "b"]))
        );
        assert_eq!(ControlLine::parse(br#"{"x_a":1,"hello":{}}"#), None);
        assert_eq!(ControlLine::parse(b"nonsense"), None);
        for bad in [
            r#"{"hello":{"producr":"x"}}"#,
            r#"{"hello":5}"#,
            r#"{"hello":{}"#,
            r#"{"hello":{},"x":1}"#,
            r#"{"subscribe":{}}"#,
            r#"{"subscribe":{"consumer":"c","object":"a"}}"#,
            r#"{"subscribe":{"consumer":"c","objects":"a"}}"#,
            r#"{"subscribe":{"consumer":"c"},"hello":{}}"#,
        ] {
            let parsed = ControlLine::parse(bad.as_bytes());
            assert!(matches!(parsed, Some(ControlLine::Malformed(_))), "{bad}");
        }
    }

    #[test]
    fn a_producer_name_is_short_and_printable() {
        let fault = |name: &str| {
            let hello = Hello {
                producer: Some(name.to_owned().into()),
                key: None,
            };
            hello.fault().is_some()
        };
        assert!(!fault("billing/eu-1 ü"));
        assert!(fault(""));
        assert!(fault("a\u{0}b"));
        assert!(!fault(&"x".repeat(128)));
        assert!(fault(&"x".repeat(129)));
    }

    #[test]
    fn a_subscription_names_a_consumer_and_some_objects() {
        let fault = |consumer: &str, objects: Option<Vec<&str>>| {
            let subscribe = Subscribe {
                consumer: consumer.to_owned().into(),
                objects: objects.map(|names| names.into_iter().map(str::to_owned).collect()),
            };
            subscribe.fault().map(|(pointer, _)| pointer)
        };
        assert_eq!(fault("billing/eu-1 ü", None), None);
        assert_eq!(fault("c", Some(vec!["contact"; 256])), None);
        assert_eq!(fault("", None), Some("/subscribe/consumer"));
        assert_eq!(fault("a\n", None), Some("/subscribe/consumer"));
        assert_eq!(fault(&"x".repeat(129), None), Some("/subscribe/consumer"));
        for objects in [vec![], vec!["contact"; 257], vec!["contact", ""]] {
            assert_eq!(fault("c", Some(objects)), Some("/subscribe/objects"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn cutting_the_stream_elsewhere_changes_nothing(
            text in "[ab\n]{0,80}", step in 1usize..20, max in 1usize..12,
        ) {
            prop_assert_eq!(lines(text.as_bytes(), step, max), lines(text.as_bytes(), 1000, max));
        }
    }
}
