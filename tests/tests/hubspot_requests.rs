//! Every kind of request that HubSpot gets from us, kept for `tools/clients.sh`, which holds them
//! against HubSpot's own description.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use syncline_tests::process::{Call, Config, Node, Provider, until};

/// At most so many records a call: alone they go by other requests.
fn config(provider: &Provider, batch: usize) -> Config {
    Config::new().shards(1).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         poll = {{ interval = \"200ms\" }}\nbreaker = {{ open_for = \"200ms\" }}\n\
         batch = {{ max_items = {batch} }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }}, \
         {{ local = \"visits\", remote = \"visits\" }}]\n\
         [objects.company.to.crm]\nremote = \"companies\"\nexternal_id = \"external_id\"\n\
         [objects.deal.to.crm]\nremote = \"deals\"\nexternal_id = \"external_id\"\n",
        provider.url()
    ))
}

/// Takes them all before the first is sent, so that those of a kind share a call.
fn sync(node: &Node, object: &str, operation: &str, keys: &[&str]) {
    let events: Vec<Value> = keys
        .iter()
        .map(|key| {
            let mut event = json!({"operation": operation, "provider": "crm", "object": object,
                                   "record_id": key});
            if !matches!(operation, "READ" | "DELETE") {
                event["data"] = json!({"last_name": format!("{operation} {key}"), "visits": 3});
            }
            event
        })
        .collect();
    assert_eq!(node.post("/v1/pause", "{}").status, 200);
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
    assert_eq!(node.post("/v1/resume", "{}").status, 200);
    assert_eq!(node.drain(), Vec::<Value>::new());
}

/// Method and path with the ids taken out.
fn shape(call: &Call) -> String {
    let part = |part: &str| match part {
        "crm" | "v3" | "objects" | "contacts" | "companies" | "deals" => part.to_owned(),
        "batch" | "create" | "upsert" | "update" | "archive" | "read" | "search" => part.to_owned(),
        _ => "ID".to_owned(),
    };
    let path: Vec<String> = call
        .path
        .trim_start_matches('/')
        .split('/')
        .map(part)
        .collect();
    format!("{} {}", call.method, path.join("/"))
}

/// What a life of each object's records makes of requests.
fn lives(batch: usize) -> Vec<Call> {
    let provider = Provider::start_as("hubspot", &["--token", "t-1"]);
    let node = Node::start(config(&provider, batch));
    for object in ["contact", "company", "deal"] {
        sync(&node, object, "CREATE", &["a"]);
        sync(&node, object, "CREATE", &["b", "c", "d"]);
        sync(&node, object, "UPSERT", &["a"]);
        sync(&node, object, "UPSERT", &["b", "c", "e"]);
        sync(&node, object, "UPDATE", &["a"]);
        sync(&node, object, "UPDATE", &["b", "c"]);
        sync(&node, object, "READ", &["a", "b"]);
        sync(&node, object, "DELETE", &["a"]);
        sync(&node, object, "DELETE", &["b", "c"]);
        // Not known here, one is looked up by its key alone, several together.
        sync(&node, object, "DELETE", &["f"]);
        sync(&node, object, "DELETE", &["g", "h"]);
    }
    until("a list of what is archived", || {
        let listed = |call: &Call| call.query.contains("archived=true");
        provider.journal().iter().any(listed).then_some(())
    });
    provider.journal()
}

#[test]
fn every_kind_of_request_is_made_and_kept() {
    let calls = [lives(1), lives(100)].concat();
    for object in ["contacts", "companies", "deals"] {
        for request in [
            "POST crm/v3/objects/OBJECT",
            "PATCH crm/v3/objects/OBJECT/ID",
            "DELETE crm/v3/objects/OBJECT/ID",
            "GET crm/v3/objects/OBJECT/ID",
            "POST crm/v3/objects/OBJECT/batch/create",
            "POST crm/v3/objects/OBJECT/batch/upsert",
            "POST crm/v3/objects/OBJECT/batch/update",
            "POST crm/v3/objects/OBJECT/batch/archive",
            "POST crm/v3/objects/OBJECT/batch/read",
        ] {
            let request = request.replace("OBJECT", object);
            let made = calls.iter().any(|call| shape(call) == request);
            assert!(made, "no {request} among {:?}", shapes(&calls));
        }
    }
    for request in [
        "POST crm/v3/objects/contacts/search",
        "GET crm/v3/objects/contacts",
    ] {
        assert!(
            calls.iter().any(|call| shape(call) == request),
            "no {request}"
        );
    }
    let lines: Vec<String> = calls
        .iter()
        .map(|call| {
            json!({"method": call.method, "path": call.path, "query": call.query, "body": call.body})
                .to_string()
        })
        .collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hubspot-requests.ndjson");
    fs::write(kept, lines.join("\n") + "\n").expect("the target folder is ours");
}

fn shapes(calls: &[Call]) -> Vec<String> {
    let mut shapes: Vec<String> = calls.iter().map(shape).collect();
    shapes.sort();
    shapes.dedup();
    shapes
}
