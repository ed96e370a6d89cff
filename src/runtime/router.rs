//! What every thread that takes events in knows of the configuration: where an event goes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use engine::event::codec::{AcceptedEvent, Dedup as LoggedDedup, ProducerPosition};
use engine::event::{Defaults, Event, SourceTable, Target, TargetAction, Targets};
use engine::id::{HashKey, OperationId, OperationSeq, RecordHash};
use engine::refusal::{Code, Refusal};
use engine::schema::Schema;
use smallvec::SmallVec;

use super::rules::Rules;

/// Routes by configuration. Fan-out is fixed here, when an event is accepted.
#[derive(Debug)]
pub(crate) struct Router {
    pub(crate) hash_key: HashKey,
    pub(crate) shards: usize,
    /// Accounts in the order of the file.
    pub(crate) accounts: Vec<Arc<str>>,
    /// Accounts by object that some mapping names.
    pub(crate) mapped: BTreeMap<String, Vec<usize>>,
    /// Accounts without any mapping: they take every object as it is.
    pub(crate) unmapped: Vec<usize>,
    pub(crate) default_object: Option<String>,
    pub(crate) only_mapped: Option<String>,
    pub(crate) sources: Vec<(String, String, String)>,
    pub(crate) rules: Rules,
    /// By object; an object without one takes any record.
    pub(crate) schemas: BTreeMap<String, Schema>,
    /// Names the mappings in force.
    pub(crate) mapping_version: u32,
    /// The next operation's sequence; one counter keeps the order of acceptance over all threads.
    pub(crate) next_seq: AtomicU64,
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

    /// Finds an event's targets and what is done at each, its shard and its operation id.
    ///
    /// # Errors
    /// `unknown_provider`, `no_route` when no account takes the object, `schema` when the record
    /// does not fit, `rule_rejected` when every account rejects it.
    pub(crate) fn route<'a>(
        &'a self,
        event: Event<'a>,
        producer: Option<ProducerPosition>,
        dedup: Option<LoggedDedup>,
        accepted_at_ms: i64,
    ) -> Result<Routed<'a>, Refusal> {
        let targets = self.targets(&event)?;
        if let Some(schema) = self.schemas.get(&*event.object) {
            schema.check(&event)?;
        }
        let record_id = event.record_id.as_deref().unwrap_or_default();
        let record = self.hash_key.record(&event.object, record_id);
        let rules = self.rules.in_force();
        let mut accepted = AcceptedEvent {
            event,
            operation_seq: 0,
            record_hash: record.0,
            accepted_at_ms,
            producer,
            dedup,
            targets,
            rules_version: rules.version(),
            mapping_version: self.mapping_version,
        };
        self.rules.note(&accepted);
        if !rules.is_empty() {
            accepted.targets = rules.route(&mut accepted.event, &accepted.targets)?;
        }
        let seq = OperationSeq(self.next_seq.fetch_add(1, Ordering::Relaxed));
        accepted.operation_seq = seq.0;
        Ok(Routed {
            event: accepted,
            id: OperationId { record, seq },
            shard: self.shard_of(record),
        })
    }

    /// The shard that owns a record.
    pub(crate) fn shard_of(&self, record: RecordHash) -> usize {
        record.vshard().owner(self.shards)
    }

    fn targets<'a>(&'a self, event: &Event<'_>) -> Result<Targets<'a>, Refusal> {
        let target = |at: usize| Target {
            name: &self.accounts[at],
            action: TargetAction::Sync,
            rule: 0,
        };
        if let Some(provider) = event.provider.as_deref() {
            let at = self
                .accounts
                .iter()
                .position(|account| **account == *provider)
                .ok_or_else(|| {
                    Refusal::at(
                        Code::UnknownProvider,
                        "/provider",
                        "no account of this name is configured",
                    )
                })?;
            return Ok([target(at)].into_iter().collect());
        }
        let takers = self.mapped.get(&*event.object).unwrap_or(&self.unmapped);
        if takers.is_empty() {
            let detail = format!("no account takes the object {:?}", event.object);
            return Err(Refusal::at(Code::NoRoute, "/object", detail));
        }
        Ok(takers.iter().map(|&at| target(at)).collect())
    }
}
