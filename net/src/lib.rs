//! syncline net

pub mod gate;
pub mod ingest;
