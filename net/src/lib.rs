//! syncline net
pub mod http;
pub mod metrics;
