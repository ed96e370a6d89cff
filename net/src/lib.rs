//! Bytes and HTTP: the TCP protocol, the HTTP API, calls to providers, metrics.

pub mod client;
pub mod gate;
pub mod ingest;
