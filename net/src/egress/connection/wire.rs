//! The byte stream beneath the HTTP codec.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// A plain or a TLS stream that tells what passed through it.
pub(crate) struct Wire {
    stream: Stream,
    tap: Rc<Tap>,
}

enum Stream {
    Plain(TcpStream),
    /// Much larger than the other; boxed, so that a plain connection does not pay for it.
    Tls(Box<TlsStream<TcpStream>>),
}

/// What the owner of a connection sees of its stream, which lies inside the codec.
#[derive(Debug, Default)]
pub(crate) struct Tap {
    /// Whether a byte was taken since [`Tap::restart`]. Above TLS: a byte that was taken may not
    /// have left yet, one that was not taken has not.
    written: Cell<bool>,
    probe: Cell<bool>,
}

impl Wire {
    pub(crate) fn plain(stream: TcpStream) -> Wire {
        Wire {
            stream: Stream::Plain(stream),
            tap: Rc::default(),
        }
    }

    pub(crate) fn tls(stream: TlsStream<TcpStream>) -> Wire {
        Wire {
            stream: Stream::Tls(Box::new(stream)),
            tap: Rc::default(),
        }
    }

    pub(crate) fn tap(&self) -> Rc<Tap> {
        Rc::clone(&self.tap)
    }

    /// Asks the kernel, past the runtime's notion of readiness, whether the peer hung up
    /// or is about to.
    fn has_ended(&self) -> bool {
        let socket = match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        let mut byte = [0_u8];
        // The good-bye of a TLS session is bytes too. Bytes of any other kind nobody asked for.
        !matches!(
            recv(socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Err(Errno::AGAIN | Errno::INTR)
        )
    }
}

impl Tap {
    pub(crate) fn restart(&self) {
        self.written.set(false);
    }

    pub(crate) fn has_written(&self) -> bool {
        self.written.get()
    }

    /// The next read asks the kernel first.
    pub(crate) fn probe_next_read(&self) {
        self.probe.set(true);
    }

    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = written
            && bytes > 0
        {
            self.written.set(true);
        }
        written
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.tap.probe.take() && self.has_ended() {
            // Nothing filled: the end of the stream.
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.tap.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.tap.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
