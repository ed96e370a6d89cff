//! Trading permits and slots with the coordinator.

use super::dispatch::CALL_ROOM;
use super::{Output, Shard};
use crate::entry::{Lease, LeaseReturn};
use crate::journal::{Class, Journal, Kind};
use crate::quota::{AccountId, CostClass, FromShard, Gate, LeaseId, ToShard};
use crate::time::{Mono, Now, WallMs};

/// Slots a shard asks for at most; a provider takes far fewer calls at a time.
const SLOTS_WANTED_MAX: u32 = 4096;

impl<T> Shard<T> {
    /// What a shard says first.
    pub fn connect(&mut self) {
        self.effects
            .push_unconditional(Output::Coordinator(FromShard::Connected));
    }

    pub(super) fn on_coordinator(&mut self, now: Now, journal: &mut impl Journal, word: ToShard) {
        match word {
            ToShard::Account {
                account,
                name,
                unlimited,
                ..
            } => {
                let target = self.account(&name);
                let known = &mut self.accounts[usize::from(target.0)];
                known.id = Some(account);
                known.unlimited = unlimited;
            }
            ToShard::AccountGone { account } => {
                if let Some(at) = self.by_id(account) {
                    // Its plan goes with a command: the account may be back by now.
                    self.return_permits(now, journal, at, true);
                    self.release_suspects(at);
                    self.accounts[at].keep = Some(0);
                }
            }
            ToShard::Grant {
                account,
                lease,
                permits,
                usable_until,
                ..
            } => {
                self.take_lease(now, journal, account, lease, permits, usable_until);
            }
            ToShard::GrantSlots { account, slots } => {
                if let Some(at) = self.by_id(account) {
                    self.accounts[at].slots += slots;
                    self.accounts[at].keep = None;
                }
            }
            ToShard::Recall { account, keep } => {
                if let Some(at) = self.by_id(account) {
                    self.accounts[at].keep = Some(keep);
                }
            }
            ToShard::Gate { account, gate } => {
                if let Some(at) = self.by_id(account) {
                    let known = &mut self.accounts[at];
                    known.gate = gate;
                    known.probe_sent = false;
                    known.owes_health = gate == Gate::Suspect;
                }
            }
        }
    }

    /// Ends a turn's trade: what is not needed goes back, what is needed is asked for.
    pub(super) fn trade(&mut self, now: Now, journal: &mut impl Journal) {
        for at in 0..self.accounts.len() {
            let idle = self.nothing_ready(at) || !self.accounts[at].gate_open();
            self.return_permits(now, journal, at, idle);
            self.return_slots(at);
            // What the log has no room for is not sent, and wants no permits.
            self.tell_demand(at, journal.room(Class::Outcome) >= CALL_ROOM);
            self.pass_on_probe(at);
        }
        self.index.leases.prune(now.wall);
    }

    fn take_lease(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: AccountId,
        id: LeaseId,
        permits: u32,
        usable_until: Mono,
    ) {
        let Some(at) = self.by_id(account) else {
            return;
        };
        let name = self.accounts[at].name.clone();
        let ahead_ms = usable_until.saturating_since(now.mono).as_millis() as i64;
        let lease = Lease {
            account: &name,
            id: id.0,
            permits,
            usable_until_ns: usable_until.0,
            usable_until_ms: WallMs(now.wall.0.saturating_add(ahead_ms)).0,
            boot: self.settings.boot,
        };
        self.scratch.entry.clear();
        lease.encode(&mut self.scratch.entry);
        self.accounts[at].newest_lease = id;
        match journal.append(Class::Outcome, Kind::Lease, &[&self.scratch.entry]) {
            Ok(_) => {
                self.index.leases.apply_lease(&lease);
                self.accounts[at].permits.grant(id.0, permits, usable_until);
            }
            // What cannot be logged is not spent.
            Err(_) => {
                let word = FromShard::Unspent {
                    account,
                    lease: id,
                    count: permits,
                };
                self.effects.push_unconditional(Output::Coordinator(word));
            }
        }
    }

    fn return_permits(&mut self, now: Now, journal: &mut impl Journal, at: usize, all: bool) {
        let Some(account) = self.accounts[at].id else {
            return;
        };
        for back in self.accounts[at].permits.give_back(now.mono, all) {
            self.log_return(journal, back);
            let word = FromShard::Unspent {
                account,
                lease: LeaseId(back.id),
                count: back.permits,
            };
            self.effects.push_unconditional(Output::Coordinator(word));
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

    fn return_slots(&mut self, at: usize) {
        let known = &mut self.accounts[at];
        let surplus = known.surplus_slots();
        if let Some(account) = known.id.filter(|_| surplus > 0) {
            known.slots -= surplus;
            self.effects
                .push_unconditional(Output::Coordinator(FromShard::ReturnSlots {
                    account,
                    slots: surplus,
                }));
        }
    }

    fn tell_demand(&mut self, at: usize, room: bool) {
        let known = &self.accounts[at];
        let ready = self.index.accounts[at].ready_len() + known.suspects_len();
        let calls = ready.div_ceil(known.records_per_call);
        let ready = u32::try_from(ready).unwrap_or(u32::MAX);
        let known = &mut self.accounts[at];
        let Some(account) = known.id else { return };
        let sendable = if known.paused || known.plan.is_none() || !room {
            0
        } else {
            u32::try_from(calls).unwrap_or(u32::MAX)
        };
        let wanted_slots = sendable.saturating_add(known.in_use).min(SLOTS_WANTED_MAX);
        // Rounded up so that a queue that breathes does not talk every turn.
        let slots = if wanted_slots == 0 {
            0
        } else {
            wanted_slots.next_power_of_two()
        };
        let permits = if known.unlimited {
            0
        } else {
            let carried = sendable.min(known.slots.max(1).saturating_mul(2));
            carried.saturating_sub(u32::try_from(known.permits.left()).unwrap_or(u32::MAX))
        };
        // The coordinator takes grants off what it was told before them: the same wish after a
        // lease is a new one, also when the lease was spent or given back within the turn.
        let seen = if permits > 0 {
            known.newest_lease
        } else {
            known.told.2
        };
        if known.told != (slots, permits, seen) {
            known.told = (slots, permits, seen);
            let word = FromShard::Want {
                account,
                class: CostClass::ANY,
                permits,
                urgent: 0,
                records: ready,
                slots,
                seen: known.newest_lease,
            };
            self.effects.push_unconditional(Output::Coordinator(word));
        }
    }

    /// A probe that this shard has nothing for goes to another.
    fn pass_on_probe(&mut self, at: usize) {
        let nothing_ready = self.nothing_ready(at);
        let known = &mut self.accounts[at];
        let unused =
            known.gate == Gate::Probe && !known.probe_sent && (known.paused || nothing_ready);
        if let Some(account) = known.id.filter(|_| unused) {
            known.gate = Gate::Held {
                until: Mono(0),
                reason: crate::quota::HoldReason::Failing,
            };
            self.effects
                .push_unconditional(Output::Coordinator(FromShard::ProbeUnused { account }));
        }
    }

    fn nothing_ready(&self, at: usize) -> bool {
        self.index.accounts[at].ready_len() == 0 && self.accounts[at].suspects.is_empty()
    }

    fn by_id(&self, account: AccountId) -> Option<usize> {
        self.accounts
            .iter()
            .position(|known| known.id == Some(account))
    }
}
