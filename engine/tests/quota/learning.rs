//! What the provider says, and what its refusals teach.

use std::time::Duration;

use syncline_engine::quota::{
    AccountId, AccountView, Coordinator, FromShard, Gate, HoldReason, IN_FLIGHT, Learned,
    LearnedFrom, LeaseId, Limit, Observation, ShardId, Start, Trouble,
};
use syncline_engine::time::{Mono, Now, WallMs};

use crate::simulation::{MS, Plan, SECOND, WALL_AT_ZERO_MS, account};
use crate::sliding;

const A: ShardId = ShardId(0);
const ACCOUNT: AccountId = AccountId(0);

fn at(ms: u64) -> Now {
    Now {
        mono: Mono(ms * MS),
        wall: WallMs(WALL_AT_ZERO_MS + ms as i64),
    }
}

fn coordinator(limits: Vec<Limit>) -> Coordinator {
    let start = Start {
        now: at(0),
        shards: 1,
        last_lease: LeaseId(0),
        seed: 1,
    };
    let mut coordinator = Coordinator::new(start, vec![account(limits)]).expect("valid limits");
    coordinator.handle(at(0), A, FromShard::Connected);
    coordinator
}

fn view(coordinator: &mut Coordinator, ms: u64) -> AccountView {
    while coordinator.poll().is_some() {}
    coordinator.tick(at(ms));
    while coordinator.poll().is_some() {}
    coordinator.views(at(ms)).next().expect("one account")
}

fn word(limit: &Limit, ms: u64) -> Observation {
    Observation {
        limit: limit.name.as_str().into(),
        max: None,
        used: None,
        remaining: None,
        resets_at: None,
        server_time: None,
        sent_at: at(ms - 50).mono,
        answered_at: at(ms).mono,
    }
}

fn hear(coordinator: &mut Coordinator, ms: u64, observation: Observation) {
    let account = ACCOUNT;
    let word = FromShard::Observed {
        account,
        observation,
    };
    coordinator.handle(at(ms), A, word);
}

fn refuse(coordinator: &mut Coordinator, ms: u64, trouble: Trouble) {
    let trouble = FromShard::Trouble {
        account: ACCOUNT,
        trouble,
        probe: false,
        last_success: None,
    };
    coordinator.handle(at(ms), A, trouble);
}

#[test]
fn alone_on_an_account_that_tells_its_counts_nothing_is_lost() {
    for shards in [1, 4, 16] {
        let mut plan = Plan::new(1, account(vec![sliding(100, 1)]), shards, 60 * SECOND);
        plan.tells = true;
        let outcome = plan.run();
        outcome.assert_kept();
        let allowed = (100.0 / 1.05 * 60.0) as usize;
        let calls = outcome.provider.calls();
        assert!(calls >= allowed * 99 / 100, "{calls} of {allowed}");
        let view = outcome.view.expect("one account");
        assert_eq!(view.limits[0].others, 0);
    }
}

#[test]
fn other_applications_are_seen_and_left_their_part() {
    for (limit, every_ms, window_s) in [(sliding(100, 1), 25, 1), (sliding(190, 10), 100, 10)] {
        for shards in [1, 4, 16] {
            let mut plan = Plan::new(3, account(vec![limit.clone()]), shards, 120 * SECOND);
            plan.tells = true;
            plan.others = every_ms * MS * 9 / 10..every_ms * MS * 11 / 10;
            let outcome = plan.run();
            // They are there before anything is known of them: of the first two windows they
            // have their part beside our whole, and the second shows it.
            let over = outcome.provider.violations(&limit, WALL_AT_ZERO_MS);
            let last = over.last().expect("two windows at least").0;
            assert!(last < 3 * window_s * SECOND, "{}: {over:?}", limit.name);
            let total = outcome.provider.calls() as u64 + 120_000 / every_ms;
            let allowed = if window_s == 1 { 100 * 120 } else { 19 * 120 };
            assert!(
                total * 10 >= allowed * 8,
                "{total} of {allowed} by all together"
            );
        }
    }
}

#[test]
fn a_day_that_was_spent_from_before_our_first_call_is_not_spent_again() {
    let limit = crate::fixed(1000, 86_400, 0);
    let mut coordinator = coordinator(vec![limit.clone()]);
    let told = Observation {
        max: Some(1000),
        remaining: Some(300),
        ..word(&limit, 1000)
    };
    hear(&mut coordinator, 1000, told);
    let limit = view(&mut coordinator, 1000).limits.remove(0);
    // 700, an eighth and one: they are still at it.
    assert_eq!((limit.others, limit.lendable), (788, 212));
    let reset = limit.next_restore;
    assert_eq!(reset, None, "nothing of ours comes back");
    let tomorrow = 86_400_000;
    assert_eq!(view(&mut coordinator, tomorrow).limits[0].lendable, 1000);
}

#[test]
fn a_smaller_limit_is_believed_and_a_larger_one_is_capped_by_the_configuration() {
    let limit = sliding(100, 10);
    let mut first = coordinator(vec![limit.clone()]);
    let says = |max| Observation {
        max: Some(max),
        used: Some(0),
        ..word(&limit, 1000)
    };
    hear(&mut first, 1000, says(60));
    assert_eq!(view(&mut first, 1000).limits[0].allowed, 60);
    let learned = first.take_learned();
    let expected = Learned {
        account: "salesforce".to_owned(),
        limit: limit.name.clone(),
        from: LearnedFrom::Provider,
        tokens: Some(60),
    };
    assert_eq!(learned, [expected]);
    assert_eq!(first.take_learned(), [], "once");

    let mut next = coordinator(vec![limit.clone()]);
    next.recall(at(0), &learned);
    assert_eq!(view(&mut next, 0).limits[0].lendable, 60);
    assert_eq!(next.take_learned(), [], "the log has it");
    hear(&mut next, 1000, says(5000));
    assert_eq!(view(&mut next, 1000).limits[0].lendable, 100);
    assert_eq!(next.take_learned()[0].tokens, None, "no longer so");
}

#[test]
fn a_refusal_without_a_word_halves_short_windows_which_regrow_steadily() {
    let limits = vec![sliding(160, 10), sliding(10_000, 3600)];
    let mut coordinator = coordinator(limits);
    let until = Some(at(1500).mono);
    refuse(&mut coordinator, 1000, Trouble::Throttled { until });
    // Nothing is in use: a quarter counts as the pace, and is halved.
    let allowed =
        |view: AccountView| -> Vec<u32> { view.limits.iter().map(|limit| limit.allowed).collect() };
    assert_eq!(allowed(view(&mut coordinator, 1000)), [20, 10_000]);
    refuse(&mut coordinator, 1100, Trouble::Throttled { until });
    assert_eq!(
        allowed(view(&mut coordinator, 1100)),
        [20, 10_000],
        "the same pause"
    );
    let learned = coordinator.take_learned();
    assert_eq!(learned.len(), 1);
    assert_eq!(
        (learned[0].from, learned[0].tokens),
        (LearnedFrom::Refusals, Some(20))
    );
    assert_eq!(allowed(view(&mut coordinator, 31_500))[0], 50);
    assert_eq!(allowed(view(&mut coordinator, 200_000))[0], 160);
    assert_eq!(coordinator.take_learned()[0].tokens, None);
}

#[test]
fn a_refusal_stops_no_account_for_longer_than_its_pause() {
    let limits = vec![sliding(100, 1), sliding(4000, 60)];
    let mut coordinator = coordinator(limits);
    let mut lease = 0;
    for second in 0..20 {
        let now = second * 1000;
        let want = |permits, lease| FromShard::Want {
            account: ACCOUNT,
            class: Default::default(),
            permits,
            urgent: 0,
            records: permits,
            slots: 8,
            seen: LeaseId(lease),
        };
        coordinator.handle(at(now), A, want(60, lease));
        view(&mut coordinator, now);
        lease += 1;
        coordinator.handle(at(now), A, want(0, lease));
        let completed = FromShard::Completed {
            account: ACCOUNT,
            lease: LeaseId(lease),
            count: 60,
            completed_at: at(now + 10).mono,
            ended: syncline_engine::quota::Ended::Answered,
        };
        coordinator.handle(at(now + 10), A, completed);
    }
    let before = view(&mut coordinator, 19_500);
    assert_eq!(before.limits[1].restoring, 1200);

    let pause = |ms: u64| Trouble::Throttled {
        until: Some(at(ms).mono),
    };
    let lendable = |view: AccountView| -> Vec<u64> {
        view.limits.iter().map(|limit| limit.lendable).collect()
    };
    refuse(&mut coordinator, 19_500, pause(21_500));
    // The second's window is halved, and a sixteenth is back; the minute's may be as it is.
    assert_eq!(lendable(view(&mut coordinator, 21_500)), [36, 2800]);
    refuse(&mut coordinator, 21_500, pause(23_500));
    assert_eq!(lendable(view(&mut coordinator, 23_500)), [10, 2800]);
    refuse(&mut coordinator, 23_500, pause(25_500));
    // Twice more, and it is the minute's: half of what was in use, from now on.
    assert_eq!(lendable(view(&mut coordinator, 23_500)), [1, 600]);
    assert_eq!(lendable(view(&mut coordinator, 25_500)), [7, 600]);
    // What was used before has come back by then, and of the limit two sixteenths.
    assert_eq!(lendable(view(&mut coordinator, 145_000)), [100, 1100]);
}

#[test]
fn without_windows_a_refusal_halves_the_calls_in_flight() {
    let mut limits = account(vec![]);
    limits.max_in_flight = 32;
    let start = Start {
        now: at(0),
        shards: 1,
        last_lease: LeaseId(0),
        seed: 1,
    };
    let mut coordinator = Coordinator::new(start, vec![limits]).expect("valid limits");
    coordinator.handle(at(0), A, FromShard::Connected);
    let want = FromShard::Want {
        account: ACCOUNT,
        class: Default::default(),
        permits: 0,
        urgent: 0,
        records: 0,
        slots: 64,
        seen: LeaseId(0),
    };
    coordinator.handle(at(0), A, want);
    assert_eq!(view(&mut coordinator, 0).slots_held, 32);
    refuse(&mut coordinator, 1000, Trouble::Throttled { until: None });
    assert_eq!(view(&mut coordinator, 1000).slots, 16);
    let learned = coordinator.take_learned();
    assert_eq!(
        (&*learned[0].limit, learned[0].tokens),
        (IN_FLIGHT, Some(16))
    );
    assert_eq!(view(&mut coordinator, 9000).slots, 32);
}

#[test]
fn a_limit_the_provider_speaks_of_is_not_guessed_at() {
    let limit = sliding(160, 10);
    let mut coordinator = coordinator(vec![limit.clone()]);
    let told = Observation {
        used: Some(40),
        ..word(&limit, 900)
    };
    hear(&mut coordinator, 900, told);
    let until = Some(at(1500).mono);
    refuse(&mut coordinator, 1000, Trouble::Throttled { until });
    let limit = view(&mut coordinator, 1000).limits.remove(0);
    assert_eq!(limit.allowed, 160);
    assert_eq!(limit.others, 40 + 5 + 1);
}

#[test]
fn a_spent_day_parks_the_account_until_its_midnight() {
    let day = Duration::from_secs(86_400).as_millis() as i64;
    let to_midnight = (day - WALL_AT_ZERO_MS.rem_euclid(day)) as u64;
    let ten_before = to_midnight - 10 * 60_000;
    let mut coordinator = coordinator(vec![crate::fixed(1000, 86_400, 0)]);
    refuse(
        &mut coordinator,
        ten_before,
        Trouble::QuotaSpent { until: None },
    );
    let Gate::Held { until, reason } = view(&mut coordinator, ten_before).gate else {
        panic!("parked");
    };
    assert_eq!(reason, HoldReason::QuotaSpent);
    let after_midnight = until.0 / MS - to_midnight;
    assert!(
        (1000..1010).contains(&after_midnight),
        "{after_midnight} ms"
    );
}

#[test]
fn a_quota_that_we_spent_ourselves_shows_when_it_comes_back() {
    let mut coordinator = coordinator(vec![crate::fixed(3, 86_400, 0)]);
    let want = |permits| FromShard::Want {
        account: ACCOUNT,
        class: Default::default(),
        permits,
        urgent: 0,
        records: permits,
        slots: 3,
        seen: LeaseId(u64::MAX),
    };
    coordinator.handle(at(0), A, want(3));
    assert_eq!(view(&mut coordinator, 0).parked_until, None);
    let completed = FromShard::Completed {
        account: ACCOUNT,
        lease: LeaseId(1),
        count: 3,
        completed_at: at(100).mono,
        ended: syncline_engine::quota::Ended::Answered,
    };
    coordinator.handle(at(100), A, completed);
    coordinator.handle(at(100), A, want(1));
    let shown = view(&mut coordinator, 100);
    assert_eq!(shown.gate, Gate::Open, "it waits, it does not fail");
    let parked = shown.parked_until.expect("parked");
    let day = 86_400_000;
    let midnight = day - WALL_AT_ZERO_MS.rem_euclid(day);
    assert!((parked.0 / MS) as i64 - midnight < 1010, "{parked:?}");
    assert_eq!(shown.limits[0].used_up_at, Some(at(100).mono));
}

#[test]
fn a_provider_that_is_closed_for_a_while_teaches_nothing_of_its_limits() {
    let mut coordinator = coordinator(vec![sliding(160, 10)]);
    let until = at(60_000).mono;
    let closed = Trouble::Maintenance { until: Some(until) };
    refuse(&mut coordinator, 1000, closed);
    let shown = view(&mut coordinator, 1000);
    let reason = HoldReason::Throttled;
    assert_eq!(shown.gate, Gate::Held { until, reason });
    assert_eq!(shown.limits[0].allowed, 160);
    assert_eq!(view(&mut coordinator, 60_000).gate, Gate::Open);
}
