//! Frames: what the log keeps, each with its own checksum.

use thiserror::Error;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Lsn;

/// What a frame means to the caller; the log only carries it. 0 is never a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameKind(pub u8);

/// A frame that verified, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its position.
    pub lsn: Lsn,
    /// What it means to the caller.
    pub kind: FrameKind,
    /// What the caller stored.
    pub payload: &'a [u8],
}

/// The largest payload of one frame: an event of 1 MiB (the product's cap) and 64 KiB for what
/// the engine stores around it.
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 1024 * 1024 + 64 * 1024;

/// The bytes before each payload.
pub const FRAME_HEADER_BYTES: usize = size_of::<FrameHeader>();

const FRAME_ALIGN: usize = 8;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct FrameHeader {
    len: U32,
    /// Over the frame's LSN, this header without the checksum, and the payload: a frame read at
    /// another place than its own never verifies.
    crc: U32,
    kind: u8,
    flags: u8,
    reserved: U16,
}

const _: () = assert!(FRAME_HEADER_BYTES == 12);

/// The bytes a frame takes in a block, padding counted.
#[must_use]
pub const fn frame_bytes(payload_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + payload_bytes).next_multiple_of(FRAME_ALIGN)
}

/// Why bytes are not the frame that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameFault {
    /// The bytes end before the frame does.
    #[error("the frame is cut off")]
    Cut,
    /// A length, kind or flag that no writer of this format leaves.
    #[error("the frame header is malformed")]
    Malformed,
    /// The checksum does not match.
    #[error("the frame's checksum does not match")]
    Crc,
}

/// A frame's header, checked for shape but not yet against the payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameHead {
    pub(crate) kind: FrameKind,
    pub(crate) payload_bytes: usize,
    crc: u32,
}

impl FrameHead {
    pub(crate) fn parse(bytes: &[u8]) -> Result<FrameHead, FrameFault> {
        let (header, _) = FrameHeader::read_from_prefix(bytes).map_err(|_| FrameFault::Cut)?;
        let payload_bytes = header.len.get() as usize;
        if header.kind == 0
            || header.flags != 0
            || header.reserved.get() != 0
            || payload_bytes > FRAME_PAYLOAD_BYTES_MAX
        {
            return Err(FrameFault::Malformed);
        }
        Ok(FrameHead {
            kind: FrameKind(header.kind),
            payload_bytes,
            crc: header.crc.get(),
        })
    }

    pub(crate) fn verify(self, lsn: Lsn, payload: &[u8]) -> Result<(), FrameFault> {
        if payload.len() != self.payload_bytes {
            return Err(FrameFault::Cut);
        }
        if crc(lsn, self.kind, payload) != self.crc {
            return Err(FrameFault::Crc);
        }
        Ok(())
    }
}

/// Writes the frame over `out`, which is exactly [`frame_bytes`] of the parts' length.
pub(crate) fn encode(out: &mut [u8], lsn: Lsn, kind: FrameKind, parts: &[&[u8]]) {
    assert!(kind.0 != 0, "kind 0 is never a frame");
    let mut end = FRAME_HEADER_BYTES;
    for part in parts {
        out[end..end + part.len()].copy_from_slice(part);
        end += part.len();
    }
    out[end..].fill(0);
    let payload_bytes = end - FRAME_HEADER_BYTES;
    assert!(
        out.len() == frame_bytes(payload_bytes),
        "the frame fills its place"
    );
    let header = FrameHeader {
        len: U32::new(payload_bytes as u32),
        crc: U32::new(crc(lsn, kind, &out[FRAME_HEADER_BYTES..end])),
        kind: kind.0,
        flags: 0,
        reserved: U16::ZERO,
    };
    out[..FRAME_HEADER_BYTES].copy_from_slice(header.as_bytes());
}

/// The frame at the start of `bytes` and the bytes it takes there.
pub(crate) fn decode(bytes: &[u8], lsn: Lsn) -> Result<(Frame<'_>, usize), FrameFault> {
    let head = FrameHead::parse(bytes)?;
    let taken = frame_bytes(head.payload_bytes);
    let frame = bytes.get(..taken).ok_or(FrameFault::Cut)?;
    let (payload, padding) = frame[FRAME_HEADER_BYTES..].split_at(head.payload_bytes);
    head.verify(lsn, payload)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(FrameFault::Malformed);
    }
    Ok((
        Frame {
            lsn,
            kind: head.kind,
            payload,
        },
        taken,
    ))
}

fn crc(lsn: Lsn, kind: FrameKind, payload: &[u8]) -> u32 {
    // LSN, length, kind, flags and reserved: what the header and the place say.
    let mut seed = [0; 16];
    seed[..8].copy_from_slice(&lsn.get().to_le_bytes());
    seed[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    seed[12] = kind.0;
    crc32c::crc32c_append(crc32c::crc32c(&seed), payload)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(lsn: Lsn, kind: FrameKind, parts: &[&[u8]]) -> Vec<u8> {
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        let mut out = vec![0xAA; frame_bytes(payload)];
        encode(&mut out, lsn, kind, parts);
        out
    }

    #[test]
    fn the_bytes_of_a_frame_are_fixed() {
        let bytes = encoded(Lsn::new(4160), FrameKind(7), &[b"he", b"llo"]);
        assert_eq!(
            bytes,
            [
                5, 0, 0, 0, // length
                147, 186, 3, 19, // checksum
                7, 0, 0, 0, // kind, flags, reserved
                b'h', b'e', b'l', b'l', b'o', 0, 0, 0, 0, 0, 0, 0,
            ]
        );
    }

    #[test]
    fn a_frame_at_another_place_does_not_verify() {
        let bytes = encoded(Lsn::new(4160), FrameKind(1), &[b"x"]);
        assert_eq!(decode(&bytes, Lsn::new(4168)), Err(FrameFault::Crc));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn frames_round_trip(kind in 1u8.., at in 0u64..1 << 40, payload: Vec<u8>, cut in 0usize..99) {
            let lsn = Lsn::new(at * 8);
            let cut = cut.min(payload.len());
            let bytes = encoded(lsn, FrameKind(kind), &[&payload[..cut], &payload[cut..]]);
            let frame = Frame { lsn, kind: FrameKind(kind), payload: &payload };
            prop_assert_eq!(decode(&bytes, lsn), Ok((frame, bytes.len())));
        }

        #[test]
        fn any_flipped_bit_is_noticed(payload: Vec<u8>, at: prop::sample::Index, bit in 0u8..8) {
            let lsn = Lsn::new(4160);
            let mut bytes = encoded(lsn, FrameKind(3), &[&payload]);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, lsn).is_err());
        }

        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes: Vec<u8>) {
            let _answer = decode(&bytes, Lsn::ZERO);
        }
    }
}
