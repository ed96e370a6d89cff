//! `{"external_id": "{record_id}", "$fields": true}`: the JSON body of a request, compiled once.

mod compile;

use std::borrow::Cow;

use serde_json::Value;

use super::field_style::{Field, FieldStyle, push_escaped, push_field_value};
use super::placeholder::{Place, Placeholder, Values};
use super::{RenderError, Subject, TemplateError};
use crate::json::{Member as RawMember, RawObject};

/// A JSON object with placeholders.
///
/// - A string member may hold placeholders (`"{record_id}"`, `"crm-{record_id}"`).
/// - `"{remote_id|int}"` is written as a number, `"{remote_id?}"` left out while it is unknown.
/// - `"$fields": true` stands for the record's fields at its place. A member that the template
///   names itself wins over a field of that name, so that no name comes twice; `"$omit"` lists
///   more names to leave out.
/// - `"$members": "custom"` stands for the members of the field `custom`, an object: so that the
///   template can add to it.
/// - `{"$each": {...}}` is an array with one such item per record of a batch.
/// - `{"$match": {...}}` is one with an item per field of a match key, by `{field}` and `{value}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BodyTemplate {
    root: Node,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    /// JSON text without placeholders, written as it is.
    Literal(String),
    /// A string.
    Text(Text),
    /// A string of digits, written as a number.
    Integer(Placeholder),
    /// A field's value, inside a wrap.
    FieldValue,
    /// The names of the fields that are asked for, a list.
    FieldNames,
    Object(Vec<Member>),
    Array(Vec<Node>),
    Each(Box<Node>),
    /// An array of a match key's fields.
    Matching(Box<Node>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    Named {
        name: Text,
        value: Node,
        /// Left out while the record has no remote id.
        if_linked: bool,
    },
    /// The record's fields.
    Fields {
        /// Names that the template writes itself or leaves out.
        except: Vec<Text>,
    },
    /// What is in a field that is an object.
    Members {
        /// The field's remote name.
        of: String,
        /// As for fields.
        except: Vec<Text>,
    },
}

/// A string with placeholders; literal parts are escaped already.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Text {
    parts: Vec<TextPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TextPart {
    Literal(String),
    Value(Placeholder),
}

impl BodyTemplate {
    pub(crate) fn compile(template: &Value, place: Place) -> Result<BodyTemplate, TemplateError> {
        let Value::Object(members) = template else {
            return Err(TemplateError::BodyNotAnObject);
        };
        let root = compile::object(members, place, 1)?;
        Ok(BodyTemplate { root })
    }

    /// The shape around one field's value: any JSON with `"{value}"` in it.
    pub(crate) fn compile_wrap(template: &Value) -> Result<BodyTemplate, TemplateError> {
        let root = compile::node(template, Place::Wrap, 1)?;
        Ok(BodyTemplate { root })
    }

    /// Whether the body cannot be written without this value.
    pub(crate) fn needs(&self, wanted: Placeholder) -> bool {
        self.root.needs(wanted)
    }

    /// Whether the record's fields stand in it.
    pub(crate) fn has_fields(&self) -> bool {
        self.root.has(&|node| match node {
            Node::Object(members) => {
                let mut members = members.iter();
                members.any(|member| matches!(member, Member::Fields { .. }))
            }
            _ => false,
        })
    }

    /// Whether the fields of a match key stand in it.
    pub(crate) fn has_match(&self) -> bool {
        self.root.has(&|node| matches!(node, Node::Matching(_)))
    }

    /// Whether the body has one item per record.
    pub(crate) fn has_each(&self) -> bool {
        self.root.has(&|node| matches!(node, Node::Each(_)))
    }

    pub(crate) fn render(
        &self,
        values: &Values<'_>,
        style: &FieldStyle,
    ) -> Result<Vec<u8>, RenderError> {
        let subject = &values.subject;
        // Each field takes its name, its value, two quotes, a colon and a comma; escapes are rare.
        let one = |fields: &[Field<'_>]| -> usize {
            let lengths = fields.iter();
            lengths
                .map(|field| field.name.len() + field.value.len() + 4)
                .sum()
        };
        let fields: usize = match values.items {
            [] => one(subject.fields),
            items => items
                .iter()
                .map(|item| one(item.subject.fields) + 128)
                .sum(),
        };
        let mut body = Vec::with_capacity(fields + subject.record_id.len() + 64);
        let writer = Writer { values, style };
        writer.node(&self.root, &mut body)?;
        Ok(body)
    }

    /// Writes the wrapped `value`; a field that is cleared is an empty list, or null.
    pub(crate) fn wrap(&self, value: &str, style: &FieldStyle, out: &mut Vec<u8>) {
        if value == "null" {
            let empty = if matches!(self.root, Node::Array(_)) {
                "[]"
            } else {
                "null"
            };
            return out.extend_from_slice(empty.as_bytes());
        }
        write_wrapped(&self.root, value, style, out);
    }
}

impl Node {
    fn needs(&self, wanted: Placeholder) -> bool {
        match self {
            Node::Literal(_) | Node::FieldValue => false,
            Node::FieldNames => wanted == Placeholder::FieldNames,
            Node::Text(text) => text.uses(wanted),
            Node::Integer(placeholder) => *placeholder == wanted,
            Node::Object(members) => members.iter().any(|member| match member {
                Member::Named {
                    if_linked: true, ..
                } => false,
                Member::Named { name, value, .. } => name.uses(wanted) || value.needs(wanted),
                Member::Fields { except } | Member::Members { except, .. } => {
                    except.iter().any(|name| name.uses(wanted))
                }
            }),
            Node::Array(nodes) => nodes.iter().any(|node| node.needs(wanted)),
            Node::Each(node) | Node::Matching(node) => node.needs(wanted),
        }
    }

    /// Whether it, or a node in it, is what is wanted.
    fn has(&self, wanted: &impl Fn(&Node) -> bool) -> bool {
        wanted(self)
            || match self {
                Node::Object(members) => members.iter().any(
                    |member| matches!(member, Member::Named { value, .. } if value.has(wanted)),
                ),
                Node::Array(nodes) => nodes.iter().any(|node| node.has(wanted)),
                Node::Each(node) | Node::Matching(node) => node.has(wanted),
                Node::Literal(_)
                | Node::Text(_)
                | Node::Integer(_)
                | Node::FieldValue
                | Node::FieldNames => false,
            }
    }
}

impl Text {
    /// The text itself, when there is no placeholder in it.
    fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [TextPart::Literal(text)] => Some(text),
            _ => None,
        }
    }

    fn uses(&self, wanted: Placeholder) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| matches!(part, TextPart::Value(placeholder) if *placeholder == wanted))
    }

    fn write(&self, values: &Values<'_>, out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.push(b'"');
        for part in &self.parts {
            match part {
                TextPart::Literal(text) => out.extend_from_slice(text.as_bytes()),
                TextPart::Value(placeholder) => push_escaped(out, &placeholder.value(values)?),
            }
        }
        out.push(b'"');
        Ok(())
    }

    /// Whether the text, escaped as it was compiled, is this name.
    fn is(&self, name: &str, values: &Values<'_>) -> Result<bool, RenderError> {
        match self.parts.as_slice() {
            [TextPart::Value(placeholder)] => return Ok(placeholder.value(values)? == name),
            [TextPart::Literal(text)] if !text.contains('\\') => return Ok(text == name),
            _ => {}
        }
        let mut text = Vec::with_capacity(name.len() + 2);
        self.write(values, &mut text)?;
        let mut quoted = Vec::with_capacity(name.len() + 2);
        quoted.push(b'"');
        push_escaped(&mut quoted, name);
        quoted.push(b'"');
        Ok(text == quoted)
    }
}

/// Writes a body for one call.
struct Writer<'v> {
    values: &'v Values<'v>,
    style: &'v FieldStyle,
}

impl Writer<'_> {
    fn node(&self, node: &Node, out: &mut Vec<u8>) -> Result<(), RenderError> {
        match node {
            Node::Literal(text) => out.extend_from_slice(text.as_bytes()),
            Node::Text(text) => text.write(self.values, out)?,
            Node::Integer(placeholder) => {
                let value = placeholder.value(self.values)?;
                if !is_integer(&value) {
                    let placeholder = placeholder.as_str();
                    return Err(RenderError::NotAnInteger { placeholder });
                }
                out.extend_from_slice(value.as_bytes());
            }
            // Wraps are written by `wrap`; this is of the one field of a match key.
            Node::FieldValue => {
                let value = self.values.subject.fields.first().map(|field| field.value);
                push_field_value(out, value.unwrap_or("null"), self.style);
            }
            Node::FieldNames => {
                out.push(b'[');
                for (at, field) in self.values.subject.fields.iter().enumerate() {
                    out.extend_from_slice(if at > 0 { b",\"" } else { b"\"" });
                    push_escaped(out, field.name);
                    out.push(b'"');
                }
                out.push(b']');
            }
            Node::Object(members) => self.object(members, out)?,
            Node::Array(nodes) => {
                out.push(b'[');
                for (at, node) in nodes.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.node(node, out)?;
                }
                out.push(b']');
            }
            Node::Each(node) => self.each(node, out)?,
            Node::Matching(node) => self.matching(node, out)?,
        }
        Ok(())
    }

    fn each(&self, node: &Node, out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.push(b'[');
        for (at, item) in self.values.items.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let subject = Subject {
                object: self.values.subject.object,
                ..item.subject
            };
            let values = Values {
                kind: item.kind,
                subject,
                names: self.values.names,
                item: at,
                items: &[],
            };
            let writer = Writer {
                values: &values,
                style: self.style,
            };
            writer.node(node, out).map_err(|source| RenderError::Item {
                index: at,
                source: Box::new(source),
            })?;
        }
        out.push(b']');
        Ok(())
    }

    fn matching(&self, node: &Node, out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.push(b'[');
        for (at, field) in self.values.subject.fields.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let subject = Subject {
                fields: std::slice::from_ref(field),
                ..self.values.subject
            };
            let values = Values {
                subject,
                ..*self.values
            };
            let writer = Writer {
                values: &values,
                style: self.style,
            };
            writer.node(node, out)?;
        }
        out.push(b']');
        Ok(())
    }

    fn object(&self, members: &[Member], out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.push(b'{');
        let mut any = false;
        let mut comma = |out: &mut Vec<u8>| {
            if any {
                out.push(b',');
            }
            any = true;
        };
        for member in members {
            match member {
                Member::Named {
                    if_linked: true, ..
                } if self.values.subject.remote_id.is_none() => {}
                Member::Named { name, value, .. } => {
                    comma(out);
                    name.write(self.values, out)?;
                    out.push(b':');
                    self.node(value, out)?;
                }
                Member::Fields { except } => {
                    for field in self.values.subject.fields {
                        if self.leaves_out(field, except)? {
                            continue;
                        }
                        comma(out);
                        self.field(field, out);
                    }
                }
                Member::Members { of, except } => {
                    for member in self.members_of(of) {
                        let name = member.key.name();
                        let field = Field {
                            name: &name,
                            value: member.value.text(),
                        };
                        if !self.leaves_out(&field, except)? {
                            comma(out);
                            push_name(out, field.name);
                            push_field_value(out, field.value, self.style);
                        }
                    }
                }
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn members_of(&self, of: &str) -> impl Iterator<Item = RawMember<'_>> {
        let mut fields = self.values.subject.fields.iter();
        let field = fields.find(|field| field.name == of);
        let object = field.and_then(|field| RawObject::new(field.value));
        object.into_iter().flat_map(|object| object.members())
    }

    fn leaves_out(&self, field: &Field<'_>, except: &[Text]) -> Result<bool, RenderError> {
        for name in except {
            if name.is(field.name, self.values)? {
                return Ok(true);
            }
        }
        Ok(repeats_record_id(field, self.values.subject.record_id))
    }

    fn field(&self, field: &Field<'_>, out: &mut Vec<u8>) {
        push_name(out, field.name);
        let mut wraps = self.values.names.wraps.iter();
        match wraps.find(|(name, _)| name == field.name) {
            Some((_, wrap)) => wrap.wrap(field.value, self.style, out),
            None => push_field_value(out, field.value, self.style),
        }
    }
}

/// Writes `"name":`.
fn push_name(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    push_escaped(out, name);
    out.extend_from_slice(b"\":");
}

/// Wraps hold no placeholder but the value, so that writing one cannot fail.
fn write_wrapped(node: &Node, value: &str, style: &FieldStyle, out: &mut Vec<u8>) {
    match node {
        Node::Literal(text) => out.extend_from_slice(text.as_bytes()),
        Node::FieldValue => push_field_value(out, value, style),
        Node::Array(nodes) => {
            out.push(b'[');
            for (at, node) in nodes.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_wrapped(node, value, style, out);
            }
            out.push(b']');
        }
        Node::Object(members) => {
            out.push(b'{');
            for (at, member) in members.iter().enumerate() {
                let Member::Named {
                    name, value: node, ..
                } = member
                else {
                    continue;
                };
                if at > 0 {
                    out.push(b',');
                }
                out.push(b'"');
                out.extend_from_slice(name.literal().unwrap_or_default().as_bytes());
                out.extend_from_slice(b"\":");
                write_wrapped(node, value, style, out);
            }
            out.push(b'}');
        }
        Node::Text(_) | Node::Integer(_) | Node::FieldNames | Node::Each(_) | Node::Matching(_) => {
        }
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

/// What JSON calls an integer, of at most 19 digits, so that no reader takes it for a float.
fn is_integer(text: &str) -> bool {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && (1..=19).contains(&text.len()) && (text == "0" || !text.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::CallKind;
    use super::super::object::ObjectNames;
    use super::*;

    fn render(template: &Value, record_id: &str, fields: &[(&str, &str)]) -> String {
        try_render(template, record_id, Some("7"), fields).unwrap()
    }

    fn try_render(
        template: &Value,
        record_id: &str,
        remote_id: Option<&str>,
        fields: &[(&str, &str)],
    ) -> Result<String, RenderError> {
        let fields: Vec<_> = fields
            .iter()
            .map(|&(name, value)| Field { name, value })
            .collect();
        let subject = Subject {
            object: "contact",
            record_id,
            remote_id,
            fields: &fields,
        };
        let wraps = [(
            "emails".to_owned(),
            BodyTemplate::compile_wrap(&json!([{"value": "{value}", "primary": true}])).unwrap(),
        )];
        let values = Values {
            kind: CallKind::Update,
            subject,
            names: ObjectNames {
                object_type: None,
                external_id: Some("Key__c"),
                no_lookup: false,
                wraps: &wraps,
            },
            item: 0,
            items: &[],
        };
        BodyTemplate::compile(template, Place::Call)
            .unwrap()
            .render(&values, &FieldStyle::default())
            .map(|body| String::from_utf8(body).unwrap())
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
        let escaped = json!({"a\"b": 1, "c-{record_id}": 2, "$fields": true});
        assert_eq!(
            render(&escaped, "1", &[("a\"b", "3"), ("c-1", "4"), ("a", "5")]),
            r#"{"a\"b":1,"c-1":2,"a":5}"#
        );
    }

    #[test]
    fn an_id_can_be_a_number_or_left_out_while_unknown() {
        let number = json!({"id": "{remote_id|int}", "a": 1});
        assert_eq!(render(&number, "c-1", &[]), r#"{"id":7,"a":1}"#);
        for no_integer in ["x", "", "07", "-1", "1e3", "99999999999999999999"] {
            assert_eq!(
                try_render(&number, "c-1", Some(no_integer), &[]),
                Err(RenderError::NotAnInteger {
                    placeholder: "remote_id"
                })
            );
        }
        assert_eq!(
            try_render(&number, "c-1", None, &[]),
            Err(RenderError::NoRemoteId)
        );
        let optional = json!({"id": "{remote_id?}", "n": "{remote_id|int?}", "a": 1});
        assert_eq!(render(&optional, "c-1", &[]), r#"{"id":"7","n":7,"a":1}"#);
        assert_eq!(
            try_render(&optional, "c-1", None, &[]).unwrap(),
            r#"{"a":1}"#
        );
    }

    #[test]
    fn the_key_field_can_be_a_member_or_left_out() {
        let fields: &[(&str, &str)] = &[("a", "1"), ("Key__c", "\"other\"")];
        assert_eq!(
            render(
                &json!({"{external_id_field}": "{record_id}", "$fields": true}),
                "c-1",
                fields
            ),
            r#"{"Key__c":"c-1","a":1}"#
        );
        assert_eq!(
            render(
                &json!({"$fields": true, "$omit": ["{external_id_field}"]}),
                "c-1",
                fields
            ),
            r#"{"a":1}"#
        );
    }

    #[test]
    fn a_field_is_wrapped_as_its_object_says() {
        let template = json!({"$fields": true});
        assert_eq!(
            render(&template, "c", &[("emails", "\"a@b\""), ("name", "1")]),
            r#"{"emails":[{"value":"a@b","primary":true}],"name":1}"#
        );
        assert_eq!(
            render(&template, "c", &[("emails", "null")]),
            r#"{"emails":[]}"#
        );
        for (wrap, error) in [
            (json!("a {value}"), TemplateError::ValueInText),
            (
                json!(["{record_id}"]),
                TemplateError::PlaceholderElsewhere("record_id"),
            ),
            (json!({"{value}": 1}), TemplateError::ValueInText),
        ] {
            assert_eq!(BodyTemplate::compile_wrap(&wrap), Err(error), "{wrap}");
        }
    }

    #[test]
    fn a_template_that_makes_no_body_is_refused() {
        let rows = [
            (json!([]), TemplateError::BodyNotAnObject),
            (json!({"$fields": 1}), TemplateError::FieldsNotTrue),
            (
                json!({"$all": {}}),
                TemplateError::UnknownMarker("$all".to_owned()),
            ),
            (json!({"a": {"$each": {}}}), TemplateError::EachElsewhere),
            (
                json!({"a": "{item}"}),
                TemplateError::PlaceholderElsewhere("item"),
            ),
            (
                json!({"a": "{record_id|up}"}),
                TemplateError::UnknownFilter("up".to_owned()),
            ),
            (
                json!({"a": "{record_id?}"}),
                TemplateError::NeverUnknown("record_id".to_owned()),
            ),
            (json!({"$omit": ["a"]}), TemplateError::OmitWithoutFields),
            (
                json!({"$fields": true, "$omit": "a"}),
                TemplateError::OmitNotAList,
            ),
            (
                json!({"a": "{b}"}),
                TemplateError::UnknownPlaceholder("b".to_owned()),
            ),
            (json!({"a": "{object"}), TemplateError::UnbalancedBrace),
            (json!({"a": "object}"}), TemplateError::UnbalancedBrace),
        ];
        for (template, error) in rows {
            assert_eq!(
                BodyTemplate::compile(&template, Place::Call),
                Err(error),
                "{template}"
            );
        }
        let deep = (0..compile::DEPTH_MAX).fold(json!(1), |inner, _| json!([inner]));
        assert_eq!(
            BodyTemplate::compile(&json!({ "a": deep }), Place::Call),
            Err(TemplateError::TooDeep(compile::DEPTH_MAX))
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
