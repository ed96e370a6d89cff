//! The real coordinator and the real shard side in virtual time, with everything that may go
//! wrong between them: stalls, lost shards, crashes, reboots, late arrivals, clock steps.

mod plan;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use syncline_engine::quota::{
    AccountId, AccountLimits, AccountView, CallEnd, Coordinator, CostClass, Ended, FromShard,
    Holdings, LeaseId, LeaseTaken, Observation, Permit, Policy, RecoveredLease, Settled, ShardId,
    Start, ToShard, Trouble, Verdict, Waiting,
};
use syncline_engine::time::{Mono, Now, WallMs};

use crate::dice::Dice;
use crate::monitor::Monitor;
use crate::planted::Bug;
use crate::provider::Provider;

pub(crate) use plan::Plan;

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// The documented assumption: what is on the wire of a dead call arrives within 2 s.
const ARRIVES_AFTER_DEATH: u64 = 2 * SECOND;
const ACCOUNT: AccountId = AccountId(0);
/// A wall clock in 2026; what counts is that it is no multiple of any window.
pub(crate) const WALL_AT_ZERO_MS: i64 = 1_795_229_262_123;

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) provider: Provider,
    pub(crate) plan: Plan,
    /// A hash over every event, to compare runs.
    pub(crate) trace: u64,
    pub(crate) calls_by_shard: Vec<u64>,
    pub(crate) crashes: u64,
    pub(crate) messages: u64,
    /// Calls sent although the account was held, and shards had been told for a while.
    pub(crate) sent_while_held: u64,
    /// Most calls sent while one probe was allowed.
    pub(crate) most_probes: u64,
    pub(crate) holds: u64,
    /// When the last call was sent.
    pub(crate) last_sent: u64,
    /// How the account stood at the end.
    pub(crate) view: Option<AccountView>,
}

impl Outcome {
    /// Every limit of the account, counted at the provider.
    pub(crate) fn assert_kept(&self) -> &Self {
        for limit in &self.plan.limits.limits {
            self.provider.assert_kept(limit, WALL_AT_ZERO_MS);
        }
        self
    }
}

struct Simulation {
    plan: Plan,
    dice: Dice,
    /// True time.
    now: u64,
    booted_at: u64,
    boot: u32,
    wall_error_ms: i64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    event_count: u64,
    coordinator: Coordinator,
    coordinator_turn: Option<u64>,
    inbox: VecDeque<(ShardId, FromShard)>,
    shards: Vec<Shard>,
    life: u64,
    down_until: Option<u64>,
    log: Vec<Logged>,
    provider: Provider,
    /// Arrivals of the last window of the first limit, for what replies tell.
    counted: VecDeque<u64>,
    sent: u64,
    trace: u64,
    crashes: u64,
    messages: u64,
    calls_by_shard: Vec<u64>,
    down_from: u64,
    down_to: u64,
    monitor: Monitor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    CoordinatorTurn,
    ShardTurn(u16),
    CallEnds { life: u64, shard: u16, call: u64 },
    Committed { life: u64, shard: u16, commit: u64 },
    ShardRestarts { life: u64, shard: u16 },
    ProcessRestarts,
    Hazards,
    WallIsRight,
    OtherCalls,
}

struct Shard {
    life: u64,
    holdings: Option<Holdings>,
    inbox: VecDeque<ToShard>,
    turn: Option<u64>,
    stalled_until: u64,
    /// Of each kind of call.
    backlog: Vec<u64>,
    calls: BTreeMap<u64, Call>,
    ended: Vec<u64>,
    commits: BTreeMap<u64, Vec<Record>>,
}

struct Call {
    permit: Permit,
    kind: usize,
    sent: u64,
    arrives: u64,
    fate: Fate,
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    TimesOut,
    /// The connection is refused: nothing arrives.
    Refused,
    /// Counted, and answered 429.
    Throttled,
}

/// What a shard appends to its log.
enum Record {
    Taken(LeaseTaken, i64),
    Returned(LeaseId, u32),
    Settled(Settled),
}

/// A lease in the durable log.
struct Logged {
    lease: LeaseId,
    shard: u16,
    boot: u32,
    forget_at: Mono,
    recovered: RecoveredLease,
}

impl Simulation {
    fn new(plan: Plan) -> Self {
        let booted_at = 0;
        let now = Now {
            mono: Mono(0),
            wall: WallMs(WALL_AT_ZERO_MS),
        };
        let coordinator = Coordinator::new(
            Start {
                now,
                shards: plan.shards,
                last_lease: LeaseId(0),
                seed: plan.seed,
            },
            vec![plan.configured()],
        )
        .expect("valid limits");
        let kinds = plan.kinds.len();
        let shards = (0..plan.shards).map(|_| Shard::new(0, kinds)).collect();
        let provider = Provider::new(plan.kinds.clone(), plan.clock_ppm, plan.wall_ahead_ms);
        let mut simulation = Self {
            dice: Dice(plan.seed),
            now: 0,
            booted_at,
            boot: 0,
            wall_error_ms: 0,
            events: BinaryHeap::new(),
            event_count: 0,
            coordinator,
            coordinator_turn: None,
            inbox: VecDeque::new(),
            shards,
            life: 0,
            down_until: None,
            log: Vec::new(),
            provider,
            counted: VecDeque::new(),
            sent: 0,
            trace: 0,
            crashes: 0,
            messages: 0,
            down_from: 0,
            down_to: 0,
            monitor: Monitor::default(),
            calls_by_shard: vec![0; usize::from(plan.shards)],
            plan,
        };
        simulation.start_shards();
        simulation.schedule(simulation.plan.hazards_every, Event::Hazards);
        if !simulation.plan.others.is_empty() {
            simulation.schedule(simulation.plan.others.start, Event::OtherCalls);
        }
        simulation
    }

    fn has(&self, bug: Bug) -> bool {
        self.plan.bug == Some(bug)
    }

    fn run(mut self) -> Outcome {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            if at > self.plan.length || self.sent >= self.plan.calls_max {
                break;
            }
            self.now = at;
            self.trace = (self.trace.rotate_left(5) ^ at).wrapping_mul(0x100_0000_01B3);
            self.on_event(event);
        }
        let cut = self.now;
        for shard in 0..self.shards.len() {
            self.cut_calls(shard, cut);
        }
        let now = self.clocks();
        let view = self.coordinator.views(now).next();
        Outcome {
            provider: self.provider,
            plan: self.plan,
            trace: self.trace,
            calls_by_shard: self.calls_by_shard,
            crashes: self.crashes,
            messages: self.messages,
            sent_while_held: self.monitor.sent_while_held,
            most_probes: self.monitor.most_probes,
            holds: self.monitor.holds,
            last_sent: self.monitor.last_sent,
            view,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::CoordinatorTurn => {
                if self.coordinator_turn == Some(self.now) && self.down_until.is_none() {
                    self.coordinator_turn = None;
                    self.coordinate();
                }
            }
            Event::ShardTurn(index) => {
                if self.shards[usize::from(index)].turn == Some(self.now) {
                    self.shards[usize::from(index)].turn = None;
                    self.shard_turn(index);
                }
            }
            Event::CallEnds { life, shard, call } => {
                if self.shards[usize::from(shard)].life == life {
                    self.shards[usize::from(shard)].ended.push(call);
                    self.wake_shard(shard);
                }
            }
            Event::Committed {
                life,
                shard,
                commit,
            } => {
                if self.shards[usize::from(shard)].life == life {
                    self.commit(shard, commit);
                    self.wake_shard(shard);
                }
            }
            Event::ShardRestarts { life, shard } => {
                if self.shards[usize::from(shard)].life == life {
                    self.shards[usize::from(shard)].holdings = Some(Holdings::new());
                    self.wake_shard(shard);
                }
            }
            Event::ProcessRestarts => self.restart(),
            Event::Hazards => self.hazards(),
            Event::WallIsRight => self.wall_error_ms = 0,
            Event::OtherCalls => {
                self.provider.count_other(self.now);
                self.note_counted(self.now);
                let next = self.now + self.dice.within(self.plan.others.clone());
                self.schedule(next, Event::OtherCalls);
            }
        }
    }

    fn coordinate(&mut self) {
        let now = self.clocks();
        while let Some((from, message)) = self.inbox.pop_front() {
            self.messages += 1;
            self.coordinator.handle(now, from, message);
        }
        self.coordinator.tick(now);
        while let Some((to, message)) = self.coordinator.poll() {
            self.messages += 1;
            if self.has(Bug::DoubledGrants) && matches!(message, ToShard::Grant { .. }) {
                let shard = &mut self.shards[usize::from(to.0)];
                shard.inbox.push_back(message.clone());
            }
            self.shards[usize::from(to.0)].inbox.push_back(message);
            self.wake_shard(to.0);
        }
        for view in self.coordinator.views(now) {
            for limit in &view.limits {
                let sum = limit.available + limit.leased as i64 + limit.restoring as i64;
                assert_eq!(
                    sum,
                    i64::from(limit.capacity),
                    "{} is not conserved",
                    limit.name
                );
            }
            assert!(view.slots_held <= self.plan.limits.max_in_flight);
            self.monitor.gate(self.now, view.gate);
        }
        if let Some(deadline) = self.coordinator.next_deadline() {
            let at = (deadline.0 + self.booted_at).max(self.now);
            let late = self.dice.within(self.plan.wake.clone());
            self.wake_coordinator_at(at + late);
        }
    }

    fn shard_turn(&mut self, index: u16) {
        let shard = &mut self.shards[usize::from(index)];
        if shard.stalled_until > self.now {
            let resumed = shard.stalled_until;
            self.wake_shard_at(index, resumed);
            return;
        }
        let Some(mut holdings) = shard.holdings.take() else {
            return;
        };
        let wall = self.clocks().wall;
        let mono = self.clocks().mono;
        let shard = &mut self.shards[usize::from(index)];
        let mut records = Vec::new();
        while let Some(message) = shard.inbox.pop_front() {
            if let Some(taken) = holdings.handle(message) {
                let ahead = taken.usable_until.saturating_since(mono).as_millis() as i64;
                records.push(Record::Taken(taken, wall.0 + ahead + 1));
            }
        }
        for commit in shard.committed() {
            for record in commit {
                if let Record::Taken(taken, _) = record {
                    holdings.on_durable(ACCOUNT, taken.lease);
                }
            }
        }
        let mut told = None;
        let ended = std::mem::take(&mut shard.ended);
        let ended = ended.iter().map(|call| shard.calls.remove(call));
        let ended: Vec<Call> = ended
            .map(|call| call.expect("each call ends once"))
            .collect();
        for call in ended {
            if call.fate != Fate::Refused {
                self.provider.count(call.arrives, call.kind);
                self.provider.span(call.sent, self.now, call.kind);
            }
            if self.plan.tells && call.fate == Fate::Answered {
                let word = self.observation(&call, mono);
                told = told
                    .filter(|told: &Observation| told.used >= word.used)
                    .or(Some(word));
            }
            let (ended, verdict) = match call.fate {
                Fate::Answered => (Ended::Answered, Verdict::Healthy),
                // Slow, not broken: this is about budgets. `Refused` is for the gate.
                Fate::TimesOut => (Ended::Unanswered, Verdict::Healthy),
                Fate::Refused => (Ended::Answered, Verdict::Trouble(Trouble::Unreachable)),
                Fate::Throttled => {
                    let until = Some(Mono(mono.0 + self.dice.within(SECOND..5 * SECOND)));
                    (
                        Ended::Answered,
                        Verdict::Trouble(Trouble::Throttled { until }),
                    )
                }
            };
            let (at, ended) = match self.plan.bug {
                Some(Bug::EndedWhenSent) => (Mono(call.sent - self.booted_at), ended),
                Some(Bug::GraceForgotten) => (mono, Ended::Answered),
                _ => (mono, ended),
            };
            holdings.complete(call.permit, CallEnd { at, ended, verdict });
        }
        self.refill(index);
        self.send_calls(index, &mut holdings, mono);
        self.tell_demand(index, &mut holdings);
        holdings.end_turn(mono);
        if let Some(observation) = told {
            let account = ACCOUNT;
            let word = FromShard::Observed {
                account,
                observation,
            };
            self.inbox.push_back((ShardId(index), word));
            self.wake_coordinator();
        }
        let settled = holdings.settled(mono);
        records.extend(settled.map(|(_, settled)| Record::Settled(settled)));
        while let Some(report) = holdings.poll() {
            if let FromShard::Unspent { lease, count, .. } = report {
                records.push(Record::Returned(lease, count));
            }
            self.inbox.push_back((ShardId(index), report));
            self.wake_coordinator();
        }
        if let Some(deadline) = holdings.next_deadline() {
            self.wake_shard_at(index, (deadline.0 + self.booted_at).max(self.now + 1));
        }
        self.shards[usize::from(index)].holdings = Some(holdings);
        if !records.is_empty() {
            self.append(index, records);
        }
    }

    /// One of each kind in turn, as long as any can go.
    fn send_calls(&mut self, index: u16, holdings: &mut Holdings, mono: Mono) {
        let mut kinds: Vec<usize> = (0..self.plan.kinds.len()).collect();
        while !kinds.is_empty() {
            kinds.retain(|&kind| {
                if self.shards[usize::from(index)].backlog[kind] == 0 {
                    return false;
                }
                let class = holdings.class_of(ACCOUNT, &self.plan.kinds[kind]);
                let permit = holdings.try_spend(mono, ACCOUNT, class);
                permit.is_ok_and(|permit| {
                    self.send_call(index, kind, permit);
                    true
                })
            });
        }
    }

    fn tell_demand(&self, index: u16, holdings: &mut Holdings) {
        let mut waiting: BTreeMap<CostClass, Waiting> = BTreeMap::new();
        for (tags, backlog) in self
            .plan
            .kinds
            .iter()
            .zip(&self.shards[usize::from(index)].backlog)
        {
            let ready = (*backlog).min(1_000_000) as u32;
            let class = waiting.entry(holdings.class_of(ACCOUNT, tags)).or_default();
            class.calls += ready;
            class.records += ready;
        }
        for (class, waiting) in waiting {
            holdings.demand(ACCOUNT, class, waiting);
        }
    }

    /// What the reply says of the first limit: what the provider counted when the call arrived.
    fn observation(&self, call: &Call, mono: Mono) -> Observation {
        let limit = &self.plan.limits.limits[0];
        let Policy::Sliding { limit: max, window } = limit.policy else {
            panic!("only sliding limits are told");
        };
        let from = call.arrives.saturating_sub(window.as_nanos() as u64);
        let counted = self
            .counted
            .iter()
            .filter(|at| (from..=call.arrives).contains(at));
        Observation {
            limit: limit.name.as_str().into(),
            max: Some(max),
            used: Some(counted.count() as u32),
            remaining: None,
            resets_at: None,
            server_time: None,
            sent_at: Mono(call.sent - self.booted_at),
            answered_at: mono,
        }
    }

    fn note_counted(&mut self, at: u64) {
        self.counted.push_back(at);
        let old = self.now.saturating_sub(120 * SECOND);
        while self.counted.front().is_some_and(|at| *at < old) {
            self.counted.pop_front();
        }
    }

    fn send_call(&mut self, index: u16, kind: usize, permit: Permit) {
        let timeout = self.plan.limits.call_timeout.as_nanos() as u64;
        let calm = self.now >= self.plan.calm_from;
        let fate = if (self.down_from..self.down_to).contains(&self.now) {
            Fate::Refused
        } else if self.dice.one_in(self.plan.throttles) && !calm {
            Fate::Throttled
        } else if self.dice.one_in(self.plan.timeouts) {
            Fate::TimesOut
        } else {
            Fate::Answered
        };
        let latency = match fate {
            Fate::TimesOut => timeout,
            Fate::Refused => MS,
            _ => self.dice.within(self.plan.latency.clone()).min(timeout),
        };
        let ends = self.now + latency;
        let last = match fate {
            Fate::TimesOut => ends + ARRIVES_AFTER_DEATH - MS,
            _ => ends,
        };
        self.sent += 1;
        self.monitor.sent(self.now);
        let arrives = match self.dice.within(0..3) {
            0 => self.now,
            1 => last,
            _ => self.dice.within(self.now..last + 1),
        };
        if self.plan.tells {
            self.note_counted(arrives);
        }
        let call = self.event_count;
        let shard = &mut self.shards[usize::from(index)];
        shard.backlog[kind] -= 1;
        let life = shard.life;
        self.calls_by_shard[usize::from(index)] += 1;
        let sent = self.now;
        shard.calls.insert(
            call,
            Call {
                permit,
                kind,
                sent,
                arrives,
                fate,
            },
        );
        let shard = index;
        self.schedule(ends, Event::CallEnds { life, shard, call });
    }

    /// Some shards are busy all the time, some now and then, some hardly ever.
    fn refill(&mut self, index: u16) {
        let burst = match index % 4 {
            _ if self.plan.backlog => u64::MAX / 2,
            0 => self.dice.within(0..200),
            1 if self.dice.one_in(20) => self.dice.within(0..1000),
            2 if self.dice.one_in(50) => self.dice.within(1..3),
            _ => 0,
        };
        let shard = &mut self.shards[usize::from(index)];
        let each = burst / self.plan.kinds.len() as u64;
        for backlog in &mut shard.backlog {
            if *backlog == 0 || self.plan.backlog {
                *backlog = each;
            }
        }
    }

    fn append(&mut self, index: u16, records: Vec<Record>) {
        let at = self.now + self.dice.within(self.plan.commit.clone());
        let commit = self.event_count;
        let shard = &mut self.shards[usize::from(index)];
        shard.commits.insert(commit, records);
        let life = shard.life;
        let shard = index;
        self.schedule(
            at,
            Event::Committed {
                life,
                shard,
                commit,
            },
        );
    }

    /// The commit is on disk; the shard learns it at its next turn.
    fn commit(&mut self, index: u16, commit: u64) {
        let records = &self.shards[usize::from(index)].commits[&commit];
        for record in records {
            let settled = match record {
                Record::Taken(taken, _) => Some(taken.settled),
                Record::Settled(settled) => Some(*settled),
                Record::Returned(..) => None,
            };
            if let Some(settled) = settled.filter(|settled| settled.by > Mono(0)) {
                // As a shard's book does: what was settled before ends the walk.
                let newest = self.log.iter_mut().rev();
                let of_this_life = newest.take_while(|l| l.lease >= settled.from);
                let own = |l: &&mut Logged| l.shard == index && l.lease < settled.below;
                let older = of_this_life.filter(own);
                for logged in older.take_while(|l| l.recovered.ended_by.is_none()) {
                    logged.recovered.ended_by = Some(settled.by);
                }
            }
            match record {
                Record::Settled(_) => {}
                Record::Taken(taken, wall_until) => self.log.push(Logged {
                    lease: taken.lease,
                    shard: index,
                    boot: self.boot,
                    forget_at: taken.forget_at,
                    recovered: RecoveredLease {
                        account: taken.name.to_string(),
                        label: taken.label.clone(),
                        permits: taken.permits,
                        usable_until: taken.usable_until,
                        wall_until: WallMs(*wall_until),
                        ended_by: None,
                        same_boot: true,
                    },
                }),
                Record::Returned(lease, count) => {
                    let logged = self.log.iter_mut().rev().find(|l| l.lease == *lease);
                    if let Some(logged) = logged {
                        logged.recovered.permits -= count;
                    }
                }
            }
        }
        let shard = &mut self.shards[usize::from(index)];
        let done = shard.commits.remove(&commit).expect("committed once");
        shard.commits.insert(commit | COMMITTED, done);
        if self.log.len().is_multiple_of(1024) {
            let (boot, mono) = (self.boot, self.clocks().mono);
            self.log.retain(|l| l.boot != boot || l.forget_at > mono);
        }
    }

    fn hazards(&mut self) {
        let next = self.now + self.plan.hazards_every;
        self.schedule(next, Event::Hazards);
        let victim = self.dice.within(0..u64::from(self.plan.shards)) as u16;
        if self.down_until.is_some() || self.now >= self.plan.calm_from {
            return;
        }
        if self.dice.one_in(self.plan.outages * 10) {
            self.down_from = self.now;
            self.down_to = self.now + self.dice.within(0..20 * SECOND);
        }
        if self.dice.one_in(self.plan.crashes * 10) {
            self.crash();
        } else if self.dice.one_in(self.plan.losses * 10) {
            self.lose_shard(victim);
        } else if self.dice.one_in(self.plan.stalls * 10) {
            let long = if self.dice.one_in(3) {
                60 * SECOND
            } else {
                SECOND
            };
            let until = self.now + self.dice.within(0..long);
            self.shards[usize::from(victim)].stalled_until = until;
        } else if self.dice.one_in(self.plan.wall_steps * 10) {
            // Half an hour either way, and right again before a window is over.
            self.wall_error_ms = self.dice.within(0..3_600_000) as i64 - 1_800_000;
            let lasts = self.dice.within(0..8 * SECOND);
            self.schedule(self.now + lasts, Event::WallIsRight);
        }
        self.wake_shard(victim);
    }

    fn lose_shard(&mut self, index: u16) {
        self.cut_calls(usize::from(index), self.now);
        self.life += 1;
        let life = self.life;
        self.shards[usize::from(index)] = Shard::new(life, self.plan.kinds.len());
        self.inbox_keeps_nothing_of(index);
        let back = self.now + self.dice.within(0..SECOND);
        let shard = index;
        self.schedule(back, Event::ShardRestarts { life, shard });
    }

    /// A supervisor that restarts a shard gives it a new channel.
    fn inbox_keeps_nothing_of(&mut self, index: u16) {
        if self.dice.one_in(2) {
            self.inbox.retain(|(from, _)| from.0 != index);
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        for index in 0..self.shards.len() {
            // A commit under way may have reached the disk or not.
            let pending: Vec<u64> = self.shards[index].commits.keys().copied().collect();
            for commit in pending {
                if commit & COMMITTED == 0 && self.dice.one_in(2) {
                    self.commit(index as u16, commit);
                }
            }
            self.cut_calls(index, self.now);
            self.life += 1;
            self.shards[index] = Shard::new(self.life, self.plan.kinds.len());
            self.shards[index].holdings = None;
        }
        self.inbox.clear();
        self.coordinator_turn = None;
        let down = match self.dice.within(0..3) {
            0 => self.dice.within(0..SECOND / 100),
            1 => self.dice.within(0..self.plan.down_max.min(SECOND)),
            _ => self.dice.within(0..self.plan.down_max),
        };
        self.down_until = Some(self.now + down);
        self.schedule(self.now + down, Event::ProcessRestarts);
    }

    fn restart(&mut self) {
        self.down_until = None;
        if self.plan.reboots && self.dice.one_in(2) {
            self.boot += 1;
            self.booted_at = self.now - self.dice.within(0..self.now.min(5 * SECOND));
        }
        let now = self.clocks();
        let boot = self.boot;
        self.log
            .retain(|l| l.boot != boot || l.forget_at > now.mono);
        let leases: Vec<RecoveredLease> = self
            .log
            .iter()
            .map(|logged| RecoveredLease {
                same_boot: logged.boot == boot,
                ..logged.recovered.clone()
            })
            .collect();
        let last_lease = self.coordinator.last_lease();
        self.coordinator = Coordinator::new(
            Start {
                now,
                shards: self.plan.shards,
                last_lease,
                seed: self.plan.seed + self.crashes,
            },
            vec![self.plan.configured()],
        )
        .expect("valid limits");
        if !self.has(Bug::FullAtRestart) {
            self.coordinator.restore(now, &leases);
        }
        self.start_shards();
    }

    fn start_shards(&mut self) {
        for index in 0..self.plan.shards {
            self.shards[usize::from(index)].holdings = Some(Holdings::new());
            self.wake_shard(index);
        }
    }

    /// The calls of a shard that died: what is on the wire still arrives, or is lost.
    fn cut_calls(&mut self, index: usize, died: u64) {
        for (_, call) in std::mem::take(&mut self.shards[index].calls) {
            if call.fate == Fate::Refused {
                continue;
            }
            let arrived = if call.arrives <= died {
                call.arrives
            } else if self.dice.one_in(4) {
                continue;
            } else {
                self.dice.within(died..died + ARRIVES_AFTER_DEATH - MS)
            };
            self.provider.count(arrived, call.kind);
            self.provider.span(call.sent, arrived.max(died), call.kind);
        }
    }

    fn clocks(&self) -> Now {
        let wall = WALL_AT_ZERO_MS + (self.now / MS) as i64 + self.wall_error_ms;
        Now {
            mono: Mono(self.now - self.booted_at),
            wall: WallMs(wall),
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.event_count += 1;
        self.events.push(Reverse((at, self.event_count, event)));
    }

    fn wake_coordinator(&mut self) {
        let at = self.now + self.dice.within(self.plan.wake.clone());
        self.wake_coordinator_at(at);
    }

    fn wake_coordinator_at(&mut self, at: u64) {
        if self.coordinator_turn.is_none_or(|turn| at < turn) {
            self.coordinator_turn = Some(at);
            self.schedule(at, Event::CoordinatorTurn);
        }
    }

    fn wake_shard(&mut self, index: u16) {
        let at = self.now + self.dice.within(self.plan.wake.clone());
        self.wake_shard_at(index, at);
    }

    fn wake_shard_at(&mut self, index: u16, at: u64) {
        let shard = &mut self.shards[usize::from(index)];
        if shard.turn.is_none_or(|turn| at < turn) {
            shard.turn = Some(at);
            self.schedule(at, Event::ShardTurn(index));
        }
    }
}

/// Marks commits that are on disk and wait for the shard's turn.
const COMMITTED: u64 = 1 << 63;

impl Shard {
    fn new(life: u64, kinds: usize) -> Self {
        Self {
            life,
            holdings: None,
            inbox: VecDeque::new(),
            turn: None,
            stalled_until: 0,
            backlog: vec![0; kinds],
            calls: BTreeMap::new(),
            ended: Vec::new(),
            commits: BTreeMap::new(),
        }
    }

    fn committed(&mut self) -> impl Iterator<Item = Vec<Record>> {
        self.commits.split_off(&COMMITTED).into_values()
    }
}

/// An account with these limits, a slot for every call that a test needs at once.
pub(crate) fn account(limits: Vec<syncline_engine::quota::Limit>) -> AccountLimits {
    AccountLimits {
        limits,
        max_in_flight: 1000,
        call_timeout: Duration::from_secs(2),
        ..AccountLimits::unlimited("salesforce")
    }
}
