//! A shard's log as the core's port, with a witness that writes down every frame.

use std::collections::BTreeMap;
use std::fmt;

use engine::entry::Intent;
use engine::event::codec;
use engine::event::{Target, TargetAction};
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::{AppendError, Class, Journal, Kind, ReadError};
use engine::record::{Link, StateFrame, TargetState};
use engine::state::CallClass;
use wal::{FrameKind, Log, Lsn, Space};

use super::judge::Judge;
use super::medium::Medium;
use super::mutants::Mutant;

/// Disk, frames and buffers are this much smaller than real ones, so that their ends are near.
const SCALE: u64 = 64;

/// Bytes staged and not yet on their way to the disk, above which intake waits for a commit.
pub(super) const STAGED_BYTES_MAX: u64 = 8 * 1024 * 1024 / SCALE;

/// The largest payload of a frame.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// A frame as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// Where.
    pub(super) at: Lsn,
    /// Of what kind.
    pub(super) kind: Kind,
    /// With what content.
    pub(super) payload: Vec<u8>,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.kind.as_str(), self.at.get())?;
        if let (Kind::State, Ok(frame)) = (self.kind, StateFrame::decode(&self.payload)) {
            let target = frame
                .moved
                .and_then(|at| frame.records[0].targets.get(usize::from(at)));
            if let Some((target, last)) =
                target.and_then(|target| Some((target, target.last.as_ref()?)))
            {
                let id = OperationId {
                    record: RecordHash(frame.record),
                    seq: last.seq,
                };
                write!(
                    f,
                    ": {id} {} {:?} {:?} {:?}, {} folded",
                    target.account, last.state, last.reason, target.link, last.folded
                )?;
            }
        }
        if let (Kind::Intent, Ok(intent)) = (self.kind, Intent::decode(&self.payload)) {
            let (record, seq) = (intent.record, intent.seq);
            write!(f, ": {} {}", OperationId { record, seq }, intent.account)?;
        }
        if let (Kind::Event | Kind::EventRedriven | Kind::EventMoved, Ok(event)) =
            (self.kind, codec::decode(&self.payload))
        {
            let id = OperationId {
                record: RecordHash(event.record_hash),
                seq: OperationSeq(event.operation_seq),
            };
            let (what, record_id) = (
                event.event.operation.as_str(),
                event.event.record_id.as_deref().unwrap_or_default(),
            );
            write!(
                f,
                ": {id} {what} {} {record_id} {:?}",
                event.event.object,
                event.event.data.map(|data| data.text())
            )?;
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
    /// Events as they were accepted, for the planted bug that brings them back unchanged.
    accepted: BTreeMap<OperationId, Vec<u8>>,
    /// Reads to come that fail, counted down.
    pub(super) fail_reads: u32,
    /// Where the log ended when this life of the engine began.
    born: Lsn,
    /// What decides anew on events of earlier lives, for the planted bug that does.
    judge: Option<Judge>,
}

impl SpiedLog {
    pub(super) fn new(log: Log<Medium>, mutant: Option<Mutant>, judge: Option<Judge>) -> Self {
        Self {
            born: log.next_frame(),
            log,
            intake_open: true,
            fresh: Vec::new(),
            mutant,
            accepted: BTreeMap::new(),
            fail_reads: 0,
            judge,
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

    /// The frame that an engine with the planted bug would have written instead.
    fn planted(&mut self, kind: Kind, parts: &[&[u8]]) -> Option<Vec<u8>> {
        match (self.mutant?, kind) {
            (Mutant::StaleRedrive, Kind::Event | Kind::EventRedriven) => {
                self.unchanged(parts.concat())
            }
            (Mutant::OpenFoldedOperation, Kind::State) => changed_state(&parts.concat(), |frame| {
                if !frame.folded.is_empty() {
                    frame.folded.remove(0);
                }
            }),
            (Mutant::CarriedCalledSuperseded, Kind::State) => {
                changed_state(&parts.concat(), |frame| {
                    for folded in &mut frame.folded {
                        folded.overwritten = true;
                    }
                })
            }
            _ => None,
        }
    }

    /// A state of an earlier life as a planted bug reads it.
    fn forgotten(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let targets = |frame: &mut StateFrame, forget: fn(&mut TargetState)| {
            let records = frame.records.iter_mut();
            let targets = records.flat_map(|record| &mut record.targets);
            targets.for_each(forget);
        };
        match self.mutant? {
            Mutant::ForgottenBase => changed_state(payload, |frame| {
                targets(frame, |target| target.base = None);
            }),
            Mutant::ForgottenTombstone => changed_state(payload, |frame| {
                targets(frame, |target| {
                    if matches!(target.link, Link::Deleted { .. }) {
                        target.link = Link::Unlinked;
                    }
                });
            }),
            _ => None,
        }
    }

    /// An event as an engine with a planted bug of rules understands what the log says of it.
    fn misread(&self, lsn: Lsn, payload: &[u8]) -> Option<Vec<u8>> {
        let mutant = self.mutant?;
        let mut event = codec::decode(payload).ok()?;
        let read = |action| match (mutant, action) {
            (Mutant::SkippedIsSent, TargetAction::Skip)
            | (Mutant::TurnForgotten, TargetAction::Instead(_)) => TargetAction::Sync,
            _ => action,
        };
        match (mutant, &self.judge) {
            (Mutant::SkippedIsSent | Mutant::TurnForgotten, _) => {
                let targets = event.targets.iter().map(|target| Target {
                    action: read(target.action),
                    ..target
                });
                event.targets = targets.collect();
            }
            (Mutant::DecidedAnew, Some(judge)) if lsn < self.born => {
                let targets = event.targets.iter().map(|target| Target {
                    action: TargetAction::Sync,
                    ..target
                });
                event.targets = targets.collect();
                judge.decide(&mut event).ok()?;
            }
            _ => return None,
        }
        let mut bytes = Vec::new();
        event.encode_into(&mut bytes);
        Some(bytes)
    }

    /// A redriven event with all of its old fields.
    fn unchanged(&mut self, payload: Vec<u8>) -> Option<Vec<u8>> {
        let event = codec::decode(&payload).ok()?;
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        let first = self.accepted.entry(id).or_insert_with(|| payload.clone());
        let mut old = codec::decode(first).ok()?;
        old.targets = event.targets.clone();
        let mut bytes = Vec::new();
        old.encode_into(&mut bytes);
        Some(bytes)
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
        let planted = self.planted(kind, parts);
        let whole = planted.as_deref().map(|payload| [payload]);
        let parts = whole.as_ref().map_or(parts, |whole| whole.as_slice());
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
                gone: false,
            });
        }
        let kind = self.log.read(lsn, payload).map_err(|error| ReadError {
            lsn,
            detail: error.to_string(),
            gone: matches!(error, wal::ReadError::NoFrame { .. }),
        })?;
        if self.mutant == Some(Mutant::GrowingFrozenFold)
            && kind.0 == Kind::State as u8
            && let Some(changed) = changed_state(payload, forget_unclear)
        {
            *payload = changed;
        }
        if self.mutant == Some(Mutant::AuditLineLost)
            && kind.0 == Kind::State as u8
            && let Some(changed) = changed_state(payload, |frame| frame.folded.clear())
        {
            *payload = changed;
        }
        if matches!(
            Kind::from_byte(kind.0),
            Some(Kind::Event | Kind::EventMoved | Kind::EventRedriven)
        ) && let Some(changed) = self.misread(lsn, payload)
        {
            *payload = changed;
        }
        if lsn < self.born
            && kind.0 == Kind::State as u8
            && let Some(changed) = self.forgotten(payload)
        {
            *payload = changed;
        }
        Kind::from_byte(kind.0).ok_or_else(|| ReadError {
            lsn,
            detail: format!("kind {} is not known", kind.0),
            gone: false,
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
        let staged = self.log.staged_bytes() as u64;
        let room = |staged_max: u64, on_disk: u64| staged_max.saturating_sub(staged).min(on_disk);
        let bytes = match class {
            Class::Intake => room(STAGED_BYTES_MAX, self.log.room_on_disk(wal::Class::Intake)),
            Class::Outcome => {
                // Compared with bounds that are made for real sizes.
                room(
                    STAGED_BYTES_MAX * 3 / 2,
                    self.log.room_on_disk(wal::Class::Outcome),
                ) * SCALE
            }
        };
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

fn changed_state(payload: &[u8], change: impl FnOnce(&mut StateFrame)) -> Option<Vec<u8>> {
    let mut frame = StateFrame::decode(payload).ok()?;
    change(&mut frame);
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    Some(bytes)
}

/// Attempts of unclear outcome look as if they had been held off.
fn forget_unclear(frame: &mut StateFrame) {
    let targets = frame
        .records
        .iter_mut()
        .flat_map(|record| &mut record.targets);
    for attempt in targets
        .flat_map(|target| &mut target.last)
        .flat_map(|last| &mut last.attempts)
    {
        if matches!(attempt.class, CallClass::Transient | CallClass::Unknown) {
            attempt.class = CallClass::Throttled;
        }
    }
}
