//! Nanoseconds to parse and to encode a 400-byte event on one core:
//! `cargo run --release -p syncline-engine --example parse_rate`.
#![expect(
    clippy::disallowed_methods,
    reason = "a stopwatch around the pure core, not inside it"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use syncline_engine::event::codec::{AcceptedEvent, Dedup, ProducerPosition, decode};
use syncline_engine::event::{self, Defaults, Event, Surface, Target, TargetAction, Targets};
use syncline_engine::json::Scratch;

const LINE: &[u8] = br#"{"operation":"UPDATE","provider":"salesforce","object":"contact","record_id":"c-42-0001934","event_id":"01J9ZK3V8Q6T4W2X0Y1A5B7C9D","changed_at":"2026-11-20T10:00:00.123Z","priority":5,"seq":1934,"data":{"first_name":"Ada","last_name":"Lovelace","email":"ada.lovelace@example.com","status":"active","city":"London","score":97.25,"visits":1842,"newsletter":true,"tags":["vip","press"],"note":null,"owner":"u-17"}}"#;

const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: usize = 5;

fn main() {
    let mut scratch = Scratch::new();
    let defaults = Defaults::default();
    let parsed = |scratch: &mut Scratch| {
        event::parse(black_box(LINE), scratch, &defaults, Surface::Stream).expect("a valid line")
    };
    println!("{} bytes", LINE.len());

    let mut scratch_only = Scratch::new();
    report("validate", || {
        black_box(scratch_only.validate(black_box(LINE), LINE.len())).expect("a valid line");
    });
    report("parse", || {
        black_box(parsed(&mut scratch));
    });
    let event = parsed(&mut scratch);
    report("body hash", || {
        black_box(black_box(&event).body_hash());
    });
    let accepted = accept(event);
    let mut out = Vec::new();
    report("encode", || {
        out.clear();
        black_box(&accepted).encode_into(&mut out);
    });
    report("decode", || {
        black_box(decode(black_box(&out))).expect("just encoded");
    });
    let mut out = Vec::new();
    report("parse + encode", || {
        out.clear();
        accept(parsed(&mut scratch)).encode_into(&mut out);
        black_box(&out);
    });
}

fn accept(event: Event<'_>) -> AcceptedEvent<'_> {
    AcceptedEvent {
        event,
        operation_seq: 0,
        record_hash: 1,
        accepted_at_ms: 2,
        producer: Some(ProducerPosition {
            producer_hash: 3,
            seq: 4,
            acked_base: 3,
        }),
        dedup: Some(Dedup {
            scope: 5,
            body_hash: 6,
        }),
        targets: Targets::from_iter([Target {
            name: "salesforce",
            action: TargetAction::Sync,
            rule: 0,
        }]),
        rules_version: 1,
        mapping_version: 1,
    }
}

/// Best and median of a few rounds: the best is the code, the spread is the machine.
fn report(what: &str, mut step: impl FnMut()) {
    let mut nanos: Vec<f64> = (0..ROUNDS).map(|_| round(&mut step)).collect();
    nanos.sort_by(f64::total_cmp);
    println!(
        "{what:>16}: best {:6.0} ns, median {:6.0} ns",
        nanos[0],
        nanos[ROUNDS / 2]
    );
}

fn round(step: &mut impl FnMut()) -> f64 {
    let (start, mut steps) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        for _ in 0..1_000 {
            step();
        }
        steps += 1_000;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(steps)
}
