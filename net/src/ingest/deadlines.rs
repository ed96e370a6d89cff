//! How long a client may keep a connection waiting.

use std::time::{Duration, Instant};

use super::session::Session;

/// How long each thing may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// From connecting to a hello or a first event.
    pub hello: Duration,
    /// From the first byte of a line or frame to its last.
    pub message: Duration,
    /// Without a byte from the client while nothing is in flight.
    pub idle: Duration,
    /// For the client to read a piece of output.
    pub write: Duration,
    /// From our last byte to the client's close.
    pub linger: Duration,
    /// From the stop of the engine to the end of every session.
    pub stop: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        TimeLimits {
            hello: Duration::from_secs(10),
            // 1 MiB in this time is 35 kB/s, slower than any line worth serving.
            message: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            write: Duration::from_secs(30),
            linger: Duration::from_secs(2),
            stop: Duration::from_secs(10),
        }
    }
}

/// What a client did not do in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    Hello,
    Message,
    Idle,
    Write,
    Linger,
}

impl Expired {
    /// What the client is told; `None`: it does not listen, the connection is cut.
    pub(crate) fn farewell(self) -> Option<&'static str> {
        match self {
            Expired::Hello => Some("neither a hello nor an event came in time"),
            Expired::Message => Some("a line or frame that had begun did not end in time"),
            Expired::Idle => Some("nothing came for too long"),
            Expired::Write | Expired::Linger => None,
        }
    }
}

/// The clocks of one connection. Looked at now and then instead of one timer each: these limits
/// protect memory and descriptors, and are good enough when they are a little late.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    opened: Instant,
    last_read: Instant,
    /// The message under way: when it was first seen unfinished, and its place in the stream.
    message: Option<(Instant, u64)>,
    writing_since: Option<Instant>,
    over_since: Option<Instant>,
}

impl Deadlines {
    pub(crate) fn new(now: Instant) -> Self {
        Deadlines {
            opened: now,
            last_read: now,
            message: None,
            writing_since: None,
            over_since: None,
        }
    }

    pub(crate) fn on_read(&mut self, now: Instant) {
        self.last_read = now;
    }

    pub(crate) fn on_write(&mut self, now: Instant) {
        self.writing_since = Some(now);
    }

    pub(crate) fn on_written(&mut self) {
        self.writing_since = None;
    }

    /// What has run out. Looks at the session, so it is to be asked regularly.
    pub(crate) fn check(
        &mut self,
        now: Instant,
        session: &Session,
        limits: &TimeLimits,
    ) -> Option<Expired> {
        let over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.writing_since.is_some_and(|t| over(t, limits.write)) {
            return Some(Expired::Write);
        }
        if session.is_over() {
            let since = *self.over_since.get_or_insert(now);
            return over(since, limits.linger).then_some(Expired::Linger);
        }
        if !session.is_open() {
            return None;
        }
        if !session.wants_read() {
            // It is us who do not read: the client's time does not run.
            self.last_read = now;
            self.message = None;
            return None;
        }
        if !session.is_welcome() && over(self.opened, limits.hello) {
            return Some(Expired::Hello);
        }
        if !session.is_mid_message() {
            self.message = None;
        } else if let Some((since, place)) = self.message
            && place == session.messages()
        {
            if over(since, limits.message) {
                return Some(Expired::Message);
            }
        } else {
            self.message = Some((now, session.messages()));
        }
        let quiet = session.is_quiet() && !session.has_unwritten();
        (quiet && over(self.last_read, limits.idle)).then_some(Expired::Idle)
    }
}
