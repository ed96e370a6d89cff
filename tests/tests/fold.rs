//! Waiting changes of a record become one call, and every one of them is told how it ended.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, Violations};

/// A node whose account is held, so that whatever is sent waits.
fn held(provider: &Provider) -> Node {
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    assert_eq!(node.post("/v1/pause", r#"{"provider":"crm"}"#).status, 200);
    node
}

fn take(node: &Node, operation: &str, record_id: &str, data: Value) -> String {
    let mut event = json!({"operation": operation, "object": "contact", "record_id": record_id});
    if !data.is_null() {
        event["data"] = data;
    }
    let answer = node.post("/v1/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["operation_id"]
        .as_str()
        .expect("an operation has an id")
        .to_owned()
}

/// State, reason and the newer operation, as the API tells them of an operation's only target.
fn standing(node: &Node, id: &str) -> (String, Value, Value) {
    let answer = node.get(&format!("/v1/operations/{id}")).json();
    let target = &answer["providers"][0];
    (
        target["state"].as_str().unwrap_or_default().to_owned(),
        target["reason"].clone(),
        target["superseded_by"].clone(),
    )
}

fn resume(node: &Node) {
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
    assert!(node.drain().is_empty());
}

#[test]
fn changes_that_wait_become_one_call_and_each_tells_its_end() {
    let provider = Provider::start(&[]);
    let mut node = held(&provider);
    let made = take(
        &node,
        "CREATE",
        "c-1",
        json!({"name": "Ada", "city": "Turin"}),
    );
    let named = take(&node, "UPDATE", "c-1", json!({"name": "Ada L."}));
    let newest = take(
        &node,
        "UPDATE",
        "c-1",
        json!({"name": "Ada Lovelace", "tags": ["x"]}),
    );
    let (state, reason, _) = standing(&node, &named);
    assert_eq!((state.as_str(), reason), ("waiting", json!("folded")));

    resume(&node);
    let check = |node: &Node| {
        assert_eq!(standing(node, &made).0, "synced", "its city went along");
        let (state, _, by) = standing(node, &named);
        assert_eq!((state.as_str(), by), ("superseded", json!(newest)));
        assert_eq!(standing(node, &newest).0, "synced");
    };
    check(&node);
    let calls = provider.journal();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].method, "POST");
    assert_eq!(
        calls[0].body,
        json!({"external_id": "c-1", "name": "Ada Lovelace", "city": "Turin", "tags": ["x"]})
    );
    node.kill();
    node.restart();
    check(&node);
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn a_delete_is_a_barrier_and_a_record_deleted_before_it_was_sent_costs_no_call() {
    let provider = Provider::start(&[]);
    let node = held(&provider);
    let made = take(&node, "CREATE", "c-1", json!({"name": "Ada"}));
    let changed = take(&node, "UPDATE", "c-1", json!({"city": "Turin"}));
    let unmade = take(&node, "DELETE", "c-1", Value::Null);
    take(&node, "UPSERT", "c-2", json!({"name": "Bob"}));
    take(&node, "DELETE", "c-2", Value::Null);
    take(&node, "UPSERT", "c-2", json!({"name": "Bob again"}));

    resume(&node);
    for older in [&made, &changed] {
        let (state, _, by) = standing(&node, older);
        assert_eq!((state.as_str(), by), ("superseded", json!(unmade)));
    }
    let (state, reason, _) = standing(&node, &unmade);
    assert_eq!((state.as_str(), reason), ("synced", json!("absent")));
    let calls = provider.journal();
    let methods: Vec<&str> = calls.iter().map(|call| call.method.as_str()).collect();
    assert_eq!(methods, ["PUT", "DELETE", "PUT"], "{calls:?}");
}

#[test]
fn operations_that_fail_together_are_dead_letters_each_and_come_back_as_they_were() {
    let provider = Provider::start(&["--fault", "poison=bad-"]);
    let node = held(&provider);
    let first = take(&node, "UPSERT", "bad-1", json!({"name": "Ada"}));
    let second = take(&node, "UPSERT", "bad-1", json!({"city": "Turin"}));
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
    let dead = node.drain();
    assert_eq!(dead.len(), 2, "{dead:?}");
    for id in [&first, &second] {
        assert_eq!(standing(&node, id).0, "failed");
    }
    assert_eq!(provider.journal().len(), 1, "one call for both");

    provider.set_faults("poison=none-");
    let answer = node.post("/v1/dlq/retry", r#"{"filter":{"provider":"crm"}}"#);
    assert_eq!(answer.json()["redriven"], 2);
    assert!(node.drain().is_empty());
    assert_eq!(
        provider.records()["contact/bad-1"],
        json!({"name": "Ada", "city": "Turin"})
    );
}
