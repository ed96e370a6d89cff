//! One provider account's whole budget: its pools, leases, slots and health.

mod change;
mod lending;
mod pacing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::adaptive::Adaptive;
use super::classes::CostClasses;
use super::dice::Dice;
use super::endpoints::{EndpointView, Endpoints};
use super::gate::{BreakerView, Health, QUOTA_LOOK, TroubleReport};
use super::kept::Caller;
use super::lane::{Lane, Want};
use super::leases::Leases;
use super::limit::Limit;
use super::limits::AccountLimits;
use super::message::{AccountId, Ended, EndpointWord, Gate, LeaseId, ShardId, ToShard, Trouble};
use super::pool::{LimitView, Pool};
use super::slots::{SlotMove, Slots};
use super::truth::Observation;
use crate::time::{Mono, Now};
use lending::Sharings;

/// Calls in flight regrow after refusals by a sixteenth in this time, as a window of a second.
const SLOTS_REGROW: Duration = Duration::from_secs(1);

/// The coordinator's side of one account.
#[derive(Debug)]
pub(super) struct Account {
    id: AccountId,
    name: Arc<str>,
    limits: AccountLimits,
    classes: Arc<CostClasses>,
    /// Removed from the configuration: lends nothing, but remembers what was spent.
    gone: bool,
    /// Of the pooled limits, in their order.
    pools: Vec<Pool>,
    leases: Leases,
    lanes: Vec<Lane>,
    sharing: Sharings,
    pub(super) slots: Slots,
    in_flight: Adaptive,
    /// What the log was given of `in_flight`.
    in_flight_logged: Option<u32>,
    pub(super) health: Health,
    endpoints: Endpoints,
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
    /// Calls in flight allowed now: fewer than configured after refusals.
    pub slots: u32,
    /// Slots held by shards, in use or not.
    pub slots_held: u32,
    /// Calls that shards wait to send for want of permits.
    pub permits_wanted: u64,
    /// Leases not yet reported in full.
    pub leases: usize,
    /// Open, or why not; `Probe` while one shard probes.
    pub gate: Gate,
    /// The breaker behind the gate.
    pub breaker: BreakerView,
    /// Endpoints that fail by themselves.
    pub endpoints: Vec<EndpointView>,
    /// A spent quota lets no waiting call go before this.
    pub parked_until: Option<Mono>,
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

impl Account {
    pub(super) fn new(now: Now, id: AccountId, limits: AccountLimits, shards: usize) -> Self {
        let classes = CostClasses::compile(&limits.limits);
        let pools = pooled(&limits).zip(classes.dearest().iter());
        Self {
            id,
            name: limits.name.as_str().into(),
            gone: false,
            pools: pools
                .map(|(limit, dearest)| Pool::new(now, limit, *dearest))
                .collect(),
            leases: Leases::default(),
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            sharing: Sharings::default(),
            slots: Slots::new(limits.slots(), shards),
            in_flight: Adaptive::new(limits.slots(), 1, SLOTS_REGROW),
            health: Health::new(limits.hold),
            endpoints: Endpoints::default(),
            in_flight_logged: None,
            classes: Arc::new(classes),
            limits,
        }
    }

    /// A shard starts a life: what it held before stays out until its calls have surely ended.
    pub(super) fn connect(&mut self, now: Mono, shard: ShardId) {
        *self.lane(shard) = Lane::connected();
        let ended = now.saturating_add(self.limits.call_timeout + ARRIVAL_GRACE);
        self.slots.lost(shard, ended);
        self.leases.lost(shard, ended);
        self.health.on_probe_unused(now, shard);
        self.endpoints.connect(now, shard);
    }

    pub(super) fn want(&mut self, now: Mono, shard: ShardId, want: Want) {
        if self.classes.costs(want.class).is_some() {
            self.lane(shard).want(want);
        }
        self.slots.want(now, shard, want.slots);
    }

    pub(super) fn completed(&mut self, now: Mono, from: ShardId, lease: LeaseId, calls: Calls) {
        let Calls { count, at, ended } = calls;
        let at = match ended {
            Ended::Answered => at,
            Ended::Unanswered => at.saturating_add(ARRIVAL_GRACE),
        };
        let settled = self.leases.settle(from, lease, count);
        let unknown = || (0, Arc::clone(self.classes.dearest()), Caller::Record);
        let (paid, costs, caller) = settled.unwrap_or_else(unknown);
        for (pool, &cost) in self.pools.iter_mut().zip(costs.iter()) {
            pool.complete(now, at, tokens(paid, cost), caller);
            // Reported after the lease was given up: counted then and, to be safe, now.
            pool.charge(now, at, tokens(count - paid, cost));
        }
    }

    pub(super) fn unspent(&mut self, from: ShardId, lease: LeaseId, count: u32) {
        // Of a lease that was given up nothing comes back early: it counts as spent already.
        let Some((left, costs, caller)) = self.leases.settle(from, lease, count) else {
            return;
        };
        for (pool, &cost) in self.pools.iter_mut().zip(costs.iter()) {
            pool.put_back(tokens(left, cost), caller);
        }
    }

    pub(super) fn trouble(
        &mut self,
        now: Now,
        dice: &mut Dice,
        from: ShardId,
        mut report: TroubleReport,
    ) {
        if matches!(
            report.trouble,
            Trouble::Throttled { .. } | Trouble::QuotaSpent { .. }
        ) {
            for pool in &mut self.pools {
                pool.call_refused(now.mono);
            }
        }
        match &mut report.trouble {
            // What is still in flight when an account pauses is refused for the same reason.
            Trouble::Throttled { .. } if !self.health.is_paused() => self.refused(now.mono),
            Trouble::QuotaSpent { until } if until.is_none() => {
                *until = self.starts_over_at(now.mono);
            }
            _ => {}
        }
        self.health.on_trouble(now.mono, dice, from, report);
    }

    pub(super) fn healthy(&mut self, from: ShardId, probe: bool) {
        self.health.on_healthy(probe);
        // The shard reports once for each time it is told that the account is suspect.
        let lane = self.lane(from);
        if lane.told == Some(Gate::Suspect) {
            lane.told = None;
        }
    }

    /// Takes in what a shard says of an endpoint.
    pub(super) fn endpoint(
        &mut self,
        now: Now,
        dice: &mut Dice,
        from: (ShardId, &Arc<str>),
        word: EndpointWord,
    ) {
        let hold = self.limits.hold;
        let own = self.endpoints.hear(now.mono, dice, hold, from, word);
        if let EndpointWord::Failed { last_success, .. } = word
            && !own
        {
            let report = TroubleReport {
                trouble: Trouble::Failing,
                probe: false,
                last_success,
            };
            self.trouble(now, dice, from.0, report);
        }
    }

    /// Takes in what a reply said of a limit, or by its clock.
    pub(super) fn observed(&mut self, now: Now, word: &Observation) {
        for pool in &mut self.pools {
            pool.hear_clock(now, word);
            if pool.name() == &*word.limit {
                pool.hear(now, word);
            }
        }
    }

    /// Brings the account up to `now` and tells shards what follows.
    pub(super) fn advance(&mut self, now: Now, turn: &mut Turn<'_>) {
        self.observe(now);
        self.give_up_leases(now.mono);
        self.health.tick(now.mono);
        // Nothing else may be there to ask whether the account is well again: one probe is both.
        let may_probe = !self.gone && (self.health.is_open() || self.health.seeks_prober());
        self.endpoints
            .tick(now.mono, may_probe, self.limits.call_timeout);
        if !self.gone {
            self.slots.resize(self.in_flight.allowed());
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
        self.tell_endpoints(turn);
        match prober {
            Some((index, class)) if !self.pools.is_empty() => {
                self.lend(now.mono, index, class, 1, turn);
            }
            None if !self.gone && self.health.is_open() => self.share_permits(now.mono, turn),
            _ => {}
        }
        self.tell_pace(now.mono, turn);
        debug_assert!(self.leases_match_pools());
    }

    /// When time alone changes something that a shard waits for.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let permits = self.next_permits().filter(|_| !self.gone);
        let deadlines = [
            permits,
            self.leases.next_deadline(),
            self.health.next_deadline(),
            self.endpoints.next_deadline(),
            self.slots.next_deadline(),
            self.in_flight.next_deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Lets time pass in the pools; says whether there may be more to share.
    pub(super) fn observe(&mut self, now: Now) -> bool {
        let regrown = self.in_flight.tick(now.mono);
        let pools = self.pools.iter_mut();
        pools.fold(regrown, |any, pool| pool.observe(now) | any)
    }

    pub(super) fn view(&self, now: Mono) -> AccountView {
        let probing = (0..self.lanes.len())
            .map(|shard| self.health.gate(shard_id(shard)))
            .find(|gate| *gate == Gate::Probe);
        AccountView {
            account: self.id,
            name: Arc::clone(&self.name),
            limits: self.pools.iter().map(|pool| pool.view(now)).collect(),
            slots: self.slots.total(),
            slots_held: self.slots.held_in_all(),
            permits_wanted: self.lanes.iter().map(Lane::permits_wanted).sum(),
            leases: self.leases.len(),
            gate: probing.unwrap_or_else(|| self.health.gate(ShardId(0))),
            breaker: self.health.breaker(),
            endpoints: self.endpoints.views(),
            parked_until: self.parked_until(now),
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
            classes: Arc::clone(&self.classes),
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

    pub(super) fn classes(&self) -> &Arc<CostClasses> {
        &self.classes
    }

    pub(super) fn pools_mut(&mut self) -> &mut [Pool] {
        &mut self.pools
    }

    fn lane(&mut self, shard: ShardId) -> &mut Lane {
        &mut self.lanes[usize::from(shard.0)]
    }

    fn give_up_leases(&mut self, now: Mono) {
        while let Some(lease) = self.leases.give_up(now) {
            for (pool, &cost) in self.pools.iter_mut().zip(lease.costs.iter()) {
                let tokens = tokens(lease.permits, cost);
                pool.complete(now, lease.given_up_at, tokens, lease.caller);
            }
        }
    }

    /// A refusal that names no limit. The shortest window is taken to be smaller; a longer one as
    /// well if refusals go on although hardly anything of the shorter ones is used any more, and
    /// at last the calls in flight.
    fn refused(&mut self, now: Mono) {
        let suspects = self.pools.iter_mut().filter(|pool| pool.is_suspect(now));
        let mut suspects: Vec<&mut Pool> = suspects.collect();
        suspects.sort_by_key(|pool| pool.memory());
        for pool in suspects {
            let explains_it = !pool.is_small();
            pool.refused(now);
            if explains_it {
                return;
            }
        }
        self.in_flight.halve(now, self.slots.held_in_all());
    }

    /// When a calendar's window begins anew, if that is soon enough to wait for unasked.
    fn starts_over_at(&self, now: Mono) -> Option<Mono> {
        let soon = now.saturating_add(QUOTA_LOOK);
        let edges = self.pools.iter().filter_map(|pool| pool.next_edge(now));
        edges.filter(|edge| (now..soon).contains(edge)).min()
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

    fn tell_endpoints(&mut self, turn: &mut Turn<'_>) {
        if self.gone {
            return;
        }
        let lanes = self.lanes.iter().enumerate();
        let connected = lanes.filter(|(_, lane)| lane.connected);
        let connected: Vec<ShardId> = connected.map(|(index, _)| shard_id(index)).collect();
        let account = self.id;
        for (shard, endpoint, gate) in self.endpoints.news(&connected) {
            let word = ToShard::Endpoint {
                account,
                endpoint,
                gate,
            };
            turn.send(shard, word);
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
        let longest = self.pools.iter().map(Pool::memory).max();
        self.limits.call_timeout + ARRIVAL_GRACE + longest.unwrap_or_default()
    }

    fn leases_match_pools(&self) -> bool {
        let mut pools = self.pools.iter().enumerate();
        pools.all(|(at, pool)| pool.leased() == self.leases.tokens_of(at))
    }
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

/// The limits that have a pool.
fn pooled(limits: &AccountLimits) -> impl Iterator<Item = &Limit> {
    limits.limits.iter().filter(|limit| limit.is_pooled())
}

fn tokens(permits: u32, cost: u32) -> u64 {
    u64::from(permits) * u64::from(cost)
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("shards are numbered in 16 bits"))
}
