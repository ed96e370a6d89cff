//! Limits as a provider counts them: by arrival, on its own clock.

mod counter;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::account::CallId;
use crate::duration::{self, DurationError};
use counter::{Counter, OpenCalls};

/// A bound on calls; typed `100/1s` (any window of a second), `8/open` (at a time), or with a name
/// in front, `daily=1000/24h`, to change a limit that the provider has by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    name: String,
    count: u32,
    shape: Shape,
    scope: Scope,
    /// Whether a call counts as what it costs, or as one.
    weighed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// At most so many in any window of that length.
    Sliding(Duration),
    /// At most so many from one multiple of that length, in Unix time, to the next.
    Fixed(Duration),
    /// At most so many open at a time, of those that have been open for that long.
    Open(Duration),
}

/// What a call is to the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallClass {
    General,
    /// A search, where it has a limit of its own.
    Search,
    /// A request for an access token.
    Mint,
}

/// Which calls a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All but those for tokens.
    Calls,
    Only(CallClass),
}

impl Limit {
    /// The limit as it was typed; names it in the violations.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn sliding(name: &str, count: u32, window: Duration) -> Self {
        Self::of_calls(name, count, Shape::Sliding(window))
    }

    pub(crate) fn fixed(name: &str, count: u32, window: Duration) -> Self {
        Self::of_calls(name, count, Shape::Fixed(window))
    }

    pub(crate) fn open(name: &str, count: u32, open_for: Duration) -> Self {
        Self::of_calls(name, count, Shape::Open(open_for))
    }

    /// The same limit for calls of one class alone.
    pub(crate) fn only(self, class: CallClass) -> Self {
        Self {
            scope: Scope::Only(class),
            ..self
        }
    }

    /// The same limit, counting what calls cost.
    pub(crate) fn weighed(self) -> Self {
        Self {
            weighed: true,
            ..self
        }
    }

    /// The provider's own limits, changed where one of the typed ones bears its name, then the
    /// other typed ones.
    pub(crate) fn overlay(own: Vec<Self>, typed: Vec<Self>) -> Vec<Self> {
        let mut limits = own;
        let mut beside = Vec::new();
        for limit in typed {
            match limits.iter_mut().find(|known| known.name == limit.name) {
                Some(known) => known.retune(&limit),
                None => beside.push(limit),
            }
        }
        limits.extend(beside);
        limits
    }

    /// Takes the numbers of another limit and keeps its own way of counting.
    fn retune(&mut self, other: &Self) {
        self.count = other.count;
        self.shape = match (self.shape, other.shape) {
            (Shape::Fixed(_), Shape::Sliding(window)) => Shape::Fixed(window),
            (Shape::Open(open_for), Shape::Open(_)) => Shape::Open(open_for),
            (_, shape) => shape,
        };
    }

    fn of_calls(name: &str, count: u32, shape: Shape) -> Self {
        Self {
            name: name.to_owned(),
            count,
            shape,
            scope: Scope::Calls,
            weighed: false,
        }
    }

    fn counts(&self, class: CallClass) -> bool {
        match self.scope {
            Scope::Calls => class != CallClass::Mint,
            Scope::Only(only) => class == only,
        }
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
    #[error("`{0}` is not a limit such as 100/1s, 8/open or daily=1000/24h")]
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
        let (name, bound) = text.split_once('=').unwrap_or((text, text));
        let (count, window) = bound.split_once('/').ok_or_else(shape)?;
        let count = count.parse().map_err(|_| shape())?;
        if window == "open" {
            return Ok(Self::open(name, count, Duration::ZERO));
        }
        let window = duration::parse(window)?;
        if window.is_zero() {
            return Err(LimitError::EmptyWindow(text.to_owned()));
        }
        Ok(Self::sliding(name, count, window))
    }
}

/// All limits of one account, with what each has counted.
#[derive(Debug)]
pub(crate) struct LimitSet {
    counters: Vec<Counter>,
    /// Calls open now, by arrival.
    open: OpenCalls,
    /// Calls that were over at least one limit.
    refused: u64,
    /// Unix time at zero, for windows that begin on the clock.
    epoch: Duration,
}

/// How far a limit is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gauge {
    pub(crate) limit: u32,
    pub(crate) used: u32,
    /// Until a fixed window ends, or the oldest call leaves a sliding one.
    pub(crate) resets_in: Duration,
}

impl Gauge {
    pub(crate) fn remaining(self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// The call is over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OverLimit {
    /// The limit with the longest wait.
    pub(crate) name: String,
    /// Until every full window has room for one call.
    pub(crate) wait: Duration,
}

impl LimitSet {
    pub(crate) fn new(limits: Vec<Limit>, epoch: Duration) -> Self {
        Self {
            counters: limits.into_iter().map(Counter::new).collect(),
            open: OpenCalls::new(),
            refused: 0,
            epoch,
        }
    }

    /// Counts one arrival. A call over any limit is refused and fills no window.
    ///
    /// # Errors
    /// When the call is over a limit: which, and how long until all of them would take one again.
    pub(crate) fn admit(
        &mut self,
        now: Duration,
        class: CallClass,
        cost: u32,
    ) -> Result<(), OverLimit> {
        let mut over: Option<OverLimit> = None;
        for counter in &mut self.counters {
            if !counter.limit.counts(class) {
                continue;
            }
            let Some(wait) = counter.full_for(now, self.epoch, cost, &self.open) else {
                continue;
            };
            counter.violations += 1;
            if over.as_ref().is_none_or(|longest| longest.wait < wait) {
                let name = counter.limit.name.clone();
                over = Some(OverLimit { name, wait });
            }
        }
        if let Some(over) = over {
            self.refused += 1;
            return Err(over);
        }
        for counter in &mut self.counters {
            if counter.limit.counts(class) {
                counter.count(now, self.epoch, cost);
            }
        }
        Ok(())
    }

    /// A call that was taken in is open.
    pub(crate) fn opened(&mut self, now: Duration, call: CallId, class: CallClass) {
        if self.counters.iter().any(|counter| counter.counts_open()) {
            self.open.insert(call, (now, class));
        }
    }

    /// A call has ended.
    pub(crate) fn closed(&mut self, call: CallId) {
        self.open.remove(&call);
    }

    /// How far the limit of that name is used up; `None` when there is none.
    pub(crate) fn gauge(&self, name: &str, now: Duration) -> Option<Gauge> {
        let counter = self.counters.iter().find(|c| c.limit.name == name)?;
        Some(counter.gauge(now, self.epoch, &self.open))
    }

    /// Puts other limits in place. A limit keeps what one of its name, or else of its window, has
    /// counted, so that tightening it bites at once; violations of limits that go are forgotten.
    pub(crate) fn replace(&mut self, limits: Vec<Limit>) {
        let mut old = std::mem::take(&mut self.counters);
        for limit in limits {
            let same_name = old.iter().position(|c| c.limit.name == limit.name);
            let kept = same_name.or_else(|| old.iter().position(|c| c.limit.shape == limit.shape));
            let mut counter = Counter::new(limit);
            if let Some(at) = kept {
                counter.inherit(old.swap_remove(at));
            }
            self.counters.push(counter);
        }
    }

    /// Calls that were over at least one limit.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Each limit's name and how many calls were over it.
    pub(crate) fn violations(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counters.iter().map(|c| (c.limit.name(), c.violations))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(texts: &[&str]) -> LimitSet {
        let limits = texts.iter().map(|text| text.parse().unwrap());
        LimitSet::new(limits.collect(), Duration::ZERO)
    }

    fn admit(set: &mut LimitSet, now: Duration) -> Result<(), Duration> {
        let admitted = set.admit(now, CallClass::General, 1);
        admitted.map_err(|over| over.wait)
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_limit_is_typed_as_count_and_window() {
        assert_eq!("100/1s".parse::<Limit>().unwrap().to_string(), "100/1s");
        for bad in ["", "100", "/1s", "x/1s", "-1/1s", "1/s", "5/0s", "a=5"] {
            assert!(bad.parse::<Limit>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_call_one_whole_window_later_is_taken_and_one_nanosecond_earlier_is_not() {
        let mut set = limits(&["1/1s"]);
        assert!(admit(&mut set, ms(5)).is_ok());
        let early = admit(&mut set, ms(1005) - Duration::from_nanos(1));
        assert_eq!(early, Err(Duration::from_nanos(1)));
        assert!(admit(&mut set, ms(1005)).is_ok());
        assert_eq!(set.refused(), 1);
    }

    #[test]
    fn a_call_over_two_limits_is_one_refused_call_and_a_violation_of_each() {
        let mut set = limits(&["2/1s", "2/1m", "9/1h"]);
        assert!(admit(&mut set, ms(0)).is_ok());
        assert!(admit(&mut set, ms(1)).is_ok());
        assert_eq!(admit(&mut set, ms(2)), Err(ms(59_998)));
        let by_limit: Vec<_> = set.violations().collect();
        assert_eq!(by_limit, [("2/1s", 1), ("2/1m", 1), ("9/1h", 0)]);
        assert_eq!(set.refused(), 1);
    }

    #[test]
    fn a_refused_call_fills_no_window() {
        let mut set = limits(&["1/1s", "2/1m"]);
        assert!(admit(&mut set, ms(0)).is_ok());
        for n in 1..500 {
            assert!(admit(&mut set, ms(n)).is_err());
        }
        assert!(admit(&mut set, ms(1000)).is_ok());
    }

    #[test]
    fn a_lowered_limit_counts_what_already_came() {
        let mut set = limits(&["5/1s"]);
        for n in 0..4 {
            assert!(admit(&mut set, ms(n)).is_ok());
        }
        set.replace(vec!["2/1s".parse().unwrap()]);
        assert_eq!(admit(&mut set, ms(10)), Err(ms(992)));
        assert!(admit(&mut set, ms(1002)).is_ok());
    }

    #[test]
    fn a_limit_of_nothing_takes_nothing() {
        let mut set = limits(&["0/1s"]);
        assert_eq!(admit(&mut set, ms(0)), Err(ms(1000)));
    }

    #[test]
    fn a_fixed_window_begins_on_the_clock_and_forgets_at_once() {
        let limits = vec![Limit::fixed("hourly", 2, ms(1_000))];
        let mut set = LimitSet::new(limits, ms(500));
        assert!(admit(&mut set, ms(400)).is_ok());
        assert!(admit(&mut set, ms(450)).is_ok());
        assert_eq!(admit(&mut set, ms(490)), Err(ms(10)));
        assert!(admit(&mut set, ms(500)).is_ok());
        let gauge = set.gauge("hourly", ms(600)).unwrap();
        assert_eq!((gauge.remaining(), gauge.resets_in), (1, ms(900)));
    }

    #[test]
    fn a_weighed_limit_counts_what_calls_cost() {
        let limits = vec![Limit::sliding("tokens", 10, ms(1_000)).weighed()];
        let mut set = LimitSet::new(limits, Duration::ZERO);
        assert!(set.admit(ms(0), CallClass::General, 4).is_ok());
        assert!(set.admit(ms(100), CallClass::General, 4).is_ok());
        let over = set.admit(ms(200), CallClass::General, 5).unwrap_err();
        assert_eq!((over.name.as_str(), over.wait), ("tokens", ms(800)));
        assert!(set.admit(ms(200), CallClass::General, 2).is_ok());
        assert_eq!(set.gauge("tokens", ms(200)).unwrap().used, 10);
    }

    #[test]
    fn a_limit_of_open_calls_counts_those_open_for_long_enough() {
        let limits = vec![Limit::open("long", 1, ms(20)), "2/open".parse().unwrap()];
        let mut set = LimitSet::new(limits, Duration::ZERO);
        let (first, second) = (CallId::of(1), CallId::of(2));
        assert!(admit(&mut set, ms(0)).is_ok());
        set.opened(ms(0), first, CallClass::General);
        assert!(admit(&mut set, ms(19)).is_ok());
        assert!(admit(&mut set, ms(20)).is_err());
        set.closed(first);
        set.opened(ms(21), first, CallClass::General);
        set.opened(ms(21), second, CallClass::General);
        assert!(admit(&mut set, ms(22)).is_err());
        let counted: Vec<_> = set.violations().collect();
        assert_eq!(counted, [("long", 1), ("2/open", 1)]);
    }

    #[test]
    fn a_limit_of_one_class_leaves_the_others_alone() {
        let limits = vec![
            Limit::sliding("search", 1, ms(1_000)).only(CallClass::Search),
            Limit::sliding("mint", 1, ms(1_000)).only(CallClass::Mint),
            "3/1s".parse().unwrap(),
        ];
        let mut set = LimitSet::new(limits, Duration::ZERO);
        assert!(set.admit(ms(0), CallClass::Search, 1).is_ok());
        assert!(set.admit(ms(0), CallClass::Search, 1).is_err());
        assert!(set.admit(ms(0), CallClass::Mint, 1).is_ok());
        assert!(set.admit(ms(0), CallClass::Mint, 1).is_err());
        assert!(set.admit(ms(0), CallClass::General, 1).is_ok());
        assert_eq!(set.gauge("3/1s", ms(0)).unwrap().used, 2);
    }

    #[test]
    fn a_typed_limit_of_a_known_name_changes_numbers_and_keeps_the_way_of_counting() {
        let own = vec![
            Limit::fixed("daily", 100, ms(1_000)),
            Limit::sliding("tokens", 9, ms(1_000)).weighed(),
        ];
        let typed = ["daily=5/2s", "tokens=8/3s", "7/1s"];
        let typed = typed.iter().map(|text| text.parse().unwrap()).collect();
        let limits = Limit::overlay(own, typed);
        assert_eq!(limits[0], Limit::fixed("daily", 5, ms(2_000)));
        assert_eq!(limits[1], Limit::sliding("tokens", 8, ms(3_000)).weighed());
        assert_eq!(limits[2].name(), "7/1s");
    }
}
