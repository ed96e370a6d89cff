//! Mappings and rules of a run: generated once, spelled for the engine, and read here once more by
//! code that is not the engine's.

pub mod data;
mod making;
pub mod mapping;
pub mod rules;

use std::collections::BTreeMap;

use super::dice::Dice;
use super::options::AccountOptions;
use mapping::{MappingSet, ObjectMapping};
use rules::RuleList;

/// What a run is told of mappings and rules, one set after the other; the first of each is in force
/// from the start. A set's version is its place in the row, counted from 1.
#[derive(Debug, Clone)]
pub struct SetsOptions {
    /// Mappings of all accounts.
    pub mappings: Vec<MappingSet>,
    /// Rules.
    pub rules: Vec<RuleList>,
}

impl SetsOptions {
    pub(super) fn of_dice(accounts: &[AccountOptions], dice: &mut Dice) -> Self {
        let mappings = making::mapping_sets(accounts, dice);
        let rules = making::rule_lists(accounts, dice);
        Self { mappings, rules }
    }

    /// Mappings of accounts whose changes come back.
    pub(super) fn both_ways(accounts: &[AccountOptions], dice: &mut Dice) -> MappingSet {
        making::both_ways(accounts, dice)
    }

    /// The same, with accounts that mark what is deleted.
    pub(super) fn mark_deletes(set: &mut MappingSet, dice: &mut Dice) {
        making::mark_deletes(set, dice);
    }

    /// How an object maps to an account by a version; `None`: its fields go as they are.
    pub(super) fn mapping(
        &self,
        version: u32,
        account: &str,
        object: &str,
    ) -> Option<&ObjectMapping> {
        self.mapping_set(version)?.object(account, object)
    }

    /// The mappings of a version.
    pub(super) fn mapping_set(&self, version: u32) -> Option<&MappingSet> {
        self.mappings.get((version as usize).checked_sub(1)?)
    }

    /// The rules of a version.
    pub(super) fn rule_list(&self, version: u32) -> Option<&RuleList> {
        self.rules.get((version as usize).checked_sub(1)?)
    }

    /// System A's name of an account's object, which all versions agree on.
    pub(super) fn local_object<'o>(&'o self, account: &str, remote: &'o str) -> &'o str {
        let objects = self.mappings.iter().flat_map(|set| &set.accounts);
        let mut objects = objects
            .filter(|(name, _)| *name == account)
            .flat_map(|(_, mappings)| &mappings.objects);
        let local = objects.find(|(_, mapping)| mapping.remote == remote);
        local.map_or(remote, |(object, _)| object)
    }
}

/// What is in force, by its versions: it outlives the engine, which keeps it on its disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InForce {
    pub(super) mappings: u32,
    pub(super) rules: u32,
}

impl Default for InForce {
    fn default() -> Self {
        Self {
            mappings: 1,
            rules: 1,
        }
    }
}

/// A part of all records by a hash of their ids, as docs/design/rules.md has it.
pub(super) fn takes_part(share: f64, record_id: &str) -> bool {
    let place = xxhash_rust::xxh3::xxh3_64(record_id.as_bytes());
    place as f64 / 2_f64.powi(64) < share
}

/// By account.
type ByAccount<T> = BTreeMap<String, T>;
