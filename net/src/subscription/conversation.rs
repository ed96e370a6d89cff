//! One subscriber's protocol behind its first line, without I/O.

use engine::refusal::{Code, Refusal};
use serde::Deserialize;

use super::{Feed, Over, Seat, Subscription, Taken};
use crate::ingest::line::{Line, LineReader, trim};
use crate::ingest::{AckBody, Answer, ErrorBody};

/// Acks in, changes out.
pub(super) struct Conversation<'f, F: Feed> {
    feed: &'f F,
    /// `None`: the consumer was not let in.
    seat: Option<Seat>,
    lines: LineReader,
    phase: Phase,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// This is still to be written.
    Ending(Vec<u8>),
    Over,
}

/// An ack has some thirty bytes.
const LINE_BYTES_MAX: usize = 4 << 10;

impl<'f, F: Feed> Conversation<'f, F> {
    pub(super) fn begin(feed: &'f F, subscription: &Subscription) -> Self {
        let mut conversation = Conversation {
            feed,
            seat: None,
            lines: LineReader::new(LINE_BYTES_MAX),
            phase: Phase::Open,
        };
        match feed.subscribe(subscription) {
            Ok(seat) => conversation.seat = Some(seat),
            Err(refusal) => conversation.end(ErrorBody::refused(&refusal)),
        }
        conversation
    }

    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    pub(super) fn handle_bytes(&mut self, mut bytes: &[u8]) {
        while self.phase == Phase::Open
            && let Some(line) = self.lines.next(&mut bytes)
        {
            let heard = match line {
                Line::Text(text) => read(trim(text)),
                Line::TooLong => Err("a line is longer than any ack".to_owned()),
            };
            let fault = match (heard, &self.seat) {
                (Ok(Some(seq)), Some(seat)) => {
                    let acked = self.feed.ack(seat, seq);
                    acked.err().map(|never_sent| never_sent.to_string())
                }
                (Ok(_), _) => None,
                (Err(fault), _) => Some(fault),
            };
            if let Some(fault) = fault {
                self.end(ErrorBody::refused(&Refusal::new(Code::Malformed, fault)));
            }
        }
    }

    /// The consumer can not acknowledge any more: what is on its way still arrives.
    pub(super) fn handle_half_close(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Ending(Vec::new());
        }
    }

    pub(super) fn handle_timeout(&mut self, detail: &str) {
        self.end(ErrorBody {
            code: "timeout".into(),
            detail: Some(detail.into()),
            ..ErrorBody::default()
        });
    }

    /// Appends what is to be written next. The driver asks when everything before is written.
    pub(super) fn take_output(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Open
            && let Some(seat) = &self.seat
        {
            match self.feed.take(seat, out) {
                Taken::Changes | Taken::Nothing => {}
                Taken::Over(Over::Stopping) => self.phase = Phase::Ending(Vec::new()),
                Taken::Over(Over::Replaced) => self.end_as("replaced"),
                Taken::Over(Over::Removed) => self.end_as("removed"),
            }
        }
        if let Phase::Ending(farewell) = &mut self.phase {
            out.append(farewell);
            self.phase = Phase::Over;
        }
    }

    /// Whether nothing more is to be written than was taken.
    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn is_mid_line(&self) -> bool {
        self.lines.is_mid_line()
    }

    fn end_as(&mut self, code: &'static str) {
        self.end(ErrorBody {
            code: code.into(),
            ..ErrorBody::default()
        });
    }

    fn end(&mut self, body: ErrorBody<'_>) {
        if self.phase == Phase::Open {
            let mut line = Vec::new();
            Answer::Error(body).write_line(&mut line);
            self.phase = Phase::Ending(line);
        }
    }
}

impl<F: Feed> Drop for Conversation<'_, F> {
    fn drop(&mut self) {
        if let Some(seat) = &self.seat {
            self.feed.leave(seat);
        }
    }
}

/// The number of an ack; `None`: a blank line, which keeps the connection.
fn read(line: &[u8]) -> Result<Option<u64>, String> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct AckLine {
        ack: AckBody,
    }
    if line.is_empty() {
        return Ok(None);
    }
    let parsed = serde_json::from_slice::<AckLine>(line);
    parsed
        .map(|line| Some(line.ack.seq))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::super::NeverSent;
    use super::*;

    /// Says what it is told to say, and remembers what it heard.
    #[derive(Default)]
    struct Script {
        refuses: bool,
        said: Mutex<VecDeque<Result<&'static str, Over>>>,
        acked: Mutex<Vec<u64>>,
        left: Mutex<usize>,
    }

    impl Feed for Script {
        fn subscribe(&self, subscription: &Subscription) -> Result<Seat, Refusal> {
            if self.refuses {
                return Err(Refusal::new(Code::Unauthorized, "no valid key"));
            }
            Ok(Seat {
                id: 1,
                consumer: subscription.consumer.as_str().into(),
                wake: Arc::default(),
            })
        }

        fn take(&self, _: &Seat, out: &mut Vec<u8>) -> Taken {
            match self.said.lock().unwrap().pop_front() {
                None => Taken::Nothing,
                Some(Err(over)) => Taken::Over(over),
                Some(Ok(line)) => {
                    out.extend_from_slice(line.as_bytes());
                    Taken::Changes
                }
            }
        }

        fn ack(&self, _: &Seat, seq: u64) -> Result<(), NeverSent> {
            if seq > 9 {
                return Err(NeverSent { seq, last: 9 });
            }
            self.acked.lock().unwrap().push(seq);
            Ok(())
        }

        fn leave(&self, _: &Seat) {
            *self.left.lock().unwrap() += 1;
        }
    }

    fn subscription() -> Subscription {
        Subscription {
            consumer: "billing".into(),
            objects: None,
            key: None,
        }
    }

    fn told(conversation: &mut Conversation<'_, Script>) -> String {
        let mut out = Vec::new();
        conversation.take_output(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn acks_and_blank_lines_are_read_wherever_the_stream_is_cut() {
        let feed = Script::default();
        let mut conversation = Conversation::begin(&feed, &subscription());
        for byte in b"{\"ack\":{\"seq\":3}}\n\r\n \n{ \"ack\" : {\"seq\":9} }\r\n" {
            conversation.handle_bytes(&[*byte]);
        }
        assert_eq!(*feed.acked.lock().unwrap(), [3, 9]);
        assert!(!conversation.is_over() && !conversation.is_mid_line());
    }

    #[test]
    fn what_is_no_ack_of_a_change_that_was_sent_ends_it() {
        for bad in [
            "nonsense\n",
            "{\"ack\":{\"seq\":-1}}\n",
            "{\"ack\":{\"seq\":1},\"x\":1}\n",
            "{\"ack\":{}}\n",
            "{\"operation\":\"DELETE\",\"record_id\":\"c-1\"}\n",
            "{\"ack\":{\"seq\":10}}\n",
            "\u{0}\n",
        ] {
            let feed = Script::default();
            let mut conversation = Conversation::begin(&feed, &subscription());
            conversation.handle_bytes(bad.as_bytes());
            conversation.handle_bytes(b"{\"ack\":{\"seq\":1}}\n");
            let text = told(&mut conversation);
            assert!(
                text.starts_with("{\"error\":{\"code\":\"malformed\""),
                "{bad}"
            );
            assert!(conversation.is_over());
            assert!(feed.acked.lock().unwrap().is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let feed = Script::default();
        let mut conversation = Conversation::begin(&feed, &subscription());
        for _ in 0..1000 {
            conversation.handle_bytes(&[b'x'; 1000]);
        }
        assert!(conversation.is_mid_line());
        conversation.handle_bytes(b"\n");
        assert!(told(&mut conversation).contains("malformed"));
    }

    #[test]
    fn the_end_of_a_seat_is_told_behind_the_last_change() {
        for (over, farewell) in [
            (Over::Replaced, "{\"error\":{\"code\":\"replaced\"}}\n"),
            (Over::Removed, "{\"error\":{\"code\":\"removed\"}}\n"),
            (Over::Stopping, ""),
        ] {
            let feed = Script::default();
            feed.said.lock().unwrap().extend([Ok("one\n"), Err(over)]);
            let mut conversation = Conversation::begin(&feed, &subscription());
            assert_eq!(told(&mut conversation), "one\n");
            assert!(!conversation.is_over());
            assert_eq!(told(&mut conversation), farewell);
            assert!(conversation.is_over());
        }
    }

    #[test]
    fn whoever_is_let_in_leaves_once_and_who_is_not_is_told_why() {
        let feed = Script::default();
        let mut conversation = Conversation::begin(&feed, &subscription());
        conversation.handle_half_close();
        assert_eq!(told(&mut conversation), "");
        assert!(conversation.is_over());
        drop(conversation);
        assert_eq!(*feed.left.lock().unwrap(), 1);

        let feed = Script {
            refuses: true,
            ..Script::default()
        };
        let mut conversation = Conversation::begin(&feed, &subscription());
        assert_eq!(
            told(&mut conversation),
            "{\"error\":{\"code\":\"unauthorized\",\"detail\":\"no valid key\"}}\n"
        );
        drop(conversation);
        assert_eq!(*feed.left.lock().unwrap(), 0);
    }
}
