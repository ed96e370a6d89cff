//! Operations that were given up, as the API tells of them.

use super::{AttemptView, UnixMs};

/// Which dead letters are meant; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterFilter {
    /// Of this account.
    pub provider: Option<String>,
    /// Of this kind of record.
    pub object: Option<String>,
    /// That failed for this reason.
    pub code: Option<String>,
    /// Of this record.
    pub record_id: Option<String>,
    /// That failed in these words, as a group's signature has them.
    pub signature: Option<String>,
}

/// An operation that failed at one target and waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterView {
    /// Names it.
    pub id: String,
    /// The record.
    pub record_id: String,
    /// What kind of record.
    pub object: String,
    /// The account it failed at.
    pub provider: String,
    /// The operation that failed.
    pub operation_id: String,
    /// Why, in one word.
    pub code: String,
    /// Why, in the provider's or the engine's words.
    pub detail: String,
    /// Calls it had.
    pub attempts: u32,
    /// When it was given up.
    pub dead_at: UnixMs,
    /// Fields that both sides changed and that wait for a decision.
    pub held: Vec<HeldView>,
}

/// A field that both sides changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldView {
    /// The field of System A's record, as a pointer.
    pub field: String,
    /// System A's value, as JSON text.
    pub system_a: String,
    /// The account's value, as JSON text.
    pub provider: String,
    /// Since when it waits.
    pub since: UnixMs,
}

/// Everything that is kept of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterDetail {
    /// What a list shows of it.
    pub letter: DeadLetterView,
    /// CREATE, READ, UPDATE, UPSERT or DELETE.
    pub operation: &'static str,
    /// When it was accepted.
    pub accepted_at: UnixMs,
    /// What a redrive would send, as far as nothing newer wrote it: a JSON object's text.
    pub data: Option<String>,
    /// Oldest first; of very many only the newest.
    pub attempts: Vec<AttemptView>,
    /// What makes it one of a group.
    pub signature: String,
    /// Version of the rules it was taken under.
    pub rules_version: u32,
    /// Version of the mappings it was taken under.
    pub mapping_version: u32,
}

/// Dead letters that failed alike: the same words but for ids and numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetterGroup {
    /// The account.
    pub provider: String,
    /// What kind of record.
    pub object: String,
    /// Why, in one word.
    pub code: String,
    /// Why, in words without ids and numbers.
    pub signature: String,
    /// How many.
    pub count: u64,
    /// One of them.
    pub example: String,
    /// When the first of them was given up.
    pub oldest: UnixMs,
    /// When the last of them was given up.
    pub newest: UnixMs,
}

/// All groups, the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetterGroups {
    /// As many as are told apart.
    pub groups: Vec<DeadLetterGroup>,
    /// Dead letters beyond these groups.
    pub others: u64,
}
