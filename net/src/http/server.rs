//! Accepts connections for the API and ends them in order.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::backend::Backend;
use super::origin::AllowedHosts;
use super::webhooks::Webhooks;

/// Bounds of what one client may take of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpLimits {
    /// From the first byte waited for to the end of a request's head.
    pub header_timeout: Duration,
    /// From the end of the head to the end of the body.
    pub body_timeout: Duration,
    /// Connections at once; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long open requests may go on after a shutdown began.
    pub drain_timeout: Duration,
}

impl HttpLimits {
    /// Bounds for a listener that anybody may reach: providers give an answer some 5 s, and open
    /// ten requests an account (HubSpot and Outreach webhooks guides, read 2026-11).
    pub fn for_webhooks() -> HttpLimits {
        HttpLimits {
            body_timeout: Duration::from_secs(10),
            connections_max: 256,
            ..HttpLimits::default()
        }
    }
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            connections_max: 1024,
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Bytes of a request's head; hyper's buffer grows no further.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Fields of a request's head.
const HEAD_FIELDS_MAX: usize = 64;
/// Rest after an accept that failed for want of descriptors: trying again at
/// once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers the API on `listener` until `shutdown` resolves, then lets open
/// requests finish within the drain timeout. `public_host` is a name that
/// requests may carry beside loopback's own.
///
/// # Errors
/// When the listener's address cannot be had; nothing was accepted.
pub async fn serve<B: Backend>(
    listener: TcpListener,
    backend: Arc<B>,
    limits: HttpLimits,
    public_host: Option<String>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let address: IpAddr = listener.local_addr()?.ip();
    let names = public_host.into_iter().collect();
    let hosts = Arc::new(AllowedHosts::for_listener(address, names));
    let router = super::router(backend, limits, hosts);
    accept(listener, router, limits, shutdown).await;
    Ok(())
}

/// As [`serve`], for providers' deliveries alone: nothing else of the API is there, so that this
/// listener may stand where the rest should not.
pub async fn serve_webhooks<W: Webhooks>(
    listener: TcpListener,
    webhooks: Arc<W>,
    limits: HttpLimits,
    shutdown: impl Future<Output = ()>,
) {
    let router = super::webhooks::alone(webhooks, limits);
    accept(listener, router, limits, shutdown).await;
}

async fn accept(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async { (place.await, listener.accept().await) };
        let (place, stream) = tokio::select! {
            () = &mut shutdown => break,
            // Reaps the finished, so that the set holds only open ones.
            Some(_) = connections.join_next() => continue,
            (place, accepted) = accepted => match accepted {
                Ok((stream, _peer)) => (place, stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let connection = converse(stream, router.clone(), limits, stopped.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.drain_timeout, drained)
        .await
        .is_err()
    {
        tracing::warn!("HTTP requests were still open at the drain deadline and are cut");
    }
}

async fn converse(
    stream: TcpStream,
    router: Router,
    limits: HttpLimits,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are small and wait for a disk already; Nagle would add 40 ms.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    // The guard it answers with is not `Send` and may not live across the select.
    let stopped = async { drop(stopped.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // The peer's doing: cut connections, bad heads, timeouts.
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}
