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

#[cfg(test)]
mod tests {
    use super::super::{
        BatchId, Busy, Code, Greeting, Intake, Producer, Refusal, SessionId, SessionLimits,
        Settled, Welcome,
    };
    use super::*;

    /// Takes everything and settles nothing; full on demand.
    struct Ring {
        full: bool,
    }

    impl Intake for Ring {
        fn hello(&mut self, _: SessionId, _: Option<&str>, _: Option<&str>) -> Greeting {
            Greeting::Welcome(Welcome::default())
        }

        fn stage(&mut self, _: SessionId, _: &Producer, _: u64, _: &[u8]) -> Result<(), Refusal> {
            Ok(())
        }

        fn dispatch(&mut self, _: SessionId, _: u64, _: &[(u64, Code)]) -> Result<BatchId, Busy> {
            if self.full { Err(Busy) } else { Ok(BatchId(1)) }
        }

        fn poll_settled(&mut self) -> Option<Settled> {
            None
        }

        fn poll_fenced(&mut self) -> Option<SessionId> {
            None
        }

        fn closed(&mut self, _: SessionId) {}
    }

    /// A connection whose client sends something each second and reads every answer.
    fn check_each_second(
        ring_full: bool,
        sent: impl Fn(u64) -> &'static str,
    ) -> Option<(u64, Expired)> {
        let mut ring = Ring { full: ring_full };
        let limits = TimeLimits::default();
        let start = Instant::now();
        let mut session = Session::new(SessionId(1), SessionLimits::default());
        let mut deadlines = Deadlines::new(start);
        let mut answers = Vec::new();
        for second in 0..2_000 {
            let now = start + Duration::from_secs(second);
            let bytes = sent(second);
            if !bytes.is_empty() && session.wants_read() {
                deadlines.on_read(now);
                session.handle_bytes(&mut ring, bytes.as_bytes());
            }
            while session.take_output(&mut answers) {
                session.handle_written();
            }
            if let Some(expired) = deadlines.check(now, &session, &limits) {
                return Some((second, expired));
            }
        }
        None
    }

    #[test]
    fn silence_ends_at_the_hello_and_a_trickle_at_the_message() {
        assert_eq!(check_each_second(false, |_| ""), Some((10, Expired::Hello)));
        let trickle = |second| if second == 0 { "\n{}\n" } else { " " };
        assert_eq!(
            check_each_second(false, trickle),
            Some((31, Expired::Message))
        );
    }

    #[test]
    fn a_stream_that_is_always_in_the_middle_of_some_line_goes_on() {
        assert_eq!(check_each_second(false, |_| "1}\n{\"a\":"), None);
    }

    #[test]
    fn blank_lines_keep_a_quiet_connection() {
        let hello = "{\"hello\":{\"producer\":\"p\"}}\n";
        let silent = |second| if second == 0 { hello } else { "" };
        assert_eq!(check_each_second(false, silent), Some((600, Expired::Idle)));
        let blank = |second| match second {
            0 => hello,
            _ if second % 500 == 0 => "\n",
            _ => "",
        };
        assert_eq!(check_each_second(false, blank), None);
    }

    #[test]
    fn blank_lines_are_no_hello() {
        assert_eq!(
            check_each_second(false, |_| "\n"),
            Some((10, Expired::Hello))
        );
    }

    #[test]
    fn the_clients_time_stands_still_while_the_server_does_not_read() {
        assert_eq!(check_each_second(true, |_| "{}\n{"), None);
    }
}
