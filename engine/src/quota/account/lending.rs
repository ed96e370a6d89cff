//! Who is lent what: the prober one permit, or everyone a share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Account, Turn, shard_id, tokens};
use crate::quota::ARRIVAL_GRACE;
use crate::quota::classes::{CostClass, CostClasses};
use crate::quota::lane::{Demand, Lane};
use crate::quota::leases::Lease;
use crate::quota::message::ToShard;
use crate::quota::pool::Pool;
use crate::quota::share::Claim;
use crate::time::Mono;

/// How long a lease may be spent: long enough for a log commit and a full queue before the
/// send, short enough that a stalled shard does not sit on scarce tokens.
pub(super) const LEASE_TERM: Duration = Duration::from_secs(2);
/// Shorter waits are the pace of a limit, not a quota that is spent.
const PARKED_MIN: Duration = Duration::from_secs(60);

impl Account {
    /// The shard with demand that makes one call to see whether the account works again.
    pub(super) fn choose_prober(&mut self, now: Mono) -> Option<(usize, CostClass)> {
        let lendable = self.lendable();
        let last = self.health.last_prober();
        let ready = (0..self.lanes.len()).filter_map(|index| {
            let lane = &self.lanes[index];
            let class = self.probe_class(lane, &lendable)?;
            let can = lane.connected && self.slots.held(shard_id(index)) > 0;
            can.then_some((index, class))
        });
        let fresh = |index: usize| last != Some(shard_id(index));
        let best = ready.max_by_key(|&(index, _)| (fresh(index), self.lanes[index].records()));
        let (index, class) = best?;
        // Told again even when it was the prober before: one more call is meant.
        self.lanes[index].told = None;
        let shard = shard_id(index);
        self.health.probe_by(now, shard, self.limits.call_timeout);
        Some((index, class))
    }

    /// A class that the shard would call and the pools have the tokens for.
    fn probe_class(&self, lane: &Lane, lendable: &[u64]) -> Option<CostClass> {
        if self.pools.is_empty() {
            return lane.has_demand().then_some(CostClass::ANY);
        }
        let affordable = |class: &CostClass| {
            let costs = self.classes.costs(*class);
            costs.is_some_and(|costs| {
                let mut pools = lendable.iter().zip(costs.iter());
                pools.all(|(tokens, cost)| *tokens >= u64::from(*cost))
            })
        };
        let asked = lane.demands().map(|(class, _)| class).find(affordable);
        // Slots are wanted for calls that the permits in hand cover; those went back.
        asked.or_else(|| {
            let idle = lane.has_demand() && lane.demands().next().is_none();
            Some(CostClass::ANY).filter(|class| idle && affordable(class))
        })
    }

    pub(super) fn share_permits(&mut self, now: Mono, turn: &mut Turn<'_>) {
        if self.pools.is_empty() {
            return;
        }
        let mut lendable = self.lendable();
        let mut reach: Vec<u64> = self.pools.iter().map(Pool::lendable_at_most).collect();
        let classes = Arc::clone(&self.classes);
        let mut granted: BTreeMap<(usize, CostClass), u32> = BTreeMap::new();
        // The urgent from all there is, then everyone from what is not kept for the urgent.
        for urgent in [true, false] {
            let claims = claims(&self.lanes, &classes, |demand| {
                if urgent {
                    demand.urgent
                } else {
                    demand.permits
                }
            });
            let mut claims: Vec<Claim<'_>> = claims.collect();
            if !urgent {
                for (at, pool) in self.pools.iter().enumerate() {
                    lendable[at] = lendable[at].saturating_sub(pool.urgent_reserve());
                    reach[at] = reach[at].saturating_sub(pool.urgent_reserve());
                }
                for claim in &mut claims {
                    claim.permits -= granted.get(&claim.claimant()).copied().unwrap_or(0);
                }
            }
            if claims.iter().all(|claim| claim.permits == 0) {
                continue;
            }
            let sharing = if urgent {
                &mut self.urgent_sharing
            } else {
                &mut self.sharing
            };
            let shares = sharing.divide(&mut lendable, &reach, &claims);
            for (claim, permits) in claims.iter().zip(shares) {
                *granted.entry(claim.claimant()).or_insert(0) += permits;
            }
        }
        for ((index, class), permits) in granted {
            if permits > 0 {
                self.lend(now, index, class, permits, turn);
            }
        }
    }

    pub(super) fn lend(
        &mut self,
        now: Mono,
        index: usize,
        class: CostClass,
        permits: u32,
        turn: &mut Turn<'_>,
    ) {
        let costs = self
            .classes
            .costs(class)
            .expect("only classes of now are asked for");
        let costs = Arc::clone(costs);
        for (pool, &cost) in self.pools.iter_mut().zip(costs.iter()) {
            pool.take(now, tokens(permits, cost));
        }
        let mut held = self.pools.iter().zip(costs.iter());
        let bound_to_life = held.any(|(pool, cost)| *cost > 0 && pool.is_in_flight());
        let lease = turn.new_lease();
        let usable_until = now.saturating_add(LEASE_TERM);
        let shard = shard_id(index);
        let given_up_at = usable_until.saturating_add(self.limits.call_timeout + ARRIVAL_GRACE);
        self.leases.grant(
            lease,
            Lease {
                shard,
                permits,
                costs,
                given_up_at,
                bound_to_life,
            },
        );
        self.lanes[index].granted(lease, class, permits);
        turn.send(
            shard,
            ToShard::Grant {
                account: self.id,
                class,
                lease,
                permits,
                usable_until,
            },
        );
    }

    /// Tokens of each pool that calls of any priority could be lent.
    fn lendable(&self) -> Vec<u64> {
        self.pools.iter().map(Pool::lendable).collect()
    }

    /// Who asks for how much, and of it how much for urgent operations.
    fn claims(&self) -> impl Iterator<Item = (Claim<'_>, u32)> + '_ {
        let all = claims(&self.lanes, &self.classes, |demand| demand.permits);
        let urgent = claims(&self.lanes, &self.classes, |demand| demand.urgent);
        all.zip(urgent.map(|claim| claim.permits))
    }

    /// When those who wait for permits may get some without any further message.
    pub(super) fn next_permits(&self) -> Option<Mono> {
        let lendable = self.lendable();
        let claims = self.claims();
        let waits = claims.filter_map(|(claim, urgent)| self.waits_until(&lendable, claim, urgent));
        waits.min()
    }

    /// When a pool that this claim is short of may have more: the last one decides, and one
    /// that waits for reports has no instant. `None` too for a claim that is short of none.
    fn waits_until(&self, lendable: &[u64], claim: Claim<'_>, urgent: u32) -> Option<Mono> {
        let short = (0..self.pools.len()).filter(|&at| {
            let kept = if urgent > 0 {
                0
            } else {
                self.pools[at].urgent_reserve()
            };
            lendable[at].saturating_sub(kept) < u64::from(claim.costs[at])
        });
        let changes: Option<Vec<Mono>> = short.map(|at| self.pools[at].next_change()).collect();
        changes?.into_iter().max()
    }

    /// When the first of those that wait for a spent quota can go on, if that is some time off.
    pub(super) fn parked_until(&self, now: Mono) -> Option<Mono> {
        let lendable = self.lendable();
        let waits: Option<Vec<Mono>> = self
            .claims()
            .map(|(claim, urgent)| self.waits_until(&lendable, claim, urgent))
            .collect();
        let next = waits?.into_iter().min()?;
        (next.saturating_since(now) >= PARKED_MIN).then_some(next)
    }
}

fn claims<'a>(
    lanes: &'a [Lane],
    classes: &'a CostClasses,
    permits: impl Fn(&Demand) -> u32 + 'a,
) -> impl Iterator<Item = Claim<'a>> + 'a {
    let demands = lanes.iter().enumerate().flat_map(|(shard, lane)| {
        lane.demands()
            .map(move |(class, demand)| (shard, class, demand))
    });
    demands.filter_map(move |(shard, class, demand)| {
        Some(Claim {
            shard,
            class,
            permits: permits(&demand),
            records: demand.records,
            costs: classes.costs(class)?,
        })
    })
}
