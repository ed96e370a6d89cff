//! The shard's side: what it holds of every account's budget, and what it reports.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::classes::{CostClass, CostClasses};
use super::holding::Holding;
use super::message::{AccountId, Ended, FromShard, Gate, LeaseId, ToShard, Trouble};
use super::truth::Observation;
use crate::time::Mono;

/// What one shard holds of the accounts' budgets.
///
/// A turn goes: `handle` each message; log each lease taken; `demand` for each account whose
/// backlog changed; `try_spend` and `complete` around calls; `end_turn`; `poll` the reports.
#[derive(Debug)]
pub struct Holdings {
    accounts: BTreeMap<AccountId, Holding>,
    /// Bounded by what one turn reports: one message per lease and account, and a few.
    reports: VecDeque<FromShard>,
}

/// A lease for the shard's log; none of its permits is spendable before `on_durable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseTaken {
    /// The account it is for.
    pub account: AccountId,
    /// The account's name, by which the log knows it.
    pub name: Arc<str>,
    /// The lease.
    pub lease: LeaseId,
    /// Which calls it pays for, by the name that outlives the process.
    pub label: String,
    /// Permits granted.
    pub permits: u32,
    /// No permit is spent later.
    pub usable_until: Mono,
    /// What is known of those before it.
    pub settled: Settled,
    /// When the log may forget it.
    pub forget_at: Mono,
}

/// Of which leases of an account no call is under way any more: for the log, so that a restart does
/// not take their calls for ones that it cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settled {
    /// All from this one, the first of the shard's life,
    pub from: LeaseId,
    /// to below this.
    pub below: LeaseId,
    /// Their calls had ended by this instant, and are counted no later; 0 if there was none.
    pub by: Mono,
}

/// The right to send one call now. Ends in `complete` or `cancel`.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is dropped keeps its slot and its token for good"]
pub struct Permit {
    pub(super) account: AccountId,
    /// `LeaseId(0)` where no windowed limit asks for one.
    pub(super) lease: LeaseId,
    pub(super) usable_until: Mono,
    pub(super) probe: bool,
}

impl Permit {
    /// The last instant at which the call's first byte may leave.
    pub fn usable_until(&self) -> Mono {
        self.usable_until
    }

    /// A lease in the log pays for it.
    pub fn is_leased(&self) -> bool {
        self.lease != LeaseId::default()
    }

    /// It is the one call that may find out whether the account is well.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

/// What waits to be sent to an account in calls of one class, calls under way excluded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Calls.
    pub calls: u32,
    /// Of these, calls for urgent operations; they are sent first.
    pub urgent: u32,
    /// Records in all of them.
    pub records: u32,
}

/// Why no call may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The account does not exist (any more).
    Unknown,
    /// The account is held, or another shard probes it.
    Held(Gate),
    /// No slot is free.
    Slots,
    /// No permit is spendable yet.
    Permits,
}

/// How a call ended, for its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallEnd {
    /// A clock reading taken after the call ended.
    pub at: Mono,
    /// Whether the provider may still count it later.
    pub ended: Ended,
    /// What it says about the account.
    pub verdict: Verdict,
}

/// What a call says about its account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The provider works: any answer that is about the record, errors included.
    Healthy,
    /// Something is wrong with the account.
    Trouble(Trouble),
    /// Nothing: the call goes again, and that one tells.
    Silent,
}

impl Holdings {
    /// A shard that holds nothing and says so.
    pub fn new() -> Self {
        Self {
            accounts: BTreeMap::new(),
            reports: VecDeque::from([FromShard::Connected]),
        }
    }

    /// Takes a message of the coordinator; a lease must be logged before it is of use.
    pub fn handle(&mut self, message: ToShard) -> Option<LeaseTaken> {
        match message {
            ToShard::Account {
                account,
                name,
                unlimited,
                classes,
                call_timeout: _,
                lease_memory,
            } => {
                let terms = Terms {
                    name,
                    unlimited,
                    classes,
                    lease_memory,
                };
                match self.accounts.get_mut(&account) {
                    Some(holding) => holding.renew(terms),
                    None => {
                        self.accounts.insert(account, Holding::new(account, terms));
                    }
                }
                None
            }
            ToShard::AccountGone { account } => {
                if let Some(holding) = self.accounts.get_mut(&account) {
                    holding.end();
                }
                None
            }
            ToShard::Grant {
                account,
                class,
                lease,
                permits,
                usable_until,
            } => {
                let holding = self.accounts.get_mut(&account)?;
                Some(holding.lease(class, lease, permits, usable_until))
            }
            ToShard::GrantSlots { account, slots } => {
                if let Some(holding) = self.accounts.get_mut(&account) {
                    holding.grant_slots(slots);
                }
                None
            }
            ToShard::Recall { account, keep } => {
                if let Some(holding) = self.accounts.get_mut(&account) {
                    holding.recall(keep);
                }
                None
            }
            ToShard::Gate { account, gate } => {
                if let Some(holding) = self.accounts.get_mut(&account) {
                    holding.set_gate(gate);
                }
                None
            }
            ToShard::Pace {
                account,
                class,
                linger,
            } => {
                if let Some(holding) = self.accounts.get_mut(&account) {
                    holding.set_linger(class, linger);
                }
                None
            }
            // Which calls go to which endpoint is the shard's to know.
            ToShard::Learned(_) | ToShard::Endpoint { .. } => None,
        }
    }

    /// The lease is in the log for good: its permits may be spent.
    pub fn on_durable(&mut self, account: AccountId, lease: LeaseId) {
        if let Some(holding) = self.accounts.get_mut(&account) {
            holding.on_durable(lease);
        }
    }

    /// The log does not take the lease: its permits go back unspent.
    pub fn on_unlogged(&mut self, account: AccountId, lease: LeaseId) {
        if let Some(holding) = self.accounts.get_mut(&account) {
            holding.on_unlogged(lease);
        }
    }

    /// Which calls of the account cost the same.
    pub fn classes(&self, account: AccountId) -> Option<&Arc<CostClasses>> {
        Some(self.accounts.get(&account)?.classes())
    }

    /// The class of a call with these tags, the word of its kind among them.
    pub fn class_of(&self, account: AccountId, tags: &[&str]) -> CostClass {
        let classes = self.classes(account);
        classes.map_or(CostClass::ANY, |classes| classes.class_of(tags))
    }

    /// Whether the account has no windowed limit.
    pub fn is_unlimited(&self, account: AccountId) -> bool {
        let holding = self.accounts.get(&account);
        holding.is_some_and(Holding::is_unlimited)
    }

    /// How long a call of this class should wait for company, from the one before.
    pub fn linger(&self, account: AccountId, class: CostClass) -> Duration {
        let holding = self.accounts.get(&account);
        holding.map_or(Duration::ZERO, |holding| holding.linger(class))
    }

    /// Slots held, in use or not.
    pub fn slots(&self, account: AccountId) -> u32 {
        self.accounts.get(&account).map_or(0, Holding::slots)
    }

    /// What waits to be sent to an account in calls of this class.
    pub fn demand(&mut self, account: AccountId, class: CostClass, waiting: Waiting) {
        if let Some(holding) = self.accounts.get_mut(&account) {
            holding.demand(class, waiting);
        }
    }

    /// Whether the gate and the slots let a call start, whatever it costs.
    ///
    /// # Errors
    /// Why not.
    pub fn may_call(&self, account: AccountId) -> Result<(), Refusal> {
        let holding = self.accounts.get(&account).ok_or(Refusal::Unknown)?;
        holding.may_call()
    }

    /// Whether a permit for a call of this class is in hand, or none is needed.
    pub fn can_pay(&self, now: Mono, account: AccountId, class: CostClass) -> bool {
        let holding = self.accounts.get(&account);
        holding.is_some_and(|holding| holding.can_pay(now, class))
    }

    /// A permit for one call of this class that is sent at once.
    ///
    /// # Errors
    /// Why not; nothing has changed.
    pub fn try_spend(
        &mut self,
        now: Mono,
        account: AccountId,
        class: CostClass,
    ) -> Result<Permit, Refusal> {
        let holding = self.accounts.get_mut(&account).ok_or(Refusal::Unknown)?;
        holding.try_spend(now, class)
    }

    /// The call of that permit has ended.
    pub fn complete(&mut self, permit: Permit, end: CallEnd) {
        if let Some(holding) = self.accounts.get_mut(&permit.account) {
            holding.complete(permit, end);
        }
    }

    /// A reply of the account said this of a limit.
    pub fn observed(&mut self, account: AccountId, word: Observation) {
        if let Some(holding) = self.accounts.get_mut(&account) {
            holding.observed(word);
        }
    }

    /// No byte of the call was sent, and none will be.
    pub fn cancel(&mut self, permit: Permit) {
        if let Some(holding) = self.accounts.get_mut(&permit.account) {
            holding.cancel(permit);
        }
    }

    /// What the log should be told of leases whose calls have ended, by the account's name: now and
    /// then, and after the last one.
    pub fn settled(&mut self, now: Mono) -> impl Iterator<Item = (Arc<str>, Settled)> + '_ {
        let accounts = self.accounts.values_mut();
        accounts.filter_map(move |holding| holding.settled(now))
    }

    /// Gathers the reports of this turn: ended calls, what is returned, what is wanted.
    pub fn end_turn(&mut self, now: Mono) {
        let reports = &mut self.reports;
        self.accounts.retain(|_, holding| {
            holding.end_turn(now, reports);
            !holding.is_over()
        });
    }

    /// The next report for the coordinator.
    pub fn poll(&mut self) -> Option<FromShard> {
        self.reports.pop_front()
    }

    /// When `end_turn` must be called at the latest.
    pub fn next_deadline(&self) -> Option<Mono> {
        let accounts = self.accounts.values();
        accounts.filter_map(Holding::next_deadline).min()
    }

    /// What the account's gate shows this shard.
    pub fn gate(&self, account: AccountId) -> Option<Gate> {
        self.accounts.get(&account)?.gate()
    }
}

impl Default for Holdings {
    fn default() -> Self {
        Self::new()
    }
}

/// What a shard is told about an account once.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) name: Arc<str>,
    pub(super) unlimited: bool,
    pub(super) classes: Arc<CostClasses>,
    pub(super) lease_memory: Duration,
}
