//! One limit with what it has counted.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{CallClass, Gauge, Limit, Shape};
use crate::account::CallId;

/// One limit with the arrivals that its window holds, oldest first, each with its cost; their sum
/// is never more than the limit's count, except just after the limit was lowered.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) limit: Limit,
    admitted: VecDeque<(Duration, u32)>,
    /// The sum of their costs: a daily window holds too many to add up on each call.
    used: u64,
    pub(super) violations: u64,
}

/// When each open call arrived, and as what.
pub(super) type OpenCalls = BTreeMap<CallId, (Duration, CallClass)>;

/// How long a caller over a limit of open calls is told to wait: nobody knows when one ends.
const OPEN_WAIT: Duration = Duration::from_secs(1);

impl Counter {
    pub(super) fn new(limit: Limit) -> Self {
        Self {
            limit,
            admitted: VecDeque::new(),
            used: 0,
            violations: 0,
        }
    }

    /// Takes over what another counter has counted.
    pub(super) fn inherit(&mut self, before: Self) {
        self.admitted = before.admitted;
        self.used = before.used;
        self.violations = before.violations;
    }

    pub(super) fn counts_open(&self) -> bool {
        matches!(self.limit.shape, Shape::Open(_))
    }

    fn weigh(&self, cost: u32) -> u32 {
        if self.limit.weighed { cost } else { 1 }
    }

    pub(super) fn count(&mut self, now: Duration, epoch: Duration, cost: u32) {
        if self.counts_open() {
            return;
        }
        self.forget_before(now, epoch);
        let cost = self.weigh(cost);
        self.used += u64::from(cost);
        self.admitted.push_back((now, cost));
    }

    /// How long the limit takes no call of this cost; `None` when it has room.
    pub(super) fn full_for(
        &mut self,
        now: Duration,
        epoch: Duration,
        cost: u32,
        open: &OpenCalls,
    ) -> Option<Duration> {
        if self.counts_open() {
            return (self.count_open(now, open) >= self.limit.count).then_some(OPEN_WAIT);
        }
        self.forget_before(now, epoch);
        let mut used = self.used + u64::from(self.weigh(cost));
        let count = u64::from(self.limit.count);
        if used <= count {
            return None;
        }
        let (Shape::Sliding(window) | Shape::Fixed(window) | Shape::Open(window)) =
            self.limit.shape;
        if matches!(self.limit.shape, Shape::Fixed(_)) {
            return Some(ends_in(now, epoch, window));
        }
        let last_to_leave = self.admitted.iter().find(|(_, cost)| {
            used -= u64::from(*cost);
            used <= count
        });
        let leaves_at = last_to_leave.map_or(now, |(at, _)| *at) + window;
        Some(leaves_at.saturating_sub(now))
    }

    pub(super) fn gauge(&self, now: Duration, epoch: Duration, open: &OpenCalls) -> Gauge {
        let limit = self.limit.count;
        let of = |used: u64, resets_in| Gauge {
            limit,
            used: u32::try_from(used).unwrap_or(u32::MAX),
            resets_in,
        };
        if self.counts_open() {
            return of(u64::from(self.count_open(now, open)), OPEN_WAIT);
        }
        let mut arrivals = self.admitted.iter().peekable();
        let mut used = self.used;
        while let Some((_, cost)) = arrivals.next_if(|(at, _)| !self.holds(*at, now, epoch)) {
            used -= u64::from(*cost);
        }
        let resets_in = match self.limit.shape {
            Shape::Fixed(window) => ends_in(now, epoch, window),
            Shape::Sliding(window) | Shape::Open(window) => {
                let leaves_at = arrivals.peek().map_or(now, |(at, _)| *at + window);
                leaves_at.saturating_sub(now)
            }
        };
        of(used, resets_in)
    }

    fn count_open(&self, now: Duration, open: &OpenCalls) -> u32 {
        let Shape::Open(open_for) = self.limit.shape else {
            return 0;
        };
        let counted = open
            .values()
            .filter(|(at, class)| self.limit.counts(*class) && now.saturating_sub(*at) >= open_for);
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    /// Whether a window that ends now holds an arrival. It is half open, so a call exactly one
    /// window after another is not counted with it.
    fn holds(&self, at: Duration, now: Duration, epoch: Duration) -> bool {
        match self.limit.shape {
            Shape::Sliding(window) => at + window > now,
            Shape::Fixed(window) => window_of(at, epoch, window) == window_of(now, epoch, window),
            Shape::Open(_) => false,
        }
    }

    fn forget_before(&mut self, now: Duration, epoch: Duration) {
        while let Some(&(at, cost)) = self.admitted.front()
            && !self.holds(at, now, epoch)
        {
            self.admitted.pop_front();
            self.used -= u64::from(cost);
        }
    }
}

/// Which fixed window an instant lies in.
fn window_of(at: Duration, epoch: Duration, window: Duration) -> u128 {
    (epoch + at).as_nanos() / window.as_nanos()
}

fn ends_in(now: Duration, epoch: Duration, window: Duration) -> Duration {
    let into = (epoch + now).as_nanos() % window.as_nanos();
    let left = window.as_nanos() - into;
    Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX))
}
