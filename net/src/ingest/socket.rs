//! The port between the shared loops of a connection and a runtime's socket.

use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::time::Duration;

/// The side that is read. One task owns it, and no read is dropped before its end.
pub(crate) trait ReadHalf {
    /// Waits for bytes and shows them; 0: the client has closed its side.
    async fn read(&mut self, take: impl FnOnce(&[u8])) -> io::Result<usize>;
}

/// The side that is written. One task owns it, and no write is dropped before its end.
pub(crate) trait WriteHalf {
    /// The other side of the same socket.
    type Reader: ReadHalf;

    /// Writes all of `bytes`; they may be moved away and back meanwhile.
    async fn write_all(&mut self, bytes: &mut Vec<u8>) -> io::Result<()>;

    /// Tells the client that nothing more comes.
    async fn close(&mut self);

    /// The socket without its runtime, for another thread.
    fn detach(self, reader: Self::Reader) -> io::Result<TcpStream>;
}

/// What the loops need of a runtime.
pub(crate) trait Runtime: 'static {
    fn spawn(task: impl Future<Output = ()> + 'static);

    async fn sleep(time: Duration);
}

/// Bytes asked for by one read. At 400 bytes an event this is several hundred events for one
/// system call and one dispatch.
pub(crate) const READ_BYTES_MAX: usize = 256 << 10;
