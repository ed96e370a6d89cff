//! Binary frames over TCP.

use net::ingest::frame::{EVENT_PREFIX_BYTES, FrameReader, HEADER_BYTES, Kind, write_frame};
use serde_json::Value;

use super::lines::refused;
use super::{Answer, WireError};

/// One session's credit and its reader.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    reader: FrameReader,
    /// Bytes of EVENTS frames that may be sent in this session, and that were.
    credit: u64,
    sent: u64,
}

impl Frames {
    pub(super) fn room(&self, event_bytes: usize) -> usize {
        let left = (self.credit - self.sent).saturating_sub(HEADER_BYTES as u64);
        (left / (EVENT_PREFIX_BYTES + event_bytes) as u64) as usize
    }

    pub(super) fn put(
        &mut self,
        first_seq: u64,
        count: usize,
        mut write: impl FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        let start = out.len();
        write_frame(out, Kind::Events, first_seq, count as u32, |payload| {
            for _ in 0..count {
                let at = payload.len();
                payload.extend_from_slice(&[0; EVENT_PREFIX_BYTES]);
                write(payload);
                let len = (payload.len() - at - EVENT_PREFIX_BYTES) as u32;
                payload[at..][..EVENT_PREFIX_BYTES].copy_from_slice(&len.to_le_bytes());
            }
        });
        self.sent += (out.len() - start) as u64;
    }

    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut on_answer: impl FnMut(Answer),
    ) -> Result<(), WireError> {
        let mut rest = bytes;
        let garbled = |what: &dyn ToString| WireError::Garbled(what.to_string());
        while let Some(frame) = self.reader.next(&mut rest).map_err(|bad| garbled(&bad))? {
            let body = || serde_json::from_slice::<Value>(frame.payload());
            match frame.kind {
                Kind::Welcome => {
                    let body = body().map_err(|bad| garbled(&bad))?;
                    self.credit = body["credit"].as_u64().unwrap_or(0);
                    on_answer(Answer::Welcome);
                }
                Kind::Ack => on_answer(Answer::Settled { seq: frame.seq }),
                Kind::Credit => {
                    self.credit = self.credit.max(frame.seq);
                    on_answer(Answer::Credit);
                }
                Kind::Reject => on_answer(refused(&body().map_err(|bad| garbled(&bad))?)),
                Kind::Error => {
                    let text = String::from_utf8_lossy(frame.payload());
                    return Err(WireError::Ended(text.into_owned()));
                }
                Kind::Hello | Kind::Events => {
                    return Err(garbled(&"a frame that only clients send"));
                }
            }
        }
        Ok(())
    }
}

pub(super) fn write_hello(producer: &str, out: &mut Vec<u8>) {
    let hello = serde_json::json!({ "producer": producer });
    write_frame(out, Kind::Hello, 0, 0, |payload| {
        payload.extend_from_slice(hello.to_string().as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server_says(frames: &[(Kind, u64, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for &(kind, seq, body) in frames {
            write_frame(&mut out, kind, seq, 0, |payload| {
                payload.extend_from_slice(body.as_bytes());
            });
        }
        out
    }

    #[test]
    fn no_more_is_sent_than_the_credit_allows() {
        let mut frames = Frames::default();
        assert_eq!(frames.room(400), 0);
        let welcome = server_says(&[(Kind::Welcome, 0, "{\"last_seq\":0,\"credit\":10000}")]);
        frames.read(&welcome, |_| ()).unwrap();
        assert_eq!(frames.room(400), (10_000 - 24) / 404);
        let mut out = Vec::new();
        let room = frames.room(400);
        frames.put(1, room, |out| out.extend_from_slice(&[b'x'; 400]), &mut out);
        assert!(out.len() <= 10_000);
        assert_eq!(frames.room(400), 0);
        frames
            .read(&server_says(&[(Kind::Credit, 20_000, "")]), |_| ())
            .unwrap();
        assert_eq!(frames.room(400), (20_000 - out.len() - 24) / 404);
    }

    #[test]
    fn what_is_put_reads_back_as_events() {
        let mut frames = Frames::default();
        let mut out = Vec::new();
        let mut n = 0;
        let write = |out: &mut Vec<u8>| {
            n += 1;
            out.extend_from_slice(format!("{{\"n\":{n}}}").as_bytes());
        };
        frames.put(5, 2, write, &mut out);
        let mut reader = FrameReader::default();
        let frame = reader.next(&mut &out[..]).unwrap().unwrap();
        assert_eq!((frame.kind, frame.seq, frame.count), (Kind::Events, 5, 2));
        let events: Vec<&[u8]> = frame.events().unwrap().collect();
        assert_eq!(events, [b"{\"n\":1}", b"{\"n\":2}"]);
    }

    #[test]
    fn answers_are_told_and_an_error_ends_the_session() {
        let mut seen = Vec::new();
        let bytes = server_says(&[
            (Kind::Reject, 3, "{\"seq\":3,\"code\":\"no_route\"}"),
            (Kind::Ack, 9, ""),
        ]);
        let mut frames = Frames::default();
        frames.read(&bytes, |answer| seen.push(answer)).unwrap();
        let refused = Answer::Refused {
            count: 1,
            code: "no_route".to_owned(),
        };
        assert_eq!(seen, [refused, Answer::Settled { seq: 9 }]);
        let error = server_says(&[(Kind::Error, 0, "{\"code\":\"bad_frame\"}")]);
        assert!(matches!(
            frames.read(&error, |_| ()),
            Err(WireError::Ended(_))
        ));
    }
}
