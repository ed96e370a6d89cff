//! What comes back: each pull was told by somebody who may, each change for others was made by
//! somebody at its origin, each link leads to the record that it belongs to.

use engine::event::Operation;
use engine::event::codec;
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::Kind;
use engine::record::{Link, StateFrame};
use engine::shard::{SYSTEM_A, extra, provisional_id};
use engine::state::State;
use serde_json::Value;

use super::Oracle;
use crate::sim::fold::Broken;
use crate::sim::marks::{Mark, Marks};
use crate::sim::spied_log::Written;
use crate::sim::two_way::agreement::owner;
use crate::sim::two_way::leaves::{Leaves, leaves};
use crate::sim::two_way::ledger::Key;
use crate::sim::two_way::options::Policy;

impl Oracle {
    /// Looks at a frame that a shard appended, in a run where changes come back.
    pub(super) fn check_back(
        &self,
        shard: usize,
        frame: &Written,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        match frame.kind {
            _ if !self.both_ways => Ok(()),
            Kind::Event => self.check_origin(shard, frame, marks),
            Kind::State => self.check_links(frame),
            _ => Ok(()),
        }
    }

    fn check_origin(&self, shard: usize, frame: &Written, marks: &mut Marks) -> Result<(), Broken> {
        let event = codec::decode(&frame.payload)
            .map_err(|error| format!("an event does not decode: {error}"))?;
        let text = |name: &str| {
            let mut extras = event.event.extras.iter();
            let extra = extras.find(|extra| extra.name == name)?;
            extra.value.as_text().map(|text| text.into_owned())
        };
        let object = &*event.event.object;
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        if event.event.operation == Operation::Pull {
            let account = event.event.provider.as_deref().unwrap_or_default();
            let remote_id = event.event.remote_id.as_deref().unwrap_or_default();
            let deleted = text(extra::KIND).as_deref() == Some(extra::DELETED);
            return if self.ledger.was_heard(account, object, remote_id, deleted) {
                Ok(())
            } else {
                Err(format!(
                    "I25 {object} {remote_id} of {account} is pulled, deleted: {deleted}, and nobody told of it"
                ))
            };
        }
        let Some(origin) = text(extra::ORIGIN) else {
            return Ok(());
        };
        marks.hit(Mark::CameBack);
        // What failed may have left behind what nobody knows of.
        if self.is_troubled(RecordHash(event.record_hash)) {
            return Ok(());
        }
        // What System A met on the way to it comes under one name, of several accounts perhaps.
        let lead = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq - event.operation_seq % OperationSeq::STEP),
        };
        let lead = self.fold.ops.get(&(lead, origin.clone()));
        let pulled = lead.is_some_and(|op| op.operation == Operation::Pull);
        let deletes = event.event.operation == Operation::Delete;
        let named = pulled || deletes;
        let side = Some(origin.as_str()).filter(|origin| *origin != SYSTEM_A && named);
        let key = (object.to_owned(), record_id.to_owned());
        if deletes {
            return if self.ledger.has_deleted(side, &key) {
                Ok(())
            } else {
                Err(format!("I25 nobody deleted {key:?} at {origin}"))
            };
        }
        let data = event
            .event
            .data
            .and_then(|data| serde_json::from_str(data.text()).ok());
        let told = leaves(&data.unwrap_or_default());
        let owned = self.policy.is_some_and(Policy::is_owned) && pulled;
        let written_back = owned && event.targets.iter().all(|target| *target.name == *origin);
        if written_back {
            marks.hit(Mark::WrittenBack);
            let strange = |(place, value): &(&String, &Value)| {
                !self.ledger.has_written(None, &key, place, value)
            };
            return match told.iter().find(strange) {
                None => Ok(()),
                Some(strange) => Err(format!(
                    "I15 {key:?} {strange:?} is written back to {origin}, and nobody wrote it"
                )),
            };
        }
        if owned {
            self.check_owned(shard, event.record_hash, &origin, &told)?;
        }
        for (place, value) in told {
            let empty = value.is_object();
            if !empty && !self.ledger.has_written(side, &key, &place, &value) {
                let who = if self.ledger.has_written(None, &key, &place, &value) {
                    "I15"
                } else {
                    "I25"
                };
                return Err(format!(
                    "{who} {key:?} {place} = {value} is told as a change of {origin}, which nobody made there"
                ));
            }
        }
        Ok(())
    }

    /// What an account changes of a field that is System A's, and has a value, nobody is told.
    fn check_owned(
        &self,
        shard: usize,
        record: u64,
        account: &str,
        told: &Leaves,
    ) -> Result<(), Broken> {
        let states = self.traces[shard].iter().rev();
        let states = states.filter(|frame| matches!(frame.kind, Kind::State | Kind::StateMoved));
        let mut states = states.filter_map(|frame| StateFrame::decode(&frame.payload).ok());
        let Some(state) = states.find(|frame| frame.record == record) else {
            return Ok(());
        };
        let target = state.records.first().and_then(|it| it.target(account));
        let linked = target.filter(|target| target.link.remote_id().is_some());
        let Some(base) = linked.and_then(|target| target.base.as_deref()) else {
            return Ok(());
        };
        let agreed = |place: &&String| base.agreed().get(place).is_some();
        match told.keys().find(agreed) {
            None => Ok(()),
            Some(place) => Err(format!(
                "I14 {place} is System A's, and what {account} changed of it is told"
            )),
        }
    }

    fn check_links(&self, frame: &Written) -> Result<(), Broken> {
        let states = StateFrame::decode(&frame.payload)
            .map_err(|error| format!("a state does not decode: {error}"))?;
        for record in &states.records {
            for target in record.targets.iter().filter(|it| it.account != SYSTEM_A) {
                let Link::Linked(remote_id) = &target.link else {
                    continue;
                };
                let owner = self
                    .ledger
                    .owner(&target.account, &record.object, remote_id);
                let key = (record.object.clone(), record.record_id.clone());
                let own = owner
                    .is_some_and(|owner| self.ledger.one_of(owner) == self.ledger.one_of(&key));
                let provisional = provisional_id(&target.account, remote_id) == record.record_id;
                if !(own || provisional && owner.is_some()) {
                    return Err(format!(
                        "I17 {} {} is linked to {remote_id} of {}, which is {owner:?}",
                        record.object, record.record_id, target.account
                    ));
                }
            }
        }
        Ok(())
    }

    /// The record of an operation, by the name that all sides know it by.
    pub(in crate::sim) fn key_of(&self, id: OperationId) -> Option<Key> {
        let first = (id, String::new());
        let (found, op) = self.fold.ops.range(first..).next()?;
        (found.0 == id).then(|| owner(self, &op.object, &op.record_id))
    }

    /// Whether an operation of the record failed or was given up, at whatever account.
    pub(in crate::sim) fn is_troubled(&self, record: RecordHash) -> bool {
        let first = OperationId {
            record,
            seq: OperationSeq(0),
        };
        let last = OperationId {
            record,
            seq: OperationSeq(u64::MAX),
        };
        let ops = (first, String::new())..=(last, "\u{10ffff}".to_owned());
        let mut ops = self.fold.ops.range(ops);
        ops.any(|(_, op)| {
            let reads = op.operation == Operation::Read;
            let bad = |state| matches!(state, State::Failed | State::Dropped);
            !reads && (op.redriven || op.ended.is_some_and(|(state, _)| bad(state)))
        })
    }
}
