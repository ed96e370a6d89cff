//! How a provider wants a field's value written.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// One field of a record, by its remote name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Name, not escaped.
    pub name: &'a str,
    /// Value as JSON text, valid; what becomes of it in the body is the definition's choice.
    pub value: &'a str,
}

/// `[fields]` of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct FieldStyle {
    /// A cleared field is `""` instead of `null`.
    pub(crate) null_is_empty_text: bool,
    /// Every value is text: `1.50` is `"1.50"`, and lists are joined by `;`.
    pub(crate) values_are_text: bool,
}

/// Writes a field's value, which is valid JSON.
pub(crate) fn push_field_value(out: &mut Vec<u8>, json: &str, style: &FieldStyle) {
    match json.as_bytes().first() {
        Some(b'n') if style.null_is_empty_text => out.extend_from_slice(b"\"\""),
        Some(b'n' | b'"' | b'{') | None => out.extend_from_slice(json.as_bytes()),
        Some(_) if !style.values_are_text => out.extend_from_slice(json.as_bytes()),
        Some(b'[') => match joined(json) {
            Some(text) => {
                out.push(b'"');
                push_escaped(out, &text);
                out.push(b'"');
            }
            // A list of more than plain values: for the provider to refuse.
            None => out.extend_from_slice(json.as_bytes()),
        },
        Some(_) => {
            out.push(b'"');
            out.extend_from_slice(json.as_bytes());
            out.push(b'"');
        }
    }
}

/// `["a",1]` as `a;1`.
fn joined(json: &str) -> Option<String> {
    let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    let mut text = String::with_capacity(json.len());
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            text.push(';');
        }
        let item = item.get();
        match item.as_bytes().first()? {
            b'"' => text.push_str(&serde_json::from_str::<Cow<'_, str>>(item).ok()?),
            b'[' | b'{' | b'n' => return None,
            _ => text.push_str(item),
        }
    }
    Some(text)
}

/// Writes `text` as the inside of a JSON string.
pub(crate) fn push_escaped(out: &mut Vec<u8>, text: &str) {
    if !text
        .bytes()
        .any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\')
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let quoted = serde_json::to_string(text).expect("a str is always valid JSON text");
    out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str, style: FieldStyle) -> String {
        let mut out = Vec::new();
        push_field_value(&mut out, json, &style);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_go_as_they_are_unless_the_provider_wants_text() {
        let text = FieldStyle {
            null_is_empty_text: true,
            values_are_text: true,
        };
        let rows = [
            ("null", "\"\""),
            ("1.50", "\"1.50\""),
            ("true", "\"true\""),
            (r#""a\"b""#, r#""a\"b""#),
            (r#"["a","b\"c",3]"#, r#""a;b\"c;3""#),
            ("[]", "\"\""),
            (r#"[{"a":1}]"#, r#"[{"a":1}]"#),
            (r#"{"a":1}"#, r#"{"a":1}"#),
        ];
        for (json, as_text) in rows {
            assert_eq!(written(json, FieldStyle::default()), json);
            assert_eq!(written(json, text), as_text);
        }
    }
}
