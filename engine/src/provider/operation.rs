//! `[operations.KIND]`: how one kind of call is made and read.

use serde_json::Value;

use super::body_template::BodyTemplate;
use super::file::{IdMissing, OkBlock, OnUnknown, OperationBlock};
use super::path_template::{PathTemplate, split_request};
use super::placeholder::{Place, Placeholder};
use super::pointer::{Landing, Pointer};
use super::problems::Problems;
use super::{CallKind, DefinitionError, Method, RestSettings, TemplateError};

/// How one kind of call is made and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    sending: Sending,
    ok: Option<OkCondition>,
    id: Option<Pointer>,
    id_missing: IdMissing,
    many: Option<Pointer>,
    created: Option<Pointer>,
    gone: Vec<u16>,
    idempotent: bool,
    settled_by_upsert: bool,
    tags: Vec<String>,
    endpoint: Option<String>,
    record: Vec<Pointer>,
    key: Option<String>,
    whole: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sending {
    Request {
        method: Method,
        path: PathTemplate,
        body: Option<BodyTemplate>,
    },
    /// As a batch of one, by the batch's name.
    Batch(String),
}

/// A value that a success has in its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OkCondition {
    at: Pointer,
    is: Value,
}

impl Operation {
    /// Whether the same call sent twice leaves the provider as sent once: by key or by remote id.
    pub fn idempotent(&self) -> bool {
        self.idempotent
    }

    /// Of a create: the provider lets no second record have the key, so that an upsert by it settles
    /// what became of a call in doubt.
    pub fn settled_by_upsert(&self) -> bool {
        self.settled_by_upsert
    }

    /// What limits may call it beside the word of its kind.
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// The word for its endpoint, if its calls fail apart from others of the object.
    pub(crate) fn endpoint(&self) -> Option<&str> {
        self.endpoint.as_deref()
    }

    pub(crate) fn sending(&self) -> &Sending {
        &self.sending
    }

    pub(crate) fn ok(&self) -> Option<&OkCondition> {
        self.ok.as_ref()
    }

    pub(crate) fn id(&self) -> Option<&Pointer> {
        self.id.as_ref()
    }

    pub(crate) fn id_missing(&self) -> IdMissing {
        self.id_missing
    }

    /// Where a look-up's reply holds something only if several records have the key.
    pub(crate) fn many(&self) -> Option<&Pointer> {
        self.many.as_ref()
    }

    /// Where a read's reply has the record, the first place that leads somewhere; none: it is the
    /// record.
    pub(crate) fn record(&self) -> &[Pointer] {
        &self.record
    }

    /// The record's member that holds System A's key.
    pub(crate) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Whether a field that a read's reply does not have is empty.
    pub(crate) fn whole(&self) -> bool {
        self.whole
    }

    pub(crate) fn created(&self) -> Option<&Pointer> {
        self.created.as_ref()
    }

    pub(crate) fn means_gone(&self, status: u16) -> bool {
        self.gone.contains(&status)
    }

    pub(crate) fn compile(
        kind: CallKind,
        block: &OperationBlock,
        problems: &mut Problems,
    ) -> Option<Operation> {
        let key = |member: &str| format!("operations.{kind}.{member}");
        let sending = compile_sending(kind, block, problems);
        let pointer = |member: &str, text: &Option<String>, problems: &mut Problems| {
            let pointer = text.as_deref().map(Pointer::parse).transpose();
            problems.note(key(member), pointer).flatten()
        };
        let id = pointer("id", &block.id, problems);
        let created = pointer("created", &block.created, problems);
        let many = pointer("many", &block.many, problems);
        let record = block.record.as_slice().iter();
        let record: Result<Vec<Pointer>, _> = record.map(|text| Pointer::parse(text)).collect();
        let record = problems.note(key("record"), record).unwrap_or_default();
        let tells = !record.is_empty() || block.key.is_some() || block.whole;
        if tells && kind != CallKind::Read {
            problems.add(key("record"), TemplateError::Meaningless("record"));
        }
        if many.is_some() && kind != CallKind::Lookup {
            problems.add(key("many"), TemplateError::Meaningless("many"));
        }
        let ok = block.ok.as_ref();
        let ok = ok.and_then(|ok| problems.note(key("ok.at"), OkCondition::compile(ok)));
        let gone = compile_gone(kind, block, problems);
        match (block.on_unknown, block.idempotent) {
            (Some(OnUnknown::Retry), false) => {
                problems.add(key("on_unknown"), TemplateError::BlindRetry);
            }
            (Some(OnUnknown::Lookup), true) => {
                problems.add(key("on_unknown"), TemplateError::NeedlessLookup);
            }
            (Some(OnUnknown::Upsert), idempotent) if idempotent || kind != CallKind::Create => {
                problems.add(key("on_unknown"), TemplateError::NeedlessUpsert);
            }
            (Some(OnUnknown::Retry), true)
            | (Some(OnUnknown::Lookup | OnUnknown::Upsert), _)
            | (None, _) => {}
        }
        for tag in block.tags.iter().filter(|tag| !is_tag(tag)) {
            problems.add(key("tags"), TemplateError::NotATag(tag.clone()));
        }
        if let Some(word) = block.endpoint.as_ref().filter(|word| !is_tag(word)) {
            problems.add(key("endpoint"), TemplateError::NotATag(word.clone()));
        }
        let operation = Operation {
            sending: sending?,
            ok,
            id,
            id_missing: block.id_missing,
            many,
            created,
            gone,
            idempotent: block.idempotent,
            settled_by_upsert: block.on_unknown == Some(OnUnknown::Upsert),
            tags: block.tags.clone(),
            endpoint: block.endpoint.clone(),
            record,
            key: block.key.clone(),
            whole: block.whole,
        };
        if let Sending::Request { body, .. } = &operation.sending
            && kind.writes_fields()
            && !body.as_ref().is_some_and(BodyTemplate::has_fields)
        {
            problems.add(key("body"), TemplateError::NoFields(kind));
        }
        let checked = operation.check(kind);
        problems.note(key("path"), checked)?;
        Some(operation)
    }

    /// An operation that the definition lacks and an account adds.
    pub(crate) fn bare(kind: CallKind, request: &str) -> Result<Operation, DefinitionError> {
        let at = |source| DefinitionError::Template {
            key: format!("rest.{kind}"),
            source,
        };
        let (method, path) = split_request(request).map_err(at)?;
        let path = PathTemplate::compile(path, Place::Call).map_err(at)?;
        Ok(Operation {
            sending: Sending::Request {
                method,
                path,
                body: None,
            },
            ok: None,
            // As in the plain definition.
            id: match kind {
                CallKind::Match => Some(Pointer::parse("/results/0/id").map_err(at)?),
                _ => None,
            },
            id_missing: IdMissing::RecordId,
            many: None,
            created: None,
            gone: Vec::new(),
            idempotent: kind != CallKind::Create,
            settled_by_upsert: false,
            tags: Vec::new(),
            endpoint: None,
            record: Vec::new(),
            key: None,
            whole: false,
        })
    }

    /// Takes over what an account says of this kind of call.
    pub(crate) fn change(
        &mut self,
        kind: CallKind,
        settings: &RestSettings,
    ) -> Result<(), DefinitionError> {
        let at = |key: String| {
            move |source| DefinitionError::Template {
                key: format!("rest.{key}"),
                source,
            }
        };
        if let Some(request) = settings.request(kind) {
            let (new_method, new_path) = split_request(request).map_err(at(kind.to_string()))?;
            let new_path =
                PathTemplate::compile(new_path, Place::Call).map_err(at(kind.to_string()))?;
            let old_body = match &mut self.sending {
                Sending::Request { body, .. } => body.take(),
                Sending::Batch(_) => None,
            };
            self.sending = Sending::Request {
                method: new_method,
                path: new_path,
                body: old_body,
            };
        }
        if let Some(new_body) = settings.body(kind) {
            let key = format!("{kind}_body");
            let new_body = BodyTemplate::compile(new_body, Place::Call).map_err(at(key.clone()))?;
            match &mut self.sending {
                Sending::Request { body, .. } => *body = Some(new_body),
                Sending::Batch(_) => return Err(at(key)(TemplateError::RequestOrBatch)),
            }
        }
        if let Some((key, id)) = settings.id(kind) {
            self.id = Some(Pointer::parse(id).map_err(at(key.to_owned()))?);
        }
        self.check(kind).map_err(at(kind.to_string()))
    }

    /// What holds between the parts of an operation.
    fn check(&self, kind: CallKind) -> Result<(), TemplateError> {
        let Sending::Request { method, path, body } = &self.sending else {
            return Ok(());
        };
        let uses = |placeholder| {
            path.uses(placeholder) || body.as_ref().is_some_and(|body| body.needs(placeholder))
        };
        if uses(Placeholder::RemoteId) && !kind.has_remote_id() {
            return Err(TemplateError::NoRemoteIdYet(kind));
        }
        if kind == CallKind::Match {
            let asks = uses(Placeholder::MatchQuery) || uses(Placeholder::MatchConditions);
            if !asks && !body.as_ref().is_some_and(BodyTemplate::has_match) {
                return Err(TemplateError::NamesNoRecord(kind));
            }
            let id = self.id.as_ref().ok_or(TemplateError::NoIdPointer(kind))?;
            if !id.enters_list() {
                return Err(TemplateError::NoMatches);
            }
        }
        let names = matches!(kind, CallKind::Create | CallKind::Match);
        // A create names no record; anything else without a name is about the whole collection.
        if !names && !uses(Placeholder::RecordId) && !uses(Placeholder::RemoteId) {
            return Err(TemplateError::NamesNoRecord(kind));
        }
        if *method == Method::Get && body.is_some() {
            return Err(TemplateError::BodyOnGet);
        }
        if kind == CallKind::Lookup {
            let id = self.id.as_ref().ok_or(TemplateError::NoIdPointer(kind))?;
            if self.gone.is_empty() && !id.enters_list() {
                return Err(TemplateError::NoAbsent);
            }
        }
        Ok(())
    }
}

/// A word as settings spell it; those of the kinds mean the kinds.
fn is_tag(tag: &str) -> bool {
    let spelt = tag.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    spelt && !tag.is_empty() && CallKind::ALL.iter().all(|kind| kind.as_str() != tag)
}

fn compile_sending(
    kind: CallKind,
    block: &OperationBlock,
    problems: &mut Problems,
) -> Option<Sending> {
    let key = |member: &str| format!("operations.{kind}.{member}");
    let (method, path) = match (&block.method, &block.path, &block.batch) {
        (None, None, Some(batch)) if block.body.is_none() => {
            return Some(Sending::Batch(batch.clone()));
        }
        (Some(method), Some(path), None) => (method, path),
        _ => {
            problems.add(format!("operations.{kind}"), TemplateError::RequestOrBatch);
            return None;
        }
    };
    let parsed = Method::parse(method).ok_or_else(|| TemplateError::UnknownMethod(method.clone()));
    let method = problems.note(key("method"), parsed);
    let path = problems.note(key("path"), PathTemplate::compile(path, Place::Call));
    let body = block.body.as_ref();
    let body = body.map(|body| BodyTemplate::compile(body, Place::Call));
    let body = problems.note(key("body"), body.transpose());
    Some(Sending::Request {
        method: method?,
        path: path?,
        body: body?,
    })
}

fn compile_gone(kind: CallKind, block: &OperationBlock, problems: &mut Problems) -> Vec<u16> {
    let (key, statuses) = match kind {
        kind if kind.finds() => ("absent", &block.absent),
        _ => ("gone", &block.gone),
    };
    let other = match kind {
        kind if kind.finds() => ("gone", &block.gone),
        _ => ("absent", &block.absent),
    };
    if !other.1.is_empty() {
        let key = format!("operations.{kind}.{}", other.0);
        problems.add(key, TemplateError::Meaningless(other.0));
    }
    let wrong = statuses
        .iter()
        .find(|status| !(400..=499).contains(*status));
    if let Some(status) = wrong {
        let key = format!("operations.{kind}.{key}");
        problems.add(key, TemplateError::NotAnErrorStatus(*status));
    }
    statuses.clone()
}

impl OkCondition {
    pub(crate) fn compile(block: &OkBlock) -> Result<OkCondition, TemplateError> {
        Ok(OkCondition {
            at: Pointer::parse(&block.at)?,
            is: block.is.clone(),
        })
    }

    /// Whether the value is there and right; `None` when there is none.
    pub(crate) fn holds(&self, text: &str) -> Option<bool> {
        match self.at.find_any(text) {
            Ok(Landing::Value(json)) => {
                Some(serde_json::from_str::<Value>(json).is_ok_and(|value| value == self.is))
            }
            Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
        }
    }
}
