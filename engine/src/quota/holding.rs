//! What one shard holds of one account's budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::classes::{CostClass, CostClasses};
use super::holdings::{CallEnd, LeaseTaken, Permit, Refusal, Settled, Terms, Verdict, Waiting};
use super::message::{AccountId, Ended, FromShard, Gate, HoldReason, LeaseId};
use super::truth::Observation;
use crate::time::Mono;

/// Permits that nothing waits for go back after this: longer than the gap between two batches
/// of a steady stream, short against any window.
const PERMITS_IDLE: Duration = Duration::from_millis(20);
/// Slots that nothing waits for are kept longer: they cost others nothing until recalled.
const SLOTS_IDLE: Duration = Duration::from_secs(1);
/// How much of its recent pace a shard asks for in advance: covers the way to the coordinator
/// and back and the commit of the lease, some 10 ms each.
const PACE_SPAN: Duration = Duration::from_millis(50);
/// So long after their calls ended leases are told to be settled at the latest: a small part of the
/// shortest windows that a restart is felt in, and four entries a second.
const SETTLED_EVERY: Duration = Duration::from_millis(250);
/// Leases taken without telling so: below the number at which the coordinator stops lending.
const UNSEEN_MAX: u32 = 16;

/// Limits that one turn's replies may speak of; an account has a handful.
const OBSERVED_MAX: usize = 64;

/// One account as one shard holds it.
#[derive(Debug)]
pub(super) struct Holding {
    account: AccountId,
    terms: Terms,
    over: bool,
    gate: Option<Gate>,
    /// A reply asked for a pause, and what the coordinator makes of that is not here yet.
    asked_to_pause: Option<Asked>,
    /// Oldest first, which is the order in which they end.
    leases: VecDeque<HeldLease>,
    newest: LeaseId,
    slots: u32,
    /// Recalled down to here.
    keep: Option<u32>,
    in_flight: u32,
    /// Calls under way by the lease that paid for them.
    open: BTreeMap<LeaseId, u32>,
    /// The first lease it was given.
    first: Option<LeaseId>,
    /// When the last of the calls that ended was counted at the latest.
    last_end: Mono,
    /// Leases numbered below this are known to the log to be settled.
    settled_told: LeaseId,
    /// Since when there are more of them.
    settled_since: Option<Mono>,
    /// By class; a class stays here until the coordinator knows that nothing waits in it.
    wishes: BTreeMap<CostClass, Wish>,
    /// By class, if calls should wait for company.
    lingers: BTreeMap<CostClass, Duration>,
    ended: Vec<EndedCalls>,
    health: VecDeque<FromShard>,
    /// What replies of this turn said, one word a limit.
    observed: Vec<Observation>,
    last_success: Option<Mono>,
    success_wanted: bool,
    probe_spent: bool,
    slots_told: u32,
    /// Leases taken since the coordinator was last told of one.
    unseen: u32,
    slots_idle_since: Option<Mono>,
    pace: Pace,
}

#[derive(Debug)]
struct HeldLease {
    lease: LeaseId,
    class: CostClass,
    unspent: u32,
    usable_until: Mono,
    durable: bool,
}

/// Ended calls of one turn that go into one report.
#[derive(Debug)]
struct EndedCalls {
    lease: LeaseId,
    ended: Ended,
    count: u32,
    last_at: Mono,
}

/// What waits in one class, and what the coordinator knows of it.
#[derive(Debug, Default)]
struct Wish {
    waiting: Waiting,
    told: Told,
    permits_idle_since: Option<Mono>,
}

/// The demand for one class as the coordinator knows it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Told {
    permits: u32,
    urgent: u32,
    /// By magnitude: the weight of a demand goes by that.
    records_log2: u32,
}

/// Permits spent lately.
#[derive(Debug, Default)]
struct Pace {
    since: Mono,
    current: u32,
    previous: u32,
}

/// How long the coordinator's word on a pause is waited for: it may have none, as where the pause
/// is over by then.
const PAUSE_HEARD_WITHIN: Duration = Duration::from_millis(20);

/// A reply that asked for a pause.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// When it came.
    at: Mono,
    /// When the coordinator was told.
    told: Option<Mono>,
}

impl Asked {
    fn after_turn(self, now: Mono) -> Option<Self> {
        let told = self.told.unwrap_or(now);
        let waits = now.saturating_since(told) < PAUSE_HEARD_WITHIN;
        waits.then_some(Self {
            told: Some(told),
            ..self
        })
    }
}

impl Holding {
    pub(super) fn new(account: AccountId, terms: Terms) -> Self {
        Self {
            account,
            terms,
            over: false,
            gate: None,
            asked_to_pause: None,
            leases: VecDeque::new(),
            newest: LeaseId::default(),
            slots: 0,
            keep: None,
            in_flight: 0,
            open: BTreeMap::new(),
            first: None,
            last_end: Mono::default(),
            settled_told: LeaseId::default(),
            settled_since: None,
            wishes: BTreeMap::new(),
            lingers: BTreeMap::new(),
            ended: Vec::new(),
            health: VecDeque::new(),
            observed: Vec::new(),
            last_success: None,
            success_wanted: false,
            probe_spent: false,
            slots_told: 0,
            unseen: 0,
            slots_idle_since: None,
            pace: Pace::default(),
        }
    }

    pub(super) fn renew(&mut self, terms: Terms) {
        self.terms = terms;
        let was_over = std::mem::take(&mut self.over);
        let classes = &self.terms.classes;
        self.wishes.retain(|class, _| classes.contains(*class));
        self.lingers.retain(|class, _| classes.contains(*class));
        if was_over {
            self.lingers.clear();
            self.slots_told = 0;
            for wish in self.wishes.values_mut() {
                wish.told = Told::default();
            }
        }
    }

    /// The account is gone: nothing more is sent, all goes back.
    pub(super) fn end(&mut self) {
        self.over = true;
        for wish in self.wishes.values_mut() {
            wish.waiting = Waiting::default();
        }
        self.recall(0);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over && self.in_flight == 0 && self.slots == 0 && self.ended.is_empty()
    }

    pub(super) fn lease(
        &mut self,
        class: CostClass,
        lease: LeaseId,
        permits: u32,
        usable_until: Mono,
    ) -> LeaseTaken {
        let settled = self.settled_so_far(lease);
        self.settled_told = settled.below;
        self.first.get_or_insert(lease);
        self.newest = lease;
        self.unseen += 1;
        if let Some(wish) = self.wishes.get_mut(&class) {
            wish.told.permits = wish.told.permits.saturating_sub(permits);
            wish.told.urgent = wish.told.urgent.saturating_sub(permits);
        }
        self.leases.push_back(HeldLease {
            lease,
            class,
            unspent: permits,
            usable_until,
            durable: false,
        });
        LeaseTaken {
            account: self.account,
            name: self.terms.name.clone(),
            lease,
            label: self.terms.classes.label(class),
            permits,
            usable_until,
            settled,
            forget_at: usable_until.saturating_add(self.terms.lease_memory),
        }
    }

    pub(super) fn on_durable(&mut self, lease: LeaseId) {
        if let Some(held) = self.leases.iter_mut().find(|held| held.lease == lease) {
            held.durable = true;
        }
    }

    /// The log does not take the lease: none of its permits is ever spent.
    pub(super) fn on_unlogged(&mut self, lease: LeaseId) {
        if let Some(at) = self.leases.iter().position(|held| held.lease == lease)
            && let Some(held) = self.leases.remove(at)
        {
            self.health.push_back(self.unspent(lease, held.unspent));
        }
    }

    pub(super) fn grant_slots(&mut self, slots: u32) {
        self.slots += slots;
        self.keep = None;
    }

    pub(super) fn recall(&mut self, keep: u32) {
        self.keep = Some(keep);
    }

    pub(super) fn set_gate(&mut self, gate: Gate) {
        self.success_wanted = gate == Gate::Suspect;
        self.probe_spent = false;
        self.gate = Some(gate);
        self.asked_to_pause = None;
    }

    pub(super) fn set_linger(&mut self, class: CostClass, linger: Duration) {
        if linger.is_zero() {
            self.lingers.remove(&class);
        } else {
            self.lingers.insert(class, linger);
        }
    }

    pub(super) fn linger(&self, class: CostClass) -> Duration {
        self.lingers.get(&class).copied().unwrap_or_default()
    }

    pub(super) fn gate(&self) -> Option<Gate> {
        self.gate
    }

    pub(super) fn classes(&self) -> &Arc<CostClasses> {
        &self.terms.classes
    }

    pub(super) fn is_unlimited(&self) -> bool {
        self.terms.unlimited
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots
    }

    pub(super) fn demand(&mut self, class: CostClass, waiting: Waiting) {
        if !self.over && self.terms.classes.contains(class) {
            self.wishes.entry(class).or_default().waiting = waiting;
        }
    }

    /// Whether the gate and the slots let a call start, whatever it costs.
    pub(super) fn may_call(&self) -> Result<(), Refusal> {
        let gate = match self.gate {
            Some(gate) if !self.over => gate,
            _ => return Err(Refusal::Unknown),
        };
        match gate {
            Gate::Open | Gate::Suspect => {}
            Gate::Probe if !self.probe_spent => {}
            Gate::Probe | Gate::Held { .. } => return Err(Refusal::Held(gate)),
        }
        if let Some(asked) = self.asked_to_pause {
            return Err(Refusal::Held(Gate::Held {
                until: asked.at,
                reason: HoldReason::Throttled,
            }));
        }
        if self.in_flight >= self.slots.min(self.keep.unwrap_or(u32::MAX)) {
            return Err(Refusal::Slots);
        }
        Ok(())
    }

    /// Whether a permit for a call of this class is in hand, or none is needed.
    pub(super) fn can_pay(&self, now: Mono, class: CostClass) -> bool {
        let mut leases = self.leases.iter();
        self.terms.classes.is_free(class) || leases.any(|held| held.pays(now, class))
    }

    pub(super) fn try_spend(&mut self, now: Mono, class: CostClass) -> Result<Permit, Refusal> {
        self.may_call()?;
        let (lease, usable_until) = if self.terms.classes.is_free(class) {
            (LeaseId::default(), Mono(u64::MAX))
        } else {
            let mut leases = self.leases.iter_mut();
            let held = leases.find(|held| held.pays(now, class));
            let held = held.ok_or(Refusal::Permits)?;
            held.unspent -= 1;
            *self.open.entry(held.lease).or_default() += 1;
            (held.lease, held.usable_until)
        };
        let probe = self.gate == Some(Gate::Probe);
        self.in_flight += 1;
        self.probe_spent |= probe;
        self.pace.count(now);
        Ok(Permit {
            account: self.account,
            lease,
            usable_until,
            probe,
        })
    }

    pub(super) fn complete(&mut self, permit: Permit, end: CallEnd) {
        self.in_flight -= 1;
        self.close(permit.lease);
        let counted_by = match end.ended {
            Ended::Answered => end.at,
            Ended::Unanswered => end.at.saturating_add(ARRIVAL_GRACE),
        };
        self.last_end = self.last_end.max(counted_by);
        if permit.lease != LeaseId::default() {
            let same = |e: &&mut EndedCalls| e.lease == permit.lease && e.ended == end.ended;
            match self.ended.iter_mut().find(same) {
                Some(ended) => {
                    ended.count += 1;
                    ended.last_at = ended.last_at.max(end.at);
                }
                None => self.ended.push(EndedCalls {
                    lease: permit.lease,
                    ended: end.ended,
                    count: 1,
                    last_at: end.at,
                }),
            }
        }
        self.judge(end.at, permit.probe, end.verdict);
    }

    pub(super) fn cancel(&mut self, permit: Permit) {
        self.in_flight -= 1;
        self.close(permit.lease);
        if permit.probe {
            self.probe_spent = false;
        }
        if let Some(held) = self
            .leases
            .iter_mut()
            .find(|held| held.lease == permit.lease)
        {
            held.unspent += 1;
        } else if permit.lease != LeaseId::default() {
            self.health.push_back(self.unspent(permit.lease, 1));
        }
    }

    pub(super) fn observed(&mut self, word: Observation) {
        let mut observed = self.observed.iter();
        match observed.position(|known| known.limit == word.limit) {
            Some(at) if self.observed[at].tells_of_more_than(&word) => {}
            Some(at) => self.observed[at] = word,
            None if self.observed.len() < OBSERVED_MAX => self.observed.push(word),
            None => {}
        }
    }

    pub(super) fn end_turn(&mut self, now: Mono, reports: &mut VecDeque<FromShard>) {
        reports.extend(self.health.drain(..));
        let account = self.account;
        reports.extend(self.ended.drain(..).map(|ended| FromShard::Completed {
            account,
            lease: ended.lease,
            count: ended.count,
            completed_at: ended.last_at,
            ended: ended.ended,
        }));
        let observed = self.observed.drain(..);
        reports.extend(observed.map(|observation| FromShard::Observed {
            account,
            observation,
        }));
        self.pace.turn(now);
        self.asked_to_pause = self.asked_to_pause.and_then(|asked| asked.after_turn(now));
        self.return_permits(now, reports);
        self.return_slots(now, reports);
        self.tell_demand(reports);
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let lease = self
            .leases
            .front()
            .map(|held| Mono(held.usable_until.0.saturating_add(1)));
        let idle = self
            .wishes
            .values()
            .filter_map(|wish| wish.permits_idle_since);
        let permits = idle.min().map(|since| since.saturating_add(PERMITS_IDLE));
        let slots = self
            .slots_idle_since
            .map(|since| since.saturating_add(SLOTS_IDLE));
        let settled = self
            .settled_since
            .map(|since| since.saturating_add(SETTLED_EVERY));
        let asked = self.asked_to_pause.and_then(|asked| asked.told);
        let asked = asked.map(|told| told.saturating_add(PAUSE_HEARD_WITHIN));
        let deadlines = [lease, permits, slots, settled, asked];
        deadlines.into_iter().flatten().min()
    }

    fn judge(&mut self, at: Mono, probe: bool, verdict: Verdict) {
        let account = self.account;
        match verdict {
            Verdict::Healthy => {
                self.last_success = Some(at);
                if probe || std::mem::take(&mut self.success_wanted) {
                    self.health.push_back(FromShard::Healthy { account, probe });
                }
            }
            Verdict::Silent if probe => self.health.push_back(FromShard::ProbeUnused { account }),
            Verdict::Silent => {}
            Verdict::Trouble(trouble) => {
                if trouble.asks_for_pause() {
                    // What is ready would go in this very turn, and be refused as well.
                    self.asked_to_pause = Some(Asked { at, told: None });
                }
                self.health.push_back(FromShard::Trouble {
                    account,
                    trouble,
                    probe,
                    last_success: self.last_success,
                });
            }
        }
    }

    /// What the log should be told of leases whose calls have ended, beside what each new lease says.
    pub(super) fn settled(&mut self, now: Mono) -> Option<(Arc<str>, Settled)> {
        // An account without windowed limits has no leases.
        self.first?;
        let settled = self.settled_so_far(LeaseId(self.newest.0 + 1));
        if settled.below <= self.settled_told || settled.by == Mono::default() {
            // A lease told it meanwhile: there is nothing to wake up for.
            self.settled_since = None;
            return None;
        }
        let since = *self.settled_since.get_or_insert(now);
        if now.saturating_since(since) < SETTLED_EVERY {
            return None;
        }
        self.settled_since = None;
        self.settled_told = settled.below;
        Some((Arc::clone(&self.terms.name), settled))
    }

    /// All before the oldest lease of which a permit is in hand or a call under way, or before `next`.
    fn settled_so_far(&self, next: LeaseId) -> Settled {
        let in_hand = self.leases.iter().filter(|held| held.unspent > 0);
        let in_hand = in_hand.map(|held| held.lease).min();
        let open = self.open.keys().next().copied();
        let below = in_hand.into_iter().chain(open).min();
        Settled {
            from: self.first.unwrap_or(next),
            below: below.unwrap_or(next),
            by: self.last_end,
        }
    }

    fn close(&mut self, lease: LeaseId) {
        if let Some(open) = self.open.get_mut(&lease) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&lease);
            }
        }
    }

    /// Expired permits, all while the gate is shut, and those nothing waits for.
    fn return_permits(&mut self, now: Mono, reports: &mut VecDeque<FromShard>) {
        let shut = self.over || matches!(self.gate, Some(Gate::Held { .. }));
        let mut idle = self.idle_permits(now);
        let account = self.account;
        let classes = &self.terms.classes;
        // The youngest go first: what is kept should be what ends soonest.
        for held in self.leases.iter_mut().rev() {
            let gone = shut || held.usable_until < now || !classes.contains(held.class);
            let spare = idle.entry(held.class).or_insert(0);
            let count = if gone {
                held.unspent
            } else {
                held.unspent.min(*spare)
            };
            if !gone {
                *spare -= count;
            }
            if count > 0 {
                held.unspent -= count;
                let lease = held.lease;
                reports.push_back(FromShard::Unspent {
                    account,
                    lease,
                    count,
                });
            }
        }
        self.leases.retain(|held| held.unspent > 0);
        let unused = self.gate == Some(Gate::Probe) && !self.probe_spent;
        let useless = self.ready_calls() == 0 || (self.leases.is_empty() && !self.terms.unlimited);
        if unused && useless {
            self.probe_spent = true;
            reports.push_back(FromShard::ProbeUnused { account });
        }
    }

    /// By class, permits that nothing has waited for during their idle time.
    fn idle_permits(&mut self, now: Mono) -> BTreeMap<CostClass, u32> {
        let mut idle = BTreeMap::new();
        for held in &self.leases {
            *idle.entry(held.class).or_insert(0) += held.unspent;
        }
        for (class, spare) in &mut idle {
            let wish = self.wishes.entry(*class).or_default();
            *spare = spare.saturating_sub(wish.waiting.calls);
            if *spare == 0 {
                wish.permits_idle_since = None;
                continue;
            }
            let since = *wish.permits_idle_since.get_or_insert(now);
            if now.saturating_since(since) >= PERMITS_IDLE {
                wish.permits_idle_since = None;
            } else {
                *spare = 0;
            }
        }
        for (class, wish) in &mut self.wishes {
            if !idle.contains_key(class) {
                wish.permits_idle_since = None;
            }
        }
        idle
    }

    fn return_slots(&mut self, now: Mono, reports: &mut VecDeque<FromShard>) {
        let free = self.slots - self.in_flight.min(self.slots);
        let recalled = self
            .slots
            .saturating_sub(self.keep.unwrap_or(u32::MAX))
            .min(free);
        let spare = free.saturating_sub(self.ready_calls());
        if spare == 0 {
            self.slots_idle_since = None;
        }
        let idle = spare > 0
            && now.saturating_since(*self.slots_idle_since.get_or_insert(now)) >= SLOTS_IDLE;
        let returned = if idle { recalled.max(spare) } else { recalled };
        if idle {
            self.slots_idle_since = None;
        }
        if returned > 0 {
            self.slots -= returned;
            let account = self.account;
            let slots = returned;
            reports.push_back(FromShard::ReturnSlots { account, slots });
        }
    }

    fn tell_demand(&mut self, reports: &mut VecDeque<FromShard>) {
        let ahead = self.slots.max(1).saturating_add(self.pace.ahead());
        let slots = self.slots_wanted();
        let mut changed: Vec<CostClass> = Vec::new();
        let classes: Vec<CostClass> = self.wishes.keys().copied().collect();
        for class in classes {
            let in_hand = self.permits_in_hand(class);
            let free = self.terms.classes.is_free(class);
            let Some(wish) = self.wishes.get_mut(&class) else {
                continue;
            };
            let calls = if free { 0 } else { wish.waiting.calls };
            let permits = calls.min(ahead).saturating_sub(in_hand);
            let wanted = Told {
                permits,
                urgent: wish.waiting.urgent.saturating_sub(in_hand).min(permits),
                records_log2: u32::BITS - wish.waiting.records.leading_zeros(),
            };
            if wanted != wish.told {
                wish.told = wanted;
                changed.push(class);
            }
        }
        // Slots and what was seen are told with any class.
        if changed.is_empty() && (slots != self.slots_told || self.unseen >= UNSEEN_MAX) {
            let any = self.wishes.keys().next().copied();
            changed.push(any.unwrap_or(CostClass::ANY));
        }
        for class in changed {
            let wish = self.wishes.get(&class);
            let (told, records) = wish.map_or((Told::default(), 0), |wish| {
                (wish.told, wish.waiting.records)
            });
            reports.push_back(FromShard::Want {
                account: self.account,
                class,
                permits: told.permits,
                urgent: told.urgent,
                records,
                slots,
                seen: self.newest,
            });
            self.slots_told = slots;
            self.unseen = 0;
        }
        let unused = |class: &CostClass| self.leases.iter().all(|held| held.class != *class);
        self.wishes
            .retain(|class, wish| !wish.is_empty() || !unused(class));
    }

    /// In powers of two, and down only when far below: a steady stream has nothing to tell.
    fn slots_wanted(&self) -> u32 {
        let useful = self.in_flight.saturating_add(self.ready_calls());
        if useful > self.slots_told || useful <= self.slots_told / 4 {
            useful
                .checked_next_power_of_two()
                .map_or(u32::MAX, |power| power * useful.min(1))
        } else {
            self.slots_told
        }
    }

    fn ready_calls(&self) -> u32 {
        let calls = self.wishes.values().map(|wish| wish.waiting.calls);
        calls.fold(0, u32::saturating_add)
    }

    fn permits_in_hand(&self, class: CostClass) -> u32 {
        let held = self.leases.iter().filter(|held| held.class == class);
        held.map(|held| held.unspent).sum()
    }

    fn unspent(&self, lease: LeaseId, count: u32) -> FromShard {
        FromShard::Unspent {
            account: self.account,
            lease,
            count,
        }
    }
}

impl HeldLease {
    fn pays(&self, now: Mono, class: CostClass) -> bool {
        self.class == class && self.durable && self.unspent > 0 && now <= self.usable_until
    }
}

impl Wish {
    fn is_empty(&self) -> bool {
        self.waiting == Waiting::default() && self.told == Told::default()
    }
}

impl Pace {
    fn count(&mut self, now: Mono) {
        self.turn(now);
        self.current = self.current.saturating_add(1);
    }

    fn turn(&mut self, now: Mono) {
        let spans = now.saturating_since(self.since).as_nanos() / PACE_SPAN.as_nanos();
        if spans > 0 {
            self.previous = if spans == 1 { self.current } else { 0 };
            self.current = 0;
            self.since = now;
        }
    }

    fn ahead(&self) -> u32 {
        self.previous.max(self.current).saturating_mul(2)
    }
}
