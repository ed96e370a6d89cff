//! How many tokens moved since an instant not long ago.

use std::collections::VecDeque;

use crate::time::Mono;

/// Instants closer than this are one: shorter than a lease takes to be logged and used.
const SLOT_NS: u64 = 1_000_000;
/// Slots remembered: four seconds, more than all but the slowest replies take.
const SLOTS_KEPT: u64 = 4096;

/// Tokens that moved, by when, for the last few seconds.
#[derive(Debug, Default)]
pub(super) struct Tally {
    slots: VecDeque<(u64, u64)>,
    /// Slots before this one were forgotten.
    known_from: u64,
}

impl Tally {
    pub(super) fn add(&mut self, now: Mono, tokens: u64) {
        let slot = now.0 / SLOT_NS;
        match self.slots.back_mut() {
            Some((last, sum)) if *last >= slot => *sum += tokens,
            _ => self.slots.push_back((slot, tokens)),
        }
        while let Some(&(oldest, _)) = self.slots.front() {
            if slot - oldest.min(slot) < SLOTS_KEPT {
                break;
            }
            self.known_from = oldest + 1;
            self.slots.pop_front();
        }
    }

    /// What moved at `at` or later, and up to a slot more; `None` when that is not known any more.
    pub(super) fn since(&self, at: Mono) -> Option<u64> {
        let slot = at.0 / SLOT_NS;
        if slot < self.known_from {
            return None;
        }
        let later = self.slots.iter().rev().take_while(|(own, _)| *own >= slot);
        Some(later.map(|(_, tokens)| tokens).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn what_moved_since_an_instant_is_counted_and_old_times_are_not_known() {
        let mut tally = Tally::default();
        tally.add(ms(100), 3);
        tally.add(Mono(ms(100).0 + 999), 1);
        tally.add(ms(250), 5);
        assert_eq!(
            tally.since(Mono(ms(250).0 + 9)),
            Some(5),
            "in the same slot"
        );
        assert_eq!(tally.since(ms(251)), Some(0));
        assert_eq!(tally.since(ms(101)), Some(5));
        assert_eq!(tally.since(ms(0)), Some(9));
        tally.add(ms(10_000), 7);
        assert_eq!(tally.since(ms(250)), None);
        assert_eq!(tally.since(ms(9000)), Some(7));
        assert_eq!(tally.slots.len(), 1);
    }
}
