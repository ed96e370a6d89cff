//! What changes an account besides calls: its configuration, and what is learned of its limits.

use std::sync::Arc;

use super::{Account, pooled, shard_id, tokens};
use crate::quota::classes::CostClasses;
use crate::quota::learned::{IN_FLIGHT, Learned, LearnedFrom};
use crate::quota::limits::AccountLimits;
use crate::quota::pool::Pool;
use crate::time::{Mono, Now};

impl Account {
    /// Takes over new settings. Limits that count as before keep their state; a new one is
    /// charged with everything the account has out or still counted anywhere.
    pub(in crate::quota) fn reconfigure(&mut self, now: Now, limits: AccountLimits) {
        let classes = CostClasses::compile(&limits.limits).after(&self.classes);
        let counted = self.pools.iter().map(Pool::restoring).max().unwrap_or(0);
        let mut old: Vec<(usize, Pool)> = self.pools.drain(..).enumerate().collect();
        let mut kept = Vec::new();
        for (limit, &dearest) in pooled(&limits).zip(classes.dearest().iter()) {
            let same = old.iter().position(|(_, pool)| pool.name() == limit.name);
            let continued = same
                .map(|at| old.swap_remove(at))
                .and_then(|(at, mut pool)| {
                    let counts_as_before = pool.resize(now, limit, dearest);
                    counts_as_before.then_some((at, pool))
                });
            kept.push(continued.as_ref().map(|(at, _)| *at));
            self.pools.push(match continued {
                Some((_, pool)) => pool,
                None => {
                    let mut pool = Pool::new(now, limit, dearest);
                    pool.charge(now.mono, now.mono, counted);
                    pool
                }
            });
        }
        self.charge_leases_anew(&classes, &kept);
        self.slots.resize(limits.slots());
        self.in_flight.resize(limits.slots(), 1);
        self.health.reconfigure(limits.hold);
        self.endpoints.reconfigure(limits.hold);
        for lane in &mut self.lanes {
            lane.keep_classes(|class| classes.costs(class).is_some());
        }
        self.classes = Arc::new(classes);
        self.limits = limits;
        self.gone = false;
    }

    pub(in crate::quota) fn remove(&mut self, now: Mono) {
        self.gone = true;
        self.endpoints.clear();
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.clear();
            self.slots.want(now, shard_id(index), 0);
        }
    }

    /// What was learned or forgotten of the limits since this was last asked.
    pub(in crate::quota) fn take_learned(&mut self) -> Vec<Learned> {
        let mut news = Vec::new();
        for pool in &mut self.pools {
            while let Some((from, tokens)) = pool.news() {
                news.push(Learned {
                    account: self.limits.name.clone(),
                    limit: pool.name().to_owned(),
                    from,
                    tokens,
                });
            }
        }
        let tokens = self.in_flight.learned();
        if tokens != self.in_flight_logged {
            self.in_flight_logged = tokens;
            news.push(Learned {
                account: self.limits.name.clone(),
                limit: IN_FLIGHT.to_owned(),
                from: LearnedFrom::Refusals,
                tokens,
            });
        }
        news
    }

    /// Takes up what an earlier run logged as learned.
    pub(in crate::quota) fn recall(&mut self, now: Mono, learned: &Learned) {
        let Some(tokens) = learned.tokens else { return };
        if learned.limit == IN_FLIGHT {
            self.in_flight.recall(now, tokens);
            self.in_flight_logged = Some(tokens);
        }
        let mut pools = self.pools.iter_mut();
        if let Some(pool) = pools.find(|pool| pool.name() == learned.limit) {
            pool.recall(now, learned.from, tokens);
        }
    }

    /// What is lent holds of each pool as much as any call may cost there now: which calls it
    /// pays for is up to the shard, which has yet to hear of the change. `kept` says which pool
    /// each one was before.
    fn charge_leases_anew(&mut self, classes: &CostClasses, kept: &[Option<usize>]) {
        for lease in self.leases.iter_mut() {
            let held = |before: &Option<usize>| before.map_or(0, |before| lease.costs[before]);
            let before: Vec<u32> = kept.iter().map(held).collect();
            let costs = before.iter().zip(classes.dearest().iter());
            let costs: Arc<[u32]> = costs.map(|(held, dearest)| *held.max(dearest)).collect();
            for ((pool, before), &cost) in self.pools.iter_mut().zip(before).zip(costs.iter()) {
                pool.lease_before(tokens(lease.permits, cost - before));
            }
            lease.costs = costs;
        }
    }
}
