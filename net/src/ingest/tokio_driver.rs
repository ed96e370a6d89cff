//! Runs a server on tokio, single-threaded.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};

use super::hub::Hub;
use super::intake::Intake;
use super::server::{Server, turn_away};
use super::socket::{READ_BYTES_MAX, ReadHalf, Runtime, WriteHalf};

pub(super) fn run<I: Intake + 'static>(server: Server<I>) -> io::Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(serve(server))
}

/// Runs the server as a task of a `LocalRuntime` or `LocalSet` that is there already.
///
/// # Errors
/// A socket could not be registered, or the wake-up socket failed.
pub async fn serve<I: Intake + 'static>(server: Server<I>) -> io::Result<()> {
    let gate = server.wake.gate();
    let (bell, rearm) = server.wake.into_parts();
    bell.set_nonblocking(true)?;
    let bell = UnixStream::from_std(bell)?;
    server.listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(server.listener)?;
    let hub = Rc::new(Hub::new(
        server.intake,
        server.subscriptions,
        server.limits,
        server.first_session,
        gate,
    ));
    let tasks = [
        tokio::task::spawn_local({
            let hub = Rc::clone(&hub);
            async move { accept(hub, listener).await }
        }),
        tokio::task::spawn_local({
            let hub = Rc::clone(&hub);
            async move { hub.keep_time::<Tokio>().await }
        }),
        tokio::task::spawn_local({
            let hub = Rc::clone(&hub);
            async move { hub.keep_retrying::<Tokio>().await }
        }),
    ];
    let result = wait_on_bell(&hub, &bell, || rearm.rearm(), &server.stop).await;
    for task in tasks {
        task.abort();
    }
    result
}

async fn wait_on_bell<I: Intake>(
    hub: &Hub<I>,
    bell: &UnixStream,
    rearm: impl Fn(),
    stop: &super::server::StopSignal,
) -> io::Result<()> {
    let mut rings = [0; 64];
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
        bell.readable().await?;
        match bell.try_read(&mut rings) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
}

async fn accept<I: Intake + 'static>(hub: Rc<Hub<I>>, listener: TcpListener) {
    // Shared by all connections of the thread: an idle one costs no read buffer.
    let scratch: Rc<RefCell<Box<[u8]>>> =
        Rc::new(RefCell::new(vec![0; READ_BYTES_MAX].into_boxed_slice()));
    loop {
        let accepted = tokio::select! {
            biased;
            () = hub.stop_accepting.wait() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => open(&hub, stream, peer, &scratch),
            Err(error) if is_of_one_connection(&error) => {}
            // Out of descriptors or memory: connections wait in the backlog until some close.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    drop(listener);
    hub.accept_ended();
}

/// What an accept loop waits when the system is out of something.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Whether a failed accept says nothing about the next (accept(2), Error handling).
pub(super) fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn open<I: Intake + 'static>(
    hub: &Rc<Hub<I>>,
    stream: TcpStream,
    peer: SocketAddr,
    scratch: &Rc<RefCell<Box<[u8]>>>,
) {
    // Without it acks wait for the acks of TCP; a socket that refuses it works nevertheless.
    stream.set_nodelay(true).ok();
    let stream = Rc::new(stream);
    let cut = Rc::clone(&stream);
    let cut = Box::new(move || {
        // Fails only when the connection is gone already.
        rustix::net::shutdown(&*cut, Shutdown::Both).ok();
    });
    match hub.admit(peer.ip(), cut) {
        Ok(connection) => {
            let reader = Reader {
                stream: Rc::clone(&stream),
                scratch: Rc::clone(scratch),
            };
            connection.start::<Tokio, I, Writer>(Rc::clone(hub), reader, Writer { stream });
        }
        Err(full) => {
            // A fresh socket's buffer takes these few bytes at once.
            stream.try_write(turn_away(full)).ok();
        }
    }
}

struct Tokio;

impl Runtime for Tokio {
    fn spawn(task: impl Future<Output = ()> + 'static) {
        tokio::task::spawn_local(task);
    }

    async fn sleep(time: Duration) {
        tokio::time::sleep(time).await;
    }
}

struct Reader {
    stream: Rc<TcpStream>,
    scratch: Rc<RefCell<Box<[u8]>>>,
}

impl ReadHalf for Reader {
    async fn read(&mut self, take: impl FnOnce(&[u8])) -> io::Result<usize> {
        loop {
            self.stream.readable().await?;
            let mut scratch = self.scratch.borrow_mut();
            match self.stream.try_read(&mut scratch) {
                Ok(count) => {
                    take(&scratch[..count]);
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

struct Writer {
    stream: Rc<TcpStream>,
}

impl WriteHalf for Writer {
    type Reader = Reader;

    async fn write_all(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.stream.writable().await?;
            match self.stream.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn close(&mut self) {
        rustix::net::shutdown(&*self.stream, Shutdown::Write).ok();
    }

    fn detach(self, _reader: Reader) -> io::Result<std::net::TcpStream> {
        // The runtime closes its own descriptor with the last of the halves.
        Ok(rustix::io::fcntl_dupfd_cloexec(&*self.stream, 0)?.into())
    }
}
