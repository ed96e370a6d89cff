//! What a reply to a single call says about its operation.

use jiff::Timestamp;

use super::excerpt::{DETAIL_BYTES_MAX, excerpt, excerpt_text};
use super::file::IdMissing;
use super::operation::Sending;
use super::pointer::{Landing, Pointer, is_object, scalar_text};
use super::refusal::{About, ErrorWords, Refusal};
use super::{
    BatchItemRef, BatchVerdict, BodyEnd, CallKind, Definition, Operation, REMOTE_ID_BYTES_MAX,
    Reply, Verdict,
};

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
        if let Sending::Batch(name) = operation.sending() {
            return self.classify_batch_of_one(name, kind, record_id, reply, wall_now);
        }
        let refused = match (200..=299).contains(&reply.status) {
            true => match success(operation, kind, record_id, reply) {
                Some(verdict) => return verdict,
                None => reply.status,
            },
            false => reply.status,
        };
        let refusal = Refusal {
            about: About::Call,
            kind: Some(kind),
            status: refused,
            words: self.error_words(reply),
            reply,
            wall_now,
        };
        let meaning = self.meaning(&refusal);
        meaning.verdict(kind, operation.idempotent(), refusal_detail(reply))
    }

    fn classify_batch_of_one(
        &self,
        batch: &str,
        kind: CallKind,
        record_id: &str,
        reply: &Reply,
        wall_now: Timestamp,
    ) -> Verdict {
        let items = [BatchItemRef {
            kind,
            record_id,
            remote_id: None,
        }];
        // The object only names a key field to match results by; one record needs no matching.
        let group = self
            .named_batch(batch, "")
            .expect("an operation's batch was checked when it was compiled");
        match self.classify_batch(group, &items, reply, wall_now) {
            BatchVerdict::Whole(verdict) => verdict,
            BatchVerdict::Split { detail } => Verdict::Permanent { detail },
            BatchVerdict::Items(verdicts) => {
                let mut verdicts = verdicts.into_iter();
                verdicts.next().expect("as many verdicts as records")
            }
        }
    }

    /// What an error reply says of itself.
    pub(crate) fn error_words(&self, reply: &Reply) -> ErrorWords {
        match std::str::from_utf8(&reply.body) {
            Ok(text) => self.error_shape().read(text),
            Err(_) => ErrorWords::default(),
        }
    }
}

/// `None`: the body says that it is no success.
fn success(
    operation: &Operation,
    kind: CallKind,
    record_id: &str,
    reply: &Reply,
) -> Option<Verdict> {
    let unknown = |what: &str| {
        Some(Verdict::Unknown {
            detail: unreadable(reply, what),
        })
    };
    let text = match readable(reply) {
        Ok(text) => text,
        Err(what) => return unknown(what),
    };
    if operation.ok().and_then(|ok| ok.holds(text)) == Some(false) {
        return None;
    }
    let empty = text.trim_ascii().is_empty();
    let done = Some(Verdict::Done {
        remote_id: None,
        created: false,
    });
    match kind {
        CallKind::Update | CallKind::Delete if empty || is_object(text) => done,
        CallKind::Read if is_object(text) => Some(Verdict::Done {
            remote_id: operation.id().and_then(|at| match id_at(at, text) {
                IdAt::Text(id) => Some(id),
                _ => None,
            }),
            created: false,
        }),
        CallKind::Update | CallKind::Delete | CallKind::Read => {
            unknown("whose body is not a JSON object")
        }
        CallKind::Create | CallKind::Upsert => written(operation, record_id, reply, text),
        CallKind::Match => Some(matched(operation, text)),
        CallKind::Lookup => {
            let pointer = operation
                .id()
                .expect("a look-up does not compile without one");
            let many = operation.many().map(|pointer| pointer.find(text));
            if let Some(Ok(Landing::Value(_))) = many {
                return Some(Verdict::Ambiguous {
                    detail: excerpt_text(text),
                });
            }
            match id_at(pointer, text) {
                IdAt::Text(remote_id) => Some(Verdict::Found { remote_id }),
                IdAt::EmptyList => Some(Verdict::Absent),
                IdAt::None => unknown("that neither names a record nor says that there is none"),
                IdAt::Unusable => unknown("whose remote id cannot be used"),
                IdAt::NotAnObject => unknown("whose body is not a JSON object"),
            }
        }
    }
}

/// The one record that matches, or all that do.
fn matched(operation: &Operation, text: &str) -> Verdict {
    let pointer = operation
        .id()
        .expect("a match does not compile without one");
    let mut found = Vec::new();
    for item in 0..CANDIDATES_MAX {
        match id_at(&pointer.at_item(item), text) {
            IdAt::Text(remote_id) => found.push(remote_id),
            IdAt::EmptyList => break,
            IdAt::None | IdAt::Unusable | IdAt::NotAnObject => {
                return Verdict::Unknown {
                    detail: excerpt_text(text),
                };
            }
        }
    }
    match found.len() {
        0 => Verdict::Absent,
        1 => Verdict::Found {
            remote_id: found.remove(0),
        },
        _ => Verdict::Ambiguous {
            detail: excerpt_text(&format!("several records match: {}", found.join(", "))),
        },
    }
}

/// Records told of at most where several match.
pub(crate) const CANDIDATES_MAX: usize = 10;

/// A create or upsert that was done.
fn written(operation: &Operation, record_id: &str, reply: &Reply, text: &str) -> Option<Verdict> {
    let empty = text.trim_ascii().is_empty();
    let id = match operation.id() {
        Some(pointer) if !empty => id_at(pointer, text),
        _ if empty || is_object(text) => IdAt::None,
        _ => IdAt::NotAnObject,
    };
    let created = match operation.created() {
        Some(pointer) => matches!(pointer.find_any(text), Ok(Landing::Value("true"))),
        None => reply.status == 201,
    };
    let what = match (id, operation.id_missing()) {
        (IdAt::Text(id), _) => {
            return Some(Verdict::Done {
                remote_id: Some(id),
                created,
            });
        }
        (IdAt::None | IdAt::EmptyList, IdMissing::RecordId) => {
            return Some(Verdict::Done {
                remote_id: Some(record_id.to_owned()),
                created,
            });
        }
        (IdAt::None | IdAt::EmptyList, IdMissing::Unlinked) => {
            return Some(Verdict::Done {
                remote_id: None,
                created,
            });
        }
        (IdAt::None | IdAt::EmptyList, IdMissing::Unknown) => "that names no remote id",
        (IdAt::Unusable, _) => "whose remote id cannot be used",
        (IdAt::NotAnObject, _) => "whose body is not a JSON object",
    };
    Some(Verdict::Unknown {
        detail: unreadable(reply, what),
    })
}

/// The text of a success's body, or what is wrong with it.
pub(crate) fn readable(reply: &Reply) -> Result<&str, &'static str> {
    match reply.body_end {
        BodyEnd::Complete => {}
        BodyEnd::TooLarge => return Err("with a body over the size cap"),
        BodyEnd::Broken => return Err("whose body broke off"),
        BodyEnd::Deadline => return Err("whose body did not end in time"),
    }
    let text = std::str::from_utf8(&reply.body).map_err(|_| "with a body that is not UTF-8")?;
    // RFC 8259, section 8.1: a reader may ignore a byte order mark.
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// What a pointer to a remote id leads to.
pub(crate) enum IdAt {
    Text(String),
    /// Missing, null, or nothing that can be an id.
    None,
    EmptyList,
    /// Too long, or with characters that no id has.
    Unusable,
    NotAnObject,
}

pub(crate) fn id_at(pointer: &Pointer, text: &str) -> IdAt {
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

/// The words of an error reply, for people.
pub(crate) fn refusal_detail(reply: &Reply) -> String {
    if reply.body.trim_ascii().is_empty() {
        return format!("HTTP {} without a body", reply.status);
    }
    excerpt(&reply.body)
}

/// Why a success was not understood, for people.
pub(crate) fn unreadable(reply: &Reply, what: &str) -> String {
    let mut detail = format!("HTTP {} {what}", reply.status);
    if !reply.body.is_empty() {
        detail.push_str(": ");
        detail.push_str(&excerpt(&reply.body));
    }
    debug_assert!(detail.len() <= DETAIL_BYTES_MAX + 80);
    excerpt_text(&detail)
}
