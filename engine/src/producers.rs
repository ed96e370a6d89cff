//! Which sequence numbers of each producer this shard's log has settled.

use std::collections::{HashMap, VecDeque};

/// What one shard knows of all producers. Shards become durable at different times, so after
/// a restart their views are joined by [`resume_point`].
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Producers {
    seen: HashMap<u64, Seen>,
}

/// What one shard knows of one producer.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Every number up to here was settled somewhere.
    pub base: u64,
    /// Numbers above it that this shard settled, ascending. Bounded by a session's window.
    pub above: VecDeque<u64>,
}

impl Producers {
    /// Number `seq` of `producer` is in this shard's log; when it was sent, every number up to
    /// `base` was settled.
    pub fn settle(&mut self, producer: u64, seq: u64, base: u64) {
        let seen = self.seen.entry(producer).or_default();
        seen.raise(base);
        if seq > seen.base {
            match seen.above.back() {
                Some(&last) if last >= seq => {
                    if let Err(at) = seen.above.binary_search(&seq) {
                        seen.above.insert(at, seq);
                    }
                }
                _ => seen.above.push_back(seq),
            }
        }
    }

    /// Every producer's view, in the order of their hashes.
    #[must_use]
    pub fn sorted(&self) -> Vec<(u64, &Seen)> {
        let mut all: Vec<_> = self
            .seen
            .iter()
            .map(|(&producer, seen)| (producer, seen))
            .collect();
        all.sort_unstable_by_key(|(producer, _)| *producer);
        all
    }

    /// A view from a checkpoint or another log, joined with what is known.
    pub fn restore(&mut self, producer: u64, other: &Seen) {
        let seen = self.seen.entry(producer).or_default();
        let mut above: Vec<u64> = seen.above.iter().chain(&other.above).copied().collect();
        above.sort_unstable();
        above.dedup();
        seen.above = above.into();
        seen.raise(seen.base.max(other.base));
    }
}

impl Seen {
    fn raise(&mut self, base: u64) {
        self.base = self.base.max(base);
        while self.above.front().is_some_and(|&seq| seq <= self.base) {
            self.above.pop_front();
        }
    }
}

/// Where a producer goes on: the last number below which nothing is missing, and the numbers
/// above it that are in some log already and must not be taken twice.
#[must_use]
pub fn resume_point(mut seen: Seen) -> (u64, Vec<u64>) {
    let mut last = seen.base;
    while seen.above.front() == Some(&(last + 1)) {
        seen.above.pop_front();
        last += 1;
    }
    (last, seen.above.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_became_durable_apart_are_joined_without_loss_or_repeat() {
        let (mut a, mut b) = (Producers::default(), Producers::default());
        for seq in [1, 3, 4, 7] {
            a.settle(9, seq, 0);
        }
        for seq in [2, 5, 9] {
            b.settle(9, seq, 2);
        }
        let mut joined = Producers::default();
        for shard in [a, b] {
            for (producer, seen) in shard.sorted() {
                joined.restore(producer, seen);
            }
        }
        let (_, seen) = joined.sorted()[0];
        assert_eq!(resume_point(seen.clone()), (5, vec![7, 9]));
    }

    #[test]
    fn an_acknowledged_base_makes_room() {
        let mut producers = Producers::default();
        for seq in 1..=1000 {
            producers.settle(1, seq, seq.saturating_sub(10));
        }
        let (_, seen) = producers.sorted()[0];
        assert_eq!((seen.base, seen.above.len()), (990, 10));
    }

    #[test]
    fn the_same_number_twice_is_one() {
        let mut producers = Producers::default();
        for seq in [5, 4, 5, 4] {
            producers.settle(1, seq, 0);
        }
        assert_eq!(producers.sorted()[0].1.above, [4, 5]);
    }
}
