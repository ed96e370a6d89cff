//! Long work that an operator started, as the API tells of it.

use super::UnixMs;

/// Work that goes on after it was asked for, at a rate, until it is done or cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobView {
    /// Names it.
    pub id: String,
    /// What it does.
    pub kind: JobKind,
    /// How it stands.
    pub state: JobState,
    /// Operations or records that it is about.
    pub matched: u64,
    /// Of these, carried out so far.
    pub done: u64,
    /// Of these, left as they are since they need it no more or cannot be had.
    pub left_out: u64,
    /// At most so many a second.
    pub rate: u32,
    /// When it began.
    pub started_at: UnixMs,
    /// When it ended.
    pub ended_at: Option<UnixMs>,
    /// What there is to say of it.
    pub detail: Option<String>,
}

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobKind {
    /// Takes dead letters back to the queue.
    Redrive,
    /// Sends the state of records again.
    Replay,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Under way.
    Running,
    /// Ended by itself.
    Done,
    /// Ended by an operator; what was done stays done.
    Cancelled,
    /// Ended by a shard that takes nothing; what was done stays done.
    Failed,
}

impl JobKind {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Replay => "replay",
        }
    }
}

impl JobState {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}
