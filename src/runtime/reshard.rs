//! Moving all data into another number of logs: what lives is carried over, the old logs go.

use engine::journal::{Journal, Kind};
use engine::record::StateFrame;
use engine::shard::{Carry, CarryError, CheckpointPart, GeneralUnion};
use wal::checkpoint::CheckpointWriter;
use wal::{DataDir, Disk, FrameKind, Layout, Log, LogId, Lsn, OpenMode, Writer};

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
        move_shard(&mut old, &mut targets)?;
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
    let layout = Layout {
        generation,
        shards: plan.shards,
    };
    open::open_all(dir, plan, layout)
}

/// Copies one shard's frames in the order of its log, which is read once from end to end, and
/// then its index with the new places.
fn move_shard(old: &mut OpenedShard, targets: &mut [NewLog]) -> Result<(), StartError> {
    let shards = targets.len();
    let vshards: Vec<_> = old.shard.owned().collect();
    let mut parts = Vec::new();
    let mut places = Vec::new();
    for vshard in vshards {
        let Some(part) = old.shard.vshard_part(&old.journal, vshard) else {
            continue;
        };
        let mut survey = Survey {
            owner: vshard.owner(shards),
            places: &mut places,
        };
        carried(&part, &mut survey, |_| Lsn::ZERO)?;
        parts.push((vshard.owner(shards), part));
    }
    places.sort_unstable();
    places.dedup();
    let mut payload = Vec::new();
    let mut moved = Vec::with_capacity(places.len());
    for place in places {
        let to = targets[place.owner].copy(&mut old.journal, place, &mut payload)?;
        moved.push((place.at, place.owner, to));
    }
    for (owner, part) in parts {
        let target = &mut targets[owner];
        let end = target.log.end();
        let mut placed = Placed {
            owner,
            moved: &moved,
        };
        let part = carried(&part, &mut placed, |_| end)?;
        checkpointer::write_part(&mut target.checkpoint, &part)
            .map_err(|error| StartError::log(&error))?;
    }
    Ok(())
}

fn carried<C: Carry<Error = StartError>>(
    part: &CheckpointPart,
    carry: &mut C,
    end: impl FnOnce(&mut C) -> Lsn,
) -> Result<CheckpointPart, StartError> {
    part.carried(carry, end).map_err(|error| match error {
        CarryError::Damaged(damaged) => StartError::log(&damaged),
        CarryError::Frame(error) => error,
    })
}

/// A frame of the old log that a new shard needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    at: Lsn,
    owner: usize,
    is_state: bool,
}

/// Notes which frames a part points at.
struct Survey<'a> {
    owner: usize,
    places: &'a mut Vec<Place>,
}

impl Carry for Survey<'_> {
    type Error = StartError;

    fn state(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        let owner = self.owner;
        self.places.push(Place {
            at,
            owner,
            is_state: true,
        });
        Ok(at)
    }

    fn event(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        let owner = self.owner;
        self.places.push(Place {
            at,
            owner,
            is_state: false,
        });
        Ok(at)
    }
}

/// Knows where each frame went.
struct Placed<'a> {
    owner: usize,
    /// Sorted by old position and owner.
    moved: &'a [(Lsn, usize, Lsn)],
}

impl Placed<'_> {
    fn place(&self, at: Lsn) -> Lsn {
        let found = self
            .moved
            .binary_search_by_key(&(at, self.owner), |&(at, owner, _)| (at, owner));
        self.moved[found.expect("every frame that a part points at was surveyed")].2
    }
}

impl Carry for Placed<'_> {
    type Error = StartError;

    fn state(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        Ok(self.place(at))
    }

    fn event(&mut self, at: Lsn) -> Result<Lsn, StartError> {
        Ok(self.place(at))
    }
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

    /// Copies one frame; where it lies now.
    fn copy(
        &mut self,
        from: &mut ShardLog<Disk>,
        place: Place,
        payload: &mut Vec<u8>,
    ) -> Result<Lsn, StartError> {
        let mut kind = from
            .read(place.at, payload)
            .map_err(|error| StartError::log(&error))?;
        if place.is_state {
            let mut frame = StateFrame::decode(payload).map_err(|error| StartError::log(&error))?;
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
            payload.clear();
            frame.encode(payload);
            kind = Kind::StateMoved;
        }
        if self.log.staged_bytes() > STAGED_BYTES_MAX / 2 {
            flush(&mut self.log, &mut self.writer)?;
        }
        self.log
            .append(wal::Class::Outcome, FrameKind(kind as u8), &[payload])
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
