//! Windows that start at a zone's midnight, on a wall clock that may step.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};

use super::pool::stretched;
use super::wall::WallBounds;
use crate::time::{Mono, Now, WallMs};

/// How far a provider's wall clock may be from ours at the edge of a fixed window; both are
/// taken to be kept by NTP. Windows so short that this matters come back as sliding ones.
const FIXED_EDGE_MS: i64 = 1000;
/// A window in which a zone sets its clock back is longer by that: one hour everywhere, two at
/// Troll station (tzdata 2025b), the International Date Line apart.
const CLOCK_CHANGE: Duration = Duration::from_secs(2 * 3600);

/// A `Date` further off than a day is no clock that windows are counted by.
const SERVER_CLOCK_ERROR_MAX_MS: i64 = 86_400_000;

/// The edges of calendar-aligned windows.
#[derive(Debug)]
pub(super) struct Calendar {
    /// The longest that one window lasts, on the slowest clock.
    longest: Duration,
    window_ms: i64,
    zone: TimeZone,
    pub(super) wall: WallBounds,
}

impl Calendar {
    pub(super) fn new(now: Now, window: Duration, zone: &TimeZone) -> Self {
        let change = match zone.to_fixed_offset() {
            Ok(_) => Duration::ZERO,
            Err(_) => CLOCK_CHANGE,
        };
        Self {
            longest: stretched(window.saturating_add(change)),
            window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX).max(1),
            zone: zone.clone(),
            wall: WallBounds::new(now, window),
        }
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// The wall time by which the window of a call that ended at `wall` or before is over,
    /// whatever the provider's clock says within `FIXED_EDGE_MS` of it.
    ///
    /// A midnight may come twice or never, when the zone changes its clock there; which of the
    /// two instants the provider takes is not known. Only an edge that is later than the call
    /// by both counts, and it counts from the later one on.
    pub(super) fn boundary_after(&self, wall: WallMs) -> i64 {
        let at_latest = wall.0.saturating_add(FIXED_EDGE_MS);
        let local = at_latest.saturating_add(self.offset_ms(at_latest));
        let mut edge = local.div_euclid(self.window_ms);
        loop {
            edge = edge.saturating_add(1);
            let (first, last) = self.instants_of(edge.saturating_mul(self.window_ms));
            if first > at_latest || edge == i64::MAX {
                return last;
            }
        }
    }

    /// How late the wall clock surely is, for `boundary_after`.
    pub(super) fn wall_low_ms(&mut self, now: Now) -> i64 {
        self.wall.observe(now);
        self.wall.earliest(now.mono).0 - FIXED_EDGE_MS
    }

    /// When the wall clock surely reads `boundary_ms` by the provider's clock too.
    pub(super) fn reaches(&self, boundary_ms: i64) -> Mono {
        let surely = WallMs(boundary_ms.saturating_add(FIXED_EDGE_MS));
        self.wall.reaches(surely)
    }

    /// Takes in a `Date` of the provider's, in whole seconds, that was written between the two
    /// instants. A clock within the second that is allowed for anyway changes nothing; one
    /// further off widens the range of offsets, as a step of our own clock does.
    pub(super) fn hear_clock(&mut self, now: Now, date: WallMs, sent_at: Mono, answered_at: Mono) {
        let ours = |at: Mono| {
            let ago_ms = now.mono.saturating_since(at).as_millis();
            now.wall
                .0
                .saturating_sub(i64::try_from(ago_ms).unwrap_or(i64::MAX))
        };
        // The second it names began before it was written; a cached header may be one older.
        let theirs = (date.0, date.0.saturating_add(2000));
        let ahead = theirs.0.saturating_sub(ours(answered_at));
        let behind = ours(sent_at).saturating_sub(theirs.1);
        if (FIXED_EDGE_MS..SERVER_CLOCK_ERROR_MAX_MS).contains(&ahead.max(behind)) {
            for (mono, wall) in [(answered_at, theirs.0), (sent_at, theirs.1)] {
                let wall = WallMs(wall);
                self.wall.remember(Now { mono, wall });
            }
        }
    }

    pub(super) fn is_aligned_with(&self, other: &Self) -> bool {
        self.window_ms == other.window_ms && self.zone == other.zone
    }

    /// The instants, in ms, at which the zone's clocks may read `local_ms`.
    fn instants_of(&self, local_ms: i64) -> (i64, i64) {
        let civil = Offset::UTC.to_datetime(timestamp(local_ms));
        let (one, other) = match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => (offset, offset),
            AmbiguousOffset::Gap { before, after } | AmbiguousOffset::Fold { before, after } => {
                (before, after)
            }
        };
        let [one, other] = [one, other].map(|offset| local_ms.saturating_sub(ms_of(offset)));
        (one.min(other), one.max(other))
    }

    fn offset_ms(&self, wall_ms: i64) -> i64 {
        ms_of(self.zone.to_offset(timestamp(wall_ms)))
    }
}

/// The instant, or the last one that calendars know.
fn timestamp(wall_ms: i64) -> Timestamp {
    let known = Timestamp::from_millisecond(wall_ms).ok();
    known.unwrap_or(if wall_ms < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

fn ms_of(offset: Offset) -> i64 {
    i64::from(offset.seconds()) * 1000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 3600;

    fn calendar(zone: &str, window_s: u64) -> Calendar {
        let now = Now {
            mono: Mono(0),
            wall: WallMs(0),
        };
        let zone = TimeZone::get(zone).expect("a known zone");
        Calendar::new(now, Duration::from_secs(window_s), &zone)
    }

    /// The edge after a call at this instant.
    fn check(zone: &str, window_s: u64, call: &str, edge: &str) {
        let call: Timestamp = call.parse().expect("an instant");
        let found = calendar(zone, window_s).boundary_after(WallMs(call.as_millisecond()));
        assert_eq!(timestamp(found).to_string(), edge, "{zone}, call at {call}");
    }

    #[test]
    fn a_day_ends_at_the_zones_midnight() {
        check(
            "UTC",
            24 * HOUR,
            "2026-03-01T12:00:00Z",
            "2026-03-02T00:00:00Z",
        );
        check(
            "Europe/Berlin",
            24 * HOUR,
            "2026-01-10T22:59:58Z",
            "2026-01-10T23:00:00Z",
        );
        check(
            "Europe/Berlin",
            24 * HOUR,
            "2026-01-10T22:59:59Z",
            "2026-01-11T23:00:00Z",
        );
        check(
            "America/New_York",
            24 * HOUR,
            "2026-07-01T12:00:00Z",
            "2026-07-02T04:00:00Z",
        );
        check(
            "Asia/Kolkata",
            HOUR,
            "2026-07-01T12:00:00Z",
            "2026-07-01T12:30:00Z",
        );
    }

    #[test]
    fn days_of_a_clock_change_are_an_hour_shorter_or_longer() {
        check(
            "Europe/Berlin",
            24 * HOUR,
            "2026-03-28T23:30:00Z",
            "2026-03-29T22:00:00Z",
        );
        check(
            "Europe/Berlin",
            24 * HOUR,
            "2026-10-24T22:30:00Z",
            "2026-10-25T23:00:00Z",
        );
    }

    #[test]
    fn of_a_midnight_that_comes_twice_or_never_only_the_safe_side_counts() {
        // Havana: at 01:00 back to 00:00, so 2026-11-01 begins at 04:00Z and once more at 05:00Z.
        check(
            "America/Havana",
            24 * HOUR,
            "2026-11-01T03:00:00Z",
            "2026-11-01T05:00:00Z",
        );
        check(
            "America/Havana",
            24 * HOUR,
            "2026-11-01T04:30:00Z",
            "2026-11-02T05:00:00Z",
        );
        // Beirut: from 00:00 on to 01:00, at 22:00Z; 00:00 would have been that, or 21:00Z.
        check(
            "Asia/Beirut",
            24 * HOUR,
            "2026-03-28T20:00:00Z",
            "2026-03-28T22:00:00Z",
        );
        check(
            "Asia/Beirut",
            24 * HOUR,
            "2026-03-28T21:30:00Z",
            "2026-03-29T21:00:00Z",
        );
    }

    #[test]
    fn a_provider_whose_clock_is_off_is_believed_and_an_absurd_date_is_not() {
        let second = |s: u64| Mono(s * 1_000_000_000);
        let now = Now {
            mono: second(100),
            wall: WallMs(100_000),
        };
        let mut calendar = calendar("UTC", 60);
        let bounds = |calendar: &Calendar| {
            let wall = &calendar.wall;
            (wall.earliest(second(100)).0, wall.latest(second(100)).0)
        };
        calendar.hear_clock(now, WallMs(99_000), second(99), second(100));
        calendar.hear_clock(now, WallMs(9_000_000_000), second(99), second(100));
        assert_eq!(bounds(&calendar), (100_000, 100_001));
        calendar.hear_clock(now, WallMs(130_000), second(99), second(100));
        assert_eq!(bounds(&calendar), (100_000, 133_001), "half a minute ahead");
        calendar.hear_clock(now, WallMs(90_000), second(99), second(100));
        assert_eq!(bounds(&calendar), (90_000, 133_001));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// However the zone changes its clock, no window outlasts what tokens are held for.
        #[test]
        fn the_next_edge_is_later_and_no_window_is_longer_than_the_longest(
            zone in proptest::sample::select(&["UTC", "Europe/Berlin", "America/Havana",
                "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Beirut"][..]),
            wall_ms in 1_700_000_000_000_i64..1_900_000_000_000,
            hours in proptest::sample::select(&[1_u64, 6, 12, 24][..]),
        ) {
            let calendar = calendar(zone, hours * HOUR);
            let edge = calendar.boundary_after(WallMs(wall_ms));
            prop_assert!(edge > wall_ms + FIXED_EDGE_MS);
            let next = calendar.boundary_after(WallMs(edge));
            prop_assert!(next > edge);
            // One edge may be passed over as unsure.
            let longest_ms = calendar.longest().as_millis() as i64;
            prop_assert!(edge - wall_ms <= 2 * longest_ms, "{} ms", edge - wall_ms);
        }
    }
}
