//! The core of Syncline: what happens to an event between acceptance and its final state.
//!
//! Everything here is told what it needs to know (commands, completions, how far the log is
//! durable, the time, the dice) and answers with effects. It opens no file, no socket, no
//! thread and no lock. The entry is [`shard::Shard`].
#![forbid(unsafe_code)]

pub mod codec;
pub mod decide;
pub mod dedup;
pub mod entry;
pub mod event;
pub mod expression;
pub mod id;
pub mod index;
pub mod journal;
pub mod json;
pub mod lane;
pub mod mapping;
pub mod merge;
pub mod operation_slab;
pub mod producers;
pub mod provider;
pub mod quota;
pub mod ready;
pub mod record;
pub mod record_table;
pub mod refusal;
pub mod retry;
pub mod rules;
pub mod schema;
pub mod shard;
pub mod state;
pub mod time;
pub mod timer;
pub mod timestamp;
pub mod view;
