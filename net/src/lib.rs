//! Bytes and HTTP: the HTTP API, calls to providers, metrics.

pub mod client;
pub mod egress;
pub mod http;
pub mod metrics;
