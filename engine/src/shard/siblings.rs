//! Children come ready one call of parents after the other: a part batch of them waits for the rest.
//!
//! It waits no longer than `batch.max_wait`, and only while a parent is really on its way, so that
//! a child whose parent nobody has sent holds nothing up.

use super::Shard;
use super::gather::Gathered;
use crate::lane;
use crate::operation_slab::{Flow, OpFlags, OpIndex, OpState, Target};
use crate::provider::BatchGroup;
use crate::quota::URGENT_PRIORITY_MAX;
use crate::time::Mono;

/// Parents that are looked at for each part batch, of those that children wait for; a part batch
/// whose parents are not among them leaves as it is.
const PARENTS_LOOKED_AT_MAX: usize = 256;

/// The part batches of an account that wait.
#[derive(Debug, Default)]
pub(super) struct PartBatches {
    /// Since when each could have gone.
    since: Vec<(BatchGroup, Mono)>,
    /// Those that this turn's calls pass over.
    passed_over: Vec<BatchGroup>,
    /// When the first of them leaves.
    until: Option<Mono>,
}

impl PartBatches {
    /// A turn begins: each may be full by now.
    pub(super) fn begin_turn(&mut self) {
        self.passed_over.clear();
        self.until = None;
    }

    /// Whether records of this group wait for the rest of this turn.
    pub(super) fn pass_over(&self, group: Option<BatchGroup>) -> bool {
        group.is_some_and(|group| self.passed_over.contains(&group))
    }

    /// When the first of those that are passed over leaves.
    pub(super) fn until(&self) -> Option<Mono> {
        self.until
    }

    /// A call of this group leaves.
    pub(super) fn left(&mut self, group: Option<BatchGroup>) {
        self.since.retain(|(waiting, _)| Some(*waiting) != group);
    }

    fn since(&mut self, now: Mono, group: BatchGroup) -> Mono {
        let known = self.since.iter().find(|(waiting, _)| *waiting == group);
        match known {
            Some((_, since)) => *since,
            None => {
                self.since.push((group, now));
                now
            }
        }
    }
}

impl<T> Shard<T> {
    /// Whether a call waits until more records like its own are ready; they are put back then.
    pub(super) fn waits_for_siblings(&mut self, now: Mono, at: usize, call: &Gathered) -> bool {
        let longest = self.accounts[at].plan.as_ref().map(|plan| plan.max_wait);
        let longest = longest.unwrap_or_default();
        let Some(group) = call.group.filter(|_| !longest.is_zero()) else {
            return false;
        };
        let is_urgent = |op: OpIndex| self.index.slab[op].priority().get() <= URGENT_PRIORITY_MAX;
        let may_wait = call.has_room
            && call.probes.is_none()
            && self.index.accounts[at].timed.parent > 0
            && !call.records.iter().any(|(item, _)| is_urgent(item.op));
        let target = Target(at as u16);
        let expected = || {
            // Whose parent was linked just now hears of it in a turn to come.
            self.accounts[at].news_under_way > 0 || self.siblings_expected(target, call.flow)
        };
        if !may_wait || !expected() {
            return false;
        }
        let parts = &mut self.accounts[at].part_batches;
        let until = parts.since(now, group).saturating_add(longest);
        if now >= until {
            return false;
        }
        parts.passed_over.push(group);
        parts.until = Some(parts.until.map_or(until, |known| known.min(until)));
        for (item, _) in call.records.iter().rev() {
            self.index.put_back(item.op);
        }
        true
    }

    /// Whether records of this flow wait for parents that are on their way to the account from
    /// here. Of parents that other shards own nothing is known.
    fn siblings_expected(&self, target: Target, flow: Flow) -> bool {
        let slab = &self.index.slab;
        let mut parents = self.links.parents_of(target).take(PARENTS_LOOKED_AT_MAX);
        parents.any(|(parent, mut children)| {
            let lanes = self.index.lanes_of(parent);
            let under_way = lane::front(slab, lanes, target).is_some_and(|op| {
                let waits_itself = slab[op].has(OpFlags::PARENT);
                match slab[op].state() {
                    OpState::Ready | OpState::InFlight | OpState::Waiting => true,
                    OpState::Backoff => !waits_itself,
                    _ => false,
                }
            });
            under_way
                && children.any(|child| {
                    let op = self.index.find(child.record, child.seq, target);
                    op.is_some_and(|op| slab[op].flow() == flow)
                })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{CallKind, Definition, shipped};

    #[test]
    fn a_part_batch_waits_from_when_it_could_first_have_gone_until_one_of_its_group_leaves() {
        let text = shipped("hubspot").expect("it ships");
        let definition = Definition::parse(text).expect("it parses");
        let group = |object| {
            definition
                .batch_group(CallKind::Upsert, object)
                .expect("a batch")
        };
        let (one, other) = (group("contact"), group("deal"));
        let mut parts = PartBatches::default();
        assert_eq!(parts.since(Mono(5), one), Mono(5));
        assert_eq!(parts.since(Mono(9), one), Mono(5));
        assert_eq!(parts.since(Mono(9), other), Mono(9));
        parts.left(Some(one));
        assert_eq!(parts.since(Mono(12), one), Mono(12));
        assert_eq!(parts.since(Mono(12), other), Mono(9));
    }
}
