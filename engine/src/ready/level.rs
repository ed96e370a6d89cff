//! The ready operations of one priority: flows that take turns.

use super::flow_weights::FlowWeights;
use super::op_list::{Ends, walk};
use crate::operation_slab::{Flow, OpClass, OpIndex, OperationSlab};

/// Flows with something ready, in the order of their numbers, which is that of their turns.
///
/// Weighted round robin: when it is a flow's turn, it has as many calls as its weight says, or as it
/// has operations. One that becomes ready waits for those between it and the present one: for one
/// round at most.
#[derive(Debug, Default)]
pub(super) struct Level {
    flows: Vec<FlowLists>,
    /// Whose turn it is; maybe it has nothing any more.
    turn: Flow,
    /// Calls that it has left of this turn.
    credit: u32,
}

/// One flow's operations, a list for each class.
#[derive(Debug)]
struct FlowLists {
    flow: Flow,
    classes: [Ends; OpClass::RANKS],
}

impl Level {
    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The list that `op` belongs in, made if need be. Something is pushed to it at once.
    pub(super) fn list_for(&mut self, slab: &OperationSlab, op: OpIndex) -> &mut Ends {
        let (flow, class) = (slab[op].flow(), slab[op].class());
        let at = self.place(flow).unwrap_or_else(|at| {
            let classes = [Ends::default(); OpClass::RANKS];
            self.flows.insert(at, FlowLists { flow, classes });
            at
        });
        &mut self.flows[at].classes[class.rank()]
    }

    /// Takes out `op`, which is queued here.
    pub(super) fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let at = self.place(slab[op].flow()).expect("its flow is here");
        let class = slab[op].class().rank();
        self.flows[at].classes[class].remove(slab, op);
        if self.flows[at].first().is_none() {
            self.flows.remove(at);
        }
    }

    /// Whether `op`, which is queued in some level, is queued here.
    pub(super) fn holds(&self, slab: &OperationSlab, op: OpIndex) -> bool {
        let Ok(at) = self.place(slab[op].flow()) else {
            return false;
        };
        let ends = self.flows[at].classes[slab[op].class().rank()];
        let within = slab[op].list_prev().is_some() && slab[op].list_next().is_some();
        // Within a list, the neighbours are all that changes: any list of its kind will do, which
        // is longer than two.
        let may_be_within = within && ends.head.is_some() && ends.head != ends.tail;
        may_be_within || ends.head == Some(op) || ends.tail == Some(op)
    }

    /// The first operation of the flow whose turn it is, which has one call less of it now.
    pub(super) fn take_turn(&mut self, weights: &FlowWeights) -> Option<OpIndex> {
        let at = self.turn_at()?;
        let flow = self.flows[at].flow;
        if flow != self.turn || self.credit == 0 {
            self.turn = flow;
            self.credit = weights.of(flow);
        }
        self.credit -= 1;
        self.flows[at].first()
    }

    /// The oldest operation of the flow whose turn it is.
    pub(super) fn oldest_of_turn(&self, slab: &OperationSlab) -> Option<OpIndex> {
        let lists = &self.flows[self.turn_at()?];
        let heads = lists.classes.iter().filter_map(|ends| ends.head);
        heads.min_by_key(|&op| slab[op].position().offset())
    }

    /// The first operation of `flow`, else of the one after it.
    pub(super) fn company_of(&self, flow: Flow) -> Option<OpIndex> {
        let at = self.place(flow).unwrap_or_else(|next| next);
        let lists = self.flows.get(at).or_else(|| self.flows.first())?;
        lists.first()
    }

    pub(super) fn sort_by_position(&mut self, slab: &mut OperationSlab) {
        let mut ops: Vec<(u64, OpIndex)> = Vec::new();
        let lists = self.flows.iter_mut().flat_map(|lists| &mut lists.classes);
        for ends in lists {
            ops.clear();
            while let Some(op) = ends.head {
                ends.remove(slab, op);
                ops.push((slab[op].position().offset(), op));
            }
            ops.sort_unstable_by_key(|&(position, _)| position);
            for &(_, op) in &ops {
                ends.push(slab, op);
            }
        }
    }

    /// Operations queued here; at most `count_max` are counted.
    pub(super) fn count(&self, slab: &OperationSlab, count_max: usize) -> usize {
        let all = self.flows.iter().flat_map(|lists| lists.iter(slab));
        all.take(count_max).count()
    }

    /// How many go before `op`, if it is queued here: those before it in its flow, and of every
    /// other flow what it has in as many rounds as that takes.
    pub(super) fn place_of(
        &self,
        slab: &OperationSlab,
        op: OpIndex,
        weights: &FlowWeights,
        count_max: usize,
    ) -> Option<usize> {
        let own = self.place(slab[op].flow()).ok()?;
        let mut before = self.flows[own].iter(slab).take(count_max);
        let own_ahead = before.position(|at| at == op)?;
        let weight = |lists: &FlowLists| weights.of(lists.flow) as usize;
        let rounds = own_ahead / weight(&self.flows[own]) + 1;
        let mut ahead = own_ahead;
        for lists in self
            .flows
            .iter()
            .filter(|lists| lists.flow != slab[op].flow())
        {
            let most = (rounds * weight(lists)).min(count_max - ahead);
            ahead += lists.iter(slab).take(most).count();
        }
        Some(ahead)
    }

    /// Where the flow is whose turn it is.
    fn turn_at(&self) -> Option<usize> {
        let at = match self.place(self.turn) {
            Ok(at) if self.credit > 0 => at,
            Ok(at) => at + 1,
            Err(next) => next,
        };
        let wrapped = if at == self.flows.len() { 0 } else { at };
        (wrapped < self.flows.len()).then_some(wrapped)
    }

    fn place(&self, flow: Flow) -> Result<usize, usize> {
        // Most accounts have a few flows; the search is short.
        self.flows.binary_search_by_key(&flow, |lists| lists.flow)
    }
}

impl FlowLists {
    fn first(&self) -> Option<OpIndex> {
        self.classes.iter().find_map(|ends| ends.head)
    }

    fn iter<'s>(&self, slab: &'s OperationSlab) -> impl Iterator<Item = OpIndex> + use<'s> {
        let heads = self.classes.map(|ends| ends.head);
        heads.into_iter().flat_map(|head| walk(slab, head))
    }
}
