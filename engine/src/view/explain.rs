//! Why a record waits, as the API tells it.

use super::UnixMs;
use crate::state::{Reason, State};

/// What is known under a record id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainLookup {
    /// One record.
    Found(ExplainView),
    /// Several objects have a record of this id.
    Ambiguous(Vec<String>),
    /// Nothing was ever taken for it.
    NotFound,
}

/// Why a record stands where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainView {
    /// System A's key.
    pub record_id: String,
    /// What kind of record.
    pub object: String,
    /// One entry an account that ever took an operation of it.
    pub targets: Vec<ExplainTarget>,
}

/// Why a record stands where it stands at one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainTarget {
    /// The account.
    pub provider: String,
    /// Of its oldest open operation, else of its last.
    pub state: State,
    /// The one reason why it waits; `None` when it does not, or waits for its turn only.
    pub reason: Option<Reason>,
    /// The same in a sentence, with names.
    pub detail: String,
    /// When it came to stand there.
    pub since: UnixMs,
    /// The earliest instant at which that may change.
    pub until: Option<UnixMs>,
    /// Operations of the account that are called before it, about; `None` when it is not in the
    /// queue.
    pub ahead: Option<u64>,
    /// When it may be called, by the account's rate.
    pub expected_at: Option<UnixMs>,
}
