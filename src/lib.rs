//! Syncline keeps records in step between a company's own system and external APIs: durable
//! before it acknowledges, in order per record, within every rate limit.
//!
//! [`Engine`] is the whole of it in one process; the program `syncline` is a thin user.

mod runtime;
pub mod settings;

pub use runtime::{
    ApiKey, Engine, KeyFile, Rehearsal, Rehearsed, STAGED_BYTES_MAX, ShardLog, StartError,
};
