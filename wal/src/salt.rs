//! Salts, drawn from the seed that the caller passes in.

use crate::SegmentNumber;

/// The salt of a segment: the same seed never gives two segments of a log the same bytes by
/// design, and two starts have two seeds.
pub(crate) fn segment_salt(seed: u64, number: SegmentNumber) -> u32 {
    (split_mix(seed ^ split_mix(number.0)) >> 32) as u32
}

/// One step of SplitMix64 (Steele, Lea, Flood: OOPSLA 2014).
pub(crate) const fn split_mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_seeds_give_different_salts() {
        let one = segment_salt(1, SegmentNumber(1));
        assert_ne!(one, segment_salt(1, SegmentNumber(2)));
        assert_ne!(one, segment_salt(2, SegmentNumber(1)));
    }
}
