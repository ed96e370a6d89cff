//! Changes for System A over TCP: who subscribes, and what its connection leans on.
//!
//! An ingest thread knows a subscriber by its first line and gives its socket to
//! [`Subscriptions`]. From then on [`serve`] moves changes out and acks in, by what a [`Feed`]
//! says. The protocol is specified in `docs/design/ingest-protocol.md`.

mod conversation;
mod serve;

use std::fmt;
use std::net::TcpStream;
use std::sync::Arc;

use engine::refusal::Refusal;
use tokio::sync::Notify;

use crate::ingest::{Answer, ErrorBody};

pub use serve::serve;

/// Who wants which changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The name under which the feed remembers what is acknowledged.
    pub consumer: String,
    /// Whose changes; `None`: of every object.
    pub objects: Option<Vec<String>>,
    /// The key of the hello before it.
    pub key: Option<String>,
}

/// Longest name of a consumer or an object, as for producers.
pub const NAME_BYTES_MAX: usize = 128;

/// Most objects that one subscription names.
pub const OBJECTS_MAX: usize = 256;

/// A connection on its way from its ingest thread to [`serve`].
#[derive(Debug)]
pub struct Handover {
    /// The socket; nothing of it is waiting to be written.
    pub stream: TcpStream,
    /// What the client asked for.
    pub subscription: Subscription,
    /// What the client sent behind it.
    pub unread: Vec<u8>,
}

impl Handover {
    /// Closes the connection with the reason, as far as the socket takes it at once.
    pub fn turn_away(self, refusal: &Refusal) {
        use std::io::Write;
        let mut line = Vec::new();
        Answer::Error(ErrorBody::refused(refusal)).write_line(&mut line);
        // Nothing is owed to a client that is not there any more.
        if self.stream.set_nonblocking(true).is_ok() && (&self.stream).write_all(&line).is_err() {
            tracing::debug!(
                consumer = self.subscription.consumer,
                "gone before its refusal"
            );
        }
    }
}

/// Takes subscribers from ingest threads.
pub trait Subscriptions: fmt::Debug + Send + Sync {
    /// Takes one over. Does not block.
    fn take_over(&self, handover: Handover);
}

/// Owns the changes and knows the consumers. All calls are short and do not block.
pub trait Feed: Send + Sync {
    /// Lets a consumer in; its older connection ends.
    ///
    /// # Errors
    /// Not this consumer, or not now; nothing changed.
    fn subscribe(&self, subscription: &Subscription) -> Result<Seat, Refusal>;

    /// Appends the next changes to `out`, each as its line, some [`OUTPUT_BYTES`] at once.
    fn take(&self, seat: &Seat, out: &mut Vec<u8>) -> Taken;

    /// Everything up to `seq` has arrived. Of a seat that is not the consumer's any more it means
    /// nothing.
    ///
    /// # Errors
    /// [`NeverSent`]; nothing is acknowledged.
    fn ack(&self, seat: &Seat, seq: u64) -> Result<(), NeverSent>;

    /// The connection is over.
    fn leave(&self, seat: &Seat);
}

/// One connection's place at the feed.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Unique in the process.
    pub id: u64,
    /// Whose.
    pub consumer: Arc<str>,
    /// Notified when [`Feed::take`] may have something to say.
    pub wake: Arc<Notify>,
}

/// What a feed had to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// One change or more.
    Changes,
    /// Nothing now: there is no change, or too many are not acknowledged.
    Nothing,
    /// This seat is no more.
    Over(Over),
}

/// Why a seat is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The consumer subscribed anew.
    Replaced,
    /// An operator removed the consumer.
    Removed,
    /// The engine stops.
    Stopping,
}

/// An ack for a number that no change had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no change up to {last} has the number {seq}", seq = .seq, last = .last)]
pub struct NeverSent {
    /// Of the ack.
    pub seq: u64,
    /// The highest number there is.
    pub last: u64,
}

/// What [`Feed::take`] aims at: some hundred changes a system call.
pub const OUTPUT_BYTES: usize = 64 << 10;
