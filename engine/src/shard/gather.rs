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
use crate::operation_slab::{Flow, OpIndex, OpState, OperationSlab};
use crate::provider::{BatchGroup, BatchItem, Field, RenderError, Request};
use crate::quota::{CostClass, Gate, URGENT_PRIORITY_MAX};
use crate::ready::{FlowWeights, ReadyQueue};
use crate::time::{Mono, Now};

/// Records looked at for one call and put back, because they go into another one, at most; and as
/// many that cost something else.
const ASIDE_MAX: usize = 256;

/// One in so many calls is for the oldest of those whose turn it is, whatever its priority: the worst
/// priority waits at most so many times as long as it would in a plain queue.
const AGEING: u32 = 8;

/// Operations of an account that are looked at before their call can be paid for, at most: so
/// calls whose own window has room are found among others that wait.
const SORTED_AHEAD_MAX: usize = 256;

/// Where a call's first record comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// From the list of a cost class.
    Sorted(usize),
    /// From those not looked at yet.
    Unsorted,
}

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
    /// At least one.
    pub(super) records: Vec<Sendable>,
    /// More of them fit, and none was ready.
    pub(super) has_room: bool,
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
        let mut passed = 0;
        while aside.len() < ASIDE_MAX && !self.fenced {
            let next = match (&mut suspects, &call) {
                (Some(suspects), _) => suspects.next(),
                (None, None) => self.next_of_all(now.mono, at),
                (None, Some(call)) => self.next_of(at, call.class, call.flow),
            };
            let Some(op) = next else { break };
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
            let group = plan.definition.batch_group(kind, &payload.object);
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
            let class = self.accounts[at].class_of(kind, group);
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
                        records: vec![(*item, payload)],
                        has_room: items_max > 1,
                    });
                }
                Some(call) if call.group == group && bytes <= bytes_left => {
                    bytes_left -= bytes;
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
        self.suspects_can_go(now, at) || self.source(now, at).is_some()
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
        let records = queue.ready_len();
        let is_urgent = || {
            let mut queues = queue.sorted.iter().chain([&queue.ready, &queue.retries]);
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

    /// Where the first record of the account's next call comes from: the best one of those whose
    /// call can be paid for, and of those whose call is not known yet.
    fn source(&self, now: Mono, at: usize) -> Option<Source> {
        let (account, queue) = (&self.accounts[at], &self.index.accounts[at]);
        let sorted = queue.sorted.iter().enumerate().filter_map(|(list, queue)| {
            let best = queue.best_priority()?;
            let payable = self.may_start(now, at, account.class_at(list));
            payable.then_some((best, Source::Sorted(list)))
        });
        let unsorted = [&queue.ready, &queue.retries].into_iter();
        let unsorted = unsorted.filter_map(ReadyQueue::best_priority);
        let unsorted = unsorted.min().filter(|_| {
            let looks_ahead = account.classes.len() > 1 && queue.sorted_len() < SORTED_AHEAD_MAX;
            self.may_start(now, at, account.usual_class()) || (looks_ahead && self.may_call(at))
        });
        let unsorted = unsorted.map(|best| (best, Source::Unsorted));
        let all = sorted.chain(unsorted);
        all.min_by_key(|(best, _)| *best).map(|(_, source)| source)
    }

    fn next_of_all(&mut self, now: Mono, at: usize) -> Option<OpIndex> {
        match self.source(now, at)? {
            Source::Sorted(list) => self.next_sorted(at, list, None),
            Source::Unsorted => self.next_ready(at, None),
        }
    }

    /// The next record for a call of this class, begun by a record of this flow.
    fn next_of(&mut self, at: usize, class: CostClass, flow: Flow) -> Option<OpIndex> {
        let list = self.accounts[at].place(class);
        let queue = &self.index.accounts[at];
        if queue
            .sorted
            .get(list)
            .is_some_and(|queue| !queue.is_empty())
        {
            self.next_sorted(at, list, Some(flow))
        } else {
            self.next_ready(at, Some(flow))
        }
    }

    fn next_sorted(&mut self, at: usize, list: usize, with: Option<Flow>) -> Option<OpIndex> {
        let queue = &mut self.index.accounts[at];
        let slab = &mut self.index.slab;
        let taken = &mut self.accounts[at].taken;
        next_in(&mut queue.sorted[list], slab, &queue.weights, taken, with)
    }

    /// Sorts an operation away whose call costs something else than the call being filled, or what
    /// cannot be paid now.
    fn must_wait(
        &mut self,
        now: Mono,
        at: usize,
        op: OpIndex,
        class: CostClass,
        filled: Option<CostClass>,
    ) -> bool {
        if self.accounts[at].classes.len() < 2 {
            return false;
        }
        let list = self.accounts[at].place(class);
        if self.index.slab[op].sorted().is_none() {
            self.accounts[at].mix.saw(list);
        }
        let waits = match filled {
            Some(filled) => filled != class,
            None => !self.may_start(now, at, class),
        };
        if waits {
            self.index.sort_into(op, list);
        }
        waits
    }

    /// The account's next operation that was not looked at: retries within their budget.
    fn next_ready(&mut self, at: usize, with: Option<Flow>) -> Option<OpIndex> {
        let (queue, slab) = (&mut self.index.accounts[at], &mut self.index.slab);
        let account = &mut self.accounts[at];
        let firsts_wait = !queue.ready.is_empty();
        let retry = !queue.retries.is_empty() && account.retry_budget.allows_retry(firsts_wait);
        if retry {
            account.retry_budget.on_retry(firsts_wait);
        } else if firsts_wait {
            account.retry_budget.on_first_attempt();
        }
        let from = if retry {
            &mut queue.retries
        } else {
            &mut queue.ready
        };
        next_in(from, slab, &queue.weights, &mut account.taken, with)
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

    /// Halves of refused calls that no call takes any more are ready like others.
    pub(super) fn release_suspects(&mut self, at: usize) {
        let parts = std::mem::take(&mut self.accounts[at].suspects);
        for op in parts.into_iter().flat_map(|part| part.ops) {
            self.index.slab[op].set_state(OpState::Waiting);
            self.index.put_back(op);
        }
    }
}

/// The next operation of a queue: to go along with a call of that flow, or to begin one, which every
/// so often is for the oldest, so that low priorities move too.
fn next_in(
    queue: &mut ReadyQueue,
    slab: &mut OperationSlab,
    weights: &FlowWeights,
    calls: &mut u32,
    with: Option<Flow>,
) -> Option<OpIndex> {
    if let Some(flow) = with {
        return queue.pop_company(slab, flow);
    }
    *calls = calls.wrapping_add(1);
    if calls.is_multiple_of(AGEING) {
        queue.pop_oldest(slab, weights)
    } else {
        queue.pop(slab, weights)
    }
}

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
