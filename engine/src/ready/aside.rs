//! Operations that were looked at and must wait for what many wait for.

use super::op_list::{Ends, walk};
use crate::operation_slab::{OpIndex, OperationSlab};

/// Lists of operations by number, each in the order pushed. Which list an operation is in is not
/// kept with it: there are few lists, and only an end of one asks for it.
#[derive(Debug, Default)]
pub struct Aside {
    lists: Vec<Ends>,
    len: usize,
}

impl Aside {
    /// Nothing aside.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `op` at the end of a list.
    pub fn push(&mut self, slab: &mut OperationSlab, list: usize, op: OpIndex) {
        if self.lists.len() <= list {
            self.lists.resize(list + 1, Ends::default());
        }
        self.lists[list].push(slab, op);
        self.len += 1;
    }

    /// Takes the first one of a list out.
    pub fn pop_front(&mut self, slab: &mut OperationSlab, list: usize) -> Option<OpIndex> {
        let op = self.lists.get(list)?.head?;
        self.lists[list].remove(slab, op);
        self.len -= 1;
        Some(op)
    }

    /// Takes `op` out, which must be in one of the lists.
    ///
    /// # Panics
    /// If `op` is first or last of a list elsewhere.
    pub fn remove(&mut self, slab: &mut OperationSlab, op: OpIndex) {
        let at_an_end = slab[op].list_prev().is_none() || slab[op].list_next().is_none();
        let holds = |ends: &Ends| ends.head == Some(op) || ends.tail == Some(op);
        // Within a list, the neighbours are all that changes: any list will do.
        let list = if at_an_end {
            self.lists.iter().position(holds)
        } else {
            Some(0)
        };
        self.lists[list.expect("not aside")].remove(slab, op);
        self.len -= 1;
    }

    /// The list that `op` is in, and how many are before it; `None` beyond `count_max`.
    pub fn place_of(
        &self,
        slab: &OperationSlab,
        op: OpIndex,
        count_max: usize,
    ) -> Option<(usize, usize)> {
        let back = std::iter::successors(Some(op), |&at| slab[at].list_prev());
        let ahead = back.take(count_max).enumerate();
        let (ahead, first) = ahead.last()?;
        let list = self.lists.iter().position(|ends| ends.head == Some(first));
        Some((list?, ahead))
    }

    /// Whether a list has nothing in it.
    pub fn is_empty_at(&self, list: usize) -> bool {
        self.lists.get(list).is_none_or(|ends| ends.head.is_none())
    }

    /// Whether nothing is in any list.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Operations in all lists.
    pub fn len(&self) -> usize {
        self.len
    }

    /// All of a list, in the order pushed.
    pub fn iter<'s>(
        &self,
        slab: &'s OperationSlab,
        list: usize,
    ) -> impl Iterator<Item = OpIndex> + use<'s> {
        walk(slab, self.lists.get(list).and_then(|ends| ends.head))
    }
}
