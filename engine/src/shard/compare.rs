//! What a list of an account's records, or of System A's, says against what is held here. Changes
//! nothing.

use super::absorb::{Shown, local};
use super::{SYSTEM_A, Shard, provisional_id};
use crate::journal::Journal;
use crate::merge::{Base, ConflictPolicy, Fields, Sighting};
use crate::time::Now;

/// Fields of one record told of as different at most; more is a record that was never compared.
const FIELDS_TOLD_MAX: usize = 64;

/// A record as a list of an account shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// System A's key, by [`Shard::whose`].
    pub record_id: String,
    /// The account's key.
    pub remote_id: String,
    /// All its fields in the account's names, the text of a JSON object.
    pub fields: Box<str>,
    /// When it was changed there, ms since the epoch.
    pub changed_at_ms: i64,
    /// Up to when what was written must be in it, ms since the epoch.
    pub read_at_ms: i64,
}

/// How a record stands against what was listed of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// It is linked to the remote id that was listed.
    pub linked: bool,
    /// Something of it is on its way to one of the sides, or went there since it was listed.
    pub waits: bool,
    /// Fields that are not as both sides agreed, by pointer.
    pub differs: Vec<String>,
    /// Fields that wait for an operator, by pointer.
    pub held: Vec<String>,
}

impl<T> Shard<T> {
    /// The record that an account's own id stands for, under the key that it has here.
    pub fn whose(
        &self,
        journal: &mut impl Journal,
        account: &str,
        object: &str,
        remote_id: &str,
    ) -> Option<String> {
        let provisional = provisional_id(account, remote_id);
        let record = self.settings.hash_key.record(object, &provisional);
        let state = self.states_of(journal, record, object, &provisional)?;
        let made_there = state
            .target(account)
            .filter(|target| target.base.is_some())
            .is_some_and(|target| target.link.remote_id() == Some(remote_id));
        state.alias_of.or_else(|| made_there.then_some(provisional))
    }

    /// Holds what an account lists of a record against what both sides agreed on.
    pub fn compare(
        &self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        object: &str,
        listed: &Listed,
    ) -> Comparison {
        let record = self.settings.hash_key.record(object, &listed.record_id);
        let state = self.states_of(journal, record, object, &listed.record_id);
        let target = state.as_ref().and_then(|state| state.target(account));
        let linked = target.filter(|it| it.link.remote_id() == Some(&listed.remote_id));
        let Some(target) = linked else {
            return Comparison::default();
        };
        let mut base = target.base.as_deref().cloned().unwrap_or_default();
        let waits = self.waits_for(object, &listed.record_id, account)
            || self.waits_for(object, &listed.record_id, SYSTEM_A)
            || !base.is_fresh(listed.read_at_ms);
        let held = told(base.held().keys());
        let plan = self.plan_of(account);
        let mapping = plan.as_ref().and_then(|plan| plan.mappings.get(object));
        let shown = Shown {
            remote: &listed.fields,
            whole: true,
            changed_at_ms: listed.changed_at_ms,
            read_at_ms: listed.read_at_ms,
        };
        let differs = match local(mapping, shown, &base, &|_, _| None) {
            Ok(fields) => news(&mut base, &fields, &shown, now),
            // What the mapping cannot read is nothing that both sides agreed on.
            Err(_) => vec![String::new()],
        };
        Comparison {
            linked: true,
            waits,
            differs,
            held,
        }
    }

    /// Holds a row of System A's against what it and an account agreed on.
    pub fn compare_row(
        &self,
        journal: &mut impl Journal,
        account: &str,
        object: &str,
        record_id: &str,
        row: &Fields,
    ) -> Comparison {
        let record = self.settings.hash_key.record(object, record_id);
        let state = self.states_of(journal, record, object, record_id);
        let target = state.as_ref().and_then(|state| state.target(account));
        let waits = self.waits_for(object, record_id, account)
            || self.waits_for(object, record_id, SYSTEM_A);
        let Some(target) = target.filter(|it| it.link.remote_id().is_some()) else {
            return Comparison {
                waits,
                ..Comparison::default()
            };
        };
        let never = Base::default();
        let base = target.base.as_deref().unwrap_or(&never);
        let plan = self.plan_of(account);
        let mapping = plan.as_ref().and_then(|plan| plan.mappings.get(object));
        let mapping = mapping.filter(|mapping| !mapping.is_plain());
        // Without a mapping fields go as they are, but for the key.
        let is_mapped = |pointer: &str| match mapping {
            Some(mapping) => mapping.comes_back(pointer),
            None => pointer != "/id",
        };
        Comparison {
            linked: true,
            waits,
            differs: told(base.differences(row, is_mapped).iter()),
            held: told(base.held().keys()),
        }
    }
}

/// The fields that a sighting would change, were it taken.
fn news(base: &mut Base, fields: &Fields, shown: &Shown<'_>, now: Now) -> Vec<String> {
    let sighting = Sighting {
        fields,
        changed_at_ms: shown.changed_at_ms,
        read_at_ms: shown.read_at_ms,
        now_ms: now.wall.0,
    };
    let absorbed = base.observe(&sighting, &[], &ConflictPolicy::default());
    let changed = absorbed
        .change
        .iter()
        .map(|(pointer, _)| pointer.to_owned());
    let parked = absorbed.conflicts.iter().map(|it| it.field.clone());
    let fields: Vec<String> = changed.chain(parked).collect();
    told(fields.iter())
}

fn told<'f>(fields: impl Iterator<Item = &'f String>) -> Vec<String> {
    fields.take(FIELDS_TOLD_MAX).cloned().collect()
}
