//! The engine at work: threads, their rings, start and stop.

pub(crate) mod backend;
mod causes;
mod checkpointer;
mod clock;
mod coordinator;
mod dead_letters;
mod durable_file;
mod explain;
mod in_force;
mod intake;
mod jobs;
mod journal;
mod keys;
mod mailbox;
mod node;
mod open;
mod override_member;
mod plans;
mod query;
mod registry;
mod remembered;
mod replay;
mod reshard;
mod router;
mod shard_thread;
mod shards;
mod signature;
mod start_error;
mod ticket;
mod tuning;

pub use journal::{STAGED_BYTES_MAX, ShardLog};
pub use keys::{ApiKey, KeyFile};
pub use node::Engine;
pub use start_error::StartError;
