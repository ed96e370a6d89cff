//! What a run has seen happen: a fault that never strikes tests nothing.

use std::collections::BTreeMap;

/// Things that must happen sometimes, over enough seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// The process died.
    Killed,
    /// The power went.
    PowerCut,
    /// The power went in the middle of a disk operation.
    CutInWrite,
    /// A torn tail was cut.
    TornTail,
    /// The log began another segment.
    Rotated,
    /// A write failed and its log was poisoned.
    Poisoned,
    /// Recovery itself was interrupted.
    CrashInRecovery,
    /// Damage at rest was detected.
    DamageDetected,
    /// Recovery began at a checkpoint.
    CheckpointUsed,
    /// The newest checkpoint was lost, and the one before it used.
    CheckpointFallback,
    /// A segment was released.
    Released,
    /// An event was moved by compaction.
    EventMoved,
    /// A create's outcome was unknown, and the record was found.
    UnknownFound,
    /// A create's outcome was unknown, and the record was absent.
    UnknownAbsent,
    /// A create's intent had no outcome at a restart.
    IntentOpen,
    /// A lease ran out unused.
    LeaseUnspent,
    /// An account was held by its breaker.
    BreakerOpened,
    /// A probe was sent.
    Probed,
    /// An injected 429 was seen.
    Throttled,
    /// A call timed out.
    TimedOut,
    /// Dead letters were redriven.
    Redriven,
    /// Dead letters were dropped.
    Dropped,
    /// An operation failed.
    Failed,
    /// An operation was superseded.
    Superseded,
    /// The disk was full and intake was refused.
    DiskFull,
    /// Intake was taken again on a disk that had been full.
    DiskHealed,
    /// A hold was set.
    Held,
    /// Numbers above a producer's base were in some log at a restart.
    Islands,
    /// The wall clock stepped.
    ClockStepped,
    /// A shard stood still.
    Stalled,
    /// A log entry could not be read.
    ReadFailed,
    /// A record's state was too large for a frame.
    Shed,
    /// One call carried several operations of a record.
    Folded,
    /// Eight or more of them.
    FoldedMany,
    /// A call of several operations went out again with just these, more having come meanwhile.
    FoldedFrozen,
    /// A record was deleted before anything of it was sent.
    Unborn,
    /// A call carried several records.
    Batched,
    /// Such a call was refused as a whole for what was in it.
    BatchRefused,
    /// An answer to such a call did not tell of a record.
    RecordUntold,
    /// A change of an account became one for others.
    CameBack,
    /// What an account changed of a field of System A's was written back.
    WrittenBack,
    /// What was told of an account's id went to the shard that owns the record.
    HandedOver,
    /// A person deleted a record at an account.
    DeletedThere,
    /// Somebody made one record of two at an account.
    MergedThere,
    /// Somebody marked a record at an account as deleted,
    MarkedThere,
    /// or took the mark away.
    TakenBackThere,
    /// An account kept a text in its own spelling.
    Respelled,
    /// A notice never came.
    NoticeLost,
    /// A notice came that nobody signed.
    NoticeForged,
    /// A notice was taken, and its account did not hear of that.
    NoticeRepeated,
    /// A page of a list of changes came.
    Listed,
    /// A field waits for an operator.
    Undecided,
    /// An operator decided one.
    Decided,
    /// All was quiet, and there were edits one by one.
    QuietEdits,
    /// An endpoint failed five times in a row.
    EndpointHeld,
    /// An account said that its day's calls are spent.
    DaySpent,
    /// A rule or a switch left an account out.
    Skipped,
    /// A rule put another operation in the place of the event's.
    Turned,
    /// A rule, or what a mapping requires, kept an event from one account of several.
    RejectedAtOne,
    /// It kept one from all of them.
    Rejected,
    /// A rule gave a priority.
    RulePriority,
    /// A record could not be mapped.
    Unmappable,
    /// Other mappings or rules came into force.
    SetTaken,
    /// Bad ones were refused.
    SetRefused,
    /// A batch was refused, since its shard's ring was full.
    RingFull,
    /// A retry left while a first attempt had been waiting for longer.
    RetriedBeforeFirst,
}

impl Mark {
    /// All of them.
    pub const ALL: [Self; 66] = [
        Self::Killed,
        Self::PowerCut,
        Self::CutInWrite,
        Self::TornTail,
        Self::Rotated,
        Self::Poisoned,
        Self::CrashInRecovery,
        Self::DamageDetected,
        Self::CheckpointUsed,
        Self::CheckpointFallback,
        Self::Released,
        Self::EventMoved,
        Self::UnknownFound,
        Self::UnknownAbsent,
        Self::IntentOpen,
        Self::LeaseUnspent,
        Self::BreakerOpened,
        Self::Probed,
        Self::Throttled,
        Self::TimedOut,
        Self::Redriven,
        Self::Dropped,
        Self::Failed,
        Self::Superseded,
        Self::DiskFull,
        Self::DiskHealed,
        Self::Held,
        Self::Islands,
        Self::ClockStepped,
        Self::Stalled,
        Self::ReadFailed,
        Self::Shed,
        Self::Folded,
        Self::FoldedMany,
        Self::FoldedFrozen,
        Self::Unborn,
        Self::Batched,
        Self::BatchRefused,
        Self::RecordUntold,
        Self::CameBack,
        Self::WrittenBack,
        Self::HandedOver,
        Self::DeletedThere,
        Self::MergedThere,
        Self::MarkedThere,
        Self::TakenBackThere,
        Self::Respelled,
        Self::NoticeLost,
        Self::NoticeForged,
        Self::NoticeRepeated,
        Self::Listed,
        Self::Undecided,
        Self::Decided,
        Self::QuietEdits,
        Self::EndpointHeld,
        Self::DaySpent,
        Self::Skipped,
        Self::Turned,
        Self::RejectedAtOne,
        Self::Rejected,
        Self::RulePriority,
        Self::Unmappable,
        Self::SetTaken,
        Self::SetRefused,
        Self::RingFull,
        Self::RetriedBeforeFirst,
    ];
}

/// How often each was hit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    hits: BTreeMap<Mark, u64>,
}

impl Marks {
    /// It happened.
    pub fn hit(&mut self, mark: Mark) {
        *self.hits.entry(mark).or_default() += 1;
    }

    /// Adds what another run saw.
    pub fn join(&mut self, other: &Self) {
        for (&mark, hits) in &other.hits {
            *self.hits.entry(mark).or_default() += hits;
        }
    }

    /// How often it happened.
    #[must_use]
    pub fn count(&self, mark: Mark) -> u64 {
        self.hits.get(&mark).copied().unwrap_or(0)
    }

    /// What never happened.
    pub fn missed(&self) -> impl Iterator<Item = Mark> + '_ {
        Mark::ALL.into_iter().filter(|&mark| self.count(mark) == 0)
    }
}
