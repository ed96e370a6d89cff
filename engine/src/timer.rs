//! When operations in backoff or scheduled become due.

mod timer_list;

use thiserror::Error;
use timer_list::TimerList;

use crate::operation_slab::{OpIndex, OperationSlab};

/// A timer wheel of six levels whose lists run through the operations, so that a timer takes no memory
/// of its own.
///
/// Time is cut into ticks of 16 ms. A slot of level n spans 64ⁿ ticks; an operation lies at the lowest
/// level whose slots tell its due tick from the current one, and moves down when the time reaches its
/// slot: it wakes early at most five times and is handed out at its own tick, never before. There are
/// 384 slots, and as many distinct wake-ups, whatever the number of timers.
///
/// An operation's slot follows from its due tick and the current tick, so that cancelling needs no
/// search over slots.
#[derive(Debug)]
pub struct TimerQueue {
    base_ms: u64,
    /// Ticks since the base. All that was due before has been handed out.
    current: u64,
    levels: Vec<Level>,
    /// The slot that the current tick has reached, on its way out or down.
    unsettled: TimerList,
    len: usize,
}

#[derive(Debug, Default)]
struct Level {
    slots: Vec<TimerList>,
    /// Bit n: slot n is not empty.
    taken: u64,
}

/// Refused, nothing changed: due more than 795 days ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("due at {due_ms} ms, later than the timer queue reaches at {now_ms} ms")]
pub struct BeyondHorizon {
    /// When it is due.
    due_ms: u64,
    /// Where the queue stands.
    now_ms: u64,
}

impl BeyondHorizon {
    /// The latest instant that can be waited for.
    pub fn horizon_ms(&self) -> u64 {
        self.now_ms.saturating_add(TimerQueue::HORIZON_MS)
    }
}

impl TimerQueue {
    /// The resolution. Finer than any provider's clock is near to ours, and with 32 bits it reaches 795
    /// days ahead.
    pub const TICK_MS: u64 = 16;
    /// How far ahead of the current tick an operation may be due.
    pub const HORIZON_MS: u64 = u32::MAX as u64 * Self::TICK_MS;
    /// Slots, and so distinct wake-ups, at most.
    pub const SLOTS: usize = LEVELS << LEVEL_BITS;

    /// An empty queue that counts from `base_ms` on.
    pub fn new(base_ms: u64) -> Self {
        let level = || Level {
            slots: vec![TimerList::default(); 1 << LEVEL_BITS],
            taken: 0,
        };
        Self {
            base_ms,
            current: 0,
            levels: (0..LEVELS).map(|_| level()).collect(),
            unsettled: TimerList::default(),
            len: 0,
        }
    }

    /// Hands `op` out again at `due_ms`, rounded up to a tick; at the next turn if that is past.
    ///
    /// # Errors
    /// If it lies beyond the horizon.
    pub fn insert(
        &mut self,
        slab: &mut OperationSlab,
        op: OpIndex,
        due_ms: u64,
    ) -> Result<(), BeyondHorizon> {
        let due = due_ms
            .saturating_sub(self.base_ms)
            .div_ceil(Self::TICK_MS)
            .max(self.current);
        if due - self.current > u64::from(u32::MAX) {
            return Err(BeyondHorizon {
                due_ms,
                now_ms: self.at_ms(self.current),
            });
        }
        debug_assert!(slab[op].list_prev().is_none() && slab[op].list_next().is_none());
        slab[op].set_due_tick(due as u32);
        self.place(slab, op, due);
        self.len += 1;
        Ok(())
    }

    /// Takes `op` out before its time. False if it is not in the queue.
    pub fn cancel(&mut self, slab: &mut OperationSlab, op: OpIndex) -> bool {
        let (level, slot) = slot_of(self.current, self.due(slab, op));
        let level = &mut self.levels[level];
        if level.slots[slot].remove(slab, op) {
            if level.slots[slot].is_empty() {
                level.taken &= !(1 << slot);
            }
        } else if !self.unsettled.remove(slab, op) {
            return false;
        }
        self.len -= 1;
        slab[op].set_due_tick(0);
        true
    }

    /// An operation that is due at `now_ms`, if any; call until there is none.
    ///
    /// Each operation handed out or moved down a level takes one from `moves_left`, so that a slot with
    /// a million of them does not hold up a turn. At 0 there may be more, and `next_deadline` is not
    /// after `now_ms`.
    pub fn pop_due(
        &mut self,
        slab: &mut OperationSlab,
        now_ms: u64,
        moves_left: &mut usize,
    ) -> Option<OpIndex> {
        let now = now_ms.saturating_sub(self.base_ms) / Self::TICK_MS;
        while *moves_left > 0 {
            let Some(op) = self.unsettled.pop(slab) else {
                if !self.reach_next_slot(now) {
                    return None;
                }
                continue;
            };
            *moves_left -= 1;
            let due = self.due(slab, op);
            if due == self.current {
                slab[op].set_due_tick(0);
                self.len -= 1;
                return Some(op);
            }
            self.place(slab, op, due);
        }
        None
    }

    /// When to call `pop_due` next: not later than the first due time, and earlier when that is far.
    pub fn next_deadline(&self) -> Option<u64> {
        if !self.unsettled.is_empty() {
            return Some(self.at_ms(self.current));
        }
        let (_, _, start) = self.next_slot()?;
        Some(self.at_ms(start))
    }

    /// Operations waiting for their time.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory held besides the operations.
    pub fn memory_bytes(&self) -> usize {
        let lists = self
            .levels
            .iter()
            .flat_map(|level| &level.slots)
            .chain([&self.unsettled]);
        lists
            .map(|list| size_of::<TimerList>() + list.heap_bytes())
            .sum()
    }

    fn place(&mut self, slab: &mut OperationSlab, op: OpIndex, due: u64) {
        let (level, slot) = slot_of(self.current, due);
        let level = &mut self.levels[level];
        level.slots[slot].push(slab, op);
        level.taken |= 1 << slot;
    }

    /// Moves the current tick to the next slot that starts by `now`, and that slot to `unsettled`.
    /// Without such a slot it moves to `now` and returns false.
    fn reach_next_slot(&mut self, now: u64) -> bool {
        debug_assert!(self.unsettled.is_empty());
        match self.next_slot().filter(|(_, _, start)| *start <= now) {
            Some((level, slot, start)) => {
                self.current = start;
                let level = &mut self.levels[level];
                self.unsettled = std::mem::take(&mut level.slots[slot]);
                level.taken &= !(1 << slot);
                true
            }
            None => {
                self.current = self.current.max(now);
                false
            }
        }
    }

    /// Level, slot and first tick of the earliest slot taken. All of a level lie within the current
    /// slot of the level above, so that the lowest level taken has it.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.levels.iter().position(|level| level.taken != 0)?;
        let span_bits = level as u32 * LEVEL_BITS;
        let number = self.current >> span_bits;
        // The top level wraps around; below it nothing lies before the current slot.
        let here = number % SLOTS_A_LEVEL;
        let ahead = self.levels[level]
            .taken
            .rotate_right(here as u32)
            .trailing_zeros();
        let next = number + u64::from(ahead);
        Some((level, (next % SLOTS_A_LEVEL) as usize, next << span_bits))
    }

    /// The due tick of an operation in the queue, from its low 32 bits: it is at most 2³² ticks ahead.
    fn due(&self, slab: &OperationSlab, op: OpIndex) -> u64 {
        self.current + u64::from(slab[op].due_tick().wrapping_sub(self.current as u32))
    }

    fn at_ms(&self, tick: u64) -> u64 {
        self.base_ms + tick * Self::TICK_MS
    }
}

const LEVEL_BITS: u32 = 6;
const SLOTS_A_LEVEL: u64 = 1 << LEVEL_BITS;
/// Enough for due ticks of 32 bits, with slots to spare at the top where they wrap around.
const LEVELS: usize = 6;
const _: () = assert!(LEVELS as u32 * LEVEL_BITS > u32::BITS);
const _: () = assert!(
    SLOTS_A_LEVEL == u64::BITS as u64,
    "a level's slots are the bits of a word"
);

/// Level and slot of a tick: the highest group of six bits in which it differs from the current one.
/// This stays so until the current tick reaches the slot, since it does not pass slots by.
fn slot_of(current: u64, due: u64) -> (usize, usize) {
    let differing = (current ^ due) | (SLOTS_A_LEVEL - 1);
    let level = (differing.ilog2() / LEVEL_BITS).min(LEVELS as u32 - 1);
    (
        level as usize,
        ((due >> (level * LEVEL_BITS)) % SLOTS_A_LEVEL) as usize,
    )
}
