//! The bytes of version 1, as `docs/design/ingest-protocol.md` prints them. They were made by an
//! independent program and may not change.

use syncline_net::ingest::frame::{EventsBuilder, FrameReader, Kind, write_frame};

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |b: u8| (b as char).to_digit(16).unwrap() as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn check(hex: &str, kind: Kind, seq: u64, payload: &str) {
    let mut written = Vec::new();
    write_frame(&mut written, kind, seq, 0, |p| {
        p.extend_from_slice(payload.as_bytes())
    });
    assert_eq!(written, bytes(hex), "{kind:?}");
    let mut reader = FrameReader::default();
    let frame = reader.next(&mut &written[..]).unwrap().unwrap();
    assert_eq!((frame.kind, frame.seq, frame.count), (kind, seq, 0));
    assert_eq!(frame.payload(), payload.as_bytes());
}

#[test]
fn hello() {
    check(
        "f501010016000000000000000000000000000000d3f8fff87b2270726f6475636572223a2262696c6c696e67227d",
        Kind::Hello,
        0,
        "{\"producer\":\"billing\"}",
    );
}

#[test]
fn welcome() {
    check(
        "f5010200350000002900000000000000000000009ba9f6657b2270726f6475636572223a2262696c6c696e67222c226c6173745f736571223a34312c22637265646974223a383338383630387d",
        Kind::Welcome,
        41,
        "{\"producer\":\"billing\",\"last_seq\":41,\"credit\":8388608}",
    );
}

#[test]
fn events() {
    let golden =
        bytes("f5010300110000002a00000000000000020000004c26bfd4070000007b2261223a317d020000007b7d");
    let mut builder = EventsBuilder::default();
    assert!(builder.try_push(b"{\"a\":1}") && builder.try_push(b"{}"));
    let mut written = Vec::new();
    builder.finish(42, &mut written);
    assert_eq!(written, golden);
    let mut reader = FrameReader::default();
    let frame = reader.next(&mut &golden[..]).unwrap().unwrap();
    assert_eq!((frame.kind, frame.seq, frame.count), (Kind::Events, 42, 2));
    let events: Vec<_> = frame.events().unwrap().collect();
    assert_eq!(events, [&b"{\"a\":1}"[..], b"{}"]);
}

#[test]
fn ack() {
    check(
        "f5010400000000002b000000000000000000000088690180",
        Kind::Ack,
        43,
        "",
    );
}

#[test]
fn reject() {
    check(
        "f5010500490000002a0000000000000000000000ad8769fc7b22736571223a34322c22636f6465223a22756e6b6e6f776e5f6669656c64222c2264657461696c223a226e6f2073756368206669656c64222c22706f696e746572223a222f61227d",
        Kind::Reject,
        42,
        "{\"seq\":42,\"code\":\"unknown_field\",\"detail\":\"no such field\",\"pointer\":\"/a\"}",
    );
}

#[test]
fn error() {
    check(
        "f5010600200000002c00000000000000000000002ea60b4e7b22636f6465223a227365715f676170222c226578706563746564223a34347d",
        Kind::Error,
        44,
        "{\"code\":\"seq_gap\",\"expected\":44}",
    );
}

#[test]
fn credit() {
    check(
        "f5010700000000006400800000000000000000007c9f3597",
        Kind::Credit,
        8_388_708,
        "",
    );
}
