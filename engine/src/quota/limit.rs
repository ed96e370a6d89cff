//! One limit of an account as plain data: what it counts, for how much, and when it forgets.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::classes::POLL_TAG;

/// One limit by the name under which it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// Unique within the account.
    pub name: String,
    /// What is counted and when it is forgotten.
    pub policy: Policy,
    /// Which calls it counts, and for how many tokens each.
    pub weights: Weights,
    /// What of it is kept back.
    pub reserve: Reserve,
}

/// How a limit counts and when a token comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// At most `limit` tokens in any interval of length `window`: sliding and rolling windows.
    Sliding {
        /// Tokens, at least 1.
        limit: u32,
        /// At least a millisecond.
        window: Duration,
    },
    /// At most `limit` tokens in each calendar-aligned window.
    Fixed {
        /// Tokens, at least 1.
        limit: u32,
        /// At least a second. Windows start at its multiples of the zone's local time: one of
        /// a day, or of a part of a day that divides it, at midnight.
        window: Duration,
        /// Whose local time.
        zone: TimeZone,
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
    /// At most `limit` tokens of calls at the provider at one time.
    Concurrency {
        /// Tokens, at least 1.
        limit: u32,
    },
}

/// What a call counts for, by its tags: the word of its kind (`lookup`), those that its
/// definition gives it (`search`), and what else the caller says of it (`object:Contact`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weights {
    /// Only calls with one of these tags count; empty: all do.
    pub only: Vec<String>,
    /// Calls with one of these do not count.
    pub except: Vec<String>,
    /// Tokens that a call with this tag takes. The dearest of its tags rules; a call with none
    /// of them takes one.
    pub costs: BTreeMap<String, u32>,
}

/// Tokens of a limit that are not lent to every call, in thousandths of the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reserve {
    /// For other applications that spend from the same limit. What they are seen to spend is
    /// taken from it first.
    pub others_permille: u16,
    /// For operations of priority [`URGENT_PRIORITY_MAX`](super::URGENT_PRIORITY_MAX) or better.
    pub urgent_permille: u16,
    /// For calls with [`POLL_TAG`](super::POLL_TAG). What such calls hold is part of it.
    pub polls_permille: u16,
}

impl Limit {
    /// A limit that counts every call as one.
    pub fn new(name: impl Into<String>, policy: Policy) -> Self {
        Self {
            name: name.into(),
            policy,
            weights: Weights::default(),
            reserve: Reserve::default(),
        }
    }

    /// `rate_limit` R with `burst_limit` B: at most R in any 60 s, and a bucket of B refilled
    /// at R/60 a second.
    pub fn rate_and_burst(rate_per_minute: u32, burst: u32) -> [Self; 2] {
        let minute = Duration::from_secs(60);
        [
            Self::new(
                "rate_limit",
                Policy::Sliding {
                    limit: rate_per_minute,
                    window: minute,
                },
            ),
            Self::new(
                "burst_limit",
                Policy::TokenBucket {
                    burst,
                    refill: rate_per_minute,
                    period: minute,
                },
            ),
        ]
    }

    /// Every tag by which it tells calls apart.
    pub(super) fn tags(&self) -> impl Iterator<Item = &str> {
        let keeps = self.reserve.polls_permille > 0 && self.is_pooled();
        self.weights.tags().chain(keeps.then_some(POLL_TAG))
    }

    /// Calls need a token of it. A concurrency limit over all calls is kept by slots instead.
    pub(super) fn is_pooled(&self) -> bool {
        !matches!(self.policy, Policy::Concurrency { .. }) || self.weights != Weights::default()
    }
}

impl Policy {
    /// Tokens in all.
    pub(super) fn capacity(&self) -> u32 {
        match *self {
            Self::Sliding { limit, .. } | Self::Fixed { limit, .. } => limit,
            Self::TokenBucket { burst, .. } => burst,
            Self::Concurrency { limit } => limit,
        }
    }

    /// The time in which its capacity comes back, as it is configured; zero for concurrency.
    pub(super) fn window(&self) -> Duration {
        match *self {
            Self::Sliding { window, .. } | Self::Fixed { window, .. } => window,
            Self::TokenBucket {
                burst,
                refill,
                period,
            } => period.saturating_mul(burst) / refill.max(1),
            Self::Concurrency { .. } => Duration::ZERO,
        }
    }
}

impl Weights {
    /// Tokens of a call for which `has` says which tags it has.
    pub(super) fn cost(&self, has: impl Fn(&str) -> bool) -> u32 {
        let counts = self.only.is_empty() || self.only.iter().any(|tag| has(tag));
        if !counts || self.except.iter().any(|tag| has(tag)) {
            return 0;
        }
        let costs = self.costs.iter().filter(|(tag, _)| has(tag));
        costs.map(|(_, cost)| *cost).max().unwrap_or(1)
    }

    /// Every tag that matters here.
    pub(super) fn tags(&self) -> impl Iterator<Item = &str> {
        let named = self.only.iter().chain(&self.except);
        named
            .map(String::as_str)
            .chain(self.costs.keys().map(String::as_str))
    }
}

impl Reserve {
    /// Tokens kept for other applications, of a limit of `capacity`; rounded up.
    pub(super) fn others(self, capacity: u32) -> u32 {
        share(self.others_permille, capacity)
    }

    /// Tokens kept for urgent operations; rounded up.
    pub(super) fn urgent(self, capacity: u32) -> u32 {
        share(self.urgent_permille, capacity)
    }

    /// Tokens kept for polls; rounded up.
    pub(super) fn polls(self, capacity: u32) -> u32 {
        share(self.polls_permille, capacity)
    }
}

fn share(permille: u16, capacity: u32) -> u32 {
    let tokens = (u64::from(capacity) * u64::from(permille)).div_ceil(1000);
    u32::try_from(tokens).unwrap_or(u32::MAX).min(capacity)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(weights: &Weights, tags: &[&str], expected: u32) {
        assert_eq!(
            weights.cost(|tag| tags.contains(&tag)),
            expected,
            "{tags:?}"
        );
    }

    #[test]
    fn the_dearest_tag_of_a_call_rules_and_a_call_without_takes_one() {
        let costs = [("search", 40), ("lookup", 2), ("ping", 0)];
        let weights = Weights {
            costs: costs.map(|(tag, cost)| (tag.to_owned(), cost)).into(),
            ..Weights::default()
        };
        check(&weights, &[], 1);
        check(&weights, &["update", "object:Contact"], 1);
        check(&weights, &["lookup"], 2);
        check(&weights, &["lookup", "search"], 40);
        check(&weights, &["ping"], 0);
    }

    #[test]
    fn a_limit_counts_only_the_calls_it_is_for() {
        let search = Weights {
            only: vec!["search".to_owned()],
            ..Weights::default()
        };
        check(&search, &["lookup", "search"], 1);
        check(&search, &["lookup"], 0);
        let rest = Weights {
            except: vec!["search".to_owned()],
            ..Weights::default()
        };
        check(&rest, &["lookup", "search"], 0);
        check(&rest, &["lookup"], 1);
    }

    #[test]
    fn a_reserve_is_rounded_up_and_never_more_than_there_is() {
        let reserve = Reserve {
            others_permille: 100,
            urgent_permille: 1,
            polls_permille: 999,
        };
        let kept = (reserve.others(5), reserve.urgent(5), reserve.polls(5));
        assert_eq!(kept, (1, 1, 5));
        assert_eq!(reserve.others(250_000), 25_000);
        assert_eq!(reserve.others(u32::MAX), u32::MAX / 10 + 1);
    }
}
