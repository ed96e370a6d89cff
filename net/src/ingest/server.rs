//! One ingest thread: a listener and everything that connects to it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::deadlines::TimeLimits;
use super::hub::Full;
use super::intake::{Intake, SessionId};
use super::session::SessionLimits;
use super::{monoio_driver, tokio_driver};
use crate::gate::{WakeGate, WakeReceiver};
use crate::subscription::Subscriptions;

/// What a driver runs on one thread.
#[derive(Debug)]
pub struct Server<I> {
    /// Bound and listening; several threads may each have a clone of one socket.
    pub listener: TcpListener,
    /// Where events go.
    pub intake: I,
    /// Where clients that subscribe go; `None`: they are refused.
    pub subscriptions: Option<Arc<dyn Subscriptions>>,
    /// Woken when the intake has something to tell, or room again.
    pub wake: WakeReceiver,
    /// Ends the thread.
    pub stop: StopSignal,
    /// Bounds.
    pub limits: Limits,
    /// Sessions are numbered from here; ranges of threads must not overlap.
    pub first_session: SessionId,
}

/// Bounds of one ingest thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of each session.
    pub session: SessionLimits,
    /// Of each connection.
    pub time: TimeLimits,
    /// Connections of this thread.
    pub connections_max: usize,
    /// Connections of this thread from one address.
    pub connections_per_ip_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            session: SessionLimits::default(),
            time: TimeLimits::default(),
            // Below the 1,024 descriptors that a shell gives a process, with room for the log,
            // the HTTP side and the providers.
            connections_max: 768,
            connections_per_ip_max: 512,
        }
    }
}

/// Ends one ingest thread from any other: what was taken is acknowledged, then it returns.
#[derive(Clone, Debug)]
pub struct StopSignal {
    stopped: Arc<AtomicBool>,
    gate: WakeGate,
}

impl StopSignal {
    /// A signal for the thread that `gate` wakes.
    pub fn new(gate: WakeGate) -> Self {
        StopSignal {
            stopped: Arc::default(),
            gate,
        }
    }

    /// Begins the stop; again does nothing.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.gate.wake();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

/// The event loops that can run a server. They behave the same; the benchmark names the faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// epoll.
    Tokio,
    /// io_uring where the kernel has it, else epoll.
    Monoio,
}

impl Driver {
    /// Every driver.
    pub const ALL: [Driver; 2] = [Driver::Tokio, Driver::Monoio];

    /// Runs the server on this thread until it is stopped.
    ///
    /// # Errors
    /// The event loop could not be set up, or its wake-up socket failed.
    pub fn run<I: Intake + 'static>(self, server: Server<I>) -> io::Result<()> {
        match self {
            Driver::Tokio => tokio_driver::run(server),
            Driver::Monoio => monoio_driver::run(server),
        }
    }

    /// As it is written in settings and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Driver::Tokio => "tokio",
            Driver::Monoio => "monoio",
        }
    }
}

/// What a client is told that is not let in. A client that speaks frames knows it by its first
/// byte, which is not the magic byte.
pub(crate) fn turn_away(full: Full) -> &'static [u8] {
    match full {
        Full::Total => {
            b"{\"error\":{\"code\":\"overloaded\",\"detail\":\"too many connections\",\"retry\":true}}\n"
        }
        Full::PerIp => {
            b"{\"error\":{\"code\":\"overloaded\",\"detail\":\"too many connections from this address\",\"retry\":true}}\n"
        }
    }
}
