//! Names of records and operations as numbers: keyed hashes, virtual shards, operation ids.

use std::fmt;
use std::hash::Hasher;
use std::str::FromStr;

use siphasher::sip::SipHasher13;
use thiserror::Error;

/// Virtual shards of a data directory. Fixed for good: the unit of ownership and
/// of moving data, so that changing the number of threads rehashes nothing.
pub const VSHARD_COUNT: usize = 1 << VSHARD_BITS;
const VSHARD_BITS: u32 = 10;
/// Bits of a [`RecordHash`] below its virtual shard.
const TAG_BITS: u32 = 64 - VSHARD_BITS;

/// The secret of the data directory that keeps strangers from choosing record ids
/// which all land in one shard.
#[derive(Clone, Copy)]
pub struct HashKey(pub [u8; 16]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// The hash of a record. Its virtual shard depends on `record_id` alone, so that all
    /// objects of one id are asked in one place.
    #[must_use]
    pub fn record(&self, object: &str, record_id: &str) -> RecordHash {
        let vshard = self.vshard(record_id);
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_usize(object.len());
        hasher.write(object.as_bytes());
        hasher.write(record_id.as_bytes());
        RecordHash((u64::from(vshard.0) << TAG_BITS) | (hasher.finish() >> VSHARD_BITS))
    }

    /// What tells the records of one object and tenant from others, where calls are shared out.
    #[must_use]
    pub fn flow(&self, object: &str, tenant: Option<&str>) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_usize(object.len());
        hasher.write(object.as_bytes());
        hasher.write(tenant.unwrap_or_default().as_bytes());
        hasher.finish()
    }

    /// The virtual shard of a record id.
    #[must_use]
    pub fn vshard(&self, record_id: &str) -> VShard {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(record_id.as_bytes());
        VShard((hasher.finish() >> TAG_BITS) as u16)
    }
}

/// A virtual shard, below [`VSHARD_COUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VShard(u16);

impl VShard {
    /// The virtual shard with this number, if there is one.
    #[must_use]
    pub fn new(number: usize) -> Option<Self> {
        (number < VSHARD_COUNT).then_some(Self(number as u16))
    }

    /// Its number.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The shard that owns it when `shards` share all of them: contiguous ranges, as even as can be.
    #[must_use]
    pub fn owner(self, shards: usize) -> usize {
        self.index() * shards / VSHARD_COUNT
    }
}

/// Keyed hash of (object, record id): virtual shard in the top bits, tag below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordHash(pub u64);

impl RecordHash {
    /// The virtual shard this record lives in.
    #[must_use]
    pub fn vshard(self) -> VShard {
        VShard((self.0 >> TAG_BITS) as u16)
    }

    /// The 48 bits that tell records of one virtual shard apart in the index. Two records
    /// may share them; their full names are compared in the log.
    #[must_use]
    pub fn tag(self) -> u64 {
        (self.0 << VSHARD_BITS) >> 16
    }
}

/// Order and identity of an operation within its record: start of the engine in the
/// upper 24 bits, a counter below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OperationSeq(pub u64);

impl OperationSeq {
    /// Bits of the counter within one run.
    pub const COUNTER_BITS: u32 = 40;

    /// The first sequence of run number `epoch` (counted in the data directory).
    ///
    /// The counter does not begin at the same place in every run: a lane tells its operations
    /// apart by the low half, and may hold some of several runs. Steps of the golden ratio keep
    /// the beginnings of n runs about 2^32 / n apart.
    #[must_use]
    pub fn first_of_run(epoch: u64) -> Self {
        let first = (epoch as u32).wrapping_mul(0x9e37_79b1) & !(Self::STEP as u32 - 1);
        Self((epoch << Self::COUNTER_BITS) | u64::from(first.max(Self::STEP as u32)))
    }

    /// The run in which it was accepted.
    #[must_use]
    pub fn run(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// From one accepted operation's number to the next one's. Those between are
    /// [`Self::derived`].
    pub const STEP: u64 = 4;

    /// The number of what comes of this operation: one at a time in each lane. Of a merge comes a look
    /// at what stays, of that a change, and of that a delete where the record is gone. What comes after
    /// that has the last number again, as has what several accounts find out one after the other:
    /// [`Self::may_come_again`].
    #[must_use]
    pub fn derived(self) -> Self {
        let last = self.0 | (Self::STEP - 1);
        Self((self.0 + 1).min(last))
    }

    /// Whether another operation of the record may have had this number and have ended: one that came
    /// of what came of the same operation, or of it at another account.
    #[must_use]
    pub fn may_come_again(self) -> bool {
        self.0 % Self::STEP > 1
    }

    /// The low half, kept in the index.
    #[must_use]
    pub fn low(self) -> u32 {
        self.0 as u32
    }
}

/// The public id of an operation: says where its record lives, so no table of ids is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId {
    /// The record it changes.
    pub record: RecordHash,
    /// Its place among all operations.
    pub seq: OperationSeq,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const TEXT_LEN: usize = 26;

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = (u128::from(self.seq.0) << 64) | u128::from(self.record.0);
        let mut text = [0_u8; TEXT_LEN];
        for digit in text.iter_mut().rev() {
            *digit = ALPHABET[(value & 31) as usize];
            value >>= 5;
        }
        f.write_str(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

/// Text that is no operation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not an operation id")]
pub struct NotAnOperationId;

impl FromStr for OperationId {
    type Err = NotAnOperationId;

    fn from_str(text: &str) -> Result<Self, NotAnOperationId> {
        if text.len() != TEXT_LEN || text.as_bytes()[0] > b'7' {
            return Err(NotAnOperationId);
        }
        let mut value = 0_u128;
        for byte in text.bytes() {
            let digit = ALPHABET
                .iter()
                .position(|&c| c == byte.to_ascii_lowercase())
                .ok_or(NotAnOperationId)?;
            value = (value << 5) | digit as u128;
        }
        Ok(Self {
            record: RecordHash(value as u64),
            seq: OperationSeq((value >> 64) as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: HashKey = HashKey(*b"0123456789abcdef");

    #[test]
    fn operation_ids_survive_their_text_form() {
        for (record, seq) in [(0, 0), (u64::MAX, u64::MAX), (0x1234_5678_9abc_def0, 42)] {
            let id = OperationId {
                record: RecordHash(record),
                seq: OperationSeq(seq),
            };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in [
            "",
            "x",
            "zzzzzzzzzzzzzzzzzzzzzzzzzz",
            "0000000000000000000000000u",
            "ü0000000000000000000000000",
        ] {
            assert_eq!(text.parse::<OperationId>(), Err(NotAnOperationId), "{text}");
        }
    }

    #[test]
    fn operation_ids_of_one_run_sort_by_acceptance() {
        let id = |seq| {
            OperationId {
                record: RecordHash(9),
                seq: OperationSeq(seq),
            }
            .to_string()
        };
        assert!(id(1) < id(2) && id(31) < id(32) && id(1 << 40) > id((1 << 40) - 1));
    }

    #[test]
    fn all_objects_of_a_record_id_share_a_virtual_shard() {
        let (a, b) = (KEY.record("contact", "7"), KEY.record("account", "7"));
        assert_eq!(a.vshard(), b.vshard());
        assert_eq!(a.vshard(), KEY.vshard("7"));
        assert_ne!(a.tag(), b.tag());
    }

    #[test]
    fn virtual_shards_are_shared_evenly_in_ranges() {
        for shards in 1..=64 {
            let mut owned = vec![0; shards];
            for number in 0..VSHARD_COUNT {
                owned[VShard::new(number).unwrap().owner(shards)] += 1;
            }
            let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
            assert!(most - least <= 1, "{shards} shards: {least}..{most}");
        }
    }
}
