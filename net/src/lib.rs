//! syncline net

pub mod client;
pub mod gate;
pub mod ingest;
