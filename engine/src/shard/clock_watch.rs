//! Whether instants of the wall clock can be compared.

use crate::time::Now;

/// More than this apart from the monotonic clock since the last look, the wall clock was set.
const STEP_MIN_MS: i64 = 50;

/// Tells when the wall clock was set last.
#[derive(Debug, Default)]
pub(super) struct ClockWatch {
    /// The wall clock less the monotonic one, ms.
    offset_ms: Option<i64>,
    set_at_ms: i64,
    now_ms: i64,
}

impl ClockWatch {
    pub(super) fn look(&mut self, now: Now) {
        let offset_ms = now.wall.0.saturating_sub((now.mono.0 / 1_000_000) as i64);
        let stepped = self
            .offset_ms
            .is_none_or(|before| before.abs_diff(offset_ms) > STEP_MIN_MS as u64);
        if stepped {
            self.set_at_ms = now.wall.0;
        }
        self.offset_ms = Some(offset_ms);
        self.now_ms = now.wall.0;
    }

    /// Whether an instant, ms since the epoch, was read from the clock as it has run since, in this
    /// life. Which of two others was earlier, nobody can say. One in the future is of a clock that
    /// was set back.
    pub(super) fn is_comparable(&self, at_ms: i64) -> bool {
        self.offset_ms.is_some() && at_ms > self.set_at_ms && at_ms <= self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{Mono, WallMs};

    fn now(mono_ms: u64, wall_ms: i64) -> Now {
        Now {
            mono: Mono(mono_ms * 1_000_000),
            wall: WallMs(wall_ms),
        }
    }

    #[test]
    fn instants_from_before_a_step_are_not_compared() {
        let mut watch = ClockWatch::default();
        assert!(!watch.is_comparable(1));
        watch.look(now(5, 1_000));
        watch.look(now(500, 1_495));
        assert!(watch.is_comparable(1_400) && !watch.is_comparable(999));
        watch.look(now(600, 9_000));
        assert!(!watch.is_comparable(1_400) && !watch.is_comparable(8_999));
        watch.look(now(700, 2_000));
        watch.look(now(800, 2_100));
        assert!(watch.is_comparable(2_001) && !watch.is_comparable(1_999));
        assert!(!watch.is_comparable(8_999));
    }
}
