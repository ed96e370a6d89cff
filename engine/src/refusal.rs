//! Why something from outside was not taken: one code table for TCP, list items and problems.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

/// A refused input: nothing of it was taken and no state changed.
///
/// `detail` and `pointer` name the place and never repeat a value, so a secret in a bad event
/// cannot reach a log through them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct Refusal {
    /// What was wrong, from the closed table.
    pub code: Code,
    /// One short sentence for the person who sent it.
    pub detail: Cow<'static, str>,
    /// RFC 6901 pointer into the input; `Some("")` is the whole of it.
    pub pointer: Option<String>,
}

impl Refusal {
    /// A refusal that concerns no place inside the input.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            pointer: None,
        }
    }

    /// A refusal of one place.
    pub fn at(
        code: Code,
        pointer: impl Into<String>,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            detail: detail.into(),
            pointer: Some(pointer.into()),
        }
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $text:literal, $status:literal, retry: $retry:literal;)+) => {
        /// The closed table of refusals.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as senders, logs and metrics see it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The status of an HTTP answer that carries this code alone.
            pub const fn http_status(self) -> u16 {
                match self { $(Self::$variant => $status,)+ }
            }

            /// Whether time alone can cure it: sending the same bytes again later may succeed.
            pub const fn retry(self) -> bool {
                match self { $(Self::$variant => $retry,)+ }
            }
        }
    };
}

codes! {
    /// Not JSON, or not the shape that was asked for.
    Malformed = "malformed", 400, retry: false;
    /// The bytes are not UTF-8.
    NotUtf8 = "not_utf8", 400, retry: false;
    /// Over the size allowed for one event or one body.
    TooLarge = "too_large", 413, retry: false;
    /// Nested deeper than allowed.
    TooDeep = "too_deep", 422, retry: false;
    /// An object names one member twice.
    DuplicateKey = "duplicate_key", 422, retry: false;
    /// A member that the contract does not know.
    UnknownField = "unknown_field", 422, retry: false;
    /// A member that the operation needs is absent.
    MissingField = "missing_field", 422, retry: false;
    /// A member whose value is outside its type or range.
    InvalidField = "invalid_field", 422, retry: false;
    /// A number that cannot be carried exactly.
    NumberPrecision = "number_precision", 422, retry: false;
    /// Nothing names the record.
    RecordIdRequired = "record_id_required", 422, retry: false;
    /// No account of that name is configured.
    UnknownProvider = "unknown_provider", 422, retry: false;
    /// No account takes this object.
    NoRoute = "no_route", 422, retry: false;
    /// The record does not satisfy its JSON Schema.
    Schema = "schema", 422, retry: false;
    /// A rule rejects it for every target.
    RuleRejected = "rule_rejected", 422, retry: false;
    /// The event id was used for another body.
    EventIdReused = "event_id_reused", 409, retry: false;
    /// No valid key, or one without this right (then the edge answers 403).
    Unauthorized = "unauthorized", 401, retry: false;
    /// What was asked for is not there.
    NotFound = "not_found", 404, retry: false;
    /// A sequence number was left out on a stream; the session closes.
    SeqGap = "seq_gap", 409, retry: false;
    /// A newer connection of the same producer took over; the session closes.
    Replaced = "replaced", 409, retry: false;
    /// The key sends faster than its own limit.
    RateLimited = "rate_limited", 429, retry: true;
    /// The disk has no room for another event.
    DiskFull = "disk_full", 507, retry: true;
    /// Every bounded queue on the way is full.
    Overloaded = "overloaded", 503, retry: true;
    /// The shard that owns the record is not running.
    ShardDown = "shard_down", 503, retry: true;
}

impl Display for Code {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_differently_and_only_server_side_causes_ask_for_a_retry() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(
                code.retry(),
                code.http_status() >= 500 || *code == Code::RateLimited,
                "{code}"
            );
        }
    }

    #[test]
    fn a_refusal_reads_as_its_code_and_detail() {
        let refusal = Refusal::at(Code::MissingField, "/data", "an UPDATE needs `data`");
        assert_eq!(refusal.to_string(), "missing_field: an UPDATE needs `data`");
    }
}
