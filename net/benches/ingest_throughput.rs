//! What the session layer carries on one core, without an engine; then with a driver and a client
//! over loopback. A measurement, not a test: `cargo bench -p syncline-net --bench ingest_throughput`.

#![allow(clippy::unwrap_used, reason = "a measurement fails by panicking")]

use std::collections::VecDeque;
use std::net::TcpListener;
use std::time::Instant;

use syncline_net::client::{Client, Encoding, Options};
use syncline_net::gate::{WakeGate, wake_gate};
use syncline_net::ingest::frame::{EventsBuilder, Kind, write_frame};
use syncline_net::ingest::{
    BatchId, Busy, Code, Driver, Greeting, Intake, Limits, Producer, Refusal, Server, Session,
    SessionId, SessionLimits, Settled, StopSignal, Welcome,
};

/// Takes everything at no cost, and settles it at once where there is a gate.
#[derive(Default)]
struct Sink {
    events: u64,
    bytes: u64,
    batches: u64,
    settled: VecDeque<Settled>,
    gate: Option<WakeGate>,
}

impl Intake for Sink {
    fn hello(&mut self, _: SessionId, _: Option<&str>, _: Option<&str>) -> Greeting {
        Greeting::Welcome(Welcome::default())
    }

    fn stage(&mut self, _: SessionId, _: &Producer, _: u64, event: &[u8]) -> Result<(), Refusal> {
        self.events += 1;
        self.bytes += event.len() as u64;
        Ok(())
    }

    fn dispatch(&mut self, session: SessionId, _: u64, _: &[(u64, Code)]) -> Result<BatchId, Busy> {
        self.batches += 1;
        let batch = BatchId(self.batches);
        if let Some(gate) = &self.gate {
            self.settled.push_back(settled(session, batch));
            gate.wake();
        }
        Ok(batch)
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        self.settled.pop_front()
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        None
    }

    fn closed(&mut self, _: SessionId) {}
}

fn settled(session: SessionId, batch: BatchId) -> Settled {
    Settled {
        session,
        batch,
        refusals: Vec::new(),
        retry: None,
    }
}

const READ_BYTES: usize = 256 << 10;
const EVENTS: u64 = 2_000_000;

fn event() -> String {
    let head = "{\"operation\":\"UPDATE\",\"object\":\"contact\",\"record_id\":\"c-42\",\"data\":{\"note\":\"";
    let tail = "\"}}";
    format!("{head}{}{tail}", "x".repeat(400 - head.len() - tail.len()))
}

/// Feeds `stream` again and again, cut like reads of a socket, and settles at once.
fn run(name: &str, hello: &[u8], mut next: impl FnMut(u64) -> Vec<u8>) {
    let mut sink = Sink::default();
    let mut session = Session::new(SessionId(1), SessionLimits::default());
    session.handle_bytes(&mut sink, hello);
    let mut out = Vec::new();
    let mut spent = std::time::Duration::ZERO;
    let mut done = 0;
    while sink.events < EVENTS {
        let stream = next(sink.events + 1);
        let begun = Instant::now();
        for read in stream.chunks(READ_BYTES) {
            assert!(session.wants_read());
            session.handle_bytes(&mut sink, read);
            for batch in done + 1..=sink.batches {
                session.handle_settled(settled(SessionId(1), BatchId(batch)));
            }
            done = sink.batches;
            if session.take_output(&mut out) {
                session.handle_written();
            }
        }
        spent += begun.elapsed();
    }
    assert!(session.is_open());
    let rate = sink.events as f64 / spent.as_secs_f64();
    println!(
        "{name}: {:.2} M events/s of {} B, {:.2} GB/s",
        rate / 1e6,
        sink.bytes / sink.events,
        sink.bytes as f64 / spent.as_secs_f64() / 1e9
    );
}

fn lines() {
    let stream = format!("{}\n", event()).repeat(10_000).into_bytes();
    run("lines", b"\n", |_| stream.clone());
}

fn lines_that_name_their_number() {
    run("lines with seq", b"\n", |first| {
        let event = event();
        let mut stream = String::new();
        for seq in first..first + 10_000 {
            stream.push_str(event.strip_suffix('}').unwrap());
            stream.push_str(&format!(",\"seq\":{seq}}}\n"));
        }
        stream.into_bytes()
    });
}

fn frames() {
    let mut hello = Vec::new();
    write_frame(&mut hello, Kind::Hello, 0, 0, |p| {
        p.extend_from_slice(b"{}")
    });
    run("frames", &hello, |first| {
        let event = event();
        let (mut stream, mut builder, mut seq) = (Vec::new(), EventsBuilder::default(), first);
        for _ in 0..10_000 {
            if builder.frame_bytes() > 64 << 10 {
                let count = u64::from(builder.count());
                builder.finish(seq, &mut stream);
                seq += count;
            }
            assert!(builder.try_push(event.as_bytes()));
        }
        builder.finish(seq, &mut stream);
        stream
    });
}

fn over_loopback() {
    for driver in Driver::ALL {
        for encoding in [Encoding::Frames, Encoding::Lines] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let addr = listener.local_addr().unwrap().to_string();
            let (gate, wake) = wake_gate().unwrap();
            let stop = StopSignal::new(gate.clone());
            let signal = stop.clone();
            let thread = std::thread::spawn(move || {
                let server = Server {
                    listener,
                    intake: Sink {
                        gate: Some(gate),
                        ..Sink::default()
                    },
                    subscriptions: None,
                    wake,
                    stop: signal,
                    limits: Limits::default(),
                    first_session: SessionId(1),
                };
                driver.run(server).unwrap();
            });
            let mut client = Client::connect(Options {
                encoding,
                ..Options::new(addr, "load")
            })
            .unwrap();
            let event = event();
            let begun = Instant::now();
            for _ in 0..EVENTS {
                client.send(event.as_bytes()).unwrap();
                while client.next_notice().is_some() {}
            }
            client.flush().unwrap();
            let rate = EVENTS as f64 / begun.elapsed().as_secs_f64();
            println!(
                "{} {encoding:?}: {:.2} M events/s",
                driver.as_str(),
                rate / 1e6
            );
            drop(client);
            stop.stop();
            thread.join().unwrap();
        }
    }
}

fn main() {
    lines();
    lines_that_name_their_number();
    frames();
    over_loopback();
}
