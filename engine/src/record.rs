//! What the log remembers of one record: its links, what was never delivered, its last operations.

mod state_frame;

pub use state_frame::{Folded, StateFrame};

use crate::id::OperationSeq;
use crate::merge::Base;
use crate::state::{CallClass, Reason, State};

/// Attempts kept with an operation, the newest. The count of burnt ones is exact beyond it.
pub const ATTEMPTS_KEPT: usize = 16;
/// Bytes of a provider's words kept with an attempt.
pub const DETAIL_MAX: usize = 512;

/// A record as its newest state frame holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordState {
    /// Local object name.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// One entry per account that ever took an operation of this record.
    pub targets: Vec<TargetState>,
    /// The record is known by an account's own id only, and is this one of System A's.
    pub alias_of: Option<String>,
}

impl RecordState {
    /// A record nothing is known of.
    #[must_use]
    pub fn new(object: &str, record_id: &str) -> Self {
        Self {
            object: object.to_owned(),
            record_id: record_id.to_owned(),
            targets: Vec::new(),
            alias_of: None,
        }
    }

    /// What is known of the record at `account`.
    #[must_use]
    pub fn target(&self, account: &str) -> Option<&TargetState> {
        self.targets.iter().find(|target| target.account == account)
    }

    /// Takes out the entries made for dropped dead letters beside an account's own.
    pub fn leave_out_drops(&mut self) {
        let mut at = 0;
        while at < self.targets.len() {
            let account = &self.targets[at].account;
            if self.targets[..at]
                .iter()
                .any(|before| before.account == *account)
            {
                self.targets.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The same, begun when nothing is known.
    pub fn target_mut(&mut self, account: &str) -> &mut TargetState {
        let at = match self
            .targets
            .iter()
            .position(|target| target.account == account)
        {
            Some(at) => at,
            None => {
                self.targets.push(TargetState::new(account));
                self.targets.len() - 1
            }
        };
        &mut self.targets[at]
    }
}

/// A record at one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetState {
    /// The account's name.
    pub account: String,
    /// Whether and as what the record exists there.
    pub link: Link,
    /// Fields of failed operations since the last one that arrived, merged in order: the
    /// ground beneath an UPDATE that has to create the record. A JSON object, or empty.
    pub undelivered: Vec<u8>,
    /// The operation whose outcome this frame was written for.
    pub last: Option<Progress>,
    /// What both sides agreed on, where changes of the account are taken.
    pub base: Option<Box<Base>>,
}

impl TargetState {
    pub(crate) fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            link: Link::Unlinked,
            undelivered: Vec::new(),
            last: None,
            base: None,
        }
    }

    /// The producer says under which id the record is there. A record that was deleted since
    /// stays deleted, and a link that is known stays.
    pub fn adopt(&mut self, remote_id: &str) {
        if matches!(self.link, Link::Unlinked | Link::Doubtful) {
            self.link = Link::Linked(remote_id.to_owned());
        }
    }

    /// A record that is gone was deleted once more, at `changed_at_ms`.
    pub(crate) fn delete_again(&mut self, changed_at_ms: i64) {
        if let Link::Deleted {
            changed_at_ms: deleted_at_ms,
        } = &mut self.link
        {
            *deleted_at_ms = changed_at_ms.max(*deleted_at_ms);
        }
    }

    /// The record may exist without our knowing.
    pub(crate) fn doubt(&mut self) {
        if self.link.remote_id().is_none() {
            self.link = Link::Doubtful;
        }
    }

    /// The progress of operation `seq`, if it is the last one here.
    #[must_use]
    pub fn progress_of(&self, seq: OperationSeq) -> Option<&Progress> {
        self.last.as_ref().filter(|progress| progress.seq == seq)
    }
}

/// Whether a record exists at a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// Not known to exist.
    #[default]
    Unlinked,
    /// Exists under this remote id.
    Linked(String),
    /// May exist: an attempt to create it ended without a clear answer. It is looked up before
    /// another create, since that could make a second one.
    Doubtful,
    /// Deleted by us; `changed_at_ms` is when System A deleted it.
    Deleted {
        /// System A's time of the delete, ms since the epoch.
        changed_at_ms: i64,
    },
    /// It became part of another record there: System A's key of that one.
    MergedInto(String),
}

impl Link {
    /// The remote id, when linked.
    #[must_use]
    pub fn remote_id(&self) -> Option<&str> {
        match self {
            Self::Linked(id) => Some(id),
            Self::Unlinked | Self::Doubtful | Self::Deleted { .. } | Self::MergedInto(_) => None,
        }
    }
}

/// How far an operation has come at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The operation.
    pub seq: OperationSeq,
    /// What it is, as [`crate::event::Operation`] numbers it.
    pub operation: u8,
    /// Where its event lies in the log, as the raw position.
    pub event: u64,
    /// Its state after the latest attempt.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// What its next call has to be.
    pub resume: Resume,
    /// The idempotency key in use.
    pub key: KeyUse,
    /// Attempts that count toward the limit.
    pub burnt: u16,
    /// The first attempt, ms since the epoch; 0 before it.
    pub first_attempt_ms: i64,
    /// When the state changed last, ms since the epoch.
    pub updated_at_ms: i64,
    /// When an unknown outcome arose, ms since the epoch; 0 if none is open.
    pub unknown_since_ms: i64,
    /// Not before this, ms since the epoch; 0 for at once.
    pub due_ms: i64,
    /// The newest attempts, at most [`ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// What a READ returned: a JSON object, or empty.
    pub result: Vec<u8>,
    /// Older operations of the record that its call carries along; they are the ones right before
    /// it, and end with it.
    pub folded: u32,
}

impl Progress {
    /// An operation before its first attempt.
    #[must_use]
    pub fn new(seq: OperationSeq, operation: u8, event: u64) -> Self {
        Self {
            seq,
            operation,
            event,
            state: State::Queued,
            reason: None,
            resume: Resume::Normal,
            key: KeyUse::default(),
            burnt: 0,
            first_attempt_ms: 0,
            updated_at_ms: 0,
            unknown_since_ms: 0,
            due_ms: 0,
            attempts: Vec::new(),
            result: Vec::new(),
            folded: 0,
        }
    }

    /// Whether a call may have reached the target without our knowing what became of it. Until
    /// that is known, the next call carries the same operations.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        !self.state.is_final()
            && (self.resume.is_in_doubt()
                || self.unknown_since_ms > 0
                || self.last_telling().is_some_and(|at| {
                    let class = self.attempts[at].class;
                    matches!(class, CallClass::Transient | CallClass::Unknown)
                }))
    }

    /// The newest attempt that tells of the record. One that was held off, by a limit, for its
    /// rights, by somebody else's lock or on the way, leaves open what became of those before it.
    fn last_telling(&self) -> Option<usize> {
        self.attempts.iter().rposition(|attempt| {
            !matches!(
                attempt.class,
                CallClass::Throttled
                    | CallClass::QuotaExhausted
                    | CallClass::Maintenance
                    | CallClass::Contention
                    | CallClass::Permission
                    | CallClass::Unauthorized
                    | CallClass::Unreachable
            )
        })
    }

    /// The same, for a newer operation that takes the call over: the attempts stay counted, the
    /// idempotency key is the newer one's own.
    #[must_use]
    pub fn handed_to(&self, seq: OperationSeq, operation: u8, event: u64) -> Self {
        Self {
            seq,
            operation,
            event,
            key: KeyUse::default(),
            // A newer change may have other values of a match key, or the first ones.
            resume: match self.resume {
                Resume::Match(_) => Resume::Normal,
                resume => resume,
            },
            ..self.clone()
        }
    }

    /// Adds an attempt, letting the oldest go when the list is full; not the newest that tells of
    /// the record, by which the call may be frozen.
    pub fn push_attempt(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS_KEPT {
            let keeps_oldest = self.last_telling() == Some(0);
            self.attempts.remove(usize::from(keeps_oldest));
        }
        self.attempts.push(attempt);
    }
}

/// What the next call of an operation has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// What the table of operations says.
    #[default]
    Normal,
    /// A look-up: the outcome of the call before is unknown.
    LookUp,
    /// An upsert by key: the look-up found nothing and the time to settle is over.
    Upsert,
    /// A look-up: the target says that the record exists.
    LookUpDuplicate,
    /// A create: the record is known to be absent from a target that has no upsert.
    Create,
    /// An update: the target said that the record exists, and which one it is.
    Update,
    /// An update that gives the record our key: it was found by a match key.
    Adopt,
    /// As [`Resume::Normal`]: so many of the match keys led to no record.
    Match(u8),
}

/// From here on the number in the log counts match keys.
const MATCH_BYTE: u8 = 16;

impl Resume {
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Normal => 0,
            Self::LookUp => 1,
            Self::Upsert => 2,
            Self::LookUpDuplicate => 3,
            Self::Create => 4,
            Self::Update => 5,
            Self::Adopt => 6,
            Self::Match(asked) => MATCH_BYTE.saturating_add(asked),
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Normal,
            1 => Self::LookUp,
            2 => Self::Upsert,
            3 => Self::LookUpDuplicate,
            4 => Self::Create,
            5 => Self::Update,
            6 => Self::Adopt,
            MATCH_BYTE.. => Self::Match(byte - MATCH_BYTE),
            _ => return None,
        })
    }

    /// Whether the table of operations says what comes next.
    #[must_use]
    pub fn is_normal(self) -> bool {
        self.matched().is_some()
    }

    /// How many match keys were asked for in vain; `None`: it is known whether the record is there.
    #[must_use]
    pub fn matched(self) -> Option<u8> {
        match self {
            Self::Normal => Some(0),
            Self::Match(asked) => Some(asked),
            _ => None,
        }
    }

    /// The same, with one match key more asked for in vain.
    #[must_use]
    pub fn next_match(self) -> Self {
        Self::Match(self.matched().unwrap_or(0).saturating_add(1))
    }

    /// Whether it resolves what became of the call before.
    #[must_use]
    pub fn is_in_doubt(self) -> bool {
        match self {
            Self::Normal | Self::Create | Self::Update | Self::Adopt | Self::Match(_) => false,
            Self::LookUp | Self::Upsert | Self::LookUpDuplicate => true,
        }
    }
}

/// The idempotency key of an operation's newest request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUse {
    /// 0 before the first request, 1 for `<operation_id>`, n for `<operation_id>.n`.
    pub number: u16,
    /// Digest of method, path and body sent under it.
    pub digest: u64,
}

impl KeyUse {
    /// The key use for a request with this digest: the same request keeps its key, any
    /// other one gets the next behind so many that may have gone out since, with nobody knowing
    /// with what.
    #[must_use]
    pub fn advance(self, digest: u64, gone_out: u16) -> Self {
        if self.number > 0 && self.digest == digest {
            self
        } else {
            Self {
                number: self.number.saturating_add(1).saturating_add(gone_out),
                digest,
            }
        }
    }
}

/// One call made for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When its outcome was known, ms since the epoch.
    pub at_ms: i64,
    /// HTTP status; 0 when no answer came.
    pub status: u16,
    /// What it came to.
    pub class: CallClass,
    /// The provider's words or ours, at most [`DETAIL_MAX`] bytes.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_request_keeps_its_key_and_another_gets_the_next() {
        let first = KeyUse::default().advance(10, 0);
        assert_eq!(first.number, 1);
        assert_eq!(first.advance(10, 0), first);
        assert_eq!(first.advance(11, 0).number, 2);
    }

    #[test]
    fn keys_that_may_have_gone_out_are_passed_over_by_another_request_alone() {
        assert_eq!(KeyUse::default().advance(10, 1).number, 2);
        let first = KeyUse::default().advance(10, 0);
        assert_eq!(first.advance(10, 2), first);
        assert_eq!(first.advance(11, 2).number, 4);
    }

    #[test]
    fn only_an_unclear_outcome_freezes_what_a_call_carries() {
        let mut progress = Progress::new(OperationSeq(1), 0, 8);
        assert!(!progress.is_frozen());
        for (class, frozen) in [
            (CallClass::Throttled, false),
            (CallClass::Unreachable, false),
            (CallClass::Transient, true),
            (CallClass::Unknown, true),
        ] {
            progress.push_attempt(Attempt {
                at_ms: 0,
                status: 0,
                class,
                detail: String::new(),
            });
            assert_eq!(progress.is_frozen(), frozen, "{class:?}");
        }
        for at_ms in 1..=(ATTEMPTS_KEPT as i64 + 3) {
            progress.push_attempt(Attempt {
                at_ms,
                status: 429,
                class: CallClass::Throttled,
                detail: String::new(),
            });
            assert!(
                progress.is_frozen(),
                "a 429 tells nothing of the call before"
            );
        }
        assert_eq!(progress.attempts.len(), ATTEMPTS_KEPT);
        progress.state = State::Synced;
        assert!(!progress.is_frozen(), "it ended");
    }

    #[test]
    fn attempts_beyond_the_kept_ones_push_out_the_oldest() {
        let mut progress = Progress::new(OperationSeq(1), 0, 8);
        for at_ms in 0..(ATTEMPTS_KEPT as i64 + 3) {
            progress.push_attempt(Attempt {
                at_ms,
                status: 0,
                class: CallClass::Transient,
                detail: String::new(),
            });
        }
        assert_eq!(progress.attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(progress.attempts[0].at_ms, 3);
    }
}
