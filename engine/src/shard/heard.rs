//! Of which records System A was told something lately.
//!
//! What System A says of one of them may have been changed before it heard that, and come late: its
//! outbox waited. Such a word is compared with what it was told, like one that met that on its way.

use std::collections::{HashMap, VecDeque};

use super::absorb::Derived;
use super::item::Item;
use super::steady::AHEAD_MAX_MS;
use super::{SYSTEM_A, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::Journal;
use crate::lane;
use crate::merge;
use crate::time::Now;

/// Records remembered per shard. Of others the log is asked.
const RECORDS_MAX: usize = 64 * 1024;

/// Records, by when System A heard of them last, ms of the shard's steady clock.
#[derive(Debug, Default)]
pub(super) struct Heard {
    at_ms: HashMap<RecordHash, i64>,
    /// In the order in which they were first told of.
    order: VecDeque<RecordHash>,
    /// What was heard up to then may be in the log only.
    complete_since_ms: i64,
}

impl Heard {
    /// A life begins. System A's clock may be a little ahead.
    pub(super) fn begin(&mut self, at_ms: i64) {
        self.complete_since_ms = at_ms.saturating_add(AHEAD_MAX_MS);
    }

    pub(super) fn note(&mut self, record: RecordHash, at_ms: i64) {
        if self.at_ms.insert(record, at_ms).is_some() {
            return;
        }
        self.order.push_back(record);
        if self.order.len() > RECORDS_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some(at_ms) = self.at_ms.remove(&oldest)
        {
            self.complete_since_ms = self.complete_since_ms.max(at_ms);
        }
    }

    /// Whether System A heard of a record at `said_at_ms` or later; `None`: the log knows.
    fn since(&self, record: RecordHash, said_at_ms: i64) -> Option<bool> {
        match self.at_ms.get(&record) {
            Some(heard_at_ms) => Some(*heard_at_ms >= said_at_ms),
            None => (said_at_ms > self.complete_since_ms).then_some(false),
        }
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
        let mut bytes = Vec::new();
        let mut newest = item.lead.seq.0;
        for lane in lane::lanes(slab, self.index.lanes_of(item.record)) {
            let position = lsn(slab[lane.back()].position());
            if journal.read(position, &mut bytes).is_ok()
                && let Ok(event) = codec::decode(&bytes)
            {
                newest = newest.max(event.operation_seq);
            }
        }
        merge::Heard {
            at_ms: self.steady().ms(now),
            newest,
        }
    }

    fn heard_by_log(
        &self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        said_at_ms: i64,
    ) -> bool {
        let record = RecordHash(event.record_hash);
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        if self.index.state_position(record).is_none() {
            return false;
        }
        let state = self.states_of(journal, record, &event.event.object, record_id);
        let Some(state) = state else {
            // Whoever compares them reads it again, or says that it is damaged.
            return true;
        };
        let told = state.target(SYSTEM_A).and_then(|it| it.base.as_deref());
        let heard = told.and_then(|base| base.told().heard_at_ms());
        heard.is_some_and(|heard_at_ms| heard_at_ms >= said_at_ms)
    }

    /// Queues a comparison where System A says what it changed before it heard of the record. While
    /// something is on the way to it, the event itself waits there for that.
    pub(super) fn look_back(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
    ) {
        let record = RecordHash(event.record_hash);
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let said = self.said(now, event);
        let observed = event.action_at(SYSTEM_A) == TargetAction::Observe;
        let writes =
            event.event.operation.writes_fields() || event.event.operation == Operation::Delete;
        if !observed || !writes {
            return;
        }
        let target = self.account(SYSTEM_A);
        if self.index.is_open(record, target) {
            return self.said.keep(said);
        }
        let heard = self.heard.since(record, said.at_ms);
        if !heard.unwrap_or_else(|| self.heard_by_log(journal, event, said.at_ms)) {
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
        assert_eq!(heard.since(RecordHash(0), 5), None, "the log is asked");
        assert_eq!(heard.since(RecordHash(0), 11), Some(false));
        assert_eq!(heard.since(RecordHash(1), 10), Some(true));
        assert_eq!(heard.since(RecordHash(1), 11), Some(false));
        assert_eq!(heard.at_ms.len(), heard.order.len());
    }
}
