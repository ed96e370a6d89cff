//! Filling a call: as many ready records as the provider's batch takes, none of them waiting for
//! company that is not there.

use std::sync::Arc;
use std::time::Duration;

use super::account::Suspects;
use super::dispatch::{CALL_ROOM, fields, members, subject};
use super::endpoints::Way;
use super::item::Item;
use super::prepare::{Payload, Prepared};
use super::{AccountPlan, Shard};
use crate::journal::{Class, Journal};
use crate::operation_slab::{Flow, OpIndex, OpState};
use crate::provider::{BatchGroup, BatchItem, CallKind, Field, RenderError, Request};
use crate::quota::{Attempts, CostClass, Gate, URGENT_PRIORITY_MAX};
use crate::time::{Mono, Now};

/// Records looked at for one call and put back, because they go into another one, at most; and as
/// many that cost something else.
const ASIDE_MAX: usize = 256;

/// A record with what is sent of it.
pub(super) type Sendable = (Item, Payload);

/// The records of one call.
#[derive(Debug)]
pub(super) struct Gathered {
    /// What they share; `None`: a single record's own call.
    pub(super) group: Option<BatchGroup>,
    /// What it costs.
    pub(super) class: CostClass,
    /// The endpoint it is the probe of, by number: it goes alone.
    pub(super) probes: Option<usize>,
    /// Whose turn it is: that of its first record.
    pub(super) flow: Flow,
    /// What its records count for among the account's retries.
    pub(super) attempts: Attempts,
    /// At least one.
    pub(super) records: Vec<Sendable>,
    /// More of them fit, and none was ready.
    pub(super) has_room: bool,
}

impl Gathered {
    /// Whether a record of this group may go along: reads of one call ask for the same fields.
    fn takes(&self, group: Option<BatchGroup>, payload: &Payload) -> bool {
        let (first, asked) = &self.records[0];
        let reads = first.kind == Some(CallKind::Read);
        self.group == group && (!reads || asked.fields == payload.fields)
    }
}

impl<T> Shard<T> {
    /// Takes the records of the account's next call. `left` counts down what the turn may look at;
    /// a call is filled even beyond it. `None`: nothing is ready that does not wait for company.
    pub(super) fn gather(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        left: &mut usize,
    ) -> Option<Gathered> {
        loop {
            let Some(call) = self.next_call(now, journal, at, left) else {
                self.accounts[at].lingers_until = self.accounts[at].part_batches.until();
                return None;
            };
            if !self.waits_for_siblings(now.mono, at, &call) {
                self.accounts[at].part_batches.left(call.group);
                return Some(call);
            }
        }
    }

    fn next_call(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        left: &mut usize,
    ) -> Option<Gathered> {
        let plan = self.accounts[at].plan.clone()?;
        let id = self.accounts[at].id?;
        if !self.can_start(now.mono, at) {
            return None;
        }
        let halves = self.suspects_can_go(now.mono, at);
        let mut suspects = halves
            .then(|| self.accounts[at].suspects.pop_front())
            .flatten()
            .map(|part| part.ops.into_iter());
        let mut call: Option<Gathered> = None;
        let (mut items_max, mut bytes_left) = (1, 0);
        let mut aside: Vec<OpIndex> = Vec::new();
        let (mut passed, mut retries) = (0, 0);
        while aside.len() < ASIDE_MAX && !self.fenced {
            let next = match (&mut suspects, &call) {
                // They are what a call carried, once more.
                (Some(suspects), _) => suspects.next().map(|op| (op, Attempts::default())),
                (None, None) => self.next_of_all(now.mono, at, retries),
                (None, Some(call)) => self.next_of(now.mono, at, call, retries),
            };
            let Some((op, attempts)) = next else { break };
            retries += attempts.retries;
            self.index.slab[op].set_state(OpState::Waiting);
            *left = left.saturating_sub(1);
            let (item, payload) = match self.prepare(now, journal, op) {
                Prepared::Item(item, payload) => (item, payload),
                // A queue of operations that all end without a call must not hold up the turn, nor
                // their outcomes fill the log beyond what it holds in reserve.
                Prepared::Settled if *left == 0 && call.is_none() => break,
                Prepared::Settled if journal.room(Class::Outcome) < CALL_ROOM => break,
                Prepared::Settled => continue,
                Prepared::Later => break,
            };
            let kind = item.kind.expect("a prepared item has its call");
            let group = batch_of(&plan, kind, &payload);
            if suspects.is_none() && self.accounts[at].part_batches.pass_over(group) {
                aside.push(op);
                continue;
            }
            let probes = match self.way_of(at, &item, group.is_none()) {
                Way::Open => None,
                Way::Held(endpoint) => {
                    self.index.set_aside(op, endpoint);
                    passed += 1;
                    if passed == ASIDE_MAX || (*left == 0 && call.is_none()) {
                        break;
                    }
                    continue;
                }
                Way::Probe(_) if call.is_some() => {
                    aside.push(op);
                    continue;
                }
                Way::Probe(endpoint) => Some(endpoint),
            };
            let operation = self.index.slab[op].class();
            let class = self.accounts[at].class_of_operation(operation, kind, group);
            let known = call.as_ref().map(|call| call.class);
            if self.must_wait(now.mono, at, op, class, known) {
                passed += 1;
                if passed == ASIDE_MAX || (*left == 0 && call.is_none()) {
                    break;
                }
                continue;
            }
            let bytes = payload.fields.len() + item.record_id().len() + ITEM_OVERHEAD;
            match &mut call {
                None => {
                    if let Some(group) = group {
                        items_max = plan.definition.batch_items_max(group);
                        bytes_left = plan.definition.batch_bytes_max(group);
                        let account = &mut self.accounts[at];
                        account.records_per_call = account.records_per_call.max(items_max);
                        if probes.is_some() || self.holdings.gate(id) == Some(Gate::Probe) {
                            items_max = 1;
                        }
                    }
                    bytes_left = bytes_left.saturating_sub(bytes);
                    call = Some(Gathered {
                        group,
                        class,
                        probes,
                        flow: self.index.slab[op].flow(),
                        attempts,
                        records: vec![(*item, payload)],
                        has_room: items_max > 1,
                    });
                }
                Some(call) if call.takes(group, &payload) && bytes <= bytes_left => {
                    bytes_left -= bytes;
                    call.attempts.join(attempts);
                    call.records.push((*item, payload));
                }
                Some(call) => {
                    call.has_room &= call.group != group;
                    aside.push(op);
                    continue;
                }
            }
            if let Some(call) = &mut call
                && call.records.len() >= items_max
            {
                call.has_room = false;
                break;
            }
        }
        if let Some(call) = &mut call {
            self.let_go_alone(at, &plan, call);
        }
        // Halves of a refused call keep together; what is not sent with them is ready again.
        for op in suspects.into_iter().flatten() {
            self.index.slab[op].set_state(OpState::Waiting);
            aside.push(op);
        }
        for op in aside.into_iter().rev() {
            self.index.put_back(op);
        }
        call
    }

    /// Whether a call to the account may start, and there is something that it could carry or that
    /// has to be looked at.
    pub(super) fn can_start(&self, now: Mono, at: usize) -> bool {
        self.suspects_can_go(now, at) || self.source(now, at, 0).is_some()
    }

    /// A read without company is a read: no answer that has to be taken apart. Unless that costs
    /// something else, or fails with others.
    fn let_go_alone(&self, at: usize, plan: &AccountPlan, call: &mut Gathered) {
        let [(item, payload)] = &*call.records else {
            return;
        };
        let reads = item.kind == Some(CallKind::Read);
        let endpoint = |alone| {
            plan.definition
                .endpoint(CallKind::Read, &payload.object, alone)
        };
        let operation = self.index.slab[item.op].class();
        let costs = self.accounts[at].class_of_operation(operation, CallKind::Read, None);
        if reads && costs == call.class && endpoint(true) == endpoint(false) {
            call.group = None;
        }
    }

    /// Whether the account's next call waits for company: quota is scarce, no full batch waits,
    /// nothing is urgent, and no record has waited for as long as it may.
    pub(super) fn lingers(&mut self, now: Mono, at: usize) -> bool {
        let (account, queue) = (&self.accounts[at], &self.index.accounts[at]);
        let linger = account.id.map_or(Duration::ZERO, |id| {
            self.holdings.linger(id, account.usual_class())
        });
        let longest = account.plan.as_ref().map(|plan| plan.max_wait);
        let longest = longest.unwrap_or_default();
        let linger = match self.siblings_come(now, at, longest) {
            true => longest,
            false => linger.min(longest),
        };
        let records = queue.callable_len();
        let is_urgent = || {
            let mut queues = queue.sorted.iter().chain([&queue.unsorted]);
            queues.any(|queue| queue.count_to(&self.index.slab, URGENT_PRIORITY_MAX, 1) > 0)
        };
        let may_wait = !linger.is_zero()
            && (1..account.records_per_call).contains(&records)
            && account.suspects.is_empty()
            && !is_urgent();
        let account = &mut self.accounts[at];
        account.lingers_until = None;
        if records == 0 {
            account.lingers_since = None;
        } else if !linger.is_zero() {
            // What waits for a permit has the time count too.
            let since = *account.lingers_since.get_or_insert(now);
            let until = since.saturating_add(linger);
            account.lingers_until = Some(until).filter(|until| may_wait && now < *until);
        }
        account.lingers_until.is_some()
    }

    /// Whether records that waited for others come ready one call after the other: some just did,
    /// and more may with the calls that are out or the words that are on their way.
    fn siblings_come(&self, now: Mono, at: usize, longest: Duration) -> bool {
        let account = &self.accounts[at];
        let linked = account.parent_linked;
        linked.is_some_and(|linked| now < linked.saturating_add(longest))
            && (account.news_under_way > 0 || self.calls.records_of(at as u16) > 0)
    }

    fn suspects_can_go(&self, now: Mono, at: usize) -> bool {
        let part = self.accounts[at].suspects.front();
        part.is_some_and(|part| self.may_start(now, at, part.class))
    }

    /// The one request for all records. Those that cannot go with the others are put back, or end.
    pub(super) fn render_batch(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &Arc<AccountPlan>,
        group: BatchGroup,
        mut records: Vec<Sendable>,
    ) -> Option<(Vec<Item>, Request)> {
        loop {
            match rendered(plan, group, &records) {
                Ok(mut request) => {
                    let items: Vec<Item> = records.into_iter().map(|(item, _)| item).collect();
                    request.request_id = items[0].id().to_string();
                    let key = request
                        .kind
                        .is_write()
                        .then(|| content_key(&items, &request));
                    request.idempotency_key = key;
                    return Some((items, request));
                }
                Err(RenderError::Item { index, source }) if index < records.len() => {
                    let (item, _) = records.remove(index);
                    if *source == RenderError::RepeatedKey {
                        // Two records that the provider takes for one: never in the same call.
                        self.index.put_back(item.op);
                    } else {
                        self.unsendable(now, journal, &plan.name, item, source.to_string());
                    }
                }
                Err(RenderError::BatchTooLarge { .. } | RenderError::PathTooLong { .. })
                    if records.len() > 1 =>
                {
                    for (item, _) in records.drain(records.len() / 2..).rev() {
                        self.index.put_back(item.op);
                    }
                }
                Err(error) => {
                    for (item, _) in records.drain(..) {
                        self.unsendable(now, journal, &plan.name, item, error.to_string());
                    }
                }
            }
            if records.is_empty() || self.fenced {
                return None;
            }
        }
    }

    /// A call was refused for what some record in it holds: each half goes again on its own, so
    /// that the one record is found and its neighbours arrive.
    pub(super) fn halve(&mut self, at: usize, class: CostClass, items: &[Item]) {
        let (first, second) = items.split_at(items.len() / 2);
        let suspects = &mut self.accounts[at].suspects;
        for half in [second, first] {
            if !half.is_empty() {
                let ops = half.iter().map(|item| item.op).collect();
                suspects.push_front(Suspects { ops, class });
            }
        }
    }

    /// Records that the answer to a call of several did not tell of: each is asked for by itself.
    pub(super) fn ask_alone(&mut self, at: usize, class: CostClass, ops: Vec<OpIndex>) {
        for op in ops.into_iter().rev() {
            let ops = vec![op];
            self.accounts[at]
                .suspects
                .push_front(Suspects { ops, class });
        }
    }

    /// Halves of refused calls that no call takes any more are ready like others.
    pub(super) fn release_suspects(&mut self, at: usize) {
        let parts = std::mem::take(&mut self.accounts[at].suspects);
        for op in parts.into_iter().flat_map(|part| part.ops) {
            self.index.slab[op].set_state(OpState::Waiting);
            self.index.put_back(op);
        }
    }
}

/// The batch that a call goes into. A read that names no field wants what its provider shows of
/// itself, which a batch that has to name them cannot say.
pub(super) fn batch_of(
    plan: &AccountPlan,
    kind: CallKind,
    payload: &Payload,
) -> Option<BatchGroup> {
    let group = plan.definition.batch_group(kind, &payload.object)?;
    let nameless = kind == CallKind::Read && payload.fields == NO_FIELDS;
    (!nameless || !plan.definition.batch_names_fields(group)).then_some(group)
}

/// What a read asks for that names no field.
const NO_FIELDS: &str = "{}";

/// What a record adds to a batch beside its fields and key, about.
const ITEM_OVERHEAD: usize = 128;

fn rendered(
    plan: &AccountPlan,
    group: BatchGroup,
    records: &[Sendable],
) -> Result<Request, RenderError> {
    let members: Vec<_> = records
        .iter()
        .map(|(_, payload)| members(&payload.fields))
        .collect();
    let fields: Vec<Vec<Field<'_>>> = members.iter().map(|members| fields(members)).collect();
    let items: Vec<BatchItem<'_>> = records
        .iter()
        .zip(&fields)
        .map(|((item, payload), fields)| BatchItem {
            kind: item.kind.expect("a prepared item has its call"),
            subject: subject(item, &plan.name, payload, fields),
        })
        .collect();
    plan.definition.render_batch(group, &items)
}

/// A key for exactly this content: the same operations in the same request. Equal bytes that a later
/// operation asks for are another change, and must not be taken for a repeat.
fn content_key(items: &[Item], request: &Request) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&request.digest().0.to_le_bytes());
    for item in items {
        hash.update(&item.record.0.to_le_bytes());
        hash.update(&item.lead.seq.0.to_le_bytes());
    }
    format!("batch-{:032x}", hash.digest128())
}
