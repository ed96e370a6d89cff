//! The segments of a log.

use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHead, SegmentTail};
use crate::{Lsn, SegmentNumber};

/// What is known of one segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its number.
    pub number: SegmentNumber,
    /// The address of its first byte.
    pub base: Lsn,
    /// The address behind its last committed block.
    pub end: Lsn,
    /// The file's length.
    pub bytes: u64,
    /// Nothing is added any more; it may be scanned and released.
    pub sealed: bool,
    /// When its first block was closed, milliseconds since 1970; 0 when it has none.
    pub first_wall_ms: u64,
    /// When its last block was closed.
    pub last_wall_ms: u64,
}

/// One segment, and what is needed to read it by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SegmentEntry {
    pub(crate) number: SegmentNumber,
    pub(crate) base: Lsn,
    pub(crate) bytes: u64,
    /// Behind the last committed block.
    pub(crate) end: u64,
    pub(crate) first_wall_ms: u64,
    pub(crate) last_wall_ms: u64,
    /// The header as written; none until the first block is on its way.
    pub(crate) head: Option<SegmentHead>,
    /// The chain value of the last block.
    pub(crate) chain: u32,
}

impl SegmentEntry {
    pub(crate) fn prepared(number: SegmentNumber, base: Lsn, bytes: u64) -> SegmentEntry {
        SegmentEntry {
            number,
            base,
            bytes,
            end: base.get() + SEGMENT_HEADER_BYTES,
            first_wall_ms: 0,
            last_wall_ms: 0,
            head: None,
            chain: 0,
        }
    }

    /// What the header of the next segment says of this one.
    pub(crate) fn tail(&self) -> SegmentTail {
        SegmentTail {
            end: Lsn::new(self.end),
            chain: self.chain,
            first_wall_ms: self.first_wall_ms,
            last_wall_ms: self.last_wall_ms,
        }
    }

    /// The address behind the file's last byte.
    pub(crate) fn limit(&self) -> u64 {
        self.base.get() + self.bytes
    }
}

/// The live segments in order; the last ones may still be waiting for their first block.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable {
    entries: Vec<SegmentEntry>,
}

impl SegmentTable {
    pub(crate) fn push(&mut self, entry: SegmentEntry) {
        assert!(
            self.entries
                .last()
                .is_none_or(|last| last.limit() <= entry.base.get()),
            "segments lie one behind the other"
        );
        self.entries.push(entry);
    }

    /// The segment that takes the next blocks.
    pub(crate) fn last(&self) -> &SegmentEntry {
        self.entries.last().expect("an open log has a segment")
    }

    pub(crate) fn by_number(&self, number: SegmentNumber) -> Option<&SegmentEntry> {
        let at = self
            .entries
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()?;
        self.entries.get(at)
    }

    pub(crate) fn by_number_mut(&mut self, number: SegmentNumber) -> Option<&mut SegmentEntry> {
        let at = self
            .entries
            .binary_search_by_key(&number, |entry| entry.number)
            .ok()?;
        self.entries.get_mut(at)
    }

    /// The segment before `number`, when it is live.
    pub(crate) fn before(&self, number: SegmentNumber) -> Option<&SegmentEntry> {
        self.by_number(SegmentNumber(number.0 - 1))
    }

    /// The segment that has the address.
    pub(crate) fn by_lsn(&self, lsn: Lsn) -> Option<&SegmentEntry> {
        let behind = self.entries.partition_point(|entry| entry.base <= lsn);
        let entry = self.entries.get(behind.checked_sub(1)?)?;
        (lsn.get() < entry.limit()).then_some(entry)
    }

    pub(crate) fn remove(&mut self, number: SegmentNumber) {
        self.entries.retain(|entry| entry.number != number);
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &SegmentEntry> {
        self.entries.iter()
    }
}
