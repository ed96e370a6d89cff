//! Permits that are lent to shards and not reported yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::kept::Caller;
use super::message::{LeaseId, ShardId};
use crate::time::Mono;

/// The live leases of one account, in the order granted, which is the order in which they end.
#[derive(Debug, Default)]
pub(super) struct Leases {
    live: BTreeMap<LeaseId, Lease>,
}

/// Permits lent to one shard.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) shard: ShardId,
    pub(super) permits: u32,
    /// Tokens of each pool that a permit holds.
    pub(super) costs: Arc<[u32]>,
    pub(super) caller: Caller,
    /// From here on the permits count as spent by calls that have just ended.
    pub(super) given_up_at: Mono,
    /// Its calls may be at the provider for as long as the shard lives: a stalled one does not
    /// cut them off.
    pub(super) bound_to_life: bool,
}

impl Leases {
    pub(super) fn grant(&mut self, id: LeaseId, lease: Lease) {
        self.live.insert(id, lease);
    }

    /// Takes `count` permits off a lease of that shard: how many it still had, what each holds,
    /// and for whom; `None` for one that is not live.
    pub(super) fn settle(
        &mut self,
        from: ShardId,
        id: LeaseId,
        count: u32,
    ) -> Option<(u32, Arc<[u32]>, Caller)> {
        let lease = self.live.get_mut(&id).filter(|lease| lease.shard == from)?;
        let settled = count.min(lease.permits);
        lease.permits -= settled;
        let (costs, caller) = (Arc::clone(&lease.costs), lease.caller);
        if lease.permits == 0 {
            self.live.remove(&id);
        }
        Some((settled, costs, caller))
    }

    /// The next lease whose shard has been silent for too long.
    pub(super) fn give_up(&mut self, now: Mono) -> Option<Lease> {
        let (&id, first) = self.live.iter().find(|(_, lease)| !lease.bound_to_life)?;
        if first.given_up_at > now {
            return None;
        }
        self.live.remove(&id)
    }

    /// The shard's life is over: by `ended` its calls are, too.
    pub(super) fn lost(&mut self, shard: ShardId, ended: Mono) {
        for lease in self.live.values_mut() {
            if lease.shard == shard && std::mem::take(&mut lease.bound_to_life) {
                lease.given_up_at = lease.given_up_at.max(ended);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let mut leases = self.live.values();
        let first = leases.find(|lease| !lease.bound_to_life)?;
        Some(first.given_up_at)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lease> {
        self.live.values_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    /// Tokens of a pool that are lent.
    pub(super) fn tokens_of(&self, pool: usize) -> u64 {
        let leases = self.live.values();
        leases
            .map(|lease| u64::from(lease.permits) * u64::from(lease.costs[pool]))
            .sum()
    }
}
