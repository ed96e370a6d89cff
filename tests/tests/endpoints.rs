//! One object's endpoint fails: its records wait, all others go on, and one call at a time asks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::{Value, json};
use syncline_tests::process::{Call, Config, Node, Provider, until};

const RECORDS: usize = 300;

fn send(node: &Node, object: &str, prefix: &str, count: usize) {
    let events: Vec<Value> = (0..count)
        .map(|n| {
            json!({"operation": "UPSERT", "object": object, "record_id": format!("{prefix}-{n}"),
                   "data": {"name": format!("{n}")}})
        })
        .collect();
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
}

fn endpoints(node: &Node) -> Vec<Value> {
    let status = node.get("/v1/providers/crm/status").json();
    status["endpoints"].as_array().expect("a list").clone()
}

fn calls_to(provider: &Provider, object: &str) -> Vec<Call> {
    let part = format!("/{object}/");
    let calls = provider.journal().into_iter();
    calls.filter(|call| call.path.contains(&part)).collect()
}

#[test]
fn one_endpoint_that_fails_harms_only_itself() {
    let provider = Provider::start(&["--limit", "200/1s"]);
    let node = Node::start(Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"rest\"\nbase_url = \"{}\"\nmax_in_flight = 8\n\
         retry = {{ base_delay = \"20ms\", max_delay = \"300ms\" }}\n\
         breaker = {{ failure_threshold = 5, open_for = \"2s\" }}\n\
         [[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = 200\n\
         window = \"1s\"\n",
        provider.url()
    )));
    provider.set_faults("down=lead");
    send(&node, "lead", "l", 100);
    until("the breaker of leads", || {
        endpoints(&node)
            .iter()
            .any(|endpoint| endpoint["breaker"] == "open")
            .then_some(())
    });
    let failed = calls_to(&provider, "lead").len();
    // Five in a row, and what was under way with them.
    assert!((5..=16).contains(&failed), "{failed} calls to leads");

    send(&node, "contact", "c", RECORDS);
    until("the contacts", || {
        (provider.records().len() == RECORDS).then_some(())
    });
    let contacts = calls_to(&provider, "contact");
    assert!(contacts.iter().all(|call| call.status / 100 == 2));
    let status = node.get("/v1/providers/crm/status").json();
    assert_eq!(status["held_by"], Value::Null, "the account itself is well");
    assert_eq!(endpoints(&node)[0]["endpoint"], "lead");
    // Any lead that is not in its back-off after one of the failures waits for the endpoint.
    let waits = (0..100).find_map(|n| {
        let path = format!("/v1/explain/l-{n}?object=lead");
        let told = node.get(&path).json()["providers"][0].clone();
        (told["reason"] == "breaker").then_some(told)
    });
    let detail = waits.expect("leads wait")["detail"].to_string();
    assert!(
        detail.contains("endpoint") && detail.contains("lead"),
        "{detail}"
    );

    let probes = calls_to(&provider, "lead").split_off(failed);
    for pair in probes.windows(2) {
        assert!(pair[1].at_ms >= pair[0].done_ms, "one probe at a time");
        assert!(pair[1].at_ms - pair[0].at_ms >= 1_900, "each after a hold");
    }
    provider.set_faults("");
    until("the leads", || {
        (provider.records().len() == RECORDS + 100).then_some(())
    });
    assert!(node.drain().is_empty());
    until("nothing fails any more", || {
        endpoints(&node).is_empty().then_some(())
    });
    assert_eq!(provider.violations().over_limit, 0);
}
