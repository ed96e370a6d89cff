//! An account's connections.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use engine::provider::BodyEnd;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::connection::Connection;

/// At most `connections_max` connections, the idle ones as a stack: the warmest is used first, and
/// those that a falling load leaves over grow old at the bottom.
///
/// A call holds a slot. A new connection is opened only when none is idle, so open connections are
/// never more than slots.
#[derive(Debug)]
pub(crate) struct Pool {
    slots: Semaphore,
    /// Oldest in front.
    idle: RefCell<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

impl Pool {
    pub(crate) fn new(connections_max: usize) -> Pool {
        Pool {
            slots: Semaphore::new(connections_max),
            idle: RefCell::default(),
        }
    }

    /// Waits for a slot, first come, first served.
    pub(crate) async fn slot(&self) -> SemaphorePermit<'_> {
        self.slots
            .acquire()
            .await
            .expect("the slots are never closed")
    }

    /// A connection that is alive as far as this machine knows.
    pub(crate) async fn take(&self, idle_max: Duration) -> Option<Connection> {
        let now = Instant::now();
        self.close_idle(now, idle_max);
        loop {
            let Idle {
                mut connection,
                since,
            } = self.idle.borrow_mut().pop_back()?;
            if connection.is_alive(now - since).await {
                return Some(connection);
            }
        }
    }

    /// Keeps the connection if its last exchange left it ready for the next.
    pub(crate) fn put_back(&self, connection: Connection, body_end: BodyEnd) -> BodyEnd {
        if body_end == BodyEnd::Complete && connection.is_ready() {
            self.idle.borrow_mut().push_back(Idle {
                connection,
                since: Instant::now(),
            });
        }
        body_end
    }

    pub(crate) fn close_idle(&self, now: Instant, idle_max: Duration) {
        let mut idle = self.idle.borrow_mut();
        while idle
            .front()
            .is_some_and(|oldest| now - oldest.since > idle_max)
        {
            idle.pop_front();
        }
    }

    pub(crate) fn idle_connections(&self) -> usize {
        self.idle.borrow().len()
    }
}
