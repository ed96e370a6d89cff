//! Both ways through the real program: a simulated CRM is polled, System A subscribes and speaks.

use std::time::Duration;

use serde_json::{Value, json};
use syncline_tests::process::{Config, Lines, Node, Provider, request, until, wait};

fn config(provider: &Provider) -> Config {
    Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         poll = {{ interval = \"200ms\" }}\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\n\
         [objects.contact]\ndirection = \"both\"\n\
         [objects.contact.to.crm]\nremote = \"contacts\"\nexternal_id = \"external_id\"\n\
         fields = [{{ local = \"last_name\", remote = \"lastname\" }}]\n",
        provider.url()
    ))
}

/// Somebody edits a contact in the CRM.
fn edit(provider: &Provider, edit: &Value) {
    let at = provider.url();
    let at = at
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let answer = request(at, "POST", "/__mock/edit", edit.to_string().as_bytes());
    assert_eq!(answer.map(|answer| answer.status), Some(200), "{edit}");
}

fn subscribe(node: &Node) -> Lines {
    let mut lines = Lines::connect(node.tcp());
    lines.send(r#"{"subscribe":{"consumer":"billing","objects":["contact"]}}"#);
    lines.send("\n");
    lines
}

fn next_change(lines: &mut Lines) -> Value {
    let message = lines.next_message().expect("the subscription goes on");
    message["change"].clone()
}

#[test]
fn changes_of_a_crm_reach_system_a_and_system_a_s_reach_it_without_an_echo() {
    let options = ["--token", "t-1", "--key", "contacts.external_id"];
    let provider = Provider::start_as("hubspot", &options);
    let mut node = Node::start(config(&provider));
    let mut billing = subscribe(&node);

    edit(
        &provider,
        &json!({"object": "contacts", "operation": "create", "fields": {"lastname": "Lovelace"}}),
    );
    let made = next_change(&mut billing);
    assert_eq!(made["operation"], "UPSERT", "{made}");
    assert_eq!(made["data"], json!({"last_name": "Lovelace"}));
    assert_eq!(
        (&made["provider"], &made["origin"]),
        (&json!("crm"), &json!("crm"))
    );

    // It was not acknowledged: it comes again, also after the process was killed.
    drop(billing);
    node.kill();
    node.restart();
    let mut billing = subscribe(&node);
    let again = next_change(&mut billing);
    assert_eq!(again["record_id"], made["record_id"]);
    billing.send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", again["seq"]));

    let all_acknowledged = || {
        let told = node.get("/v1/consumers").json();
        (told["consumers"][0]["unacked"] == 0).then_some(())
    };
    until("System A has acknowledged it", all_acknowledged);
    until("the engine knows that", || {
        let status = node.get("/v1/providers/system_a/status").json();
        (status["queue_depth"] == 0).then_some(())
    });
    // What is said in the millisecond of the answer may have crossed it.
    wait(Duration::from_millis(2));
    // System A's own change goes there and does not come back.
    let record_id = made["record_id"].as_str().expect("a text").to_owned();
    let event = json!({"operation": "UPDATE", "object": "contact", "record_id": record_id,
        "data": {"last_name": "Byron"}});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    let remote_id = made["remote_id"].as_str().expect("a text").to_owned();
    let shows = |name: &str| {
        provider
            .records()
            .values()
            .any(|fields| fields["lastname"] == name)
    };
    until("the CRM has System A's change", || {
        shows("Byron").then_some(())
    });
    edit(
        &provider,
        &json!({"object": "contacts", "operation": "update", "id": remote_id,
            "fields": {"lastname": "King"}}),
    );
    let next = next_change(&mut billing);
    assert_eq!(next["data"], json!({"last_name": "King"}), "{next}");
    assert_eq!(next["record_id"], json!(record_id));
    billing.send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", next["seq"]));
    until("System A has acknowledged it", all_acknowledged);
    assert!(node.drain().is_empty());
}

#[test]
fn a_consumer_that_is_away_holds_nobody_back_and_misses_nothing() {
    let provider = Provider::start_as("hubspot", &["--token", "t-1"]);
    let config = config(&provider).shards(1);
    let mut node = Node::start(config.with("[system_a]\nabsent_after = \"100ms\"\n"));
    let mut here = subscribe(&node);
    let away = |node: &Node| {
        let mut lines = Lines::connect(node.tcp());
        lines.send("{\"subscribe\":{\"consumer\":\"archive\"}}\n");
        lines
    };
    let leaves = away(&node);
    until("both are known", || {
        let known = node.get("/v1/consumers").json();
        (known["consumers"].as_array()?.len() == 2).then_some(())
    });
    drop(leaves);
    let mut made = Vec::new();
    for name in ["Lovelace", "Byron"] {
        made.push(provider.make("contacts", &json!({ "lastname": name })));
        let change = next_change(&mut here);
        here.send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", change["seq"]));
        // It is over for everybody else, though one of them never came.
        assert!(node.drain().is_empty());
    }
    // Durable, and so is what the log has before it: how both ended.
    let read = json!({"operation": "READ", "object": "contact",
        "record_id": format!("crm:{}", made[0])});
    assert_eq!(node.post("/v1/sync", read.to_string()).status, 202);
    node.kill();
    node.restart();
    let known = node.get("/v1/consumers").json();
    assert_eq!(known["consumers"][0]["unacked"], 2, "{known}");
    let mut back = away(&node);
    for id in made {
        let change = next_change(&mut back);
        assert_eq!(change["record_id"], format!("crm:{id}"), "{change}");
        back.send(format!("{{\"ack\":{{\"seq\":{}}}}}\n", change["seq"]));
    }
    until("all of it is acknowledged", || {
        let known = node.get("/v1/consumers").json();
        (known["consumers"][0]["unacked"] == 0).then_some(())
    });
}

#[test]
fn changes_are_heard_of_though_records_have_used_up_all_but_what_is_kept_for_polls() {
    let options = ["--token", "t-1", "--key", "contacts.external_id"];
    let provider = Provider::start_as("hubspot", &options);
    // Most of the hour's calls: far more than polls make until the change is told.
    let limits = "[[providers.crm.limits]]\nname = \"hourly\"\nkind = \"sliding\"\nlimit = 240\n\
                  window = \"1h\"\nreserve_polls = 0.75\n\
                  [providers.crm.batch]\nmax_items = 1\n";
    let node = Node::start(config(&provider).with(limits));
    let mut billing = subscribe(&node);
    let events: Vec<Value> = (0..100)
        .map(|at| {
            json!({"operation": "CREATE", "object": "contact", "record_id": format!("c-{at}"),
                "data": {"last_name": format!("Name {at}")}})
        })
        .collect();
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
    until("records wait for quota", || {
        let status = node.get("/v1/providers/crm/status").json();
        let waits = status["held_by"] == "quota_spent" && status["queue_depth"] != 0;
        let hourly = status["limits"].as_array()?.iter();
        let kept = hourly.filter(|limit| limit["name"] == "hourly");
        let kept: Vec<u64> = kept.filter_map(|limit| limit["kept"].as_u64()).collect();
        (waits && kept.iter().any(|kept| *kept > 0)).then_some(())
    });
    edit(
        &provider,
        &json!({"object": "contacts", "operation": "create", "fields": {"lastname": "Lovelace"}}),
    );
    let made = next_change(&mut billing);
    assert_eq!(made["data"], json!({"last_name": "Lovelace"}), "{made}");
}
