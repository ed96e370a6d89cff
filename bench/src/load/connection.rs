//! One connection of the load.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::LoadPlan;
use crate::wire::{Answer, Wire, WireError};

/// Sends what it is given, and tells what the server says of it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    wire: Wire,
    out: Vec<u8>,
    /// Bytes of `out` that the socket took.
    written: usize,
    sent: u64,
    settled: u64,
    /// At the maximum rate: what was sent together, by the number of its last event, and when.
    unsettled: Option<VecDeque<(u64, Duration)>>,
    welcome: bool,
    broken: bool,
}

/// News of events, which count from 0 within their connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Refused {
        count: u64,
        code: String,
    },
    /// Events `from..to`, and when they were sent where that is kept.
    Settled {
        from: u64,
        to: u64,
        sent_at: Option<Duration>,
    },
}

/// The load cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// Nothing was sent.
    #[error("connecting to {1}")]
    Connect(#[source] io::Error, net::SocketAddr),
    /// Nothing was sent.
    #[error("the server did not answer the hello")]
    NoWelcome,
    /// Events may have been sent.
    #[error("the server closed the connection")]
    Closed,
    /// Events may have been sent.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// Events may have been sent.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Events may have been sent.
    #[error("waiting for sockets")]
    Poll(#[source] io::Error),
}

impl Connection {
    pub(super) fn open(
        plan: &LoadPlan,
        at: usize,
        registry: &Registry,
        token: Token,
    ) -> Result<Connection, LoadError> {
        let connect = || -> io::Result<TcpStream> {
            let stream = net::TcpStream::connect_timeout(&plan.target, CONNECT_PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        };
        let stream = connect().map_err(|error| LoadError::Connect(error, plan.target))?;
        let wire = Wire::new(plan.encoding, &plan.target.to_string(), plan.batch);
        let mut out = Vec::new();
        let waits = wire.hello(&format!("bench-{at}"), &mut out);
        Ok(Connection {
            stream,
            wire,
            out,
            written: 0,
            sent: 0,
            settled: 0,
            unsettled: matches!(plan.rate, super::Rate::Max).then(VecDeque::new),
            welcome: !waits,
            broken: false,
        })
    }

    /// Events handed over for sending.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) fn unsettled(&self) -> u64 {
        self.sent - self.settled
    }

    pub(super) fn is_welcome(&self) -> bool {
        self.welcome
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What was sent together and is not settled, at the maximum rate.
    pub(super) fn each_unsettled(&self, mut tell: impl FnMut(Duration, u64)) {
        let mut from = self.settled;
        for &(last, sent_at) in self.unsettled.iter().flatten() {
            tell(sent_at, last - from);
            from = last;
        }
    }

    /// Takes up to `wanted` events, as many as there is room for; `write` appends event `k`.
    pub(super) fn put(
        &mut self,
        wanted: u64,
        now: Duration,
        event_bytes: usize,
        mut write: impl FnMut(u64, &mut Vec<u8>),
    ) -> u64 {
        let mut taken = 0;
        while taken < wanted && self.out.len() - self.written < OUT_BYTES_MAX {
            let piece = (PIECE_BYTES / event_bytes).max(1);
            let count = self
                .wire
                .room(event_bytes)
                .min(piece)
                .min((wanted - taken) as usize);
            if count == 0 {
                break;
            }
            let mut k = self.sent;
            let write_next = |out: &mut Vec<u8>| {
                write(k, out);
                k += 1;
            };
            // Numbers on the wire start at 1.
            self.wire
                .put(self.sent + 1, count, event_bytes, write_next, &mut self.out);
            self.sent = k;
            taken += count as u64;
            if let Some(unsettled) = &mut self.unsettled {
                unsettled.push_back((self.sent, now));
            }
        }
        taken
    }

    /// Writes until nothing is left or the socket is full.
    pub(super) fn flush(&mut self) -> Result<(), LoadError> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(n) => self.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.break_off(LoadError::Broken(error))),
            }
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        } else if self.written > OUT_BYTES_MAX {
            self.out.drain(..self.written);
            self.written = 0;
        }
        Ok(())
    }

    /// Reads until the socket is empty.
    pub(super) fn read(
        &mut self,
        buffer: &mut [u8],
        mut on_heard: impl FnMut(Heard),
    ) -> Result<(), LoadError> {
        loop {
            let n = match self.stream.read(buffer) {
                Ok(0) => return Err(self.break_off(LoadError::Closed)),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.break_off(LoadError::Broken(error))),
            };
            let (welcome, settled, unsettled, sent) = (
                &mut self.welcome,
                &mut self.settled,
                &mut self.unsettled,
                self.sent,
            );
            let read = self.wire.read(&buffer[..n], |answer| match answer {
                Answer::Welcome => *welcome = true,
                Answer::Credit => {}
                Answer::Refused { count, code } => on_heard(Heard::Refused { count, code }),
                Answer::Settled { seq } => settle(seq.min(sent), settled, unsettled, &mut on_heard),
            });
            if let Err(error) = read {
                return Err(self.break_off(error.into()));
            }
        }
    }

    fn break_off(&mut self, error: LoadError) -> LoadError {
        self.broken = true;
        error
    }
}

/// Tells what an ack covers, once for all that was sent together.
fn settle(
    seq: u64,
    settled: &mut u64,
    unsettled: &mut Option<VecDeque<(u64, Duration)>>,
    on_heard: &mut impl FnMut(Heard),
) {
    let Some(unsettled) = unsettled else {
        if seq > *settled {
            on_heard(Heard::Settled {
                from: *settled,
                to: seq,
                sent_at: None,
            });
            *settled = seq;
        }
        return;
    };
    while *settled < seq
        && let Some(&(last, sent_at)) = unsettled.front()
    {
        let to = last.min(seq);
        on_heard(Heard::Settled {
            from: *settled,
            to,
            sent_at: Some(sent_at),
        });
        *settled = to;
        if to == last {
            unsettled.pop_front();
        }
    }
}

/// The program listens before it says so.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes made ready before the socket takes them: two full socket buffers.
const OUT_BYTES_MAX: usize = 512 << 10;
/// Bytes of events that share a frame: one read of the server.
const PIECE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(sent: &[(u64, u64)], acks: &[u64]) -> Vec<(u64, u64, u64)> {
        let ms = Duration::from_millis;
        let mut settled = 0;
        let mut unsettled = Some(sent.iter().map(|&(last, at)| (last, ms(at))).collect());
        let mut heard = Vec::new();
        for &seq in acks {
            settle(seq, &mut settled, &mut unsettled, &mut |news| {
                if let Heard::Settled { from, to, sent_at } = news {
                    heard.push((from, to, sent_at.unwrap().as_millis() as u64));
                }
            });
        }
        heard
    }

    #[test]
    fn an_ack_settles_what_was_sent_at_each_time() {
        let sent = [(10, 1), (15, 2), (20, 3)];
        assert_eq!(heard(&sent, &[20]), [(0, 10, 1), (10, 15, 2), (15, 20, 3)]);
        assert_eq!(
            heard(&sent, &[4, 4, 12]),
            [(0, 4, 1), (4, 10, 1), (10, 12, 2)]
        );
    }
}
