//! Finds an entry's position by its key.

use super::taken::EventKey;

/// Buckets of one cache line: 15 slots of 4 bytes, and how many keys of this bucket or before went
/// past it because it was full. A search ends at the first bucket that none went past, and removing a
/// key moves no other and leaves no grave behind, so that the steady coming and going of a window
/// costs the same for ever. (The scheme is F14's: <https://engineering.fb.com/2019/04/25/developer-tools/f14/>.)
///
/// A slot holds the low bits of a position, and above them bits of the key that spare the look at
/// most entries with another key.
#[derive(Debug)]
pub(super) struct KeyTable {
    buckets: Vec<Bucket>,
    position_bits: u32,
}

#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    /// 0: vacant; else the print, which is never 0, above the position's low bits.
    slots: [u32; SLOTS],
    passed: u32,
}

const SLOTS: usize = 15;
const _: () = assert!(size_of::<Bucket>() == 64);

impl KeyTable {
    /// At 0.85, one key in twenty lies in another than its own bucket.
    const LOAD_MAX_PERCENT: usize = 85;
    /// A growth by 1.25 leaves a load of 0.68: 6.3 bytes a key.
    const GROWTH_PERCENT: usize = 125;
    /// Below this load (7.6 bytes a key) the table is rebuilt smaller.
    const LOAD_MIN_PERCENT: usize = 56;
    const LOAD_REBUILT_PERCENT: usize = 70;

    /// For positions that span at most `span`.
    pub(super) fn new(span: u32) -> Self {
        Self {
            buckets: Vec::new(),
            position_bits: u32::BITS - (span - 1).leading_zeros(),
        }
    }

    pub(super) fn position_bits(&self) -> u32 {
        self.position_bits
    }

    /// What `is_it` makes of the low bits of a position that may be the key's.
    pub(super) fn find<T>(&self, key: EventKey, is_it: impl Fn(u32) -> Option<T>) -> Option<T> {
        let print = self.print(key);
        for bucket in self.path(key) {
            let bucket = &self.buckets[bucket];
            for slot in bucket.slots {
                if slot >> self.position_bits == print
                    && let Some(found) = is_it(slot & self.position_mask())
                {
                    return Some(found);
                }
            }
            if bucket.passed == 0 {
                break;
            }
        }
        None
    }

    /// Puts a position down for a key. There must be room.
    pub(super) fn insert(&mut self, key: EventKey, position: u64) {
        let value = self.value(key, position);
        for bucket in self.path(key) {
            let bucket = &mut self.buckets[bucket];
            if let Some(vacant) = bucket.slots.iter_mut().find(|slot| **slot == 0) {
                *vacant = value;
                return;
            }
            bucket.passed += 1;
        }
        unreachable!("the table is never full");
    }

    /// Takes a position out that was put down for `key`.
    pub(super) fn remove(&mut self, key: EventKey, position: u64) {
        let value = self.value(key, position);
        for bucket in self.path(key) {
            let bucket = &mut self.buckets[bucket];
            if let Some(slot) = bucket.slots.iter_mut().find(|slot| **slot == value) {
                *slot = 0;
                return;
            }
            bucket.passed -= 1;
        }
        unreachable!("the position was put down");
    }

    pub(super) fn is_full_with(&self, keys: usize) -> bool {
        keys * 100 > self.capacity() * Self::LOAD_MAX_PERCENT
    }

    /// An empty table to move to when this one is full.
    pub(super) fn grown(&self) -> Self {
        self.with_buckets(
            (self.buckets.len() * Self::GROWTH_PERCENT)
                .div_ceil(100)
                .max(1),
        )
    }

    /// An empty table to move to if this one is too large for `keys`.
    pub(super) fn shrunk_for(&self, keys: usize) -> Option<Self> {
        if keys * 100 >= self.capacity() * Self::LOAD_MIN_PERCENT {
            return None;
        }
        let buckets = (keys * 100).div_ceil(SLOTS * Self::LOAD_REBUILT_PERCENT);
        (buckets < self.buckets.len()).then(|| self.with_buckets(buckets))
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn with_buckets(&self, buckets: usize) -> Self {
        Self {
            buckets: vec![Bucket::default(); buckets],
            position_bits: self.position_bits,
        }
    }

    fn capacity(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// The buckets a key may lie in, its own first.
    fn path(&self, key: EventKey) -> impl Iterator<Item = usize> + use<> {
        let buckets = self.buckets.len();
        let home = ((u64::from(key.high()) * buckets as u64) >> u32::BITS) as usize;
        (home..buckets).chain(0..home)
    }

    fn value(&self, key: EventKey, position: u64) -> u32 {
        self.print(key) << self.position_bits | position as u32 & self.position_mask()
    }

    /// From 1 to what the slot's upper bits hold.
    fn print(&self, key: EventKey) -> u32 {
        let most = (1 << (u32::BITS - self.position_bits).min(16)) - 1;
        1 + key.low() % most
    }

    fn position_mask(&self) -> u32 {
        (1 << self.position_bits) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::EventKeys;

    /// A stripe's keys share the bits that chose it. If those placed them as well, its table would be
    /// crowded in places and empty in others.
    #[test]
    fn the_keys_of_one_stripe_lie_near_home_in_a_full_table() {
        const KEYS: usize = 50_000;
        let keys = EventKeys::new(1);
        let ids = (0_u64..).map(|number| keys.key(b"producer", &number.to_le_bytes()));
        let stripe: Vec<EventKey> = ids.filter(|key| key.stripe(64) == 5).take(KEYS).collect();

        let buckets = KEYS * 100 / SLOTS / KeyTable::LOAD_MAX_PERCENT;
        let mut table = KeyTable::new(1 << 20).with_buckets(buckets);
        for (position, key) in (0..).zip(&stripe) {
            table.insert(*key, position);
        }
        let passed: u32 = table.buckets.iter().map(|bucket| bucket.passed).sum();
        assert!(
            (passed as usize) < KEYS / 5,
            "{passed} buckets passed by {KEYS} keys"
        );

        let looked_at = std::cell::Cell::new(0_usize);
        for (position, key) in (0_u32..).zip(&stripe) {
            let found = table.find(*key, |low| {
                looked_at.set(looked_at.get() + 1);
                (low == position).then_some(low)
            });
            assert_eq!(found, Some(position));
        }
        assert!(
            looked_at.get() < KEYS * 101 / 100,
            "prints spare the look at other entries"
        );

        for (position, key) in (0..).zip(&stripe) {
            table.remove(*key, position);
        }
        let vacant = |bucket: &Bucket| bucket.slots == [0; SLOTS] && bucket.passed == 0;
        assert!(table.buckets.iter().all(vacant));
    }
}
