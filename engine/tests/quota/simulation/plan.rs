//! What a run is made of, and what may go wrong in it.

use std::ops::Range;

use jiff::tz::TimeZone;
use syncline_engine::quota::{AccountLimits, Policy};

use super::{MS, Outcome, SECOND, Simulation};
use crate::planted::Bug;

/// What happens in a run. Each hazard comes once in so many seconds on average, 0 never; with
/// another `hazards_every` than a tenth of a second, in proportion.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) hazards_every: u64,
    pub(crate) limits: AccountLimits,
    pub(crate) shards: u16,
    pub(crate) length: u64,
    pub(crate) latency: Range<u64>,
    pub(crate) commit: Range<u64>,
    pub(crate) wake: Range<u64>,
    /// One in so many calls times out.
    pub(crate) timeouts: u64,
    pub(crate) stalls: u64,
    pub(crate) losses: u64,
    pub(crate) crashes: u64,
    /// The longest time between a crash and the restart.
    pub(crate) down_max: u64,
    /// Crashes after which the machine boots anew.
    pub(crate) reboots: bool,
    pub(crate) wall_steps: u64,
    /// The provider cannot be reached for a while.
    pub(crate) outages: u64,
    /// One in so many calls is answered 429 with a pause of a few seconds.
    pub(crate) throttles: u64,
    /// Hazards end here, so that what follows shows whether all recovers.
    pub(crate) calm_from: u64,
    pub(crate) clock_ppm: i64,
    pub(crate) wall_ahead_ms: i64,
    /// Every shard always has work, else demand is skewed and comes in bursts.
    pub(crate) backlog: bool,
    /// The tags of each kind of call that shards make.
    pub(crate) kinds: Vec<Vec<&'static str>>,
    /// Replies say what the provider counts of the first limit.
    pub(crate) tells: bool,
    /// Another application calls once in so long, never when empty.
    pub(crate) others: Range<u64>,
    /// The run ends when so many calls were sent.
    pub(crate) calls_max: u64,
    /// A bug planted on purpose.
    pub(crate) bug: Option<Bug>,
}

impl Plan {
    pub(crate) fn new(seed: u64, limits: AccountLimits, shards: u16, length: u64) -> Self {
        Self {
            seed,
            hazards_every: SECOND / 10,
            limits,
            shards,
            length,
            latency: 50 * MS..50 * MS,
            commit: MS..2 * MS,
            wake: MS / 100..MS / 5,
            timeouts: 0,
            stalls: 0,
            losses: 0,
            crashes: 0,
            down_max: 30 * SECOND,
            reboots: false,
            wall_steps: 0,
            outages: 0,
            throttles: 0,
            calm_from: u64::MAX,
            clock_ppm: 0,
            wall_ahead_ms: 0,
            backlog: true,
            kinds: vec![vec![]],
            tells: false,
            others: 0..0,
            calls_max: u64::MAX,
            bug: None,
        }
    }

    /// The limits as the coordinator is told them.
    pub(super) fn configured(&self) -> AccountLimits {
        let mut told = self.limits.clone();
        for limit in &mut told.limits {
            if let (Some(Bug::ZoneForgotten), Policy::Fixed { zone, .. }) =
                (self.bug, &mut limit.policy)
            {
                *zone = TimeZone::UTC;
            }
        }
        told
    }

    pub(crate) fn run(&self) -> Outcome {
        Simulation::new(self.clone()).run()
    }
}
