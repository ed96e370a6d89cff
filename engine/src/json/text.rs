//! What the inside of a JSON string means.

use std::borrow::Cow;

/// Unescapes what stands between the quotes; borrowed when nothing is escaped.
///
/// Validation has refused lone surrogates and unknown escapes; should one reach this place all
/// the same, it reads as U+FFFD.
pub(super) fn unescape(inner: &str) -> Cow<'_, str> {
    let Some(first) = inner.bytes().position(|byte| byte == b'\\') else {
        return Cow::Borrowed(inner);
    };
    let mut out = String::with_capacity(inner.len());
    out.push_str(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let (character, after) = unescape_one(&rest[at + 1..]);
        out.push(character);
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Reads one escape after its backslash; answers the character and what follows.
fn unescape_one(text: &str) -> (char, &str) {
    let mut characters = text.chars();
    let character = match characters.next() {
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('n') => '\n',
        Some('r') => '\r',
        Some('t') => '\t',
        Some(same @ ('"' | '\\' | '/')) => same,
        Some('u') => return unescape_unicode(characters.as_str()),
        Some(_) | None => char::REPLACEMENT_CHARACTER,
    };
    (character, characters.as_str())
}

fn unescape_unicode(text: &str) -> (char, &str) {
    let Some((high, after)) = hex4(text) else {
        return (char::REPLACEMENT_CHARACTER, text);
    };
    if let Some(character) = char::from_u32(high) {
        return (character, after);
    }
    let low = after.strip_prefix("\\u").and_then(hex4);
    match low {
        Some((low @ 0xDC00..=0xDFFF, end)) if high < 0xDC00 => {
            let scalar = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
            let character = char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER);
            (character, end)
        }
        _ => (char::REPLACEMENT_CHARACTER, after),
    }
}

/// Four hex digits as a number, and what follows them.
pub(super) fn hex4(text: &str) -> Option<(u32, &str)> {
    let (digits, after) = text.split_at_checked(4)?;
    let all_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = u32::from_str_radix(digits, 16).ok()?;
    all_hex.then_some((value, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_become_characters() {
        for (inner, expected) in [
            ("plain", "plain"),
            (r#"a\"b\\c\/d"#, "a\"b\\c/d"),
            (r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t"),
            (r"\u0041\u00e9\u20AC", "Aé€"),
            (r"x\ud83d\ude00y", "x😀y"),
            (r"\u0000", "\0"),
            (r"\uDBFF\uDFFF", "\u{10FFFF}"),
        ] {
            assert_eq!(unescape(inner), expected, "{inner}");
        }
    }

    #[test]
    fn what_validation_refuses_reads_as_the_replacement_character() {
        for inner in [
            r"\ud800",
            r"\ud800x",
            r"\udc00",
            r"\ud800\u0041",
            r"\u12",
            r"\x",
            "\\",
            r"\u+123",
            "\\é",
            "\\u€€",
        ] {
            assert!(
                unescape(inner).contains(char::REPLACEMENT_CHARACTER),
                "{inner}"
            );
        }
    }
}
