//! The lines encoding, as PRODUCT section 5 promises it.

use proptest::prelude::*;
use syncline_net::ingest::{Code, EVENT_BYTES_MAX, Refusal, SessionLimits};
use syncline_net::subscription::Subscription;

use super::engine::Engine;
use super::talk::Talk;

const HELLO: &str = "{\"hello\":{\"producer\":\"billing\"}}\n";

fn greeted() -> Talk {
    let mut talk = Talk::new();
    talk.send(HELLO);
    talk.read();
    talk
}

#[test]
fn a_hello_is_welcomed_with_the_last_number() {
    let mut talk = Talk::new();
    talk.engine.state().last_seq.insert("billing".into(), 41);
    talk.send(HELLO);
    assert_eq!(
        talk.read_text(),
        "{\"welcome\":{\"producer\":\"billing\",\"last_seq\":41}}\n"
    );
    talk.send("{\"a\":1}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":42}}\n");
}

#[test]
fn without_a_hello_events_are_numbered_from_one_and_acked_once_per_read() {
    let mut talk = Talk::new();
    talk.send("{\"a\":1}\n\n   \r\n{\"a\":2}\r\n{\"a\":3}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":3}}\n");
    assert_eq!(talk.engine.taken(), [1, 2, 3]);
    assert_eq!(talk.engine.state().dispatches, 1);
}

#[test]
fn nothing_is_acked_before_its_batch_is_settled() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n").send("{\"a\":2}\n");
    assert_eq!(talk.read_text(), "");
    talk.engine.settle_one(true, |_| ());
    assert_eq!(
        talk.turn().read_text(),
        "",
        "the second batch may not skip the first"
    );
    talk.engine.settle();
    assert_eq!(talk.turn().read_text(), "{\"ack\":{\"seq\":2}}\n");
}

#[test]
fn a_bad_line_is_rejected_before_the_ack_that_covers_it_and_harms_no_neighbour() {
    let mut talk = Talk::new();
    talk.send("{\"a\":1}\nnonsense\n{\"bad\":1}\n{\"a\":2}\n");
    assert_eq!(
        talk.read_text(),
        "{\"reject\":{\"seq\":2,\"code\":\"malformed\",\"detail\":\"not JSON\"}}\n\
         {\"reject\":{\"seq\":3,\"code\":\"unknown_field\",\"detail\":\"no such field\",\"pointer\":\"/bad\"}}\n\
         {\"ack\":{\"seq\":4}}\n"
    );
    assert_eq!(talk.engine.taken(), [1, 4]);
    assert_eq!(
        talk.engine.state().refused,
        [(2, Code::Malformed), (3, Code::UnknownField)],
        "refused numbers become durable with their batch"
    );
}

#[test]
fn a_bad_first_line_is_a_bad_line() {
    let mut talk = Talk::new();
    talk.send("nonsense\n{\"a\":1}\n");
    let text = talk.read_text();
    assert!(text.starts_with("{\"reject\":{\"seq\":1,"), "{text}");
    assert!(text.ends_with("{\"ack\":{\"seq\":2}}\n"), "{text}");
}

#[test]
fn a_refusal_by_a_shard_comes_before_its_ack() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n{\"a\":2}\n");
    talk.engine.settle_one(false, |settled| {
        settled.refusals = vec![(2, Refusal::at(Code::InvalidField, "/a", "taken"))];
    });
    assert_eq!(
        talk.turn().read_text(),
        "{\"reject\":{\"seq\":2,\"code\":\"invalid_field\",\"detail\":\"taken\",\"pointer\":\"/a\"}}\n\
         {\"ack\":{\"seq\":2}}\n"
    );
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_line_over_one_mebibyte_is_rejected_and_the_next_is_taken() {
    let mut talk = Talk::new();
    let filler = vec![b'x'; 64 << 10];
    talk.send("{\"a\":\"");
    for _ in 0..EVENT_BYTES_MAX / filler.len() + 1 {
        talk.send(&filler);
    }
    talk.send("\"}\n{\"a\":2}\n");
    let text = talk.read_text();
    assert!(
        text.starts_with("{\"reject\":{\"seq\":1,\"code\":\"too_large\","),
        "{text}"
    );
    assert!(text.ends_with("{\"ack\":{\"seq\":2}}\n"), "{text}");
    assert_eq!(talk.engine.state().refused, [(1, Code::TooLarge)]);
}

#[test]
fn a_number_at_or_below_the_last_is_acked_and_not_taken_again() {
    let mut talk = Talk::new();
    talk.engine.state().last_seq.insert("billing".into(), 2);
    talk.send(HELLO);
    talk.read();
    talk.send("{\"seq\":1}\n{\"seq\":2}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":2}}\n");
    talk.send("{\"seq\":2}\n{\"seq\":3}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":3}}\n");
    assert_eq!(talk.engine.taken(), [3]);
}

#[test]
fn a_duplicate_of_an_event_in_flight_is_not_acked_early() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"seq\":1}\n").send("{\"seq\":1}\n");
    assert_eq!(talk.read_text(), "");
    talk.engine.settle();
    assert_eq!(talk.turn().read_text(), "{\"ack\":{\"seq\":1}}\n");
}

#[test]
fn numbers_durable_above_the_welcome_are_acked_and_not_staged_again() {
    let mut talk = Talk::new();
    {
        let mut state = talk.engine.state();
        state.last_seq.insert("billing".into(), 10);
        state.already.insert("billing".into(), vec![12, 13]);
    }
    talk.send(HELLO);
    talk.read();
    talk.send("{\"a\":11}\n{\"a\":12}\n{\"a\":13}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":13}}\n");
    assert_eq!(talk.engine.taken(), [11]);
}

#[test]
fn a_gap_ends_the_session_after_what_came_before_it_is_acked() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"seq\":1}\n{\"seq\":3}\n{\"seq\":2}\n");
    assert!(!talk.session.wants_read());
    assert_eq!(talk.read_text(), "");
    talk.engine.settle();
    assert_eq!(
        talk.turn().read_text(),
        "{\"ack\":{\"seq\":1}}\n{\"error\":{\"code\":\"seq_gap\",\"expected\":2}}\n"
    );
    assert!(talk.session.is_over());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_number_that_is_none_is_rejected_at_its_member() {
    let mut talk = Talk::new();
    talk.send("{\"seq\":\"1\"}\n");
    assert_eq!(
        talk.read_text(),
        "{\"reject\":{\"seq\":1,\"code\":\"invalid_field\",\
         \"detail\":\"seq must be an unsigned integer\",\"pointer\":\"/seq\"}}\n\
         {\"ack\":{\"seq\":1}}\n"
    );
}

#[test]
fn a_refusal_that_time_can_cure_is_never_acked_and_closes() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n{\"full\":1}\n{\"a\":3}\n");
    talk.engine.settle();
    assert_eq!(
        talk.turn().read_text(),
        "{\"ack\":{\"seq\":1}}\n\
         {\"reject\":{\"seq\":2,\"code\":\"disk_full\",\"detail\":\"the disk is full\",\"retry\":true}}\n"
    );
    assert!(talk.session.is_over());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_shard_that_cannot_take_a_batch_ends_the_session_at_its_first_untaken_event() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n{\"a\":2}\n{\"a\":3}\n")
        .send("{\"a\":4}\n");
    talk.engine.settle_one(false, |settled| {
        settled.refusals = vec![(3, Refusal::new(Code::InvalidField, "no"))];
        settled.retry = Some((2, Refusal::new(Code::ShardDown, "shard 1 is down")));
    });
    assert_eq!(
        talk.turn().read_text(),
        "{\"ack\":{\"seq\":1}}\n\
         {\"reject\":{\"seq\":2,\"code\":\"shard_down\",\"detail\":\"shard 1 is down\",\"retry\":true}}\n"
    );
    assert!(talk.session.is_over(), "the second batch is not waited for");
    talk.engine.settle();
    assert_eq!(talk.turn().read_text(), "");
}

#[test]
fn full_rings_stop_the_reading_and_lose_nothing() {
    let mut talk = Talk::new();
    talk.engine.state().ring_full = true;
    talk.send("{\"a\":1}\n{\"bad\":1}\n");
    assert!(!talk.session.wants_read());
    assert!(talk.session.needs_retry());
    talk.engine.state().ring_full = false;
    let text = talk.turn().read_text();
    assert!(text.ends_with("{\"ack\":{\"seq\":2}}\n"), "{text}");
    assert!(talk.session.wants_read());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_half_close_while_rings_are_full_is_acknowledged_in_full() {
    let mut talk = Talk::new();
    talk.engine.state().ring_full = true;
    talk.send("{\"a\":1}\n").half_close();
    assert!(!talk.session.is_over());
    talk.engine.state().ring_full = false;
    assert_eq!(talk.turn().read_text(), "{\"ack\":{\"seq\":1}}\n");
    assert!(talk.session.is_over());
}

#[test]
fn after_a_half_close_everything_is_acked_and_a_started_line_is_no_event() {
    let mut talk = Talk::new();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n{\"a\":2}").half_close();
    assert!(!talk.session.is_over());
    talk.engine.settle();
    assert_eq!(talk.turn().read_text(), "{\"ack\":{\"seq\":1}}\n");
    assert!(talk.session.is_over());
    assert_eq!(talk.engine.taken(), [1]);
}

#[test]
fn a_hello_that_has_to_wait_holds_back_what_follows_it() {
    let mut talk = Talk::new();
    talk.engine.state().hello_later = true;
    talk.send("{\"hello\":{\"producer\":\"billing\"}}\n{\"a\":1}\n{\"a\"");
    assert_eq!(talk.read_text(), "");
    assert!(!talk.session.wants_read());
    talk.engine.state().hello_later = false;
    assert_eq!(
        talk.turn().read_text(),
        "{\"welcome\":{\"producer\":\"billing\",\"last_seq\":0}}\n{\"ack\":{\"seq\":1}}\n"
    );
    talk.send(":2}\n");
    assert_eq!(talk.read_text(), "{\"ack\":{\"seq\":2}}\n");
}

#[test]
fn a_fenced_session_says_so_and_acks_no_more() {
    let mut talk = greeted();
    talk.engine.state().hold = true;
    talk.send("{\"a\":1}\n");
    talk.session.handle_fenced();
    talk.engine.settle();
    assert_eq!(
        talk.turn().read_text(),
        "{\"error\":{\"code\":\"replaced\"}}\n"
    );
    assert!(talk.session.is_over());
}

#[test]
fn what_is_not_this_protocol_is_told_at_once() {
    for (bytes, code) in [
        (&b"\x16\x03\x01\x02\x00"[..], "malformed"),
        (b"\x00\x00", "malformed"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "malformed"),
        (b"{\"subscribe\":{\"consumer\":\"c\"}}\n", "not_available"),
        (b"{\"hello\":{\"producer\":\"\"}}\n", "invalid_field"),
        (b"{\"hello\":{\"producr\":\"x\"}}\n", "malformed"),
        (b"{\"a\":1}\n{\"hello\":{}}\n", "malformed"),
    ] {
        let mut talk = Talk::new();
        talk.send(bytes);
        let text = talk.read_text();
        let last = text.lines().last().unwrap_or_default();
        assert!(
            last.starts_with(&format!("{{\"error\":{{\"code\":\"{code}\"")),
            "{text}"
        );
        assert!(talk.session.is_over());
    }
}

#[test]
fn a_subscriber_leaves_with_its_key_and_with_what_it_sent_behind() {
    let hello = "{\"hello\":{\"key\":\"secret\"}}\n";
    let subscribe = "{\"subscribe\":{\"consumer\":\"billing\",\"objects\":[\"contact\"]}}\n";
    let behind = "{\"ack\":{\"seq\":7}}\n{\"ack\":";
    let stream = format!("{hello}{subscribe}{behind}");
    for cut in 0..stream.len() {
        let mut talk = Talk::subscribable();
        let (first, second) = stream.split_at(cut);
        talk.send(first);
        // A driver that has a subscriber reads no more.
        let unread = if talk.session.is_leaving() {
            second
        } else {
            talk.send(second);
            ""
        };
        assert!(talk.session.is_leaving() && !talk.session.wants_read());
        assert_eq!(talk.read_text(), "{\"welcome\":{\"last_seq\":0}}\n");
        let (subscription, held) = talk.session.take_subscriber().unwrap();
        let expected = Subscription {
            consumer: "billing".into(),
            objects: Some(vec!["contact".into()]),
            key: Some("secret".into()),
        };
        assert_eq!(subscription, expected);
        let held = String::from_utf8(held).unwrap() + unread;
        assert_eq!(held, behind, "cut at {cut}");
        assert!(talk.session.is_over());
        assert_eq!(talk.session.take_subscriber(), None);
    }
}

#[test]
fn a_subscription_comes_before_any_event() {
    for (bytes, code) in [
        (
            "{\"a\":1}\n{\"subscribe\":{\"consumer\":\"c\"}}\n",
            "malformed",
        ),
        ("{\"subscribe\":{\"consumer\":\"\"}}\n", "invalid_field"),
        (
            "{\"subscribe\":{\"consumer\":\"c\",\"objects\":[]}}\n",
            "invalid_field",
        ),
        ("{\"subscribe\":{\"consumer\":5}}\n", "malformed"),
    ] {
        let mut talk = Talk::subscribable();
        talk.send(bytes);
        let text = talk.read_text();
        let error = format!("{{\"error\":{{\"code\":\"{code}\"");
        assert!(text.lines().last().unwrap().starts_with(&error), "{text}");
        assert_eq!(talk.session.take_subscriber(), None);
        assert!(talk.session.is_over());
    }
}

#[test]
fn a_session_without_the_key_gets_nothing_in() {
    let engine = Engine::default();
    engine.state().key = Some("secret".into());
    for first in ["{\"a\":1}\n", HELLO, "{\"hello\":{\"key\":\"wrong\"}}\n"] {
        let mut talk = Talk::with(engine.clone(), SessionLimits::default());
        talk.send(first);
        assert_eq!(
            talk.read_text(),
            "{\"error\":{\"code\":\"unauthorized\",\"detail\":\"no valid key\"}}\n"
        );
        assert!(talk.session.is_over());
    }
    assert!(engine.taken().is_empty());
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let limits = SessionLimits {
        output_bytes_max: 1000,
        ..SessionLimits::default()
    };
    let mut talk = Talk::with(Engine::default(), limits);
    let flood = "x\n".repeat(500);
    talk.send(&flood);
    assert!(!talk.session.wants_read());
    assert!(
        !talk.session.needs_retry(),
        "only the client can help itself"
    );
    let text = talk.read_text();
    assert_eq!(text.matches("reject").count(), 500, "nothing was lost");
    assert!(text.ends_with("{\"ack\":{\"seq\":500}}\n"));
    assert!(talk.session.wants_read());
}

#[test]
fn more_than_the_window_is_not_read_until_some_of_it_is_settled() {
    let limits = SessionLimits {
        unacked_bytes_max: 1, // raised to the size of a frame
        ..SessionLimits::default()
    };
    let mut talk = Talk::with(Engine::default(), limits);
    talk.engine.state().hold = true;
    let line = format!("{{\"a\":\"{}\"}}\n", "x".repeat(300 << 10));
    while talk.session.wants_read() {
        talk.send(&line);
    }
    assert_eq!(talk.engine.held(), 4);
    talk.engine.settle_one(false, |_| ());
    talk.turn();
    assert!(talk.session.wants_read());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever the cuts between reads and the order of settling: every line gets exactly one
    /// outcome, rejects precede their ack, and acks only rise.
    #[test]
    fn every_line_has_one_outcome_wherever_the_stream_is_cut(
        lines in prop::collection::vec(
            prop_oneof![3 => Just("{\"a\":1}"), 1 => Just("{\"bad\":1}"), 1 => Just("junk"), 1 => Just("")],
            1..40),
        cuts in prop::collection::vec(1usize..30, 1..20),
        order in prop::collection::vec(any::<bool>(), 64),
    ) {
        let stream = lines.iter().map(|l| format!("{l}\n")).collect::<String>();
        let mut talk = Talk::new();
        talk.engine.state().hold = true;
        let mut rest = stream.as_bytes();
        let mut text = String::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, tail) = rest.split_at((*cut).min(rest.len()));
            talk.send(piece);
            rest = tail;
        }
        for newest in order.iter().cycle() {
            if talk.engine.held() == 0 { break; }
            talk.engine.settle_one(*newest, |_| ());
            text.push_str(&talk.turn().read_text());
        }
        let numbered: Vec<_> = lines.iter().filter(|l| !l.is_empty()).collect();
        let good: Vec<u64> = (1..).zip(&numbered).filter(|(_, l)| **l == &"{\"a\":1}").map(|(n, _)| n).collect();
        let mut taken = talk.engine.taken();
        taken.sort_unstable();
        prop_assert_eq!(&taken, &good);
        let (mut acked, mut rejected) = (0, Vec::new());
        for line in text.lines() {
            let answer: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(ack) = answer.get("ack") {
                let seq = ack["seq"].as_u64().unwrap();
                prop_assert!(seq > acked);
                acked = seq;
            } else {
                let seq = answer["reject"]["seq"].as_u64().unwrap();
                prop_assert!(seq > acked);
                rejected.push(seq);
            }
        }
        prop_assert_eq!(acked, numbered.len() as u64);
        let mut all = [taken, rejected].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (1..=numbered.len() as u64).collect::<Vec<_>>());
    }
}
