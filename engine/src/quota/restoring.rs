//! Tokens on their way back to a pool, bundled so that a window costs a thousand entries.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::time::Mono;

/// Slots per window: rounding up costs at most 0.1 % of the window, 0.05 % on average.
const SLOTS_PER_WINDOW: u64 = 1000;

/// When which number of tokens may be lent again. Rounds up, never early.
#[derive(Debug)]
pub(super) struct Restoring {
    slot_ns: u64,
    /// By slot; the tokens of slot `i` are back from `i * slot_ns` on.
    bundles: BTreeMap<u64, Bundle>,
    tokens: u64,
}

#[derive(Debug)]
struct Bundle {
    tokens: u64,
    /// Wall time in ms at which the bundle is back even if its slot is not due.
    boundary_ms: i64,
}

/// The boundary of tokens that wait for their slot alone.
pub(super) const NO_BOUNDARY: i64 = i64::MAX;

impl Restoring {
    pub(super) fn new(window: Duration) -> Self {
        let window_ns = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        Self {
            slot_ns: window_ns.div_ceil(SLOTS_PER_WINDOW).max(1),
            bundles: BTreeMap::new(),
            tokens: 0,
        }
    }

    /// Has `tokens` back strictly after `at`, or once the wall clock surely reads `boundary_ms`.
    pub(super) fn push(&mut self, at: Mono, boundary_ms: i64, tokens: u64) {
        if tokens == 0 {
            return;
        }
        // The slot that starts strictly after `at`: at the very instant completion + W a closed
        // window would still hold the call.
        let slot = at.0 / self.slot_ns + 1;
        let bundle = self.bundles.entry(slot).or_insert(Bundle {
            tokens: 0,
            boundary_ms,
        });
        bundle.tokens += tokens;
        bundle.boundary_ms = bundle.boundary_ms.max(boundary_ms);
        self.tokens += tokens;
    }

    /// Takes out what is back at `now`, while the wall clock surely reads `wall_low_ms` or later.
    pub(super) fn pop_due(&mut self, now: Mono, wall_low_ms: i64) -> u64 {
        let mut back = 0;
        while let Some(entry) = self.bundles.first_entry() {
            let due = entry.key().saturating_mul(self.slot_ns) <= now.0;
            if !due && entry.get().boundary_ms > wall_low_ms {
                break;
            }
            back += entry.remove().tokens;
        }
        self.tokens -= back;
        back
    }

    /// When the first tokens come back: the start of their slot, and their boundary.
    pub(super) fn first(&self) -> Option<(Mono, i64)> {
        let (slot, bundle) = self.bundles.first_key_value()?;
        let at = Mono(slot.saturating_mul(self.slot_ns));
        Some((at, bundle.boundary_ms))
    }

    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Tokens whose slot has begun by `at`, and a slot more.
    pub(super) fn tokens_before(&self, at: Mono) -> u64 {
        let last = at.0 / self.slot_ns + 1;
        self.bundles
            .range(..=last)
            .map(|(_, bundle)| bundle.tokens)
            .sum()
    }

    /// What comes back when, by the slots alone.
    pub(super) fn returns(&self) -> impl Iterator<Item = (Mono, u64)> + '_ {
        let at = |slot: u64| Mono(slot.saturating_mul(self.slot_ns));
        self.bundles
            .iter()
            .map(move |(slot, bundle)| (at(*slot), bundle.tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_back_at_or_before_its_instant() {
        let mut restoring = Restoring::new(Duration::from_micros(10));
        assert_eq!(restoring.slot_ns, 10);
        for at in 0..200 {
            restoring.push(Mono(at), NO_BOUNDARY, 1);
            assert_eq!(restoring.pop_due(Mono(at), 0), 0, "back at {at}");
            assert_eq!(restoring.pop_due(Mono(at + 10), 0), 1, "late for {at}");
        }
    }

    #[test]
    fn a_window_of_calls_costs_a_thousand_bundles() {
        let mut restoring = Restoring::new(Duration::from_secs(1));
        for at in 0..100_000 {
            restoring.push(Mono(at * 10_000), NO_BOUNDARY, 1);
        }
        assert_eq!(restoring.bundles.len(), 1000);
        assert_eq!(restoring.tokens(), 100_000);
        assert_eq!(restoring.pop_due(Mono(500_000_000), 0), 50_000);
        assert_eq!(restoring.tokens(), 50_000);
    }

    #[test]
    fn a_boundary_brings_tokens_back_before_their_slot() {
        let mut restoring = Restoring::new(Duration::from_secs(1));
        restoring.push(Mono(1_000_000_000), 5_000, 3);
        restoring.push(Mono(1_000_000_000), 5_001, 1);
        assert_eq!(restoring.pop_due(Mono(1), 5_000), 0, "the later one rules");
        assert_eq!(restoring.pop_due(Mono(1), 5_001), 4);
    }
}
