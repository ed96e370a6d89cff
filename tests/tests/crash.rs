//! kill -9 at random instants while events stream: what was acknowledged is kept, in order, once.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use net::client::{Client, ClientError, Encoding, Notice, Options};
use serde_json::{Value, json};
use syncline_tests::process::{Config, Dice, Model, Node, PATIENCE, Provider, Violations, wait};

/// Cycles of the suite; a longer run sets `SYNCLINE_KILL_CYCLES`.
const CYCLES: u64 = 8;
const PRODUCERS: u64 = 2;
/// Records of one producer.
const RECORDS: u64 = 48;
/// Events a producer adds in one cycle at most, so that a backlog stays one.
const EVENTS_PER_CYCLE: u64 = 120;
/// Longest time from a start to the next kill.
const KILL_WITHIN_MS: u64 = 700;
/// Each event also sets one of this many fields, so that an event that is missing shows under
/// later ones.
const TRACES: u64 = 7;

#[test]
fn nothing_acknowledged_is_lost_or_reordered_or_created_twice_by_kills() {
    let cycles = number("SYNCLINE_KILL_CYCLES").unwrap_or(CYCLES);
    let seed = number("SYNCLINE_KILL_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("SYNCLINE_KILL_SEED={seed} SYNCLINE_KILL_CYCLES={cycles}");
    let faults =
        "5xx=0.03,5xx_after=0.02,reset_before=0.02,reset_after=0.03,latency=2ms,jitter=6ms";
    let provider_seed = seed.to_string();
    let provider = Provider::start(&[
        "--limit",
        "400/1s",
        "--fault",
        faults,
        "--seed",
        &provider_seed,
    ]);
    let limits = "[[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = 400\nwindow = \"1s\"\n";
    let config = Config::new()
        .shards(2)
        .with("[wal]\nsegment_bytes = \"2MiB\"")
        .account("crm", &provider.url(), limits);
    let mut node = Node::start(config);
    let whereabouts = Whereabouts::new(node.tcp());
    let mut dice = Dice::seeded(seed);
    let mut submitted = Submitted::default();

    let streams: Vec<Stream> = (0..PRODUCERS)
        .map(|number| Stream { seed, number })
        .collect();
    let sent: Vec<u64> = thread::scope(|scope| {
        let producers: Vec<_> = streams
            .iter()
            .map(|stream| scope.spawn(|| stream.run(&whereabouts)))
            .collect();
        for cycle in 0..cycles {
            submitted.submit(&node, cycle);
            wait(Duration::from_millis(dice.below(KILL_WITHIN_MS)));
            whereabouts.gone();
            node.kill();
            if dice.below(4) == 0 {
                // And again while it recovers.
                let recovering = node.launch();
                wait(Duration::from_millis(dice.below(60)));
                drop(recovering);
            }
            node.restart();
            submitted.check(&node);
            whereabouts.here(node.tcp());
        }
        whereabouts.stop();
        producers
            .into_iter()
            .map(|producer| producer.join().expect("a producer holds its promise"))
            .collect()
    });

    let dead = node.drain();
    assert!(
        dead.is_empty(),
        "{} dead letters, first {}",
        dead.len(),
        dead[0]
    );
    let mut model = Model::default();
    for (stream, sent) in streams.iter().zip(&sent) {
        assert!(*sent > 0, "the stream moved");
        (1..=*sent).for_each(|seq| model.apply(&stream.event(seq)));
    }
    submitted
        .events
        .iter()
        .for_each(|(event, _)| model.apply(event));
    submitted.check(&node);
    let calls = provider.journal();
    let mut newest: HashMap<&str, u64> = HashMap::new();
    for call in calls.iter().filter(|call| call.is_write()) {
        // A DELETE has no body, and no number.
        let Some(n) = call.body["n"].as_u64() else {
            continue;
        };
        let before = newest.entry(&call.record).or_default();
        assert!(
            *before <= n,
            "{}: {n} was written after {before}",
            call.record
        );
        *before = n;
    }
    model.assert_equals(&provider.records());
    assert_eq!(provider.violations(), Violations::default());
    println!(
        "{cycles} kills, {} events acknowledged, {} calls, {} of them look-ups, {} records equal, 0 lost, {:?}",
        sent.iter().sum::<u64>() + submitted.events.len() as u64,
        calls.len(),
        calls.iter().filter(|call| !call.is_write()).count(),
        model.len(),
        provider.violations()
    );
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

/// A producer's events, each a function of its number: what was not acknowledged is made again.
struct Stream {
    seed: u64,
    number: u64,
}

impl Stream {
    /// The event of that number. A record's events come in rounds over all records: it is created,
    /// changed, for some records deleted, and so on.
    fn event(&self, seq: u64) -> Value {
        let round = (seq - 1) / RECORDS;
        let record = (seq - 1) % RECORDS;
        let data = json!({ "n": seq, "name": format!("r{record}"), format!("trace{}", round % TRACES): seq });
        let operation = match (round, record % 4) {
            (0, _) => "CREATE",
            // Every sixth event of these is a DELETE, and the next a CREATE.
            (_, 0) if round % 6 == 4 => "DELETE",
            (_, 0) if round % 6 == 5 => "CREATE",
            _ => ["UPDATE", "UPSERT"][usize::try_from((round + record) % 2).expect("below 2")],
        };
        let mut event = json!({
            "operation": operation,
            "object": "contact",
            "record_id": format!("p{}-{record}", self.number),
        });
        if operation != "DELETE" {
            event["data"] = data;
        }
        event
    }

    /// Streams through kills until it is told to stop, then until all is acknowledged. How many
    /// events were.
    fn run(&self, whereabouts: &Whereabouts) -> u64 {
        let mut acked = 0;
        let mut given = 0;
        let mut dice = Dice::seeded(self.seed ^ self.number);
        let mut seen = 0;
        loop {
            let (at, place) = whereabouts.wait(seen);
            seen = place.run;
            let goal = if place.is_last {
                given
            } else {
                given + 1 + dice.below(EVENTS_PER_CYCLE)
            };
            match self.talk(at, goal, &mut acked, &mut given, &mut dice) {
                Ok(()) if place.is_last => return acked,
                // What is left of the cycle it only listens for its end.
                Ok(()) | Err(ClientError::GaveUp { .. }) => {}
                Err(error) => panic!("producer {}: {error}", self.number),
            }
        }
    }

    /// One connection: goes on where the node says it is, up to event number `goal`.
    fn talk(
        &self,
        at: SocketAddr,
        goal: u64,
        acked: &mut u64,
        given: &mut u64,
        dice: &mut Dice,
    ) -> Result<(), ClientError> {
        let encoding = if dice.below(2) == 0 {
            Encoding::Lines
        } else {
            Encoding::Frames
        };
        let mut client = Client::connect(Options {
            encoding,
            // The node may just have been killed.
            retry: Box::new(|failure| (failure.count < 3).then_some(Duration::from_millis(1))),
            ..Options::new(at.to_string(), format!("producer-{}", self.number))
        })?;
        let last = client.last_seq();
        assert!(
            last >= *acked,
            "producer {}: {acked} were acknowledged, the node knows {last}",
            self.number
        );
        assert!(
            last <= *given,
            "producer {}: {given} were sent, the node knows {last}",
            self.number
        );
        *acked = last;
        for seq in last + 1..=goal {
            // Before it is sent: the node may know it even when this side breaks.
            *given = seq.max(*given);
            let text = self.event(seq).to_string();
            assert_eq!(client.send(text.as_bytes())?, seq);
            if dice.below(8) == 0 {
                client.push()?;
            }
            while let Some(notice) = client.next_notice() {
                self.note(notice, acked);
            }
        }
        while client.unacked() > 0 {
            if let Some(notice) = client.wait_notice(PATIENCE)? {
                self.note(notice, acked);
            }
        }
        while let Some(notice) = client.next_notice() {
            self.note(notice, acked);
        }
        Ok(())
    }

    fn note(&self, notice: Notice, acked: &mut u64) {
        match notice {
            Notice::Ack(seq) => *acked = seq.max(*acked),
            Notice::Reject(reject) => panic!("producer {}: {reject:?}", self.number),
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "producer-{} of seed {}", self.number, self.seed)
    }
}

/// Where the node is now; producers wait here while it is down.
struct Whereabouts {
    place: Mutex<Place>,
    changed: Condvar,
}

#[derive(Clone, Copy)]
struct Place {
    /// `None` while it is down.
    at: Option<SocketAddr>,
    /// Counts the node's runs.
    run: u64,
    /// No kill will end this run.
    is_last: bool,
}

impl Whereabouts {
    fn new(at: SocketAddr) -> Whereabouts {
        let place = Place {
            at: Some(at),
            run: 1,
            is_last: false,
        };
        Whereabouts {
            place: Mutex::new(place),
            changed: Condvar::new(),
        }
    }

    fn gone(&self) {
        self.lock().at = None;
    }

    fn here(&self, at: SocketAddr) {
        let mut place = self.lock();
        place.at = Some(at);
        place.run += 1;
        self.changed.notify_all();
    }

    fn stop(&self) {
        let mut place = self.lock();
        place.is_last = true;
        place.run += 1;
        self.changed.notify_all();
    }

    /// Waits for a run after that of number `seen`.
    fn wait(&self, seen: u64) -> (SocketAddr, Place) {
        let down = |place: &mut Place| place.at.is_none() || place.run == seen;
        let (place, waited) = self
            .changed
            .wait_timeout_while(self.lock(), PATIENCE, down)
            .expect("nobody panics with the lock");
        assert!(!waited.timed_out(), "the node does not come back");
        (place.at.expect("waited for"), *place)
    }

    fn lock(&self) -> MutexGuard<'_, Place> {
        self.place.lock().expect("nobody panics with the lock")
    }
}

/// Events by HTTP, whose operations can be asked for by their id.
#[derive(Default)]
struct Submitted {
    events: Vec<(Value, String)>,
}

impl Submitted {
    fn submit(&mut self, node: &Node, cycle: u64) {
        let event = json!({
            "operation": "CREATE", "object": "account", "record_id": format!("h-{cycle}"),
            "event_id": format!("event-{cycle}"), "data": { "n": 1, "cycle": cycle },
        });
        let answer = node.post("/v1/sync", event.to_string());
        assert_eq!(answer.status, 202, "{}", answer.json());
        let id = answer.json()["operation_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        self.events.push((event, id));
    }

    /// The latest are still known, and the same event again is the same operation.
    fn check(&self, node: &Node) {
        for (event, id) in self.events.iter().rev().take(4) {
            let known = node.get(&format!("/v1/operations/{id}"));
            assert_eq!(known.status, 200, "{id} was acknowledged: {}", known.json());
            assert_eq!(known.json()["record_id"], event["record_id"]);
            let again = node.post("/v1/sync", event.to_string()).json();
            assert_eq!(
                (&again["operation_id"], &again["duplicate"]),
                (&json!(id), &json!(true)),
                "{again}"
            );
        }
    }
}
