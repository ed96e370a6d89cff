//! What each fault does to a call, and that a seed gives the same run twice.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use syncline_mock::{Account, AccountConfig, Answer, Reply, Request, Scenario};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn faulty(faults: &str) -> Account {
    Account::new(AccountConfig {
        faults: faults.parse().unwrap(),
        ..AccountConfig::default()
    })
}

fn create(account: &mut Account, now: Duration) -> Answer {
    let body = json!({"external_id": "c-1"});
    account.handle(now, &Request::json(Method::POST, "/contact", &body))
}

fn reply(answer: Answer) -> Reply {
    match answer {
        Answer::Reply(reply) => reply,
        Answer::Reset => panic!("reset"),
    }
}

fn found(account: &mut Account, now: Duration) -> usize {
    let request = Request::bare(Method::GET, "/contact?external_id=c-1");
    let body: Value = serde_json::from_slice(&reply(account.handle(now, &request)).body).unwrap();
    body["results"].as_array().unwrap().len()
}

#[test]
fn a_reset_before_applies_nothing_and_a_reset_after_applies_it() {
    for (faults, records) in [("reset_before=1", 0), ("reset_after=1", 1)] {
        let mut account = faulty(faults);
        assert_eq!(create(&mut account, ms(0)), Answer::Reset);
        assert_eq!(account.records().count(), records, "{faults}");
        let call = account.journal().get(1).unwrap();
        assert_eq!((call.status, call.applied), (0, records == 1), "{faults}");
        assert!(call.done.is_some());
    }
}

#[test]
fn a_server_error_applies_nothing_unless_it_comes_after() {
    for (faults, records) in [("5xx=1", 0), ("5xx_after=1", 1)] {
        let mut account = faulty(faults);
        let mut statuses: Vec<_> = (0..64)
            .map(|n| reply(create(&mut account, ms(n))).status)
            .collect();
        statuses.sort_unstable();
        statuses.dedup();
        assert_eq!(statuses, [500, 502, 503, 504], "{faults}");
        assert_eq!(account.records().count(), records * 64, "{faults}");
    }
}

#[test]
fn an_injected_429_says_when_to_come_back_and_is_no_violation() {
    let mut account = faulty("429=1,retry_after=1500ms");
    let reply = reply(create(&mut account, ms(0)));
    assert_eq!((reply.status, reply.retry_after_s), (429, Some(2)));
    assert_eq!(account.violations().total, 0);
    assert_eq!(account.records().count(), 0);
}

#[test]
fn a_call_over_a_limit_says_when_there_is_room_again() {
    let limits = vec!["1/10s".parse().unwrap()];
    let mut account = Account::new(AccountConfig {
        limits,
        ..AccountConfig::default()
    });
    assert_eq!(reply(create(&mut account, ms(0))).status, 201);
    let refused = reply(create(&mut account, ms(7_500)));
    assert_eq!((refused.status, refused.retry_after_s), (429, Some(3)));
    assert_eq!(reply(create(&mut account, ms(10_000))).status, 201);
    assert_eq!(account.violations().total, 1);
}

#[test]
fn garbage_is_a_200_that_is_no_answer() {
    let mut account = faulty("garbage=1");
    let reply = reply(create(&mut account, ms(0)));
    assert_eq!((reply.status, reply.content_type), (200, Some("text/html")));
    assert!(serde_json::from_slice::<Value>(&reply.body).is_err());
    assert_eq!(account.records().count(), 1);
}

#[test]
fn an_answer_takes_its_latency_and_a_slow_one_longer() {
    let request = Request::bare(Method::GET, "/contact/r1");
    let answer_at = |faults| faulty(faults).arrive(ms(10), &request).answer_at;
    assert_eq!(answer_at(""), ms(10));
    assert_eq!(answer_at("latency=50ms"), ms(60));
    assert_eq!(answer_at("latency=50ms,slow=1,slow_for=2s"), ms(2_060));
    let jittered = answer_at("latency=50ms,jitter=20ms");
    assert!(ms(60) < jittered && jittered < ms(80), "{jittered:?}");
}

#[test]
fn a_late_call_takes_effect_when_its_answer_is_due_even_if_nobody_waits() {
    let mut account = faulty("late=1,latency=100ms");
    let body = json!({"external_id": "c-1"});
    let call = account
        .arrive(ms(0), &Request::json(Method::POST, "/contact", &body))
        .call;
    account.replace_faults(&"".parse().unwrap());
    account.abandon(ms(20), call);
    assert_eq!(found(&mut account, ms(99)), 0);
    assert_eq!(found(&mut account, ms(100)), 1);
    assert_eq!(account.journal().get(1).unwrap().done, Some(ms(20)));
}

#[test]
fn a_late_call_that_is_waited_for_gets_its_answer() {
    let mut account = faulty("late=1,latency=100ms");
    let body = json!({"external_id": "c-1"});
    let arrival = account.arrive(ms(0), &Request::json(Method::POST, "/contact", &body));
    assert_eq!(
        reply(account.finish(arrival.answer_at, arrival.call)).status,
        201
    );
}

#[test]
fn a_stale_look_up_does_not_see_a_fresh_record() {
    let mut account = faulty("stale=500ms");
    create(&mut account, ms(0));
    assert_eq!(found(&mut account, ms(499)), 0);
    assert_eq!(found(&mut account, ms(500)), 1);
}

/// Upserts ten records by one batch and gives the results by external id, in the order answered.
fn batch_of_ten(account: &mut Account) -> Vec<(String, u64)> {
    let records: Vec<Value> = (0..10)
        .map(|n| json!({"external_id": format!("c-{n}"), "operation": "upsert", "fields": {}}))
        .collect();
    let body = json!({"records": records});
    let request = Request::json(Method::POST, "/contact/batch", &body);
    let answer = reply(account.handle(ms(0), &request));
    assert_eq!(answer.status, 200);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    let rows = body["results"].as_array().unwrap().iter();
    rows.map(|row| {
        let external_id = row["external_id"].as_str().unwrap().to_owned();
        (external_id, row["status"].as_u64().unwrap())
    })
    .collect()
}

#[test]
fn a_batch_keeps_its_order_only_when_told_to() {
    let in_order = |account: &mut Account| batch_of_ten(account).is_sorted();
    assert!(in_order(&mut faulty("shuffle=0")));
    assert!(!in_order(&mut faulty("")));
    assert_eq!(
        batch_of_ten(&mut faulty("")),
        batch_of_ten(&mut faulty("")),
        "a seed gives the same order twice"
    );
}

#[test]
fn a_batch_may_lose_records_with_and_without_their_effect() {
    for (faults, written) in [("item_missing=1", 10), ("item_lost=1", 0)] {
        let mut account = faulty(faults);
        assert_eq!(batch_of_ten(&mut account), []);
        assert_eq!(account.records().count(), written, "{faults}");
    }
    let mut account = faulty("item_missing=0.5");
    let told: usize = (0..40).map(|_| batch_of_ten(&mut account).len()).sum();
    assert!((150..250).contains(&told), "{told} of 400 at one half");
}

#[test]
fn a_batch_may_refuse_some_records_and_write_the_others() {
    let mut account = faulty("item_4xx=0.3,item_5xx=0.3,lock=0.3");
    let mut statuses = [0_usize; 6];
    for _ in 0..100 {
        for (_, status) in batch_of_ten(&mut account) {
            statuses[(status / 100) as usize] += 1;
        }
    }
    assert_eq!(statuses.iter().sum::<usize>(), 1_000);
    assert!((250..420).contains(&statuses[2]), "{statuses:?}");
    assert!(statuses[4] > statuses[5], "4xx and locks: {statuses:?}");
    let nothing = batch_of_ten(&mut faulty("empty=1"));
    assert_eq!(nothing, []);
}

#[test]
fn maintenance_and_a_spent_day_say_when_to_come_back() {
    for (faults, status) in [("maintenance=1", 503), ("daily=1", 429)] {
        let mut account = faulty(&format!("{faults},retry_after=90s"));
        let reply = reply(create(&mut account, ms(0)));
        assert_eq!((reply.status, reply.retry_after_s), (status, Some(90)));
        assert_eq!(account.records().count(), 0);
    }
}

#[test]
fn two_writes_to_one_record_at_a_time_are_an_overlap_whatever_they_call_it() {
    let mut account = faulty("");
    create(&mut account, ms(0));
    let body = json!({});
    let by_id = account.arrive(ms(1), &Request::json(Method::PATCH, "/contact/r1", &body));
    let read = account.arrive(ms(1), &Request::bare(Method::GET, "/contact/r1"));
    let other = account.arrive(ms(1), &Request::json(Method::PATCH, "/company/r1", &body));
    assert_eq!(account.violations().overlaps, 0);
    let by_key = Request::json(Method::PUT, "/contact/external/c-1", &body);
    let by_key = account.arrive(ms(2), &by_key);
    assert_eq!(account.violations().overlaps, 1);
    for arrival in [by_id, read, other, by_key] {
        account.finish(ms(3), arrival.call);
    }
    let after = account.arrive(ms(3), &Request::bare(Method::DELETE, "/contact/r1"));
    account.abandon(ms(4), after.call);
    create(&mut account, ms(5));
    assert_eq!(account.violations().overlaps, 1);
}

#[test]
fn a_seed_gives_the_same_run_twice_and_another_seed_another() {
    let run = |seed| {
        let scenario = "[[window]]\nat_ms = 200\nfor_ms = 100\nfault = \"5xx=0.9\"\n";
        let mut account = Account::new(AccountConfig {
            seed,
            faults: "5xx=0.1,429=0.1,reset_before=0.1,reset_after=0.1,jitter=9ms,late=0.3"
                .parse()
                .unwrap(),
            scenario: Scenario::parse(scenario).unwrap(),
            limits: vec!["30/50ms".parse().unwrap()],
            ..AccountConfig::default()
        });
        for n in 0..500 {
            let target = format!("/contact/external/c-{}", n % 7);
            let request = Request::json(Method::PUT, &target, &json!({"n": n}));
            let arrival = account.arrive(ms(n), &request);
            if n % 5 == 0 {
                account.abandon(ms(n), arrival.call);
            } else {
                account.finish(ms(n), arrival.call);
            }
        }
        let lines: Vec<_> = account
            .journal()
            .after(0)
            .map(|call| account.journal().render(call))
            .collect();
        (
            lines,
            account.violations(),
            format!("{:?}", account.records().collect::<Vec<_>>()),
        )
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}
