//! Every call in the order it arrived, kept in memory up to a bound.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// One call.
#[derive(Debug, Clone)]
pub struct Call {
    /// Place in the order of arrival, from 1.
    pub seq: u64,
    /// When it arrived, since the account started.
    pub at: Duration,
    /// When it ended; `None` while it is open.
    pub done: Option<Duration>,
    /// The HTTP method.
    pub method: Method,
    /// The path without its query, as sent.
    pub path: Box<str>,
    /// The query, as sent.
    pub query: Option<Box<str>>,
    /// The status answered; 0 while the call is open and when it ended without an answer.
    pub status: u16,
    /// Whether the store was changed (or read) by it.
    pub applied: bool,
    /// The object of the path.
    pub object: Option<Box<str>>,
    /// The record's external id: as sent, or as the account knows it for the id sent.
    pub external_id: Option<Box<str>>,
    /// Records the call is about: 1 but for batches, 0 when the request is none.
    pub records: usize,
    /// The `Idempotency-Key` header.
    pub idempotency_key: Option<Box<str>>,
    /// The body, as sent.
    pub body: Bytes,
}

/// The latest calls.
#[derive(Debug)]
pub struct Journal {
    calls: VecDeque<Call>,
    bytes: usize,
    bytes_max: usize,
    /// What its times are counted from: Unix time when the account started.
    epoch: Duration,
}

/// What an entry costs beside its texts, measured as `size_of::<Call>()` rounded up.
const CALL_BYTES: usize = 256;

impl Journal {
    pub(crate) fn new(bytes_max: usize, epoch: Duration) -> Self {
        Self {
            calls: VecDeque::new(),
            bytes: 0,
            bytes_max,
            epoch,
        }
    }

    pub(crate) fn push(&mut self, call: Call) {
        debug_assert!(
            self.calls
                .back()
                .is_none_or(|last| last.seq + 1 == call.seq)
        );
        self.bytes += cost(&call);
        self.calls.push_back(call);
        while self.bytes > self.bytes_max && self.calls.len() > 1 {
            let Some(oldest) = self.calls.pop_front() else {
                break;
            };
            self.bytes -= cost(&oldest);
        }
    }

    /// The call of that number, unless it was forgotten.
    #[must_use]
    pub fn get(&self, seq: u64) -> Option<&Call> {
        self.calls.get(self.place(seq)?)
    }

    pub(crate) fn get_mut(&mut self, seq: u64) -> Option<&mut Call> {
        let place = self.place(seq)?;
        self.calls.get_mut(place)
    }

    /// Calls after that number that are still known, oldest first.
    pub fn after(&self, seq: u64) -> impl Iterator<Item = &Call> {
        let first = self.calls.front().map_or(0, |call| call.seq);
        let skipped = (seq + 1).saturating_sub(first);
        self.calls
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
    }

    /// A call as one line of JSON.
    #[must_use]
    pub fn render(&self, call: &Call) -> String {
        let at_ms = |at: Duration| u64::try_from((self.epoch + at).as_millis()).unwrap_or(u64::MAX);
        let row = Row {
            seq: call.seq,
            at_ms: at_ms(call.at),
            done_ms: call.done.map(at_ms),
            method: call.method.as_str(),
            path: &call.path,
            query: call.query.as_deref(),
            status: call.status,
            object: call.object.as_deref(),
            external_id: call.external_id.as_deref(),
            records: call.records,
            idempotency_key: call.idempotency_key.as_deref(),
            body: Body::of(&call.body),
        };
        serde_json::to_string(&row).expect("texts, numbers and parsed JSON always serialize")
    }

    fn place(&self, seq: u64) -> Option<usize> {
        let first = self.calls.front()?.seq;
        usize::try_from(seq.checked_sub(first)?).ok()
    }
}

fn cost(call: &Call) -> usize {
    let text = |text: &Option<Box<str>>| text.as_deref().map_or(0, str::len);
    CALL_BYTES
        + call.path.len()
        + text(&call.query)
        + text(&call.object)
        + text(&call.external_id)
        + text(&call.idempotency_key)
        + call.body.len()
}

#[derive(Serialize)]
struct Row<'a> {
    seq: u64,
    at_ms: u64,
    done_ms: Option<u64>,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'a str>,
    status: u16,
    object: Option<&'a str>,
    external_id: Option<&'a str>,
    records: usize,
    idempotency_key: Option<&'a str>,
    body: Body<'a>,
}

/// A body as it is shown: JSON as it came, on one line; anything else as text.
#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Empty(()),
    Json(&'a RawValue),
    Respaced(Value),
    Text(String),
}

impl<'a> Body<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        if bytes.is_empty() {
            return Self::Empty(());
        }
        if bytes.contains(&b'\n') || bytes.contains(&b'\r') {
            let parsed = serde_json::from_slice(bytes).ok();
            return parsed.map_or_else(|| Self::text(bytes), Self::Respaced);
        }
        serde_json::from_slice(bytes).map_or_else(|_| Self::text(bytes), Self::Json)
    }

    fn text(bytes: &[u8]) -> Self {
        Self::Text(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(seq: u64, body: &'static [u8]) -> Call {
        Call {
            seq,
            at: Duration::from_micros(1_900),
            done: None,
            method: Method::PUT,
            path: "/contact/external/c-1".into(),
            query: None,
            status: 0,
            applied: false,
            object: Some("contact".into()),
            external_id: Some("c-1".into()),
            records: 1,
            idempotency_key: None,
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn a_call_is_shown_as_documented() {
        let journal = Journal::new(1 << 20, Duration::from_secs(1));
        assert_eq!(
            journal.render(&call(7, b"{\"a\":1.50}")),
            "{\"seq\":7,\"at_ms\":1001,\"done_ms\":null,\"method\":\"PUT\",\
             \"path\":\"/contact/external/c-1\",\"status\":0,\"object\":\"contact\",\
             \"external_id\":\"c-1\",\"records\":1,\"idempotency_key\":null,\"body\":{\"a\":1.50}}"
        );
        let mut asked = call(8, b"");
        asked.query = Some("idProperty=email".into());
        let line = journal.render(&asked);
        assert!(line.contains("\"path\":\"/contact/external/c-1\",\"query\":\"idProperty=email\""));
    }

    #[test]
    fn any_body_stays_on_one_line() {
        let journal = Journal::new(1 << 20, Duration::ZERO);
        for (body, shown) in [
            (&b""[..], "null"),
            (b"{\n\"a\":1}", "{\"a\":1}"),
            (b"x\ny", "\"x\\ny\""),
            (b"\xff", "\"\u{fffd}\""),
        ] {
            let line = journal.render(&call(1, body));
            assert!(line.ends_with(&format!("\"body\":{shown}}}")), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn the_oldest_calls_are_forgotten_at_the_bound_and_numbers_still_find_the_rest() {
        let mut journal = Journal::new(3 * (CALL_BYTES + 40), Duration::ZERO);
        for seq in 1..=10 {
            journal.push(call(seq, b""));
        }
        assert!(journal.get(7).is_none());
        assert_eq!(journal.get(8).unwrap().seq, 8);
        let seqs = |after| {
            journal
                .after(after)
                .map(|call| call.seq)
                .collect::<Vec<_>>()
        };
        assert_eq!(seqs(0), [8, 9, 10]);
        assert_eq!(seqs(9), [10]);
        assert_eq!(seqs(10), [] as [u64; 0]);
        assert_eq!(seqs(u64::MAX - 1), [] as [u64; 0]);
    }
}
