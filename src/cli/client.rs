//! Speaks to a running node's API: one blocking request at a time.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

use super::exit::Exit;

/// Where the API is.
#[derive(Debug, clap::Args)]
pub(crate) struct ApiArguments {
    /// The node's HTTP address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7401")]
    api: String,
}

/// A node's API.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    /// `host:port`, as the Host header and the resolver want it.
    authority: String,
    /// What stands before every path: empty, or `/prefix`.
    prefix: String,
    key: Option<String>,
}

/// The variable that has the key, so that it is in no list of processes.
const KEY_VARIABLE: &str = "SYNCLINE_API_KEY";

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nothing was sent.
    #[error("{0:?} is no address of an API: expected http://HOST:PORT")]
    Address(String),
    /// Nothing was sent.
    #[error("cannot reach the node at {authority}: {source}")]
    Unreachable {
        /// Whom it was meant for.
        authority: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The request may have had its effect.
    #[error("the node at {authority} did not answer: {source}")]
    NoAnswer {
        /// Whom it was meant for.
        authority: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The request may have had its effect.
    #[error("what answers at {0} is no Syncline")]
    Protocol(String),
    /// The node refused it; nothing changed.
    #[error("{detail} ({code})")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The problem's type, its last part.
        code: String,
        /// The node's words.
        detail: String,
    },
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A list over millions of operations takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// A page of 1,000 operations with 16 attempts each is well below this.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

impl ApiArguments {
    pub(crate) fn api(&self) -> Result<Api, ApiError> {
        let mut api = Api::parse(&self.api)?;
        api.key = std::env::var(KEY_VARIABLE).ok();
        Ok(api)
    }
}

impl Api {
    pub(crate) fn parse(url: &str) -> Result<Api, ApiError> {
        let wrong = || ApiError::Address(url.to_owned());
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return Err(wrong());
        }
        let authority = uri.authority().ok_or_else(wrong)?.as_str();
        if authority.contains('@') {
            return Err(wrong());
        }
        let authority = match uri.port_u16() {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:80"),
        };
        Ok(Api {
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            key: None,
        })
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.ask("GET", path, "")
    }

    pub(crate) fn delete(&self, path: &str) -> Result<Value, ApiError> {
        self.ask("DELETE", path, "")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.ask("POST", path, &body.to_string())
    }

    /// `body` is the text of a JSON value.
    pub(crate) fn patch(&self, path: &str, body: &str) -> Result<Value, ApiError> {
        self.ask("PATCH", path, body)
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<Value, ApiError> {
        let key = match &self.key {
            Some(key) if key.bytes().all(|byte| byte.is_ascii_graphic()) => {
                format!("X-Api-Key: {key}\r\n")
            }
            Some(_) | None => String::new(),
        };
        // 1.0, so that no answer comes in chunks and the end of it is the end of the stream.
        let request = format!(
            "{method} {}{path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n\
             {key}Content-Length: {}\r\n\r\n{body}",
            self.prefix,
            self.authority,
            body.len(),
        );
        let mut stream = self.connect()?;
        let mut answer = Vec::new();
        stream
            .write_all(request.as_bytes())
            .and_then(|()| stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer))
            .map_err(|source| ApiError::NoAnswer {
                authority: self.authority.clone(),
                source,
            })?;
        read_answer(&answer).ok_or_else(|| ApiError::Protocol(self.authority.clone()))?
    }

    fn connect(&self) -> Result<TcpStream, ApiError> {
        let unreachable = |source| ApiError::Unreachable {
            authority: self.authority.clone(),
            source,
        };
        let mut failed = std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
        for address in self.authority.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => {
                    stream
                        .set_read_timeout(Some(ANSWER_TIMEOUT))
                        .map_err(unreachable)?;
                    stream
                        .set_write_timeout(Some(ANSWER_TIMEOUT))
                        .map_err(unreachable)?;
                    return Ok(stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(unreachable(failed))
    }
}

impl ApiError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            ApiError::Address(_) => Exit::Usage,
            ApiError::Unreachable { .. } => Exit::Unavailable,
            ApiError::NoAnswer { .. } => Exit::TryLater,
            ApiError::Protocol(_) => Exit::Protocol,
            ApiError::Refused { status, .. } => match status {
                401 | 403 => Exit::NoPermission,
                404 | 501 => Exit::Unavailable,
                429 | 500.. => Exit::TryLater,
                _ => Exit::Data,
            },
        }
    }
}

/// `None` when this is no answer of an API like ours.
fn read_answer(answer: &[u8]) -> Option<Result<Value, ApiError>> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status: u16 = head
        .strip_prefix("HTTP/1.")?
        .split(' ')
        .nth(1)?
        .parse()
        .ok()?;
    let body: Value = serde_json::from_str(body).ok()?;
    if (200..300).contains(&status) {
        return Some(Ok(body));
    }
    // A list of which nothing was taken is an answer, not a problem.
    let code = body["type"]
        .as_str()?
        .strip_prefix("urn:syncline:problem:")?
        .to_owned();
    let detail = body["detail"].as_str()?.to_owned();
    Some(Err(ApiError::Refused {
        status,
        code,
        detail,
    }))
}

/// One part of a path, or a value in a query.
pub(crate) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("a String takes all that is written to it"),
        }
    }
    out
}

/// `path?a=1&b=2`, leaving out what is `None`.
pub(crate) fn with_query(path: &str, members: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    for (name, value) in members {
        if let Some(value) = value {
            out.push(if out.contains('?') { '&' } else { '?' });
            out.push_str(name);
            out.push('=');
            out.push_str(&encoded(value));
        }
    }
    out
}

#[cfg(test)]
pub(crate) mod canned {
    //! A node that gives prepared answers, one a connection.

    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::*;

    /// Each answer: status, then body. Joining gives the requests' first lines with their bodies.
    pub(crate) fn node(answers: Vec<(u16, Value)>) -> (Api, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let api = Api::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let thread = std::thread::spawn(move || {
            answers
                .into_iter()
                .map(|answer| converse(&listener, answer))
                .collect()
        });
        (api, thread)
    }

    fn converse(listener: &TcpListener, (status, body): (u16, Value)) -> String {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        let head = String::from_utf8(request).unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .unwrap();
        let mut sent = vec![0; length.parse().unwrap()];
        stream.read_exact(&mut sent).unwrap();
        write!(stream, "HTTP/1.1 {status} Whatever\r\n\r\n{body}").unwrap();
        let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.0");
        format!("{line} {}", String::from_utf8(sent).unwrap())
            .trim_end()
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses_are_told_from_other_text() {
        for (url, authority, prefix) in [
            ("http://127.0.0.1:7401", "127.0.0.1:7401", ""),
            ("http://[::1]:7401/", "[::1]:7401", ""),
            (
                "http://sync.example.com/api/",
                "sync.example.com:80",
                "/api",
            ),
        ] {
            let api = Api::parse(url).unwrap();
            assert_eq!(
                (api.authority.as_str(), api.prefix.as_str()),
                (authority, prefix)
            );
        }
        for url in [
            "https://127.0.0.1",
            "127.0.0.1:7401",
            "http://u:p@h",
            "http://h?x=1",
            "",
        ] {
            assert!(Api::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn a_problem_becomes_an_error_with_its_exit_status() {
        let problem = |code: &str| json!({"type": format!("urn:syncline:problem:{code}"), "detail": "in the node's words"});
        for (status, code, exit) in [
            (404, "not_found", Exit::Unavailable),
            (422, "invalid_field", Exit::Data),
            (403, "unauthorized", Exit::NoPermission),
            (503, "overloaded", Exit::TryLater),
            (501, "not_available", Exit::Unavailable),
        ] {
            let (api, thread) = canned::node(vec![(status, problem(code))]);
            let error = api.get("/x").unwrap_err();
            assert_eq!(error.exit(), exit);
            assert_eq!(error.to_string(), format!("in the node's words ({code})"));
            thread.join().unwrap();
        }
    }

    #[test]
    fn what_is_no_syncline_is_said_to_be_none() {
        for answer in [
            "",
            "SSH-2.0-x\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<html>",
            "HTTP/1.1 404 X\r\n\r\n{}",
        ] {
            assert!(read_answer(answer.as_bytes()).is_none(), "{answer}");
        }
    }

    #[test]
    fn paths_and_queries_carry_any_text() {
        assert_eq!(encoded("a/b c?ü"), "a%2Fb%20c%3F%C3%BC");
        assert_eq!(
            with_query(
                "/v1/dlq",
                &[("a", Some("x y")), ("b", None), ("c", Some("&"))]
            ),
            "/v1/dlq?a=x%20y&c=%26"
        );
    }
}
