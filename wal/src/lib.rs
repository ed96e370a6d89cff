//! The write-ahead log that is the store: bytes in order, durable, one log per shard.
//!
//! [`Log`] belongs to the shard: it appends, says what to commit next and what is durable, and
//! reads. [`Writer`] does the writes; [`writer_thread`] runs it on a thread of its own. Between
//! them goes one [`Block`] at a time. Neither reads a clock or draws a random number, and all
//! I/O passes through the [`Storage`] port, so that a simulator can drive both.
//!
//! The formats, the recovery algorithm and what is assumed of the medium are described in
//! `docs/design/wal-format.md`.

pub mod block;
pub mod checkpoint;
mod data_dir;
pub mod frame;
pub mod inspect;
mod log;
mod log_id;
mod lsn;
mod options;
mod page;
mod recovery;
mod salt;
mod scan;
pub mod segment;
pub mod sim;
mod space;
pub mod storage;
mod superblock;
mod two_slots;
pub mod watermark;
mod writer;
pub mod writer_thread;

pub use data_dir::{DataDir, DataDirError, LOCK_FILE, NewDataDir, Opened, StagedLayout};
pub use frame::{FRAME_PAYLOAD_BYTES_MAX, Frame, FrameKind};
pub use log::{
    AppendError, Block, Class, Committed, Log, LogPoisoned, ReadError, ReleaseError, SegmentStat,
    WriteFailed,
};
pub use log_id::{InstanceId, LogId};
pub use lsn::Lsn;
pub use options::{
    Durability, LimitsError, LogLimits, LogOptions, OpenMode, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
pub use page::PAGE_BYTES;
pub use recovery::{Corruption, Damage, OpenError, RecoveryReport, TornTail, VisitError};
pub use scan::{ScanError, SegmentScan};
pub use segment::SegmentNumber;
pub use space::Space;
pub use storage::disk::{CommitMethod, Disk};
pub use storage::{File, Storage};
pub use superblock::{Layout, SUPERBLOCK_FILE, Superblock};
pub use writer::{Maintained, Writer};
