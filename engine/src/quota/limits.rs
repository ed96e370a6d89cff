//! The limits of an account as plain data, and what is refused in them.

use std::time::Duration;

/// Everything the coordinator must know about one provider account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLimits {
    /// The account's name in the configuration.
    pub name: String,
    /// All of them hold at once; none: calls need no permits.
    pub limits: Vec<Limit>,
    /// Calls in flight over all shards, at least 1.
    pub max_in_flight: u32,
    /// The longest time from the first byte sent to the end of a call.
    pub call_timeout: Duration,
    /// When the account is held, and for how long.
    pub hold: HoldSettings,
}

/// One limit by the name under which it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Unique within the account.
    pub name: String,
    /// What is counted and when it is forgotten.
    pub policy: Policy,
}

/// What a limit counts and when a token comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// At most `limit` calls in any interval of length `window`: sliding and rolling windows.
    Sliding {
        /// Calls, at least 1.
        limit: u32,
        /// At least a millisecond.
        window: Duration,
    },
    /// At most `limit` calls in each calendar-aligned window.
    Fixed {
        /// Calls, at least 1.
        limit: u32,
        /// At least a second.
        window: Duration,
        /// East of UTC; windows start at multiples of `window` of that local time.
        utc_offset_s: i32,
    },
    /// A bucket of `burst` tokens, refilled with `refill` per `period`, one after the other.
    TokenBucket {
        /// Capacity, at least 1.
        burst: u32,
        /// Tokens per `period`, at least 1.
        refill: u32,
        /// At least a millisecond.
        period: Duration,
    },
    /// At most `limit` calls at the provider at one time.
    Concurrency {
        /// Calls, at least 1.
        limit: u32,
    },
}

/// How failures hold an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// Failures in a row, over all shards, that hold the account.
    pub failure_threshold: u32,
    /// Upper end of the first hold; doubles with each failed probe.
    pub open_for: Duration,
    /// What the doubling stops at.
    pub open_for_max: Duration,
    /// Upper end of the first pause when a 429 names no time; doubles while they follow.
    pub throttle_base: Duration,
    /// What that doubling stops at.
    pub throttle_max: Duration,
}

/// Why an account's limits are refused. Nothing has changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitsError {
    /// A limit, burst, refill or `max_in_flight` of zero would never let a call go.
    #[error("account {account}: {what} must be at least 1")]
    Zero {
        /// The account's name.
        account: String,
        /// Which value.
        what: String,
    },
    /// Shorter than the clock work behind it can keep, or longer than it can count.
    #[error("account {account}: window of {what} must be between {min:?} and {max:?}")]
    Window {
        /// The account's name.
        account: String,
        /// The limit's name.
        what: String,
        /// The shortest accepted.
        min: Duration,
        /// The longest accepted.
        max: Duration,
    },
    /// Two limits of one account, or two accounts, share a name.
    #[error("account {account}: {what} is named twice")]
    Duplicate {
        /// The account's name.
        account: String,
        /// The name in question.
        what: String,
    },
}

/// A month and a bit: the longest quota period a provider is known to use.
const WINDOW_MAX: Duration = Duration::from_secs(32 * 86_400);
/// Slots of a thousandth stay a microsecond or more.
const WINDOW_MIN: Duration = Duration::from_millis(1);
/// Below a second the wall clocks of two machines do not agree on the window's edges.
const FIXED_WINDOW_MIN: Duration = Duration::from_secs(1);

impl AccountLimits {
    /// An account of that name without limits: 32 in flight, 30 s timeout, default holds.
    pub fn unlimited(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            limits: Vec::new(),
            max_in_flight: 32,
            call_timeout: Duration::from_secs(30),
            hold: HoldSettings::default(),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value out of range, by name.
    pub fn validate(&self) -> Result<(), LimitsError> {
        if self.max_in_flight == 0 {
            return Err(self.zero("max_in_flight"));
        }
        for (index, limit) in self.limits.iter().enumerate() {
            if self.limits[..index].iter().any(|l| l.name == limit.name) {
                return Err(LimitsError::Duplicate {
                    account: self.name.clone(),
                    what: limit.name.clone(),
                });
            }
            let (least, window, min) = match limit.policy {
                Policy::Sliding { limit, window } => (limit, window, WINDOW_MIN),
                Policy::Fixed { limit, window, .. } => (limit, window, FIXED_WINDOW_MIN),
                Policy::TokenBucket {
                    burst,
                    refill,
                    period,
                } => (burst.min(refill), period, WINDOW_MIN),
                Policy::Concurrency { limit } => (limit, WINDOW_MIN, WINDOW_MIN),
            };
            if least == 0 {
                return Err(self.zero(&limit.name));
            }
            if window < min || window > WINDOW_MAX {
                return Err(LimitsError::Window {
                    account: self.name.clone(),
                    what: limit.name.clone(),
                    min,
                    max: WINDOW_MAX,
                });
            }
        }
        Ok(())
    }

    /// Calls in flight that both `max_in_flight` and every concurrency limit allow.
    pub(crate) fn slots(&self) -> u32 {
        let concurrency = self.limits.iter().filter_map(|limit| match limit.policy {
            Policy::Concurrency { limit } => Some(limit),
            _ => None,
        });
        concurrency.fold(self.max_in_flight, u32::min)
    }

    fn zero(&self, what: &str) -> LimitsError {
        LimitsError::Zero {
            account: self.name.clone(),
            what: what.to_owned(),
        }
    }
}

impl Limit {
    /// `rate_limit` R with `burst_limit` B: at most R in any 60 s, and a bucket of B refilled
    /// at R/60 a second.
    pub fn rate_and_burst(rate_per_minute: u32, burst: u32) -> [Self; 2] {
        let minute = Duration::from_secs(60);
        [
            Self {
                name: "rate_limit".to_owned(),
                policy: Policy::Sliding {
                    limit: rate_per_minute,
                    window: minute,
                },
            },
            Self {
                name: "burst_limit".to_owned(),
                policy: Policy::TokenBucket {
                    burst,
                    refill: rate_per_minute,
                    period: minute,
                },
            },
        ]
    }
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            open_for: Duration::from_secs(30),
            // Half an order above the base: an account is asked at least every five minutes.
            open_for_max: Duration::from_secs(300),
            throttle_base: Duration::from_secs(1),
            throttle_max: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(policy: Policy) -> AccountLimits {
        let mut account = AccountLimits::unlimited("a");
        account.limits.push(Limit {
            name: "l".to_owned(),
            policy,
        });
        account
    }

    #[test]
    fn a_limit_that_never_lets_a_call_go_is_refused() {
        let second = Duration::from_secs(1);
        let zero = with(Policy::Sliding {
            limit: 0,
            window: second,
        });
        assert!(matches!(zero.validate(), Err(LimitsError::Zero { .. })));
        let dry = with(Policy::TokenBucket {
            burst: 5,
            refill: 0,
            period: second,
        });
        assert!(matches!(dry.validate(), Err(LimitsError::Zero { .. })));
        let mut none = AccountLimits::unlimited("a");
        none.max_in_flight = 0;
        assert!(matches!(none.validate(), Err(LimitsError::Zero { .. })));
    }

    #[test]
    fn windows_too_short_or_too_long_to_count_are_refused() {
        for window in [
            Duration::ZERO,
            Duration::from_micros(999),
            Duration::from_secs(40 * 86_400),
        ] {
            let account = with(Policy::Sliding { limit: 1, window });
            assert!(matches!(
                account.validate(),
                Err(LimitsError::Window { .. })
            ));
        }
        let account = with(Policy::Fixed {
            limit: 1,
            window: Duration::from_millis(500),
            utc_offset_s: 0,
        });
        assert!(matches!(
            account.validate(),
            Err(LimitsError::Window { .. })
        ));
    }

    #[test]
    fn the_tightest_concurrency_bounds_the_slots() {
        let mut account = with(Policy::Concurrency { limit: 7 });
        assert_eq!(account.slots(), 7);
        account.max_in_flight = 3;
        assert_eq!(account.slots(), 3);
    }
}
