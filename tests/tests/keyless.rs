//! Providers without an upsert: what is not linked is looked up, and nothing is made twice.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, Violations};

/// Records are found by `customId` of accounts; of prospects by nothing.
fn outreach(options: &[&str]) -> (Provider, Node) {
    let provider = Provider::start_as("outreach", &[&["--token", "t-1"], options].concat());
    let node = node(
        &provider,
        "type = \"outreach\"\nsettle = \"300ms\"",
        "kind = \"bearer\"\ntoken = \"exec:echo t-1\"",
        "[objects.contact.to.crm]\nremote = \"prospects\"\nexternal_id = \"externalId\"\n\
         [objects.account.to.crm]\nremote = \"accounts\"\nexternal_id = \"customId\"",
    );
    (provider, node)
}

/// The index that is searched lags by a second, and nothing is unique.
fn pipedrive(options: &[&str]) -> (Provider, Node) {
    let provider = Provider::start_as("pipedrive", options);
    let node = node(
        &provider,
        "type = \"pipedrive\"\nsettle = \"2s\"",
        "kind = \"api_key\"\nheader = \"x-api-token\"\nvalue = \"exec:echo t-1\"",
        "[objects.contact.to.crm]\nremote = \"persons\"\nexternal_id = \"external_id\"",
    );
    (provider, node)
}

fn node(provider: &Provider, keys: &str, auth: &str, objects: &str) -> Node {
    Node::start(Config::new().with(&format!(
        "[providers.crm]\n{keys}\nbase_url = \"{}\"\n\
         retry = {{ max_attempts = 60, base_delay = \"20ms\", max_delay = \"300ms\" }}\n\
         breaker = {{ open_for = \"200ms\" }}\n\
         [providers.crm.auth]\n{auth}\n{objects}\n",
        provider.url()
    )))
}

fn send(node: &Node, event: &Value) {
    let answer = node.post("/v1/sync", event.to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
}

fn upsert(object: &str, record_id: &str, data: Value) -> Value {
    json!({"operation": "UPSERT", "object": object, "record_id": record_id, "data": data})
}

fn standing(node: &Node, object: &str, record_id: &str) -> (String, Value, Value) {
    let path = format!("/v1/sync/status/{record_id}?object={object}");
    let target = node.get(&path).json()["providers"][0].clone();
    let state = target["state"].as_str().unwrap_or_default().to_owned();
    (state, target["reason"].clone(), target["remote_id"].clone())
}

/// Methods and statuses of all calls.
fn calls(provider: &Provider) -> Vec<(String, u64)> {
    let calls = provider.journal().into_iter();
    calls.map(|call| (call.method, call.status)).collect()
}

fn posts(provider: &Provider) -> usize {
    let calls = calls(provider);
    calls.iter().filter(|(method, _)| method == "POST").count()
}

#[test]
fn a_record_that_is_there_is_linked_and_one_that_is_not_is_created() {
    let (provider, node) = outreach(&[]);
    let there = provider.make("accounts", &json!({"customId": "a-1", "name": "Old"}));
    send(
        &node,
        &upsert("account", "a-1", json!({"name": "Analytical Engines"})),
    );
    assert!(node.drain().is_empty());
    send(
        &node,
        &upsert("account", "a-2", json!({"name": "Difference Ltd"})),
    );
    assert!(node.drain().is_empty());
    let called: Vec<String> = calls(&provider).into_iter().map(|call| call.0).collect();
    assert_eq!(called, ["GET", "PATCH", "GET", "POST"]);
    assert_eq!(standing(&node, "account", "a-1").2, json!(there));
    let records = provider.records();
    assert_eq!(records.len(), 2);
    assert_eq!(records["accounts/a-1"]["name"], "Analytical Engines");
    assert_eq!(records["accounts/a-2"]["name"], "Difference Ltd");
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn nothing_is_made_twice_where_nothing_is_unique() {
    let (provider, node) = pipedrive(&["--fault", "5xx_after=0.2,reset_after=0.1", "--seed", "3"]);
    let events: Vec<Value> = (0..12)
        .map(|n| {
            upsert(
                "contact",
                &format!("c-{n}"),
                json!({"name": format!("Ada {n}")}),
            )
        })
        .collect();
    send(&node, &json!(events));
    assert!(node.drain().is_empty());
    let records = provider.records();
    assert_eq!(records.len(), 12, "{records:?}");
    for (name, fields) in &records {
        let number = name.trim_start_matches("persons/c-");
        assert_eq!(fields["name"], format!("Ada {number}"), "{name}");
    }
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn where_nobody_can_be_asked_an_unknown_create_waits_for_a_decision() {
    let (provider, mut node) = outreach(&[]);
    provider.set_faults("reset_after=1");
    send(
        &node,
        &upsert("contact", "c-1", json!({"firstName": "Ada"})),
    );
    let dead = node.drain();
    assert_eq!(
        (dead.len(), &dead[0]["code"]),
        (1, &json!("needs_decision"))
    );
    provider.set_faults("");
    let made = provider.records();
    assert_eq!(made.len(), 1, "it was made after all");

    // Its later changes do not make it a second time, over a restart neither.
    node.kill();
    node.restart();
    send(
        &node,
        &upsert("contact", "c-1", json!({"lastName": "Lovelace"})),
    );
    assert_eq!(node.drain().len(), 2);
    assert_eq!(posts(&provider), 1);

    // A person looks it up and says which one it is.
    let mut found = upsert("contact", "c-1", json!({"lastName": "Lovelace"}));
    found["remote_id"] = json!("1");
    send(&node, &found);
    node.drain();
    assert_eq!(standing(&node, "contact", "c-1").0, "synced");
    assert_eq!(posts(&provider), 1);
    assert_eq!(provider.records()["prospects/c-1"]["lastName"], "Lovelace");
}

#[test]
fn a_retry_decides_that_a_record_in_doubt_is_to_be_made() {
    let (provider, node) = outreach(&[]);
    provider.set_faults("reset_before=1");
    send(
        &node,
        &upsert("contact", "c-1", json!({"firstName": "Ada"})),
    );
    assert_eq!(node.drain()[0]["code"], "needs_decision");
    provider.set_faults("");
    assert_eq!(provider.records().len(), 0, "it was not made");
    assert_eq!(node.post("/v1/sync/retry/c-1", "").status, 202);
    assert!(node.drain().is_empty());
    assert_eq!(standing(&node, "contact", "c-1").0, "synced");
    assert_eq!(provider.records().len(), 1);
}

#[test]
fn a_taken_address_that_names_no_record_is_a_duplicate_for_a_person() {
    let (provider, node) = outreach(&[]);
    provider.make("prospects", &json!({"emails": ["ada@example.com"]}));
    let data = json!({"firstName": "Ada", "emails": "ada@example.com"});
    send(&node, &upsert("contact", "c-1", data));
    let dead = node.drain();
    assert_eq!((dead.len(), &dead[0]["code"]), (1, &json!("duplicate")));
    assert_eq!(posts(&provider), 1, "asked once");
}
