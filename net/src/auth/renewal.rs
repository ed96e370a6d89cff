//! When a token is asked for, and what a failure means until then. Pure: time comes in.

use std::time::Duration;

use engine::time::Mono;

/// What a provider says of its tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenewalRules {
    /// At most this long before its end a token is renewed; a tenth of its lifetime if that is
    /// less.
    pub ahead_max: Duration,
    /// Of tokens whose reply does not say; they are renewed ahead of it, and used beyond it.
    pub assumed_lifetime: Option<Duration>,
    /// Between two requests for a token, at least. A younger token that is refused is not
    /// renewed: its age is not why.
    pub ask_interval: Duration,
}

impl Default for RenewalRules {
    fn default() -> RenewalRules {
        RenewalRules {
            // A request for a token takes a second or two; the rest is for a provider that is
            // down for as long as most outages take.
            ahead_max: Duration::from_secs(300),
            assumed_lifetime: None,
            ask_interval: Duration::from_secs(1),
        }
    }
}

/// Why there is no new token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The credentials were refused.
    Refused { detail: String },
    /// Another time it may work.
    Passing {
        detail: String,
        retry_after: Option<Duration>,
    },
}

impl Failure {
    pub(crate) fn passing(detail: String) -> Failure {
        Failure::Passing {
            detail,
            retry_after: None,
        }
    }

    pub(crate) fn detail(&self) -> &str {
        match self {
            Failure::Refused { detail } | Failure::Passing { detail, .. } => detail,
        }
    }
}

/// The life of an account's token.
#[derive(Debug)]
pub(crate) struct Renewal {
    rules: RenewalRules,
    /// Counts tokens; the one held, if there is one, is the latest.
    generation: u64,
    held: Option<Held>,
    phase: Phase,
    /// In a row.
    failures: u32,
    asked_at: Option<Mono>,
}

/// A token's times; the token itself is with the cell.
#[derive(Debug)]
struct Held {
    since: Option<Mono>,
    renew_at: Option<Mono>,
    ends_at: Option<Mono>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// The token is good as far as is known.
    Settled,
    /// A token is to be asked for.
    Wanted,
    /// It is being asked for.
    Asking,
    /// It was not had, and is not asked for again before then.
    Failed { until: Mono, failure: Failure },
}

/// What a call without a token is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Without {
    /// One is on its way.
    Wait,
    /// Fail, for this reason.
    Fail(Failure),
}

/// As the quota holds an account that refuses its credentials, so that its probe meets the answer.
const REFUSED_HOLD: Duration = Duration::from_secs(60);

/// The ceiling of the first wait; doubles each time.
const BACKOFF_BASE: Duration = Duration::from_secs(1);
/// The ceiling of every wait.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

impl Renewal {
    /// Without a token: the first is asked for at once.
    pub(crate) fn new(rules: RenewalRules) -> Renewal {
        Renewal {
            rules,
            generation: 0,
            held: None,
            phase: Phase::Wanted,
            failures: 0,
            asked_at: None,
        }
    }

    /// A token that was kept since `asked_at`; `false` if its time is over.
    pub(crate) fn restore(
        &mut self,
        now: Mono,
        asked_at: Mono,
        lifetime: Option<Duration>,
    ) -> bool {
        let held = self.times(asked_at, lifetime, None);
        if held.ends_at.is_some_and(|end| end <= now) {
            return false;
        }
        self.generation += 1;
        self.held = Some(held);
        self.phase = Phase::Settled;
        true
    }

    /// Begins a request if one is due; the caller then makes it and tells its end.
    pub(crate) fn begin(&mut self, now: Mono) -> bool {
        if self
            .held
            .as_ref()
            .and_then(|held| held.ends_at)
            .is_some_and(|end| end <= now)
        {
            self.held = None;
            if self.phase == Phase::Settled {
                self.phase = Phase::Wanted;
            }
        }
        let due = self.ask_at().is_some_and(|at| at <= now);
        if due {
            self.phase = Phase::Asking;
            self.asked_at = Some(now);
        }
        due
    }

    /// When [`Renewal::begin`] has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        let end = self.held.as_ref().and_then(|held| held.ends_at);
        [self.ask_at(), end].into_iter().flatten().min()
    }

    /// The request that began last brought a token, which has been kept.
    pub(crate) fn on_granted(&mut self, now: Mono, lifetime: Option<Duration>) {
        let asked_at = self.asked_at.unwrap_or(now);
        self.generation += 1;
        self.held = Some(self.times(asked_at, lifetime, Some(now)));
        self.phase = Phase::Settled;
        self.failures = 0;
    }

    /// It brought none. `dice` spreads the next attempt.
    pub(crate) fn on_failed(&mut self, now: Mono, dice: u64, failure: Failure) {
        let wait = match &failure {
            Failure::Refused { .. } => REFUSED_HOLD,
            Failure::Passing {
                retry_after: Some(told),
                ..
            } => *told,
            Failure::Passing { .. } => self.backoff(dice),
        };
        self.failures = self.failures.saturating_add(1);
        let until = now.saturating_add(wait.max(self.rules.ask_interval));
        self.phase = Phase::Failed { until, failure };
    }

    /// A call with this token got a 401; whether to wait for the next token.
    pub(crate) fn on_rejected(&mut self, now: Mono, generation: u64) -> bool {
        if generation != self.generation {
            return true;
        }
        let Some(held) = &self.held else {
            return !matches!(self.phase, Phase::Failed { .. });
        };
        let young = |since: Mono| now.saturating_since(since) < self.rules.ask_interval;
        if held.since.is_some_and(young) {
            return false;
        }
        self.held = None;
        match self.phase {
            Phase::Settled => self.phase = Phase::Wanted,
            Phase::Wanted | Phase::Asking => {}
            Phase::Failed { .. } => return false,
        }
        true
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn holds(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) fn without(&self) -> Without {
        match &self.phase {
            Phase::Settled | Phase::Wanted | Phase::Asking => Without::Wait,
            Phase::Failed { failure, .. } => Without::Fail(failure.clone()),
        }
    }

    fn ask_at(&self) -> Option<Mono> {
        let earliest = self
            .asked_at
            .map(|at| at.saturating_add(self.rules.ask_interval));
        let wanted = match &self.phase {
            Phase::Settled => self.held.as_ref().and_then(|held| held.renew_at)?,
            Phase::Wanted => Mono(0),
            Phase::Asking => return None,
            Phase::Failed { until, .. } => *until,
        };
        Some(wanted.max(earliest.unwrap_or_default()))
    }

    fn times(&self, asked_at: Mono, told: Option<Duration>, since: Option<Mono>) -> Held {
        let lifetime = told.or(self.rules.assumed_lifetime);
        let renew_at = lifetime.map(|lifetime| {
            let ahead = self.rules.ahead_max.min(lifetime / 10);
            asked_at.saturating_add(lifetime - ahead)
        });
        Held {
            since,
            renew_at,
            ends_at: told.map(|lifetime| asked_at.saturating_add(lifetime)),
        }
    }

    /// Half the ceiling for certain: a token that everything waits for is not asked for at once.
    fn backoff(&self, dice: u64) -> Duration {
        let doubled =
            BACKOFF_BASE.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let half = doubled.min(BACKOFF_MAX) / 2;
        let nanos = u64::try_from(half.as_nanos()).expect("a minute has few nanoseconds");
        half + Duration::from_nanos(dice % nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn refused() -> Failure {
        Failure::Refused {
            detail: "invalid_grant".to_owned(),
        }
    }

    fn granted(rules: RenewalRules, lifetime: Option<Duration>) -> Renewal {
        let mut renewal = Renewal::new(rules);
        assert!(renewal.begin(at(0)));
        renewal.on_granted(at(0), lifetime);
        renewal
    }

    #[test]
    fn a_token_is_renewed_five_minutes_or_a_tenth_ahead_of_its_end() {
        for (lifetime, renewed) in [(7200, 6900), (1800, 1620), (100, 90)] {
            let lifetime = Duration::from_secs(lifetime);
            let mut renewal = granted(RenewalRules::default(), Some(lifetime));
            assert_eq!(renewal.next_deadline(), Some(at(renewed)));
            assert!(!renewal.begin(at(renewed - 1)));
            assert!(renewal.begin(at(renewed)));
            assert!(renewal.holds(), "calls go on meanwhile");
            assert!(!renewal.begin(at(renewed + 1)), "one request at a time");
        }
    }

    #[test]
    fn a_token_without_an_end_is_renewed_when_it_is_refused() {
        let mut renewal = granted(RenewalRules::default(), None);
        assert_eq!(renewal.next_deadline(), None);
        assert!(renewal.on_rejected(at(9), 1));
        assert!(!renewal.holds());
        assert!(renewal.begin(at(9)));
    }

    #[test]
    fn an_assumed_end_renews_and_does_not_end() {
        let rules = RenewalRules {
            assumed_lifetime: Some(HOUR),
            ..RenewalRules::default()
        };
        let mut renewal = granted(rules, None);
        assert!(renewal.begin(at(3300)));
        renewal.on_failed(at(3300), 0, refused());
        renewal.begin(at(9999));
        assert!(renewal.holds());
    }

    #[test]
    fn many_refusals_of_one_token_are_one_request() {
        let mut renewal = granted(RenewalRules::default(), None);
        assert!((0..100).all(|_| renewal.on_rejected(at(5), 1)));
        assert!(renewal.begin(at(5)));
        assert!((0..100).all(|_| renewal.on_rejected(at(6), 1)));
        renewal.on_granted(at(7), None);
        assert!(
            renewal.on_rejected(at(8), 1),
            "a late one has the next already"
        );
        assert!(renewal.holds());
        assert_eq!(renewal.next_deadline(), None);
    }

    #[test]
    fn a_token_that_is_refused_at_once_is_not_renewed() {
        let mut renewal = granted(RenewalRules::default(), None);
        assert!(!renewal.on_rejected(at(0), 1));
        assert!(renewal.holds());
        assert!(renewal.on_rejected(at(1), 1));
    }

    #[test]
    fn refused_credentials_are_shown_again_every_minute() {
        let mut renewal = Renewal::new(RenewalRules::default());
        for minute in 0..5 {
            assert!(renewal.begin(at(60 * minute)));
            renewal.on_failed(at(60 * minute), 0, refused());
            assert_eq!(renewal.without(), Without::Fail(refused()));
            assert!(!renewal.begin(at(60 * minute + 59)));
        }
    }

    #[test]
    fn other_failures_back_off_up_to_a_minute() {
        let mut renewal = Renewal::new(RenewalRules::default());
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert!(renewal.begin(now));
            renewal.on_failed(now, u64::MAX, Failure::passing("down".to_owned()));
            let next = renewal.next_deadline().unwrap();
            waits.push(next.saturating_since(now));
            now = next;
        }
        assert!(waits.is_sorted_by(|earlier, later| *earlier <= *later + BACKOFF_MAX / 2));
        assert!(
            waits
                .iter()
                .all(|wait| *wait >= BACKOFF_BASE && *wait <= BACKOFF_MAX)
        );
        assert!(*waits.last().unwrap() >= BACKOFF_MAX / 2);
        let told = Failure::Passing {
            detail: String::new(),
            retry_after: Some(HOUR),
        };
        assert!(renewal.begin(now));
        renewal.on_failed(now, 0, told);
        assert_eq!(renewal.next_deadline(), now.checked_add(HOUR));
    }

    #[test]
    fn a_failed_renewal_leaves_the_token_until_its_end() {
        let mut renewal = granted(RenewalRules::default(), Some(HOUR));
        assert!(renewal.begin(at(3300)));
        renewal.on_failed(at(3300), 0, refused());
        assert!(renewal.holds());
        renewal.begin(at(3599));
        assert!(renewal.holds());
        renewal.begin(at(3600));
        assert!(!renewal.holds());
    }

    #[test]
    fn requests_keep_the_providers_interval() {
        let rules = RenewalRules {
            ask_interval: Duration::from_secs(60),
            ..RenewalRules::default()
        };
        let mut renewal = granted(rules, Some(Duration::from_secs(20)));
        assert!(!renewal.begin(at(20)));
        assert_eq!(renewal.next_deadline(), Some(at(60)));
        assert!(renewal.begin(at(60)));
    }

    #[test]
    fn a_kept_token_is_used_for_the_rest_of_its_time() {
        let mut renewal = Renewal::new(RenewalRules::default());
        assert!(renewal.restore(at(1000), at(0), Some(HOUR)));
        assert!(!renewal.begin(at(1000)));
        assert_eq!(renewal.next_deadline(), Some(at(3300)));
        let mut late = Renewal::new(RenewalRules::default());
        assert!(!late.restore(at(3600), at(0), Some(HOUR)));
        assert!(late.begin(at(3600)));
    }
}
