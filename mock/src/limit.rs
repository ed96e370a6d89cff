//! Rate limits as a provider counts them: calls by arrival, in an exact sliding window.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::duration::{self, DurationError};

/// At most `count` calls in any `window`; typed `100/1s`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    name: String,
    count: u32,
    window: Duration,
}

impl Limit {
    /// The limit as it was typed; names it in the violations.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a text is not a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// No `COUNT/WINDOW`.
    #[error("`{0}` is not a limit such as 100/1s")]
    Shape(String),
    /// A window in which nothing could ever be counted.
    #[error("`{0}`: the window must be longer than nothing")]
    EmptyWindow(String),
    /// The window is no duration.
    #[error("the limit's window")]
    Window(#[from] DurationError),
}

impl FromStr for Limit {
    type Err = LimitError;

    fn from_str(text: &str) -> Result<Self, LimitError> {
        let shape = || LimitError::Shape(text.to_owned());
        let (count, window) = text.split_once('/').ok_or_else(shape)?;
        let count = count.parse().map_err(|_| shape())?;
        let window = duration::parse(window)?;
        if window.is_zero() {
            return Err(LimitError::EmptyWindow(text.to_owned()));
        }
        Ok(Self {
            name: text.to_owned(),
            count,
            window,
        })
    }
}

/// All limits of one account, with what each has counted.
#[derive(Debug, Default)]
pub(crate) struct LimitSet {
    windows: Vec<SlidingWindow>,
    /// Calls that were over at least one limit.
    refused: u64,
}

impl LimitSet {
    pub(crate) fn new(limits: Vec<Limit>) -> Self {
        let windows = limits.into_iter().map(SlidingWindow::new).collect();
        Self {
            windows,
            refused: 0,
        }
    }

    /// Counts one arrival. A call over any limit is refused and fills no window.
    ///
    /// # Errors
    /// When the call is over a limit: how long until all of them would take one again.
    pub(crate) fn admit(&mut self, now: Duration) -> Result<(), OverLimit> {
        let mut wait = None;
        for window in &mut self.windows {
            window.forget_before(now);
            if let Some(room_in) = window.full_for(now) {
                window.violations += 1;
                wait = wait.max(Some(room_in));
            }
        }
        if let Some(wait) = wait {
            self.refused += 1;
            return Err(OverLimit { wait });
        }
        for window in &mut self.windows {
            window.admitted.push_back(now);
        }
        Ok(())
    }

    /// Puts other limits in place. A limit whose window stays keeps what it has counted, so that
    /// tightening it bites at once; violations of limits that go are forgotten.
    pub(crate) fn replace(&mut self, limits: Vec<Limit>) {
        let mut old = std::mem::take(&mut self.windows);
        for limit in limits {
            let kept = old.iter().position(|w| w.limit.window == limit.window);
            let mut window = SlidingWindow::new(limit);
            if let Some(at) = kept {
                let before = old.swap_remove(at);
                window.admitted = before.admitted;
                window.violations = before.violations;
            }
            self.windows.push(window);
        }
    }

    /// Calls that were over at least one limit.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Each limit's name and how many calls were over it.
    pub(crate) fn violations(&self) -> impl Iterator<Item = (&str, u64)> {
        self.windows.iter().map(|w| (w.limit.name(), w.violations))
    }
}

/// The call is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// Until every full window has room for one call.
    pub(crate) wait: Duration,
}

/// Arrivals of the last window, oldest first; never more than the limit's count, except just
/// after the limit was lowered.
#[derive(Debug)]
struct SlidingWindow {
    limit: Limit,
    admitted: VecDeque<Duration>,
    violations: u64,
}

impl SlidingWindow {
    fn new(limit: Limit) -> Self {
        Self {
            limit,
            admitted: VecDeque::new(),
            violations: 0,
        }
    }

    /// Drops arrivals that no window ending now holds: the window is half open, so a call exactly
    /// one window after another is not counted with it.
    fn forget_before(&mut self, now: Duration) {
        while self
            .admitted
            .front()
            .is_some_and(|at| *at + self.limit.window <= now)
        {
            self.admitted.pop_front();
        }
    }

    /// How long the window takes no call; `None` when it has room.
    fn full_for(&self, now: Duration) -> Option<Duration> {
        let count = self.limit.count as usize;
        if self.admitted.len() < count {
            return None;
        }
        let frees = self.admitted.len() - count;
        let leaves_at = self.admitted.get(frees).map_or(now, |at| *at) + self.limit.window;
        Some(leaves_at.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> LimitSet {
        LimitSet::new(texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_limit_is_typed_as_count_and_window() {
        assert_eq!("100/1s".parse::<Limit>().unwrap().to_string(), "100/1s");
        for bad in ["", "100", "/1s", "x/1s", "-1/1s", "1/s", "5/0s"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_call_one_whole_window_later_is_taken_and_one_nanosecond_earlier_is_not() {
        let mut set = limits(&["1/1s"]);
        assert!(set.admit(ms(5)).is_ok());
        let early = set.admit(ms(1005) - Duration::from_nanos(1));
        assert_eq!(
            early,
            Err(OverLimit {
                wait: Duration::from_nanos(1)
            })
        );
        assert!(set.admit(ms(1005)).is_ok());
        assert_eq!(set.refused(), 1);
    }

    #[test]
    fn a_call_over_two_limits_is_one_refused_call_and_a_violation_of_each() {
        let mut set = limits(&["2/1s", "2/1m", "9/1h"]);
        assert!(set.admit(ms(0)).is_ok());
        assert!(set.admit(ms(1)).is_ok());
        assert_eq!(set.admit(ms(2)), Err(OverLimit { wait: ms(59_998) }));
        let by_limit: Vec<_> = set.violations().collect();
        assert_eq!(by_limit, [("2/1s", 1), ("2/1m", 1), ("9/1h", 0)]);
        assert_eq!(set.refused(), 1);
    }

    #[test]
    fn a_refused_call_fills_no_window() {
        let mut set = limits(&["1/1s", "2/1m"]);
        assert!(set.admit(ms(0)).is_ok());
        for n in 1..500 {
            assert!(set.admit(ms(n)).is_err());
        }
        assert!(set.admit(ms(1000)).is_ok());
    }

    #[test]
    fn a_lowered_limit_counts_what_already_came() {
        let mut set = limits(&["5/1s"]);
        for n in 0..4 {
            assert!(set.admit(ms(n)).is_ok());
        }
        set.replace(vec!["2/1s".parse().unwrap()]);
        assert_eq!(set.admit(ms(10)), Err(OverLimit { wait: ms(992) }));
        assert!(set.admit(ms(1002)).is_ok());
    }

    #[test]
    fn a_limit_of_nothing_takes_nothing() {
        let mut set = limits(&["0/1s"]);
        assert_eq!(set.admit(ms(0)), Err(OverLimit { wait: ms(1000) }));
    }
}
