//! Calls as they leave: nothing too early, nothing out of turn, and just what the operations say.

use engine::event::Operation;
use engine::id::OperationId;
use engine::provider::{CallKind, Request};
use serde_json::{Map, Value};
use wal::Lsn;

use super::Oracle;
use crate::sim::fold::{Broken, LaneKey, names};
use crate::sim::marks::{Mark, Marks};
use crate::sim::merge::same;
use crate::sim::patch::compose;

/// A write that was let out.
#[derive(Debug, Clone)]
pub(super) struct Write {
    run: Vec<OperationId>,
    digest: u64,
    key: Option<String>,
}

impl Oracle {
    /// A call leaves a shard. Answers which operations it carries, oldest first.
    pub(in crate::sim) fn call_leaves(
        &mut self,
        shard: usize,
        account: &str,
        request: &Request,
        marks: &mut Marks,
    ) -> Vec<OperationId> {
        match self.check_call(shard, account, request, marks) {
            Ok(run) => run,
            Err(broken) => {
                self.note(Err(broken));
                Vec::new()
            }
        }
    }

    fn check_call(
        &mut self,
        shard: usize,
        account: &str,
        request: &Request,
        marks: &mut Marks,
    ) -> Result<Vec<OperationId>, Broken> {
        let id: OperationId = request
            .request_id
            .parse()
            .map_err(|_| "a call without an operation".to_owned())?;
        let durable = self.promised[shard];
        let what = format!("{} of {id} at {account}", request.kind);
        let op = self
            .fold
            .ops
            .get(&(id, account.to_owned()))
            .ok_or(format!("I3 {what}: no such operation"))?;
        if op.ended.is_some() {
            return Err(format!("I2 {what}: it has ended"));
        }
        let lane = (id.record, account.to_owned());
        let run = self.fold.run(&lane, id)?;
        if run.len() > 1 && !self.folding.contains(account) {
            return Err(format!("I4 {what}: {:?} comes first", run[0]));
        }
        self.check_durable(&lane, &run, durable, &what)?;
        if request.kind == CallKind::Create {
            self.check_intent(&lane, &run, durable, &what)?;
        }
        if self.fold.check_barriers(account, &run)? {
            return Err(format!("I5 {what}: makes and deletes a record"));
        }
        self.check_frozen(&lane, &run, &what, marks)?;
        if request.kind.is_write() {
            self.check_key(&lane, &run, request, &what)?;
        }
        if request.kind.writes_fields() {
            self.check_body(&lane, &run, request, &what)?;
        }
        self.fold
            .sent
            .extend(run.iter().map(|id| (*id, account.to_owned())));
        self.fold.answered.remove(&lane);
        if let Some(open) = self.calls.insert(lane, run.clone()) {
            return Err(format!("I4 {what}: a call of {open:?} is open"));
        }
        Ok(run)
    }

    /// The engine was told how a call ended.
    pub(in crate::sim) fn call_ends(&mut self, account: &str, request: &Request) {
        if let Ok(id) = request.request_id.parse::<OperationId>() {
            let lane = (id.record, account.to_owned());
            if let Some(run) = self.calls.remove(&lane) {
                self.fold.answered.insert(lane, run);
            }
        }
    }

    fn check_durable(
        &self,
        lane: &LaneKey,
        run: &[OperationId],
        durable: Lsn,
        what: &str,
    ) -> Result<(), Broken> {
        for id in run {
            let op = self.fold.ops.get(&(*id, lane.1.clone()));
            if op.is_none_or(|op| op.event_at >= durable) {
                return Err(format!("I1 {what}: left before {id} was durable"));
            }
        }
        match self.fold.last_final.get(lane) {
            Some(&at) if at >= durable => {
                Err(format!("I4 {what}: the outcome before it is not durable"))
            }
            _ => Ok(()),
        }
    }

    /// A create leaves behind its intent, which a restart has to find at the record's oldest
    /// operation; and not for a record whose delete was waiting when that was written.
    fn check_intent(
        &self,
        lane: &LaneKey,
        run: &[OperationId],
        durable: Lsn,
        what: &str,
    ) -> Result<(), Broken> {
        let front = self.fold.ops.get(&(run[0], lane.1.clone()));
        let intent = front.and_then(|op| op.intent_at);
        let Some(intent) = intent.filter(|at| *at < durable) else {
            return Err(format!("I11 {what}: no durable intent"));
        };
        let behind = self
            .fold
            .lanes
            .get(lane)
            .and_then(|open| open.get(run.len()));
        let behind = behind.and_then(|id| self.fold.ops.get(&(*id, lane.1.clone())));
        let deleted = behind.is_some_and(|op| {
            op.operation == Operation::Delete
                && !op.scheduled
                && !op.redriven
                && op.event_at < intent
        });
        let creates = front.is_some_and(|op| op.operation == Operation::Create && op.folds());
        let first = !self.fold.sent.contains(&(run[0], lane.1.clone()));
        if self.folding.contains(&lane.1) && creates && first && deleted {
            return Err(format!("I5 {what}: its delete was waiting"));
        }
        Ok(())
    }

    /// While it is not known what became of a call, the next one carries the same.
    fn check_frozen(
        &self,
        lane: &LaneKey,
        run: &[OperationId],
        what: &str,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let Some(pending) = self.fold.pending.get(lane).filter(|it| it.frozen) else {
            return Ok(());
        };
        if pending.run != run {
            return Err(format!(
                "I5 {what}: carries {}, what became of {} is not known",
                names(run),
                names(&pending.run)
            ));
        }
        let waiting = self
            .fold
            .lanes
            .get(lane)
            .is_some_and(|open| open.len() > run.len());
        if run.len() > 1 && waiting {
            marks.hit(Mark::FoldedFrozen);
        }
        Ok(())
    }

    /// The same request goes by the same key, another one by another.
    fn check_key(
        &mut self,
        lane: &LaneKey,
        run: &[OperationId],
        request: &Request,
        what: &str,
    ) -> Result<(), Broken> {
        let write = Write {
            run: run.to_vec(),
            digest: request.digest().0,
            key: request.idempotency_key.clone(),
        };
        let Some(before) = self.writes.insert(lane.clone(), write.clone()) else {
            return Ok(());
        };
        let same_request = before.run == write.run && before.digest == write.digest;
        let retried = self.fold.pending.contains_key(lane);
        if (retried && same_request && before.key != write.key)
            || (before.digest != write.digest && before.key == write.key)
        {
            return Err(format!("I11 {what}: {before:?}, then {write:?}"));
        }
        Ok(())
    }

    /// A write carries what its operations say, one upon the other.
    fn check_body(
        &self,
        lane: &LaneKey,
        run: &[OperationId],
        request: &Request,
        what: &str,
    ) -> Result<(), Broken> {
        let mut fields: Map<String, Value> =
            serde_json::from_slice(&request.body).map_err(|error| format!("I3 {what}: {error}"))?;
        if request.kind == CallKind::Create {
            fields.remove("external_id");
        }
        let ops = run
            .iter()
            .filter_map(|id| self.fold.ops.get(&(*id, lane.1.clone())));
        let mut wanted = Map::new();
        for (place, op) in ops.enumerate() {
            let grounded = op.operation == Operation::Update && request.kind == CallKind::Upsert;
            if let Some(expected) = self
                .fold
                .expected
                .get(lane)
                .filter(|_| place == 0 && grounded)
            {
                wanted.clone_from(&expected.undelivered);
            }
            if let Some(data) = &op.data {
                compose(&mut wanted, data);
            }
        }
        if !same(&fields, &wanted) {
            return Err(format!(
                "I3 {what} carries {fields:?}, its operations {} say {wanted:?}",
                names(run)
            ));
        }
        Ok(())
    }
}
