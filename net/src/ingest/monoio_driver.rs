//! Runs a server on monoio: io_uring where the kernel has it, else epoll.
//!
//! House rules, each for a flaw of completion-based I/O or of monoio 0.2.4: no accept, read or
//! write is ever dropped before its end, they are cancelled and awaited; one task per direction;
//! no waker and no handle crosses threads; no task wakes itself.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::rc::Rc;
use std::time::Duration;

use monoio::io::{
    AsyncReadRent, AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent,
    Canceller, Splitable,
};
use monoio::net::{TcpListener, TcpStream, UnixStream};
use monoio::{FusionDriver, RuntimeBuilder};

use super::hub::Hub;
use super::intake::Intake;
use super::server::{Server, StopSignal, turn_away};
use super::socket::{READ_BYTES_MAX, ReadHalf, Runtime, WriteHalf};
use super::tokio_driver::{ACCEPT_PAUSE, is_of_one_connection};

pub(super) fn run<I: Intake + 'static>(server: Server<I>) -> io::Result<()> {
    let mut runtime = RuntimeBuilder::<FusionDriver>::new()
        .enable_timer()
        .build()?;
    runtime.block_on(serve(server))
}

async fn serve<I: Intake + 'static>(server: Server<I>) -> io::Result<()> {
    let gate = server.wake.gate();
    let (bell, rearm) = server.wake.into_parts();
    // io_uring answers a read of a non-blocking descriptor at once, epoll needs it to.
    let legacy = !monoio::utils::detect_uring();
    bell.set_nonblocking(legacy)?;
    server.listener.set_nonblocking(legacy)?;
    let bell = UnixStream::from_std(bell)?;
    let listener = TcpListener::from_std(server.listener)?;
    let hub = Rc::new(Hub::new(
        server.intake,
        server.subscriptions,
        server.limits,
        server.first_session,
        gate,
    ));
    let canceller = Canceller::new();
    let accepting = accept(Rc::clone(&hub), listener, canceller.handle());
    Monoio::spawn(accepting);
    let shared = Rc::clone(&hub);
    Monoio::spawn(async move {
        shared.stop_accepting.wait().await;
        canceller.cancel();
    });
    let shared = Rc::clone(&hub);
    Monoio::spawn(async move { shared.keep_time::<Monoio>().await });
    let shared = Rc::clone(&hub);
    Monoio::spawn(async move { shared.keep_retrying::<Monoio>().await });
    wait_on_bell(&hub, bell, || rearm.rearm(), &server.stop).await
}

async fn wait_on_bell<I: Intake>(
    hub: &Hub<I>,
    mut bell: UnixStream,
    rearm: impl Fn(),
    stop: &StopSignal,
) -> io::Result<()> {
    let mut rings = vec![0; 64];
    loop {
        // Before the first wait as well: the stop may have come before the start.
        rearm();
        hub.drain();
        if stop.is_stopped() {
            hub.stop();
        }
        if hub.is_done() {
            return Ok(());
        }
        let (read, buffer) = bell.read(rings).await;
        rings = buffer;
        read?;
    }
}

async fn accept<I: Intake + 'static>(hub: Rc<Hub<I>>, listener: TcpListener, cancel: CancelHandle) {
    while !hub.is_stopping() {
        match listener.cancelable_accept(cancel.clone()).await {
            Ok((stream, peer)) => open(&hub, stream, peer),
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) if hub.is_stopping() => break,
            // Out of descriptors or memory: connections wait in the backlog until some close.
            Err(_) => monoio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    hub.accept_ended();
}

fn open<I: Intake + 'static>(hub: &Rc<Hub<I>>, mut stream: TcpStream, peer: SocketAddr) {
    // Without it acks wait for the acks of TCP; a socket that refuses it works nevertheless.
    stream.set_nodelay(true).ok();
    let canceller = Canceller::new();
    let cancel = canceller.handle();
    let canceller = RefCell::new(Some(canceller));
    let cut = Box::new(move || {
        if let Some(canceller) = canceller.borrow_mut().take() {
            canceller.cancel();
        }
    });
    match hub.admit(peer.ip(), cut) {
        Ok(connection) => {
            let (reader, writer) = stream.into_split();
            let reader = Reader {
                half: reader,
                buffer: Vec::with_capacity(READ_BYTES_MIN),
                cancel: cancel.clone(),
            };
            let writer = Writer {
                half: writer,
                cancel,
            };
            connection.start::<Monoio, I, Writer>(Rc::clone(hub), reader, writer);
        }
        Err(full) => Monoio::spawn(async move {
            let (written, _) = stream.write(turn_away(full)).await;
            written.ok();
        }),
    }
}

struct Monoio;

impl Runtime for Monoio {
    fn spawn(task: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(task));
    }

    async fn sleep(time: Duration) {
        monoio::time::sleep(time).await;
    }
}

/// A read under way owns its buffer, so every connection has one. It starts small, and grows
/// where reads fill it.
const READ_BYTES_MIN: usize = 16 << 10;

struct Reader {
    half: monoio::net::tcp::TcpOwnedReadHalf,
    buffer: Vec<u8>,
    cancel: CancelHandle,
}

impl ReadHalf for Reader {
    async fn read(&mut self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        let buffer = std::mem::take(&mut self.buffer);
        let (read, buffer) = self.half.cancelable_read(buffer, self.cancel.clone()).await;
        self.buffer = buffer;
        let count = read?;
        take(&self.buffer[..count]);
        if count == self.buffer.capacity() && count < READ_BYTES_MAX {
            self.buffer = Vec::with_capacity((2 * count).min(READ_BYTES_MAX));
        }
        Ok(count)
    }
}

struct Writer {
    half: monoio::net::tcp::TcpOwnedWriteHalf,
    cancel: CancelHandle,
}

impl WriteHalf for Writer {
    type Reader = Reader;

    async fn write_all(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut at = 0;
        while at < bytes.len() {
            // monoio's own write_all cannot be cancelled.
            let slice = monoio::buf::IoBuf::slice(std::mem::take(bytes), at..);
            let (written, slice) = self.half.cancelable_write(slice, self.cancel.clone()).await;
            *bytes = slice.into_inner();
            match written? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => at += count,
            }
        }
        Ok(())
    }

    async fn close(&mut self) {
        self.half.shutdown().await.ok();
    }

    fn detach(self, reader: Reader) -> io::Result<std::net::TcpStream> {
        // A write half that is dropped alone shuts the socket down, whoever else has it.
        let other_socket = |_| io::Error::other("the halves are of two sockets");
        let stream = reader.half.reunite(self.half).map_err(other_socket)?;
        // SAFETY: `stream` owns the descriptor and lives until the end of this function, the
        // borrow until the end of this statement.
        let descriptor = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) };
        Ok(rustix::io::fcntl_dupfd_cloexec(descriptor, 0)?.into())
    }
}
