//! Reads of committed frames from segment files, through a few chunks in memory.
//!
//! Files are read through the page cache first: a backlog is read in the order of its records, which
//! is scattered over the log, and a read from the disk for each event would cost a hundred times as
//! much. Commits write past the page cache, so what it holds may be old. A frame that does not verify
//! is read again from the disk; only that counts.

use std::io;

use crate::frame::{FRAME_HEADER_BYTES, FrameFault, FrameHead, FrameKind};
use crate::log::table::SegmentEntry;
use crate::page::Pages;
use crate::storage::{Access, File, Storage};
use crate::{Lsn, SegmentNumber};

/// What a read takes at least: some tens of events, at about twice the cost of one.
const CHUNK_BYTES: u64 = 16 * 1024;

/// What a read takes when the one before ended where it begins: near the size from which an SSD's
/// throughput no longer grows.
const READ_AHEAD_BYTES: u64 = 16 * CHUNK_BYTES;

/// Open segment files per log; a sequential reader needs one.
const FILES_MAX: usize = 32;

pub(crate) struct ReadCache<S: Storage> {
    storage: S,
    files: Vec<OpenFile<S::File>>,
    chunks: Vec<Chunk>,
    chunks_max: usize,
    /// Orders uses, for eviction.
    clock: u64,
    /// Where the last chunk read from disk ended.
    last_end: Option<(SegmentNumber, u64)>,
}

struct OpenFile<F> {
    segment: SegmentNumber,
    source: Source,
    file: F,
    used_at: u64,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    PageCache,
    Disk,
}

impl Source {
    fn access(self) -> Access {
        match self {
            Source::PageCache => Access::ReadCached,
            Source::Disk => Access::Read,
        }
    }
}

struct Chunk {
    segment: SegmentNumber,
    start: u64,
    /// Bytes that were committed when the chunk was read; more may have been written since.
    filled: u64,
    used_at: u64,
    pages: Pages,
}

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum CacheError {
    Io(io::Error),
    Fault(FrameFault),
}

impl<S: Storage> ReadCache<S> {
    pub(crate) fn new(storage: S, bytes: usize) -> ReadCache<S> {
        let chunks_max = (bytes / READ_AHEAD_BYTES as usize).max(1);
        ReadCache {
            storage,
            files: Vec::new(),
            chunks: Vec::new(),
            chunks_max,
            clock: 0,
            last_end: None,
        }
    }

    /// Reads the frame at `lsn` in the segment, its payload into `out`.
    pub(crate) fn read(
        &mut self,
        segment: &SegmentEntry,
        lsn: Lsn,
        out: &mut Vec<u8>,
    ) -> Result<FrameKind, CacheError> {
        match self.read_from(Source::PageCache, segment, lsn, out) {
            Err(CacheError::Fault(_)) => {
                self.forget(segment.number);
                self.read_from(Source::Disk, segment, lsn, out)
            }
            read => read,
        }
    }

    fn read_from(
        &mut self,
        source: Source,
        segment: &SegmentEntry,
        lsn: Lsn,
        out: &mut Vec<u8>,
    ) -> Result<FrameKind, CacheError> {
        let mut offset = lsn.get() - segment.base.get();
        let end = segment.end - segment.base.get();
        let mut header = [0; FRAME_HEADER_BYTES];
        let mut have = 0;
        while have < header.len() {
            let bytes = self.bytes_at(source, segment.number, offset, end)?;
            let take = bytes.len().min(header.len() - have);
            header[have..have + take].copy_from_slice(&bytes[..take]);
            have += take;
            offset += take as u64;
        }
        let head = FrameHead::parse(&header).map_err(CacheError::Fault)?;
        out.clear();
        // The length is bounded by the format, and by what the segment holds.
        if head.payload_bytes as u64 > end - offset {
            return Err(CacheError::Fault(FrameFault::Cut));
        }
        out.reserve(head.payload_bytes);
        while out.len() < head.payload_bytes {
            let bytes = self.bytes_at(source, segment.number, offset, end)?;
            let take = bytes.len().min(head.payload_bytes - out.len());
            out.extend_from_slice(&bytes[..take]);
            offset += take as u64;
        }
        head.verify(lsn, out).map_err(CacheError::Fault)?;
        Ok(head.kind)
    }

    /// Drops what is held of a segment.
    pub(crate) fn forget(&mut self, segment: SegmentNumber) {
        self.files.retain(|file| file.segment != segment);
        self.chunks.retain(|chunk| chunk.segment != segment);
    }

    /// At least one byte at `offset`, none behind `end`.
    fn bytes_at(
        &mut self,
        source: Source,
        segment: SegmentNumber,
        offset: u64,
        end: u64,
    ) -> Result<&[u8], CacheError> {
        if offset >= end {
            return Err(CacheError::Fault(FrameFault::Cut));
        }
        self.clock += 1;
        let hit = self.chunks.iter().position(|chunk| {
            chunk.segment == segment && (chunk.start..chunk.start + chunk.filled).contains(&offset)
        });
        let at = match hit {
            Some(at) => at,
            None => self
                .load(source, segment, offset, end)
                .map_err(CacheError::Io)?,
        };
        let clock = self.clock;
        let chunk = &mut self.chunks[at];
        chunk.used_at = clock;
        let start = (offset - chunk.start) as usize;
        let filled = (chunk.filled as usize).min((end - chunk.start) as usize);
        Ok(&chunk.pages.as_bytes()[start..filled])
    }

    fn load(
        &mut self,
        source: Source,
        segment: SegmentNumber,
        offset: u64,
        end: u64,
    ) -> io::Result<usize> {
        let start = offset - offset % CHUNK_BYTES;
        let sequential = self.last_end == Some((segment, start));
        let wanted = if sequential {
            READ_AHEAD_BYTES
        } else {
            CHUNK_BYTES
        };
        let at = self.free_chunk(segment, start);
        self.open_file(source, segment)?;
        let is_it = |file: &&OpenFile<S::File>| file.segment == segment && file.source == source;
        let file = self.files.iter().find(is_it);
        let file = &file.expect("opened just now").file;
        let chunk = &mut self.chunks[at];
        chunk.filled = 0;
        let read = file.read(start, &mut chunk.pages.as_bytes_mut()[..wanted as usize])? as u64;
        if start + read <= offset {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        chunk.segment = segment;
        chunk.start = start;
        chunk.filled = read.min(end - start);
        self.last_end = Some((segment, start + wanted));
        Ok(at)
    }

    /// The chunk that held this place before, an unused one, or the one not used for longest.
    fn free_chunk(&mut self, segment: SegmentNumber, start: u64) -> usize {
        let same = |chunk: &Chunk| chunk.segment == segment && chunk.start == start;
        if let Some(at) = self.chunks.iter().position(same) {
            return at;
        }
        if self.chunks.len() < self.chunks_max {
            let pages = Pages::zeroed(READ_AHEAD_BYTES as usize);
            self.chunks.push(Chunk {
                segment,
                start,
                filled: 0,
                used_at: 0,
                pages,
            });
            return self.chunks.len() - 1;
        }
        let oldest = self
            .chunks
            .iter()
            .enumerate()
            .min_by_key(|(_, chunk)| chunk.used_at);
        oldest.map_or(0, |(at, _)| at)
    }

    fn open_file(&mut self, source: Source, segment: SegmentNumber) -> io::Result<()> {
        let clock = self.clock;
        let is_it =
            |file: &&mut OpenFile<S::File>| file.segment == segment && file.source == source;
        if let Some(open) = self.files.iter_mut().find(is_it) {
            open.used_at = clock;
            return Ok(());
        }
        let file = self.storage.open(&segment.file_name(), source.access())?;
        let open = OpenFile {
            segment,
            source,
            file,
            used_at: clock,
        };
        if self.files.len() < FILES_MAX {
            self.files.push(open);
        } else if let Some(oldest) = self.files.iter_mut().min_by_key(|file| file.used_at) {
            *oldest = open;
        }
        Ok(())
    }
}
