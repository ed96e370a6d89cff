//! Finds an event's own top-level `seq` member without parsing the event.

use memchr::{memchr2, memmem};

/// What an event says about its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SeqMember {
    /// It has no such member.
    Absent,
    /// It names this number.
    Number(u64),
    /// It has the member, but no unsigned integer in it.
    NotANumber,
}

impl SeqMember {
    /// The first top-level `seq` of the object in `line`.
    ///
    /// Exact for every valid JSON object. A text that is no JSON has whatever member precedes its
    /// fault, or none: the intake refuses it either way.
    pub(crate) fn find(line: &[u8]) -> SeqMember {
        // Nearly every line ends here. A key spelt with `\u` escapes is found by the second test.
        if memmem::find(line, b"\"seq\"").is_none() && memmem::find(line, b"\\u00").is_none() {
            return SeqMember::Absent;
        }
        Scan { rest: line }.object().unwrap_or(SeqMember::Absent)
    }
}

/// Walks over the members of one object; `None` where the text is not JSON.
struct Scan<'a> {
    rest: &'a [u8],
}

impl<'a> Scan<'a> {
    fn object(&mut self) -> Option<SeqMember> {
        self.take(b'{')?;
        loop {
            let key = self.string()?;
            self.take(b':')?;
            if is_seq(key) {
                return Some(self.number());
            }
            self.skip_value()?;
            self.take(b',')?;
        }
    }

    fn skip_space(&mut self) {
        let blank = |b: &u8| matches!(b, b' ' | b'\t' | b'\r' | b'\n');
        let start = self.rest.iter().position(|b| !blank(b));
        self.rest = &self.rest[start.unwrap_or(self.rest.len())..];
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        let (&first, rest) = self.rest.split_first()?;
        (first == byte).then(|| self.rest = rest)
    }

    /// A string's text between its quotes, escapes left as they are.
    fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let text = self.rest;
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', text.get(at..)?)?;
            if text[at] == b'"' {
                self.rest = &text[at + 1..];
                return Some(&text[..at]);
            }
            at += 2;
        }
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            self.skip_space();
            match *self.rest.first()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.rest = &self.rest[1..];
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.rest = &self.rest[1..];
                }
                b',' | b':' if depth > 0 => {
                    self.rest = &self.rest[1..];
                    continue;
                }
                b',' | b':' => return None,
                _ => {
                    let ends = |b: &u8| {
                        matches!(
                            b,
                            b',' | b':' | b'}' | b']' | b'"' | b' ' | b'\t' | b'\r' | b'\n'
                        )
                    };
                    let end = self.rest.iter().position(ends);
                    self.rest = &self.rest[end.unwrap_or(self.rest.len())..];
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }

    /// An unsigned integer as JSON writes one: digits only, no leading zero.
    fn number(&mut self) -> SeqMember {
        self.skip_space();
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (text, after) = self.rest.split_at(digits);
        let whole = matches!(
            after.first(),
            Some(b',' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
        );
        let canonical = text.len() == 1 || text.first() != Some(&b'0');
        match std::str::from_utf8(text).map(str::parse::<u64>) {
            Ok(Ok(seq)) if whole && canonical => SeqMember::Number(seq),
            _ => SeqMember::NotANumber,
        }
    }
}

/// Whether a key's raw text spells `seq`, with or without `\u00xx` escapes.
fn is_seq(raw: &[u8]) -> bool {
    let mut rest = raw;
    for want in *b"seq" {
        rest = match rest {
            [first, tail @ ..] if *first == want => tail,
            [b'\\', b'u', b'0', b'0', high, low, tail @ ..] => {
                let hex = |digit: &u8| (*digit as char).to_digit(16);
                match (hex(high), hex(low)) {
                    (Some(h), Some(l)) if h * 16 + l == u32::from(want) => tail,
                    _ => return false,
                }
            }
            _ => return false,
        };
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(line: &str, expected: SeqMember) {
        assert_eq!(SeqMember::find(line.as_bytes()), expected, "{line}");
    }

    #[test]
    fn only_the_top_level_member_counts() {
        check(r#"{"seq":7}"#, SeqMember::Number(7));
        check(
            r#" { "a" : [1,{"seq":3}] , "seq" : 12 } "#,
            SeqMember::Number(12),
        );
        check(r#"{"data":{"seq":3}}"#, SeqMember::Absent);
        check(r#"{"note":"\"seq\":3"}"#, SeqMember::Absent);
        check(r#"{"note":"x\\","seq":4}"#, SeqMember::Number(4));
        check(r#"{"a":"seq","b":{"seq":[]}}"#, SeqMember::Absent);
        check(r#"{"sequence":5}"#, SeqMember::Absent);
        check(
            r#"{"a":-1.5e3,"b":null,"c":true,"seq":18446744073709551615}"#,
            SeqMember::Number(u64::MAX),
        );
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        check(r#"{"\u0073eq":5}"#, SeqMember::Number(5));
        check(r#"{"s\u0065\u0071":6}"#, SeqMember::Number(6));
        check(r#"{"\u0073ea":5}"#, SeqMember::Absent);
    }

    #[test]
    fn what_is_no_unsigned_integer_is_told_apart_from_an_absent_one() {
        for value in [
            "\"5\"",
            "-1",
            "1.0",
            "1e3",
            "01",
            "null",
            "18446744073709551616",
            "[1]",
        ] {
            check(&format!(r#"{{"seq":{value}}}"#), SeqMember::NotANumber);
        }
    }

    #[test]
    fn broken_texts_have_no_number() {
        for line in [
            "",
            "{",
            "seq",
            "\"seq\"",
            r#"{"a":"seq"#,
            r#"{"a" "seq":1}"#,
            r#"{"a":]"seq":1}"#,
            r#"["seq",1]"#,
        ] {
            check(line, SeqMember::Absent);
        }
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[\"\\\\a-z:,{}\\u{1}é]{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::hash_map("seq|[a-z\"]{0,4}", inner, 0..4).prop_map(|members| {
                    serde_json::Value::Object(members.into_iter().collect())
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn it_agrees_with_a_full_parser(value in json(), pretty in any::<bool>()) {
            let text = if pretty {
                serde_json::to_string_pretty(&value)
            } else {
                serde_json::to_string(&value)
            }.unwrap();
            let expected = match value.get("seq") {
                None => SeqMember::Absent,
                Some(seq) => seq.as_u64().map_or(SeqMember::NotANumber, SeqMember::Number),
            };
            prop_assert_eq!(SeqMember::find(text.as_bytes()), expected);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut line = b"{\"seq\"".to_vec();
            line.extend_from_slice(&bytes);
            SeqMember::find(&line);
            line.splice(0..0, b"{\"a\":".iter().copied());
            SeqMember::find(&line);
        }
    }
}
