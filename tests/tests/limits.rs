//! Limits as the provider counts them, through a kill and a restart, with a backlog all the time.

use serde_json::json;
use syncline_tests::process::{Call, Config, Model, Node, Provider, Violations, until};

const LIMIT: usize = 50;
const WINDOW_MS: u64 = 1000;
const IN_FLIGHT: usize = 4;
const EVENTS: usize = 400;

#[test]
fn limits_hold_and_are_used_through_a_kill_with_a_backlog() {
    let rate = format!("{LIMIT}/1s");
    let provider = Provider::start(&["--limit", &rate, "--fault", "latency=20ms,jitter=20ms"]);
    let limits = format!(
        "fold = false\nmax_in_flight = 16\n\
         [[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = {LIMIT}\nwindow = \"1s\"\n\
         [[providers.crm.limits]]\nname = \"open\"\nkind = \"concurrency\"\nlimit = {IN_FLIGHT}\n"
    );
    let mut node = Node::start(
        Config::new()
            .shards(2)
            .account("crm", &provider.url(), &limits),
    );
    let mut model = Model::default();
    let events: Vec<_> = (0..EVENTS)
        .map(|n| json!({"operation": "UPSERT", "object": "contact", "record_id": format!("c-{n}"), "data": {"n": n}}))
        .collect();
    events.iter().for_each(|event| model.apply(event));
    let answer = node.post("/v1/sync", json!(events).to_string());
    assert_eq!(answer.status, 202, "{}", answer.json());

    let half = until("half of the calls", || {
        let calls = provider.journal();
        (calls.len() >= EVENTS / 2).then_some(calls)
    });
    node.kill();
    node.restart();
    assert!(node.drain().is_empty());

    let calls = provider.journal();
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    assert!(most_in_a_window(&calls) <= LIMIT);
    assert!(
        most_at_once(&calls) <= IN_FLIGHT,
        "{} calls at once",
        most_at_once(&calls)
    );
    let before = used(&half);
    let after = used(&calls[half.len() + LIMIT..]);
    println!(
        "utilisation before the kill {before:.3}, after it {after:.3}, 0 violations in {} calls",
        calls.len()
    );
    // Printed, not asserted: the share depends on the machine. Virtual time proves it, in the tests
    // of the coordinator.
}

/// Share of what the window allows from the first call to the last.
fn used(calls: &[Call]) -> f64 {
    let (Some(first), Some(last)) = (calls.first(), calls.last()) else {
        return 0.0;
    };
    // From the first call of one window to the first of another: whole windows, nothing beside.
    let windows = (calls.len() - 1) / LIMIT;
    let Some(end) = calls.get(windows * LIMIT).filter(|_| windows > 0) else {
        return 0.0;
    };
    assert!(last.at_ms >= first.at_ms);
    (windows as u64 * WINDOW_MS) as f64 / (end.at_ms - first.at_ms) as f64
}

/// By whole milliseconds, so that a call on the border of a window counts as outside.
fn most_in_a_window(calls: &[Call]) -> usize {
    let mut start = 0;
    let mut most = 0;
    for (at, call) in calls.iter().enumerate() {
        while calls[start].at_ms + WINDOW_MS <= call.at_ms {
            start += 1;
        }
        most = most.max(at + 1 - start);
    }
    most
}

fn most_at_once(calls: &[Call]) -> usize {
    let open = |at: u64| {
        calls
            .iter()
            .filter(|call| call.at_ms <= at && at < call.done_ms)
            .count()
    };
    calls.iter().map(|call| open(call.at_ms)).max().unwrap_or(0)
}
