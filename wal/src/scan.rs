//! Walks through one segment: block by block, frame by frame, each verified.

use std::io;

use thiserror::Error;

use crate::block::{
    self, BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BlockFault, BlockHead, ExpectedBlock,
};
use crate::frame::{self, Frame};
use crate::page::{PAGE_BYTES, Pages};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHead};
use crate::storage::{Access, File, Storage};
use crate::{Lsn, SegmentNumber};

/// What one read of a walk asks for: a whole block at least, and enough for a disk to stream.
const SCAN_BYTES: usize = BLOCK_BYTES_MAX + 1024 * 1024;

/// Reads a segment's blocks in order, each checked against the one before.
pub(crate) struct BlockReader<F: File> {
    file: F,
    head: SegmentHead,
    /// Where the next block is expected, as an address.
    next: u64,
    seq: u64,
    chain: u32,
    pages: Pages,
    /// The file offset of the buffer's first byte.
    start: u64,
    filled: usize,
}

/// Why the next block was not read.
#[derive(Debug)]
pub(crate) enum BlockError {
    Io(io::Error),
    Fault(BlockFault),
}

impl<F: File> BlockReader<F> {
    pub(crate) fn new(file: F, head: SegmentHead) -> BlockReader<F> {
        let capacity = head.bytes.min(SCAN_BYTES as u64) as usize;
        BlockReader {
            file,
            head,
            next: head.first_block(),
            seq: head.first_seq,
            chain: head.chain(),
            pages: Pages::zeroed(capacity),
            start: 0,
            filled: 0,
        }
    }

    /// The address behind the last block read.
    pub(crate) fn position(&self) -> u64 {
        self.next
    }

    /// The number of the next block.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// The chain value of the last block read.
    pub(crate) fn chain(&self) -> u32 {
        self.chain
    }

    /// The next block; none where the file ends. After a fault the place is unchanged.
    pub(crate) fn next_block(&mut self) -> Result<Option<(BlockHead, &[u8])>, BlockError> {
        if self.next >= self.head.limit() {
            return Ok(None);
        }
        let at = self.fill(self.next, PAGE_BYTES)?;
        let head = BlockHead::parse(&self.pages.as_bytes()[at..at + PAGE_BYTES])
            .map_err(BlockError::Fault)?;
        head.expect(&self.expected()).map_err(BlockError::Fault)?;
        if head.end() > self.head.limit() {
            return Err(BlockError::Fault(BlockFault::Malformed));
        }
        let at = self.fill(self.next, head.bytes())?;
        let bytes = &self.pages.as_bytes()[at..at + head.bytes()];
        block::verify_payload(bytes, &head).map_err(BlockError::Fault)?;
        self.next = head.end();
        self.seq += 1;
        self.chain = block::chain(bytes);
        Ok(Some((head, bytes)))
    }

    /// The page at the address, for a look behind the last valid block.
    pub(crate) fn page(&mut self, address: u64) -> Result<&[u8], BlockError> {
        let at = self.fill(address, PAGE_BYTES)?;
        Ok(&self.pages.as_bytes()[at..at + PAGE_BYTES])
    }

    fn expected(&self) -> ExpectedBlock {
        ExpectedBlock {
            log: self.head.log,
            salt: self.head.salt,
            seq: self.seq,
            lsn: Lsn::new(self.next),
            prev_crc: self.chain,
        }
    }

    /// Makes sure that the bytes at the address are in the buffer; where they are in it.
    fn fill(&mut self, address: u64, bytes: usize) -> Result<usize, BlockError> {
        let offset = address - self.head.base.get();
        let held = offset >= self.start && offset + bytes as u64 <= self.start + self.filled as u64;
        if !held {
            let capacity = self.pages.as_bytes().len() as u64;
            let wanted = capacity.min(self.head.bytes - offset) as usize;
            self.filled = 0;
            self.start = offset;
            let buffer = &mut self.pages.as_bytes_mut()[..wanted];
            self.filled = self.file.read(offset, buffer).map_err(BlockError::Io)?;
            if self.filled < bytes {
                return Err(BlockError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok((offset - self.start) as usize)
    }
}

/// Walks through the frames of one sealed segment.
pub struct SegmentScan<S: Storage> {
    reader: BlockReader<S::File>,
    number: SegmentNumber,
    /// Where the segment ends and with what, as the log knows it.
    end: u64,
    chain: u32,
    /// The frames not yet given of the block read last: address and the bytes left.
    frames: Option<FramesLeft>,
}

#[derive(Clone, Copy)]
struct FramesLeft {
    head: BlockHead,
    /// Offset of the next frame behind the block header.
    at: usize,
}

/// Why a walk cannot go on.
#[derive(Debug, Error)]
pub enum ScanError {
    /// A block does not verify.
    #[error("segment {segment} is damaged at LSN {lsn}")]
    Damaged {
        /// The segment.
        segment: SegmentNumber,
        /// The block's address.
        lsn: Lsn,
        /// What does not verify.
        #[source]
        fault: BlockFault,
    },
    /// The disk refused.
    #[error("cannot read segment {segment}")]
    Io {
        /// The segment.
        segment: SegmentNumber,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

impl<S: Storage> SegmentScan<S> {
    pub(crate) fn open(
        storage: &S,
        head: SegmentHead,
        end: u64,
        chain: u32,
    ) -> io::Result<SegmentScan<S>> {
        let file = storage.open(&head.number.file_name(), Access::Read)?;
        let reader = BlockReader::new(file, head);
        Ok(SegmentScan {
            reader,
            number: head.number,
            end,
            chain,
            frames: None,
        })
    }

    /// The next frame; none behind the last.
    ///
    /// # Errors
    /// When a block does not verify or the disk refuses; the walk ends there.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, ScanError> {
        loop {
            match self.frames {
                Some(left) if left.at < left.head.used => break,
                _ if self.reader.position() >= self.end => {
                    let whole =
                        self.reader.position() == self.end && self.reader.chain() == self.chain;
                    return if whole {
                        Ok(None)
                    } else {
                        Err(self.error(BlockError::Fault(BlockFault::Chain)))
                    };
                }
                _ => {
                    self.frames = Some(FramesLeft {
                        head: self.next_block()?,
                        at: 0,
                    })
                }
            }
        }
        let left = self
            .frames
            .as_mut()
            .expect("the loop ends with a frame left");
        let offset = BLOCK_HEADER_BYTES + left.at;
        let lsn = Lsn::new(left.head.lsn.get() + offset as u64);
        let block_at =
            (left.head.lsn.get() - self.reader.head.base.get() - self.reader.start) as usize;
        let used_to = block_at + BLOCK_HEADER_BYTES + left.head.used;
        let bytes = &self.reader.pages.as_bytes()[block_at + offset..used_to];
        match frame::decode(bytes, lsn) {
            Ok((frame, taken)) => {
                left.at += taken;
                Ok(Some(frame))
            }
            Err(fault) => Err(ScanError::Damaged {
                segment: self.number,
                lsn,
                fault: BlockFault::Frame(fault),
            }),
        }
    }

    /// How much of the segment was walked through, in bytes of its file.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.reader.position() - self.reader.head.first_block() + SEGMENT_HEADER_BYTES
    }

    fn next_block(&mut self) -> Result<BlockHead, ScanError> {
        match self.reader.next_block() {
            Ok(Some((head, _))) => Ok(head),
            Ok(None) => Err(self.error(BlockError::Fault(BlockFault::Blank))),
            Err(error) => Err(self.error(error)),
        }
    }

    fn error(&self, error: BlockError) -> ScanError {
        let segment = self.number;
        match error {
            BlockError::Io(source) => ScanError::Io { segment, source },
            BlockError::Fault(fault) => ScanError::Damaged {
                segment,
                lsn: Lsn::new(self.reader.position()),
                fault,
            },
        }
    }
}
