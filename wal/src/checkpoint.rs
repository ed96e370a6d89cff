//! Checkpoints: the caller's state up to a position, so that a start replays only what follows.
//!
//! A checkpoint is a file of sections, each with a checksum over its place and bytes. It counts
//! once it has its name: it is written under another one, synced, and renamed. Two generations
//! are kept, and the log behind the older one: should the newest be damaged, the start falls
//! back. Writing one needs nothing of the log and may happen on any thread.

mod reader;
mod writer;

use std::io;
use std::path::PathBuf;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::segment::SEQ_MAX;
use crate::{InstanceId, LogId, Lsn};
pub use reader::{CheckpointVisit, Loaded, load_newest, set_aside, verify};
pub use writer::{CheckpointWriter, Finished};

/// The newest checkpoint format this build writes and reads.
pub const CHECKPOINT_VERSION: u32 = 1;

/// The largest section: what a reader has to hold. Larger things take several.
pub const SECTION_BYTES_MAX: usize = 1024 * 1024;

/// How many generations are kept.
pub const CHECKPOINTS_KEPT: usize = 2;

const CHECKPOINT_MAGIC: [u8; 8] = *b"SYNCLCKP";
const CHECKPOINT_SUFFIX: &str = ".ckpt";
const WRITING_SUFFIX: &str = ".ckpt.new";

/// The kind of the last section, which says how many there were.
const FOOTER_KIND: u16 = u16::MAX;

const HEADER_BYTES: usize = size_of::<Header>();
const SECTION_HEADER_BYTES: usize = size_of::<SectionHeader>();
const FOOTER_BYTES: usize = size_of::<Footer>();

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Header {
    magic: [u8; 8],
    version: U32,
    log: U32,
    instance: [u8; 16],
    number: U64,
    covers: U64,
    wall_ms: U64,
    reserved: U32,
    /// Over the 60 bytes before it.
    crc: U32,
}

const _: () = assert!(HEADER_BYTES == 64);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct SectionHeader {
    kind: U16,
    reserved: U16,
    len: U32,
    /// Over the checkpoint's number, the section's offset in the file, this header without the
    /// checksum, and the bytes: a section counts at its own place only.
    crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
struct Footer {
    sections: U64,
    /// The file's length, footer counted.
    file_bytes: U64,
}

/// What a checkpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHead {
    /// The log it belongs to.
    pub log: LogId,
    /// The data directory it belongs to.
    pub instance: InstanceId,
    /// Counts the log's checkpoints.
    pub number: u64,
    /// It holds the effect of every frame below; replay starts here.
    pub covers: Lsn,
    /// When it was begun, milliseconds since 1970.
    pub wall_ms: u64,
}

/// Why one checkpoint file does not count.
#[derive(Debug, Error)]
pub enum CheckpointFault {
    /// The header is damaged or of another log.
    #[error("the header is damaged")]
    Header,
    /// A section, or the end of the file, is damaged.
    #[error("damaged at {offset}")]
    Damaged {
        /// The place in the file.
        offset: u64,
    },
    /// The visitor refused a section.
    #[error("the section at {offset} was refused")]
    Refused {
        /// The place in the file.
        offset: u64,
        /// Why.
        #[source]
        source: crate::VisitError,
    },
}

/// Why no checkpoint was written or loaded.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// There are checkpoints, and none counts.
    #[error("no checkpoint verifies; the newest is {path}")]
    NoneValid {
        /// The newest one.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        fault: CheckpointFault,
    },
    /// A newer build wrote it. Nothing was changed.
    #[error("{path} has format {found}, newer than this build reads")]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A section is above the bound, or of the kind that ends the file. Nothing was written.
    #[error("a section of kind {kind} with {bytes} bytes is not allowed")]
    Section {
        /// Its kind.
        kind: u16,
        /// Its length.
        bytes: usize,
    },
    /// The disk refused. A checkpoint being written does not count; the ones before do.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

enum HeaderFault {
    Damaged,
    Version(u32),
}

impl CheckpointHead {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut header = Header {
            magic: CHECKPOINT_MAGIC,
            version: U32::new(CHECKPOINT_VERSION),
            log: U32::new(self.log.get()),
            instance: self.instance.0,
            number: U64::new(self.number),
            covers: U64::new(self.covers.get()),
            wall_ms: U64::new(self.wall_ms),
            reserved: U32::ZERO,
            crc: U32::ZERO,
        };
        header.crc = U32::new(crc32c::crc32c(&header.as_bytes()[..HEADER_BYTES - 4]));
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(header.as_bytes());
        bytes
    }

    fn parse(bytes: &[u8]) -> Result<CheckpointHead, HeaderFault> {
        let (header, _) = Header::read_from_prefix(bytes).map_err(|_| HeaderFault::Damaged)?;
        let crc = crc32c::crc32c(&header.as_bytes()[..HEADER_BYTES - 4]);
        if header.magic != CHECKPOINT_MAGIC || header.crc.get() != crc {
            return Err(HeaderFault::Damaged);
        }
        if header.version.get() != CHECKPOINT_VERSION {
            return Err(HeaderFault::Version(header.version.get()));
        }
        Ok(CheckpointHead {
            log: LogId::from_raw(header.log.get()),
            instance: InstanceId(header.instance),
            number: header.number.get(),
            covers: Lsn::checked(header.covers.get()).ok_or(HeaderFault::Damaged)?,
            wall_ms: header.wall_ms.get(),
        })
    }
}

fn file_name(number: u64) -> String {
    format!("{number:010}{CHECKPOINT_SUFFIX}")
}

/// The checkpoint's number, for the name of a finished one.
fn parse_file_name(name: &str) -> Option<u64> {
    let number = name.strip_suffix(CHECKPOINT_SUFFIX)?.parse().ok()?;
    (file_name(number) == name && number <= SEQ_MAX).then_some(number)
}

fn section_crc(number: u64, offset: u64, kind: u16, parts: &[&[u8]]) -> u32 {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let mut seed = [0; 24];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    seed[8..16].copy_from_slice(&offset.to_le_bytes());
    seed[16..18].copy_from_slice(&kind.to_le_bytes());
    seed[20..24].copy_from_slice(&(len as u32).to_le_bytes());
    parts.iter().fold(crc32c::crc32c(&seed), |crc, part| {
        crc32c::crc32c_append(crc, part)
    })
}
