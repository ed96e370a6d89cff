//! What a Pipedrive account does that callers have to know of.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod caller;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use syncline_mock::{AccountConfig, Change, ProviderKind};

use caller::{Caller, config};

const PERSONS: &str = "/api/v2/persons";

fn company(faults: &str) -> Caller {
    with_api_token(Caller::new(ProviderKind::Pipedrive, faults))
}

fn with_api_token(mut company: Caller) -> Caller {
    company.headers.remove("authorization");
    company.header("x-api-token", caller::TOKEN);
    company
}

fn create(company: &mut Caller, key: &str) -> u64 {
    let body = json!({
        "name": key,
        "emails": [{"value": format!("{key}@example.com"), "primary": true, "label": "work"}],
        "custom_fields": {"external_id": key},
    });
    let (status, body) = company.post(PERSONS, &body);
    assert_eq!((status, &body["success"]), (200, &json!(true)));
    body["data"]["id"].as_u64().unwrap()
}

#[test]
fn a_record_lives_from_its_create_to_its_delete() {
    let mut company = company("");
    let id = create(&mut company, "c-1");
    let record = format!("{PERSONS}/{id}");
    let change = json!({"name": "Ada", "custom_fields": {"tier": "a"}});
    let (status, body) = company.patch(&record, &change);
    assert_eq!(status, 200);
    assert_eq!(
        body["data"]["custom_fields"],
        json!({"external_id": "c-1", "tier": "a"})
    );
    assert_eq!(body["data"]["update_time"], "2026-11-20T10:00:00Z");
    let (_, _, stored) = company.account.records().next().unwrap();
    assert_eq!(stored.external_id.as_deref(), Some("c-1"));
    assert_eq!(company.delete(&record).1["data"], json!({"id": id}));
    let (status, body) = company.get(&record);
    assert_eq!((status, &body["code"]), (404, &json!("ERR_NOT_FOUND")));
    for body in [
        json!({}),
        json!({"name": "A", "id": 1}),
        json!({"name": "A", "emails": "a"}),
        json!({"name": "A", "poison": true}),
    ] {
        let (status, answer) = company.post(PERSONS, &body);
        assert_eq!((status, &answer["success"]), (400, &json!(false)), "{body}");
    }
    assert_eq!(company.get("/api/v2/nothings").0, 404);
}

#[test]
fn nothing_is_unique_so_a_second_create_makes_a_second_record_and_is_counted() {
    let mut company = company("");
    create(&mut company, "c-1");
    create(&mut company, "c-1");
    assert_eq!(company.account.records().count(), 2);
    assert_eq!(company.account.violations().duplicate_creates, 1);
    let by_hand = json!({"name": "A", "custom_fields": {"external_id": "c-1"}});
    let by_hand = by_hand.as_object().unwrap().clone();
    company.edit("persons", None, Change::Create(by_hand));
    assert_eq!(company.account.records().count(), 3);
    assert_eq!(company.account.violations().duplicate_creates, 1);
}

#[test]
fn a_search_finds_custom_fields_after_a_moment() {
    let mut company = company("");
    let one = create(&mut company, "c-1");
    create(&mut company, "c-12");
    let target = format!("{PERSONS}/search?term=C-1&fields=custom_fields&exact_match=true");
    assert_eq!(company.get(&target).1["data"]["items"], json!([]));
    company.wait(Duration::from_secs(1));
    let (_, page) = company.get(&target);
    let items = page["data"]["items"].as_array().unwrap();
    assert_eq!((items.len(), &items[0]["item"]["id"]), (1, &json!(one)));
    let (_, page) = company.get(&format!("{PERSONS}/search?term=c-1"));
    assert_eq!(page["data"]["items"].as_array().unwrap().len(), 2);
    assert_eq!(company.get(&format!("{PERSONS}/search?term=c")).0, 400);
}

#[test]
fn a_list_pages_behind_a_cursor_by_time_of_change() {
    let mut company = company("");
    for n in 0..25 {
        create(&mut company, &format!("c-{n}"));
    }
    company.wait(Duration::from_secs(60));
    company.patch(&format!("{PERSONS}/3"), &json!({"name": "x"}));
    let query = "sort_by=update_time&limit=10&updated_since=2026-11-20T10:00:00Z";
    let mut seen = Vec::new();
    let mut target = format!("{PERSONS}?{query}");
    loop {
        let (_, page) = company.get(&target);
        for row in page["data"].as_array().unwrap() {
            seen.push(row["id"].as_u64().unwrap());
        }
        let Some(cursor) = page["additional_data"]["next_cursor"].as_str() else {
            break;
        };
        let cursor = cursor.replace('=', "%3D").replace('+', "%2B");
        target = format!("{PERSONS}?{query}&cursor={cursor}");
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.last(), Some(&3));
    let (_, page) = company.get(&format!("{PERSONS}?updated_since=2026-11-20T10:00:30Z"));
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
    let (_, page) = company.get(&format!("{PERSONS}?ids=2,4"));
    assert_eq!(page["data"].as_array().unwrap().len(), 2);
    assert_eq!(company.get(&format!("{PERSONS}?limit=501")).0, 400);
    assert_eq!(company.get(&format!("{PERSONS}?cursor=x")).0, 400);
}

#[test]
fn a_merged_record_is_gone_and_the_other_has_what_it_lacked() {
    let mut company = company("");
    let (one, two) = (create(&mut company, "c-1"), create(&mut company, "c-2"));
    company.patch(&format!("{PERSONS}/{one}"), &json!({"job_title": "x"}));
    let body = json!({"merge_with_id": two});
    let target = format!("/v1/persons/{one}/merge");
    let (status, body) = company.call(Method::PUT, &target, &body);
    assert_eq!((status, &body["data"]["id"]), (200, &json!(two)));
    assert_eq!(company.fields_of(&two.to_string())["job_title"], "x");
    assert_eq!(company.get(&format!("{PERSONS}/{one}")).0, 404);
}

#[test]
fn calls_are_paid_for_and_a_spent_day_is_told_by_a_header_alone() {
    let mut company = with_api_token(Caller::of(AccountConfig {
        limits: vec!["daily=12/24h".parse().unwrap()],
        ..config(ProviderKind::Pipedrive)
    }));
    create(&mut company, "c-1");
    let reply = company.reply(Method::GET, &format!("{PERSONS}/1"), &Value::Null);
    assert_eq!(reply.header("x-ratelimit-limit"), Some("80"));
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("78"));
    assert_eq!(reply.header("x-daily-ratelimit-token-limit"), Some("12"));
    assert_eq!(reply.header("x-daily-ratelimit-token-remaining"), Some("6"));
    let reply = company.reply(Method::GET, PERSONS, &Value::Null);
    assert_eq!((reply.status, reply.retry_after_s), (429, Some(3)));
    let told: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| *name == "x-daily-ratelimit-token-remaining")
        .collect();
    assert_eq!(
        told,
        [&("x-daily-ratelimit-token-remaining", "0".to_owned())]
    );
    assert_eq!(
        company.get(&format!("{PERSONS}/1")).0,
        200,
        "what costs less still fits"
    );
    company.wait(Duration::from_secs(14 * 60 * 60));
    assert_eq!(company.get(PERSONS).0, 200);
}

#[test]
fn the_burst_is_refused_for_two_seconds_and_searches_have_their_own() {
    let mut company = company("");
    for _ in 0..10 {
        assert_eq!(company.get(&format!("{PERSONS}/search?term=ab")).0, 200);
    }
    assert_eq!(company.get(&format!("{PERSONS}/search?term=ab")).0, 429);
    for _ in 0..80 {
        assert_eq!(company.get(&format!("{PERSONS}/1")).0, 404);
    }
    let reply = company.reply(Method::GET, &format!("{PERSONS}/1"), &Value::Null);
    assert_eq!((reply.status, reply.retry_after_s), (429, Some(2)));
    assert_ne!(reply.header("x-daily-ratelimit-token-remaining"), Some("0"));
    company.wait(Duration::from_secs(2));
    assert_eq!(company.get(&format!("{PERSONS}/1")).0, 404);
}

#[test]
fn a_caller_comes_in_by_api_token_or_by_oauth() {
    let mut company = Caller::of(AccountConfig {
        provider: ProviderKind::Pipedrive,
        ..AccountConfig::default()
    });
    assert_eq!(company.get(PERSONS).0, 401);
    assert_eq!(company.get(&format!("{PERSONS}?api_token=x")).0, 200);
    // "app:secret"
    company.header("authorization", "Basic YXBwOnNlY3JldA==");
    let form = json!("grant_type=refresh_token&refresh_token=r-1");
    let (status, minted) = company.post("/oauth/token", &form);
    assert_eq!((status, &minted["refresh_token"]), (200, &json!("r-1")));
    let token = minted["access_token"].as_str().unwrap();
    company.header("authorization", &format!("Bearer {token}"));
    assert_eq!(company.get(PERSONS).0, 200);
    company.account.expire_tokens();
    assert_eq!(company.get(PERSONS).0, 401);
}
