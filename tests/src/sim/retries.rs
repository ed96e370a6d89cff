//! How many calls are retries while first attempts wait: a tenth, and what was saved up.
//!
//! Counted by shard where an account's calls carry one record each, from when a call leaves. Whether
//! somebody waited behind a retry is known from the turn in which the shard decided on it.

use std::collections::{BTreeMap, BTreeSet};

use engine::shard::CallId;

use super::fold::Broken;

/// First attempts that earn a retry.
const FIRSTS_PER_RETRY: i64 = 9;
/// Retries that may be saved up.
const SAVED_MAX: i64 = 10;

/// What each shard may still retry at each account, in one life of the engine.
#[derive(Debug, Default)]
pub(super) struct RetryShare {
    /// In first attempts, by shard and account.
    saved: BTreeMap<(usize, usize), i64>,
    /// Calls that a shard has decided on, which are numbered in that order.
    decided: BTreeMap<usize, u64>,
    /// Accounts of which first attempts waited on when a shard had decided on a call.
    waited: BTreeMap<(usize, u64), BTreeSet<usize>>,
}

impl RetryShare {
    /// A shard decided on so many calls in a turn, after which first attempts at these accounts
    /// waited that had waited before it.
    pub(super) fn decided(&mut self, shard: usize, calls: usize, waiting: &BTreeSet<usize>) {
        let decided = self.decided.entry(shard).or_default();
        let numbers = *decided + 1..=*decided + calls as u64;
        *decided += calls as u64;
        if !waiting.is_empty() {
            let waited = numbers.map(|number| ((shard, number), waiting.clone()));
            self.waited.extend(waited);
        }
    }

    /// Whether first attempts at the account waited on when this call was decided on.
    pub(super) fn waited(&mut self, shard: usize, call: CallId, account: usize) -> bool {
        let waited = self.waited.remove(&(shard, call.0));
        waited.is_some_and(|accounts| accounts.contains(&account))
    }

    /// A first attempt leaves.
    pub(super) fn first(&mut self, shard: usize, account: usize) {
        let saved = self.saved.entry((shard, account)).or_default();
        *saved = (*saved + 1).min(SAVED_MAX * FIRSTS_PER_RETRY);
    }

    /// A retry leaves that a first attempt waited behind. `owed_max`: first attempts that may have
    /// been on their way when it was decided on, and did not leave.
    pub(super) fn retry(
        &mut self,
        shard: usize,
        account: usize,
        owed_max: u32,
    ) -> Result<(), Broken> {
        let saved = self.saved.entry((shard, account)).or_default();
        *saved -= FIRSTS_PER_RETRY;
        if *saved < -i64::from(owed_max) {
            return Err(format!(
                "I9 shard {shard} retries more than a tenth while first attempts wait: {saved}"
            ));
        }
        Ok(())
    }

    /// The engine died: the next one begins anew.
    pub(super) fn died(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retry_in_ten_calls_is_never_too_many_and_one_in_nine_is_in_the_end() {
        for (firsts, holds) in [(9, true), (8, false)] {
            let mut share = RetryShare::default();
            let mut calls = (0..1_000).map(|_| {
                (0..firsts).for_each(|_| share.first(0, 0));
                share.retry(0, 0, 16)
            });
            assert_eq!(calls.all(|call| call.is_ok()), holds, "{firsts}");
        }
    }

    #[test]
    fn a_call_knows_who_waited_in_its_own_turn() {
        let mut share = RetryShare::default();
        share.decided(0, 2, &BTreeSet::from([1]));
        share.decided(0, 1, &BTreeSet::new());
        let waited = [1, 2, 3].map(|call| share.waited(0, CallId(call), 1));
        assert_eq!(waited, [true, true, false]);
    }
}
