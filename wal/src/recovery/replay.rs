//! Reads the segments of a log in order, verifies them, and shows their frames.

use super::open_error::{Damage, OpenError, VisitError, io_error};
use super::tail::{self, Tail};
use crate::Lsn;
use crate::block::{self, BlockFault, BlockHead, BlockKind};
use crate::frame::FrameKind;
use crate::log::SegmentEntry;
use crate::scan::{BlockError, BlockReader};
use crate::segment::{SegmentFault, SegmentHead};
use crate::storage::{Access, File, Storage};
use crate::watermark::Watermark;

/// Reads segments and gives their frames to the visitor.
pub(crate) struct Replay<'a, S: Storage> {
    storage: &'a S,
    watermark: &'a Watermark,
    from: Lsn,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl<'a, S: Storage> Replay<'a, S> {
    pub(crate) fn new(storage: &'a S, watermark: &'a Watermark, from: Lsn) -> Replay<'a, S> {
        Replay {
            storage,
            watermark,
            from,
            frames: 0,
            bytes: 0,
        }
    }

    /// A segment that another follows: it must end as that one says.
    pub(crate) fn sealed<V>(
        &mut self,
        head: &SegmentHead,
        next: &SegmentHead,
        visit: &mut V,
    ) -> Result<SegmentEntry, OpenError>
    where
        V: FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
    {
        let mut entry = SegmentEntry::prepared(head.number, head.base, head.bytes);
        entry.head = Some(*head);
        entry.end = next.prev.end.get();
        entry.chain = next.prev.chain;
        entry.first_wall_ms = next.prev.first_wall_ms;
        entry.last_wall_ms = next.prev.last_wall_ms;
        if next.prev.end <= self.from {
            return Ok(entry);
        }
        let mut reader = self.reader(head)?;
        while reader.position() < entry.end {
            let at = reader.position();
            match reader.next_block() {
                Ok(Some((block, bytes))) => self.visit_block(&block, bytes, visit)?,
                Ok(None) => return Err(self.damaged(head, at, entry.end, BlockFault::Blank)),
                Err(error) => return Err(self.block_error(head, at, entry.end, error)),
            }
        }
        let ends_as_told = reader.position() == entry.end
            && reader.chain() == entry.chain
            && reader.seq() == next.first_seq;
        if !ends_as_told {
            let name = next.number.file_name();
            let damage = Damage::Segment(SegmentFault::NotContinued);
            return Err(OpenError::corrupt(
                self.storage,
                &name,
                next.base.get(),
                damage,
            ));
        }
        self.bytes += entry.end - head.base.get();
        Ok(entry)
    }

    /// The segment that was written last: a crash may have torn its tail.
    pub(crate) fn last<V>(&mut self, head: &SegmentHead, visit: &mut V) -> Result<Tail, OpenError>
    where
        V: FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
    {
        let mut entry = SegmentEntry::prepared(head.number, head.base, head.bytes);
        entry.head = Some(*head);
        let mut reader = self.reader(head)?;
        let mut sealed = false;
        let fault = loop {
            match reader.next_block() {
                Ok(Some((block, bytes))) => {
                    sealed = block.kind == BlockKind::Seal;
                    entry.last_wall_ms = block.wall_ms;
                    if entry.first_wall_ms == 0 {
                        entry.first_wall_ms = block.wall_ms;
                    }
                    self.visit_block(&block, bytes, visit)?;
                }
                Ok(None) => break None,
                Err(BlockError::Fault(fault)) => break Some(fault),
                Err(error) => return Err(self.block_error(head, reader.position(), 0, error)),
            }
        };
        entry.end = reader.position();
        entry.chain = reader.chain();
        let next_seq = reader.seq();
        let durable = self.watermark.durable_lsn.get();
        if entry.end < durable {
            let fault = fault.unwrap_or(BlockFault::Blank);
            return Err(self.damaged(head, entry.end, durable, fault));
        }
        let torn = match fault {
            None => None,
            Some(fault) => tail::classify(self.storage, &mut reader, head, fault)?,
        };
        self.bytes += head.bytes;
        let sealed = sealed && torn.is_none();
        Ok(Tail {
            entry,
            next_seq,
            sealed,
            torn,
        })
    }

    fn visit_block<V>(
        &mut self,
        head: &BlockHead,
        bytes: &[u8],
        visit: &mut V,
    ) -> Result<(), OpenError>
    where
        V: FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
    {
        if head.end() <= self.from.get() {
            return Ok(());
        }
        for frame in block::Frames::verified(bytes, head) {
            let lsn = frame.lsn;
            if lsn >= self.from {
                visit(lsn, frame.kind, frame.payload)
                    .map_err(|source| OpenError::Visit { lsn, source })?;
                self.frames += 1;
            }
        }
        Ok(())
    }

    fn reader(&self, head: &SegmentHead) -> Result<BlockReader<S::File>, OpenError> {
        let name = head.number.file_name();
        let file = self.storage.open(&name, Access::Read).map_err(io_error(
            self.storage,
            "open",
            &name,
        ))?;
        // After an unclean stop the page cache may show what the medium never got.
        file.settle()
            .map_err(io_error(self.storage, "sync", &name))?;
        Ok(BlockReader::new(file, *head))
    }

    fn block_error(&self, head: &SegmentHead, at: u64, to: u64, error: BlockError) -> OpenError {
        match error {
            BlockError::Io(source) => {
                io_error(self.storage, "read", &head.number.file_name())(source)
            }
            BlockError::Fault(fault) => self.damaged(head, at, to, fault),
        }
    }

    fn damaged(&self, head: &SegmentHead, at: u64, to: u64, fault: BlockFault) -> OpenError {
        tail::damaged(self.storage, head, at, to, fault)
    }
}
