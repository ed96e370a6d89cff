//! Where a refused document went wrong: a slow second reading that only errors pay for.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::raw::skip_space;
use super::text::{hex4, unescape};
use super::{DEPTH_MAX, Pointer};
use crate::refusal::{Code, Refusal};

/// The first broken promise of [`super::Scratch`] in document order; `None` if all hold.
pub(super) fn diagnose(text: &str) -> Option<Refusal> {
    let mut reader = Reader {
        text,
        at: 0,
        path: Vec::new(),
    };
    reader.document().err()
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    path: Vec<Segment<'a>>,
}

enum Segment<'a> {
    Name(Cow<'a, str>),
    Index(usize),
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<(), Refusal> {
        if self.text.starts_with('\u{feff}') {
            let detail = "starts with a byte order mark, which JSON does not allow";
            return Err(Refusal::at(Code::Malformed, "", detail));
        }
        self.space();
        self.value()?;
        self.space();
        if self.at < self.text.len() {
            return Err(self.malformed("nothing more after the value"));
        }
        Ok(())
    }

    fn value(&mut self) -> Result<(), Refusal> {
        match self.peek() {
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(b'"') => self.string().map(drop),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => Err(self.malformed("a value")),
        }
    }

    fn object(&mut self) -> Result<(), Refusal> {
        self.check_depth()?;
        self.at += 1;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        let mut names = BTreeSet::new();
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return Err(self.malformed("a member name in quotes"));
            }
            let name = self.string()?;
            self.path.push(Segment::Name(name.clone()));
            if !names.insert(name) {
                let detail = "an object names this member twice";
                return Err(Refusal::at(Code::DuplicateKey, self.pointer(), detail));
            }
            self.space();
            self.expect(b':', "`:`")?;
            self.space();
            self.value()?;
            self.path.pop();
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    fn array(&mut self) -> Result<(), Refusal> {
        self.check_depth()?;
        self.at += 1;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.path.push(Segment::Index(index));
            self.space();
            self.value()?;
            self.path.pop();
            self.space();
            if self.take(b']') {
                break;
            }
            self.expect(b',', "`,` or `]`")?;
        }
        Ok(())
    }

    /// Reads a string and answers its meaning.
    fn string(&mut self) -> Result<Cow<'a, str>, Refusal> {
        self.at += 1;
        let start = self.at;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape()?,
                Some(0..=0x1f) => {
                    return Err(self.malformed("control characters in strings escaped"));
                }
                Some(_) => self.at += 1,
                None => return Err(self.malformed("`\"` at the end of the string")),
            }
        }
        let inner = &self.text[start..self.at];
        self.at += 1;
        Ok(unescape(inner))
    }

    fn escape(&mut self) -> Result<(), Refusal> {
        let after = &self.text[self.at + 1..];
        match after.bytes().next() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => match hex4(&after[1..]) {
                None => return Err(self.malformed("four hex digits after `\\u`")),
                Some((0xD800..=0xDBFF, rest)) => {
                    let low = rest.strip_prefix("\\u").and_then(hex4);
                    if !matches!(low, Some((0xDC00..=0xDFFF, _))) {
                        return Err(self.malformed("a low surrogate after the high one"));
                    }
                    self.at += 12;
                }
                Some((0xDC00..=0xDFFF, _)) => {
                    return Err(self.malformed("no low surrogate by itself"));
                }
                Some(_) => self.at += 6,
            },
            _ => return Err(self.malformed("a valid escape after the backslash")),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Refusal> {
        let start = self.at;
        self.take(b'-');
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.malformed("a digit")),
        }
        let integer = &self.text[start..self.at];
        let mut plain = true;
        if self.take(b'.') {
            plain = false;
            self.some_digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            plain = false;
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.some_digits()?;
        }
        let carried = if plain {
            integer.parse::<i64>().is_ok() || integer.parse::<u64>().is_ok()
        } else {
            let float = self.text[start..self.at].parse::<f64>();
            float.is_ok_and(f64::is_finite)
        };
        if carried {
            return Ok(());
        }
        let detail = "a number beyond 64 bits cannot be carried exactly; send it as text";
        Err(Refusal::at(Code::NumberPrecision, self.pointer(), detail))
    }

    fn some_digits(&mut self) -> Result<(), Refusal> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.malformed("a digit"));
        }
        self.digits();
        Ok(())
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), Refusal> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.malformed("a value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn check_depth(&self) -> Result<(), Refusal> {
        if self.path.len() < DEPTH_MAX {
            return Ok(());
        }
        let detail = format!("nested deeper than {DEPTH_MAX} levels");
        Err(Refusal::at(Code::TooDeep, self.pointer(), detail))
    }

    fn expect(&mut self, byte: u8, what: &str) -> Result<(), Refusal> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.malformed(what))
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn space(&mut self) {
        self.at = skip_space(self.text.as_bytes(), self.at);
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed(&self, expected: &str) -> Refusal {
        let detail = format!("not JSON: expected {expected} at byte {}", self.at);
        Refusal::at(Code::Malformed, self.pointer(), detail)
    }

    fn pointer(&self) -> Pointer {
        let mut pointer = Pointer::root();
        for segment in &self.path {
            match segment {
                Segment::Name(name) => pointer.push(name),
                Segment::Index(index) => pointer.push(&index.to_string()),
            }
        }
        pointer
    }
}
