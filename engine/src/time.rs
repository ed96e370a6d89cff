//! Instants as the engine is told them: it reads no clock of its own.

use std::time::Duration;

/// Both clocks, read together once per turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For deadlines and durations.
    pub mono: Mono,
    /// For stamps that are stored or shown, and for calendar-aligned windows.
    pub wall: WallMs,
}

/// Nanoseconds of `CLOCK_BOOTTIME`: goes on through suspend, starts over at boot.
///
/// Two values compare only within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

/// Milliseconds since the Unix epoch; may step either way at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallMs(pub i64);

impl Mono {
    /// The instant `duration` later; `None` past the clock's range of 584 years.
    pub fn checked_add(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Self)
    }

    /// The instant `duration` earlier; `None` before boot.
    pub fn checked_sub(self, duration: Duration) -> Option<Self> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(nanos).map(Self)
    }

    /// The instant `duration` later, or the clock's last one.
    pub fn saturating_add(self, duration: Duration) -> Self {
        self.checked_add(duration).unwrap_or(Self(u64::MAX))
    }

    /// How long after `earlier` this is; zero when it is not after.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_past_either_end_is_refused_or_saturates() {
        let one = Duration::from_nanos(1);
        assert_eq!(Mono(5).checked_add(one), Some(Mono(6)));
        assert_eq!(Mono(5).checked_sub(one), Some(Mono(4)));
        assert_eq!(Mono(u64::MAX).checked_add(one), None);
        assert_eq!(Mono(0).checked_sub(one), None);
        assert_eq!(Mono(7).checked_add(Duration::MAX), None);
        assert_eq!(Mono(7).saturating_add(Duration::MAX), Mono(u64::MAX));
        assert_eq!(Mono(3).saturating_since(Mono(9)), Duration::ZERO);
    }
}
