//! Accounts and mappings that take a part of the records, switched while the engine runs.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider};

const OBJECTS: &str = "[objects.contact.to.crm]\nremote = \"contact\"\n\
                       [objects.deal.to.crm]\nremote = \"deal\"\n";

fn send(node: &Node, object: &str, round: usize) {
    let events: Vec<Value> = (0..200)
        .map(|n| {
            json!({"operation": "UPSERT", "object": object, "record_id": format!("r-{n}"),
                   "data": {"round": round}})
        })
        .collect();
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
    assert!(node.drain().is_empty());
}

fn set(node: &Node, change: &Value) {
    let answer = node.post("/v1/sync/config-override", change.to_string());
    assert_eq!(answer.status, 200, "{}", answer.json());
}

/// Record ids of an object whose last round is this one.
fn arrived(provider: &Provider, object: &str, round: usize) -> Vec<String> {
    let records = provider.records().into_iter();
    let of_round = records.filter(|(_, fields)| fields["round"] == round);
    of_round
        .filter_map(|(name, _)| Some(name.strip_prefix(object)?.to_owned()))
        .collect()
}

#[test]
fn a_share_grows_without_anyone_leaving_and_ends_with_its_override() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(
        Config::new()
            .shards(2)
            .account("crm", &provider.url(), "share = 0.1\n")
            .with(OBJECTS),
    );
    send(&node, "contact", 1);
    let tenth = arrived(&provider, "contact", 1);
    assert!((5..60).contains(&tenth.len()), "{} of 200", tenth.len());
    let state = |id: &str| {
        let status = node.get(&format!("/v1/sync/status/{id}?object=contact"));
        status.json()["providers"][0]["state"].clone()
    };
    let left_out = (0..200).find(|n| !tenth.contains(&format!("/r-{n}")));
    let left_out = format!("r-{}", left_out.expect("most are"));
    assert_eq!(state(&left_out), "skipped_by_rule");

    set(&node, &json!({"provider": "crm", "share": 0.5}));
    send(&node, "contact", 2);
    let half = arrived(&provider, "contact", 2);
    assert!((60..140).contains(&half.len()), "{} of 200", half.len());
    assert!(tenth.iter().all(|id| half.contains(id)));

    node.kill();
    node.restart();
    send(&node, "contact", 3);
    assert_eq!(arrived(&provider, "contact", 3), half, "over a restart too");
    set(&node, &json!({"provider": "crm", "set": {"share": null}}));
    send(&node, "contact", 4);
    assert_eq!(arrived(&provider, "contact", 4), tenth, "as the file says");
    let audit = node.get("/v1/sync/config-override").json()["audit"].clone();
    assert_eq!(
        (&audit[0]["name"], &audit[0]["old"]),
        (&json!("share"), &json!(0.5))
    );
}

#[test]
fn one_object_of_an_account_is_switched_off_and_on_by_itself() {
    let provider = Provider::start(&[]);
    let node = Node::start(
        Config::new()
            .shards(2)
            .account("crm", &provider.url(), "")
            .with(OBJECTS),
    );
    let of_contacts = |enabled: bool| json!({"provider": "crm", "object": "contact", "set": {"enabled": enabled}});
    set(&node, &of_contacts(false));
    send(&node, "contact", 1);
    send(&node, "deal", 1);
    assert_eq!(arrived(&provider, "contact", 1).len(), 0);
    assert_eq!(arrived(&provider, "deal", 1).len(), 200);
    set(&node, &of_contacts(true));
    send(&node, "contact", 2);
    assert_eq!(arrived(&provider, "contact", 2).len(), 200);
    let wrong = json!({"provider": "crm", "object": "contact", "set": {"timeout": "1s"}});
    let answer = node.post("/v1/sync/config-override", wrong.to_string());
    assert_eq!(answer.status, 422);
}
