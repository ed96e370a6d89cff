//! What a HubSpot portal does that callers have to know of.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

mod caller;

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};
use syncline_mock::{AccountConfig, Change, Delivered, ProviderKind};

use caller::{Caller, EPOCH, TOKEN, config};

const CONTACTS: &str = "/crm/v3/objects/contacts";

fn portal(faults: &str) -> Caller {
    Caller::new(ProviderKind::HubSpot, faults)
}

fn contact(portal: &mut Caller, key: &str) -> String {
    let body = json!({"properties": {"external_id": key, "firstname": key}});
    let (status, body) = portal.post(CONTACTS, &body);
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// An input of an upsert by `external_id`.
fn input(key: &str, properties: Value, trace: Option<&str>) -> Value {
    let mut input = json!({"id": key, "idProperty": "external_id", "properties": properties});
    if let Some(trace) = trace {
        input["objectWriteTraceId"] = trace.into();
    }
    input
}

fn batch(portal: &mut Caller, operation: &str, inputs: &[Value]) -> (u16, Value) {
    let target = format!("{CONTACTS}/batch/{operation}");
    portal.post(&target, &json!({ "inputs": inputs }))
}

fn search(portal: &mut Caller, body: &Value) -> (u16, Value) {
    portal.wait(Duration::from_secs(1));
    portal.post(&format!("{CONTACTS}/search"), body)
}

fn fields(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[test]
fn a_record_lives_from_its_create_to_its_archive_under_every_name_of_its_type() {
    let mut portal = portal("");
    let body = json!({"properties": {"email": "Ada@example.com", "age": 36, "firstname": "Ada"}});
    let (status, shown) = portal.post("/crm/objects/2026-03/contacts", &body);
    assert_eq!(status, 201);
    let id = shown["id"].as_str().unwrap().to_owned();
    assert_eq!(shown["properties"]["age"], "36", "every value is a text");
    assert_eq!(shown["properties"]["hs_object_id"], json!(id));
    assert_eq!(shown["createdAt"], "2026-11-20T10:00:00.001Z");
    assert_eq!(shown["archived"], false);

    let record = format!("/crm/v3/objects/0-1/{id}");
    let cleared = json!({"properties": {"firstname": "", "age": null}});
    assert_eq!(portal.patch(&record, &cleared).0, 200);
    assert_eq!(portal.fields_of(&id), json!({"email": "Ada@example.com"}));
    let (_, shown) = portal.get(&format!("{record}?properties=email,age"));
    assert_eq!(shown["properties"]["age"], Value::Null);
    let by_key = format!("{CONTACTS}/ada%40example.com?idProperty=email");
    assert_eq!(portal.get(&by_key).1["id"], json!(id));
    assert_eq!(
        portal.get(&format!("{CONTACTS}/1?idProperty=firstname")).0,
        400
    );

    assert_eq!(portal.delete(&record), (204, Value::Null));
    assert_eq!(
        portal.delete(&record),
        (204, Value::Null),
        "a second archive answers as the first"
    );
    let (status, body) = portal.get(&record);
    assert_eq!(
        (status, &body["category"]),
        (404, &json!("OBJECT_NOT_FOUND"))
    );
    let (_, shown) = portal.get(&format!("{record}?archived=true"));
    assert_eq!(shown["archived"], true);
    assert_eq!(portal.delete(&format!("{CONTACTS}/999999")).0, 404);
    let (_, page) = portal.get(&format!("{CONTACTS}?archived=true"));
    assert_eq!(page["results"][0]["id"], json!(id));
}

#[test]
fn values_are_checked_and_the_error_names_the_record_that_has_the_value() {
    let mut portal = portal("");
    let body = json!({"properties": {"external_id": "c-1", "email": "a@example.com"}});
    let first = portal.post(CONTACTS, &body).1["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let again = json!({"properties": {"email": "A@example.com"}});
    let (status, body) = portal.post(CONTACTS, &again);
    assert_eq!((status, &body["category"]), (409, &json!("CONFLICT")));
    let message = format!("Contact already exists. Existing ID: {first}");
    assert_eq!(body["message"], json!(message));
    let again = json!({"properties": {"external_id": "C-1"}});
    let (status, body) = portal.post(CONTACTS, &again);
    let message = body["message"].as_str().unwrap();
    assert_eq!(
        (status, &body["category"]),
        (400, &json!("VALIDATION_ERROR"))
    );
    assert!(
        message.contains(&format!("{first} already has that value")),
        "{message}"
    );
    for (properties, code) in [
        (json!({"FirstName": "A"}), "PROPERTY_DOESNT_EXIST"),
        (json!({"hs_object_id": "1"}), "READ_ONLY_VALUE"),
        (json!({"email": "nobody"}), "INVALID_EMAIL"),
        (json!({"tags": ["a"]}), "must be a text"),
        (json!({"poison": true}), "not accepted"),
    ] {
        let (status, body) = portal.post(CONTACTS, &json!({ "properties": properties }));
        let message = body["message"].as_str().unwrap();
        assert_eq!(status, 400);
        assert!(message.contains(code), "{message}");
    }
    assert_eq!(portal.post("/crm/v3/objects/people", &json!({})).0, 404);
    assert_eq!(portal.account.records().count(), 1);
}

#[test]
fn a_batch_in_which_an_id_occurs_twice_fails_whole() {
    let mut portal = portal("");
    let inputs = [
        input("c-1", json!({}), Some("t-1")),
        input("c-2", json!({}), Some("t-2")),
        input("C-1", json!({}), Some("t-3")),
    ];
    let (status, body) = batch(&mut portal, "upsert", &inputs);
    assert_eq!(status, 400);
    let message = "Duplicate IDs found in batch input: [C-1]. IDs must be unique";
    assert_eq!(body["message"], message);
    assert_eq!(portal.account.records().count(), 0);
}

#[test]
fn with_trace_ids_inputs_stand_or_fall_one_by_one() {
    let mut portal = portal("");
    let known = contact(&mut portal, "c-1");
    let inputs = [
        input("c-1", json!({"firstname": "A"}), Some("t-1")),
        input("c-2", json!({"FirstName": "B"}), Some("t-2")),
        input("c-3", json!({"firstname": "C"}), Some("t-3")),
    ];
    let (status, body) = batch(&mut portal, "upsert", &inputs);
    assert_eq!((status, &body["status"]), (207, &json!("COMPLETE")));
    assert_eq!(body["numErrors"], 1);
    let error = &body["errors"][0];
    assert_eq!(error["context"], json!({"objectWriteTraceId": ["t-2"]}));
    assert_eq!(error["category"], "VALIDATION_ERROR");
    let results = body["results"].as_array().unwrap();
    let of = |trace: &str| {
        results
            .iter()
            .find(|row| row["objectWriteTraceId"] == trace)
            .unwrap()
    };
    assert_eq!(
        (&of("t-1")["id"], &of("t-1")["new"]),
        (&json!(known), &json!(false))
    );
    assert_eq!(of("t-3")["new"], true);
    assert_eq!(of("t-3")["properties"]["external_id"], "c-3");
    let call = portal.account.journal().get(2).unwrap();
    assert_eq!(
        (call.records, call.object.as_deref()),
        (3, Some("contacts"))
    );
}

#[test]
fn without_trace_ids_one_bad_input_fails_the_batch() {
    let mut portal = portal("");
    let inputs = [
        input("c-1", json!({"firstname": "A"}), None),
        input("c-2", json!({"FirstName": "B"}), None),
    ];
    assert_eq!(batch(&mut portal, "upsert", &inputs).0, 400);
    let twice = json!({"properties": {"email": "a@example.com"}});
    let (status, body) = batch(&mut portal, "create", &[twice.clone(), twice]);
    assert_eq!((status, &body["category"]), (409, &json!("CONFLICT")));
    assert_eq!(portal.account.records().count(), 0);
    let good = json!({"properties": {"email": "a@example.com"}});
    assert_eq!(batch(&mut portal, "create", &[good]).0, 201);
    let many = vec![input("c", json!({}), None); 101];
    assert_eq!(batch(&mut portal, "upsert", &many).0, 400);
}

#[test]
fn an_update_of_ids_that_are_not_there_leaves_them_out_without_a_word() {
    let mut portal = portal("");
    let id = contact(&mut portal, "c-1");
    let gone = json!({"id": "999999", "properties": {"firstname": "B"}});
    let (status, body) = batch(&mut portal, "update", std::slice::from_ref(&gone));
    assert_eq!(status, 207);
    assert_eq!((&body["results"], body.get("errors")), (&json!([]), None));
    let mut traced = gone;
    traced["objectWriteTraceId"] = "t-1".into();
    let known = json!({"id": id, "properties": {"firstname": "B"}, "objectWriteTraceId": "t-2"});
    let (status, body) = batch(&mut portal, "update", &[traced, known]);
    assert_eq!(status, 207);
    assert_eq!(body["errors"][0]["category"], "OBJECT_NOT_FOUND");
    assert_eq!(body["results"].as_array().unwrap().len(), 1);
}

#[test]
fn results_come_in_another_order_and_may_be_empty_although_all_is_well() {
    let mut portal = portal("");
    let keys: Vec<String> = (0..50).map(|n| format!("c-{n:02}")).collect();
    let inputs: Vec<Value> = keys
        .iter()
        .map(|key| input(key, json!({}), Some(key)))
        .collect();
    let (status, body) = batch(&mut portal, "upsert", &inputs);
    assert_eq!(status, 200);
    let mut order: Vec<String> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["objectWriteTraceId"].as_str().unwrap().to_owned())
        .collect();
    assert_ne!(order, keys);
    order.sort_unstable();
    assert_eq!(order, keys);

    let mut empty = Caller::new(ProviderKind::HubSpot, "empty=1");
    let (status, body) = batch(&mut empty, "upsert", &inputs);
    assert_eq!((status, &body["results"]), (200, &json!([])));
    assert_eq!(empty.account.records().count(), 0);
    let mut lossy = Caller::new(ProviderKind::HubSpot, "item_missing=1");
    let (_, body) = batch(&mut lossy, "upsert", &inputs);
    assert_eq!(body["results"], json!([]));
    assert_eq!(lossy.account.records().count(), 50);
}

#[test]
fn a_read_tells_what_is_missing_and_where_a_merged_record_went() {
    let mut portal = portal("");
    let (one, two) = (contact(&mut portal, "c-1"), contact(&mut portal, "c-2"));
    let merge = json!({"primaryObjectId": two, "objectIdToMerge": one});
    assert_eq!(portal.post(&format!("{CONTACTS}/merge"), &merge).0, 200);
    let target = format!("{CONTACTS}/batch/read");
    let body = json!({"properties": ["firstname"], "inputs": [{"id": one}, {"id": "77"}]});
    let (status, body) = portal.post(&target, &body);
    assert_eq!(status, 207);
    assert_eq!(body["results"][0]["id"], json!(two));
    assert_eq!(body["errors"][0]["category"], "OBJECT_NOT_FOUND");
    assert_eq!(body["errors"][0]["context"], json!({"ids": ["77"]}));
    assert_eq!(portal.get(&format!("{CONTACTS}/{one}")).1["id"], json!(two));
    let archive = [json!({"id": two}), json!({"id": "77"})];
    assert_eq!(batch(&mut portal, "archive", &archive), (204, Value::Null));
    assert_eq!(portal.account.records().count(), 0);
}

#[test]
fn a_search_lags_behind_and_pages_up_to_its_cap() {
    let mut portal = portal("stale=3s");
    let since = |at: Duration| {
        json!({
            "filterGroups": [{"filters": [{
                "propertyName": "lastmodifieddate",
                "operator": "GTE",
                "value": (EPOCH + at).as_millis().to_string(),
            }]}],
            "sorts": ["lastmodifieddate"],
            "properties": ["firstname"],
            "limit": 2,
        })
    };
    let id = contact(&mut portal, "c-1");
    contact(&mut portal, "c-2");
    contact(&mut portal, "c-3");
    let all = since(Duration::ZERO);
    assert_eq!(search(&mut portal, &all).1["total"], 0);
    portal.wait(Duration::from_secs(3));
    let (_, page) = search(&mut portal, &all);
    assert_eq!(
        (&page["total"], &page["paging"]["next"]["after"]),
        (&json!(3), &json!("2"))
    );
    let mut second = all.clone();
    second["after"] = "2".into();
    let (_, page) = search(&mut portal, &second);
    assert_eq!(
        (
            page["results"].as_array().unwrap().len(),
            page.get("paging")
        ),
        (1, None)
    );

    let changed_at = portal.now;
    portal.patch(
        &format!("{CONTACTS}/{id}"),
        &json!({"properties": {"firstname": "new"}}),
    );
    assert_eq!(search(&mut portal, &since(changed_at)).1["total"], 0);
    portal.wait(Duration::from_secs(3));
    let (_, page) = search(&mut portal, &since(changed_at));
    assert_eq!(page["results"][0]["properties"]["firstname"], "new");

    let mut deep = all.clone();
    deep["after"] = "9999".into();
    assert_eq!(search(&mut portal, &deep).0, 400);
    let mut wide = all;
    wide["limit"] = 201.into();
    assert_eq!(search(&mut portal, &wide).0, 400);
}

#[test]
fn searches_have_a_limit_of_their_own_and_tell_nothing_of_it() {
    let mut portal = portal("");
    let target = format!("{CONTACTS}/search");
    for _ in 0..5 {
        let reply = portal.reply(Method::POST, &target, &json!({}));
        assert_eq!((reply.status, reply.headers.len()), (200, 0));
    }
    let (status, body) = portal.post(&target, &json!({}));
    assert_eq!(status, 429);
    assert_eq!(body["message"], "You have reached your secondly limit.");
    let reply = portal.reply(Method::GET, &format!("{CONTACTS}/1"), &Value::Null);
    assert_eq!(reply.status, 404);
    assert_eq!(reply.header("x-hubspot-ratelimit-max"), Some("190"));
    assert_eq!(reply.header("x-hubspot-ratelimit-remaining"), Some("189"));
    assert_eq!(
        reply.header("x-hubspot-ratelimit-daily-remaining"),
        Some("624994")
    );
}

#[test]
fn the_burst_and_the_day_are_refused_under_their_own_policies() {
    let limits = ["burst=2/10s", "daily=3/24h"];
    let mut portal = Caller::of(AccountConfig {
        limits: limits.iter().map(|limit| limit.parse().unwrap()).collect(),
        ..config(ProviderKind::HubSpot)
    });
    let target = format!("{CONTACTS}/1");
    assert_eq!(portal.get(&target).0, 404);
    assert_eq!(portal.get(&target).0, 404);
    let reply = portal.reply(Method::GET, &target, &Value::Null);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, reply.retry_after_s), (429, None));
    assert_eq!(body["policyName"], "TEN_SECONDLY_ROLLING");
    portal.wait(Duration::from_secs(10));
    assert_eq!(portal.get(&target).0, 404);
    assert_eq!(portal.get(&target).1["policyName"], "DAILY");
    // The day ends at midnight, 14 hours after the account's start.
    portal.wait(Duration::from_secs(14 * 60 * 60));
    assert_eq!(portal.get(&target).0, 404);
    let counted = portal.account.violations().by_limit;
    assert_eq!(counted[0], ("burst".to_owned(), 1));
    assert_eq!(counted[1], ("daily".to_owned(), 1));
}

#[test]
fn tokens_of_private_apps_stay_and_those_of_oauth_end() {
    let mut portal = Caller::of(AccountConfig {
        provider: ProviderKind::HubSpot,
        ..AccountConfig::default()
    });
    let target = format!("{CONTACTS}/1");
    let (status, body) = portal.get(&target);
    assert_eq!(
        (status, &body["category"]),
        (401, &json!("INVALID_AUTHENTICATION"))
    );
    portal.header("authorization", "Bearer pat-eu1-1");
    assert_eq!(portal.get(&target).0, 404);
    let form = "grant_type=refresh_token&client_id=a&client_secret=b&refresh_token=r-1";
    let (status, minted) = portal.post("/oauth/v1/token", &json!(form));
    assert_eq!((status, &minted["expires_in"]), (200, &json!(1_800)));
    assert_eq!(minted["refresh_token"], "r-1");
    let token = minted["access_token"].as_str().unwrap();
    portal.header("authorization", &format!("Bearer {token}"));
    assert_eq!(portal.get(&target).0, 404);
    portal.wait(Duration::from_secs(1_800));
    assert_eq!(portal.get(&target).1["category"], "EXPIRED_AUTHENTICATION");
    let other = form.replace("r-1", "r-2");
    let (status, body) = portal.post("/oauth/2026-03/token", &json!(other));
    assert_eq!(
        (status, &body["status"]),
        (400, &json!("BAD_REFRESH_TOKEN"))
    );
}

#[test]
fn locks_and_migrations_have_statuses_of_their_own() {
    let mut locked = portal("lock=1");
    let body = json!({"properties": {"external_id": "c-1"}});
    assert_eq!(locked.post(CONTACTS, &body).0, 423);
    let mut moving = portal("maintenance=1,retry_after=90s");
    let reply = moving.reply(Method::POST, CONTACTS, &body);
    assert_eq!((reply.status, reply.retry_after_s), (477, Some(90)));
}

fn listening(faults: &str) -> Caller {
    let mut config = AccountConfig {
        faults: faults.parse().unwrap(),
        webhook: Some("http://127.0.0.1:1/hook".into()),
        ..config(ProviderKind::HubSpot)
    };
    config.credentials.client_secret = Some("secret".into());
    Caller::of(config)
}

#[test]
fn changes_are_notified_of_with_who_made_them() {
    let mut portal = listening("");
    let id = contact(&mut portal, "c-1");
    let change = Change::Update(fields(json!({"firstname": "edited"})));
    portal.edit("contacts", Some(&id), change);
    portal.edit("contacts", Some(&id), Change::Delete);
    let delivery = portal.account.poll_delivery(portal.now).unwrap();
    assert_eq!(portal.account.poll_delivery(portal.now), None);
    let events: Value = serde_json::from_slice(&delivery.body).unwrap();
    let shown: Vec<(String, String)> = events
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
            let what = format!("{} {}", text("subscriptionType"), text("propertyName"));
            (what.trim_end().to_owned(), text("changeSource"))
        })
        .collect();
    let expected = [
        ("contact.creation", "INTEGRATION"),
        ("contact.propertyChange external_id", "INTEGRATION"),
        ("contact.propertyChange firstname", "INTEGRATION"),
        ("contact.propertyChange firstname", "CRM_UI"),
        ("contact.deletion", "CRM_UI"),
    ];
    let expected = expected.map(|(what, who)| (what.to_owned(), who.to_owned()));
    assert_eq!(shown, expected);
    let signed = delivery
        .headers
        .iter()
        .any(|(name, _)| *name == "x-hubspot-signature-v3");
    assert!(signed);
}

#[test]
fn a_notification_that_is_refused_comes_again_and_one_that_is_taken_does_not() {
    let mut portal = listening("");
    contact(&mut portal, "c-1");
    let first = portal.account.poll_delivery(portal.now).unwrap();
    portal
        .account
        .delivered(portal.now, first.id, Delivered::Answered(500));
    let again_at = portal.account.next_delivery_at().unwrap();
    assert_eq!(again_at, portal.now + Duration::from_secs(60));
    let second = portal.account.poll_delivery(again_at).unwrap();
    let events: Value = serde_json::from_slice(&second.body).unwrap();
    assert_eq!(events[0]["attemptNumber"], 1);
    portal
        .account
        .delivered(again_at, second.id, Delivered::Answered(200));
    assert_eq!(portal.account.next_delivery_at(), None);
    let counts = portal.account.delivery_counts();
    assert_eq!(
        (counts.sent, counts.acknowledged, counts.waiting),
        (2, 3, 0)
    );

    let mut lossy = listening("hook_lost=1");
    contact(&mut lossy, "c-1");
    assert_eq!(lossy.account.next_delivery_at(), None);
    let mut twice = listening("hook_repeat=1");
    contact(&mut twice, "c-1");
    assert_eq!(twice.account.delivery_counts().waiting, 6);
}

#[test]
fn two_writes_of_a_record_at_a_time_overlap_whichever_way_they_name_it() {
    let mut portal = portal("");
    let id = contact(&mut portal, "c-1");
    let by_id = json!({"properties": {"firstname": "A"}});
    let target = format!("{CONTACTS}/{id}");
    let by_id = syncline_mock::Request::json(Method::PATCH, &target, &by_id);
    let by_key = json!({"inputs": [input("c-1", json!({}), None)]});
    let target = format!("{CONTACTS}/batch/upsert");
    let by_key = syncline_mock::Request::json(Method::POST, &target, &by_key);
    let one = portal
        .account
        .arrive_with(portal.now, &by_id, portal.headers.clone());
    let two = portal
        .account
        .arrive_with(portal.now, &by_key, portal.headers.clone());
    portal.account.finish(portal.now, one.call);
    portal.account.finish(portal.now, two.call);
    assert_eq!(portal.account.violations().overlaps, 1);
    assert!(
        portal.headers["authorization"]
            .to_str()
            .unwrap()
            .ends_with(TOKEN)
    );
}
