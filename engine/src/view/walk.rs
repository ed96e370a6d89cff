//! Walks through all records that an account lists of an object, as the API tells of them.

use std::collections::BTreeMap;

use super::{JobState, UnixMs};

/// What a walk is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalkPurpose {
    /// Changes were missed: all that is listed is taken, and what is not listed any more is read.
    Resync,
    /// The first load, beside live changes.
    Backfill,
    /// Both sides are compared; differences are repaired if that was asked for.
    Reconcile,
}

/// What is to be walked through.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkRequest {
    /// What for.
    pub purpose: WalkPurpose,
    /// The account.
    pub provider: String,
    /// Local object.
    pub object: String,
    /// Calls are made only while less than this part of every limit of the account is used.
    pub share: f64,
    /// The part of the records that is compared, by a hash of their ids.
    pub sample: f64,
    /// Whether differences are repaired.
    pub repair: bool,
    /// Records that are repaired at most.
    pub repairs_max: u64,
    /// If a larger part of the linked records is absent there, none of them is touched.
    pub absent_max: f64,
    /// Why, for who looks at it later.
    pub cause: String,
}

/// How far a walk is, and what it found.
#[derive(Debug, Clone, PartialEq)]
pub struct WalkView {
    /// Names it.
    pub id: String,
    /// What was asked for.
    pub request: WalkRequest,
    /// How it stands.
    pub state: JobState,
    /// What it does now: `listing`, `absent` or `rows`.
    pub phase: &'static str,
    /// What was found so far.
    pub tally: WalkTally,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// What there is to say of it.
    pub detail: Option<String>,
    /// Why it makes no call just now.
    pub waits_for: Option<String>,
}

/// What a walk found, in records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WalkTally {
    /// Shown by the account.
    pub listed: u64,
    /// Rows of System A's that were read.
    pub rows: u64,
    /// Handed to the engine.
    pub taken: u64,
    /// As both sides agreed.
    pub equal: u64,
    /// At the account, and not known here.
    pub missing_here: u64,
    /// Linked here, and not in the account's list.
    pub missing_there: u64,
    /// A row of System A's that is not linked to the account.
    pub unlinked: u64,
    /// Linked here, and System A has no row of it.
    pub missing_row: u64,
    /// Some field is not as both sides agreed.
    pub differs: u64,
    /// Something of them is on its way: they are looked at another time.
    pub waits: u64,
    /// Some field waits for an operator.
    pub held: u64,
    /// Differences of these were handed in to be repaired.
    pub repaired: u64,
    /// Records that differ or are held, by field.
    pub fields: BTreeMap<String, u64>,
    /// Some of them.
    pub examples: Vec<WalkExample>,
}

/// One record that is not equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalkExample {
    /// As the member of [`WalkTally`] that counts it.
    pub cause: &'static str,
    /// System A's key, if it has one.
    pub record_id: Option<String>,
    /// The account's key, if it has one.
    pub remote_id: Option<String>,
    /// Which fields.
    pub fields: Vec<String>,
}

impl WalkPurpose {
    /// Every purpose.
    pub const ALL: [Self; 3] = [Self::Resync, Self::Backfill, Self::Reconcile];

    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resync => "resync",
            Self::Backfill => "backfill",
            Self::Reconcile => "reconcile",
        }
    }
}
