//! What came back from a provider, or why nothing did.

use bytes::Bytes;
use thiserror::Error;

use super::{Verdict, excerpt::excerpt_text};

/// A reply whose head was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` as sent.
    pub retry_after: Option<String>,
    /// `Date` as sent; needed beside a `retry_after` only.
    pub date: Option<String>,
    /// Body, or as much of it as was read.
    pub body: Bytes,
    /// Whether that is all of it.
    pub body_end: BodyEnd,
}

/// How the reading of a body ended. Whatever it was, the status was told: a refusal stays one
/// even if its explanation broke off; a success that cannot be read is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// Read to its end.
    Complete,
    /// Longer than the cap; the rest was not read.
    TooLarge,
    /// The connection failed inside the body.
    Broken,
    /// The call's deadline passed inside the body.
    Deadline,
}

/// A call without a reply. `detail` is for people; it names no secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendFailure {
    /// Not one byte of the request left: the provider's state did not change.
    #[error("not sent ({cause}): {detail}")]
    BeforeSent {
        /// What failed.
        cause: NotSent,
        /// The failure in its own words.
        detail: String,
    },
    /// The request, or part of it, may have arrived: the provider's state may have changed.
    #[error("sent, no reply ({cause}): {detail}")]
    AfterSent {
        /// What failed.
        cause: NoReply,
        /// The failure in its own words.
        detail: String,
    },
}

/// Why a request did not leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotSent {
    /// The host's name has no address.
    #[error("resolve")]
    Resolve,
    /// No TCP connection: refused, unreachable, or not in time.
    #[error("connect")]
    Connect,
    /// No TLS session: an untrusted certificate, another protocol, or not in time.
    #[error("tls")]
    Tls,
    /// The connection ended before the request was written.
    #[error("closed")]
    Closed,
    /// The call's deadline passed while it waited for a connection.
    #[error("deadline")]
    Deadline,
    /// The request cannot be written as HTTP; it never will be.
    #[error("unsendable")]
    Unsendable,
}

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NoReply {
    /// The connection ended before a reply's head was read.
    #[error("closed")]
    Closed,
    /// The call's deadline passed.
    #[error("deadline")]
    Deadline,
    /// What came is not HTTP, or its head is over the cap.
    #[error("malformed")]
    Malformed,
}

impl SendFailure {
    /// What the failure means for the operation.
    pub fn verdict(&self) -> Verdict {
        let detail = excerpt_text(&self.to_string());
        match self {
            SendFailure::BeforeSent { cause, .. } => match cause {
                NotSent::Resolve
                | NotSent::Connect
                | NotSent::Tls
                | NotSent::Closed
                | NotSent::Deadline => Verdict::Unreachable { detail },
                NotSent::Unsendable => Verdict::Permanent { detail },
            },
            SendFailure::AfterSent {
                cause: NoReply::Closed | NoReply::Deadline | NoReply::Malformed,
                ..
            } => Verdict::Unknown { detail },
        }
    }
}
