//! `[batch.NAME]`: many records in one call.

use std::collections::HashSet;

use bytes::Bytes;

use super::batch_results::BatchResults;
use super::body_template::BodyTemplate;
use super::file::BatchBlock;
use super::object::{Objects, remote_hash};
use super::path_template::{PathTemplate, split_request};
use super::placeholder::{Place, Placeholder, Values};
use super::problems::Problems;
use super::{
    CallKind, Definition, DefinitionError, Method, RenderError, Request, RestSettings, Subject,
    TemplateError,
};

/// What may share a call: operations whose groups are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchGroup {
    /// Which of the definition's batches.
    batch: u8,
    /// Of the object's remote name.
    object: u64,
}

/// One record of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchItem<'a> {
    /// What is done to it.
    pub kind: CallKind,
    /// The record and its fields.
    pub subject: Subject<'a>,
}

/// What reading the reply to a batch needs of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchItemRef<'a> {
    /// As in the [`BatchItem`] it was rendered from.
    pub kind: CallKind,
    /// System A's key.
    pub record_id: &'a str,
    /// The provider's own id, if it was known.
    pub remote_id: Option<&'a str>,
}

/// How one batch call is made and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    name: String,
    takes: Vec<CallKind>,
    method: Method,
    path: PathTemplate,
    body: Option<BodyTemplate>,
    max_items: usize,
    default_items: usize,
    max_bytes: usize,
    unique_by: Option<UniqueKey>,
    results: BatchResults,
}

/// The key that must not come twice in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UniqueKey {
    of: RecordKey,
    ignores_case: bool,
}

/// The two keys of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKey {
    RecordId,
    RemoteId,
}

/// Batches of one definition; a group counts them in a byte.
const BATCHES_MAX: usize = 32;

/// Far over what any provider takes in one call (2,000 the most seen); bounds a reply's index.
const ITEMS_MAX: u64 = 10_000;

/// For a definition without `max_bytes`: below the 1 MiB that common servers take by default.
const DEFAULT_BYTES_MAX: u64 = 1_000_000;

/// The largest request any known provider reads (50 MB).
const BYTES_MAX: u64 = 50_000_000;

impl Definition {
    /// The batch call an operation of this kind and (remote) object goes into; `None`: a call of
    /// its own.
    pub fn batch_group(&self, kind: CallKind, object: &str) -> Option<BatchGroup> {
        let at = self
            .batches()
            .iter()
            .position(|batch| batch.takes.contains(&kind))?;
        let object = self.objects().remote(object);
        let group = BatchGroup {
            batch: u8::try_from(at).expect("a definition has at most BATCHES_MAX batches"),
            object: remote_hash(object),
        };
        // Without its key field the object's record fails alone, with the reason.
        let names = self.objects().names(object);
        let lacks = |placeholder, name: Option<&str>| {
            name.is_none() && self.batches()[at].needs(placeholder)
        };
        let renders = !lacks(Placeholder::ExternalIdField, names.external_id)
            && !lacks(Placeholder::ObjectType, names.object_type);
        (renders && self.batch_items_max(group) > 1).then_some(group)
    }

    /// Whether a call of this group names the fields that are wanted of its records.
    pub fn batch_names_fields(&self, group: BatchGroup) -> bool {
        self.batch(group).needs(Placeholder::FieldNames)
    }

    /// How a read is made that names more fields than a path holds: as a batch of one.
    pub fn long_read_group(&self, object: &str) -> Option<BatchGroup> {
        let mut batches = self.batches().iter();
        let batch = batches.find(|batch| batch.takes == [CallKind::Read])?;
        self.named_batch(&batch.name, self.objects().remote(object))
    }

    /// Records that a call of this group takes, at least 1.
    pub fn batch_items_max(&self, group: BatchGroup) -> usize {
        let batch = self.batch(group);
        match self.own_batch_items_max() {
            Some(own) => own.min(batch.max_items),
            None => batch.default_items,
        }
    }

    /// Bytes that the rendered body of a call of this group may have.
    pub fn batch_bytes_max(&self, group: BatchGroup) -> usize {
        self.batch(group).max_bytes
    }

    /// The one call for these records, at least one, all of this group. Key, request id and
    /// traceparent are left empty for the caller.
    ///
    /// # Errors
    /// [`RenderError::Item`] names the record that cannot be sent with the others;
    /// [`RenderError::BatchTooLarge`] asks for fewer. Nothing was sent.
    pub fn render_batch(
        &self,
        group: BatchGroup,
        items: &[BatchItem<'_>],
    ) -> Result<Request, RenderError> {
        let batch = self.batch(group);
        let limit = self.batch_items_max(group);
        let first = items
            .first()
            .ok_or(RenderError::BatchSize { items: 0, limit })?;
        if items.len() > limit {
            return Err(RenderError::BatchSize {
                items: items.len(),
                limit,
            });
        }
        batch.check(items, group, self.objects())?;
        let subject = Subject {
            object: self.objects().remote(first.subject.object),
            ..first.subject
        };
        let values = Values {
            kind: first.kind,
            subject,
            names: self.objects().names(subject.object),
            item: 0,
            items,
        };
        let path_and_query = batch.path.render(self.root(), &values)?;
        let body = match &batch.body {
            Some(template) => Bytes::from(template.render(&values, self.field_style())?),
            None => Bytes::new(),
        };
        // One record that is too large is the provider's to judge, as it would be alone.
        if body.len() > batch.max_bytes && items.len() > 1 {
            return Err(RenderError::BatchTooLarge {
                bytes: body.len(),
                limit: batch.max_bytes,
            });
        }
        let creates = items.iter().any(|item| item.kind == CallKind::Create);
        Ok(Request {
            kind: if creates {
                CallKind::Create
            } else {
                first.kind
            },
            method: batch.method,
            path_and_query,
            body,
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        })
    }

    /// The group of the batch of that name, whatever its size: for operations sent as a batch of
    /// one.
    pub(crate) fn named_batch(&self, name: &str, object: &str) -> Option<BatchGroup> {
        let at = self.batches().iter().position(|batch| batch.name == name)?;
        Some(BatchGroup {
            batch: u8::try_from(at).ok()?,
            object: remote_hash(object),
        })
    }

    fn batch(&self, group: BatchGroup) -> &Batch {
        // A group is of the definition that made it; accounts keep theirs.
        &self.batches()[usize::from(group.batch)]
    }

    pub(crate) fn batch_results(&self, group: BatchGroup) -> &BatchResults {
        &self.batch(group).results
    }
}

impl BatchGroup {
    /// Hash of the object's remote name.
    pub(crate) fn object(self) -> u64 {
        self.object
    }
}

impl Batch {
    pub(crate) fn compile(
        name: &str,
        block: &BatchBlock,
        problems: &mut Problems,
    ) -> Option<Batch> {
        let key = |member: &str| format!("batch.{name}.{member}");
        let parsed =
            Method::parse(&block.method).ok_or(TemplateError::UnknownMethod(block.method.clone()));
        let method = problems.note(key("method"), parsed);
        let path = problems.note(
            key("path"),
            PathTemplate::compile(&block.path, Place::Batch),
        );
        let body = block.body.as_ref();
        let body = body.map(|body| BodyTemplate::compile(body, Place::Batch));
        let body = problems.note(key("body"), body.transpose());
        let max_items = in_range(block.max_items, ITEMS_MAX);
        let max_items = problems.note(key("max_items"), max_items);
        let default_items = block.default_items.unwrap_or(block.max_items);
        let default_items = in_range(default_items, block.max_items.max(1));
        let default_items = problems.note(key("default_items"), default_items);
        let max_bytes = in_range(block.max_bytes.unwrap_or(DEFAULT_BYTES_MAX), BYTES_MAX);
        let max_bytes = problems.note(key("max_bytes"), max_bytes);
        let unique_by = block.unique_by.as_deref().map(|text| {
            let of = RecordKey::parse(text)?;
            Ok(UniqueKey {
                of,
                ignores_case: block.unique_ignores_case,
            })
        });
        let unique_by = problems.note(key("unique_by"), unique_by.transpose());
        check_takes(name, block, problems);
        let results = BatchResults::compile(name, block, problems);
        let batch = Batch {
            name: name.to_owned(),
            takes: block.takes.clone(),
            method: method?,
            path: path?,
            body: body?,
            max_items: max_items?,
            default_items: default_items?,
            max_bytes: max_bytes?,
            unique_by: unique_by?,
            results: results?,
        };
        problems.note(format!("batch.{name}"), batch.check_parts())?;
        Some(batch)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn takes(&self) -> &[CallKind] {
        &self.takes
    }

    pub(crate) fn needs(&self, placeholder: Placeholder) -> bool {
        self.path.uses(placeholder)
            || self
                .body
                .as_ref()
                .is_some_and(|body| body.needs(placeholder))
    }

    /// Takes over an account's own request.
    pub(crate) fn change(&mut self, settings: &RestSettings) -> Result<(), DefinitionError> {
        let at = |key: &str| {
            let key = format!("rest.{key}");
            move |source| DefinitionError::Template { key, source }
        };
        if let Some(request) = &settings.batch {
            let (method, path) = split_request(request).map_err(at("batch"))?;
            self.method = method;
            self.path = PathTemplate::compile(path, Place::Batch).map_err(at("batch"))?;
        }
        if let Some(body) = &settings.batch_body {
            let body = BodyTemplate::compile(body, Place::Batch).map_err(at("batch_body"))?;
            self.body = Some(body);
        }
        self.check_parts().map_err(at("batch"))
    }

    /// What holds between the parts of a batch.
    fn check_parts(&self) -> Result<(), TemplateError> {
        let each = self.body.as_ref().is_some_and(BodyTemplate::has_each);
        let lists = [Placeholder::RemoteIds, Placeholder::RecordIdsQuoted];
        if !each && !lists.into_iter().any(|list| self.needs(list)) {
            return Err(TemplateError::NamesNoRecords);
        }
        if self.method == Method::Get && self.body.is_some() {
            return Err(TemplateError::BodyOnGet);
        }
        let fields = self.body.as_ref().is_some_and(BodyTemplate::has_fields);
        let mut writes = self.takes.iter();
        if let Some(kind) = writes.find(|kind| kind.writes_fields() && !fields) {
            return Err(TemplateError::NoFields(*kind));
        }
        let linked = self.needs(Placeholder::RemoteId) || self.needs(Placeholder::RemoteIds);
        let mut takes = self.takes.iter();
        if let Some(kind) = takes.find(|kind| linked && !kind.has_remote_id()) {
            return Err(TemplateError::NoRemoteIdYet(*kind));
        }
        let mut keyed = self.takes.iter();
        if let Some(kind) =
            keyed.find(|kind| self.unique_by.is_none() && **kind != CallKind::Create)
        {
            return Err(TemplateError::NoUniqueKey(*kind));
        }
        let names = |kind: &CallKind| {
            matches!(kind, CallKind::Create | CallKind::Upsert | CallKind::Lookup)
        };
        // Who made or found a record must tell its id, one by one.
        if self.results == BatchResults::All && self.takes.iter().any(names) {
            return Err(TemplateError::NoResults);
        }
        if self.results.uses_trace() && !self.needs(Placeholder::Item) {
            return Err(TemplateError::NoTrace);
        }
        Ok(())
    }

    /// That these records can go together.
    fn check(
        &self,
        items: &[BatchItem<'_>],
        group: BatchGroup,
        objects: &Objects,
    ) -> Result<(), RenderError> {
        let mut keys = HashSet::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let refused = |source| RenderError::Item {
                index,
                source: Box::new(source),
            };
            let subject = &item.subject;
            let object = remote_hash(objects.remote(subject.object));
            if !self.takes.contains(&item.kind) || object != group.object {
                return Err(refused(RenderError::OtherGroup));
            }
            let Some(unique) = self.unique_by else {
                continue;
            };
            let key = match unique.of {
                RecordKey::RecordId => Some(subject.record_id),
                RecordKey::RemoteId => subject.remote_id,
            };
            let Some(key) = key else {
                return Err(refused(RenderError::NoRemoteId));
            };
            let key = if unique.ignores_case {
                key.to_lowercase()
            } else {
                key.to_owned()
            };
            if !keys.insert(key) {
                return Err(refused(RenderError::RepeatedKey));
            }
        }
        Ok(())
    }
}

impl RecordKey {
    pub(crate) fn parse(text: &str) -> Result<RecordKey, TemplateError> {
        match text {
            "record_id" => Ok(RecordKey::RecordId),
            "remote_id" => Ok(RecordKey::RemoteId),
            _ => Err(TemplateError::NotAKey(text.to_owned())),
        }
    }
}

/// What holds among all batches of a definition.
pub(crate) fn check_batches(batches: &[Batch], problems: &mut Problems) {
    let mut taken = HashSet::new();
    for batch in batches {
        for kind in &batch.takes {
            if !taken.insert(*kind) {
                let key = format!("batch.{}.takes", batch.name);
                problems.add(key, TemplateError::TakenTwice(*kind));
            }
        }
    }
    if batches.len() > BATCHES_MAX {
        let found = batches.len() as u64;
        problems.add(
            "batch",
            TemplateError::OutOfRange(found, BATCHES_MAX as u64),
        );
    }
}

fn check_takes(name: &str, block: &BatchBlock, problems: &mut Problems) {
    let key = |member: &str| format!("batch.{name}.{member}");
    let writes = !block.takes.is_empty() && block.takes.iter().all(|kind| kind.is_write());
    let alone = [[CallKind::Lookup], [CallKind::Read]];
    if !writes && !alone.iter().any(|alone| block.takes == alone) {
        problems.add(key("takes"), TemplateError::NotTogether);
    }
    let same = block.same.as_deref();
    if same.is_some_and(|same| !same.iter().any(|same| same == "object")) {
        problems.add(key("same"), TemplateError::NotSame);
    }
}

fn in_range(value: u64, max: u64) -> Result<usize, TemplateError> {
    match usize::try_from(value) {
        Ok(value) if value >= 1 && value as u64 <= max => Ok(value),
        _ => Err(TemplateError::OutOfRange(value, max)),
    }
}
