//! One event that was taken, in 32 bytes.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes keys of event ids, with a seed from the data directory so that no producer can aim at
/// another's keys.
#[derive(Clone, Copy, Debug)]
pub struct EventKeys {
    seed: u64,
}

/// 64 bits that stand for an event id within its scope. Among 10 million events, another one has the
/// key of one of them with a probability of 5 × 10⁻¹³.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventKey(u64);

/// The operation that an event became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOperation {
    /// Its record's hash.
    pub record: u64,
    /// Its sequence; never `u64::MAX`.
    pub sequence: u64,
}

/// An event as checkpoints keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupEntry {
    /// Its id.
    pub key: EventKey,
    /// A hash of its body.
    pub body: u32,
    /// What it became.
    pub operation: TakenOperation,
    /// When it was taken, to 64 ms.
    pub accepted_at_ms: u64,
}

/// An event as the index keeps it.
#[derive(Clone, Debug)]
pub(super) struct PackedEntry {
    pub(super) key: u64,
    record: u64,
    /// `u64::MAX` when forgotten.
    sequence: u64,
    pub(super) body: u32,
    /// When it was taken, in ticks of `TICK_MS`: the low 32 bits, which tell 8.7 years apart.
    accepted: u32,
}

const _: () = assert!(size_of::<PackedEntry>() == 32);

/// The resolution of an entry's age.
pub(super) const TICK_MS: u64 = 64;

impl EventKeys {
    /// Keys by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The key of `event_id` within `scope`: a producer or an API key.
    pub fn key(&self, scope: &[u8], event_id: &[u8]) -> EventKey {
        EventKey(xxh3_64_with_seed(
            event_id,
            xxh3_64_with_seed(scope, self.seed),
        ))
    }
}

impl EventKey {
    /// The key that `get` told.
    pub const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// As a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// One of `stripes`, from bits that an index does not use.
    pub const fn stripe(self, stripes: u16) -> usize {
        ((((self.0 >> 16) & 0xffff) * stripes as u64) >> 16) as usize
    }

    /// The upper half, which places the key.
    pub(super) const fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The low 16 bits, which tell keys of one place apart.
    pub(super) const fn low(self) -> u32 {
        self.0 as u16 as u32
    }
}

impl PackedEntry {
    /// In place of an entry that was taken out of the middle. No sequence is as large.
    pub(super) const FORGOTTEN: Self = Self {
        key: 0,
        record: 0,
        sequence: u64::MAX,
        body: 0,
        accepted: 0,
    };

    pub(super) fn new(key: EventKey, body: u32, op: TakenOperation, accepted: u64) -> Self {
        assert!(
            op.sequence != u64::MAX,
            "the one sequence that means forgotten"
        );
        Self {
            key: key.0,
            record: op.record,
            sequence: op.sequence,
            body,
            accepted: accepted as u32,
        }
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.sequence == u64::MAX
    }

    pub(super) fn operation(&self) -> TakenOperation {
        TakenOperation {
            record: self.record,
            sequence: self.sequence,
        }
    }

    /// Its age in ticks, when it is `now`.
    pub(super) fn age(&self, now: u64) -> u32 {
        (now as u32).wrapping_sub(self.accepted)
    }

    pub(super) fn unpack(&self, now: u64) -> DedupEntry {
        DedupEntry {
            key: EventKey(self.key),
            body: self.body,
            operation: self.operation(),
            accepted_at_ms: (now - u64::from(self.age(now))) * TICK_MS,
        }
    }
}
