//! Deliveries over a socket of their own, in front of a sink that only remembers.

use std::collections::HashSet;
use std::num::NonZeroU32;

use engine::provider::{Change, Definition, shipped};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use net::http::{HttpLimits, WEBHOOK_BYTES_MAX, serve_webhooks};
use net::metrics::Metrics;
use ring::hmac;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;

const SECRET: &str = "the app's secret";
const PUBLIC: &str = "https://sync.example.com/hooks";
const NOW_MS: i64 = 1_795_168_800_000;

const EVENT: &str = r#"[{"eventId":1,"portalId":7,"occurredAt":1795168799000,"subscriptionType":"contact.propertyChange","attemptNumber":0,"objectId":42,"propertyName":"email","propertyValue":"a@b"}]"#;

/// Remembers what it took, and takes nothing while it is full.
#[derive(Debug, Default)]
struct Recorder {
    taken: Mutex<Vec<Change>>,
    known: Mutex<HashSet<String>>,
    full: Mutex<bool>,
}

impl InboundSink for Recorder {
    async fn take(&self, _: &str, via: Via, changes: Vec<Change>) -> Result<Taken, Refusal> {
        assert_eq!(via, Via::Webhook);
        if *lock(&self.full) {
            return Err(Refusal::new(Code::Overloaded, "not now"));
        }
        let mut taken = Taken::default();
        for change in changes {
            if change.object != "contacts" {
                taken.ignored += 1;
            } else if lock(&self.known).insert(change.delivery_id.clone()) {
                taken.new += 1;
                lock(&self.taken).push(change);
            } else {
                taken.duplicate += 1;
            }
        }
        Ok(taken)
    }

    async fn missed(&self, _: &str, object: &str, _: String) -> Result<(), Refusal> {
        unreachable!("a delivery misses nothing of {object}")
    }
}

/// A listener for webhooks alone, and the secrets of its one account.
struct Listener {
    sink: Arc<Recorder>,
    metrics: Metrics,
    address: std::net::SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Listener {
    async fn start(sink: Arc<Recorder>, secrets: &[&str], rate: u32) -> Listener {
        let metrics = Metrics::new(vec!["crm".to_owned()]);
        let definition = Definition::parse(shipped("hubspot").unwrap()).unwrap();
        let account = WebhookAccount {
            definition: definition.webhook().unwrap().clone(),
            signature: None,
            account: Some("7".to_owned()),
            secrets: secrets
                .iter()
                .map(|secret| Secret::new((*secret).to_owned()))
                .collect(),
            rate: Mutex::new(Rate::new(NonZeroU32::new(rate).unwrap().get())),
            label: metrics.account("crm"),
        };
        let accounts = BTreeMap::from([("crm".to_owned(), account)]);
        let intake = WebhookIntake::new(
            accounts,
            Some(&format!("{PUBLIC}/")),
            sink.clone(),
            metrics.writer(),
            || NOW_MS,
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let limits = HttpLimits::for_webhooks();
        tokio::spawn(serve_webhooks(listener, Arc::new(intake), limits, stopped));
        Listener {
            sink,
            metrics,
            address,
            _stop: stop,
        }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> u16 {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "sync.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(bytes::Bytes::copy_from_slice(body.as_bytes()));
        let answer = sender.send_request(request.body(body).unwrap());
        let answer = answer.await.unwrap();
        let status = answer.status().as_u16();
        drop(answer.into_body().collect().await);
        status
    }

    /// A delivery signed with a secret at a time.
    async fn deliver(&self, secret: &str, at_ms: i64, body: &str) -> u16 {
        let path = "/v1/webhooks/crm";
        let message = format!("POST{PUBLIC}{path}{body}{at_ms}");
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let signature = base64(hmac::sign(&key, message.as_bytes()).as_ref());
        let at = at_ms.to_string();
        let headers = [
            ("x-hubspot-signature-v3", signature.as_str()),
            ("x-hubspot-request-timestamp", at.as_str()),
        ];
        self.send("POST", path, &headers, body).await
    }

    fn counted(&self, result: &str) -> u64 {
        let series = format!("syncline_webhooks_total{{provider=\"crm\",result=\"{result}\"}} ");
        let text = self.metrics.render(&[], &[]);
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.map_or(0, |count| count.parse().unwrap())
    }
}

/// RFC 4648, section 4; written down here so that the code under test does not check itself.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = [0; 3];
        bits[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, bits[0], bits[1], bits[2]]);
        for place in 0..4 {
            let sextet = bits >> (18 - 6 * place) & 63;
            text.push(if place <= chunk.len() {
                char::from(LETTERS[sextet as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[tokio::test]
async fn a_signed_delivery_is_taken_once_however_often_it_comes_and_after_a_restart() {
    let sink = Arc::new(Recorder::default());
    let listener = Listener::start(sink.clone(), &[SECRET], 100).await;
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 200);
    let again = EVENT.replace("\"attemptNumber\":0", "\"attemptNumber\":1");
    assert_eq!(listener.deliver(SECRET, NOW_MS + 1, &again).await, 200);
    let restarted = Listener::start(sink.clone(), &[SECRET], 100).await;
    assert_eq!(restarted.deliver(SECRET, NOW_MS, EVENT).await, 200);
    assert_eq!(lock(&sink.taken).len(), 1);
    assert_eq!(
        (listener.counted("taken"), listener.counted("duplicate")),
        (1, 1)
    );
    let change = lock(&sink.taken)[0].clone();
    assert_eq!(change.remote_id, "42");
    assert_eq!(change.fields.as_deref(), Some(r#"{"email":"a@b"}"#));
}

#[tokio::test]
async fn what_is_not_signed_so_changes_nothing() {
    let listener = Listener::start(Arc::default(), &[SECRET], 100).await;
    assert_eq!(listener.deliver("guessed", NOW_MS, EVENT).await, 401);
    assert_eq!(
        listener.send("POST", "/v1/webhooks/crm", &[], EVENT).await,
        401
    );
    let stale_ms = NOW_MS - 300_001;
    assert_eq!(listener.deliver(SECRET, stale_ms, EVENT).await, 401);
    let other = EVENT.replace("\"portalId\":7", "\"portalId\":8");
    assert_eq!(listener.deliver(SECRET, NOW_MS, &other).await, 401);
    assert_eq!(
        (listener.counted("forged"), listener.counted("stale")),
        (3, 1)
    );
    assert_eq!(lock(&listener.sink.taken).len(), 0);
}

#[tokio::test]
async fn the_secret_before_is_good_while_it_is_listed() {
    let listener = Listener::start(Arc::default(), &["new", SECRET], 100).await;
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 200);
    assert_eq!(listener.deliver("new", NOW_MS, EVENT).await, 200);
}

#[tokio::test]
async fn nothing_is_acknowledged_that_is_not_durable() {
    let listener = Listener::start(Arc::default(), &[SECRET], 100).await;
    *lock(&listener.sink.full) = true;
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 503);
    *lock(&listener.sink.full) = false;
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 200);
    assert_eq!(
        (listener.counted("refused"), listener.counted("taken")),
        (1, 1)
    );
}

#[tokio::test]
async fn a_body_over_its_bound_is_refused_and_so_is_what_is_no_delivery() {
    let listener = Listener::start(Arc::default(), &[SECRET], 100).await;
    let large = " ".repeat(WEBHOOK_BYTES_MAX + 1);
    assert_eq!(listener.deliver(SECRET, NOW_MS, &large).await, 413);
    assert_eq!(listener.counted("too_large"), 1);
    assert_eq!(
        listener.deliver(SECRET, NOW_MS, "[{\"portalId\":7}]").await,
        200
    );
    assert_eq!(listener.counted("ignored"), 1);
}

#[tokio::test]
async fn the_listener_for_webhooks_answers_nothing_else() {
    let listener = Listener::start(Arc::default(), &[SECRET], 100).await;
    for (method, path, status) in [
        ("POST", "/v1/webhooks/other", 404),
        ("GET", "/v1/webhooks/crm", 405),
        ("POST", "/v1/sync", 404),
        ("GET", "/metrics", 404),
        ("GET", "/", 404),
    ] {
        assert_eq!(listener.send(method, path, &[], "").await, status, "{path}");
    }
}

#[tokio::test]
async fn an_account_delivers_no_faster_than_it_may_and_the_unsigned_do_not_count() {
    let listener = Listener::start(Arc::default(), &[SECRET], 2).await;
    for _ in 0..5 {
        assert_eq!(listener.deliver("guessed", NOW_MS, EVENT).await, 401);
    }
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 200);
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 200);
    assert_eq!(listener.deliver(SECRET, NOW_MS, EVENT).await, 429);
    assert_eq!(listener.counted("rate_limited"), 1);
}

#[test]
fn a_rate_counts_by_the_second() {
    let mut rate = Rate::new(2);
    let admitted: Vec<bool> = [0, 1, 999, 1000, 1001, 1002]
        .into_iter()
        .map(|at_ms| rate.admits(at_ms))
        .collect();
    assert_eq!(admitted, [true, true, false, true, true, false]);
}

#[test]
fn without_a_public_url_the_host_that_was_called_is_signed() {
    let metrics = Metrics::new(Vec::new());
    let sink = Arc::new(Recorder::default());
    let intake = WebhookIntake::new(BTreeMap::new(), None, sink, metrics.writer(), || NOW_MS);
    let delivery = WebhookDelivery {
        method: "POST".into(),
        path_and_query: "/v1/webhooks/crm?x=1".into(),
        host: "127.0.0.1:7401".into(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
    };
    assert_eq!(
        intake.uri(&delivery),
        "http://127.0.0.1:7401/v1/webhooks/crm?x=1"
    );
}
