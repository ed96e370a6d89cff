//! Whether two events under one event id are the same event.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Event;
use crate::json::{RawObject, RawValue, canonical_hash};

impl Event<'_> {
    /// A hash of what the event says, for telling a repetition from a reuse of its id.
    ///
    /// Two events have the same body when all of these agree: operation, provider, object, record
    /// id as sent, remote id, `data`, `before`, `changed_at`, priority, `scheduled_at`, schema
    /// version, tenant and the `x_` fields. JSON values agree as [`canonical_hash`] says; a field
    /// agrees with its alias and a default with its absence. `event_id` is not part of it, nor
    /// what a producer renews when it sends again: `seq`, `traceparent`, `correlation_id`.
    ///
    /// Take it before an absent record id is assigned. The value is kept in logs: never change it.
    pub fn body_hash(&self) -> u64 {
        let mut hash = BodyHash(0);
        hash.text(Some(self.operation.as_str()));
        hash.text(self.provider.as_deref());
        hash.text(Some(&self.object));
        hash.text(self.record_id.as_deref());
        hash.text(self.remote_id.as_deref());
        hash.object(self.data);
        hash.object(self.before);
        hash.integer(self.changed_at_ms);
        hash.integer(Some(i64::from(self.priority.get())));
        hash.integer(self.scheduled_at_ms);
        hash.text(self.schema_version.as_deref());
        hash.text(self.tenant.as_deref());
        let extras = self.extras.iter().map(|extra| {
            let name = xxh3_64_with_seed(extra.name.as_bytes(), 0);
            xxh3_64_with_seed(&canonical_hash(extra.value).to_le_bytes(), name)
        });
        hash.word(extras.fold(0, u64::wrapping_add));
        hash.0
    }
}

/// A chain of parts; an absent part differs from every present one.
struct BodyHash(u64);

impl BodyHash {
    fn word(&mut self, word: u64) {
        self.0 = xxh3_64_with_seed(&word.to_le_bytes(), self.0);
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.0 = xxh3_64_with_seed(text.as_bytes(), self.0 ^ 1),
            None => self.0 = xxh3_64_with_seed(&[], self.0 ^ 2),
        }
    }

    fn integer(&mut self, integer: Option<i64>) {
        match integer {
            Some(integer) => self.0 = xxh3_64_with_seed(&integer.to_le_bytes(), self.0 ^ 1),
            None => self.0 = xxh3_64_with_seed(&[], self.0 ^ 2),
        }
    }

    fn object(&mut self, object: Option<RawObject<'_>>) {
        match object {
            Some(object) => self.word(canonical_hash(RawValue::new(object.text()))),
            None => self.text(None),
        }
    }
}
