//! No window of any limit is exceeded, and what the limits allow is used.

mod dice;
mod provider;
mod simulation;

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};

use self::simulation::{MS, Plan, SECOND, account};

fn limit(name: &str, policy: Policy) -> Limit {
    Limit {
        name: name.to_owned(),
        policy,
    }
}

fn sliding(calls: u32, window_s: u64) -> Limit {
    let window = Duration::from_secs(window_s);
    limit(
        &format!("{calls}/{window_s}s"),
        Policy::Sliding {
            limit: calls,
            window,
        },
    )
}

fn bucket(burst: u32, refill: u32, period_s: u64) -> Limit {
    let period = Duration::from_secs(period_s);
    limit(
        "bucket",
        Policy::TokenBucket {
            burst,
            refill,
            period,
        },
    )
}

fn fixed(calls: u32, window_s: u64, utc_offset_s: i32) -> Limit {
    let window = Duration::from_secs(window_s);
    limit(
        "fixed",
        Policy::Fixed {
            limit: calls,
            window,
            utc_offset_s,
        },
    )
}

/// Everything that may go wrong at once, over a few seeds and shard counts.
fn assert_never_exceeded(limits: Vec<Limit>, length_s: u64) {
    for seed in 0..12 {
        let shards = [1, 2, 3, 5, 8, 16][seed as usize % 6];
        let mut plan = Plan::new(seed, account(limits.clone()), shards, length_s * SECOND);
        plan.latency = MS..[20, 200, 2500][seed as usize % 3] * MS;
        plan.wake = MS / 100..[MS / 5, 5 * MS][seed as usize % 2];
        plan.timeouts = 50;
        plan.stalls = 5;
        plan.losses = 15;
        plan.crashes = 20;
        plan.reboots = seed % 2 == 1;
        plan.clock_ppm = [-1000, 0, 1000][seed as usize % 3];
        plan.backlog = seed % 4 != 3;
        let outcome = plan.run();
        println!(
            "seed {seed}: {} calls, {} crashes",
            outcome.provider.calls(),
            outcome.crashes
        );
        outcome.assert_kept();
        assert!(outcome.provider.calls() > 0);
    }
}

#[test]
fn ten_a_second_is_never_exceeded() {
    assert_never_exceeded(vec![sliding(10, 1)], 120);
}

#[test]
fn a_hundred_a_second_is_never_exceeded() {
    assert_never_exceeded(vec![sliding(100, 1)], 60);
}

#[test]
fn a_hundred_and_ninety_in_ten_seconds_are_never_exceeded() {
    assert_never_exceeded(vec![sliding(190, 10)], 240);
}

#[test]
fn a_hundred_a_minute_is_never_exceeded() {
    assert_never_exceeded(vec![sliding(100, 60)], 900);
}

#[test]
fn ten_thousand_a_minute_are_never_exceeded() {
    assert_never_exceeded(vec![sliding(10_000, 60)], 200);
}

#[test]
fn ten_thousand_an_hour_are_never_exceeded() {
    assert_never_exceeded(vec![sliding(10_000, 3600)], 9000);
}

#[test]
fn a_bucket_of_a_hundred_refilled_by_two_a_second_never_runs_dry() {
    assert_never_exceeded(vec![bucket(100, 2, 1)], 600);
}

#[test]
fn several_limits_with_concurrency_hold_at_once() {
    let concurrency = limit("concurrency", Policy::Concurrency { limit: 7 });
    let limits = vec![
        sliding(10, 1),
        sliding(190, 20),
        bucket(30, 9, 1),
        concurrency,
    ];
    assert_never_exceeded(limits, 240);
}

#[test]
fn a_rate_limit_with_a_burst_limit_holds_both() {
    assert_never_exceeded(Limit::rate_and_burst(1000, 100).to_vec(), 240);
}
