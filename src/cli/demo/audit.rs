//! What the log holds of the stream, read from the data directory of an engine that has stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use engine::event::codec;
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::Kind;
use wal::Disk;
use wal::inspect::{self, InspectError};

/// The operations that the log holds, by the number under which the producer sent them.
#[derive(Debug, Default)]
pub(super) struct Audit {
    pub(super) taken: BTreeMap<u64, BTreeSet<TakenEvent>>,
    /// What does not verify.
    pub(super) damage: Vec<String>,
    pub(super) frames: u64,
}

/// An event in the log.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TakenEvent {
    pub(super) operation_id: String,
    pub(super) object: String,
    pub(super) record_id: String,
    pub(super) accounts: Vec<String>,
}

/// Reads and verifies every log of the directory.
///
/// # Errors
/// When there is nothing to read; damage is in the audit.
pub(super) fn audit(data_dir: &Path) -> Result<Audit, InspectError> {
    let disk = Disk::probe(data_dir);
    let mut audit = Audit::default();
    let (_, logs) = inspect::logs_in_use(&disk)?;
    for log in logs {
        let mut undecodable = Vec::new();
        let verdict = inspect::dump(&disk, log, wal::Lsn::ZERO, |lsn, kind, payload| {
            if matches!(
                Kind::from_byte(kind.0),
                Some(Kind::Event | Kind::EventMoved)
            ) {
                match codec::decode(payload) {
                    Ok(event) => audit.note(&event),
                    Err(error) => undecodable.push(format!("log {log} at {lsn}: {error}")),
                }
            }
            Ok(())
        })?;
        audit.frames += verdict.frames;
        audit.damage.extend(
            verdict
                .damage
                .iter()
                .map(|damage| format!("{damage}: {}", damage.damage)),
        );
        audit.damage.append(&mut undecodable);
        if !verdict.sealed {
            audit
                .damage
                .push(format!("log {log} was not sealed by the stop"));
        }
    }
    Ok(audit)
}

impl Audit {
    fn note(&mut self, event: &codec::AcceptedEvent<'_>) {
        let Some(producer) = event.producer else {
            return;
        };
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        self.taken
            .entry(producer.seq)
            .or_default()
            .insert(TakenEvent {
                operation_id: id.to_string(),
                object: event.event.object.to_string(),
                record_id: event
                    .event
                    .record_id
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                accounts: event
                    .targets
                    .iter()
                    .map(|target| target.name.to_owned())
                    .collect(),
            });
    }
}
