//! No window of any limit is exceeded, and what the limits allow is used.

mod classes;
mod coordinator;
mod dice;
mod holdings;
mod learning;
mod monitor;
mod planted;
mod provider;
mod simulation;

use std::time::Duration;

use jiff::tz::{Offset, TimeZone};
use syncline_engine::quota::{Limit, Policy};

use self::simulation::{MS, Plan, SECOND, account};

fn limit(name: &str, policy: Policy) -> Limit {
    Limit::new(name, policy)
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
    let offset = Offset::from_seconds(utc_offset_s).expect("an offset within a day");
    let zone = TimeZone::fixed(offset);
    limit(
        "fixed",
        Policy::Fixed {
            limit: calls,
            window,
            zone,
        },
    )
}

/// Hazards that come together, each in a way of its own.
#[derive(Debug, Clone, Copy)]
enum Weather {
    /// Some of everything.
    Mixed,
    /// Shards stall and are lost all the time, calls time out: leases end unreported.
    LostShards,
    /// The process dies often, comes back at once, and commits are slow.
    Crashes,
}

fn plan(limits: &[Limit], weather: Weather, seed: u64, length_s: u64) -> Plan {
    let shards = [1, 2, 3, 5, 8, 16][seed as usize % 6];
    let mut plan = Plan::new(seed, account(limits.to_vec()), shards, length_s * SECOND);
    plan.latency = MS..[20, 200, 2500][seed as usize % 3] * MS;
    plan.wake = MS / 100..[MS / 5, 5 * MS][seed as usize % 2];
    plan.clock_ppm = [-1000, 0, 1000][seed as usize % 3];
    plan.backlog = seed % 4 != 3;
    match weather {
        Weather::Mixed => {
            (plan.timeouts, plan.stalls, plan.losses, plan.crashes) = (50, 5, 15, 20);
            plan.reboots = seed % 2 == 1;
        }
        Weather::LostShards => (plan.timeouts, plan.stalls, plan.losses) = (3, 4, 1),
        Weather::Crashes => {
            (plan.timeouts, plan.crashes) = (10, 3);
            plan.commit = MS..600 * MS;
            plan.down_max = SECOND / 5;
        }
    }
    plan
}

/// Seeds that a normal run takes of each weather.
const SEEDS: u64 = 12;

/// `SYNCLINE_CALLS=1000000` goes on until so many calls were made.
fn assert_never_exceeded(limits: Vec<Limit>, length_s: u64) {
    let wanted = std::env::var("SYNCLINE_CALLS").ok();
    let wanted: usize = wanted.map_or(0, |calls| calls.parse().expect("a number of calls"));
    let (mut all, mut crashed) = (0, 0);
    for seed in 0.. {
        for weather in [Weather::Mixed, Weather::LostShards, Weather::Crashes] {
            let outcome = plan(&limits, weather, seed, length_s).run();
            let (calls, crashes) = (outcome.provider.calls(), outcome.crashes);
            outcome.assert_kept();
            assert!(calls > 0, "{weather:?}, seed {seed}");
            (all, crashed) = (all + calls, crashed + crashes);
        }
        if seed + 1 >= SEEDS && all >= wanted {
            break;
        }
    }
    println!("{limits:?}: {all} calls, {crashed} crashes, none too many");
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

#[test]
fn a_concurrency_limit_alone_is_never_exceeded() {
    let concurrency = limit("concurrency", Policy::Concurrency { limit: 5 });
    assert_never_exceeded(vec![concurrency], 60);
}

#[test]
fn fixed_windows_hold_while_the_wall_clock_steps_and_the_providers_is_a_second_off() {
    for seed in 0..24 {
        let limits = [
            vec![fixed(100, 10, 0)],
            vec![fixed(100, 60, 19_800), sliding(30, 10)],
            vec![fixed(1000, 60, -3600)],
        ];
        let limits = &limits[seed as usize % 3];
        let weather = [Weather::Mixed, Weather::LostShards][seed as usize % 2];
        let mut plan = plan(limits, weather, seed, 900);
        // Wall clocks are kept by NTP, so neither drifts; after a reboot they are not stepped.
        (plan.clock_ppm, plan.reboots, plan.wall_steps) = (0, false, 10);
        plan.wall_ahead_ms = [-990, 0, 990][seed as usize / 2 % 3];
        let outcome = plan.run();
        println!("seed {seed}: {} calls", outcome.provider.calls());
        outcome.assert_kept();
    }
}

#[test]
fn a_held_account_is_called_by_one_probe_at_a_time_and_recovers_by_itself() {
    for seed in 0..24 {
        let limits = [vec![], vec![sliding(100, 1)], vec![sliding(10, 1)]];
        let shards = [1, 3, 16][seed as usize / 3 % 3];
        let limits = account(limits[seed as usize % 3].clone());
        let mut plan = Plan::new(seed, limits, shards, 900 * SECOND);
        plan.limits.max_in_flight = 8;
        (plan.outages, plan.throttles) = (30, 200);
        // No hold is longer than a pause of 5 s or half a minute and a tenth.
        plan.calm_from = 850 * SECOND;
        let outcome = plan.run();
        outcome.assert_kept();
        assert!(outcome.holds > 10, "{} holds", outcome.holds);
        assert_eq!(outcome.sent_while_held, 0, "seed {seed}");
        assert!(
            outcome.most_probes <= 1,
            "seed {seed}: {}",
            outcome.most_probes
        );
        assert!(
            outcome.last_sent > 898 * SECOND,
            "seed {seed}: {}",
            outcome.last_sent
        );
    }
}

/// Under a backlog without faults, `laps` times the whole limit takes at most 1 % longer than
/// the limit's own time for it. Both ends of the measured span are at the same place of a lap,
/// so nothing is won from the burst at the start.
fn assert_used(limits: Vec<Limit>, shards: u16, laps: u64, (calls, lap): (u64, u64)) {
    let mut plan = Plan::new(1, account(limits), shards, (laps + 3) * lap);
    plan.latency = RTT..RTT;
    let outcome = plan.run();
    outcome.assert_kept();
    let arrivals = outcome.provider.sorted();
    let first = calls as usize;
    let last = first + (laps * calls) as usize;
    let took = arrivals[last] - arrivals[first];
    let used = (laps * lap) as f64 / took as f64;
    println!(
        "{} shards: {:.2} % of what the limit allows",
        shards,
        used * 100.0
    );
    assert!(used >= 0.99, "{used}");
}

const RTT: u64 = 50 * MS;

/// A token of a sliding window is away for the round trip and the window: L calls each W + RTT.
fn assert_window_used(calls: u32, window_s: u64, laps: u64) {
    for shards in [1, 4, 16] {
        let lap = (u64::from(calls), window_s * SECOND + RTT);
        assert_used(vec![sliding(calls, window_s)], shards, laps, lap);
    }
}

#[test]
fn a_backlog_uses_ten_a_second() {
    assert_window_used(10, 1, 100);
}

#[test]
fn a_backlog_uses_a_hundred_a_second() {
    assert_window_used(100, 1, 50);
}

#[test]
fn a_backlog_uses_a_hundred_and_ninety_in_ten_seconds() {
    assert_window_used(190, 10, 20);
}

#[test]
fn a_backlog_uses_a_hundred_a_minute() {
    assert_window_used(100, 60, 20);
}

#[test]
fn a_backlog_uses_ten_thousand_a_minute() {
    assert_window_used(10_000, 60, 5);
}

#[test]
fn a_backlog_uses_ten_thousand_an_hour() {
    assert_window_used(10_000, 3600, 3);
}

#[test]
fn a_backlog_uses_a_bucket_at_its_refill_rate() {
    // Tokens restore one after the other while others are in flight: the round trip costs
    // nothing as long as one is always waiting, so a lap is the bucket's own time to fill.
    for shards in [1, 4, 16] {
        assert_used(vec![bucket(100, 2, 1)], shards, 5, (100, 50 * SECOND));
    }
}

#[test]
fn a_backlog_uses_the_tightest_of_several_limits() {
    let limits = vec![sliding(100, 1), sliding(600, 10), bucket(200, 100, 1)];
    for shards in [1, 4, 16] {
        assert_used(limits.clone(), shards, 10, (600, 10 * SECOND + RTT));
    }
}

#[test]
fn a_backlog_uses_every_fixed_window_to_its_limit() {
    let mut plan = Plan::new(1, account(vec![fixed(500, 60, 0)]), 4, 600 * SECOND);
    plan.latency = RTT..RTT;
    let outcome = plan.run();
    outcome.assert_kept();
    // Ten windows of a minute, the first and the last cut.
    assert!(
        outcome.provider.calls() >= 10 * 500,
        "{}",
        outcome.provider.calls()
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let limits = vec![sliding(100, 1), bucket(50, 40, 1)];
    let run = |seed| plan(&limits, Weather::Mixed, seed, 30).run();
    let (once, again) = (run(4), run(4));
    assert_eq!(once.trace, again.trace);
    assert_eq!(once.provider.sorted(), again.provider.sorted());
    assert_ne!(once.trace, run(5).trace);
}

#[test]
fn shards_with_equal_backlogs_get_equal_shares() {
    for calls in [10, 100] {
        let plan = Plan::new(1, account(vec![sliding(calls, 1)]), 16, 200 * SECOND);
        let shares = plan.run().calls_by_shard;
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= most / 10, "{shares:?}");
    }
}

#[test]
fn a_shard_with_demand_never_starves_when_slots_are_fewer_than_shards() {
    let mut limits = account(vec![]);
    limits.max_in_flight = 2;
    let shares = Plan::new(1, limits, 8, 60 * SECOND).run().calls_by_shard;
    let fair = shares.iter().sum::<u64>() / 8;
    assert!(shares.iter().all(|calls| *calls >= fair / 2), "{shares:?}");
}

#[test]
fn without_limits_a_steady_stream_needs_no_messages() {
    let outcome = Plan::new(1, account(vec![]), 4, 20 * SECOND).run();
    let calls = outcome.provider.calls() as u64;
    assert!(calls > 100_000, "{calls}");
    assert!(outcome.messages < 100, "{} messages", outcome.messages);
}
