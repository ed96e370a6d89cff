//! TCP ingest: the protocol without I/O, both drivers over loopback, and the bytes on the wire.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
#[macro_use]
mod drivers;
mod engine;
mod golden;
mod python_client;
mod session_frames;
mod session_lines;
mod subscribers;
mod talk;
