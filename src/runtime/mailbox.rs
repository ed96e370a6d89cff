//! The lock-free ring in front of a shard: bounded, batches ride through it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam::queue::ArrayQueue;
use engine::shard::{Barrier, EventBatch};
use tokio::sync::Notify;

use super::ticket::Part;

/// Batches a ring holds at most, however few events each has.
const BATCHES_MAX: usize = 4096;

/// Accepted events on their way to one shard.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) batch: EventBatch,
    pub(crate) part: Part,
    /// Of the connection that it came by.
    pub(crate) barrier: Barrier,
}

/// The sending side, one per thread that takes events in.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ring: ArrayQueue<Parcel>,
    /// Events in the ring; senders stay below the configured capacity.
    events: AtomicUsize,
    events_max: usize,
    /// Wakes the shard. A second call before the shard looks again costs no system call.
    wake: Arc<Notify>,
}

impl Mailbox {
    /// A ring for `events_max` events that wakes its shard through `wake`.
    pub(crate) fn new(events_max: usize, wake: Arc<Notify>) -> Self {
        let ring = ArrayQueue::new(BATCHES_MAX.min(events_max.max(1)));
        Self {
            shared: Arc::new(Shared {
                ring,
                events: AtomicUsize::new(0),
                events_max,
                wake,
            }),
        }
    }

    /// Whether `events` more would fit. Another sender may be faster; then the push says so.
    pub(crate) fn has_room_for(&self, events: usize) -> bool {
        let waiting = self.shared.events.load(Ordering::Relaxed);
        (waiting == 0 || waiting + events <= self.shared.events_max) && !self.shared.ring.is_full()
    }

    /// Hands a parcel over and wakes the shard.
    ///
    /// # Errors
    /// The parcel, when the ring is full.
    pub(crate) fn push(&self, parcel: Parcel) -> Result<(), Parcel> {
        let events = parcel.batch.len();
        self.shared.events.fetch_add(events, Ordering::Relaxed);
        match self.shared.ring.push(parcel) {
            Ok(()) => {
                self.shared.wake.notify_one();
                Ok(())
            }
            Err(parcel) => {
                self.shared.events.fetch_sub(events, Ordering::Relaxed);
                Err(parcel)
            }
        }
    }

    /// Takes the oldest parcel; for the shard.
    pub(crate) fn pop(&self) -> Option<Parcel> {
        let parcel = self.shared.ring.pop()?;
        self.shared
            .events
            .fetch_sub(parcel.batch.len(), Ordering::Relaxed);
        Some(parcel)
    }

    /// Events waiting.
    pub(crate) fn len(&self) -> usize {
        self.shared.events.load(Ordering::Relaxed)
    }

    /// Wakes the shard for something outside the ring.
    pub(crate) fn wake(&self) {
        self.shared.wake.notify_one();
    }
}
