//! What was sent in a span of time is sent once more, and nothing old comes back over what is
//! newer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, until};

fn take(node: &Node, operation: &str, record_id: &str, data: Value) {
    let mut event = json!({"operation": operation, "object": "contact", "record_id": record_id});
    if !data.is_null() {
        event["data"] = data;
    }
    let answer = node.post("/v1/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
}

/// The node's clock, as its API tells it.
fn now(node: &Node) -> String {
    let health = node.get("/health").json();
    health["timestamp"].as_str().expect("an instant").to_owned()
}

/// An instant later than every event so far and earlier than every one to come.
fn mark(node: &Node) -> String {
    let before = now(node);
    until("the clock moves on", || {
        let later = now(node);
        (later != before).then_some(later)
    })
}

fn replay(node: &Node, request: &Value) -> Value {
    let begun = node.post("/v1/replay", request.to_string());
    assert_eq!(begun.status, 202, "{}", begun.json());
    let path = format!("/v1/replay/{}", begun.json()["id"].as_str().unwrap());
    until("the replay ends", || {
        let job = node.get(&path).json();
        (job["state"] != "running").then_some(job)
    })
}

#[test]
fn records_changed_in_the_span_are_sent_as_they_are_now() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().shards(2).account("crm", &provider.url(), ""));
    take(&node, "UPSERT", "before", json!({"n": 1}));
    assert!(node.drain().is_empty());
    let from = mark(&node);
    take(
        &node,
        "UPSERT",
        "kept",
        json!({"name": "Ada", "city": "Turin"}),
    );
    take(&node, "UPDATE", "kept", json!({"city": "Pisa"}));
    take(
        &node,
        "UPSERT",
        "changed",
        json!({"name": "old", "city": "Turin"}),
    );
    take(&node, "UPSERT", "rewritten", json!({"name": "old"}));
    take(&node, "UPSERT", "deleted", json!({"name": "gone"}));
    assert!(node.drain().is_empty());
    let to = mark(&node);
    take(&node, "UPDATE", "changed", json!({"name": "new"}));
    take(&node, "UPDATE", "rewritten", json!({"name": "new"}));
    take(&node, "DELETE", "deleted", Value::Null);
    assert!(node.drain().is_empty());
    assert!(node.stop().success());
    node.restart();

    let sent = provider.journal().len();
    let mut request = json!({"provider": "crm", "from": from, "to": to});
    request["dry_run"] = true.into();
    let counted = node.post("/v1/replay", request.to_string()).json();
    assert_eq!(counted, json!({"matched": 2, "not_kept": 0}));
    assert_eq!(provider.journal().len(), sent, "counting sends nothing");

    request["dry_run"] = false.into();
    let job = replay(&node, &request);
    assert_eq!(
        (&job["state"], &job["matched"], &job["done"]),
        (&json!("done"), &json!(2), &json!(2))
    );
    assert!(node.drain().is_empty());
    let mut bodies: Vec<(String, Value)> = provider.journal()[sent..]
        .iter()
        .map(|call| (call.record.clone(), call.body.clone()))
        .collect();
    bodies.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        bodies,
        [
            ("contact/changed".to_owned(), json!({"city": "Turin"})),
            (
                "contact/kept".to_owned(),
                json!({"name": "Ada", "city": "Pisa"})
            ),
        ]
    );
    let records = provider.records();
    assert_eq!(
        records["contact/changed"],
        json!({"name": "new", "city": "Turin"})
    );
    assert!(!records.contains_key("contact/deleted"));
}

#[test]
fn what_waits_is_newer_than_what_is_sent_again() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    let from = mark(&node);
    take(&node, "UPSERT", "c-1", json!({"a": "old", "b": "old"}));
    assert!(node.drain().is_empty());
    let to = mark(&node);
    assert_eq!(node.post("/v1/pause", r#"{"provider":"crm"}"#).status, 200);
    take(&node, "UPDATE", "c-1", json!({"a": "new"}));
    let request = json!({"provider": "crm", "from": from, "to": to});
    assert_eq!(replay(&node, &request)["done"], 1);
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
    assert!(node.drain().is_empty());
    assert_eq!(
        provider.records()["contact/c-1"],
        json!({"a": "new", "b": "old"})
    );
    assert_eq!(provider.violations().overlaps, 0);
}

#[test]
fn a_replay_can_be_cancelled_and_asks_for_what_it_can_do() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    let from = mark(&node);
    for n in 0..5 {
        take(&node, "UPSERT", &format!("c-{n}"), json!({"n": n}));
    }
    take(&node, "UPSERT", "d-1", json!({"n": 0}));
    assert!(node.drain().is_empty());
    let to = mark(&node);
    let request = json!({"provider": "crm", "from": from, "to": to, "rate": 1});
    let begun = node.post("/v1/replay", request.to_string()).json();
    let path = format!("/v1/replay/{}", begun["id"].as_str().unwrap());
    until("the replay is under way", || {
        let job = node.get(&path).json();
        (job["done"].as_u64()? > 0).then_some(())
    });
    let job = node.ask("DELETE", &path, "").json();
    assert_eq!(job["state"], "cancelled");
    assert_eq!(job["matched"], 6);
    assert!(job["done"].as_u64().unwrap() < 6, "{job}");
    for (wrong, code) in [
        (
            json!({"provider": "x", "from": from, "to": to}),
            "unknown_provider",
        ),
        (
            json!({"provider": "crm", "from": to, "to": from}),
            "invalid_field",
        ),
        (
            json!({"provider": "crm", "from": from, "to": to, "rate": 0}),
            "invalid_field",
        ),
    ] {
        let refused = node.post("/v1/replay", wrong.to_string());
        assert_eq!(refused.status, 422);
        let named = format!("urn:syncline:problem:{code}");
        assert_eq!(refused.json()["type"], named, "{wrong}");
    }
    let of_another = json!({"provider": "crm", "object": "deal", "from": from, "to": to,
        "dry_run": true});
    let counted = node.post("/v1/replay", of_another.to_string()).json();
    assert_eq!(counted["matched"], 0);
}
