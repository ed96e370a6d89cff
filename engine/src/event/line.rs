//! Looking at bytes that may or may not be an event.

use std::str;

use crate::json::RawObject;

/// Whether the bytes are an object whose first member is `hello`, `subscribe` or `ack`: a control
/// line of a TCP session, not an event. Costs a few bytes of reading.
pub fn looks_like_control(bytes: &[u8]) -> bool {
    let Some(inside) = bytes.trim_ascii_start().strip_prefix(b"{") else {
        return false;
    };
    let Some(name) = inside.trim_ascii_start().strip_prefix(b"\"") else {
        return false;
    };
    ["hello\"", "subscribe\"", "ack\""]
        .iter()
        .any(|control| name.starts_with(control.as_bytes()))
}

/// The `seq` of an event, readable even where the event is refused for another reason; `None`
/// when it has none or the bytes are too broken to tell.
pub fn seq_of(bytes: &[u8]) -> Option<u64> {
    let object = RawObject::new(str::from_utf8(bytes).ok()?)?;
    object.get("seq")?.as_integer_text()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_lines_are_told_by_their_first_member() {
        for (line, expected) in [
            (r#"{"hello":{"producer":"billing"}}"#, true),
            (" { \"subscribe\" : {}}", true),
            (r#"{"ack":{"seq":3}}"#, true),
            (r#"{"acknowledge":1}"#, false),
            (r#"{"operation":"UPDATE","hello":1}"#, false),
            (r#"["hello"]"#, false),
            ("{", false),
            ("", false),
        ] {
            assert_eq!(looks_like_control(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn a_refused_event_still_tells_its_number() {
        assert_eq!(seq_of(br#"{"nope":{"seq":1},"seq":42}"#), Some(42));
        assert_eq!(seq_of(br#"{"seq":"42"}"#), None);
        assert_eq!(seq_of(br#"{"seq":-1}"#), None);
        assert_eq!(seq_of(b"\xff"), None);
        assert_eq!(seq_of(b"{"), None);
    }
}
