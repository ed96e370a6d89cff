//! Quota that live changes leave: walks make no call while they need it.

use std::time::Duration;

use super::super::account_outlook;
use super::super::clock;
use super::super::coordinator::{SharedCoordinator, lock};

/// Between two looks at an account that has nothing to spare.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// What a walk may use of an account's limits.
#[derive(Debug)]
pub(super) struct Spare {
    coordinator: SharedCoordinator,
    account: String,
    /// Of each limit, 0 to 1.
    share: f64,
}

impl Spare {
    pub(super) fn new(coordinator: SharedCoordinator, account: &str, share: f64) -> Spare {
        Spare {
            coordinator,
            account: account.to_owned(),
            share,
        }
    }

    /// Waits until less than the share of every limit is used and calls may go at all.
    pub(super) async fn wait(&self) {
        while !self.is_there() {
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    fn is_there(&self) -> bool {
        let now = clock::now();
        let view = {
            let mut coordinator = lock(&self.coordinator);
            let mut views = coordinator.views(now);
            views.find(|view| *view.name == *self.account)
        };
        view.is_some_and(|view| {
            let held = account_outlook::hold(now, &view).held_by;
            let limits = account_outlook::limits(now, &view);
            held.is_none()
                && limits
                    .iter()
                    .all(|limit| leaves(limit.used, limit.allowed, self.share))
        })
    }
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
}
