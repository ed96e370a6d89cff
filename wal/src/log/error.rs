//! What can go wrong with a log that is open.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::frame::FrameFault;
use crate::{Lsn, SegmentNumber};

/// Why a frame was not appended. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AppendError {
    /// Too much waits for the disk; room comes with the next commits.
    #[error("the log's buffer is full")]
    Full,
    /// The disk is full; room comes when space does.
    #[error("the disk is full")]
    DiskFull,
    /// The payload is above the bound.
    #[error("a payload of {payload_bytes} bytes is above the bound")]
    TooLarge {
        /// Its length.
        payload_bytes: usize,
    },
    /// A write failed earlier; the log must be opened anew.
    #[error("the log is poisoned by a failed write")]
    Poisoned,
}

/// Why a frame was not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The position is in no live segment, or nothing was written there.
    #[error("no frame at LSN {lsn}")]
    NoFrame {
        /// The position.
        lsn: Lsn,
    },
    /// What is there does not verify: damage, or not the position of a frame.
    #[error("no valid frame at LSN {lsn} ({path} at {offset})")]
    Damaged {
        /// The position.
        lsn: Lsn,
        /// The segment file.
        path: PathBuf,
        /// The place in it.
        offset: u64,
        /// What does not verify.
        #[source]
        fault: FrameFault,
    },
    /// The disk refused.
    #[error("cannot read {path}")]
    Io {
        /// The segment file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

/// Why a segment was not released. Nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReleaseError {
    /// There is no such live segment.
    #[error("there is no live segment {0}")]
    Unknown(SegmentNumber),
    /// The segment still takes blocks.
    #[error("segment {0} is not sealed")]
    NotSealed(SegmentNumber),
    /// Too far ahead of the first live segment: release that one first.
    #[error("segment {0} is too far ahead of the first live one")]
    TooFarAhead(SegmentNumber),
}

/// A write failed; nothing of this log is acknowledged any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the log is poisoned by a failed write")]
pub struct LogPoisoned;

/// A write or sync failed. What of it is on disk is unknown; the log is at its end.
#[derive(Debug, Error)]
pub enum WriteFailed {
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
    /// An earlier write failed.
    #[error("the log is poisoned by an earlier failed write")]
    Poisoned,
    /// The writer's thread is gone.
    #[error("the log's writer is gone")]
    WriterGone,
}
