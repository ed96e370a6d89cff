//! Who is lent what: the prober one permit, or everyone a share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Account, Turn, shard_id, tokens};
use crate::quota::ARRIVAL_GRACE;
use crate::quota::classes::{CostClass, CostClasses};
use crate::quota::kept::Caller;
use crate::quota::lane::{Demand, Lane};
use crate::quota::leases::Lease;
use crate::quota::message::ToShard;
use crate::quota::pool::Pool;
use crate::quota::share::{Claim, Sharing};
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
        let mut left = self.lendable();
        let classes = Arc::clone(&self.classes);
        let mut granted: BTreeMap<(usize, CostClass), u32> = BTreeMap::new();
        for tier in Tier::ALL {
            let mut claims: Vec<Claim<'_>> = claims(&self.lanes, &classes, |class, demand| {
                tier.asked(classes.caller(class), demand)
            })
            .collect();
            if tier != Tier::Urgent {
                for claim in &mut claims {
                    let had = granted.get(&claim.claimant()).copied().unwrap_or(0);
                    claim.permits = claim.permits.saturating_sub(had);
                }
            }
            if claims.iter().all(|claim| claim.permits == 0) {
                continue;
            }
            let open = self.open_to(tier, &left);
            let reach: Vec<u64> = self.pools.iter().map(|pool| tier.reach(pool)).collect();
            let mut tokens = open.clone();
            let shares = self.sharing.of(tier).divide(&mut tokens, &reach, &claims);
            // What somebody saves for is not there for others either.
            for ((left, open), tokens) in left.iter_mut().zip(open).zip(tokens) {
                *left -= open - tokens;
            }
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

    /// Tokens of each pool that calls of a tier could be lent, of those that are left.
    fn open_to(&self, tier: Tier, left: &[u64]) -> Vec<u64> {
        let pools = self.pools.iter().zip(left);
        pools.map(|(pool, left)| tier.open(pool, *left)).collect()
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
        let caller = self.classes.caller(class);
        for (pool, &cost) in self.pools.iter_mut().zip(costs.iter()) {
            pool.take(now, tokens(permits, cost), caller);
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
                caller,
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

    /// Tokens of each pool that could be lent, kept for somebody or not.
    fn lendable(&self) -> Vec<u64> {
        self.pools.iter().map(Pool::lendable).collect()
    }

    /// When those who wait for permits may get some without any further message.
    pub(super) fn next_permits(&self) -> Option<Mono> {
        self.waits().filter_map(|(_, until)| until).min()
    }

    /// Of all who ask for permits, until when each waits.
    fn waits(&self) -> impl Iterator<Item = (Caller, Option<Mono>)> + '_ {
        let open = self.lendable();
        let open = Tier::ALL.map(|tier| self.open_to(tier, &open));
        let demands = self.lanes.iter().flat_map(Lane::demands);
        demands.filter_map(move |(class, demand)| {
            let costs = self.classes.costs(class)?;
            let caller = self.classes.caller(class);
            Some((caller, self.waits_until(&open, costs, (caller, demand))))
        })
    }

    /// When a pool that this call is short of may have more: the last one decides, and one that
    /// waits for reports has no instant. `None` too for a call that is short of none.
    fn waits_until(
        &self,
        open: &[Vec<u64>],
        costs: &[u32],
        (caller, demand): (Caller, Demand),
    ) -> Option<Mono> {
        let mut earliest = None;
        for (tier, open) in Tier::ALL.into_iter().zip(open) {
            if tier.asked(caller, &demand) == 0 {
                continue;
            }
            let pools = self.pools.iter().zip(open).zip(costs);
            let short = pools.filter(|((_, open), cost)| **open < u64::from(**cost));
            let changes: Vec<Option<Mono>> =
                short.map(|((pool, _), _)| pool.next_change()).collect();
            if changes.is_empty() {
                return None;
            }
            let changes: Option<Vec<Mono>> = changes.into_iter().collect();
            let at = changes.and_then(|changes| changes.into_iter().max());
            earliest = [earliest, at].into_iter().flatten().min();
        }
        earliest
    }

    /// When the first of the records that wait for a spent quota can go on, if that is some time
    /// off.
    pub(super) fn parked_until(&self, now: Mono) -> Option<Mono> {
        let records = self.waits().filter(|(caller, _)| *caller == Caller::Record);
        let waits: Option<Vec<Mono>> = records.map(|(_, until)| until).collect();
        let next = waits?.into_iter().min()?;
        (next.saturating_since(now) >= PARKED_MIN).then_some(next)
    }
}

/// Who is served one after the other, and from what of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    /// Urgent operations, from all but what is kept for polls.
    Urgent,
    /// Everyone, from what is kept for nobody.
    All,
    /// Polls, from what is kept for them as well.
    Polls,
}

impl Tier {
    const ALL: [Self; 3] = [Self::Urgent, Self::All, Self::Polls];

    /// Permits that are asked for in it.
    fn asked(self, caller: Caller, demand: &Demand) -> u32 {
        match self {
            Self::Urgent => demand.urgent,
            Self::All => demand.permits,
            Self::Polls if caller == Caller::Poll => demand.permits,
            Self::Polls => 0,
        }
    }

    /// Tokens that it may be lent, of those left in a pool.
    fn open(self, pool: &Pool, left: u64) -> u64 {
        self.of(left, pool.polls_reserve(), pool.urgent_reserve())
    }

    /// The same if all of the pool's tokens were back.
    fn reach(self, pool: &Pool) -> u64 {
        let all = pool.lendable_at_most();
        self.of(all, pool.kept_for_polls(), pool.urgent_reserve())
    }

    fn of(self, tokens: u64, for_polls: u64, for_urgent: u64) -> u64 {
        let for_all = tokens.saturating_sub(for_polls.saturating_add(for_urgent));
        match self {
            Self::Urgent => tokens.saturating_sub(for_polls),
            Self::All => for_all,
            // A call takes of other limits too, which may keep nothing for polls.
            Self::Polls => for_all.max(tokens.min(for_polls)),
        }
    }
}

/// Who was passed over, in each tier.
#[derive(Debug, Default)]
pub(super) struct Sharings {
    urgent: Sharing,
    all: Sharing,
    polls: Sharing,
}

impl Sharings {
    fn of(&mut self, tier: Tier) -> &mut Sharing {
        match tier {
            Tier::Urgent => &mut self.urgent,
            Tier::All => &mut self.all,
            Tier::Polls => &mut self.polls,
        }
    }
}

fn claims<'a>(
    lanes: &'a [Lane],
    classes: &'a CostClasses,
    permits: impl Fn(CostClass, &Demand) -> u32 + 'a,
) -> impl Iterator<Item = Claim<'a>> + 'a {
    let demands = lanes.iter().enumerate().flat_map(|(shard, lane)| {
        lane.demands()
            .map(move |(class, demand)| (shard, class, demand))
    });
    demands.filter_map(move |(shard, class, demand)| {
        Some(Claim {
            shard,
            class,
            permits: permits(class, &demand),
            records: demand.records,
            costs: classes.costs(class)?,
        })
    })
}
