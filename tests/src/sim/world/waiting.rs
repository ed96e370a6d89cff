//! Who waits for a first attempt: by the logs, and ready by the shard's own word.

use std::collections::BTreeSet;

use engine::shard::{CallId, Wait};
use wal::Lsn;

use super::World;
use crate::sim::marks::Mark;

impl World {
    /// A shard has ended a turn in which it decided on so many calls; its log ended at `before` when
    /// it began to.
    pub(super) fn note_decided(&mut self, shard: usize, calls: usize, before: Lsn) {
        let shards = self.node.as_ref().map_or(1, |node| node.shards.len());
        let accounts = 0..self.options.accounts.len();
        let waiting: BTreeSet<usize> = accounts
            .filter(|&account| {
                let name = &self.options.accounts[account].name;
                calls > 0
                    && self.counts_retries(account)
                    && self.oracle.has_retries((shard, shards), name)
                    && self.firsts_wait(shard, account, before)
            })
            .collect();
        self.retries.decided(shard, calls, &waiting);
    }

    /// A call of one record leaves.
    pub(super) fn check_share(&mut self, shard: usize, id: CallId, account: usize, again: bool) {
        let waited = self.retries.waited(shard, id, account);
        if !self.counts_retries(account) {
            return;
        }
        if !again {
            self.retries.first(shard, account);
        } else if waited {
            self.retried_before_first(shard, account);
        }
    }

    /// A planted bug sends a call again beneath its shard.
    pub(super) fn check_share_below(&mut self, shard: usize, account: usize) {
        let before = self.oracle.promised(shard);
        if self.counts_retries(account) && self.firsts_wait(shard, account, before) {
            self.retried_before_first(shard, account);
        }
    }

    fn retried_before_first(&mut self, shard: usize, account: usize) {
        self.marks.hit(Mark::RetriedBeforeFirst);
        let owed_max = self.options.accounts[account].max_in_flight;
        let checked = self.retries.retry(shard, account, owed_max);
        self.oracle.note(checked);
    }

    /// Halves of a refused batch are neither the one nor the other.
    fn counts_retries(&self, account: usize) -> bool {
        self.options.accounts[account].batch_max == 1
    }

    /// Whether an operation of which nothing was sent has been ready since before that place of its
    /// shard's log. What waits for an operator, an endpoint or a time is not.
    fn firsts_wait(&mut self, shard: usize, account: usize, before: Lsn) -> bool {
        let now = self.clock.now();
        let Some(node) = &mut self.node else {
            return false;
        };
        let shards = node.shards.len();
        let own = &mut node.shards[shard];
        // A read that is to fail is not ours.
        if own.journal.fail_reads > 0 {
            return false;
        }
        let name = &self.options.accounts[account].name;
        let firsts = self.oracle.firsts((shard, shards), name, before);
        firsts.into_iter().any(|(object, record_id)| {
            let told = own.shard.explain(now, &mut own.journal, object, record_id);
            let mut told = told.iter().filter(|told| told.standing.account == *name);
            told.any(|told| matches!(told.wait, Some(Wait::Turn | Wait::Quota)))
        })
    }
}
