//! Changes that come back: people who edit at the accounts, notices and lists that tell of it, and
//! what must hold of both sides then.

pub(super) mod agreement;
pub(super) mod inbound;
pub(super) mod leaves;
pub(super) mod ledger;
pub(super) mod notice;
pub mod options;
pub(super) mod side;
