//! What a reply says about its operation.

use jiff::Timestamp;

use super::excerpt::{DETAIL_BYTES_MAX, excerpt, excerpt_text};
use super::pointer::{Landing, Pointer, is_object, scalar_text};
use super::{BodyEnd, CallKind, Definition, Operation, Reply, RetryAfter};

/// A call's outcome in the engine's words. `detail` is a printable excerpt of the provider's error
/// of at most [`DETAIL_BYTES_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The provider did it; a delete of what was gone is done as well.
    Done {
        /// The record's remote id: always after a create or upsert, never else.
        remote_id: Option<String>,
        /// The provider says (201) that it made a new record.
        created: bool,
    },
    /// A look-up found the record.
    Found {
        /// Its remote id.
        remote_id: String,
    },
    /// A look-up found that there is no such record.
    Absent,
    /// The account pauses; the provider's state did not change.
    Throttled {
        /// For how long.
        retry_after: RetryAfter,
        /// See [`Verdict`].
        detail: String,
    },
    /// The request never left (refused, DNS, TLS): transient; the provider's state did not change.
    Unreachable {
        /// See [`Verdict`].
        detail: String,
    },
    /// The provider failed; the same call may be sent again.
    Transient {
        /// See [`Verdict`].
        detail: String,
    },
    /// It may have been done or not; to be resolved before anything else is sent.
    Unknown {
        /// See [`Verdict`].
        detail: String,
    },
    /// 401: the account's credentials were refused.
    Unauthorized {
        /// See [`Verdict`].
        detail: String,
    },
    /// The linked record does not exist any more.
    Gone {
        /// See [`Verdict`].
        detail: String,
    },
    /// Another record has this key.
    Duplicate {
        /// See [`Verdict`].
        detail: String,
    },
    /// The record changed at the provider since its last known version.
    Conflict {
        /// See [`Verdict`].
        detail: String,
    },
    /// Refused; the same call would be refused again.
    Permanent {
        /// See [`Verdict`].
        detail: String,
    },
}

impl Verdict {
    /// The word for attempts and for the label `class` of metrics.
    pub fn class(&self) -> &'static str {
        match self {
            Verdict::Done { .. } => "done",
            Verdict::Found { .. } => "found",
            Verdict::Absent => "absent",
            Verdict::Throttled { .. } => "throttled",
            Verdict::Unreachable { .. } => "unreachable",
            Verdict::Transient { .. } => "transient",
            Verdict::Unknown { .. } => "unknown",
            Verdict::Unauthorized { .. } => "unauthorized",
            Verdict::Gone { .. } => "gone",
            Verdict::Duplicate { .. } => "duplicate",
            Verdict::Conflict { .. } => "conflict",
            Verdict::Permanent { .. } => "permanent",
        }
    }

    /// The provider's error, for people; `None` when there was none.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Verdict::Done { .. } | Verdict::Found { .. } | Verdict::Absent => None,
            Verdict::Throttled { detail, .. }
            | Verdict::Unreachable { detail }
            | Verdict::Transient { detail }
            | Verdict::Unknown { detail }
            | Verdict::Unauthorized { detail }
            | Verdict::Gone { detail }
            | Verdict::Duplicate { detail }
            | Verdict::Conflict { detail }
            | Verdict::Permanent { detail } => Some(detail),
        }
    }

    /// Whether the failure would have met any record: it burns no attempt of this one.
    pub fn says_nothing_about_record(&self) -> bool {
        match self {
            Verdict::Throttled { .. }
            | Verdict::Unreachable { .. }
            | Verdict::Unauthorized { .. } => true,
            Verdict::Done { .. }
            | Verdict::Found { .. }
            | Verdict::Absent
            | Verdict::Transient { .. }
            | Verdict::Unknown { .. }
            | Verdict::Gone { .. }
            | Verdict::Duplicate { .. }
            | Verdict::Conflict { .. }
            | Verdict::Permanent { .. } => false,
        }
    }
}

impl Definition {
    /// Reads a reply to a call of this kind about this record.
    ///
    /// `wall_now` is the wall clock, for a `Retry-After` date of a reply without `Date`.
    ///
    /// # Panics
    /// When the definition has no operation of this kind; then it rendered no such call either.
    pub fn classify(
        &self,
        kind: CallKind,
        record_id: &str,
        reply: &Reply,
        wall_now: Timestamp,
    ) -> Verdict {
        let operation = self
            .operation(kind)
            .expect("only a rendered call has a reply");
        let status = reply.status;
        if (200..=299).contains(&status) {
            return success(operation, kind, record_id, reply);
        }
        let detail = refusal(reply);
        let retry_after = || {
            RetryAfter::parse(
                reply.retry_after.as_deref(),
                reply.date.as_deref(),
                wall_now,
            )
        };
        match status {
            429 => Verdict::Throttled {
                retry_after: retry_after(),
                detail,
            },
            503 if reply.retry_after.is_some() => Verdict::Throttled {
                retry_after: retry_after(),
                detail,
            },
            401 => Verdict::Unauthorized { detail },
            _ if operation.means_gone(status) => match kind {
                CallKind::Delete => Verdict::Done {
                    remote_id: None,
                    created: false,
                },
                CallKind::Lookup => Verdict::Absent,
                CallKind::Create | CallKind::Upsert | CallKind::Update | CallKind::Read => {
                    Verdict::Gone { detail }
                }
            },
            408 | 425 | 500..=599 if operation.idempotent() => Verdict::Transient { detail },
            408 | 425 | 500..=599 => Verdict::Unknown { detail },
            // A delete that clashes with the record's state is refused; there is no key to share.
            409 if matches!(kind, CallKind::Create | CallKind::Upsert | CallKind::Update) => {
                Verdict::Duplicate { detail }
            }
            412 if kind.is_write() => Verdict::Conflict { detail },
            300..=499 => Verdict::Permanent { detail },
            // Not a status of HTTP.
            _ => Verdict::Unknown { detail },
        }
    }
}

fn success(operation: &Operation, kind: CallKind, record_id: &str, reply: &Reply) -> Verdict {
    let unknown = |what: &str| Verdict::Unknown {
        detail: unreadable(reply, what),
    };
    match reply.body_end {
        BodyEnd::Complete => {}
        BodyEnd::TooLarge => return unknown("with a body over the size cap"),
        BodyEnd::Broken => return unknown("whose body broke off"),
        BodyEnd::Deadline => return unknown("whose body did not end in time"),
    }
    let Ok(text) = std::str::from_utf8(&reply.body) else {
        return unknown("with a body that is not UTF-8");
    };
    // RFC 8259, section 8.1: a reader may ignore a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let empty = text.trim_ascii().is_empty();
    let created = reply.status == 201;
    match kind {
        CallKind::Update | CallKind::Delete if empty || is_object(text) => Verdict::Done {
            remote_id: None,
            created: false,
        },
        CallKind::Read if is_object(text) => Verdict::Done {
            remote_id: None,
            created: false,
        },
        CallKind::Update | CallKind::Delete | CallKind::Read => {
            unknown("whose body is not a JSON object")
        }
        CallKind::Create | CallKind::Upsert => {
            let id = match operation.id() {
                Some(pointer) if !empty => id_at(pointer, text),
                _ if empty || is_object(text) => IdAt::None,
                _ => IdAt::NotAnObject,
            };
            match id {
                IdAt::Text(id) => Verdict::Done {
                    remote_id: Some(id),
                    created,
                },
                IdAt::None | IdAt::EmptyList => Verdict::Done {
                    remote_id: Some(record_id.to_owned()),
                    created,
                },
                IdAt::Unusable => unknown("whose remote id cannot be used"),
                IdAt::NotAnObject => unknown("whose body is not a JSON object"),
            }
        }
        CallKind::Lookup => {
            let pointer = operation
                .id()
                .expect("a look-up does not compile without one");
            match id_at(pointer, text) {
                IdAt::Text(remote_id) => Verdict::Found { remote_id },
                IdAt::EmptyList => Verdict::Absent,
                IdAt::None => unknown("that neither names a record nor says that there is none"),
                IdAt::Unusable => unknown("whose remote id cannot be used"),
                IdAt::NotAnObject => unknown("whose body is not a JSON object"),
            }
        }
    }
}

enum IdAt {
    Text(String),
    /// Missing, null, or nothing that can be an id.
    None,
    EmptyList,
    /// Too long, or with characters that no id has.
    Unusable,
    NotAnObject,
}

fn id_at(pointer: &Pointer, text: &str) -> IdAt {
    let json = match pointer.find(text) {
        Ok(Landing::Value(json)) => json,
        Ok(Landing::PastArrayEnd) => return IdAt::EmptyList,
        Ok(Landing::Nowhere) => return IdAt::None,
        Err(_) => return IdAt::NotAnObject,
    };
    // Over six bytes of JSON for each byte of text there is none.
    if json.len() > 6 * REMOTE_ID_BYTES_MAX + 2 {
        return IdAt::Unusable;
    }
    match scalar_text(json) {
        Some(id) if id.is_empty() => IdAt::None,
        Some(id) if id.len() > REMOTE_ID_BYTES_MAX || id.chars().any(char::is_control) => {
            IdAt::Unusable
        }
        Some(id) => IdAt::Text(id),
        None if json.starts_with('"') => IdAt::Unusable,
        None => IdAt::None,
    }
}

/// As long as a record id may be.
pub const REMOTE_ID_BYTES_MAX: usize = 512;

fn refusal(reply: &Reply) -> String {
    if reply.body.trim_ascii().is_empty() {
        return format!("HTTP {} without a body", reply.status);
    }
    excerpt(&reply.body)
}

fn unreadable(reply: &Reply, what: &str) -> String {
    let mut detail = format!("HTTP {} {what}", reply.status);
    if !reply.body.is_empty() {
        detail.push_str(": ");
        detail.push_str(&excerpt(&reply.body));
    }
    debug_assert!(detail.len() <= DETAIL_BYTES_MAX + 80);
    excerpt_text(&detail)
}
