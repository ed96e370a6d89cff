//! Sending once more what was sent in a span of time, as the API asks for it.

use super::UnixMs;

/// What is to be sent once more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayRequest {
    /// To this account.
    pub provider: String,
    /// Of this kind of record only.
    pub object: Option<String>,
    /// What was accepted from this instant on,
    pub from: UnixMs,
    /// up to and without this one.
    pub to: UnixMs,
    /// At most so many records a second.
    pub rate: Option<u32>,
}

/// How many records a replay would send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayCount {
    /// Records with something to send.
    pub matched: u64,
    /// Records of which the log does not keep all that was written then.
    pub not_kept: u64,
}
