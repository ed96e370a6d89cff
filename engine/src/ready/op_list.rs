//! A list of operations through their own links.

use crate::operation_slab::{OpIndex, OpState, OperationSlab, Position, Target};

/// A doubly linked list through the operations themselves: paused operations of an account, dead
/// letters. An operation is in one list, ready queue or timer queue at a time.
#[derive(Debug, Default)]
pub struct OpList {
    ends: Ends,
    len: usize,
}

/// Where a walk over a list in steps goes on. It holds on to no memory: what left the list in
/// between may make it stale, never wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListCursor {
    op: OpIndex,
    position: Position,
    target: Target,
    state: OpState,
}

impl OpList {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `op` at the end.
    pub fn push(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        self.ends.push(slab, op);
        self.len += 1;
    }

    /// Takes `op` out, which must be in this list.
    pub fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        self.ends.remove(slab, op);
        self.len -= 1;
    }

    /// Takes the first one out.
    pub fn pop_front(&mut self, slab: &mut OperationSlab) -> Option<OpIndex> {
        let op = self.ends.head?;
        self.remove(slab, op);
        Some(op)
    }

    /// All, in the order pushed.
    pub fn iter<'s>(&self, slab: &'s OperationSlab) -> impl Iterator<Item = OpIndex> + use<'s> {
        walk(slab, self.ends.head)
    }

    /// Where to go on after `op` of this list.
    pub fn cursor(&self, slab: &OperationSlab, op: OpIndex) -> ListCursor {
        let (position, target) = (slab[op].position(), slab[op].target());
        ListCursor {
            op,
            position,
            target,
            state: slab[op].state(),
        }
    }

    /// What follows the cursor's operation; `None` if that one is gone or in another state, so that
    /// the walk has to start over. An operation is known by its event, target and state: a list holds
    /// operations of one state.
    pub fn resume<'s>(
        &self,
        slab: &'s OperationSlab,
        cursor: ListCursor,
    ) -> Option<impl Iterator<Item = OpIndex> + use<'s>> {
        let there = slab.contains(cursor.op) && self.cursor(slab, cursor.op) == cursor;
        there.then(|| walk(slab, slab[cursor.op].list_next()))
    }

    /// Operations in the list.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A list that does not count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ends {
    pub(super) head: Option<OpIndex>,
    pub(super) tail: Option<OpIndex>,
}

impl Ends {
    pub(super) fn push(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        debug_assert!(slab[op].list_prev().is_none() && slab[op].list_next().is_none());
        slab[op].set_list_prev(self.tail);
        match self.tail {
            Some(tail) => slab[tail].set_list_next(Some(op)),
            None => self.head = Some(op),
        }
        self.tail = Some(op);
    }

    pub(super) fn push_front(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        debug_assert!(slab[op].list_prev().is_none() && slab[op].list_next().is_none());
        slab[op].set_list_next(self.head);
        match self.head {
            Some(head) => slab[head].set_list_prev(Some(op)),
            None => self.tail = Some(op),
        }
        self.head = Some(op);
    }

    pub(super) fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let (prev, next) = (slab[op].list_prev(), slab[op].list_next());
        match prev {
            Some(prev) => slab[prev].set_list_next(next),
            None => {
                assert_eq!(self.head, Some(op), "not in this list");
                self.head = next;
            }
        }
        match next {
            Some(next) => slab[next].set_list_prev(prev),
            None => {
                assert_eq!(self.tail, Some(op), "not in this list");
                self.tail = prev;
            }
        }
        slab[op].set_list_prev(None);
        slab[op].set_list_next(None);
    }
}

pub(super) fn walk(slab: &OperationSlab, from: Option<OpIndex>) -> impl Iterator<Item = OpIndex> {
    let mut next = from;
    std::iter::from_fn(move || {
        let op = next?;
        next = slab[op].list_next();
        Some(op)
    })
}
