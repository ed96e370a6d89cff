//! Arrays in PostgreSQL's text form: the manual's chapter "Array Input and Output Syntax".

use super::Kind;

/// More than the server's `MAXDIM`.
const DEPTH_MAX: u32 = 8;

/// Appends `{1,NULL,"a \"b\""}` as a JSON array of values of this kind; false, with something
/// appended, if it is no such text.
pub(super) fn write(text: &str, kind: &Kind, out: &mut String) -> bool {
    // Bounds that do not begin at 1 stand in front: `[0:2]={1,2,3}`.
    let elements = match text.strip_prefix('[') {
        Some(bounded) => match bounded.split_once("]={") {
            Some((bounds, _)) => &bounded[bounds.len() + 2..],
            None => return false,
        },
        None => text,
    };
    let mut parser = Parser {
        rest: elements,
        scratch: String::new(),
    };
    parser.array(kind, DEPTH_MAX, out).is_some() && parser.rest.is_empty()
}

struct Parser<'a> {
    rest: &'a str,
    scratch: String,
}

impl Parser<'_> {
    fn array(&mut self, kind: &Kind, depth_left: u32, out: &mut String) -> Option<()> {
        self.expect('{')?;
        out.push('[');
        if self.expect('}').is_some() {
            out.push(']');
            return Some(());
        }
        loop {
            if self.rest.starts_with('{') {
                self.array(kind, depth_left.checked_sub(1)?, out)?;
            } else {
                self.element(kind, out)?;
            }
            if self.expect('}').is_some() {
                out.push(']');
                return Some(());
            }
            self.expect(',')?;
            out.push(',');
        }
    }

    fn element(&mut self, kind: &Kind, out: &mut String) -> Option<()> {
        if self.expect('"').is_some() {
            self.quoted()?;
            kind.write(&self.scratch, out);
            return Some(());
        }
        let end = self.rest.find([',', '}', '{', '"', '\\'])?;
        let (element, rest) = self.rest.split_at(end);
        if element.is_empty() {
            return None;
        }
        self.rest = rest;
        match element {
            "NULL" => out.push_str("null"),
            element => kind.write(element, out),
        }
        Some(())
    }

    /// Reads what stands between quotes into the scratch text.
    fn quoted(&mut self) -> Option<()> {
        self.scratch.clear();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            self.scratch.push_str(&self.rest[..end]);
            let quote = self.rest[end..].starts_with('"');
            self.rest = &self.rest[end + 1..];
            if quote {
                return Some(());
            }
            let escaped = self.rest.chars().next()?;
            self.scratch.push(escaped);
            self.rest = &self.rest[escaped.len_utf8()..];
        }
    }

    fn expect(&mut self, wanted: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: Kind, text: &str) -> String {
        let mut out = String::new();
        Kind::Array(Box::new(kind)).write(text, &mut out);
        out
    }

    #[test]
    fn elements_are_written_by_their_kind() {
        assert_eq!(written(Kind::Integer, "{}"), "[]");
        assert_eq!(written(Kind::Integer, "{1,NULL,-3}"), "[1,null,-3]");
        assert_eq!(written(Kind::Integer, "{{1,2},{3,4}}"), "[[1,2],[3,4]]");
        assert_eq!(written(Kind::Integer, "[0:1]={5,6}"), "[5,6]");
        assert_eq!(written(Kind::Boolean, "{t,f}"), "[true,false]");
        assert_eq!(
            written(Kind::Text, r#"{plain,"NULL","a,b","q\"\\",""}"#),
            r#"["plain","NULL","a,b","q\"\\",""]"#
        );
        assert_eq!(
            written(Kind::Json, r#"{"{\"a\": 1}",NULL}"#),
            r#"[{"a":1},null]"#
        );
        assert_eq!(written(Kind::Bytes, r#"{"\\x00ff"}"#), r#"["AP8="]"#);
    }

    #[test]
    fn what_is_no_array_stays_text() {
        for text in [
            "", "{", "{1", "{1,}", "{1}x", "{\"a}", "[0:1]", "{a\"b\"}", "{\"\\",
        ] {
            let expected = serde_json::to_string(text).unwrap();
            assert_eq!(written(Kind::Text, text), expected);
        }
        let deep = "{".repeat(50) + &"}".repeat(50);
        assert!(written(Kind::Text, &deep).starts_with('"'));
    }
}
