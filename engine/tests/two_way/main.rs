//! Two sides of the same records, kept in step by real shards: whatever happens in whatever order,
//! in the end all show the same.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod exhaustive;
mod explore;
mod marks;
mod matching;
mod random;
mod stage;
mod store;
mod stories;
mod walk;
