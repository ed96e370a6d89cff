//! How many calls are retries while first attempts wait: a tenth, and what was saved up.
//!
//! Counted where an account's calls carry one record each. A first attempt is taken to wait only if
//! the shard's log says so: it was accepted before the retry's last outcome, is the oldest of its
//! record, and leaves after the retry.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::quota::{AccountId, Gate, ToShard};

use super::fold::Broken;

/// First attempts that earn a retry.
const FIRSTS_PER_RETRY: u32 = 9;
/// What may be saved up: ten retries, and five for first attempts that were taken and did not leave.
const SAVED_MAX: u32 = 15 * FIRSTS_PER_RETRY;

/// What each shard may still retry at each account.
#[derive(Debug, Default)]
pub(super) struct RetryShare {
    /// In first attempts.
    saved: BTreeMap<(usize, String), u32>,
    /// Endpoints that shards were told not to call: what is for them waits aside.
    held: BTreeSet<(usize, AccountId, Arc<str>)>,
}

impl RetryShare {
    /// A shard is told of an endpoint.
    pub(super) fn told(&mut self, shard: usize, word: &ToShard) {
        if let ToShard::Endpoint {
            account,
            endpoint,
            gate,
        } = word
        {
            let key = (shard, *account, Arc::clone(endpoint));
            match gate {
                Gate::Open | Gate::Suspect => self.held.remove(&key),
                Gate::Held { .. } | Gate::Probe => self.held.insert(key),
            };
        }
    }

    /// Whether some endpoint of the account is held for that shard.
    pub(super) fn holds(&self, shard: usize, account: usize) -> bool {
        let account = AccountId(account as u32);
        let mut held = self.held.iter();
        held.any(|(of, at, _)| (*of, *at) == (shard, account))
    }

    /// A first attempt was made, or ended without a call.
    pub(super) fn first(&mut self, shard: usize, account: &str) {
        let saved = self.saved_by(shard, account);
        *saved = (*saved + 1).min(SAVED_MAX);
    }

    /// A retry was made while a first attempt waited.
    pub(super) fn retry(&mut self, shard: usize, account: &str) -> Result<(), Broken> {
        let saved = self.saved_by(shard, account);
        match saved.checked_sub(FIRSTS_PER_RETRY) {
            Some(left) => {
                *saved = left;
                Ok(())
            }
            None => Err(format!(
                "I9 shard {shard} retries at {account} more than a tenth while first attempts wait"
            )),
        }
    }

    fn saved_by(&mut self, shard: usize, account: &str) -> &mut u32 {
        let key = (shard, account.to_owned());
        self.saved.entry(key).or_insert(SAVED_MAX)
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
                (0..firsts).for_each(|_| share.first(0, "alpha"));
                share.retry(0, "alpha")
            });
            assert_eq!(calls.all(|call| call.is_ok()), holds, "{firsts}");
        }
    }
}
