//! The operations of one slot of a timer wheel.

use smallvec::{SmallVec, smallvec};

use crate::operation_slab::{OpIndex, OperationSlab};

/// Singly linked lists through `list_next`, since the other link holds the due tick. Operations are
/// dealt to several lists by their index, so that taking one out walks a short one: at most 64 on
/// average. A head for 16 to 64 operations is at most a quarter of a byte each.
#[derive(Clone, Debug, Default)]
pub(super) struct TimerList {
    /// Emptied from the end; nothing is pushed any more once that began.
    heads: SmallVec<[Option<OpIndex>; STRIPES_MIN]>,
    stripe_bits: u32,
    len: u32,
}

impl TimerList {
    pub(super) fn push(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        if self.len == 0 {
            self.heads = smallvec![None; STRIPES_MIN];
            self.stripe_bits = STRIPES_MIN.ilog2();
        } else if self.len as usize >= self.heads.len() * STRIPE_LEN_MAX {
            self.deal_out(slab);
        }
        self.link(slab, op);
        self.len += 1;
    }

    pub(super) fn pop(&mut self, slab: &mut OperationSlab) -> Option<OpIndex> {
        while self.heads.last()?.is_none() {
            self.heads.pop();
        }
        let head = self.heads.last_mut()?;
        let op = (*head)?;
        *head = slab[op].list_next();
        slab[op].set_list_next(None);
        self.len -= 1;
        Some(op)
    }

    /// Takes `op` out. False if it is not here.
    pub(super) fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) -> bool {
        let stripe = self.stripe(op);
        let Some(head) = self.heads.get_mut(stripe) else {
            return false;
        };
        let next = slab[op].list_next();
        if *head == Some(op) {
            *head = next;
        } else {
            let mut at = *head;
            loop {
                let Some(before) = at else { return false };
                at = slab[before].list_next();
                if at == Some(op) {
                    slab[before].set_list_next(next);
                    break;
                }
            }
        }
        slab[op].set_list_next(None);
        self.len -= 1;
        if self.len == 0 {
            *self = Self::default();
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn heap_bytes(&self) -> usize {
        if self.heads.spilled() {
            self.heads.capacity() * size_of::<Option<OpIndex>>()
        } else {
            0
        }
    }

    fn link(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let stripe = self.stripe(op);
        slab[op].set_list_next(self.heads[stripe]);
        self.heads[stripe] = Some(op);
    }

    fn deal_out(&mut self, slab: &mut OperationSlab) {
        let grown = self.heads.len() << STRIPE_GROWTH_BITS;
        let old = std::mem::take(&mut self.heads);
        self.heads.reserve_exact(grown);
        self.heads.resize(grown, None);
        self.stripe_bits += STRIPE_GROWTH_BITS;
        for head in old {
            let mut next = head;
            while let Some(op) = next {
                next = slab[op].list_next();
                self.link(slab, op);
            }
        }
    }

    /// Fibonacci hashing: operations queued in turn, and every nth of them, spread evenly.
    fn stripe(&self, op: OpIndex) -> usize {
        let hash = OpIndex::raw(Some(op)).wrapping_mul(0x9e37_79b9);
        hash.checked_shr(u32::BITS - self.stripe_bits).unwrap_or(0) as usize
    }
}

/// What fits in place of a pointer and a capacity.
const STRIPES_MIN: usize = 4;
const STRIPE_LEN_MAX: usize = 64;
const STRIPE_GROWTH_BITS: u32 = 2;
