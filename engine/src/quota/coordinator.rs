//! The one owner of all budgets: takes messages and the time, answers with messages.

use std::collections::{BTreeSet, VecDeque};

use super::account::{Account, AccountView, Calls, Turn};
use super::dice::Dice;
use super::gate::TroubleReport;
use super::lane::{Demand, Want};
use super::learned::Learned;
use super::limits::{AccountLimits, LimitsError};
use super::message::{AccountId, FromShard, LeaseId, ShardId, ToShard};
use super::restart::RecoveredLease;
use crate::time::{Mono, Now};

/// Owns the budget of every provider account.
///
/// - `handle` takes what a shard says, `tick` the passing of time;
/// - `poll` takes out what shards must be told, until it answers `None`: after each batch of
///   `handle` calls and each `tick`. Sharing waits for it, so that demand that came in the same
///   turn is weighed together;
/// - `next_deadline` is when to `tick` at the latest.
#[derive(Debug)]
pub struct Coordinator {
    now: Now,
    shards: usize,
    connected: BTreeSet<ShardId>,
    accounts: Vec<Account>,
    /// Accounts to bring forward at the next `poll`.
    touched: BTreeSet<usize>,
    /// Bounded by what one `advance` of each account yields: shards times a few.
    outbox: VecDeque<(ShardId, ToShard)>,
    last_lease: LeaseId,
    dice: Dice,
}

/// What a coordinator starts from besides its accounts.
#[derive(Debug, Clone, Copy)]
pub struct Start {
    /// Both clocks at the start.
    pub now: Now,
    /// Shards of this process, numbered from 0.
    pub shards: u16,
    /// Leases are numbered from the one after this; above all leases still in any log.
    pub last_lease: LeaseId,
    /// For the jitter of holds.
    pub seed: u64,
}

impl Coordinator {
    /// A coordinator with full pools. After a run before this one, `restore` comes next.
    ///
    /// # Errors
    /// The first value of an account that is out of range.
    pub fn new(start: Start, accounts: Vec<AccountLimits>) -> Result<Self, LimitsError> {
        let mut coordinator = Self {
            now: start.now,
            shards: usize::from(start.shards),
            connected: BTreeSet::new(),
            accounts: Vec::new(),
            touched: BTreeSet::new(),
            outbox: VecDeque::new(),
            last_lease: start.last_lease,
            dice: Dice::new(start.seed),
        };
        coordinator.reconfigure(start.now, accounts)?;
        Ok(coordinator)
    }

    /// Charges what an earlier run may have spent; before any shard connects. Leases of
    /// accounts that are not configured any more are dropped.
    pub fn restore(&mut self, now: Now, leases: &[RecoveredLease]) {
        self.see(now);
        for account in &mut self.accounts {
            account.restore(self.now, leases);
        }
    }

    /// Replaces the accounts. One that keeps its name keeps its number and what it has spent,
    /// also one that was removed for a while.
    ///
    /// # Errors
    /// The first value out of range or named twice; then nothing has changed.
    pub fn reconfigure(&mut self, now: Now, limits: Vec<AccountLimits>) -> Result<(), LimitsError> {
        for (index, account) in limits.iter().enumerate() {
            account.validate()?;
            if limits[..index].iter().any(|a| a.name == account.name) {
                return Err(LimitsError::Duplicate {
                    account: account.name.clone(),
                    what: "the account".to_owned(),
                });
            }
        }
        self.see(now);
        for account in &mut self.accounts {
            let stays = limits.iter().any(|new| new.name == account.name());
            if !stays && !account.is_gone() {
                account.remove(self.now.mono);
                self.outbox.extend(account.introductions());
            }
        }
        for new in limits {
            let known = self.accounts.iter().position(|old| old.name() == new.name);
            let index = known.unwrap_or(self.accounts.len());
            match self.accounts.get_mut(index) {
                Some(old) if old.limits() == &new && !old.is_gone() => continue,
                Some(old) => old.reconfigure(self.now, new),
                None => {
                    let id =
                        AccountId(u32::try_from(index).expect("accounts are configured by hand"));
                    let account = Account::new(self.now, id, new, self.shards);
                    self.accounts.push(account);
                    for &shard in &self.connected {
                        self.accounts[index].connect(self.now.mono, shard);
                    }
                }
            }
            self.outbox.extend(self.accounts[index].introductions());
            self.touched.insert(index);
        }
        Ok(())
    }

    /// Takes what a shard says. Messages about unknown accounts, or of shards that are not
    /// connected, are dropped.
    pub fn handle(&mut self, now: Now, from: ShardId, message: FromShard) {
        self.see(now);
        let known = self.connected.contains(&from) || message == FromShard::Connected;
        if usize::from(from.0) >= self.shards || !known {
            return;
        }
        match message {
            FromShard::Connected => self.connect(from),
            FromShard::Want {
                account,
                class,
                permits,
                urgent,
                records,
                slots,
                seen,
            } => {
                let demand = Demand {
                    permits,
                    urgent: urgent.min(permits),
                    records,
                };
                let want = Want {
                    class,
                    demand,
                    slots,
                    seen,
                };
                let mono = self.now.mono;
                self.with(account, |account, _| account.want(mono, from, want));
            }
            FromShard::Completed {
                account,
                lease,
                count,
                completed_at,
                ended,
            } => {
                let calls = Calls {
                    count,
                    at: completed_at,
                    ended,
                };
                let mono = self.now.mono;
                self.with(account, |account, _| {
                    account.completed(mono, from, lease, calls);
                });
            }
            FromShard::Unspent {
                account,
                lease,
                count,
            } => {
                self.with(account, |account, _| account.unspent(from, lease, count));
            }
            FromShard::ReturnSlots { account, slots } => {
                let mono = self.now.mono;
                self.with(account, |account, _| {
                    account.slots.returned(mono, from, slots)
                });
            }
            FromShard::Trouble {
                account,
                trouble,
                probe,
                last_success,
            } => {
                let report = TroubleReport {
                    trouble,
                    probe,
                    last_success,
                };
                let now = self.now;
                self.with(account, |account, dice| {
                    account.trouble(now, dice, from, report);
                });
            }
            FromShard::Healthy { account, probe } => {
                self.with(account, |account, _| account.healthy(from, probe));
            }
            FromShard::Observed {
                account,
                observation,
            } => {
                let now = self.now;
                self.with(account, |account, _| account.observed(now, &observation));
            }
            FromShard::Endpoint {
                account,
                endpoint,
                word,
            } => {
                let now = self.now;
                self.with(account, |account, dice| {
                    account.endpoint(now, dice, (from, &endpoint), word);
                });
            }
            FromShard::ProbeUnused { account } => {
                let mono = self.now.mono;
                self.with(account, |account, _| {
                    account.health.on_probe_unused(mono, from)
                });
            }
        }
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Now) {
        self.see(now);
        for (index, account) in self.accounts.iter().enumerate() {
            let due = account.next_deadline();
            if due.is_some_and(|due| due <= self.now.mono) {
                self.touched.insert(index);
            }
        }
    }

    /// The next message for a shard.
    pub fn poll(&mut self) -> Option<(ShardId, ToShard)> {
        while self.outbox.is_empty() {
            let index = self.touched.pop_first()?;
            let mut turn = Turn {
                outbox: &mut self.outbox,
                last_lease: &mut self.last_lease,
            };
            self.accounts[index].advance(self.now, &mut turn);
        }
        self.outbox.pop_front()
    }

    /// When `tick` must be called at the latest; `None` while only messages change anything.
    pub fn next_deadline(&self) -> Option<Mono> {
        if !self.touched.is_empty() || !self.outbox.is_empty() {
            return Some(self.now.mono);
        }
        let accounts = self.accounts.iter();
        accounts.filter_map(|account| account.next_deadline()).min()
    }

    /// Where every account stands.
    pub fn views(&mut self, now: Now) -> impl Iterator<Item = AccountView> + '_ {
        self.see(now);
        for (index, account) in self.accounts.iter_mut().enumerate() {
            if account.observe(self.now) {
                self.touched.insert(index);
            }
        }
        let present = self.accounts.iter().filter(|account| !account.is_gone());
        let now = self.now.mono;
        present.map(move |account| account.view(now))
    }

    /// What was learned of limits since this was last asked: to be logged, and given to `recall`
    /// by the next run. Bounded by three values a limit.
    pub fn take_learned(&mut self) -> Vec<Learned> {
        let accounts = self.accounts.iter_mut();
        accounts.flat_map(Account::take_learned).collect()
    }

    /// Takes up what an earlier run learned, in the order in which it was logged. Of limits that
    /// are not configured any more it is dropped; none is believed above the configuration.
    pub fn recall(&mut self, now: Now, learned: &[Learned]) {
        self.see(now);
        for learned in learned {
            let known = self
                .accounts
                .iter_mut()
                .find(|a| a.name() == learned.account);
            if let Some(account) = known {
                account.recall(self.now.mono, learned);
            }
        }
    }

    /// An account has other credentials: if the former ones were refused, it is probed at once.
    pub fn credentials_changed(&mut self, now: Now, account: &str) {
        self.see(now);
        let known = self.accounts.iter().position(|a| a.name() == account);
        if let Some(index) = known {
            self.accounts[index].health.on_credentials(self.now.mono);
            self.touched.insert(index);
        }
    }

    /// The newest lease: what the next coordinator starts after.
    pub fn last_lease(&self) -> LeaseId {
        self.last_lease
    }

    fn connect(&mut self, shard: ShardId) {
        self.connected.insert(shard);
        for (index, account) in self.accounts.iter_mut().enumerate() {
            account.connect(self.now.mono, shard);
            if !account.is_gone() {
                self.outbox.push_back((shard, account.introduction()));
            }
            self.touched.insert(index);
        }
    }

    fn with(&mut self, account: AccountId, change: impl FnOnce(&mut Account, &mut Dice)) {
        let index = account.0 as usize;
        if let Some(account) = self.accounts.get_mut(index) {
            change(account, &mut self.dice);
            self.touched.insert(index);
        }
    }

    /// Threads read the clock one after the other and may hand it over in another order.
    fn see(&mut self, now: Now) {
        if now.mono >= self.now.mono {
            self.now = now;
        }
    }
}
