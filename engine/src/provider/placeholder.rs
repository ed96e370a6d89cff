//! What templates may refer to, and what it stands for in one call.

use std::borrow::Cow;

use percent_encoding::utf8_percent_encode;

use super::batch::BatchItem;
use super::object::ObjectNames;
use super::path_template::ENCODED;
use super::{CallKind, RenderError, Subject, TemplateError};

/// A name between braces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// The object's remote name.
    Object,
    /// What the provider calls one record of the object, where that differs from its name.
    ObjectType,
    /// The provider's field that holds System A's key.
    ExternalIdField,
    /// System A's key.
    RecordId,
    /// The provider's own id.
    RemoteId,
    /// `create`, `upsert`, `update`, `delete`.
    Operation,
    /// The record's place in its batch, from 0; providers that echo it as a trace id answer by it.
    Item,
    /// The provider's ids of all records of the batch, with commas between.
    RemoteIds,
    /// The provider's names of the fields that are asked for, with commas between.
    FieldNames,
    /// System A's keys of all records of the batch, each in single quotes as SQL and its like have
    /// it, with commas between.
    RecordIdsQuoted,
    /// The value of the field being wrapped, or of a match key, as it is.
    Value,
    /// The provider's name of a field of a match key.
    Field,
    /// What a match key asks for as a query of a URL: `email=a%40b.c&phone=1`.
    MatchQuery,
    /// The same as a condition of SQL and its like: `Email = 'a@b.c' AND Phone = '1'`.
    MatchConditions,
}

/// Where in a definition a template stands: not every place knows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the request of a single record.
    Call,
    /// In a batch's request, outside `$each`.
    Batch,
    /// Inside `$each`: one record of a batch.
    Item,
    /// Around one field.
    Wrap,
    /// Inside `$match`: one field of a match key.
    Key,
}

/// One call, as its templates see it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) kind: CallKind,
    pub(crate) subject: Subject<'a>,
    /// What the definition and the account say of the subject's object.
    pub(crate) names: ObjectNames<'a>,
    pub(crate) item: usize,
    /// All records of the call's batch; empty for a call of its own.
    pub(crate) items: &'a [BatchItem<'a>],
}

impl Placeholder {
    const ALL: [Placeholder; 14] = [
        Placeholder::Object,
        Placeholder::ObjectType,
        Placeholder::ExternalIdField,
        Placeholder::RecordId,
        Placeholder::RemoteId,
        Placeholder::Operation,
        Placeholder::Item,
        Placeholder::RemoteIds,
        Placeholder::FieldNames,
        Placeholder::RecordIdsQuoted,
        Placeholder::Value,
        Placeholder::Field,
        Placeholder::MatchQuery,
        Placeholder::MatchConditions,
    ];

    pub(crate) fn parse(name: &str, place: Place) -> Result<Placeholder, TemplateError> {
        let placeholder = Placeholder::ALL
            .into_iter()
            .find(|placeholder| placeholder.as_str() == name)
            .ok_or_else(|| TemplateError::UnknownPlaceholder(name.to_owned()))?;
        if placeholder.is_known_in(place) {
            Ok(placeholder)
        } else {
            Err(TemplateError::PlaceholderElsewhere(placeholder.as_str()))
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Placeholder::Object => "object",
            Placeholder::ObjectType => "object_type",
            Placeholder::ExternalIdField => "external_id_field",
            Placeholder::RecordId => "record_id",
            Placeholder::RemoteId => "remote_id",
            Placeholder::Operation => "operation",
            Placeholder::Item => "item",
            Placeholder::RemoteIds => "remote_ids",
            Placeholder::FieldNames => "field_names",
            Placeholder::RecordIdsQuoted => "record_ids|quoted",
            Placeholder::Value => "value",
            Placeholder::Field => "field",
            Placeholder::MatchQuery => "match|query",
            Placeholder::MatchConditions => "match|sql",
        }
    }

    fn is_known_in(self, place: Place) -> bool {
        match self {
            Placeholder::Object | Placeholder::ObjectType | Placeholder::ExternalIdField => {
                place != Place::Wrap
            }
            Placeholder::RecordId | Placeholder::RemoteId | Placeholder::Operation => {
                matches!(place, Place::Call | Place::Item)
            }
            Placeholder::FieldNames => matches!(place, Place::Call | Place::Batch),
            Placeholder::MatchQuery | Placeholder::MatchConditions => place == Place::Call,
            Placeholder::Item => place == Place::Item,
            Placeholder::RemoteIds | Placeholder::RecordIdsQuoted => place == Place::Batch,
            Placeholder::Value => matches!(place, Place::Wrap | Place::Key),
            Placeholder::Field => place == Place::Key,
        }
    }

    pub(crate) fn value<'a>(self, values: &Values<'a>) -> Result<Cow<'a, str>, RenderError> {
        let subject = &values.subject;
        Ok(Cow::Borrowed(match self {
            Placeholder::Object => subject.object,
            Placeholder::ObjectType => {
                let object_type = values.names.object_type;
                object_type.ok_or_else(|| RenderError::NoObjectType(subject.object.to_owned()))?
            }
            Placeholder::ExternalIdField => {
                let field = values.names.external_id;
                field.ok_or_else(|| RenderError::NoExternalId(subject.object.to_owned()))?
            }
            Placeholder::RecordId => subject.record_id,
            Placeholder::RemoteId => subject.remote_id.ok_or(RenderError::NoRemoteId)?,
            Placeholder::Operation => values.kind.as_str(),
            Placeholder::Item => return Ok(Cow::Owned(values.item.to_string())),
            Placeholder::RemoteIds => {
                let ids: Option<Vec<&str>> = values
                    .items
                    .iter()
                    .map(|item| item.subject.remote_id)
                    .collect();
                return Ok(Cow::Owned(ids.ok_or(RenderError::NoRemoteId)?.join(",")));
            }
            Placeholder::FieldNames => {
                let names: Vec<&str> = subject.fields.iter().map(|field| field.name).collect();
                return Ok(Cow::Owned(names.join(",")));
            }
            Placeholder::RecordIdsQuoted => {
                let ids = values
                    .items
                    .iter()
                    .map(|item| quoted(item.subject.record_id));
                return Ok(Cow::Owned(ids.collect::<Vec<_>>().join(",")));
            }
            // Written by the body, which knows how; nothing else stands in a wrap.
            Placeholder::Value => "",
            Placeholder::Field => subject.fields.first().map_or("", |field| field.name),
            Placeholder::MatchQuery => {
                let pairs = subject.fields.iter().map(|field| {
                    let name = utf8_percent_encode(field.name, ENCODED);
                    let value = text_of(field.value);
                    format!("{name}={}", utf8_percent_encode(&value, ENCODED))
                });
                return Ok(Cow::Owned(pairs.collect::<Vec<_>>().join("&")));
            }
            Placeholder::MatchConditions => {
                let conditions = subject.fields.iter().map(|field| {
                    let value = match field.value.starts_with('"') {
                        true => quoted(&text_of(field.value)),
                        false => field.value.to_owned(),
                    };
                    format!("{} = {value}", field.name)
                });
                return Ok(Cow::Owned(conditions.collect::<Vec<_>>().join(" AND ")));
            }
        }))
    }
}

/// A JSON value as text: a string without its quotes.
fn text_of(json: &str) -> Cow<'_, str> {
    let value = crate::json::RawValue::new(json);
    value.as_text().unwrap_or(Cow::Borrowed(json))
}

/// A key between single quotes: with a backslash before those that are part of it.
fn quoted(record_id: &str) -> String {
    let mut text = String::with_capacity(record_id.len() + 2);
    text.push('\'');
    for character in record_id.chars() {
        if matches!(character, '\'' | '\\') {
            text.push('\\');
        }
        text.push(character);
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_cannot_end_its_own_quotes() {
        let rows = [
            ("c-1", "'c-1'"),
            ("O'Hara", r"'O\'Hara'"),
            (r"\", r"'\\'"),
            (r"\' OR Id != '", r"'\\\' OR Id != \''"),
        ];
        for (key, expected) in rows {
            assert_eq!(quoted(key), expected);
        }
    }
}
