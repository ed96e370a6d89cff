//! What an Outreach org does that callers have to know of.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod caller;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use syncline_mock::{AccountConfig, Change, Delivered, ProviderKind};

use caller::{Caller, config};

const PROSPECTS: &str = "/api/v2/prospects";

fn org(faults: &str) -> Caller {
    with_json_api(Caller::new(ProviderKind::Outreach, faults))
}

fn with_json_api(mut org: Caller) -> Caller {
    org.header("content-type", "application/vnd.api+json");
    org
}

fn prospect(attributes: &Value) -> Value {
    json!({"data": {"type": "prospect", "attributes": attributes}})
}

fn create(org: &mut Caller, attributes: &Value) -> u64 {
    let (status, body) = org.post(PROSPECTS, &prospect(attributes));
    assert_eq!(status, 201, "{body}");
    body["data"]["id"].as_u64().unwrap()
}

fn error_id(body: &Value) -> &str {
    body["errors"][0]["id"].as_str().unwrap()
}

#[test]
fn a_record_lives_from_its_create_to_its_delete() {
    let mut org = org("");
    let mut body = prospect(&json!({"firstName": "Ada", "emails": ["ada@example.com"]}));
    body["data"]["relationships"] = json!({"owner": {"data": {"type": "user", "id": 1}}});
    let reply = org.reply(Method::POST, PROSPECTS, &body);
    assert_eq!(reply.status, 201);
    assert_eq!(reply.content_type, Some("application/vnd.api+json"));
    let shown: Value = serde_json::from_slice(&reply.body).unwrap();
    let data = &shown["data"];
    assert_eq!(
        (&data["type"], &data["id"]),
        (&json!("prospect"), &json!(1))
    );
    assert_eq!(data["relationships"]["owner"]["data"]["id"], 1);
    assert_eq!(data["attributes"]["updatedAt"], "2026-11-20T10:00:00.001Z");

    let record = format!("{PROSPECTS}/1");
    let change = json!({"data": {"type": "prospect", "id": 1, "attributes": {"firstName": null}}});
    assert_eq!(org.patch(&record, &change).0, 200);
    assert_eq!(
        org.get(&record).1["data"]["attributes"].get("firstName"),
        None
    );
    for (id, pointer) in [(json!("1"), "/data/id"), (json!(2), "/data/id")] {
        let body = json!({"data": {"type": "prospect", "id": id, "attributes": {}}});
        let (status, body) = org.patch(&record, &body);
        assert_eq!(
            (status, &body["errors"][0]["source"]["pointer"]),
            (422, &json!(pointer))
        );
    }
    assert_eq!(org.delete(&record), (204, Value::Null));
    let (status, body) = org.delete(&record);
    assert_eq!((status, error_id(&body)), (404, "resourceNotFound"));
    assert_eq!(org.get("/api/v2/nothings").0, 404);
}

#[test]
fn only_one_content_type_is_taken() {
    let mut org = org("");
    org.header("content-type", "application/json");
    let (status, body) = org.post(PROSPECTS, &prospect(&json!({})));
    assert_eq!((status, error_id(&body)), (415, "unsupportedMediaType"));
    assert_eq!(org.get(PROSPECTS).0, 200);
}

#[test]
fn a_key_that_is_taken_is_a_validation_error_without_the_others_id() {
    let mut org = org("");
    create(
        &mut org,
        &json!({"externalId": "c-1", "emails": ["a@example.com", "b@example.com"]}),
    );
    for (attributes, detail) in [
        (
            json!({"externalId": "C-1"}),
            "externalId has already been taken.",
        ),
        (
            json!({"emails": ["B@example.com"]}),
            "Contacts email hash has already been taken.",
        ),
    ] {
        let (status, body) = org.post(PROSPECTS, &prospect(&attributes));
        assert_eq!((status, error_id(&body)), (422, "validationError"));
        assert_eq!(body["errors"][0]["detail"], detail);
    }
    for attributes in [
        json!({"first_name": "A"}),
        json!({"createdAt": "x"}),
        json!({"emails": "a@b"}),
        json!({"poison": true}),
    ] {
        assert_eq!(
            org.post(PROSPECTS, &prospect(&attributes)).0,
            422,
            "{attributes}"
        );
    }
    let account =
        json!({"data": {"type": "account", "attributes": {"customId": "a-1", "name": "A"}}});
    assert_eq!(org.post("/api/v2/accounts", &account).0, 201);
    assert_eq!(org.post("/api/v2/accounts", &account).0, 422);
    assert_eq!(org.account.violations().duplicate_creates, 0);
}

#[test]
fn records_are_found_by_what_can_be_filtered_and_the_external_id_cannot() {
    let mut org = org("");
    create(
        &mut org,
        &json!({"externalId": "c-1", "emails": ["a@example.com"]}),
    );
    create(
        &mut org,
        &json!({"externalId": "c-2", "emails": ["b@example.com"]}),
    );
    let ids = |body: &Value| -> Vec<u64> {
        let data = body["data"].as_array().unwrap().iter();
        data.map(|row| row["id"].as_u64().unwrap()).collect()
    };
    let by_email = format!("{PROSPECTS}?filter%5Bemails%5D=B%40example.com&count=false");
    let (_, page) = org.get(&by_email);
    assert_eq!((ids(&page), page.get("meta")), (vec![2], None));
    let (_, page) = org.get(&format!("{PROSPECTS}?filter[id]=1,2,3"));
    assert_eq!(
        (ids(&page), &page["meta"]["count"]),
        (vec![1, 2], &json!(2))
    );
    let (status, body) = org.get(&format!("{PROSPECTS}?filter[externalId]=c-1"));
    assert_eq!((status, error_id(&body)), (400, "invalidFilter"));
    assert_eq!(org.get(&format!("{PROSPECTS}?page[size]=1001")).0, 400);
}

#[test]
fn a_poll_pages_through_what_changed_and_misses_nothing() {
    let mut org = org("");
    for n in 0..25 {
        create(&mut org, &json!({"externalId": format!("c-{n}")}));
    }
    org.wait(Duration::from_secs(60));
    let change = json!({"data": {"type": "prospect", "id": 3, "attributes": {"title": "x"}}});
    org.patch(&format!("{PROSPECTS}/3"), &change);
    let query = "sort=updatedAt&count=false&page[size]=10&fields[prospect]=updatedAt";
    let mut next = format!("{PROSPECTS}?{query}&filter[updatedAt]=2026-11-20T10:00:00Z..inf");
    let mut seen = Vec::new();
    loop {
        let (status, page) = org.get(&next);
        assert_eq!(status, 200, "{page}");
        for row in page["data"].as_array().unwrap() {
            assert_eq!(row["attributes"].as_object().unwrap().len(), 1);
            seen.push(row["id"].as_u64().unwrap());
        }
        let Some(link) = page["links"]["next"].as_str() else {
            break;
        };
        next = link.strip_prefix("http://127.0.0.1").unwrap().to_owned();
    }
    assert_eq!(seen.len(), 25);
    assert_eq!(seen.last(), Some(&3));
    let since = "filter[updatedAt]=2026-11-20T10:00:30Z..2026-11-20T10:02:00Z";
    let (_, page) = org.get(&format!("{PROSPECTS}?{since}"));
    assert_eq!(page["data"].as_array().unwrap().len(), 1);
}

#[test]
fn the_hour_is_limited_and_every_reply_tells_what_is_left() {
    let mut org = with_json_api(Caller::of(AccountConfig {
        limits: vec!["hourly=2/1h".parse().unwrap()],
        ..config(ProviderKind::Outreach)
    }));
    org.get(PROSPECTS);
    let reply = org.reply(Method::GET, PROSPECTS, &Value::Null);
    assert_eq!(reply.header("x-ratelimit-limit"), Some("2"));
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(reply.header("x-ratelimit-reset"), Some("3600"));
    let reply = org.reply(Method::GET, PROSPECTS, &Value::Null);
    assert_eq!((reply.status, reply.retry_after_s), (429, Some(3_600)));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(error_id(&body), "rateLimitExceeded");
    org.wait(Duration::from_secs(3_600));
    assert_eq!(org.get(PROSPECTS).0, 200);
    assert_eq!(org.account.violations().total, 1);
}

#[test]
fn a_refresh_token_is_worth_one_token_and_one_token_a_minute_is_given() {
    let mut org = Caller::of(AccountConfig {
        provider: ProviderKind::Outreach,
        ..AccountConfig::default()
    });
    let form = |token: &str| {
        json!(format!(
            "grant_type=refresh_token&client_id=a&client_secret=b&refresh_token={token}"
        ))
    };
    let (status, first) = org.post("/oauth/token", &form("r-1"));
    assert_eq!((status, &first["expires_in"]), (200, &json!(7_200)));
    let rotated = first["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(rotated, "r-1");
    assert_eq!(org.post("/oauth/token", &form(&rotated)).0, 429);
    org.wait(Duration::from_secs(60));
    let (status, body) = org.post("/oauth/token", &form("r-1"));
    assert_eq!((status, &body["error"]), (400, &json!("invalid_grant")));
    org.wait(Duration::from_secs(60));
    let (status, second) = org.post("/oauth/token", &form(&rotated));
    assert_eq!(status, 200);
    let token = second["access_token"].as_str().unwrap();
    org.header("authorization", &format!("Bearer {token}"));
    assert_eq!(org.get(PROSPECTS).0, 200);
    org.wait(Duration::from_secs(7_200));
    assert_eq!(org.get(PROSPECTS).0, 401);
}

#[test]
fn maintenance_names_the_instant_of_its_end() {
    let mut org = org("maintenance=1,retry_after=90s");
    let reply = org.reply(Method::GET, PROSPECTS, &Value::Null);
    assert_eq!((reply.status, reply.retry_after_s), (503, None));
    assert_eq!(reply.header("retry-after"), Some("2026-11-20T10:01:30Z"));
}

#[test]
fn a_subscriber_is_told_what_changed_under_a_signature_and_any_answer_counts() {
    let mut org = org("");
    let hook = json!({"data": {"type": "webhook", "attributes": {
        "url": "http://127.0.0.1:1/hook", "resource": "prospect", "action": "*",
        "secret": "s", "payloadVersion": 2,
    }}});
    assert_eq!(org.post("/api/v2/webhooks", &hook).0, 201);
    let id = create(&mut org, &json!({"externalId": "c-1", "title": "a"})).to_string();
    let account = json!({"data": {"type": "account", "attributes": {"name": "A"}}});
    org.post("/api/v2/accounts", &account);
    let change = Change::Update(json!({"title": "b"}).as_object().unwrap().clone());
    org.edit("prospects", Some(&id), change);

    let first = org.account.poll_delivery(org.now).unwrap();
    let event: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(event["meta"]["eventName"], "prospect.created");
    let second = org.account.poll_delivery(org.now).unwrap();
    let event: Value = serde_json::from_slice(&second.body).unwrap();
    assert_eq!(event["meta"]["eventName"], "prospect.updated");
    assert_eq!(event["data"]["attributes"]["title"], "b");
    assert_eq!(event["data"]["beforeUpdate"], json!({"title": "a"}));
    assert_eq!(
        org.account.poll_delivery(org.now),
        None,
        "accounts are not subscribed to"
    );
    let header = |name| second.headers.iter().find(|(known, _)| *known == name);
    let event_id = header("outreach-webhook-event-id").unwrap().1.clone();
    assert_eq!(header("outreach-webhook-signature").unwrap().1.len(), 64);

    org.account
        .delivered(org.now, first.id, Delivered::Answered(500));
    org.account
        .delivered(org.now, second.id, Delivered::Unreachable);
    assert_eq!(org.account.poll_delivery(org.now), None);
    org.wait(Duration::from_secs(1));
    let again = org.account.poll_delivery(org.now).unwrap();
    assert_eq!(again.body, second.body);
    assert!(
        again
            .headers
            .contains(&("outreach-webhook-event-id", event_id))
    );
    assert_eq!(org.delete("/api/v2/webhooks/1").0, 204);
    create(&mut org, &json!({}));
    assert_eq!(org.account.delivery_counts().waiting, 1);
}
