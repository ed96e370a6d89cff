//! The `/__mock/…` endpoints, asked of the model.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use syncline_mock::{Account, AccountConfig, Request, admin};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn account(limits: &[&str]) -> Account {
    let limits = limits.iter().map(|limit| limit.parse().unwrap()).collect();
    Account::new(AccountConfig {
        limits,
        epoch: ms(1_000_000),
        ..AccountConfig::default()
    })
}

fn upsert(account: &mut Account, now: Duration, external_id: &str) {
    let target = format!("/contact/external/{external_id}");
    account.handle(
        now,
        &Request::json(Method::PUT, &target, &json!({"n": 1})).keyed("op-1"),
    );
}

fn ask(account: &mut Account, method: Method, target: &str, body: &Value) -> (u16, Value) {
    let reply = admin::answer(account, ms(500), &Request::json(method, target, body)).unwrap();
    (
        reply.status,
        serde_json::from_slice(&reply.body).unwrap_or_default(),
    )
}

fn get(account: &mut Account, target: &str) -> Value {
    let (status, body) = ask(account, Method::GET, target, &Value::Null);
    assert_eq!(status, 200, "{target}");
    body
}

#[test]
fn the_journal_shows_every_call_as_it_came() {
    let mut account = account(&[]);
    let create = json!({"external_id": "c-1", "name": "Ada"});
    let request = Request::json(Method::POST, "/contact", &create).keyed("op-1");
    let open = account.arrive(ms(5), &request);
    account.finish(ms(30), open.call);
    account.handle(
        ms(40),
        &Request::json(Method::PATCH, "/contact/r1", &json!({"name": "B"})),
    );
    account.handle(
        ms(50),
        &Request::bare(Method::GET, "/contact?external_id=c-9"),
    );
    assert_eq!(
        get(&mut account, "/__mock/journal"),
        json!({"calls": [
            {"seq": 1, "at_ms": 1_000_005, "done_ms": 1_000_030, "method": "POST",
             "path": "/contact", "status": 201, "object": "contact", "external_id": "c-1", "records": 1,
             "idempotency_key": "op-1", "body": {"external_id": "c-1", "name": "Ada"}},
            {"seq": 2, "at_ms": 1_000_040, "done_ms": 1_000_040, "method": "PATCH",
             "path": "/contact/r1", "status": 200, "object": "contact", "external_id": "c-1", "records": 1,
             "idempotency_key": null, "body": {"name": "B"}},
            {"seq": 3, "at_ms": 1_000_050, "done_ms": 1_000_050, "method": "GET",
             "path": "/contact", "query": "external_id=c-9", "status": 200, "object": "contact",
             "external_id": "c-9", "records": 1,
             "idempotency_key": null, "body": null},
        ], "next": null})
    );
}

#[test]
fn the_journal_is_read_page_by_page() {
    let mut account = account(&[]);
    for n in 0..5 {
        upsert(&mut account, ms(n), "c-1");
    }
    let mut seqs = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = get(
            &mut account,
            &format!("/__mock/journal?after={after}&limit=2"),
        );
        let calls = page["calls"].as_array().unwrap();
        seqs.extend(calls.iter().map(|call| call["seq"].as_u64().unwrap()));
        after = page["next"].clone();
    }
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    assert_eq!(
        get(&mut account, "/__mock/journal?after=5"),
        json!({"calls": [], "next": null})
    );
    let (status, _) = ask(
        &mut account,
        Method::GET,
        "/__mock/journal?after=x",
        &Value::Null,
    );
    assert_eq!(status, 400);
}

#[test]
fn violations_are_counted_by_limit_beside_duplicates_and_overlaps() {
    let mut account = account(&["2/1s", "50/1m"]);
    let create = json!({"external_id": "c-1"});
    let request = Request::json(Method::POST, "/contact", &create);
    let first = account.arrive(ms(0), &request);
    let second = account.arrive(ms(1), &request);
    account.finish(ms(2), first.call);
    account.finish(ms(2), second.call);
    account.handle(ms(3), &request);
    assert_eq!(
        get(&mut account, "/__mock/violations"),
        json!({"total": 1, "by_limit": {"2/1s": 1, "50/1m": 0},
               "duplicate_creates": 1, "overlaps": 1})
    );
}

#[test]
fn records_are_listed_with_both_their_ids() {
    let mut account = account(&[]);
    upsert(&mut account, ms(0), "c-1");
    account.handle(
        ms(1),
        &Request::json(Method::POST, "/company", &json!({"a": null})),
    );
    let contact =
        json!({"object": "contact", "id": "r1", "external_id": "c-1", "fields": {"n": 1}});
    let company = json!({"object": "company", "id": "r2", "external_id": null, "fields": {}});
    assert_eq!(
        get(&mut account, "/__mock/records"),
        json!({"records": [company, contact]})
    );
    let contacts = get(&mut account, "/__mock/records?object=contact");
    assert_eq!(contacts, json!({"records": [contact]}));
}

#[test]
fn faults_are_replaced_or_laid_over_for_a_time() {
    let mut account = account(&[]);
    let status_at = |account: &mut Account, at| {
        upsert(account, ms(at), "c-1");
        account
            .journal()
            .after(0)
            .last()
            .map(|call| call.status)
            .unwrap()
    };
    let set = |account: &mut Account, body| ask(account, Method::POST, "/__mock/fault", &body).0;
    assert_eq!(set(&mut account, json!({"fault": "401=1"})), 204);
    assert_eq!(status_at(&mut account, 500), 401);
    assert_eq!(
        set(&mut account, json!({"fault": "401=0,429=1", "for_ms": 100})),
        204
    );
    assert_eq!(status_at(&mut account, 599), 429);
    assert_eq!(status_at(&mut account, 600), 401);
    assert_eq!(set(&mut account, json!({"fault": ""})), 204);
    assert_eq!(status_at(&mut account, 601), 201);
    for bad in [
        json!({"fault": "6xx=1"}),
        json!({"faults": ""}),
        json!([]),
        json!({}),
    ] {
        assert_eq!(set(&mut account, bad.clone()), 400, "{bad}");
    }
    assert_eq!(status_at(&mut account, 602), 200);
}

#[test]
fn limits_are_replaced_and_a_bad_set_changes_nothing() {
    let mut account = account(&["9/1s"]);
    let set = |account: &mut Account, body| ask(account, Method::POST, "/__mock/limit", &body).0;
    assert_eq!(set(&mut account, json!({"limits": ["1/1s", "x"]})), 400);
    upsert(&mut account, ms(1), "c-1");
    upsert(&mut account, ms(2), "c-1");
    assert_eq!(account.violations().total, 0);
    assert_eq!(set(&mut account, json!({"limits": ["2/1s"]})), 204);
    upsert(&mut account, ms(3), "c-1");
    assert_eq!(account.violations().by_limit, [("2/1s".to_owned(), 1)]);
}

#[test]
fn asking_the_mock_is_no_call_of_the_account() {
    let mut account = account(&["0/1s"]);
    get(&mut account, "/__mock/records");
    assert_eq!(account.violations().total, 0);
    assert_eq!(account.journal().after(0).count(), 0);
    let elsewhere = Request::bare(Method::GET, "/contact/r1");
    assert_eq!(admin::answer(&mut account, ms(0), &elsewhere), None);
    let (status, _) = ask(&mut account, Method::GET, "/__mock/else", &Value::Null);
    assert_eq!(status, 404);
    let (status, _) = ask(&mut account, Method::POST, "/__mock/records", &Value::Null);
    assert_eq!(status, 405);
}
