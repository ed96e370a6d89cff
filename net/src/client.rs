//! A blocking client of the TCP protocol that loses nothing and sends nothing twice.
//!
//! Events are numbered and kept until they are acknowledged. When the connection breaks, the
//! client connects again, learns from the welcome what the server has, and sends the rest.
//!
//! ```no_run
//! use syncline_net::client::{Client, Notice, Options};
//!
//! let mut client = Client::connect(Options::new("127.0.0.1:7400", "billing"))?;
//! let seq = client.send(br#"{"operation":"UPDATE","record_id":"c-42","data":{"a":1}}"#)?;
//! client.flush()?;
//! while let Some(notice) = client.next_notice() {
//!     if let Notice::Reject(reject) = notice {
//!         eprintln!("{seq}: {}", reject.code);
//!     }
//! }
//! # Ok::<(), syncline_net::client::ClientError>(())
//! ```

mod backlog;
mod link;
mod subscriber;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use backlog::Backlog;
use link::{Heard, Link, LinkError};

use crate::ingest::EVENT_BYTES_MAX;

pub use subscriber::{Change, Subscriber, SubscriberError, SubscriberOptions};

/// Sends events of one producer over one connection at a time.
pub struct Client {
    options: Options,
    /// `None` while the connection is broken.
    link: Option<Link>,
    backlog: Backlog,
    notices: VecDeque<Notice>,
    /// Failures since the last progress, and when the first of them was.
    failures: u32,
    failing_since: Option<Instant>,
}

/// How to connect and how long to try.
pub struct Options {
    /// `HOST:PORT`; resolved anew for each connection.
    pub addr: String,
    /// The name under which events are numbered.
    pub producer: String,
    /// The API key, where the server wants one.
    pub key: Option<String>,
    /// How events travel.
    pub encoding: Encoding,
    /// Bytes of events kept for resending; [`Client::send`] waits when they are reached.
    pub unacked_bytes_max: usize,
    /// For a connection to open, and again for its welcome.
    pub connect_timeout: Duration,
    /// What to do after a failure.
    pub retry: Retry,
}

/// Decides after each failure how long to wait before the next try; `None` gives up.
pub type Retry = Box<dyn FnMut(&Failure) -> Option<Duration> + Send>;

/// A failure, told to [`Options::retry`].
#[derive(Debug)]
pub struct Failure {
    /// Failures since something new was acknowledged, this one included.
    pub count: u32,
    /// Time since the first of them.
    pub without_progress: Duration,
    /// What happened.
    pub reason: String,
}

/// How events travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Binary frames: fast, and any bytes make an event.
    Frames,
    /// NDJSON: an event is one line, and must have no `seq` member of its own.
    Lines,
}

/// What the server said about events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Every event up to this number is durable or was finally refused.
    Ack(u64),
    /// One event was finally refused; an ack that covers it follows.
    Reject(Reject),
}

/// Why one event was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The event's number.
    pub seq: u64,
    /// From the server's code table.
    pub code: String,
    /// For a person.
    pub detail: String,
    /// JSON pointer into the event.
    pub pointer: Option<String>,
}

/// Why the client stopped. Events that were not acknowledged may or may not be durable; a client
/// of the same producer learns it from its welcome.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// An event that can not be sent; nothing was, and the client goes on.
    #[error("an event {0}")]
    BadEvent(&'static str),
    /// The server does not let this client in.
    #[error("the server refused the session: {code}{}", .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
    Refused {
        /// From the server's code table.
        code: String,
        /// For a person.
        detail: Option<String>,
    },
    /// A newer connection took the producer's name.
    #[error("another client connected as producer {0:?}")]
    Replaced(String),
    /// The server knows less than it has acknowledged: its data was lost or is another's.
    #[error(
        "the server is at event {last_seq} of producer {producer:?}, {acked} were acknowledged"
    )]
    Forgotten {
        /// Whose.
        producer: String,
        /// By the welcome.
        last_seq: u64,
        /// Before.
        acked: u64,
    },
    /// The server knows numbers that this client has not given out.
    #[error("the server is at event {last_seq} of producer {producer:?}, this client sent {sent}")]
    Shared {
        /// Whose.
        producer: String,
        /// By the welcome.
        last_seq: u64,
        /// Highest number given out here.
        sent: u64,
    },
    /// What came is not the protocol.
    #[error("the server does not speak this protocol: {0}")]
    Protocol(String),
    /// [`Options::retry`] gave up.
    #[error("gave up after {failures} failures: {reason}")]
    GaveUp {
        /// Failures without progress.
        failures: u32,
        /// The last of them.
        reason: String,
    },
}

impl Options {
    /// Frames, 16 MiB kept, and one minute of tries.
    pub fn new(addr: impl Into<String>, producer: impl Into<String>) -> Options {
        Options {
            addr: addr.into(),
            producer: producer.into(),
            key: None,
            encoding: Encoding::Frames,
            unacked_bytes_max: 16 << 20,
            connect_timeout: Duration::from_secs(10),
            retry: Box::new(|failure| {
                let wait = Duration::from_millis(50 << failure.count.min(6));
                (failure.without_progress < Duration::from_secs(60)).then_some(wait)
            }),
        }
    }
}

impl Client {
    /// Connects and says hello, as often as [`Options::retry`] allows.
    ///
    /// # Errors
    /// The server refuses, is another, or could not be reached.
    pub fn connect(options: Options) -> Result<Client, ClientError> {
        let mut client = Client {
            backlog: Backlog::default(),
            options,
            link: None,
            notices: VecDeque::new(),
            failures: 0,
            failing_since: None,
        };
        client.reconnect(None)?;
        Ok(client)
    }

    /// Highest number that is acknowledged, at first the welcome's: the next new event of this
    /// producer has this plus one.
    pub fn last_seq(&self) -> u64 {
        self.backlog.acked()
    }

    /// Events given to this client and not acknowledged.
    pub fn unacked(&self) -> usize {
        self.backlog.len()
    }

    /// Numbers one event and sends it soon; waits while too much is unacknowledged.
    ///
    /// # Errors
    /// [`ClientError::BadEvent`] leaves the client as it was; any other ends it.
    pub fn send(&mut self, event: &[u8]) -> Result<u64, ClientError> {
        if event.len() > EVENT_BYTES_MAX {
            return Err(ClientError::BadEvent("may have 1 MiB"));
        }
        if self.options.encoding == Encoding::Lines {
            if event.contains(&b'\n') {
                return Err(ClientError::BadEvent("must be one line"));
            }
            if event.trim_ascii().is_empty() {
                return Err(ClientError::BadEvent("must not be blank"));
            }
        }
        while self.backlog.bytes() + event.len() > self.options.unacked_bytes_max
            && self.backlog.len() > 0
        {
            self.turn(Some(WAIT_MAX))?;
        }
        let seq = self.backlog.push(event);
        if self.backlog.unsent_bytes() >= SEND_BYTES {
            self.turn(None)?;
        }
        Ok(seq)
    }

    /// Writes what was collected, without waiting for acknowledgements. To be called when the
    /// next event may be long in coming.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn push(&mut self) -> Result<(), ClientError> {
        while self.backlog.unsent_bytes() > 0 || self.link.as_ref().is_none_or(Link::has_unwritten)
        {
            self.turn(Some(WAIT_MAX))?;
        }
        Ok(())
    }

    /// Waits until every event sent is acknowledged or refused.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn flush(&mut self) -> Result<(), ClientError> {
        while self.backlog.len() > 0 {
            self.turn(Some(WAIT_MAX))?;
        }
        Ok(())
    }

    /// What the server said that was not taken out yet. Without taking them out, notices pile
    /// up: one per refused event, one per ack.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Waits up to `timeout` for a notice.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn wait_notice(&mut self, timeout: Duration) -> Result<Option<Notice>, ClientError> {
        let deadline = Instant::now() + timeout;
        while self.notices.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            self.turn(Some(left.min(WAIT_MAX)))?;
        }
        Ok(self.next_notice())
    }

    /// Writes and reads once, waiting up to `wait` when neither is possible at once.
    fn turn(&mut self, wait: Option<Duration>) -> Result<(), ClientError> {
        let Some(link) = &mut self.link else {
            return self.reconnect(None);
        };
        let mut heard = VecDeque::new();
        while link.has_room() && self.backlog.unsent_bytes() > 0 {
            let sent = link.write_events(self.backlog.next_unsent(), self.backlog.unsent());
            if sent == 0 {
                break;
            }
            self.backlog.mark_sent(sent);
        }
        let result = link.exchange(wait, &mut heard);
        // What was heard before the connection broke counts.
        let mut broken = result.err().map(LinkError::into_failure);
        for message in heard {
            match message {
                Heard::Ack(seq) => self.on_ack(seq)?,
                Heard::Reject(reject, false) => self.notices.push_back(Notice::Reject(reject)),
                Heard::Reject(reject, true) => {
                    broken = Some(Ok(format!("{}: {}", reject.code, reject.detail)));
                }
                Heard::Error(error) => broken = Some(self.judge(error)),
                Heard::Welcome(_) => {
                    return Err(ClientError::Protocol("a second welcome".to_owned()));
                }
            }
        }
        match broken {
            None => Ok(()),
            Some(Ok(reason)) => {
                self.link = None;
                self.reconnect(Some(reason))
            }
            Some(Err(fatal)) => {
                self.link = None;
                Err(fatal)
            }
        }
    }

    fn on_ack(&mut self, seq: u64) -> Result<(), ClientError> {
        if seq > self.backlog.last_given() {
            return Err(ClientError::Protocol(format!(
                "event {seq} was acknowledged, {} was the last sent",
                self.backlog.last_given()
            )));
        }
        if self.backlog.ack(seq) {
            self.note_progress();
            self.notices.push_back(Notice::Ack(seq));
        }
        Ok(())
    }

    fn note_progress(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }

    /// Whether an error ends the client, or is a reason to connect again.
    fn judge(&self, error: link::ServerError) -> Result<String, ClientError> {
        match error.code.as_str() {
            "replaced" => Err(ClientError::Replaced(self.options.producer.clone())),
            // A quiet connection was closed; nothing is wrong.
            "timeout" => Ok("the server closed a quiet connection".to_owned()),
            _ if error.retry => Ok(match error.detail {
                Some(detail) => format!("{}: {detail}", error.code),
                None => error.code,
            }),
            _ => Err(ClientError::Refused {
                code: error.code,
                detail: error.detail,
            }),
        }
    }

    /// Connects until it works or the caller's patience ends; `failure` says what broke.
    fn reconnect(&mut self, mut failure: Option<String>) -> Result<(), ClientError> {
        loop {
            if let Some(reason) = failure.take() {
                self.failures += 1;
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                let failure = Failure {
                    count: self.failures,
                    without_progress: since.elapsed(),
                    reason,
                };
                let Some(wait) = (self.options.retry)(&failure) else {
                    return Err(ClientError::GaveUp {
                        failures: failure.count,
                        reason: failure.reason,
                    });
                };
                std::thread::sleep(wait);
            }
            let opened = Link::open(&self.options);
            match opened {
                Ok((link, last_seq)) => {
                    self.resume(last_seq)?;
                    self.link = Some(link);
                    return Ok(());
                }
                Err(LinkError::Told(error)) => failure = Some(self.judge(error)?),
                Err(error) => failure = Some(error.into_failure()?),
            }
        }
    }

    /// Finds out what of the backlog the server has.
    fn resume(&mut self, last_seq: u64) -> Result<(), ClientError> {
        let producer = || self.options.producer.clone();
        let first = !self.backlog.is_started();
        if first {
            self.backlog.start(last_seq);
            self.note_progress();
            return Ok(());
        }
        if last_seq < self.backlog.acked() {
            return Err(ClientError::Forgotten {
                producer: producer(),
                last_seq,
                acked: self.backlog.acked(),
            });
        }
        if last_seq > self.backlog.last_given() {
            return Err(ClientError::Shared {
                producer: producer(),
                last_seq,
                sent: self.backlog.last_given(),
            });
        }
        self.on_ack(last_seq)?;
        self.backlog.rewind();
        if self.backlog.len() == 0 {
            // Nothing waits for an ack that would show the progress.
            self.note_progress();
        }
        Ok(())
    }
}

impl fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("addr", &self.options.addr)
            .field("producer", &self.options.producer)
            .field("acked", &self.backlog.acked())
            .field("unacked", &self.backlog.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Options {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("addr", &self.addr)
            .field("producer", &self.producer)
            .field("encoding", &self.encoding)
            .finish_non_exhaustive()
    }
}

impl LinkError {
    /// A reason to connect again, or the end.
    fn into_failure(self) -> Result<String, ClientError> {
        match self {
            LinkError::Io(error) => Ok(match error.kind() {
                io::ErrorKind::UnexpectedEof => "the server closed the connection".to_owned(),
                _ => error.to_string(),
            }),
            LinkError::Protocol(what) => Err(ClientError::Protocol(what)),
            LinkError::Told(error) => Ok(error.code),
        }
    }
}

/// Events are collected to this size before a write: a system call and a frame for 160 events of
/// 400 bytes.
const SEND_BYTES: usize = 64 << 10;

/// Longest wait for a socket before the client looks around.
const WAIT_MAX: Duration = Duration::from_secs(1);
