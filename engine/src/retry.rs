//! When a failed attempt may be made again.

use std::time::Duration;

/// How an account's operations are retried. PRODUCT section 7 has the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts that count before an operation is given up, at least 1.
    pub max_attempts: u16,
    /// Time from the first attempt after which it is given up.
    pub max_age: Duration,
    /// Ceiling of the first delay.
    pub base_delay: Duration,
    /// Ceiling of every delay.
    pub max_delay: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 12,
            max_age: Duration::from_secs(24 * 3600),
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }
}

impl RetryPolicy {
    /// The delay after `burnt` counted attempts: full jitter, which is uniform between
    /// nothing and the ceiling, so that a crowd that failed together does not return together.
    #[must_use]
    pub fn delay(&self, burnt: u16, dice: &mut Dice) -> Duration {
        let doublings = u32::from(burnt.saturating_sub(1)).min(32);
        let ceiling = self
            .base_delay
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(self.max_delay);
        Duration::from_millis(dice.below(ceiling.as_millis() as u64 + 1))
    }

    /// Whether an operation with this history is given up.
    #[must_use]
    pub fn is_spent(&self, burnt: u16, first_attempt_ms: i64, now_ms: i64) -> bool {
        let age_ms = now_ms
            .saturating_sub(first_attempt_ms)
            .max(0)
            .unsigned_abs();
        burnt >= self.max_attempts
            || (first_attempt_ms > 0 && u128::from(age_ms) >= self.max_age.as_millis())
    }
}

/// The one source of randomness of a shard: SplitMix64 from a seed that comes in.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(bound)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_below_a_ceiling_that_doubles_up_to_the_maximum() {
        let policy = RetryPolicy::default();
        let mut dice = Dice::seeded(1);
        for (burnt, ceiling_ms) in [
            (0, 1000),
            (1, 1000),
            (2, 2000),
            (4, 8000),
            (7, 60_000),
            (u16::MAX, 60_000),
        ] {
            let longest = (0..2000)
                .map(|_| policy.delay(burnt, &mut dice).as_millis())
                .max()
                .unwrap();
            assert!(
                longest <= ceiling_ms && longest > ceiling_ms * 9 / 10,
                "{burnt}: {longest}"
            );
        }
    }

    #[test]
    fn an_operation_is_given_up_by_count_or_by_age() {
        let policy = RetryPolicy {
            max_attempts: 3,
            max_age: Duration::from_secs(10),
            ..RetryPolicy::default()
        };
        assert!(!policy.is_spent(2, 1000, 2000));
        assert!(policy.is_spent(3, 1000, 2000));
        assert!(policy.is_spent(1, 1000, 11_000));
        assert!(!policy.is_spent(0, 0, i64::MAX), "nothing was tried yet");
        assert!(!policy.is_spent(1, 5000, 0), "the wall clock stepped back");
    }
}
