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
    /// By then all of its calls had ended and been counted, as a later lease says.
    pub ended_by: Option<Mono>,
    /// Of leases joined in it the earliest `usable_until_wall`.
    pub since_wall: WallMs,
}

/// Longest window that a limit may have (a month, as `quota::AccountLimits` checks), and a day
/// for clocks and time-outs: how long a lease can matter.
pub(super) const LEASE_HORIZON: Duration = Duration::from_secs(33 * 86_400);

/// Leases in the order they were logged, those past 33 days forgotten.
#[derive(Debug, Default)]
pub struct LeaseBook {
    logged: VecDeque<LoggedLease>,
    /// Leases at which they are joined next.
    join_at: usize,
}

/// The newest ones are kept apart: their permits may yet be returned.
const KEPT_APART: usize = 64;
/// Leases are joined when there are so many more of them than after the last time.
const JOIN_EVERY: usize = 256;
/// Leases that end within this are joined however new they are.
const JOINED_SPAN_MIN_MS: i64 = 250;
/// Beyond that those that lie within this part of their age: a lease counts longer than it would by
/// itself by no more, and a month of leases of one account is a thousand entries.
const JOINED_PART_OF_AGE: i64 = 64;

impl LeaseBook {
    /// A lease entry was logged or replayed.
    pub fn apply_lease(&mut self, lease: &Lease<'_>) {
        let ended_by = Some(Mono(lease.settled_by_ns)).filter(|by| by.0 > 0);
        let settled = lease.settled_from..lease.settled_below;
        let own = |known: &LoggedLease| known.account == lease.account && known.boot == lease.boot;
        // Numbers rise; what is settled was so when the one before it was logged.
        let newest = self.logged.iter_mut().rev();
        let of_this_life = newest.take_while(|known| known.id >= settled.start);
        let older = of_this_life.filter(|known| own(known) && known.id < settled.end);
        for known in older.take_while(|known| known.ended_by.is_none()) {
            known.ended_by = ended_by;
        }
        if lease.permits == 0 {
            return;
        }
        let usable_until_wall = WallMs(lease.usable_until_ms);
        self.logged.push_back(LoggedLease {
            account: lease.account.to_owned(),
            id: lease.id,
            permits: lease.permits,
            usable_until: Mono(lease.usable_until_ns),
            usable_until_wall,
            boot: lease.boot,
            label: lease.label.to_owned(),
            ended_by: None,
            since_wall: usable_until_wall,
        });
        if self.logged.len() >= self.join_at.max(KEPT_APART + JOIN_EVERY) {
            self.join(usable_until_wall);
            self.join_at = self.logged.len() + JOIN_EVERY;
        }
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

    /// Joins leases of one account that end near each other, under the later of their ends, which only
    /// makes them count longer; the older they are, the wider apart.
    fn join(&mut self, now: WallMs) {
        let apart = self.logged.len().saturating_sub(KEPT_APART);
        let newest = self.logged.split_off(apart);
        let mut joined: VecDeque<LoggedLease> = VecDeque::new();
        for lease in self.logged.drain(..).filter(|lease| lease.permits > 0) {
            let alike = |known: &&mut LoggedLease| {
                known.account == lease.account
                    && known.boot == lease.boot
                    && known.label == lease.label
            };
            let last = joined.iter_mut().rev().find(alike);
            match last.filter(|known| known.may_take(&lease, now)) {
                Some(known) => known.take(lease),
                None => joined.push_back(lease),
            }
        }
        joined.extend(newest);
        self.logged = joined;
    }
}

impl LoggedLease {
    fn may_take(&self, later: &Self, now: WallMs) -> bool {
        let span_ms = later.usable_until_wall.0.saturating_sub(self.since_wall.0);
        let age_ms = now.0.saturating_sub(later.usable_until_wall.0);
        (0..=JOINED_SPAN_MIN_MS.max(age_ms / JOINED_PART_OF_AGE)).contains(&span_ms)
    }

    fn take(&mut self, later: Self) {
        self.id = later.id;
        self.permits = self.permits.saturating_add(later.permits);
        self.usable_until = self.usable_until.max(later.usable_until);
        self.usable_until_wall = self.usable_until_wall.max(later.usable_until_wall);
        // Joined ones had ended when the last of them had.
        self.ended_by = self
            .ended_by
            .max(later.ended_by)
            .filter(|_| self.ended_by.is_some() && later.ended_by.is_some());
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
            settled_from: 0,
            settled_below: 0,
            settled_by_ns: 0,
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
    fn joining_old_leases_keeps_their_sum_and_lets_none_end_earlier_or_much_later() {
        let mut book = LeaseBook::default();
        const COUNT: u64 = 100_000;
        for id in 0..COUNT {
            book.apply_lease(&lease(id, 1, id as i64 * 100));
        }
        let permits = book.logged().map(|lease| u64::from(lease.permits));
        assert_eq!(permits.sum::<u64>(), COUNT);
        let entries = book.logged().count();
        assert!(entries < 1_500, "{entries} entries");
        let (newest, mut seen) = ((COUNT as i64 - 1) * 100, 0);
        for lease in book.logged() {
            // The oldest of those that it stands for ends here by itself.
            let own = seen * 100;
            seen += i64::from(lease.permits);
            assert!(lease.usable_until_wall.0 >= (seen - 1) * 100);
            let later = lease.usable_until_wall.0 - own;
            let most = JOINED_SPAN_MIN_MS.max((newest - own) / JOINED_PART_OF_AGE);
            assert!(later <= most, "{own} counts until {later} ms later");
        }
    }

    #[test]
    fn a_lease_whose_calls_had_ended_says_when() {
        let mut book = LeaseBook::default();
        book.apply_lease(&lease(1, 10, 2000));
        book.apply_lease(&lease(2, 10, 2100));
        let other = Lease {
            account: "other",
            settled_below: 3,
            settled_by_ns: 1,
            ..lease(3, 10, 2200)
        };
        book.apply_lease(&other);
        let later = Lease {
            settled_below: 2,
            settled_by_ns: 700,
            ..lease(4, 10, 2300)
        };
        book.apply_lease(&later);
        let later = Lease {
            settled_below: 5,
            settled_by_ns: 900,
            ..lease(5, 10, 2400)
        };
        book.apply_lease(&later);
        let ended: Vec<_> = book
            .logged()
            .map(|lease| (lease.id, lease.ended_by))
            .collect();
        let by = |ns| Some(Mono(ns));
        let expected = [
            (1, by(700)),
            (2, by(900)),
            (3, None),
            (4, by(900)),
            (5, None),
        ];
        assert_eq!(ended, expected);
    }

    #[test]
    fn leases_of_many_accounts_are_joined_as_those_of_one() {
        let mut book = LeaseBook::default();
        for id in 0..20_000 {
            let account = ["a", "b", "c", "d"][id as usize % 4];
            book.apply_lease(&Lease {
                account,
                ..lease(id, 1, id as i64 * 100)
            });
        }
        let entries = book.logged().count();
        assert!(entries < 4 * 1_500, "{entries} entries");
        let of_a = book.logged().filter(|lease| lease.account == "a");
        assert_eq!(of_a.map(|lease| lease.permits).sum::<u32>(), 5_000);
    }
}
