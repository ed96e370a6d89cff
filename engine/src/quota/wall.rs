//! Between which bounds the true wall time lies when the wall clock may step.

use std::time::Duration;

use crate::time::{Mono, Now, WallMs};

const NANOS_PER_MS: i64 = 1_000_000;

/// The offsets of wall to monotonic time seen lately. A step widens the bounds at once; they
/// narrow again after the clock has kept its new offset for one to two memories.
#[derive(Debug)]
pub(super) struct WallBounds {
    memory: Duration,
    previous: Offsets,
    current: Offsets,
    current_since: Mono,
}

/// Wall minus monotonic, in nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Offsets {
    low: i64,
    high: i64,
}

impl WallBounds {
    pub(super) fn new(now: Now, memory: Duration) -> Self {
        let seen = Offsets::at(now);
        Self {
            memory,
            previous: seen,
            current: seen,
            current_since: now.mono,
        }
    }

    pub(super) fn observe(&mut self, now: Now) {
        let seen = Offsets::at(now);
        if now.mono.saturating_since(self.current_since) >= self.memory {
            self.previous = self.current;
            self.current = seen;
            self.current_since = now.mono;
        }
        self.current.widen(seen);
    }

    /// Takes in a pair of readings from before a restart of this boot: the clock may have been
    /// stepped while nobody looked.
    pub(super) fn remember(&mut self, then: Now) {
        self.current.widen(Offsets::at(then));
    }

    /// The earliest that the wall time at `mono` can be.
    pub(super) fn earliest(&self, mono: Mono) -> WallMs {
        let low = self.previous.low.min(self.current.low);
        WallMs(nanos(mono).saturating_add(low).div_euclid(NANOS_PER_MS))
    }

    /// The latest that the wall time at `mono` can be.
    pub(super) fn latest(&self, mono: Mono) -> WallMs {
        self.latest_at(nanos(mono))
    }

    /// The same for an instant in nanoseconds, before zero for one before the boot.
    pub(super) fn latest_at(&self, mono_ns: i64) -> WallMs {
        let high = self.previous.high.max(self.current.high);
        let wall = mono_ns.saturating_add(high).div_euclid(NANOS_PER_MS);
        WallMs(wall.saturating_add(1))
    }

    /// When `earliest` will reach `wall`, or the bounds may narrow, whichever is first.
    pub(super) fn reaches(&self, wall: WallMs) -> Mono {
        let low = self.previous.low.min(self.current.low);
        let reached = wall.0.saturating_mul(NANOS_PER_MS).saturating_sub(low);
        let reached = Mono(u64::try_from(reached).unwrap_or(0));
        let narrows = self.current_since.saturating_add(self.memory);
        reached.min(narrows)
    }
}

impl Offsets {
    fn widen(&mut self, seen: Self) {
        self.low = self.low.min(seen.low);
        self.high = self.high.max(seen.high);
    }

    fn at(now: Now) -> Self {
        let wall = now.wall.0.saturating_mul(NANOS_PER_MS);
        let offset = wall.saturating_sub(nanos(now.mono));
        Self {
            low: offset,
            high: offset,
        }
    }
}

fn nanos(mono: Mono) -> i64 {
    i64::try_from(mono.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64, wall_ms: i64) -> Now {
        Now {
            mono: Mono(second * 1_000_000_000),
            wall: WallMs(wall_ms),
        }
    }

    #[test]
    fn a_step_widens_the_bounds_until_it_has_lasted() {
        let mut bounds = WallBounds::new(at(0, 1_000_000), Duration::from_secs(60));
        bounds.observe(at(10, 1_010_000));
        bounds.observe(at(11, 4_611_000));
        let mono = Mono(11_000_000_000);
        assert_eq!(bounds.earliest(mono), WallMs(1_011_000));
        assert_eq!(bounds.latest(mono), WallMs(4_611_001));
        bounds.observe(at(71, 4_671_000));
        assert_eq!(bounds.earliest(Mono(71_000_000_000)), WallMs(1_071_000));
        bounds.observe(at(131, 4_731_000));
        assert_eq!(bounds.earliest(Mono(131_000_000_000)), WallMs(4_731_000));
    }
}
