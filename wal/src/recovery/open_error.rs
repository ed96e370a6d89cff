//! Why a log does not open.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::block::BlockFault;
use crate::log::WriteFailed;
use crate::options::LimitsError;
use crate::segment::SegmentFault;
use crate::storage::Storage;
use crate::{Lsn, SegmentNumber};

/// What a replay visitor may answer.
pub type VisitError = Box<dyn Error + Send + Sync>;

/// Why a log does not open. Nothing was changed unless the variant says so.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The limits cannot work.
    #[error("the log's limits cannot work together")]
    Limits(#[from] LimitsError),
    /// There is no log, and none was to be created.
    #[error("no log in {path}")]
    NoLog {
        /// The folder.
        path: PathBuf,
    },
    /// What was durable is damaged or missing. For a person to look at: restore the log or
    /// reconcile; it does not heal by itself.
    #[error("the log is damaged")]
    Corrupt(#[source] Box<Corruption>),
    /// A newer build wrote it.
    #[error("{path} has format {found}, newer than this build reads")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The log ends before the position to replay from: the checkpoint is of another log, or
    /// the log lost its end.
    #[error("replay from LSN {replay_from}, but the log ends at {end}")]
    ReplayBeyondEnd {
        /// Where to replay from.
        replay_from: Lsn,
        /// Where the log ends.
        end: Lsn,
    },
    /// A segment that the replay needs was released.
    #[error("replay from LSN {replay_from} needs segment {segment}, which was released")]
    ReplayReleased {
        /// The segment.
        segment: SegmentNumber,
        /// Where to replay from.
        replay_from: Lsn,
    },
    /// The visitor refused a frame.
    #[error("the frame at LSN {lsn} was refused")]
    Visit {
        /// The frame.
        lsn: Lsn,
        /// Why.
        #[source]
        source: VisitError,
    },
    /// The disk refused.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
    /// The log verified; a write to go on failed. Opening again starts from the same content.
    #[error("cannot go on after recovery")]
    Write(#[from] WriteFailed),
}

/// Where the damage is.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{path} at {offset} (LSN {from} to {to})")]
pub struct Corruption {
    /// The file.
    pub path: PathBuf,
    /// The place in it.
    pub offset: u64,
    /// The first position that is affected.
    pub from: Lsn,
    /// Behind the last position known to be affected.
    pub to: Lsn,
    /// What is wrong.
    #[source]
    pub damage: Damage,
}

/// What is wrong with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// A segment's header or file.
    #[error(transparent)]
    Segment(SegmentFault),
    /// A block that was durable.
    #[error(transparent)]
    Block(BlockFault),
    /// The watermark file is gone.
    #[error("the watermark file is missing")]
    WatermarkMissing,
    /// Neither slot of the watermark verifies, or the file's length is wrong.
    #[error("the watermark file is damaged")]
    Watermark,
    /// A file that looks like a segment but has no segment's name.
    #[error("not the name of a segment")]
    ForeignFile,
}

impl OpenError {
    /// Damage to a file as a whole; `lsn` is where it starts in the log.
    pub(crate) fn corrupt<S: Storage>(
        storage: &S,
        name: &str,
        lsn: u64,
        damage: Damage,
    ) -> OpenError {
        let lsn = Lsn::checked(lsn).unwrap_or(Lsn::MAX);
        let path = storage.path(name);
        OpenError::Corrupt(Box::new(Corruption {
            path,
            offset: 0,
            from: lsn,
            to: lsn,
            damage,
        }))
    }

    /// The damage, when that is why.
    #[must_use]
    pub fn corruption(&self) -> Option<&Corruption> {
        match self {
            OpenError::Corrupt(corruption) => Some(corruption),
            _ => None,
        }
    }
}

pub(crate) fn io_error<S: Storage>(
    storage: &S,
    operation: &'static str,
    name: &str,
) -> impl Fn(io::Error) -> OpenError {
    let path = storage.path(name);
    move |source| OpenError::Io {
        operation,
        path: path.clone(),
        source,
    }
}
