//! What an account may call next, best first.

mod aside;
mod op_list;

pub use aside::Aside;
use op_list::Ends;
pub use op_list::{ListCursor, OpList};

use crate::operation_slab::{OpClass, OpIndex, OperationSlab, Priority};

/// The ready operations of one account: by priority, then creates before updates before deletes, then
/// in the order they came. Every step takes constant time.
///
/// An operation is the front of its lane and queued at the lane's best priority, which is the
/// caller's to pass, since it may be better than the operation's own.
#[derive(Debug)]
pub struct ReadyQueue {
    lists: [Ends; LISTS],
    /// Bit n: list n is not empty.
    taken: u32,
    len: usize,
}

const LISTS: usize = Priority::WORST.get() as usize * OpClass::ALL.len();
const _: () = assert!(LISTS <= u32::BITS as usize);

impl ReadyQueue {
    /// An empty queue.
    pub fn new() -> Self {
        Self {
            lists: [Ends::default(); LISTS],
            taken: 0,
            len: 0,
        }
    }

    /// Queues `op` behind the others of this priority and its class.
    pub fn push(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        let list = list_of(priority, slab[op].class());
        self.lists[list].push(slab, op);
        self.taken |= 1 << list;
        self.len += 1;
    }

    /// Queues `op` before the others of this priority and its class: it was there before.
    pub fn push_front(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        let list = list_of(priority, slab[op].class());
        self.lists[list].push_front(slab, op);
        self.taken |= 1 << list;
        self.len += 1;
    }

    /// Takes the best one out.
    pub fn pop(&mut self, slab: &mut OperationSlab) -> Option<OpIndex> {
        let op = self.peek()?;
        self.remove_from(slab, op, self.taken.trailing_zeros() as usize);
        Some(op)
    }

    /// Takes out the first of a list whose event is the oldest in the log.
    pub fn pop_oldest(&mut self, slab: &mut OperationSlab) -> Option<OpIndex> {
        let heads = self.lists.iter().enumerate().filter_map(|(list, ends)| {
            let head = ends.head?;
            Some((slab[head].position().offset(), list, head))
        });
        let (_, list, op) = heads.min()?;
        self.remove_from(slab, op, list);
        Some(op)
    }

    /// Takes `op` out, which must be queued here.
    ///
    /// # Panics
    /// If `op` is first or last of a list elsewhere.
    pub fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let alone = slab[op].list_prev().is_none() || slab[op].list_next().is_none();
        let holds = |ends: &Ends| ends.head == Some(op) || ends.tail == Some(op);
        // Within a list, the neighbours are all that changes: any list will do.
        let list = if alone {
            self.lists.iter().position(holds)
        } else {
            Some(0)
        };
        self.remove_from(slab, op, list.expect("not in this queue"));
    }

    /// Queues `op` anew at a better priority, since a better operation joined its lane.
    pub fn raise(&mut self, slab: &mut OperationSlab, op: OpIndex, priority: Priority) {
        self.remove(slab, op);
        self.push(slab, op, priority);
    }

    /// Puts each list into the order of the log. A recovery fills the queue record by record; read
    /// in that order, every event would cost a read from the disk of its own.
    pub fn sort_by_position(&mut self, slab: &mut OperationSlab) {
        let mut ops: Vec<(u64, OpIndex)> = Vec::new();
        for ends in &mut self.lists {
            ops.clear();
            while let Some(op) = ends.head {
                ends.remove(slab, op);
                ops.push((slab[op].position().offset(), op));
            }
            ops.sort_unstable_by_key(|&(position, _)| position);
            for &(_, op) in &ops {
                ends.push(slab, op);
            }
        }
    }

    /// The best one.
    pub fn peek(&self) -> Option<OpIndex> {
        let list = self.lists.get(self.taken.trailing_zeros() as usize)?;
        list.head
    }

    /// Operations that are taken out before `op`, which is queued here; at most `count_max` are
    /// counted.
    pub fn ahead_of(&self, slab: &OperationSlab, op: OpIndex, count_max: usize) -> usize {
        let mut ahead = 0;
        for ends in &self.lists {
            let mut next = ends.head;
            while let Some(at) = next {
                if at == op || ahead == count_max {
                    return ahead;
                }
                ahead += 1;
                next = slab[at].list_next();
            }
        }
        ahead
    }

    /// Operations queued at this priority or a better one; at most `count_max` are counted.
    pub fn count_to(&self, slab: &OperationSlab, priority: u8, count_max: usize) -> usize {
        let lists = usize::from(priority) * OpClass::ALL.len();
        if self.taken & ((1 << lists) - 1) == 0 {
            return 0;
        }
        let heads = self.lists[..lists].iter().map(|ends| ends.head);
        let all = heads.flat_map(|head| std::iter::successors(head, |&op| slab[op].list_next()));
        all.take(count_max).count()
    }

    /// Operations queued.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn remove_from(&mut self, slab: &mut OperationSlab, op: OpIndex, list: usize) {
        self.lists[list].remove(slab, op);
        if self.lists[list].head.is_none() {
            self.taken &= !(1 << list);
        }
        self.len -= 1;
    }
}

impl Default for ReadyQueue {
    fn default() -> Self {
        Self::new()
    }
}

fn list_of(priority: Priority, class: OpClass) -> usize {
    usize::from(priority.get() - 1) * OpClass::ALL.len() + class as usize
}
