//! Limits that count some calls only, or some for more than others.

use std::time::Duration;

use jiff::tz::TimeZone;
use syncline_engine::quota::{
    AccountId, Coordinator, CostClass, CostClasses, FromShard, LeaseId, Limit, POLL_TAG, Policy,
    RecoveredLease, Reserve, ShardId, Start, ToShard, Weights,
};
use syncline_engine::time::{Mono, Now, WallMs};

use crate::simulation::{MS, Plan, SECOND, account};
use crate::{Weather, limit, plan, sliding};

fn only(tag: &str, limit: Limit) -> Limit {
    let mut limit = limit;
    limit.weights.only = vec![tag.to_owned()];
    limit
}

fn except(tag: &str, limit: Limit) -> Limit {
    let mut limit = limit;
    limit.weights.except = vec![tag.to_owned()];
    limit
}

fn costing(limit: Limit, costs: &[(&str, u32)]) -> Limit {
    let costs = costs.iter().map(|&(tag, cost)| (tag.to_owned(), cost));
    Limit {
        weights: Weights {
            costs: costs.collect(),
            ..Weights::default()
        },
        ..limit
    }
}

/// As HubSpot counts: searches in a window of their own, not in the burst; all in the day.
fn with_searches() -> Vec<Limit> {
    vec![
        except("search", sliding(190, 10)),
        only("search", sliding(5, 1)),
        sliding(20_000, 3600),
    ]
}

/// As Pipedrive counts: tokens by the kind of call.
fn with_costs() -> Vec<Limit> {
    let tokens = limit(
        "tokens",
        Policy::Sliding {
            limit: 200,
            window: Duration::from_secs(10),
        },
    );
    let bucket = crate::bucket(120, 20, 1);
    vec![
        costing(
            tokens,
            &[("create", 5), ("update", 5), ("search", 40), ("read", 1)],
        ),
        costing(bucket, &[("create", 3), ("search", 7)]),
    ]
}

fn kinds() -> Vec<Vec<&'static str>> {
    vec![
        vec!["update"],
        vec!["lookup", "search"],
        vec!["create"],
        vec!["read"],
    ]
}

fn assert_never_exceeded(limits: &[Limit], length_s: u64) {
    for weather in [Weather::Mixed, Weather::LostShards, Weather::Crashes] {
        for seed in 0..6 {
            let mut plan = plan(limits, weather, seed, length_s);
            plan.kinds = kinds();
            let outcome = plan.run();
            outcome.assert_kept();
            assert!(outcome.provider.calls() > 0);
        }
    }
}

#[test]
fn a_window_of_searches_and_one_of_all_others_are_never_exceeded() {
    assert_never_exceeded(&with_searches(), 240);
}

#[test]
fn limits_that_cost_by_the_kind_of_call_are_never_exceeded() {
    assert_never_exceeded(&with_costs(), 240);
}

#[test]
fn a_concurrency_limit_of_some_calls_is_never_exceeded_and_holds_no_others_back() {
    let slow = limit("slow", Policy::Concurrency { limit: 3 });
    let limits = [only("search", slow)];
    assert_never_exceeded(&limits, 60);
    let mut plan = Plan::new(1, account(limits.to_vec()), 4, 20 * SECOND);
    plan.kinds = vec![vec!["lookup", "search"], vec!["update"]];
    let outcome = plan.run();
    outcome.assert_kept();
    let searches = outcome.provider.calls_of(0);
    // Three at a time, each away for the 50 ms of its call and up to as long until a slot is
    // free, all of which the others keep busy.
    assert!((580..1200).contains(&searches), "{searches}");
    assert!(
        outcome.provider.calls_of(1) > 10 * searches,
        "no limit holds them back"
    );
}

#[test]
fn a_backlog_of_both_uses_the_window_of_searches_and_the_burst() {
    for shards in [1, 4, 16] {
        let limits = vec![
            except("search", sliding(190, 10)),
            only("search", sliding(5, 1)),
        ];
        let mut plan = Plan::new(1, account(limits), shards, 400 * SECOND);
        plan.kinds = kinds();
        let outcome = plan.run();
        outcome.assert_kept();
        let (rest, searches) = (0..4).fold((0, 0), |(rest, searches), kind| {
            let calls = outcome.provider.calls_of(kind);
            if kind == 1 {
                (rest, searches + calls)
            } else {
                (rest + calls, searches)
            }
        });
        let allowed = |calls: f64, window: f64| (calls / (window + 0.05) * 400.0) as usize;
        assert!(
            searches >= allowed(5.0, 1.0) * 98 / 100,
            "{searches} searches"
        );
        assert!(rest >= allowed(190.0, 10.0) * 98 / 100, "{rest} others");
    }
}

#[test]
fn dear_calls_get_their_share_of_the_tokens_beside_cheap_ones() {
    for shards in [1, 4] {
        let mut plan = Plan::new(1, account(with_costs()), shards, 900 * SECOND);
        plan.kinds = kinds();
        let outcome = plan.run();
        outcome.assert_kept();
        let calls: Vec<usize> = (0..4).map(|kind| outcome.provider.calls_of(kind)).collect();
        assert!(calls.iter().all(|calls| *calls >= 50), "{calls:?}");
    }
}

#[test]
fn hours_of_a_named_zone_hold_while_the_wall_clock_steps() {
    for seed in 0..6 {
        let zone = TimeZone::get("Asia/Kathmandu").expect("a zone");
        let window = Duration::from_secs(900);
        let hourly = Policy::Fixed {
            limit: 500,
            window,
            zone,
        };
        let limits = [limit("hourly", hourly)];
        let mut plan = plan(&limits, Weather::Mixed, seed, 4 * 900);
        (plan.clock_ppm, plan.reboots, plan.wall_steps) = (0, false, 30);
        plan.wall_ahead_ms = [-990, 0, 990][seed as usize % 3];
        let outcome = plan.run();
        outcome.assert_kept();
        assert!(
            outcome.provider.calls() > 500,
            "{}",
            outcome.provider.calls()
        );
    }
}

const A: ShardId = ShardId(0);
const ACCOUNT: AccountId = AccountId(0);

fn now(ms: u64) -> Now {
    Now {
        mono: Mono(ms * MS),
        wall: WallMs(1_795_000_000_000 + ms as i64),
    }
}

fn coordinator(limits: Vec<Limit>) -> Coordinator {
    let start = Start {
        now: now(0),
        shards: 1,
        last_lease: LeaseId(0),
        seed: 1,
    };
    let mut coordinator = Coordinator::new(start, vec![account(limits)]).expect("valid limits");
    coordinator.handle(now(0), A, FromShard::Connected);
    coordinator
}

/// Permits lent for a wish of this class, of which so many are urgent.
fn lent(coordinator: &mut Coordinator, class: CostClass, permits: u32, urgent: u32) -> u32 {
    let want = FromShard::Want {
        account: ACCOUNT,
        class,
        permits,
        urgent,
        records: permits,
        slots: 1,
        seen: LeaseId(u64::MAX),
    };
    coordinator.handle(now(0), A, want);
    let told = std::iter::from_fn(|| coordinator.poll());
    told.map(|(_, word)| match word {
        ToShard::Grant { permits, .. } => permits,
        _ => 0,
    })
    .sum()
}

#[test]
fn what_is_kept_for_urgent_operations_is_lent_to_them_alone() {
    let mut limit = sliding(100, 60);
    limit.reserve = Reserve {
        others_permille: 100,
        urgent_permille: 200,
        ..Reserve::default()
    };
    let mut coordinator = coordinator(vec![limit]);
    assert_eq!(lent(&mut coordinator, CostClass::ANY, 1000, 0), 70);
    assert_eq!(lent(&mut coordinator, CostClass::ANY, 1000, 5), 5);
    assert_eq!(lent(&mut coordinator, CostClass::ANY, 1000, 1000), 15);
    let view = coordinator.views(now(0)).next().expect("one account");
    assert_eq!(view.limits[0].available, 10, "for other applications");
    assert_eq!(view.limits[0].used_ratio, 1.0);
}

#[test]
fn what_is_kept_for_polls_is_lent_to_them_alone_and_what_they_hold_is_part_of_it() {
    let mut limit = sliding(100, 60);
    limit.reserve = Reserve {
        urgent_permille: 50,
        polls_permille: 100,
        ..Reserve::default()
    };
    let polls = CostClasses::compile(&[limit.clone()]).class_of(&[POLL_TAG]);
    let mut coordinator = coordinator(vec![limit]);
    assert_eq!(lent(&mut coordinator, polls, 4, 0), 4);
    let any = lent(&mut coordinator, CostClass::ANY, 1000, 0);
    assert_eq!(
        any,
        100 - 10 - 5,
        "all but what is kept, of which polls have four"
    );
    let urgent = lent(&mut coordinator, CostClass::ANY, 1000, 1000);
    assert_eq!(urgent, 5);
    let view = coordinator.views(now(0)).next().expect("one account");
    assert_eq!((view.limits[0].kept, view.limits[0].lendable), (6, 0));
    assert_eq!(lent(&mut coordinator, polls, 1000, 0), 6);
    let view = coordinator.views(now(0)).next().expect("one account");
    assert_eq!((view.limits[0].kept, view.limits[0].available), (0, 0));
}

#[test]
fn a_shard_that_does_not_tell_calls_apart_pays_for_the_dearest() {
    let mut coordinator = coordinator(with_costs());
    assert_eq!(lent(&mut coordinator, CostClass::ANY, 1000, 0), 200 / 40);
}

#[test]
fn a_class_of_limits_that_have_changed_is_lent_nothing() {
    let mut coordinator = coordinator(with_searches());
    let classes = std::iter::from_fn(|| coordinator.poll()).find_map(|(_, word)| match word {
        ToShard::Account { classes, .. } => Some(classes),
        _ => None,
    });
    let search = classes.expect("told").class_of(&["lookup", "search"]);
    assert_eq!(lent(&mut coordinator, search, 2, 0), 2);
    let changed = account(vec![
        only("bulk", sliding(6, 1)),
        only("search", sliding(5, 1)),
    ]);
    coordinator
        .reconfigure(now(0), vec![changed])
        .expect("valid limits");
    assert_eq!(
        lent(&mut coordinator, search, 2, 0),
        0,
        "it means something else now"
    );
    let view = coordinator.views(now(0)).next().expect("one account");
    let out: Vec<u64> = view.limits.iter().map(|limit| limit.leased).collect();
    assert_eq!(
        out,
        [2, 2],
        "what is lent may pay for any call until it is back"
    );
}

#[test]
fn a_lease_in_the_log_counts_where_its_calls_did_and_an_unlabelled_one_everywhere() {
    let available = |label: &str| -> Vec<i64> {
        let mut coordinator = coordinator(with_searches());
        let lease = RecoveredLease {
            account: "salesforce".to_owned(),
            label: label.to_owned(),
            permits: 2,
            usable_until: now(5000).mono,
            wall_until: now(5000).wall,
            ended_by: None,
            same_boot: true,
        };
        coordinator.restore(now(4000), &[lease]);
        let view = coordinator.views(now(4000)).next().expect("one account");
        view.limits.iter().map(|limit| limit.available).collect()
    };
    assert_eq!(available("search"), [190, 3, 19_998]);
    assert_eq!(available("-"), [188, 5, 19_998]);
    for label in ["", "a tag of old"] {
        assert_eq!(available(label), [188, 3, 19_998], "{label:?}");
    }
}
