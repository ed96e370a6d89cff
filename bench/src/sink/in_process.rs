//! A sink for machines without nginx: a thread of the generator's own process.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// A running thread.
#[derive(Debug)]
pub(crate) struct InProcess {
    addr: SocketAddr,
    served: Arc<AtomicU64>,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl InProcess {
    pub(super) fn start() -> io::Result<InProcess> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let served = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let counted = Arc::clone(&served);
        let thread = thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, counted) => {}
                }
            });
        });
        Ok(InProcess {
            addr,
            served,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn served(&self) -> &AtomicU64 {
        &self.served
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            drop(thread.join());
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, served: Arc<AtomicU64>) {
    while let Ok((stream, _)) = listener.accept().await {
        drop(stream.set_nodelay(true));
        let served = Arc::clone(&served);
        tokio::spawn(async move {
            let answer = service_fn(|request| answer(request, &served));
            // The program closes its connections when it likes.
            drop(
                http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    served: &AtomicU64,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // A body that breaks off breaks the connection too.
    drop(request.into_body().collect().await);
    served.fetch_add(1, Ordering::Relaxed);
    Ok(Response::new(Full::new(Bytes::from_static(b"{}"))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Asker;

    #[test]
    fn it_counts_what_it_served_and_ends_when_dropped() {
        let sink = InProcess::start().unwrap();
        let mut asker = Asker::connect(sink.addr()).unwrap();
        for _ in 0..3 {
            let answer = asker.ask("PUT", "/contact/external/1", b"{}").unwrap();
            assert_eq!(answer, (200, b"{}".to_vec()));
        }
        assert_eq!(sink.served().load(Ordering::Relaxed), 3);
        let addr = sink.addr();
        drop(sink);
        assert!(Asker::connect(addr).is_err());
    }
}
