//! Idempotency keys the account honours: the first answer is given again, nothing is applied.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::exchange::Reply;
use crate::provider::RawCall;

/// Keys remembered; at a few hundred bytes each this stays under a gigabyte. The oldest is
/// forgotten first, as providers forget keys after a day.
const KEYS_MAX: usize = 1_000_000;

/// Answers by key.
#[derive(Debug, Default)]
pub(crate) struct ReplayedKeys {
    answers: BTreeMap<String, (Fingerprint, Reply)>,
    oldest_first: VecDeque<String>,
}

/// Method, target and body of a request, to tell the same request from another under its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    /// `DefaultHasher::new` has fixed keys, so a seed gives the same run twice.
    pub(crate) fn of(call: &RawCall) -> Self {
        let mut hasher = DefaultHasher::new();
        (call.method.as_str(), &call.target, &call.body[..]).hash(&mut hasher);
        Self(hasher.finish())
    }
}

impl ReplayedKeys {
    /// The answer for a key that was used before: the first one again, or a refusal when the
    /// request is another.
    pub(crate) fn look_up(&self, key: &str, fingerprint: Fingerprint) -> Option<Reply> {
        let (first, reply) = self.answers.get(key)?;
        if *first != fingerprint {
            return Some(Reply::error(
                422,
                "the idempotency key was used for another request",
            ));
        }
        Some(reply.clone())
    }

    pub(crate) fn remember(&mut self, key: &str, fingerprint: Fingerprint, reply: &Reply) {
        if self.oldest_first.len() >= KEYS_MAX
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.answers
            .insert(key.to_owned(), (fingerprint, reply.clone()));
        self.oldest_first.push_back(key.to_owned());
    }
}
