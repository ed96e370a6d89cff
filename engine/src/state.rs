//! Where an operation stands for one target, and why.

/// The state of an operation for one target (PRODUCT: open or final).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// Accepted and next in line.
    Queued = 0,
    /// Held back; the [`Reason`] says by what.
    Waiting = 1,
    /// A call is open.
    InFlight = 2,
    /// A call failed in a way that time may cure.
    Retrying = 3,
    /// A call may or may not have taken effect; it is looked up before anything is sent.
    Unknown = 4,
    /// Both sides changed the same field and a person decides.
    Conflict = 5,
    /// The target holds the change.
    Synced = 16,
    /// A later operation replaced all of it.
    Superseded = 17,
    /// A rule left this target out.
    SkippedByRule = 18,
    /// Given up: a dead letter until it is retried or dropped.
    Failed = 19,
    /// Given up by an operator.
    Dropped = 20,
}

impl State {
    const ALL: [Self; 11] = [
        Self::Queued,
        Self::Waiting,
        Self::InFlight,
        Self::Retrying,
        Self::Unknown,
        Self::Conflict,
        Self::Synced,
        Self::Superseded,
        Self::SkippedByRule,
        Self::Failed,
        Self::Dropped,
    ];

    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        self as u8 >= Self::Synced as u8
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Waiting => "waiting",
            Self::InFlight => "in_flight",
            Self::Retrying => "retrying",
            Self::Unknown => "unknown",
            Self::Conflict => "conflict",
            Self::Synced => "synced",
            Self::Superseded => "superseded",
            Self::SkippedByRule => "skipped_by_rule",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&state| state as u8 == byte)
    }
}

/// Why an operation stands where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Reason {
    /// Behind an earlier operation of its record.
    Order = 1,
    /// The account's limits or its places for open calls are used up.
    Quota = 2,
    /// The account is held after failures that say nothing about the record.
    Breaker = 3,
    /// Held by an operator.
    Paused = 4,
    /// Its time has not come.
    Scheduled = 5,
    /// Waiting between attempts.
    Backoff = 6,
    /// The account's credentials are refused.
    Auth = 7,
    /// Goes along with a newer operation's call.
    Folded = 8,
    /// The record it refers to is not linked yet; as the reason of a failure: it never was.
    Parent = 9,
    /// A CREATE of a record that was linked already became an update.
    AlreadyLinked = 16,
    /// A DELETE found nothing to delete.
    Absent = 17,
    /// The other side has it already.
    Unchanged = 18,
    /// What an account told of one record belongs to another one, which got it.
    HandedOver = 19,
    /// An UPDATE after the record's delete.
    RecordDeleted = 32,
    /// A READ of a record that is not at the target.
    NotFound = 33,
    /// The target says the record is gone.
    Gone = 34,
    /// The target says the record exists, and a look-up does not find it.
    Duplicate = 35,
    /// The outcome is unknown and no key can settle it.
    NeedsDecision = 36,
    /// The target refused the change for good.
    Permanent = 37,
    /// The attempts or the time for them are used up.
    AttemptsExhausted = 38,
    /// The mapping cannot carry the record.
    Mapping = 39,
    /// The target's version moved under the change.
    Conflict = 40,
    /// Older than the record's delete.
    OlderThanDelete = 41,
    /// The account is not in the configuration any more.
    NoAccount = 42,
    /// Its bytes in the log are damaged.
    Damaged = 43,
    /// Several records at the target have its match key.
    MatchAmbiguous = 44,
    /// The record at the target that has its match key is linked to another one here.
    MatchTaken = 45,
}

impl Reason {
    const ALL: [Self; 27] = [
        Self::Order,
        Self::Quota,
        Self::Breaker,
        Self::Paused,
        Self::Scheduled,
        Self::Backoff,
        Self::Auth,
        Self::Folded,
        Self::Parent,
        Self::AlreadyLinked,
        Self::Absent,
        Self::Unchanged,
        Self::HandedOver,
        Self::RecordDeleted,
        Self::NotFound,
        Self::Gone,
        Self::Duplicate,
        Self::NeedsDecision,
        Self::Permanent,
        Self::AttemptsExhausted,
        Self::Mapping,
        Self::Conflict,
        Self::OlderThanDelete,
        Self::NoAccount,
        Self::Damaged,
        Self::MatchAmbiguous,
        Self::MatchTaken,
    ];

    /// The name in the API, in dead letters and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Quota => "quota",
            Self::Breaker => "breaker",
            Self::Paused => "paused",
            Self::Scheduled => "scheduled",
            Self::Backoff => "backoff",
            Self::Auth => "auth",
            Self::Folded => "folded",
            Self::Parent => "parent",
            Self::AlreadyLinked => "already_linked",
            Self::Absent => "absent",
            Self::Unchanged => "unchanged",
            Self::HandedOver => "handed_over",
            Self::RecordDeleted => "record_deleted",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::Duplicate => "duplicate",
            Self::NeedsDecision => "needs_decision",
            Self::Permanent => "permanent",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Mapping => "mapping",
            Self::Conflict => "conflict",
            Self::OlderThanDelete => "older_than_delete",
            Self::NoAccount => "no_account",
            Self::Damaged => "damaged",
            Self::MatchAmbiguous => "match_ambiguous",
            Self::MatchTaken => "match_taken",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&reason| reason as u8 == byte)
    }
}

/// What one call came to, as the attempt list and the call metric say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum CallClass {
    /// It took effect, or the read was answered.
    Done = 0,
    /// Refused for a limit.
    Throttled = 1,
    /// Failed in a way that time may cure.
    Transient = 2,
    /// May or may not have taken effect.
    Unknown = 3,
    /// Credentials refused.
    Unauthorized = 4,
    /// The record is not there any more.
    Gone = 5,
    /// The record is there already.
    Duplicate = 6,
    /// The target's version moved.
    Conflict = 7,
    /// Refused for good.
    Permanent = 8,
    /// The look-up found nothing.
    Absent = 9,
    /// Never reached the target.
    Unreachable = 10,
    /// Refused because a day's calls or the like are used up.
    QuotaExhausted = 11,
    /// The target is closed for a while.
    Maintenance = 12,
    /// Somebody else holds the record.
    Contention = 13,
    /// The account may not do this.
    Permission = 14,
    /// More than one record has the key.
    Ambiguous = 15,
}

impl CallClass {
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Done,
        Self::Throttled,
        Self::Transient,
        Self::Unknown,
        Self::Unauthorized,
        Self::Gone,
        Self::Duplicate,
        Self::Conflict,
        Self::Permanent,
        Self::Absent,
        Self::Unreachable,
        Self::QuotaExhausted,
        Self::Maintenance,
        Self::Contention,
        Self::Permission,
        Self::Ambiguous,
    ];

    /// The name in the API and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Throttled => "throttled",
            Self::Transient => "transient",
            Self::Unknown => "unknown",
            Self::Unauthorized => "unauthorized",
            Self::Gone => "gone",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::Permanent => "permanent",
            Self::Absent => "absent",
            Self::Unreachable => "unreachable",
            Self::QuotaExhausted => "quota_exhausted",
            Self::Maintenance => "maintenance",
            Self::Contention => "contention",
            Self::Permission => "permission",
            Self::Ambiguous => "ambiguous",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.get(usize::from(byte)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_reason_and_class_survives_its_byte() {
        for state in State::ALL {
            assert_eq!(State::from_byte(state as u8), Some(state));
        }
        for reason in Reason::ALL {
            assert_eq!(Reason::from_byte(reason as u8), Some(reason));
        }
        for class in CallClass::ALL {
            assert_eq!(CallClass::from_byte(class as u8), Some(class));
        }
        assert_eq!(State::from_byte(99), None);
    }
}
