//! The accepted event survives the log byte by byte, and no bytes make the decoder panic.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use std::borrow::Cow;

use proptest::prelude::*;
use syncline_engine::event::codec::{
    AcceptedEvent, Damaged, Dedup, OPERATION_SEQ_AT, ProducerPosition, decode, patch_operation_seq,
};
use syncline_engine::event::{
    self, Defaults, Event, Extra, Operation, Priority, Surface, Target, TargetAction, Targets,
};
use syncline_engine::json::{RawObject, RawValue, Scratch};

fn parsed(text: &str) -> Event<'_> {
    let defaults = Defaults::default();
    event::parse(
        text.as_bytes(),
        &mut Scratch::new(),
        &defaults,
        Surface::Stream,
    )
    .unwrap()
}

fn smallest() -> AcceptedEvent<'static> {
    AcceptedEvent {
        event: parsed(r#"{"op":"DELETE","object":"contact","record_id":"c-1"}"#),
        operation_seq: 0,
        record_hash: 0x1122_3344_5566_7788,
        accepted_at_ms: 1_795_168_800_123,
        producer: None,
        dedup: None,
        targets: Targets::default(),
        rules_version: 7,
        mapping_version: 8,
    }
}

fn fullest() -> AcceptedEvent<'static> {
    AcceptedEvent {
        event: parsed(
            r#"{"op":"UPDATE","provider":"sf","object":"o","record_id":"r","remote_id":"m","data":{"a":1},"before":{},"event_id":"e","changed_at":1,"priority":3,"scheduled_at":2,"schema_version":"v","tenant":"t","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","correlation_id":"c","x_a":[1]}"#,
        ),
        operation_seq: 5,
        record_hash: 6,
        accepted_at_ms: -1,
        producer: Some(ProducerPosition {
            producer_hash: 10,
            seq: 11,
            acked_base: 12,
        }),
        dedup: Some(Dedup {
            scope: 13,
            body_hash: 14,
        }),
        targets: Targets::from_iter([
            Target {
                name: "sf",
                action: TargetAction::Instead(Operation::Upsert),
                rule: 258,
            },
            Target {
                name: "hub",
                action: TargetAction::Skip,
                rule: 1,
            },
        ]),
        rules_version: 1,
        mapping_version: 2,
    }
}

fn encoded(event: &AcceptedEvent<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    event.encode_into(&mut out);
    out
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

#[test]
fn the_smallest_event_has_these_bytes() {
    let expected = concat!(
        "01050500",         // version, DELETE, priority, no target
        "00000000",         // nothing optional, no extra
        "0000000000000000", // operation_seq, to be patched
        "8877665544332211", // record_hash
        "7b0d66f8a1010000", // accepted_at_ms
        "0700000008000000", // rules and mapping versions
        "07000300",         // lengths of object and record id
        "636f6e74616374",   // contact
        "632d31",           // c-1
    );
    assert_eq!(hex(&encoded(&smallest())), expected);
}

#[test]
fn the_fullest_event_has_these_bytes() {
    let expected = concat!(
        "01030302",         // version, UPDATE, priority, two targets
        "ff1f0100",         // everything, one extra
        "0500000000000000", // operation_seq
        "0600000000000000", // record_hash
        "ffffffffffffffff", // accepted_at_ms
        "0100000002000000", // rules and mapping versions
        "01000100",         // lengths of object and record id
        "0a000000000000000b000000000000000c00000000000000", // producer, seq, acked base
        "0d000000000000000e00000000000000", // scope, body hash
        "0100000000000000", // changed_at
        "0200000000000000", // scheduled_at
        "0200010001000100010037000100", // lengths of the optional texts
        "0700000002000000", // lengths of data and before
        "030003000000",     // lengths of x_a and its value
        "040002010200",     // UPSERT instead by rule 258, "sf"
        "ff0001000300",     // skipped by rule 1, "hub"
        "6f",               // o
        "72",               // r
        "7366",             // sf
        "6d",               // m
        "65",               // e
        "76",               // v
        "74",               // t
        "30302d34626639326633353737623334646136613363653932396430653065343733362d", // traceparent
        "303066303637616130626139303262372d3031",
        "63",             // c
        "7b2261223a317d", // {"a":1}
        "7b7d",           // {}
        "785f615b315d",   // x_a, [1]
        "7366687562",     // sf, hub
    );
    assert_eq!(hex(&encoded(&fullest())), expected);
}

#[test]
fn golden_events_read_back() {
    for event in [smallest(), fullest()] {
        let bytes = encoded(&event);
        assert_eq!(decode(&bytes), Ok(event));
    }
}

#[test]
fn the_operation_number_is_patched_in_place() {
    let mut bytes = encoded(&smallest());
    patch_operation_seq(&mut bytes, 0x0102_0304_0506_0708);
    assert_eq!(
        bytes[OPERATION_SEQ_AT..OPERATION_SEQ_AT + 8],
        [8, 7, 6, 5, 4, 3, 2, 1]
    );
    assert_eq!(decode(&bytes).unwrap().operation_seq, 0x0102_0304_0506_0708);
}

#[test]
fn every_cut_is_noticed() {
    let bytes = encoded(&fullest());
    for end in 0..bytes.len() {
        assert_eq!(decode(&bytes[..end]), Err(Damaged::Short), "cut at {end}");
    }
    let longer = [bytes.as_slice(), b" "].concat();
    assert_eq!(
        decode(&longer),
        Err(Damaged::Invalid("bytes after the end"))
    );
}

#[test]
fn what_cannot_be_is_refused() {
    for (at, byte, damage) in [
        (0, 2, Damaged::Newer(2)),
        (0, 255, Damaged::Newer(255)),
        (0, 0, Damaged::Invalid("version 0")),
        (1, 0, Damaged::Invalid("operation")),
        (1, 7, Damaged::Invalid("operation")),
        (2, 0, Damaged::Invalid("priority")),
        (2, 11, Damaged::Invalid("priority")),
        (5, 0x3f, Damaged::Invalid("presence bits")),
    ] {
        let mut bytes = encoded(&fullest());
        bytes[at] = byte;
        assert_eq!(decode(&bytes), Err(damage), "byte {at} is {byte}");
    }
    let mut bytes = encoded(&smallest());
    *bytes.last_mut().unwrap() = 0xff;
    assert_eq!(decode(&bytes), Err(Damaged::Invalid("not UTF-8")));
}

#[test]
fn an_object_that_lost_its_brace_to_a_space_is_refused() {
    // Found by changing any byte: trimming made the damaged object read as a shorter one.
    let mut bytes = encoded(&fullest());
    let data = bytes
        .windows(7)
        .position(|window| window == br#"{"a":1}"#)
        .unwrap();
    bytes[data + 6] = b' ';
    assert_eq!(decode(&bytes), Err(Damaged::Invalid("data is no object")));
}

#[test]
fn an_encoded_event_is_little_longer_than_its_line() {
    let line = r#"{"operation":"UPDATE","object":"contact","record_id":"c-42","data":{"email":"ada@example.com"},"seq":123456}"#;
    let mut event = smallest();
    event.event = parsed(line);
    event.producer = fullest().producer;
    event.targets = fullest().targets.iter().take(1).collect();
    let bytes = encoded(&event).len();
    assert!(bytes <= line.len() + 50, "{bytes} bytes for {}", line.len());
}

fn any_text() -> impl Strategy<Value = Option<Cow<'static, str>>> {
    prop::option::of("[a-zé😀]{1,20}".prop_map(Cow::Owned))
}

fn any_object() -> impl Strategy<Value = Option<RawObject<'static>>> {
    const OBJECTS: &[&str] = &["{}", r#"{"a":1}"#, r#"{"long":"é😀",  "n":[1.50]}"#];
    prop::option::of(prop::sample::select(OBJECTS).prop_map(|o| RawObject::new(o).unwrap()))
}

prop_compose! {
    fn any_event()(
        operation in prop::sample::select(&Operation::ALL[..]),
        priority in 1..=10_u8,
        texts in [any_text(), any_text(), any_text(), any_text()],
        more in [any_text(), any_text(), any_text()],
        names in ("[a-z]{1,9}", ".{1,99}"),
        objects in [any_object(), any_object()],
        instants in [any::<Option<i64>>(), any::<Option<i64>>()],
        numbers in any::<[u64; 8]>(),
        versions in any::<[u32; 2]>(),
        named in any::<[bool; 2]>(),
        extras in prop::collection::vec(("x_[a-zé]{0,9}", any_object()), 0..3),
        targets in prop::collection::vec((prop::sample::select(&["sf", "hubspot", "é"][..]), 0..4_u8, any::<u16>()), 0..5),
    ) -> AcceptedEvent<'static> {
        let [provider, remote_id, event_id, schema_version] = texts;
        let [tenant, traceparent, correlation_id] = more;
        let [producer_hash, seq, acked_base, scope, body_hash, operation_seq, record_hash, at] =
            numbers;
        AcceptedEvent {
            event: Event {
                operation,
                provider,
                object: Cow::Owned(names.0),
                record_id: Some(Cow::Owned(names.1)),
                remote_id,
                data: objects[0],
                before: objects[1],
                event_id,
                changed_at_ms: instants[0],
                priority: Priority::new(priority).unwrap(),
                scheduled_at_ms: instants[1],
                schema_version,
                tenant,
                traceparent,
                correlation_id,
                seq: None,
                extras: extras
                    .into_iter()
                    .map(|(name, value)| Extra {
                        name: Cow::Owned(name),
                        value: RawValue::new(value.map_or("null", RawObject::text)),
                    })
                    .collect(),
            },
            operation_seq,
            record_hash,
            accepted_at_ms: at.cast_signed(),
            producer: named[0].then_some(ProducerPosition { producer_hash, seq, acked_base }),
            dedup: named[1].then_some(Dedup { scope, body_hash }),
            targets: targets
                .into_iter()
                .map(|(name, action, rule)| Target {
                    name,
                    action: match action {
                        0 => TargetAction::Sync,
                        1 => TargetAction::Skip,
                        2 => TargetAction::Instead(Operation::Create),
                        _ => TargetAction::Instead(Operation::Delete),
                    },
                    rule,
                })
                .collect(),
            rules_version: versions[0],
            mapping_version: versions[1],
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_event_reads_back(event in any_event()) {
        let bytes = encoded(&event);
        prop_assert_eq!(decode(&bytes), Ok(event));
    }

    #[test]
    fn any_changed_byte_is_read_or_refused(
        event in any_event(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encoded(&event);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(read) = decode(&bytes) {
            prop_assert_eq!(encoded(&read).len(), bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(version) = bytes.first_mut() {
            *version = 1;
        }
        let _read = decode(&bytes);
    }
}
