//! One account as a shard sees it: its plan, and what the coordinator lets the shard do.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::leases::Permits;
use super::two_way::{Role, TwoWay};
use crate::json::RawObject;
use crate::mapping::Mapping;
use crate::operation_slab::OpIndex;
use crate::provider::{Definition, KeySupport};
use crate::quota::{AccountId, Gate, LeaseId, RetryBudget};
use crate::retry::RetryPolicy;
use crate::time::Mono;

/// How an account is called: plain values from the configuration, compiled once.
#[derive(Debug)]
pub struct AccountPlan {
    /// Its name in events, rules and the log.
    pub name: Arc<str>,
    /// How requests look and replies are read.
    pub definition: Definition,
    /// Mappings by local object; an object without one goes as it is.
    pub mappings: HashMap<String, Mapping>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// How long after an unknown outcome "absent" is believed.
    pub settle: Duration,
    /// Longest time for one call.
    pub timeout: Duration,
    /// Whether waiting changes of a record become one call.
    pub fold: bool,
    /// How long a record waits for one it refers to.
    pub parent_timeout: Duration,
    /// What the account is.
    pub role: Role,
    /// Objects whose changes at the account matter, by local name.
    pub two_way: HashMap<String, TwoWay>,
}

impl AccountPlan {
    /// What a READ answers: the record in System A's names, or as the account shows it where the
    /// mapping does not lead back.
    pub(super) fn read_result(&self, object: &str, body: &[u8]) -> Vec<u8> {
        let Some((record, _)) = self.definition.record_in(body) else {
            return body.to_vec();
        };
        let mapping = self.mappings.get(object);
        let mapped = mapping
            .filter(|mapping| !mapping.is_plain())
            .and_then(|mapping| {
                let mut out = Vec::new();
                mapping.unapply(RawObject::new(record)?, &mut out).ok()?;
                Some(out)
            });
        mapped.unwrap_or_else(|| record.as_bytes().to_vec())
    }
}

impl AccountPlan {
    /// What the provider offers to find and make records of System A's `object` by their keys.
    pub(super) fn key_support(&self, object: &str) -> KeySupport {
        let mapping = self.mappings.get(object);
        let remote = mapping.map_or(object, |mapping| mapping.remote());
        self.definition.key_support(remote)
    }
}

/// The dispatch side of an account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    /// `None`: named by the log, not by the configuration; its operations wait.
    pub(super) plan: Option<Arc<AccountPlan>>,
    /// Its number with the coordinator, once it has told us.
    pub(super) id: Option<AccountId>,
    /// No windowed limits: calls need no permit.
    pub(super) unlimited: bool,
    pub(super) permits: Permits,
    pub(super) newest_lease: LeaseId,
    /// Slots held, and of these in use.
    pub(super) slots: u32,
    pub(super) in_use: u32,
    /// Slots to come down to; `None` when none were recalled.
    pub(super) keep: Option<u32>,
    pub(super) gate: Gate,
    pub(super) probe_sent: bool,
    /// A success after trouble is still to be reported.
    pub(super) owes_health: bool,
    /// A call succeeded since this shard last reported trouble.
    pub(super) succeeded: bool,
    /// Held whole by an operator.
    pub(super) paused: bool,
    /// Records a call carries at most, as far as calls have told.
    pub(super) records_per_call: usize,
    /// Halves of calls that were refused for some record in them; their operations are in no list.
    pub(super) suspects: VecDeque<Vec<OpIndex>>,
    /// Operations taken from the queue, for ageing.
    pub(super) taken: u32,
    pub(super) retry_budget: RetryBudget,
    /// The demand told last, and the newest lease it knew of.
    pub(super) told: (u32, u32, LeaseId),
}

impl Account {
    pub(super) fn new(name: &str, plan: Option<Arc<AccountPlan>>) -> Self {
        Self {
            name: plan
                .as_ref()
                .map_or_else(|| name.into(), |plan| plan.name.clone()),
            plan,
            id: None,
            unlimited: false,
            permits: Permits::default(),
            newest_lease: LeaseId::default(),
            slots: 0,
            in_use: 0,
            keep: None,
            gate: Gate::Held {
                until: Mono(0),
                reason: crate::quota::HoldReason::Unreachable,
            },
            probe_sent: false,
            owes_health: false,
            succeeded: false,
            paused: false,
            records_per_call: 1,
            suspects: VecDeque::new(),
            taken: 0,
            retry_budget: RetryBudget::default(),
            told: (0, 0, LeaseId::default()),
        }
    }

    /// Whether the gate lets a call start.
    pub(super) fn gate_open(&self) -> bool {
        match self.gate {
            Gate::Open | Gate::Suspect => true,
            Gate::Held { .. } => false,
            Gate::Probe => !self.probe_sent,
        }
    }

    /// Whether a call could start, given that something is ready.
    pub(super) fn may_start(&self) -> bool {
        self.plan.is_some()
            && !self.paused
            && self.gate_open()
            && self.in_use < self.slots
            && self.keep.is_none_or(|keep| self.in_use < keep)
            && (self.unlimited || self.permits.left() > 0)
    }

    /// Records that wait for another call after theirs was refused.
    pub(super) fn suspects_len(&self) -> usize {
        self.suspects.iter().map(Vec::len).sum()
    }

    /// Slots that can be given back after a recall.
    pub(super) fn surplus_slots(&self) -> u32 {
        self.keep
            .map_or(0, |keep| self.slots.saturating_sub(keep.max(self.in_use)))
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.permits.next_end()
    }
}
