//! Opening a log: verify, replay, tell a torn tail from damage, go on.
//!
//! Everything is read and judged before the first byte changes. A torn tail is what a crash
//! leaves of the block that was being written: it lies above everything known to be durable, is
//! cut, and the log goes on in a new segment whose header says where the old one ends. Anything
//! else that does not verify is damage, and the log is not opened.

mod open_error;
mod replay;
mod survey;
mod tail;

use crate::frame::FrameKind;
use crate::log::{Log, LogStart, SegmentEntry, SegmentTable};
use crate::options::{LogOptions, OpenMode};
use crate::salt::segment_salt;
use crate::segment::{SegmentHead, SegmentTail};
use crate::space::SpareShelf;
use crate::storage::{Access, Storage};
use crate::two_slots::TwoSlots;
use crate::watermark::{WATERMARK, WATERMARK_FILE, Watermark, WatermarkFile};
use crate::writer::{ActiveSegment, SparePreparation, Writer, WriterStart};
use crate::{Lsn, SegmentNumber};
pub(crate) use open_error::io_error;
pub use open_error::{Corruption, Damage, OpenError, VisitError};
pub(crate) use replay::Replay;
pub(crate) use survey::Survey;
use tail::Tail;
pub use tail::TornTail;

/// What opening a log found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The address behind the last block: every frame below is there and durable.
    pub end: Lsn,
    /// The log was new.
    pub created: bool,
    /// The log ended with a seal that the watermark knows: nothing can be missing.
    pub sealed: bool,
    /// What was cut off.
    pub torn: Option<TornTail>,
    /// One slot of the watermark does not verify: a torn write, or damage to it alone.
    pub watermark_slot_damaged: bool,
    /// Live segments.
    pub segments: usize,
    /// Frames given to the visitor.
    pub frames_replayed: u64,
    /// Bytes of segments that were read and verified.
    pub bytes_verified: u64,
}

impl<S: Storage> Log<S> {
    /// Opens the log in the folder `storage`, giving `visit` each frame from `replay_from` on.
    ///
    /// Segments wholly before `replay_from` are checked by their headers alone; their frames
    /// are verified when they are read.
    ///
    /// # Errors
    /// Nothing in the log was changed, unless the error is [`OpenError::Write`]; opening again
    /// is safe always.
    pub fn open(
        storage: S,
        options: LogOptions,
        replay_from: Lsn,
        mut visit: impl FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
    ) -> Result<(Log<S>, Writer<S>, RecoveryReport), OpenError> {
        options.limits.check()?;
        let (watermark, slot_damaged) = open_watermark(&storage, &options, replay_from)?;
        let survey = Survey::take(&storage, &options, &watermark.now)?;
        let mut replay = Replay::new(&storage, &watermark.now, replay_from);
        let mut table = SegmentTable::default();
        if let Some(first) = survey.first().filter(|first| replay_from < first.prev.end) {
            let segment = SegmentNumber(first.number.0 - 1);
            return Err(OpenError::ReplayReleased {
                segment,
                replay_from,
            });
        }
        for (head, next) in survey.sealed() {
            if !watermark.now.is_released(head.number) {
                table.push(replay.sealed(head, next, &mut visit)?);
            } else if replay_from < next.prev.end {
                return Err(OpenError::ReplayReleased {
                    segment: head.number,
                    replay_from,
                });
            }
        }
        let last = match survey.last() {
            Some(head) => Some(replay.last(head, &mut visit)?),
            None => None,
        };
        let end = last
            .as_ref()
            .map_or(Lsn::ZERO, |last| Lsn::new(last.entry.end));
        if replay_from > end {
            return Err(OpenError::ReplayBeyondEnd { replay_from, end });
        }
        let mut report = RecoveryReport {
            end,
            created: last.is_none(),
            sealed: last.as_ref().is_some_and(|last| last.sealed)
                && watermark.now.durable_lsn == end,
            torn: last.as_ref().and_then(|last| last.torn.clone()),
            watermark_slot_damaged: slot_damaged,
            segments: 0,
            frames_replayed: replay.frames,
            bytes_verified: replay.bytes,
        };
        let (log, writer) = go_on(storage, options, watermark, &survey, table, last)?;
        report.end = log.durable();
        report.segments = log.segments().count();
        Ok((log, writer, report))
    }
}

/// Reads the watermark; creates it when the folder holds nothing of a log.
fn open_watermark<S: Storage>(
    storage: &S,
    options: &LogOptions,
    replay_from: Lsn,
) -> Result<(WatermarkFile<S::File>, bool), OpenError> {
    let io = |operation| io_error(storage, operation, WATERMARK_FILE);
    let names = storage.list().map_err(io("list the folder of"))?;
    if !names.iter().any(|name| name == WATERMARK_FILE) {
        if names
            .iter()
            .any(|name| SegmentNumber::is_segment_like(name))
        {
            return Err(OpenError::corrupt(
                storage,
                WATERMARK_FILE,
                0,
                Damage::WatermarkMissing,
            ));
        }
        if options.mode == OpenMode::Existing {
            return Err(OpenError::NoLog {
                path: storage.path(""),
            });
        }
        if replay_from > Lsn::ZERO {
            return Err(OpenError::ReplayBeyondEnd {
                replay_from,
                end: Lsn::ZERO,
            });
        }
        storage.create_dir().map_err(io("create the folder of"))?;
        let created = WatermarkFile::create(storage, options.log).map_err(io("create"))?;
        return Ok((created, false));
    }
    storage.sync_dir().map_err(io("sync the folder of"))?;
    let read = TwoSlots::open(storage, WATERMARK, options.log.get()).map_err(io("read"))?;
    if let Some(found) = read.newer {
        return Err(OpenError::NewerFormat {
            path: storage.path(WATERMARK_FILE),
            found,
        });
    }
    match read.newest.as_deref().and_then(Watermark::parse) {
        Some(newest) if read.whole => Ok((WatermarkFile::new(read.slots, newest), read.damaged)),
        _ => Err(OpenError::corrupt(
            storage,
            WATERMARK_FILE,
            0,
            Damage::Watermark,
        )),
    }
}

/// Everything verified: clears leftovers, cuts a torn tail, and hands out both sides.
fn go_on<S: Storage>(
    storage: S,
    options: LogOptions,
    watermark: WatermarkFile<S::File>,
    survey: &Survey,
    mut table: SegmentTable,
    last: Option<Tail>,
) -> Result<(Log<S>, Writer<S>), OpenError> {
    let deletions = survey.clear_leftovers(&storage, &watermark.now)?;
    let mut spares = survey.spares.clone();
    let mut next_spare = spares
        .back()
        .map_or(survey.next_number(), |spare| spare.number.next());
    let fresh_needed = last.as_ref().is_none_or(|last| last.torn.is_some());
    if fresh_needed && spares.is_empty() {
        let mut preparation = SparePreparation::new(next_spare);
        let mut limits = options.limits.clone();
        if last.is_some() {
            // A torn tail must not keep the log closed on a disk that is nearly full: what is
            // otherwise left free may be used here.
            limits.free_bytes_min = 0;
        }
        let name = next_spare.preparing_name();
        let spare = preparation
            .prepare_now(&storage, &limits)
            .map_err(io_error(&storage, "prepare", &name))?;
        spares.push_back(spare);
        next_spare = spare.number.next();
    }
    let mut fresh = None;
    if fresh_needed && let Some(spare) = spares.pop_front() {
        let (base, prev) = match &last {
            None => (Lsn::ZERO, SegmentTail::default()),
            Some(last) => (Lsn::new(last.entry.limit()), last.entry.tail()),
        };
        fresh = Some(SegmentHead {
            log: options.log,
            instance: options.instance,
            number: spare.number,
            base,
            bytes: spare.bytes,
            salt: segment_salt(options.salt_seed, spare.number),
            first_seq: last.as_ref().map_or(1, |last| last.next_seq),
            prev,
        });
    }

    let (next_seq, sealed) = last
        .as_ref()
        .map_or((1, false), |last| (last.next_seq, last.sealed));
    let ends_at = last
        .as_ref()
        .map_or(Lsn::ZERO, |last| Lsn::new(last.entry.end));
    if let Some(last) = &last {
        table.push(last.entry);
    }
    if let Some(head) = &fresh {
        let mut entry = SegmentEntry::prepared(head.number, head.base, head.bytes);
        entry.head = Some(*head);
        entry.chain = head.chain();
        table.push(entry);
    }
    let active = table.last();
    let name = active.number.file_name();
    let access = Access::Write {
        direct: options.durability == crate::Durability::Fsync,
    };
    let file = storage
        .open(&name, access)
        .map_err(io_error(&storage, "open", &name))?;
    let start = LogStart {
        next_block: active.end,
        next_seq,
        chain: active.chain,
        sealed: sealed && fresh.is_none(),
        watermark: watermark.now.clone(),
        table,
    };
    let shelf = SpareShelf::default();
    shelf.lock().spares = spares;
    let active = start.table.last().number;
    let mut writer = Writer::new(
        storage.clone(),
        options.clone(),
        shelf.clone(),
        WriterStart {
            segment: ActiveSegment {
                number: active,
                file,
            },
            watermark,
            next_spare,
            synced: ends_at,
            deletions,
        },
    );
    // From here on what was accepted counts as durable: should it be damaged later, that is
    // damage and no torn tail.
    writer.settle_start(fresh.as_ref(), ends_at)?;
    Ok((Log::new(storage, options, shelf, start), writer))
}
