//! Calls in flight: each slot is held by one shard until it is idle or the slot is recalled.

use std::time::Duration;

use super::message::ShardId;
use crate::time::Mono;

/// How long a shard may keep a slot that another, holding none, waits for; a few round trips.
const SLOT_TURN: Duration = Duration::from_millis(100);

/// Who holds how many slots of one account. Held and withheld together never exceed the total.
#[derive(Debug)]
pub(super) struct Slots {
    total: u32,
    shards: Vec<Holder>,
    /// Slots of shards that were lost with calls in flight, until those have surely ended.
    withheld: Vec<Withheld>,
}

/// What a shard has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotMove {
    Grant(u32),
    Recall { keep: u32 },
}

#[derive(Debug, Clone, Copy, Default)]
struct Holder {
    want: u32,
    held: u32,
    /// What it was told to shrink to.
    keep: Option<u32>,
    /// When it got its first slot, or else began to wait for one.
    since: Mono,
}

#[derive(Debug)]
struct Withheld {
    until: Mono,
    slots: u32,
}

impl Slots {
    pub(super) fn new(total: u32, shards: usize) -> Self {
        Self {
            total,
            shards: vec![Holder::default(); shards],
            withheld: Vec::new(),
        }
    }

    pub(super) fn want(&mut self, now: Mono, shard: ShardId, slots: u32) {
        let holder = &mut self.shards[usize::from(shard.0)];
        if holder.want == 0 && holder.held == 0 {
            holder.since = now;
        }
        holder.want = slots;
    }

    /// More than the shard holds is ignored: it was returned already.
    pub(super) fn returned(&mut self, now: Mono, shard: ShardId, slots: u32) {
        let holder = &mut self.shards[usize::from(shard.0)];
        holder.held = holder.held.saturating_sub(slots);
        if holder.held == 0 {
            holder.since = now;
        }
        if holder.keep.is_some_and(|keep| holder.held <= keep) {
            holder.keep = None;
        }
    }

    /// The shard lost its memory; its calls may go on until `until`.
    pub(super) fn lost(&mut self, shard: ShardId, until: Mono) {
        let holder = std::mem::take(&mut self.shards[usize::from(shard.0)]);
        self.withhold(holder.held, until);
    }

    /// All slots that no shard holds stay out of use until `until`.
    pub(super) fn withhold_free(&mut self, until: Mono) {
        self.withhold(self.free(), until);
    }

    pub(super) fn resize(&mut self, total: u32) {
        self.total = total;
    }

    /// Moves slots toward everyone's fair share, granting what is free and recalling the rest.
    pub(super) fn rebalance(&mut self, now: Mono) -> Vec<(ShardId, SlotMove)> {
        self.withheld.retain(|withheld| withheld.until > now);
        let targets = self.targets(now);
        let mut moves = Vec::new();
        let mut free = self.free();
        let mut short = 0;
        for (index, &target) in targets.iter().enumerate() {
            let holder = &mut self.shards[index];
            let missing = target.saturating_sub(holder.held);
            let granted = missing.min(free);
            free -= granted;
            short += missing - granted;
            if granted > 0 {
                if holder.held == 0 {
                    holder.since = now;
                }
                holder.held += granted;
                holder.keep = None;
                moves.push((shard_id(index), SlotMove::Grant(granted)));
            }
        }
        let over = self.in_use().saturating_sub(self.total);
        if short > 0 || over > 0 {
            self.recall_above(&targets, &mut moves);
        }
        moves
    }

    /// When time alone changes something: a lost slot is free again or a turn is over.
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let withheld = self.withheld.iter().map(|withheld| withheld.until);
        let waiting = self
            .shards
            .iter()
            .filter(|h| h.want > 0 && h.held == 0)
            .count();
        let recalled: u32 = self.shards.iter().map(Holder::recalled).sum();
        let short = waiting > recalled as usize;
        let turns = self
            .shards
            .iter()
            .filter(|h| short && h.held > 0 && h.keep.is_none())
            .map(|h| h.since.saturating_add(SLOT_TURN));
        withheld.chain(turns).min()
    }

    pub(super) fn held(&self, shard: ShardId) -> u32 {
        self.shards[usize::from(shard.0)].held
    }

    pub(super) fn held_in_all(&self) -> u32 {
        self.shards.iter().map(|holder| holder.held).sum()
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    fn free(&self) -> u32 {
        self.total.saturating_sub(self.in_use())
    }

    fn in_use(&self) -> u32 {
        let withheld: u32 = self.withheld.iter().map(|withheld| withheld.slots).sum();
        self.held_in_all() + withheld
    }

    fn withhold(&mut self, slots: u32, until: Mono) {
        if slots > 0 {
            self.withheld.push(Withheld { until, slots });
        }
    }

    /// What each shard should hold: equal shares up to its want. One slot at least as long as
    /// there is one each, in turns when there is not. Whoever holds keeps the remainder, so
    /// that slots do not wander.
    fn targets(&self, now: Mono) -> Vec<u32> {
        let withheld: u32 = self.withheld.iter().map(|withheld| withheld.slots).sum();
        let mut left = self.total.saturating_sub(withheld);
        let mut targets = vec![0; self.shards.len()];
        let mut order: Vec<usize> = (0..self.shards.len())
            .filter(|&i| self.shards[i].want > 0)
            .collect();
        if order.len() > left as usize {
            order.sort_by_key(|&i| self.shards[i].precedence(now));
        } else {
            order.sort_by_key(|&i| std::cmp::Reverse(self.shards[i].held));
        }
        loop {
            order.retain(|&i| targets[i] < self.shards[i].want);
            let Some(each) = u32::try_from(order.len())
                .ok()
                .and_then(|n| left.checked_div(n))
            else {
                return targets;
            };
            for &index in &order {
                let more = each
                    .max(1)
                    .min(self.shards[index].want - targets[index])
                    .min(left);
                targets[index] += more;
                left -= more;
            }
            if left == 0 {
                return targets;
            }
        }
    }

    fn recall_above(&mut self, targets: &[u32], moves: &mut Vec<(ShardId, SlotMove)>) {
        for (index, &target) in targets.iter().enumerate() {
            let holder = &mut self.shards[index];
            let already = holder.keep.unwrap_or(u32::MAX);
            if holder.held > target && target < already {
                holder.keep = Some(target);
                moves.push((shard_id(index), SlotMove::Recall { keep: target }));
            }
        }
    }
}

impl Holder {
    /// Who comes first when there is not one slot each: holders within their turn, then who
    /// waits longest, then holders whose turn is over, the latest first.
    fn precedence(&self, now: Mono) -> (u8, u64) {
        let within_turn = now.saturating_since(self.since) < SLOT_TURN;
        match (self.held, within_turn) {
            (0, _) => (1, self.since.0),
            (_, true) => (0, self.since.0),
            (_, false) => (2, u64::MAX - self.since.0),
        }
    }

    fn recalled(&self) -> u32 {
        self.keep.map_or(0, |keep| self.held.saturating_sub(keep))
    }
}

fn shard_id(index: usize) -> ShardId {
    ShardId(u16::try_from(index).expect("shards are numbered in 16 bits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    fn at_ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    #[test]
    fn a_poor_shard_gets_what_a_rich_one_returns() {
        let mut slots = Slots::new(8, 2);
        slots.want(at_ms(0), A, 100);
        assert_eq!(slots.rebalance(at_ms(0)), [(A, SlotMove::Grant(8))]);
        slots.want(at_ms(1), B, 3);
        assert_eq!(
            slots.rebalance(at_ms(1)),
            [(A, SlotMove::Recall { keep: 5 })]
        );
        assert_eq!(slots.rebalance(at_ms(2)), [], "it is told once");
        slots.returned(at_ms(3), A, 2);
        assert_eq!(slots.rebalance(at_ms(3)), [(B, SlotMove::Grant(2))]);
        slots.returned(at_ms(4), A, 1);
        assert_eq!(slots.rebalance(at_ms(4)), [(B, SlotMove::Grant(1))]);
        assert_eq!((slots.held(A), slots.held(B)), (5, 3));
    }

    #[test]
    fn idle_holders_are_left_alone_until_someone_is_short() {
        let mut slots = Slots::new(4, 2);
        slots.want(at_ms(0), A, 3);
        slots.rebalance(at_ms(0));
        slots.want(at_ms(1), A, 0);
        slots.want(at_ms(1), B, 1);
        assert_eq!(slots.rebalance(at_ms(1)), [(B, SlotMove::Grant(1))]);
        slots.want(at_ms(2), B, 2);
        assert_eq!(
            slots.rebalance(at_ms(2)),
            [(A, SlotMove::Recall { keep: 0 })]
        );
    }

    #[test]
    fn a_single_slot_goes_round_in_turns() {
        let mut slots = Slots::new(1, 3);
        for shard in 0..3 {
            slots.want(at_ms(u64::from(shard)), ShardId(shard), 5);
        }
        let mut served = [0; 3];
        let mut now = at_ms(3);
        for _ in 0..30 {
            for (shard, moved) in slots.rebalance(now) {
                match moved {
                    SlotMove::Grant(n) => served[usize::from(shard.0)] += n,
                    SlotMove::Recall { keep } => {
                        assert_eq!(keep, 0);
                        slots.returned(now, shard, 1);
                    }
                }
                assert!(slots.held_in_all() <= 1);
            }
            now = slots.next_deadline().unwrap_or(Mono(now.0 + 1));
        }
        assert!(served.iter().all(|n| *n >= 4), "{served:?}");
    }

    #[test]
    fn slots_of_a_lost_shard_are_withheld_until_its_calls_have_ended() {
        let mut slots = Slots::new(4, 2);
        slots.want(at_ms(0), A, 4);
        slots.rebalance(at_ms(0));
        slots.lost(A, at_ms(500));
        slots.want(at_ms(1), B, 4);
        assert_eq!(slots.rebalance(at_ms(1)), []);
        assert_eq!(slots.next_deadline(), Some(at_ms(500)));
        assert_eq!(slots.rebalance(at_ms(500)), [(B, SlotMove::Grant(4))]);
    }
}
