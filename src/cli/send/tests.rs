//! Runs over a node in memory: broken off, resumed, refused.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use clap::Parser;
use net::gate::wake_gate;
use net::ingest::{
    BatchId, Busy, Code, Driver, Greeting, Intake, Limits, Producer, Refusal, Server, SessionId,
    Settled, StopSignal, Welcome,
};

use super::*;

/// Takes every event but those that hold `bad`; settles at once.
#[derive(Clone, Default)]
struct Node {
    state: Arc<Mutex<NodeState>>,
}

#[derive(Default)]
struct NodeState {
    taken: Vec<String>,
    /// The disk is full once so many are taken.
    room: Option<usize>,
    key: Option<String>,
    last_seq: HashMap<String, u64>,
    names: HashMap<SessionId, String>,
    staged: Vec<String>,
    settled: VecDeque<Settled>,
    batches: u64,
}

impl Intake for Node {
    fn hello(&mut self, session: SessionId, producer: Option<&str>, key: Option<&str>) -> Greeting {
        let mut state = self.state.lock().unwrap();
        if state.key.is_some() && state.key.as_deref() != key {
            return Greeting::Refused(Refusal::new(Code::Unauthorized, "no valid key"));
        }
        let name = producer.expect("the sender has a name").to_owned();
        let last_seq = state.last_seq.get(&name).copied().unwrap_or(0);
        state.names.insert(session, name);
        Greeting::Welcome(Welcome {
            last_seq,
            already: Vec::new(),
        })
    }

    fn stage(&mut self, _: SessionId, _: &Producer, _: u64, event: &[u8]) -> Result<(), Refusal> {
        let mut state = self.state.lock().unwrap();
        let text = String::from_utf8(event.to_vec()).unwrap();
        if text.contains("bad") {
            return Err(Refusal::at(Code::UnknownField, "/bad", "no such field"));
        }
        if state
            .room
            .is_some_and(|room| state.taken.len() + state.staged.len() >= room)
        {
            return Err(Refusal::new(Code::DiskFull, "the disk is full"));
        }
        state.staged.push(text);
        Ok(())
    }

    fn dispatch(
        &mut self,
        session: SessionId,
        last_seq: u64,
        _: &[(u64, Code)],
    ) -> Result<BatchId, Busy> {
        let mut state = self.state.lock().unwrap();
        let staged = std::mem::take(&mut state.staged);
        state.taken.extend(staged);
        let name = state.names[&session].clone();
        state.last_seq.insert(name, last_seq);
        state.batches += 1;
        let batch = BatchId(state.batches);
        state.settled.push_back(Settled {
            session,
            batch,
            refusals: Vec::new(),
            retry: None,
        });
        Ok(batch)
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        self.state.lock().unwrap().settled.pop_front()
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        None
    }

    fn closed(&mut self, _: SessionId) {}
}

/// Rings the gate whenever a batch was dispatched, as shards do.
struct Ringing {
    node: Node,
    gate: net::gate::WakeGate,
}

impl Intake for Ringing {
    fn hello(&mut self, session: SessionId, producer: Option<&str>, key: Option<&str>) -> Greeting {
        self.node.hello(session, producer, key)
    }

    fn stage(
        &mut self,
        session: SessionId,
        producer: &Producer,
        seq: u64,
        event: &[u8],
    ) -> Result<(), Refusal> {
        self.node.stage(session, producer, seq, event)
    }

    fn dispatch(
        &mut self,
        session: SessionId,
        last_seq: u64,
        refused: &[(u64, Code)],
    ) -> Result<BatchId, Busy> {
        let batch = self.node.dispatch(session, last_seq, refused);
        self.gate.wake();
        batch
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        self.node.poll_settled()
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        None
    }

    fn closed(&mut self, _: SessionId) {}
}

/// A node, a folder with a file, and the command over both.
struct Bench {
    node: Node,
    addr: String,
    folder: tempfile::TempDir,
    stop: StopSignal,
    thread: Option<JoinHandle<()>>,
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    send: Arguments,
}

impl Bench {
    fn new() -> Bench {
        let node = Node::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let (gate, wake) = wake_gate().unwrap();
        let stop = StopSignal::new(gate.clone());
        let (intake, signal) = (node.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let server = Server {
                listener,
                intake: Ringing { node: intake, gate },
                subscriptions: None,
                wake,
                stop: signal,
                limits: Limits::default(),
                first_session: SessionId(1),
            };
            Driver::Tokio.run(server).unwrap();
        });
        Bench {
            node,
            addr,
            folder: tempfile::tempdir().unwrap(),
            stop,
            thread: Some(thread),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("events.ndjson")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("events.ndjson.syncline-send")
    }

    fn write(&self, text: &str) {
        fs::write(self.file(), text).unwrap();
    }

    fn arguments(&self, more: &[&str]) -> Arguments {
        let file = self.file();
        let mut words = vec!["send", "--to", &self.addr];
        words.extend_from_slice(more);
        words.push(file.to_str().unwrap());
        Cli::try_parse_from(words).unwrap().send
    }

    /// Runs the command; its outcome, exit status and standard error.
    fn send(&self, more: &[&str]) -> (Outcome, Exit, String) {
        let mut errors = Vec::new();
        let outcome = send(&self.arguments(more), None, &mut errors);
        let exit = outcome.exit();
        (outcome, exit, String::from_utf8(errors).unwrap())
    }

    fn taken(&self) -> Vec<String> {
        self.node.state.lock().unwrap().taken.clone()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

fn events(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|n| format!("{{\"n\":{n}}}")).collect()
}

#[test]
fn a_file_is_sent_in_order_and_its_state_is_gone() {
    let bench = Bench::new();
    bench.write(&events(1..=10_000).join("\n"));
    let (outcome, exit, errors) = bench.send(&[]);
    assert_eq!((exit, errors.as_str()), (Exit::Ok, ""));
    assert_eq!(
        (outcome.sent, outcome.settled, outcome.resumed),
        (10_000, 10_000, 0)
    );
    assert_eq!(bench.taken(), events(1..=10_000));
    assert!(!bench.state().exists());
}

#[test]
fn the_same_file_again_is_new_work() {
    let bench = Bench::new();
    bench.write("{\"n\":1}\n");
    for round in 1..=3 {
        let (outcome, exit, _) = bench.send(&[]);
        assert_eq!((exit, outcome.resumed), (Exit::Ok, 0));
        assert_eq!(bench.taken().len(), round);
    }
}

#[test]
fn refused_lines_are_listed_with_their_place_in_the_file() {
    let bench = Bench::new();
    let long = "x".repeat((1 << 20) + 1);
    bench.write(&format!(
        "{{\"n\":1}}\n\n{{\"bad\":2}}\n{long}\n{{\"n\":2}}\n"
    ));
    let (outcome, exit, errors) = bench.send(&[]);
    assert_eq!(exit, Exit::Data);
    assert_eq!(outcome.refused, 2);
    let mut lines: Vec<&str> = errors.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "line 3: unknown_field: no such field (/bad)",
            "line 4: too_large: an event may have 1 MiB"
        ]
    );
    assert_eq!(bench.taken(), events(1..=2));
    assert!(!bench.state().exists(), "the file is done");
}

#[test]
fn a_broken_run_goes_on_without_loss_or_duplicate_and_remembers_its_refusals() {
    let bench = Bench::new();
    let mut lines = events(1..=5_000);
    lines.insert(100, "{\"bad\":1}".to_owned());
    lines.insert(200, String::new());
    bench.write(&lines.join("\n"));
    for room in [0, 1_000, 1_001, 4_999] {
        bench.node.state.lock().unwrap().room = Some(room);
        let (outcome, exit, _) = bench.send(&["--give-up", "0"]);
        assert_eq!(exit, Exit::TryLater, "{outcome:?}");
        assert!(bench.state().exists());
        assert_eq!(bench.taken().len(), room);
    }
    bench.node.state.lock().unwrap().room = None;
    let (outcome, exit, _) = bench.send(&["--give-up", "0"]);
    assert_eq!(exit, Exit::Data, "a line was refused in the second run");
    assert_eq!(
        (outcome.resumed, outcome.settled, outcome.refused),
        (5_000, 1, 1)
    );
    assert_eq!(bench.taken(), events(1..=5_000));
    assert!(!bench.state().exists());
}

#[test]
fn a_run_that_was_killed_after_its_last_ack_only_tidies_up() {
    let bench = Bench::new();
    bench.write("{\"n\":1}\n{\"n\":2}\n");
    bench.send(&["--producer", "p"]);
    let state = "{\"version\":1,\"producer\":\"p\",\"base\":0,\"refused\":0}";
    fs::write(bench.state(), state).unwrap();
    let (outcome, exit, _) = bench.send(&[]);
    assert_eq!((exit, outcome.resumed, outcome.sent), (Exit::Ok, 2, 0));
    assert_eq!(bench.taken(), events(1..=2));
    assert!(!bench.state().exists());
}

#[test]
fn a_state_that_does_not_fit_sends_nothing_and_is_kept() {
    let bench = Bench::new();
    bench.write("{\"n\":1}\n");
    bench.send(&["--producer", "p"]);
    for (base, more, exit) in [
        (5, &[][..], Exit::Data),                   // the node is behind the state
        (0, &["--producer", "q"][..], Exit::Usage), // another name
    ] {
        let state = format!("{{\"version\":1,\"producer\":\"p\",\"base\":{base}}}");
        fs::write(bench.state(), &state).unwrap();
        let (outcome, found, _) = bench.send(more);
        assert_eq!(found, exit, "{outcome:?}");
        assert_eq!(fs::read_to_string(bench.state()).unwrap(), state);
    }
    // The node is beyond the file's end.
    bench.write("\n");
    fs::write(
        bench.state(),
        "{\"version\":1,\"producer\":\"p\",\"base\":0}",
    )
    .unwrap();
    let (outcome, exit, _) = bench.send(&[]);
    assert_eq!(exit, Exit::Data);
    assert!(matches!(
        outcome.failure,
        Some(SendError::TooFar { extra: 1, .. })
    ));
    assert_eq!(bench.taken().len(), 1);
}

#[test]
fn failures_have_their_exit_statuses() {
    let bench = Bench::new();
    let (_, exit, _) = bench.send(&[]);
    assert_eq!(exit, Exit::Io, "there is no file");
    bench.write("{\"n\":1}\n");
    bench.node.state.lock().unwrap().key = Some("k".into());
    let (_, exit, _) = bench.send(&[]);
    assert_eq!(exit, Exit::NoPermission);
    let mut errors = Vec::new();
    let outcome = send(&bench.arguments(&[]), Some("k".into()), &mut errors);
    assert_eq!(outcome.exit(), Exit::Ok);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let nobody = Arguments {
        to: closed.unwrap().to_string(),
        ..bench.arguments(&["--give-up", "0"])
    };
    let outcome = send(&nobody, None, &mut Vec::new());
    assert_eq!(outcome.exit(), Exit::TryLater, "{outcome:?}");
}

#[test]
fn the_default_name_is_stable_per_file_and_short() {
    let bench = Bench::new();
    bench.write("");
    let name = |arguments: &Arguments| producer(arguments, false, None).unwrap();
    let (first, again) = (name(&bench.arguments(&[])), name(&bench.arguments(&[])));
    assert_eq!(first, again);
    assert!(first.starts_with("send:") && first.len() <= 128, "{first}");
    fs::write(bench.folder.path().join("other"), "").unwrap();
    let mut other = bench.arguments(&[]);
    other.file = bench.folder.path().join("other");
    assert_ne!(name(&other), first);
}

#[test]
fn the_summary_is_one_line_of_json() {
    let bench = Bench::new();
    bench.write("{\"n\":1}\n{\"bad\":1}\n");
    let arguments = bench.arguments(&["--json", "--producer", "p"]);
    let outcome = send(&arguments, None, &mut Vec::new());
    let mut out = Vec::new();
    tell(&arguments, &outcome, &mut out, &mut Vec::new()).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(summary["producer"], "p");
    assert_eq!(
        (summary["settled"].as_u64(), summary["refused"].as_u64()),
        (Some(2), Some(1))
    );
    assert!(summary["error"].is_null());
}
