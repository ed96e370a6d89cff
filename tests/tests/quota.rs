//! Several windows, other applications and what is learned of a limit, through the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_tests::process::{Call, Config, Node, Provider, Violations, wait};

/// A custom field of the simulated company, named as the provider names them.
const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the other application reads, again and again.
const OTHERS_PATH: &str = "/crm/v3/objects/contacts/1";

fn changes(operation: &str, prefix: &str, count: usize) -> Vec<Value> {
    let event = |n: usize| {
        let mut event = json!({"operation": operation, "object": "contact", "record_id": format!("{prefix}-{n}")});
        if operation != "DELETE" {
            event["data"] = json!({"name": format!("Ada {n}")});
        }
        event
    };
    (0..count).map(event).collect()
}

fn submit(node: &Node, events: &[Value]) {
    let answer = node.post("/v1/sync", json!(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());
}

/// The limits of the account `crm`, by name.
fn limit(node: &Node, name: &str) -> Value {
    let status = node.get("/v1/providers/crm/status").json();
    let limits = status["limits"].as_array().unwrap().clone();
    let found = limits.into_iter().find(|limit| limit["name"] == name);
    found.unwrap_or_else(|| panic!("no limit {name}: {status}"))
}

#[test]
fn look_ups_with_a_window_of_their_own_hold_no_write_back() {
    let key = format!("persons.{KEY}");
    let options = [
        "--limit",
        "burst=80/2s",
        "--limit",
        "search=4/2s",
        "--key",
        &key,
        "--token",
        "t-1",
    ];
    let provider = Provider::start_as("pipedrive", &options);
    let node = Node::start(Config::new().shards(2).with(&format!(
        "[providers.crm]\ntype = \"pipedrive\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         auth = {{ kind = \"api_key\", header = \"x-api-token\", value = \"exec:printf t-1\" }}\n\
         [[providers.crm.limits]]\nname = \"search\"\nkind = \"sliding\"\nlimit = 4\nwindow = \"2s\"\n\
         applies_to = {{ tags = [\"search\"] }}\n\
         [objects.contact.to.crm]\nremote = \"persons\"\nexternal_id = \"{KEY}\"\n\
         fields = [{{ local = \"name\", remote = \"name\" }}]\n",
        provider.url()
    )));
    // Of a record that nobody knows a DELETE is a search and nothing else.
    submit(&node, &changes("DELETE", "d", 12));
    submit(&node, &changes("CREATE", "c", 200));
    assert!(node.drain().is_empty());
    let calls = provider.journal();
    let searches = |call: &Call| call.path.contains("/search");
    let creates = |call: &Call| call.method == "POST" && call.status / 100 == 2;
    let at = |of: &dyn Fn(&Call) -> bool| -> Vec<usize> {
        let found = calls.iter().enumerate().filter(|(_, call)| of(call));
        found.map(|(at, _)| at).collect()
    };
    let (searches, creates) = (at(&searches), at(&creates));
    assert_eq!((searches.len(), creates.len()), (12, 200));
    // Three windows each: whichever waited for the other would come after all of it.
    assert!(creates[40] < searches[11], "{searches:?}");
    assert!(searches[4] < creates[199], "{searches:?}");
    assert_eq!(provider.violations(), Violations::default());
}

#[test]
fn another_application_is_left_its_half_and_a_smaller_limit_is_remembered() {
    // The provider allows 40 in 2 s and says so; our configuration says 60.
    let provider = Provider::start_as("hubspot", &["--limit", "burst=40/2s", "--token", "t-1"]);
    let config = format!(
        "[providers.crm]\ntype = \"hubspot\"\nbase_url = \"{}\"\nsettle = \"300ms\"\n\
         auth = {{ kind = \"bearer\", token = \"exec:printf t-1\" }}\nbatch = {{ max_items = 1 }}\n\
         [[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = 60\nwindow = \"2s\"\n",
        provider.url()
    );
    let mut node = Node::start(Config::new().shards(2).with(&config));
    let over = AtomicBool::new(false);
    let application = provider.another_application("t-1");
    let (ours, others) = thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut sent = 0;
            while !over.load(Ordering::Acquire) {
                let answer = application.call(OTHERS_PATH);
                sent += usize::from(answer.status != 429);
                wait(Duration::from_millis(100));
            }
            sent
        });
        submit(&node, &changes("CREATE", "c", 120));
        let left = node.drain();
        over.store(true, Ordering::Release);
        assert!(left.is_empty());
        let calls = provider.journal();
        let ours: Vec<Call> = calls
            .into_iter()
            .filter(|call| call.path != OTHERS_PATH)
            .collect();
        (ours, other.join().unwrap())
    });
    assert_eq!(provider.records().len(), 120);
    // Before the first reply nothing is known of the other application or of the smaller limit, and
    // what it will call in the next instant never is: each time costs what is in flight then, and
    // the pause that the provider asks for.
    let refused = ours.iter().filter(|call| call.status == 429).count();
    println!("{refused} of {} calls refused", ours.len());
    assert!(refused * 2 <= ours.len(), "{refused} of {}", ours.len());
    assert!(others > 0);
    // 40 by its own word; after refusals, which the other application causes now and then, less.
    let burst = limit(&node, "burst");
    assert_eq!(burst["limit"], 60);
    assert!(burst["allowed"].as_u64() <= Some(40), "{burst}");

    node.kill();
    node.restart();
    let remembered = limit(&node, "burst");
    assert!(remembered["allowed"].as_u64() <= Some(40), "{remembered}");
}
