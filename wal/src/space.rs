//! Prepared segments and what the disk has room for, shared by the log and its writer.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::SegmentNumber;
use crate::options::LogLimits;
use crate::segment::SEGMENT_HEADER_BYTES;

/// Whether the log takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Everything is taken.
    Open,
    /// The disk is full: only outcomes are taken, from the reserve. Opens again by itself.
    IntakeClosed,
}

/// A segment file that is filled with zeros and durable, its header not yet written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spare {
    pub(crate) number: SegmentNumber,
    pub(crate) bytes: u64,
}

impl Spare {
    /// What it adds to the room for blocks.
    pub(crate) fn room(&self) -> u64 {
        self.bytes - SEGMENT_HEADER_BYTES
    }
}

/// The handle that both sides hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpareShelf {
    inner: Arc<Mutex<Shelf>>,
}

/// What lies on the shelf. The log takes from the front, the writer adds at the back.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    pub(crate) spares: VecDeque<Spare>,
    /// The writer found no space for another one.
    pub(crate) disk_full: bool,
}

impl SpareShelf {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Shelf> {
        // A panic elsewhere cannot leave the two fields at odds.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    /// One spare is kept ready, or, when they are small, as many as let intake go on when the
    /// segment in use is full: the reserve and a block.
    pub(crate) fn is_short(&self, limits: &LogLimits) -> bool {
        let block = limits.block_bytes_max() as u64;
        self.spares.is_empty() || self.room() < limits.intake_room_bytes(block)
    }

    pub(crate) fn room(&self) -> u64 {
        self.spares.iter().map(Spare::room).sum()
    }
}
