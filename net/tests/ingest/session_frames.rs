//! The frames encoding.

use syncline_net::ingest::frame::{EventsBuilder, FRAME_BYTES_MAX, Kind, write_frame};
use syncline_net::ingest::{Code, SessionLimits};

use super::engine::Engine;
use super::talk::Talk;

fn hello(body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_frame(&mut out, Kind::Hello, 0, 0, |p| {
        p.extend_from_slice(body.as_bytes())
    });
    out
}

fn events(first_seq: u64, events: &[&str]) -> Vec<u8> {
    let mut builder = EventsBuilder::default();
    for event in events {
        assert!(builder.try_push(event.as_bytes()));
    }
    let mut out = Vec::new();
    builder.finish(first_seq, &mut out);
    out
}

fn greeted() -> Talk {
    greeted_with(SessionLimits::default())
}

fn greeted_with(limits: SessionLimits) -> Talk {
    let mut talk = Talk::with(Engine::default(), limits);
    talk.send(hello("{\"producer\":\"billing\"}"));
    talk.read();
    talk
}

#[test]
fn a_hello_is_welcomed_with_the_last_number_and_a_credit() {
    let mut talk = Talk::new();
    talk.engine.state().last_seq.insert("billing".into(), 41);
    talk.send(hello("{\"producer\":\"billing\"}"));
    assert_eq!(
        talk.read_frames(),
        ["WELCOME 41 {\"producer\":\"billing\",\"last_seq\":41,\"credit\":8388608}"]
    );
    talk.send(events(42, &["{\"a\":1}", "{\"seq\":7}"]));
    assert_eq!(
        talk.read_frames(),
        ["ACK 43"],
        "the header numbers the events"
    );
    assert_eq!(talk.engine.taken(), [42, 43]);
}

#[test]
fn a_bad_event_in_a_frame_is_rejected_like_a_line() {
    let mut talk = greeted();
    talk.send(events(1, &["{\"a\":1}", "", "{\"bad\":1}", "{\"a\":4}"]));
    assert_eq!(
        talk.read_frames(),
        [
            "REJECT 2 {\"seq\":2,\"code\":\"malformed\",\"detail\":\"not JSON\"}",
            "REJECT 3 {\"seq\":3,\"code\":\"unknown_field\",\"detail\":\"no such field\",\"pointer\":\"/bad\"}",
            "ACK 4"
        ]
    );
    assert_eq!(talk.engine.taken(), [1, 4]);
}

#[test]
fn many_frames_in_one_read_are_one_dispatch_and_one_ack() {
    let mut talk = greeted();
    let read = [
        events(1, &["{\"a\":1}", "{\"a\":2}"]),
        events(3, &["{\"a\":3}"]),
        events(2, &["{\"a\":2}", "{\"a\":3}", "{\"a\":4}"]),
    ]
    .concat();
    talk.send(read);
    assert_eq!(talk.read_frames(), ["ACK 4"]);
    assert_eq!(talk.engine.taken(), [1, 2, 3, 4]);
    assert_eq!(talk.engine.state().dispatches, 1);
}

#[test]
fn a_gap_between_frames_ends_the_session() {
    let mut talk = greeted();
    talk.send([events(1, &["{}"]), events(3, &["{}"])].concat());
    assert_eq!(
        talk.read_frames(),
        ["ACK 1", "ERROR 2 {\"code\":\"seq_gap\",\"expected\":2}"]
    );
    assert!(talk.session.is_over());
}

#[test]
fn a_frame_with_a_flipped_bit_ends_the_session_and_nothing_of_it_is_taken() {
    let mut talk = greeted();
    let good = events(1, &["{\"a\":1}"]);
    let mut bad = events(2, &["{\"a\":2}", "{\"a\":3}"]);
    bad[30] ^= 1;
    talk.send([good, bad, events(2, &["{\"a\":2}"])].concat());
    let frames = talk.read_frames();
    assert_eq!(frames[0], "ACK 1");
    assert!(
        frames[1].starts_with("ERROR 0 {\"code\":\"bad_frame\",\"detail\":\"crc32c is"),
        "{frames:?}"
    );
    assert_eq!(frames.len(), 2);
    assert!(talk.session.is_over());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn frames_that_have_no_place_end_the_session() {
    let first_events = events(1, &["{}"]);
    let mut ack = Vec::new();
    write_frame(&mut ack, Kind::Ack, 1, 0, |_| ());
    let mut wrong_count = Vec::new();
    write_frame(&mut wrong_count, Kind::Events, 1, 2, |p| {
        p.extend_from_slice(b"\x02\0\0\0{}");
    });
    for (greet, bytes, code) in [
        (false, first_events, "bad_frame"),
        (true, ack, "bad_frame"),
        (true, wrong_count, "bad_frame"),
        (true, b"{\"a\":1}\n".to_vec(), "bad_frame"),
        (true, b"\xf5\x09".to_vec(), "bad_frame"),
        (true, hello("{}"), "malformed"),
        (false, hello("{\"producr\":\"x\"}"), "malformed"),
        (false, hello("{\"producer\":\"\"}"), "invalid_field"),
    ] {
        let mut talk = if greet { greeted() } else { Talk::new() };
        talk.send(bytes);
        let frames = talk.read_frames();
        assert!(
            frames[0].starts_with(&format!("ERROR 0 {{\"code\":\"{code}\"")),
            "{frames:?}"
        );
        assert!(talk.session.is_over());
        assert!(talk.engine.taken().is_empty());
    }
}

#[test]
fn a_frame_cut_anywhere_is_taken_whole_or_not_at_all() {
    let frame = events(1, &["{\"a\":1}", "{\"a\":2}"]);
    for cut in 0..frame.len() {
        let mut talk = greeted();
        talk.send(&frame[..cut]).half_close();
        assert_eq!(talk.read_frames(), [""; 0], "cut at {cut}");
        assert!(talk.session.is_over());
        assert!(talk.engine.taken().is_empty());

        let mut talk = greeted();
        talk.send(&frame[..cut]).send(&frame[cut..]).half_close();
        assert_eq!(talk.read_frames(), ["ACK 2"], "cut at {cut}");
        assert_eq!(talk.engine.taken(), [1, 2]);
    }
}

#[test]
fn credit_is_bounded_by_what_is_settled() {
    let mut talk = greeted_with(SessionLimits {
        unacked_bytes_max: 2 * FRAME_BYTES_MAX as u64,
        ..SessionLimits::default()
    });
    talk.engine.state().hold = true;
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat((1 << 20) - 100));
    talk.send(events(1, &[&big]));
    assert_eq!(talk.read_frames(), [""; 0]);
    talk.engine.settle();
    let frame_bytes = events(1, &[&big]).len();
    let credit = 2 * FRAME_BYTES_MAX + frame_bytes;
    assert_eq!(
        talk.turn().read_frames(),
        ["ACK 1".to_owned(), format!("CREDIT {credit}")]
    );
    talk.send(events(2, &[&big]));
    talk.send(events(3, &[&big]));
    assert!(talk.session.is_open(), "that was within the credit");
    talk.send(events(4, &["{}", &"x".repeat(1000)]));
    talk.engine.settle();
    let frames = talk.turn().read_frames();
    assert_eq!(frames[0], "ACK 3");
    assert!(
        frames[1].starts_with("ERROR 0 {\"code\":\"credit_exceeded\""),
        "{frames:?}"
    );
}

#[test]
fn duplicates_cost_no_credit_for_long() {
    let mut talk = greeted_with(SessionLimits {
        unacked_bytes_max: FRAME_BYTES_MAX as u64,
        ..SessionLimits::default()
    });
    let big = format!("{{\"a\":\"{}\"}}", "x".repeat(400 << 10));
    for round in 0..20 {
        talk.send(events(1, &[&big]));
        let frames = talk.read_frames();
        assert_eq!(frames[0], "ACK 1", "round {round}");
    }
    assert!(talk.session.is_open());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_refusal_that_time_can_cure_is_the_last_word() {
    let mut talk = greeted();
    talk.send(events(1, &["{\"a\":1}", "{\"full\":1}", "{\"a\":3}"]));
    assert_eq!(
        talk.read_frames(),
        [
            "ACK 1",
            "REJECT 2 {\"seq\":2,\"code\":\"disk_full\",\"detail\":\"the disk is full\",\"retry\":true}"
        ]
    );
    assert!(talk.session.is_over());
}

#[test]
fn a_hello_that_has_to_wait_holds_back_what_follows_it() {
    let mut talk = Talk::new();
    talk.engine.state().hello_later = true;
    talk.send([hello("{\"producer\":\"p\"}"), events(1, &["{}"])].concat());
    assert_eq!(talk.read_frames(), [""; 0]);
    talk.engine.state().hello_later = false;
    let frames = talk.turn().read_frames();
    assert!(frames[0].starts_with("WELCOME 0 "), "{frames:?}");
    assert_eq!(frames[1], "ACK 1");
}

#[test]
fn an_anonymous_client_says_hello_without_a_name() {
    let mut talk = Talk::new();
    talk.send(hello("{}"));
    assert_eq!(
        talk.read_frames(),
        ["WELCOME 0 {\"last_seq\":0,\"credit\":8388608}"]
    );
    talk.engine.state().hold = true;
    talk.send(events(1, &["{}", "oops"]));
    talk.engine.settle();
    talk.turn();
    assert_eq!(talk.engine.state().refused, [(2, Code::Malformed)]);
}
