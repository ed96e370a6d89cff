//! What a restart finds in the shards' logs, and how much of it may still be counted.

use std::sync::Arc;
use std::time::Duration;

use super::ARRIVAL_GRACE;
use super::account::Account;
use super::limit::{Limit, Policy};
use super::pool::{Pool, SpentBefore};
use crate::time::{Mono, Now, WallMs};

/// After a reboot the wall clock alone tells how long ago a lease ended; it may be off by this
/// much until NTP has set it.
const REBOOT_CLOCK_ERROR: Duration = Duration::from_secs(60);
/// After a reboot windows up to this length are taken to have been spent just now.
const SHORT_WINDOW: Duration = Duration::from_secs(60);

/// A lease that a shard's log holds: granted before, whether its permits were spent or not.
///
/// Several leases of an account may be given as one: the sum of the permits, the latest of
/// the instants, if both clocks' come from the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveredLease {
    /// The account's name.
    pub account: String,
    /// Permits granted, less those logged as returned unspent.
    pub permits: u32,
    /// Which calls they pay for: [`CostClasses::label`](super::CostClasses::label) of the
    /// lease's class. Empty is any call, which counts the most.
    pub label: String,
    /// The last instant at which a permit could be spent, on the clock of the boot it is from.
    pub usable_until: Mono,
    /// The same instant by the wall clock of that time.
    pub wall_until: WallMs,
    /// By then all of its calls had ended and been counted, as a later entry of the log says, on the
    /// same clock.
    pub ended_by: Option<Mono>,
    /// `usable_until` is on the clock of this boot.
    pub same_boot: bool,
}

impl Account {
    /// Charges every pool with the calls that `leases` may have paid for.
    pub(super) fn restore(&mut self, now: Now, leases: &[RecoveredLease]) {
        let own: Vec<&RecoveredLease> =
            leases.iter().filter(|l| l.account == self.name()).collect();
        let call_timeout = self.limits().call_timeout;
        let classes = Arc::clone(self.classes());
        let costs = own.iter().map(|lease| {
            let costs = classes.costs(classes.labelled(&lease.label));
            costs.unwrap_or(classes.dearest())
        });
        let costs: Vec<&Arc<[u32]>> = costs.collect();
        for (at, pool) in self.pools_mut().iter_mut().enumerate() {
            let spent = own.iter().zip(&costs).map(|(lease, costs)| SpentBefore {
                completed_ns: lease.ended_at_latest(now, call_timeout, pool),
                tokens: u64::from(lease.permits) * u64::from(costs[at]),
                clocks: lease.clocks(),
            });
            let spent: Vec<SpentBefore> = spent.collect();
            pool.recover(now, &spent);
        }
        // Calls cut off by the crash may still run at the provider.
        let concurrency = |limit: &Limit| matches!(limit.policy, Policy::Concurrency { .. });
        if self.limits().limits.iter().any(concurrency) {
            let ended = now.mono.saturating_add(ARRIVAL_GRACE);
            self.slots.withhold_free(ended);
        }
    }
}

impl RecoveredLease {
    fn clocks(&self) -> Option<Now> {
        let clocks = Now {
            mono: self.usable_until,
            wall: self.wall_until,
        };
        self.same_boot.then_some(clocks)
    }

    /// When the provider had counted the last of its calls, in nanoseconds of this boot's
    /// clock; negative when that was before the boot.
    fn ended_at_latest(&self, now: Now, call_timeout: Duration, pool: &Pool) -> i64 {
        let now_ns = nanos(now.mono.0);
        let ended = if self.same_boot {
            nanos(self.usable_until.0).saturating_add(nanos_of(call_timeout))
        } else if pool.memory() <= SHORT_WINDOW.mul_f64(1.01) {
            now_ns
        } else {
            let until_ns = self
                .wall_until
                .0
                .saturating_sub(now.wall.0)
                .saturating_mul(1_000_000);
            let slack = nanos_of(call_timeout + REBOOT_CLOCK_ERROR);
            now_ns.saturating_add(until_ns).saturating_add(slack)
        };
        // No call outlived the process.
        let latest = ended.min(now_ns).saturating_add(nanos_of(ARRIVAL_GRACE));
        // In which window of the wall clock a call fell is told for the kill's instant only.
        let known = self
            .ended_by
            .filter(|_| self.same_boot && !pool.is_aligned());
        known.map_or(latest, |by| nanos(by.0).min(latest))
    }
}

fn nanos(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn nanos_of(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
