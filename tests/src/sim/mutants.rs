//! Bugs planted on purpose, to prove that the checkers see them.
//!
//! Each is a part of the simulated surroundings (disk, log port, driver, ingest) that behaves as
//! the real one would with the bug; the product's code is not touched.

use std::fmt;
use std::str::FromStr;

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutant {
    /// Batches are acknowledged when they are handed to their shards.
    AckBeforeDurable,
    /// The log calls durable what it only staged.
    EffectsBeforeDurable,
    /// Writes that should be durable are left in the cache.
    UnsyncedWrite,
    /// A failed sync is tried again, and the second success is believed.
    RetriedSync,
    /// Folders are not synced.
    NoFolderSync,
    /// A damaged log is taken for an empty one.
    DamageTakenForEnd,
    /// The coordinator starts with full budgets after a restart.
    FullBudgetAtRestart,
    /// Intents are not replayed, so an interrupted create is made again.
    ForgottenIntents,
    /// A create without an answer is taken for one that was never sent.
    BlindCreateRetry,
    /// A call is given up early, while it is still open at the provider.
    OverlappingRetry,
    /// Calls are reported as ended when they were sent.
    EarlyCompletion,
    /// Grants are delivered twice.
    DoubledGrants,
    /// After a restart a producer goes on behind its base; what lies above it is forgotten.
    LostIslands,
    /// After a restart a producer goes on behind the highest number seen.
    SkippedGaps,
    /// Final outcomes are not replayed.
    ForgottenOutcomes,
    /// A refused batch is acknowledged.
    AckedRefusal,
    /// A checkpoint counts before the log is durable up to where it has seen it.
    EarlyCheckpoint,
    /// Segments are released without looking for what still lives in them.
    CarelessRelease,
    /// Replies of two open calls of a shard change places.
    SwappedReplies,
    /// Redriven dead letters carry all of their old fields.
    StaleRedrive,
    /// A call carries the change behind a waiting DELETE as well.
    FoldAcrossDelete,
    /// A call of several operations goes without a field of the oldest.
    LostFoldedField,
    /// What a client sent behind a batch that was refused is taken.
    OvertakenRefusal,
    /// The oldest operation of a call does not end with it.
    OpenFoldedOperation,
    /// What became of a call is forgotten, and more operations join the next.
    GrowingFrozenFold,
    /// Operations that a call carried are called superseded.
    CarriedCalledSuperseded,
    /// Of the operations of a call the oldest has the last word.
    ReversedFold,
    /// A record that the answer to a batch does not tell of is taken for done.
    UntoldTakenForDone,
    /// A batch that was refused for one of its records fails them all.
    FailedNeighbours,
    /// Batches are twice as large as the account takes.
    OverfullBatch,
    /// After a restart it is not known what both sides agreed on.
    ForgottenBase,
    /// After a restart deletes are forgotten.
    ForgottenTombstone,
    /// A notice is acknowledged when it arrives, and logged a moment later.
    NoticeAckedBeforeDurable,
    /// A notice that nobody signed is believed.
    ForgedBelieved,
    /// A list is taken for as new as the moment at which it was asked for.
    StaleListTakenForNew,
    /// What an account changed is not told to the other accounts.
    ForgottenLearner,
    /// Fields that are System A's are taken for anybody's.
    OwnedTaken,
    /// What an account changed of a field of System A's is not written back.
    NotWrittenBack,
    /// A read does not show that a record is marked as deleted.
    MarkOverlooked,
    /// A record that is made again keeps the mark that it was deleted by.
    MarkLeftStanding,
    /// Of two records that became one, only the one that stays is heard of.
    MergeUnheard,
    /// What is told of an account's id does not come to the shard that owns the record.
    DroppedHandoffs,
    /// An account's id is taken for a record of its own although it is known.
    TwoLinks,
    /// A read shows the record as it was when it was read first.
    StaleReads,
    /// A record whose row in the answer to a batch tells of an error is taken for done.
    ErrorTakenForDone,
    /// The rows of an answer to a batch are taken in the order of the records sent.
    ResultsByPosition,
    /// A reply's Retry-After is not read.
    RetryAfterLost,
    /// The coordinator does not hear of failures and pauses.
    TroublesLost,
    /// Shards do not hear that an account or an endpoint is held.
    GatesLost,
    /// A breaker that is open stays open.
    NeverHalfOpen,
    /// Operations are tried more often than the account allows.
    EndlessAttempts,
    /// What is below the shards sends calls again that failed, and tells nobody.
    RetriesBelow,
    /// The same of all that is not made twice by it: retries take the place of first attempts.
    RetriesTakeAll,
    /// Shards are told that their leases may be spent for half a minute longer.
    LeaseSpentLate,
    /// Permits that a shard gives back are counted twice.
    ReturnCountedTwice,
    /// When a hold is over every shard is told to probe.
    ProbesForAll,
    /// What holds of one account is told of all accounts.
    HoldForAll,
    /// What ended with a call is not read back: the audit lines of folded operations are gone.
    AuditLineLost,
    /// A day's quota that is spent is taken for a server error.
    SpentTakenForFailure,
    /// A day's quota that is spent is taken for a refusal of the record.
    SpentTakenForRefusal,
    /// Slots are granted twice.
    DoubledSlots,
    /// Calls go by the mappings that were in force before.
    MappingsOfBefore,
    /// Of new mappings only the first shard hears.
    MappingsToldToOne,
    /// What went out by the mappings of before has the keys of what goes out by these.
    RenewalsForgotten,
    /// An event says that it was taken under the first mappings.
    MappingVersionLost,
    /// Of a bad set of mappings the sound fields are taken.
    BadMappingsTaken,
    /// A null clears, whatever is said of the field.
    NullPolicyIgnored,
    /// Values go as they are where a table stands between.
    ValueTableLeftOut,
    /// What a CREATE leaves out is left out.
    DefaultForgotten,
    /// A text goes as it is where it should go in capitals.
    CapitalsLeftOut,
    /// What a rule skips is sent.
    SkippedIsSent,
    /// What a rule turned into another operation goes as it came.
    TurnForgotten,
    /// Not the first rule that matches decides.
    SecondMatchWins,
    /// A share is thrown for each event.
    ShareOfEachEvent,
    /// Of a bad list of rules the sound ones are taken.
    BadRulesTaken,
    /// After a restart, what waits is decided by the rules in force then.
    DecidedAnew,
    /// What every account's rules reject is taken.
    RejectedTaken,
    /// The number of an event that rules reject is kept by whatever shard.
    RejectedKeptElsewhere,
    /// Fields that a mapping requires are not looked at where events are taken.
    RequiredIgnored,
    /// What a converter did is not undone on the way back.
    InverseLeftOut,
    /// Two fields change places on the way back.
    SwappedBack,
    /// The priority that a rule gives is lost.
    RulePriorityLost,
    /// The zone in which a provider's windows begin is not told.
    ZoneForgotten,
    /// A bucket is taken for a window as long as its period.
    BucketTakenForWindow,
    /// A shard's ring takes whatever comes, and refuses nothing.
    RingWithoutBound,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 85] = [
        Self::AckBeforeDurable,
        Self::EffectsBeforeDurable,
        Self::UnsyncedWrite,
        Self::RetriedSync,
        Self::NoFolderSync,
        Self::DamageTakenForEnd,
        Self::FullBudgetAtRestart,
        Self::ForgottenIntents,
        Self::BlindCreateRetry,
        Self::OverlappingRetry,
        Self::EarlyCompletion,
        Self::DoubledGrants,
        Self::LostIslands,
        Self::SkippedGaps,
        Self::ForgottenOutcomes,
        Self::AckedRefusal,
        Self::OvertakenRefusal,
        Self::EarlyCheckpoint,
        Self::CarelessRelease,
        Self::SwappedReplies,
        Self::StaleRedrive,
        Self::FoldAcrossDelete,
        Self::LostFoldedField,
        Self::OpenFoldedOperation,
        Self::GrowingFrozenFold,
        Self::CarriedCalledSuperseded,
        Self::ReversedFold,
        Self::UntoldTakenForDone,
        Self::FailedNeighbours,
        Self::OverfullBatch,
        Self::ForgottenBase,
        Self::ForgottenTombstone,
        Self::NoticeAckedBeforeDurable,
        Self::ForgedBelieved,
        Self::StaleListTakenForNew,
        Self::ForgottenLearner,
        Self::OwnedTaken,
        Self::NotWrittenBack,
        Self::MarkOverlooked,
        Self::MarkLeftStanding,
        Self::MergeUnheard,
        Self::DroppedHandoffs,
        Self::TwoLinks,
        Self::StaleReads,
        Self::ErrorTakenForDone,
        Self::ResultsByPosition,
        Self::RetryAfterLost,
        Self::TroublesLost,
        Self::GatesLost,
        Self::NeverHalfOpen,
        Self::EndlessAttempts,
        Self::RetriesBelow,
        Self::RetriesTakeAll,
        Self::LeaseSpentLate,
        Self::ReturnCountedTwice,
        Self::ProbesForAll,
        Self::HoldForAll,
        Self::AuditLineLost,
        Self::SpentTakenForFailure,
        Self::SpentTakenForRefusal,
        Self::DoubledSlots,
        Self::MappingsOfBefore,
        Self::MappingsToldToOne,
        Self::RenewalsForgotten,
        Self::MappingVersionLost,
        Self::BadMappingsTaken,
        Self::NullPolicyIgnored,
        Self::ValueTableLeftOut,
        Self::DefaultForgotten,
        Self::CapitalsLeftOut,
        Self::SkippedIsSent,
        Self::TurnForgotten,
        Self::SecondMatchWins,
        Self::ShareOfEachEvent,
        Self::BadRulesTaken,
        Self::DecidedAnew,
        Self::RejectedTaken,
        Self::RejectedKeptElsewhere,
        Self::RequiredIgnored,
        Self::RulePriorityLost,
        Self::InverseLeftOut,
        Self::SwappedBack,
        Self::ZoneForgotten,
        Self::BucketTakenForWindow,
        Self::RingWithoutBound,
    ];

    /// Whether it breaks a promise about mappings on the way back.
    #[must_use]
    pub fn is_of_mapping_back(self) -> bool {
        matches!(self, Self::InverseLeftOut | Self::SwappedBack)
    }

    /// Whether it breaks a promise about mappings or rules.
    #[must_use]
    pub fn is_of_sets(self) -> bool {
        matches!(
            self,
            Self::MappingsOfBefore
                | Self::MappingsToldToOne
                | Self::RenewalsForgotten
                | Self::MappingVersionLost
                | Self::BadMappingsTaken
                | Self::NullPolicyIgnored
                | Self::ValueTableLeftOut
                | Self::DefaultForgotten
                | Self::CapitalsLeftOut
                | Self::SkippedIsSent
                | Self::TurnForgotten
                | Self::SecondMatchWins
                | Self::ShareOfEachEvent
                | Self::BadRulesTaken
                | Self::DecidedAnew
                | Self::RejectedTaken
                | Self::RejectedKeptElsewhere
                | Self::RequiredIgnored
                | Self::RulePriorityLost
        )
    }

    /// Whether it breaks a promise about changes that come back.
    #[must_use]
    pub fn is_two_way(self) -> bool {
        matches!(
            self,
            Self::ForgottenBase
                | Self::ForgottenTombstone
                | Self::NoticeAckedBeforeDurable
                | Self::ForgedBelieved
                | Self::StaleListTakenForNew
                | Self::ForgottenLearner
                | Self::OwnedTaken
                | Self::NotWrittenBack
                | Self::DroppedHandoffs
                | Self::TwoLinks
                | Self::StaleReads
        ) || self.is_of_mapping_back()
            || self.is_of_marks()
            || self.is_of_merges()
    }

    /// Whether it breaks a promise about records that become one.
    #[must_use]
    pub fn is_of_merges(self) -> bool {
        self == Self::MergeUnheard
    }

    /// Whether it breaks a promise about records that are marked as deleted.
    #[must_use]
    pub fn is_of_marks(self) -> bool {
        matches!(self, Self::MarkOverlooked | Self::MarkLeftStanding)
    }

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl FromStr for Mutant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|mutant| mutant.name() == text)
            .ok_or_else(|| format!("no mutant {text:?}"))
    }
}
