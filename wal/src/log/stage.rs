//! The newest blocks of a log, in memory: open, closed, with the writer, and committed.

use std::collections::VecDeque;

use super::ring::{Lent, Ring};
use crate::block::{BLOCK_HEADER_BYTES, BlockHead, block_bytes, finish};
use crate::frame::{self, Frame, FrameFault, FrameKind, frame_bytes};
use crate::options::LogLimits;
use crate::{Lsn, SegmentNumber};

/// Blocks in the order of their addresses: first those committed (kept to be read), then those
/// that wait or are with the writer, last the one that still takes frames.
pub(crate) struct Stage {
    ring: Ring,
    blocks: VecDeque<StagedBlock>,
    /// How many at the front are committed.
    committed: usize,
    /// The last block still takes frames.
    open: bool,
    /// The first block that is not committed is with the writer.
    in_flight: bool,
    staged_bytes: usize,
    block_bytes: usize,
    block_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct StagedBlock {
    pub(crate) lsn: Lsn,
    pub(crate) segment: SegmentNumber,
    pub(crate) frames: u32,
    /// Bytes behind the header.
    used: usize,
    /// Where it lies in the ring.
    at: usize,
}

impl StagedBlock {
    pub(crate) fn bytes(&self) -> usize {
        block_bytes(self.used)
    }

    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// Where its next frame would begin.
    pub(crate) fn next_frame(&self) -> u64 {
        self.lsn.get() + (BLOCK_HEADER_BYTES + self.used) as u64
    }

    /// The address behind the block.
    pub(crate) fn end(&self) -> u64 {
        self.lsn.get() + self.bytes() as u64
    }
}

impl Stage {
    pub(crate) fn new(limits: &LogLimits) -> Stage {
        let block_bytes_max = limits.block_bytes_max();
        // Above both bounds: room for the block being filled, and for the gap where the ring
        // wraps, which no block may span.
        let bytes = limits.tail_cache_bytes + 2 * limits.staged_bytes_max + 3 * block_bytes_max;
        Stage {
            ring: Ring::new(bytes),
            blocks: VecDeque::new(),
            committed: 0,
            open: false,
            in_flight: false,
            staged_bytes: 0,
            block_bytes: limits.block_bytes,
            block_bytes_max,
        }
    }

    /// Bytes of frames and headers that are not committed.
    pub(crate) fn staged_bytes(&self) -> usize {
        self.staged_bytes
    }

    /// The block that takes frames.
    pub(crate) fn open_block(&self) -> Option<&StagedBlock> {
        if self.open { self.blocks.back() } else { None }
    }

    /// The next block to commit, when none is with the writer.
    pub(crate) fn waiting(&self) -> Option<&StagedBlock> {
        if self.in_flight {
            None
        } else {
            self.blocks.get(self.committed)
        }
    }

    /// Whether the open block has room for a frame of `bytes` when it must end by `limit`.
    pub(crate) fn fits(&self, bytes: usize, limit: u64) -> bool {
        self.open_block().is_some_and(|block| {
            let grown = block_bytes(block.used + bytes);
            grown <= self.block_bytes && block.lsn.get() + grown as u64 <= limit
        })
    }

    pub(crate) fn close(&mut self) {
        self.open = false;
    }

    /// Opens a block at `lsn`. False when the ring is full of what is not committed.
    pub(crate) fn open(&mut self, lsn: Lsn, segment: SegmentNumber) -> bool {
        assert!(!self.open, "one block takes frames at a time");
        let Some(at) = self.make_room() else {
            return false;
        };
        self.blocks.push_back(StagedBlock {
            lsn,
            segment,
            frames: 0,
            used: 0,
            at,
        });
        self.staged_bytes += BLOCK_HEADER_BYTES;
        self.open = true;
        true
    }

    /// Appends a frame to the open block, which has room.
    pub(crate) fn push(&mut self, kind: FrameKind, payload_bytes: usize, parts: &[&[u8]]) -> Lsn {
        assert!(self.open, "a block takes frames");
        let block = self.blocks.back_mut().expect("the open block is the last");
        let bytes = frame_bytes(payload_bytes);
        let start = BLOCK_HEADER_BYTES + block.used;
        let lsn = Lsn::new(block.lsn.get() + start as u64);
        let range = block.at + start..block.at + start + bytes;
        frame::encode(self.ring.slice_mut(range), lsn, kind, parts);
        block.used += bytes;
        block.frames += 1;
        self.staged_bytes += bytes;
        lsn
    }

    /// Completes the waiting block and lends it to the writer; returns its chain value too.
    pub(crate) fn lend(&mut self, head: &BlockHead) -> (Lent, u32) {
        let block = *self.waiting().expect("a block waits");
        assert!(
            !self.open || self.committed + 1 < self.blocks.len(),
            "a closed block is lent"
        );
        let filled = block.at + BLOCK_HEADER_BYTES + block.used;
        let range = block.at..block.at + block.bytes();
        self.ring.slice_mut(filled..range.end).fill(0);
        let chain = finish(self.ring.slice_mut(range.clone()), head);
        self.in_flight = true;
        (self.ring.lend(range), chain)
    }

    /// Takes the block back from the writer; false when it is another log's.
    pub(crate) fn on_committed(&mut self, lent: Lent) -> bool {
        if !self.in_flight || !self.ring.give_back(lent) {
            return false;
        }
        let block = &self.blocks[self.committed];
        self.staged_bytes -= BLOCK_HEADER_BYTES + block.used;
        self.in_flight = false;
        self.committed += 1;
        true
    }

    /// The first address that is held here.
    pub(crate) fn start(&self) -> Option<Lsn> {
        self.blocks.front().map(|block| block.lsn)
    }

    /// The frame at `lsn`, when it lies behind [`Stage::start`].
    pub(crate) fn read(&self, lsn: Lsn) -> Option<Result<Frame<'_>, FrameFault>> {
        let behind = self.blocks.partition_point(|block| block.lsn <= lsn);
        let block = self.blocks.get(behind.checked_sub(1)?)?;
        let offset = (lsn.get() - block.lsn.get()) as usize;
        let filled = BLOCK_HEADER_BYTES + block.used;
        if offset < BLOCK_HEADER_BYTES || offset >= filled {
            return Some(Err(FrameFault::Malformed));
        }
        let bytes = self.ring.slice(block.at + offset..block.at + filled);
        Some(frame::decode(bytes, lsn).map(|(frame, _)| frame))
    }

    /// Finds the place of the next block, dropping the oldest committed ones that lie there.
    fn make_room(&mut self) -> Option<usize> {
        let mut at = self.blocks.back().map_or(0, |last| last.at + last.bytes());
        let wraps = at + self.block_bytes_max > self.ring.bytes();
        if wraps {
            at = 0;
        }
        while let Some(first) = self.blocks.front() {
            // Blocks lie in the ring in order, so the first one tells how far the space goes.
            // Behind the last block there is free space up to the first, or to the ring's end.
            let in_the_way = if wraps {
                first.at < at + self.block_bytes_max || self.blocks.back()?.at < first.at
            } else {
                first.at >= at && first.at < at + self.block_bytes_max
            };
            if !in_the_way {
                break;
            }
            if self.committed == 0 {
                return None;
            }
            self.blocks.pop_front();
            self.committed -= 1;
        }
        Some(at)
    }
}
