//! The watermark file: what the log's own tail cannot tell after it was cut off.

use std::collections::BTreeSet;
use std::io;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::page::{PAGE_BYTES, Pages};
use crate::storage::{File, Storage};
use crate::{LogId, Lsn, SegmentNumber};

/// The watermark file of a log.
pub const WATERMARK_FILE: &str = "watermark";

/// Two slots of one page, written in turn, so that a torn write leaves the other.
pub const WATERMARK_BYTES: u64 = 2 * PAGE_BYTES as u64;

/// The newest watermark format this build writes and reads.
pub const WATERMARK_VERSION: u32 = 1;

/// How far behind the first live segment others may be released before it: 1 TiB of 64 MiB
/// segments, one bit each.
pub const RELEASED_AHEAD_MAX: u64 = 16_384;

const WATERMARK_MAGIC: [u8; 8] = *b"SYNCLWMK";
const BITMAP_BYTES: usize = (RELEASED_AHEAD_MAX / 8) as usize;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Slot {
    magic: [u8; 8],
    version: U32,
    log: U32,
    seq: U64,
    durable_lsn: U64,
    last_segment: U64,
    first_live: U64,
    reserved: [u8; 16],
    /// Bit i: segment `first_live + i` is released.
    released: [u8; BITMAP_BYTES],
    padding: [u8; PAGE_BYTES - 64 - BITMAP_BYTES - 4],
    crc: U32,
}

const CRC_AT: usize = PAGE_BYTES - 4;
const _: () = assert!(size_of::<Slot>() == PAGE_BYTES);

/// What the watermark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Counts the writes of the file.
    pub seq: u64,
    /// Every frame below was durable.
    pub durable_lsn: Lsn,
    /// The newest segment whose header was written; 0 before the first.
    pub last_segment: SegmentNumber,
    /// Segments before it are released and may be gone.
    pub first_live: SegmentNumber,
    /// Segments behind `first_live` that are released: their files keep the header only.
    pub released: BTreeSet<SegmentNumber>,
}

/// A watermark slot that does not hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotFault {
    Damaged,
    Version(u32),
}

impl Watermark {
    pub(crate) fn of_new_log() -> Watermark {
        Watermark {
            seq: 0,
            durable_lsn: Lsn::ZERO,
            last_segment: SegmentNumber(0),
            first_live: SegmentNumber::FIRST,
            released: BTreeSet::new(),
        }
    }

    pub(crate) fn is_released(&self, number: SegmentNumber) -> bool {
        number < self.first_live || self.released.contains(&number)
    }

    /// Whether the slot has a place for `number`.
    pub(crate) fn can_release(&self, number: SegmentNumber) -> bool {
        number.0 < self.first_live.0 + RELEASED_AHEAD_MAX
    }

    /// Notes `number` as released.
    pub(crate) fn release(&mut self, number: SegmentNumber) {
        assert!(
            self.can_release(number),
            "the bitmap has a place for the segment"
        );
        assert!(
            number < self.last_segment,
            "the newest segment is never released"
        );
        if number >= self.first_live {
            self.released.insert(number);
        }
        while self.released.remove(&self.first_live) {
            self.first_live = self.first_live.next();
        }
    }

    fn encode(&self, log: LogId, page: &mut [u8]) {
        let mut slot = Slot::new_zeroed();
        slot.magic = WATERMARK_MAGIC;
        slot.version = U32::new(WATERMARK_VERSION);
        slot.log = U32::new(log.get());
        slot.seq = U64::new(self.seq);
        slot.durable_lsn = U64::new(self.durable_lsn.get());
        slot.last_segment = U64::new(self.last_segment.0);
        slot.first_live = U64::new(self.first_live.0);
        for number in &self.released {
            let bit = (number.0 - self.first_live.0) as usize;
            slot.released[bit / 8] |= 1 << (bit % 8);
        }
        slot.crc = U32::new(crc32c::crc32c(&slot.as_bytes()[..CRC_AT]));
        page.copy_from_slice(slot.as_bytes());
    }

    fn parse(log: LogId, page: &[u8]) -> Result<Watermark, SlotFault> {
        let slot = Slot::read_from_bytes(page).map_err(|_| SlotFault::Damaged)?;
        let crc = crc32c::crc32c(&slot.as_bytes()[..CRC_AT]);
        if slot.magic != WATERMARK_MAGIC || slot.crc.get() != crc || slot.log.get() != log.get() {
            return Err(SlotFault::Damaged);
        }
        if slot.version.get() != WATERMARK_VERSION {
            return Err(SlotFault::Version(slot.version.get()));
        }
        let first_live = slot.first_live.get();
        let durable_lsn = Lsn::checked(slot.durable_lsn.get()).ok_or(SlotFault::Damaged)?;
        if first_live == 0 || first_live > u64::MAX / 2 {
            return Err(SlotFault::Damaged);
        }
        let released = (0..RELEASED_AHEAD_MAX)
            .filter(|bit| slot.released[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
            .map(|bit| SegmentNumber(first_live + bit))
            .collect();
        Ok(Watermark {
            seq: slot.seq.get(),
            durable_lsn,
            last_segment: SegmentNumber(slot.last_segment.get()),
            first_live: SegmentNumber(first_live),
            released,
        })
    }
}

/// The watermark as read from its file.
pub(crate) struct WatermarkRead {
    /// The newest valid slot.
    pub(crate) newest: Option<Watermark>,
    /// A slot did not verify: a write was torn, or the medium damaged it.
    pub(crate) slot_damaged: bool,
    /// A slot is of a newer format.
    pub(crate) newer: Option<u32>,
    /// The file's length.
    pub(crate) file_bytes: u64,
}

/// Reads the file as the medium has it.
pub(crate) fn read<F: File>(file: &F, log: LogId) -> io::Result<WatermarkRead> {
    let file_bytes = file.len()?;
    let mut pages = Pages::zeroed(WATERMARK_BYTES as usize);
    let got = file.read(0, pages.as_bytes_mut())?;
    let mut read = WatermarkRead {
        newest: None,
        slot_damaged: false,
        newer: None,
        file_bytes,
    };
    for page in pages.as_bytes()[..got].chunks_exact(PAGE_BYTES) {
        match Watermark::parse(log, page) {
            Ok(found) if read.newest.as_ref().is_none_or(|best| best.seq < found.seq) => {
                read.newest = Some(found);
            }
            Ok(_) => {}
            Err(SlotFault::Damaged) => read.slot_damaged = true,
            Err(SlotFault::Version(version)) => read.newer = Some(version),
        }
    }
    Ok(read)
}

/// The open watermark file; owned by the writer.
pub(crate) struct WatermarkFile<F: File> {
    file: F,
    log: LogId,
    page: Pages,
    pub(crate) now: Watermark,
}

impl<F: File> WatermarkFile<F> {
    pub(crate) fn new(file: F, log: LogId, now: Watermark) -> WatermarkFile<F> {
        WatermarkFile {
            file,
            log,
            page: Pages::zeroed(PAGE_BYTES),
            now,
        }
    }

    /// Creates the file of a new log, whole or not at all.
    pub(crate) fn create<S: Storage<File = F>>(storage: &S, log: LogId) -> io::Result<Self> {
        let preparing = format!("{WATERMARK_FILE}.new");
        if storage.list()?.contains(&preparing) {
            storage.remove(&preparing)?;
        }
        let file = storage.create(&preparing, true)?;
        let mut watermark = WatermarkFile::new(file, log, Watermark::of_new_log());
        watermark.write()?;
        watermark.write()?;
        storage.rename(&preparing, WATERMARK_FILE)?;
        storage.sync_dir()?;
        Ok(watermark)
    }

    /// Writes the watermark to the older slot; durable on return.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        self.now.seq += 1;
        self.now.encode(self.log, self.page.as_bytes_mut());
        let slot = self.now.seq % 2;
        self.file
            .write_durable(slot * PAGE_BYTES as u64, self.page.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId {
        generation: 0,
        shard: 1,
    };

    fn watermark() -> Watermark {
        Watermark {
            seq: 6,
            durable_lsn: Lsn::new(0x9000),
            last_segment: SegmentNumber(9),
            first_live: SegmentNumber(2),
            released: [SegmentNumber(3), SegmentNumber(5)].into(),
        }
    }

    #[test]
    fn the_bytes_of_a_slot_are_fixed() {
        let mut page = vec![0xFF; PAGE_BYTES];
        watermark().encode(LOG, &mut page);
        let mut expected = Vec::new();
        expected.extend_from_slice(b"SYNCLWMK");
        expected.extend_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
        for word in [6u64, 0x9000, 9, 2, 0, 0] {
            expected.extend_from_slice(&word.to_le_bytes());
        }
        expected.push(0b1010);
        expected.resize(CRC_AT, 0);
        expected.extend_from_slice(&[242, 47, 236, 81]);
        assert_eq!(page, expected);
        assert_eq!(Watermark::parse(LOG, &page), Ok(watermark()));
    }

    #[test]
    fn the_slot_of_another_log_is_not_taken() {
        let mut page = vec![0; PAGE_BYTES];
        watermark().encode(LOG, &mut page);
        let other = LogId {
            generation: 0,
            shard: 2,
        };
        assert_eq!(Watermark::parse(other, &page), Err(SlotFault::Damaged));
    }

    #[test]
    fn releasing_the_first_live_segment_moves_it_over_those_released_before() {
        let mut watermark = watermark();
        watermark.release(SegmentNumber(2));
        assert_eq!(watermark.first_live, SegmentNumber(4));
        assert_eq!(watermark.released, [SegmentNumber(5)].into());
        assert!(watermark.is_released(SegmentNumber(1)));
        assert!(!watermark.is_released(SegmentNumber(4)));
    }
}
