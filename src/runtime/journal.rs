//! A shard's log as the core's port.

use engine::journal::{AppendError, Class, Journal, Kind, ReadError};
use wal::{FrameKind, Log, Lsn, Space, Storage};

/// Bytes staged and not yet on their way to the disk, above which intake waits for a commit.
pub const STAGED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An event has at most a megabyte, and its frame some more. On a full disk with less room than
/// this, intake is closed for all sizes, so that senders are all told the same.
const LARGEST_EVENT_BYTES: u64 = 1024 * 1024 + 4096;

/// [`Journal`] over a [`Log`].
pub struct ShardLog<S: Storage> {
    log: Log<S>,
    intake_open: bool,
}

impl<S: Storage> ShardLog<S> {
    /// The port of this log, whose limits have to allow [`STAGED_BYTES_MAX`].
    pub fn new(log: Log<S>) -> Self {
        Self {
            log,
            intake_open: true,
        }
    }

    /// The log itself.
    pub fn log(&mut self) -> &mut Log<S> {
        &mut self.log
    }

    /// Looks whether the disk takes new work; once a turn.
    pub fn refresh_space(&mut self) {
        let closed = self.log.is_disk_full()
            && self.log.room_on_disk(wal::Class::Intake) < LARGEST_EVENT_BYTES;
        self.intake_open = self.log.space() == Space::Open && !closed;
    }

    /// Whether the disk takes new work.
    pub fn intake_open(&self) -> bool {
        self.intake_open
    }
}

impl<S: Storage> Journal for ShardLog<S> {
    fn append(&mut self, class: Class, kind: Kind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        let class = match class {
            Class::Intake => wal::Class::Intake,
            Class::Outcome => wal::Class::Outcome,
        };
        self.log
            .append(class, FrameKind(kind as u8), parts)
            .map_err(|error| {
                if error == wal::AppendError::DiskFull {
                    self.intake_open = false;
                }
                match error {
                    wal::AppendError::Full => AppendError::Full,
                    wal::AppendError::DiskFull => AppendError::DiskFull,
                    wal::AppendError::TooLarge { .. } => AppendError::TooLarge,
                    wal::AppendError::Poisoned => AppendError::Poisoned,
                }
            })
    }

    fn read(&mut self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<Kind, ReadError> {
        let kind = self.log.read(lsn, payload).map_err(|error| ReadError {
            lsn,
            detail: error.to_string(),
            gone: matches!(error, wal::ReadError::NoFrame { .. }),
        })?;
        Kind::from_byte(kind.0).ok_or_else(|| ReadError {
            lsn,
            detail: format!("kind {} is not known", kind.0),
            gone: false,
        })
    }

    fn durable(&self) -> Lsn {
        self.log.durable()
    }

    fn end(&self) -> Lsn {
        self.log.next_frame()
    }

    fn room(&self, class: Class) -> usize {
        if self.log.is_poisoned() || (class == Class::Intake && !self.intake_open) {
            return 0;
        }
        // Outcomes may be staged further, so that intake never starves them.
        let (staged_max, on_disk) = match class {
            Class::Intake => (STAGED_BYTES_MAX, wal::Class::Intake),
            Class::Outcome => (STAGED_BYTES_MAX * 3 / 2, wal::Class::Outcome),
        };
        let staging = staged_max.saturating_sub(self.log.staged_bytes());
        let on_disk = usize::try_from(self.log.room_on_disk(on_disk)).unwrap_or(usize::MAX);
        // Only a full disk has no room at all; what does not fit otherwise may come again.
        let least = usize::from(class == Class::Intake && !self.log.is_disk_full());
        staging.min(on_disk.max(least))
    }
}
