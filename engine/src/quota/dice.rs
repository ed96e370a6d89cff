//! The coordinator's one seeded generator.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): spreads any seed, which is all jitter needs.
#[derive(Debug)]
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Full jitter: anything from zero to `ceiling`.
    pub(super) fn up_to(&mut self, ceiling: Duration) -> Duration {
        let ceiling = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let scaled = (u128::from(self.next()) * u128::from(ceiling)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).expect("below the ceiling"))
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throws_fill_the_range_and_stay_below_the_ceiling() {
        let mut dice = Dice::new(7);
        let ceiling = Duration::from_secs(10);
        let throws: Vec<Duration> = (0..1000).map(|_| dice.up_to(ceiling)).collect();
        assert!(throws.iter().all(|t| *t < ceiling));
        let mean = throws.iter().sum::<Duration>() / 1000;
        assert!((4500..5500).contains(&mean.as_millis()), "{mean:?}");
        assert_eq!(dice.up_to(Duration::ZERO), Duration::ZERO);
    }
}
