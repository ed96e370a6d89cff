//! One connection to a server: frames in both directions, and statements.

mod startup;
mod statement;

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

pub(crate) use startup::Purpose;
pub use statement::Row;

use crate::error::{Error, ServerError};

/// A connection that has been let in. What is read from it goes through one buffer, and reading
/// never waits for writing: a server that is itself held up by us is always listened to.
pub struct Connection {
    stream: Box<dyn Duplex>,
    incoming: BytesMut,
    outgoing: BytesMut,
    /// Whether bytes were handed to the stream that it may still keep.
    unflushed: bool,
    /// Bytes of a message too large that have still to be thrown away.
    skipping: usize,
    server_version: String,
}

/// A message, by its tag; see the protocol's chapter "Message Formats".
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    /// Without tag and length. Of a cut frame the beginning only.
    pub(crate) body: Bytes,
    /// The whole length of a message that was too large to keep, else 0.
    pub(crate) cut_from_bytes: usize,
}

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Largest message that is kept whole. An event takes 1 MiB, but a row may have large columns
/// that nobody asked for.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// What is kept of a larger row: enough to say of which table it is.
const CUT_BYTES: usize = 64;

/// Asked of the system at once. A TLS record is at most 16 KiB, a socket's buffer holds more.
const READ_BYTES: usize = 64 << 10;

/// Tag and length.
const HEADER_BYTES: usize = 5;

const _: () = assert!(CUT_BYTES > HEADER_BYTES && CUT_BYTES < MESSAGE_BYTES_MAX);

impl Connection {
    fn new(stream: Box<dyn Duplex>) -> Connection {
        Connection {
            stream,
            incoming: BytesMut::new(),
            outgoing: BytesMut::new(),
            unflushed: false,
            skipping: 0,
            server_version: String::new(),
        }
    }

    /// The server's version as it says: `15.6 (Debian 15.6-0+deb12u1)`.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    /// The next message. May be given up while it waits without losing any.
    pub(crate) async fn read(&mut self) -> Result<Frame, Error> {
        loop {
            if let Some(frame) = self.take()? {
                match frame.tag {
                    b'S' => self.note_parameter(&frame.body),
                    // Notices and notifications are for people who asked.
                    b'N' | b'A' => {}
                    _ => return Ok(frame),
                }
                continue;
            }
            let read = poll_fn(|cx| self.poll_turn(cx))
                .await
                .map_err(Error::Broken)?;
            if read == 0 {
                return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Writes out what is staged. May be given up while it waits.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        poll_fn(|cx| self.poll_write_out(cx))
            .await
            .map_err(Error::Broken)
    }

    /// Where messages to the server are staged; the next read or flush writes them.
    pub(crate) fn outgoing(&mut self) -> &mut BytesMut {
        &mut self.outgoing
    }

    /// Says goodbye; whether it arrives does not matter.
    pub async fn close(mut self) {
        frontend::terminate(&mut self.outgoing);
        // The server frees what this connection holds when the socket closes in any case.
        drop(self.flush().await);
    }

    fn note_parameter(&mut self, body: &[u8]) {
        if let Some(version) = body.strip_prefix(b"server_version\0") {
            let version = version.split(|byte| *byte == 0).next().unwrap_or(b"");
            self.server_version = String::from_utf8_lossy(version).into_owned();
        }
    }

    /// Takes a whole message out of what has arrived.
    fn take(&mut self) -> Result<Option<Frame>, Error> {
        if self.skipping > 0 {
            let skipped = self.skipping.min(self.incoming.len());
            self.incoming.advance(skipped);
            self.skipping -= skipped;
        }
        let Some((&[tag, a, b, c, d], _)) = self.incoming.split_first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        if !(4..=i32::MAX as u32).contains(&length) {
            return Err(Error::Protocol("a message with an impossible length"));
        }
        let whole = length as usize + 1;
        let kept = if whole <= MESSAGE_BYTES_MAX {
            whole
        } else if tag == b'd' {
            CUT_BYTES
        } else {
            return Err(Error::Protocol("a message that is too large"));
        };
        if self.incoming.len() < kept {
            return Ok(None);
        }
        let mut body = self.incoming.split_to(kept).freeze();
        body.advance(HEADER_BYTES);
        self.skipping = whole - kept;
        Ok(Some(Frame {
            tag,
            body,
            cut_from_bytes: if kept < whole {
                whole - HEADER_BYTES
            } else {
                0
            },
        }))
    }

    /// Writes what can be written, then reads what can be read.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Err(error)) = self.poll_write_out(cx) {
            return Poll::Ready(Err(error));
        }
        self.incoming.reserve(READ_BYTES);
        pin!(self.stream.read_buf(&mut self.incoming)).poll(cx)
    }

    fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let written = ready!(pin!(self.stream.write_buf(&mut self.outgoing)).poll(cx))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Frame {
    /// The frame, unless it is the server's refusal.
    pub(crate) fn accepted(self) -> Result<Frame, Error> {
        match self.tag {
            b'E' => Err(Error::Server(ServerError::parse(&self.body))),
            _ => Ok(self),
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("server_version", &self.server_version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt as _, duplex};

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
    }

    fn pair() -> (Connection, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(1 << 16);
        (Connection::new(Box::new(ours)), theirs)
    }

    #[test]
    fn messages_arrive_whole_however_the_bytes_come() {
        runtime().block_on(async {
            let (mut connection, mut server) = pair();
            let bytes = b"Z\0\0\0\x05IN\0\0\0\x04S\0\0\0\x16server_version\x0016\0d\0\0\0\x06ab";
            let writer = async {
                for byte in bytes {
                    server.write_all(&[*byte]).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let reader = async {
                let ready = connection.read().await.unwrap();
                assert_eq!((ready.tag, &ready.body[..]), (b'Z', &b"I"[..]));
                let data = connection.read().await.unwrap();
                assert_eq!((data.tag, &data.body[..]), (b'd', &b"ab"[..]));
                assert_eq!(connection.server_version(), "16");
            };
            tokio::join!(writer, reader);
        });
    }

    #[test]
    fn a_row_too_large_is_cut_and_the_next_message_is_whole() {
        runtime().block_on(async {
            let (mut connection, mut server) = pair();
            let body = MESSAGE_BYTES_MAX + 7;
            let writer = async {
                let mut left = body;
                server.write_all(b"d").await.unwrap();
                server.write_u32(body as u32 + 4).await.unwrap();
                while left > 0 {
                    let piece = left.min(60_000);
                    server.write_all(&vec![b'x'; piece]).await.unwrap();
                    left -= piece;
                }
                server.write_all(b"Z\0\0\0\x05I").await.unwrap();
            };
            let reader = async {
                let cut = connection.read().await.unwrap();
                assert_eq!(cut.cut_from_bytes, body);
                assert_eq!(cut.body.len(), CUT_BYTES - HEADER_BYTES);
                assert_eq!(connection.read().await.unwrap().tag, b'Z');
                assert!(connection.incoming.capacity() < 1 << 20);
            };
            tokio::join!(writer, reader);
        });
    }

    #[test]
    fn impossible_lengths_end_the_connection() {
        runtime().block_on(async {
            for bytes in [b"Z\0\0\0\x03", b"Z\xff\xff\xff\xff", b"Z\x7f\xff\xff\xff"] {
                let (mut connection, mut server) = pair();
                server.write_all(bytes).await.unwrap();
                let error = connection.read().await.unwrap_err();
                assert!(matches!(error, Error::Protocol(_)), "{error}");
            }
            let (mut connection, server) = pair();
            drop(server);
            assert!(connection.read().await.unwrap_err().is_transient());
        });
    }

    #[test]
    fn reading_goes_on_while_writing_is_stuck() {
        runtime().block_on(async {
            let (ours, mut server) = duplex(16);
            let mut connection = Connection::new(Box::new(ours));
            connection.outgoing().extend_from_slice(&[0; 100]);
            server.write_all(b"Z\0\0\0\x05I").await.unwrap();
            assert_eq!(connection.read().await.unwrap().tag, b'Z');
            assert!(!connection.outgoing().is_empty());
        });
    }
}
