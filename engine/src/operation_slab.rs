//! The queued operations of a shard: 32 bytes each, in chunks that come and go.

mod operation;
mod position;

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut};

pub use operation::{
    Flow, NewOperation, OPERATION_BYTES, OpClass, OpFlags, OpIndex, OpState, Operation, Priority,
    SORTED_LISTS, Target,
};
pub use position::Position;

/// Holds operations at indices that do not move. It grows and shrinks by chunks, so that a backlog
/// neither doubles by copying nor keeps its memory once it is worked off.
#[derive(Debug, Default)]
pub struct OperationSlab {
    chunks: Vec<Chunk>,
    /// Chunks, present or given back, that can take an operation.
    roomy: BTreeSet<u32>,
    /// A present chunk without operations, kept so that a backlog at a chunk's edge does not allocate
    /// at every turn.
    spare: Option<u32>,
    len: usize,
}

#[derive(Debug, Default)]
struct Chunk {
    /// Empty once given back.
    nodes: Box<[Operation]>,
    /// Free nodes within the chunk: offset + 1, 0 ends the list.
    free_head: u32,
    used: u32,
}

impl OperationSlab {
    /// Operations a chunk: 128 KiB, small beside any backlog worth compacting and large beside the
    /// 40 bytes that describe a chunk.
    pub const CHUNK_OPERATIONS: usize = 4096;

    /// Operations that indices can tell apart. Memory (`[memory] max`) ends far below.
    pub const OPERATIONS_MAX: usize =
        u32::MAX as usize / Self::CHUNK_OPERATIONS * Self::CHUNK_OPERATIONS;

    /// An empty slab without chunks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an operation in, waiting and in no lane or list.
    ///
    /// # Panics
    /// Beyond `OPERATIONS_MAX`.
    pub fn insert(&mut self, new: NewOperation) -> OpIndex {
        // The lowest chunk with room: the highest ones run empty first and can be given back.
        let at = self
            .roomy
            .first()
            .copied()
            .unwrap_or_else(|| self.add_chunk());
        let chunk = &mut self.chunks[at as usize];
        if chunk.nodes.is_empty() {
            *chunk = Chunk::allocate();
        }
        if self.spare == Some(at) {
            self.spare = None;
        }
        let offset = chunk.free_head - 1;
        let node = &mut chunk.nodes[offset as usize];
        chunk.free_head = node.next_free();
        *node = Operation::new(new);
        chunk.used += 1;
        if chunk.free_head == 0 {
            self.roomy.remove(&at);
        }
        self.len += 1;
        OpIndex::from_raw(at * Self::CHUNK_OPERATIONS as u32 + offset + 1).expect("counts from 1")
    }

    /// Lets go of an operation, which is in no lane, list or timer queue any more.
    ///
    /// # Panics
    /// If it is not there.
    pub fn remove(&mut self, op: OpIndex) {
        let (at, offset) = split(op);
        let chunk = &mut self.chunks[at];
        let node = &mut chunk.nodes[offset];
        assert!(!node.is_free(), "removed twice");
        *node = Operation::free(chunk.free_head);
        chunk.free_head = offset as u32 + 1;
        chunk.used -= 1;
        self.len -= 1;
        self.roomy.insert(at as u32);
        if chunk.used == 0 {
            self.keep_or_give_back(at as u32);
        }
    }

    /// Operations held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `op` holds an operation, not necessarily the one it held before.
    pub fn contains(&self, op: OpIndex) -> bool {
        let (at, offset) = split(op);
        let node = self
            .chunks
            .get(at)
            .and_then(|chunk| chunk.nodes.get(offset));
        node.is_some_and(|node| !node.is_free())
    }

    /// All operations, by index.
    pub fn iter(&self) -> impl Iterator<Item = (OpIndex, &Operation)> {
        let nodes = self.chunks.iter().enumerate().flat_map(|(at, chunk)| {
            let first = (at * Self::CHUNK_OPERATIONS) as u32 + 1;
            (first..)
                .map_while(OpIndex::from_raw)
                .zip(chunk.nodes.iter())
        });
        nodes.filter(|(_, node)| !node.is_free())
    }

    /// Heap memory held, free nodes included. Passes all chunks.
    pub fn memory_bytes(&self) -> usize {
        let nodes: usize = self.chunks.iter().map(|chunk| chunk.nodes.len()).sum();
        nodes * OPERATION_BYTES + self.chunks.capacity() * size_of::<Chunk>()
    }

    fn add_chunk(&mut self) -> u32 {
        let at = self.chunks.len();
        assert!(
            at < Self::OPERATIONS_MAX / Self::CHUNK_OPERATIONS,
            "no index left"
        );
        self.chunks.push(Chunk::default());
        self.roomy.insert(at as u32);
        at as u32
    }

    /// Of two chunks without operations the lower one stays.
    fn keep_or_give_back(&mut self, empty: u32) {
        let Some(other) = self.spare else {
            self.spare = Some(empty);
            return;
        };
        self.spare = Some(empty.min(other));
        self.chunks[empty.max(other) as usize] = Chunk::default();
    }
}

impl Index<OpIndex> for OperationSlab {
    type Output = Operation;

    fn index(&self, op: OpIndex) -> &Operation {
        let (chunk, offset) = split(op);
        let node = &self.chunks[chunk].nodes[offset];
        debug_assert!(!node.is_free(), "{op:?} holds no operation");
        node
    }
}

impl IndexMut<OpIndex> for OperationSlab {
    fn index_mut(&mut self, op: OpIndex) -> &mut Operation {
        let (chunk, offset) = split(op);
        let node = &mut self.chunks[chunk].nodes[offset];
        debug_assert!(!node.is_free(), "{op:?} holds no operation");
        node
    }
}

impl Chunk {
    fn allocate() -> Self {
        let last = OperationSlab::CHUNK_OPERATIONS as u32;
        let links = (2..=last).chain([0]);
        Self {
            nodes: links.map(Operation::free).collect(),
            free_head: 1,
            used: 0,
        }
    }
}

fn split(op: OpIndex) -> (usize, usize) {
    let slot = op.slot();
    (
        slot / OperationSlab::CHUNK_OPERATIONS,
        slot % OperationSlab::CHUNK_OPERATIONS,
    )
}
