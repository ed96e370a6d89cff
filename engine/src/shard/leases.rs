//! The leases that the log of this shard still has to answer for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::entry::{Lease, LeaseReturn};
use crate::time::{Mono, WallMs};

/// A lease as the log knows it: what has to count as spent after a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedLease {
    /// The account's name.
    pub account: String,
    /// The coordinator's number.
    pub id: u64,
    /// Permits not logged as returned.
    pub permits: u32,
    /// Last instant at which one may be spent.
    pub usable_until: Mono,
    /// The same on the wall clock.
    pub usable_until_wall: WallMs,
    /// The boot `usable_until` counts from.
    pub boot: u64,
    /// Which calls it pays for: `quota::CostClasses::label` of its class.
    pub label: String,
}

/// Longest window that a limit may have (a month, as `quota::AccountLimits` checks), and a day
/// for clocks and time-outs: how long a lease can matter.
pub(super) const LEASE_HORIZON: Duration = Duration::from_secs(33 * 86_400);

/// Leases in the order they were logged, those past 33 days forgotten.
#[derive(Debug, Default)]
pub struct LeaseBook {
    logged: VecDeque<LoggedLease>,
}

impl LeaseBook {
    /// A lease entry was logged or replayed.
    pub fn apply_lease(&mut self, lease: &Lease<'_>) {
        self.logged.push_back(LoggedLease {
            account: lease.account.to_owned(),
            id: lease.id,
            permits: lease.permits,
            usable_until: Mono(lease.usable_until_ns),
            usable_until_wall: WallMs(lease.usable_until_ms),
            boot: lease.boot,
            label: lease.label.to_owned(),
        });
        self.merge_newest();
    }

    /// A return was logged or replayed. Newest first: returns follow their lease closely.
    pub fn apply_return(&mut self, back: LeaseReturn) {
        if let Some(lease) = self
            .logged
            .iter_mut()
            .rev()
            .find(|lease| lease.id == back.id)
        {
            lease.permits = lease.permits.saturating_sub(back.permits);
        }
    }

    /// Forgets what no window can see any more.
    pub fn prune(&mut self, now: WallMs) {
        let horizon_ms = LEASE_HORIZON.as_millis() as i64;
        while self
            .logged
            .front()
            .is_some_and(|lease| lease.usable_until_wall.0.saturating_add(horizon_ms) < now.0)
        {
            self.logged.pop_front();
        }
    }

    /// What counts as spent after a crash now.
    pub fn logged(&self) -> impl Iterator<Item = &LoggedLease> {
        self.logged.iter().filter(|lease| lease.permits > 0)
    }

    /// A lease from a checkpoint.
    pub fn restore(&mut self, lease: LoggedLease) {
        self.logged.push_back(lease);
    }

    /// Old leases of one account are joined, under the later of their ends, which only makes
    /// them count longer: so a day's leases stay a few thousand entries.
    fn merge_newest(&mut self) {
        const KEPT_APART: usize = 64;
        if self.logged.len() <= KEPT_APART {
            return;
        }
        let at = self.logged.len() - KEPT_APART;
        let (older, newer) = (at - 1, at);
        let close = |a: &LoggedLease, b: &LoggedLease| {
            let apart_ms = b.usable_until_wall.0.saturating_sub(a.usable_until_wall.0);
            let alike = a.account == b.account && a.boot == b.boot && a.label == b.label;
            alike && (0..30_000).contains(&apart_ms)
        };
        if close(&self.logged[older], &self.logged[newer]) {
            let permits = self.logged[older].permits;
            self.logged[newer].permits += permits;
            self.logged.remove(older);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(id: u64, permits: u32, until_ms: i64) -> Lease<'static> {
        Lease {
            account: "crm",
            id,
            permits,
            usable_until_ns: until_ms.unsigned_abs() * 1_000_000,
            usable_until_ms: until_ms,
            boot: 1,
            label: "",
        }
    }

    #[test]
    fn what_was_returned_does_not_count_after_a_crash() {
        let mut book = LeaseBook::default();
        book.apply_lease(&lease(1, 10, 1000));
        book.apply_lease(&lease(2, 5, 1000));
        book.apply_return(LeaseReturn { id: 1, permits: 4 });
        book.apply_return(LeaseReturn { id: 2, permits: 5 });
        let left: Vec<_> = book
            .logged()
            .map(|lease| (lease.id, lease.permits))
            .collect();
        assert_eq!(left, [(1, 6)]);
    }

    #[test]
    fn joining_old_leases_keeps_their_sum_and_never_ends_earlier() {
        let mut book = LeaseBook::default();
        for id in 0..10_000 {
            book.apply_lease(&lease(id, 1, id as i64 * 100));
        }
        assert_eq!(
            book.logged()
                .map(|lease| u64::from(lease.permits))
                .sum::<u64>(),
            10_000
        );
        assert!(
            book.logged().count() < 200,
            "{} entries",
            book.logged().count()
        );
        let mut seen = 0;
        for lease in book.logged() {
            seen += i64::from(lease.permits);
            assert!(lease.usable_until_wall.0 >= (seen - 1) * 100);
        }
    }
}
