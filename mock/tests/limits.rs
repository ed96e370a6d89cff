//! Limits against a count that looks at every call again.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::time::Duration;

use http::Method;
use proptest::prelude::*;
use syncline_mock::{Account, AccountConfig, Answer, Request};

/// Whether the call at `now` fits, by looking through all that were taken.
fn fits(taken: &[u64], now: u64, count: usize, window: u64) -> bool {
    taken.iter().filter(|at| now - **at < window).count() < count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_account_refuses_exactly_the_calls_that_do_not_fit(
        limits in prop::collection::vec((1_usize..6, 1_u64..40), 1..4),
        gaps in prop::collection::vec(0_u64..12, 1..200),
    ) {
        let mut account = Account::new(AccountConfig {
            limits: limits
                .iter()
                .map(|(count, window)| format!("{count}/{window}ms").parse().unwrap())
                .collect(),
            ..AccountConfig::default()
        });
        let request = Request::bare(Method::GET, "/contact/r1");
        let (mut now, mut taken, mut over) = (0, Vec::new(), vec![0; limits.len()]);
        let mut refused = 0;
        for gap in gaps {
            now += gap;
            let unfit: Vec<usize> = (0..limits.len())
                .filter(|at| !fits(&taken, now, limits[*at].0, limits[*at].1))
                .collect();
            for at in &unfit {
                over[*at] += 1;
            }
            let Answer::Reply(reply) = account.handle(Duration::from_millis(now), &request) else {
                panic!("reset");
            };
            if unfit.is_empty() {
                taken.push(now);
                prop_assert_eq!(reply.status, 404);
            } else {
                refused += 1;
                prop_assert_eq!(reply.status, 429);
                prop_assert_eq!(reply.retry_after_s, Some(1));
            }
        }
        let counted = account.violations();
        prop_assert_eq!(counted.total, refused);
        let by_limit: Vec<u64> = counted.by_limit.iter().map(|(_, count)| *count).collect();
        prop_assert_eq!(by_limit, over);
    }
}
