//! What experience says of a limit, for the log: plain values that outlive a restart.

/// The size of a limit as it was learned. The newest for a limit and source counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Learned {
    /// The account's name.
    pub account: String,
    /// The limit's name, or [`IN_FLIGHT`] for the calls in flight.
    pub limit: String,
    /// Where it comes from.
    pub from: LearnedFrom,
    /// Its size; `None`: nothing holds any more but the configuration, which caps it always.
    pub tokens: Option<u32>,
}

/// Whose word a learned size is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LearnedFrom {
    /// The provider named it in a reply.
    Provider,
    /// Calls were refused (429) below the configured limit.
    Refusals,
}

/// The name under which the calls in flight of a whole account are learned and shown.
pub const IN_FLIGHT: &str = "in_flight";
