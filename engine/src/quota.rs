//! The budgets of provider accounts: one coordinator owns them, shards spend leases.

mod limits;
mod message;

pub use self::limits::{AccountLimits, HoldSettings, Limit, LimitsError, Policy};
pub use self::message::{
    AccountId, Ended, FromShard, Gate, HoldReason, LeaseId, ShardId, ToShard, Trouble,
};
