//! Cuts a request's body into the raw text of its events.
//!
//! Nothing is parsed here, so no number loses its text. The scanner knows just
//! enough JSON (strings, escapes, brackets) to find where a value ends, and
//! gets over a broken item: what it cuts out is refused by itself later.

use bytes::Bytes;
use engine::refusal::{Code, Refusal};

/// What a body holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Events {
    /// One event, answered by itself.
    One(Bytes),
    /// An array or NDJSON, answered by a list of the same length.
    List(Vec<Bytes>),
}

/// Most events in one body. The smallest useful event takes some 60 bytes, so
/// that 8 MiB hold twice as many; a list of these and its answer stay small.
pub(super) const EVENTS_MAX: usize = 65_536;

/// Cuts `body`; `lines_hinted` when its Content-Type says NDJSON.
///
/// # Errors
/// When the frame around the events is broken, so that none can be told apart.
pub(super) fn split(body: &Bytes, lines_hinted: bool) -> Result<Events, Refusal> {
    let text = body.as_ref();
    let start = skip_whitespace(text, 0);
    match text.get(start) {
        None => Err(Refusal::new(Code::Malformed, "the body is empty")),
        Some(b'[') => split_array(body, start).map(Events::List),
        Some(_) if is_one_value(text, start, lines_hinted) => {
            Ok(Events::One(trimmed(body, start, text.len())))
        }
        Some(_) => split_lines(body).map(Events::List),
    }
}

/// Tells one event, perhaps over several lines, from lines of events.
fn is_one_value(text: &[u8], start: usize, lines_hinted: bool) -> bool {
    let first_line_end = line_end(text, start);
    let after_first_line = skip_whitespace(text, first_line_end);
    if after_first_line == text.len() {
        return !lines_hinted;
    }
    if text[start] != b'{' {
        return false;
    }
    match value_end(text, start) {
        Some(end) if skip_whitespace(text, end) == text.len() => true,
        // More follows: lines, unless it stands on the same line and is plain dirt.
        Some(_) => false,
        // The first value never ends. In a value laid out over lines the second
        // line starts with a key; in lines of events, with the next event.
        None => !lines_hinted && text[after_first_line] != b'{',
    }
}

fn split_lines(body: &Bytes) -> Result<Vec<Bytes>, Refusal> {
    let mut events = Vec::new();
    let mut at = 0;
    while at < body.len() {
        let end = line_end(body, at);
        let line = trimmed(body, at, end);
        if !line.is_empty() {
            push(&mut events, line)?;
        }
        at = end + 1;
    }
    Ok(events)
}

fn split_array(body: &Bytes, start: usize) -> Result<Vec<Bytes>, Refusal> {
    let text = body.as_ref();
    let mut events = Vec::new();
    let mut at = skip_whitespace(text, start + 1);
    if text.get(at) == Some(&b']') {
        return after_array(text, at + 1).map(|()| events);
    }
    loop {
        let Some(end) = item_end(text, at) else {
            return Err(Refusal::new(Code::Malformed, "the array is not closed"));
        };
        push(&mut events, trimmed(body, at, end))?;
        if text[end] == b']' {
            return after_array(text, end + 1).map(|()| events);
        }
        at = end + 1;
    }
}

fn after_array(text: &[u8], at: usize) -> Result<(), Refusal> {
    if skip_whitespace(text, at) == text.len() {
        Ok(())
    } else {
        Err(Refusal::new(Code::Malformed, "something follows the array"))
    }
}

fn push(events: &mut Vec<Bytes>, event: Bytes) -> Result<(), Refusal> {
    if events.len() == EVENTS_MAX {
        let detail = format!("over {EVENTS_MAX} events in one body");
        return Err(Refusal::new(Code::TooLarge, detail));
    }
    events.push(event);
    Ok(())
}

/// One past the object that starts at `at`; `None` when it does not end.
fn value_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scanner = Scanner::default();
    for (offset, byte) in text[at..].iter().enumerate() {
        scanner.step(*byte);
        if scanner.is_outside() && matches!(byte, b'}' | b']') {
            return Some(at + offset + 1);
        }
    }
    None
}

/// Where the array's item that starts at `at` ends: at its comma or the closing bracket.
fn item_end(text: &[u8], at: usize) -> Option<usize> {
    let mut scanner = Scanner::default();
    for (offset, byte) in text[at..].iter().enumerate() {
        if scanner.is_outside() && matches!(byte, b',' | b']') {
            return Some(at + offset);
        }
        scanner.step(*byte);
    }
    None
}

/// Keeps count of strings and brackets.
#[derive(Debug, Default)]
struct Scanner {
    in_string: bool,
    escaped: bool,
    /// The open brackets, outermost first; never longer than the body.
    open: Vec<u8>,
}

impl Scanner {
    fn is_outside(&self) -> bool {
        !self.in_string && self.open.is_empty()
    }

    fn step(&mut self, byte: u8) {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                // A string holds no raw line break: this one was never closed.
                b'"' | b'\n' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.open.push(byte),
            b'}' => self.close(b'{'),
            b']' => self.close(b'['),
            _ => {}
        }
    }

    /// Closes up to the bracket this one answers, so that one left open inside
    /// does not swallow the neighbours.
    fn close(&mut self, bracket: u8) {
        if let Some(at) = self.open.iter().rposition(|open| *open == bracket) {
            self.open.truncate(at);
        }
    }
}

fn line_end(text: &[u8], at: usize) -> usize {
    memchr::memchr(b'\n', &text[at..]).map_or(text.len(), |offset| at + offset)
}

fn skip_whitespace(text: &[u8], at: usize) -> usize {
    let blank = text[at..]
        .iter()
        .take_while(|byte| is_whitespace(**byte))
        .count();
    at + blank
}

fn trimmed(body: &Bytes, start: usize, end: usize) -> Bytes {
    let start = skip_whitespace(body, start).min(end);
    let blank = body[start..end]
        .iter()
        .rev()
        .take_while(|byte| is_whitespace(**byte))
        .count();
    body.slice(start..end - blank)
}

/// RFC 8259 section 2.
fn is_whitespace(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(body: &str) -> Vec<String> {
        match split(&Bytes::copy_from_slice(body.as_bytes()), false).unwrap() {
            Events::One(event) => panic!("one event, {event:?}"),
            Events::List(events) => events
                .iter()
                .map(|event| String::from_utf8(event.to_vec()).unwrap())
                .collect(),
        }
    }

    fn one(body: &str) -> String {
        match split(&Bytes::copy_from_slice(body.as_bytes()), false).unwrap() {
            Events::One(event) => String::from_utf8(event.to_vec()).unwrap(),
            Events::List(events) => panic!("a list, {events:?}"),
        }
    }

    #[test]
    fn one_event_is_told_from_lines_of_events() {
        assert_eq!(one(r#" {"a":1} "#), r#"{"a":1}"#);
        assert_eq!(one("{\n \"a\":1\n}\n"), "{\n \"a\":1\n}");
        assert_eq!(one("{\n \"a\":"), "{\n \"a\":");
        assert_eq!(one("garbage"), "garbage");
        assert_eq!(list("{\"a\":1}\n{\"a\":2}"), [r#"{"a":1}"#, r#"{"a":2}"#]);
        assert_eq!(
            list("{\"a\":1}\r\n\r\n{\"a\":2}\r\n"),
            [r#"{"a":1}"#, r#"{"a":2}"#]
        );
    }

    #[test]
    fn a_bad_line_harms_no_neighbour() {
        for bad in ["{\"b\":", "{\"b\":\"x", "x", "{\"b\":[1}", "]"] {
            let body = format!("{{\"a\":1}}\n{bad}\n{{\"c\":2}}\n");
            assert_eq!(list(&body), [r#"{"a":1}"#, bad, r#"{"c":2}"#]);
        }
        assert_eq!(list("{\"b\":\n{\"c\":2}\n"), ["{\"b\":", r#"{"c":2}"#]);
    }

    #[test]
    fn the_content_type_makes_lines_of_a_single_one() {
        let body = Bytes::from_static(b"{\"a\":1}\n");
        let events = vec![Bytes::from_static(b"{\"a\":1}")];
        assert_eq!(split(&body, true).unwrap(), Events::List(events));
    }

    #[test]
    fn an_array_is_cut_at_its_own_commas_only() {
        assert_eq!(
            list(r#"[ {"a":[1,{"b":","}]} , {"c":"]\"}"} ,7 ]"#),
            [r#"{"a":[1,{"b":","}]}"#, r#"{"c":"]\"}"}"#, "7"]
        );
        assert_eq!(list(" [ ] "), Vec::<String>::new());
        assert_eq!(list("[{},]"), ["{}", ""]);
        assert_eq!(list("[[]]"), ["[]"]);
    }

    #[test]
    fn numbers_keep_their_text() {
        let exact = r#"{"n":12345678901234567890.1234567890e-400}"#;
        assert_eq!(list(&format!("[{exact}]")), [exact]);
    }

    #[test]
    fn a_bad_item_harms_no_neighbour() {
        for bad in [
            r#"{"b":}"#,
            r#"{"b":[1}"#,
            r#"{"b":{"c":[[}}"#,
            "nope",
            "{\"b\":\"x\n}",
            "",
        ] {
            let body = format!("[{{\"a\":1}},{bad},{{\"c\":2}}]");
            assert_eq!(list(&body), [r#"{"a":1}"#, bad, r#"{"c":2}"#]);
        }
    }

    #[test]
    fn a_broken_frame_is_refused_as_a_whole() {
        for body in [
            "",
            "  \n ",
            "[",
            "[{\"a\":1}",
            "[{\"a\":1},",
            "[{\"a\":\"x]",
            "[1] 2",
        ] {
            let refusal = split(&Bytes::copy_from_slice(body.as_bytes()), false).unwrap_err();
            assert_eq!(refusal.code, Code::Malformed, "{body}");
        }
    }

    #[test]
    fn too_many_events_are_refused_as_a_whole() {
        let body = format!("[{}1]", "1,".repeat(EVENTS_MAX));
        let refusal = split(&Bytes::from(body), false).unwrap_err();
        assert_eq!(refusal.code, Code::TooLarge);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn no_bytes_make_it_panic(body in prop::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'),
                Just(b','), Just(b'\n'), Just(b' '), any::<u8>()], 0..64), hinted: bool) {
            let body = Bytes::from(body);
            if let Ok(Events::List(events)) = split(&body, hinted) {
                prop_assert!(events.iter().map(Bytes::len).sum::<usize>() <= body.len());
            }
        }

        #[test]
        fn an_array_of_values_is_cut_back_into_them(
            values in prop::collection::vec(prop::collection::hash_map(".{0,5}", ".{0,5}", 0..4), 0..8)
        ) {
            let texts: Vec<String> =
                values.iter().map(|value| serde_json::to_string(value).unwrap()).collect();
            prop_assert_eq!(&list(&format!("[{}]", texts.join(" , "))), &texts);
            if texts.len() > 1 {
                prop_assert_eq!(&list(&texts.join("\n")), &texts);
            }
        }
    }
}
