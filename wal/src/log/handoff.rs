//! What goes between the log and its writer.

use super::ring::Lent;
use crate::segment::SegmentHead;
use crate::{Lsn, SegmentNumber};

/// Frames to commit, in the memory of the log; goes to the writer and comes back.
#[derive(Debug)]
pub struct Block {
    pub(crate) bytes: Lent,
    pub(crate) segment: SegmentNumber,
    /// Where it goes in the file.
    pub(crate) offset: u64,
    pub(crate) end: Lsn,
    pub(crate) seal: bool,
    /// The block is the first of its segment: the header to write before it.
    pub(crate) header: Option<SegmentHead>,
    pub(crate) releases: Vec<SegmentNumber>,
}

impl Block {
    /// The block's length, padding counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The address behind it.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.end
    }
}

/// A block that is durable.
#[derive(Debug)]
pub struct Committed {
    pub(crate) block: Block,
    /// What the medium has now.
    pub(crate) synced: Lsn,
}
