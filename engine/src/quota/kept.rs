//! What of a limit is kept for polls, and what polls hold of it already.

use std::time::Duration;

use super::restoring::Restoring;
use crate::time::Mono;

/// For whom a call is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Caller {
    /// A record.
    #[default]
    Record,
    /// A list of changes, or a record that the account told of: [`POLL_TAG`](super::POLL_TAG).
    Poll,
}

/// Tokens of one limit that polls hold. Whom a token was lent to before a restart, or before the
/// limit was made anew, is not known: then all of what is kept is kept once more.
#[derive(Debug)]
pub(super) struct Polled {
    leased: u64,
    /// Those of ended calls, for as long as the provider counts them.
    ended: Restoring,
}

impl Polled {
    /// Nothing is held. `window` is above zero.
    pub(super) fn new(window: Duration) -> Self {
        Self {
            leased: 0,
            ended: Restoring::new(window),
        }
    }

    /// Tokens that count against what is kept.
    pub(super) fn held(&self) -> u64 {
        self.leased + self.ended.tokens()
    }

    pub(super) fn take(&mut self, tokens: u64) {
        self.leased += tokens;
    }

    pub(super) fn put_back(&mut self, tokens: u64) {
        self.leased = self.leased.saturating_sub(tokens);
    }

    /// Calls ended; the provider forgets them after `at`, or with its calendar's edge.
    pub(super) fn end(&mut self, at: Mono, boundary_ms: i64, tokens: u64) {
        self.put_back(tokens);
        self.ended.push(at, boundary_ms, tokens);
    }

    /// Lets time pass.
    pub(super) fn tick(&mut self, now: Mono, wall_low_ms: i64) {
        self.ended.pop_due(now, wall_low_ms);
    }

    /// When it is less without any further message.
    pub(super) fn next_change(&self) -> Option<Mono> {
        Some(self.ended.first()?.0)
    }
}
