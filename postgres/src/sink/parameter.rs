//! From a JSON value to the text that a column's type reads.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use crate::json::Kind;

/// The value was to be bytes and is not base 64.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotBase64;

/// The text for a column of this kind, `None` for null. Numbers keep their digits. What does
/// not fit the type is left for the server to refuse.
pub(super) fn parameter(kind: &Kind, value: &RawValue) -> Result<Option<String>, NotBase64> {
    let json = value.get().trim();
    Ok(match (json.as_bytes().first(), kind) {
        (Some(b'n'), _) => None,
        (_, Kind::Json) => Some(json.to_owned()),
        (Some(b'['), Kind::Array(element)) => {
            let mut text = String::new();
            write_array(element, value, &mut text)?;
            Some(text)
        }
        (Some(b'"'), kind) => Some(plain_text(kind, json)?),
        _ => Some(json.to_owned()),
    })
}

/// What a JSON string says, in the form of the column's kind.
fn plain_text(kind: &Kind, json: &str) -> Result<String, NotBase64> {
    let text: String = match serde_json::from_str(json) {
        Ok(text) => text,
        // Half of a surrogate pair: no text, and the server will say so.
        Err(_) => return Ok(json.to_owned()),
    };
    if *kind != Kind::Bytes {
        return Ok(text);
    }
    let bytes = BASE64.decode(text).map_err(|_| NotBase64)?;
    let mut hex = String::with_capacity(2 + 2 * bytes.len());
    hex.push_str("\\x");
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            hex.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
        }
    }
    Ok(hex)
}

/// Appends `{1,"a \"b\"",NULL}`.
fn write_array(kind: &Kind, value: &RawValue, out: &mut String) -> Result<(), NotBase64> {
    let elements: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
    out.push('{');
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        // Arrays in arrays are dimensions, except where an element is JSON itself.
        if element.get().starts_with('[') && *kind != Kind::Json {
            write_array(kind, element, out)?;
            continue;
        }
        match parameter(kind, element)? {
            None => out.push_str("NULL"),
            Some(text) => {
                out.push('"');
                for c in text.chars() {
                    if c == '"' || c == '\\' {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, json: &str, expected: Option<&str>) {
        let value: &RawValue = serde_json::from_str(json).unwrap();
        let text = parameter(&kind, value).unwrap();
        assert_eq!(text.as_deref(), expected, "{json}");
    }

    fn array(kind: Kind) -> Kind {
        Kind::Array(Box::new(kind))
    }

    #[test]
    fn each_kind_gets_the_text_it_reads() {
        check(Kind::Text, "null", None);
        check(Kind::Text, r#""a\nb""#, Some("a\nb"));
        check(Kind::Text, r#"{"a":1}"#, Some(r#"{"a":1}"#));
        check(Kind::Boolean, "true", Some("true"));
        check(
            Kind::Decimal,
            "12345678901234567890.10",
            Some("12345678901234567890.10"),
        );
        check(Kind::Json, r#""text""#, Some(r#""text""#));
        check(Kind::Json, "[1, 2]", Some("[1, 2]"));
        check(Kind::Bytes, r#""AP8Q""#, Some("\\x00ff10"));
        check(
            array(Kind::Integer),
            "[1,null,[2]]",
            Some(r#"{"1",NULL,{"2"}}"#),
        );
        check(
            array(Kind::Text),
            r#"["a\"b\\", ""]"#,
            Some(r#"{"a\"b\\",""}"#),
        );
        check(
            array(Kind::Json),
            r#"[[1],{"a":2}]"#,
            Some(r#"{"[1]","{\"a\":2}"}"#),
        );
    }

    #[test]
    fn bytes_have_to_be_base_64() {
        let value: &RawValue = serde_json::from_str(r#""?""#).unwrap();
        assert_eq!(parameter(&Kind::Bytes, value), Err(NotBase64));
    }

    #[test]
    fn arrays_are_read_back_as_they_were_written() {
        let json = r#"["a,b","{}","","NULL","q\"\\",null]"#;
        let value: &RawValue = serde_json::from_str(json).unwrap();
        let kind = array(Kind::Text);
        let text = parameter(&kind, value).unwrap().unwrap();
        let mut back = String::new();
        kind.write(&text, &mut back);
        assert_eq!(back, json);
    }
}
