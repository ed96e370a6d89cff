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

/// A portal whose contacts are kept in step both ways.
fn portal() -> (Provider, Node) {
    let provider = Provider::start_as("hubspot", &["--token", "t-1"]);
    let node = Node::start(Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\npoll = {{ interval = \"100ms\" }}\n\
         retry = {{ max_attempts = 60, base_delay = \"20ms\", max_delay = \"200ms\" }}\n\
         breaker = {{ failure_threshold = 3, open_for = \"1s\" }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"name\", remote = \"lastname\" }}]\n",
        provider.url()
    )));
    (provider, node)
}

/// Until the breaker of this endpoint is open, and of no other.
fn fails(node: &Node, name: &str) {
    let open = until("the breaker", || {
        let ailing = endpoints(node).into_iter();
        let open: Vec<Value> = ailing.filter(|one| one["breaker"] != "closed").collect();
        (!open.is_empty()).then_some(open)
    });
    let names: Vec<&Value> = open.iter().map(|one| &one["endpoint"]).collect();
    assert_eq!(names, [name]);
    let status = node.get("/v1/providers/crm/status").json();
    assert_eq!(status["held_by"], Value::Null, "the account itself is well");
}

/// Lists of changes that were asked for.
fn lists(provider: &Provider) -> Vec<Call> {
    let calls = provider.journal().into_iter();
    calls
        .filter(|call| call.path.ends_with("/search"))
        .collect()
}

#[test]
fn a_list_that_fails_harms_no_write_and_is_asked_for_by_single_probes() {
    let (provider, node) = portal();
    provider.set_faults("down=search");
    fails(&node, "contacts changes");
    let held = lists(&provider).len();
    send(&node, "contact", "c", 50);
    assert!(node.drain().is_empty());
    assert_eq!(provider.records().len(), 50);
    let writes = provider.journal().into_iter();
    let mut writes = writes.filter(|call| call.path.contains("/batch/"));
    assert!(writes.all(|call| call.status / 100 == 2));

    let probes = until("two probes", || {
        let probes = lists(&provider).split_off(held);
        (probes.len() > 1).then_some(probes)
    });
    for pair in probes.windows(2) {
        assert!(pair[1].at_ms - pair[0].at_ms >= 900, "each after a hold");
    }
    provider.set_faults("");
    until("nothing fails any more", || {
        endpoints(&node).is_empty().then_some(())
    });
    until("a list", || {
        let last = lists(&provider).pop()?;
        (last.status == 200).then_some(())
    });
}

#[test]
fn writes_that_fail_harm_no_list_and_no_read() {
    let (provider, node) = portal();
    send(&node, "contact", "c", 1);
    assert!(node.drain().is_empty());
    provider.set_faults("down=batch");
    send(&node, "contact", "d", 20);
    fails(&node, "contacts");
    let before = lists(&provider).len();
    let read = json!({"operation": "READ", "object": "contact", "record_id": "c-0"});
    let taken = node.post("/v1/sync", read.to_string()).json();
    let id = taken["operation_id"].as_str().expect("an id").to_owned();
    until("the read", || {
        let state = node.get(&format!("/v1/operations/{id}")).json()["state"].clone();
        (state == "synced").then_some(())
    });
    until("more lists", || {
        let more = lists(&provider).split_off(before);
        assert!(
            more.iter()
                .all(|call| call.status / 100 == 2 || call.status == 0)
        );
        (more.len() > 2).then_some(())
    });
    provider.set_faults("");
    assert!(node.drain().is_empty());
    assert_eq!(provider.records().len(), 21);
}
