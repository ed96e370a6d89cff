//! Events that are not acknowledged, kept for sending them again.

use std::collections::VecDeque;

/// Numbered events, oldest first; those already written on this connection come first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// `None` until the first welcome.
    acked: Option<u64>,
    events: VecDeque<Box<[u8]>>,
    /// How many of `events` were written on this connection.
    sent: usize,
    bytes: usize,
    unsent_bytes: usize,
}

impl Backlog {
    pub(super) fn is_started(&self) -> bool {
        self.acked.is_some()
    }

    pub(super) fn start(&mut self, last_seq: u64) {
        self.acked = Some(last_seq);
    }

    /// Highest number acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.acked.unwrap_or(0)
    }

    /// Highest number given out.
    pub(super) fn last_given(&self) -> u64 {
        self.acked() + self.events.len() as u64
    }

    pub(super) fn push(&mut self, event: &[u8]) -> u64 {
        self.events.push_back(event.into());
        self.bytes += event.len();
        self.unsent_bytes += event.len().max(1);
        self.last_given()
    }

    /// Forgets what is acknowledged; `false`: it was known.
    pub(super) fn ack(&mut self, seq: u64) -> bool {
        let acked = self.acked();
        if seq <= acked {
            return false;
        }
        let count = ((seq - acked) as usize).min(self.events.len());
        for (index, event) in self.events.drain(..count).enumerate() {
            self.bytes -= event.len();
            // A welcome can cover events that were not written on the new connection.
            if index >= self.sent {
                self.unsent_bytes -= event.len().max(1);
            }
        }
        self.sent = self.sent.saturating_sub(count);
        self.acked = Some(seq);
        true
    }

    /// A new connection: everything is to be written again.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
        self.unsent_bytes = self.events.iter().map(|event| event.len().max(1)).sum();
    }

    /// Number of the next event to be written.
    pub(super) fn next_unsent(&self) -> u64 {
        self.acked() + self.sent as u64 + 1
    }

    pub(super) fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.events.range(self.sent..).map(|event| &**event)
    }

    pub(super) fn mark_sent(&mut self, count: usize) {
        let written = self.events.range(self.sent..self.sent + count);
        self.unsent_bytes -= written.map(|event| event.len().max(1)).sum::<usize>();
        self.sent += count;
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// 0 only when everything was written on this connection; an empty event counts as a byte.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_from_the_welcome_and_acks_forget() {
        let mut backlog = Backlog::default();
        backlog.start(10);
        assert_eq!(backlog.push(b"aa"), 11);
        assert_eq!(backlog.push(b""), 12);
        assert_eq!(backlog.push(b"cc"), 13);
        assert_eq!((backlog.next_unsent(), backlog.unsent_bytes()), (11, 5));
        backlog.mark_sent(2);
        assert_eq!((backlog.next_unsent(), backlog.unsent_bytes()), (13, 2));
        assert!(backlog.ack(11));
        assert!(!backlog.ack(11));
        assert_eq!((backlog.next_unsent(), backlog.bytes()), (13, 2));
        backlog.rewind();
        assert_eq!((backlog.next_unsent(), backlog.unsent_bytes()), (12, 3));
        assert_eq!(backlog.unsent().collect::<Vec<_>>(), [&b""[..], b"cc"]);
    }

    #[test]
    fn an_ack_beyond_what_was_written_here_leaves_the_rest_unsent() {
        let mut backlog = Backlog::default();
        backlog.start(0);
        for event in [&b"a"[..], b"bb", b"ccc"] {
            backlog.push(event);
        }
        backlog.mark_sent(1);
        assert!(backlog.ack(2));
        assert_eq!((backlog.next_unsent(), backlog.unsent_bytes()), (3, 3));
    }
}
