//! Looking at what an account changed before there is a call to spend on it.
//!
//! Most of it needs none: a list shows the record as it is, or the record is gone. It must not wait
//! behind a backlog for the account, nor for a quota that is spent. What does need a call, to read
//! the record, waits for it like everything else.

use super::Shard;
use super::dispatch::CALL_ROOM;
use super::gather::batch_of;
use super::prepare::Prepared;
use crate::journal::{Class, Journal};
use crate::operation_slab::{OpClass, OpState};
use crate::time::Now;

impl<T> Shard<T> {
    /// Whether pulls of an account wait to be looked at, and may be: its operator did not pause it.
    pub(super) fn may_look_at_pulls(&self, at: usize) -> bool {
        let account = &self.accounts[at];
        account.plan.is_some() && !account.paused && !self.index.accounts[at].pulls.is_empty()
    }

    /// Ends the pulls of an account that need no call, and sorts those that do among what waits for
    /// one; so many at most.
    pub(super) fn look_at_pulls(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        pulls_max: usize,
    ) {
        for _ in 0..pulls_max {
            let has_room = || journal.room(Class::Outcome) >= CALL_ROOM;
            if self.fenced || !self.may_look_at_pulls(at) || !has_room() {
                return;
            }
            let queue = &mut self.index.accounts[at];
            let [firsts, retries] = queue.pulls.each_mut();
            let next = firsts.pop(&mut self.index.slab, &queue.weights);
            let next = next.or_else(|| retries.pop(&mut self.index.slab, &queue.weights));
            let Some(op) = next else { return };
            self.index.slab[op].set_state(OpState::Waiting);
            match self.prepare(now, journal, op) {
                Prepared::Item(item, payload) => {
                    let Some(plan) = self.accounts[at].plan.clone() else {
                        return self.index.put_back(op);
                    };
                    let kind = item.kind.expect("a prepared item has its call");
                    let group = batch_of(&plan, kind, &payload);
                    let class = self.accounts[at].class_of_operation(OpClass::Pull, kind, group);
                    let list = self.accounts[at].place(class);
                    self.index.sort_into(op, list);
                }
                Prepared::Settled => {}
                Prepared::Later => return,
            }
        }
    }
}
