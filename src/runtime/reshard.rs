//! Moving all data into another number of logs: what lives is carried over, the old logs go.

use engine::journal::{Journal, Kind};
use engine::record::StateFrame;
use engine::shard::{Carry, CarryError, CheckpointPart, GeneralUnion};
use std::collections::HashMap;
use wal::checkpoint::CheckpointWriter;
use wal::{DataDir, Disk, FrameKind, Log, LogId, Lsn, OpenMode, Writer};

use super::journal::{STAGED_BYTES_MAX, ShardLog};
use super::open::{self, OpenPlan, OpenedShard};
use super::{StartError, checkpointer, clock};

/// Copies what lives into a new layout and makes it the one in use. A crash on the way leaves
/// the old layout as it was.
pub(crate) fn move_to_layout(
    dir: &mut DataDir<Disk>,
    plan: &OpenPlan,
    opened: Vec<OpenedShard>,
) -> Result<Vec<OpenedShard>, StartError> {
    let generation = dir.layout().map_or(0, |layout| layout.generation) + 1;
    let staged = dir
        .stage_layout(plan.shards)
        .map_err(|error| StartError::log(&error))?;
    let mut targets = (0..plan.shards)
        .map(|shard| NewLog::create(dir, plan, LogId { generation, shard }))
        .collect::<Result<Vec<_>, _>>()?;
    let mut general = GeneralUnion::default();
    let mut event_ids = Vec::new();
    for mut old in opened {
        general.add(&old.shard);
        event_ids.append(&mut old.event_ids);
        let owned: Vec<_> = old.shard.owned().collect();
        for vshard in owned {
            let Some(part) = old.shard.vshard_part(&old.journal, vshard) else {
                continue;
            };
            targets[vshard.owner(usize::from(plan.shards))].take(&mut old.journal, &part)?;
        }
    }
    for (number, target) in targets.into_iter().enumerate() {
        let owner = |record: u64| {
            engine::id::RecordHash(record)
                .vshard()
                .owner(usize::from(plan.shards))
        };
        let own: Vec<_> = event_ids
            .iter()
            .copied()
            .filter(|id| owner(id.operation.record) == number)
            .collect();
        target.finish(&general, &own, number == 0)?;
    }
    dir.commit_layout(staged)
        .map_err(|error| StartError::log(&error))?;
    dir.clear_other_layouts()
        .map_err(|error| StartError::log(&error))?;
    (0..plan.shards)
        .map(|shard| {
            open::open(
                dir,
                plan,
                LogId { generation, shard },
                plan.shards,
                OpenMode::Existing,
            )
        })
        .collect()
}

/// A log of the new layout while it is filled.
struct NewLog {
    log: Log<Disk>,
    writer: Writer<Disk>,
    checkpoint: CheckpointWriter<Disk>,
}

impl NewLog {
    fn create(dir: &DataDir<Disk>, plan: &OpenPlan, id: LogId) -> Result<Self, StartError> {
        let folder = dir.log_folder(id);
        let options = plan.options(dir, id, OpenMode::Create);
        let (log, writer, _) = Log::open(folder.clone(), options, Lsn::ZERO, |_, _, _| Ok(()))
            .map_err(|error| StartError::log(&error))?;
        let wall_ms = clock::now().wall.0.max(0).unsigned_abs();
        // Replay from the beginning finds every frame seen by its part, and skips it.
        let checkpoint =
            CheckpointWriter::create(folder, id, dir.superblock().instance, Lsn::ZERO, wall_ms)
                .map_err(|error| StartError::log(&error))?;
        Ok(Self {
            log,
            writer,
            checkpoint,
        })
    }

    fn take(&mut self, from: &mut ShardLog<Disk>, part: &CheckpointPart) -> Result<(), StartError> {
        let mut mover = Mover {
            from,
            to: &mut self.log,
            writer: &mut self.writer,
            moved: HashMap::new(),
            payload: Vec::new(),
        };
        let part =
            part.carried(&mut mover, |mover| mover.to.end())
                .map_err(|error| match error {
                    CarryError::Damaged(damaged) => StartError::log(&damaged),
                    CarryError::Frame(error) => error,
                })?;
        checkpointer::write_part(&mut self.checkpoint, &part)
            .map_err(|error| StartError::log(&error))
    }

    fn finish(
        mut self,
        general: &GeneralUnion,
        event_ids: &[engine::dedup::DedupEntry],
        first: bool,
    ) -> Result<(), StartError> {
        flush(&mut self.log, &mut self.writer)?;
        self.log.seal();
        flush(&mut self.log, &mut self.writer)?;
        let failed = |error| StartError::log(&error);
        checkpointer::write_part(&mut self.checkpoint, &general.part(self.log.end(), first))
            .map_err(failed)?;
        checkpointer::write_event_ids(&mut self.checkpoint, event_ids).map_err(failed)?;
        self.checkpoint.finish().map_err(failed)?;
        Ok(())
    }
}

/// Copies frames, each once.
struct Mover<'a> {
    from: &'a mut ShardLog<Disk>,
    to: &'a mut Log<Disk>,
    writer: &'a mut Writer<Disk>,
    /// Events that several targets share.
    moved: HashMap<Lsn, Lsn>,
    payload: Vec<u8>,
}

impl Carry for Mover<'_> {
    type Error = StartError;

    fn state(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        self.from
            .read(at, &mut self.payload)
            .map_err(|error| StartError::log(&error))?;
        let mut frame =
            StateFrame::decode(&self.payload).map_err(|error| StartError::log(&error))?;
        // Positions of the old log mean nothing in the new one.
        frame.previous = 0;
        frame.moved = None;
        for target in frame
            .records
            .iter_mut()
            .flat_map(|record| &mut record.targets)
        {
            if let Some(progress) = &mut target.last {
                progress.event = 0;
            }
        }
        self.payload.clear();
        frame.encode(&mut self.payload);
        self.append(Kind::StateMoved)
    }

    fn event(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        if let Some(&moved) = self.moved.get(&at) {
            return Ok(moved);
        }
        let kind = self
            .from
            .read(at, &mut self.payload)
            .map_err(|error| StartError::log(&error))?;
        let moved = self.append(kind)?;
        self.moved.insert(at, moved);
        Ok(moved)
    }
}

impl Mover<'_> {
    fn append(&mut self, kind: Kind) -> Result<Lsn, StartError> {
        if self.to.staged_bytes() > STAGED_BYTES_MAX / 2 {
            flush(self.to, self.writer)?;
        }
        self.to
            .append(wal::Class::Outcome, FrameKind(kind as u8), &[&self.payload])
            .map_err(|error| StartError::log(&error))
    }
}

/// Commits all that is staged.
fn flush(log: &mut Log<Disk>, writer: &mut Writer<Disk>) -> Result<(), StartError> {
    const SPARE_BYTES_AT_ONCE: usize = 1024 * 1024;
    let failed = |error: &dyn std::error::Error| StartError::log(error);
    while let Some(block) = log.take_block(clock::now().wall.0.max(0).unsigned_abs()) {
        let answer = writer.commit(block);
        log.on_committed(answer).map_err(|error| failed(&error))?;
        while writer.wants_maintenance() {
            if !writer
                .maintain(SPARE_BYTES_AT_ONCE)
                .map_err(|error| failed(&error))?
                .more
            {
                break;
            }
        }
    }
    Ok(())
}
