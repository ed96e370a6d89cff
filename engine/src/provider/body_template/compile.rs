//! From the JSON of a definition to what a body is written from.

use serde_json::{Map, Value};

use super::super::TemplateError;
use super::super::field_style::push_escaped;
use super::super::placeholder::{Place, Placeholder};
use super::{Member, Node, Text, TextPart};

/// An object of the template.
pub(super) fn object(
    members: &Map<String, Value>,
    place: Place,
    depth: usize,
) -> Result<Node, TemplateError> {
    if depth > DEPTH_MAX {
        return Err(TemplateError::TooDeep(DEPTH_MAX));
    }
    if let Some(item) = members.get(EACH) {
        if place != Place::Batch || members.len() != 1 {
            return Err(TemplateError::EachElsewhere);
        }
        return Ok(Node::Each(Box::new(node(item, Place::Item, depth + 1)?)));
    }
    if let Some(item) = members.get(MATCH) {
        if place != Place::Call || members.len() != 1 {
            return Err(TemplateError::MatchElsewhere);
        }
        return Ok(Node::Matching(Box::new(node(item, Place::Key, depth + 1)?)));
    }
    let mut compiled = Vec::with_capacity(members.len());
    let mut except = Vec::new();
    for (name, value) in members {
        match name.as_str() {
            FIELDS => {
                if *value != Value::Bool(true) {
                    return Err(TemplateError::FieldsNotTrue);
                }
                if !matches!(place, Place::Call | Place::Item) {
                    return Err(TemplateError::FieldsElsewhere);
                }
                compiled.push(Member::Fields { except: Vec::new() });
            }
            MEMBERS => {
                let of = value.as_str().ok_or(TemplateError::MembersNotAName)?;
                if !matches!(place, Place::Call | Place::Item) {
                    return Err(TemplateError::FieldsElsewhere);
                }
                compiled.push(Member::Members {
                    of: of.to_owned(),
                    except: Vec::new(),
                });
            }
            OMIT => {
                let names = value.as_array().ok_or(TemplateError::OmitNotAList)?;
                for name in names {
                    let name = name.as_str().ok_or(TemplateError::OmitNotAList)?;
                    except.push(Text::compile(name, place)?);
                }
            }
            _ if name.starts_with('$') => return Err(TemplateError::UnknownMarker(name.clone())),
            _ => {
                let name = Text::compile(name, place)?;
                if name.uses(Placeholder::Value) {
                    return Err(TemplateError::ValueInText);
                }
                except.push(name.clone());
                compiled.push(member(name, value, place, depth)?);
            }
        }
    }
    let mut spliced = false;
    for member in &mut compiled {
        if let Member::Fields { except: names } | Member::Members { except: names, .. } = member {
            names.clone_from(&except);
            spliced = true;
        }
    }
    if members.contains_key(OMIT) && !spliced {
        return Err(TemplateError::OmitWithoutFields);
    }
    Ok(literal_if_constant(Node::Object(compiled)))
}

fn member(name: Text, value: &Value, place: Place, depth: usize) -> Result<Member, TemplateError> {
    let optional = value
        .as_str()
        .and_then(|text| text.strip_prefix('{')?.strip_suffix("?}"));
    let Some(placeholder) = optional else {
        let value = node(value, place, depth)?;
        return Ok(Member::Named {
            name,
            value,
            if_linked: false,
        });
    };
    let (placeholder_name, _) = options(placeholder);
    if Placeholder::parse(placeholder_name, place)? != Placeholder::RemoteId {
        return Err(TemplateError::NeverUnknown(placeholder_name.to_owned()));
    }
    let value = string(&format!("{{{placeholder}}}"), place)?;
    Ok(Member::Named {
        name,
        value,
        if_linked: true,
    })
}

/// Any value of the template.
pub(super) fn node(value: &Value, place: Place, depth: usize) -> Result<Node, TemplateError> {
    match value {
        Value::Object(members) => object(members, place, depth + 1),
        Value::Array(items) => {
            if depth >= DEPTH_MAX {
                return Err(TemplateError::TooDeep(DEPTH_MAX));
            }
            let nodes = items.iter().map(|item| node(item, place, depth + 1));
            Ok(literal_if_constant(Node::Array(
                nodes.collect::<Result<_, _>>()?,
            )))
        }
        Value::String(text) => string(text, place),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Node::Literal(value.to_string())),
    }
}

fn string(text: &str, place: Place) -> Result<Node, TemplateError> {
    let alone = text
        .strip_prefix('{')
        .and_then(|inner| inner.strip_suffix('}'));
    match alone
        .filter(|inner| !inner.contains(['{', '}']))
        .map(options)
    {
        Some((name, Some("int"))) => Ok(Node::Integer(Placeholder::parse(name, place)?)),
        Some((_, Some(filter))) => Err(TemplateError::UnknownFilter(filter.to_owned())),
        Some((name, None)) if name == Placeholder::FieldNames.as_str() => {
            Placeholder::parse(name, place)?;
            Ok(Node::FieldNames)
        }
        Some((name, None)) if place == Place::Wrap => {
            Placeholder::parse(name, place)?;
            Ok(Node::FieldValue)
        }
        Some(("value", None)) if place == Place::Key => Ok(Node::FieldValue),
        Some((_, None)) | None => {
            let text = Text::compile(text, place)?;
            if text.uses(Placeholder::Value) {
                return Err(TemplateError::ValueInText);
            }
            Ok(match text.literal() {
                Some(literal) => Node::Literal(format!("\"{literal}\"")),
                None => Node::Text(text),
            })
        }
    }
}

/// `remote_id|int` as name and filter.
fn options(inner: &str) -> (&str, Option<&str>) {
    match inner.split_once('|') {
        Some((name, filter)) => (name, Some(filter)),
        None => (inner, None),
    }
}

impl Text {
    fn compile(text: &str, place: Place) -> Result<Text, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            let (name, after) = brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or(TemplateError::UnbalancedBrace)?;
            if !before.is_empty() {
                parts.push(TextPart::Literal(escaped(before)));
            }
            parts.push(TextPart::Value(Placeholder::parse(name, place)?));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(TextPart::Literal(escaped(rest)));
        }
        Ok(Text { parts })
    }
}

fn escaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    push_escaped(&mut bytes, text);
    String::from_utf8(bytes).expect("escaping keeps text valid")
}

/// What never changes is written in one piece.
fn literal_if_constant(node: Node) -> Node {
    let mut text = String::new();
    let constant = match &node {
        Node::Array(nodes) => {
            text.push('[');
            nodes.iter().enumerate().all(|(at, node)| {
                text.push_str(if at > 0 { "," } else { "" });
                push_if_literal(node, &mut text)
            })
        }
        Node::Object(members) => {
            text.push('{');
            members.iter().enumerate().all(|(at, member)| {
                let Member::Named {
                    name,
                    value,
                    if_linked: false,
                } = member
                else {
                    return false;
                };
                let Some(name) = name.literal() else {
                    return false;
                };
                text.push_str(if at > 0 { ",\"" } else { "\"" });
                text.push_str(name);
                text.push_str("\":");
                push_if_literal(value, &mut text)
            })
        }
        _ => false,
    };
    if !constant {
        return node;
    }
    text.push(if matches!(node, Node::Array(_)) {
        ']'
    } else {
        '}'
    });
    Node::Literal(text)
}

fn push_if_literal(node: &Node, text: &mut String) -> bool {
    match node {
        Node::Literal(literal) => {
            text.push_str(literal);
            true
        }
        _ => false,
    }
}

/// The member that stands for the record's fields.
const FIELDS: &str = "$fields";

/// Beside it: names of fields to leave out.
const OMIT: &str = "$omit";

/// The members of a field that is an object.
const MEMBERS: &str = "$members";

/// Stands for an array with an item per record.
const EACH: &str = "$each";

/// Stands for an array with an item per field of a match key.
const MATCH: &str = "$match";

/// As deep as events may be (PRODUCT: `too_deep`).
pub(super) const DEPTH_MAX: usize = 64;
