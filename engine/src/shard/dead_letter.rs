//! Dead letters: which there are, and what the log says of each.

use std::sync::Arc;

use super::Shard;
use super::query::{Told, operation_name, record_id};
use crate::event::codec;
use crate::id::{OperationId, OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use crate::index::lsn;
use crate::journal::Journal;
use crate::merge::Held;
use crate::operation_slab::OpIndex;
use crate::record::Attempt;
use crate::state::Reason;

/// Dead letters looked at in one slice before it ends with its virtual shard: each costs two reads
/// of the log, and a shard's turn must stay short.
const LOOKED_AT_PER_SLICE: usize = 256;

/// One dead letter: an operation at one account.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadId {
    record: RecordHash,
    /// An operation's number within its record, as the index keeps it.
    sequence_low: u32,
    account: Arc<str>,
}

/// Which dead letters are meant. Absent parts match everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadFilter {
    /// Account name.
    pub provider: Option<String>,
    /// Local object.
    pub object: Option<String>,
    /// System A's key.
    pub record_id: Option<String>,
    /// The reason it died of.
    pub code: Option<String>,
    /// One operation.
    pub operation: Option<(RecordHash, OperationSeq)>,
    /// What it died of lies with the account, not the record.
    pub cause: Option<DeadCause>,
}

/// What an operator can set right for many dead letters at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeadCause {
    /// The account's credentials or their permissions: the last answer was a 401 or 403.
    Credentials,
    /// The mapping could not carry the record.
    Mapping,
}

/// A dead letter with its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The operation.
    pub id: OperationId,
    /// What it does, e.g. `UPDATE`.
    pub operation: &'static str,
    /// Local object.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// The account.
    pub account: String,
    /// What it died of.
    pub code: Option<Reason>,
    /// The newest attempts.
    pub attempts: Vec<Attempt>,
    /// When it was accepted, ms since the epoch.
    pub accepted_at_ms: i64,
    /// When it died, ms since the epoch.
    pub dead_at_ms: i64,
    /// The event's data as a redrive would take it: a JSON object, or empty.
    pub data: Vec<u8>,
    /// Version of the rules when the event was taken.
    pub rules_version: u32,
    /// Version of the mappings when the event was taken.
    pub mapping_version: u32,
    /// Fields of the record that wait for an operator, by pointer.
    pub held: Vec<(String, Held)>,
}

/// A part of a long list: whole virtual shards of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadSlice<D> {
    /// What was found.
    pub items: Vec<D>,
    /// Where to go on; `None` at the end.
    pub next: Option<VShard>,
}

impl DeadId {
    /// The dead letter of an operation at an account.
    #[must_use]
    pub fn new(id: OperationId, account: &str) -> Self {
        Self {
            record: id.record,
            sequence_low: id.seq.low(),
            account: account.into(),
        }
    }

    /// The virtual shard that it lies in.
    #[must_use]
    pub fn vshard(&self) -> VShard {
        self.record.vshard()
    }
}

impl<T> Shard<T> {
    /// A slice of the dead letters that a filter names: by virtual shard, and there the oldest
    /// first. Their data is left out.
    pub fn dead_letters(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
        from: Option<VShard>,
    ) -> DeadSlice<DeadLetter> {
        self.dead_slice(journal, filter, from, |shard, journal, op| {
            let mut letter = shard.dead_letter(journal, op)?;
            letter.data.clear();
            Some(letter)
        })
    }

    /// The same slice, the names only.
    pub fn dead_ids(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
        from: Option<VShard>,
    ) -> DeadSlice<DeadId> {
        self.dead_slice(journal, filter, from, |shard, _, op| {
            let node = &shard.index.slab[op];
            Some(DeadId {
                record: node.dead_record(),
                sequence_low: node.sequence_low(),
                account: shard.accounts[usize::from(node.target().0)].name.clone(),
            })
        })
    }

    /// One dead letter, with its data.
    pub fn dead_letter_of(
        &mut self,
        journal: &mut impl Journal,
        id: &DeadId,
    ) -> Option<DeadLetter> {
        let op = self.find_dead(id)?;
        self.dead_letter(journal, op)
    }

    fn dead_slice<J: Journal, D>(
        &mut self,
        journal: &mut J,
        filter: &DeadFilter,
        from: Option<VShard>,
        mut tell: impl FnMut(&mut Self, &mut J, OpIndex) -> Option<D>,
    ) -> DeadSlice<D> {
        let mut items = Vec::new();
        let mut looked_at = 0;
        let first = from.map_or(0, VShard::index);
        for vshard in (first..VSHARD_COUNT).filter_map(VShard::new) {
            if !self.may_hold(filter, vshard) {
                continue;
            }
            if looked_at >= LOOKED_AT_PER_SLICE {
                let next = Some(vshard);
                return DeadSlice { items, next };
            }
            let dead: Vec<OpIndex> = self.index.dead_of(vshard).iter(&self.index.slab).collect();
            looked_at += dead.len();
            for op in dead {
                if self.dead_matches(journal, filter, op) {
                    items.extend(tell(self, journal, op));
                }
            }
        }
        DeadSlice { items, next: None }
    }

    /// Dead letters that a filter names.
    pub(super) fn matching_dead(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
    ) -> Vec<OpIndex> {
        let vshards = (0..VSHARD_COUNT).filter_map(VShard::new);
        let dead: Vec<OpIndex> = vshards
            .filter(|&vshard| self.may_hold(filter, vshard))
            .flat_map(|vshard| self.index.dead_of(vshard).iter(&self.index.slab))
            .collect();
        dead.into_iter()
            .filter(|&op| self.dead_matches(journal, filter, op))
            .collect()
    }

    pub(super) fn find_dead(&self, id: &DeadId) -> Option<OpIndex> {
        let slab = &self.index.slab;
        self.index.dead_of(id.vshard()).iter(slab).find(|&op| {
            let node = &slab[op];
            node.sequence_low() == id.sequence_low
                && node.dead_record() == id.record
                && self.accounts[usize::from(node.target().0)].name == id.account
        })
    }

    /// Whether a virtual shard may have what the filter names, by what it says of the record.
    fn may_hold(&self, filter: &DeadFilter, vshard: VShard) -> bool {
        let record_id = filter.record_id.as_deref();
        record_id.is_none_or(|id| self.settings.hash_key.vshard(id) == vshard)
            && filter
                .operation
                .is_none_or(|(record, _)| record.vshard() == vshard)
    }

    fn dead_matches(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
        op: OpIndex,
    ) -> bool {
        let node = &self.index.slab[op];
        let account = &self.accounts[usize::from(node.target().0)].name;
        let provider = filter.provider.as_deref();
        if provider.is_some_and(|provider| provider != &**account) {
            return false;
        }
        if let Some((record, seq)) = filter.operation
            && (node.sequence_low() != seq.low() || node.dead_record() != record)
        {
            return false;
        }
        if filter.object.is_none()
            && filter.record_id.is_none()
            && filter.code.is_none()
            && filter.cause.is_none()
        {
            return true;
        }
        self.dead_letter(journal, op).is_some_and(|letter| {
            let matches = |wanted: &Option<String>, is: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == is)
            };
            matches(&filter.object, &letter.object)
                && matches(&filter.record_id, &letter.record_id)
                && matches(&filter.code, letter.code.map_or("", Reason::as_str))
                && filter.cause.is_none_or(|cause| cause.explains(&letter))
        })
    }

    fn dead_letter(&mut self, journal: &mut impl Journal, op: OpIndex) -> Option<DeadLetter> {
        let mut bytes = Vec::new();
        journal
            .read(lsn(self.index.slab[op].position()), &mut bytes)
            .ok()?;
        let event = codec::decode(&bytes).ok()?;
        let account = self.accounts[usize::from(self.index.slab[op].target().0)]
            .name
            .clone();
        let record = RecordHash(event.record_hash);
        let seq = OperationSeq(event.operation_seq);
        let data = event.event.data.map(|data| data.text().as_bytes().to_vec());
        let mut letter = DeadLetter {
            id: OperationId { record, seq },
            operation: operation_name(event.event.operation as u8),
            object: event.event.object.to_string(),
            record_id: record_id(&event).to_owned(),
            account: account.to_string(),
            code: None,
            attempts: Vec::new(),
            accepted_at_ms: event.accepted_at_ms,
            dead_at_ms: event.accepted_at_ms,
            data: data.unwrap_or_default(),
            rules_version: event.rules_version,
            mapping_version: event.mapping_version,
            held: Vec::new(),
        };
        self.walk_history(journal, record, |frame, at| {
            let target = &frame.records[0].targets[at];
            match Told::of(frame, at, seq).filter(|_| *target.account == *account) {
                Some(Told { progress, .. }) => {
                    letter.code = progress.reason;
                    letter.attempts.clone_from(&progress.attempts);
                    letter.dead_at_ms = progress.updated_at_ms;
                    false
                }
                None => true,
            }
        });
        if letter.code == Some(Reason::Conflict) {
            letter.held = self.held_of(journal, record, &letter);
        }
        Some(letter)
    }

    fn held_of(
        &mut self,
        journal: &mut impl Journal,
        record: RecordHash,
        letter: &DeadLetter,
    ) -> Vec<(String, Held)> {
        let read = self.read_state(journal, record, &letter.object, &letter.record_id);
        let held = read.and_then(|(states, _)| {
            let base = states[0].target(&letter.account)?.base.as_ref()?;
            Some(base.held().clone())
        });
        held.unwrap_or_default().into_iter().collect()
    }
}

impl DeadCause {
    /// Whether a dead letter died of it.
    fn explains(self, letter: &DeadLetter) -> bool {
        match self {
            Self::Credentials => letter
                .attempts
                .last()
                .is_some_and(|attempt| matches!(attempt.status, 401 | 403)),
            Self::Mapping => letter.code == Some(Reason::Mapping),
        }
    }
}
