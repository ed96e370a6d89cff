//! One connection, driven by the call that uses it.

mod wire;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::provider::{BodyEnd, NoReply, NotSent, Reply, ReplyHeaders, SendFailure};
use http::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;

use super::Account;
use super::account::RequestBody;
use wire::{Tap, Wire};

/// A request in the client library's terms.
pub(crate) type HttpRequest = http::Request<RequestBody>;

/// An open connection. There is no task behind it: it moves only while a call polls it, and goes
/// down with that call.
pub(crate) struct Connection {
    requests: http1::SendRequest<RequestBody>,
    driver: http1::Connection<TokioIo<Wire>, RequestBody>,
    /// The driver ended, with the connection; it must not be polled again.
    ended: bool,
    tap: Rc<Tap>,
}

/// How far a call has come; outlives the call's future, so that a deadline can tell.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Names of the reply headers to keep.
    keeps: Vec<HeaderName>,
    tap: Option<Rc<Tap>>,
    head: Option<Head>,
    body: Body,
}

#[derive(Debug)]
struct Head {
    status: u16,
    retry_after: Option<String>,
    date: Option<String>,
    kept: ReplyHeaders,
}

/// Most replies come in one piece, which is copied once; the read buffer is free for the next.
#[derive(Debug, Default)]
enum Body {
    #[default]
    Empty,
    Whole(Bytes),
    Pieces(BytesMut),
}

impl Connection {
    /// Resolves, connects and shakes hands.
    ///
    /// # Errors
    /// Always [`SendFailure::BeforeSent`].
    pub(crate) async fn open(account: &Account, by: Instant) -> Result<Connection, SendFailure> {
        let late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let addresses = timeout_at(by, account.resolver().addresses())
            .await
            .map_err(late)
            .flatten()
            .map_err(|error| not_sent(NotSent::Resolve, account.origin().host(), &error))?;
        let stream = connect_any(account, &addresses, by).await?;
        let wire = match account.tls() {
            None => Wire::plain(stream),
            Some((config, name)) => {
                let handshake =
                    TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
                let stream = timeout_at(by, handshake)
                    .await
                    .map_err(late)
                    .flatten()
                    .map_err(|error| not_sent(NotSent::Tls, account.origin().host(), &error))?;
                Wire::tls(stream)
            }
        };
        let tap = wire.tap();
        let (requests, driver) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(READ_BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(|error| not_sent(NotSent::Connect, account.origin().host(), &error))?;
        Ok(Connection {
            requests,
            driver,
            ended: false,
            tap,
        })
    }

    /// Sends `request` and reads its reply into `progress`; a body up to `body_bytes_max`.
    ///
    /// # Errors
    /// [`SendFailure::BeforeSent`] only if the connection took not one byte. With a head in
    /// `progress`, the failure is that of the body.
    pub(crate) async fn exchange(
        &mut self,
        request: HttpRequest,
        body_bytes_max: usize,
        progress: &mut Progress,
    ) -> Result<BodyEnd, SendFailure> {
        self.tap.restart();
        progress.tap = Some(Rc::clone(&self.tap));

        let mut response = pin!(self.requests.try_send_request(request));
        let response = poll_fn(|cx| {
            let driven = poll_driver(&mut self.driver, &mut self.ended, cx);
            match response.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(self.tap.failure(&error.into_error()))),
                Poll::Pending => match driven {
                    Poll::Ready(Err(error)) => Poll::Ready(Err(self.tap.failure(&error))),
                    Poll::Ready(Ok(())) => Poll::Ready(Err(self.tap.closed())),
                    Poll::Pending => Poll::Pending,
                },
            }
        })
        .await?;

        let (head, mut body) = response.into_parts();
        progress.head = Some(Head::new(
            head.status.as_u16(),
            &head.headers,
            &progress.keeps,
        ));
        loop {
            let frame = poll_fn(|cx| self.poll_frame(&mut body, cx)).await;
            match frame {
                None => break,
                Some(Err(error)) => return Err(self.tap.failure(&error)),
                Some(Ok(data)) => {
                    if !progress
                        .body
                        .push(data, body.is_end_stream(), body_bytes_max)
                    {
                        return Ok(BodyEnd::TooLarge);
                    }
                }
            }
        }
        // Lets the driver see the end, so that it asks for the next request.
        if !self.requests.is_ready() {
            poll_fn(|cx| {
                let _ended_or_not = poll_driver(&mut self.driver, &mut self.ended, cx);
                Poll::Ready(())
            })
            .await;
        }
        Ok(BodyEnd::Complete)
    }

    /// Whether the last exchange left the connection in order.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ended && self.requests.is_ready()
    }

    /// Looks whether the server hung up in the meantime.
    pub(crate) async fn is_alive(&mut self, idle: Duration) -> bool {
        // The runtime learns of a hang-up only when it next asks the kernel, maybe after our
        // request is written; then the request's fate would be unknown for no reason.
        if idle >= PROBE_AFTER {
            self.tap.probe_next_read();
        }
        poll_fn(|cx| {
            let driven = poll_driver(&mut self.driver, &mut self.ended, cx);
            Poll::Ready(driven.is_pending())
        })
        .await
            && self.is_ready()
    }

    /// The next piece of the body; `None` at its end.
    fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            if body.is_end_stream() {
                return Poll::Ready(None);
            }
            let polled = match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => {
                    let driven = poll_driver(&mut self.driver, &mut self.ended, cx);
                    match (Pin::new(&mut *body).poll_frame(cx), driven) {
                        (Poll::Pending, Poll::Ready(Err(error))) => {
                            return Poll::Ready(Some(Err(error)));
                        }
                        (Poll::Pending, _) => return Poll::Pending,
                        (ready, _) => ready,
                    }
                }
                ready => ready,
            };
            match polled {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    // Trailers say nothing that we read.
                    Err(_) => continue,
                },
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Progress {
    /// Of a call whose reply keeps these headers.
    pub(crate) fn keeping(headers: &[HeaderName]) -> Progress {
        Progress {
            keeps: headers.to_vec(),
            ..Progress::default()
        }
    }

    pub(crate) fn has_head(&self) -> bool {
        self.head.is_some()
    }

    /// Whether the connection took a byte of the request.
    pub(crate) fn may_have_sent(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.has_written())
    }

    /// # Panics
    /// Without a head.
    pub(crate) fn into_reply(self, body_end: BodyEnd) -> Reply {
        let head = self.head.expect("a reply begins with its head");
        Reply {
            status: head.status,
            retry_after: head.retry_after,
            date: head.date,
            headers: head.kept,
            body: match self.body {
                Body::Empty => Bytes::new(),
                Body::Whole(body) => body,
                Body::Pieces(body) => body.freeze(),
            },
            body_end,
        }
    }
}

impl Head {
    fn new(status: u16, headers: &HeaderMap, keeps: &[HeaderName]) -> Head {
        let text = |name: &HeaderName| {
            // Bytes beyond ASCII make it garbage, not absent: a 503 with Retry-After stays one.
            headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let retry_after = text(&RETRY_AFTER);
        let mut kept = ReplyHeaders::default();
        for name in keeps {
            if let Some(value) = text(name) {
                kept.keep(name.as_str(), &value);
            }
        }
        // Only what counts from it needs the provider's clock.
        let needed = retry_after.is_some() || !keeps.is_empty();
        let date = needed.then(|| text(&DATE)).flatten();
        Head {
            status,
            retry_after,
            date,
            kept,
        }
    }
}

impl Body {
    /// Adds a piece; `false` when that is more than `bytes_max`, which are kept.
    fn push(&mut self, data: Bytes, last: bool, bytes_max: usize) -> bool {
        let room = bytes_max - self.len();
        let fits = data.len() <= room;
        let data = &data[..data.len().min(room)];
        match self {
            Body::Empty if last || !fits => *self = Body::Whole(Bytes::copy_from_slice(data)),
            Body::Empty => *self = Body::Pieces(BytesMut::from(data)),
            Body::Pieces(body) => body.extend_from_slice(data),
            Body::Whole(_) => debug_assert!(data.is_empty(), "nothing follows the last piece"),
        }
        fits
    }

    fn len(&self) -> usize {
        match self {
            Body::Empty => 0,
            Body::Whole(body) => body.len(),
            Body::Pieces(body) => body.len(),
        }
    }
}

impl Tap {
    /// What an error of the codec means for the request.
    fn failure(&self, error: &hyper::Error) -> SendFailure {
        let detail = chain(error);
        if !self.has_written() {
            let cause = if error.is_user() {
                NotSent::Unsendable
            } else {
                NotSent::Closed
            };
            return SendFailure::BeforeSent { cause, detail };
        }
        let cause = if error.is_parse() {
            NoReply::Malformed
        } else {
            NoReply::Closed
        };
        SendFailure::AfterSent { cause, detail }
    }

    fn closed(&self) -> SendFailure {
        let detail = "the connection was closed".to_owned();
        if self.has_written() {
            SendFailure::AfterSent {
                cause: NoReply::Closed,
                detail,
            }
        } else {
            SendFailure::BeforeSent {
                cause: NotSent::Closed,
                detail,
            }
        }
    }
}

/// Polls a driver that has not ended yet; one that has is `Ready`.
fn poll_driver(
    driver: &mut http1::Connection<TokioIo<Wire>, RequestBody>,
    ended: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Result<(), hyper::Error>> {
    if *ended {
        return Poll::Ready(Ok(()));
    }
    let driven = Pin::new(driver).poll(cx);
    *ended = driven.is_ready();
    driven
}

/// The first of `addresses` that answers; each gets an even share of the time that is left.
async fn connect_any(
    account: &Account,
    addresses: &[SocketAddr],
    by: Instant,
) -> Result<TcpStream, SendFailure> {
    let mut failure = None;
    for (index, address) in addresses.iter().enumerate() {
        if !account.addresses().admits(address.ip()) {
            let private = io::Error::new(
                io::ErrorKind::PermissionDenied,
                "a private address, not allowed",
            );
            failure = Some(not_sent(NotSent::Connect, &address.to_string(), &private));
            continue;
        }
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - index).expect("a handful of addresses");
        let share = now + by.saturating_duration_since(now) / left;
        let connected = match timeout_at(share, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected.and_then(|stream| prepare(stream, account.timeout())) {
            Ok(stream) => {
                if index > 0 {
                    account.resolver().prefer(*address);
                }
                return Ok(stream);
            }
            Err(error) => failure = Some(not_sent(NotSent::Connect, &address.to_string(), &error)),
        }
    }
    account.resolver().forget();
    Err(failure.expect("a resolved name has an address"))
}

fn not_sent(cause: NotSent, place: &str, error: &dyn std::error::Error) -> SendFailure {
    SendFailure::BeforeSent {
        cause,
        detail: format!("{place}: {}", chain(error)),
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Twice what common servers let a request have (8 to 16 KiB): cookies and tracing on top.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// A connection's read buffer grows to this on large bodies.
const READ_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Under load the runtime asks the kernel more often than this; a probe costs a system call.
const PROBE_AFTER: Duration = Duration::from_millis(1);

const _: () = assert!(READ_BUFFER_BYTES_MAX >= HEAD_BYTES_MAX);

/// What the quota's proof needs of a socket: a request whose call has ended is not counted by
/// the provider much later. Closing resets the connection, so that unsent bytes are dropped, and
/// the kernel stops sending them again once the call's time is over.
fn prepare(stream: TcpStream, timeout: Duration) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    rustix::net::sockopt::set_tcp_user_timeout(&stream, timeout_ms)?;
    Ok(stream)
}
