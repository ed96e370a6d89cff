//! Which cost classes operations are of, before they are looked at: as those before them were.

use crate::operation_slab::SORTED_LISTS;

/// Operations remembered, so that a change of traffic shows within a batch or two.
const MEMORY: u32 = 256;

/// How many of the operations looked at lately were of each class, by its place.
#[derive(Debug, Default)]
pub(super) struct ClassMix {
    seen: [u32; SORTED_LISTS],
}

impl ClassMix {
    /// One was of the class at this place.
    pub(super) fn saw(&mut self, place: usize) {
        self.seen[place] += 1;
        if self.sum() >= MEMORY {
            for seen in &mut self.seen {
                *seen /= 2;
            }
        }
    }

    /// How many of `count` operations are likely to be of the class at this place, rounded up.
    pub(super) fn share_of(&self, place: usize, count: usize) -> usize {
        let sum = self.sum().max(1) as usize;
        (count * self.seen[place] as usize).div_ceil(sum)
    }

    /// The place of the class that most were of.
    pub(super) fn usual(&self) -> usize {
        let places = (0..SORTED_LISTS).rev();
        places.max_by_key(|&place| self.seen[place]).unwrap_or(0)
    }

    fn sum(&self) -> u32 {
        self.seen.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_taken_to_be_like_what_came() {
        let mut mix = ClassMix::default();
        assert_eq!((mix.usual(), mix.share_of(0, 10)), (0, 0));
        for place in [2, 2, 1, 2] {
            mix.saw(place);
        }
        assert_eq!(mix.usual(), 2);
        assert_eq!((mix.share_of(2, 100), mix.share_of(1, 100)), (75, 25));
        assert_eq!(mix.share_of(1, 1), 1, "rounded up");
    }

    #[test]
    fn a_change_of_traffic_shows_soon() {
        let mut mix = ClassMix::default();
        for _ in 0..100_000 {
            mix.saw(1);
        }
        for _ in 0..MEMORY {
            mix.saw(3);
        }
        assert_eq!(mix.usual(), 3);
    }
}
