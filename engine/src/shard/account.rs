//! One account as a shard sees it: its plan, and how its queue is worked off.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::class_mix::ClassMix;
use super::endpoints::Endpoints;
use super::fetch::ListUse;
use super::siblings::PartBatches;
use super::two_way::{Role, TwoWay};
use super::weights::Weights;
use crate::id::OperationSeq;
use crate::json::RawObject;
use crate::mapping::{DeletionMark, Mapping};
use crate::operation_slab::{OpClass, OpIndex, SORTED_LISTS};
use crate::provider::{BatchGroup, CallKind, Definition, KeySupport};
use crate::quota::{AccountId, CostClass, CostClasses, POLL_TAG, RetryBudget};
use crate::retry::RetryPolicy;
use crate::time::Mono;

/// How an account is called: plain values from the configuration, compiled once.
#[derive(Debug, Clone)]
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
    /// How its objects and tenants share its calls.
    pub weights: Weights,
    /// What the account is.
    pub role: Role,
    /// Objects whose changes at the account matter, by local name.
    pub two_way: HashMap<String, TwoWay>,
    /// Operations below each of these numbers may have gone out otherwise than they would now, and
    /// nobody knows: [`super::Rendering::renewed`].
    pub renewed: Vec<OperationSeq>,
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
    /// How records of an object are marked as deleted there; `None`: they are removed.
    pub(super) fn deletion_mark(&self, object: &str) -> Option<&DeletionMark> {
        let mapping = self.mappings.get(object);
        mapping.and_then(Mapping::deletion_mark)
    }

    /// Whether a record of an account, the text of a JSON object, is marked as deleted.
    pub(super) fn is_marked(&self, object: &str, record: &str) -> bool {
        self.deletion_mark(object)
            .is_some_and(|mark| RawObject::new(record).is_some_and(|record| mark.stands_in(record)))
    }

    /// How many idempotency keys of an operation may have gone out since the last that was logged.
    pub(super) fn keys_gone_out(&self, seq: OperationSeq) -> u16 {
        let later = self.renewed.iter().filter(|first| seq < **first);
        u16::try_from(later.count()).unwrap_or(u16::MAX)
    }

    /// What the provider offers to find and make records of System A's `object` by their keys.
    pub(super) fn key_support(&self, object: &str) -> KeySupport {
        let mapping = self.mappings.get(object);
        let remote = mapping.map_or(object, |mapping| mapping.remote());
        KeySupport {
            match_keys: mapping.map_or(0, |mapping| mapping.match_keys().len() as u8),
            marks_deletes: mapping.is_some_and(|mapping| mapping.deletion_mark().is_some()),
            ..self.definition.key_support(remote)
        }
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
    /// What calls cost, as the coordinator has it.
    costs: Option<Arc<CostClasses>>,
    /// The classes of its own calls, a list of sorted operations each; none: all cost the same.
    pub(super) classes: Vec<CostClass>,
    /// The classes of its polls, where these are no others' as well.
    pub(super) poll_classes: Vec<CostClass>,
    /// Which of them its operations turn out to be of.
    pub(super) mix: ClassMix,
    /// Records a call carries at most, as far as calls have told.
    pub(super) records_per_call: usize,
    /// Parts of calls that were refused for some record in them; their operations are in no list.
    pub(super) suspects: VecDeque<Suspects>,
    /// Calls begun, for ageing.
    pub(super) taken: u32,
    pub(super) retry_budget: RetryBudget,
    /// A fetch took the last permit: records go before the next one.
    pub(super) records_next: bool,
    /// Since when there is something to send that was not sent for want of company.
    pub(super) lingers_since: Option<Mono>,
    /// Until when it waits.
    pub(super) lingers_until: Option<Mono>,
    /// Calls with room that wait for more of the same.
    pub(super) part_batches: PartBatches,
    /// When a record that others wait for was last linked, and let some of them go.
    pub(super) parent_linked: Option<Mono>,
    /// Words to this shard's own records that theirs were linked, which have not come yet.
    pub(super) news_under_way: usize,
    /// Its endpoints that are not well.
    pub(super) endpoints: Endpoints,
}

/// A call's class follows from its kind and from whether it goes alone: there is a list for each, and
/// for those of pulls while there are lists.
const _: () = assert!(2 * CallKind::ALL.len() <= SORTED_LISTS);

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
            costs: None,
            classes: Vec::new(),
            poll_classes: Vec::new(),
            mix: ClassMix::default(),
            records_per_call: 1,
            suspects: VecDeque::new(),
            taken: 0,
            retry_budget: RetryBudget::default(),
            records_next: false,
            lingers_since: None,
            lingers_until: None,
            part_batches: PartBatches::default(),
            parent_linked: None,
            news_under_way: 0,
            endpoints: Endpoints::default(),
        }
    }

    /// Calls cost this from now on; says whether the classes of its own calls are others now.
    pub(super) fn set_costs(&mut self, costs: &Arc<CostClasses>) -> bool {
        self.costs = Some(Arc::clone(costs));
        self.sort_out_classes()
    }

    /// It is called like this from now on; says whether the classes of its calls are others now.
    pub(super) fn set_plan(&mut self, plan: Arc<AccountPlan>) -> bool {
        self.plan = Some(plan);
        self.sort_out_classes()
    }

    /// The class of a call.
    pub(super) fn class_of(&self, kind: CallKind, group: Option<BatchGroup>) -> CostClass {
        if self.classes.is_empty() {
            return CostClass::ANY;
        }
        self.cost_of(kind, group.is_none(), None)
    }

    /// The class of an operation's call. A pull that has to read its record is paid for like the poll
    /// that it may come from.
    pub(super) fn class_of_operation(
        &self,
        operation: OpClass,
        kind: CallKind,
        group: Option<BatchGroup>,
    ) -> CostClass {
        let pulls = operation == OpClass::Pull && kind == CallKind::Read;
        let poll = pulls.then(|| self.cost_of(kind, group.is_none(), Some(POLL_TAG)));
        let poll = poll.filter(|class| self.classes.contains(class));
        poll.unwrap_or_else(|| self.class_of(kind, group))
    }

    /// The class of a call for a list.
    pub(super) fn class_of_list(&self, kind: CallKind, of: ListUse) -> CostClass {
        match of {
            ListUse::Poll => self.cost_of(kind, true, Some(POLL_TAG)),
            ListUse::Walk => self.class_of(kind, None),
        }
    }

    /// The class of what lies in a list of sorted operations.
    pub(super) fn class_at(&self, list: usize) -> CostClass {
        self.classes.get(list).copied().unwrap_or(CostClass::ANY)
    }

    /// The list for operations of a class.
    pub(super) fn place(&self, class: CostClass) -> usize {
        let mut classes = self.classes.iter();
        classes.position(|known| *known == class).unwrap_or(0)
    }

    /// Finds the classes that its calls can be of: tags that none of its operations has make no
    /// difference.
    fn sort_out_classes(&mut self) -> bool {
        let mut polls: Vec<CostClass> = CallKind::ALL
            .map(|kind| self.class_of_list(kind, ListUse::Poll))
            .into();
        let mut classes: Vec<CostClass> = Vec::new();
        for kind in CallKind::ALL {
            for alone in [true, false] {
                let class = self.cost_of(kind, alone, None);
                if !classes.contains(&class) {
                    classes.push(class);
                }
            }
        }
        for alone in [true, false] {
            let class = self.cost_of(CallKind::Read, alone, Some(POLL_TAG));
            if !classes.contains(&class) && classes.len() < SORTED_LISTS {
                classes.push(class);
            }
        }
        polls.sort_unstable();
        polls.dedup();
        polls.retain(|class| !classes.contains(class));
        self.poll_classes = polls;
        if classes == [CostClass::ANY] {
            classes.clear();
        }
        if classes == self.classes {
            return false;
        }
        self.classes = classes;
        self.mix = ClassMix::default();
        // Until something was looked at: most operations change a record.
        let usual = self.class_of(CallKind::Upsert, None);
        self.mix.saw(self.place(usual));
        true
    }

    fn cost_of(&self, kind: CallKind, alone: bool, extra: Option<&str>) -> CostClass {
        let Some(costs) = &self.costs else {
            return CostClass::ANY;
        };
        let operation = self.plan.as_ref().and_then(|plan| {
            let operation = plan.definition.operation(kind);
            operation.filter(|_| alone)
        });
        let tags = operation.map_or(&[][..], |operation| operation.tags());
        let kind = std::iter::once(kind.as_str());
        let tags = kind.chain(tags.iter().map(String::as_str)).chain(extra);
        let tags: Vec<&str> = tags.collect();
        costs.class_of(&tags)
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
