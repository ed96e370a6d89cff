//! Bytes and HTTP: the TCP protocol, the HTTP API, calls to providers, subscriptions, metrics.

pub mod auth;
pub mod client;
pub mod egress;
pub mod gate;
pub mod http;
pub mod ingest;
pub mod metrics;
pub mod subscription;
