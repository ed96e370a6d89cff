//! How long calls wait for company while quota is scarce.

use std::sync::Arc;
use std::time::Duration;

use super::{Account, Turn, shard_id};
use crate::quota::message::ToShard;
use crate::time::Mono;

/// Longer waits are for an account's `batch.max_wait` to cut off in any case.
const LINGER_MAX: Duration = Duration::from_secs(60);
/// Below this a wait is not worth a message: a shard's turn takes as long.
const LINGER_MIN: Duration = Duration::from_millis(1);

impl Account {
    /// Tells shards how far apart their calls should be. A shard that has nothing to call is told
    /// with the next change after it has.
    pub(super) fn tell_pace(&mut self, now: Mono, turn: &mut Turn<'_>) {
        if self.gone || self.pools.is_empty() {
            return;
        }
        let sharers = self.lanes.iter().filter(|lane| lane.has_demand()).count();
        let sharers = u32::try_from(sharers).unwrap_or(u32::MAX).max(1);
        let classes = Arc::clone(&self.classes);
        for place in 0..classes.count() {
            let class = classes.at(place);
            let costs = classes.costs(class).expect("a place below the count");
            let pools = self.pools.iter().zip(costs.iter());
            let spacing = pools.map(|(pool, cost)| pool.spacing(now, *cost)).max();
            let linger = stepped(spacing.unwrap_or_default().saturating_mul(sharers));
            for (index, lane) in self.lanes.iter_mut().enumerate() {
                if lane.connected && lane.tells_linger(class, linger) {
                    let account = self.id;
                    turn.send(
                        shard_id(index),
                        ToShard::Pace {
                            account,
                            class,
                            linger,
                        },
                    );
                }
            }
        }
    }
}

/// The power of two in milliseconds at or below: small changes are not worth a message.
fn stepped(linger: Duration) -> Duration {
    if linger < LINGER_MIN {
        return Duration::ZERO;
    }
    let ms = linger.min(LINGER_MAX).as_millis() as u64;
    Duration::from_millis(1 << ms.ilog2())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_come_in_powers_of_two() {
        for (ms, expected) in [(0, 0), (1, 1), (3, 2), (50, 32), (9_000_000, 32_768)] {
            let linger = Duration::from_millis(ms);
            assert_eq!(stepped(linger), Duration::from_millis(expected));
        }
    }
}
