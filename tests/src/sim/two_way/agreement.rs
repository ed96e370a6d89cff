//! What all sides must show once everything is said: the same, and what their people wrote.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::Operation;
use engine::journal::Kind;
use engine::record::{RecordState, StateFrame};
use engine::shard::{SYSTEM_A, provisional_id};
use engine::state::{Reason, State};
use serde_json::Value;

use super::leaves::{Leaves, normal, shown};
use super::ledger::{Edit, Key, Ledger, What};
use super::options::Policy;
use crate::sim::fold::Broken;
use crate::sim::oracle::Oracle;
use crate::sim::provider::Provider;

/// The records of a side by System A's key.
type View = BTreeMap<Key, Leaves>;

/// What the end of a run is compared by.
pub(in crate::sim) struct Agreement {
    views: BTreeMap<String, View>,
    /// Those that became one with others, by the one that stands for all of them.
    merged: BTreeMap<String, BTreeMap<Key, Vec<Leaves>>>,
    /// Fields that an operator has to decide.
    held: BTreeSet<(Key, String)>,
    /// Records with an operation that failed, or was given up.
    listed: BTreeSet<Key>,
    states: BTreeMap<u64, Vec<RecordState>>,
}

impl Agreement {
    /// Looks at all sides.
    pub(in crate::sim) fn look(oracle: &Oracle, providers: &[Provider]) -> Result<Self, Broken> {
        let mut agreement = Self {
            views: BTreeMap::new(),
            merged: BTreeMap::new(),
            held: BTreeSet::new(),
            listed: BTreeSet::new(),
            states: BTreeMap::new(),
        };
        for frame in oracle.traces.iter().flatten() {
            if matches!(frame.kind, Kind::State | Kind::StateMoved) {
                let states = StateFrame::decode(&frame.payload)
                    .map_err(|error| format!("a state does not decode: {error}"))?;
                agreement.states.insert(states.record, states.records);
            }
        }
        agreement.note_held(oracle);
        agreement.note_listed(oracle);
        for provider in providers {
            let name = &provider.options.name;
            let view = agreement.views.entry(name.clone()).or_default();
            let merged = agreement.merged.entry(name.clone()).or_default();
            for (object, id, record) in provider.account.records() {
                if oracle.is_marked(name, object, &record.fields) {
                    continue;
                }
                let made_there = || provisional_id(name, &id.to_string());
                let record_id = record.external_id.clone().unwrap_or_else(made_there);
                let key = (object.to_owned(), record_id);
                let fields = oracle.led_back(name, object, record.fields.clone());
                if oracle.ledger.is_merged(&key) {
                    let one = oracle.ledger.one_of(&key).clone();
                    merged.entry(one).or_default().push(shown(&fields));
                    continue;
                }
                let twice = view.insert(key.clone(), shown(&fields)).is_some();
                // One that was made there bears no key: it is made again as another, and may be taken
                // back besides.
                let keyless =
                    oracle.marks_deletes(name, object) && oracle.ledger.was_made_there(name, &key);
                if twice && !keyless {
                    return Err(format!("I11 {name} holds {key:?} twice"));
                }
                if twice {
                    agreement.listed.insert(key);
                }
            }
        }
        Ok(agreement)
    }

    fn note_held(&mut self, oracle: &Oracle) {
        for record in self.states.values().flatten() {
            for target in &record.targets {
                let held = target.base.iter().flat_map(|base| base.held().keys());
                for place in held {
                    let key = owner(oracle, &record.object, &record.record_id);
                    self.held.insert((key, place.clone()));
                }
            }
        }
    }

    fn note_listed(&mut self, oracle: &Oracle) {
        let ops = oracle.fold.ops.values();
        for op in ops.filter(|op| op.operation != Operation::Read) {
            let listed = match op.ended {
                Some((State::Dropped, _)) => true,
                // Fields wait, the record goes on.
                Some((State::Failed, Some(Reason::Conflict))) => false,
                Some((State::Failed, _)) => true,
                _ => op.redriven,
            };
            if listed {
                self.listed.insert(owner(oracle, &op.object, &op.record_id));
            }
        }
    }

    /// All sides show the same, but for what is listed.
    pub(in crate::sim) fn check_equal(
        &self,
        ledger: &Ledger,
        policy: Policy,
    ) -> Result<(), Broken> {
        let here = &self.views[SYSTEM_A];
        for (side, there) in &self.views {
            let keys: BTreeSet<&Key> = here.keys().chain(there.keys()).collect();
            for key in keys.into_iter().filter(|key| !self.listed.contains(*key)) {
                let (ours, theirs) = match (here.get(key), there.get(key)) {
                    (Some(ours), Some(theirs)) => (ours, theirs),
                    (ours, theirs) => {
                        return Err(format!(
                            "I14 System A has {key:?} as {ours:?}, {side} as {theirs:?}"
                        ));
                    }
                };
                let places: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
                for place in places {
                    let held = self.held.contains(&(key.clone(), place.clone()));
                    let (ours, theirs) = (ours.get(place), theirs.get(place));
                    // What somebody changed there of a field of System A's stays there.
                    let shown = theirs.unwrap_or(&Value::Null);
                    let refused = policy == Policy::Refuses
                        && ledger.has_written(Some(side), key, place, shown);
                    if ours != theirs && !held && !refused {
                        return Err(format!(
                            "I14 {key:?} {place} is {ours:?} at System A, {theirs:?} at {side}"
                        ));
                    }
                }
            }
        }
        self.check_merged(ledger)?;
        self.check_links(ledger)
    }

    /// Of records that became one, what is left is the same everywhere, whatever key it bears.
    fn check_merged(&self, ledger: &Ledger) -> Result<(), Broken> {
        let apart: BTreeSet<&Key> = self.listed.iter().map(|key| ledger.one_of(key)).collect();
        let left = |side: &str, one: &Key| {
            let records = self.merged[side].get(one);
            let mut records = records.cloned().unwrap_or_default();
            records.sort_by_key(|record| format!("{record:?}"));
            records
        };
        for one in self.merged.values().flat_map(BTreeMap::keys) {
            if apart.contains(one) {
                continue;
            }
            let here = left(SYSTEM_A, one);
            for side in self.merged.keys() {
                let there = left(side, one);
                if there != here {
                    return Err(format!(
                        "I14 of what became one with {one:?} System A has {here:?}, {side} {there:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// One record of System A's for each of an account's.
    fn check_links(&self, ledger: &Ledger) -> Result<(), Broken> {
        let mut owners: BTreeMap<(&str, &str, &str), &str> = BTreeMap::new();
        let own = self.states.values().flatten();
        for record in own.filter(|record| record.alias_of.is_none()) {
            for target in record.targets.iter().filter(|it| it.account != SYSTEM_A) {
                let Some(remote_id) = target.link.remote_id() else {
                    continue;
                };
                let provisional = provisional_id(&target.account, remote_id) == record.record_id;
                if provisional && target.base.is_none() {
                    // Nobody but its account ever heard of it.
                    continue;
                }
                let place = (target.account.as_str(), record.object.as_str(), remote_id);
                let known = owners.insert(place, &record.record_id);
                let listed = |id: &str| {
                    let key = (record.object.clone(), id.into());
                    self.listed.contains(&key) || ledger.is_merged(&key)
                };
                if let Some(known) = known.filter(|id| !listed(id) && !listed(&record.record_id)) {
                    return Err(format!("I17 {place:?} is {known} and {}", record.record_id));
                }
            }
        }
        Ok(())
    }

    /// What only one side ever wrote ends as that side wrote it last.
    pub(in crate::sim) fn check_edits(
        &self,
        ledger: &Ledger,
        edits: &[Edit],
        policy: Policy,
    ) -> Result<(), Broken> {
        let mut deleted: BTreeSet<&Key> = BTreeSet::new();
        let mut last: BTreeMap<(&Key, &str), (BTreeSet<&str>, Value)> = BTreeMap::new();
        for edit in edits {
            match &edit.what {
                What::Deleted | What::Restored => {
                    deleted.insert(&edit.key);
                }
                What::Wrote(leaves) => {
                    for (place, value) in leaves {
                        let (sides, newest) = last.entry((&edit.key, place)).or_default();
                        sides.insert(&edit.side);
                        *newest = normal(value);
                    }
                }
            }
        }
        for ((key, place), (sides, newest)) in last {
            let held = self.held.contains(&(key.clone(), place.to_owned()));
            let refused = policy.is_owned() && !sides.contains(SYSTEM_A);
            if refused
                || sides.len() > 1
                || deleted.contains(key)
                || ledger.is_merged(key)
                || self.listed.contains(key)
                || held
            {
                continue;
            }
            let wanted = Some(&newest).filter(|value| !value.is_null());
            for (side, view) in &self.views {
                let found = view.get(key).and_then(|record| record.get(place));
                if found != wanted {
                    return Err(format!(
                        "I14 {key:?} {place} is {found:?} at {side}, only {sides:?} wrote it, {newest} last"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The newest edits, made one by one while all was quiet, stand everywhere.
    pub(in crate::sim) fn check_quiet(
        &self,
        ledger: &Ledger,
        edits: &[Edit],
        policy: Policy,
    ) -> Result<(), Broken> {
        let edits = edits.iter().filter(|edit| !ledger.is_merged(&edit.key));
        for edit in edits.filter(|edit| !self.listed.contains(&edit.key)) {
            let refused = policy.is_owned() && edit.side != SYSTEM_A;
            if refused && matches!(edit.what, What::Wrote(_)) {
                continue;
            }
            for (side, view) in &self.views {
                let record = view.get(&edit.key);
                match &edit.what {
                    What::Deleted if record.is_some() => {
                        return Err(format!(
                            "I16 {:?} was deleted at {} and is at {side} again",
                            edit.key, edit.side
                        ));
                    }
                    What::Deleted | What::Restored => {}
                    What::Wrote(leaves) => {
                        for (place, value) in leaves {
                            let found = record.and_then(|record| record.get(place));
                            let wanted = Some(normal(value)).filter(|value| !value.is_null());
                            let held = self.held.contains(&(edit.key.clone(), place.clone()));
                            if found != wanted.as_ref() && !held {
                                return Err(format!(
                                    "I14 {:?} {place} was written at {} as {value}, {side} has {found:?}",
                                    edit.key, edit.side
                                ));
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Records of which some operation failed, or fields wait for an operator.
    pub(in crate::sim) fn is_listed(&self, key: &Key) -> bool {
        self.listed.contains(key) || self.held.iter().any(|(held, _)| held == key)
    }
}

/// The record that an account's own id is, where a record is named by one.
pub(in crate::sim) fn owner(oracle: &Oracle, object: &str, record_id: &str) -> Key {
    let named = record_id.split_once(':');
    let owner = named.and_then(|(account, id)| oracle.ledger.owner(account, object, id));
    let own = || (object.to_owned(), record_id.to_owned());
    owner.cloned().unwrap_or_else(own)
}
