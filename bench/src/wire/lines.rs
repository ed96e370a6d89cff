//! NDJSON over TCP.

use serde_json::Value;

use super::{Answer, WireError};

/// Cuts answers into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    pub(super) fn read(
        &mut self,
        bytes: &[u8],
        mut on_answer: impl FnMut(Answer),
    ) -> Result<(), WireError> {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|&b| b == b'\n') {
            let (line, after) = rest.split_at(end);
            rest = &after[1..];
            if self.partial.is_empty() {
                read_line(line, &mut on_answer)?;
            } else {
                self.partial.extend_from_slice(line);
                let line = std::mem::take(&mut self.partial);
                read_line(&line, &mut on_answer)?;
            }
        }
        if self.partial.len() + rest.len() > LINE_BYTES_MAX {
            return Err(WireError::Garbled("an endless line".to_owned()));
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }
}

/// No answer is longer: a reject quotes at most part of an event.
const LINE_BYTES_MAX: usize = 1 << 20;

fn read_line(line: &[u8], on_answer: &mut impl FnMut(Answer)) -> Result<(), WireError> {
    // The one answer sent in numbers.
    let ack = line
        .strip_prefix(b"{\"ack\":{\"seq\":")
        .and_then(|rest| rest.strip_suffix(b"}}"))
        .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
    if let Some(seq) = ack {
        on_answer(Answer::Settled { seq });
        return Ok(());
    }
    let garbled = || WireError::Garbled(String::from_utf8_lossy(line).into_owned());
    let value: Value = serde_json::from_slice(line).map_err(|_| garbled())?;
    if value.get("welcome").is_some() {
        on_answer(Answer::Welcome);
    } else if let Some(seq) = value.pointer("/ack/seq").and_then(Value::as_u64) {
        on_answer(Answer::Settled { seq });
    } else if let Some(reject) = value.get("reject") {
        on_answer(refused(reject));
    } else if let Some(error) = value.get("error") {
        return Err(WireError::Ended(error.to_string()));
    } else {
        return Err(garbled());
    }
    Ok(())
}

/// The refusal that the body of a reject tells.
pub(super) fn refused(reject: &Value) -> Answer {
    let code = reject["code"].as_str().unwrap_or("unknown").to_owned();
    Answer::Refused { count: 1, code }
}

pub(super) fn write_hello(producer: &str, out: &mut Vec<u8>) {
    let hello = serde_json::json!({ "hello": { "producer": producer } });
    out.extend_from_slice(hello.to_string().as_bytes());
    out.push(b'\n');
}

pub(super) fn put(count: usize, mut write: impl FnMut(&mut Vec<u8>), out: &mut Vec<u8>) {
    for _ in 0..count {
        write(out);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_wherever_the_stream_is_cut() {
        let stream = b"{\"welcome\":{\"producer\":\"b\",\"last_seq\":0}}\n\
                       {\"reject\":{\"seq\":2,\"code\":\"schema\",\"detail\":\"no\"}}\n\
                       {\"ack\":{\"seq\":17}}\n{\"ack\": {\"seq\": 18}}\n";
        for step in 1..stream.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                lines.read(piece, |answer| seen.push(answer)).unwrap();
            }
            let expected = [
                Answer::Welcome,
                Answer::Refused {
                    count: 1,
                    code: "schema".to_owned(),
                },
                Answer::Settled { seq: 17 },
                Answer::Settled { seq: 18 },
            ];
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn an_error_ends_the_session_and_nonsense_is_told() {
        let read = |bytes: &[u8]| Lines::default().read(bytes, |_| ());
        assert!(matches!(
            read(b"{\"error\":{\"code\":\"seq_gap\"}}\n"),
            Err(WireError::Ended(_))
        ));
        assert!(matches!(read(b"{}\n"), Err(WireError::Garbled(_))));
    }
}
