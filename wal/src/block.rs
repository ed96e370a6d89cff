//! Commit blocks: the frames that became durable together, in one write.

use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::frame::{
    self, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, Frame, FrameFault, FrameHead, frame_bytes,
};
use crate::page::page_align;
use crate::{LogId, Lsn};

/// The bytes before a block's first frame.
pub const BLOCK_HEADER_BYTES: usize = size_of::<BlockHeader>();

/// The largest block: a single frame of the largest payload.
pub const BLOCK_BYTES_MAX: usize = block_bytes(frame_bytes(FRAME_PAYLOAD_BYTES_MAX));

/// The newest block format this build writes and reads.
pub const BLOCK_VERSION: u8 = 1;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"SYBK");

/// The bytes of a block whose frames take `used` bytes.
pub(crate) const fn block_bytes(used: usize) -> usize {
    page_align((BLOCK_HEADER_BYTES + used) as u64) as usize
}

/// The header as it lies on disk.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct BlockHeader {
    magic: U32,
    version: u8,
    kind: u8,
    /// Milliseconds since 1970, 48 bits.
    wall_ms: [u8; 6],
    log: U32,
    seq: U64,
    lsn: U64,
    durable_lsn: U64,
    salt: U32,
    used: U32,
    frames: U32,
    prev_crc: U32,
    payload_crc: U32,
    /// Over the 60 bytes before it. It stands for the whole block in the chain, since it covers
    /// `payload_crc`.
    header_crc: U32,
}

const _: () = assert!(BLOCK_HEADER_BYTES == 64);
const HEADER_CRC_AT: usize = BLOCK_HEADER_BYTES - 4;

/// What a block is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Carries frames.
    Frames = 1,
    /// Carries none: it says that all before it is durable.
    Seal = 2,
}

/// What a block's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockHead {
    /// What the block is for.
    pub kind: BlockKind,
    /// When it was closed, milliseconds since 1970.
    pub wall_ms: u64,
    /// The log it belongs to.
    pub log: LogId,
    /// Counts the log's blocks without a gap.
    pub seq: u64,
    /// The block's own address; its first frame lies [`BLOCK_HEADER_BYTES`] further.
    pub lsn: Lsn,
    /// All below was known to be durable when this block was closed.
    pub durable_lsn: Lsn,
    /// The salt of its segment.
    pub salt: u32,
    /// Bytes of frames.
    pub used: usize,
    /// Number of frames.
    pub frames: u32,
    /// The chain value of the block before it, or of the segment header when it is the first.
    pub prev_crc: u32,
}

/// What makes a block the one that belongs at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExpectedBlock {
    pub(crate) log: LogId,
    pub(crate) salt: u32,
    pub(crate) seq: u64,
    pub(crate) lsn: Lsn,
    pub(crate) prev_crc: u32,
}

/// Why bytes are not the block that belongs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BlockFault {
    /// The space was never written.
    #[error("no block")]
    Blank,
    /// No block header.
    #[error("no block header")]
    Magic,
    /// The header's checksum does not match.
    #[error("the block header's checksum does not match")]
    HeaderCrc,
    /// Written by a newer format.
    #[error("block format {0} is newer than this build")]
    Version(u8),
    /// Of another log.
    #[error("the block belongs to log {0}")]
    OtherLog(LogId),
    /// Of another segment.
    #[error("the block belongs to another segment")]
    OtherSegment,
    /// It says that it belongs elsewhere.
    #[error("the block belongs at LSN {0}")]
    OtherPlace(Lsn),
    /// Its number does not follow the block before.
    #[error("block {found} where block {expected} belongs")]
    Seq {
        /// The number it has.
        found: u64,
        /// The number that belongs there.
        expected: u64,
    },
    /// It does not continue the block before it.
    #[error("the block does not continue the one before it")]
    Chain,
    /// A length or kind that no writer leaves.
    #[error("the block header is malformed")]
    Malformed,
    /// The frames' checksum does not match.
    #[error("the block's checksum does not match")]
    PayloadCrc,
    /// The block verifies, a frame in it does not.
    #[error("a frame in the block is damaged")]
    Frame(#[source] FrameFault),
}

impl BlockHead {
    /// Reads a header and checks it by itself, not against the place where it lies.
    pub(crate) fn parse(bytes: &[u8]) -> Result<BlockHead, BlockFault> {
        let header = BlockHeader::read_from_prefix(bytes)
            .map_err(|_| BlockFault::Malformed)?
            .0;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Err(BlockFault::Blank);
        }
        if header.magic.get() != BLOCK_MAGIC {
            return Err(BlockFault::Magic);
        }
        if crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_AT]) != header.header_crc.get() {
            return Err(BlockFault::HeaderCrc);
        }
        if header.version != BLOCK_VERSION {
            return Err(BlockFault::Version(header.version));
        }
        let kind = match header.kind {
            1 => BlockKind::Frames,
            2 => BlockKind::Seal,
            _ => return Err(BlockFault::Malformed),
        };
        let (Some(lsn), Some(durable_lsn)) = (
            Lsn::checked(header.lsn.get()),
            Lsn::checked(header.durable_lsn.get()),
        ) else {
            return Err(BlockFault::Malformed);
        };
        let used = header.used.get() as usize;
        if used > BLOCK_BYTES_MAX - BLOCK_HEADER_BYTES || durable_lsn > lsn {
            return Err(BlockFault::Malformed);
        }
        let mut wall_ms = [0; 8];
        wall_ms[..6].copy_from_slice(&header.wall_ms);
        Ok(BlockHead {
            kind,
            wall_ms: u64::from_le_bytes(wall_ms),
            log: LogId::from_raw(header.log.get()),
            seq: header.seq.get(),
            lsn,
            durable_lsn,
            salt: header.salt.get(),
            used,
            frames: header.frames.get(),
            prev_crc: header.prev_crc.get(),
        })
    }

    pub(crate) fn expect(&self, expected: &ExpectedBlock) -> Result<(), BlockFault> {
        if self.log != expected.log {
            return Err(BlockFault::OtherLog(self.log));
        }
        if self.salt != expected.salt {
            return Err(BlockFault::OtherSegment);
        }
        if self.lsn != expected.lsn {
            return Err(BlockFault::OtherPlace(self.lsn));
        }
        if self.seq != expected.seq {
            return Err(BlockFault::Seq {
                found: self.seq,
                expected: expected.seq,
            });
        }
        if self.prev_crc != expected.prev_crc {
            return Err(BlockFault::Chain);
        }
        Ok(())
    }

    /// The whole block's bytes, header and padding counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        block_bytes(self.used)
    }

    /// The address behind the block.
    pub(crate) fn end(&self) -> u64 {
        self.lsn.get() + self.bytes() as u64
    }
}

/// Completes `block`: everything behind the header is in place, the padding is zero.
///
/// Returns the block's chain value, which the next block carries as `prev_crc`.
pub(crate) fn finish(block: &mut [u8], head: &BlockHead) -> u32 {
    assert!(
        block.len() == head.bytes(),
        "the block's length follows from what it holds"
    );
    assert!(
        head.wall_ms < 1 << 48,
        "wall time fits 48 bits until the year 10889"
    );
    let (header_bytes, payload) = block.split_at_mut(BLOCK_HEADER_BYTES);
    let mut wall_ms = [0; 6];
    wall_ms.copy_from_slice(&head.wall_ms.to_le_bytes()[..6]);
    let mut header = BlockHeader {
        magic: U32::new(BLOCK_MAGIC),
        version: BLOCK_VERSION,
        kind: head.kind as u8,
        wall_ms,
        log: U32::new(head.log.get()),
        seq: U64::new(head.seq),
        lsn: U64::new(head.lsn.get()),
        durable_lsn: U64::new(head.durable_lsn.get()),
        salt: U32::new(head.salt),
        used: U32::new(head.used as u32),
        frames: U32::new(head.frames),
        prev_crc: U32::new(head.prev_crc),
        payload_crc: U32::new(crc32c::crc32c(payload)),
        header_crc: U32::ZERO,
    };
    let chain = crc32c::crc32c(&header.as_bytes()[..HEADER_CRC_AT]);
    header.header_crc = U32::new(chain);
    header_bytes.copy_from_slice(header.as_bytes());
    chain
}

/// The chain value of a block that verifies.
pub(crate) fn chain(block: &[u8]) -> u32 {
    let mut crc = [0; 4];
    crc.copy_from_slice(&block[HEADER_CRC_AT..BLOCK_HEADER_BYTES]);
    u32::from_le_bytes(crc)
}

/// Checks everything behind the header of a whole block.
pub(crate) fn verify_payload(block: &[u8], head: &BlockHead) -> Result<(), BlockFault> {
    let (header, _) = BlockHeader::read_from_prefix(block).map_err(|_| BlockFault::Malformed)?;
    if block.len() != head.bytes() {
        return Err(BlockFault::Malformed);
    }
    if crc32c::crc32c(&block[BLOCK_HEADER_BYTES..]) != header.payload_crc.get() {
        return Err(BlockFault::PayloadCrc);
    }
    let mut frames = 0;
    for frame in Frames::of(block, head) {
        frame.map_err(BlockFault::Frame)?;
        frames += 1;
    }
    if frames != head.frames || (head.kind == BlockKind::Seal && frames != 0) {
        return Err(BlockFault::Malformed);
    }
    Ok(())
}

/// The frames of a block in order; ends after the first that does not verify.
#[derive(Clone)]
pub(crate) struct Frames<'a> {
    bytes: &'a [u8],
    lsn: u64,
}

impl<'a> Frames<'a> {
    /// The frames of a block that [`verify_payload`] accepted, not verified again.
    pub(crate) fn verified(block: &'a [u8], head: &BlockHead) -> impl Iterator<Item = Frame<'a>> {
        let mut frames = Frames::of(block, head);
        std::iter::from_fn(move || {
            // The same bytes were walked before: no step can fault.
            let frame = FrameHead::parse(frames.bytes).ok()?;
            let lsn = Lsn::checked(frames.lsn)?;
            let taken = frame_bytes(frame.payload_bytes);
            let payload = frames
                .bytes
                .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + frame.payload_bytes)?;
            frames.bytes = frames.bytes.get(taken..)?;
            frames.lsn += taken as u64;
            Some(Frame {
                lsn,
                kind: frame.kind,
                payload,
            })
        })
    }

    pub(crate) fn of(block: &'a [u8], head: &BlockHead) -> Frames<'a> {
        let frames_at = BLOCK_HEADER_BYTES;
        Frames {
            bytes: block.get(frames_at..frames_at + head.used).unwrap_or(&[]),
            lsn: head.lsn.get() + frames_at as u64,
        }
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, FrameFault>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let Some(lsn) = Lsn::checked(self.lsn) else {
            self.bytes = &[];
            return Some(Err(FrameFault::Malformed));
        };
        match frame::decode(self.bytes, lsn) {
            Ok((frame, taken)) => {
                self.bytes = &self.bytes[taken..];
                self.lsn += taken as u64;
                Some(Ok(frame))
            }
            Err(fault) => {
                self.bytes = &[];
                Some(Err(fault))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::FrameKind;

    fn block(payloads: &[&[u8]]) -> (Vec<u8>, BlockHead) {
        let used = payloads
            .iter()
            .map(|payload| frame_bytes(payload.len()))
            .sum();
        let head = BlockHead {
            kind: if payloads.is_empty() {
                BlockKind::Seal
            } else {
                BlockKind::Frames
            },
            wall_ms: 0x0102_0304_0506,
            log: LogId {
                generation: 1,
                shard: 2,
            },
            seq: 9,
            lsn: Lsn::new(8192),
            durable_lsn: Lsn::new(4096),
            salt: 0x5A5A_5A5A,
            used,
            frames: payloads.len() as u32,
            prev_crc: 0x1111_2222,
        };
        let mut bytes = vec![0; head.bytes()];
        let mut at = BLOCK_HEADER_BYTES;
        for payload in payloads {
            let end = at + frame_bytes(payload.len());
            let lsn = Lsn::new(head.lsn.get() + at as u64);
            frame::encode(&mut bytes[at..end], lsn, FrameKind(1), &[payload]);
            at = end;
        }
        finish(&mut bytes, &head);
        (bytes, head)
    }

    fn verify(bytes: &[u8]) -> Result<BlockHead, BlockFault> {
        let head = BlockHead::parse(bytes)?;
        let whole = bytes.get(..head.bytes()).ok_or(BlockFault::Malformed)?;
        verify_payload(whole, &head)?;
        Ok(head)
    }

    #[test]
    fn the_bytes_of_a_block_header_are_fixed() {
        let (bytes, head) = block(&[b"a"]);
        assert_eq!(BlockHead::parse(&bytes), Ok(head));
        assert_eq!(
            bytes[..BLOCK_HEADER_BYTES],
            [
                b'S', b'Y', b'B', b'K', 1, 1, 6, 5, 4, 3, 2, 1, // magic, version, kind, wall
                2, 0, 1, 0, // log: shard, generation
                9, 0, 0, 0, 0, 0, 0, 0, // seq
                0, 0x20, 0, 0, 0, 0, 0, 0, // lsn
                0, 0x10, 0, 0, 0, 0, 0, 0, // durable lsn
                0x5A, 0x5A, 0x5A, 0x5A, // salt
                16, 0, 0, 0, 1, 0, 0, 0, // used, frames
                0x22, 0x22, 0x11, 0x11, // previous chain value
                118, 107, 199, 168, // payload
                193, 81, 214, 221, // header
            ]
        );
    }

    #[test]
    fn every_flipped_bit_of_a_block_is_noticed() {
        let (bytes, _) = block(&[b"first", b"second"]);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                assert!(verify(&damaged).is_err(), "byte {at} bit {bit}");
            }
        }
    }

    #[test]
    fn a_block_is_bound_to_its_place() {
        let (_, head) = block(&[b"x"]);
        let right = ExpectedBlock {
            log: head.log,
            salt: head.salt,
            seq: head.seq,
            lsn: head.lsn,
            prev_crc: head.prev_crc,
        };
        assert_eq!(head.expect(&right), Ok(()));
        let wrong: [ExpectedBlock; 5] = [
            ExpectedBlock {
                log: LogId {
                    generation: 1,
                    shard: 3,
                },
                ..right
            },
            ExpectedBlock { salt: 1, ..right },
            ExpectedBlock { seq: 10, ..right },
            ExpectedBlock {
                lsn: Lsn::new(4096),
                ..right
            },
            ExpectedBlock {
                prev_crc: 0,
                ..right
            },
        ];
        for expected in wrong {
            assert!(head.expect(&expected).is_err(), "{expected:?}");
        }
    }

    #[test]
    fn a_seal_holds_no_frame() {
        let (bytes, head) = block(&[]);
        assert_eq!(bytes.len(), 4096);
        assert_eq!(verify(&bytes), Ok(head));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_read_without_a_panic(mut bytes: Vec<u8>, valid_crc: bool) {
            if valid_crc && bytes.len() >= BLOCK_HEADER_BYTES {
                bytes[..4].copy_from_slice(b"SYBK");
                let crc = crc32c::crc32c(&bytes[..HEADER_CRC_AT]);
                bytes[HEADER_CRC_AT..BLOCK_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
            }
            let _answer = verify(&bytes);
        }
    }
}
