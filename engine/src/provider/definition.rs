//! A provider's operations as data.

use std::borrow::Cow;

use bytes::Bytes;
use thiserror::Error;

use super::api_root::ApiRoot;
use super::batch::{Batch, check_batches};
use super::error_rule::ErrorRule;
use super::field_style::FieldStyle;
use super::file::{DefinitionFile, NullStyle, ValueStyle};
use super::inbound::Inbound;
use super::limit::header_name;
use super::object::{Object, Objects};
use super::operation::Sending;
use super::placeholder::Values;
use super::pointer::Landing;
use super::problems::Problems;
use super::refusal::ErrorShape;
use super::{
    AuthDefinition, BatchItem, CallKind, LimitDefinition, Operation, REPLY_HEADERS_MAX,
    RenderError, Request, RestSettings, Subject, TemplateError,
};
use crate::mapping::{Mapping, MappingSettings};

/// A provider, compiled: what the files in `providers/` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    id: String,
    base_url: Option<String>,
    root: ApiRoot,
    headers: Vec<(String, String)>,
    auth: Option<AuthDefinition>,
    limits: Vec<LimitDefinition>,
    style: FieldStyle,
    objects: Objects,
    /// By [`CallKind`], in the order of [`CallKind::ALL`].
    operations: [Option<Operation>; CallKind::ALL.len()],
    batches: Vec<Batch>,
    /// The account's own.
    batch_items_max: Option<usize>,
    error_shape: ErrorShape,
    rules: Vec<ErrorRule>,
    kept_headers: Vec<String>,
    inbound: Inbound,
}

/// Why a definition, or an account's change of it, was refused. Nothing was changed.
#[derive(Debug, Error)]
pub enum DefinitionError {
    /// Not TOML, or not the shape of a definition; the source names line and column.
    #[error("not a provider definition")]
    Syntax(#[source] toml::de::Error),
    /// Written for another release.
    #[error("definition format {found} is not known; this release reads format {FORMAT}")]
    Format {
        /// The file's `provider.format`.
        found: u32,
    },
    /// A part of it does not compile.
    #[error("`{key}`: {source}")]
    Template {
        /// The key it stands under: `operations.create.path`, or `rest.create`.
        key: String,
        /// What is wrong with it.
        #[source]
        source: TemplateError,
    },
}

impl Definition {
    /// Compiles the text of a definition file.
    ///
    /// # Errors
    /// The first fault; [`super::lint`] tells all of them.
    pub fn parse(text: &str) -> Result<Definition, DefinitionError> {
        let mut problems = Problems::default();
        let definition = Definition::compile(text, &mut problems)?;
        problems.into_result()?;
        Ok(definition)
    }

    /// The definition without its faulty parts, and the faults.
    pub(crate) fn compile(
        text: &str,
        problems: &mut Problems,
    ) -> Result<Definition, DefinitionError> {
        let file: DefinitionFile = toml::from_str(text).map_err(DefinitionError::Syntax)?;
        if file.provider.format != FORMAT {
            return Err(DefinitionError::Format {
                found: file.provider.format,
            });
        }
        let mut operations = [const { None }; CallKind::ALL.len()];
        for (kind, slot) in CallKind::ALL.into_iter().zip(&mut operations) {
            if let Some(block) = file.operations.block(kind) {
                *slot = Operation::compile(kind, block, problems);
            }
        }
        let limits = file.limits.iter().enumerate();
        let limits: Vec<LimitDefinition> = limits
            .map(|(at, block)| LimitDefinition::compile(at, block, problems))
            .collect();
        let rules = file.errors.iter().enumerate();
        let rules: Vec<ErrorRule> = rules
            .filter_map(|(at, block)| ErrorRule::compile(at, block, &limits, problems))
            .collect();
        let batches = file.batch.iter();
        let batches = batches.filter_map(|(name, block)| Batch::compile(name, block, problems));
        let batches = batches.collect();
        let objects = file.objects.iter();
        let objects = objects.map(|(name, block)| Object::compile(name, block, problems));
        let objects = objects.collect();
        let auth = file.auth.as_ref();
        let definition = Definition {
            batches,
            inbound: Inbound::compile(&file, problems),
            objects: Objects::new(objects),
            auth: auth.map(|block| AuthDefinition::compile(block, problems)),
            root: ApiRoot::compile(&file.provider, problems),
            base_url: file.provider.base_url.clone(),
            style: FieldStyle {
                null_is_empty_text: file.fields.null == NullStyle::EmptyText,
                values_are_text: file.fields.values == ValueStyle::Text,
            },
            kept_headers: kept_headers(&limits, &rules, problems),
            headers: fixed_headers(&file, problems),
            error_shape: ErrorShape::compile("error", &file.error, problems),
            id: file.provider.id,
            operations,
            limits,
            rules,
            batch_items_max: None,
        };
        definition.check(&file.operations, problems);
        Ok(definition)
    }

    /// What holds between the blocks of a file.
    fn check(&self, blocks: &super::file::OperationBlocks, problems: &mut Problems) {
        if let Some(url) = &self.base_url
            && !is_base_url(url)
        {
            problems.add("provider.base_url", TemplateError::NotAUrl(url.clone()));
        }
        for (at, limit) in self.limits.iter().enumerate() {
            if self.limits[..at]
                .iter()
                .any(|other| other.name == limit.name)
            {
                let key = format!("limits[{at}].name");
                problems.add(key, TemplateError::Twice(limit.name.clone()));
            }
        }
        check_batches(&self.batches, problems);
        for batch in &self.batches {
            for kind in batch.takes() {
                if blocks.block(*kind).is_none() {
                    let key = format!("batch.{}.takes", batch.name());
                    problems.add(key, TemplateError::NoSingleOperation(*kind));
                }
            }
        }
        let create = self.operation(CallKind::Create);
        if create.is_some_and(Operation::settled_by_upsert)
            && blocks.block(CallKind::Upsert).is_none()
        {
            let key = "operations.create.on_unknown";
            problems.add(key, TemplateError::Missing("operations.upsert"));
        }
        for kind in CallKind::ALL {
            let Some(Sending::Batch(name)) = self.operation(kind).map(Operation::sending) else {
                continue;
            };
            let mut batches = self.batches.iter();
            if !batches.any(|batch| batch.name() == name && batch.takes().contains(&kind)) {
                let key = format!("operations.{kind}.batch");
                problems.add(key, TemplateError::NoSuchBatch(name.clone()));
            }
        }
    }

    /// This definition with an account's own requests.
    ///
    /// # Errors
    /// The setting that does not compile, as `rest.create`.
    pub fn with_rest(mut self, settings: &RestSettings) -> Result<Definition, DefinitionError> {
        if let Some(version) = &settings.api_version {
            self = self.with_api_version(version)?;
        }
        for kind in CallKind::ALL {
            let slot = &mut self.operations[kind as usize];
            if let Some(operation) = slot {
                operation.change(kind, settings)?;
            } else if let Some(request) = settings.request(kind) {
                let mut operation = Operation::bare(kind, request)?;
                operation.change(kind, settings)?;
                *slot = Some(operation);
            }
        }
        if settings.batch.is_some() || settings.batch_body.is_some() {
            let [batch] = self.batches.as_mut_slice() else {
                return Err(DefinitionError::Template {
                    key: "rest.batch".to_owned(),
                    source: TemplateError::NoSuchBatch(String::new()),
                });
            };
            batch.change(settings)?;
        }
        Ok(self)
    }

    /// This definition with an account's own `batch.max_items`; what the provider takes stays the
    /// bound. 1 = no batches.
    #[must_use]
    pub fn with_batch_items_max(mut self, items: usize) -> Definition {
        self.batch_items_max = Some(items.max(1));
        self
    }

    /// This definition with the field that holds System A's key in records of this (remote)
    /// object, as the account's mapping names it.
    #[must_use]
    pub fn with_external_id(mut self, object: &str, field: &str) -> Definition {
        self.objects.set_external_id(object, field);
        self
    }

    /// This definition at another version of the provider's API.
    ///
    /// # Errors
    /// The definition has no root for this version, under the key `rest.api_version`.
    pub fn with_api_version(mut self, version: &str) -> Result<Definition, DefinitionError> {
        let chosen = self.root.choose(version);
        chosen.map_err(|source| DefinitionError::Template {
            key: "rest.api_version".to_owned(),
            source,
        })?;
        Ok(self)
    }

    /// The definition's own name, that of its file.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the provider is, for an account that does not say.
    pub fn base_url(&self) -> Option<&str> {
        self.base_url.as_deref()
    }

    /// What every request carries, by names in lower case.
    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }

    /// The reply headers it reads, by names in lower case; at most [`REPLY_HEADERS_MAX`], without
    /// `retry-after` and `date`, which every reply keeps.
    pub fn kept_headers(&self) -> &[String] {
        &self.kept_headers
    }

    /// How its accounts prove who they are.
    pub fn auth(&self) -> Option<&AuthDefinition> {
        self.auth.as_ref()
    }

    /// What it allows.
    pub fn limits(&self) -> &[LimitDefinition] {
        &self.limits
    }

    /// The mapping of System A's object for accounts that configure none.
    pub fn default_mapping(&self, object: &str) -> Option<&MappingSettings> {
        self.objects.default_mapping(object)
    }

    /// What the provider calls an object that may go by System A's usual name.
    pub fn remote_name<'a>(&'a self, object: &'a str) -> &'a str {
        self.objects.remote(object)
    }

    /// All of these, by System A's object.
    pub fn default_mappings(&self) -> impl Iterator<Item = (&str, &MappingSettings)> {
        self.objects.default_mappings()
    }

    /// How calls of this kind are made; `None` when the provider has no such call.
    pub fn operation(&self, kind: CallKind) -> Option<&Operation> {
        self.operations[kind as usize].as_ref()
    }

    /// The field that holds System A's key in records of this (remote) object.
    pub fn external_id(&self, remote: &str) -> Option<&str> {
        self.objects.names(self.objects.remote(remote)).external_id
    }

    /// Whether records of a mapping's object can be found by its match keys.
    ///
    /// # Errors
    /// Why not.
    pub fn check_match(&self, mapping: &Mapping) -> Result<(), String> {
        if mapping.match_keys().is_empty() {
            return Ok(());
        }
        if self.operation(CallKind::Match).is_none() {
            let id = &self.id;
            return Err(format!(
                "records of type \"{id}\" cannot be searched: it has no [operations.match]"
            ));
        }
        let upserts = self.operation(CallKind::Upsert).is_some();
        if upserts && self.external_id(mapping.remote()).is_none() {
            return Err(
                "needs `external_id`, the field that holds the record id there: else a \
                        record that was found would be made once more by that key"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The member of a record, as a read shows it, that holds System A's key.
    pub fn record_key(&self, remote: &str) -> Option<&str> {
        let named = self.objects.names(self.objects.remote(remote)).external_id;
        named.or_else(|| self.operation(CallKind::Read)?.key())
    }

    /// The record in the body of a read's reply, in the provider's names, and whether a field that is
    /// not in it is empty there. `None`: it is not where the definition says.
    pub fn record_in<'b>(&self, body: &'b [u8]) -> Option<(&'b str, bool)> {
        let operation = self.operation(CallKind::Read)?;
        let text = std::str::from_utf8(body).ok()?;
        let mut places = operation.record().iter();
        let record = match places.len() {
            0 => text,
            _ => places.find_map(|place| match place.find(text) {
                Ok(Landing::Value(record)) => Some(record),
                Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
            })?,
        };
        crate::json::RawObject::new(record).map(|_| (record, operation.whole()))
    }

    /// The request that does this to that record. Key, request id and traceparent are left empty
    /// for the caller.
    ///
    /// # Errors
    /// The record cannot be sent like this, and never will.
    pub fn render(&self, kind: CallKind, subject: &Subject<'_>) -> Result<Request, RenderError> {
        let operation = self.operation(kind).ok_or(RenderError::NoOperation(kind))?;
        let (method, path, body) = match operation.sending() {
            Sending::Request { method, path, body } => (*method, path, body),
            Sending::Batch(name) => return self.render_batch_of_one(name, kind, subject),
        };
        let subject = Subject {
            object: self.objects.remote(subject.object),
            ..*subject
        };
        let values = Values {
            kind,
            subject,
            names: self.objects.names(subject.object),
            item: 0,
            items: &[],
        };
        if kind == CallKind::Lookup && values.names.no_lookup {
            return Err(RenderError::NoLookup(subject.object.to_owned()));
        }
        let path_and_query = path.render(self.root(), &values)?;
        let body = match body {
            Some(template) => Bytes::from(template.render(&values, &self.style)?),
            None => Bytes::new(),
        };
        Ok(Request {
            kind,
            method,
            path_and_query,
            body,
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        })
    }

    fn render_batch_of_one(
        &self,
        batch: &str,
        kind: CallKind,
        subject: &Subject<'_>,
    ) -> Result<Request, RenderError> {
        let group = self
            .named_batch(batch, self.objects.remote(subject.object))
            .ok_or(RenderError::NoOperation(kind))?;
        let item = BatchItem {
            kind,
            subject: *subject,
        };
        self.render_batch(group, &[item])
            .map_err(|error| match error {
                RenderError::Item { source, .. } => *source,
                error => error,
            })
    }

    pub(crate) fn root(&self) -> &str {
        self.root.path()
    }

    pub(crate) fn field_style(&self) -> &FieldStyle {
        &self.style
    }

    /// What fails apart from the rest of an account when a call does: calls of one (remote) object,
    /// of them its reads, and those of a kind that the definition says has an endpoint of its own.
    pub fn endpoint<'a>(&'a self, kind: CallKind, object: &'a str, alone: bool) -> Cow<'a, str> {
        let object = self.objects.remote(object);
        let word = self.operation(kind).and_then(Operation::endpoint);
        let read = (kind == CallKind::Read).then_some(CallKind::Read.as_str());
        match word.filter(|_| alone).or(read) {
            Some(word) => Cow::Owned(format!("{object} {word}")),
            None => Cow::Borrowed(object),
        }
    }

    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    pub(crate) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    pub(crate) fn batches(&self) -> &[Batch] {
        &self.batches
    }

    pub(crate) fn own_batch_items_max(&self) -> Option<usize> {
        self.batch_items_max
    }

    pub(crate) fn error_shape(&self) -> &ErrorShape {
        &self.error_shape
    }

    pub(crate) fn rules(&self) -> &[ErrorRule] {
        &self.rules
    }
}

/// The headers that limits and error rules read, each once.
fn kept_headers(
    limits: &[LimitDefinition],
    rules: &[ErrorRule],
    problems: &mut Problems,
) -> Vec<String> {
    let limits = limits.iter().flat_map(LimitDefinition::headers);
    let named = limits.chain(rules.iter().flat_map(ErrorRule::headers));
    let mut kept: Vec<String> = named
        .filter(|name| !matches!(*name, "retry-after" | "date"))
        .map(str::to_owned)
        .collect();
    kept.sort();
    kept.dedup();
    if kept.len() > REPLY_HEADERS_MAX {
        problems.add("limits", TemplateError::TooManyHeaders(REPLY_HEADERS_MAX));
    }
    kept
}

fn fixed_headers(file: &DefinitionFile, problems: &mut Problems) -> Vec<(String, String)> {
    let headers = file.provider.headers.iter().filter_map(|(name, value)| {
        let key = format!("provider.headers.{name}");
        let name = problems.note(key, sendable_header(name, value))?;
        Some((name, value.clone()))
    });
    headers.collect()
}

/// Headers that say who calls, where to or how long a body is are the client's own.
fn sendable_header(name: &str, value: &str) -> Result<String, TemplateError> {
    let name = header_name(name)?;
    let ours = matches!(
        name.as_str(),
        "host"
            | "authorization"
            | "content-length"
            | "transfer-encoding"
            | "connection"
            | "idempotency-key"
            | "x-request-id"
            | "traceparent"
            | "accept-encoding"
    );
    let printable = value.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if ours || !printable || value.is_empty() {
        return Err(TemplateError::NotAHeader(format!("{name}: {value}")));
    }
    Ok(name)
}

fn is_base_url(url: &str) -> bool {
    let host = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    host.is_some_and(|host| {
        let graphic = host.bytes().all(|byte| byte.is_ascii_graphic());
        !host.is_empty() && graphic && !host.contains(['?', '#', '@', '{'])
    })
}

/// The text of the definition of that name that comes with this release.
pub fn shipped(id: &str) -> Option<&'static str> {
    SHIPPED
        .iter()
        .find(|(name, _)| *name == id)
        .map(|(_, text)| *text)
}

/// The names of all definitions that come with this release, sorted.
pub fn shipped_ids() -> impl Iterator<Item = &'static str> {
    SHIPPED.iter().map(|(name, _)| *name)
}

/// JSON Schema 2020-12 of a definition's shape, for editors; [`super::lint`] says more.
pub const SCHEMA: &str = include_str!("../../../providers/definition.schema.json");

/// Name and text of each file in `providers/`, written by the build script.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped_definitions.rs"));

/// The definition format of this release.
const FORMAT: u32 = 1;
