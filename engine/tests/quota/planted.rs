//! Bugs planted on purpose around windows that are aligned to a calendar and around buckets: the
//! provider's count tells each of them.

use std::time::Duration;

use syncline_engine::quota::Limit;

use crate::simulation::{Plan, WALL_AT_ZERO_MS};
use crate::{Weather, bucket, fixed, plan};

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// After a restart the coordinator begins with full budgets.
    FullAtRestart,
    /// A call is told to have ended when it was sent.
    EndedWhenSent,
    /// A call without an answer is told like one with an answer.
    GraceForgotten,
    /// Grants are delivered twice.
    DoubledGrants,
    /// The zone in which the provider's windows begin is not told.
    ZoneForgotten,
}

/// Seeds within which a bug has to be caught.
const SEEDS: u64 = 24;

/// The weather and the seed in which the provider counts too much.
fn caught(limit: &Limit, near: fn(&mut Plan), bug: Option<Bug>) -> Option<(Weather, u64)> {
    let weathers = [Weather::Mixed, Weather::LostShards, Weather::Crashes];
    let runs = (0..SEEDS).flat_map(|seed| weathers.map(|weather| (weather, seed)));
    runs.into_iter().find(|&(weather, seed)| {
        let mut plan = plan(std::slice::from_ref(limit), weather, seed, 300);
        // Wall clocks are kept by NTP.
        (plan.clock_ppm, plan.reboots, plan.bug) = (0, false, bug);
        near(&mut plan);
        // Some bugs run into an assertion first, or give back more than was lent.
        let outcome = std::panic::catch_unwind(|| plan.run());
        outcome.map_or(true, |outcome| {
            let over = outcome.provider.violations(limit, WALL_AT_ZERO_MS);
            !over.is_empty()
        })
    })
}

/// `near`: what brings the limit's edges near.
fn assert_caught(limit: &Limit, near: fn(&mut Plan), bugs: &[Bug]) {
    assert_eq!(caught(limit, near, None).map(|(_, seed)| seed), None);
    for &bug in bugs {
        let by = caught(limit, near, Some(bug));
        println!("{}, {bug:?}: {by:?}", limit.name);
        assert!(by.is_some(), "{bug:?} is not seen");
    }
}

#[test]
fn what_breaks_a_bucket_is_counted() {
    let bugs = [Bug::FullAtRestart, Bug::GraceForgotten, Bug::DoubledGrants];
    assert_caught(&bucket(20, 10, 1), |_| {}, &bugs);
}

#[test]
fn what_breaks_an_aligned_window_is_counted() {
    let bugs = [
        Bug::FullAtRestart,
        Bug::EndedWhenSent,
        Bug::GraceForgotten,
        Bug::DoubledGrants,
        Bug::ZoneForgotten,
    ];
    let near = |plan: &mut Plan| {
        // A second before ours, as it may be: what a call brings late it brings to the next window.
        (plan.wall_ahead_ms, plan.timeouts) = (990, 4);
        // An open call counts in each window that it touches: short ones hide little.
        plan.limits.call_timeout = Duration::from_secs(1);
    };
    // A quarter of a window beside the hour.
    assert_caught(&fixed(100, 20, 19_805), near, &bugs);
}
