//! Who wrote what where: the simulator's own book of all edits, against which everything that the
//! engine calls a change is held.

use std::collections::{BTreeMap, BTreeSet};

use engine::shard::provisional_id;
use serde_json::{Map, Value};

use super::leaves::{leaves, normal};

/// A record: its object and System A's key of it.
pub(in crate::sim) type Key = (String, String);

/// One edit by somebody who is not the engine.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Edit {
    pub(in crate::sim) side: String,
    pub(in crate::sim) key: Key,
    pub(in crate::sim) what: What,
}

/// What an edit did.
#[derive(Debug, Clone)]
pub(in crate::sim) enum What {
    /// Leaves that were set, to null where they were cleared.
    Wrote(BTreeMap<String, Value>),
    Deleted,
    Restored,
}

/// The book.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Ledger {
    pub(in crate::sim) edits: Vec<Edit>,
    /// Who wrote a value at a place; values but nulls are written once, by one side.
    writers: BTreeMap<(Key, String, String), BTreeSet<String>>,
    deleted: BTreeSet<(String, Key)>,
    /// Where it was marked as deleted, and is there again.
    restored: BTreeSet<(String, Key)>,
    /// Records that are one since a merge, each by one of them that all have in common.
    merged: BTreeMap<Key, Key>,
    /// Which record an account's own id is.
    owners: BTreeMap<(String, String, String), Key>,
    /// What an account was believed to have told: object, its id, whether that it is gone.
    heard: BTreeSet<(String, String, String, bool)>,
}

impl Ledger {
    /// Somebody set these fields.
    pub(in crate::sim) fn wrote(&mut self, side: &str, key: &Key, fields: &Map<String, Value>) {
        let wrote = leaves(fields);
        for (place, value) in &wrote {
            let told = (key.clone(), place.clone(), normal(value).to_string());
            let writers = self.writers.entry(told).or_default();
            writers.insert(side.to_owned());
        }
        self.push(side, key, What::Wrote(wrote));
    }

    /// Somebody deleted it.
    pub(in crate::sim) fn deleted(&mut self, side: &str, key: &Key) {
        self.deleted.insert((side.to_owned(), key.clone()));
        self.push(side, key, What::Deleted);
    }

    /// Somebody took it back.
    pub(in crate::sim) fn restored(&mut self, side: &str, key: &Key) {
        self.push(side, key, What::Restored);
    }

    /// It is there again, with all that it had.
    pub(in crate::sim) fn shows_again(&mut self, side: &str, key: &Key) {
        self.restored.insert((side.to_owned(), key.clone()));
    }

    /// Somebody made one record of two, which has all that either had.
    pub(in crate::sim) fn became_one(&mut self, side: &str, lost: &Key, kept: &Key) {
        let (from, to) = (self.one_of(lost).clone(), self.one_of(kept).clone());
        for key in [lost, kept] {
            self.merged.entry(key.clone()).or_insert(to.clone());
        }
        for one in self.merged.values_mut().filter(|one| **one == from) {
            one.clone_from(&to);
        }
        for key in [lost, kept] {
            self.restored.insert((side.to_owned(), key.clone()));
        }
        self.deleted(side, lost);
    }

    /// Which of the records that became one with it stands for all of them.
    pub(in crate::sim) fn one_of<'k>(&'k self, key: &'k Key) -> &'k Key {
        self.merged.get(key).unwrap_or(key)
    }

    /// Whether it became one with another.
    pub(in crate::sim) fn is_merged(&self, key: &Key) -> bool {
        self.merged.contains_key(key)
    }

    /// All that became one with it, and itself.
    fn all_of<'k>(&'k self, key: &'k Key) -> impl Iterator<Item = &'k Key> {
        let one = self.one_of(key);
        let others = self.merged.iter().filter(move |(_, of)| *of == one);
        let others = others.map(|(key, _)| key);
        std::iter::once(key).chain(others.filter(move |other| *other != key))
    }

    fn push(&mut self, side: &str, key: &Key, what: What) {
        self.edits.push(Edit {
            side: side.to_owned(),
            key: key.clone(),
            what,
        });
    }

    /// A record is at an account under this id.
    pub(in crate::sim) fn born(
        &mut self,
        account: &str,
        object: &str,
        remote_id: &str,
        external_id: Option<&str>,
    ) -> Key {
        let place = (account.to_owned(), object.to_owned(), remote_id.to_owned());
        let made_there = || provisional_id(account, remote_id);
        let owner = self.owners.entry(place).or_insert_with(|| {
            let record_id = external_id.map_or_else(made_there, str::to_owned);
            (object.to_owned(), record_id)
        });
        owner.clone()
    }

    /// Which record an account's id is.
    pub(in crate::sim) fn owner(
        &self,
        account: &str,
        object: &str,
        remote_id: &str,
    ) -> Option<&Key> {
        let place = (account.to_owned(), object.to_owned(), remote_id.to_owned());
        self.owners.get(&place)
    }

    /// Whether a record began at an account.
    pub(in crate::sim) fn was_made_there(&self, account: &str, key: &Key) -> bool {
        let named = key.1.split_once(':');
        named.is_some_and(|(name, id)| {
            name == account && self.owner(account, &key.0, id) == Some(key)
        })
    }

    /// The engine was told this by somebody who may.
    pub(in crate::sim) fn hear(
        &mut self,
        account: &str,
        object: &str,
        remote_id: &str,
        deleted: bool,
    ) {
        let texts = [account, object, remote_id].map(str::to_owned);
        let [account, object, remote_id] = texts;
        self.heard.insert((account, object, remote_id, deleted));
    }

    /// Whether it was.
    pub(in crate::sim) fn was_heard(
        &self,
        account: &str,
        object: &str,
        remote_id: &str,
        deleted: bool,
    ) -> bool {
        let texts = [account, object, remote_id].map(str::to_owned);
        let [account, object, remote_id] = texts;
        self.heard.contains(&(account, object, remote_id, deleted))
    }

    /// Whether somebody wrote that value there: at that side, or at any. Who deletes a record
    /// clears all of it; where it was marked, and is there again,
    /// it shows all that anybody wrote.
    pub(in crate::sim) fn has_written(
        &self,
        side: Option<&str>,
        key: &Key,
        place: &str,
        value: &Value,
    ) -> bool {
        let wrote = |key: &Key| {
            let told = (key.clone(), place.to_owned(), normal(value).to_string());
            self.writers.get(&told)
        };
        let shows_all = |side: &str| {
            let mut all = self.all_of(key);
            all.any(|key| self.restored.contains(&(side.to_owned(), key.clone())))
        };
        let mut writers = self.all_of(key).filter_map(wrote);
        let written = match side {
            Some(side) if !shows_all(side) => writers.any(|writers| writers.contains(side)),
            _ => writers.next().is_some(),
        };
        written || (value.is_null() && self.has_deleted(side, key))
    }

    /// Whether somebody deleted it there, or anywhere.
    pub(in crate::sim) fn has_deleted(&self, side: Option<&str>, key: &Key) -> bool {
        let mut deleted = self.deleted.iter();
        deleted.any(|(at, known)| {
            self.one_of(known) == self.one_of(key) && side.is_none_or(|side| side == at)
        })
    }
}
