//! The watermark file: what the log's own tail cannot tell after it was cut off.

use std::collections::BTreeSet;
use std::io;

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::segment::SEQ_MAX;
use crate::storage::{File, Storage};
use crate::two_slots::{SLOT_BODY_BYTES, SlotFormat, TwoSlots};
use crate::{LogId, Lsn, SegmentNumber};

/// The watermark file of a log.
pub const WATERMARK_FILE: &str = WATERMARK.name;

/// How far behind the first live segment others may be released before it: 1 TiB of 64 MiB
/// segments, one bit each.
pub const RELEASED_AHEAD_MAX: u64 = 16_384;

pub(crate) const WATERMARK: SlotFormat = SlotFormat {
    name: "watermark",
    magic: *b"SYNCLWMK",
    version: 1,
};

const BITMAP_BYTES: usize = (RELEASED_AHEAD_MAX / 8) as usize;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    durable_lsn: U64,
    last_segment: U64,
    first_live: U64,
    reserved: [u8; 16],
    /// Bit i: segment `first_live + i` is released.
    released: [u8; BITMAP_BYTES],
}

const _: () = assert!(size_of::<Body>() <= SLOT_BODY_BYTES);

/// What the watermark says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// Every frame below was durable.
    pub durable_lsn: Lsn,
    /// The newest segment whose header was written; 0 before the first.
    pub last_segment: SegmentNumber,
    /// Segments before it are released and may be gone.
    pub first_live: SegmentNumber,
    /// Segments behind `first_live` that are released: their files keep the header only.
    pub released: BTreeSet<SegmentNumber>,
}

impl Watermark {
    pub(crate) fn of_new_log() -> Watermark {
        Watermark {
            durable_lsn: Lsn::ZERO,
            last_segment: SegmentNumber(0),
            first_live: SegmentNumber::FIRST,
            released: BTreeSet::new(),
        }
    }

    /// Whether nothing lives in the segment.
    #[must_use]
    pub fn is_released(&self, number: SegmentNumber) -> bool {
        number < self.first_live || self.released.contains(&number)
    }

    /// Whether there is a place to note that `number` is released.
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

    pub(crate) fn encode(&self) -> impl AsRef<[u8]> + use<> {
        let mut body = Body::new_zeroed();
        body.durable_lsn = U64::new(self.durable_lsn.get());
        body.last_segment = U64::new(self.last_segment.0);
        body.first_live = U64::new(self.first_live.0);
        for number in &self.released {
            let bit = (number.0 - self.first_live.0) as usize;
            body.released[bit / 8] |= 1 << (bit % 8);
        }
        let mut bytes = [0; size_of::<Body>()];
        bytes.copy_from_slice(body.as_bytes());
        bytes
    }

    /// None when the body verified and yet says what no writer of this format says.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Watermark> {
        let (body, _) = Body::read_from_prefix(bytes).ok()?;
        let first_live = body.first_live.get();
        if first_live == 0 || first_live > SEQ_MAX {
            return None;
        }
        let released = (0..RELEASED_AHEAD_MAX)
            .filter(|bit| body.released[(bit / 8) as usize] & (1 << (bit % 8)) != 0)
            .map(|bit| SegmentNumber(first_live + bit))
            .collect();
        Some(Watermark {
            durable_lsn: Lsn::checked(body.durable_lsn.get())?,
            last_segment: SegmentNumber(body.last_segment.get()),
            first_live: SegmentNumber(first_live),
            released,
        })
    }
}

/// The open watermark file; owned by the writer.
pub(crate) struct WatermarkFile<F: File> {
    slots: TwoSlots<F>,
    pub(crate) now: Watermark,
}

impl<F: File> WatermarkFile<F> {
    pub(crate) fn new(slots: TwoSlots<F>, now: Watermark) -> WatermarkFile<F> {
        WatermarkFile { slots, now }
    }

    /// Creates the file of a new log, whole or not at all.
    pub(crate) fn create<S: Storage<File = F>>(storage: &S, log: LogId) -> io::Result<Self> {
        let now = Watermark::of_new_log();
        let slots = TwoSlots::create(storage, WATERMARK, log.get(), now.encode().as_ref())?;
        Ok(WatermarkFile { slots, now })
    }

    /// Writes the watermark; durable on return.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        self.slots.write(self.now.encode().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn watermark() -> Watermark {
        Watermark {
            durable_lsn: Lsn::new(0x9000),
            last_segment: SegmentNumber(9),
            first_live: SegmentNumber(2),
            released: [SegmentNumber(3), SegmentNumber(5)].into(),
        }
    }

    #[test]
    fn the_bytes_of_a_watermark_are_fixed() {
        let bytes = watermark().encode();
        let mut expected = Vec::new();
        for word in [0x9000u64, 9, 2, 0, 0] {
            expected.extend_from_slice(&word.to_le_bytes());
        }
        expected.push(0b1010);
        expected.resize(40 + 2048, 0);
        assert_eq!(bytes.as_ref(), expected);
        assert_eq!(Watermark::parse(bytes.as_ref()), Some(watermark()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_body_is_read_without_a_panic_and_written_the_same(bytes in prop::collection::vec(any::<u8>(), 0..2200)) {
            if let Some(watermark) = Watermark::parse(&bytes) {
                let again = watermark.encode();
                prop_assert_eq!(Watermark::parse(again.as_ref()), Some(watermark));
            }
        }
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
