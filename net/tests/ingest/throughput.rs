//! What the session layer carries on one core, without sockets and without an engine. Ignored by
//! default: `cargo test --release -p syncline-net --test ingest throughput -- --ignored --nocapture`.

use std::time::Instant;

use syncline_net::ingest::frame::{EventsBuilder, Kind, write_frame};
use syncline_net::ingest::{
    BatchId, Busy, Code, Greeting, Intake, Producer, Refusal, Session, SessionId, SessionLimits,
    Settled, Welcome,
};

/// Takes everything at no cost.
#[derive(Default)]
struct Sink {
    events: u64,
    bytes: u64,
    batches: u64,
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

    fn dispatch(&mut self, _: SessionId, _: u64, _: &[(u64, Code)]) -> Result<BatchId, Busy> {
        self.batches += 1;
        Ok(BatchId(self.batches))
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        None
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        None
    }

    fn closed(&mut self, _: SessionId) {}
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
    let mut settled = 0;
    while sink.events < EVENTS {
        let stream = next(sink.events + 1);
        let begun = Instant::now();
        for read in stream.chunks(READ_BYTES) {
            assert!(session.wants_read());
            session.handle_bytes(&mut sink, read);
            for batch in settled + 1..=sink.batches {
                session.handle_settled(Settled {
                    session: SessionId(1),
                    batch: BatchId(batch),
                    refusals: Vec::new(),
                    retry: None,
                });
            }
            settled = sink.batches;
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

#[test]
#[ignore = "a measurement"]
fn lines() {
    let stream = format!("{}\n", event()).repeat(10_000).into_bytes();
    run("lines", b"\n", |_| stream.clone());
}

#[test]
#[ignore = "a measurement"]
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

#[test]
#[ignore = "a measurement"]
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
