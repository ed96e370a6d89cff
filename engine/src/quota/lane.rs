//! What an account knows of one shard: its demand, and the grants on their way to it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::classes::CostClass;
use super::message::{Gate, LeaseId};

/// Grants a shard may have on their way before it acknowledges one: a stalled shard is not
/// handed a whole window token by token.
const UNSEEN_LEASES_MAX: usize = 64;

/// One shard as one account sees it.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) connected: bool,
    /// By class; none without permits.
    demands: BTreeMap<CostClass, Demand>,
    /// Records behind the newest word of demand, permits or not.
    records: u32,
    wants_slots: bool,
    /// Grants that no `Want` has acknowledged.
    unseen: VecDeque<Unseen>,
    /// The gate as it was told last.
    pub(super) told: Option<Gate>,
    /// How long calls should wait for company, as it was told last; none where that is nothing.
    lingers: BTreeMap<CostClass, Duration>,
}

/// Calls of one class that a shard could send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) permits: u32,
    /// Of these, calls for urgent operations, which the shard sends first.
    pub(super) urgent: u32,
    pub(super) records: u32,
}

/// A shard's demand as it was reported.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want {
    pub(super) class: CostClass,
    pub(super) demand: Demand,
    pub(super) slots: u32,
    pub(super) seen: LeaseId,
}

#[derive(Debug)]
struct Unseen {
    lease: LeaseId,
    class: CostClass,
    permits: u32,
}

impl Lane {
    /// A shard that has just connected: nothing is known of it.
    pub(super) fn connected() -> Self {
        Self {
            connected: true,
            ..Self::default()
        }
    }

    pub(super) fn want(&mut self, want: Want) {
        while self.unseen.front().is_some_and(|u| u.lease <= want.seen) {
            self.unseen.pop_front();
        }
        let of_class = self.unseen.iter().filter(|u| u.class == want.class);
        let on_their_way = of_class.map(|unseen| unseen.permits).sum();
        self.demands.insert(want.class, want.demand);
        self.served(want.class, on_their_way);
        self.records = want.demand.records;
        self.wants_slots = want.slots > 0;
    }

    pub(super) fn granted(&mut self, lease: LeaseId, class: CostClass, permits: u32) {
        self.served(class, permits);
        self.unseen.push_back(Unseen {
            lease,
            class,
            permits,
        });
    }

    /// Asks for nothing any more, and has not been told the gate.
    pub(super) fn clear(&mut self) {
        self.demands.clear();
        self.lingers.clear();
        self.told = None;
    }

    /// Forgets classes that are gone.
    pub(super) fn keep_classes(&mut self, mut exists: impl FnMut(CostClass) -> bool) {
        self.demands.retain(|class, _| exists(*class));
        self.lingers.retain(|class, _| exists(*class));
    }

    /// Whether this is news to the shard, which is then told.
    pub(super) fn tells_linger(&mut self, class: CostClass, linger: Duration) -> bool {
        let before = if linger.is_zero() {
            self.lingers.remove(&class)
        } else {
            self.lingers.insert(class, linger)
        };
        before.unwrap_or_default() != linger
    }

    /// What it may be lent now.
    pub(super) fn demands(&self) -> impl Iterator<Item = (CostClass, Demand)> + '_ {
        let listens = self.connected && self.unseen.len() < UNSEEN_LEASES_MAX;
        self.demands
            .iter()
            .filter(move |_| listens)
            .map(|(class, demand)| (*class, *demand))
    }

    /// Permits asked for, whether they may be lent now or not.
    pub(super) fn permits_wanted(&self) -> u64 {
        self.demands.values().map(|d| u64::from(d.permits)).sum()
    }

    pub(super) fn has_demand(&self) -> bool {
        !self.demands.is_empty() || self.wants_slots
    }

    pub(super) fn records(&self) -> u32 {
        self.records
    }

    /// Urgent calls are sent first, so they are served first.
    fn served(&mut self, class: CostClass, permits: u32) {
        if let Some(demand) = self.demands.get_mut(&class) {
            demand.permits = demand.permits.saturating_sub(permits);
            demand.urgent = demand.urgent.saturating_sub(permits).min(demand.permits);
            if demand.permits == 0 {
                self.demands.remove(&class);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(permits: u32, urgent: u32, seen: u64) -> Want {
        Want {
            class: CostClass::ANY,
            demand: Demand {
                permits,
                urgent,
                records: permits,
            },
            slots: 1,
            seen: LeaseId(seen),
        }
    }

    #[test]
    fn grants_on_their_way_are_taken_off_the_urgent_first() {
        let mut lane = Lane::connected();
        lane.want(want(10, 4, 0));
        lane.granted(LeaseId(1), CostClass::ANY, 3);
        let left = |lane: &Lane| lane.demands().next().map(|(_, d)| (d.permits, d.urgent));
        assert_eq!(left(&lane), Some((7, 1)));
        lane.want(want(10, 4, 0));
        assert_eq!(left(&lane), Some((7, 1)), "the grant is still on its way");
        lane.want(want(7, 1, 1));
        assert_eq!(left(&lane), Some((7, 1)));
    }

    #[test]
    fn a_shard_that_acknowledges_nothing_is_lent_nothing_more() {
        let mut lane = Lane::connected();
        lane.want(want(1000, 0, 0));
        for lease in 1..=UNSEEN_LEASES_MAX {
            assert_eq!(lane.demands().count(), 1);
            lane.granted(LeaseId(lease as u64), CostClass::ANY, 1);
        }
        assert_eq!(lane.demands().count(), 0);
        assert_eq!(lane.permits_wanted(), 1000 - UNSEEN_LEASES_MAX as u64);
    }
}
