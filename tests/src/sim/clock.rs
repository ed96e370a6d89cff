//! Virtual time: one true clock, and what the engine sees of it.

use std::time::Duration;

use engine::time::{Mono, Now, WallMs};

/// Unix time at which every run begins: 2026-11-20, an arbitrary day.
pub(super) const WALL_START_MS: i64 = 1_795_000_000_000;
/// What the boot-time clock shows at the first boot.
const FIRST_UPTIME_NS: u64 = 1_000_000_000_000;

/// The clocks of the simulated machine.
#[derive(Debug, Clone)]
pub struct Clock {
    /// True time since the run began, in ns.
    pub(super) true_ns: u64,
    /// The boot-time clock minus true time, in ns.
    uptime_offset_ns: i128,
    /// The wall clock minus true time, in ms.
    wall_offset_ms: i64,
    /// Counts the boots of the machine.
    pub(super) boot: u64,
    /// When this boot began, by a clock that nobody sets.
    pub(super) booted_at_ms: i64,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            true_ns: 0,
            uptime_offset_ns: i128::from(FIRST_UPTIME_NS),
            wall_offset_ms: WALL_START_MS,
            boot: 1,
            booted_at_ms: WALL_START_MS - (FIRST_UPTIME_NS / 1_000_000) as i64,
        }
    }
}

impl Clock {
    /// Both clocks as the engine reads them.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono = i128::from(self.true_ns) + self.uptime_offset_ns;
        Now {
            mono: Mono(u64::try_from(mono).expect("uptime is not negative")),
            wall: WallMs(self.wall_offset_ms + (self.true_ns / 1_000_000) as i64),
        }
    }

    /// True time at which the boot-time clock will show `mono`.
    #[must_use]
    pub fn true_ns_of(&self, mono: Mono) -> u64 {
        u64::try_from(i128::from(mono.0) - self.uptime_offset_ns).unwrap_or(self.true_ns)
    }

    /// The machine starts again: the boot-time clock begins anew.
    pub fn reboot(&mut self) {
        let wall_ahead_ms = self.now().wall.0 - self.steady_ms();
        self.boot += 1;
        self.uptime_offset_ns = 5_000_000_000 - i128::from(self.true_ns);
        // As the engine keeps it: what the wall clock was set by is known over a boot.
        self.booted_at_ms += self.now().wall.0 - wall_ahead_ms - self.steady_ms();
    }

    fn steady_ms(&self) -> i64 {
        self.booted_at_ms + (self.now().mono.0 / 1_000_000) as i64
    }

    /// The wall clock is set.
    pub fn step_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }

    /// The wall clock is right again.
    pub fn heal_wall(&mut self) {
        self.wall_offset_ms = WALL_START_MS;
    }

    /// The wall clock of a provider, ms since the epoch: always right, but for its drift.
    #[must_use]
    pub fn provider_wall_ms(&self, ppm: i32) -> i64 {
        WALL_START_MS + self.of_provider(ppm).as_millis() as i64
    }

    /// Time as a provider counts it, whose clock runs `ppm` millionths fast.
    #[must_use]
    pub fn of_provider(&self, ppm: i32) -> Duration {
        let ns = i128::from(self.true_ns);
        Duration::from_nanos((ns + ns * i128::from(ppm) / 1_000_000) as u64)
    }
}
