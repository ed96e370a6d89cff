//! When events are due.

use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Events a second that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Rate {
    /// Open loop: event `n` is due at `n / rate`, whatever became of those before.
    PerSecond(NonZeroU64),
    /// As many as the window of unanswered events lets through.
    Max,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Rate, String> {
        if text == "max" {
            return Ok(Rate::Max);
        }
        text.parse()
            .map(Rate::PerSecond)
            .map_err(|_| format!("`{text}` is neither `max` nor a number of events a second"))
    }
}

/// The open loop's clock, dealt out over connections: event `n` goes to connection
/// `n % connections`, as its event `n / connections`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    per_second: NonZeroU64,
    connections: u64,
    /// Events of the whole run.
    total: u64,
}

impl Schedule {
    pub(crate) fn new(per_second: NonZeroU64, connections: usize, lasts: Duration) -> Schedule {
        let total = (per_second.get() as f64 * lasts.as_secs_f64()).round() as u64;
        Schedule {
            per_second,
            connections: connections as u64,
            total,
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// How many events of one connection are due once `elapsed` has passed.
    pub(crate) fn due(&self, connection: usize, elapsed: Duration) -> u64 {
        // Event 0 is due at once.
        let due = self.per_second.get() as u128 * elapsed.as_nanos() / NANOS_PER_SECOND + 1;
        let due = (due as u64).min(self.total);
        (due + self.connections - 1).saturating_sub(connection as u64) / self.connections
    }

    /// When event `k` of one connection is due.
    pub(crate) fn due_at(&self, connection: usize, k: u64) -> Duration {
        let n = k * self.connections + connection as u64;
        let nanos = (n as u128 * NANOS_PER_SECOND).div_ceil(self.per_second.get() as u128);
        Duration::from_nanos(nanos as u64)
    }
}

const NANOS_PER_SECOND: u128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_due_once_at_its_own_time() {
        let rate = NonZeroU64::new(700).unwrap();
        let schedule = Schedule::new(rate, 3, Duration::from_secs(2));
        assert_eq!(schedule.total(), 1400);
        for connection in 0..3 {
            for k in 0..460 {
                let at = schedule.due_at(connection, k);
                assert_eq!(schedule.due(connection, at), k + 1);
                let before = at.checked_sub(Duration::from_nanos(1));
                assert!(before.is_none_or(|at| schedule.due(connection, at) == k));
            }
        }
        let late = Duration::from_secs(9);
        let all: u64 = (0..3).map(|c| schedule.due(c, late)).sum();
        assert_eq!(all, 1400);
    }

    #[test]
    fn a_rate_is_a_number_or_max() {
        assert_eq!("max".parse(), Ok(Rate::Max));
        assert_eq!(
            "5000".parse(),
            Ok(Rate::PerSecond(NonZeroU64::new(5000).unwrap()))
        );
        assert!("0".parse::<Rate>().is_err());
        assert!("fast".parse::<Rate>().is_err());
    }
}
