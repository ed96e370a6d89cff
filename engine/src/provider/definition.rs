//! A provider's operations as data.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::body_template::BodyTemplate;
use super::path_template::{PathTemplate, Placeholder, split_request};
use super::pointer::Pointer;
use super::{CallKind, Method, Request, RestSettings, Subject, TemplateError};

/// A provider, compiled: what the files in `providers/` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    id: String,
    /// By [`CallKind`], in the order of [`CallKind::ALL`].
    operations: [Option<Operation>; CallKind::ALL.len()],
}

/// How one kind of call is made and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    method: Method,
    path: PathTemplate,
    body: Option<BodyTemplate>,
    id: Option<Pointer>,
    gone: Vec<u16>,
    idempotent: bool,
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
    /// A template or pointer does not compile.
    #[error("`{key}`: {source}")]
    Template {
        /// The key it stands under: `operations.create.path`, or `rest.create`.
        key: String,
        /// What is wrong with it.
        #[source]
        source: TemplateError,
    },
}

/// Why a record cannot be put into a request: it would fail every time. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RenderError {
    /// The provider has no such operation.
    #[error("the provider has no {0} operation")]
    NoOperation(CallKind),
    /// The call needs the remote id of a record that is not linked.
    #[error("the record has no remote id")]
    NoRemoteId,
    /// Empty, `.` or `..`: the path would lead to something other than the record.
    #[error("{placeholder} is empty, `.` or `..` and cannot stand in a path")]
    UnsafePathPart {
        /// The placeholder's name.
        placeholder: &'static str,
    },
    /// Longer than servers read.
    #[error("the path is longer than {limit} bytes")]
    PathTooLong {
        /// In bytes.
        limit: usize,
    },
}

impl Definition {
    /// Compiles the text of a definition file.
    pub fn parse(text: &str) -> Result<Definition, DefinitionError> {
        let file: DefinitionFile = toml::from_str(text).map_err(DefinitionError::Syntax)?;
        if file.provider.format != FORMAT {
            return Err(DefinitionError::Format {
                found: file.provider.format,
            });
        }
        let mut operations = [const { None }; CallKind::ALL.len()];
        for (kind, slot) in CallKind::ALL.into_iter().zip(&mut operations) {
            if let Some(block) = file.operations.block(kind) {
                *slot = Some(Operation::compile(kind, block)?);
            }
        }
        Ok(Definition {
            id: file.provider.id,
            operations,
        })
    }

    /// This definition with an account's own requests.
    pub fn with_rest(mut self, settings: &RestSettings) -> Result<Definition, DefinitionError> {
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
        Ok(self)
    }

    /// The definition's own name, that of its file.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// How calls of this kind are made; `None` when the provider has no such call.
    pub fn operation(&self, kind: CallKind) -> Option<&Operation> {
        self.operations[kind as usize].as_ref()
    }

    /// The request that does this to that record. Key, request id and traceparent are left empty
    /// for the caller.
    pub fn render(&self, kind: CallKind, subject: &Subject<'_>) -> Result<Request, RenderError> {
        let operation = self.operation(kind).ok_or(RenderError::NoOperation(kind))?;
        let path_and_query = operation.path.render(subject)?;
        let body = match &operation.body {
            Some(template) => Bytes::from(template.render(subject)?),
            None => Bytes::new(),
        };
        Ok(Request {
            kind,
            method: operation.method,
            path_and_query,
            body,
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        })
    }
}

impl Operation {
    /// Whether the same call sent twice leaves the provider as sent once: by key or by remote id.
    pub fn idempotent(&self) -> bool {
        self.idempotent
    }

    pub(crate) fn id(&self) -> Option<&Pointer> {
        self.id.as_ref()
    }

    pub(crate) fn means_gone(&self, status: u16) -> bool {
        self.gone.contains(&status)
    }

    fn compile(kind: CallKind, block: &OperationBlock) -> Result<Operation, DefinitionError> {
        let key = |member: &str| format!("operations.{kind}.{member}");
        let at = |member: &str| {
            let key = key(member);
            move |source| DefinitionError::Template { key, source }
        };
        let method = Method::parse(&block.method)
            .ok_or_else(|| TemplateError::UnknownMethod(block.method.clone()))
            .map_err(at("method"))?;
        let path = PathTemplate::compile(&block.path).map_err(at("path"))?;
        let body = block
            .body
            .as_ref()
            .map(BodyTemplate::compile)
            .transpose()
            .map_err(at("body"))?;
        let id = block
            .id
            .as_deref()
            .map(Pointer::parse)
            .transpose()
            .map_err(at("id"))?;
        if let Some(status) = block
            .gone
            .iter()
            .find(|status| !(400..=499).contains(*status))
        {
            return Err(at("gone")(TemplateError::NotAnErrorStatus(*status)));
        }
        let operation = Operation {
            method,
            path,
            body,
            id,
            gone: block.gone.clone(),
            idempotent: block.idempotent,
        };
        operation.check(kind).map_err(at("path"))?;
        Ok(operation)
    }

    /// An operation that the definition lacks and an account adds.
    fn bare(kind: CallKind, request: &str) -> Result<Operation, DefinitionError> {
        let at = |source| DefinitionError::Template {
            key: format!("rest.{kind}"),
            source,
        };
        let (method, path) = split_request(request).map_err(at)?;
        let path = PathTemplate::compile(path).map_err(at)?;
        Ok(Operation {
            method,
            path,
            body: None,
            id: None,
            gone: Vec::new(),
            idempotent: kind != CallKind::Create,
        })
    }

    fn change(&mut self, kind: CallKind, settings: &RestSettings) -> Result<(), DefinitionError> {
        let at = |key: String| {
            move |source| DefinitionError::Template {
                key: format!("rest.{key}"),
                source,
            }
        };
        if let Some(request) = settings.request(kind) {
            let (method, path) = split_request(request).map_err(at(kind.to_string()))?;
            self.method = method;
            self.path = PathTemplate::compile(path).map_err(at(kind.to_string()))?;
        }
        if let Some(body) = settings.body(kind) {
            self.body = Some(BodyTemplate::compile(body).map_err(at(format!("{kind}_body")))?);
        }
        if let Some((key, id)) = settings.id(kind) {
            self.id = Some(Pointer::parse(id).map_err(at(key.to_owned()))?);
        }
        self.check(kind).map_err(at(kind.to_string()))
    }

    /// What holds between the parts of an operation.
    fn check(&self, kind: CallKind) -> Result<(), TemplateError> {
        let uses = |placeholder| {
            self.path.uses(placeholder)
                || self
                    .body
                    .as_ref()
                    .is_some_and(|body| body.uses(placeholder))
        };
        if uses(Placeholder::RemoteId) && !kind.has_remote_id() {
            return Err(TemplateError::NoRemoteIdYet(kind));
        }
        // A create names no record; anything else without a name is about the whole collection.
        if kind != CallKind::Create && !uses(Placeholder::RecordId) && !uses(Placeholder::RemoteId)
        {
            return Err(TemplateError::NamesNoRecord(kind));
        }
        if self.method == Method::Get && self.body.is_some() {
            return Err(TemplateError::BodyOnGet);
        }
        if kind == CallKind::Lookup && self.id.is_none() {
            return Err(TemplateError::NoIdPointer(kind));
        }
        Ok(())
    }
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

/// Name and text of each file in `providers/`, written by the build script.
const SHIPPED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped_definitions.rs"));

/// The definition format of this release.
const FORMAT: u32 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DefinitionFile {
    provider: ProviderBlock,
    operations: OperationBlocks,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProviderBlock {
    id: String,
    format: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationBlocks {
    create: Option<OperationBlock>,
    upsert: Option<OperationBlock>,
    update: Option<OperationBlock>,
    delete: Option<OperationBlock>,
    read: Option<OperationBlock>,
    lookup: Option<OperationBlock>,
}

impl OperationBlocks {
    fn block(&self, kind: CallKind) -> Option<&OperationBlock> {
        match kind {
            CallKind::Create => self.create.as_ref(),
            CallKind::Upsert => self.upsert.as_ref(),
            CallKind::Update => self.update.as_ref(),
            CallKind::Delete => self.delete.as_ref(),
            CallKind::Read => self.read.as_ref(),
            CallKind::Lookup => self.lookup.as_ref(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationBlock {
    method: String,
    path: String,
    body: Option<Value>,
    id: Option<String>,
    #[serde(default)]
    gone: Vec<u16>,
    idempotent: bool,
}
