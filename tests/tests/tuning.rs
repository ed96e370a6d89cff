//! Settings changed while the program runs: in force at once, kept over a restart, ended by
//! themselves.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, until};

fn take(node: &Node, record_id: &str) {
    let event = json!({"operation": "UPSERT", "object": "contact", "record_id": record_id,
        "data": {"n": 1}});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
}

fn change(node: &Node, set: Value, ttl: Option<&str>) -> Value {
    let mut request = json!({"provider": "crm", "set": set});
    if let Some(ttl) = ttl {
        request["ttl"] = ttl.into();
    }
    let answer = node.post("/v1/sync/config-override", request.to_string());
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

#[test]
fn an_account_is_taken_out_of_work_and_comes_back_by_itself() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().shards(2).account("crm", &provider.url(), ""));
    let answer = change(&node, json!({"paused": true}), None);
    assert_eq!(answer["set"], json!({"paused": true}));
    take(&node, "c-1");
    let told = node.get("/v1/explain/c-1").json();
    assert_eq!(told["providers"][0]["reason"], "paused", "{told}");
    node.kill();
    node.restart();
    until("it is held after the restart", || {
        let told = node.get("/v1/explain/c-1").json();
        (told["providers"][0]["detail"] == "held: the account, by a config override").then_some(())
    });
    assert!(provider.journal().is_empty());

    change(&node, json!({"paused": true}), Some("300ms"));
    assert!(node.drain().is_empty(), "its time ends");
    assert_eq!(provider.journal().len(), 1);
    let shown = node.get("/v1/sync/config-override").json();
    assert_eq!(shown["overrides"], json!([]));
    let audit = shown["audit"].as_array().unwrap();
    assert_eq!(audit.len(), 3, "{shown}");
    assert_eq!(
        (&audit[0]["by"], &audit[0]["new"]),
        (&json!("its ttl"), &Value::Null)
    );
}

#[test]
fn a_limit_and_an_address_change_under_way() {
    let first = Provider::start(&[]);
    let second = Provider::start(&[]);
    let limit = "[[providers.crm.limits]]\nname = \"minute\"\nkind = \"sliding\"\nlimit = 1\nwindow = \"60s\"\n";
    let node = Node::start(Config::new().account("crm", &first.url(), limit));
    for n in 0..4 {
        take(&node, &format!("c-{n}"));
    }
    until("the limit is used up", || {
        (first.journal().len() == 1).then_some(())
    });
    change(
        &node,
        json!({"rate_limit_per_minute": 600, "base_url": second.url(), "timeout": "5s"}),
        Some("10m"),
    );
    assert!(node.drain().is_empty());
    assert_eq!((first.journal().len(), second.journal().len()), (1, 3));
    let shown = node.get("/v1/providers/crm").json();
    assert_eq!(
        (&shown["base_url"], &shown["timeout_ms"]),
        (&json!(second.url()), &json!(5000))
    );
    change(
        &node,
        json!({"base_url": null, "rate_limit_per_minute": null}),
        None,
    );
    let shown = node.get("/v1/providers/crm").json();
    assert_eq!(shown["base_url"], first.url());
}

#[test]
fn what_is_not_sound_is_refused_and_changes_nothing() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    for (request, code) in [
        (json!({"provider": "x", "paused": true}), "unknown_provider"),
        (json!({"provider": "crm", "colour": 1}), "unknown_field"),
        (json!({"provider": "crm", "timeout": 5}), "invalid_field"),
        (
            json!({"provider": "crm", "paused": true, "ttl": "soon"}),
            "invalid_field",
        ),
        (
            json!({"provider": "crm", "base_url": "http://10.0.0.1"}),
            "invalid_field",
        ),
        (json!({"provider": "crm"}), "missing_field"),
    ] {
        let refused = node.post("/v1/sync/config-override", request.to_string());
        let named = format!("urn:syncline:problem:{code}");
        assert_eq!(refused.json()["type"], named, "{request}");
    }
    let shown = node.get("/v1/sync/config-override").json();
    assert_eq!(shown, json!({"overrides": [], "audit": []}));
}
