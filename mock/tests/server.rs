//! The account behind a real socket.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking"
)]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use syncline_mock::{AccountConfig, Server, ServerConfig, ServerHandle};

/// Long enough that only a server that hangs runs into it.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(faults: &str) -> ServerHandle {
    let account = AccountConfig {
        faults: faults.parse().unwrap(),
        ..AccountConfig::default()
    };
    Server::start(ServerConfig {
        account,
        ..ServerConfig::default()
    })
    .unwrap()
}

/// A client that keeps its connection.
struct Client<S: Read + Write>(BufReader<S>);

impl Client<TcpStream> {
    fn connect(server: &ServerHandle) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }
}

impl<S: Read + Write> Client<S> {
    fn send(&mut self, method: &str, target: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: mock\r\nContent-Length: {length}\r\n\
             Idempotency-Key: op-1\r\n\r\n{body}"
        );
        self.0.get_mut().write_all(request.as_bytes())
    }

    /// Status, head and body of the next response.
    fn receive(&mut self) -> io::Result<(u16, String, Value)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.0.read_line(&mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let head = head.to_ascii_lowercase();
        let status = head[9..12].parse().unwrap();
        let length = head.split("content-length: ").nth(1).map_or(0, |rest| {
            rest.split("\r\n").next().unwrap().parse().unwrap()
        });
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((
            status,
            head,
            serde_json::from_slice(&body).unwrap_or_default(),
        ))
    }

    fn call(&mut self, method: &str, target: &str, body: &str) -> io::Result<(u16, Value)> {
        self.send(method, target, body)?;
        self.receive().map(|(status, _, body)| (status, body))
    }
}

#[test]
fn one_connection_serves_many_calls() {
    let server = start("");
    let mut client = Client::connect(&server);
    let created = client
        .call("POST", "/contact", "{\"external_id\":\"c-1\"}")
        .unwrap();
    assert_eq!(created, (201, json!({"id": "r1"})));
    assert_eq!(
        client.call("DELETE", "/contact/r1", "").unwrap(),
        (204, Value::Null)
    );
    let journal = client.call("GET", "/__mock/journal", "").unwrap().1;
    assert_eq!(journal["calls"][0]["idempotency_key"], "op-1");
    assert_eq!(journal["calls"][1]["status"], 204);
    assert_eq!(journal["next"], Value::Null);
    let (at, done) = (
        &journal["calls"][0]["at_ms"],
        &journal["calls"][0]["done_ms"],
    );
    assert!(at.as_u64().unwrap() <= done.as_u64().unwrap());
}

#[test]
fn a_reset_is_a_reset_on_the_wire() {
    for (faults, records) in [("reset_before=1", 0), ("reset_after=1", 1)] {
        let server = start(faults);
        let mut client = Client::connect(&server);
        let error = client
            .call("POST", "/contact", "{\"external_id\":\"c-1\"}")
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{faults}");
        let held = server.with_account(|_, account| account.records().count());
        assert_eq!(held, records, "{faults}");
    }
}

#[test]
fn a_limit_is_answered_with_429_and_retry_after() {
    let account = AccountConfig {
        limits: vec!["1/1h".parse().unwrap()],
        ..AccountConfig::default()
    };
    let server = Server::start(ServerConfig {
        account,
        ..ServerConfig::default()
    })
    .unwrap();
    let mut client = Client::connect(&server);
    assert_eq!(client.call("GET", "/contact/r1", "").unwrap().0, 404);
    client.send("GET", "/contact/r1", "").unwrap();
    let (status, head, _) = client.receive().unwrap();
    assert_eq!(status, 429);
    assert!(head.contains("retry-after: 3600\r\n") || head.contains("retry-after: 3599\r\n"));
    let counted = client.call("GET", "/__mock/violations", "").unwrap().1;
    assert_eq!(counted["by_limit"], json!({"1/1h": 1}));
}

#[test]
fn an_answer_waits_out_its_latency_while_others_are_served() {
    let server = start("latency=150ms");
    let mut slow = Client::connect(&server);
    slow.send("PUT", "/contact/external/c-1", "{}").unwrap();
    let mut other = Client::connect(&server);
    loop {
        let open = other.call("GET", "/__mock/journal", "").unwrap().1;
        match open["calls"].as_array().unwrap().as_slice() {
            [] => continue,
            [call] => {
                assert_eq!(
                    (&call["done_ms"], &call["status"]),
                    (&Value::Null, &json!(0))
                );
                break;
            }
            more => panic!("{more:?}"),
        }
    }
    assert_eq!(slow.receive().unwrap().0, 201);
    let call = server
        .with_account(|_, account| account.journal().get(1).cloned())
        .unwrap();
    assert!(call.done.unwrap() - call.at >= Duration::from_millis(150));
}

#[test]
fn a_caller_that_hangs_up_ends_its_call_without_a_status() {
    let server = start("latency=1h");
    let mut client = Client::connect(&server);
    client.send("PUT", "/contact/external/c-1", "{}").unwrap();
    let call =
        |server: &ServerHandle| server.with_account(|_, account| account.journal().get(1).cloned());
    while call(&server).is_none() {
        std::thread::yield_now();
    }
    drop(client);
    let ended = loop {
        if let Some(call) = call(&server).filter(|call| call.done.is_some()) {
            break call;
        }
        std::thread::yield_now();
    };
    assert_eq!((ended.status, ended.applied), (0, true));
}

#[test]
fn a_body_beyond_the_bound_is_refused_unread() {
    let server = start("");
    let mut client = Client::connect(&server);
    let head = format!(
        "POST /contact HTTP/1.1\r\nHost: mock\r\nContent-Length: {}\r\n\r\n",
        1 << 30
    );
    client.0.get_mut().write_all(head.as_bytes()).unwrap();
    let chunk = vec![b' '; 1 << 20];
    let refused = (0..64).any(|_| client.0.get_mut().write_all(&chunk).is_err());
    let answer = client.receive();
    assert!(refused || answer.is_ok_and(|(status, ..)| status == 413));
    assert_eq!(
        server.with_account(|_, account| account.journal().after(0).count()),
        0
    );
}

#[test]
fn the_journal_file_has_a_line_for_each_ended_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.ndjson");
    let config = ServerConfig {
        journal: Some(path.clone()),
        ..ServerConfig::default()
    };
    let server = Server::start(config).unwrap();
    let mut client = Client::connect(&server);
    for n in 0..3 {
        let target = format!("/contact/external/c-{n}");
        client.call("PUT", &target, "{\n\"a\": 1}").unwrap();
    }
    server.stop();
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let shown: Vec<_> = rows
        .iter()
        .map(|row| row["external_id"].as_str().unwrap())
        .collect();
    assert_eq!(shown, ["c-0", "c-1", "c-2"]);
    assert_eq!(rows[0]["body"], json!({"a": 1}));
}

#[test]
fn the_journal_file_has_all_calls_that_ended_before_a_page_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.ndjson");
    let config = ServerConfig {
        journal: Some(path.clone()),
        ..ServerConfig::default()
    };
    let server = Server::start(config).unwrap();
    let mut client = Client::connect(&server);
    for n in 1..=5 {
        let target = format!("/contact/external/c-{n}");
        client.call("PUT", &target, "{\"a\": 1}").unwrap();
        client.call("GET", "/__mock/violations", "").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), n);
    }
    server.stop();
}

#[test]
fn a_port_that_is_taken_and_a_journal_that_cannot_be_opened_are_told() {
    let server = start("");
    let listen = server.addr();
    let error = Server::start(ServerConfig {
        listen,
        ..ServerConfig::default()
    })
    .unwrap_err();
    assert_eq!(error.to_string(), format!("listening on {listen}"));
    let journal = Some("/dev/null/x".into());
    let error = Server::start(ServerConfig {
        journal,
        ..ServerConfig::default()
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "opening the journal /dev/null/x");
}

#[test]
fn tls_is_served_under_the_ca_that_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let server = Server::start(ServerConfig {
        tls_ca: Some(ca.clone()),
        ..ServerConfig::default()
    })
    .unwrap();
    assert!(server.base_url().starts_with("https://127.0.0.1:"));

    let pem = std::fs::read(ca).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    use rustls_pki_types::pem::PemObject;
    roots
        .add(rustls_pki_types::CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for name in ["localhost", "127.0.0.1"] {
        let name = name.try_into().unwrap();
        let tls = rustls::ClientConnection::new(Arc::new(config.clone()), name).unwrap();
        let stream = TcpStream::connect(server.addr()).unwrap();
        let mut client = Client(BufReader::new(rustls::StreamOwned::new(tls, stream)));
        let answer = client.call("PUT", "/contact/external/c-1", "{}").unwrap();
        assert_eq!(answer.1, json!({"id": "r1"}));
    }
}
