//! Records, links and walks through the real program, with a simulated CRM and a subscriber.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Lines, Node, Provider, request, until};

/// An account that is not polled: what its people do, nobody hears of.
fn config(provider: &Provider) -> Config {
    Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         poll = {{ enabled = false }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }}]\n",
        provider.url()
    ))
}

/// Its search index follows at once: what people do is there to be found.
fn crm() -> Provider {
    let options = [
        "--token",
        "t-1",
        "--key",
        "contacts.external_id",
        "--fault",
        "stale=0s",
    ];
    Provider::start_as("hubspot", &options)
}

fn edit(provider: &Provider, edit: &Value) {
    let at = provider.url();
    let at = at
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let answer = request(at, "POST", "/__mock/edit", edit.to_string().as_bytes());
    assert_eq!(answer.map(|answer| answer.status), Some(200), "{edit}");
}

fn make(provider: &Provider, name: &str) -> String {
    provider.make("contacts", &json!({ "lastname": name }))
}

/// Begins a walk; how it stands at its end.
fn walk(node: &Node, path: &str, more: &Value) -> Value {
    let mut body = json!({"provider": "crm", "object": "contact"});
    for (name, value) in more.as_object().expect("members") {
        body[name] = value.clone();
    }
    let begun = node.post(path, body.to_string());
    assert_eq!(begun.status, 202, "{}", begun.json());
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    ended(node, &id)
}

fn ended(node: &Node, id: &str) -> Value {
    until("the walk ends", || {
        let walk = node.get(&format!("/v1/walks/{id}")).json();
        (walk["state"] != "running").then_some(walk)
    })
}

/// System A, which acknowledges what it is told.
struct SystemA {
    lines: Lines,
}

impl SystemA {
    fn subscribe(node: &Node) -> SystemA {
        let mut lines = Lines::connect(node.tcp());
        lines.send("{\"subscribe\":{\"consumer\":\"billing\"}}\n");
        SystemA { lines }
    }

    /// The next changes, by operation and value.
    fn hear(&mut self, count: usize) -> BTreeMap<String, String> {
        let mut heard = BTreeMap::new();
        while heard.len() < count {
            let message = self.lines.next_message().expect("the subscription goes on");
            let change = &message["change"];
            let ack = format!("{{\"ack\":{{\"seq\":{}}}}}\n", change["seq"]);
            self.lines.send(ack);
            let value = change["data"]["last_name"].as_str().unwrap_or_default();
            let operation = change["operation"].as_str().expect("a text");
            let record_id = change["record_id"].as_str().expect("a text").to_owned();
            heard.insert(record_id, format!("{operation} {value}"));
        }
        heard
    }
}

#[test]
fn a_backfill_takes_what_was_there_before_also_over_a_kill() {
    let provider = crm();
    for name in ["a", "b", "c"] {
        make(&provider, name);
    }
    let mut node = Node::start(config(&provider));
    let body = json!({"provider": "crm", "object": "contact"}).to_string();
    let begun = node.post("/v1/backfill", &body);
    assert_eq!(begun.status, 202);
    let id = begun.json()["id"].as_str().expect("an id").to_owned();
    // Whatever of it was done, it is known and goes on.
    node.kill();
    node.restart();
    let walk = ended(&node, &id);
    assert_eq!(walk["state"], "done", "{walk}");
    assert_eq!(
        walk["listed"].as_u64().map(|listed| listed >= 3),
        Some(true),
        "{walk}"
    );
    let mut system_a = SystemA::subscribe(&node);
    let mut heard: Vec<String> = system_a.hear(3).into_values().collect();
    heard.sort();
    assert_eq!(heard, ["UPSERT a", "UPSERT b", "UPSERT c"]);
    assert!(node.drain().is_empty());
    let again = walk_of(&node, "/v1/backfill");
    assert_eq!(again["state"], "done");
    assert!(
        node.drain().is_empty(),
        "what is known already is no change"
    );
}

fn walk_of(node: &Node, path: &str) -> Value {
    walk(node, path, &json!({}))
}

#[test]
fn a_reconcile_tells_each_difference_by_its_cause_and_repairs_on_demand() {
    let provider = crm();
    let names = ["a", "b", "c", "d"];
    let ids: Vec<String> = names.iter().map(|name| make(&provider, name)).collect();
    let node = Node::start(config(&provider));
    let mut system_a = SystemA::subscribe(&node);
    walk_of(&node, "/v1/backfill");
    system_a.hear(4);
    assert!(node.drain().is_empty());

    let change = |operation: &str, id: &str, fields: Value| json!({"object": "contacts", "operation": operation, "id": id, "fields": fields});
    edit(
        &provider,
        &change("update", &ids[0], json!({"lastname": "a2"})),
    );
    edit(&provider, &change("delete", &ids[1], json!({})));
    let made = make(&provider, "e");

    let found = walk_of(&node, "/v1/reconcile");
    let report = &found["report"];
    let count = |cause: &str| report[cause].as_u64().expect("a count");
    assert_eq!(
        (
            count("equal"),
            count("differs"),
            count("missing_here"),
            count("missing_there")
        ),
        (2, 1, 1, 1),
        "{found}"
    );
    assert_eq!(report["fields"], json!({"/last_name": 1}));
    assert_eq!(
        (count("repaired"), &found["taken"]),
        (0, &json!(0)),
        "it only looks"
    );

    let repaired = walk(&node, "/v1/reconcile", &json!({"repair": true}));
    assert_eq!(repaired["report"]["repaired"], 3, "{repaired}");
    let heard = system_a.hear(3);
    let of = |id: &str| heard.get(&format!("crm:{id}")).map(String::as_str);
    assert_eq!(of(&ids[0]), Some("UPDATE a2"), "{heard:?}");
    assert_eq!(of(&ids[1]), Some("DELETE "), "{heard:?}");
    assert_eq!(of(&made), Some("UPSERT e"), "{heard:?}");
    assert!(node.drain().is_empty());
    let equal = walk_of(&node, "/v1/reconcile");
    assert_eq!(equal["report"]["equal"], 4, "{equal}");
    assert_eq!(equal["report"]["examples"], json!([]), "{equal}");
}

#[test]
fn a_list_that_lacks_too_much_deletes_nothing() {
    let provider = crm();
    let ids: Vec<String> = (0..14)
        .map(|at| make(&provider, &format!("n{at}")))
        .collect();
    let node = Node::start(config(&provider));
    let mut system_a = SystemA::subscribe(&node);
    walk_of(&node, "/v1/backfill");
    system_a.hear(14);
    assert!(node.drain().is_empty());
    for id in &ids[..12] {
        edit(
            &provider,
            &json!({"object": "contacts", "operation": "delete", "id": id}),
        );
    }
    let stopped = walk(&node, "/v1/reconcile", &json!({"repair": true}));
    assert_eq!(stopped["report"]["missing_there"], 12, "{stopped}");
    assert_eq!(stopped["report"]["repaired"], 0, "{stopped}");
    let detail = stopped["detail"].as_str().unwrap_or_default();
    assert!(
        detail.contains("12 of 14") && detail.contains("20 %"),
        "{detail}"
    );
    let meant = walk(
        &node,
        "/v1/reconcile",
        &json!({"repair": true, "absent_max": 1.0, "limit": 5}),
    );
    assert_eq!(meant["report"]["repaired"], 5, "{meant}");
    let heard = system_a.hear(5);
    assert!(heard.values().all(|told| told == "DELETE "), "{heard:?}");
    assert!(node.drain().is_empty());
}

#[test]
fn a_gap_in_a_list_resyncs_the_object_by_itself() {
    let provider = Provider::start_as("salesforce", &["--token", "t-1"]);
    let made = provider.make("Contact", &json!({"LastName": "Lovelace"}));
    let config = Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"salesforce\"\nbase_url = \"{}\"\n\
         poll = {{ interval = \"1h\" }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"in\"\n\
         [objects.contact.to.crm]\nremote = \"Contact\"\n\
         fields = [{{ local = \"last_name\", remote = \"LastName\" }}]\n",
        provider.url()
    ));
    let mut node = Node::start(config);
    node.kill();
    // The list of deletes was read last before it begins now.
    let cursors = json!({"version": 1, "lists": {"deletes": {"Contact": {"from_ms": 1_000_000}}}});
    std::fs::write(
        node.data_dir().join("cursors-crm.json"),
        cursors.to_string(),
    )
    .expect("the folder is ours");
    node.restart();
    let resync = until("a resync", || {
        let walks = node.get("/v1/walks").json();
        let first = walks["items"][0].clone();
        (!first.is_null() && first["state"] != "running").then_some(first)
    });
    assert_eq!(
        (&resync["purpose"], &resync["state"]),
        (&json!("resync"), &json!("done"))
    );
    let cause = resync["cause"].as_str().unwrap_or_default();
    assert!(cause.contains("deletes"), "{resync}");
    let heard = SystemA::subscribe(&node).hear(1);
    assert_eq!(
        heard.get(&format!("crm:{made}")).map(String::as_str),
        Some("UPSERT Lovelace")
    );
}

#[test]
fn a_record_shows_its_link_and_an_operator_sets_it() {
    let provider = crm();
    let mut node = Node::start(config(&provider));
    for (id, name) in [("c-1", "Ada"), ("c-2", "Bob")] {
        let event = json!({"operation": "UPSERT", "object": "contact", "record_id": id,
            "data": {"last_name": name}});
        assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    }
    assert!(node.drain().is_empty());
    let record = |node: &Node, id: &str| node.get(&format!("/v1/records/{id}")).json();
    let shown = record(&node, "c-1");
    let remote_id = shown["links"][0]["remote_id"]
        .as_str()
        .expect("linked")
        .to_owned();
    let crm = shown["sides"]
        .as_array()
        .expect("sides")
        .iter()
        .find(|side| side["provider"] == "crm");
    let crm = crm.expect("its side");
    assert_eq!(crm["base"], json!({"last_name": "Ada"}), "{shown}");
    assert_eq!(crm["versions"]["system_a"], crm["versions"]["provider"]);

    let links = |node: &Node| {
        let mut ids: Vec<String> = Vec::new();
        let mut after = String::new();
        loop {
            let page = node.get(&format!(
                "/v1/links?object=contact&provider=crm&limit=1{after}"
            ));
            let text = String::from_utf8(page.body.clone()).expect("text");
            let lines = text
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("a link"));
            ids.extend(lines.map(|link| link["record_id"].as_str().expect("a text").to_owned()));
            match page.header("syncline-next") {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        ids.sort();
        ids
    };
    assert_eq!(links(&node), ["c-1", "c-2"]);

    let path = "/v1/records/c-2/links/crm";
    let body = json!({ "remote_id": remote_id }).to_string();
    let taken = node.ask("PUT", path, &body);
    assert_eq!(
        (taken.status, &taken.json()["record_id"]),
        (409, &json!("c-1"))
    );
    assert_eq!(
        node.ask("DELETE", "/v1/records/c-1/links/crm", "").status,
        200
    );
    let moved = node.ask("PUT", path, &body);
    assert_eq!(moved.status, 200, "{}", moved.json());
    node.kill();
    node.restart();
    assert_eq!(links(&node), ["c-2"]);
    assert_eq!(
        record(&node, "c-2")["links"][0]["remote_id"],
        json!(remote_id)
    );
    let changes = node.get("/v1/links/changes").json();
    assert_eq!(
        changes["items"].as_array().map(Vec::len),
        Some(2),
        "{changes}"
    );

    // What the account shows of it is c-2's from here on.
    edit(
        &provider,
        &json!({"object": "contacts", "operation": "update", "id": remote_id,
            "fields": {"lastname": "Carol"}}),
    );
    walk(&node, "/v1/resync", &json!({}));
    let heard = SystemA::subscribe(&node).hear(1);
    assert_eq!(
        heard.get("c-2").map(String::as_str),
        Some("UPDATE Carol"),
        "{heard:?}"
    );
}
