//! The side of the log that writes: blocks, segment headers, the watermark, spare segments.

mod spare;

use std::io;

use crate::log::{Block, Committed, WriteFailed};
use crate::options::{Durability, LogOptions};
use crate::page::{PAGE_BYTES, Pages};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHead};
use crate::space::SpareShelf;
use crate::storage::{Access, File, Storage};
use crate::watermark::{WATERMARK_FILE, WatermarkFile};
use crate::{Lsn, SegmentNumber};
pub(crate) use spare::SparePreparation;

/// Commits what the [`Log`](crate::Log) hands out, one block at a time, and keeps segments
/// ready. After one failed write or sync it does nothing any more.
pub struct Writer<S: Storage> {
    storage: S,
    options: LogOptions,
    shelf: SpareShelf,
    segment: ActiveSegment<S::File>,
    watermark: WatermarkFile<S::File>,
    spare: SparePreparation<S::File>,
    /// Released in the watermark; their files wait for idle time.
    deletions: Vec<SegmentNumber>,
    synced: Lsn,
    page: Pages,
    poisoned: bool,
}

pub(crate) struct ActiveSegment<F> {
    pub(crate) number: SegmentNumber,
    pub(crate) file: F,
}

/// What [`Writer::maintain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintained {
    /// There is more to do at once.
    pub more: bool,
    /// A prepared segment was added: appends that were refused may go on.
    pub space_added: bool,
}

/// What a writer starts with.
pub(crate) struct WriterStart<S: Storage> {
    pub(crate) segment: ActiveSegment<S::File>,
    pub(crate) watermark: WatermarkFile<S::File>,
    /// The number behind the last segment or spare.
    pub(crate) next_spare: SegmentNumber,
    pub(crate) synced: Lsn,
    /// Released, their files not yet gone.
    pub(crate) deletions: Vec<SegmentNumber>,
}

impl<S: Storage> Writer<S> {
    pub(crate) fn new(
        storage: S,
        options: LogOptions,
        shelf: SpareShelf,
        start: WriterStart<S>,
    ) -> Writer<S> {
        Writer {
            spare: SparePreparation::new(start.next_spare),
            storage,
            options,
            shelf,
            segment: start.segment,
            watermark: start.watermark,
            deletions: start.deletions,
            synced: start.synced,
            page: Pages::zeroed(PAGE_BYTES),
            poisoned: false,
        }
    }

    /// Writes the block; it is durable on return (as the options say).
    ///
    /// # Errors
    /// Any error of the disk is final: this writer refuses everything from then on. Whether the
    /// block is on disk is unknown until the log is opened anew.
    pub fn commit(&mut self, block: Block) -> Result<Committed, WriteFailed> {
        self.guarded(|writer| {
            if let Some(header) = &block.header {
                writer.begin_segment(header)?;
            }
            assert!(
                block.segment == writer.segment.number,
                "blocks come in order"
            );
            writer.write_block(&block)?;
            if block.seal {
                writer.seal(block.end)?;
            }
            if !block.releases.is_empty() {
                writer.release(&block.releases)?;
            }
            Ok(())
        })?;
        Ok(Committed {
            block,
            synced: self.synced,
        })
    }

    /// Does a bounded piece of the work that nobody waits for: deletes released segments,
    /// prepares spare ones with at most `bytes_max` of writing, looks for space on a full disk.
    ///
    /// # Errors
    /// As [`Writer::commit`]; a full disk is none, it is told to the log.
    pub fn maintain(&mut self, bytes_max: usize) -> Result<Maintained, WriteFailed> {
        self.guarded(|writer| {
            if let Some(number) = writer.deletions.pop() {
                writer.delete(number)?;
                return Ok(Maintained {
                    more: true,
                    space_added: false,
                });
            }
            writer.spare.step(
                &writer.storage,
                &writer.options.limits,
                &writer.shelf,
                bytes_max,
            )
        })
    }

    /// Whether too little space is prepared, so that maintenance should not wait for idle time.
    #[must_use]
    pub fn wants_maintenance(&self) -> bool {
        !self.poisoned && self.spare.is_wanted(&self.options.limits, &self.shelf)
    }

    /// The first writes after recovery: the new segment's header, or the watermark.
    pub(crate) fn settle_start(
        &mut self,
        fresh: Option<&SegmentHead>,
        durable: Lsn,
    ) -> Result<(), WriteFailed> {
        self.guarded(|writer| {
            if let Some(header) = fresh {
                return writer.begin_segment(header);
            }
            // A crash may have come between a segment's header and the watermark.
            let before = writer.watermark.now.clone();
            writer.watermark.now.last_segment = writer.segment.number;
            writer.watermark.now.durable_lsn = durable;
            if writer.watermark.now == before {
                Ok(())
            } else {
                writer.write_watermark()
            }
        })
    }

    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, WriteFailed>,
    ) -> Result<T, WriteFailed> {
        if self.poisoned {
            return Err(WriteFailed::Poisoned);
        }
        let done = work(self);
        self.poisoned = done.is_err();
        done
    }

    /// Writes the header into the prepared file, after all of the segment before is durable.
    fn begin_segment(&mut self, header: &SegmentHead) -> Result<(), WriteFailed> {
        if self.options.durability == Durability::Os {
            let name = self.segment.number.file_name();
            self.segment
                .file
                .sync()
                .map_err(|source| self.failed("sync", &name, source))?;
        }
        let name = header.number.file_name();
        let access = Access::Write {
            direct: self.options.durability == Durability::Fsync,
        };
        let mut file = self
            .storage
            .open(&name, access)
            .map_err(|source| self.failed("open", &name, source))?;
        header.encode(self.page.as_bytes_mut());
        file.write_durable(0, self.page.as_bytes())
            .map_err(|source| self.failed("write", &name, source))?;
        self.segment = ActiveSegment {
            number: header.number,
            file,
        };
        self.synced = self.synced.max(header.prev.end);
        self.watermark.now.last_segment = header.number;
        self.watermark.now.durable_lsn = header.prev.end;
        self.write_watermark()
    }

    fn write_block(&mut self, block: &Block) -> Result<(), WriteFailed> {
        assert!(
            block.offset >= SEGMENT_HEADER_BYTES,
            "a block never covers the header"
        );
        let written = match self.options.durability {
            Durability::Fsync => self.segment.file.write_durable(block.offset, &block.bytes),
            Durability::Os => self.segment.file.write(block.offset, &block.bytes),
        };
        let name = || self.segment.number.file_name();
        written.map_err(|source| self.failed("write", &name(), source))?;
        if self.options.durability == Durability::Os {
            if !block.seal {
                return Ok(());
            }
            self.segment
                .file
                .sync()
                .map_err(|source| self.failed("sync", &name(), source))?;
        }
        self.synced = block.end;
        Ok(())
    }

    fn seal(&mut self, end: Lsn) -> Result<(), WriteFailed> {
        self.watermark.now.durable_lsn = end;
        self.write_watermark()
    }

    fn release(&mut self, numbers: &[SegmentNumber]) -> Result<(), WriteFailed> {
        for number in numbers {
            self.watermark.now.release(*number);
        }
        // Both slots: should the newer one be damaged, the older must not miss these files.
        self.write_watermark()?;
        self.write_watermark()?;
        self.deletions.extend_from_slice(numbers);
        Ok(())
    }

    /// Deletes the file, or cuts it to its header while a segment before it lives: the chain of
    /// headers has no gap.
    fn delete(&mut self, number: SegmentNumber) -> Result<(), WriteFailed> {
        let first_live = self.watermark.now.first_live;
        let name = number.file_name();
        if number >= first_live {
            let access = Access::Write { direct: false };
            let file = self
                .storage
                .open(&name, access)
                .map_err(|source| self.failed("open", &name, source))?;
            return file
                .set_len(SEGMENT_HEADER_BYTES)
                .map_err(|source| self.failed("cut", &name, source));
        }
        // All in front of the first live one, some of them cut earlier.
        let names = self
            .storage
            .list()
            .map_err(|source| self.failed("list", "", source))?;
        for name in names {
            let dead = SegmentNumber::parse_file_name(&name).is_some_and(|old| old < first_live);
            if dead {
                self.storage
                    .remove(&name)
                    .map_err(|source| self.failed("remove", &name, source))?;
            }
        }
        self.deletions.retain(|number| *number >= first_live);
        Ok(())
    }

    fn write_watermark(&mut self) -> Result<(), WriteFailed> {
        self.watermark
            .write()
            .map_err(|source| self.failed("write", WATERMARK_FILE, source))
    }

    fn failed(&self, operation: &'static str, name: &str, source: io::Error) -> WriteFailed {
        WriteFailed::Io {
            operation,
            path: self.storage.path(name),
            source,
        }
    }
}
