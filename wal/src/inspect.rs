//! A look into a data directory that changes nothing: what is there, whether it verifies, what
//! the frames are. For use while no process has the directory; it takes no lock.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::checkpoint::{self, CheckpointError, CheckpointFault, CheckpointHead};
use crate::frame::FrameKind;
use crate::options::{LogLimits, LogOptions, OpenMode};
use crate::page::{PAGE_BYTES, Pages};
use crate::recovery::{Corruption, Damage, OpenError, Replay, Survey, TornTail, VisitError};
use crate::segment::{SegmentFault, SegmentHead};
use crate::storage::{Access, File, Storage};
use crate::superblock::{SUPERBLOCK, SUPERBLOCK_FILE, Superblock};
use crate::two_slots::{SlotFormat, SlotsRead};
use crate::watermark::{WATERMARK, WATERMARK_FILE, Watermark};
use crate::{Durability, InstanceId, LogId, Lsn, SegmentNumber};

/// A data directory, by its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirStat {
    /// What the superblock says; none when neither slot verifies.
    pub superblock: Option<Superblock>,
    /// One of the superblock's slots does not verify.
    pub superblock_slot_damaged: bool,
    /// The logs there are, those of other layouts too.
    pub logs: Vec<LogStat>,
}

/// A log, by its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStat {
    /// Which one.
    pub log: LogId,
    /// It belongs to the layout in use.
    pub in_use: bool,
    /// What the watermark says; none when neither slot verifies.
    pub watermark: Option<Watermark>,
    /// The segment files in order.
    pub segments: Vec<SegmentFileStat>,
}

/// A segment's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFileStat {
    /// The number in its name.
    pub number: SegmentNumber,
    /// The file's length.
    pub file_bytes: u64,
    /// What its header says, or why it says nothing.
    pub head: Result<SegmentHead, SegmentFault>,
    /// Nothing lives in it.
    pub released: bool,
}

/// What verifying a log found.
#[derive(Debug)]
pub struct LogVerdict {
    /// Which log.
    pub log: LogId,
    /// The address behind its last block; none when damage hides it.
    pub end: Option<Lsn>,
    /// It ends with a seal that the watermark knows.
    pub sealed: bool,
    /// A commit that a crash cut off: harmless, the next start cuts it away.
    pub torn: Option<TornTail>,
    /// One of the watermark's slots does not verify.
    pub watermark_slot_damaged: bool,
    /// Frames in blocks that verify.
    pub frames: u64,
    /// Bytes of segments that verify.
    pub bytes: u64,
    /// What does not verify; of each segment the first place.
    pub damage: Vec<Corruption>,
    /// The checkpoints, newest first, those that verify and those that do not.
    pub checkpoints: Vec<(PathBuf, Result<CheckpointHead, CheckpointFault>)>,
}

impl LogVerdict {
    /// Whether everything verifies; a torn tail does.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.damage.is_empty() && self.checkpoints.iter().all(|(_, verdict)| verdict.is_ok())
    }
}

/// Why there was nothing to look at. Nothing was changed.
#[derive(Debug, Error)]
pub enum InspectError {
    /// There is no superblock that verifies, so which logs count is unknown.
    #[error("{path} is damaged or missing")]
    NoSuperblock {
        /// The superblock.
        path: PathBuf,
    },
    /// The log cannot be looked at: a newer format, or the disk refuses.
    #[error("cannot look into log {log}")]
    Log {
        /// The log.
        log: LogId,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The log's checkpoints cannot be looked at.
    #[error("cannot look at the checkpoints of log {log}")]
    Checkpoint {
        /// The log.
        log: LogId,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// The disk refused.
    #[error("cannot read {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

/// Lists what is in the data directory `storage`, by headers alone.
///
/// # Errors
/// When the disk refuses. Damage is in the lists.
pub fn stat<S: Storage>(storage: &S) -> Result<DirStat, InspectError> {
    let names = storage.list().map_err(io_error(storage, ""))?;
    let (superblock, superblock_slot_damaged) = if names.iter().any(|n| n == SUPERBLOCK_FILE) {
        let read =
            read_slots(storage, SUPERBLOCK, 0).map_err(io_error(storage, SUPERBLOCK_FILE))?;
        (
            read.newest.as_deref().and_then(Superblock::parse),
            read.damaged,
        )
    } else {
        (None, false)
    };
    let layout = superblock.as_ref().and_then(|superblock| superblock.layout);
    let mut logs = Vec::new();
    for log in names.iter().filter_map(|name| LogId::parse_dir_name(name)) {
        let in_use = layout
            .is_some_and(|layout| log.generation == layout.generation && log.shard < layout.shards);
        logs.push(stat_log(&storage.sub(&log.dir_name()), log, in_use)?);
    }
    Ok(DirStat {
        superblock,
        superblock_slot_damaged,
        logs,
    })
}

/// Reads and verifies every byte of the logs in use, and their checkpoints.
///
/// # Errors
/// When there is no superblock, on a newer format, or when the disk refuses. Damage is in the
/// verdicts.
pub fn verify<S: Storage>(storage: &S) -> Result<Vec<LogVerdict>, InspectError> {
    let (instance, logs) = logs_in_use(storage)?;
    logs.into_iter()
        .map(|log| walk(storage, instance, log, Lsn::ZERO, |_, _, _| Ok(())))
        .collect()
}

/// Shows the frames of one log from the position on, each verified; goes on behind damage, which
/// the verdict lists.
///
/// # Errors
/// As [`verify`]; and when the visitor refuses a frame, to end the walk.
pub fn dump<S: Storage>(
    storage: &S,
    log: LogId,
    from: Lsn,
    visit: impl FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
) -> Result<LogVerdict, InspectError> {
    let (instance, _) = logs_in_use(storage)?;
    walk(storage, instance, log, from, visit)
}

/// The logs of the layout in use.
///
/// # Errors
/// When there is no superblock that verifies, or the disk refuses.
pub fn logs_in_use<S: Storage>(storage: &S) -> Result<(InstanceId, Vec<LogId>), InspectError> {
    let stat = read_slots(storage, SUPERBLOCK, 0);
    let superblock = match stat {
        Ok(read) => read.newest.as_deref().and_then(Superblock::parse),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(storage, SUPERBLOCK_FILE)(error)),
    };
    let path = storage.path(SUPERBLOCK_FILE);
    let superblock = superblock.ok_or(InspectError::NoSuperblock { path })?;
    let logs = superblock
        .layout
        .map(|layout| (0..layout.shards).map(|shard| layout.log(shard)).collect())
        .unwrap_or_default();
    Ok((superblock.instance, logs))
}

fn walk<S: Storage>(
    storage: &S,
    instance: InstanceId,
    log: LogId,
    from: Lsn,
    mut visit: impl FnMut(Lsn, FrameKind, &[u8]) -> Result<(), VisitError>,
) -> Result<LogVerdict, InspectError> {
    let folder = storage.sub(&log.dir_name());
    let mut verdict = LogVerdict {
        log,
        end: None,
        sealed: false,
        torn: None,
        watermark_slot_damaged: false,
        frames: 0,
        bytes: 0,
        damage: Vec::new(),
        checkpoints: checkpoint::verify(&folder)
            .map_err(|source| InspectError::Checkpoint { log, source })?,
    };
    let failed = |source| InspectError::Log { log, source };
    let options = LogOptions {
        log,
        instance,
        mode: OpenMode::Existing,
        durability: Durability::Fsync,
        limits: LogLimits::default(),
        salt_seed: 0,
    };
    let watermark = match read_watermark(&folder, log) {
        Ok((watermark, slot_damaged)) => {
            verdict.watermark_slot_damaged = slot_damaged;
            watermark
        }
        Err(error) => {
            verdict.damage.push(damage_of(error).map_err(failed)?);
            return Ok(verdict);
        }
    };
    let survey = match Survey::take(&folder, &options, &watermark) {
        Ok(survey) => survey,
        Err(error) => {
            verdict.damage.push(damage_of(error).map_err(failed)?);
            return Ok(verdict);
        }
    };
    let mut replay = Replay::new(&folder, &watermark, from);
    for (head, next) in survey.sealed() {
        if !watermark.is_released(head.number)
            && let Err(error) = replay.sealed(head, next, &mut visit)
        {
            verdict.damage.push(damage_of(error).map_err(failed)?);
        }
    }
    if let Some(head) = survey.last() {
        match replay.last(head, &mut visit) {
            Ok(last) => {
                let end = Lsn::new(last.entry.end);
                verdict.end = Some(end);
                verdict.sealed = last.sealed && watermark.durable_lsn == end;
                verdict.torn = last.torn;
            }
            Err(error) => verdict.damage.push(damage_of(error).map_err(failed)?),
        }
    }
    verdict.frames = replay.frames;
    verdict.bytes = replay.bytes;
    Ok(verdict)
}

/// Damage is a finding, anything else ends the look.
fn damage_of(error: OpenError) -> Result<Corruption, OpenError> {
    match error {
        OpenError::Corrupt(corruption) => Ok(*corruption),
        other => Err(other),
    }
}

fn read_watermark<S: Storage>(folder: &S, log: LogId) -> Result<(Watermark, bool), OpenError> {
    let read = match read_slots(folder, WATERMARK, log.get()) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::corrupt(
                folder,
                WATERMARK_FILE,
                0,
                Damage::WatermarkMissing,
            ));
        }
        Err(error) => {
            return Err(crate::recovery::io_error(folder, "read", WATERMARK_FILE)(
                error,
            ));
        }
    };
    if let Some(found) = read.newer {
        return Err(OpenError::NewerFormat {
            path: folder.path(WATERMARK_FILE),
            found,
        });
    }
    match read
        .newest
        .as_deref()
        .and_then(Watermark::parse)
        .filter(|_| read.whole)
    {
        Some(watermark) => Ok((watermark, read.damaged)),
        None => Err(OpenError::corrupt(
            folder,
            WATERMARK_FILE,
            0,
            Damage::Watermark,
        )),
    }
}

fn stat_log<S: Storage>(folder: &S, log: LogId, in_use: bool) -> Result<LogStat, InspectError> {
    let names = folder.list().map_err(io_error(folder, ""))?;
    let watermark = if names.iter().any(|name| name == WATERMARK_FILE) {
        let read = read_slots(folder, WATERMARK, log.get());
        let read = read.map_err(io_error(folder, WATERMARK_FILE))?;
        read.newest.as_deref().and_then(Watermark::parse)
    } else {
        None
    };
    let mut segments = Vec::new();
    let mut page = Pages::zeroed(PAGE_BYTES);
    for name in names {
        let Some(number) = SegmentNumber::parse_file_name(&name) else {
            continue;
        };
        let failed = io_error(folder, &name);
        let file = folder.open(&name, Access::Read).map_err(&failed)?;
        let file_bytes = file.len().map_err(&failed)?;
        let read = file.read(0, page.as_bytes_mut()).map_err(&failed)?;
        segments.push(SegmentFileStat {
            number,
            file_bytes,
            head: SegmentHead::parse(&page.as_bytes()[..read]),
            released: watermark
                .as_ref()
                .is_some_and(|watermark| watermark.is_released(number)),
        });
    }
    Ok(LogStat {
        log,
        in_use,
        watermark,
        segments,
    })
}

fn read_slots<S: Storage>(
    storage: &S,
    format: SlotFormat,
    owner: u32,
) -> io::Result<SlotsRead<S::File>> {
    SlotsRead::of(storage.open(format.name, Access::Read)?, format, owner)
}

fn io_error<S: Storage>(storage: &S, name: &str) -> impl Fn(io::Error) -> InspectError {
    let path = storage.path(name);
    move |source| InspectError::Io {
        path: path.clone(),
        source,
    }
}
