//! Which events were taken, by producer and event id, so that a repeated one is recognised.

mod key_table;
mod taken;
mod window;

use key_table::KeyTable;
pub use taken::{DedupEntry, EventKey, EventKeys, TakenOperation};
use taken::{PackedEntry, TICK_MS};
use window::Window;

/// How long events are remembered: until either bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupBounds {
    /// At least this long, in ms.
    pub window_ms: u64,
    /// At most this many, up to `DedupIndex::COUNT_LIMIT`.
    pub count_max: u32,
}

impl Default for DedupBounds {
    /// What the product promises: 1 h or 10 million.
    fn default() -> Self {
        Self {
            window_ms: 3_600_000,
            count_max: 10_000_000,
        }
    }
}

/// What is known of an event's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// Nothing: it was taken down just now.
    New,
    /// It became this operation, with the same body.
    Same(TakenOperation),
    /// It became this operation, with another body.
    Reused(TakenOperation),
}

/// The events taken within the window: entries of 32 bytes in the order of arrival, and a table of
/// 4-byte slots that finds them by key; at most 40 bytes an event.
///
/// One index serves one thread. To serve several, make one for each stripe of `EventKey::stripe`,
/// with the bounds divided.
#[derive(Debug)]
pub struct DedupIndex {
    window_ticks: u32,
    count_max: u32,
    entries: Window,
    keys: KeyTable,
    /// Entries in the table; those of the window that were forgotten are not.
    known: usize,
    /// The latest time seen, in ticks: the clock may be set back, and then nothing ages.
    now: u64,
}

impl DedupIndex {
    /// The largest count: leaves 4 bits of a table slot to tell keys apart.
    pub const COUNT_LIMIT: u32 = 1 << 28;

    /// Entries that one call lets go of, at most: more than the one it may add, so that the index
    /// shrinks after a burst.
    const EXPIRED_A_CALL: usize = 4;

    /// An empty index.
    ///
    /// # Panics
    /// If the count is 0 or above `COUNT_LIMIT`, or the window longer than 4 years.
    pub fn new(bounds: DedupBounds) -> Self {
        assert!(
            (1..=Self::COUNT_LIMIT).contains(&bounds.count_max),
            "count out of range"
        );
        let window_ticks = bounds.window_ms.div_ceil(TICK_MS);
        assert!(
            window_ticks <= u64::from(u32::MAX / 2),
            "window longer than ticks can tell apart"
        );
        Self {
            window_ticks: window_ticks as u32,
            count_max: bounds.count_max,
            entries: Window::new(),
            keys: KeyTable::new(bounds.count_max),
            known: 0,
            now: 0,
        }
    }

    /// Looks an event up, and takes it down as `op` if it is new. `body` is a hash of what was sent.
    ///
    /// Whoever then fails to take the event calls `forget`.
    pub fn check_or_insert(
        &mut self,
        now_ms: u64,
        key: EventKey,
        body: u32,
        op: TakenOperation,
    ) -> Dedup {
        self.expire(now_ms, Self::EXPIRED_A_CALL);
        if let Some(at) = self.find(key) {
            let entry = self.entries.at(at);
            if !self.is_expired(entry) {
                let taken = entry.operation();
                return if entry.body == body {
                    Dedup::Same(taken)
                } else {
                    Dedup::Reused(taken)
                };
            }
            self.forget_at(at);
        }
        self.insert(PackedEntry::new(key, body, op, self.now));
        Dedup::New
    }

    /// Forgets that the event became `op`: it was not taken after all. False if it is not known so.
    pub fn forget(&mut self, key: EventKey, op: TakenOperation) -> bool {
        let Some(at) = self.find(key) else {
            return false;
        };
        if self.entries.at(at).operation() != op {
            return false;
        }
        self.forget_at(at);
        true
    }

    /// Lets go of at most `count_max` entries that left the window, the oldest first.
    pub fn expire(&mut self, now_ms: u64, count_max: usize) {
        self.now = self.now.max(now_ms / TICK_MS);
        for _ in 0..count_max {
            match self.entries.front() {
                Some(entry) if entry.is_forgotten() || self.is_expired(entry) => self.drop_front(),
                _ => break,
            }
        }
        self.shrink_if_sparse();
    }

    /// Takes down what checkpoints kept, of all shards at once, since the bounds count from the oldest.
    /// Times ahead of `now_ms` count as now. Of two entries with one key the later one is kept.
    ///
    /// # Panics
    /// If anything is remembered already.
    pub fn restore(&mut self, now_ms: u64, mut entries: Vec<DedupEntry>) {
        assert!(self.is_empty(), "restored over what is remembered");
        self.now = self.now.max(now_ms / TICK_MS);
        entries.sort_by_key(|entry| entry.accepted_at_ms);
        for entry in entries {
            let accepted = entry.accepted_at_ms.min(now_ms) / TICK_MS;
            let packed = PackedEntry::new(entry.key, entry.body, entry.operation, accepted);
            if self.is_expired(&packed) {
                continue;
            }
            if let Some(older) = self.find(entry.key) {
                self.forget_at(older);
            }
            self.insert(packed);
        }
    }

    /// What a checkpoint keeps of the records that `owned` tells by their hash. Passes all entries:
    /// 5 MB for a stripe of 156,000.
    pub fn entries_of(&self, owned: impl Fn(u64) -> bool) -> impl Iterator<Item = DedupEntry> {
        let live = self.entries.iter().filter(|entry| !entry.is_forgotten());
        let own = live.filter(move |entry| owned(entry.operation().record));
        own.filter(|entry| !self.is_expired(entry))
            .map(|entry| entry.unpack(self.now))
    }

    /// Events remembered, of which some may have left the window.
    pub fn len(&self) -> usize {
        self.known
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.known == 0
    }

    /// Heap memory held.
    pub fn memory_bytes(&self) -> usize {
        self.entries.memory_bytes() + self.keys.memory_bytes()
    }

    fn find(&self, key: EventKey) -> Option<u64> {
        let entries = &self.entries;
        self.keys.find(key, |low| {
            let at = entries.position(low, self.keys.position_bits());
            (entries.at(at).key == key.get()).then_some(at)
        })
    }

    fn insert(&mut self, entry: PackedEntry) {
        if self.entries.len() == self.count_max as usize {
            self.drop_front();
        }
        if self.keys.is_full_with(self.known + 1) {
            self.rebuild(self.keys.grown());
        }
        let key = EventKey::from_raw(entry.key);
        let at = self.entries.push(entry);
        self.keys.insert(key, at);
        self.known += 1;
    }

    fn forget_at(&mut self, at: u64) {
        let entry = self.entries.at_mut(at);
        let key = EventKey::from_raw(entry.key);
        *entry = PackedEntry::FORGOTTEN;
        self.keys.remove(key, at);
        self.known -= 1;
    }

    fn drop_front(&mut self) {
        let Some((at, entry)) = self.entries.pop_front() else {
            return;
        };
        if !entry.is_forgotten() {
            self.keys.remove(EventKey::from_raw(entry.key), at);
            self.known -= 1;
        }
    }

    fn shrink_if_sparse(&mut self) {
        if let Some(shrunk) = self.keys.shrunk_for(self.known) {
            self.rebuild(shrunk);
        }
    }

    fn rebuild(&mut self, mut keys: KeyTable) {
        for (at, entry) in self.entries.positions() {
            if !entry.is_forgotten() {
                keys.insert(EventKey::from_raw(entry.key), at);
            }
        }
        self.keys = keys;
    }

    fn is_expired(&self, entry: &PackedEntry) -> bool {
        entry.age(self.now) > self.window_ticks
    }
}
