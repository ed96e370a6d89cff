//! What a provider lets a caller do by System A's key.

use super::{CallKind, Definition, Operation};

/// How a record whose remote id is not known is found and made, so that no second one comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeySupport {
    /// One call makes the record, or writes the one that has the key.
    pub upsert: bool,
    /// The record that has the key can be asked for.
    pub look_up: bool,
    /// A create that is sent twice under one idempotency key is done once.
    pub keyed_create: bool,
    /// Match keys by which a record may be found that does not bear System A's key.
    pub match_keys: u8,
    /// Records are marked as deleted, not removed: one that was deleted has its key still.
    pub marks_deletes: bool,
    /// No second record can have the key: an upsert settles what became of a create in doubt, and
    /// nobody has to be asked first.
    pub unique: bool,
}

impl KeySupport {
    /// All of it, but that the key may come twice.
    pub const FULL: KeySupport = KeySupport {
        upsert: true,
        look_up: true,
        keyed_create: true,
        match_keys: 0,
        marks_deletes: false,
        unique: false,
    };
}

impl Definition {
    /// What the provider offers for records of this (remote) object.
    pub fn key_support(&self, object: &str) -> KeySupport {
        let names = self.objects().names(self.objects().remote(object));
        let create = self.operation(CallKind::Create);
        KeySupport {
            upsert: self.operation(CallKind::Upsert).is_some(),
            look_up: self.operation(CallKind::Lookup).is_some() && !names.no_lookup,
            keyed_create: create.is_some_and(Operation::idempotent),
            match_keys: 0,
            marks_deletes: false,
            unique: create.is_some_and(Operation::settled_by_upsert),
        }
    }
}
