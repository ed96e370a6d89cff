//! The budgets of provider accounts: one coordinator owns them, shards spend leases.
//!
//! A call needs one permit, which is one token of every windowed limit of its account, one
//! slot, and an open gate. Tokens are lent to shards in leases, spent at the send, and come
//! back to their pool only when the provider has surely forgotten the call: that is the whole
//! proof that no window is ever exceeded, see `docs/design/quota.md`.

mod account;
mod coordinator;
mod dice;
mod gate;
mod holding;
mod holdings;
mod limits;
mod message;
mod pool;
mod restart;
mod restoring;
mod retry_budget;
mod share;
mod slots;
mod wall;

use std::time::Duration;

pub use self::account::AccountView;
pub use self::coordinator::{Coordinator, Start};
pub use self::holdings::{CallEnd, Holdings, LeaseTaken, Permit, Refusal, Verdict};
pub use self::limits::{AccountLimits, HoldSettings, Limit, LimitsError, Policy};
pub use self::message::{
    AccountId, Ended, FromShard, Gate, HoldReason, LeaseId, ShardId, ToShard, Trouble,
};
pub use self::pool::LimitView;
pub use self::restart::RecoveredLease;
pub use self::retry_budget::RetryBudget;

/// How long after we gave up a call, or died, the provider may still begin to count it: what is
/// on the wire arrives or is lost. Holds for sockets that reset on close (`SO_LINGER` 0), so
/// that the kernel sends nothing on a dead call's behalf.
const ARRIVAL_GRACE: Duration = Duration::from_secs(2);
