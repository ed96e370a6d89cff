//! The end of the last segment: untouched space, a torn block, or damage.

use std::path::PathBuf;

use super::open_error::{Corruption, Damage, OpenError, io_error};
use crate::Lsn;
use crate::block::{BlockFault, BlockHead};
use crate::log::SegmentEntry;
use crate::page::PAGE_BYTES;
use crate::scan::{BlockError, BlockReader};
use crate::segment::SegmentHead;
use crate::storage::{File, Storage};

/// Bytes cut off at the end of the log: a commit that was never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where in it the log ends now.
    pub offset: u64,
    /// The same as a position.
    pub lsn: Lsn,
    /// From there to the last byte that is not zero.
    pub bytes: u64,
    /// What did not verify.
    pub fault: BlockFault,
}

/// The last segment and how it ends.
pub(crate) struct Tail {
    pub(crate) entry: SegmentEntry,
    pub(crate) next_seq: u64,
    /// Its last block is a seal.
    pub(crate) sealed: bool,
    pub(crate) torn: Option<TornTail>,
}

/// Judges what lies behind the last valid block; it is above the watermark.
pub(crate) fn classify<S: Storage>(
    storage: &S,
    reader: &mut BlockReader<S::File>,
    head: &SegmentHead,
    fault: BlockFault,
) -> Result<Option<TornTail>, OpenError> {
    let end = reader.position();
    match fault {
        BlockFault::Version(found) => {
            let path = storage.path(&head.number.file_name());
            return Err(OpenError::NewerFormat {
                path,
                found: u32::from(found),
            });
        }
        // The space was zero before: no part of a torn write is a valid header of another block.
        BlockFault::OtherLog(_)
        | BlockFault::OtherSegment
        | BlockFault::OtherPlace(_)
        | BlockFault::Seq { .. }
        | BlockFault::Chain => return Err(damaged(storage, head, end, end, fault)),
        BlockFault::Blank
        | BlockFault::Magic
        | BlockFault::HeaderCrc
        | BlockFault::Malformed
        | BlockFault::PayloadCrc
        | BlockFault::Frame(_) => {}
    }
    let mut dirty_to = end;
    let mut address = end;
    while address < head.limit() {
        let page = page(storage, reader, head, address)?;
        if page.iter().any(|byte| *byte != 0) {
            dirty_to = address + PAGE_BYTES as u64;
            if let Ok(later) = BlockHead::parse(page)
                && is_ours(&later, head, address)
                && later.durable_lsn.get() > end
            {
                return Err(damaged(storage, head, end, later.durable_lsn.get(), fault));
            }
        }
        address += PAGE_BYTES as u64;
    }
    if dirty_to == end {
        return Ok(None);
    }
    Ok(Some(TornTail {
        path: storage.path(&head.number.file_name()),
        offset: end - head.base.get(),
        lsn: Lsn::new(end),
        bytes: dirty_to - end,
        fault,
    }))
}

/// Written into this segment at this place: a later commit, so all before it was durable.
fn is_ours(block: &BlockHead, head: &SegmentHead, address: u64) -> bool {
    block.log == head.log && block.salt == head.salt && block.lsn.get() == address
}

fn page<'a, S: Storage>(
    storage: &S,
    reader: &'a mut BlockReader<S::File>,
    head: &SegmentHead,
    address: u64,
) -> Result<&'a [u8], OpenError>
where
    S::File: File,
{
    reader.page(address).map_err(|error| match error {
        BlockError::Io(source) => io_error(storage, "read", &head.number.file_name())(source),
        BlockError::Fault(fault) => damaged(storage, head, address, address, fault),
    })
}

pub(crate) fn damaged<S: Storage>(
    storage: &S,
    head: &SegmentHead,
    from: u64,
    to: u64,
    fault: BlockFault,
) -> OpenError {
    let path = storage.path(&head.number.file_name());
    if let BlockFault::Version(found) = fault {
        return OpenError::NewerFormat {
            path,
            found: u32::from(found),
        };
    }
    OpenError::Corrupt(Box::new(Corruption {
        path,
        offset: from - head.base.get(),
        from: Lsn::new(from),
        to: Lsn::new(to.max(from)),
        damage: Damage::Block(fault),
    }))
}
