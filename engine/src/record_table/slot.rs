//! One known record in 16 bytes.

use crate::operation_slab::{OpIndex, Position};

/// | bits | field |
/// | --- | --- |
/// | `high` 63–16 | tag |
/// | `high` 15–0, `low` 63–32 | position / 8, 0: none |
/// | `low` 31–0 | tail of the record's first lane, 0: none |
///
/// The tag lies on top so that slots compare by one shift. Without position and lane a slot is vacant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    high: u64,
    low: u64,
}

const _: () = assert!(size_of::<Slot>() == 16);

/// What the table knows of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// By which it is known.
    pub tag: RecordTag,
    /// Where its newest state lies in the log.
    pub position: Option<Position>,
    /// The tail of its first lane of queued operations.
    pub lane: Option<OpIndex>,
}

/// 48 bits of a record's keyed hash, others than those that choose its virtual shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordTag(u64);

impl Slot {
    pub(super) const VACANT: Self = Self { high: 0, low: 0 };

    pub(super) fn is_vacant(&self) -> bool {
        self.low == 0 && self.high as u16 == 0
    }

    pub(super) fn tag(&self) -> RecordTag {
        RecordTag(self.high >> 16)
    }

    pub(super) fn record(&self) -> Record {
        Record {
            tag: self.tag(),
            position: Position::unpacked((self.high & 0xffff) << 32 | self.low >> 32),
            lane: OpIndex::from_raw(self.low as u32),
        }
    }
}

impl From<Record> for Slot {
    fn from(record: Record) -> Self {
        let position = record.position.map_or(0, Position::packed);
        Self {
            high: record.tag.0 << 16 | position >> 32,
            low: position << 32 | u64::from(OpIndex::raw(record.lane)),
        }
    }
}

impl Record {
    pub(super) fn unknown(tag: RecordTag) -> Self {
        Self {
            tag,
            position: None,
            lane: None,
        }
    }
}

impl RecordTag {
    pub(super) const BITS: u32 = 48;

    /// The largest tag.
    pub const MAX: Self = Self((1 << Self::BITS) - 1);

    /// The low 48 bits of `hash`.
    pub const fn from_hash(hash: u64) -> Self {
        Self(hash & Self::MAX.0)
    }

    /// The tag as a number below 2⁴⁸.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The next larger tag, for a sweep.
    pub const fn successor(self) -> Option<Self> {
        if self.0 == Self::MAX.0 {
            None
        } else {
            Some(Self(self.0 + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_every_bit_of_its_fields() {
        let positions = [None, Position::new(8), Position::new(Position::LIMIT - 8)];
        for tag in [0, 1, 1 << 47, RecordTag::MAX.0] {
            for position in positions {
                for lane in [0, 1, u32::MAX] {
                    let lane = OpIndex::from_raw(lane);
                    let record = Record {
                        tag: RecordTag::from_hash(tag),
                        position,
                        lane,
                    };
                    let slot = Slot::from(record);
                    assert_eq!(slot.record(), record);
                    assert_eq!(slot.is_vacant(), position.is_none() && lane.is_none());
                }
            }
        }
    }
}
