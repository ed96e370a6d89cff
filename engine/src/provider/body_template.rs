//! `{"external_id": "{record_id}", "$fields": true}`: the JSON body of a request, compiled once.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::path_template::Placeholder;
use super::{RenderError, Subject, TemplateError};

/// One field of a record, by its remote name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// Name, not escaped.
    pub name: &'a str,
    /// Value as JSON text, valid; written into the body as it is.
    pub value: &'a str,
}

/// A JSON object with placeholders.
///
/// A string member may hold placeholders (`"{record_id}"`, `"crm-{record_id}"`); `"$fields": true`
/// stands for the record's fields at its place. A member that the template names itself wins over
/// a field of that name, so that no name comes twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyTemplate {
    pieces: Vec<Piece>,
    literal_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// JSON text, written as it is.
    Literal(String),
    /// Inside a string literal: escaped, without quotes.
    Value(Placeholder),
    /// The record's fields, with the comma that parts them from the member before or after.
    Fields {
        comma_before: bool,
        comma_after: bool,
        named_by_template: Vec<String>,
    },
}

impl BodyTemplate {
    pub(crate) fn compile(template: &Value) -> Result<BodyTemplate, TemplateError> {
        let Value::Object(members) = template else {
            return Err(TemplateError::BodyNotAnObject);
        };
        let mut compiler = Compiler::default();
        compiler.object(members, 1)?;
        compiler.end_literal();
        let literal_bytes = compiler
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text.len(),
                Piece::Value(_) | Piece::Fields { .. } => 0,
            })
            .sum();
        Ok(BodyTemplate {
            pieces: compiler.pieces,
            literal_bytes,
        })
    }

    pub(crate) fn uses(&self, wanted: Placeholder) -> bool {
        self.pieces
            .iter()
            .any(|piece| matches!(piece, Piece::Value(placeholder) if *placeholder == wanted))
    }

    pub(crate) fn render(&self, subject: &Subject<'_>) -> Result<Vec<u8>, RenderError> {
        // Each field takes its name, its value, two quotes, a colon and a comma; escapes are rare.
        let fields: usize = subject
            .fields
            .iter()
            .map(|field| field.name.len() + field.value.len() + 4)
            .sum();
        let ids =
            subject.object.len() + subject.record_id.len() + subject.remote_id.map_or(0, str::len);
        let mut body = Vec::with_capacity(self.literal_bytes + ids + fields);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => body.extend_from_slice(text.as_bytes()),
                Piece::Value(placeholder) => {
                    let value = placeholder.value(subject).ok_or(RenderError::NoRemoteId)?;
                    push_escaped(&mut body, value);
                }
                Piece::Fields {
                    comma_before,
                    comma_after,
                    named_by_template,
                } => {
                    let mut comma = *comma_before;
                    let mut any = false;
                    for field in subject.fields {
                        if named_by_template.iter().any(|name| name == field.name)
                            || repeats_record_id(field, subject.record_id)
                        {
                            continue;
                        }
                        if comma {
                            body.push(b',');
                        }
                        body.push(b'"');
                        push_escaped(&mut body, field.name);
                        body.extend_from_slice(b"\":");
                        body.extend_from_slice(field.value.as_bytes());
                        comma = true;
                        any = true;
                    }
                    if any && *comma_after {
                        body.push(b',');
                    }
                }
            }
        }
        Ok(body)
    }
}

/// `data.id` that only says again which record this is; a provider has an `id` of its own.
fn repeats_record_id(field: &Field<'_>, record_id: &str) -> bool {
    if field.name != "id" {
        return false;
    }
    if !field.value.starts_with('"') {
        return field.value == record_id;
    }
    serde_json::from_str::<Cow<'_, str>>(field.value).is_ok_and(|text| text == record_id)
}

/// Writes `text` as the inside of a JSON string.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
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

#[derive(Default)]
struct Compiler {
    pieces: Vec<Piece>,
    literal: String,
}

impl Compiler {
    fn object(&mut self, members: &Map<String, Value>, depth: usize) -> Result<(), TemplateError> {
        if depth > DEPTH_MAX {
            return Err(TemplateError::TooDeep(DEPTH_MAX));
        }
        let named = || {
            members
                .keys()
                .filter(|name| !name.starts_with('$'))
                .cloned()
        };
        self.literal.push('{');
        let mut after_named = false;
        for (name, value) in members {
            if name == FIELDS {
                if *value != Value::Bool(true) {
                    return Err(TemplateError::FieldsNotTrue);
                }
                self.end_literal();
                self.pieces.push(Piece::Fields {
                    comma_before: after_named,
                    comma_after: !after_named && named().next().is_some(),
                    named_by_template: named().collect(),
                });
                continue;
            }
            if name.starts_with('$') {
                return Err(TemplateError::UnknownMarker(name.clone()));
            }
            // Fields that came first have written the comma themselves, if there were any.
            if after_named {
                self.literal.push(',');
            }
            self.string_literal(name);
            self.literal.push(':');
            self.value(value, depth)?;
            after_named = true;
        }
        self.literal.push('}');
        Ok(())
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), TemplateError> {
        match value {
            Value::Object(members) => self.object(members, depth + 1)?,
            Value::Array(items) => {
                if depth >= DEPTH_MAX {
                    return Err(TemplateError::TooDeep(DEPTH_MAX));
                }
                self.literal.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.literal.push(',');
                    }
                    self.value(item, depth + 1)?;
                }
                self.literal.push(']');
            }
            Value::String(text) => self.template_string(text)?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.literal.push_str(&value.to_string())
            }
        }
        Ok(())
    }

    fn template_string(&mut self, text: &str) -> Result<(), TemplateError> {
        self.literal.push('"');
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            self.escaped(before);
            let (name, after) = brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or(TemplateError::UnbalancedBrace)?;
            let placeholder = Placeholder::parse(name)?;
            self.end_literal();
            self.pieces.push(Piece::Value(placeholder));
            rest = after;
        }
        self.escaped(rest);
        self.literal.push('"');
        Ok(())
    }

    fn string_literal(&mut self, text: &str) {
        self.literal.push('"');
        self.escaped(text);
        self.literal.push('"');
    }

    fn escaped(&mut self, text: &str) {
        let mut bytes = Vec::with_capacity(text.len());
        push_escaped(&mut bytes, text);
        self.literal
            .push_str(&String::from_utf8(bytes).expect("escaping keeps text valid"));
    }

    fn end_literal(&mut self) {
        if !self.literal.is_empty() {
            self.pieces
                .push(Piece::Literal(std::mem::take(&mut self.literal)));
        }
    }
}

/// The member that stands for the record's fields.
const FIELDS: &str = "$fields";

/// As deep as events may be (PRODUCT: `too_deep`).
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn render(template: &Value, record_id: &str, fields: &[(&str, &str)]) -> String {
        let fields: Vec<_> = fields
            .iter()
            .map(|&(name, value)| Field { name, value })
            .collect();
        let subject = Subject {
            object: "contact",
            record_id,
            remote_id: Some("7"),
            fields: &fields,
        };
        String::from_utf8(
            BodyTemplate::compile(template)
                .unwrap()
                .render(&subject)
                .unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn fields_are_spliced_wherever_the_marker_stands() {
        let fields: &[(&str, &str)] = &[("a", "1"), ("b", r#"{"c":[1.50]}"#)];
        let rows = [
            (
                json!({"$fields": true}),
                r#"{"a":1,"b":{"c":[1.50]}}"#,
                "{}",
            ),
            (
                json!({"x": 1, "$fields": true}),
                r#"{"x":1,"a":1,"b":{"c":[1.50]}}"#,
                r#"{"x":1}"#,
            ),
            (
                json!({"$fields": true, "x": 1}),
                r#"{"a":1,"b":{"c":[1.50]},"x":1}"#,
                r#"{"x":1}"#,
            ),
            (
                json!({"x": 1, "$fields": true, "y": 2}),
                r#"{"x":1,"a":1,"b":{"c":[1.50]},"y":2}"#,
                r#"{"x":1,"y":2}"#,
            ),
            (
                json!({"x": {"$fields": true}, "y": [null]}),
                r#"{"x":{"a":1,"b":{"c":[1.50]}},"y":[null]}"#,
                r#"{"x":{},"y":[null]}"#,
            ),
        ];
        for (template, with_fields, without) in rows {
            assert_eq!(render(&template, "c-1", fields), with_fields, "{template}");
            assert_eq!(render(&template, "c-1", &[]), without, "{template}");
        }
    }

    #[test]
    fn placeholders_are_json_text() {
        let template = json!({"external_id": "{record_id}", "path": "{object}/{remote_id}!"});
        assert_eq!(
            render(&template, r#"a"b\c"#, &[]),
            r#"{"external_id":"a\"b\\c","path":"contact/7!"}"#
        );
    }

    #[test]
    fn an_id_that_repeats_the_record_id_is_left_out() {
        let template = json!({"$fields": true});
        let rows = [
            ("10", "10", "{}"),
            ("10", r#""10""#, "{}"),
            ("10", r#""\u0031\u0030""#, "{}"),
            ("10", "11", r#"{"id":11}"#),
            ("10", "10.0", r#"{"id":10.0}"#),
            ("null", "null", "{}"),
        ];
        for (record_id, value, body) in rows {
            assert_eq!(
                render(&template, record_id, &[("id", value)]),
                body,
                "{value}"
            );
        }
        assert_eq!(render(&template, "10", &[("ids", "10")]), r#"{"ids":10}"#);
    }

    #[test]
    fn a_member_of_the_template_wins_over_a_field_of_its_name() {
        let template = json!({"external_id": "{record_id}", "$fields": true});
        assert_eq!(
            render(
                &template,
                "c-1",
                &[("external_id", "\"other\""), ("a", "1")]
            ),
            r#"{"external_id":"c-1","a":1}"#
        );
    }

    #[test]
    fn a_template_that_makes_no_body_is_refused() {
        let rows = [
            (json!([]), TemplateError::BodyNotAnObject),
            (json!({"$fields": 1}), TemplateError::FieldsNotTrue),
            (
                json!({"$each": {}}),
                TemplateError::UnknownMarker("$each".to_owned()),
            ),
            (
                json!({"a": "{b}"}),
                TemplateError::UnknownPlaceholder("b".to_owned()),
            ),
            (json!({"a": "{object"}), TemplateError::UnbalancedBrace),
            (json!({"a": "object}"}), TemplateError::UnbalancedBrace),
        ];
        for (template, error) in rows {
            assert_eq!(BodyTemplate::compile(&template), Err(error), "{template}");
        }
        let deep = (0..DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(
            BodyTemplate::compile(&json!({ "a": deep })),
            Err(TemplateError::TooDeep(DEPTH_MAX))
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn a_rendered_body_is_json_that_holds_every_field(
            record_id in "\\PC{1,12}",
            names in proptest::collection::hash_set("\\PC{0,8}", 0..6),
            value in any::<f64>().prop_filter("finite", |number| number.is_finite()),
            first in any::<bool>(),
        ) {
            let value = serde_json::to_string(&value).unwrap();
            let fields: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
            let template = if first {
                json!({"$fields": true, "#key": "{record_id}"})
            } else {
                json!({"#key": "{record_id}", "$fields": true})
            };
            let body: Value = serde_json::from_str(&render(&template, &record_id, &fields)).unwrap();
            prop_assert_eq!(&body["#key"], &json!(record_id));
            for name in names.iter().filter(|name| *name != "id" && *name != "#key") {
                prop_assert_eq!(&body[name].to_string(), &serde_json::from_str::<Value>(&value).unwrap().to_string());
            }
        }
    }
}
