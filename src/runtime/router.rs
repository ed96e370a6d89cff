//! What every thread that takes events in knows of the configuration: where an event goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use engine::event::codec::{AcceptedEvent, Dedup as LoggedDedup, ProducerPosition};
use engine::event::{Defaults, Event, SourceTable, Target, TargetAction, Targets};
use engine::id::{HashKey, OperationId, OperationSeq, RecordHash};
use engine::mapping::{MapFailure, Write};
use engine::refusal::{Code, Refusal};
use engine::rules::Share;
use engine::schema::Schema;
use engine::shard::{AccountPlan, SYSTEM_A};
use smallvec::SmallVec;

use super::rules::Rules;

/// Routes by configuration. Fan-out is fixed here, when an event is accepted.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) hash_key: HashKey,
    pub(crate) shards: usize,
    /// Replaced when an account comes or goes.
    pub(crate) routes: RwLock<Arc<Routes>>,
    /// Objects of which accounts' changes come back to System A.
    pub(crate) come_back: BTreeSet<String>,
    pub(crate) default_object: Option<String>,
    pub(crate) only_mapped: Option<String>,
    pub(crate) sources: Vec<(String, String, String)>,
    pub(crate) rules: Rules,
    /// By object; an object without one takes any record.
    pub(crate) schemas: BTreeMap<String, Schema>,
    /// The next operation's sequence; one counter keeps the order of acceptance over all threads.
    pub(crate) next_seq: AtomicU64,
}

/// The accounts, and which of them takes what.
#[derive(Debug)]
pub(crate) struct Routes {
    /// Accounts in the order of the file.
    pub(crate) accounts: Vec<Arc<str>>,
    /// What takes part of their records, in the same order.
    pub(crate) switches: Vec<Switches>,
    /// Several accounts behind one name.
    pub(crate) pools: Vec<Pool>,
    /// Who takes an object that some mapping names.
    pub(crate) mapped: BTreeMap<String, Vec<Taker>>,
    /// Who has no mapping at all: they take every object as it is.
    pub(crate) unmapped: Vec<Taker>,
    /// Of all accounts, for their mappings.
    pub(crate) plans: Vec<Arc<AccountPlan>>,
    /// Some mapping has a required field.
    pub(crate) requires_fields: bool,
    /// Names the mappings in force.
    pub(crate) mapping_version: u32,
}

/// Where events go: one account, or one of a pool's for each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taker {
    /// By its place among the accounts.
    Account(usize),
    /// By its place among the pools.
    Pool(usize),
}

/// Which records of an account take part; the others end as skipped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Switches {
    /// Of all its objects.
    pub(crate) share: Share,
    /// Of one object: whether any, and which part.
    pub(crate) objects: BTreeMap<String, (bool, Share)>,
}

impl Switches {
    fn admit(&self, event: &Event<'_>) -> bool {
        let record_id = event.record_id.as_deref().unwrap_or_default();
        let object = self.objects.get(&*event.object);
        self.share.holds(record_id)
            && object.is_none_or(|(enabled, share)| *enabled && share.holds(record_id))
    }
}

/// Accounts that share their records out.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) name: Box<str>,
    /// By their places among the accounts.
    pub(crate) members: Vec<usize>,
}

/// An event with its place.
#[derive(Debug)]
pub(crate) struct Routed<'a> {
    pub(crate) event: AcceptedEvent<'a>,
    pub(crate) id: OperationId,
    pub(crate) shard: usize,
}

impl Router {
    /// Runs `parse` with what the configuration says about missing parts.
    pub(crate) fn with_defaults<R>(&self, parse: impl FnOnce(&Defaults<'_>) -> R) -> R {
        let sources: SmallVec<[SourceTable<'_>; 4]> = self
            .sources
            .iter()
            .map(|(object, table, key)| SourceTable { object, table, key })
            .collect();
        parse(&Defaults {
            default_object: self.default_object.as_deref(),
            only_mapped: self.only_mapped.as_deref(),
            sources: &sources,
        })
    }

    /// The accounts as they are now.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on events go to these.
    pub(crate) fn replace_routes(&self, routes: Routes) {
        *self.routes.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(routes);
    }

    /// Finds an event's targets, its shard and its operation id.
    ///
    /// # Errors
    /// `unknown_provider`, or `no_route` when no account takes the object.
    pub(crate) fn route<'a>(
        &self,
        routes: &'a Routes,
        event: Event<'a>,
        producer: Option<ProducerPosition>,
        dedup: Option<LoggedDedup>,
        accepted_at_ms: i64,
    ) -> Result<Routed<'a>, Refusal> {
        let record_id = event.record_id.as_deref().unwrap_or_default();
        let record = self.hash_key.record(&event.object, record_id);
        let targets = routes.targets(&event, record, self.come_back.contains(&*event.object))?;
        let seq = self
            .next_seq
            .fetch_add(OperationSeq::STEP, Ordering::Relaxed);
        let seq = OperationSeq(seq);
        Ok(Routed {
            event: AcceptedEvent {
                event,
                operation_seq: seq.0,
                record_hash: record.0,
                accepted_at_ms,
                producer,
                dedup,
                targets,
                rules_version: 0,
                mapping_version: routes.mapping_version,
            },
            id: OperationId { record, seq },
            shard: self.shard_of(record),
        })
    }

    /// Decides what becomes of an event at each target. Asked of an event that is no repetition:
    /// what was taken once is not judged again, whatever the rules have become.
    ///
    /// # Errors
    /// `schema` when the record does not fit, `rule_rejected` when every account rejects it.
    pub(crate) fn decide(&self, routes: &Routes, routed: &mut Routed<'_>) -> Result<(), Refusal> {
        let accepted = &mut routed.event;
        if let Some(schema) = self.schemas.get(&*accepted.event.object) {
            schema.check(&accepted.event)?;
        }
        self.rules.note(accepted);
        let rules = self.rules.in_force();
        accepted.rules_version = rules.version();
        if !rules.is_empty() || routes.requires_fields {
            let lacks =
                |event: &Event<'_>, account: &str, write| routes.lacks(event, account, write);
            accepted.targets = rules.route(&mut accepted.event, &accepted.targets, lacks)?;
        }
        Ok(())
    }

    /// The shard that owns a record.
    pub(crate) fn shard_of(&self, record: RecordHash) -> usize {
        record.vshard().owner(self.shards)
    }
}

impl Routes {
    /// What an account's mapping requires and the event lacks.
    fn lacks(&self, event: &Event<'_>, account: &str, write: Write) -> Option<MapFailure> {
        let plan = self.plans.iter().find(|plan| &*plan.name == account)?;
        let mapping = plan.mappings.get(&*event.object)?;
        mapping.check_required(event.data?, write).err()
    }

    fn targets<'a>(
        &'a self,
        event: &Event<'_>,
        record: RecordHash,
        comes_back: bool,
    ) -> Result<Targets<'a>, Refusal> {
        let target = |taker: Taker| {
            let at = self.account_of(taker, record);
            Target {
                name: &self.accounts[at],
                action: match self.switches[at].admit(event) {
                    true => TargetAction::Sync,
                    false => TargetAction::Skip,
                },
                rule: 0,
            }
        };
        // System A waits to be compared with what is on its way to it.
        let here = comes_back.then_some(Target {
            name: SYSTEM_A,
            action: TargetAction::Observe,
            rule: 0,
        });
        if let Some(provider) = event.provider.as_deref() {
            let taker = self.taker(provider).ok_or_else(|| {
                let detail = "no account of this name is configured";
                Refusal::at(Code::UnknownProvider, "/provider", detail)
            })?;
            return Ok(std::iter::once(target(taker)).chain(here).collect());
        }
        let takers = self.mapped.get(&*event.object).unwrap_or(&self.unmapped);
        if takers.is_empty() {
            let detail = format!("no account takes the object {:?}", event.object);
            return Err(Refusal::at(Code::NoRoute, "/object", detail));
        }
        let takers = takers.iter().map(|&taker| target(taker));
        Ok(takers.chain(here).collect())
    }

    fn taker(&self, name: &str) -> Option<Taker> {
        let mut accounts = self.accounts.iter();
        let account = accounts.position(|account| **account == *name);
        account.map(Taker::Account).or_else(|| {
            let pool = self.pools.iter().position(|pool| *pool.name == *name);
            pool.map(Taker::Pool)
        })
    }

    /// The account that a record of this taker belongs to. In a pool every member is weighed against
    /// the record, and the heaviest has it: a member more or less moves only its own share.
    fn account_of(&self, taker: Taker, record: RecordHash) -> usize {
        let at = match taker {
            Taker::Account(at) => return at,
            Taker::Pool(at) => at,
        };
        let weight = |&member: &usize| {
            let name = self.accounts[member].as_bytes();
            xxhash_rust::xxh3::xxh3_64_with_seed(name, record.0)
        };
        let heaviest = self.pools[at].members.iter().copied().max_by_key(weight);
        heaviest.expect("the settings refuse a pool without members")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(members: usize) -> Routes {
        Routes {
            accounts: (0..members).map(|at| format!("m{at}").into()).collect(),
            switches: vec![Switches::default(); members],
            pools: vec![Pool {
                name: "pool".into(),
                members: (0..members).collect(),
            }],
            mapped: BTreeMap::new(),
            unmapped: vec![Taker::Pool(0)],
            plans: Vec::new(),
            requires_fields: false,
            mapping_version: 0,
        }
    }

    #[test]
    fn a_pool_shares_its_records_out_evenly_and_a_new_member_takes_only_its_share() {
        let (before, after) = (routes(24), routes(25));
        let key = HashKey([7; 16]);
        let mut counts = [0; 25];
        for n in 0..50_000 {
            let record = key.record("contact", &n.to_string());
            let (old, new) = (
                before.account_of(Taker::Pool(0), record),
                after.account_of(Taker::Pool(0), record),
            );
            assert!(new == old || new == 24, "it moved between old members");
            counts[new] += 1;
        }
        assert!(
            counts.iter().all(|&count| (1_800..2_200).contains(&count)),
            "{counts:?}"
        );
    }
}
