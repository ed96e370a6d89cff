//! From the members of a JSON object to an event: names, aliases, types and ranges.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    Defaults, EXTRAS_MAX, Event, Extra, ID_BYTES_MAX, NAME_BYTES_MAX, Operation, Priority, Surface,
};
use crate::json::{Kind, Member, Pointer, RawObject, RawValue, canonical_hash};
use crate::refusal::{Code, Refusal};
use crate::timestamp;

/// What was given for each field, not yet checked.
#[derive(Default)]
pub(super) struct Draft<'a> {
    given: [Option<Given<'a>>; Field::COUNT],
    extras: Vec<Extra<'a>>,
    /// What an envelope says by itself, without a member of that meaning.
    pub(super) operation: Option<Operation>,
    pub(super) object: Option<Cow<'a, str>>,
    pub(super) event_id: Option<Cow<'a, str>>,
}

/// A value and where it stood.
#[derive(Clone)]
pub(super) struct Given<'a> {
    pub(super) value: RawValue<'a>,
    pub(super) pointer: Cow<'static, str>,
}

/// A field under its canonical name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    Operation,
    Provider,
    Object,
    RecordId,
    RemoteId,
    Data,
    Before,
    EventId,
    ChangedAt,
    Priority,
    ScheduledAt,
    SchemaVersion,
    Tenant,
    Traceparent,
    CorrelationId,
    Seq,
}

impl Field {
    const COUNT: usize = Self::Seq as usize + 1;

    /// The field called `name`, and where that is.
    pub(super) fn named(name: &str) -> Option<(Self, &'static str)> {
        Some(match name {
            "operation" => (Self::Operation, "/operation"),
            "op" => (Self::Operation, "/op"),
            "action" => (Self::Operation, "/action"),
            "provider" => (Self::Provider, "/provider"),
            "crm" => (Self::Provider, "/crm"),
            "object" => (Self::Object, "/object"),
            "record_id" => (Self::RecordId, "/record_id"),
            "remote_id" => (Self::RemoteId, "/remote_id"),
            "data" => (Self::Data, "/data"),
            "payload" => (Self::Data, "/payload"),
            "before" => (Self::Before, "/before"),
            "event_id" => (Self::EventId, "/event_id"),
            "changed_at" => (Self::ChangedAt, "/changed_at"),
            "created_at" => (Self::ChangedAt, "/created_at"),
            "updated_at" => (Self::ChangedAt, "/updated_at"),
            "priority" => (Self::Priority, "/priority"),
            "scheduled_at" => (Self::ScheduledAt, "/scheduled_at"),
            "schema_version" => (Self::SchemaVersion, "/schema_version"),
            "tenant" => (Self::Tenant, "/tenant"),
            "traceparent" => (Self::Traceparent, "/traceparent"),
            "correlation_id" => (Self::CorrelationId, "/correlation_id"),
            "seq" => (Self::Seq, "/seq"),
            _ => return None,
        })
    }

    /// Whether two values of this field mean the same, although they may be written differently.
    fn means_the_same(self, a: RawValue<'_>, b: RawValue<'_>) -> bool {
        if a.text() == b.text() {
            return true;
        }
        match self {
            Self::Operation => match (operation_of(a), operation_of(b)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
            Self::RecordId | Self::RemoteId | Self::EventId | Self::SchemaVersion => {
                match (text_or_integer(a), text_or_integer(b)) {
                    (Some(a), Some(b)) => a == b,
                    _ => false,
                }
            }
            Self::ChangedAt | Self::ScheduledAt => match (instant_of(a), instant_of(b)) {
                (Some(a), Some(b)) => a == b,
                _ => false,
            },
            _ => canonical_hash(a) == canonical_hash(b),
        }
    }
}

/// The refusal of a member that nothing knows.
pub(super) fn unknown_field(pointer: Pointer) -> Refusal {
    let detail = "unknown field; fields of your own begin with `x_`";
    Refusal::at(Code::UnknownField, pointer, detail)
}

/// The refusal of a value outside its type or range.
pub(super) fn invalid(pointer: impl Into<String>, detail: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::at(Code::InvalidField, pointer, detail)
}

impl<'a> Given<'a> {
    pub(super) fn at(value: RawValue<'a>, pointer: impl Into<Cow<'static, str>>) -> Self {
        Self {
            value,
            pointer: pointer.into(),
        }
    }
}

impl<'a> Draft<'a> {
    /// Sorts the members of an event into its fields. Answers the first member that is none: the
    /// object may be an envelope.
    ///
    /// # Errors
    /// [`Code::InvalidField`] for an alias that contradicts its name, [`Code::UnknownField`]
    /// inside `record_data`.
    pub(super) fn collect(
        &mut self,
        members: impl Iterator<Item = Member<'a>>,
    ) -> Result<Option<Pointer>, Refusal> {
        let mut id = None;
        for Member { key, value } in members {
            let name = key.name();
            if let Some((field, pointer)) = Field::named(&name) {
                self.put(field, Given::at(value, pointer))?;
            } else if name == "id" {
                id = Some(value);
            } else if name == "record_data" {
                self.put_record_data(value)?;
            } else if name.starts_with("x_") {
                self.keep(name, value)?;
            } else {
                return Ok(Some(Pointer::of(&[&name])));
            }
        }
        if let Some(id) = id {
            let field = match self.has(Field::RecordId) {
                true => Field::EventId,
                false => Field::RecordId,
            };
            self.put(field, Given::at(id, "/id"))?;
        }
        Ok(None)
    }

    /// Takes a field's value; `null` says the same as leaving it out.
    pub(super) fn put(&mut self, field: Field, given: Given<'a>) -> Result<(), Refusal> {
        if given.value.is_null() {
            return Ok(());
        }
        let slot = &mut self.given[field as usize];
        match slot {
            None => *slot = Some(given),
            Some(first) if field.means_the_same(first.value, given.value) => {}
            Some(first) => {
                let detail = format!("differs from {}, which means the same field", first.pointer);
                return Err(invalid(given.pointer, detail));
            }
        }
        Ok(())
    }

    /// Keeps a field of the producer's own.
    pub(super) fn keep(&mut self, name: Cow<'a, str>, value: RawValue<'a>) -> Result<(), Refusal> {
        let pointer = || Pointer::of(&[&name]);
        if name.len() > NAME_BYTES_MAX {
            let detail = format!("a field name over {NAME_BYTES_MAX} bytes");
            return Err(invalid(pointer(), detail));
        }
        if self.extras.len() == EXTRAS_MAX {
            let detail = format!("more than {EXTRAS_MAX} fields of the producer's own");
            return Err(invalid(pointer(), detail));
        }
        self.extras.push(Extra { name, value });
        Ok(())
    }

    fn has(&self, field: Field) -> bool {
        self.given[field as usize].is_some()
    }

    /// `record_data`: `{"id": record_id, "data": data}`.
    fn put_record_data(&mut self, value: RawValue<'a>) -> Result<(), Refusal> {
        if value.is_null() {
            return Ok(());
        }
        let Some(object) = value.as_object() else {
            return Err(invalid("/record_data", "must be an object"));
        };
        for Member { key, value } in object.members() {
            if key.is("data") {
                self.put(Field::Data, Given::at(value, "/record_data/data"))?;
            } else if key.is("id") {
                self.put(Field::RecordId, Given::at(value, "/record_data/id"))?;
            } else {
                let name = key.name();
                return Err(unknown_field(Pointer::of(&["record_data", &name])));
            }
        }
        Ok(())
    }

    /// Checks every field and fills in what was left out.
    pub(super) fn finish(
        &mut self,
        defaults: &Defaults<'a>,
        surface: Surface,
    ) -> Result<Event<'a>, Refusal> {
        let operation = self.operation()?;
        let object = match self.object.take() {
            Some(object) => object,
            None => self
                .text(Field::Object, NAME_BYTES_MAX)?
                .unwrap_or(Cow::Borrowed(defaults.object())),
        };
        let record_id = self.id(Field::RecordId)?;
        if record_id.is_none() && !(operation == Operation::Create && surface == Surface::Http) {
            let detail = "nothing names the record: `record_id` is absent";
            return Err(Refusal::at(Code::RecordIdRequired, "/record_id", detail));
        }
        let data = self.object(Field::Data)?;
        if data.is_none() && operation.writes_fields() {
            let detail = format!("{} needs `data`", operation.as_str());
            return Err(Refusal::at(Code::MissingField, "/data", detail));
        }
        let event_id = match self.event_id.take() {
            Some(event_id) => Some(event_id),
            None => self.id(Field::EventId)?,
        };
        Ok(Event {
            operation,
            provider: self.text(Field::Provider, NAME_BYTES_MAX)?,
            object,
            record_id,
            remote_id: self.id(Field::RemoteId)?,
            data,
            before: self.object(Field::Before)?,
            event_id,
            changed_at_ms: self.instant(Field::ChangedAt)?,
            priority: self.priority()?,
            scheduled_at_ms: self.instant(Field::ScheduledAt)?,
            schema_version: self.id(Field::SchemaVersion)?,
            tenant: self.id(Field::Tenant)?,
            traceparent: self.traceparent()?,
            correlation_id: self.id(Field::CorrelationId)?,
            seq: self.seq()?,
            extras: std::mem::take(&mut self.extras),
        })
    }

    fn take(&mut self, field: Field) -> Option<Given<'a>> {
        self.given[field as usize].take()
    }

    fn operation(&mut self) -> Result<Operation, Refusal> {
        if let Some(operation) = self.operation {
            return Ok(operation);
        }
        let Some(given) = self.take(Field::Operation) else {
            let detail = "`operation` is absent";
            return Err(Refusal::at(Code::MissingField, "/operation", detail));
        };
        operation_of(given.value).ok_or_else(|| {
            let detail = "must be CREATE, READ, UPDATE, UPSERT or DELETE";
            invalid(given.pointer, detail)
        })
    }

    fn text(&mut self, field: Field, bytes_max: usize) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(given) = self.take(field) else {
            return Ok(None);
        };
        let Some(text) = given.value.as_text() else {
            return Err(invalid(given.pointer, "must be text"));
        };
        check_text(&text, bytes_max, given.pointer)?;
        Ok(Some(text))
    }

    fn id(&mut self, field: Field) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(given) = self.take(field) else {
            return Ok(None);
        };
        let Some(text) = text_or_integer(given.value) else {
            return Err(invalid(given.pointer, "must be text or an integer"));
        };
        check_text(&text, ID_BYTES_MAX, given.pointer)?;
        Ok(Some(text))
    }

    fn object(&mut self, field: Field) -> Result<Option<RawObject<'a>>, Refusal> {
        let Some(given) = self.take(field) else {
            return Ok(None);
        };
        match given.value.as_object() {
            Some(object) => Ok(Some(object)),
            None => Err(invalid(given.pointer, "must be an object")),
        }
    }

    fn instant(&mut self, field: Field) -> Result<Option<i64>, Refusal> {
        let Some(given) = self.take(field) else {
            return Ok(None);
        };
        match instant_of(given.value) {
            Some(ms) => Ok(Some(ms)),
            None => {
                let detail = "must be an RFC 3339 timestamp or integer milliseconds since 1970";
                Err(invalid(given.pointer, detail))
            }
        }
    }

    fn priority(&mut self) -> Result<Priority, Refusal> {
        let Some(given) = self.take(Field::Priority) else {
            return Ok(Priority::DEFAULT);
        };
        let number = given.value.as_integer_text().and_then(|n| n.parse().ok());
        number.and_then(Priority::new).ok_or_else(|| {
            let detail = "must be an integer from 1 (highest) to 10 (lowest)";
            invalid(given.pointer, detail)
        })
    }

    fn seq(&mut self) -> Result<Option<u64>, Refusal> {
        let Some(given) = self.take(Field::Seq) else {
            return Ok(None);
        };
        match given.value.as_integer_text().and_then(|n| n.parse().ok()) {
            Some(seq) => Ok(Some(seq)),
            None => Err(invalid(given.pointer, "must be an integer from 0")),
        }
    }

    /// It becomes a header of our own calls, so nothing but its exact shape may pass.
    fn traceparent(&mut self) -> Result<Option<Cow<'a, str>>, Refusal> {
        let given = self.given[Field::Traceparent as usize].clone();
        let text = self.text(Field::Traceparent, NAME_BYTES_MAX)?;
        match (given, &text) {
            (Some(given), Some(text)) if !is_traceparent(text) => {
                let detail = "must be a W3C traceparent: 00-<32 hex>-<16 hex>-<2 hex>";
                Err(invalid(given.pointer, detail))
            }
            _ => Ok(text),
        }
    }
}

fn operation_of(value: RawValue<'_>) -> Option<Operation> {
    Operation::parse(&value.as_text()?)
}

/// Text, or an integer as its digits: 10 and "10" are the same key.
pub(super) fn text_or_integer(value: RawValue<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        Kind::Text => value.as_text(),
        Kind::Number => value.as_integer_text().map(Cow::Borrowed),
        _ => None,
    }
}

fn instant_of(value: RawValue<'_>) -> Option<i64> {
    match value.kind() {
        Kind::Text => timestamp::parse_rfc3339(&value.as_text()?),
        Kind::Number => timestamp::in_range(value.as_integer_text()?.parse().ok()?),
        _ => None,
    }
}

pub(super) fn check_text(
    text: &str,
    bytes_max: usize,
    pointer: Cow<'static, str>,
) -> Result<(), Refusal> {
    if text.is_empty() || text.len() > bytes_max {
        return Err(invalid(
            pointer,
            format!("must have 1 to {bytes_max} bytes"),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(pointer, "must not contain control characters"));
    }
    Ok(())
}

/// <https://www.w3.org/TR/trace-context/#traceparent-header>: version 00, lower-case hex, and
/// neither id all zero.
fn is_traceparent(text: &str) -> bool {
    let parts: SmallVec<[&str; 5]> = text.split('-').collect();
    let hex = |part: &str, digits: usize| {
        part.len() == digits && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &str| part.bytes().any(|b| b != b'0');
    matches!(parts[..], ["00", trace, parent, flags]
        if hex(trace, 32) && hex(parent, 16) && hex(flags, 2) && set(trace) && set(parent))
}
