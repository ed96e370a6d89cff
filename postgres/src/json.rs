//! From the text of a value, as PostgreSQL writes it, to JSON.

mod array;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::IgnoredAny;

/// How the values of a type are written. The rules are in `docs/design/postgres.md`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `true` and `false`.
    Boolean,
    /// A number, digit by digit.
    Integer,
    /// A number, digit by digit; text where JSON has none for it.
    Decimal,
    /// A number; text for what JSON has no number for.
    Float,
    /// RFC 3339 with `Z`.
    Instant,
    /// As [`Kind::Instant`], without zone.
    LocalTime,
    /// The JSON itself.
    Json,
    /// Base 64.
    Bytes,
    /// An array of these.
    Array(Box<Kind>),
    /// Text as it is: names, dates, identifiers, everything else.
    Text,
}

/// Numbers of types that are built in, from the server's `pg_type.dat`; they never change.
pub(crate) fn built_in(type_oid: u32) -> Kind {
    let array = |kind| Kind::Array(Box::new(kind));
    match type_oid {
        16 => Kind::Boolean,
        17 => Kind::Bytes,
        20 | 21 | 23 | 26 => Kind::Integer,
        114 | 3802 => Kind::Json,
        700 | 701 => Kind::Float,
        1114 => Kind::LocalTime,
        1184 => Kind::Instant,
        1700 => Kind::Decimal,
        1000 => array(Kind::Boolean),
        1001 => array(Kind::Bytes),
        1005 | 1007 | 1016 | 1028 => array(Kind::Integer),
        199 | 3807 => array(Kind::Json),
        1021 | 1022 => array(Kind::Float),
        1115 => array(Kind::LocalTime),
        1185 => array(Kind::Instant),
        1231 => array(Kind::Decimal),
        // name, text, bpchar, varchar, inet, date, time, interval, uuid.
        1003 | 1009 | 1014 | 1015 | 1041 | 1182 | 1183 | 1187 | 2951 => array(Kind::Text),
        _ => Kind::Text,
    }
}

impl Kind {
    /// Appends a value. What is not of the form that this kind has is appended as text, so that
    /// nothing is lost and what comes out is JSON in any case.
    pub(crate) fn write(&self, text: &str, out: &mut String) {
        let whole = out.len();
        let written = match self {
            Kind::Boolean => write_boolean(text, out),
            Kind::Integer | Kind::Decimal | Kind::Float => write_number(text, out),
            Kind::Instant => write_instant(text, out),
            Kind::LocalTime => write_local_time(text, out),
            Kind::Json => write_json(text, out),
            Kind::Bytes => write_bytes(text, out),
            Kind::Array(kind) => array::write(text, kind, out),
            Kind::Text => false,
        };
        if !written {
            out.truncate(whole);
            write_text(text, out);
        }
    }
}

/// Appends a JSON string.
pub(crate) fn write_text(text: &str, out: &mut String) {
    out.reserve(text.len() + 2);
    out.push('"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain_from..at]);
        plain_from = at + 1;
        if short.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            out.push_str(short);
        }
    }
    out.push_str(&text[plain_from..]);
    out.push('"');
}

fn write_boolean(text: &str, out: &mut String) -> bool {
    out.push_str(match text {
        "t" => "true",
        "f" => "false",
        _ => return false,
    });
    true
}

fn write_number(text: &str, out: &mut String) -> bool {
    let carried = is_number(text);
    if carried {
        out.push_str(text);
    }
    carried
}

/// Whether it is a JSON number that readers of 64 bits take: whole ones within 64 bits, others
/// with a finite value. Others (`NaN`, 30 digits) stay text, which loses nothing.
fn is_number(text: &str) -> bool {
    let bytes = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let digits = |bytes: &[u8]| {
        bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let whole = digits(bytes);
    if whole == 0 || (whole > 1 && bytes[0] == b'0') {
        return false;
    }
    let mut rest = &bytes[whole..];
    if rest.is_empty() {
        return text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok();
    }
    if let Some(after) = rest.strip_prefix(b".") {
        let fraction = digits(after);
        if fraction == 0 {
            return false;
        }
        rest = &after[fraction..];
    }
    if let Some(after) = rest.strip_prefix(b"e") {
        let after = match after.split_first() {
            Some((b'+' | b'-', after)) => after,
            _ => after,
        };
        let exponent = digits(after);
        if exponent == 0 {
            return false;
        }
        rest = &after[exponent..];
    }
    rest.is_empty() && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `2026-11-20 10:00:00.123+00` with the time zone set to UTC.
fn write_instant(text: &str, out: &mut String) -> bool {
    let Some(local) = text.strip_suffix("+00") else {
        return false;
    };
    if !write_local(local, out) {
        return false;
    }
    out.push_str("Z\"");
    true
}

fn write_local_time(text: &str, out: &mut String) -> bool {
    if !write_local(text, out) {
        return false;
    }
    out.push('"');
    true
}

/// Appends `"2026-11-20T10:00:00.123`. Infinity, years before 1 and beyond 9999 are refused:
/// RFC 3339 has no form for them.
fn write_local(text: &str, out: &mut String) -> bool {
    const FORM: &[u8] = b"dddd-dd-dd dd:dd:dd";
    let matches = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    let bytes = text.as_bytes();
    let Some((second, fraction)) = bytes.split_at_checked(FORM.len()) else {
        return false;
    };
    let fraction_fits = match fraction.split_first() {
        None => true,
        Some((b'.', digits)) => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    if !second.iter().zip(FORM).all(matches) || !fraction_fits {
        return false;
    }
    let (date, time) = text.split_at(10);
    out.push('"');
    out.push_str(date);
    out.push('T');
    out.push_str(&time[1..]);
    true
}

/// `\x0a1b` as base 64.
fn write_bytes(text: &str, out: &mut String) -> bool {
    let Some(hex) = text.strip_prefix("\\x") else {
        return false;
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.as_bytes().chunks(2);
    let bytes: Option<Vec<u8>> = pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    let Some(bytes) = bytes else { return false };
    out.push('"');
    BASE64.encode_string(bytes, out);
    out.push('"');
    true
}

/// The JSON without the white space between its tokens, so that it fits on a line.
fn write_json(text: &str, out: &mut String) -> bool {
    // The server has checked it, but what goes on from here as JSON has to be JSON.
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return false;
    }
    out.reserve(text.len());
    let (mut kept_from, mut in_text, mut escaped) = (0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b' ' | b'\n' | b'\r' | b'\t' if !in_text => {
                out.push_str(&text[kept_from..at]);
                kept_from = at + 1;
            }
            _ => {}
        }
    }
    out.push_str(&text[kept_from..]);
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(kind: &Kind, text: &str) -> String {
        let mut out = String::new();
        kind.write(text, &mut out);
        out
    }

    #[test]
    fn each_type_has_its_form() {
        let rows = [
            (16, "t", "true"),
            (16, "f", "false"),
            (20, "9007199254740993", "9007199254740993"),
            (23, "-7", "-7"),
            (
                1700,
                "12345678901234567890.12345",
                "12345678901234567890.12345",
            ),
            (1700, "123456789012345678901", r#""123456789012345678901""#),
            (1700, "NaN", r#""NaN""#),
            (701, "1e+20", "1e+20"),
            (701, "0.1", "0.1"),
            (701, "-Infinity", r#""-Infinity""#),
            (701, "1e+999", r#""1e+999""#),
            (
                1184,
                "2026-11-20 10:00:00.123+00",
                r#""2026-11-20T10:00:00.123Z""#,
            ),
            (1184, "infinity", r#""infinity""#),
            (
                1184,
                "12026-11-20 10:00:00+00",
                r#""12026-11-20 10:00:00+00""#,
            ),
            (
                1184,
                "0044-03-15 10:00:00+00 BC",
                r#""0044-03-15 10:00:00+00 BC""#,
            ),
            (1114, "2026-11-20 10:00:00", r#""2026-11-20T10:00:00""#),
            (1082, "2026-11-20", r#""2026-11-20""#),
            (2950, "a-b", r#""a-b""#),
            (3802, r#"{"a": [1, "x \" y"]}"#, r#"{"a":[1,"x \" y"]}"#),
            (114, "{\n\t\"a\" : 1 }", r#"{"a":1}"#),
            (114, "{", r#""{""#),
            (17, "\\x00ff10", r#""AP8Q""#),
            (17, "\\x0", r#""\\x0""#),
            (25, "a\"b\\\n\u{1}ü", "\"a\\\"b\\\\\\n\\u0001ü\""),
            (99_999, "happy", r#""happy""#),
        ];
        for (oid, text, expected) in rows {
            assert_eq!(written(&built_in(oid), text), expected, "type {oid}");
        }
    }

    #[test]
    fn numbers_are_those_of_json() {
        for bad in [
            "", "-", "01", "1.", ".5", "1e", "+1", "1 ", "0x1", "--1", "1e+",
        ] {
            assert!(!is_number(bad), "{bad}");
        }
        for good in ["0", "-0", "0.50", "1e5", "1.5e-7", "18446744073709551615"] {
            assert!(is_number(good), "{good}");
        }
    }

    fn any_kind() -> impl Strategy<Value = Kind> {
        let plain = prop::sample::select(vec![
            Kind::Boolean,
            Kind::Integer,
            Kind::Decimal,
            Kind::Float,
            Kind::Instant,
            Kind::LocalTime,
            Kind::Json,
            Kind::Bytes,
            Kind::Text,
        ]);
        prop_oneof![
            plain.clone(),
            plain.prop_map(|kind| Kind::Array(Box::new(kind)))
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn whatever_the_text_what_comes_out_is_json(
            kind in any_kind(),
            text in "(\\PC|[\\x00-\\x1f{}\",\\\\:0-9 .+eT-]){0,24}",
        ) {
            let out = written(&kind, &text);
            prop_assert!(serde_json::from_str::<IgnoredAny>(&out).is_ok(), "{:?}", out);
            prop_assert!(!out.contains('\n'));
        }

        #[test]
        fn text_comes_back_as_it_was(text in "\\PC{0,24}|[\\x00-\\x7f]{0,24}") {
            let out = written(&Kind::Text, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
