//! What all connections of one ingest thread share: the intake, the limits and the stop.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::intake::{Intake, SessionId};
use super::server::Limits;
use super::session::Session;
use super::signal::Signal;
use super::socket::Runtime;
use crate::gate::WakeGate;
use crate::subscription::{Handover, Subscriptions};

/// The state of one ingest thread. No borrow of a cell in here lives across an await.
#[derive(Debug)]
pub(crate) struct Hub<I> {
    intake: RefCell<I>,
    /// Where clients that subscribe go; `None`: they are refused.
    subscriptions: Option<Arc<dyn Subscriptions>>,
    limits: Limits,
    connections: RefCell<HashMap<SessionId, Rc<Connection>>>,
    per_ip: RefCell<HashMap<IpAddr, usize>>,
    next_id: Cell<u64>,
    /// Sessions that only a retry can move.
    paused: RefCell<HashSet<SessionId>>,
    /// Some session was paused.
    retry: Signal,
    /// When the stop began.
    stopping: Cell<Option<Instant>>,
    /// Ends the accept loop.
    pub(crate) stop_accepting: Signal,
    accepting: Cell<bool>,
    gate: WakeGate,
}

/// Why a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Total,
    PerIp,
}

impl<I: Intake> Hub<I> {
    pub(crate) fn new(
        intake: I,
        subscriptions: Option<Arc<dyn Subscriptions>>,
        limits: Limits,
        first_session: SessionId,
        gate: WakeGate,
    ) -> Self {
        Hub {
            intake: RefCell::new(intake),
            subscriptions,
            limits,
            connections: RefCell::default(),
            per_ip: RefCell::default(),
            next_id: Cell::new(first_session.0),
            paused: RefCell::default(),
            retry: Signal::default(),
            stopping: Cell::new(None),
            stop_accepting: Signal::default(),
            accepting: Cell::new(true),
            gate,
        }
    }

    /// Lets a connection in, if there is room.
    pub(crate) fn admit(&self, peer: IpAddr, cut: Box<dyn Fn()>) -> Result<Rc<Connection>, Full> {
        let mut connections = self.connections.borrow_mut();
        if connections.len() >= self.limits.connections_max {
            return Err(Full::Total);
        }
        let mut per_ip = self.per_ip.borrow_mut();
        let of_peer = per_ip.entry(peer).or_default();
        if *of_peer >= self.limits.connections_per_ip_max {
            return Err(Full::PerIp);
        }
        *of_peer += 1;
        let id = SessionId(self.next_id.get());
        self.next_id.set(id.0 + 1);
        let mut session = Session::new(id, self.limits.session);
        if self.subscriptions.is_some() {
            session = session.with_subscriptions();
        }
        let connection = Rc::new(Connection::new(id, peer, session, Instant::now(), cut));
        connections.insert(id, Rc::clone(&connection));
        Ok(connection)
    }

    pub(crate) fn remove(&self, connection: &Connection) {
        self.close(connection);
        self.connections.borrow_mut().remove(&connection.id);
        self.paused.borrow_mut().remove(&connection.id);
        let mut per_ip = self.per_ip.borrow_mut();
        if let Some(of_peer) = per_ip.get_mut(&connection.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                per_ip.remove(&connection.peer);
            }
        }
        if self.stopping.get().is_some() {
            self.gate.wake();
        }
    }

    /// Gives a subscriber's socket away.
    pub(crate) fn hand_over(&self, handover: Handover) {
        if let Some(subscriptions) = &self.subscriptions {
            subscriptions.take_over(handover);
        }
    }

    pub(crate) fn handle_bytes(&self, connection: &Connection, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        connection.deadlines.borrow_mut().on_read(Instant::now());
        {
            let mut session = connection.session.borrow_mut();
            session.handle_bytes(&mut *self.intake.borrow_mut(), bytes);
            self.note_pause(connection.id, &session);
        }
        // A hello may have fenced a session of this thread.
        self.drain_fenced();
    }

    pub(crate) fn handle_written(&self, connection: &Connection) {
        let mut session = connection.session.borrow_mut();
        session.handle_written();
        session.resume(&mut *self.intake.borrow_mut());
        self.note_pause(connection.id, &session);
    }

    pub(crate) fn handle_broken(&self, connection: &Connection) {
        connection.session.borrow_mut().handle_broken();
        self.close(connection);
        connection.cut();
    }

    /// Takes out everything that the intake has to tell, and retries what was paused.
    pub(crate) fn drain(&self) {
        loop {
            let Some(settled) = self.intake.borrow_mut().poll_settled() else {
                break;
            };
            // The connection may be gone: its batches settle all the same.
            if let Some(connection) = self.connections.borrow().get(&settled.session) {
                connection.session.borrow_mut().handle_settled(settled);
                connection.stir();
            }
        }
        self.drain_fenced();
        self.resume_paused();
    }

    fn drain_fenced(&self) {
        loop {
            let Some(id) = self.intake.borrow_mut().poll_fenced() else {
                break;
            };
            let connection = self.connections.borrow().get(&id).cloned();
            if let Some(connection) = connection {
                connection.session.borrow_mut().handle_fenced();
                self.close(&connection);
                connection.stir();
            }
        }
    }

    fn resume_paused(&self) {
        let paused = std::mem::take(&mut *self.paused.borrow_mut());
        for id in paused {
            let connection = self.connections.borrow().get(&id).cloned();
            if let Some(connection) = connection {
                {
                    let mut session = connection.session.borrow_mut();
                    session.resume(&mut *self.intake.borrow_mut());
                    self.note_pause(id, &session);
                }
                connection.stir();
            }
        }
        self.drain_fenced();
    }

    fn note_pause(&self, id: SessionId, session: &Session) {
        if session.needs_retry() && self.paused.borrow_mut().insert(id) {
            self.retry.raise();
        }
    }

    /// Tells the intake once that a session stages nothing more.
    fn close(&self, connection: &Connection) {
        if !connection.closed.replace(true) {
            self.intake.borrow_mut().closed(connection.id);
        }
    }

    /// Stops taking connections and events; what was taken is acknowledged.
    pub(crate) fn stop(&self) {
        if self.stopping.get().is_some() {
            return;
        }
        self.stopping.set(Some(Instant::now()));
        self.stop_accepting.raise();
        for connection in self.connections.borrow().values() {
            connection.session.borrow_mut().handle_stop();
            connection.stir();
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get().is_some()
    }

    pub(crate) fn accept_ended(&self) {
        self.accepting.set(false);
        self.gate.wake();
    }

    /// Whether the thread has nothing left to do.
    pub(crate) fn is_done(&self) -> bool {
        self.is_stopping() && !self.accepting.get() && self.connections.borrow().is_empty()
    }

    /// Looks at every connection's deadlines.
    fn sweep(&self) {
        let now = Instant::now();
        let stop_over = self
            .stopping
            .get()
            .is_some_and(|since| now.duration_since(since) >= self.limits.time.stop);
        let connections: Vec<_> = self.connections.borrow().values().cloned().collect();
        for connection in connections {
            let expired = {
                let session = connection.session.borrow();
                let mut deadlines = connection.deadlines.borrow_mut();
                deadlines.check(now, &session, &self.limits.time)
            };
            match expired.map(|e| e.farewell()) {
                _ if stop_over => self.handle_broken(&connection),
                Some(Some(farewell)) => {
                    connection.session.borrow_mut().handle_timeout(farewell);
                    connection.stir();
                }
                Some(None) => self.handle_broken(&connection),
                None => {}
            }
        }
    }

    /// Runs until the thread is done: deadlines and retries.
    pub(crate) async fn keep_time<R: Runtime>(&self) {
        while !self.is_done() {
            R::sleep(SWEEP_EVERY).await;
            self.sweep();
        }
    }

    /// Retries paused sessions: a ring that was full of other threads' batches has room again
    /// without a word to this one.
    pub(crate) async fn keep_retrying<R: Runtime>(&self) {
        loop {
            self.retry.wait().await;
            while !self.paused.borrow().is_empty() {
                R::sleep(RETRY_EVERY).await;
                self.resume_paused();
            }
        }
    }
}

/// How late a deadline may be noticed.
const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A commit takes about this long, and with it the rings move.
const RETRY_EVERY: Duration = Duration::from_millis(2);
