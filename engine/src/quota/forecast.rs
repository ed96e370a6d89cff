//! When a limit is used up and a backlog drained, if all goes on as it does.

use std::time::Duration;

use crate::time::Mono;

/// Tokens of a pool and how fast they go.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    pub(super) now: Mono,
    /// Tokens that could be lent now.
    pub(super) lendable: u64,
    /// Tokens spent a second.
    pub(super) spent_per_s: f64,
}

impl Outlook {
    /// When nothing is left of a window, given what comes back and when, in order; `None` when
    /// more comes back by then. Behind the last return the window repeats itself.
    pub(super) fn used_up_at(self, returns: impl Iterator<Item = (Mono, u64)>) -> Option<Mono> {
        let mut left = self.lendable as f64;
        let mut reached = self.now;
        for (at, tokens) in returns {
            if let Some(dry) = dry_at(reached, left, self.spent_per_s).filter(|dry| *dry < at) {
                return Some(dry);
            }
            left -= at.saturating_since(reached).as_secs_f64() * self.spent_per_s;
            left += tokens as f64;
            reached = reached.max(at);
        }
        None
    }

    /// The same for a bucket that fills at a steady rate.
    pub(super) fn bucket_dry_at(self, refilled_per_s: f64) -> Option<Mono> {
        let net = self.spent_per_s - refilled_per_s;
        // A backlog spends just what comes in; that is no forecast of running dry.
        let runs_dry = net > refilled_per_s / 100.0;
        dry_at(self.now, self.lendable as f64, net).filter(|_| runs_dry)
    }
}

/// How a backlog grows or shrinks, by looking at it now and then.
#[derive(Debug, Default, Clone)]
pub struct BacklogTrend {
    last: Option<(Mono, u64)>,
    /// Negative while it grows; `None` before the second look.
    falls_per_s: Option<f64>,
}

impl BacklogTrend {
    /// A look at it.
    pub fn observe(&mut self, now: Mono, open: u64) {
        if let Some((then, before)) = self.last {
            let passed_s = now.saturating_since(then).as_secs_f64();
            if passed_s < LOOK_MIN.as_secs_f64() {
                return;
            }
            let fell = (before as f64 - open as f64) / passed_s;
            // A look after a long time says all there is to say, one soon after the last little.
            let weight = 1.0 - (-passed_s / TREND_TIME_CONSTANT_S).exp();
            let known = self.falls_per_s.unwrap_or(fell);
            self.falls_per_s = Some(known + weight * (fell - known));
        }
        self.last = Some((now, open));
    }

    /// Operations that end a second beyond those that come in; `None` before the second look.
    pub fn falls_per_s(&self) -> Option<f64> {
        self.falls_per_s
    }
}

/// How long until none of `open` is left when so many more end than come in each second; `None`
/// when the backlog does not shrink.
pub fn drains_in(open: u64, falls_per_s: f64) -> Option<Duration> {
    if open == 0 {
        return Some(Duration::ZERO);
    }
    let seconds = open as f64 / falls_per_s;
    let known = falls_per_s > 0.0 && seconds < FORECAST_MAX.as_secs_f64();
    known.then(|| Duration::from_secs_f64(seconds))
}

/// Looks closer together than this see noise.
const LOOK_MIN: Duration = Duration::from_millis(500);
/// As long as the pace of a limit is remembered.
const TREND_TIME_CONSTANT_S: f64 = 60.0;

/// Beyond a quarter of a year nothing goes on as it does.
const FORECAST_MAX: Duration = Duration::from_secs(90 * 86_400);

fn dry_at(from: Mono, left: f64, per_s: f64) -> Option<Mono> {
    let seconds = left.max(0.0) / per_s;
    let known = per_s > 0.0 && seconds < FORECAST_MAX.as_secs_f64();
    known.then(|| from.saturating_add(Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn outlook(lendable: u64, spent_per_s: f64) -> Outlook {
        Outlook {
            now: s(100),
            lendable,
            spent_per_s,
        }
    }

    #[test]
    fn a_daily_quota_is_used_up_before_it_starts_over_or_not_at_all() {
        let midnight = [(s(10_000), 5_000)];
        let at_pace = |per_s| outlook(900, per_s).used_up_at(midnight.into_iter());
        assert_eq!(at_pace(1.0), Some(s(1000)));
        assert_eq!(at_pace(0.05), None);
        assert_eq!(at_pace(0.0), None);
        assert_eq!(
            outlook(0, 1.0).used_up_at(midnight.into_iter()),
            Some(s(100))
        );
    }

    #[test]
    fn what_comes_back_on_the_way_counts() {
        let returns = (1..=50).map(|i| (s(100 + i * 10), 10));
        assert_eq!(outlook(5, 1.0).used_up_at(returns.clone()), Some(s(105)));
        assert_eq!(outlook(50, 1.0).used_up_at(returns.clone()), None);
        assert_eq!(
            outlook(50, 1.5).used_up_at(returns),
            Some(Mono(186_666_666_667))
        );
    }

    #[test]
    fn a_bucket_runs_dry_only_when_it_is_drained_faster_than_filled() {
        assert_eq!(outlook(90, 5.0).bucket_dry_at(2.0), Some(s(130)));
        assert_eq!(outlook(90, 2.0).bucket_dry_at(2.0), None);
        assert_eq!(outlook(90, 1.0).bucket_dry_at(2.0), None);
    }

    #[test]
    fn a_backlog_that_does_not_shrink_has_no_end() {
        assert_eq!(drains_in(0, 0.0), Some(Duration::ZERO));
        assert_eq!(drains_in(7200, 10.0), Some(Duration::from_secs(720)));
        assert_eq!(drains_in(7200, 0.0), None);
        assert_eq!(drains_in(7200, -5.0), None);
        assert_eq!(drains_in(u64::MAX, 1.0), None);
    }

    #[test]
    fn the_trend_of_a_backlog_follows_its_looks() {
        let mut trend = BacklogTrend::default();
        trend.observe(s(0), 1000);
        assert_eq!(trend.falls_per_s(), None);
        trend.observe(s(10), 900);
        assert_eq!(trend.falls_per_s(), Some(10.0));
        trend.observe(Mono(s(10).0 + 1), 0);
        assert_eq!(trend.falls_per_s(), Some(10.0), "too soon to say");
        for look in 2..100 {
            trend.observe(s(look * 10), 900 + look * 20);
        }
        let falls = trend.falls_per_s().expect("known");
        assert!((falls + 2.0).abs() < 0.1, "{falls}");
    }
}
