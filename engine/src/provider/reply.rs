//! What came back from a provider, or why nothing did.

use bytes::Bytes;
use jiff::Timestamp;
use thiserror::Error;

use super::retry_after::http_date;
use super::{Verdict, excerpt::excerpt_text};

/// A reply whose head was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After` as sent.
    pub retry_after: Option<String>,
    /// `Date` as sent: what a date in `retry_after` counts from, and calendars go by.
    pub date: Option<String>,
    /// The other headers that its definition trusts.
    pub headers: ReplyHeaders,
    /// Body, or as much of it as was read.
    pub body: Bytes,
    /// Whether that is all of it.
    pub body_end: BodyEnd,
}

impl Reply {
    /// The provider's clock when it wrote the reply, in whole seconds, if the reply says so.
    pub fn server_time(&self) -> Option<Timestamp> {
        http_date(self.date.as_deref()?.trim())
    }

    /// A header that the definition may have named, by its name in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        match name {
            "retry-after" => self.retry_after.as_deref(),
            _ => self.headers.value(name),
        }
    }
}

/// Headers of a reply that its definition names. Others are not kept: a proxy on the way may add
/// what looks like a provider's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyHeaders {
    kept: Vec<(String, String)>,
}

/// Headers a definition may name.
pub const REPLY_HEADERS_MAX: usize = 16;

/// A longer value is not kept: the longest that says something about limits has some 50 bytes.
pub const REPLY_HEADER_BYTES_MAX: usize = 256;

impl ReplyHeaders {
    /// Keeps a header, by its name in lower case; of a name that comes twice the first. What is
    /// over a bound is left out.
    pub fn keep(&mut self, name: &str, value: &str) {
        let room = self.kept.len() < REPLY_HEADERS_MAX && value.len() <= REPLY_HEADER_BYTES_MAX;
        if room && self.value(name).is_none() {
            self.kept.push((name.to_owned(), value.to_owned()));
        }
    }

    /// The value of the header of that name, in lower case.
    pub fn value(&self, name: &str) -> Option<&str> {
        let mut kept = self.kept.iter();
        let (_, value) = kept.find(|(known, _)| known == name)?;
        Some(value)
    }
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
    /// The provider answered 401 to a token that is not in use any more: it counted the call and did
    /// not look at it. The same request may go again, as a call of its own, with the next token.
    #[error("its token was refused, and is renewed")]
    TokenRefused,
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
    /// The account has no credentials to send it with: they were refused when asked for.
    #[error("unauthorized")]
    Unauthorized,
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
                NotSent::Unauthorized => Verdict::Unauthorized { detail },
            },
            SendFailure::AfterSent {
                cause: NoReply::Closed | NoReply::Deadline | NoReply::Malformed,
                ..
            } => Verdict::Unknown { detail },
            SendFailure::TokenRefused => Verdict::Unauthorized { detail },
        }
    }
}
