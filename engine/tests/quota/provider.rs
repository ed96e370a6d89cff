//! The provider: notes when each call arrives and counts every window by brute force.

use syncline_engine::quota::Policy;

/// What arrived, in nanoseconds of the simulation's true time.
pub(crate) struct Provider {
    arrivals: Vec<u64>,
    /// (sent, ended) of each call, for the number at one time.
    spans: Vec<(u64, u64)>,
    /// How much faster its clock runs than ours, in millionths.
    clock_ppm: i64,
    /// What its wall clock reads more than the true one, within the stated 1 s.
    wall_ahead_ms: i64,
}

impl Provider {
    pub(crate) fn new(clock_ppm: i64, wall_ahead_ms: i64) -> Self {
        Self {
            arrivals: Vec::new(),
            spans: Vec::new(),
            clock_ppm,
            wall_ahead_ms,
        }
    }

    pub(crate) fn count(&mut self, arrived: u64) {
        self.arrivals.push(arrived);
    }

    pub(crate) fn span(&mut self, sent: u64, ended: u64) {
        self.spans.push((sent, ended));
    }

    pub(crate) fn calls(&self) -> usize {
        self.arrivals.len()
    }

    /// Arrivals in order, on the true clock.
    pub(crate) fn sorted(&self) -> Vec<u64> {
        let mut sorted = self.arrivals.clone();
        sorted.sort_unstable();
        sorted
    }

    /// Panics with the first window that holds more calls than the limit allows.
    pub(crate) fn assert_kept(&self, policy: Policy, wall_at_zero_ms: i64) {
        let arrivals: Vec<u64> = self.sorted().into_iter().map(|at| self.clock(at)).collect();
        match policy {
            Policy::Sliding { limit, window } => {
                let window = window.as_nanos() as u64;
                // Closed windows: two calls exactly a window apart are both inside.
                for (first, last) in arrivals.iter().zip(arrivals.iter().skip(limit as usize)) {
                    let span = last - first;
                    assert!(span > window, "{} calls in {span} ns at {first}", limit + 1);
                }
            }
            Policy::Fixed {
                limit,
                window,
                utc_offset_s,
            } => {
                let window = window.as_millis() as i64;
                let shift = wall_at_zero_ms + self.wall_ahead_ms + i64::from(utc_offset_s) * 1000;
                let index = |at: &u64| ((at / 1_000_000) as i64 + shift).div_euclid(window);
                for calls in arrivals.chunk_by(|a, b| index(a) == index(b)) {
                    let count = calls.len();
                    assert!(
                        count <= limit as usize,
                        "{count} calls from {} on",
                        calls[0]
                    );
                }
            }
            Policy::TokenBucket {
                burst,
                refill,
                period,
            } => {
                // In units of 1 / (period in ns) tokens, exact.
                let full = u128::from(burst) * period.as_nanos();
                let (mut level, mut seen) = (full, 0);
                for at in arrivals {
                    level = full.min(level + u128::from(at - seen) * u128::from(refill));
                    seen = at;
                    let left = level.checked_sub(period.as_nanos());
                    level = left.unwrap_or_else(|| panic!("the bucket is dry at {at}"));
                }
            }
            Policy::Concurrency { limit } => {
                let starts = self.spans.iter().map(|span| (span.0, 1_i64));
                let ends = self.spans.iter().map(|span| (span.1, -1_i64));
                let mut edges: Vec<_> = starts.chain(ends).collect();
                edges.sort_unstable();
                let mut at_once = 0;
                for (at, change) in edges {
                    at_once += change;
                    assert!(at_once <= i64::from(limit), "{at_once} calls at {at}");
                }
            }
        }
    }

    fn clock(&self, at: u64) -> u64 {
        (i128::from(at) * (1_000_000 + i128::from(self.clock_ppm)) / 1_000_000) as u64
    }
}
