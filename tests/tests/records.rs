//! Real records through the real program, with a provider that misbehaves and kills on the way.

use std::path::Path;
use std::process::Command;

use syncline_tests::process::{Config, Model, Node, Provider, Running, Violations, program, until};

#[test]
fn real_records_arrive_whole_through_faults_and_three_kills() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate lies in the project's folder");
    let file = root.join("../shared/data/records/npsp_events.ndjson");
    let Ok(text) = std::fs::read_to_string(&file) else {
        println!("skipped: real_records (no records at ../shared/data/records)");
        return;
    };
    let faults = "5xx=0.03,5xx_after=0.02,reset_before=0.02,reset_after=0.03,garbage=0.01,latency=5ms,jitter=10ms";
    let provider = Provider::start(&["--fault", faults, "--seed", "611", "--limit", "300/1s"]);
    let limits = "[[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = 300\nwindow = \"1s\"\n";
    let mut node = Node::start(Config::new().account("crm", &provider.url(), limits));
    let folder = tempfile::tempdir().expect("a folder for what is sent");
    let copy = folder.path().join("events.ndjson");
    std::fs::write(&copy, &text).expect("the folder is ours");

    // Killed while the lines come in, then while they are delivered.
    let mut sending = send(&node, &copy);
    until("the first lines", || {
        (!provider.journal().is_empty()).then_some(())
    });
    node.kill();
    let gave_up = sending.wait();
    assert!(
        matches!(gave_up.code(), Some(0 | 75)),
        "{gave_up}: {}",
        sending.errors()
    );
    node.restart();
    if gave_up.code() == Some(75) {
        let resumed = send(&node, &copy).wait();
        assert_eq!(resumed.code(), Some(0));
    }
    for share in [3, 2] {
        let calls = provider.journal().len() + text.lines().count() / (2 * share);
        until("progress", || {
            (provider.journal().len() >= calls || is_idle(&node)).then_some(())
        });
        node.kill();
        node.restart();
    }

    let dead = node.drain();
    assert!(
        dead.is_empty(),
        "{} dead letters, first {}",
        dead.len(),
        dead[0]
    );
    let mut model = Model::default();
    for line in text.lines() {
        model.apply(&serde_json::from_str(line).expect("the records are JSON"));
    }
    assert_eq!(
        model.len(),
        611,
        "the file is the one that these tests know"
    );
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
}

fn send(node: &Node, file: &Path) -> Running {
    let to = node.tcp().to_string();
    Running::start(
        Command::new(program())
            .args(["send", "--to", &to, "--give-up", "1"])
            .arg(file),
    )
}

fn is_idle(node: &Node) -> bool {
    let queue = node.get("/metrics/queue").json();
    queue
        .as_object()
        .is_some_and(|counts| counts.values().all(|count| count.as_u64() == Some(0)))
}
