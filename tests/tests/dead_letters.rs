//! Dead letters through the program: looked at, grouped, edited, redriven, and never over what is
//! newer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::thread;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Node, Provider, request, until};

fn poisoned() -> (Provider, Node) {
    let provider = Provider::start(&["--fault", "poison=bad-"]);
    let node = Node::start(Config::new().shards(2).account("crm", &provider.url(), ""));
    (provider, node)
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

fn hold(node: &Node, path: &str) {
    assert_eq!(node.post(path, r#"{"provider":"crm"}"#).status, 200);
}

fn redrive_all(node: &Node) -> Value {
    let answer = node.post("/v1/dlq/retry", r#"{"filter":{"provider":"crm"}}"#);
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()
}

#[test]
fn a_dead_letter_tells_all_that_is_kept_of_it() {
    let (_provider, node) = poisoned();
    let id = take(&node, "UPSERT", "bad-1", json!({"name": "Ada", "n": 1}));
    assert_eq!(node.drain().len(), 1);
    let shown = node.get(&format!("/v1/dlq/{id}@crm"));
    assert_eq!(shown.status, 200, "{}", shown.json());
    let shown = shown.json();
    assert_eq!(shown["data"], json!({"name": "Ada", "n": 1}));
    assert_eq!(
        (&shown["operation"], &shown["code"], &shown["attempts"]),
        (&json!("UPSERT"), &json!("permanent"), &json!(1))
    );
    assert_eq!(shown["history"][0]["status"], 422);
    assert_eq!(shown["history"][0]["detail"], shown["detail"]);
    assert!(shown["mapping_version"].is_u64() && shown["rules_version"].is_u64());
}

#[test]
fn dead_letters_group_by_what_they_died_of_and_a_group_is_redriven_alone() {
    let (provider, node) = poisoned();
    for n in 0..5 {
        take(&node, "UPSERT", &format!("bad-{n}"), json!({"n": n}));
    }
    take(&node, "READ", "nobody", Value::Null);
    assert_eq!(node.drain().len(), 6);
    let grouped = node.get("/v1/dlq?group=signature").json();
    let groups = grouped["groups"].as_array().unwrap();
    let told: Vec<(&Value, &Value)> = groups
        .iter()
        .map(|group| (&group["code"], &group["count"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("permanent"), &json!(5)),
            (&json!("not_found"), &json!(1))
        ]
    );
    provider.set_faults("poison=none-");
    let filter = json!({"code": "permanent", "signature": groups[0]["signature"]});
    let counted = node.post(
        "/v1/dlq/retry",
        json!({"filter": filter, "dry_run": true}).to_string(),
    );
    assert_eq!(counted.json(), json!({"matched": 5}));
    let done = node.post("/v1/dlq/retry", json!({"filter": filter}).to_string());
    assert_eq!(
        (&done.json()["matched"], &done.json()["redriven"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(node.drain().len(), 1, "the other group stays");
}

#[test]
fn an_edited_dead_letter_is_redriven_as_edited_also_after_a_crash() {
    let (provider, mut node) = poisoned();
    let id = take(
        &node,
        "UPDATE",
        "bad-1",
        json!({"name": "Ada", "email": "no"}),
    );
    assert_eq!(node.drain().len(), 1);
    let path = format!("/v1/dlq/{id}@crm");
    for (body, status) in [
        (r#"{"data":[]}"#, 422),
        (r#"{"data":{"a":1,"a":2}}"#, 422),
        (r#"{"date":{}}"#, 422),
        (r#"{"data":{"#, 400),
    ] {
        assert_eq!(node.ask("PATCH", &path, body).status, status, "{body}");
    }
    let edited = node.ask("PATCH", &path, r#"{"data":{"name":"Ada L."}}"#);
    assert_eq!(edited.status, 200, "{}", edited.json());
    assert_eq!(edited.json()["data"], json!({"name": "Ada L."}));

    node.kill();
    node.restart();
    assert_eq!(node.get(&path).json()["data"], json!({"name": "Ada L."}));
    provider.set_faults("poison=none-");
    assert_eq!(redrive_all(&node)["redriven"], 1);
    assert!(node.drain().is_empty());
    assert_eq!(
        provider.records()["contact/bad-1"],
        json!({"name": "Ada L."}),
        "what was taken out does not come back from beneath"
    );
    assert_eq!(node.ask("PATCH", &path, r#"{"data":{}}"#).status, 404);
}

#[test]
fn an_edit_can_retry_at_once() {
    let (provider, node) = poisoned();
    let id = take(&node, "UPSERT", "bad-1", json!({"name": "Ada"}));
    assert_eq!(node.drain().len(), 1);
    provider.set_faults("poison=none-");
    let body = r#"{"data":{"name":"Bob"},"retry":true}"#;
    let answer = node.ask("PATCH", &format!("/v1/dlq/{id}@crm"), body);
    assert_eq!(answer.json()["redriven"], 1, "{}", answer.json());
    assert!(node.drain().is_empty());
    assert_eq!(provider.records()["contact/bad-1"], json!({"name": "Bob"}));
}

#[test]
fn a_redrive_writes_nothing_over_what_newer_operations_wrote_folded_or_waiting() {
    let (provider, node) = poisoned();
    let old = json!({"a": "old", "b": "old", "c": "old", "d": "old"});
    take(&node, "UPSERT", "bad-1", old.clone());
    take(&node, "UPSERT", "bad-2", old);
    assert_eq!(node.drain().len(), 2);
    provider.set_faults("poison=none-");

    // Delivered since, two in one call.
    hold(&node, "/v1/pause");
    take(&node, "UPDATE", "bad-1", json!({"a": "new"}));
    take(&node, "UPDATE", "bad-1", json!({"b": "new"}));
    hold(&node, "/v1/resume");
    assert_eq!(node.drain().len(), 2);
    // Still waiting when the dead letters come back.
    hold(&node, "/v1/pause");
    take(&node, "UPDATE", "bad-2", json!({"a": "new"}));
    take(&node, "UPDATE", "bad-2", json!({"b": "new"}));
    assert_eq!(redrive_all(&node)["redriven"], 2);
    hold(&node, "/v1/resume");
    assert!(node.drain().is_empty());
    for record in ["contact/bad-1", "contact/bad-2"] {
        assert_eq!(
            provider.records()[record],
            json!({"a": "new", "b": "new", "c": "old", "d": "old"}),
            "{record}"
        );
    }
}

#[test]
fn a_delete_is_not_redriven_over_a_record_that_was_written_anew() {
    let provider = Provider::start(&[]);
    let account = format!(
        "[providers.crm]\ntype = \"rest\"\nbase_url = \"{}\"\nretry = {{ max_attempts = 1 }}\n",
        provider.url()
    );
    let node = Node::start(Config::new().with(&account));
    take(&node, "UPSERT", "c-1", json!({"name": "Ada"}));
    assert!(node.drain().is_empty());
    provider.set_faults("5xx=1.0");
    take(&node, "DELETE", "c-1", Value::Null);
    assert_eq!(node.drain()[0]["code"], "attempts_exhausted");
    provider.set_faults("5xx=0.0");
    take(&node, "UPSERT", "c-1", json!({"name": "Ada again"}));
    assert_eq!(node.drain().len(), 1);

    let answer = redrive_all(&node);
    assert_eq!(
        (&answer["matched"], &answer["redriven"]),
        (&json!(1), &json!(0))
    );
    assert_eq!(node.drain().len(), 1, "it is left to be dropped");
    assert_eq!(
        provider.records()["contact/c-1"],
        json!({"name": "Ada again"})
    );
}

#[test]
fn a_redrive_keeps_its_rate_and_ends_when_it_is_cancelled() {
    let (_provider, node) = poisoned();
    for n in 0..6 {
        take(&node, "UPSERT", &format!("bad-{n}"), json!({"n": n}));
    }
    assert_eq!(node.drain().len(), 6);
    let at = node.http();
    let asking = thread::spawn(move || {
        let body = br#"{"filter":{},"rate":1}"#;
        request(at, "POST", "/v1/dlq/retry", body).unwrap().json()
    });
    let running = until("a redrive under way", || {
        let jobs = node.get("/v1/dlq/redrives").json();
        let job = jobs["items"].as_array()?.first()?.clone();
        (job["state"] == "running" && job["done"].as_u64()? > 0).then_some(job)
    });
    assert_eq!(
        (&running["matched"], &running["rate"]),
        (&json!(6), &json!(1))
    );
    let path = format!("/v1/dlq/redrives/{}", running["id"].as_str().unwrap());
    assert_eq!(node.ask("DELETE", &path, "").json()["state"], "cancelled");
    let answer = asking.join().unwrap();
    assert_eq!(answer["state"], "cancelled");
    assert!(answer["redriven"].as_u64().unwrap() < 6, "{answer}");
    assert_eq!(node.get(&path).json()["state"], "cancelled");
    assert_eq!(node.get("/v1/dlq/redrives/none").status, 404);
    assert_eq!(node.drain().len(), 6, "those redriven died again");
}

#[test]
fn what_died_of_the_mapping_is_redriven_once_the_mapping_changed() {
    let provider = Provider::start(&[]);
    let mapped = |convert: &str| {
        format!(
            "[objects.contact.to.crm]\nremote = \"Contact\"\n\
             fields = [{{ local = \"name\", remote = \"Name\", {convert} }}]\n"
        )
    };
    let url = provider.url();
    let config = |convert: &str| {
        Config::new()
            .account("crm", &url, "")
            .with(&mapped(convert))
    };
    let mut node = Node::start(config("convert = [\"to_int\"], lossy = true"));
    take(&node, "UPSERT", "c-1", json!({"name": "Ada"}));
    let dead = node.drain();
    assert_eq!(dead[0]["code"], "mapping", "{dead:?}");
    assert!(node.stop().success());
    node.restart();
    assert_eq!(node.drain().len(), 1, "nothing changed");
    assert!(node.stop().success());
    node.reconfigure(|_| config("required = true"));
    node.restart();
    until("the dead letter is delivered", || {
        let records = provider.records();
        (records.get("Contact/c-1") == Some(&json!({"Name": "Ada"}))).then_some(())
    });
    assert!(node.drain().is_empty());
}
