//! Debezium change envelopes: a database's own change that becomes an event.
//!
//! <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-change-event-values>

use std::borrow::Cow;

use super::draft::{Draft, Field, Given, invalid, unknown_field};
use super::{Operation, SourceTable};
use crate::json::{Member, Pointer, RawObject, RawValue};
use crate::refusal::{Code, Refusal};

/// An envelope, and whether it stood under `payload` beside its Kafka Connect `schema`.
pub(super) struct Envelope<'a> {
    object: RawObject<'a>,
    wrapped: bool,
}

/// Tells an envelope by `op` and `source`, bare or under `payload` beside `schema`.
pub(super) fn find_envelope(object: RawObject<'_>) -> Option<Envelope<'_>> {
    let is_envelope = |o: RawObject<'_>| o.get("op").is_some() && o.get("source").is_some();
    if is_envelope(object) {
        return Some(Envelope {
            object,
            wrapped: false,
        });
    }
    object.get("schema")?;
    let payload = object.get("payload")?.as_object()?;
    is_envelope(payload).then_some(Envelope {
        object: payload,
        wrapped: true,
    })
}

/// Reads a change into an event's fields; `sources` tells which object a table holds.
pub(super) fn read<'a>(
    envelope: &Envelope<'a>,
    sources: &[SourceTable<'a>],
    draft: &mut Draft<'a>,
) -> Result<(), Refusal> {
    let [mut op, mut source, mut before, mut after, mut ts_ms] = [RawValue::NULL; 5];
    for Member { key, value } in envelope.object.members() {
        let name = key.name();
        match &*name {
            "op" => op = value,
            "source" => source = value,
            "before" => before = value,
            "after" => after = value,
            "ts_ms" => ts_ms = value,
            // Finer clocks and the transaction's place say nothing about the record.
            "ts_us" | "ts_ns" | "transaction" | "schema" => {}
            _ if name.starts_with("x_") => draft.keep(name, value)?,
            _ => return Err(unknown_field(Pointer::of(&[&name]))),
        }
    }
    let operation = match op.as_text().as_deref() {
        Some("c" | "u" | "r") => Operation::Upsert,
        Some("d") => Operation::Delete,
        _ => return Err(invalid(envelope.at("/op"), "must be c, u, r or d")),
    };
    draft.operation = Some(operation);
    let source_at = envelope.at("/source");
    let Some(source) = source.as_object() else {
        return Err(invalid(source_at, "must be an object"));
    };
    let Some(table) = sources.iter().find(|table| table.is_source(source)) else {
        let detail = "no object has this table as its `source` in the settings";
        return Err(invalid(source_at, detail));
    };
    draft.object = Some(Cow::Borrowed(table.object));
    let (row, row_at) = match operation {
        Operation::Delete => (before, envelope.at("/before")),
        _ => (after, envelope.at("/after")),
    };
    let Some(row_object) = row.as_object() else {
        let detail = "the envelope carries no row";
        return Err(Refusal::at(Code::MissingField, row_at, detail));
    };
    if let Some(key) = row_object.get(table.key) {
        let pointer = format!("{row_at}{}", Pointer::of(&[table.key]).as_str());
        draft.put(Field::RecordId, Given::at(key, pointer))?;
    }
    if operation != Operation::Delete {
        draft.put(Field::Data, Given::at(row, row_at))?;
    }
    draft.put(Field::Before, Given::at(before, envelope.at("/before")))?;
    match source.get("ts_ms") {
        Some(at) if !at.is_null() => {
            draft.put(
                Field::ChangedAt,
                Given::at(at, envelope.at("/source/ts_ms")),
            )?;
        }
        _ => draft.put(Field::ChangedAt, Given::at(ts_ms, envelope.at("/ts_ms")))?,
    }
    Ok(())
}

impl Envelope<'_> {
    fn at(&self, pointer: &'static str) -> Cow<'static, str> {
        match self.wrapped {
            true => Cow::Owned(format!("/payload{pointer}")),
            false => Cow::Borrowed(pointer),
        }
    }
}

impl SourceTable<'_> {
    /// Whether `source` names this table: by itself, within its schema, or within its database.
    fn is_source(&self, source: RawObject<'_>) -> bool {
        let part = |name| source.get(name).and_then(RawValue::as_text);
        let Some(table) = part("table").or_else(|| part("collection")) else {
            return false;
        };
        match self.table.strip_suffix(&*table) {
            Some("") => true,
            Some(within) => ["schema", "db"]
                .into_iter()
                .filter_map(part)
                .any(|space| within.strip_suffix('.') == Some(&*space)),
            None => false,
        }
    }
}
