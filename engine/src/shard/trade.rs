//! Trading permits and slots with the coordinator.

use std::sync::Arc;

use super::dispatch::CALL_ROOM;
use super::{Output, Shard};
use crate::entry::{Lease, LeaseReturn};
use crate::journal::{Class, Journal, Kind};
use crate::operation_slab::OpIndex;
use crate::quota::{
    AccountId, CostClass, FromShard, Gate, Learned, LeaseTaken, Settled, ToShard,
    URGENT_PRIORITY_MAX, Waiting,
};
use crate::ready::ByAttempt;
use crate::time::{Mono, Now, WallMs};

/// Urgent operations of a queue counted at most: demand is told anew each turn.
const URGENT_COUNTED_MAX: usize = 256;

impl<T> Shard<T> {
    pub(super) fn on_coordinator(&mut self, now: Now, journal: &mut impl Journal, word: ToShard) {
        match &word {
            ToShard::Account {
                account,
                name,
                classes,
                ..
            } => {
                let at = usize::from(self.account(name).0);
                self.accounts[at].id = Some(*account);
                if self.accounts[at].set_costs(classes) {
                    self.forget_classes(at);
                }
            }
            ToShard::AccountGone { account } => {
                if let Some(at) = self.by_id(*account) {
                    // Its plan goes with a command: the account may be back by now.
                    self.release_suspects(at);
                    self.forget_endpoints(at);
                }
            }
            ToShard::Endpoint {
                account,
                endpoint,
                gate,
            } => self.on_endpoint(*account, endpoint, *gate),
            ToShard::Learned(learned) => self.log_learned(journal, learned),
            ToShard::Grant { .. }
            | ToShard::GrantSlots { .. }
            | ToShard::Recall { .. }
            | ToShard::Gate { .. }
            | ToShard::Pace { .. } => {}
        }
        if let Some(lease) = self.holdings.handle(word) {
            self.log_lease(now, journal, &lease);
        }
    }

    /// Ends a turn's trade: what is not needed goes back, what is needed is asked for.
    pub(super) fn trade(&mut self, now: Now, journal: &mut impl Journal) {
        // What the log has no room for is not sent, and wants no permits.
        let room = journal.room(Class::Outcome) >= CALL_ROOM;
        for at in 0..self.accounts.len() {
            self.tell_demand(at, room);
        }
        self.holdings.end_turn(now.mono);
        while let Some(word) = self.holdings.poll() {
            if let FromShard::Unspent { lease, count, .. } = word {
                let back = LeaseReturn {
                    id: lease.0,
                    permits: count,
                };
                self.log_return(journal, back);
            }
            self.effects.push_unconditional(Output::Coordinator(word));
        }
        self.log_settled(now, journal);
        self.index.leases.prune(now.wall);
    }

    /// What the account's gate shows; `None` before the coordinator's first word.
    pub(super) fn gate(&self, at: usize) -> Option<Gate> {
        self.holdings.gate(self.accounts[at].id?)
    }

    /// Whether gate and slots let a call start, and no operator holds the account.
    pub(super) fn may_call(&self, at: usize) -> bool {
        let account = &self.accounts[at];
        let callable = account.plan.is_some() && !account.paused;
        callable
            && account
                .id
                .is_some_and(|id| self.holdings.may_call(id).is_ok())
    }

    /// Whether a call of this class could start, given that something is ready.
    pub(super) fn may_start(&self, now: Mono, at: usize, class: CostClass) -> bool {
        let id = self.accounts[at].id;
        self.may_call(at) && id.is_some_and(|id| self.holdings.can_pay(now, id, class))
    }

    /// Whether a ready operation waits for a slot or a permit. Before a shard has any slot it has
    /// not asked yet: that is no want of quota.
    pub(super) fn waits_for_quota(&self, op: OpIndex) -> bool {
        let node = &self.index.slab[op];
        let at = usize::from(node.target().0);
        let account = &self.accounts[at];
        let class = match node.sorted() {
            Some(list) => account.class_at(list),
            None => account.usual_class(),
        };
        let slots = account.id.map_or(0, |id| self.holdings.slots(id));
        slots > 0 && !self.may_start(Mono(0), at, class)
    }

    /// The classes of an account's calls are others now: what was sorted by them is not any more.
    pub(super) fn forget_classes(&mut self, at: usize) {
        self.release_suspects(at);
        self.index.unsort(at);
    }

    fn log_lease(&mut self, now: Now, journal: &mut impl Journal, taken: &LeaseTaken) {
        let ahead_ms = taken.usable_until.saturating_since(now.mono).as_millis() as i64;
        let lease = Lease {
            account: &taken.name,
            id: taken.lease.0,
            permits: taken.permits,
            usable_until_ns: taken.usable_until.0,
            usable_until_ms: WallMs(now.wall.0.saturating_add(ahead_ms)).0,
            boot: self.settings.boot,
            label: &taken.label,
            settled_from: taken.settled.from.0,
            settled_below: taken.settled.below.0,
            settled_by_ns: taken.settled.by.0,
        };
        self.scratch.entry.clear();
        lease.encode(&mut self.scratch.entry);
        match journal.append(Class::Outcome, Kind::Lease, &[&self.scratch.entry]) {
            Ok(_) => {
                self.index.leases.apply_lease(&lease);
                // Not durable yet: the calls that it pays for wait behind it.
                self.holdings.on_durable(taken.account, taken.lease);
            }
            // What cannot be logged is not spent.
            Err(_) => self.holdings.on_unlogged(taken.account, taken.lease),
        }
    }

    /// A lease of no permits, for what it says of those before it. What is not logged counts as under
    /// way after a crash, which is only too careful.
    fn log_settled(&mut self, now: Now, journal: &mut impl Journal) {
        let settled: Vec<(Arc<str>, Settled)> = self.holdings.settled(now.mono).collect();
        for (account, settled) in settled {
            let lease = Lease {
                account: &account,
                id: 0,
                permits: 0,
                usable_until_ns: now.mono.0,
                usable_until_ms: now.wall.0,
                boot: self.settings.boot,
                label: "",
                settled_from: settled.from.0,
                settled_below: settled.below.0,
                settled_by_ns: settled.by.0,
            };
            self.scratch.entry.clear();
            lease.encode(&mut self.scratch.entry);
            let logged = journal.append(Class::Outcome, Kind::Lease, &[&self.scratch.entry]);
            if logged.is_ok() {
                self.index.leases.apply_lease(&lease);
            }
        }
    }

    /// What is not logged is learned again by the next run.
    fn log_learned(&mut self, journal: &mut impl Journal, learned: &Learned) {
        self.scratch.entry.clear();
        learned.encode(&mut self.scratch.entry);
        if journal
            .append(Class::Outcome, Kind::Learned, &[&self.scratch.entry])
            .is_ok()
        {
            self.index.learned.apply(learned);
        }
    }

    /// A return that is not logged counts as spent after a crash, which is only too careful.
    fn log_return(&mut self, journal: &mut impl Journal, back: LeaseReturn) {
        self.scratch.entry.clear();
        back.encode(&mut self.scratch.entry);
        if journal
            .append(Class::Outcome, Kind::LeaseReturn, &[&self.scratch.entry])
            .is_ok()
        {
            self.index.leases.apply_return(back);
        }
    }

    /// Says what waits, by class: what was looked at by what it is, the rest by what the others
    /// turned out to be.
    fn tell_demand(&mut self, at: usize, room: bool) {
        let account = &self.accounts[at];
        let Some(id) = account.id else { return };
        let sends = room && account.plan.is_some() && !account.paused && !self.draining;
        let queue = &self.index.accounts[at];
        let urgent_in = |queues: &ByAttempt| {
            let urgent = URGENT_PRIORITY_MAX;
            queues.count_to(&self.index.slab, urgent, URGENT_COUNTED_MAX)
        };
        let waiting = |records: usize, urgent: usize| {
            let calls = |records: usize| {
                let calls = records.div_ceil(account.records_per_call);
                u32::try_from(calls).unwrap_or(u32::MAX)
            };
            Waiting {
                calls: calls(records),
                urgent: calls(urgent),
                records: u32::try_from(records).unwrap_or(u32::MAX),
            }
        };
        let urgent_unsorted = urgent_in(&queue.unsorted);
        for &class in &account.poll_classes {
            let polls = if sends { self.fetches_of(at, class) } else { 0 };
            let waiting = Waiting {
                calls: polls as u32,
                ..Waiting::default()
            };
            self.holdings.demand(id, class, waiting);
        }
        if account.classes.is_empty() {
            let records = queue.callable_len() + account.suspects_len();
            let mut demand = waiting(records, urgent_unsorted);
            demand.calls += self.fetches_of(at, CostClass::ANY) as u32;
            let demand = if sends { demand } else { Waiting::default() };
            return self.holdings.demand(id, CostClass::ANY, demand);
        }
        let unsorted = queue.unsorted_len();
        for (place, &class) in account.classes.iter().enumerate() {
            let sorted = queue.sorted.get(place);
            let records = sorted.map_or(0, ByAttempt::len)
                + account.suspects_of(class)
                + account.mix.share_of(place, unsorted);
            let urgent = sorted.map_or(0, urgent_in) + account.mix.share_of(place, urgent_unsorted);
            let mut demand = waiting(records, urgent);
            demand.calls += self.fetches_of(at, class) as u32;
            let demand = if sends { demand } else { Waiting::default() };
            self.holdings.demand(id, class, demand);
        }
    }

    pub(super) fn by_id(&self, account: AccountId) -> Option<usize> {
        self.accounts
            .iter()
            .position(|known| known.id == Some(account))
    }
}
