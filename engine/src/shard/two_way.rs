//! How changes come back from an account: what its plan says of it, and how an event tells of it.

use std::borrow::Cow;
use std::sync::Arc;

use super::handoff::News;
use crate::event::codec::AcceptedEvent;
use crate::merge::ConflictPolicy;

/// The name under which System A is a target like an account.
pub const SYSTEM_A: &str = "system_a";

/// What an account is to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Role {
    /// An external API.
    #[default]
    Provider,
    /// System A itself: it is told what the accounts changed.
    SystemA,
}

/// How one object's changes at an account come back.
#[derive(Debug, Clone, Default)]
pub struct TwoWay {
    /// How fields end that both sides changed.
    pub conflicts: ConflictPolicy,
    /// What a delete at the account does.
    pub deletes: DeletePolicy,
    /// Who learns what the account changed: System A and the other accounts that take the object.
    pub learners: Vec<Arc<str>>,
    /// Whether changes of the account are taken; if not, only what was sent is remembered.
    pub inbound: bool,
}

/// What a delete at an account does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletePolicy {
    /// Everybody deletes the record.
    #[default]
    Propagate,
    /// Nobody else does; the record is not linked there any more.
    Ignore,
}

/// Names of an internal event's own fields. A producer's begin with `x_`.
pub mod extra {
    /// The account that a change comes from, as a JSON text.
    pub const ORIGIN: &str = "origin";
    /// The account's id of the record when it changed there, as a JSON text, or `null`.
    pub const REMOTE_ID: &str = "remote_id";
    /// Fields that do not come from [`ORIGIN`]: an object of pointers, each with the account and when
    /// it changed there, ms since the epoch.
    pub const SOURCES: &str = "sources";
    /// What a pull tells: [`DELETED`], [`RESTORED`], or nothing special.
    pub const KIND: &str = "kind";
    /// The record is gone at the account.
    pub const DELETED: &str = "deleted";
    /// The record was gone at the account and is back.
    pub const RESTORED: &str = "restored";
    /// The account's id of the record that this one is part of now, as a JSON text. In a delete
    /// that comes of it: System A's key of that record.
    pub const MERGED_INTO: &str = "merged_into";
    /// When the data was asked for, a number of ms since the epoch.
    pub const READ_AT: &str = "read_at";
    /// When System A said what came after it had heard of more, ms of the shard's steady clock.
    pub const LATE: &str = "late";
    /// Present when the data is the whole record.
    pub const WHOLE: &str = "whole";
    /// Present when the record is named by the account's own id, since System A's is not known.
    pub const PROVISIONAL: &str = "provisional";
}

/// What an event of [`crate::event::Operation::Pull`] says beside its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hint {
    pub(super) deleted: bool,
    pub(super) restored: bool,
    /// The account's id of the record that this one is part of now.
    pub(super) merged_into: Option<String>,
    pub(super) whole: bool,
    pub(super) provisional: bool,
    /// When the data was asked for; without that it may be of any time, and says only that
    /// something changed.
    pub(super) read_at_ms: Option<i64>,
}

impl Hint {
    pub(super) fn of(event: &AcceptedEvent<'_>) -> Self {
        let has = |name: &str| event.event.extras.iter().any(|extra| extra.name == name);
        let kind = text_of(event, extra::KIND);
        let mut extras = event.event.extras.iter();
        let read_at = extras.find(|extra| extra.name == extra::READ_AT);
        Self {
            deleted: kind.as_deref() == Some(extra::DELETED),
            restored: kind.as_deref() == Some(extra::RESTORED),
            merged_into: merged_into(event).map(Cow::into_owned),
            whole: has(extra::WHOLE),
            provisional: has(extra::PROVISIONAL),
            read_at_ms: read_at.and_then(|at| at.value.text().parse().ok()),
        }
    }

    /// What happened to the record.
    pub(super) fn news(&self) -> News<'_> {
        match &self.merged_into {
            Some(into) => News::MergedInto(into),
            None if self.deleted => News::Deleted,
            None if self.restored => News::Restored,
            None => News::Changed,
        }
    }
}

/// Whether this is to be compared with what System A has been told already.
pub(super) fn is_late(event: &AcceptedEvent<'_>) -> bool {
    late(event).is_some()
}

/// When System A said what came late, by the shard's steady clock.
pub(super) fn late_since(event: &AcceptedEvent<'_>) -> Option<i64> {
    late(event)?.parse().ok()
}

fn late<'a>(event: &AcceptedEvent<'a>) -> Option<&'a str> {
    let mut extras = event.event.extras.iter();
    let late = extras.find(|extra| extra.name == extra::LATE)?;
    Some(late.value.text())
}

/// The account that a change comes from; `None`: System A.
pub(super) fn origin_of<'a>(event: &'a AcceptedEvent<'_>) -> Option<Cow<'a, str>> {
    text_of(event, extra::ORIGIN)
}

/// The record that this one is part of now.
pub(super) fn merged_into<'a>(event: &'a AcceptedEvent<'_>) -> Option<Cow<'a, str>> {
    text_of(event, extra::MERGED_INTO)
}

fn text_of<'a>(event: &'a AcceptedEvent<'_>, name: &str) -> Option<Cow<'a, str>> {
    let mut extras = event.event.extras.iter();
    extras.find(|extra| extra.name == name)?.value.as_text()
}
