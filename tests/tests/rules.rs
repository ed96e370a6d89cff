//! Rules and schemas decide when an event is taken, and go on deciding so after a crash.

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, request, until};

const RULES: &str = r#"
[[rules]]
provider = "a"
when = 'operation == "UPDATE" && data.status != "active"'
action = "skip"

[[rules]]
when = 'data.status == "gone"'
action = "delete"

[[rules]]
provider = "a"
when = "data.bad"
action = "reject"
reason = "bad records are not for us"
"#;

fn event(operation: &str, record_id: &str, data: &Value) -> String {
    json!({"operation": operation, "object": "contact", "record_id": record_id, "data": data})
        .to_string()
}

/// What each account has done for a record, once nothing is open.
fn states(node: &Node, record_id: &str) -> Vec<(String, String)> {
    let status = until("the record's end", || {
        let answer = node.get(&format!("/v1/sync/status/{record_id}"));
        let providers = answer.json()["providers"].as_array()?.clone();
        let is_final = |one: &Value| {
            let state = one["state"].as_str().unwrap_or_default();
            ["synced", "skipped_by_rule", "failed", "superseded"].contains(&state)
        };
        providers.iter().all(is_final).then_some(providers)
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut states: Vec<_> = status
        .iter()
        .map(|one| (text(&one["provider"]), text(&one["state"])))
        .collect();
    states.sort();
    states
}

fn pairs(pairs: [(&str, &str); 2]) -> Vec<(String, String)> {
    let owned = |(a, b): (&str, &str)| (a.to_owned(), b.to_owned());
    pairs.map(owned).to_vec()
}

#[test]
fn each_account_gets_what_the_rules_leave_it_and_the_rest_ends_skipped() {
    let (a, b) = (Provider::start(&[]), Provider::start(&[]));
    let config = Config::new()
        .account("a", &a.url(), "fold = false\n")
        .account("b", &b.url(), "fold = false\n")
        .with(RULES);
    let mut node = Node::start(config);

    let active = json!({"status": "active"});
    assert_eq!(
        node.post("/v1/sync", event("CREATE", "c-1", &active))
            .status,
        202
    );
    assert_eq!(
        states(&node, "c-1"),
        pairs([("a", "synced"), ("b", "synced")])
    );

    let left = json!({"status": "inactive", "name": "Ada"});
    assert_eq!(
        node.post("/v1/sync", event("UPDATE", "c-1", &left)).status,
        202
    );
    assert_eq!(
        states(&node, "c-1"),
        pairs([("a", "skipped_by_rule"), ("b", "synced")])
    );
    assert_eq!(a.records()["contact/c-1"]["status"], "active");
    assert_eq!(b.records()["contact/c-1"]["status"], "inactive");

    // A crash in between changes nothing of what was decided.
    node.kill();
    node.restart();
    assert_eq!(
        states(&node, "c-1"),
        pairs([("a", "skipped_by_rule"), ("b", "synced")])
    );

    let gone = json!({"status": "gone"});
    assert_eq!(
        node.post("/v1/sync", event("UPSERT", "c-1", &gone)).status,
        202
    );
    assert_eq!(
        states(&node, "c-1"),
        pairs([("a", "synced"), ("b", "synced")])
    );
    assert!(
        !a.records().contains_key("contact/c-1"),
        "an upsert became a delete"
    );
    assert!(!b.records().contains_key("contact/c-1"));

    let refused = json!({
        "operation": "CREATE", "provider": "a", "object": "contact", "record_id": "c-2",
        "data": {"bad": true},
    });
    let answer = node.post("/v1/sync", refused.to_string());
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["type"], "urn:syncline:problem:rule_rejected");
    assert_eq!(answer.json()["detail"], "bad records are not for us");
    let bad = json!({"bad": true});
    assert_eq!(
        node.post("/v1/sync", event("CREATE", "c-3", &bad)).status,
        202
    );
    assert_eq!(
        states(&node, "c-3"),
        pairs([("a", "skipped_by_rule"), ("b", "synced")]),
        "one account rejects it, the other takes it"
    );
}

#[test]
fn rules_pushed_over_the_api_hold_from_then_on_and_after_a_kill() {
    let a = Provider::start(&[]);
    let mut node = Node::start(Config::new().account("a", &a.url(), ""));
    let put = |node: &Node, query: &str, body: &str| {
        let path = format!("/v1/sync/rules{query}");
        request(node.http(), "PUT", &path, body.as_bytes()).expect("the node answers")
    };
    let data = json!({"name": "Ada", "secret": true});
    for number in 0..5 {
        let id = format!("old-{number}");
        assert_eq!(
            node.post("/v1/sync", event("CREATE", &id, &data)).status,
            202
        );
    }
    let skip = r#"{"rules":[{"when":"data.secret","action":"skip"}]}"#;
    let tried = put(&node, "?dry_run=true", skip).json();
    assert_eq!(tried["trial"]["share_changed"], 1.0, "{tried}");
    let held = put(&node, "", skip);
    assert_eq!(held.status, 409, "it would withhold everything");
    assert_eq!(held.json()["type"], "urn:syncline:problem:force_required");
    let bad = put(
        &node,
        "",
        r#"{"rules":[{"when":"data.x ==","action":"skip"}]}"#,
    );
    assert_eq!(bad.status, 422);
    assert_eq!(bad.json()["errors"][0]["pointer"], "/rules/0/when");
    assert_eq!(node.get("/v1/sync/rules").json()["version"], 0);
    let named = r#"{"operation":"CREATE","object":"contact","record_id":"named","event_id":"e-1",
        "data":{"secret":true}}"#;
    let first = node.post("/v1/sync", named).json();
    let reject = r#"{"rules":[{"when":"data.secret","action":"reject"}]}"#;
    assert_eq!(put(&node, "?force=true", reject).json()["version"], 1);
    let again = node.post("/v1/sync", named);
    assert_eq!(again.status, 202, "it was taken before the rules changed");
    assert_eq!(again.json()["duplicate"], true);
    assert_eq!(again.json()["operation_id"], first["operation_id"]);
    let renamed = named.replace("e-1", "e-2");
    for _ in 0..2 {
        let refused = node.post("/v1/sync", &renamed);
        assert_eq!(refused.status, 422, "a refused event is not remembered");
    }
    assert_eq!(put(&node, "?force=true", skip).json()["version"], 2);

    node.kill();
    node.restart();
    let kept = node.get("/v1/sync/rules").json();
    assert_eq!(kept["version"], 2);
    assert_eq!(kept["origin"], "api");
    assert_eq!(
        node.post("/v1/sync", event("CREATE", "new-1", &data))
            .status,
        202
    );
    let state = states(&node, "new-1");
    assert_eq!(state, [("a".to_owned(), "skipped_by_rule".to_owned())]);
    assert!(!a.records().contains_key("contact/new-1"));
}

#[test]
fn a_record_that_does_not_fit_its_schema_is_refused_with_its_place() {
    let a = Provider::start(&[]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let schema = folder.path().join("contact.json");
    let text = r#"{"required":["email"],"properties":{"email":{"type":"string"}}}"#;
    std::fs::write(&schema, text).expect("the folder is ours");
    let object = format!("[objects.contact]\nschema = {schema:?}\n[objects.contact.to.a]\n");
    let node = Node::start(Config::new().account("a", &a.url(), "").with(&object));
    let answer = node.post("/v1/sync", event("CREATE", "c-1", &json!({"name": "Ada"})));
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["type"], "urn:syncline:problem:schema");
    assert_eq!(answer.json()["errors"][0]["pointer"], "/data/email");
    let fits = json!({"email": "ada@example.com"});
    assert_eq!(
        node.post("/v1/sync", event("CREATE", "c-1", &fits)).status,
        202
    );
    let cleared = node.post("/v1/sync", event("UPDATE", "c-1", &json!({"email": null})));
    assert_eq!(cleared.status, 422);
    assert_eq!(
        states(&node, "c-1"),
        [("a".to_owned(), "synced".to_owned())]
    );
    let email = &a.records()["contact/c-1"]["email"];
    assert_eq!(
        email, "ada@example.com",
        "no fields are named: they go as they are"
    );
    let change = json!({"name": "Ada"});
    assert_eq!(
        node.post("/v1/sync", event("UPDATE", "c-1", &change))
            .status,
        202
    );
}
