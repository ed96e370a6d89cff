//! Where a call's records come from: whose turn it is among those that can be paid for.

use super::Shard;
use super::gather::Gathered;
use crate::operation_slab::{Flow, OpIndex, OperationSlab};
use crate::quota::{Attempts, CostClass, RetryBudget};
use crate::ready::{ByAttempt, FlowWeights, ReadyQueue};
use crate::time::Mono;

/// One in so many calls is for the oldest of those whose turn it is, whatever its priority: the worst
/// priority waits at most so many times as long as it would in a plain queue.
const AGEING: u32 = 8;

/// Operations of an account that are looked at before their call can be paid for, at most: so
/// calls whose own window has room are found among others that wait.
const SORTED_AHEAD_MAX: usize = 256;

/// Where the next record of a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// The list of a cost class; `None`: those not looked at yet.
    list: Option<usize>,
    retry: bool,
    /// What it counts for among the account's retries.
    attempts: Attempts,
}

impl Source {
    /// The best retry of these lists if the budget allows one, else the best first attempt. `taken`:
    /// retries taken out for this call so far, while first attempts waited. `firsts_elsewhere`: some
    /// wait in other lists.
    fn of<'q>(
        lists: impl Iterator<Item = (Option<usize>, &'q ByAttempt)> + Clone,
        budget: &RetryBudget,
        taken: u32,
        firsts_elsewhere: bool,
    ) -> Option<Self> {
        let best = |retry: bool| {
            let queues = lists.clone().filter_map(|(list, queues)| {
                let queue = if retry {
                    &queues.retries
                } else {
                    &queues.firsts
                };
                Some((queue.best_priority()?, list))
            });
            queues.min_by_key(|(best, _)| *best)
        };
        let first = best(false);
        let firsts_wait = first.is_some() || firsts_elsewhere;
        let retry = best(true).filter(|_| budget.allows_retry(firsts_wait, taken));
        let (_, list) = retry.or(first)?;
        Some(Self {
            list,
            retry: retry.is_some(),
            attempts: Attempts::one(retry.is_some(), firsts_wait),
        })
    }
}

impl<T> Shard<T> {
    /// Where the first record of the account's next call comes from: of those whose call can be
    /// paid for, and of those whose call is not known yet.
    pub(super) fn source(&self, now: Mono, at: usize, taken: u32) -> Option<Source> {
        let budget = &self.accounts[at].retry_budget;
        Source::of(self.payable(now, at), budget, taken, false)
    }

    /// The lists from which a call could start, those whose turn it is first.
    fn payable(
        &self,
        now: Mono,
        at: usize,
    ) -> impl Iterator<Item = (Option<usize>, &ByAttempt)> + Clone {
        let (account, queue) = (&self.accounts[at], &self.index.accounts[at]);
        let sorted = move |list: usize| {
            let queues = &queue.sorted[list];
            let may_go = !queues.is_empty() && self.may_start(now, at, account.class_at(list));
            may_go.then_some((Some(list), queues))
        };
        let unsorted = Some((None, &queue.unsorted)).filter(|(_, queues)| {
            let looks_ahead = account.classes.len() > 1 && queue.sorted_len() < SORTED_AHEAD_MAX;
            !queues.is_empty()
                && (self.may_start(now, at, account.usual_class())
                    || (looks_ahead && self.may_call(at)))
        });
        // The lists take turns: what is not held back by its permits would else be by a slot that
        // another list always has first.
        let (count, first) = (queue.sorted.len() + 1, account.taken as usize);
        let lists = (0..count).map(move |place| (place + first) % count);
        lists.filter_map(move |list| match list + 1 == count {
            true => unsorted,
            false => sorted(list),
        })
    }

    pub(super) fn next_of_all(
        &mut self,
        now: Mono,
        at: usize,
        taken: u32,
    ) -> Option<(OpIndex, Attempts)> {
        let source = self.source(now, at, taken)?;
        self.next_from(at, source, None)
    }

    /// The next record to go along with a call.
    pub(super) fn next_of(
        &mut self,
        now: Mono,
        at: usize,
        call: &Gathered,
        taken: u32,
    ) -> Option<(OpIndex, Attempts)> {
        let (account, queue) = (&self.accounts[at], &self.index.accounts[at]);
        let list = account.place(call.class);
        let sorted = queue.sorted.get(list).map(|queues| (Some(list), queues));
        // Where all calls cost the same pulls alone are sorted: they go with pulls, all else with all
        // else.
        let all_cost_the_same = account.classes.len() < 2;
        let began_as_pull = self.index.slab[call.records[0].0.op].sorted().is_some();
        let sorted = sorted.filter(|_| !all_cost_the_same || began_as_pull);
        let unsorted = (None, &queue.unsorted);
        let unsorted = Some(unsorted).filter(|_| !all_cost_the_same || !began_as_pull);
        let lists = sorted.into_iter().chain(unsorted);
        let firsts = |(_, queues): (_, &ByAttempt)| !queues.firsts.is_empty();
        let firsts_elsewhere = !queue.sorted.is_empty() && self.payable(now, at).any(firsts);
        let source = Source::of(lists, &account.retry_budget, taken, firsts_elsewhere)?;
        self.next_from(at, source, Some(call.flow))
    }

    fn next_from(
        &mut self,
        at: usize,
        source: Source,
        with: Option<Flow>,
    ) -> Option<(OpIndex, Attempts)> {
        let queue = &mut self.index.accounts[at];
        let queues = match source.list {
            Some(list) => &mut queue.sorted[list],
            None => &mut queue.unsorted,
        };
        let from = if source.retry {
            &mut queues.retries
        } else {
            &mut queues.firsts
        };
        let (slab, calls) = (&mut self.index.slab, &mut self.accounts[at].taken);
        let op = next_in(from, slab, &queue.weights, calls, with)?;
        Some((op, source.attempts))
    }

    /// Sorts an operation away whose call costs something else than the call being filled, or what
    /// cannot be paid now.
    pub(super) fn must_wait(
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
