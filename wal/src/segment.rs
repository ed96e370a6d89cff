//! Segment files: a header page, then commit blocks one behind the other, then zeros.

use std::fmt;

use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::page::PAGE_BYTES;
use crate::{InstanceId, LogId, Lsn};

/// The bytes before a segment's first block.
pub const SEGMENT_HEADER_BYTES: u64 = PAGE_BYTES as u64;

/// The newest segment format this build writes and reads.
pub const SEGMENT_VERSION: u32 = 1;

/// No log counts this far; keeps sums of what a file claims from running over.
pub(crate) const SEQ_MAX: u64 = u64::MAX / 2;

const SEGMENT_MAGIC: [u8; 8] = *b"SYNCLSEG";
const SEGMENT_SUFFIX: &str = ".seg";
const PREPARING_SUFFIX: &str = ".seg.new";

/// The number of a segment in its log, from 1 without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentNumber(pub u64);

impl SegmentNumber {
    pub(crate) const FIRST: SegmentNumber = SegmentNumber(1);

    pub(crate) const fn next(self) -> SegmentNumber {
        SegmentNumber(self.0 + 1)
    }

    /// The name of the segment's file.
    #[must_use]
    pub fn file_name(self) -> String {
        format!("{:010}{SEGMENT_SUFFIX}", self.0)
    }

    /// The name while the file is filled with zeros and not yet a segment.
    pub(crate) fn preparing_name(self) -> String {
        format!("{:010}{PREPARING_SUFFIX}", self.0)
    }

    /// The inverse of [`SegmentNumber::file_name`].
    #[must_use]
    pub fn parse_file_name(name: &str) -> Option<SegmentNumber> {
        let number = SegmentNumber(name.strip_suffix(SEGMENT_SUFFIX)?.parse().ok()?);
        (number.0 > 0 && number.file_name() == name).then_some(number)
    }

    pub(crate) fn is_preparing_name(name: &str) -> bool {
        name.ends_with(PREPARING_SUFFIX)
    }

    pub(crate) fn is_segment_like(name: &str) -> bool {
        name.ends_with(SEGMENT_SUFFIX)
    }
}

impl fmt::Display for SegmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a segment's header says. It is written once, before the segment's first block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHead {
    /// The log it belongs to.
    pub log: LogId,
    /// The data directory it belongs to.
    pub instance: InstanceId,
    /// Its number.
    pub number: SegmentNumber,
    /// The address of the file's first byte.
    pub base: Lsn,
    /// The file's length.
    pub bytes: u64,
    /// Drawn anew for each segment; all its blocks carry it.
    pub salt: u32,
    /// The number of its first block.
    pub first_seq: u64,
    /// What became of the segment before; zeros in the first.
    pub prev: SegmentTail,
}

/// How a segment ended, told by the header of the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentTail {
    /// The address behind its last block. What lies further in the file was never part of the
    /// log.
    pub end: Lsn,
    /// The chain value of its last block (of its header when it has none).
    pub chain: u32,
    /// When its first block was closed, milliseconds since 1970; 0 when it has none.
    pub first_wall_ms: u64,
    /// When its last block was closed.
    pub last_wall_ms: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct SegmentHeader {
    magic: [u8; 8],
    version: U32,
    log: U32,
    instance: [u8; 16],
    number: U64,
    base: U64,
    bytes: U64,
    first_seq: U64,
    prev_end: U64,
    prev_first_wall_ms: U64,
    prev_last_wall_ms: U64,
    prev_chain: U32,
    salt: U32,
    reserved: [u8; 28],
    /// Over the 124 bytes before it; the first block carries it as its `prev_crc`.
    crc: U32,
}

const HEADER_BYTES: usize = size_of::<SegmentHeader>();
const CRC_AT: usize = HEADER_BYTES - 4;
// One sector: a header is torn as a whole or not at all.
const _: () = assert!(HEADER_BYTES == 128);

/// Why a page is not the segment header that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SegmentFault {
    /// All zero: the segment was prepared and never used.
    #[error("no segment header")]
    Blank,
    /// No header, or a damaged one.
    #[error("the segment header is damaged")]
    Damaged,
    /// Written by a newer format.
    #[error("segment format {0} is newer than this build")]
    Version(u32),
    /// Of another data directory.
    #[error("the segment belongs to the data directory {0}")]
    OtherInstance(InstanceId),
    /// Of another log.
    #[error("the segment belongs to log {0}")]
    OtherLog(LogId),
    /// Its name and its header tell different numbers.
    #[error("the header is that of segment {0}")]
    OtherNumber(SegmentNumber),
    /// The file's length is not the one in the header.
    #[error("the file has {found} bytes, its header says {expected}")]
    FileBytes {
        /// The file's length.
        found: u64,
        /// The length in its header.
        expected: u64,
    },
    /// It does not begin where the segment before ended.
    #[error("the segment does not continue the one before it")]
    NotContinued,
    /// A segment is missing.
    #[error("the segment is missing")]
    Missing,
}

impl SegmentHead {
    /// The header page.
    pub(crate) fn encode(&self, page: &mut [u8]) {
        assert!(page.len() == PAGE_BYTES, "a segment header is one page");
        page.fill(0);
        let mut header = self.header();
        header.crc = U32::new(self.chain());
        page[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    }

    /// The value that the first block continues.
    pub(crate) fn chain(&self) -> u32 {
        crc32c::crc32c(&self.header().as_bytes()[..CRC_AT])
    }

    /// The address of the first block.
    pub(crate) fn first_block(&self) -> u64 {
        self.base.get() + SEGMENT_HEADER_BYTES
    }

    /// The address behind the file's last byte.
    pub(crate) fn limit(&self) -> u64 {
        self.base.get() + self.bytes
    }

    pub(crate) fn parse(page: &[u8]) -> Result<SegmentHead, SegmentFault> {
        if page.len() != PAGE_BYTES {
            return Err(SegmentFault::Damaged);
        }
        if page.iter().all(|byte| *byte == 0) {
            return Err(SegmentFault::Blank);
        }
        let (header, rest) =
            SegmentHeader::read_from_prefix(page).map_err(|_| SegmentFault::Damaged)?;
        let crc = crc32c::crc32c(&header.as_bytes()[..CRC_AT]);
        if header.magic != SEGMENT_MAGIC || header.crc.get() != crc {
            return Err(SegmentFault::Damaged);
        }
        if header.version.get() != SEGMENT_VERSION {
            return Err(SegmentFault::Version(header.version.get()));
        }
        let (Some(base), Some(end)) = (
            Lsn::checked(header.base.get()),
            Lsn::checked(header.prev_end.get()),
        ) else {
            return Err(SegmentFault::Damaged);
        };
        let bytes = header.bytes.get();
        let within = base
            .get()
            .checked_add(bytes)
            .and_then(Lsn::checked)
            .is_some();
        if rest.iter().any(|byte| *byte != 0)
            || !within
            || !bytes.is_multiple_of(PAGE_BYTES as u64)
            || bytes <= SEGMENT_HEADER_BYTES
            || header.first_seq.get() > SEQ_MAX
            || end > base
        {
            return Err(SegmentFault::Damaged);
        }
        Ok(SegmentHead {
            log: LogId::from_raw(header.log.get()),
            instance: InstanceId(header.instance),
            number: SegmentNumber(header.number.get()),
            base,
            bytes,
            salt: header.salt.get(),
            first_seq: header.first_seq.get(),
            prev: SegmentTail {
                end,
                chain: header.prev_chain.get(),
                first_wall_ms: header.prev_first_wall_ms.get(),
                last_wall_ms: header.prev_last_wall_ms.get(),
            },
        })
    }

    pub(crate) fn expect(
        &self,
        log: LogId,
        instance: InstanceId,
        number: SegmentNumber,
    ) -> Result<(), SegmentFault> {
        if self.instance != instance {
            return Err(SegmentFault::OtherInstance(self.instance));
        }
        if self.log != log {
            return Err(SegmentFault::OtherLog(self.log));
        }
        if self.number != number {
            return Err(SegmentFault::OtherNumber(self.number));
        }
        Ok(())
    }

    fn header(&self) -> SegmentHeader {
        SegmentHeader {
            magic: SEGMENT_MAGIC,
            version: U32::new(SEGMENT_VERSION),
            log: U32::new(self.log.get()),
            instance: self.instance.0,
            number: U64::new(self.number.0),
            base: U64::new(self.base.get()),
            bytes: U64::new(self.bytes),
            first_seq: U64::new(self.first_seq),
            prev_end: U64::new(self.prev.end.get()),
            prev_first_wall_ms: U64::new(self.prev.first_wall_ms),
            prev_last_wall_ms: U64::new(self.prev.last_wall_ms),
            prev_chain: U32::new(self.prev.chain),
            salt: U32::new(self.salt),
            reserved: [0; 28],
            crc: U32::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head() -> SegmentHead {
        SegmentHead {
            log: LogId {
                generation: 1,
                shard: 2,
            },
            instance: InstanceId(*b"0123456789abcdef"),
            number: SegmentNumber(3),
            base: Lsn::new(0x20000),
            bytes: 0x10000,
            salt: 0xA1B2_C3D4,
            first_seq: 77,
            prev: SegmentTail {
                end: Lsn::new(0x1F000),
                chain: 0x0BAD_CAFE,
                first_wall_ms: 5,
                last_wall_ms: 6,
            },
        }
    }

    #[test]
    fn the_bytes_of_a_segment_header_are_fixed() {
        let mut page = vec![0xFF; PAGE_BYTES];
        head().encode(&mut page);
        let expected: [u8; HEADER_BYTES] = [
            b'S', b'Y', b'N', b'C', b'L', b'S', b'E', b'G', 1, 0, 0, 0, 2, 0, 1, 0, //
            b'0', b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8', b'9', b'a', b'b', b'c', b'd',
            b'e', b'f', //
            3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, // number, base
            0, 0, 1, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, // bytes, first block
            0, 0xF0, 1, 0, 0, 0, 0, 0, // previous end
            5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, // previous wall times
            0xFE, 0xCA, 0xAD, 0x0B, 0xD4, 0xC3, 0xB2, 0xA1, // previous chain, salt
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
            0, //
            40, 59, 33, 113,
        ];
        assert_eq!(page[..HEADER_BYTES], expected);
        assert!(page[HEADER_BYTES..].iter().all(|byte| *byte == 0));
        assert_eq!(SegmentHead::parse(&page), Ok(head()));
    }

    #[test]
    fn every_flipped_bit_of_the_header_page_is_noticed() {
        let mut page = vec![0; PAGE_BYTES];
        head().encode(&mut page);
        for at in 0..page.len() * 8 {
            page[at / 8] ^= 1 << (at % 8);
            assert!(SegmentHead::parse(&page).is_err(), "bit {at}");
            page[at / 8] ^= 1 << (at % 8);
        }
    }

    #[test]
    fn a_newer_format_is_told_apart_from_damage() {
        let mut page = vec![0; PAGE_BYTES];
        head().encode(&mut page);
        page[8] = 2;
        let crc = crc32c::crc32c(&page[..CRC_AT]);
        page[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHead::parse(&page), Err(SegmentFault::Version(2)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_page_with_a_valid_checksum_is_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), CRC_AT)) {
            bytes[..8].copy_from_slice(&SEGMENT_MAGIC);
            bytes[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
            let crc = crc32c::crc32c(&bytes).to_le_bytes();
            bytes.extend_from_slice(&crc);
            bytes.resize(PAGE_BYTES, 0);
            if let Ok(head) = SegmentHead::parse(&bytes) {
                prop_assert!(head.first_block() < head.limit());
                prop_assert!(Lsn::checked(head.limit()).is_some());
            }
        }
    }

    #[test]
    fn the_file_name_round_trips_and_no_other_spelling_is_taken() {
        let number = SegmentNumber(42);
        assert_eq!(number.file_name(), "0000000042.seg");
        assert_eq!(
            SegmentNumber::parse_file_name("0000000042.seg"),
            Some(number)
        );
        for name in [
            "42.seg",
            "0000000000.seg",
            "0000000042.seg.new",
            "0000000042.SEG",
        ] {
            assert_eq!(SegmentNumber::parse_file_name(name), None, "{name}");
        }
    }
}
