//! One provider account's whole budget: its pools, leases, slots and health.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::gate::Health;
use super::limits::AccountLimits;
use super::message::{AccountId, Ended, Gate, LeaseId, ShardId, ToShard};
use super::pool::{LimitView, Pool};
use super::share::{Demand, Sharing};
use super::slots::{SlotMove, Slots};
use crate::time::{Mono, Now};

/// How long a lease may be spent: long enough for a log commit and a full queue before the
/// send, short enough that a stalled shard does not sit on scarce tokens.
pub(super) const LEASE_TERM: Duration = Duration::from_secs(2);
/// Grants a shard may have on their way before it acknowledges one: a stalled shard is not
/// handed a whole window token by token.
const UNSEEN_LEASES_MAX: usize = 64;

/// The coordinator's side of one account.
#[derive(Debug)]
pub(super) struct Account {
    id: AccountId,
    name: Arc<str>,
    limits: AccountLimits,
    /// Removed from the configuration: lends nothing, but remembers what was spent.
    gone: bool,
    pools: Vec<Pool>,
    /// In the order granted, which is the order in which they end.
    leases: BTreeMap<LeaseId, Lease>,
    lanes: Vec<Lane>,
    sharing: Sharing,
    pub(super) slots: Slots,
    pub(super) health: Health,
}

/// Permits lent to a shard and not yet reported.
#[derive(Debug)]
struct Lease {
    shard: ShardId,
    permits: u32,
    /// From here on the permits count as spent by calls that have just ended.
    given_up_at: Mono,
}

/// What the account knows of one shard.
#[derive(Debug, Default)]
struct Lane {
    connected: bool,
    demand: Demand,
    wants_slots: bool,
    /// Grants that no `Want` has acknowledged.
    unseen: VecDeque<(LeaseId, u32)>,
    told: Option<Gate>,
}

/// What an account shows of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct AccountView {
    /// Its number in messages.
    pub account: AccountId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The windowed limits; the one with the highest `used_ratio` is what holds calls back.
    pub limits: Vec<LimitView>,
    /// Calls in flight allowed.
    pub slots: u32,
    /// Slots held by shards, in use or not.
    pub slots_held: u32,
    /// Calls that shards wait to send for want of permits.
    pub permits_wanted: u64,
    /// Leases not yet reported in full.
    pub leases: usize,
    /// Open, or why not; `Probe` while one shard probes.
    pub gate: Gate,
}

impl Account {
    pub(super) fn new(now: Now, id: AccountId, limits: AccountLimits, shards: usize) -> Self {
        let pools = limits
            .limits
            .iter()
            .filter_map(|limit| Pool::new(now, limit));
        Self {
            id,
            name: limits.name.as_str().into(),
            gone: false,
            pools: pools.collect(),
            leases: BTreeMap::new(),
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            sharing: Sharing::new(shards),
            slots: Slots::new(limits.slots(), shards),
            health: Health::new(limits.hold),
            limits,
        }
    }

    /// A shard starts a life: what it held before stays out until its calls have surely ended.
    pub(super) fn connect(&mut self, now: Mono, shard: ShardId) {
        *self.lane(shard) = Lane {
            connected: true,
            ..Lane::default()
        };
        let ended = now.saturating_add(self.limits.call_timeout + ARRIVAL_GRACE);
        self.slots.lost(shard, ended);
        self.health.on_probe_unused(now, shard);
    }

    pub(super) fn want(&mut self, now: Mono, shard: ShardId, want: Want) {
        let lane = self.lane(shard);
        while lane.unseen.front().is_some_and(|(id, _)| *id <= want.seen) {
            lane.unseen.pop_front();
        }
        let on_their_way = lane.unseen.iter().map(|(_, permits)| permits).sum();
        lane.demand = Demand {
            permits: want.permits.saturating_sub(on_their_way),
            records: want.records,
        };
        lane.wants_slots = want.slots > 0;
        self.slots.want(now, shard, want.slots);
    }

    pub(super) fn completed(&mut self, from: ShardId, lease: LeaseId, calls: Calls) {
        let Calls { count, at, ended } = calls;
        let at = match ended {
            Ended::Answered => at,
            Ended::Unanswered => at.saturating_add(ARRIVAL_GRACE),
        };
        let paid = self.settle_lease(from, lease, count);
        for pool in &mut self.pools {
            pool.complete(at, paid);
            // Reported after the lease was given up: counted then and, to be safe, now.
            pool.charge(at, count - paid);
        }
    }

    pub(super) fn unspent(&mut self, from: ShardId, lease: LeaseId, count: u32) {
        // Of a lease that was given up nothing comes back early: it counts as spent already.
        let left = self.settle_lease(from, lease, count);
        for pool in &mut self.pools {
            pool.put_back(left);
        }
    }

    pub(super) fn healthy(&mut self, from: ShardId, probe: bool) {
        self.health.on_healthy(probe);
        // The shard reports once for each time it is told that the account is suspect.
        let lane = self.lane(from);
        if lane.told == Some(Gate::Suspect) {
            lane.told = None;
        }
    }

    /// Brings the account up to `now` and tells shards what follows.
    pub(super) fn advance(&mut self, now: Now, turn: &mut Turn<'_>) {
        self.observe(now);
        self.give_up_leases(now.mono);
        self.health.tick(now.mono);
        if !self.gone {
            for (shard, moved) in self.slots.rebalance(now.mono) {
                turn.send(shard, self.slot_message(moved));
            }
        }
        let seeks_prober = !self.gone && self.health.seeks_prober();
        let prober = if seeks_prober {
            self.choose_prober(now.mono)
        } else {
            None
        };
        // The gate before the permits: a shard that may not call gives back at once what it is
        // lent, and a probe without its permit would stand still until it is given up.
        self.tell_gates(turn);
        match prober {
            Some(index) if !self.pools.is_empty() => self.lend(now.mono, index, 1, turn),
            None if !self.gone && self.health.is_open() => self.share_permits(now.mono, turn),
            _ => {}
        }
        debug_assert!(self.leases_match_pools());
    }

    /// When time alone changes something that a shard waits for.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let leases = self.leases.values().next().map(|lease| lease.given_up_at);
        let waited_for = self.lanes.iter().any(Lane::waits) && !self.gone;
        let restore = if waited_for && self.lendable() == 0 {
            // The last of the empty pools decides; one that waits for reports has no instant.
            let empty = self.pools.iter().filter(|pool| pool.available() == 0);
            let restores: Option<Vec<Mono>> = empty.map(Pool::next_restore).collect();
            restores.and_then(|restores| restores.into_iter().max())
        } else {
            None
        };
        let health = self.health.next_deadline();
        let slots = self.slots.next_deadline();
        [leases, restore, health, slots].into_iter().flatten().min()
    }

    /// Takes back restored tokens; says whether there were any to share.
    pub(super) fn observe(&mut self, now: Now) -> bool {
        let pools = self.pools.iter_mut();
        pools.fold(false, |any, pool| pool.observe(now) | any)
    }

    pub(super) fn view(&self) -> AccountView {
        let probing = (0..self.lanes.len())
            .map(|shard| self.health.gate(shard_id(shard)))
            .find(|gate| *gate == Gate::Probe);
        AccountView {
            account: self.id,
            name: Arc::clone(&self.name),
            limits: self.pools.iter().map(Pool::view).collect(),
            slots: self.slots.total(),
            slots_held: self.slots.held_in_all(),
            permits_wanted: self
                .lanes
                .iter()
                .map(|lane| u64::from(lane.demand.permits))
                .sum(),
            leases: self.leases.len(),
            gate: probing.unwrap_or_else(|| self.health.gate(ShardId(0))),
        }
    }

    /// What a shard must know before it calls this account.
    pub(super) fn introduction(&self) -> ToShard {
        if self.gone {
            return ToShard::AccountGone { account: self.id };
        }
        ToShard::Account {
            account: self.id,
            name: Arc::clone(&self.name),
            unlimited: self.pools.is_empty(),
            call_timeout: self.limits.call_timeout,
            lease_memory: self.lease_memory(),
        }
    }

    /// The introduction for every shard that is there.
    pub(super) fn introductions(&self) -> impl Iterator<Item = (ShardId, ToShard)> + '_ {
        let connected = self
            .lanes
            .iter()
            .enumerate()
            .filter(|(_, lane)| lane.connected);
        connected.map(|(index, _)| (shard_id(index), self.introduction()))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }

    pub(super) fn limits(&self) -> &AccountLimits {
        &self.limits
    }

    pub(super) fn pools_mut(&mut self) -> &mut [Pool] {
        &mut self.pools
    }

    /// Takes over new settings. Limits that count as before keep their state; a new one is
    /// charged with everything the account has out or still counted anywhere.
    pub(super) fn reconfigure(&mut self, now: Now, limits: AccountLimits) {
        let leased = self
            .leases
            .values()
            .map(|lease| u64::from(lease.permits))
            .sum();
        let counted = self.pools.iter().map(Pool::restoring).max().unwrap_or(0);
        let counted = u32::try_from(counted).unwrap_or(u32::MAX);
        let mut old = std::mem::take(&mut self.pools);
        for limit in &limits.limits {
            let same = old.iter().position(|pool| pool.name() == limit.name);
            if let Some(mut pool) = same.map(|index| old.swap_remove(index))
                && pool.resize(now, limit)
            {
                self.pools.push(pool);
            } else if let Some(mut pool) = Pool::new(now, limit) {
                pool.lease_before(leased);
                pool.charge(now.mono, counted);
                self.pools.push(pool);
            }
        }
        self.slots.resize(limits.slots());
        self.health.reconfigure(limits.hold);
        self.limits = limits;
        self.gone = false;
    }

    pub(super) fn remove(&mut self, now: Mono) {
        self.gone = true;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            lane.demand = Demand::default();
            lane.told = None;
            self.slots.want(now, shard_id(index), 0);
        }
    }

    fn lane(&mut self, shard: ShardId) -> &mut Lane {
        &mut self.lanes[usize::from(shard.0)]
    }

    /// Takes `count` permits off a lease; returns how many it still had.
    fn settle_lease(&mut self, from: ShardId, lease: LeaseId, count: u32) -> u32 {
        let Some(live) = self.leases.get_mut(&lease).filter(|l| l.shard == from) else {
            return 0;
        };
        let settled = count.min(live.permits);
        live.permits -= settled;
        if live.permits == 0 {
            self.leases.remove(&lease);
        }
        settled
    }

    fn give_up_leases(&mut self, now: Mono) {
        while let Some(first) = self.leases.first_entry() {
            if first.get().given_up_at > now {
                break;
            }
            let lease = first.remove();
            for pool in &mut self.pools {
                pool.complete(lease.given_up_at, lease.permits);
            }
        }
    }

    /// The shard with demand that makes one call to see whether the account works again.
    fn choose_prober(&mut self, now: Mono) -> Option<usize> {
        if self.lendable() == 0 {
            return None;
        }
        let ready = (0..self.lanes.len()).filter(|&index| {
            let lane = &self.lanes[index];
            lane.connected && lane.has_demand() && self.slots.held(shard_id(index)) > 0
        });
        let last = self.health.last_prober();
        let fresh = |index: usize| last != Some(shard_id(index));
        let best = ready.max_by_key(|&index| (fresh(index), self.lanes[index].demand.records));
        let index = best?;
        // Told again even when it was the prober before: one more call is meant.
        self.lanes[index].told = None;
        let shard = shard_id(index);
        self.health.probe_by(now, shard, self.limits.call_timeout);
        Some(index)
    }

    fn share_permits(&mut self, now: Mono, turn: &mut Turn<'_>) {
        if self.pools.is_empty() || !self.lanes.iter().any(Lane::waits) {
            return;
        }
        let lendable = self.lendable();
        if lendable == 0 {
            return;
        }
        let demands: Vec<Demand> = self
            .lanes
            .iter()
            .map(|lane| {
                if lane.waits() {
                    lane.demand
                } else {
                    Demand::default()
                }
            })
            .collect();
        let shares = self.sharing.divide(lendable, &demands);
        for (index, permits) in shares.into_iter().enumerate() {
            if permits > 0 {
                self.lend(now, index, permits, turn);
            }
        }
    }

    fn lend(&mut self, now: Mono, index: usize, permits: u32, turn: &mut Turn<'_>) {
        for pool in &mut self.pools {
            pool.take(permits);
        }
        let lease = turn.new_lease();
        let usable_until = now.saturating_add(LEASE_TERM);
        let shard = shard_id(index);
        let given_up_at = usable_until.saturating_add(self.limits.call_timeout + ARRIVAL_GRACE);
        self.leases.insert(
            lease,
            Lease {
                shard,
                permits,
                given_up_at,
            },
        );
        let lane = &mut self.lanes[index];
        lane.demand.permits = lane.demand.permits.saturating_sub(permits);
        lane.unseen.push_back((lease, permits));
        turn.send(
            shard,
            ToShard::Grant {
                account: self.id,
                lease,
                permits,
                usable_until,
            },
        );
    }

    /// Calls that every pool has a token for.
    fn lendable(&self) -> u64 {
        self.pools
            .iter()
            .map(Pool::available)
            .min()
            .unwrap_or(u64::MAX)
    }

    fn tell_gates(&mut self, turn: &mut Turn<'_>) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            let shard = shard_id(index);
            let gate = self.health.gate(shard);
            if lane.connected && !self.gone && lane.told != Some(gate) {
                lane.told = Some(gate);
                let account = self.id;
                turn.send(shard, ToShard::Gate { account, gate });
            }
        }
    }

    fn slot_message(&self, moved: SlotMove) -> ToShard {
        let account = self.id;
        match moved {
            SlotMove::Grant(slots) => ToShard::GrantSlots { account, slots },
            SlotMove::Recall { keep } => ToShard::Recall { account, keep },
        }
    }

    fn lease_memory(&self) -> Duration {
        let longest = self
            .pools
            .iter()
            .map(Pool::memory)
            .max()
            .unwrap_or_default();
        self.limits.call_timeout + ARRIVAL_GRACE + longest
    }

    fn leases_match_pools(&self) -> bool {
        let lent: u64 = self
            .leases
            .values()
            .map(|lease| u64::from(lease.permits))
            .sum();
        self.pools.iter().all(|pool| pool.leased() == lent)
    }
}

impl Lane {
    fn waits(&self) -> bool {
        self.connected && self.demand.permits > 0 && self.unseen.len() < UNSEEN_LEASES_MAX
    }

    fn has_demand(&self) -> bool {
        self.demand.permits > 0 || self.wants_slots
    }
}

/// A shard's demand as it was reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) permits: u32,
    pub(super) records: u32,
    pub(super) slots: u32,
    pub(super) seen: LeaseId,
}

/// Ended calls as they were reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calls {
    pub(super) count: u32,
    pub(super) at: Mono,
    pub(super) ended: Ended,
}

/// What accounts share while one is brought forward.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) outbox: &'a mut VecDeque<(ShardId, ToShard)>,
    pub(super) last_lease: &'a mut LeaseId,
}

impl Turn<'_> {
    fn send(&mut self, shard: ShardId, message: ToShard) {
        self.outbox.push_back((shard, message));
    }

    fn new_lease(&mut self) -> LeaseId {
        self.last_lease.0 += 1;
        *self.last_lease
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("shards are numbered in 16 bits"))
}
