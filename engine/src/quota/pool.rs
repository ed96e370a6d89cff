//! One limit's tokens: where they are, and when a completed call's come back.

use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::adaptive::Adaptive;
use super::calendar::Calendar;
use super::forecast::Outlook;
use super::kept::{Caller, Polled};
use super::learned::LearnedFrom;
use super::limit::{Limit, Policy};
use super::rate::Rate;
use super::refill::Refill;
use super::restoring::{NO_BOUNDARY, Restoring};
use super::truth::{Observation, OwnCount, Truth};
use crate::time::{Mono, Now};

/// The Linux kernel slews a clock by at most 500 ppm; ours may be fast while the provider's is
/// slow: 1.0005 / 0.9995, rounded up.
const CLOCK_ERROR_PPM: u128 = 1001;
/// Quotas over longer windows are told, not felt: a 429 without a word on them says nothing.
const ADAPTIVE_WINDOW_MAX: Duration = Duration::from_secs(60);
/// How finely ends of calls are told apart where a token comes back with its call.
const IN_FLIGHT_WINDOW: Duration = Duration::from_millis(1);

/// Tokens of one limit. Always available + leased + restoring = capacity.
#[derive(Debug)]
pub(super) struct Pool {
    name: Arc<str>,
    limit: Limit,
    capacity: i64,
    /// The most that one call takes: what is learned or kept back never leaves less.
    dearest: u32,
    /// Below zero after a late report or a shrunken limit: nothing is lent until it is above.
    available: i64,
    leased: i64,
    restoring: Restoring,
    /// Of those restoring, tokens of calls that the provider refused, and so may not count.
    refused: Restoring,
    rule: Rule,
    truth: Truth,
    adaptive: Adaptive,
    /// Of the tokens on their way back, those that had been spent when the provider refused a
    /// call: what it is taken to allow since then is for calls since then, or a long window
    /// would stand still after one refusal until half of it is forgotten.
    before_refusal: u64,
    /// One call may look whether others still hold what they were seen to hold.
    looks: bool,
    spent: Rate,
    polled: Polled,
    /// What the log was given of `truth` and of `adaptive`.
    told_logged: Option<u32>,
    felt_logged: Option<u32>,
}

/// When the token of a completed call comes back.
#[derive(Debug)]
enum Rule {
    Sliding {
        window: Duration,
    },
    Fixed(Calendar),
    Bucket(Refill),
    /// With its call.
    InFlight,
}

/// Tokens that an earlier run may have spent.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpentBefore {
    /// When the provider had counted the last of the calls, in nanoseconds of this boot's
    /// clock; below zero when that was before the boot.
    pub(super) completed_ns: i64,
    pub(super) tokens: u64,
    /// What both clocks read at one instant then, if it was in this boot.
    pub(super) clocks: Option<Now>,
}

/// Where the tokens of a limit are, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitView {
    /// The limit's name.
    pub name: Arc<str>,
    /// Tokens in all, as configured.
    pub capacity: u32,
    /// The configured window, or a bucket's time to fill; zero for calls in flight.
    pub window: Duration,
    /// Tokens that no lease and no ended call holds; below zero while the provider may count
    /// more than we lent.
    pub available: i64,
    /// Tokens in leases: unspent, or spent by a call that has not ended.
    pub leased: u64,
    /// Tokens of ended calls that the provider still counts.
    pub restoring: u64,
    /// Tokens that other applications are taken to hold, by what the provider says.
    pub others: u64,
    /// What the limit is taken to be: less than `capacity` when the provider says so, or
    /// refuses calls below it.
    pub allowed: u32,
    /// Tokens that could be lent now, to urgent operations or to polls alone.
    pub kept: u64,
    /// Tokens that a call of ordinary priority could be lent now.
    pub lendable: u64,
    /// The share of the capacity that is used by us or others or kept back, 0 to 1.
    pub used_ratio: f64,
    /// When the next token comes back, if calls have ended.
    pub next_restore: Option<Mono>,
    /// Tokens spent a second, lately.
    pub spent_per_s: f64,
    /// When nothing is left at that pace, if it comes to that before tokens come back.
    pub used_up_at: Option<Mono>,
}

impl Pool {
    /// A full pool of a limit that calls need tokens of.
    pub(super) fn new(now: Now, limit: &Limit, dearest: u32) -> Self {
        let rule = match &limit.policy {
            Policy::Sliding { window, .. } => Rule::Sliding {
                window: stretched(*window),
            },
            Policy::Fixed { window, zone, .. } => Rule::Fixed(Calendar::new(now, *window, zone)),
            Policy::TokenBucket { refill, period, .. } => {
                Rule::Bucket(Refill::new(*refill, *period))
            }
            Policy::Concurrency { .. } => Rule::InFlight,
        };
        let capacity = limit.policy.capacity();
        let window = rule.window(i64::from(capacity));
        Self {
            name: limit.name.as_str().into(),
            limit: limit.clone(),
            capacity: i64::from(capacity),
            dearest,
            available: i64::from(capacity),
            leased: 0,
            restoring: Restoring::new(window.max(IN_FLIGHT_WINDOW)),
            refused: Restoring::new(window.max(IN_FLIGHT_WINDOW)),
            truth: Truth::new(window),
            adaptive: Adaptive::new(capacity, dearest, window),
            before_refusal: 0,
            rule,
            looks: false,
            spent: Rate::default(),
            polled: Polled::new(window.max(IN_FLIGHT_WINDOW)),
            told_logged: None,
            felt_logged: None,
        }
    }

    /// Tokens into a lease.
    ///
    /// # Panics
    /// When more are taken than are available.
    pub(super) fn take(&mut self, now: Mono, tokens: u64, caller: Caller) {
        if tokens == 0 {
            return;
        }
        if caller == Caller::Poll {
            self.polled.take(tokens);
        }
        let tokens = signed(tokens);
        assert!(tokens <= self.available, "lent more than the pool holds");
        self.available -= tokens;
        self.leased += tokens;
        if std::mem::take(&mut self.looks) {
            self.truth.on_look(now);
        }
    }

    /// Tokens of a lease that no call has used.
    pub(super) fn put_back(&mut self, tokens: u64, caller: Caller) {
        if caller == Caller::Poll {
            self.polled.put_back(tokens);
        }
        let tokens = signed(tokens);
        assert!(tokens <= self.leased, "more came back than was lent");
        self.leased -= tokens;
        self.available += tokens;
    }

    /// Tokens of a lease whose calls ended by `completed_at`, as is known since `now`.
    pub(super) fn complete(&mut self, now: Mono, completed_at: Mono, tokens: u64, caller: Caller) {
        assert!(signed(tokens) <= self.leased, "more ended than was lent");
        if caller == Caller::Poll {
            let (at, boundary_ms) = self.forgotten_after(completed_at);
            self.polled.end(at, boundary_ms, tokens);
        }
        self.leased -= signed(tokens);
        self.restore_after(now, completed_at, tokens);
    }

    /// Calls that no live lease paid for: a report after its lease was given up, or a new limit
    /// that finds calls under way.
    pub(super) fn charge(&mut self, now: Mono, completed_at: Mono, tokens: u64) {
        self.available -= signed(tokens);
        self.restore_after(now, completed_at, tokens);
    }

    /// Tokens of leases that were lent before this limit was there, or cost so much.
    pub(super) fn lease_before(&mut self, tokens: u64) {
        self.available -= signed(tokens);
        self.leased += signed(tokens);
    }

    /// Brings the pool up to `now`; says whether there may be more to lend.
    pub(super) fn observe(&mut self, now: Now) -> bool {
        let wall_low_ms = match &mut self.rule {
            Rule::Fixed(calendar) => calendar.wall_low_ms(now),
            _ => i64::MIN,
        };
        let back = self.restoring.pop_due(now.mono, wall_low_ms);
        self.refused.pop_due(now.mono, wall_low_ms);
        self.polled.tick(now.mono, wall_low_ms);
        self.available += signed(back);
        self.before_refusal = self.before_refusal.saturating_sub(back);
        if back > 0 {
            self.truth.on_returned(now.mono, back);
        }
        debug_assert!(self.is_conserved());
        let others_gone = self.truth.tick(now.mono);
        let regrown = self.adaptive.tick(now.mono);
        let looked = self.looks;
        self.looks = self.may_look() && self.truth.is_look_due(now.mono);
        back > 0 || others_gone || regrown || (self.looks && !looked)
    }

    /// Takes in what a reply said of this limit.
    pub(super) fn hear(&mut self, now: Now, word: &Observation) {
        if let Some(max) = word.max {
            self.truth.learn_max(max);
        }
        let size = word.max.unwrap_or(self.limit.policy.capacity());
        let used = word
            .used
            .or_else(|| Some(size.saturating_sub(word.remaining?)));
        let Some(used) = used else { return };
        let travelled = now.mono.saturating_since(word.sent_at);
        // Calls count from their arrival, our tokens from the end of the call, rounded up.
        let rounding = self.memory() / 256;
        let leaving_by = now.mono.saturating_add(travelled + rounding);
        let own = OwnCount {
            leased: unsigned(self.leased),
            restoring: self
                .restoring
                .tokens()
                .saturating_sub(self.refused.tokens()),
            leaving: self.restoring.tokens_before(leaving_by),
        };
        let starts_over = self.starts_over(now, word);
        self.truth
            .read(now.mono, word, u64::from(used), own, starts_over);
    }

    /// Takes in the provider's own clock.
    pub(super) fn hear_clock(&mut self, now: Now, word: &Observation) {
        if let (Rule::Fixed(calendar), Some(wall)) = (&mut self.rule, word.server_time) {
            calendar.hear_clock(now, wall, word.sent_at, word.answered_at);
        }
    }

    /// The provider refused a call for one of its limits: a provider that does not count those it
    /// refuses would else seem to count others less. One that does count them seems to count
    /// others more until they are back, which is only too careful.
    pub(super) fn call_refused(&mut self, now: Mono) {
        let (at, boundary_ms) = self.forgotten_after(now);
        self.refused.push(at, boundary_ms, 1);
    }

    /// When the provider has forgotten a call that ended at `at`: the latest instant, and the edge
    /// of a calendar that comes before it.
    fn forgotten_after(&mut self, at: Mono) -> (Mono, i64) {
        let boundary_ms = match &mut self.rule {
            Rule::Fixed(calendar) => calendar.boundary_after(calendar.wall.latest(at)),
            _ => NO_BOUNDARY,
        };
        (at.saturating_add(self.memory()), boundary_ms)
    }

    /// Whether a refusal that names no limit may have been for this one: short enough to be felt,
    /// and nothing was said of it lately.
    pub(super) fn is_suspect(&self, now: Mono) -> bool {
        !self.truth.is_fresh(now) && self.limit.policy.window() <= ADAPTIVE_WINDOW_MAX
    }

    /// Whether it is taken to be so small that a further refusal hardly is for it alone.
    pub(super) fn is_small(&self) -> bool {
        self.adaptive.is_small()
    }

    /// A refusal that names no limit is taken to be for this one.
    pub(super) fn refused(&mut self, now: Mono) {
        let since = self.restoring.tokens() - self.before_refusal;
        let in_use = unsigned(self.leased) + since;
        self.adaptive
            .halve(now, u32::try_from(in_use).unwrap_or(u32::MAX));
        self.before_refusal = self.restoring.tokens();
    }

    /// What was learned of the limit's size, or is not true any more, since this was last
    /// asked, until there is nothing.
    pub(super) fn news(&mut self) -> Option<(LearnedFrom, Option<u32>)> {
        let smaller = |max: &u32| i64::from(*max) < self.capacity;
        let told = self.truth.max().filter(smaller);
        if told != self.told_logged {
            self.told_logged = told;
            return Some((LearnedFrom::Provider, told));
        }
        let felt = self.adaptive.learned();
        if felt != self.felt_logged {
            self.felt_logged = felt;
            return Some((LearnedFrom::Refusals, felt));
        }
        None
    }

    /// Takes up what an earlier run learned and logged.
    pub(super) fn recall(&mut self, now: Mono, from: LearnedFrom, tokens: u32) {
        match from {
            LearnedFrom::Provider => {
                self.truth.learn_max(tokens);
                self.told_logged = Some(tokens);
            }
            LearnedFrom::Refusals => {
                self.adaptive.recall(now, tokens);
                self.felt_logged = Some(tokens);
                self.before_refusal = self.restoring.tokens();
            }
        }
    }

    /// Starts over after a restart, with what may have been spent before it.
    pub(super) fn recover(&mut self, now: Now, spent: &[SpentBefore]) {
        if let Rule::Fixed(calendar) = &mut self.rule {
            for then in spent.iter().filter_map(|spent| spent.clocks) {
                calendar.wall.remember(then);
            }
        }
        let now_ns = signed(now.mono.0);
        let window_ns = signed_nanos(self.memory());
        let counted = |s: &&SpentBefore| s.completed_ns.saturating_add(window_ns) > now_ns;
        let mut recent: Vec<_> = spent.iter().filter(counted).collect();
        recent.sort_unstable_by_key(|s| std::cmp::Reverse(s.completed_ns));
        // Before the restart no more than the capacity was out, so the latest ones cover it.
        let mut room = self.available.max(0);
        for &SpentBefore {
            completed_ns,
            tokens,
            ..
        } in recent
        {
            let tokens = signed(tokens).min(room);
            room -= tokens;
            self.available -= tokens;
            let tokens = unsigned(tokens);
            match &mut self.rule {
                Rule::Bucket(refill) => {
                    // How long the queue already was is not known; at most one bucket, which
                    // has been restored since the oldest call looked at here.
                    let start = now.mono.saturating_add(ARRIVAL_GRACE);
                    refill.enqueue(start, tokens, &mut self.restoring);
                }
                Rule::Sliding { .. } | Rule::InFlight => {
                    let at = completed_ns.saturating_add(window_ns);
                    let at = Mono(unsigned(at));
                    self.restoring.push(at, NO_BOUNDARY, tokens);
                }
                Rule::Fixed(calendar) => {
                    let at = completed_ns.saturating_add(window_ns);
                    let wall = calendar.wall.latest_at(completed_ns);
                    let boundary_ms = calendar.boundary_after(wall);
                    self.restoring.push(Mono(unsigned(at)), boundary_ms, tokens);
                }
            }
        }
        debug_assert!(self.is_conserved());
    }

    /// The same limit with other values; `false` when `limit` counts in another way.
    pub(super) fn resize(&mut self, now: Now, limit: &Limit, dearest: u32) -> bool {
        let new = Self::new(now, limit, dearest);
        let same_rule = match (&mut self.rule, new.rule) {
            (Rule::Sliding { window: old }, Rule::Sliding { window: new }) => *old == new,
            (Rule::Fixed(old), Rule::Fixed(new)) => old.is_aligned_with(&new),
            (Rule::Bucket(old), Rule::Bucket(mut new)) => {
                // What is on its way back restores at the new rate from now on.
                let waiting = self.restoring.tokens();
                self.restoring = new.queue(&limit.policy);
                new.enqueue(now.mono, waiting, &mut self.restoring);
                *old = new;
                true
            }
            (Rule::InFlight, Rule::InFlight) => true,
            _ => false,
        };
        if same_rule {
            self.available += new.capacity - self.capacity;
            self.capacity = new.capacity;
            self.dearest = dearest;
            self.limit = limit.clone();
            self.adaptive.resize(limit.policy.capacity(), dearest);
        }
        debug_assert!(self.is_conserved());
        same_rule
    }

    /// Tokens that can be lent now to whom they are kept for.
    pub(super) fn lendable(&self) -> u64 {
        let free = self.available - self.withheld();
        let dearest = i64::from(self.dearest);
        if self.looks && free < dearest && self.available >= dearest {
            return unsigned(dearest);
        }
        unsigned(free)
    }

    /// The same if all its tokens were back.
    pub(super) fn lendable_at_most(&self) -> u64 {
        unsigned(self.capacity - self.withheld())
    }

    /// Tokens that only urgent operations can be lent.
    pub(super) fn urgent_reserve(&self) -> u64 {
        u64::from(self.limit.reserve.urgent(self.limit.policy.capacity()))
    }

    /// Tokens that only polls can be lent, while they are there: what is kept for them, less what
    /// they hold.
    pub(super) fn polls_reserve(&self) -> u64 {
        self.kept_for_polls().saturating_sub(self.polled.held())
    }

    /// The same while polls hold nothing. A limit that is smaller than configured keeps less, and
    /// any leaves what the dearest call takes to other calls.
    pub(super) fn kept_for_polls(&self) -> u64 {
        let allowed = self.allowed();
        let capacity = self.limit.policy.capacity();
        let reserve = &self.limit.reserve;
        let others = reserve
            .others(capacity)
            .saturating_add(reserve.urgent(capacity));
        let left = allowed.saturating_sub(self.dearest.saturating_add(others));
        u64::from(reserve.polls(allowed).min(left))
    }

    pub(super) fn leased(&self) -> u64 {
        unsigned(self.leased)
    }

    pub(super) fn restoring(&self) -> u64 {
        self.restoring.tokens()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// When there may be more to lend without any further message.
    pub(super) fn next_change(&self) -> Option<Mono> {
        let looks_later = self.may_look() && !self.looks;
        let truth = self.truth.next_deadline(looks_later);
        let changes = [
            self.next_restore(),
            truth,
            self.adaptive.next_deadline(),
            self.polled.next_change(),
        ];
        changes.into_iter().flatten().min()
    }

    /// When a calendar's next window has surely begun.
    pub(super) fn next_edge(&self, now: Mono) -> Option<Mono> {
        let Rule::Fixed(calendar) = &self.rule else {
            return None;
        };
        let edge = calendar.boundary_after(calendar.wall.latest(now));
        Some(calendar.reaches(edge))
    }

    /// Whether its windows begin at fixed instants of the wall clock.
    pub(super) fn is_aligned(&self) -> bool {
        matches!(self.rule, Rule::Fixed(_))
    }

    /// How long after its completion a call may still matter.
    pub(super) fn memory(&self) -> Duration {
        self.rule.window(self.capacity)
    }

    pub(super) fn view(&self, now: Mono) -> LimitView {
        let all = self.lendable();
        let kept = (self.urgent_reserve() + self.polls_reserve()).min(all);
        let lendable = all - kept;
        let held = self.capacity - signed(all);
        let outlook = Outlook {
            now,
            lendable,
            spent_per_s: self.spent.per_second(now),
        };
        LimitView {
            name: Arc::clone(&self.name),
            capacity: self.limit.policy.capacity(),
            window: self.limit.policy.window(),
            available: self.available,
            leased: unsigned(self.leased),
            restoring: self.restoring.tokens(),
            others: self.truth.others(),
            allowed: self.allowed(),
            kept,
            lendable,
            used_ratio: (held as f64 / self.capacity as f64).clamp(0.0, 1.0),
            next_restore: self.next_restore(),
            spent_per_s: outlook.spent_per_s,
            used_up_at: self.used_up_at(outlook),
        }
    }

    /// How far apart calls of this price have to be for what is left to last until more comes back;
    /// nothing while half of the limit is left.
    pub(super) fn spacing(&self, now: Mono, cost: u32) -> Duration {
        let left = self.lendable();
        if cost == 0 || self.is_in_flight() || left >= self.lendable_at_most() / 2 {
            return Duration::ZERO;
        }
        let comes_back_in = match self.next_edge(now) {
            Some(edge) => edge.saturating_since(now),
            None => self.memory(),
        };
        let calls = u32::try_from(left / u64::from(cost)).unwrap_or(u32::MAX);
        comes_back_in / calls.max(1)
    }

    /// Its tokens stand for calls at the provider, not for what it counted of them.
    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.rule, Rule::InFlight)
    }

    /// When the next token comes back.
    fn next_restore(&self) -> Option<Mono> {
        let (slot, boundary_ms) = self.restoring.first()?;
        match &self.rule {
            Rule::Fixed(calendar) => Some(slot.min(calendar.reaches(boundary_ms))),
            _ => Some(slot),
        }
    }

    /// When a calendar gives back is known: nobody has to go and see.
    fn may_look(&self) -> bool {
        !matches!(self.rule, Rule::Fixed(_))
    }

    /// Tokens left to others, and those by which the limit is smaller than configured.
    fn withheld(&self) -> i64 {
        let reserve = self.limit.reserve.others(self.limit.policy.capacity());
        // What the provider gives beyond the configured limit, others have before they touch ours.
        let beyond = i64::from(self.truth.max().unwrap_or(0)) - self.capacity;
        let others = signed(self.truth.others()) - beyond.max(0);
        let others = others.max(i64::from(reserve));
        let felt = u64::from(self.adaptive.allowed()) + self.before_refusal;
        let felt = u32::try_from(felt).unwrap_or(u32::MAX);
        others + self.capacity - i64::from(self.at_most(felt))
    }

    /// What the limit is taken to be.
    fn allowed(&self) -> u32 {
        self.at_most(self.adaptive.allowed())
    }

    fn at_most(&self, felt: u32) -> u32 {
        let told = self.truth.max().unwrap_or(u32::MAX);
        let allowed = felt.min(told).max(self.dearest);
        allowed.min(self.limit.policy.capacity())
    }

    fn used_up_at(&self, outlook: Outlook) -> Option<Mono> {
        match &self.rule {
            Rule::Sliding { .. } => outlook.used_up_at(self.restoring.returns()),
            // All of a calendar's window comes back at one instant.
            Rule::Fixed(_) => {
                let reset = self.next_restore().map(|at| (at, self.restoring.tokens()));
                outlook.used_up_at(reset.into_iter())
            }
            Rule::Bucket(_) => {
                let fills_in = self.memory().as_secs_f64();
                outlook.bucket_dry_at(self.capacity as f64 / fills_in)
            }
            Rule::InFlight => None,
        }
    }

    /// When a calendar forgets what others hold.
    fn starts_over(&self, now: Now, word: &Observation) -> Option<Mono> {
        let edge = self.next_edge(now.mono)?;
        let told = word.resets_at.filter(|reset| *reset > now.mono);
        Some(told.map_or(edge, |told| told.min(edge)))
    }

    fn restore_after(&mut self, now: Mono, completed_at: Mono, tokens: u64) {
        if tokens == 0 {
            return;
        }
        match &mut self.rule {
            Rule::Sliding { window } => {
                let at = completed_at.saturating_add(*window);
                self.restoring.push(at, NO_BOUNDARY, tokens);
            }
            Rule::Fixed(calendar) => {
                let boundary_ms = calendar.boundary_after(calendar.wall.latest(completed_at));
                let at = completed_at.saturating_add(calendar.longest());
                self.restoring.push(at, boundary_ms, tokens);
            }
            Rule::Bucket(refill) => refill.enqueue(completed_at, tokens, &mut self.restoring),
            Rule::InFlight => self.restoring.push(completed_at, NO_BOUNDARY, tokens),
        }
        self.truth.on_ended(now, tokens);
        self.spent.add(now, tokens);
        debug_assert!(self.is_conserved());
    }

    fn is_conserved(&self) -> bool {
        self.available + self.leased + signed(self.restoring.tokens()) == self.capacity
    }
}

impl Rule {
    fn window(&self, capacity: i64) -> Duration {
        match self {
            Self::Sliding { window } => *window,
            Self::Fixed(calendar) => calendar.longest(),
            Self::Bucket(refill) => refill.time_to_fill(capacity),
            Self::InFlight => Duration::ZERO,
        }
    }
}

/// `duration` by the slowest clock it may be measured with.
pub(super) fn stretched(duration: Duration) -> Duration {
    let nanos = duration.as_nanos();
    let extra = (nanos * CLOCK_ERROR_PPM).div_ceil(1_000_000);
    Duration::from_nanos(u64::try_from(nanos + extra).unwrap_or(u64::MAX))
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn signed_nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What is there of a count that may be below zero.
fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
