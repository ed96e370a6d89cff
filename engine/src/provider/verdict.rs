//! What a reply says about its operation.

#[cfg(doc)]
use super::DETAIL_BYTES_MAX;
use super::{PauseScope, RetryAfter};

/// A call's outcome in the engine's words. `detail` is a printable excerpt of the provider's error
/// of at most [`DETAIL_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The provider did it; a delete of what was gone is done as well.
    Done {
        /// The record's remote id after a create or upsert, unless the definition says that the
        /// provider may leave it out; never else.
        remote_id: Option<String>,
        /// The provider says (by 201, or as the definition has it) that it made a new record.
        created: bool,
    },
    /// A look-up found the record.
    Found {
        /// Its remote id.
        remote_id: String,
    },
    /// A look-up found that there is no such record.
    Absent,
    /// The account pauses; the provider's state did not change.
    Throttled {
        /// For how long.
        retry_after: RetryAfter,
        /// The limit that was hit, by the definition's name for it, when the reply told.
        limit: Option<String>,
        /// See [`Verdict`].
        detail: String,
    },
    /// A long window (a day's calls) is used up: the account is parked, and asked again after
    /// this time or when its window turns; the provider's state did not change.
    QuotaExhausted {
        /// When to ask again at the latest.
        retry_after: RetryAfter,
        /// As for [`Verdict::Throttled`].
        limit: Option<String>,
        /// See [`Verdict`].
        detail: String,
    },
    /// The provider is closed for a while; its state did not change.
    Maintenance {
        /// For how long.
        retry_after: RetryAfter,
        /// See [`Verdict`].
        detail: String,
    },
    /// The request never left (refused, DNS, TLS): transient; the provider's state did not change.
    Unreachable {
        /// See [`Verdict`].
        detail: String,
    },
    /// The provider failed; the same call may be sent again.
    Transient {
        /// See [`Verdict`].
        detail: String,
    },
    /// The record is locked by somebody else, or was refused for another's fault: nothing was
    /// written, this record is tried again soon.
    Contention {
        /// When.
        retry_after: RetryAfter,
        /// See [`Verdict`].
        detail: String,
    },
    /// It may have been done or not; to be resolved before anything else is sent.
    Unknown {
        /// See [`Verdict`].
        detail: String,
    },
    /// 401: the account's credentials were refused.
    Unauthorized {
        /// See [`Verdict`].
        detail: String,
    },
    /// The account may not do this, or is not set up for it: every such record would be refused,
    /// so this is for a person and burns no attempt.
    Permission {
        /// What should pause until then.
        pause: PauseScope,
        /// See [`Verdict`].
        detail: String,
    },
    /// The linked record does not exist any more.
    Gone {
        /// See [`Verdict`].
        detail: String,
    },
    /// Another record has this key.
    Duplicate {
        /// That record, when the provider named it.
        remote_id: Option<String>,
        /// See [`Verdict`].
        detail: String,
    },
    /// The record changed at the provider since its last known version.
    Conflict {
        /// See [`Verdict`].
        detail: String,
    },
    /// More than one record has this key; `detail` holds what the provider says of them.
    Ambiguous {
        /// See [`Verdict`].
        detail: String,
    },
    /// Refused; the same call would be refused again.
    Permanent {
        /// See [`Verdict`].
        detail: String,
    },
}

impl Verdict {
    /// The word for attempts and for the label `class` of metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Verdict::Done { .. } => "done",
            Verdict::Found { .. } => "found",
            Verdict::Absent => "absent",
            Verdict::Throttled { .. } => "throttled",
            Verdict::QuotaExhausted { .. } => "quota_exhausted",
            Verdict::Maintenance { .. } => "maintenance",
            Verdict::Contention { .. } => "contention",
            Verdict::Permission { .. } => "permission",
            Verdict::Ambiguous { .. } => "ambiguous",
            Verdict::Unreachable { .. } => "unreachable",
            Verdict::Transient { .. } => "transient",
            Verdict::Unknown { .. } => "unknown",
            Verdict::Unauthorized { .. } => "unauthorized",
            Verdict::Gone { .. } => "gone",
            Verdict::Duplicate { .. } => "duplicate",
            Verdict::Conflict { .. } => "conflict",
            Verdict::Permanent { .. } => "permanent",
        }
    }

    /// The provider's error, for people; `None` when there was none.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Verdict::Done { .. } | Verdict::Found { .. } | Verdict::Absent => None,
            Verdict::Throttled { detail, .. }
            | Verdict::QuotaExhausted { detail, .. }
            | Verdict::Maintenance { detail, .. }
            | Verdict::Contention { detail, .. }
            | Verdict::Permission { detail, .. }
            | Verdict::Ambiguous { detail }
            | Verdict::Unreachable { detail }
            | Verdict::Transient { detail }
            | Verdict::Unknown { detail }
            | Verdict::Unauthorized { detail }
            | Verdict::Gone { detail }
            | Verdict::Duplicate { detail, .. }
            | Verdict::Conflict { detail }
            | Verdict::Permanent { detail } => Some(detail),
        }
    }

    /// Whether every record of its object would have been refused, and of others maybe none.
    pub fn is_of_object(&self) -> bool {
        matches!(
            self,
            Verdict::Permission {
                pause: PauseScope::Object,
                ..
            }
        )
    }

    /// Whether the failure would have met any record: it burns no attempt of this one.
    pub fn says_nothing_about_record(&self) -> bool {
        match self {
            Verdict::Throttled { .. }
            | Verdict::QuotaExhausted { .. }
            | Verdict::Maintenance { .. }
            | Verdict::Permission { .. }
            | Verdict::Unreachable { .. }
            | Verdict::Unauthorized { .. } => true,
            Verdict::Done { .. }
            | Verdict::Found { .. }
            | Verdict::Absent
            | Verdict::Transient { .. }
            | Verdict::Contention { .. }
            | Verdict::Unknown { .. }
            | Verdict::Gone { .. }
            | Verdict::Duplicate { .. }
            | Verdict::Conflict { .. }
            | Verdict::Ambiguous { .. }
            | Verdict::Permanent { .. } => false,
        }
    }
}

/// As long as a record id may be.
pub const REMOTE_ID_BYTES_MAX: usize = 512;
