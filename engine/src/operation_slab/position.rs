//! Where something lies in a shard's log.

use std::num::NonZeroU64;

/// The position of a frame in one shard's log: a multiple of 8, above 0 (the log's own header lies
/// there) and below 2⁵¹, so that position / 8 takes 48 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(NonZeroU64);

impl Position {
    /// One past the largest position: 2 PiB of log in one shard.
    pub const LIMIT: u64 = 1 << 51;

    /// The position of byte `offset`, if it is one that can be kept.
    pub const fn new(offset: u64) -> Option<Self> {
        if !offset.is_multiple_of(8) || offset >= Self::LIMIT {
            return None;
        }
        match NonZeroU64::new(offset) {
            Some(offset) => Some(Self(offset)),
            None => None,
        }
    }

    /// The byte offset in the log.
    pub const fn offset(self) -> u64 {
        self.0.get()
    }

    /// Position / 8: 48 bits, never 0.
    pub(crate) const fn packed(self) -> u64 {
        self.0.get() / 8
    }

    /// The inverse of `packed`; 0 is no position.
    pub(crate) const fn unpacked(packed: u64) -> Option<Self> {
        Self::new(packed * 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_multiples_of_eight_above_zero_and_below_the_limit_are_positions() {
        for refused in [0, 1, 7, 12, Position::LIMIT, u64::MAX - 7] {
            assert_eq!(Position::new(refused), None, "{refused}");
        }
        for taken in [8, 4096, Position::LIMIT - 8] {
            let position = Position::new(taken).unwrap();
            assert_eq!(position.offset(), taken);
            assert_eq!(Position::unpacked(position.packed()), Some(position));
        }
    }
}
