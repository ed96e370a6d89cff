//! A shard's log as the core's port, with a witness that writes down every frame.

use std::fmt;

use engine::event::codec;
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::{AppendError, Class, Journal, Kind, ReadError};
use engine::record::StateFrame;
use wal::{FrameKind, Log, Lsn, Space};

use super::medium::Medium;
use super::mutants::Mutant;

/// Bytes staged and not yet on their way to the disk, above which intake waits for a commit.
pub(super) const STAGED_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Disk and frames are this much smaller than real ones, so that a full disk is near; the room
/// that the core is told is scaled back, since its bounds are for real sizes.
const DISK_SCALE: u64 = 64;

/// A frame as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub at: Lsn,
    /// Of what kind.
    pub kind: Kind,
    /// With what content.
    pub payload: Vec<u8>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind.as_str(), self.at.get())?;
        if let (Kind::State, Ok(frame)) = (self.kind, StateFrame::decode(&self.payload)) {
            let target = frame.moved.and_then(|at| frame.records[0].targets.get(usize::from(at)));
            if let Some((target, last)) = target.and_then(|target| Some((target, target.last.as_ref()?))) {
                let id = OperationId { record: RecordHash(frame.record), seq: last.seq };
                write!(f, ": {id} {} {:?} {:?} {:?}", target.account, last.state, last.reason, target.link)?;
            }
        }
        if let (Kind::Event | Kind::EventRedriven | Kind::EventMoved, Ok(event)) = (self.kind, codec::decode(&self.payload)) {
            let id = OperationId { record: RecordHash(event.record_hash), seq: OperationSeq(event.operation_seq) };
            let (what, record_id) = (event.event.operation.as_str(), event.event.record_id.as_deref().unwrap_or_default());
            write!(f, ": {id} {what} {} {record_id} {:?}", event.event.object, event.event.data.map(|data| data.text()))?;
        }
        Ok(())
    }
}

/// [`Journal`] over a [`Log`]; what the real runtime has, and the witness.
pub(super) struct SpiedLog {
    log: Log<Medium>,
    intake_open: bool,
    /// Frames appended since they were last taken out.
    fresh: Vec<Written>,
    mutant: Option<Mutant>,
    /// Reads to come that fail, counted down.
    pub(super) fail_reads: u32,
}

impl SpiedLog {
    pub(super) fn new(log: Log<Medium>, mutant: Option<Mutant>) -> Self {
        Self {
            log,
            intake_open: true,
            fresh: Vec::new(),
            mutant,
            fail_reads: 0,
        }
    }

    pub(super) fn log(&mut self) -> &mut Log<Medium> {
        &mut self.log
    }

    pub(super) fn take_fresh(&mut self) -> Vec<Written> {
        std::mem::take(&mut self.fresh)
    }

    /// Looks whether the disk takes new work; once a turn.
    pub(super) fn refresh_space(&mut self) {
        let closed = self.log.is_disk_full() && self.log.room_on_disk(wal::Class::Intake) == 0;
        self.intake_open = self.log.space() == Space::Open && !closed;
    }

    pub(super) fn intake_open(&self) -> bool {
        self.intake_open
    }

    /// What the disk has for sure, whatever a planted bug says.
    pub(super) fn truly_durable(&self) -> Lsn {
        self.log.durable()
    }
}

impl Journal for SpiedLog {
    fn append(&mut self, class: Class, kind: Kind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        let class = match class {
            Class::Intake => wal::Class::Intake,
            Class::Outcome => wal::Class::Outcome,
        };
        let appended = self
            .log
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
            });
        if let Ok(at) = appended {
            self.fresh.push(Written {
                at,
                kind,
                payload: parts.concat(),
            });
        }
        appended
    }

    fn read(&mut self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<Kind, ReadError> {
        if self.fail_reads > 0 {
            self.fail_reads -= 1;
            payload.clear();
            return Err(ReadError {
                lsn,
                detail: "injected".to_owned(),
            });
        }
        let kind = self.log.read(lsn, payload).map_err(|error| ReadError {
            lsn,
            detail: error.to_string(),
        })?;
        Kind::from_byte(kind.0).ok_or_else(|| ReadError {
            lsn,
            detail: format!("kind {} is not known", kind.0),
        })
    }

    fn durable(&self) -> Lsn {
        if self.mutant == Some(Mutant::EffectsBeforeDurable) {
            self.log.end()
        } else {
            self.log.durable()
        }
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
        let on_disk = self.log.room_on_disk(on_disk) * DISK_SCALE;
        staging.min(usize::try_from(on_disk).unwrap_or(usize::MAX))
    }
}
