//! The limits of an account as plain data, and what is refused in them.

use std::time::Duration;

use super::classes::{CostClasses, TAGS_MAX};
use super::limit::{Limit, Policy};

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

/// How failures hold an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldSettings {
    /// Failures in a row, over all shards, that hold the account.
    pub failure_threshold: u32,
    /// How long it is held before one call probes it, and again after each failed probe; up to
    /// a tenth longer.
    pub open_for: Duration,
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
    /// A call that the limit, less what is kept back of it, never has the tokens for.
    #[error("account {account}: limit {limit} never has the {tokens} tokens that a call takes")]
    TooDear {
        /// The account's name.
        account: String,
        /// The limit's name.
        limit: String,
        /// What the dearest call takes of it.
        tokens: u32,
    },
    /// More kinds of calls than are told apart.
    #[error(
        "account {account}: its limits name {tags} tags besides the kinds of calls, {TAGS_MAX} at most"
    )]
    TooManyTags {
        /// The account's name.
        account: String,
        /// How many they name.
        tags: usize,
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
            let (least, window, min) = match &limit.policy {
                Policy::Sliding { limit, window } => (*limit, *window, WINDOW_MIN),
                Policy::Fixed { limit, window, .. } => (*limit, *window, FIXED_WINDOW_MIN),
                Policy::TokenBucket {
                    burst,
                    refill,
                    period,
                } => ((*burst).min(*refill), *period, WINDOW_MIN),
                Policy::Concurrency { limit } => (*limit, WINDOW_MIN, WINDOW_MIN),
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
        self.validate_calls()
    }

    /// Calls in flight that both `max_in_flight` and every concurrency limit allow.
    pub(crate) fn slots(&self) -> u32 {
        let concurrency = self.limits.iter().filter_map(|limit| match limit.policy {
            Policy::Concurrency { limit: calls } if !limit.is_pooled() => Some(calls),
            _ => None,
        });
        concurrency.fold(self.max_in_flight, u32::min)
    }

    /// Whether every kind of call can be told apart and can ever go.
    fn validate_calls(&self) -> Result<(), LimitsError> {
        let tags = CostClasses::tags(&self.limits).len();
        if tags > TAGS_MAX {
            return Err(LimitsError::TooManyTags {
                account: self.name.clone(),
                tags,
            });
        }
        let classes = CostClasses::compile(&self.limits);
        let pooled = self.limits.iter().filter(|limit| limit.is_pooled());
        for (limit, &tokens) in pooled.zip(classes.dearest().iter()) {
            let capacity = limit.policy.capacity();
            // What is kept for polls never takes the last of it.
            let reserve = limit.reserve;
            let kept = reserve
                .others(capacity)
                .saturating_add(reserve.urgent(capacity));
            if tokens > capacity.saturating_sub(kept) {
                return Err(LimitsError::TooDear {
                    account: self.name.clone(),
                    limit: limit.name.clone(),
                    tokens,
                });
            }
        }
        Ok(())
    }

    fn zero(&self, what: &str) -> LimitsError {
        LimitsError::Zero {
            account: self.name.clone(),
            what: what.to_owned(),
        }
    }
}

impl Default for HoldSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            open_for: Duration::from_secs(30),
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
        account.limits.push(Limit::new("l", policy));
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
            zone: jiff::tz::TimeZone::UTC,
        });
        assert!(matches!(
            account.validate(),
            Err(LimitsError::Window { .. })
        ));
    }

    #[test]
    fn a_call_that_never_has_its_tokens_is_refused() {
        let second = Duration::from_secs(1);
        let mut account = with(Policy::Sliding {
            limit: 40,
            window: second,
        });
        account.limits[0]
            .weights
            .costs
            .insert("search".to_owned(), 40);
        assert_eq!(account.validate(), Ok(()));
        account.limits[0].reserve.others_permille = 1;
        assert!(matches!(
            account.validate(),
            Err(LimitsError::TooDear { tokens: 40, .. })
        ));
    }

    #[test]
    fn more_tags_than_are_told_apart_are_refused() {
        let mut account = with(Policy::Concurrency { limit: 9 });
        let tags = (0..=TAGS_MAX).map(|tag| format!("tag{tag}"));
        account.limits[0].weights.only = tags.collect();
        assert!(matches!(
            account.validate(),
            Err(LimitsError::TooManyTags { .. })
        ));
        account.limits[0].weights.only.pop();
        account.limits[0].weights.except = vec!["lookup".to_owned()];
        assert_eq!(account.validate(), Ok(()), "a kind of call is no tag");
    }

    #[test]
    fn the_tightest_concurrency_bounds_the_slots() {
        let mut account = with(Policy::Concurrency { limit: 7 });
        assert_eq!(account.slots(), 7);
        account.max_in_flight = 3;
        assert_eq!(account.slots(), 3);
    }
}
