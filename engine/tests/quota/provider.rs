//! The provider: notes when each call arrives and counts every window by brute force.

use jiff::Timestamp;
use syncline_engine::quota::{Limit, Policy, Weights};

/// What arrived, in nanoseconds of the simulation's true time.
pub(crate) struct Provider {
    calls: Vec<Call>,
    /// Of each call: sent, ended, kind; for the number at one time.
    spans: Vec<(u64, u64, usize)>,
    /// The tags of each kind of call.
    kinds: Vec<Vec<&'static str>>,
    /// How much faster its clock runs than ours, in millionths.
    clock_ppm: i64,
    /// What its wall clock reads more than the true one, within the stated 1 s.
    wall_ahead_ms: i64,
}

/// One call as it was counted.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) at: u64,
    pub(crate) kind: usize,
    /// Another application's.
    pub(crate) other: bool,
}

impl Provider {
    pub(crate) fn new(kinds: Vec<Vec<&'static str>>, clock_ppm: i64, wall_ahead_ms: i64) -> Self {
        Self {
            calls: Vec::new(),
            spans: Vec::new(),
            kinds,
            clock_ppm,
            wall_ahead_ms,
        }
    }

    pub(crate) fn count(&mut self, at: u64, kind: usize) {
        let other = false;
        self.calls.push(Call { at, kind, other });
    }

    /// A call of another application.
    pub(crate) fn count_other(&mut self, at: u64) {
        let (kind, other) = (0, true);
        self.calls.push(Call { at, kind, other });
    }

    pub(crate) fn span(&mut self, sent: u64, ended: u64, kind: usize) {
        self.spans.push((sent, ended, kind));
    }

    /// Our own calls.
    pub(crate) fn calls(&self) -> usize {
        self.calls.iter().filter(|call| !call.other).count()
    }

    /// Our own calls of this kind.
    pub(crate) fn calls_of(&self, kind: usize) -> usize {
        let own = self.calls.iter().filter(|call| !call.other);
        own.filter(|call| call.kind == kind).count()
    }

    /// Our own arrivals in order, on the true clock.
    pub(crate) fn sorted(&self) -> Vec<u64> {
        let own = self.calls.iter().filter(|call| !call.other);
        let mut sorted: Vec<u64> = own.map(|call| call.at).collect();
        sorted.sort_unstable();
        sorted
    }

    /// Tokens that calls of this kind take of a limit.
    pub(crate) fn cost(&self, weights: &Weights, kind: usize) -> u32 {
        let has = |tag: &String| self.kinds[kind].contains(&tag.as_str());
        let counts = weights.only.is_empty() || weights.only.iter().any(has);
        if !counts || weights.except.iter().any(has) {
            return 0;
        }
        let costs = weights.costs.iter().filter(|(tag, _)| has(tag));
        costs.map(|(_, cost)| *cost).max().unwrap_or(1)
    }

    /// Panics with the first window that holds more than the limit allows.
    pub(crate) fn assert_kept(&self, limit: &Limit, wall_at_zero_ms: i64) {
        let found = self.violations(limit, wall_at_zero_ms);
        assert!(found.is_empty(), "{}: {}", limit.name, found[0].1);
    }

    /// Each call that some window of the limit has no room for: when, and in words.
    pub(crate) fn violations(&self, limit: &Limit, wall_at_zero_ms: i64) -> Vec<(u64, String)> {
        let counted = self.calls.iter().map(|call| {
            let tokens = u64::from(self.cost(&limit.weights, call.kind));
            (self.clock(call.at), tokens)
        });
        let mut counted: Vec<(u64, u64)> = counted.filter(|(_, tokens)| *tokens > 0).collect();
        counted.sort_unstable();
        match &limit.policy {
            Policy::Sliding { limit, window } => {
                over_sliding(&counted, u64::from(*limit), window.as_nanos() as u64)
            }
            Policy::Fixed {
                limit,
                window,
                zone,
            } => {
                let window = window.as_millis() as i64;
                let shift = wall_at_zero_ms + self.wall_ahead_ms;
                let index = |at: u64| {
                    let wall = (at / 1_000_000) as i64 + shift;
                    let instant = Timestamp::from_millisecond(wall).expect("in range");
                    let offset = zone.to_offset(instant).seconds();
                    (wall + i64::from(offset) * 1000).div_euclid(window)
                };
                let windows = counted.chunk_by(|a, b| index(a.0) == index(b.0));
                let sums =
                    windows.map(|w| (w[0].0, w.iter().map(|(_, tokens)| tokens).sum::<u64>()));
                sums.filter(|(_, sum)| *sum > u64::from(*limit))
                    .map(|(from, sum)| (from, format!("{sum} from {from} on")))
                    .collect()
            }
            Policy::TokenBucket {
                burst,
                refill,
                period,
            } => {
                // In units of 1 / (period in ns) tokens, exact.
                let token = period.as_nanos();
                let full = u128::from(*burst) * token;
                let (mut level, mut seen) = (full, 0);
                let mut over = Vec::new();
                for (at, tokens) in counted {
                    level = full.min(level + u128::from(at - seen) * u128::from(*refill));
                    seen = at;
                    match level.checked_sub(u128::from(tokens) * token) {
                        Some(left) => level = left,
                        None => over.push((at, format!("the bucket is dry at {at}"))),
                    }
                }
                over
            }
            Policy::Concurrency { limit: most } => {
                let tokens = |kind: usize| i64::from(self.cost(&limit.weights, kind));
                let starts = self.spans.iter().map(|&(at, _, kind)| (at, tokens(kind)));
                let ends = self.spans.iter().map(|&(_, at, kind)| (at, -tokens(kind)));
                let mut edges: Vec<_> = starts.chain(ends).collect();
                edges.sort_unstable();
                let mut at_once = 0;
                let sums = edges.into_iter().map(|(at, change)| {
                    at_once += change;
                    (at, at_once)
                });
                sums.filter(|(_, at_once)| *at_once > i64::from(*most))
                    .map(|(at, at_once)| (at, format!("{at_once} at once at {at}")))
                    .collect()
            }
        }
    }

    fn clock(&self, at: u64) -> u64 {
        (i128::from(at) * (1_000_000 + i128::from(self.clock_ppm)) / 1_000_000) as u64
    }
}

/// Closed windows: two calls exactly a window apart are both inside.
fn over_sliding(counted: &[(u64, u64)], limit: u64, window: u64) -> Vec<(u64, String)> {
    let mut over = Vec::new();
    let (mut first, mut sum) = (0, 0);
    for &(at, tokens) in counted {
        sum += tokens;
        while at - counted[first].0 > window {
            sum -= counted[first].1;
            first += 1;
        }
        if sum > limit {
            over.push((at, format!("{sum} in the window that ends at {at}")));
        }
    }
    over
}
