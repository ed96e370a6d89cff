//! The budgets of provider accounts: one coordinator owns them, shards spend leases.
//!
//! A call needs one permit, which is the tokens it costs of every windowed limit of its account,
//! one slot, and an open gate. Tokens are lent to shards in leases, spent at the send, and come
//! back to their pool only when the provider has surely forgotten the call: that is the whole
//! proof that no window is ever exceeded, see `docs/design/quota.md`.

mod account;
mod adaptive;
mod calendar;
mod classes;
mod coordinator;
mod dice;
mod endpoints;
mod forecast;
mod gate;
mod holding;
mod holdings;
mod kept;
mod lane;
mod learned;
mod leases;
mod limit;
mod limits;
mod message;
mod pool;
mod rate;
mod refill;
mod restart;
mod restoring;
mod retry_budget;
mod share;
mod slots;
mod tally;
mod truth;
mod wall;

use std::time::Duration;

pub use self::account::AccountView;
pub use self::classes::{CostClass, CostClasses, POLL_TAG};
pub use self::coordinator::{Coordinator, Start};
pub use self::endpoints::{ENDPOINTS_MAX, EndpointView};
pub use self::forecast::{BacklogTrend, drains_in};
pub use self::gate::{BreakerPhase, BreakerView};
pub use self::holdings::{
    CallEnd, Holdings, LeaseTaken, Permit, Refusal, Settled, Verdict, Waiting,
};
pub use self::learned::{IN_FLIGHT, Learned, LearnedFrom};
pub use self::limit::{Limit, Policy, Reserve, Weights};
pub use self::limits::{AccountLimits, HoldSettings, LimitsError};
pub use self::message::{
    AccountId, Ended, EndpointWord, FromShard, Gate, HoldReason, LeaseId, ShardId, ToShard, Trouble,
};
pub use self::pool::LimitView;
pub use self::restart::RecoveredLease;
pub use self::retry_budget::{Attempts, RetryBudget};
pub use self::truth::Observation;

/// Operations of this priority or better are urgent: a limit may keep tokens for them.
pub const URGENT_PRIORITY_MAX: u8 = 3;

/// How long after we gave up a call, or died, the provider may still begin to count it: what is
/// on the wire arrives or is lost. Holds for sockets that reset on close (`SO_LINGER` 0), so
/// that the kernel sends nothing on a dead call's behalf.
const ARRIVAL_GRACE: Duration = Duration::from_secs(2);
