//! `POST /v1/sync`, one request at a time per connection.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Answer, WireError};
use crate::http::{AnswerReader, HttpAnswer, request_head};

/// One connection and the request it waits for.
#[derive(Debug)]
pub(crate) struct Http {
    reader: AnswerReader,
    host: String,
    /// Most events of one request.
    batch: usize,
    /// Events of the request that is not answered; 0: there is none.
    asked: u64,
    settled: u64,
}

impl Http {
    pub(super) fn new(host: &str, batch: usize) -> Http {
        Http {
            reader: AnswerReader::default(),
            host: host.to_owned(),
            batch,
            asked: 0,
            settled: 0,
        }
    }

    pub(super) fn room(&self) -> usize {
        if self.asked == 0 { self.batch } else { 0 }
    }

    pub(super) fn put(
        &mut self,
        count: usize,
        event_bytes: usize,
        mut write: impl FnMut(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) {
        // A line end each, except for a single event.
        let separator_bytes = usize::from(self.batch > 1);
        let body_bytes = count * (event_bytes + separator_bytes);
        out.extend(request_head("POST", "/v1/sync", &self.host, body_bytes));
        for _ in 0..count {
            write(out);
            out.extend_from_slice(&b"\n"[..separator_bytes]);
        }
        self.asked = count as u64;
    }

    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut on_answer: impl FnMut(Answer),
    ) -> Result<(), WireError> {
        self.reader.push(bytes);
        while let Some(answer) = self
            .reader
            .next()
            .map_err(|bad| WireError::Garbled(bad.to_string()))?
        {
            if self.asked == 0 {
                return Err(WireError::Garbled("an answer to no request".to_owned()));
            }
            for (code, count) in refusals(&answer, self.asked) {
                on_answer(Answer::Refused { count, code });
            }
            self.settled += std::mem::take(&mut self.asked);
            on_answer(Answer::Settled { seq: self.settled });
        }
        Ok(())
    }
}

/// How many of the events asked were refused, by code.
fn refusals(answer: &HttpAnswer<'_>, asked: u64) -> BTreeMap<String, u64> {
    let mut refused = BTreeMap::new();
    if answer.status != 202 {
        refused.insert(format!("http_{}", answer.status), asked);
        return refused;
    }
    // A single event that got its 202 was taken; nothing needs to be parsed.
    if asked == 1 || !contains(answer.body, b"\"refused\"") {
        return refused;
    }
    let body: Value = serde_json::from_slice(answer.body).unwrap_or_default();
    for item in body["results"].as_array().into_iter().flatten() {
        if item["status"] == "refused" {
            let code = item["code"].as_str().unwrap_or("unknown").to_owned();
            *refused.entry(code).or_default() += 1;
        }
    }
    refused
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(batch: usize) -> Http {
        let mut http = Http::new("h", batch);
        assert_eq!(http.room(), batch);
        let mut out = Vec::new();
        http.put(batch, 2, |out| out.extend_from_slice(b"{}"), &mut out);
        assert_eq!(http.room(), 0);
        let length = if batch == 1 { 2 } else { batch * 3 };
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains(&format!("Content-Length: {length}\r\n")));
        http
    }

    fn answers(http: &mut Http, status: &str, body: &str) -> Vec<Answer> {
        let mut seen = Vec::new();
        let text = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        http.read(text.as_bytes(), |answer| seen.push(answer))
            .unwrap();
        seen
    }

    #[test]
    fn a_202_settles_the_request_and_makes_room() {
        let mut http = asked(1);
        let seen = answers(&mut http, "202 Accepted", "{\"status\":\"queued\"}");
        assert_eq!(seen, [Answer::Settled { seq: 1 }]);
        assert_eq!(http.room(), 1);
    }

    #[test]
    fn refused_items_of_a_list_are_counted_by_code() {
        let mut http = asked(3);
        let body = r#"{"results":[{"status":"queued"},{"status":"refused","code":"schema"},
                       {"status":"refused","code":"schema"}]}"#;
        let refused = Answer::Refused {
            count: 2,
            code: "schema".to_owned(),
        };
        let seen = answers(&mut http, "202 Accepted", body);
        assert_eq!(seen, [refused, Answer::Settled { seq: 3 }]);
    }

    #[test]
    fn another_status_refuses_all_it_asked() {
        let mut http = asked(2);
        let refused = Answer::Refused {
            count: 2,
            code: "http_503".to_owned(),
        };
        let seen = answers(&mut http, "503 Busy", "{}");
        assert_eq!(seen, [refused, Answer::Settled { seq: 2 }]);
    }
}
