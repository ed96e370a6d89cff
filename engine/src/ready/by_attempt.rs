//! Ready operations, those that were called before apart.

use super::ReadyQueue;
use crate::operation_slab::{OpFlags, Operation, OperationSlab};

/// Two queues: the budget of retries says which of them is next.
#[derive(Debug, Default)]
pub struct ByAttempt {
    /// Fronts of lanes that were not sent yet.
    pub firsts: ReadyQueue,
    /// Fronts of lanes whose last call failed and whose time to go again has come.
    pub retries: ReadyQueue,
}

impl ByAttempt {
    /// The queue that a ready operation waits in.
    #[must_use]
    pub fn of(&self, node: &Operation) -> &ReadyQueue {
        if node.has(OpFlags::ATTEMPTED) {
            &self.retries
        } else {
            &self.firsts
        }
    }

    /// The same, to be changed.
    pub fn of_mut(&mut self, node: &Operation) -> &mut ReadyQueue {
        if node.has(OpFlags::ATTEMPTED) {
            &mut self.retries
        } else {
            &mut self.firsts
        }
    }

    /// Both.
    pub fn each_mut(&mut self) -> [&mut ReadyQueue; 2] {
        [&mut self.firsts, &mut self.retries]
    }

    /// Operations in both at this priority or a better one; at most `count_max` are counted.
    #[must_use]
    pub fn count_to(&self, slab: &OperationSlab, priority: u8, count_max: usize) -> usize {
        let firsts = self.firsts.count_to(slab, priority, count_max);
        let left = count_max - firsts;
        firsts + self.retries.count_to(slab, priority, left)
    }

    /// Operations in both.
    #[must_use]
    pub fn len(&self) -> usize {
        self.firsts.len() + self.retries.len()
    }

    /// Whether nothing is in either.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.firsts.is_empty() && self.retries.is_empty()
    }
}
