//! HTTPS goes to a server that the account trusts, or not at all.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use engine::provider::{CallKind, Method, NotSent, Reply, Request, SendFailure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use syncline_net::egress::{
    AccountError, AccountSettings, AddressPolicy, Authorization, Egress, EgressSettings,
    HeaderSettings, Origin,
};
use tempfile::TempDir;

type Ca = CertifiedIssuer<'static, KeyPair>;
type Session = StreamOwned<ServerConnection, TcpStream>;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A server with a certificate for these names; each connection runs the script.
fn serve(ca: &Ca, names: &[&str], script: impl Fn(Session) + Send + 'static) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, ca)
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            script(StreamOwned::new(session, stream.unwrap()));
        }
    });
    address
}

fn answer(session: &mut Session) -> bool {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match session.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return false,
        }
    }
    session.write_all(OK).unwrap();
    true
}

fn ca_file(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, text).unwrap();
    path
}

fn settings(url: &str, ca_file: Option<PathBuf>) -> AccountSettings {
    AccountSettings {
        origin: Origin::parse(url).unwrap(),
        addresses: AddressPolicy::Any,
        authorization: Authorization::Bearer {
            token: "t0k".to_owned(),
        },
        headers: HeaderSettings::default(),
        ca_file,
        connections_max: 1,
        timeout: Duration::from_secs(20),
    }
}

fn call(settings: AccountSettings, times: usize) -> Result<Reply, SendFailure> {
    let request = Request {
        kind: CallKind::Read,
        method: Method::Get,
        path_and_query: "/contact/7".to_owned(),
        body: Bytes::new(),
        idempotency_key: None,
        request_id: String::new(),
        traceparent: None,
    };
    let egress = Egress::new(EgressSettings::default());
    let account = egress.account(settings).unwrap();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let mut reply = egress.call(&account, &request).await;
            for _ in 1..times {
                tokio::time::sleep(Duration::from_millis(2)).await;
                reply = egress.call(&account, &request).await;
            }
            reply
        })
}

fn refused(result: Result<Reply, SendFailure>) -> String {
    match result {
        Err(SendFailure::BeforeSent {
            cause: NotSent::Tls,
            detail,
        }) => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_ca_of_the_accounts_own_is_trusted_and_connections_are_kept() {
    let ca = ca();
    let folder = TempDir::new().unwrap();
    let (seen, protocols) = sync_channel(4);
    let address = serve(&ca, &["localhost", "127.0.0.1"], move |mut session| {
        let mut answered = 0;
        while answer(&mut session) {
            answered += 1;
        }
        let protocol = session.conn.alpn_protocol().map(<[u8]>::to_vec);
        seen.send((protocol, answered)).unwrap();
    });
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}", address.port());
        let trusting = settings(&url, Some(ca_file(&folder, &ca.pem())));
        assert_eq!(call(trusting, 3).unwrap().status, 200);
        assert_eq!(protocols.recv().unwrap(), (Some(b"http/1.1".to_vec()), 3));
    }
}

#[test]
fn an_idle_session_that_the_server_ended_is_replaced_unnoticed() {
    let ca = ca();
    let folder = TempDir::new().unwrap();
    for says_goodbye in [true, false] {
        let (seen, sessions) = sync_channel(4);
        let address = serve(&ca, &["localhost"], move |mut session| {
            assert!(answer(&mut session));
            if says_goodbye {
                session.conn.send_close_notify();
                session.flush().unwrap();
            }
            seen.send(()).unwrap();
        });
        let url = format!("https://localhost:{}", address.port());
        let trusting = settings(&url, Some(ca_file(&folder, &ca.pem())));
        assert_eq!(call(trusting, 3).unwrap().status, 200);
        assert_eq!(sessions.try_iter().count(), 3);
    }
}

#[test]
fn a_server_that_is_not_trusted_never_sees_the_request() {
    let ca = ca();
    let folder = TempDir::new().unwrap();
    let (seen, requests) = sync_channel(4);
    let address = serve(&ca, &["localhost"], move |mut session| {
        seen.send(answer(&mut session)).unwrap()
    });
    let by_name = format!("https://localhost:{}", address.port());

    // Unknown CA, another CA, another name.
    assert!(refused(call(settings(&by_name, None), 1)).contains("UnknownIssuer"));
    let other = ca_file(&folder, &self::ca().pem());
    refused(call(settings(&by_name, Some(other)), 1));
    let own = ca_file(&folder, &ca.pem());
    let by_address = format!("https://127.0.0.1:{}", address.port());
    refused(call(settings(&by_address, Some(own)), 1));
    for _ in 0..3 {
        assert!(!requests.recv().unwrap(), "a request arrived");
    }
}

#[test]
fn a_server_without_tls_is_not_spoken_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let mut seen = [0; 4096];
        let count = stream.read(&mut seen).unwrap();
        stream.write_all(OK).unwrap();
        String::from_utf8_lossy(&seen[..count]).into_owned()
    });
    refused(call(settings(&format!("https://{address}"), None), 1));
    assert!(!server.join().unwrap().contains("t0k"));
}

#[test]
fn a_handshake_that_does_not_come_ends_at_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let connect_timeout = Duration::from_millis(50);
    let egress = Egress::new(EgressSettings {
        connect_timeout,
        ..EgressSettings::default()
    });
    let account = egress.account(settings(&url, None)).unwrap();
    let request = Request {
        kind: CallKind::Read,
        method: Method::Get,
        path_and_query: "/".to_owned(),
        body: Bytes::new(),
        idempotency_key: None,
        request_id: String::new(),
        traceparent: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    refused(runtime.block_on(egress.call(&account, &request)));
}

#[test]
fn a_ca_file_that_holds_none_is_refused_by_name() {
    let folder = TempDir::new().unwrap();
    let egress = Egress::new(EgressSettings::default());
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for text in ["", "not PEM", broken] {
        let path = ca_file(&folder, text);
        let result = egress.account(settings("https://localhost", Some(path.clone())));
        assert!(matches!(result, Err(AccountError::CaFile { path: named, .. }) if named == path));
    }
    let missing = Some(folder.path().join("none"));
    let result = egress.account(settings("https://localhost", missing));
    assert!(matches!(result, Err(AccountError::CaFile { .. })));
}
