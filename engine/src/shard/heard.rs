//! Of which records System A was told something lately.
//!
//! What System A says of one of them may have been changed before it heard that, and come late: its
//! outbox waited. Such a word is compared with what it was told, like one that met that on its way.

use std::collections::{HashMap, VecDeque};

use super::absorb::Derived;
use super::item::Item;
use super::{SYSTEM_A, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::Journal;
use crate::lane;
use crate::merge;
use crate::record::StateFrame;
use crate::time::Now;

/// Records remembered per shard. What System A says late of an older one counts as said knowing all.
const RECORDS_MAX: usize = 64 * 1024;

/// Records, by when System A heard of them last.
#[derive(Debug, Default)]
pub(super) struct Heard {
    at_ms: HashMap<RecordHash, i64>,
    /// In the order in which they were first told of.
    order: VecDeque<RecordHash>,
}

impl Heard {
    pub(super) fn note(&mut self, record: RecordHash, at_ms: i64) {
        if self.at_ms.insert(record, at_ms).is_some() {
            return;
        }
        self.order.push_back(record);
        if self.order.len() > RECORDS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.at_ms.remove(&oldest);
        }
    }

    /// Takes up what a state frame of the log says of it.
    pub(super) fn replay(&mut self, frame: &StateFrame) {
        let told = frame.records[0].target(SYSTEM_A);
        let heard = told.and_then(|told| told.base.as_ref()?.told().heard_at_ms());
        if let Some(at_ms) = heard {
            self.note(RecordHash(frame.record), at_ms);
        }
    }

    fn since(&self, record: RecordHash, said_at_ms: i64) -> bool {
        let heard = self.at_ms.get(&record);
        heard.is_some_and(|heard_at_ms| *heard_at_ms >= said_at_ms)
    }
}

impl<T> Shard<T> {
    /// System A answers just now to the operation at the front of its lane of a record.
    pub(super) fn heard_now(
        &self,
        now: Now,
        journal: &mut impl Journal,
        item: &Item,
    ) -> merge::Heard {
        let slab = &self.index.slab;
        let target = slab[item.op].target();
        let lane = lane::of(slab, self.index.lanes_of(item.record), target);
        let last = lane.and_then(|lane| lane.iter(slab).last());
        let mut bytes = Vec::new();
        let newest = last.and_then(|op| {
            journal.read(lsn(slab[op].position()), &mut bytes).ok()?;
            Some(codec::decode(&bytes).ok()?.operation_seq)
        });
        merge::Heard {
            at_ms: self.steady().ms(now),
            newest: newest.unwrap_or(item.lead.seq.0).max(item.lead.seq.0),
        }
    }

    /// Queues a comparison where System A says what it changed before it heard of the record. While
    /// something is on the way to it, the event itself waits there for that.
    pub(super) fn look_back(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
    ) {
        if self.heard.at_ms.is_empty() {
            return;
        }
        let record = RecordHash(event.record_hash);
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let said = self.steady().said(now, event);
        let observed = event.action_at(SYSTEM_A) == TargetAction::Observe;
        let writes =
            event.event.operation.writes_fields() || event.event.operation == Operation::Delete;
        if !observed || !writes || !self.heard.since(record, said.at_ms) {
            return;
        }
        let target = self.account(SYSTEM_A);
        if self.index.is_open(record, target) {
            return;
        }
        let derived = Derived {
            record,
            object: &event.event.object,
            record_id: event.event.record_id.as_deref().unwrap_or_default(),
            seq: OperationSeq(event.operation_seq).derived(),
            operation: event.event.operation,
            data: event.event.data.map(|data| data.text()),
            changed_at_ms,
            origin: SYSTEM_A,
            remote_id: None,
            sources: &[],
            merged_into: None,
            targets: &[SYSTEM_A.into()],
        };
        self.log_late(now, journal, &derived, said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_record_is_forgotten_first() {
        let mut heard = Heard::default();
        for record in 0..=RECORDS_MAX as u64 {
            heard.note(RecordHash(record), 10);
        }
        assert!(!heard.since(RecordHash(0), 5));
        assert!(heard.since(RecordHash(1), 5) && heard.since(RecordHash(1), 10));
        assert!(!heard.since(RecordHash(1), 11));
        assert_eq!(heard.at_ms.len(), heard.order.len());
    }
}
