//! A shard's log: appends, what to commit next, what is durable, reads.

mod error;
mod handoff;
mod read_cache;
mod ring;
mod stage;
mod table;

use crate::block::{BlockHead, BlockKind, block_bytes};
use crate::frame::{FrameKind, frame_bytes};
use crate::options::LogOptions;
use crate::page::PAGE_BYTES;
use crate::salt::segment_salt;
use crate::scan::SegmentScan;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentHead};
use crate::space::{Space, Spare, SpareShelf};
use crate::storage::Storage;
use crate::watermark::Watermark;
use crate::{Lsn, SegmentNumber};
pub use error::{AppendError, LogPoisoned, ReadError, ReleaseError, WriteFailed};
pub use handoff::{Block, Committed};
use read_cache::{CacheError, ReadCache};
use stage::Stage;
pub use table::SegmentStat;
pub(crate) use table::{SegmentEntry, SegmentTable};

/// The log of one shard, owned by it. It does no write: [`Log::take_block`] hands out what the
/// [`Writer`](crate::Writer) commits, one block at a time.
pub struct Log<S: Storage> {
    storage: S,
    options: LogOptions,
    shelf: SpareShelf,
    stage: Stage,
    table: SegmentTable,
    reads: ReadCache<S>,
    /// The address behind the last committed block.
    durable: u64,
    /// What the medium is known to have; below `durable` when commits are not synced.
    synced: Lsn,
    /// Where the next block goes, when none is open.
    next_block: u64,
    next_seq: u64,
    /// The chain value of the last block taken.
    chain: u32,
    in_flight: Option<InFlight>,
    /// Room in prepared segments, as last seen on the shelf.
    spare_room: u64,
    seal_wanted: bool,
    /// The address behind the last seal.
    sealed_end: u64,
    /// Released, and not yet told to the writer.
    releases: Vec<SegmentNumber>,
    /// What the writer's watermark knows once `releases` arrived there.
    watermark: Watermark,
    /// The segment of the last committed block.
    active: SegmentNumber,
    space: Space,
    poisoned: bool,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    segment: SegmentNumber,
    end: u64,
    chain: u32,
    wall_ms: u64,
    seal: bool,
}

/// Who asks for room: new work, or the end of work already taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// New work; refused first.
    Intake,
    /// Outcomes and compaction; may use the reserve.
    Outcome,
}

/// Where recovery left off.
pub(crate) struct LogStart {
    pub(crate) table: SegmentTable,
    pub(crate) next_block: u64,
    pub(crate) next_seq: u64,
    pub(crate) chain: u32,
    pub(crate) sealed: bool,
    pub(crate) watermark: Watermark,
}

impl<S: Storage> Log<S> {
    pub(crate) fn new(
        storage: S,
        options: LogOptions,
        shelf: SpareShelf,
        start: LogStart,
    ) -> Log<S> {
        let spare_room = shelf.lock().room();
        let active = start.table.last().number;
        Log {
            stage: Stage::new(&options.limits),
            reads: ReadCache::new(storage.clone(), options.limits.read_cache_bytes),
            storage,
            options,
            shelf,
            table: start.table,
            durable: start.next_block,
            synced: Lsn::new(start.next_block),
            next_block: start.next_block,
            next_seq: start.next_seq,
            chain: start.chain,
            in_flight: None,
            spare_room,
            seal_wanted: false,
            sealed_end: if start.sealed { start.next_block } else { 0 },
            releases: Vec::new(),
            watermark: start.watermark,
            active,
            space: Space::Open,
            poisoned: false,
        }
    }

    /// Appends a frame made of `parts` and returns its position. It is durable once
    /// [`Log::durable`] lies above that.
    ///
    /// # Errors
    /// When there is no room for the class, now or on disk; when the payload is too large; when
    /// the log is poisoned. Nothing is appended then.
    pub fn append(
        &mut self,
        class: Class,
        kind: FrameKind,
        parts: &[&[u8]],
    ) -> Result<Lsn, AppendError> {
        let payload_bytes = parts.iter().map(|part| part.len()).sum();
        if payload_bytes > self.options.limits.payload_bytes_max {
            return Err(AppendError::TooLarge { payload_bytes });
        }
        if self.poisoned {
            return Err(AppendError::Poisoned);
        }
        let bytes = frame_bytes(payload_bytes);
        self.admit(class, bytes)?;
        if !self.stage.fits(bytes, self.table.last().limit()) {
            self.open_block(bytes)?;
        }
        Ok(self.stage.push(kind, payload_bytes, parts))
    }

    /// The next block for the writer: what was appended since the last, or a seal when one is
    /// due. None while a block is with the writer, or when there is nothing to do.
    pub fn take_block(&mut self, wall_ms: u64) -> Option<Block> {
        if self.poisoned || self.in_flight.is_some() {
            return None;
        }
        let mut kind = BlockKind::Frames;
        if self.stage.waiting().is_none() {
            self.seal_wanted &= self.sealed_end != self.next_block;
            // Releases travel with a block; without frames, with a seal.
            if !self.seal_wanted && self.releases.is_empty() {
                return None;
            }
            // Without room for a seal it stays due.
            self.open_block(0).ok()?;
            self.seal_wanted = false;
            kind = BlockKind::Seal;
        }
        let block = *self.stage.waiting()?;
        if self
            .stage
            .open_block()
            .is_some_and(|open| open.lsn == block.lsn)
        {
            self.close_block();
        }
        let (header, salt) = self.segment_header(block.segment);
        let head = BlockHead {
            kind,
            wall_ms: wall_ms.min((1 << 48) - 1),
            log: self.options.log,
            seq: self.next_seq,
            lsn: block.lsn,
            durable_lsn: self.synced,
            salt,
            used: block.used(),
            frames: block.frames,
            prev_crc: header.map_or(self.chain, |header| header.chain()),
        };
        let (bytes, chain) = self.stage.lend(&head);
        let end = block.end();
        self.next_seq += 1;
        self.chain = chain;
        let seal = kind == BlockKind::Seal;
        let in_flight = InFlight {
            segment: block.segment,
            end,
            chain,
            wall_ms: head.wall_ms,
            seal,
        };
        self.in_flight = Some(in_flight);
        let base = self.table.by_number(block.segment)?.base;
        Some(Block {
            bytes,
            segment: block.segment,
            offset: block.lsn.get() - base.get(),
            end: Lsn::new(end),
            seal,
            header,
            releases: std::mem::take(&mut self.releases),
        })
    }

    /// Takes the writer's answer; returns what is durable now.
    ///
    /// # Errors
    /// When the write failed, now or before: nothing more is acknowledged, and every later call
    /// is refused.
    ///
    /// # Panics
    /// When the block is not the one that this log handed out.
    pub fn on_committed(
        &mut self,
        answer: Result<Committed, WriteFailed>,
    ) -> Result<Lsn, LogPoisoned> {
        let committed = match answer {
            Ok(committed) if !self.poisoned => committed,
            _ => {
                self.poisoned = true;
                return Err(LogPoisoned);
            }
        };
        let done = self.in_flight.take().expect("a block is with the writer");
        assert!(
            self.stage.on_committed(committed.block.bytes),
            "the block is this log's"
        );
        assert!(done.end > self.durable, "commits go forward");
        self.durable = done.end;
        self.synced = self.synced.max(committed.synced);
        self.active = done.segment;
        if done.seal {
            self.sealed_end = done.end;
        }
        let entry = self
            .table
            .by_number_mut(done.segment)
            .expect("its segment is live");
        entry.end = done.end;
        entry.chain = done.chain;
        entry.last_wall_ms = done.wall_ms;
        if entry.first_wall_ms == 0 {
            entry.first_wall_ms = done.wall_ms;
        }
        Ok(Lsn::new(self.durable))
    }

    /// Asks for a seal: once nothing else waits, [`Log::take_block`] gives a block without
    /// frames, which says that all before it is durable. Due on a clean stop and within 50 ms
    /// of the last commit; a seal behind a seal is left out.
    pub fn seal(&mut self) {
        self.seal_wanted = true;
    }

    /// Gives up a sealed segment: nothing lives in it, and a checkpoint covers it. The writer
    /// deletes it with the next block.
    ///
    /// # Errors
    /// When the segment is not there to be released.
    pub fn release(&mut self, number: SegmentNumber) -> Result<(), ReleaseError> {
        if self.table.by_number(number).is_none() {
            return Err(ReleaseError::Unknown(number));
        }
        if number >= self.active {
            return Err(ReleaseError::NotSealed(number));
        }
        if !self.watermark.can_release(number) {
            return Err(ReleaseError::TooFarAhead(number));
        }
        self.watermark.last_segment = self.active;
        self.watermark.release(number);
        self.table.remove(number);
        self.reads.forget(number);
        self.releases.push(number);
        Ok(())
    }

    /// Reads the frame at `lsn` into `out`, durable or not, and returns its kind.
    ///
    /// # Errors
    /// When there is no frame, when it does not verify, when the disk refuses.
    pub fn read(&mut self, lsn: Lsn, out: &mut Vec<u8>) -> Result<FrameKind, ReadError> {
        let Some(segment) = self.table.by_lsn(lsn) else {
            return Err(ReadError::NoFrame { lsn });
        };
        if self.stage.start().is_some_and(|start| start <= lsn) {
            let Some(Ok(frame)) = self.stage.read(lsn) else {
                return Err(ReadError::NoFrame { lsn });
            };
            out.clear();
            out.extend_from_slice(frame.payload);
            return Ok(frame.kind);
        }
        let first = segment.base.get() + SEGMENT_HEADER_BYTES;
        if !(first..segment.end).contains(&lsn.get()) {
            return Err(ReadError::NoFrame { lsn });
        }
        self.reads.read(segment, lsn, out).map_err(|error| {
            let path = self.storage.path(&segment.number.file_name());
            match error {
                CacheError::Io(source) => ReadError::Io { path, source },
                CacheError::Fault(fault) => {
                    let offset = lsn.get() - segment.base.get();
                    ReadError::Damaged {
                        lsn,
                        path,
                        offset,
                        fault,
                    }
                }
            }
        })
    }

    /// Walks through a sealed segment's frames, for compaction; independent of this log from
    /// here on.
    ///
    /// # Errors
    /// [`ReadError::NoFrame`] when the segment is not live and sealed; when the disk refuses.
    pub fn scan(&self, number: SegmentNumber) -> Result<SegmentScan<S>, ReadError> {
        let entry = self
            .table
            .by_number(number)
            .filter(|_| number < self.active);
        let Some((entry, head)) = entry.and_then(|entry| Some((entry, entry.head?))) else {
            return Err(ReadError::NoFrame { lsn: Lsn::ZERO });
        };
        let path = self.storage.path(&number.file_name());
        SegmentScan::open(&self.storage, head, entry.end, entry.chain)
            .map_err(|source| ReadError::Io { path, source })
    }

    /// Every frame at a position below is durable.
    #[must_use]
    pub fn durable(&self) -> Lsn {
        Lsn::new(self.durable)
    }

    /// Every frame appended so far lies below. All is durable when [`Log::durable`] reaches it.
    #[must_use]
    pub fn end(&self) -> Lsn {
        Lsn::new(self.tail())
    }

    /// Every frame appended so far lies below, every later one at or above. Unlike
    /// [`Log::end`], which counts the padding of a block that still takes frames.
    #[must_use]
    pub fn next_frame(&self) -> Lsn {
        let open = self.stage.open_block();
        Lsn::new(open.map_or(self.next_block, stage::StagedBlock::next_frame))
    }

    /// Whether something waits for a commit or is being committed.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && self.stage.waiting().is_none() && self.releases.is_empty()
    }

    /// Bytes appended and not yet committed.
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.stage.staged_bytes()
    }

    /// Whether a write failed.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// Whether new work is taken. Cheap while it is.
    pub fn space(&mut self) -> Space {
        if self.space == Space::IntakeClosed && self.has_room(PAGE_BYTES as u64) {
            self.space = Space::Open;
        }
        self.space
    }

    /// Bytes that this class can still append into what is prepared on disk, when each commit
    /// rounds up to a page and the largest frame does not fit behind the last block.
    #[must_use]
    pub fn room_on_disk(&self, class: Class) -> u64 {
        let prepared = self.table.last().limit() - self.tail() + self.shelf.lock().room();
        let payload_bytes_max = self.options.limits.payload_bytes_max as u64;
        let kept = match class {
            // What the end of a segment wastes comes out of the reserve: a log whose spares are
            // all ready has room for at least a block.
            Class::Intake => self.options.limits.intake_room_bytes(0),
            Class::Outcome => payload_bytes_max + 2 * PAGE_BYTES as u64,
        };
        prepared.saturating_sub(kept)
    }

    /// Whether the writer found no space for another segment when it last looked.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        self.shelf.lock().disk_full
    }

    /// Whether the writer is still preparing what should be ready, on a disk that has room: what
    /// finds no room now will soon.
    #[must_use]
    pub fn is_preparing(&self) -> bool {
        let shelf = self.shelf.lock();
        !shelf.disk_full && shelf.is_short(&self.options.limits)
    }

    /// The live segments, oldest first.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = SegmentStat> {
        self.table
            .iter()
            .filter(|entry| entry.head.is_some())
            .map(|entry| SegmentStat {
                number: entry.number,
                base: entry.base,
                end: Lsn::new(entry.end),
                bytes: entry.bytes,
                sealed: entry.number < self.active,
                first_wall_ms: entry.first_wall_ms,
                last_wall_ms: entry.last_wall_ms,
            })
    }

    /// The address behind all that was appended, the open block's padding counted.
    fn tail(&self) -> u64 {
        self.stage
            .open_block()
            .map_or(self.next_block, stage::StagedBlock::end)
    }

    /// Room on disk that is prepared and not used.
    fn room(&self) -> u64 {
        self.table.last().limit() - self.tail() + self.spare_room
    }

    /// Whether intake of `bytes` leaves the reserve alone; looks at the shelf when in doubt.
    fn has_room(&mut self, bytes: u64) -> bool {
        let wanted = self.options.limits.intake_room_bytes(bytes);
        if self.room() >= wanted {
            return true;
        }
        self.spare_room = self.shelf.lock().room();
        self.room() >= wanted
    }

    fn admit(&mut self, class: Class, bytes: usize) -> Result<(), AppendError> {
        let staged_bytes_max = match class {
            Class::Intake => self.options.limits.staged_bytes_max,
            Class::Outcome => 2 * self.options.limits.staged_bytes_max,
        };
        let staged = self.stage.staged_bytes();
        if staged > 0 && staged + bytes > staged_bytes_max {
            return Err(AppendError::Full);
        }
        if class == Class::Intake && !self.has_room(bytes as u64) {
            return Err(self.no_room());
        }
        Ok(())
    }

    /// Prepared space is used up: because the disk is full, or because the writer is behind.
    fn no_room(&mut self) -> AppendError {
        if !self.shelf.lock().disk_full {
            return AppendError::Full;
        }
        self.space = Space::IntakeClosed;
        AppendError::DiskFull
    }

    fn close_block(&mut self) {
        self.next_block = self.tail();
        self.stage.close();
    }

    /// Opens a block with room for a frame of `bytes`, in the next segment if need be.
    fn open_block(&mut self, bytes: usize) -> Result<(), AppendError> {
        self.close_block();
        let needed = block_bytes(bytes) as u64;
        if self.next_block + needed > self.table.last().limit() {
            self.rotate()?;
        }
        let segment = self.table.last();
        assert!(
            self.next_block + needed <= segment.limit(),
            "a segment holds the largest block"
        );
        if !self.stage.open(Lsn::new(self.next_block), segment.number) {
            return Err(AppendError::Full);
        }
        Ok(())
    }

    /// Goes on in the next prepared segment.
    fn rotate(&mut self) -> Result<(), AppendError> {
        let limit = self.table.last().limit();
        let spare = {
            let mut shelf = self.shelf.lock();
            // At the end of the address space the log is full as a disk is.
            let fits = |spare: &Spare| Lsn::checked(limit + spare.bytes).is_some();
            let spare = if shelf.spares.front().is_some_and(fits) {
                shelf.spares.pop_front()
            } else {
                None
            };
            self.spare_room = shelf.room();
            spare
        };
        let Some(spare) = spare else {
            return Err(self.no_room());
        };
        let last = self.table.last();
        assert!(
            spare.number == last.number.next(),
            "segments are numbered without a gap"
        );
        let base = Lsn::new(last.limit());
        let entry = SegmentEntry::prepared(spare.number, base, spare.bytes);
        self.next_block = entry.end;
        self.table.push(entry);
        Ok(())
    }

    /// The header to write when the segment is new, and its salt.
    fn segment_header(&mut self, number: SegmentNumber) -> (Option<SegmentHead>, u32) {
        let entry = self
            .table
            .by_number(number)
            .expect("a staged block's segment is live");
        if let Some(head) = entry.head {
            return (None, head.salt);
        }
        let prev = self
            .table
            .before(number)
            .expect("the segment before is not sealed");
        let head = SegmentHead {
            log: self.options.log,
            instance: self.options.instance,
            number,
            base: entry.base,
            bytes: entry.bytes,
            salt: segment_salt(self.options.salt_seed, number),
            first_seq: self.next_seq,
            prev: prev.tail(),
        };
        if let Some(entry) = self.table.by_number_mut(number) {
            entry.head = Some(head);
            entry.chain = head.chain();
        }
        (Some(head), head.salt)
    }
}
