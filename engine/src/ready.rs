//! What an account may call next, best first.

mod aside;
mod by_attempt;
mod flow_weights;
mod level;
mod op_list;

pub use aside::Aside;
pub use by_attempt::ByAttempt;
pub use flow_weights::{FlowWeights, WEIGHT_MAX};
use level::Level;
pub use op_list::{ListCursor, OpList};

use crate::operation_slab::{Flow, OpIndex, OperationSlab, Priority};

/// The ready operations of one account: by priority; among those of a priority the flows take turns
/// by their weights; within a flow creates come before updates before deletes, then goes what came
/// first.
///
/// An operation is the front of its lane and queued at the lane's best priority, which is the
/// caller's to pass, since it may be better than the operation's own.
///
/// A *turn* is a call: [`ReadyQueue::pop`] takes its first operation and charges the operation's
/// flow, [`ReadyQueue::pop_company`] takes what goes along and charges nobody.
#[derive(Debug)]
pub struct ReadyQueue {
    levels: [Level; LEVELS],
    /// Bit n: level n is not empty.
    taken: u32,
    len: usize,
}

/// One for each priority.
const LEVELS: usize = Priority::WORST.get() as usize;
const _: () = assert!(LEVELS <= u32::BITS as usize);

impl ReadyQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            levels: std::array::from_fn(|_| Level::default()),
            taken: 0,
            len: 0,
        }
    }

    /// Queues `op` behind the others of this priority, its flow and its class.
    pub fn push(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        let level = level_of(priority);
        self.levels[level].list_for(slab, op).push(slab, op);
        self.taken |= 1 << level;
        self.len += 1;
    }

    /// Queues `op` before the others of this priority, its flow and its class: it was there before.
    pub fn push_front(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        let level = level_of(priority);
        self.levels[level].list_for(slab, op).push_front(slab, op);
        self.taken |= 1 << level;
        self.len += 1;
    }

    /// Takes the best one out, and a turn of its flow.
    pub fn pop(&mut self, slab: &mut OperationSlab, weights: &FlowWeights) -> Option<OpIndex> {
        let level = self.best_level()?;
        let op = self.levels[level].take_turn(weights)?;
        self.remove_from(slab, op, level);
        Some(op)
    }

    /// Takes out, of those whose turn it is at each priority, the one whose event is the oldest in
    /// the log, and a turn of its flow.
    pub fn pop_oldest(
        &mut self,
        slab: &mut OperationSlab,
        weights: &FlowWeights,
    ) -> Option<OpIndex> {
        let levels = self.levels.iter().enumerate();
        let oldest = levels.filter_map(|(level, lists)| {
            let op = lists.oldest_of_turn(slab)?;
            Some((slab[op].position().offset(), level, op))
        });
        let (_, level, op) = oldest.min()?;
        self.levels[level].take_turn(weights);
        self.remove_from(slab, op, level);
        Some(op)
    }

    /// Takes out the best one to go along with a call of `flow`: of the best priority, and there of
    /// the flow itself while it has any. No flow is charged: what goes along costs nobody a call.
    pub fn pop_company(&mut self, slab: &mut OperationSlab, flow: Flow) -> Option<OpIndex> {
        let level = self.best_level()?;
        let op = self.levels[level].company_of(flow)?;
        self.remove_from(slab, op, level);
        Some(op)
    }

    /// Takes `op` out, which must be queued here.
    ///
    /// # Panics
    /// If `op` is first or last of a list elsewhere.
    pub fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let level = self.levels.iter().position(|level| level.holds(slab, op));
        self.remove_from(slab, op, level.expect("not in this queue"));
    }

    /// Queues `op` anew at a better priority, since a better operation joined its lane.
    pub fn raise(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        self.remove(slab, op);
        self.push(slab, op, priority);
    }

    /// Puts each list into the order of the log. A recovery fills the queue record by record; read
    /// in that order, every event would cost a read from the disk of its own.
    pub fn sort_by_position(&mut self, slab: &mut OperationSlab) {
        for level in &mut self.levels {
            level.sort_by_position(slab);
        }
    }

    /// The best priority that anything is queued at.
    pub fn best_priority(&self) -> Option<Priority> {
        let level = self.best_level()?;
        Priority::new(level as u8 + 1)
    }

    /// Operations that are taken out before `op`, which is queued here, as far as flows keep what
    /// they have; at most `count_max` are counted.
    pub fn ahead_of(
        &self,
        slab: &OperationSlab,
        op: OpIndex,
        weights: &FlowWeights,
        count_max: usize,
    ) -> usize {
        let mut ahead = 0;
        for level in &self.levels {
            let left = count_max - ahead;
            match level.place_of(slab, op, weights, left) {
                Some(place) => return ahead + place,
                None => ahead += level.count(slab, left),
            }
        }
        ahead
    }

    /// Operations queued at this priority or a better one; at most `count_max` are counted.
    pub fn count_to(&self, slab: &OperationSlab, priority: u8, count_max: usize) -> usize {
        let levels = usize::from(priority);
        if self.taken & ((1 << levels) - 1) == 0 {
            return 0;
        }
        let mut counted = 0;
        for level in &self.levels[..levels] {
            counted += level.count(slab, count_max - counted);
        }
        counted
    }

    /// Operations queued.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn best_level(&self) -> Option<usize> {
        (self.taken != 0).then(|| self.taken.trailing_zeros() as usize)
    }

    fn remove_from(&mut self, slab: &mut OperationSlab, op: OpIndex, level: usize) {
        self.levels[level].remove(slab, op);
        if self.levels[level].is_empty() {
            self.taken &= !(1 << level);
        }
        self.len -= 1;
    }
}

impl Default for ReadyQueue {
    fn default() -> Self {
        Self::new()
    }
}

fn level_of(priority: Priority) -> usize {
    usize::from(priority.get() - 1)
}
