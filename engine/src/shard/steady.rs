//! When System A heard and said things, by a clock that nobody sets.
//!
//! What it heard is stamped here by the boot-time clock. What it says bears a stamp of its own clock,
//! which is taken to agree with our wall clock now; what either clock showed at other times does not
//! matter.

use super::two_way::late_since;
use crate::event::codec::AcceptedEvent;
use crate::merge::Said;
use crate::time::Now;

/// System A's clock is further ahead of ours: what it says of times means nothing.
pub(super) const AHEAD_MAX_MS: i64 = 1_000;
/// How late a word may come by clocks that do not agree: what System A heard within this time before
/// such a word, it may not have known.
const LATE_MAX_MS: i64 = 600_000;

/// Milliseconds since the epoch as the wall clock would show them had it not been set since boot.
#[derive(Debug, Clone, Copy)]
pub(super) struct SteadyClock {
    /// [`super::ShardSettings::booted_at_ms`].
    pub(super) booted_at_ms: i64,
}

impl SteadyClock {
    pub(super) fn ms(self, now: Now) -> i64 {
        self.booted_at_ms
            .saturating_add((now.mono.0 / 1_000_000) as i64)
    }

    /// When System A said this.
    pub(super) fn said(self, now: Now, event: &AcceptedEvent<'_>) -> Said {
        Said {
            // What was looked at when it came is not looked at by another clock.
            at_ms: late_since(event).unwrap_or_else(|| self.said_ms(now, event)),
            seq: event.operation_seq,
        }
    }

    /// When System A changed what it says, as far as its word tells.
    fn said_ms(self, now: Now, event: &AcceptedEvent<'_>) -> i64 {
        let accepted_at_ms = event.accepted_at_ms;
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(accepted_at_ms);
        if changed_at_ms.saturating_sub(accepted_at_ms) > AHEAD_MAX_MS {
            return self.ms(now).saturating_sub(LATE_MAX_MS);
        }
        let said_at_ms = changed_at_ms.min(accepted_at_ms);
        self.ms(now)
            .saturating_sub(now.wall.0.saturating_sub(said_at_ms))
    }
}
