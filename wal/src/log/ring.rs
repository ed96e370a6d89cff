//! The memory of the log's newest bytes, shared with the writer without copying.
//!
//! The shard writes into the ring, lends one part of it at a time to the writer, and may read
//! but not write that part until it is given back.

use std::cell::UnsafeCell;
use std::fmt;
use std::ops::Deref;
use std::ops::Range;
use std::slice;
use std::sync::Arc;

use zerocopy::FromZeros;

use crate::page::{PAGE_BYTES, Page};

pub(crate) struct Ring {
    memory: Arc<Memory>,
    lent: Option<Range<usize>>,
}

/// A part of the ring, page aligned, that nobody changes while this exists.
pub(crate) struct Lent {
    memory: Arc<Memory>,
    range: Range<usize>,
}

struct Memory(Box<[UnsafeCell<Page>]>);

// SAFETY: `Ring` alone writes, through `&mut self`, and never inside the range lent; `Lent` only
// reads its own range. No byte is written while another thread can read it.
unsafe impl Sync for Memory {}
// SAFETY: the pages are plain bytes.
unsafe impl Send for Memory {}

impl Memory {
    fn base(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.0.as_ptr()).cast()
    }

    fn bytes(&self) -> usize {
        self.0.len() * PAGE_BYTES
    }
}

impl Ring {
    pub(crate) fn new(bytes: usize) -> Ring {
        let pages = bytes.div_ceil(PAGE_BYTES);
        let memory = <[UnsafeCell<Page>]>::new_box_zeroed_with_elems(pages);
        let memory = Memory(memory.expect("the ring's bytes, a setting, fit memory"));
        Ring {
            memory: Arc::new(memory),
            lent: None,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    pub(crate) fn slice(&self, range: Range<usize>) -> &[u8] {
        assert!(
            range.start <= range.end && range.end <= self.bytes(),
            "within the ring"
        );
        // SAFETY: the range lies in the allocation; writes need `&mut self`, and the writer
        // holding a lent part only reads.
        unsafe { slice::from_raw_parts(self.memory.base().add(range.start), range.len()) }
    }

    pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> &mut [u8] {
        assert!(
            range.start <= range.end && range.end <= self.bytes(),
            "within the ring"
        );
        let lent = self.lent.as_ref();
        assert!(
            lent.is_none_or(|lent| range.end <= lent.start || lent.end <= range.start),
            "what the writer has is not changed"
        );
        // SAFETY: the range lies in the allocation and outside the part that is lent; `&mut
        // self` keeps every other slice of this ring away.
        unsafe { slice::from_raw_parts_mut(self.memory.base().add(range.start), range.len()) }
    }

    /// Lends a part; one at a time.
    pub(crate) fn lend(&mut self, range: Range<usize>) -> Lent {
        assert!(self.lent.is_none(), "one part is lent at a time");
        assert!(
            range.start <= range.end && range.end <= self.bytes(),
            "within the ring"
        );
        assert!(
            range.start.is_multiple_of(PAGE_BYTES),
            "blocks are page aligned"
        );
        self.lent = Some(range.clone());
        Lent {
            memory: Arc::clone(&self.memory),
            range,
        }
    }

    /// Takes back the part lent. False, and nothing changes, when it is another ring's.
    pub(crate) fn give_back(&mut self, part: Lent) -> bool {
        // By value: nobody reads the part once the ring may write to it again.
        let ours =
            Arc::ptr_eq(&self.memory, &part.memory) && self.lent.as_ref() == Some(&part.range);
        if ours {
            self.lent = None;
        }
        ours
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range was checked when it was lent, and the ring does not write to it
        // before it is given back.
        unsafe { slice::from_raw_parts(self.memory.base().add(self.range.start), self.range.len()) }
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_writer_reads_its_part_while_the_shard_fills_the_next() {
        let mut ring = Ring::new(3 * PAGE_BYTES);
        for round in 0..50u8 {
            ring.slice_mut(0..PAGE_BYTES).fill(round);
            let lent = ring.lend(0..PAGE_BYTES);
            let writer = thread::spawn(move || {
                assert!(lent.iter().all(|byte| *byte == round));
                lent
            });
            ring.slice_mut(PAGE_BYTES..2 * PAGE_BYTES).fill(round + 1);
            assert!(ring.slice(0..PAGE_BYTES).iter().all(|byte| *byte == round));
            assert!(ring.give_back(writer.join().unwrap()));
        }
    }

    #[test]
    #[should_panic(expected = "what the writer has is not changed")]
    fn the_part_lent_cannot_be_changed() {
        let mut ring = Ring::new(2 * PAGE_BYTES);
        let _lent = ring.lend(0..PAGE_BYTES);
        ring.slice_mut(PAGE_BYTES - 1..PAGE_BYTES);
    }

    #[test]
    fn a_part_of_another_ring_is_not_taken_back() {
        let mut ring = Ring::new(PAGE_BYTES);
        let mut other = Ring::new(PAGE_BYTES);
        let _ours = ring.lend(0..PAGE_BYTES);
        let theirs = other.lend(0..PAGE_BYTES);
        assert!(!ring.give_back(theirs));
    }
}
