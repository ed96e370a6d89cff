//! The lanes of a record: its operations for each target, in the order of acceptance.
//!
//! A lane is a circular list through `next`, known by its tail, whose `next` is the head. The record
//! holds the tail of its first lane; each tail's `next_lane` leads to the tail of the record's lane
//! for another target. The head keeps the best priority in its lane, since that is what the record
//! runs at. So a lane takes no memory besides its operations.
//!
//! ```text
//! record ─► c1 (tail, target 1) ──next_lane──► b2 (tail, target 2)
//!           └► a1 ─► b1 ─► c1                  └► a2 ─► b2
//! ```
//!
//! Finding a lane passes the record's targets, of which there are few.

use crate::operation_slab::{OpIndex, OperationSlab, Priority, Target};

/// One lane, until it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    tail: OpIndex,
}

impl Lane {
    /// The lane's target.
    pub fn target(self, slab: &OperationSlab) -> Target {
        slab[self.tail].target()
    }

    /// The oldest operation: the only one that may run.
    pub fn front(self, slab: &OperationSlab) -> OpIndex {
        head(slab, self.tail)
    }

    /// The newest operation.
    pub fn back(self) -> OpIndex {
        self.tail
    }

    /// The best priority of its operations, which the record runs at.
    pub fn best_priority(self, slab: &OperationSlab) -> Priority {
        slab[self.front(slab)].lane_best()
    }

    /// The operations, oldest first.
    pub fn iter(self, slab: &OperationSlab) -> impl Iterator<Item = OpIndex> {
        let mut next = Some(self.front(slab));
        std::iter::from_fn(move || {
            let op = next?;
            next = slab[op].next().filter(|_| op != self.tail);
            Some(op)
        })
    }

    /// The operation whose sequence ends in `sequence_low`.
    pub fn find(self, slab: &OperationSlab, sequence_low: u32) -> Option<OpIndex> {
        self.iter(slab)
            .find(|op| slab[*op].sequence_low() == sequence_low)
    }
}

/// The lanes of a record, one a target.
pub fn lanes(slab: &OperationSlab, first: Option<OpIndex>) -> impl Iterator<Item = Lane> {
    let mut next = first;
    std::iter::from_fn(move || {
        let tail = next?;
        next = slab[tail].next_lane();
        Some(Lane { tail })
    })
}

/// The lane of a record for `target`.
pub fn of(slab: &OperationSlab, first: Option<OpIndex>, target: Target) -> Option<Lane> {
    lanes(slab, first).find(|lane| lane.target(slab) == target)
}

/// The oldest operation of a record for `target`.
pub fn front(slab: &OperationSlab, first: Option<OpIndex>, target: Target) -> Option<OpIndex> {
    of(slab, first, target).map(|lane| lane.front(slab))
}

/// Puts an operation behind all others of its record and target.
pub fn push_back(slab: &mut OperationSlab, first: &mut Option<OpIndex>, op: OpIndex) {
    debug_assert!(slab[op].next().is_none(), "already in a lane");
    let priority = slab[op].priority();
    let Some((before, tail)) = locate(slab, *first, slab[op].target()) else {
        slab[op].set_next(Some(op));
        slab[op].set_next_lane(*first);
        slab[op].set_lane_best(Some(priority));
        *first = Some(op);
        return;
    };
    let head = head(slab, tail);
    let best = slab[head].lane_best().min(priority);
    slab[head].set_lane_best(Some(best));
    slab[op].set_next(Some(head));
    slab[tail].set_next(Some(op));
    replace_tail(slab, first, before, tail, op);
}

/// Takes the oldest operation of a record for `target` out of its lane.
pub fn pop_front(
    slab: &mut OperationSlab,
    first: &mut Option<OpIndex>,
    target: Target,
) -> Option<OpIndex> {
    let (before, tail) = locate(slab, *first, target)?;
    let head = head(slab, tail);
    if head == tail {
        unlink_lane(slab, first, before, tail);
    } else {
        let second = successor(slab, head);
        let best = slab[head].lane_best();
        slab[tail].set_next(Some(second));
        keep_best_after_leaving(slab, tail, best, slab[head].priority());
    }
    leave(slab, head);
    Some(head)
}

/// Takes `op` out of its lane, wherever it stands. False if it is not in a lane of this record.
pub fn remove(slab: &mut OperationSlab, first: &mut Option<OpIndex>, op: OpIndex) -> bool {
    let target = slab[op].target();
    let Some((before, tail)) = locate(slab, *first, target) else {
        return false;
    };
    let head = head(slab, tail);
    if op == head {
        pop_front(slab, first, target);
        return true;
    }
    let lane = Lane { tail };
    let Some(previous) = lane
        .iter(slab)
        .find(|at| slab[*at].next() == Some(op) && *at != tail)
    else {
        return false;
    };
    let next = successor(slab, op);
    slab[previous].set_next(Some(next));
    if op == tail {
        replace_tail(slab, first, before, tail, previous);
    }
    let tail = if op == tail { previous } else { tail };
    let best = slab[head].lane_best();
    keep_best_after_leaving(slab, tail, best, slab[op].priority());
    leave(slab, op);
    true
}

/// Sets the head's best priority after an operation of `priority` left a lane whose best was `best`.
///
/// The walk ends at the first operation that is as good. An operation passed by such a walk is passed
/// again for the same `best` only if something better than its own arrives behind it, and that leaves
/// after it: at most one pass for each of the ten priorities, whatever the length of the lane, as long
/// as operations leave at the front.
fn keep_best_after_leaving(
    slab: &mut OperationSlab,
    tail: OpIndex,
    best: Priority,
    priority: Priority,
) {
    let lane = Lane { tail };
    let mut kept = best;
    if priority == best {
        kept = Priority::WORST;
        for op in lane.iter(slab) {
            kept = kept.min(slab[op].priority());
            if kept == best {
                break;
            }
        }
    }
    let head = lane.front(slab);
    slab[head].set_lane_best(Some(kept));
}

/// The tail of the lane for `target`, and the tail of the lane before it.
fn locate(
    slab: &OperationSlab,
    first: Option<OpIndex>,
    target: Target,
) -> Option<(Option<OpIndex>, OpIndex)> {
    let mut before = None;
    for lane in lanes(slab, first) {
        if lane.target(slab) == target {
            return Some((before, lane.tail));
        }
        before = Some(lane.tail);
    }
    None
}

fn head(slab: &OperationSlab, tail: OpIndex) -> OpIndex {
    successor(slab, tail)
}

fn successor(slab: &OperationSlab, op: OpIndex) -> OpIndex {
    slab[op]
        .next()
        .expect("an operation in a lane links to one, itself if it is alone")
}

/// Makes `tail` what stands for the lane of `old`.
fn replace_tail(
    slab: &mut OperationSlab,
    first: &mut Option<OpIndex>,
    before: Option<OpIndex>,
    old: OpIndex,
    tail: OpIndex,
) {
    let next_lane = slab[old].next_lane();
    slab[tail].set_next_lane(next_lane);
    match before {
        Some(before) => slab[before].set_next_lane(Some(tail)),
        None => *first = Some(tail),
    }
}

fn unlink_lane(
    slab: &mut OperationSlab,
    first: &mut Option<OpIndex>,
    before: Option<OpIndex>,
    tail: OpIndex,
) {
    let next_lane = slab[tail].next_lane();
    match before {
        Some(before) => slab[before].set_next_lane(next_lane),
        None => *first = next_lane,
    }
}

fn leave(slab: &mut OperationSlab, op: OpIndex) {
    slab[op].set_next(None);
    slab[op].set_next_lane(None);
    slab[op].set_lane_best(None);
}
