//! The engine at work: threads, their rings, start and stop.

pub(crate) mod backend;
mod checkpointer;
mod clock;
mod coordinator;
mod intake;
mod journal;
mod mailbox;
mod node;
mod open;
mod plans;
mod query;
mod registry;
mod remembered;
mod reshard;
mod router;
mod rule_store;
mod rules;
mod shard_thread;
mod start_error;
mod ticket;
mod tokens;

pub use journal::{STAGED_BYTES_MAX, ShardLog};
pub use node::Engine;
pub use start_error::StartError;
