//! From a data directory to running logs: recovery, and a new layout when the number of shards
//! changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use engine::id::{HashKey, OperationSeq, VSHARD_COUNT, VShard};
use engine::journal::Kind;
use engine::quota::ShardId;
use engine::shard::{AccountPlan, Recovered, Shard, ShardSettings};
use wal::checkpoint;
use wal::{
    DataDir, Disk, Durability, InstanceId, Layout, Log, LogId, LogLimits, LogOptions, Lsn,
    NewDataDir, OpenMode, VisitError, Writer,
};

use super::clock;
use super::journal::{STAGED_BYTES_MAX, ShardLog};
use super::shard_thread::{Waiting, chain};
use super::{StartError, checkpointer, reshard};
use crate::settings::{self, Settings};

/// A shard with its log, not yet running.
pub(crate) struct OpenedShard {
    pub(crate) shard: Shard<Waiting>,
    pub(crate) journal: ShardLog<Disk>,
    pub(crate) writer: Writer<Disk>,
    pub(crate) recovered: Recovered,
    pub(crate) log: LogId,
    /// What the newest checkpoint covers.
    pub(crate) checkpoint_covers: Lsn,
    pub(crate) event_ids: Vec<engine::dedup::DedupEntry>,
}

/// What opening needs to know.
#[derive(Debug, Clone)]
pub(crate) struct OpenPlan {
    pub(crate) shards: u16,
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
    pub(crate) accounts: Vec<Arc<AccountPlan>>,
    pub(crate) booted_at_ms: i64,
    pub(crate) dedup_keys: checkpointer::EventIdRules,
}

/// Opens the data directory, this process alone.
pub(crate) fn data_dir(path: &Path) -> Result<DataDir<Disk>, StartError> {
    std::fs::create_dir_all(path).map_err(|source| StartError::data_dir(path, &source))?;
    let new = NewDataDir {
        instance: InstanceId(clock::random_bytes()),
        hash_key: clock::random_bytes(),
    };
    DataDir::open(Disk::probe(path), &new).map_err(|error| match error {
        wal::DataDirError::InUse { path } => StartError::InUse { path },
        other => StartError::data_dir(path, &other),
    })
}

impl OpenPlan {
    pub(crate) fn new(
        settings: &Settings,
        shards: u16,
        accounts: Vec<Arc<AccountPlan>>,
        booted_at_ms: i64,
    ) -> Self {
        Self {
            shards,
            segment_bytes: settings.wal.segment_bytes.0,
            durability: match settings.wal.durability {
                settings::Durability::Fsync => Durability::Fsync,
                settings::Durability::Os => Durability::Os,
            },
            accounts,
            booted_at_ms,
            dedup_keys: checkpointer::EventIdRules::default(),
        }
    }

    pub(crate) fn options(&self, dir: &DataDir<Disk>, log: LogId, mode: OpenMode) -> LogOptions {
        LogOptions {
            log,
            instance: dir.superblock().instance,
            mode,
            durability: self.durability,
            limits: LogLimits {
                staged_bytes_max: STAGED_BYTES_MAX * 3 / 2,
                ..LogLimits::for_segment_bytes(self.segment_bytes)
            },
            salt_seed: clock::random(),
        }
    }
}

/// Opens every shard of the directory, in as many shards as the plan asks for.
pub(crate) fn shards(
    dir: &mut DataDir<Disk>,
    plan: &OpenPlan,
) -> Result<Vec<OpenedShard>, StartError> {
    let Some(layout) = dir.layout() else {
        let staged = dir
            .stage_layout(plan.shards)
            .map_err(|error| StartError::log(&error))?;
        let generation = 1;
        let opened = (0..plan.shards)
            .map(|shard| {
                open(
                    dir,
                    plan,
                    LogId { generation, shard },
                    plan.shards,
                    OpenMode::Create,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        dir.commit_layout(staged)
            .map_err(|error| StartError::log(&error))?;
        return Ok(opened);
    };
    let opened = open_all(dir, plan, layout)?;
    if layout.shards == plan.shards {
        return Ok(opened);
    }
    tracing::info!(
        from = layout.shards,
        to = plan.shards,
        "the number of shards changed; data moves"
    );
    reshard::move_to_layout(dir, plan, opened)
}

/// Opens the logs of a layout side by side: a restart takes as long as the largest of them.
pub(crate) fn open_all(
    dir: &DataDir<Disk>,
    plan: &OpenPlan,
    layout: Layout,
) -> Result<Vec<OpenedShard>, StartError> {
    let generation = layout.generation;
    let places: Vec<LogPlace> = (0..layout.shards)
        .map(|shard| LogPlace::of(dir, plan, LogId { generation, shard }, OpenMode::Existing))
        .collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = places
            .into_iter()
            .map(|place| scope.spawn(move || open_at(place, plan, layout.shards)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(opened) => opened,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

/// Where a log is and how it is to be opened; may cross to another thread.
struct LogPlace {
    folder: Disk,
    options: LogOptions,
    hash_key: HashKey,
    first_seq: OperationSeq,
}

impl LogPlace {
    fn of(dir: &DataDir<Disk>, plan: &OpenPlan, log: LogId, mode: OpenMode) -> Self {
        Self {
            folder: dir.log_folder(log),
            options: plan.options(dir, log, mode),
            hash_key: HashKey(dir.superblock().hash_key),
            first_seq: OperationSeq::first_of_run(dir.superblock().run_epoch),
        }
    }
}

/// Opens one log and rebuilds its shard.
pub(crate) fn open(
    dir: &DataDir<Disk>,
    plan: &OpenPlan,
    log: LogId,
    shards: u16,
    mode: OpenMode,
) -> Result<OpenedShard, StartError> {
    open_at(LogPlace::of(dir, plan, log, mode), plan, shards)
}

fn open_at(place: LogPlace, plan: &OpenPlan, shards: u16) -> Result<OpenedShard, StartError> {
    let LogPlace {
        folder,
        options,
        hash_key,
        first_seq,
    } = place;
    let log = options.log;
    let started = Instant::now();
    let now = clock::now();
    let settings = ShardSettings {
        id: ShardId(log.shard),
        hash_key,
        boot: clock::boot(),
        booted_at_ms: plan.booted_at_ms,
        first_seq,
        seed: clock::random(),
        accounts: plan.accounts.clone(),
    };
    let owned: Vec<VShard> = owned(log.shard, shards).collect();
    let instance = options.instance;
    let mut from = checkpointer::load(&folder, log, instance, &settings, &owned, now)?;
    let mut recovery = from.recovery;
    let mut visit = |at: Lsn, kind: wal::FrameKind, payload: &[u8]| {
        let kind = Kind::from_byte(kind.0)
            .ok_or_else(|| VisitError::from("a kind of frame that this build does not know"))?;
        from.event_ids.replay(kind, payload, &plan.dedup_keys);
        recovery
            .replay(now, at, kind, payload)
            .map_err(|error| VisitError::from(error.to_string()))
    };
    let (wal_log, writer, report) =
        Log::open(folder.clone(), options, from.replay_from, &mut visit)
            .map_err(|error| StartError::log(&error))?;
    checkpoint::set_aside(&folder, &from.damaged).map_err(|error| StartError::log(&error))?;
    if let Some(torn) = &report.torn {
        tracing::warn!(log = %log, ?torn, "the log ended inside a block that was never acknowledged; it was cut");
    }
    let (shard, recovered) = recovery.finish(now, report.end);
    tracing::info!(
        log = %log,
        end = report.end.get(),
        replayed = recovered.replayed,
        bytes = report.bytes_verified,
        ms = started.elapsed().as_millis() as u64,
        "log opened"
    );
    Ok(OpenedShard {
        shard,
        journal: ShardLog::new(wal_log),
        writer,
        recovered,
        log,
        checkpoint_covers: from.replay_from,
        event_ids: from.event_ids.finish(),
    })
}

/// The virtual shards of shard number `shard` of `shards`.
pub(crate) fn owned(shard: u16, shards: u16) -> impl Iterator<Item = VShard> {
    (0..VSHARD_COUNT)
        .filter_map(VShard::new)
        .filter(move |vshard| vshard.owner(usize::from(shards)) == usize::from(shard))
}

/// An error as the log tells it, with everything beneath.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    chain(error)
}
