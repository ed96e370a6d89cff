//! An object that the provider does not let the account write waits by itself, and only it.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, until};

/// An account with contacts and companies, of which the provider refuses contacts.
fn refused() -> (Provider, Node) {
    let provider = Provider::start_as("hubspot", &["--fault", "forbid=contacts"]);
    let node = Node::start(Config::new().shards(1).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\n\
         [providers.crm.auth]\nkind = \"bearer\"\ntoken = \"exec:echo pat-1\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         [objects.company.to.crm]\nremote = \"companies\"\nexternal_id = \"external_id\"\n",
        provider.url()
    )));
    send(&node, "contact", "c", 20);
    until("the refusal", || {
        (!held(&node).is_empty() && paused(&node, "contact", "c", 20)).then_some(())
    });
    (provider, node)
}

fn send(node: &Node, object: &str, prefix: &str, count: usize) {
    let events: Vec<Value> = (0..count)
        .map(|n| {
            json!({"operation": "UPSERT", "object": object, "record_id": format!("{prefix}-{n}"),
                   "data": {"name": format!("{n}")}})
        })
        .collect();
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
}

fn held(node: &Node) -> Vec<Value> {
    let status = node.get("/v1/providers/crm/status").json();
    status["held_objects"].as_array().expect("a list").clone()
}

fn paused(node: &Node, object: &str, prefix: &str, count: usize) -> bool {
    (0..count).all(|n| {
        let path = format!("/v1/sync/status/{prefix}-{n}?object={object}");
        let target = node.get(&path).json()["providers"][0].clone();
        (&target["state"], &target["reason"]) == (&json!("waiting"), &json!("paused"))
    })
}

fn contact_calls(provider: &Provider) -> usize {
    let calls = provider.journal().into_iter();
    calls
        .filter(|call| call.path.contains("/contacts/"))
        .count()
}

#[test]
fn one_object_waits_and_the_others_go_on() {
    let (provider, node) = refused();
    let asked = contact_calls(&provider);
    send(&node, "company", "a", 20);
    send(&node, "contact", "d", 20);
    until("the companies", || {
        (provider.records().len() == 20).then_some(())
    });
    until("the later contacts", || {
        paused(&node, "contact", "d", 20).then_some(())
    });
    assert_eq!(contact_calls(&provider), asked, "nobody asks meanwhile");
    let held = held(&node);
    assert_eq!((held.len(), &held[0]["object"]), (1, &json!("contact")));
    let words = held[0]["detail"].as_str().unwrap_or_default().to_owned();
    assert!(words.contains("scopes"), "{words}");
    let status = node.get("/v1/providers/crm/status").json();
    assert_eq!(status["held_by"], Value::Null, "the account itself is well");
    let explained = node.get("/v1/explain/c-7?object=contact").json();
    let detail = explained["providers"][0]["detail"].to_string();
    assert!(detail.contains("contact"), "{detail}");
}

#[test]
fn a_resume_asks_at_once_and_what_is_permitted_by_then_goes() {
    let (provider, node) = refused();
    let asked = contact_calls(&provider);
    let resume = r#"{"provider":"crm","object":"contact"}"#;
    assert_eq!(node.post("/v1/resume", resume).status, 200);
    until("another refusal", || {
        (contact_calls(&provider) > asked && !held(&node).is_empty()).then_some(())
    });
    assert_eq!(provider.records().len(), 0);

    provider.set_faults("");
    assert_eq!(node.post("/v1/resume", resume).status, 200);
    until("the contacts", || {
        (provider.records().len() == 20).then_some(())
    });
    assert_eq!(held(&node), Vec::<Value>::new());
}

#[test]
fn the_record_that_asks_lets_the_others_go_once_it_is_served() {
    let (provider, node) = refused();
    provider.set_faults("");
    // Whichever of them it is that asks, its back-off ends now instead of in a minute.
    for n in 0..20 {
        let answer = node.post(&format!("/v1/sync/retry/c-{n}?object=contact"), "");
        assert!(matches!(answer.status, 202 | 409), "{}", answer.status);
    }
    until("the contacts", || {
        (provider.records().len() == 20).then_some(())
    });
    assert!(node.drain().is_empty());
    assert_eq!(held(&node), Vec::<Value>::new());
}
