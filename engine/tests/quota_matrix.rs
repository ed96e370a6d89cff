//! A million calls of each limit, with everything that may go wrong at once: none is exceeded,
//! and without faults a backlog uses at least 99 % of what the limit allows.
//!
//! `cargo test --release -p syncline-engine --test quota_matrix -- --nocapture` prints the table
//! of `docs/design/quota.md`.

#[path = "quota/dice.rs"]
mod dice;
#[path = "quota/monitor.rs"]
mod monitor;
#[path = "quota/provider.rs"]
#[expect(dead_code, reason = "the simulation serves other tests as well")]
mod provider;
#[path = "quota/simulation.rs"]
#[expect(dead_code, reason = "the simulation serves other tests as well")]
mod simulation;

use std::time::Duration;

use syncline_engine::quota::{Limit, Policy};

use self::simulation::{MS, Plan, SECOND, WALL_AT_ZERO_MS, account};

/// Calls of one limit over all numbers of shards.
const CALLS: u64 = 1_000_000;
const SHARDS: u64 = 16;
const RTT: u64 = 50 * MS;

fn sliding(limit: u32, window_s: u64) -> Policy {
    let window = Duration::from_secs(window_s);
    Policy::Sliding { limit, window }
}

/// Calls that the limit allows in a lap, and the time of one: a token of a window is away for
/// the window and the round trip, a bucket fills while others are in flight.
fn lap(policy: &Policy) -> (u64, u64) {
    match policy {
        Policy::Sliding { limit, window } => (u64::from(*limit), window.as_nanos() as u64 + RTT),
        Policy::TokenBucket {
            burst,
            refill,
            period,
        } => {
            let fill = period.as_nanos() as u64 * u64::from(*burst) / u64::from(*refill);
            (u64::from(*burst), fill)
        }
        Policy::Fixed { .. } | Policy::Concurrency { .. } => unreachable!("not in the matrix"),
    }
}

/// Restarts, lost and stalled shards, time-outs, late arrivals, a clock that is off and steps,
/// skewed demand on every fourth number of shards; beside a cap on concurrency.
fn assert_never_exceeded(name: &str, policy: &Policy) {
    let concurrency = Limit::new("concurrency", Policy::Concurrency { limit: 40 });
    let (calls_a_lap, lap_ns) = lap(policy);
    let (mut calls, mut crashes, mut violations) = (0, 0, 0);
    for shards in 1..=SHARDS {
        let limits = vec![Limit::new(name, policy.clone()), concurrency.clone()];
        let mut plan = Plan::new(shards, account(limits), shards as u16, u64::MAX);
        plan.calls_max = CALLS.div_ceil(SHARDS);
        // Hazards by laps, so that windows of an hour fill up and those of a second meet many.
        plan.hazards_every = SECOND / 10 * (lap_ns / SECOND).max(1);
        plan.latency = MS..[200 * MS, 20 * MS, 1500 * MS][shards as usize % 3];
        plan.wake = MS / 100..2 * MS;
        plan.clock_ppm = [-1000, 0, 1000][shards as usize % 3];
        plan.backlog = shards % 4 != 3;
        (plan.timeouts, plan.stalls, plan.losses) = (200, 7, 19);
        (plan.crashes, plan.wall_steps) = (23, 31);
        plan.reboots = shards % 2 == 1;
        let outcome = plan.run();
        calls += outcome.provider.calls();
        crashes += outcome.crashes;
        for limit in &outcome.plan.limits.limits {
            let found = outcome.provider.violations(limit, WALL_AT_ZERO_MS);
            violations += found.len();
            assert!(
                found.is_empty(),
                "{shards} shards, {}: {:?}",
                limit.name,
                found[0]
            );
        }
    }
    println!("{name}: {calls} calls, {crashes} restarts, {violations} violations");
    assert!(
        calls as u64 >= CALLS,
        "{calls} calls of a lap of {calls_a_lap}"
    );
}

fn assert_used(name: &str, policy: &Policy) {
    let (calls_a_lap, lap_ns) = lap(policy);
    let laps = (20_000 / calls_a_lap).clamp(3, 200);
    for shards in [1, 4, 16] {
        let limits = vec![Limit::new(name, policy.clone())];
        let mut plan = Plan::new(1, account(limits), shards, (laps + 3) * lap_ns);
        plan.latency = RTT..RTT;
        let outcome = plan.run();
        let arrivals = outcome.provider.sorted();
        let first = calls_a_lap as usize;
        let last = first + (laps * calls_a_lap) as usize;
        let used = (laps * lap_ns) as f64 / (arrivals[last] - arrivals[first]) as f64;
        println!("{name}: {shards} shards use {:.2} %", used * 100.0);
        assert!(used >= 0.99, "{used}");
    }
}

fn check(name: &str, policy: Policy) {
    assert_never_exceeded(name, &policy);
    assert_used(name, &policy);
}

#[test]
fn ten_a_second() {
    check("10/s", sliding(10, 1));
}

#[test]
fn a_hundred_a_second() {
    check("100/s", sliding(100, 1));
}

#[test]
fn a_hundred_and_ninety_in_ten_seconds() {
    check("190/10 s", sliding(190, 10));
}

#[test]
fn a_hundred_a_minute() {
    check("100/min", sliding(100, 60));
}

#[test]
fn ten_thousand_a_minute() {
    check("10,000/min", sliding(10_000, 60));
}

#[test]
fn ten_thousand_an_hour() {
    check("10,000/h", sliding(10_000, 3600));
}

#[test]
fn a_bucket_of_a_hundred_refilled_by_two_a_second() {
    let bucket = Policy::TokenBucket {
        burst: 100,
        refill: 2,
        period: Duration::from_secs(1),
    };
    check("bucket 100 + 2/s", bucket);
}
