//! A record that refers to another is sent after it, with the provider's id of it.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, Violations, until};

const OBJECTS: &str = r#"
[objects.account.to.crm]
remote = "company"
fields = [{ local = "name", remote = "title" }]
[objects.contact.to.crm]
remote = "person"
fields = [
  { local = "name", remote = "full_name" },
  { local = "account_id", remote = "company", reference = "account" },
]
"#;

fn node(provider: &Provider, more: &str) -> Node {
    let config = Config::new()
        .shards(3)
        .account("crm", &provider.url(), more);
    Node::start(config.with(OBJECTS))
}

fn contact(n: usize) -> Value {
    json!({"operation": "CREATE", "object": "contact", "record_id": format!("c-{n}"),
           "data": {"name": format!("Ada {n}"), "account_id": format!("a-{}", n % 7)}})
}

fn account(n: usize) -> Value {
    json!({"operation": "CREATE", "object": "account", "record_id": format!("a-{n}"),
           "data": {"name": format!("Analytical {n}")}})
}

#[test]
fn children_that_come_first_wait_for_their_parents_on_whatever_shard() {
    let provider = Provider::start(&[]);
    let mut node = node(&provider, "");
    let children: Vec<Value> = (0..60).map(contact).collect();
    assert_eq!(
        node.post("/v1/sync", json!(children).to_string()).status,
        202
    );
    let state = |node: &Node| node.get("/v1/sync/status/c-5?object=contact").json();
    until("the children wait", || {
        let status = state(&node);
        (status["providers"][0]["reason"] == "parent").then_some(())
    });
    assert!(provider.journal().is_empty(), "nothing of them was sent");
    node.kill();
    node.restart();

    let parents: Vec<Value> = (0..7).map(account).collect();
    assert_eq!(
        node.post("/v1/sync", json!(parents).to_string()).status,
        202
    );
    assert!(node.drain().is_empty());
    assert_eq!(state(&node)["providers"][0]["state"], "synced");

    let ids: Vec<Value> = (0..7)
        .map(|n| {
            let status = node.get(&format!("/v1/sync/status/a-{n}?object=account"));
            status.json()["providers"][0]["remote_id"].clone()
        })
        .collect();
    let records = provider.records();
    for n in 0..60 {
        let record = &records[&format!("person/c-{n}")];
        assert_eq!(record["company"], ids[n % 7], "{record}");
    }
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn a_child_whose_parent_never_comes_becomes_a_dead_letter_and_harms_no_other() {
    let provider = Provider::start(&[]);
    let node = node(&provider, "parent_timeout = \"1s\"\n");
    assert_eq!(node.post("/v1/sync", account(2).to_string()).status, 202);
    assert!(node.drain().is_empty());
    let events = json!([contact(1), contact(2)]);
    assert_eq!(node.post("/v1/sync", events.to_string()).status, 202);
    let dead = node.drain();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(
        (&dead[0]["record_id"], &dead[0]["code"]),
        (&json!("c-1"), &json!("parent"))
    );
    assert_eq!(provider.records().len(), 2);
}
