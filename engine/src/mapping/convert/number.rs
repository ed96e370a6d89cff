//! Numbers as their digits.

/// RFC 8259 section 6: `-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?`
pub(super) fn is_number(text: &str) -> bool {
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut rest = text.as_bytes();
    rest = rest.strip_prefix(b"-").unwrap_or(rest);
    let integer = digits(rest);
    if integer == 0 || (integer > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[integer..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some((b'e' | b'E', exponent)) = rest.split_first() {
        let unsigned = exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-"));
        let exponent = unsigned.unwrap_or(exponent);
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}

/// A number without what follows its point; `None` where there is no number, or one whose
/// exponent hides its digits beyond 64 bits.
pub(super) fn whole_part(text: &str) -> Option<String> {
    if !is_number(text) {
        return None;
    }
    let whole = if text.contains(['e', 'E']) {
        let value: f64 = text.parse().ok()?;
        // 2^63: from here on an f64 skips integers.
        (value.abs() < 9_223_372_036_854_775_808.0).then(|| format!("{}", value.trunc() as i64))?
    } else {
        text.split('.').next()?.to_owned()
    };
    Some(if whole == "-0" { "0".to_owned() } else { whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_numbers_are_numbers() {
        for number in [
            "0",
            "-0",
            "10",
            "1.50",
            "-1e5",
            "1E+05",
            "12345678901234567890.1",
        ] {
            assert!(is_number(number), "{number}");
            assert!(serde_json::from_str::<f64>(number).is_ok(), "{number}");
        }
        for text in [
            "", "-", "01", "+1", ".5", "1.", "1e", "1e+", " 1", "1 ", "0x1", "NaN", "٣",
        ] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn the_whole_part_keeps_every_digit() {
        for (text, expected) in [
            ("42", Some("42")),
            ("-0.9", Some("0")),
            ("-1.9", Some("-1")),
            ("12345678901234567890.9", Some("12345678901234567890")),
            ("1.5e3", Some("1500")),
            ("1e300", None),
            ("x", None),
        ] {
            assert_eq!(whole_part(text).as_deref(), expected, "{text}");
        }
    }
}
