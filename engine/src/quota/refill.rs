//! Tokens of a bucket restore one after the other.

use std::time::Duration;

use super::limit::Policy;
use super::pool::stretched;
use super::restoring::{NO_BOUNDARY, Restoring};
use crate::time::Mono;

/// Each token restores for 1/r from the end of its call, or from its turn on.
#[derive(Debug)]
pub(super) struct Refill {
    tokens_per_period: u128,
    period_ns: u128,
    /// When the last token in the queue is back, in ns times `tokens_per_period`: exact for
    /// any rate.
    queue_ends: u128,
}

impl Refill {
    pub(super) fn new(tokens_per_period: u32, period: Duration) -> Self {
        Self {
            tokens_per_period: u128::from(tokens_per_period),
            period_ns: stretched(period).as_nanos(),
            queue_ends: 0,
        }
    }

    pub(super) fn enqueue(&mut self, completed_at: Mono, tokens: u64, restoring: &mut Restoring) {
        let arrives = u128::from(completed_at.0) * self.tokens_per_period;
        self.queue_ends = self.queue_ends.max(arrives);
        for _ in 0..tokens {
            self.queue_ends += self.period_ns;
            let back = self.queue_ends.div_ceil(self.tokens_per_period);
            let back = Mono(u64::try_from(back).unwrap_or(u64::MAX));
            restoring.push(back, NO_BOUNDARY, 1);
        }
    }

    pub(super) fn time_to_fill(&self, capacity: i64) -> Duration {
        let tokens = u128::from(u64::try_from(capacity).unwrap_or(0));
        let nanos = (tokens * self.period_ns).div_ceil(self.tokens_per_period);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// An empty queue with slots fine enough for this bucket.
    pub(super) fn queue(&self, policy: &Policy) -> Restoring {
        Restoring::new(self.time_to_fill(i64::from(policy.capacity())))
    }
}
