//! Templates of requests that ask for changes: plain text and JSON with named places.

use std::fmt::Write as _;

use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::TemplateError;
use super::instant::TimeUnit;
use super::path_template::ENCODED;
use crate::json::{write_integer, write_string};
use crate::timestamp::write_rfc3339;

/// Text with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PollText {
    pieces: Vec<Piece>,
}

/// A JSON body with places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PollBody {
    /// JSON text that never changes.
    Literal(String),
    Text(PollText),
    /// `"{fields}"` alone: a list of names.
    Fields,
    /// `"{size}"` alone: a number.
    Size,
    /// Members; one whose text is `"{page?}"` is left out on the first page.
    Object(Vec<(PollText, PollBody)>),
    Array(Vec<PollBody>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Place(PollPlace),
}

/// What a template may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PollPlace {
    /// The object's remote name.
    Object,
    /// The names of the fields to read, with commas between.
    Fields,
    /// The field that holds when a record last changed.
    Modified,
    /// Changes from this instant on.
    From(TimeUnit),
    /// Up to this one.
    To(TimeUnit),
    /// Of the records of one instant those behind this id.
    AfterId,
    /// What the page before said.
    Page,
    /// Records of one page.
    Size,
    /// In the body of a long request: path and query of the one that is too long.
    Request,
}

/// What the places stand for in one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollValues<'a> {
    pub(crate) object: &'a str,
    pub(crate) fields: &'a [String],
    pub(crate) modified: &'a str,
    pub(crate) from_ms: i64,
    pub(crate) to_ms: i64,
    pub(crate) after_id: &'a str,
    pub(crate) page: Option<&'a str>,
    pub(crate) size: u32,
    pub(crate) request: &'a str,
}

impl PollText {
    pub(crate) fn compile(text: &str) -> Result<PollText, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            let (name, after) = brace
                .strip_prefix('{')
                .and_then(|inner| inner.split_once('}'))
                .ok_or(TemplateError::UnbalancedBrace)?;
            if !before.is_empty() {
                pieces.push(Piece::Literal(before.to_owned()));
            }
            pieces.push(Piece::Place(PollPlace::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(PollText { pieces })
    }

    /// A path: literal parts go as they are, values percent-encoded.
    pub(crate) fn compile_path(text: &str) -> Result<PollText, TemplateError> {
        if !text.starts_with('/') || text.starts_with("//") {
            return Err(TemplateError::NotAPath);
        }
        let refused = |c: &char| !c.is_ascii_graphic() || "?#\"<>\\^`|".contains(*c);
        if let Some(character) = text.chars().find(refused) {
            return Err(TemplateError::PathCharacter(character));
        }
        PollText::compile(text)
    }

    pub(crate) fn uses(&self, wanted: impl Fn(PollPlace) -> bool) -> bool {
        let mut pieces = self.pieces.iter();
        pieces.any(|piece| matches!(piece, Piece::Place(place) if wanted(*place)))
    }

    /// Whether it is `{page?}`, and there is no page to name.
    pub(crate) fn is_left_out(&self, values: &PollValues<'_>) -> bool {
        values.page.is_none() && self.uses(|place| place == PollPlace::Page)
    }

    pub(crate) fn write(&self, values: &PollValues<'_>) -> String {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Place(place) => place.write(values, &mut out),
            }
        }
        out
    }

    pub(crate) fn write_path(&self, values: &PollValues<'_>, out: &mut String) {
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Place(place) => {
                    let mut value = String::new();
                    place.write(values, &mut value);
                    out.extend(utf8_percent_encode(&value, ENCODED));
                }
            }
        }
    }
}

impl PollBody {
    pub(crate) fn compile(value: &Value) -> Result<PollBody, TemplateError> {
        if !value.is_object() {
            return Err(TemplateError::BodyNotAnObject);
        }
        PollBody::node(value, 1)
    }

    fn node(value: &Value, depth: usize) -> Result<PollBody, TemplateError> {
        if depth > DEPTH_MAX {
            return Err(TemplateError::TooDeep(DEPTH_MAX));
        }
        Ok(match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => PollBody::Literal(value.to_string()),
            Value::String(text) => match text.as_str() {
                "{fields}" => PollBody::Fields,
                "{size}" => PollBody::Size,
                text => PollBody::Text(PollText::compile(text)?),
            },
            Value::Array(items) => {
                let items = items.iter().map(|item| PollBody::node(item, depth + 1));
                PollBody::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    Ok((PollText::compile(name)?, PollBody::node(value, depth + 1)?))
                });
                PollBody::Object(members.collect::<Result<_, TemplateError>>()?)
            }
        })
    }

    pub(crate) fn uses(&self, wanted: &impl Fn(PollPlace) -> bool) -> bool {
        match self {
            PollBody::Literal(_) => false,
            PollBody::Text(text) => text.uses(wanted),
            PollBody::Fields => wanted(PollPlace::Fields),
            PollBody::Size => wanted(PollPlace::Size),
            PollBody::Object(members) => members
                .iter()
                .any(|(name, value)| name.uses(wanted) || value.uses(wanted)),
            PollBody::Array(items) => items.iter().any(|item| item.uses(wanted)),
        }
    }

    pub(crate) fn write(&self, values: &PollValues<'_>, out: &mut Vec<u8>) {
        match self {
            PollBody::Literal(text) => out.extend_from_slice(text.as_bytes()),
            PollBody::Text(text) => write_string(out, &text.write(values)),
            PollBody::Size => write_integer(out, values.size),
            PollBody::Fields => write_list(out, values.fields.iter(), |name, out| {
                write_string(out, name);
            }),
            PollBody::Array(items) => write_list(out, items.iter(), |item, out| {
                item.write(values, out);
            }),
            PollBody::Object(members) => {
                out.push(b'{');
                let mut first = true;
                for (name, value) in members {
                    if matches!(value, PollBody::Text(text) if text.is_left_out(values)) {
                        continue;
                    }
                    if !std::mem::take(&mut first) {
                        out.push(b',');
                    }
                    write_string(out, &name.write(values));
                    out.push(b':');
                    value.write(values, out);
                }
                out.push(b'}');
            }
        }
    }
}

impl PollPlace {
    fn parse(text: &str) -> Result<PollPlace, TemplateError> {
        let unknown = || TemplateError::UnknownPollPlace(text.to_owned());
        let (name, filter) = match text.split_once('|') {
            Some((name, filter)) => (name, Some(filter)),
            None => (text, None),
        };
        let unit = match filter {
            None => TimeUnit::Iso,
            Some("ms") => TimeUnit::Milliseconds,
            Some("s") => TimeUnit::Seconds,
            Some(_) => return Err(unknown()),
        };
        Ok(match (name, filter) {
            ("from", _) => PollPlace::From(unit),
            ("to", _) => PollPlace::To(unit),
            ("object", None) => PollPlace::Object,
            ("fields", None) => PollPlace::Fields,
            ("modified", None) => PollPlace::Modified,
            ("after_id", None) => PollPlace::AfterId,
            ("page?", None) => PollPlace::Page,
            ("size", None) => PollPlace::Size,
            ("request", None) => PollPlace::Request,
            _ => return Err(unknown()),
        })
    }

    fn write(self, values: &PollValues<'_>, out: &mut String) {
        match self {
            PollPlace::Object => out.push_str(values.object),
            PollPlace::Fields => out.push_str(&values.fields.join(",")),
            PollPlace::Modified => out.push_str(values.modified),
            PollPlace::From(unit) => write_instant(values.from_ms, unit, out),
            PollPlace::To(unit) => write_instant(values.to_ms, unit, out),
            PollPlace::AfterId => out.push_str(values.after_id),
            PollPlace::Page => out.push_str(values.page.unwrap_or_default()),
            PollPlace::Size => write_number(i64::from(values.size), out),
            PollPlace::Request => out.push_str(values.request),
        }
    }
}

fn write_instant(ms: i64, unit: TimeUnit, out: &mut String) {
    match unit {
        TimeUnit::Milliseconds => write_number(ms, out),
        TimeUnit::Seconds => write_number(ms.div_euclid(1000), out),
        TimeUnit::Iso => {
            let mut text = Vec::with_capacity(24);
            write_rfc3339(&mut text, ms);
            out.push_str(std::str::from_utf8(&text).expect("digits and letters"));
        }
    }
}

fn write_number(number: i64, out: &mut String) {
    write!(out, "{number}").expect("a String takes all that is written to it");
}

fn write_list<T>(
    out: &mut Vec<u8>,
    items: impl Iterator<Item = T>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(b'[');
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(b']');
}

/// As deep as events may be.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values<'a>(fields: &'a [String], page: Option<&'a str>) -> PollValues<'a> {
        PollValues {
            object: "contacts",
            fields,
            modified: "changed",
            from_ms: 1_795_168_800_123,
            to_ms: 1_795_168_801_000,
            after_id: "17",
            page,
            size: 200,
            request: "",
        }
    }

    #[test]
    fn a_body_takes_names_instants_and_numbers_where_they_are_named() {
        let template = json!({
            "where": [{ "{modified}": "{from|ms}", "until": "{to}" }],
            "properties": "{fields}", "limit": "{size}", "after": "{page?}", "n": 1.50,
        });
        let template = PollBody::compile(&template).unwrap();
        let fields = ["a\"b".to_owned(), "c".to_owned()];
        let written = |page| {
            let mut out = Vec::new();
            template.write(&values(&fields, page), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(None),
            r#"{"where":[{"changed":"1795168800123","until":"2026-11-20T10:00:01.000Z"}],"properties":["a\"b","c"],"limit":200,"n":1.5}"#
        );
        assert!(written(Some("p2")).contains(r#""after":"p2""#));
    }

    #[test]
    fn a_path_takes_values_percent_encoded_and_leads_nowhere_else() {
        let path = PollText::compile_path("/{object}/x").unwrap();
        let mut out = String::new();
        let fields = [];
        let values = PollValues {
            object: "a/b",
            ..values(&fields, None)
        };
        path.write_path(&values, &mut out);
        assert_eq!(out, "/a%2Fb/x");
        for wrong in ["x", "//host", "/a b", "/a?b=1", "/{when}", "/{from|days}"] {
            assert!(PollText::compile_path(wrong).is_err(), "{wrong}");
        }
    }
}
