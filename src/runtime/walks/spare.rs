//! Quota that live changes leave: walks make no call while they need it.

use std::sync::Arc;
use std::time::Duration;

use engine::time::{Mono, Now};
use engine::view::LimitStatus;

use super::super::account_outlook;
use super::super::clock;
use super::super::coordinator::lock;
use super::Parts;

/// Between two looks at an account that has nothing to spare.
const LOOK_PERIOD: Duration = Duration::from_millis(250);
/// Limits of a window up to this one pace calls; longer ones are a stock that is kept for others.
const PACE_WINDOW_MAX: Duration = Duration::from_secs(60);
/// How long the pace of others keeps one call back. Polls alone may use all of a short window for
/// ever, and a walk has to end.
const PACE_WAIT_MAX: Duration = Duration::from_secs(5);

/// What a walk may use of an account's limits.
#[derive(Debug)]
pub(super) struct Spare {
    parts: Arc<Parts>,
    walk: String,
    account: String,
    /// Of each limit, 0 to 1.
    share: f64,
}

/// What keeps a call of a walk back.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Need {
    /// No call goes at all, for this reason.
    Held(&'static str),
    /// Others use the share of this limit, which comes back within the pace.
    Pace(String),
    /// Others use the share of this limit, and it does not come back soon.
    Stock(String),
}

impl Spare {
    pub(super) fn new(parts: Arc<Parts>, walk: &str, account: &str, share: f64) -> Spare {
        Spare {
            parts,
            walk: walk.to_owned(),
            account: account.to_owned(),
            share,
        }
    }

    /// Waits until less than the share of every limit is used and calls may go at all; where only
    /// the pace of others is in the way, some seconds at most. What it waits for is shown.
    pub(super) async fn wait(&self) {
        let since = clock::now().mono;
        let mut told = false;
        loop {
            let now = clock::now();
            let Some(need) = self.need(now).filter(|need| need.keeps(since, now.mono)) else {
                break;
            };
            self.parts.ledger.waits(&self.walk, Some(need.to_string()));
            told = true;
            tokio::time::sleep(LOOK_PERIOD).await;
        }
        if told {
            self.parts.ledger.waits(&self.walk, None);
        }
    }

    fn need(&self, now: Now) -> Option<Need> {
        let view = {
            let mut coordinator = lock(&self.parts.coordinator);
            let mut views = coordinator.views(now);
            views.find(|view| *view.name == *self.account)
        };
        let Some(view) = view else {
            return Some(Need::Held("unknown"));
        };
        match account_outlook::hold(now, &view).held_by {
            Some(reason) => Some(Need::Held(reason)),
            None => need_of(account_outlook::limits(now, &view), self.share),
        }
    }
}

impl Need {
    /// Whether a call that waits since then goes on waiting.
    fn keeps(&self, since: Mono, now: Mono) -> bool {
        match self {
            Need::Held(_) | Need::Stock(_) => true,
            Need::Pace(_) => now.saturating_since(since) < PACE_WAIT_MAX,
        }
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need::Held(reason) => write!(f, "the account makes no calls: {reason}"),
            Need::Pace(limit) | Need::Stock(limit) => {
                write!(f, "others use the walk's share of the limit {limit}")
            }
        }
    }
}

/// The first limit of which a share is not left; one that does not come back soon before others.
fn need_of(limits: Vec<LimitStatus>, share: f64) -> Option<Need> {
    let taken = |limit: &LimitStatus| !leaves(limit.used, limit.allowed, share);
    let is_pace = |limit: &LimitStatus| u128::from(limit.window_ms) <= PACE_WINDOW_MAX.as_millis();
    let (pace, stock): (Vec<LimitStatus>, Vec<LimitStatus>) =
        limits.into_iter().filter(taken).partition(is_pace);
    let stock = stock.into_iter().map(|limit| Need::Stock(limit.name));
    let pace = pace.into_iter().map(|limit| Need::Pace(limit.name));
    stock.chain(pace).next()
}

/// Whether less than a share of what is allowed is used.
fn leaves(used: u64, allowed: u64, share: f64) -> bool {
    (used as f64) < share * allowed as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_a_limit_is_left_to_live_changes() {
        for (used, allowed, share, holds) in [
            (0, 100, 0.5, true),
            (49, 100, 0.5, true),
            (50, 100, 0.5, false),
            (99, 100, 1.0, true),
            (100, 100, 1.0, false),
            (0, 1, 0.1, true),
            (0, 0, 1.0, false),
        ] {
            assert_eq!(leaves(used, allowed, share), holds, "{used} of {allowed}");
        }
    }

    fn limit(name: &str, window_ms: u64, used: u64) -> LimitStatus {
        LimitStatus {
            name: name.to_owned(),
            allowed: 10,
            used,
            window_ms,
            ..LimitStatus::default()
        }
    }

    #[test]
    fn a_stock_that_is_used_keeps_a_walk_back_and_a_pace_does_so_for_seconds() {
        let second = |used| limit("second", 1_000, used);
        let day = |used| limit("day", 86_400_000, used);
        let need = |second_used, day_used| need_of(vec![second(second_used), day(day_used)], 0.5);
        assert_eq!(need(4, 4), None);
        assert_eq!(need(5, 4), Some(Need::Pace("second".to_owned())));
        assert_eq!(need(5, 5), Some(Need::Stock("day".to_owned())));
        let since = Mono(7);
        let just_before = since.saturating_add(PACE_WAIT_MAX - Duration::from_millis(1));
        let then = since.saturating_add(PACE_WAIT_MAX);
        let pace = Need::Pace("second".to_owned());
        assert!(pace.keeps(since, just_before) && !pace.keeps(since, then));
        for lasting in [Need::Stock("day".to_owned()), Need::Held("throttled")] {
            assert!(lasting.keeps(since, then), "{lasting}");
        }
    }
}
