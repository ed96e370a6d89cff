//! Why a record waits, as the program tells it in each case; holds by account, object and record.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, until};

fn take(node: &Node, record_id: &str, more: Value) {
    let mut event = json!({"operation": "UPSERT", "object": "contact", "record_id": record_id,
        "data": {"n": 1}});
    for (name, value) in more.as_object().into_iter().flatten() {
        event[name] = value.clone();
    }
    let answer = node.post("/v1/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
}

/// What is told of a record at its only account.
fn explained(node: &Node, record_id: &str) -> Value {
    let answer = node.get(&format!("/v1/explain/{record_id}"));
    assert_eq!(answer.status, 200, "{}", answer.json());
    let record = answer.json();
    assert_eq!(record["record_id"], record_id);
    assert_eq!(record["object"], "contact");
    assert_eq!(record["providers"].as_array().unwrap().len(), 1);
    record["providers"][0].clone()
}

fn reason(told: &Value) -> (&str, Option<&str>) {
    let state = told["state"].as_str().unwrap();
    (state, told["reason"].as_str())
}

#[test]
fn a_hold_is_named_by_its_scope_and_lifted_by_it() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().shards(2).account("crm", &provider.url(), ""));
    for (scope, words) in [
        (json!({"provider": "crm"}), "held: provider \"crm\""),
        (json!({"object": "contact"}), "held: object \"contact\""),
        (json!({"record_id": "c-1"}), "held: record_id \"c-1\""),
        (
            json!({"provider": "crm", "object": "contact", "record_id": "c-1"}),
            "held: provider \"crm\", object \"contact\", record_id \"c-1\"",
        ),
        (json!({}), "held: everything"),
    ] {
        let answer = node.post("/v1/pause", scope.to_string());
        assert_eq!(answer.status, 200, "{}", answer.json());
        assert_eq!(answer.json()["paused"], true);
        take(&node, "c-1", json!({}));
        let told = until("it is held", || {
            let told = explained(&node, "c-1");
            (reason(&told) == ("waiting", Some("paused"))).then_some(told)
        });
        assert_eq!(told["detail"], words);
        assert_eq!(told["expected_at"], Value::Null);
        let status = node.get("/v1/sync/status/c-1").json();
        assert_eq!(status["providers"][0]["reason"], "paused", "{scope}");
        let answer = node.post("/v1/resume", scope.to_string());
        assert_eq!(answer.json()["paused"], false);
        assert!(node.drain().is_empty());
        assert_eq!(reason(&explained(&node, "c-1")), ("synced", None));
    }
    assert_eq!(provider.journal().len(), 5);
}

#[test]
fn a_hold_keeps_others_going_and_survives_a_restart() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().account("crm", &provider.url(), ""));
    assert_eq!(node.post("/v1/pause", r#"{"record_id":"c-1"}"#).status, 200);
    take(&node, "c-1", json!({}));
    take(&node, "c-2", json!({}));
    until("the other record arrives", || {
        provider.records().contains_key("contact/c-2").then_some(())
    });
    node.kill();
    node.restart();
    until("it is held again", || {
        (reason(&explained(&node, "c-1")) == ("waiting", Some("paused"))).then_some(())
    });
    assert!(!provider.records().contains_key("contact/c-1"));
    assert_eq!(
        node.post("/v1/resume", r#"{"record_id":"c-1"}"#).status,
        200
    );
    assert!(node.drain().is_empty());
    assert!(provider.records().contains_key("contact/c-1"));
}

#[test]
fn a_schedule_and_what_waits_behind_it_are_told() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    take(
        &node,
        "c-1",
        json!({"scheduled_at": "2099-01-01T00:00:00Z"}),
    );
    take(&node, "c-1", json!({}));
    let told = until("it waits for its time", || {
        let told = explained(&node, "c-1");
        (reason(&told) == ("waiting", Some("scheduled"))).then_some(told)
    });
    assert_eq!(told["until"], "2099-01-01T00:00:00.000Z");
    assert_eq!(told["expected_at"], told["until"]);
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.ends_with("1 newer operation of the record behind it"),
        "{detail}"
    );
}

#[test]
fn a_used_up_limit_is_named_with_the_place_in_the_queue() {
    let provider = Provider::start(&[]);
    let limit = "[[providers.crm.limits]]\nname = \"hourly\"\nkind = \"sliding\"\nlimit = 2\nwindow = \"1h\"\n";
    let node = Node::start(
        Config::new()
            .shards(1)
            .account("crm", &provider.url(), limit),
    );
    for n in 0..6 {
        take(&node, &format!("c-{n}"), json!({}));
    }
    until("the limit is used up", || {
        (provider.journal().len() == 2).then_some(())
    });
    let told = until("the limit is named", || {
        let told = explained(&node, "c-5");
        (reason(&told) == ("waiting", Some("quota"))).then_some(told)
    });
    assert_eq!(told["detail"], "the account's limit \"hourly\" is used up");
    assert_eq!(told["ahead"], 3);
    assert!(
        told["expected_at"].is_string() && told["until"].is_string(),
        "{told}"
    );
    assert_eq!(explained(&node, "c-2")["ahead"], 0);
}

#[test]
fn a_breaker_a_backoff_and_refused_credentials_are_told_apart() {
    let provider = Provider::start(&["--fault", "5xx=1.0"]);
    let account = |name: &str, more: &str| {
        format!(
            "[providers.{name}]\ntype = \"rest\"\nbase_url = \"{}\"\n{more}",
            provider.url()
        )
    };
    let slow = "retry = { base_delay = \"1h\", max_delay = \"1h\" }\n";
    let node = Node::start(
        Config::new()
            .with(&account(
                "patient",
                &format!("{slow}breaker = {{ failure_threshold = 99 }}\n"),
            ))
            .with(&account(
                "broken",
                &format!("{slow}breaker = {{ failure_threshold = 1, open_for = \"1h\" }}\n"),
            )),
    );
    take(&node, "c-1", json!({"provider": "patient"}));
    let told = until("it waits between attempts", || {
        let told = explained(&node, "c-1");
        (told["reason"] == "backoff").then_some(told)
    });
    assert!(
        told["until"].is_string() && told["ahead"].is_null(),
        "{told}"
    );
    take(&node, "c-2", json!({"provider": "broken"}));
    take(&node, "c-3", json!({"provider": "broken"}));
    until("the breaker is open", || {
        (explained(&node, "c-3")["reason"] == "breaker").then_some(())
    });
    provider.set_faults("5xx=0.0,401=1.0");
    take(&node, "c-4", json!({"provider": "patient"}));
    let told = until("the credentials are refused", || {
        let told = explained(&node, "c-4");
        (told["reason"] == "auth").then_some(told)
    });
    assert_eq!(told["expected_at"], Value::Null);
}

#[test]
fn who_is_asked_for_has_to_be_known_and_unambiguous() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    take(&node, "c-1", json!({}));
    take(&node, "c-1", json!({"object": "deal"}));
    assert!(node.drain().is_empty());
    let answer = node.get("/v1/explain/c-1");
    assert_eq!(
        (answer.status, &answer.json()["objects"]),
        (409, &json!(["contact", "deal"]))
    );
    assert_eq!(node.get("/v1/explain/c-1?object=deal").status, 200);
    assert_eq!(
        node.get("/v1/explain/c-1?object=deal&provider=x").status,
        404
    );
    assert_eq!(node.get("/v1/explain/c-2").status, 404);
}
