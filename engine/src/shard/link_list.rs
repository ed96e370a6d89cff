//! The links of an object, read from the log slice by slice.

use super::Shard;
use crate::id::{VSHARD_COUNT, VShard};
use crate::index::lsn;
use crate::journal::Journal;
use crate::lane;
use crate::record::{RecordState, StateFrame};
use crate::record_table::RecordTag;

/// Records looked at in one slice at most: each costs a read of the log.
const RECORDS_PER_SLICE: usize = 512;

/// Which links are meant; what is absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LinkFilter {
    /// Of this object.
    pub object: Option<String>,
    /// To this account.
    pub account: Option<String>,
}

/// A record that exists at an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkRow {
    /// Local object.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// The account.
    pub account: String,
    /// The account's key.
    pub remote_id: String,
    /// Something of the record waits for the account or for System A, or is under way.
    pub waits: bool,
}

/// Where a list of records goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkCursor {
    vshard: VShard,
    tag: RecordTag,
}

/// A part of the links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSlice {
    /// In the order of the index.
    pub links: Vec<LinkRow>,
    /// Records whose state could not be read.
    pub unreadable: u64,
    /// Where to go on; `None` at this shard's end.
    pub next: Option<LinkCursor>,
}

impl LinkCursor {
    /// As one number, which orders cursors as the list is ordered.
    #[must_use]
    pub fn to_number(self) -> u64 {
        (self.vshard.index() as u64) << TAG_BITS | self.tag.get()
    }

    /// What [`LinkCursor::to_number`] made.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        let vshard = usize::try_from(number >> TAG_BITS).ok()?;
        Some(Self {
            vshard: VShard::new(vshard)?,
            tag: RecordTag::from_hash(number),
        })
    }

    /// Before the first record of a virtual shard.
    #[must_use]
    pub fn first_of(vshard: VShard) -> Self {
        let tag = RecordTag::from_hash(0);
        Self { vshard, tag }
    }

    /// The virtual shard whose records come next.
    #[must_use]
    pub fn vshard(self) -> VShard {
        self.vshard
    }
}

/// Bits of a record's tag, as of [`crate::id::RecordHash`].
const TAG_BITS: u32 = 48;

impl<T> Shard<T> {
    /// A slice of the links: those of up to `records_max` records. Records that were deleted and
    /// those that never existed have none.
    pub fn links_in(
        &mut self,
        journal: &mut impl Journal,
        filter: &LinkFilter,
        from: Option<LinkCursor>,
        records_max: usize,
    ) -> LinkSlice {
        let records_max = records_max.clamp(1, RECORDS_PER_SLICE);
        let mut slice = LinkSlice {
            links: Vec::new(),
            unreadable: 0,
            next: None,
        };
        let mut looked_at = 0;
        let first = from.map_or(0, |cursor| cursor.vshard.index());
        let mut tag = from.map_or(RecordTag::from_hash(0), |cursor| cursor.tag);
        let mut bytes = Vec::new();
        for vshard in (first..VSHARD_COUNT).filter_map(VShard::new) {
            let left = records_max - looked_at;
            let table = self.index.table_of(vshard);
            let records: Vec<_> = table
                .into_iter()
                .flat_map(|table| table.iter_from(tag))
                .take(left + 1)
                .collect();
            for (count, record) in records.into_iter().enumerate() {
                if count == left {
                    let tag = record.tag;
                    slice.next = Some(LinkCursor { vshard, tag });
                    return slice;
                }
                looked_at += 1;
                let Some(at) = record.position else { continue };
                let read = journal.read(lsn(at), &mut bytes).ok();
                match read.and_then(|_| StateFrame::decode(&bytes).ok()) {
                    Some(frame) => {
                        let states = frame.records.into_iter();
                        for state in states {
                            self.push_links(filter, state, &mut slice.links);
                        }
                    }
                    None => slice.unreadable += 1,
                }
            }
            tag = RecordTag::from_hash(0);
        }
        slice
    }

    fn push_links(&self, filter: &LinkFilter, mut state: RecordState, links: &mut Vec<LinkRow>) {
        let wanted = |wanted: &Option<String>, name: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == name)
        };
        // An account's own id of a record leads to the record, and is none.
        if !wanted(&filter.object, &state.object) || state.alias_of.is_some() {
            return;
        }
        state.leave_out_drops();
        for target in &state.targets {
            let Some(remote_id) = target.link.remote_id() else {
                continue;
            };
            if target.account == super::SYSTEM_A || !wanted(&filter.account, &target.account) {
                continue;
            }
            links.push(LinkRow {
                waits: self.waits_for(&state.object, &state.record_id, &target.account)
                    || self.waits_for(&state.object, &state.record_id, super::SYSTEM_A),
                object: state.object.clone(),
                record_id: state.record_id.clone(),
                account: target.account.clone(),
                remote_id: remote_id.to_owned(),
            });
        }
    }

    /// Whether something of a record waits for a target, or is under way.
    pub(super) fn waits_for(&self, object: &str, record_id: &str, account: &str) -> bool {
        let record = self.settings.hash_key.record(object, record_id);
        let slab = &self.index.slab;
        lane::lanes(slab, self.index.lanes_of(record)).any(|lane| {
            let target = usize::from(lane.target(slab).0);
            *self.accounts[target].name == *account
        })
    }
}
