//! Whose permits a shard spends, and how many calls are open: an account's leases, followed by the
//! words that grant them and give them back.
//!
//! The sums are those of this life of the engine alone, so that they are never too high: what a
//! restart may lend is left to the provider's own count.

use std::collections::BTreeMap;

use engine::quota::{AccountId, FromShard, LeaseId, ToShard};

use super::fold::Broken;
use super::options::AccountOptions;

const MS: u64 = 1_000_000;
/// How long after its end the provider may still count a call that had no answer.
const ARRIVAL_GRACE: u64 = 2_000 * MS;

/// The leases of one life of the engine.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By shard and account.
    lent: BTreeMap<(usize, AccountId), BTreeMap<LeaseId, Lease>>,
    /// Calls that left and that their shards know no end of, by account.
    open: BTreeMap<usize, u32>,
    /// When calls of an account ended, as their shards told it.
    ended: BTreeMap<AccountId, Vec<(u64, u32)>>,
}

#[derive(Debug)]
struct Lease {
    permits: u32,
    usable_until: u64,
    /// Calls taken to be paid by it: those that left, each from the lease that ends first.
    spent: u32,
    /// Told to have ended, or given back.
    settled: u32,
}

impl Ledger {
    /// The coordinator tells a shard something.
    pub(super) fn told(
        &mut self,
        now: u64,
        shard: usize,
        word: &ToShard,
        accounts: &[AccountOptions],
    ) -> Result<(), Broken> {
        let ToShard::Grant {
            account,
            lease,
            permits,
            usable_until,
            ..
        } = word
        else {
            return Ok(());
        };
        let lent = Lease {
            permits: *permits,
            usable_until: usable_until.0,
            spent: 0,
            settled: 0,
        };
        let of_shard = self.lent.entry((shard, *account)).or_default();
        of_shard.insert(*lease, lent);
        self.check_budget(now, *account, &accounts[account.0 as usize])
    }

    /// What is lent, and what calls that ended still take of a window, is no more than its limit.
    fn check_budget(
        &self,
        now: u64,
        account: AccountId,
        options: &AccountOptions,
    ) -> Result<(), Broken> {
        let silent_after = options.timeout.as_nanos() as u64 + ARRIVAL_GRACE;
        for &(limit, window_ms) in &options.limits {
            let window = window_ms * MS;
            let ended = self.ended.get(&account).into_iter().flatten();
            let used: u64 = ended
                .filter(|(at, _)| at + window > now)
                .map(|(_, count)| u64::from(*count))
                .sum();
            let leases = self.lent.iter().filter(|((_, of), _)| *of == account);
            // Those of a silent shard count as calls that ended then.
            let live = leases
                .flat_map(|(_, leases)| leases.values())
                .filter(|lease| lease.usable_until + silent_after + window > now);
            let lent: u64 = live
                .map(|lease| u64::from(lease.permits - lease.settled))
                .sum();
            if lent + used > u64::from(limit) {
                return Err(format!(
                    "I7 {}: {lent} permits are lent and {used} calls count, of {limit} in {window_ms} ms",
                    options.name
                ));
            }
        }
        Ok(())
    }

    /// A shard tells the coordinator something.
    pub(super) fn tells(&mut self, shard: usize, word: &FromShard) -> Result<(), Broken> {
        let (account, id, count) = match word {
            FromShard::Completed {
                account,
                lease,
                count,
                completed_at,
                ..
            } => {
                let ended = self.ended.entry(*account).or_default();
                ended.push((completed_at.0, *count));
                (account, lease, count)
            }
            FromShard::Unspent {
                account,
                lease,
                count,
            } => (account, lease, count),
            _ => return Ok(()),
        };
        let leases = self.lent.get_mut(&(shard, *account));
        let Some(lease) = leases.and_then(|leases| leases.get_mut(id)) else {
            return Err(format!(
                "I7 shard {shard} settles {id:?}, which it never had"
            ));
        };
        lease.settled += count;
        if lease.settled > lease.permits {
            return Err(format!(
                "I7 shard {shard} settles {} permits of {id:?}, which has {}",
                lease.settled, lease.permits
            ));
        }
        Ok(())
    }

    /// A call leaves a shard: some lease that it may still spend has a permit left.
    pub(super) fn call_leaves(
        &mut self,
        now: u64,
        shard: usize,
        account: usize,
        options: &AccountOptions,
    ) -> Result<(), Broken> {
        let open = self.open.entry(account).or_default();
        *open += 1;
        if *open > options.max_in_flight {
            return Err(format!(
                "I22 {} has {open} calls open, {} may be",
                options.name, options.max_in_flight
            ));
        }
        if !options.has_windows() {
            return Ok(());
        }
        let key = (shard, AccountId(account as u32));
        let leases = self.lent.entry(key).or_default().values_mut();
        let usable =
            leases.filter(|lease| lease.usable_until >= now && lease.spent < lease.permits);
        match usable.min_by_key(|lease| lease.usable_until) {
            Some(lease) => {
                lease.spent += 1;
                Ok(())
            }
            None => Err(format!(
                "I7 shard {shard} calls {} without a permit that it may still spend",
                options.name
            )),
        }
    }

    /// A shard takes in how a call ended.
    pub(super) fn call_ended(&mut self, account: usize) {
        let open = self.open.entry(account).or_default();
        *open = open.saturating_sub(1);
    }

    /// The engine died, and its leases with it.
    pub(super) fn died(&mut self) {
        *self = Self::default();
    }
}
