//! The engine in a simulated world: one thread, virtual time, everything from one seed.
//!
//! What is real: `engine::shard::Shard`, `engine::quota::Coordinator`, `wal::Log` and
//! `wal::Writer` over `wal::sim::SimStorage`, `mock::Account`. What stands in: threads, sockets,
//! clocks. `docs/design/simulator.md` says what is checked and what is not.

pub mod clock;
pub mod dice;
mod fold;
mod index_dump;
mod ingest;
mod isolation;
mod leases;
pub mod marks;
mod medium;
pub mod merge;
pub mod mutants;
mod node;
pub mod options;
mod oracle;
mod patch;
mod plans;
mod provider;
mod retries;
mod spied_log;
mod trouble;
pub mod two_way;
pub mod workload;
mod world;

pub use options::Options;
pub use world::{Outcome, run};
