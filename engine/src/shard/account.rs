//! One account as a shard sees it: its plan, and how its queue is worked off.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::class_mix::ClassMix;
use super::two_way::{Role, TwoWay};
use crate::json::RawObject;
use crate::mapping::Mapping;
use crate::operation_slab::{OpIndex, SORTED_LISTS};
use crate::provider::{BatchGroup, CallKind, Definition};
use crate::quota::{AccountId, CostClass, CostClasses, RetryBudget};
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
    /// How long a record waits for company at most, while quota is scarce.
    pub max_wait: Duration,
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

/// The dispatch side of an account. What it may send is in the shard's holdings, by its number.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) name: Arc<str>,
    /// `None`: named by the log, not by the configuration; its operations wait.
    pub(super) plan: Option<Arc<AccountPlan>>,
    /// Its number with the coordinator, once it has told us.
    pub(super) id: Option<AccountId>,
    /// Held whole by an operator.
    pub(super) paused: bool,
    /// Which calls cost the same; `None`: all do, or there are more classes than lists to sort
    /// operations into, and every call is charged as the dearest.
    pub(super) classes: Option<Arc<CostClasses>>,
    /// Which of them its operations turn out to be of.
    pub(super) mix: ClassMix,
    /// Records a call carries at most, as far as calls have told.
    pub(super) records_per_call: usize,
    /// Parts of calls that were refused for some record in them; their operations are in no list.
    pub(super) suspects: VecDeque<Suspects>,
    /// Operations taken from the queue, for ageing.
    pub(super) taken: u32,
    pub(super) retry_budget: RetryBudget,
    /// Since when there is something to send that was not sent for want of company.
    pub(super) lingers_since: Option<Mono>,
    /// Until when it waits.
    pub(super) lingers_until: Option<Mono>,
}

/// Half of a refused call, which goes again on its own.
#[derive(Debug)]
pub(super) struct Suspects {
    pub(super) ops: Vec<OpIndex>,
    /// What the refused call cost, and this one is likely to.
    pub(super) class: CostClass,
}

impl Account {
    pub(super) fn new(name: &str, plan: Option<Arc<AccountPlan>>) -> Self {
        Self {
            name: plan
                .as_ref()
                .map_or_else(|| name.into(), |plan| plan.name.clone()),
            plan,
            id: None,
            paused: false,
            classes: None,
            mix: ClassMix::default(),
            records_per_call: 1,
            suspects: VecDeque::new(),
            taken: 0,
            retry_budget: RetryBudget::default(),
            lingers_since: None,
            lingers_until: None,
        }
    }

    /// Calls cost this from now on; says whether that is news.
    pub(super) fn set_classes(&mut self, classes: &Arc<CostClasses>) -> bool {
        let told_apart = (2..=SORTED_LISTS).contains(&classes.count());
        let new = told_apart.then(|| Arc::clone(classes));
        if new == self.classes {
            return false;
        }
        self.classes = new;
        self.mix = ClassMix::default();
        // Until something was looked at: most operations change a record.
        let usual = self.class_of(CallKind::Upsert, None);
        self.mix.saw(self.place(usual));
        true
    }

    /// The class of a call.
    pub(super) fn class_of(&self, kind: CallKind, group: Option<BatchGroup>) -> CostClass {
        let Some(classes) = &self.classes else {
            return CostClass::ANY;
        };
        let operation = self.plan.as_ref().and_then(|plan| {
            let alone = group.is_none();
            plan.definition.operation(kind).filter(|_| alone)
        });
        let tags = operation.map_or(&[][..], |operation| operation.tags());
        let kind = std::iter::once(kind.as_str());
        let tags: Vec<&str> = kind.chain(tags.iter().map(String::as_str)).collect();
        classes.class_of(&tags)
    }

    /// The class of what lies in a list of sorted operations.
    pub(super) fn class_at(&self, list: usize) -> CostClass {
        let classes = self.classes.as_ref().filter(|c| list < c.count());
        classes.map_or(CostClass::ANY, |classes| classes.at(list))
    }

    /// The list for operations of a class.
    pub(super) fn place(&self, class: CostClass) -> usize {
        let classes = self.classes.as_ref();
        classes
            .and_then(|classes| classes.place(class))
            .unwrap_or(0)
    }

    /// The class that most operations turned out to be of.
    pub(super) fn usual_class(&self) -> CostClass {
        self.class_at(self.mix.usual())
    }

    /// Records that wait for another call after theirs was refused.
    pub(super) fn suspects_len(&self) -> usize {
        self.suspects.iter().map(|part| part.ops.len()).sum()
    }

    /// Of these, those whose call costs this.
    pub(super) fn suspects_of(&self, class: CostClass) -> usize {
        let parts = self.suspects.iter().filter(|part| part.class == class);
        parts.map(|part| part.ops.len()).sum()
    }
}
