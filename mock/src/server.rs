//! The account behind HTTP/1.1.

mod books;
mod notifier;
mod socket;
mod tls;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;

use crate::account::{Account, AccountConfig};
use crate::admin;
use crate::exchange::{Answer, Reply, Request};
use books::Books;
use socket::{Abort, Socket};

/// A listening account, not yet answering.
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    tls: Option<tokio_rustls::TlsAcceptor>,
    books: Arc<Books>,
}

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Serve TLS under a fresh CA, whose certificate is written to this file.
    pub tls_ca: Option<PathBuf>,
    /// Append each ended call to this file, a line of JSON each.
    pub journal: Option<PathBuf>,
    /// The account itself; its `epoch` is set to the time of the start, its `base_url` to where
    /// it listens.
    pub account: AccountConfig,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls_ca: None,
            journal: None,
            account: AccountConfig::default(),
        }
    }
}

/// Why a server did not start. Nothing is left listening.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("listening on {addr}")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The journal file cannot be opened.
    #[error("opening the journal {path}")]
    Journal {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The CA's certificate cannot be written.
    #[error("writing the CA's certificate to {path}")]
    WriteCa {
        /// The file asked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Certificates cannot be made.
    #[error("making certificates")]
    Certificates(#[from] rcgen::Error),
    /// The certificates made are not taken.
    #[error("setting up TLS")]
    Tls(#[from] rustls::Error),
    /// No thread or event loop for it.
    #[error("starting the server's thread")]
    Thread(#[source] io::Error),
}

/// Connections open at once; a client with a pool needs some dozens.
const CONNECTIONS_MAX: usize = 8_192;

/// A request's body; the widest batch of the shipped definitions stays far below.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How long the journal's last lines may stay in memory.
const JOURNAL_FLUSH_EVERY: Duration = Duration::from_millis(100);

/// How often notifications that are due are looked for.
const NOTIFY_EVERY: Duration = Duration::from_millis(10);

/// Pause before accepting again when the process is out of file descriptors.
const ACCEPT_RETRY_AFTER: Duration = Duration::from_millis(10);

impl Server {
    /// Listens, makes certificates, opens the journal.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind but files that were written.
    pub async fn bind(config: ServerConfig) -> Result<Self, StartError> {
        let ServerConfig {
            listen,
            tls_ca,
            journal,
            account,
        } = config;
        let refused = |source| StartError::Listen {
            addr: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let addr = listener.local_addr().map_err(refused)?;
        let tls = tls_ca
            .map(|path| tls::acceptor(addr.ip(), &path))
            .transpose()?;
        let account = AccountConfig {
            base_url: base_url(addr, tls.is_some()),
            ..account
        };
        let books = Arc::new(Books::open(account, journal)?);
        Ok(Self {
            listener,
            addr,
            tls,
            books,
        })
    }

    /// Starts a server on a thread of its own.
    ///
    /// # Errors
    /// [`StartError`], and no thread is left.
    pub fn start(config: ServerConfig) -> Result<ServerHandle, StartError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(StartError::Thread)?;
        let server = runtime.block_on(Self::bind(config))?;
        let (addr, tls, books) = (server.addr, server.tls.is_some(), Arc::clone(&server.books));
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("mock".into())
            .spawn(move || runtime.block_on(server.run(async { drop(stopped.await) })))
            .map_err(StartError::Thread)?;
        Ok(ServerHandle {
            addr,
            tls,
            books,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `stop` completes, then drops what is open and writes out the journal.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = pin!(stop);
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut flush = tokio::time::interval(JOURNAL_FLUSH_EVERY);
        let mut notify = tokio::time::interval(NOTIFY_EVERY);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => break,
                _ = flush.tick() => self.books.flush(),
                _ = notify.tick() => {
                    // The account bounds how many are under way.
                    while let Some(delivery) = self.books.poll_delivery() {
                        connections.spawn(notifier::deliver(Arc::clone(&self.books), delivery));
                    }
                }
                Some(_) = connections.join_next() => {}
                (permit, accepted) = accept(&self.listener, &room) => match accepted {
                    Ok(stream) => {
                        let (tls, books) = (self.tls.clone(), Arc::clone(&self.books));
                        connections.spawn(async move {
                            let _permit = permit;
                            serve_connection(stream, tls, books).await;
                        });
                    }
                    // The peer is gone again, or descriptors are short: both pass.
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY_AFTER).await,
                },
            }
        }
        connections.shutdown().await;
        self.books.flush();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

/// A server running on its own thread; stops when dropped.
#[derive(Debug)]
pub struct ServerHandle {
    addr: SocketAddr,
    tls: bool,
    books: Arc<Books>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ServerHandle {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What to put into `base_url`.
    #[must_use]
    pub fn base_url(&self) -> String {
        base_url(self.addr, self.tls)
    }

    /// Looks at the account, or changes it, between two calls. `Duration` is its time now.
    pub fn with_account<T>(&self, look: impl FnOnce(Duration, &mut Account) -> T) -> T {
        self.books.with_account(look)
    }

    /// Drops the connections and waits for the thread; the same as dropping the handle.
    pub fn stop(self) {}
}

impl Drop for ServerHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the server's thread panicked");
        }
    }
}

fn base_url(addr: SocketAddr, tls: bool) -> String {
    format!("{}://{addr}", if tls { "https" } else { "http" })
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (tokio::sync::OwnedSemaphorePermit, io::Result<TcpStream>) {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    (permit, listener.accept().await.map(|(stream, _)| stream))
}

async fn serve_connection(
    stream: TcpStream,
    tls: Option<tokio_rustls::TlsAcceptor>,
    books: Arc<Books>,
) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let abort = Abort::default();
    let socket = Socket::new(stream, abort.clone());
    match tls {
        None => serve(socket, &books, &abort).await,
        Some(tls) => {
            if let Ok(socket) = tls.accept(socket).await {
                serve(socket, &books, &abort).await;
            }
        }
    }
}

async fn serve<S>(socket: S, books: &Arc<Books>, abort: &Abort)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let service = service_fn(|request| call(books, abort, request));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(socket), service);
    // The peer's resets and our own end here alike; the journal has what was called.
    drop(connection.await);
}

/// The connection is to be reset.
#[derive(Debug, thiserror::Error)]
#[error("the connection is reset")]
struct Aborted;

async fn call(
    books: &Arc<Books>,
    abort: &Abort,
    request: http::Request<Incoming>,
) -> Result<http::Response<Full<Bytes>>, Aborted> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(response(Reply::error(413, "the body is too large")));
        }
        Err(_) => return Err(Aborted),
    };
    let target = head
        .uri
        .path_and_query()
        .map_or("/", http::uri::PathAndQuery::as_str);
    let key = head.headers.get("idempotency-key").cloned();
    let key = key.as_ref().and_then(|key| key.to_str().ok());
    let request = Request {
        method: head.method,
        target,
        idempotency_key: key,
        body,
    };
    if let Some(reply) = books.with_account(|now, account| admin::answer(account, now, &request)) {
        // Whoever asks may read the journal's file next: it has every call that ended before.
        books.flush();
        return Ok(response(reply));
    }
    let open = books.arrive(&request, head.headers);
    if let Some(answer_at) = open.waits_until() {
        tokio::time::sleep_until(answer_at).await;
    }
    match open.finish() {
        Answer::Reply(reply) => Ok(response(reply)),
        Answer::Reset => {
            abort.request();
            Err(Aborted)
        }
    }
}

fn response(reply: Reply) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(reply.body));
    *response.status_mut() =
        http::StatusCode::from_u16(reply.status).expect("the account answers with valid statuses");
    let headers = response.headers_mut();
    if let Some(seconds) = reply.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(kind) = reply.content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    response
}
