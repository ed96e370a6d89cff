//! CloudEvents 1.0 in its JSON format: an envelope that becomes an event.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>

use std::borrow::Cow;

use super::draft::{Draft, Field, Given, check_text, invalid, unknown_field};
use super::{ID_BYTES_MAX, NAME_BYTES_MAX, Operation};
use crate::json::{Kind, Member, Pointer, RawObject, RawValue};
use crate::refusal::{Code, Refusal};

/// Only this member tells an envelope.
pub(super) fn is_envelope(object: RawObject<'_>) -> bool {
    object.get("specversion").is_some()
}

/// Reads the envelope's attributes into an event's fields.
pub(super) fn read<'a>(object: RawObject<'a>, draft: &mut Draft<'a>) -> Result<(), Refusal> {
    let (mut source, mut id, mut kind) = (None, None, None);
    for Member { key, value } in object.members() {
        let name = key.name();
        match &*name {
            "specversion" => {
                if value.as_text().as_deref() != Some("1.0") {
                    return Err(invalid("/specversion", "must be \"1.0\""));
                }
            }
            "source" => source = Some(attribute(value, "/source")?),
            "id" => id = Some(attribute(value, "/id")?),
            "type" => kind = Some(attribute(value, "/type")?),
            "subject" => draft.put(Field::RecordId, Given::at(value, "/subject"))?,
            "time" => draft.put(Field::ChangedAt, Given::at(value, "/time"))?,
            "data" => draft.put(Field::Data, Given::at(value, "/data"))?,
            "datacontenttype" => check_is_json(value)?,
            "dataschema" => {}
            "data_base64" => {
                return Err(invalid("/data_base64", "binary data cannot be mapped"));
            }
            "operation" | "op" | "action" | "object" | "event_id" => {
                let detail = "an attribute of the CloudEvent says this already";
                return Err(invalid(Pointer::of(&[&name]), detail));
            }
            _ => extension(draft, name, value)?,
        }
    }
    let kind = kind.ok_or_else(|| missing("/type"))?;
    let (object, operation) = split_type(kind)?;
    draft.object = Some(object);
    draft.operation = Some(operation);
    let source = source.ok_or_else(|| missing("/source"))?;
    let id = id.ok_or_else(|| missing("/id"))?;
    // `source` is a URI reference and holds no space, so the pair cannot be read two ways.
    draft.event_id = Some(Cow::Owned(format!("{source} {id}")));
    Ok(())
}

/// An attribute that CloudEvents requires to be text that is not empty.
fn attribute<'a>(value: RawValue<'a>, pointer: &'static str) -> Result<Cow<'a, str>, Refusal> {
    let Some(text) = value.as_text() else {
        return Err(invalid(pointer, "must be text"));
    };
    check_text(&text, ID_BYTES_MAX, Cow::Borrowed(pointer))?;
    if pointer == "/source" && text.contains(' ') {
        return Err(invalid(pointer, "must be a URI reference"));
    }
    Ok(text)
}

/// `type` ends in `.<object>.<created|updated|upserted|deleted>`.
fn split_type(kind: Cow<'_, str>) -> Result<(Cow<'_, str>, Operation), Refusal> {
    let detail = "must end in `.<object>.<created|updated|upserted|deleted>`";
    let refusal = || invalid("/type", detail);
    let (rest, verb) = kind.rsplit_once('.').ok_or_else(refusal)?;
    let operation = match verb {
        "created" => Operation::Create,
        "updated" => Operation::Update,
        "upserted" => Operation::Upsert,
        "deleted" => Operation::Delete,
        _ => return Err(refusal()),
    };
    let (start, end) = (rest.rfind('.').map_or(0, |dot| dot + 1), rest.len());
    if start == end || end - start > NAME_BYTES_MAX {
        return Err(refusal());
    }
    let object = match kind {
        Cow::Borrowed(kind) => Cow::Borrowed(&kind[start..end]),
        Cow::Owned(kind) => Cow::Owned(kind[start..end].to_owned()),
    };
    Ok((object, operation))
}

fn check_is_json(value: RawValue<'_>) -> Result<(), Refusal> {
    let text = value.as_text().unwrap_or_default();
    let media = text.split(';').next().unwrap_or_default().trim();
    let media = media.to_ascii_lowercase();
    if value.is_null() || media.ends_with("/json") || media.ends_with("+json") {
        return Ok(());
    }
    Err(invalid("/datacontenttype", "must be a JSON media type"))
}

/// A field of the event where the name is one; otherwise an extension attribute, which
/// CloudEvents allows (lower-case letters and digits, no structure) and which is kept.
fn extension<'a>(
    draft: &mut Draft<'a>,
    name: Cow<'a, str>,
    value: RawValue<'a>,
) -> Result<(), Refusal> {
    if let Some((field, pointer)) = Field::named(&name) {
        return draft.put(field, Given::at(value, pointer));
    }
    let is_attribute_name = name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
    let is_scalar = !matches!(value.kind(), Kind::Array | Kind::Object);
    if name.starts_with("x_") || (is_attribute_name && is_scalar && !name.is_empty()) {
        return draft.keep(name, value);
    }
    Err(unknown_field(Pointer::of(&[&name])))
}

fn missing(pointer: &'static str) -> Refusal {
    let detail = "a CloudEvent needs `source`, `id` and `type`";
    Refusal::at(Code::MissingField, pointer, detail)
}
