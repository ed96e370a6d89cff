//! Each call ends in a reply or in a failure that says truly whether the request had left.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use engine::provider::{BodyEnd, CallKind, Method, NoReply, NotSent, Reply, Request, SendFailure};
use syncline_net::egress::{
    Account, AccountSettings, AddressPolicy, Authorization, Egress, EgressSettings, HeaderSettings,
    Origin,
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n{\"id\":1}";

// A scripted server: each connection runs the script on a thread of its own.

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn new(script: impl Fn(TcpStream) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let script = Arc::new(script);
        let counter = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                counter.fetch_add(1, Ordering::SeqCst);
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(stream.unwrap()));
            }
        });
        Server {
            address,
            connections,
        }
    }

    /// Answers every request with the same bytes, on one connection for as long as it is asked.
    fn answering(reply: impl Into<Vec<u8>>) -> Server {
        let reply = reply.into();
        Server::new(move |mut stream| {
            while read_request(&mut stream).is_some() {
                stream.write_all(&reply).unwrap();
            }
        })
    }

    /// Answers the first request of each connection with these bytes and hangs up.
    fn answering_once(reply: impl Into<Vec<u8>>) -> Server {
        let reply = reply.into();
        Server::new(move |mut stream| {
            read_request(&mut stream);
            // The client may have hung up first, at a cap.
            stream.write_all(&reply).ok();
        })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Head and body of the next request; `None` when the client hung up.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(text[..end].to_vec()).unwrap();
            let body = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if text.len() >= end + 4 + body.map_or(0, |length| length.parse().unwrap()) {
                return Some(String::from_utf8(text).unwrap());
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
        }
    }
}

/// Writes `text` a byte at a time until it is done or the client hung up; whether it was done.
fn drip(stream: &mut TcpStream, text: &[u8]) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    for byte in text {
        if stream.write_all(&[*byte]).is_err() || matches!(stream.read(&mut [0]), Ok(0)) {
            return false;
        }
    }
    true
}

fn signal() -> (SyncSender<()>, Receiver<()>) {
    sync_channel(16)
}

fn settings(base_url: &str) -> AccountSettings {
    AccountSettings {
        origin: Origin::parse(base_url).unwrap(),
        addresses: AddressPolicy::Any,
        authorization: Authorization::None,
        headers: HeaderSettings::default(),
        ca_file: None,
        connections_max: 4,
        timeout: Duration::from_secs(20),
    }
}

fn egress() -> Egress {
    Egress::new(EgressSettings {
        idle_max: Duration::from_secs(60),
        ..EgressSettings::default()
    })
}

fn account(base_url: &str) -> Account {
    egress().account(settings(base_url)).unwrap()
}

fn patch(body: &str) -> Request {
    Request {
        kind: CallKind::Update,
        method: Method::Patch,
        path_and_query: "/contact/7".to_owned(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        idempotency_key: Some("01J.2".to_owned()),
        request_id: "r-1".to_owned(),
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
    }
}

fn get() -> Request {
    Request {
        kind: CallKind::Read,
        method: Method::Get,
        path_and_query: "/contact?external_id=c%2F1".to_owned(),
        body: Bytes::new(),
        idempotency_key: None,
        request_id: String::new(),
        traceparent: None,
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

fn call_once(settings: AccountSettings) -> Result<Reply, SendFailure> {
    let egress = egress();
    let account = egress.account(settings).unwrap();
    run(egress.call(&account, &patch("{}")))
}

fn before(result: Result<Reply, SendFailure>) -> NotSent {
    match result {
        Err(SendFailure::BeforeSent { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

fn after(result: Result<Reply, SendFailure>) -> NoReply {
    match result {
        Err(SendFailure::AfterSent { cause, .. }) => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_goes_out_with_the_accounts_headers_and_its_own() {
    let (seen, requests) = sync_channel(4);
    let server = Server::new(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            seen.send(request).unwrap();
            stream.write_all(OK.as_bytes()).unwrap();
        }
    });
    let egress = egress();
    let token = Authorization::Bearer {
        token: "t0k".to_owned(),
    };
    let base_url = format!("{}/api/v2/", server.url());
    let account = egress
        .account(AccountSettings {
            authorization: token,
            ..settings(&base_url)
        })
        .unwrap();
    run(async {
        egress.call(&account, &patch("{\"a\":1}")).await.unwrap();
        let key = Authorization::ApiKey {
            header: "X-Key".to_owned(),
            value: "k".to_owned(),
        };
        account.authorize(&key).unwrap();
        egress.call(&account, &get()).await.unwrap();
    });
    let host = server.address;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        requests.recv().unwrap(),
        format!(
            "PATCH /api/v2/contact/7 HTTP/1.1\r\nhost: {host}\r\nuser-agent: syncline/{version}\r\n\
             accept: application/json\r\naccept-encoding: identity\r\nauthorization: Bearer t0k\r\n\
             content-type: application/json\r\nidempotency-key: 01J.2\r\nx-request-id: r-1\r\n\
             traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
             content-length: 7\r\n\r\n{{\"a\":1}}"
        )
    );
    assert_eq!(
        requests.recv().unwrap(),
        format!(
            "GET /api/v2/contact?external_id=c%2F1 HTTP/1.1\r\nhost: {host}\r\nuser-agent: syncline/{version}\r\n\
             accept: application/json\r\naccept-encoding: identity\r\nx-key: k\r\n\r\n"
        )
    );
}

#[test]
fn a_reply_is_status_body_and_the_headers_that_matter() {
    type Row = (
        &'static str,
        u16,
        Option<&'static str>,
        Option<&'static str>,
        &'static str,
    );
    let rows: [Row; 5] = [
        (OK, 200, None, None, "{\"id\":1}"),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, None, None, ""),
        (
            "HTTP/1.1 503 x\r\nRetry-After: 7\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-length: 0\r\n\r\n",
            503,
            Some("7"),
            Some("Sun, 06 Nov 1994 08:49:37 GMT"),
            "",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{\"a\r\n4\r\n\":1}\r\n0\r\nx: y\r\n\r\n",
            200,
            None,
            None,
            "{\"a\":1}",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 418 x\r\ncontent-length: 2\r\n\r\nno",
            418,
            None,
            None,
            "no",
        ),
    ];
    for (text, status, retry_after, date, body) in rows {
        let server = Server::answering(text);
        let egress = egress();
        let account = egress.account(settings(&server.url())).unwrap();
        run(async {
            for _ in 0..3 {
                let reply = egress.call(&account, &patch("{}")).await.unwrap();
                assert_eq!(reply.status, status);
                assert_eq!(reply.retry_after.as_deref(), retry_after);
                assert_eq!(reply.date.as_deref(), date);
                assert_eq!(reply.body, body);
                assert_eq!(reply.body_end, BodyEnd::Complete);
            }
        });
        assert_eq!(server.connections(), 1, "kept alive: {text}");
        assert_eq!(account.idle_connections(), 1);
    }
}

#[test]
fn a_definition_has_headers_of_its_own_and_reads_those_it_names() {
    let (seen, requests) = sync_channel(4);
    let server = Server::new(move |mut stream| {
        while let Some(request) = read_request(&mut stream) {
            seen.send(request).unwrap();
            let long = "x".repeat(257);
            let reply = format!(
                "HTTP/1.1 200 OK\r\nSforce-Limit-Info: api-usage=22/15000\r\nx-long: {long}\r\n\
                 date: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-ratelimit-remaining: 7\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(reply.as_bytes()).unwrap();
        }
    });
    let egress = egress();
    let text = |text: &str| text.to_owned();
    let account = egress
        .account(AccountSettings {
            headers: HeaderSettings {
                sent: vec![
                    (text("accept"), text("application/vnd.api+json")),
                    (text("content-type"), text("application/vnd.api+json")),
                ],
                kept: vec![text("sforce-limit-info"), text("x-long"), text("x-absent")],
                signer: None,
            },
            ..settings(&server.url())
        })
        .unwrap();
    run(async {
        let reply = egress.call(&account, &patch("{}")).await.unwrap();
        let header = |name| reply.headers.value(name);
        assert_eq!(header("sforce-limit-info"), Some("api-usage=22/15000"));
        assert_eq!(header("x-long"), None);
        assert_eq!(header("x-absent"), None);
        assert_eq!(header("x-ratelimit-remaining"), None, "nobody named it");
        assert!(reply.date.is_some());
        egress.call(&account, &get()).await.unwrap();
    });
    let with_body = requests.recv().unwrap();
    assert_eq!(with_body.matches("application/vnd.api+json").count(), 2);
    assert!(!with_body.contains("application/json"));
    assert!(!requests.recv().unwrap().contains("content-type"));

    let refused = egress.account(AccountSettings {
        headers: HeaderSettings {
            sent: vec![(text("a b"), text("x"))],
            kept: Vec::new(),
            signer: None,
        },
        ..settings(&server.url())
    });
    assert_eq!(
        refused.err().map(|error| error.to_string()),
        Some(text("`a b` cannot be a header"))
    );
}

#[test]
fn a_reply_that_ends_with_its_connection_is_whole_and_the_connection_is_not_used_again() {
    for text in [
        "HTTP/1.1 200 OK\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let server = Server::answering_once(text);
        let egress = egress();
        let account = egress.account(settings(&server.url())).unwrap();
        for _ in 0..2 {
            let reply = run(egress.call(&account, &patch("{}"))).unwrap();
            assert_eq!(
                (&reply.body[..], reply.body_end),
                (&b"{}"[..], BodyEnd::Complete)
            );
            assert_eq!(account.idle_connections(), 0);
        }
        assert_eq!(server.connections(), 2);
    }
}

#[test]
fn calls_beyond_the_connections_wait_for_one() {
    let server = Server::answering(OK);
    let egress = egress();
    let account = egress
        .account(AccountSettings {
            connections_max: 2,
            ..settings(&server.url())
        })
        .unwrap();
    run(async {
        let request = patch("{}");
        let call = || async { egress.call(&account, &request).await.unwrap().status };
        let all = tokio::join!(call(), call(), call(), call(), call(), call());
        assert_eq!(all, (200, 200, 200, 200, 200, 200));
    });
    assert!(server.connections() <= 2);
    assert!(account.idle_connections() <= 2);
}

#[test]
fn an_idle_connection_that_the_server_closed_is_replaced_unnoticed() {
    for reset in [false, true] {
        let (closed, is_closed) = signal();
        let server = Server::new(move |mut stream| {
            read_request(&mut stream).unwrap();
            stream.write_all(OK.as_bytes()).unwrap();
            if reset {
                // With unread bytes of ours in its buffer a socket closes with a reset.
                rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
            }
            drop(stream);
            closed.send(()).unwrap();
        });
        let egress = egress();
        let account = egress.account(settings(&server.url())).unwrap();
        run(async {
            for _ in 0..3 {
                assert_eq!(
                    egress.call(&account, &patch("{}")).await.unwrap().status,
                    200
                );
                is_closed.recv().unwrap();
                // Long enough for the probe, which busy connections are spared.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        assert_eq!(server.connections(), 3);
    }
}

#[test]
fn an_idle_connection_with_bytes_nobody_asked_for_is_not_used() {
    let (written, is_written) = signal();
    let server = Server::new(move |mut stream| {
        read_request(&mut stream).unwrap();
        stream.write_all(OK.as_bytes()).unwrap();
        stream
            .write_all(b"HTTP/1.1 500 poison\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        written.send(()).unwrap();
        read_request(&mut stream);
    });
    let egress = egress();
    let account = egress.account(settings(&server.url())).unwrap();
    run(async {
        for _ in 0..2 {
            assert_eq!(
                egress.call(&account, &patch("{}")).await.unwrap().status,
                200
            );
            is_written.recv().unwrap();
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_idle_for_too_long_is_not_used_again() {
    let server = Server::answering(OK);
    let egress = Egress::new(EgressSettings {
        idle_max: Duration::ZERO,
        ..EgressSettings::default()
    });
    let account = egress.account(settings(&server.url())).unwrap();
    run(async {
        egress.call(&account, &patch("{}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(account.idle_connections(), 1);
        egress.call(&account, &patch("{}")).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
        egress.close_idle(&account);
        assert_eq!(account.idle_connections(), 0);
    });
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_closed_after_the_request_is_an_unknown_outcome_and_never_sent_again() {
    let server = Server::new(|mut stream| {
        read_request(&mut stream);
    });
    assert_eq!(after(call_once(settings(&server.url()))), NoReply::Closed);
    assert_eq!(server.connections(), 1);

    // The same on a connection that had worked before.
    let server = Server::new(|mut stream| {
        read_request(&mut stream);
        stream.write_all(OK.as_bytes()).unwrap();
        read_request(&mut stream);
    });
    let egress = egress();
    let account = egress.account(settings(&server.url())).unwrap();
    run(async {
        egress.call(&account, &patch("{}")).await.unwrap();
        assert_eq!(
            after(egress.call(&account, &patch("{}")).await),
            NoReply::Closed
        );
    });
    assert_eq!(server.connections(), 1);
    assert_eq!(account.idle_connections(), 0);
}

#[test]
fn a_head_that_breaks_off_is_no_reply() {
    for head in [
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n",
    ] {
        let server = Server::answering_once(head);
        assert_eq!(
            after(call_once(settings(&server.url()))),
            NoReply::Closed,
            "{head}"
        );
    }
}

#[test]
fn what_is_not_http_or_has_a_head_over_the_cap_is_no_reply() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(64 * 1024));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let endless = format!("HTTP/1.1 200 {}", "y".repeat(1 << 20));
    for text in [
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        long.as_str(),
        many.as_str(),
        endless.as_str(),
    ] {
        let server = Server::answering_once(text);
        let shown = &text[..text.len().min(60)];
        assert_eq!(
            after(call_once(settings(&server.url()))),
            NoReply::Malformed,
            "{shown}"
        );
    }
}

#[test]
fn a_body_that_breaks_off_keeps_its_status() {
    for text in [
        "HTTP/1.1 422 x\r\ncontent-length: 8\r\n\r\n{\"id",
        "HTTP/1.1 422 x\r\ncontent-length: 99999999999999\r\n\r\n{\"id",
        "HTTP/1.1 422 x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"id\r\n",
        "HTTP/1.1 422 x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{\"id\r\nZZ\r\n",
    ] {
        let server = Server::answering_once(text);
        let reply = call_once(settings(&server.url())).unwrap();
        assert_eq!(
            (reply.status, reply.body_end),
            (422, BodyEnd::Broken),
            "{text}"
        );
        assert_eq!(&reply.body[..], b"{\"id", "{text}");
    }
}

#[test]
fn a_body_over_the_cap_is_cut_and_its_connection_closed() {
    const CAP: usize = 10_000;
    let body = "x".repeat(CAP + 1);
    let chunks: String = (0..64)
        .map(|_| format!("100\r\n{}\r\n", "x".repeat(256)))
        .collect();
    for text in [
        format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            CAP + 1
        ),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", body.repeat(200)),
        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunks}"),
    ] {
        let server = Server::answering_once(text);
        let egress = Egress::new(EgressSettings {
            body_bytes_max: CAP,
            ..EgressSettings::default()
        });
        let account = egress.account(settings(&server.url())).unwrap();
        let reply = run(egress.call(&account, &patch("{}"))).unwrap();
        assert_eq!(
            (reply.status, reply.body_end, reply.body.len()),
            (200, BodyEnd::TooLarge, CAP)
        );
        assert_eq!(account.idle_connections(), 0);
    }

    let whole = Server::answering(format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {CAP}\r\n\r\n{}",
        &body[..CAP]
    ));
    let egress = Egress::new(EgressSettings {
        body_bytes_max: CAP,
        ..EgressSettings::default()
    });
    let account = egress.account(settings(&whole.url())).unwrap();
    let reply = run(egress.call(&account, &patch("{}"))).unwrap();
    assert_eq!((reply.body_end, reply.body.len()), (BodyEnd::Complete, CAP));
}

#[test]
fn a_slow_drip_ends_at_the_deadline_and_says_how_far_it_came() {
    let (gone, is_gone) = signal();
    let in_head = Server::new(move |mut stream| {
        read_request(&mut stream);
        let head = format!("HTTP/1.1 200 {}", "x".repeat(10_000));
        assert!(!drip(&mut stream, head.as_bytes()));
        gone.send(()).unwrap();
    });
    let timeout = Duration::from_millis(100);
    let late = AccountSettings {
        timeout,
        ..settings(&in_head.url())
    };
    assert_eq!(after(call_once(late)), NoReply::Deadline);
    is_gone.recv().expect("the deadline closed the connection");

    let in_body = Server::new(|mut stream| {
        read_request(&mut stream);
        stream
            .write_all(b"HTTP/1.1 500 x\r\ncontent-length: 10000\r\n\r\n")
            .unwrap();
        drip(&mut stream, "x".repeat(10_000).as_bytes());
    });
    let late = AccountSettings {
        timeout,
        ..settings(&in_body.url())
    };
    let reply = call_once(late).unwrap();
    assert_eq!((reply.status, reply.body_end), (500, BodyEnd::Deadline));
    assert!(reply.body.len() < 10_000);
}

#[test]
fn a_dropped_call_closes_its_connection() {
    let (asked, is_asked) = signal();
    let (gone, is_gone) = signal();
    let server = Server::new(move |mut stream| {
        read_request(&mut stream).unwrap();
        asked.send(()).unwrap();
        assert_eq!(read_request(&mut stream), None);
        gone.send(()).unwrap();
    });
    let egress = egress();
    let account = egress.account(settings(&server.url())).unwrap();
    run(async {
        let request = patch("{}");
        let was_asked = async {
            while is_asked.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            reply = egress.call(&account, &request) => panic!("{reply:?}"),
            () = was_asked => {}
        }
    });
    is_gone.recv().unwrap();
    assert_eq!(account.idle_connections(), 0);
}

#[test]
fn a_host_that_cannot_be_reached_was_not_sent_to() {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert_eq!(
        before(call_once(settings(&format!("http://{closed}")))),
        NotSent::Connect
    );

    let nowhere = settings("http://no-such-host.invalid");
    assert_eq!(before(call_once(nowhere)), NotSent::Resolve);
}

#[test]
fn a_name_is_resolved_when_it_connects() {
    let server = Server::answering(OK);
    let by_name = format!("http://localhost:{}", server.address.port());
    assert_eq!(call_once(settings(&by_name)).unwrap().status, 200);
}

#[test]
fn an_address_that_is_not_admitted_is_not_connected_to() {
    let server = Server::answering(OK);
    for host in ["127.0.0.1", "localhost"] {
        let policy = AddressPolicy::Public {
            allow: Vec::new(),
            loopback: false,
        };
        let url = format!("http://{host}:{}", server.address.port());
        let private = AccountSettings {
            addresses: policy,
            ..settings(&url)
        };
        assert_eq!(before(call_once(private)), NotSent::Connect);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_redirect_is_a_reply_and_nobody_follows_it() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let location = elsewhere.local_addr().unwrap();
    for status in [301, 302, 303, 307, 308] {
        let server = Server::answering(format!(
            "HTTP/1.1 {status} x\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n"
        ));
        let authorization = Authorization::Bearer {
            token: "t0k".to_owned(),
        };
        let reply = call_once(AccountSettings {
            authorization,
            ..settings(&server.url())
        })
        .unwrap();
        assert_eq!(reply.status, status);
        assert_eq!(server.connections(), 1);
    }
    assert_eq!(
        elsewhere.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock
    );
}

#[test]
fn a_request_that_http_cannot_carry_is_refused_before_it_connects() {
    let server = Server::answering(OK);
    let account = account(&server.url());
    let breaks: [fn(&mut Request); 4] = [
        |request| request.path_and_query = "/a b\r\nx: y".to_owned(),
        |request| request.idempotency_key = Some("a\r\nb".to_owned()),
        |request| request.request_id = "a\nb".to_owned(),
        |request| request.traceparent = Some("\0".to_owned()),
    ];
    for break_it in breaks {
        let mut request = patch("{}");
        break_it(&mut request);
        assert_eq!(
            before(run(egress().call(&account, &request))),
            NotSent::Unsendable
        );
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn an_early_reply_to_a_large_request_is_read() {
    let server = Server::new(|mut stream| {
        let mut head = [0; 1024];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 413 x\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        while matches!(stream.read(&mut head), Ok(1..)) {}
    });
    let account = account(&server.url());
    let reply = run(egress().call(&account, &patch(&"x".repeat(4 << 20)))).unwrap();
    assert_eq!((reply.status, &reply.body[..]), (413, &b"no"[..]));
    assert_eq!(account.idle_connections(), 0);
}
