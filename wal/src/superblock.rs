//! The superblock: which data directory this is, and which logs it has.

use std::fmt;

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::InstanceId;
use crate::two_slots::SlotFormat;

/// The superblock's file.
pub const SUPERBLOCK_FILE: &str = SUPERBLOCK.name;

pub(crate) const SUPERBLOCK: SlotFormat = SlotFormat {
    name: "superblock",
    magic: *b"SYNCLSUP",
    version: 1,
};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Body {
    instance: [u8; 16],
    hash_key: [u8; 16],
    run_epoch: U64,
    generation: U16,
    shards: U16,
    clean: u8,
    reserved: [u8; 3],
}

/// The logs that hold the data: one per shard. Another number of shards is another layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Counts the layouts, from 1.
    pub generation: u16,
    /// The number of logs.
    pub shards: u16,
}

/// What the superblock says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Superblock {
    /// Tells this data directory from every other.
    pub instance: InstanceId,
    /// The key under which record ids are hashed to virtual shards.
    pub hash_key: [u8; 16],
    /// Counts the starts.
    pub run_epoch: u64,
    /// The logs; none before the first layout was committed.
    pub layout: Option<Layout>,
    /// The last run was closed.
    pub clean: bool,
}

impl fmt::Debug for Superblock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The hash key stays out of logs: who knows it can aim records at one shard.
        f.debug_struct("Superblock")
            .field("instance", &self.instance)
            .field("run_epoch", &self.run_epoch)
            .field("layout", &self.layout)
            .field("clean", &self.clean)
            .finish_non_exhaustive()
    }
}

impl Superblock {
    pub(crate) fn encode(&self) -> impl AsRef<[u8]> + use<> {
        let layout = self.layout.unwrap_or(Layout {
            generation: 0,
            shards: 0,
        });
        let body = Body {
            instance: self.instance.0,
            hash_key: self.hash_key,
            run_epoch: U64::new(self.run_epoch),
            generation: U16::new(layout.generation),
            shards: U16::new(layout.shards),
            clean: u8::from(self.clean),
            reserved: [0; 3],
        };
        let mut bytes = [0; size_of::<Body>()];
        bytes.copy_from_slice(body.as_bytes());
        bytes
    }

    /// None when the body verified and yet says what no writer of this format says.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Superblock> {
        let (body, _) = Body::read_from_prefix(bytes).ok()?;
        let layout = match (body.generation.get(), body.shards.get()) {
            (0, 0) => None,
            (0, _) | (_, 0) => return None,
            (generation, shards) => Some(Layout { generation, shards }),
        };
        Some(Superblock {
            instance: InstanceId(body.instance),
            hash_key: body.hash_key,
            run_epoch: body.run_epoch.get(),
            layout,
            clean: body.clean != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_a_superblock_are_fixed() {
        let superblock = Superblock {
            instance: InstanceId(*b"instance-instanc"),
            hash_key: *b"hash-key-hash-ke",
            run_epoch: 0x0102,
            layout: Some(Layout {
                generation: 3,
                shards: 8,
            }),
            clean: true,
        };
        let bytes = superblock.encode();
        let mut expected = b"instance-instanchash-key-hash-ke".to_vec();
        expected.extend_from_slice(&[2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 8, 0, 1, 0, 0, 0]);
        assert_eq!(bytes.as_ref(), expected);
        assert!(Superblock::parse(bytes.as_ref()) == Some(superblock));
    }

    #[test]
    fn a_generation_without_shards_is_none_of_ours() {
        let mut bytes = [0; 48];
        bytes[40] = 1;
        assert!(Superblock::parse(&bytes).is_none());
    }
}
