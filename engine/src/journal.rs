//! The port through which a shard writes and reads its log.

use thiserror::Error;
use wal::Lsn;

/// What a log frame holds. The numbers are on disk and never change meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// An accepted event.
    Event = 1,
    /// An event copied forward by compaction, or a dead letter's as an operator edited it: the same
    /// operation.
    EventMoved = 2,
    /// A dead letter taken back to the queue, without the fields written since.
    EventRedriven = 3,
    /// A call that is not idempotent is about to leave.
    Intent = 4,
    /// The state of a record after an operation moved.
    State = 5,
    /// The state of a record copied forward by compaction.
    StateMoved = 6,
    /// Permits taken from a budget, before the first is spent.
    Lease = 7,
    /// Permits of a lease given back unspent.
    LeaseReturn = 8,
    /// A hold set or lifted by an operator.
    Hold = 9,
    /// Sequence numbers of a producer that ended without an event: refused or duplicate.
    Consumed = 10,
    /// The size of an account's limit, as it was learned.
    Learned = 11,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::Event,
        Self::EventMoved,
        Self::EventRedriven,
        Self::Intent,
        Self::State,
        Self::StateMoved,
        Self::Lease,
        Self::LeaseReturn,
        Self::Hold,
        Self::Consumed,
        Self::Learned,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|&kind| kind as u8 == byte)
    }

    /// A word for dumps.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::EventMoved => "event_moved",
            Self::EventRedriven => "event_redriven",
            Self::Intent => "intent",
            Self::State => "state",
            Self::StateMoved => "state_moved",
            Self::Lease => "lease",
            Self::LeaseReturn => "lease_return",
            Self::Hold => "hold",
            Self::Consumed => "consumed",
            Self::Learned => "learned",
        }
    }
}

/// What an append is for, and so how much of a scarce disk it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// New work; refused first.
    Intake,
    /// What became of work already taken; has a reserve.
    Outcome,
}

/// Why nothing was appended. State is unchanged in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Too much is staged; room comes with the next commit.
    #[error("the log's staging room is used up")]
    Full,
    /// The disk is too full for this class.
    #[error("the disk is full")]
    DiskFull,
    /// The frame is larger than a frame may be.
    #[error("the frame is too large")]
    TooLarge,
    /// A write failed; this log takes nothing any more.
    #[error("the log is poisoned by a failed write")]
    Poisoned,
}

/// Why a frame could not be read. State is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("frame at {lsn:?} cannot be read: {detail}")]
pub struct ReadError {
    /// The frame's position.
    pub lsn: Lsn,
    /// What is wrong with it.
    pub detail: String,
    /// Compaction gave the position up: nothing is wrong.
    pub gone: bool,
}

/// One shard's log as the core sees it.
pub trait Journal {
    /// Stages a frame and says where it will lie.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was staged.
    fn append(&mut self, class: Class, kind: Kind, parts: &[&[u8]]) -> Result<Lsn, AppendError>;

    /// Reads a frame, staged or durable, into `payload` (cleared first).
    ///
    /// # Errors
    /// See [`ReadError`].
    fn read(&mut self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<Kind, ReadError>;

    /// Every frame that begins before this position survives a crash.
    fn durable(&self) -> Lsn;

    /// Every frame appended so far begins below, every later one at or above.
    fn end(&self) -> Lsn;

    /// Bytes that this class can append now, both for want of staging room and of disk; 0 when
    /// closed, which for intake means that the disk is full.
    fn room(&self, class: Class) -> usize;
}
