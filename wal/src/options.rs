//! How a log is laid out and bounded.

use thiserror::Error;

use crate::block::{BLOCK_BYTES_MAX, block_bytes};
use crate::frame::{FRAME_PAYLOAD_BYTES_MAX, frame_bytes};
use crate::page::PAGE_BYTES;
use crate::segment::SEGMENT_HEADER_BYTES;
use crate::{InstanceId, LogId};

/// The smallest segment that holds any frame: what is made on a nearly full disk.
pub const SEGMENT_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// The largest segment: its release frees much at once, its verification takes seconds.
pub const SEGMENT_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

const _: () = assert!(SEGMENT_BYTES_MIN >= SEGMENT_HEADER_BYTES + BLOCK_BYTES_MAX as u64);

/// What makes a log this one, and how it is to be opened.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The log.
    pub log: LogId,
    /// The data directory it belongs to.
    pub instance: InstanceId,
    /// Whether the log may be new.
    pub mode: OpenMode,
    /// What an acknowledgement survives.
    pub durability: Durability,
    /// Its bounds.
    pub limits: LogLimits,
    /// Where the salts of new segments come from: random, new at each start.
    pub salt_seed: u64,
}

/// Whether a log may be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Create the log when its folder holds nothing of one.
    Create,
    /// The log exists; finding nothing is an error.
    Existing,
}

/// What a commit survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power loss: each commit is on the medium before it counts.
    Fsync,
    /// The end of the process only. Commits reach the medium when a segment ends, when the log
    /// is sealed, or when the kernel likes; after a power loss the tail may be cut.
    Os,
}

/// The bounds of a log, all in bytes.
#[derive(Clone, Debug)]
pub struct LogLimits {
    /// A segment's size; it shrinks when the disk is small (an eighth of what is free at most).
    pub segment_bytes: u64,
    /// The size below which a segment does not shrink.
    pub segment_bytes_min: u64,
    /// The largest payload of one frame.
    pub payload_bytes_max: usize,
    /// A block is closed when it reaches this; a frame larger than it gets its own block.
    pub block_bytes: usize,
    /// Frames appended and not yet committed; intake is told `Full` above it, everything above
    /// twice that.
    pub staged_bytes_max: usize,
    /// Committed blocks kept in memory to be read.
    pub tail_cache_bytes: usize,
    /// Older bytes kept in memory to be read again.
    pub read_cache_bytes: usize,
    /// Prepared space that intake never takes: for outcomes and compaction on a full disk.
    pub outcome_reserve_bytes: u64,
    /// Free space that segments never take: for checkpoints and the rest of the system.
    pub free_bytes_min: u64,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        const MIB: u64 = 1024 * 1024;
        LogLimits {
            segment_bytes: 64 * MIB,
            segment_bytes_min: SEGMENT_BYTES_MIN,
            payload_bytes_max: FRAME_PAYLOAD_BYTES_MAX,
            block_bytes: MIB as usize,
            staged_bytes_max: 8 * MIB as usize,
            tail_cache_bytes: 16 * MIB as usize,
            read_cache_bytes: 4 * MIB as usize,
            outcome_reserve_bytes: 8 * MIB,
            free_bytes_min: 32 * MIB,
        }
    }
}

/// Limits that cannot work together. Nothing was touched.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// The payload bound is above the format's.
    #[error("a payload has at most {FRAME_PAYLOAD_BYTES_MAX} bytes")]
    Payload,
    /// A segment size is no multiple of the page or too large, or the smallest is above the
    /// usual one.
    #[error(
        "segments have up to {SEGMENT_BYTES_MAX} bytes in whole pages, the smallest not above the usual"
    )]
    SegmentSize,
    /// The smallest segment does not hold the largest frame.
    #[error("a segment of {segment_bytes_min} bytes does not hold a frame of {payload_bytes_max}")]
    SegmentTooSmall {
        /// The smallest segment.
        segment_bytes_min: u64,
        /// The largest payload.
        payload_bytes_max: usize,
    },
    /// The block bound is below a page or above the format's.
    #[error("a block has {PAGE_BYTES} to {BLOCK_BYTES_MAX} bytes")]
    Block,
}

impl LogLimits {
    /// The usual limits for a segment size that a person chose: rounded to whole pages, not
    /// below [`SEGMENT_BYTES_MIN`]. The reserve is the usual one: small segments are prepared in
    /// the number that holds it.
    #[must_use]
    pub fn for_segment_bytes(segment_bytes: u64) -> LogLimits {
        let usual = LogLimits::default();
        let page = PAGE_BYTES as u64;
        let segment_bytes =
            (segment_bytes / page * page).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        LogLimits {
            segment_bytes,
            ..usual
        }
    }

    /// The largest block under these limits.
    pub(crate) fn block_bytes_max(&self) -> usize {
        self.block_bytes
            .max(block_bytes(frame_bytes(self.payload_bytes_max)))
    }

    /// What must be prepared for intake of `bytes` to leave the reserve alone: a block's header
    /// and padding come on top.
    pub(crate) fn intake_room_bytes(&self, bytes: u64) -> u64 {
        self.outcome_reserve_bytes + bytes + 2 * PAGE_BYTES as u64
    }

    pub(crate) fn check(&self) -> Result<(), LimitsError> {
        let page = PAGE_BYTES as u64;
        if self.payload_bytes_max > FRAME_PAYLOAD_BYTES_MAX {
            return Err(LimitsError::Payload);
        }
        if !self.segment_bytes.is_multiple_of(page)
            || !self.segment_bytes_min.is_multiple_of(page)
            || self.segment_bytes_min > self.segment_bytes
            || self.segment_bytes > SEGMENT_BYTES_MAX
        {
            return Err(LimitsError::SegmentSize);
        }
        if !(PAGE_BYTES..=BLOCK_BYTES_MAX).contains(&self.block_bytes)
            || !self.block_bytes.is_multiple_of(PAGE_BYTES)
        {
            return Err(LimitsError::Block);
        }
        if self.segment_bytes_min < SEGMENT_HEADER_BYTES + self.block_bytes_max() as u64 {
            return Err(LimitsError::SegmentTooSmall {
                segment_bytes_min: self.segment_bytes_min,
                payload_bytes_max: self.payload_bytes_max,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work_together() {
        assert_eq!(LogLimits::default().check(), Ok(()));
    }

    #[test]
    fn any_segment_size_a_person_may_choose_works() {
        for bytes in [0, 1, 5_000_000, 64 << 20, u64::MAX] {
            assert_eq!(
                LogLimits::for_segment_bytes(bytes).check(),
                Ok(()),
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_segment_that_cannot_hold_a_frame_is_refused() {
        let limits = LogLimits {
            segment_bytes: 64 * 1024,
            segment_bytes_min: 64 * 1024,
            outcome_reserve_bytes: 0,
            ..LogLimits::default()
        };
        assert!(matches!(
            limits.check(),
            Err(LimitsError::SegmentTooSmall { .. })
        ));
    }
}
