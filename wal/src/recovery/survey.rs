//! Which segment files there are, by their headers.

use std::collections::VecDeque;

use super::open_error::{Damage, OpenError, io_error};
use crate::SegmentNumber;
use crate::options::LogOptions;
use crate::page::{PAGE_BYTES, Pages};
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentFault, SegmentHead};
use crate::space::Spare;
use crate::storage::{Access, File, Storage};
use crate::watermark::Watermark;

/// The files of a log, checked against one another.
pub(crate) struct Survey {
    /// From the first live segment to the last, none missing; released ones among them.
    heads: Vec<SegmentHead>,
    /// Prepared segments behind them.
    pub(crate) spares: VecDeque<Spare>,
    /// Files that hold nothing: in preparation, or prepared and of no use.
    strays: Vec<String>,
    first_live: SegmentNumber,
}

/// What one segment file is.
enum Kind {
    Segment(SegmentHead),
    Spare(Spare),
    /// It never became a segment.
    Stray,
}

impl Survey {
    pub(crate) fn take<S: Storage>(
        storage: &S,
        options: &LogOptions,
        watermark: &Watermark,
    ) -> Result<Survey, OpenError> {
        let names = storage.list().map_err(io_error(storage, "list", ""))?;
        let mut survey = Survey {
            heads: Vec::new(),
            spares: VecDeque::new(),
            strays: Vec::new(),
            first_live: watermark.first_live,
        };
        let mut numbers = Vec::new();
        for name in names {
            match SegmentNumber::parse_file_name(&name) {
                Some(number) => numbers.push(number),
                None if SegmentNumber::is_preparing_name(&name) => survey.strays.push(name),
                None if SegmentNumber::is_segment_like(&name) => {
                    return Err(OpenError::corrupt(storage, &name, 0, Damage::ForeignFile));
                }
                None => {}
            }
        }
        numbers.sort();
        for number in numbers
            .into_iter()
            .filter(|number| *number >= watermark.first_live)
        {
            survey.add(storage, options, watermark, number)?;
        }
        if survey.next_number() <= watermark.last_segment {
            return Err(survey.missing(storage));
        }
        Ok(survey)
    }

    /// Each segment but the last, with the one that follows.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (&SegmentHead, &SegmentHead)> {
        self.heads.iter().zip(self.heads.iter().skip(1))
    }

    /// The oldest segment that is there.
    pub(crate) fn first(&self) -> Option<&SegmentHead> {
        self.heads.first()
    }

    /// The segment written last; none in a new log.
    pub(crate) fn last(&self) -> Option<&SegmentHead> {
        self.heads.last()
    }

    /// The number behind the last segment.
    pub(crate) fn next_number(&self) -> SegmentNumber {
        self.heads
            .last()
            .map_or(self.first_live, |head| head.number.next())
    }

    /// Removes what holds nothing; returns the released files that are still to be deleted.
    pub(crate) fn clear_leftovers<S: Storage>(
        &self,
        storage: &S,
        watermark: &Watermark,
    ) -> Result<Vec<SegmentNumber>, OpenError> {
        for name in &self.strays {
            storage
                .remove(name)
                .map_err(io_error(storage, "remove", name))?;
        }
        if !self.strays.is_empty() {
            storage.sync_dir().map_err(io_error(storage, "sync", ""))?;
        }
        let mut deletions: Vec<SegmentNumber> = watermark.released.iter().copied().collect();
        // Any number before the first live one has the writer delete all of them.
        if watermark.first_live > SegmentNumber::FIRST {
            deletions.push(SegmentNumber(watermark.first_live.0 - 1));
        }
        Ok(deletions)
    }

    fn add<S: Storage>(
        &mut self,
        storage: &S,
        options: &LogOptions,
        watermark: &Watermark,
        number: SegmentNumber,
    ) -> Result<(), OpenError> {
        let name = number.file_name();
        let spares_end = self.spares.back().map(|spare| spare.number.next());
        let in_order = spares_end.unwrap_or(self.next_number()) == number;
        match examine(storage, options, watermark, number)? {
            Kind::Segment(head) => {
                // A segment behind a spare, or behind a gap: one between them is missing.
                if !in_order || !self.spares.is_empty() {
                    return Err(self.missing(storage));
                }
                if !self.continues(&head) {
                    let damage = Damage::Segment(SegmentFault::NotContinued);
                    return Err(OpenError::corrupt(storage, &name, head.base.get(), damage));
                }
                self.heads.push(head);
            }
            Kind::Spare(spare) if in_order => self.spares.push_back(spare),
            Kind::Spare(_) | Kind::Stray => self.strays.push(name),
        }
        Ok(())
    }

    fn continues(&self, head: &SegmentHead) -> bool {
        match self.heads.last() {
            Some(prev) => {
                head.base.get() == prev.limit()
                    && (prev.first_block()..=prev.limit()).contains(&head.prev.end.get())
                    && head.first_seq >= prev.first_seq
            }
            None if head.number == SegmentNumber::FIRST => {
                head.prev == crate::segment::SegmentTail::default() && head.base.get() == 0
            }
            None => true,
        }
    }

    fn missing<S: Storage>(&self, storage: &S) -> OpenError {
        let name = self.next_number().file_name();
        let lsn = self.heads.last().map_or(0, SegmentHead::limit);
        OpenError::corrupt(storage, &name, lsn, Damage::Segment(SegmentFault::Missing))
    }
}

/// Reads a file's header and says what the file is.
fn examine<S: Storage>(
    storage: &S,
    options: &LogOptions,
    watermark: &Watermark,
    number: SegmentNumber,
) -> Result<Kind, OpenError> {
    let name = number.file_name();
    let io = |operation| io_error(storage, operation, &name);
    let corrupt = |fault| OpenError::corrupt(storage, &name, 0, Damage::Segment(fault));
    let file = storage.open(&name, Access::Read).map_err(io("open"))?;
    if number >= watermark.last_segment {
        file.settle().map_err(io("sync"))?;
    }
    let file_bytes = file.len().map_err(io("read"))?;
    let mut pages = Pages::zeroed(2 * PAGE_BYTES);
    let read = file.read(0, pages.as_bytes_mut()).map_err(io("read"))?;
    let (header, first_block) = pages.as_bytes()[..read].split_at(read.min(PAGE_BYTES));
    let started = number <= watermark.last_segment;
    match SegmentHead::parse(header) {
        Ok(head) => {
            head.expect(options.log, options.instance, number)
                .map_err(corrupt)?;
            let cut = watermark.is_released(number) && file_bytes == SEGMENT_HEADER_BYTES;
            if file_bytes != head.bytes && !cut {
                return Err(corrupt(SegmentFault::FileBytes {
                    found: file_bytes,
                    expected: head.bytes,
                }));
            }
            Ok(Kind::Segment(head))
        }
        Err(SegmentFault::Version(found)) => Err(OpenError::NewerFormat {
            path: storage.path(&name),
            found,
        }),
        // No block precedes its header: with one, the header was there and is damaged.
        Err(fault) if started || first_block.iter().any(|byte| *byte != 0) => Err(corrupt(fault)),
        Err(SegmentFault::Blank)
            if file_bytes >= options.limits.segment_bytes_min
                && file_bytes.is_multiple_of(PAGE_BYTES as u64) =>
        {
            Ok(Kind::Spare(Spare {
                number,
                bytes: file_bytes,
            }))
        }
        Err(_) => Ok(Kind::Stray),
    }
}
