//! Starting and stopping as operators and their scripts see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use syncline_tests::process::{Config, Model, Node, Provider, Running, Violations, program, until};

#[test]
fn a_stop_ends_open_calls_seals_the_log_and_exits_0() {
    let provider = Provider::start(&["--fault", "latency=150ms"]);
    let mut node = Node::start(Config::new().account("crm", &provider.url(), "max_in_flight = 8"));
    let events: Vec<_> = (0..40)
        .map(|n| json!({"operation": "CREATE", "object": "contact", "record_id": format!("c-{n}"), "data": {"n": n}}))
        .collect();
    let mut model = Model::default();
    events.iter().for_each(|event| model.apply(event));
    assert_eq!(node.post("/v1/sync", json!(events).to_string()).status, 202);
    until("open calls", || {
        (provider.journal().len() >= 8).then_some(())
    });
    let status = node.stop();
    assert_eq!(status.code(), Some(0));
    let calls = provider.journal();
    assert!(calls.len() < events.len(), "the stop came on the way");
    assert!(
        calls
            .iter()
            .all(|call| call.status == 200 || call.status == 201),
        "no call was cut off"
    );
    let before = calls.len();
    node.restart();
    assert!(node.drain().is_empty());
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    let calls = provider.journal();
    assert_eq!(
        calls.len(),
        events.len(),
        "nothing had to be looked up or repeated"
    );
    assert!(calls[before..].iter().all(|call| call.method == "POST"));
}

#[test]
fn a_stop_while_idle_takes_no_time_and_a_restart_finds_a_sealed_log() {
    let provider = Provider::start(&[]);
    let mut node = Node::start(Config::new().account("crm", &provider.url(), ""));
    let event =
        json!({"operation": "CREATE", "object": "contact", "record_id": "c-1", "data": {"n": 1}});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    node.drain();
    assert_eq!(node.stop().code(), Some(0));
    node.restart();
    assert_eq!(
        node.get("/v1/sync/status/c-1").json()["providers"][0]["state"],
        "synced"
    );
    assert!(
        !node.process().errors().contains("torn"),
        "{}",
        node.process().errors()
    );
}

#[test]
fn a_second_process_on_the_same_data_exits_at_once_and_touches_nothing() {
    let provider = Provider::start(&[]);
    let node = Node::start(Config::new().account("crm", &provider.url(), ""));
    let event =
        json!({"operation": "CREATE", "object": "contact", "record_id": "c-1", "data": {"n": 1}});
    assert_eq!(node.post("/v1/sync", event.to_string()).status, 202);
    node.drain();
    // The first process is idle and its log sealed once its files stop changing.
    let before = until("a quiet folder", || {
        let one = contents(&node.data_dir());
        syncline_tests::process::wait(std::time::Duration::from_millis(120));
        (one == contents(&node.data_dir())).then_some(one)
    });
    let mut second = Running::start(
        Command::new(program())
            .arg("serve")
            .arg("--config")
            .arg(node.config_file()),
    );
    let status = second.wait();
    assert!(!status.success());
    let words = second.errors();
    assert!(words.contains("in use by another process"), "{words}");
    assert!(
        words.contains(&node.data_dir().display().to_string()),
        "{words}"
    );
    assert!(
        contents(&node.data_dir()) == before,
        "the second process changed something"
    );
    assert_eq!(node.get("/livez").status, 200);
}

#[test]
fn a_wrong_config_exits_78_with_its_place() {
    for (text, place, word) in [
        (
            "[listen]\ntcp = \"127.0.0.1:0\"\n\n[shards]\ncuont = 2\n",
            ":5:1",
            "cuont",
        ),
        ("[shards\ncount = 2\n", ":1:", ""),
        (
            "[providers.crm]\ntype = \"rest\"\nmax_in_flight = \"many\"\n",
            ":3:17",
            "many",
        ),
        ("[listen]\ntcp = \"0.0.0.0:0\"\n", ":2:7", "off loopback"),
        ("[listen]\nhttp = \"0.0.0.0:0\"\n", ":2:8", "off loopback"),
    ] {
        for command in ["serve", "check"] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("node.toml");
            fs::write(&file, text).expect("the folder is ours");
            let mut running = Running::start(
                Command::new(program())
                    .arg(command)
                    .arg("--config")
                    .arg(&file)
                    .current_dir(folder.path()),
            );
            let status = running.wait();
            let words = running.errors();
            assert_eq!(status.code(), Some(78), "{command} {text:?}: {words}");
            assert!(
                words.contains(&format!("node.toml{place}")),
                "{command} {text:?}: {words}"
            );
            assert!(words.contains(word), "{command} {text:?}: {words}");
            assert_eq!(files(folder.path()), [file], "{command} made something");
        }
    }
}

#[test]
fn off_loopback_is_served_when_the_file_says_insecure() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("node.toml");
    let listen = "[listen]\ntcp = \"0.0.0.0:0\"\nhttp = \"0.0.0.0:0\"\ninsecure = true\n";
    fs::write(&file, listen).expect("the folder is ours");
    let mut node = Running::start(
        Command::new(program())
            .arg("serve")
            .arg("--config")
            .arg(&file)
            .current_dir(folder.path()),
    );
    let line = node.next_line();
    assert!(line.starts_with("listening tcp=0.0.0.0:"), "{line}");
    assert_eq!(node.terminate().code(), Some(0));
    assert!(
        folder.path().join("syncline-data").is_dir(),
        "the default's place"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut open = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found.sort();
    found
}

/// Every file with its bytes; one that goes away while we look counts as none.
fn contents(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let read = |path: PathBuf| (path.clone(), fs::read(path).ok());
    files(folder).into_iter().map(read).collect()
}
