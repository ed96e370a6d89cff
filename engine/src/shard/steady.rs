//! When System A heard and said things, by a clock that nobody sets.
//!
//! What it heard is stamped here by the boot-time clock. What it says bears a stamp of its own clock,
//! which is taken to agree with our wall clock now; what either clock showed at other times does not
//! matter.

use std::collections::HashMap;

use super::Shard;
use super::two_way::late_since;
use crate::event::codec::AcceptedEvent;
use crate::id::OperationSeq;
use crate::merge::Said;
use crate::time::Now;

/// System A's clock is further ahead of ours: what it says of times means nothing.
pub(super) const AHEAD_MAX_MS: i64 = 1_000;
/// How late a word may come by clocks that do not agree: what System A heard within this time before
/// such a word, it may not have known.
const LATE_MAX_MS: i64 = 600_000;
/// Words remembered per shard that wait to be compared.
const SAID_MAX: usize = 64 * 1024;

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

    /// When System A changed what it says, as far as its word tells, which came by `came_by_ms` at
    /// the latest.
    fn said_ms(self, now: Now, came_by_ms: i64, event: &AcceptedEvent<'_>) -> i64 {
        let accepted_at_ms = event.accepted_at_ms;
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(accepted_at_ms);
        if changed_at_ms.saturating_sub(accepted_at_ms) > AHEAD_MAX_MS {
            return came_by_ms.saturating_sub(LATE_MAX_MS);
        }
        let said_at_ms = changed_at_ms.min(accepted_at_ms);
        self.ms(now)
            .saturating_sub(now.wall.0.saturating_sub(said_at_ms))
    }
}

/// When System A said what waits, by the numbers of its operations: what was looked at when it came
/// is not looked at by another clock.
#[derive(Debug, Default)]
pub(super) struct SaidBook {
    at_ms: HashMap<u64, i64>,
    /// When this life began.
    began_at_ms: i64,
}

impl SaidBook {
    pub(super) fn begin(&mut self, at_ms: i64) {
        self.began_at_ms = at_ms;
    }

    /// Keeps when it was said what has to wait until it is compared, as long as there is room.
    pub(super) fn keep(&mut self, said: Said) {
        if self.at_ms.len() < SAID_MAX {
            self.at_ms.insert(said.seq, said.at_ms);
        }
    }

    /// It was compared.
    pub(super) fn forget(&mut self, seq: u64) {
        self.at_ms.remove(&seq);
    }
}

impl<T> Shard<T> {
    /// When System A said this.
    pub(super) fn said(&self, now: Now, event: &AcceptedEvent<'_>) -> Said {
        let seq = event.operation_seq;
        let kept = late_since(event).or_else(|| self.said.at_ms.get(&seq).copied());
        let at_ms = kept.unwrap_or_else(|| {
            let steady = self.steady();
            let came_by_ms = match OperationSeq(seq) < self.settings.first_seq {
                true => self.said.began_at_ms,
                false => steady.ms(now),
            };
            // By whatever clock: it was said before it came.
            steady.said_ms(now, came_by_ms, event).min(came_by_ms)
        });
        Said { at_ms, seq }
    }
}
