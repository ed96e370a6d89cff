//! What a "no" means: the error rules of a definition, and behind them the plain HTTP statuses.

use jiff::Timestamp;

use super::error_rule::{ErrorClass, PauseScope};
use super::file::{OneOrMore, ShapeBlock};
use super::pointer::{Landing, Pointer, scalar_text};
use super::problems::Problems;
use super::{CallKind, Definition, Reply, RetryAfter, Verdict};

/// A reply, or the part of a batch's reply about one record, that does not say "done".
#[derive(Debug)]
pub(crate) struct Refusal<'r> {
    pub(crate) about: About,
    /// What was asked; `None` for a batch of several kinds.
    pub(crate) kind: Option<CallKind>,
    pub(crate) status: u16,
    pub(crate) words: ErrorWords,
    pub(crate) reply: &'r Reply,
    pub(crate) wall_now: Timestamp,
}

/// What is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// A call of its own.
    Call,
    /// A batch as a whole.
    Batch,
    /// One record of a batch.
    Item,
}

/// Where an error says what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ErrorShape {
    pub(crate) code: Vec<Pointer>,
    pub(crate) message: Vec<Pointer>,
    pub(crate) policy: Vec<Pointer>,
}

/// What an error said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ErrorWords {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// The name of the limit that was hit.
    pub(crate) policy: Option<String>,
}

/// What a refusal comes to, before it is said of a certain call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Meaning {
    pub(crate) class: ErrorClass,
    pub(crate) retry_after: RetryAfter,
    /// The limit that was hit, by the definition's name.
    pub(crate) limit: Option<String>,
    /// The record that has the key already.
    pub(crate) remote_id: Option<String>,
    pub(crate) pause: PauseScope,
}

impl Definition {
    /// The first rule that fits; without one, what the status says by itself.
    pub(crate) fn meaning(&self, refusal: &Refusal<'_>) -> Meaning {
        let rule = self.rules().iter().find(|rule| rule.fits(refusal));
        rule.map_or_else(|| self.by_status(refusal), |rule| rule.meaning(refusal))
    }

    fn by_status(&self, refusal: &Refusal<'_>) -> Meaning {
        let reply = refusal.reply;
        let operation = refusal.kind.and_then(|kind| self.operation(kind));
        let gone = refusal.about != About::Batch
            && operation.is_some_and(|operation| operation.means_gone(refusal.status));
        let writes_key = matches!(
            refusal.kind,
            None | Some(CallKind::Create | CallKind::Upsert | CallKind::Update)
        );
        let writes = refusal.kind.is_none_or(CallKind::is_write);
        let class = match refusal.status {
            429 => ErrorClass::Throttled,
            // Of one record among others: the account is well.
            503 if reply.retry_after.is_some() && refusal.about != About::Item => {
                ErrorClass::Throttled
            }
            401 => ErrorClass::Unauthorized,
            _ if gone => ErrorClass::Gone,
            408 | 425 | 500..=599 => ErrorClass::Transient,
            // A delete that clashes with the record's state is refused; there is no key to share.
            409 if writes_key => ErrorClass::Duplicate,
            412 if writes => ErrorClass::Conflict,
            300..=499 => ErrorClass::Permanent,
            // The body says "no" under a 2xx, and no rule knows why.
            200..=299 => ErrorClass::Permanent,
            // Not a status of HTTP.
            _ => ErrorClass::Unknown,
        };
        Meaning {
            retry_after: refusal.told_wait(),
            ..Meaning::plain(class)
        }
    }
}

impl Refusal<'_> {
    /// `Retry-After`, when the reply had one.
    pub(crate) fn told_wait(&self) -> RetryAfter {
        let reply = self.reply;
        RetryAfter::parse(
            reply.retry_after.as_deref(),
            reply.date.as_deref(),
            self.wall_now,
        )
    }
}

impl ErrorShape {
    pub(crate) fn compile(key: &str, block: &ShapeBlock, problems: &mut Problems) -> ErrorShape {
        let mut pointers = |member: &str, texts: &OneOrMore<String>| {
            let pointers = texts.as_slice().iter().map(|text| Pointer::parse(text));
            let pointers = pointers.collect::<Result<Vec<_>, _>>();
            problems
                .note(format!("{key}.{member}"), pointers)
                .unwrap_or_default()
        };
        ErrorShape {
            code: pointers("code", &block.code),
            message: pointers("message", &block.message),
            policy: pointers("policy", &block.policy),
        }
    }

    /// Reads `text`, which may be anything.
    pub(crate) fn read(&self, text: &str) -> ErrorWords {
        let first = |pointers: &[Pointer]| {
            let mut found = pointers
                .iter()
                .filter_map(|pointer| match pointer.find_any(text) {
                    Ok(Landing::Value(json)) => scalar_text(json),
                    Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
                });
            found.next()
        };
        ErrorWords {
            code: first(&self.code),
            message: first(&self.message),
            policy: first(&self.policy),
        }
    }
}

impl Meaning {
    pub(crate) fn plain(class: ErrorClass) -> Meaning {
        Meaning {
            class,
            retry_after: RetryAfter::BackOff,
            limit: None,
            remote_id: None,
            pause: PauseScope::Object,
        }
    }

    /// What it means for a call of this kind.
    pub(crate) fn verdict(self, kind: CallKind, idempotent: bool, detail: String) -> Verdict {
        let Meaning {
            class,
            retry_after,
            limit,
            remote_id,
            pause,
        } = self;
        match class {
            ErrorClass::Throttled => Verdict::Throttled {
                retry_after,
                limit,
                detail,
            },
            ErrorClass::QuotaExhausted => Verdict::QuotaExhausted {
                retry_after,
                limit,
                detail,
            },
            ErrorClass::Maintenance => Verdict::Maintenance {
                retry_after,
                detail,
            },
            // What others of its call did wrong was not the record's fault either.
            ErrorClass::Contention | ErrorClass::Collateral => Verdict::Contention {
                retry_after,
                detail,
            },
            ErrorClass::Unauthorized => Verdict::Unauthorized { detail },
            ErrorClass::Permission => Verdict::Permission { pause, detail },
            ErrorClass::Transient if idempotent => Verdict::Transient { detail },
            ErrorClass::Transient | ErrorClass::Unknown => Verdict::Unknown { detail },
            ErrorClass::Gone => match kind {
                CallKind::Delete => Verdict::Done {
                    remote_id: None,
                    created: false,
                },
                CallKind::Lookup | CallKind::Match => Verdict::Absent,
                // What is gone is not the record, which is not there yet.
                CallKind::Create => Verdict::Permanent { detail },
                CallKind::Upsert | CallKind::Update | CallKind::Read => Verdict::Gone { detail },
            },
            ErrorClass::Duplicate => Verdict::Duplicate { remote_id, detail },
            ErrorClass::Conflict => Verdict::Conflict { detail },
            ErrorClass::AmbiguousKey => Verdict::Ambiguous { detail },
            ErrorClass::BatchRefused | ErrorClass::Permanent => Verdict::Permanent { detail },
        }
    }
}
