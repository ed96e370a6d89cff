//! What people read of a provider's error.

use std::fmt::Write as _;

/// At most this much of a provider's error is kept with an attempt: enough for a message, small
/// enough that every attempt of every failed operation can have one.
pub const DETAIL_BYTES_MAX: usize = 512;

/// The beginning of `body` as printable text of at most [`DETAIL_BYTES_MAX`] bytes. Control and
/// direction characters are escaped: a reply must not write lines of its own into a log or turn
/// the text of a console around.
pub(crate) fn excerpt(body: &[u8]) -> String {
    let mut out = String::new();
    // An escape is longer than what it stands for, never shorter than a byte.
    for chunk in body[..body.len().min(DETAIL_BYTES_MAX + 4)].utf8_chunks() {
        for character in chunk.valid().chars() {
            if !push(&mut out, character) {
                return out;
            }
        }
        for byte in chunk.invalid() {
            if out.len() + 4 + ELLIPSIS.len() > DETAIL_BYTES_MAX {
                out.push_str(ELLIPSIS);
                return out;
            }
            write!(out, "\\x{byte:02x}").expect("writing to a String");
        }
    }
    out
}

/// `text` cut and escaped in the same way.
pub(crate) fn excerpt_text(text: &str) -> String {
    excerpt(text.as_bytes())
}

/// Whether there was room.
fn push(out: &mut String, character: char) -> bool {
    let mut encoded = [0; 4];
    let plain: &str = character.encode_utf8(&mut encoded);
    let escaped;
    let text = if needs_escape(character) {
        escaped = character.escape_default().to_string();
        &escaped
    } else {
        plain
    };
    if out.len() + text.len() + ELLIPSIS.len() > DETAIL_BYTES_MAX {
        out.push_str(ELLIPSIS);
        return false;
    }
    out.push_str(text);
    true
}

fn needs_escape(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_kept_and_what_does_not_print_is_escaped() {
        assert_eq!(
            excerpt(r#"{"error":"größe \"x\""}"#.as_bytes()),
            r#"{"error":"größe \"x\""}"#
        );
        assert_eq!(excerpt(b"a\r\nb\x1b[31m\0"), "a\\r\\nb\\u{1b}[31m\\u{0}");
        assert_eq!(excerpt("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(excerpt(b"a\xff\xc3"), "a\\xff\\xc3");
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let cut = excerpt("ü".repeat(2000).as_bytes());
        assert!(cut.len() <= DETAIL_BYTES_MAX && cut.len() > DETAIL_BYTES_MAX - 4);
        assert!(cut.ends_with('…'));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn any_bytes_become_short_printable_text(body in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let text = excerpt(&body);
            prop_assert!(text.len() <= DETAIL_BYTES_MAX);
            prop_assert!(!text.chars().any(needs_escape));
        }
    }
}
