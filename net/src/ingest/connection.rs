//! One connection on its ingest thread: a session, and the two loops that move its bytes.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use super::deadlines::Deadlines;
use super::hub::Hub;
use super::intake::{Intake, SessionId};
use super::session::Session;
use super::signal::Signal;
use super::socket::{ReadHalf, Runtime, WriteHalf};
use crate::subscription::Handover;

/// What the loops of a connection and its thread's hub share.
pub(crate) struct Connection {
    pub(crate) id: SessionId,
    pub(crate) peer: IpAddr,
    pub(crate) session: RefCell<Session>,
    pub(crate) deadlines: RefCell<Deadlines>,
    /// The intake was told that this session is closed.
    pub(crate) closed: Cell<bool>,
    /// Ends every read and write under way, and all later ones.
    cut: Box<dyn Fn()>,
    /// The read loop is to look at the session again.
    read: Signal,
    /// The write loop is to look at the session again.
    write: Signal,
    loops: Cell<u8>,
}

impl Connection {
    pub(crate) fn new(
        id: SessionId,
        peer: IpAddr,
        session: Session,
        now: Instant,
        cut: Box<dyn Fn()>,
    ) -> Self {
        Connection {
            id,
            peer,
            session: RefCell::new(session),
            deadlines: RefCell::new(Deadlines::new(now)),
            closed: Cell::new(false),
            cut,
            read: Signal::default(),
            write: Signal::default(),
            loops: Cell::new(2),
        }
    }

    /// Starts the two loops; the connection leaves the hub when both have ended.
    pub(crate) fn start<R: Runtime, I: Intake + 'static, W: WriteHalf + 'static>(
        self: Rc<Self>,
        hub: Rc<Hub<I>>,
        reader: W::Reader,
        writer: W,
    ) {
        // Where the loops of a subscriber leave their halves.
        let left = Rc::new((Cell::new(None), Cell::new(None)));
        let (connection, shared, halves) = (Rc::clone(&self), Rc::clone(&hub), Rc::clone(&left));
        R::spawn(async move {
            halves.0.set(connection.read_loop(&shared, reader).await);
            connection.end_loop(&shared, &halves);
        });
        R::spawn(async move {
            left.1.set(self.write_loop(&hub, writer).await);
            self.end_loop(&hub, &left);
        });
    }

    /// Makes both loops look at the session.
    pub(crate) fn stir(&self) {
        self.read.raise();
        self.write.raise();
    }

    pub(crate) fn cut(&self) {
        (self.cut)();
        self.stir();
    }

    /// Gives the half back that is to be handed over.
    async fn read_loop<I: Intake, R: ReadHalf>(&self, hub: &Hub<I>, mut reader: R) -> Option<R> {
        loop {
            let (wants_read, open, leaving) = {
                let session = self.session.borrow();
                (
                    session.wants_read(),
                    session.is_open(),
                    session.is_leaving(),
                )
            };
            if leaving {
                return Some(reader);
            }
            if open && !wants_read {
                self.read.wait().await;
                continue;
            }
            // After the session's end what still comes is read and dropped, until the client
            // closes or is cut: closing with unread bytes would destroy our last words on their
            // way to it.
            match reader.read(|bytes| hub.handle_bytes(self, bytes)).await {
                Ok(0) => {
                    self.session.borrow_mut().handle_half_close();
                    self.write.raise();
                    return None;
                }
                Ok(_) => self.write.raise(),
                Err(_) => {
                    hub.handle_broken(self);
                    return None;
                }
            }
        }
    }

    /// Gives the half back that is to be handed over, once everything is written.
    async fn write_loop<I: Intake, W: WriteHalf>(&self, hub: &Hub<I>, mut writer: W) -> Option<W> {
        let mut buffer = Vec::new();
        loop {
            if !self.session.borrow_mut().take_output(&mut buffer) {
                if self.session.borrow().is_leaving() {
                    return Some(writer);
                }
                if self.session.borrow().is_over() {
                    writer.close().await;
                    return None;
                }
                self.write.wait().await;
                continue;
            }
            self.deadlines.borrow_mut().on_write(Instant::now());
            if writer.write_all(&mut buffer).await.is_err() {
                hub.handle_broken(self);
                return None;
            }
            self.deadlines.borrow_mut().on_written();
            hub.handle_written(self);
            self.read.raise();
        }
    }

    fn end_loop<I: Intake, W: WriteHalf>(&self, hub: &Hub<I>, left: &Halves<W>) {
        self.loops.set(self.loops.get() - 1);
        if self.loops.get() > 0 {
            return;
        }
        hub.remove(self);
        let subscriber = self.session.borrow_mut().take_subscriber();
        if let (Some(reader), Some(writer)) = (left.0.take(), left.1.take())
            && let Some((subscription, unread)) = subscriber
        {
            match writer.detach(reader) {
                Ok(stream) => hub.hand_over(Handover {
                    stream,
                    subscription,
                    unread,
                }),
                Err(error) => {
                    tracing::warn!(%error, "a subscriber's socket cannot be handed over");
                }
            }
        }
    }
}

/// What the loops of a connection that is handed over give back.
type Halves<W> = (Cell<Option<<W as WriteHalf>::Reader>>, Cell<Option<W>>);

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}
