//! How fast something goes lately.

use crate::time::Mono;

/// What is remembered of a rate halves every 42 s: steady against bursts of a batch, quick
/// enough that a forecast follows within two minutes.
const TIME_CONSTANT_S: f64 = 60.0;

/// A count a second, exponentially decayed.
#[derive(Debug, Default)]
pub(super) struct Rate {
    per_s: f64,
    at: Mono,
}

impl Rate {
    pub(super) fn add(&mut self, now: Mono, count: u64) {
        self.per_s = self.per_second(now) + count as f64 / TIME_CONSTANT_S;
        self.at = self.at.max(now);
    }

    pub(super) fn per_second(&self, now: Mono) -> f64 {
        let age = now.saturating_since(self.at).as_secs_f64();
        self.per_s * (-age / TIME_CONSTANT_S).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_pace_is_found_and_forgotten_when_it_ends() {
        let mut rate = Rate::default();
        for tenth in 0..6000 {
            rate.add(Mono(tenth * 100_000_000), 2);
        }
        let end = Mono(600_000_000_000);
        assert!((rate.per_second(end) - 20.0).abs() < 0.1, "{rate:?}");
        let later = Mono(end.0 + 300_000_000_000);
        assert!(rate.per_second(later) < 0.2);
    }
}
