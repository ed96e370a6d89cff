//! Many records share a call, and a bad one among them harms no other.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Model, Node, Provider, Violations};

const BATCH: usize = 50;

fn batched(provider: &Provider) -> Node {
    let batch = format!("[providers.crm.batch]\nmax_items = {BATCH}\n");
    Node::start(
        Config::new()
            .shards(2)
            .account("crm", &provider.url(), &batch),
    )
}

fn events(count: usize) -> Vec<Value> {
    (0..count)
        .map(|n| json!({"operation": "UPSERT", "object": "contact", "record_id": format!("c-{n}"), "data": {"n": n}}))
        .collect()
}

fn send_while_paused(node: &Node, events: &[Value]) {
    assert_eq!(node.post("/v1/pause", r#"{"provider":"crm"}"#).status, 200);
    let answer = node.post("/v1/sync", json!(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
}

#[test]
fn a_backlog_leaves_in_full_calls_and_each_record_tells_its_end() {
    let provider = Provider::start(&[]);
    let mut node = batched(&provider);
    let events = events(1000);
    let mut model = Model::default();
    events.iter().for_each(|event| model.apply(event));
    send_while_paused(&node, &events);
    assert!(node.drain().is_empty());

    let calls = provider.journal();
    // One shard's last call may be short, and the records of two shards share none.
    assert!(calls.len() <= 1000 / BATCH + 2, "{} calls", calls.len());
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    node.kill();
    node.restart();
    let status = node.get("/v1/sync/status/c-7?object=contact").json();
    assert_eq!(status["providers"][0]["state"], "synced", "{status}");
}

#[test]
fn one_poisoned_record_is_found_by_halving_and_its_neighbours_arrive() {
    let provider = Provider::start(&[]);
    let node = batched(&provider);
    let mut events = events(100);
    events[33]["data"]["poison"] = json!(true);
    events[77]["data"]["poison"] = json!(true);
    send_while_paused(&node, &events);
    let dead = node.drain();

    let found: BTreeSet<&str> = dead
        .iter()
        .map(|letter| letter["record_id"].as_str().expect("a letter has a record"))
        .collect();
    assert_eq!(found, BTreeSet::from(["c-33", "c-77"]));
    let records = provider.records();
    assert_eq!(records.len(), 98);
    let calls = provider.journal().len();
    assert!(
        calls <= 34,
        "{calls} calls to find two bad records in a hundred"
    );
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn records_that_a_reply_does_not_tell_of_are_settled_and_none_is_made_twice() {
    let provider = Provider::start(&["--fault", "item_missing=0.2,item_4xx=0.05", "--seed", "7"]);
    let node = batched(&provider);
    let mut events = events(200);
    for event in &mut events {
        event["operation"] = json!("CREATE");
    }
    send_while_paused(&node, &events);
    provider.set_faults("item_missing=0.2");
    let dead = node.drain();

    let records = provider.records();
    assert_eq!(records.len() + dead.len(), 200);
    assert_eq!(provider.violations(), Violations::default());
}
