//! Event ids already taken, shared by all threads that take events in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::dedup::{
    Dedup, DedupBounds, DedupEntry, DedupIndex, EventKey, EventKeys, TakenOperation,
};

/// Stripes, so that two ingest threads rarely meet; only events with an id come here.
const STRIPES: u16 = 64;

/// The dedup window of the node.
#[derive(Debug)]
pub(crate) struct Remembered {
    keys: EventKeys,
    stripes: Vec<Mutex<DedupIndex>>,
}

impl Remembered {
    /// An empty window.
    pub(crate) fn new(seed: u64, bounds: DedupBounds) -> Self {
        let each = DedupBounds {
            count_max: (bounds.count_max / u32::from(STRIPES)).max(1),
            ..bounds
        };
        let stripes = (0..STRIPES)
            .map(|_| Mutex::new(DedupIndex::new(each)))
            .collect();
        Self {
            keys: EventKeys::new(seed),
            stripes,
        }
    }

    /// The key of an event id within its scope.
    pub(crate) fn key(&self, scope: u64, event_id: &str) -> EventKey {
        self.keys.key(&scope.to_le_bytes(), event_id.as_bytes())
    }

    /// Looks an event up and takes it down when it is new.
    pub(crate) fn check_or_insert(
        &self,
        now_ms: i64,
        key: EventKey,
        body: u64,
        op: TakenOperation,
    ) -> Dedup {
        self.stripe(key)
            .check_or_insert(now_ms.max(0).unsigned_abs(), key, body as u32, op)
    }

    /// The event was not taken after all.
    pub(crate) fn forget(&self, key: EventKey, op: TakenOperation) {
        self.stripe(key).forget(key, op);
    }

    /// What a checkpoint keeps of the records that `owned` tells.
    pub(crate) fn entries_of(&self, owned: impl Fn(u64) -> bool + Copy) -> Vec<DedupEntry> {
        let mut entries = Vec::new();
        for at in 0..usize::from(STRIPES) {
            entries.extend(lock(&self.stripes[at]).entries_of(owned));
        }
        entries
    }

    /// What the shards' logs kept, of all shards at once.
    pub(crate) fn restore(&self, now_ms: i64, entries: Vec<DedupEntry>) {
        let mut by_stripe: Vec<Vec<DedupEntry>> = (0..STRIPES).map(|_| Vec::new()).collect();
        for entry in entries {
            by_stripe[entry.key.stripe(STRIPES)].push(entry);
        }
        for (stripe, entries) in self.stripes.iter().zip(by_stripe) {
            lock(stripe).restore(now_ms.max(0).unsigned_abs(), entries);
        }
    }

    fn stripe(&self, key: EventKey) -> MutexGuard<'_, DedupIndex> {
        lock(&self.stripes[key.stripe(STRIPES)])
    }
}

fn lock(stripe: &Mutex<DedupIndex>) -> MutexGuard<'_, DedupIndex> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}
