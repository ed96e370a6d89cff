//! One windowed limit: where its tokens are, and when a completed call's token comes back.

use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::limits::{Limit, Policy};
use super::restoring::{NO_BOUNDARY, Restoring};
use super::wall::WallBounds;
use crate::time::{Mono, Now, WallMs};

/// The Linux kernel slews a clock by at most 500 ppm; ours may be fast while the provider's is
/// slow: 1.0005 / 0.9995, rounded up.
const CLOCK_ERROR_PPM: u128 = 1001;

/// How far a provider's wall clock may be from ours at the edge of a fixed window; both are
/// taken to be kept by NTP. Windows so short that this matters come back as sliding ones.
const FIXED_EDGE_MS: i64 = 1000;

/// Tokens of one limit. Always available + leased + restoring = capacity.
#[derive(Debug)]
pub(super) struct Pool {
    name: Arc<str>,
    policy: Policy,
    capacity: i64,
    /// Below zero after a late report or a shrunken limit: nothing is lent until it is above.
    available: i64,
    leased: i64,
    restoring: Restoring,
    rule: Rule,
}

/// When the token of a completed call comes back.
#[derive(Debug)]
enum Rule {
    Sliding { window: Duration },
    Fixed(FixedEdges),
    Bucket(Refill),
}

/// Calendar-aligned windows on a wall clock that may step.
#[derive(Debug)]
struct FixedEdges {
    window: Duration,
    window_ms: i64,
    utc_offset_ms: i64,
    wall: WallBounds,
}

/// Tokens restore one after the other, each for 1/r from its completion or its turn.
#[derive(Debug)]
struct Refill {
    tokens_per_period: u128,
    period_ns: u128,
    /// When the last token in the queue is back, in ns times `tokens_per_period`: exact for
    /// any rate.
    queue_ends: u128,
}

/// Calls that an earlier run may have made.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpentBefore {
    /// When the provider had counted the last of them, in nanoseconds of this boot's clock;
    /// below zero when that was before the boot.
    pub(super) completed_ns: i64,
    pub(super) calls: u32,
    /// What both clocks read at one instant then, if it was in this boot.
    pub(super) clocks: Option<Now>,
}

/// Where the tokens of a limit are, at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitView {
    /// The limit's name.
    pub name: Arc<str>,
    /// Tokens in all.
    pub capacity: u32,
    /// Tokens that could be lent now; below zero while the provider may count more than we lent.
    pub available: i64,
    /// Tokens in leases: unspent, or spent by a call that has not ended.
    pub leased: u64,
    /// Tokens of ended calls that the provider still counts.
    pub restoring: u64,
    /// The share of the capacity that is not available, 0 to 1.
    pub used_ratio: f64,
    /// When the next token comes back, if calls have ended.
    pub next_restore: Option<Mono>,
}

impl Pool {
    /// A full pool, or `None` for a limit that is not windowed.
    pub(super) fn new(now: Now, limit: &Limit) -> Option<Self> {
        let (capacity, rule) = match limit.policy {
            Policy::Sliding { limit, window } => {
                let window = stretched(window);
                (limit, Rule::Sliding { window })
            }
            Policy::Fixed {
                limit,
                window,
                utc_offset_s,
            } => (
                limit,
                Rule::Fixed(FixedEdges::new(now, window, utc_offset_s)),
            ),
            Policy::TokenBucket {
                burst,
                refill,
                period,
            } => (burst, Rule::Bucket(Refill::new(refill, period))),
            Policy::Concurrency { .. } => return None,
        };
        let capacity_i64 = i64::from(capacity);
        Some(Self {
            name: limit.name.as_str().into(),
            policy: limit.policy,
            capacity: capacity_i64,
            available: capacity_i64,
            leased: 0,
            restoring: Restoring::new(rule.window(capacity_i64)),
            rule,
        })
    }

    /// Tokens into a lease.
    ///
    /// # Panics
    /// When more are taken than are available.
    pub(super) fn take(&mut self, tokens: u32) {
        let tokens = i64::from(tokens);
        assert!(tokens <= self.available, "lent more than the pool holds");
        self.available -= tokens;
        self.leased += tokens;
    }

    /// Tokens of a lease that no call has used.
    pub(super) fn put_back(&mut self, tokens: u32) {
        let tokens = i64::from(tokens);
        assert!(tokens <= self.leased, "more came back than was lent");
        self.leased -= tokens;
        self.available += tokens;
    }

    /// Tokens of a lease whose calls ended by `completed_at`.
    pub(super) fn complete(&mut self, completed_at: Mono, tokens: u32) {
        assert!(i64::from(tokens) <= self.leased, "more ended than was lent");
        self.leased -= i64::from(tokens);
        self.restore_after(completed_at, tokens);
    }

    /// Calls that no live lease paid for: a report after its lease was given up, or a new limit
    /// that finds calls under way.
    pub(super) fn charge(&mut self, completed_at: Mono, tokens: u32) {
        self.available -= i64::from(tokens);
        self.restore_after(completed_at, tokens);
    }

    /// Tokens of leases that were lent before this limit was there.
    pub(super) fn lease_before(&mut self, tokens: u64) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.available -= tokens;
        self.leased += tokens;
    }

    /// Takes back what has been restored by `now`; says whether that was anything.
    pub(super) fn observe(&mut self, now: Now) -> bool {
        let wall_low_ms = match &mut self.rule {
            Rule::Fixed(edges) => {
                edges.wall.observe(now);
                edges.wall.earliest(now.mono).0 - FIXED_EDGE_MS
            }
            _ => i64::MIN,
        };
        let back = self.restoring.pop_due(now.mono, wall_low_ms);
        self.available += signed(back);
        debug_assert!(self.is_conserved());
        back > 0
    }

    /// Starts over after a restart, with what may have been spent before it.
    pub(super) fn recover(&mut self, now: Now, spent: &[SpentBefore]) {
        if let Rule::Fixed(edges) = &mut self.rule {
            for then in spent.iter().filter_map(|spent| spent.clocks) {
                edges.wall.remember(then);
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
            calls,
            ..
        } in recent
        {
            let calls = i64::from(calls).min(room);
            room -= calls;
            self.available -= calls;
            let calls = unsigned(calls);
            match &mut self.rule {
                Rule::Bucket(refill) => {
                    // How long the queue already was is not known; at most one bucket, which
                    // has been restored since the oldest call looked at here.
                    let start = now.mono.saturating_add(ARRIVAL_GRACE);
                    refill.enqueue(start, calls, &mut self.restoring);
                }
                Rule::Sliding { .. } => {
                    let at = completed_ns.saturating_add(window_ns);
                    self.restoring.push(Mono(unsigned(at)), NO_BOUNDARY, calls);
                }
                Rule::Fixed(edges) => {
                    let at = completed_ns.saturating_add(window_ns);
                    let boundary_ms = edges.boundary_after(edges.wall.latest_at(completed_ns));
                    self.restoring.push(Mono(unsigned(at)), boundary_ms, calls);
                }
            }
        }
        debug_assert!(self.is_conserved());
    }

    /// The same limit with another size; `false` when `limit` counts in another way.
    pub(super) fn resize(&mut self, now: Now, limit: &Limit) -> bool {
        let Some(new) = Self::new(now, limit) else {
            return false;
        };
        let same_rule = match (&mut self.rule, new.rule) {
            (Rule::Sliding { window: old }, Rule::Sliding { window: new }) => *old == new,
            (Rule::Fixed(old), Rule::Fixed(new)) => old.is_aligned_with(&new),
            (Rule::Bucket(old), Rule::Bucket(mut new)) => {
                // What is on its way back restores at the new rate from now on.
                let waiting = self.restoring.tokens();
                self.restoring = new_restoring(&new, limit);
                new.enqueue(now.mono, waiting, &mut self.restoring);
                *old = new;
                true
            }
            _ => false,
        };
        if same_rule {
            self.available += new.capacity - self.capacity;
            self.capacity = new.capacity;
            self.policy = limit.policy;
        }
        debug_assert!(self.is_conserved());
        same_rule
    }

    pub(super) fn available(&self) -> u64 {
        unsigned(self.available)
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

    /// When a token next comes back without any further message.
    pub(super) fn next_restore(&self) -> Option<Mono> {
        let (slot, boundary_ms) = self.restoring.first()?;
        match &self.rule {
            Rule::Fixed(edges) => {
                let surely = WallMs(boundary_ms.saturating_add(FIXED_EDGE_MS));
                Some(slot.min(edges.wall.reaches(surely)))
            }
            _ => Some(slot),
        }
    }

    /// How long after its completion a call may still matter.
    pub(super) fn memory(&self) -> Duration {
        self.rule.window(self.capacity)
    }

    pub(super) fn view(&self) -> LimitView {
        let used = (self.capacity - self.available) as f64 / self.capacity as f64;
        LimitView {
            name: Arc::clone(&self.name),
            capacity: u32::try_from(self.capacity).unwrap_or(u32::MAX),
            available: self.available,
            leased: unsigned(self.leased),
            restoring: self.restoring.tokens(),
            used_ratio: used.clamp(0.0, 1.0),
            next_restore: self.next_restore(),
        }
    }

    fn restore_after(&mut self, completed_at: Mono, tokens: u32) {
        let tokens = u64::from(tokens);
        match &mut self.rule {
            Rule::Sliding { window } => {
                let at = completed_at.saturating_add(*window);
                self.restoring.push(at, NO_BOUNDARY, tokens);
            }
            Rule::Fixed(edges) => {
                let boundary_ms = edges.boundary_after(edges.wall.latest(completed_at));
                let at = completed_at.saturating_add(edges.window);
                self.restoring.push(at, boundary_ms, tokens);
            }
            Rule::Bucket(refill) => refill.enqueue(completed_at, tokens, &mut self.restoring),
        }
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
            Self::Fixed(edges) => edges.window,
            Self::Bucket(refill) => refill.time_to_fill(capacity),
        }
    }
}

impl FixedEdges {
    fn new(now: Now, window: Duration, utc_offset_s: i32) -> Self {
        Self {
            window: stretched(window),
            window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX).max(1),
            utc_offset_ms: i64::from(utc_offset_s) * 1000,
            wall: WallBounds::new(now, window),
        }
    }

    /// The first edge that the provider's clock passes after it may have read `wall`.
    fn boundary_after(&self, wall: WallMs) -> i64 {
        let local = wall.0.saturating_add(FIXED_EDGE_MS + self.utc_offset_ms);
        let windows = local.div_euclid(self.window_ms).saturating_add(1);
        windows
            .saturating_mul(self.window_ms)
            .saturating_sub(self.utc_offset_ms)
    }

    fn is_aligned_with(&self, other: &Self) -> bool {
        self.window_ms == other.window_ms && self.utc_offset_ms == other.utc_offset_ms
    }
}

impl Refill {
    fn new(tokens_per_period: u32, period: Duration) -> Self {
        Self {
            tokens_per_period: u128::from(tokens_per_period),
            period_ns: stretched(period).as_nanos(),
            queue_ends: 0,
        }
    }

    fn enqueue(&mut self, completed_at: Mono, tokens: u64, restoring: &mut Restoring) {
        let arrives = u128::from(completed_at.0) * self.tokens_per_period;
        self.queue_ends = self.queue_ends.max(arrives);
        for _ in 0..tokens {
            self.queue_ends += self.period_ns;
            let back = self.queue_ends.div_ceil(self.tokens_per_period);
            let back = Mono(u64::try_from(back).unwrap_or(u64::MAX));
            restoring.push(back, NO_BOUNDARY, 1);
        }
    }

    fn time_to_fill(&self, capacity: i64) -> Duration {
        let nanos =
            (u128::from(unsigned(capacity)) * self.period_ns).div_ceil(self.tokens_per_period);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn new_restoring(refill: &Refill, limit: &Limit) -> Restoring {
    let burst = match limit.policy {
        Policy::TokenBucket { burst, .. } => i64::from(burst),
        _ => 1,
    };
    Restoring::new(refill.time_to_fill(burst))
}

/// `duration` by the slowest clock it may be measured with.
fn stretched(duration: Duration) -> Duration {
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
