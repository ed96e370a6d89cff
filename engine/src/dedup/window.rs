//! Entries in the order of arrival.

use std::collections::VecDeque;

use super::taken::PackedEntry;

/// A queue in chunks, so that it neither doubles by copying nor keeps memory that it no longer needs.
/// Every entry has a position that stays the same: how many were pushed before it.
#[derive(Debug)]
pub(super) struct Window {
    /// All full but the last; entries before `first` in the first are done with.
    chunks: VecDeque<Vec<PackedEntry>>,
    first: u64,
    next: u64,
}

impl Window {
    /// Entries a chunk: 16 KiB, little even for 64 stripes that are nearly empty.
    const CHUNK_ENTRIES: u64 = 512;

    pub(super) fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            first: 0,
            next: 0,
        }
    }

    pub(super) fn push(&mut self, entry: PackedEntry) -> u64 {
        let position = self.next;
        if position.is_multiple_of(Self::CHUNK_ENTRIES) {
            self.chunks
                .push_back(Vec::with_capacity(Self::CHUNK_ENTRIES as usize));
        }
        let chunk = self
            .chunks
            .back_mut()
            .expect("pushed at the chunk's first position");
        chunk.push(entry);
        self.next += 1;
        position
    }

    pub(super) fn pop_front(&mut self) -> Option<(u64, PackedEntry)> {
        let position = self.first;
        let entry = self.front()?.clone();
        self.first += 1;
        if self.first.is_multiple_of(Self::CHUNK_ENTRIES) {
            self.chunks.pop_front();
            if self.chunks.len() < self.chunks.capacity() / 4 {
                self.chunks.shrink_to(self.chunks.capacity() / 2);
            }
        }
        Some((position, entry))
    }

    pub(super) fn front(&self) -> Option<&PackedEntry> {
        (self.len() > 0).then(|| self.at(self.first))
    }

    pub(super) fn at(&self, position: u64) -> &PackedEntry {
        let (chunk, offset) = self.split(position);
        &self.chunks[chunk][offset]
    }

    pub(super) fn at_mut(&mut self, position: u64) -> &mut PackedEntry {
        let (chunk, offset) = self.split(position);
        &mut self.chunks[chunk][offset]
    }

    pub(super) fn len(&self) -> usize {
        (self.next - self.first) as usize
    }

    /// The position of an entry in the window whose low `bits` are `low`: the window is not longer.
    pub(super) fn position(&self, low: u32, bits: u32) -> u64 {
        let mask = (1 << bits) - 1;
        self.first + (u64::from(low).wrapping_sub(self.first) & mask)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PackedEntry> {
        let done = (self.first % Self::CHUNK_ENTRIES) as usize;
        self.chunks.iter().flatten().skip(done)
    }

    pub(super) fn positions(&self) -> impl Iterator<Item = (u64, &PackedEntry)> {
        (self.first..).zip(self.iter())
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let chunk = Self::CHUNK_ENTRIES as usize * size_of::<PackedEntry>();
        self.chunks.len() * chunk + self.chunks.capacity() * size_of::<Vec<PackedEntry>>()
    }

    fn split(&self, position: u64) -> (usize, usize) {
        debug_assert!((self.first..self.next).contains(&position));
        let chunk = position / Self::CHUNK_ENTRIES - self.first / Self::CHUNK_ENTRIES;
        (chunk as usize, (position % Self::CHUNK_ENTRIES) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_found_again_by_its_low_bits() {
        let mut window = Window::new();
        for _ in 0..1_000 {
            window.push(PackedEntry::FORGOTTEN);
        }
        for _ in 0..900 {
            window.pop_front();
        }
        for position in 900..1_000 {
            let low = (position % 128) as u32;
            assert_eq!(window.position(low, 7), position);
        }
    }
}
