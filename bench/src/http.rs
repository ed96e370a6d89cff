//! As much HTTP/1.1 as loading and asking our own program takes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Cuts a stream of bytes into answers. It reads what servers of this project and nginx send:
/// `Content-Length`, no chunks.
#[derive(Debug, Default)]
pub(crate) struct AnswerReader {
    held: Vec<u8>,
    /// Bytes of `held` that were given out.
    used: usize,
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HttpAnswer<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a [u8],
}

/// The bytes are no answer this reader understands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadAnswer {
    #[error("no HTTP status line")]
    Status,
    #[error("no Content-Length")]
    Length,
    #[error("an answer of {0} bytes")]
    TooLong(usize),
}

/// Nothing asked for here answers with more.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Heads of our servers take a tenth of it.
const HEAD_BYTES_MAX: usize = 16 << 10;

impl AnswerReader {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..self.used);
        self.used = 0;
        self.held.extend_from_slice(bytes);
    }

    /// The next whole answer.
    pub(crate) fn next(&mut self) -> Result<Option<HttpAnswer<'_>>, BadAnswer> {
        let rest = &self.held[self.used..];
        let Some(head_len) = rest.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if rest.len() > HEAD_BYTES_MAX {
                Err(BadAnswer::TooLong(rest.len()))
            } else {
                Ok(None)
            };
        };
        let head = str::from_utf8(&rest[..head_len]).map_err(|_| BadAnswer::Status)?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.get(2..5)?.parse().ok())
            .ok_or(BadAnswer::Status)?;
        let length = lines
            .filter_map(|line| line.split_once(':'))
            .find_map(
                |(name, value)| match name.eq_ignore_ascii_case("content-length") {
                    true => value.trim().parse::<usize>().ok(),
                    false => None,
                },
            );
        let length = match (status, length) {
            (_, Some(length)) => length,
            (204 | 304, None) => 0,
            _ => return Err(BadAnswer::Length),
        };
        if length > ANSWER_BYTES_MAX {
            return Err(BadAnswer::TooLong(length));
        }
        let start = self.used + head_len + 4;
        if self.held.len() < start + length {
            return Ok(None);
        }
        self.used = start + length;
        Ok(Some(HttpAnswer {
            status,
            body: &self.held[start..start + length],
        }))
    }
}

/// A blocking connection for single questions.
#[derive(Debug)]
pub(crate) struct Asker {
    stream: TcpStream,
    addr: SocketAddr,
}

impl Asker {
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Asker> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Asker { stream, addr })
    }

    /// Asks and waits for the answer: its status and body.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        json: &[u8],
    ) -> io::Result<(u16, Vec<u8>)> {
        let mut request = request_head(method, path, &self.addr.to_string(), json.len());
        request.extend_from_slice(json);
        self.stream.write_all(&request)?;
        let mut reader = AnswerReader::default();
        let mut buffer = [0; 8192];
        loop {
            let n = self.stream.read(&mut buffer)?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            reader.push(&buffer[..n]);
            let answer = reader
                .next()
                .map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))?;
            if let Some(HttpAnswer { status, body }) = answer {
                return Ok((status, body.to_vec()));
            }
        }
    }
}

/// Our program answers single questions in milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// The head of a request with a JSON body.
pub(crate) fn request_head(method: &str, path: &str, host: &str, body_bytes: usize) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {body_bytes}\r\n\r\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_whole_wherever_the_stream_is_cut() {
        let stream = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}\
                       HTTP/1.1 204 No Content\r\n\r\n\
                       HTTP/1.1 503 Busy\r\nContent-Length: 3\r\n\r\nabc";
        for step in 1..stream.len() {
            let mut reader = AnswerReader::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                reader.push(piece);
                while let Some(answer) = reader.next().unwrap() {
                    seen.push((answer.status, answer.body.to_vec()));
                }
            }
            let expected = [
                (202, b"{}".to_vec()),
                (204, Vec::new()),
                (503, b"abc".to_vec()),
            ];
            assert_eq!(seen, expected, "cut every {step}");
        }
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let read = |bytes: &[u8]| {
            let mut reader = AnswerReader::default();
            reader.push(bytes);
            reader.next().map(|answer| answer.is_some())
        };
        assert_eq!(read(b"{\"ack\":1}\r\n\r\n"), Err(BadAnswer::Status));
        assert_eq!(read(b"HTTP/1.1 200 OK\r\n\r\n"), Err(BadAnswer::Length));
        assert_eq!(
            read(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"),
            Err(BadAnswer::TooLong(99_999_999))
        );
        assert_eq!(read(b"HTTP/1.1 200 OK\r\nContent-Le"), Ok(false));
    }
}
