//! Another number of shards from start to start: what was queued is delivered, in order.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Dice, Model, Node, Provider, Violations, wait};

const RECORDS: usize = 60;

#[test]
fn queued_events_and_statuses_survive_2_4_2_and_1_shards() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut dice = Dice::seeded(seed);
    let provider = Provider::start(&[]);
    let config = Config::new().account("crm", &provider.url(), "fold = false");
    let mut node = Node::start(config.shards(2));
    let mut model = Model::default();
    let mut send = |node: &Node, operation: &str, round: usize, object: &str| {
        let events: Vec<Value> = (0..RECORDS)
            .map(|record| {
                json!({
                    "operation": operation, "object": object, "record_id": format!("r-{record}"),
                    "event_id": format!("{object}-{record}-{round}"),
                    "data": { "n": round, format!("round{round}"): record },
                })
            })
            .collect();
        events.iter().for_each(|event| model.apply(event));
        let answer = node.post("/v1/sync", json!(events).to_string());
        assert_eq!(answer.status, 202, "{}", answer.json());
        let results = answer.json()["results"].as_array().expect("a list").clone();
        results
            .iter()
            .map(|result| result["operation_id"].as_str().expect("taken").to_owned())
            .collect::<Vec<_>>()
    };
    let mut operations = send(&node, "CREATE", 0, "done");
    assert!(node.drain().is_empty());
    assert_eq!(node.post("/v1/pause", r#"{"provider":"crm"}"#).status, 200);
    operations.extend(send(&node, "CREATE", 1, "contact"));

    for (step, shards) in [4, 2, 1].into_iter().enumerate() {
        operations.extend(send(&node, "UPDATE", step + 2, "contact"));
        assert_eq!(node.stop().code(), Some(0));
        node.reconfigure(|config| config.shards(shards));
        // Killed on the move, wherever it is by then.
        for _ in 0..2 {
            let moving = node.launch();
            wait(Duration::from_millis(dice.below(150)));
            drop(moving);
        }
        node.restart();
        // And once more, so that what the move left is what a start finds.
        node.kill();
        node.restart();
        for (at, id) in operations.iter().enumerate() {
            let known = node.get(&format!("/v1/operations/{id}"));
            assert_eq!(
                known.status,
                200,
                "{shards} shards, operation {at} {id}: {}",
                known.json()
            );
            let state = known.json()["state"].clone();
            let expected: &[&str] = if at < RECORDS {
                &["synced"]
            } else {
                &["waiting", "queued"]
            };
            assert!(
                expected.iter().any(|expected| state == *expected),
                "{shards} shards, {id}: {state}"
            );
        }
        let again = json!({
            "operation": "CREATE", "object": "done", "record_id": "r-0", "event_id": "done-0-0",
            "data": { "n": 0, "round0": 0 },
        });
        let again = node.post("/v1/sync", again.to_string()).json();
        assert_eq!(
            (&again["operation_id"], &again["duplicate"]),
            (&json!(operations[0]), &json!(true)),
            "{again}"
        );
    }

    assert_eq!(
        provider.journal().len(),
        RECORDS,
        "nothing is sent while the account is paused"
    );
    assert_eq!(node.post("/v1/resume", r#"{"provider":"crm"}"#).status, 200);
    assert!(node.drain().is_empty());
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    let mut newest: HashMap<String, u64> = HashMap::new();
    for call in provider.journal().iter().filter(|call| call.is_write()) {
        let n = call.body["n"].as_u64().expect("every write has one");
        let before = newest.insert(call.record.clone(), n);
        assert!(
            before.is_none_or(|before| before < n),
            "{}: {n} after {before:?}",
            call.record
        );
    }
    for id in &operations {
        let state = node.get(&format!("/v1/operations/{id}")).json()["state"].clone();
        assert_eq!(state, "synced", "{id}");
    }
}
