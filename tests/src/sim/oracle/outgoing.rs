//! Calls as they leave: nothing too early, nothing out of turn, and just what the operations say.

use std::collections::BTreeSet;

use engine::event::Operation;
use engine::id::OperationId;
use engine::provider::{CallKind, Request};
use serde_json::{Map, Value};
use wal::Lsn;

use super::Oracle;
use crate::sim::fold::{Broken, LaneKey, Op, names};
use crate::sim::marks::{Mark, Marks};
use crate::sim::merge::same;
use crate::sim::patch::compose;
use crate::sim::sets::mapping::Written;
use crate::sim::two_way::agreement::owner;
use crate::sim::two_way::leaves::leaves;

/// What a call carries of one record.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Carried {
    pub(in crate::sim) lane: LaneKey,
    pub(in crate::sim) record_id: String,
    /// The operations it may stand for, each run oldest first, the longest run last. More than one
    /// only in a batch, which names no operations, and where a change repeats the one before it.
    pub(in crate::sim) runs: Vec<Vec<OperationId>>,
}

impl Carried {
    /// The operations that may be in the call.
    pub(in crate::sim) fn longest(&self) -> &[OperationId] {
        self.runs.last().map_or(&[], Vec::as_slice)
    }
}

/// A write that was let out.
#[derive(Debug, Clone)]
pub(super) struct Write {
    runs: Vec<Vec<OperationId>>,
    digest: u64,
    key: Option<String>,
    batch: bool,
    /// Where the record's newest progress lay then.
    after: Option<Lsn>,
    /// The life, and the sets of mappings that were taken before it.
    life: (u32, usize),
}

/// What a request asks for one record.
struct Asked {
    lane: LaneKey,
    record_id: String,
    kind: CallKind,
    fields: Map<String, Value>,
    /// It marks the record as deleted.
    marks: bool,
    /// The operation it names.
    named: Option<OperationId>,
}

impl Oracle {
    /// A call leaves a shard. Answers what it carries.
    pub(in crate::sim) fn call_leaves(
        &mut self,
        shard: usize,
        account: &str,
        request: &Request,
        marks: &mut Marks,
    ) -> Vec<Carried> {
        let checked = self.check_call(shard, account, request, marks);
        checked.unwrap_or_else(|broken| {
            self.note(Err(broken));
            Vec::new()
        })
    }

    fn check_call(
        &mut self,
        shard: usize,
        account: &str,
        request: &Request,
        marks: &mut Marks,
    ) -> Result<Vec<Carried>, Broken> {
        if self.both_ways && is_list(request) {
            return Ok(Vec::new());
        }
        let what = format!("{} of {} at {account}", request.kind, request.request_id);
        let batch = is_batch(request);
        let asked = self.asked(account, request, &what)?;
        if batch {
            self.check_company(account, &asked, &what)?;
            if asked.len() > 1 {
                marks.hit(Mark::Batched);
            }
        }
        let mut carried = Vec::new();
        for asked in asked {
            let what = format!("{what}, record {}", asked.record_id);
            let mut runs = self.runs(shard, &asked, &what)?;
            self.check_durable(&asked.lane, self.promised[shard], &what)?;
            if asked.kind == CallKind::Create {
                self.check_intent(&asked.lane, &runs, self.promised[shard], &what)?;
            }
            self.check_frozen(&asked.lane, &mut runs, &what, marks)?;
            if asked.kind.is_write() {
                self.check_key(&asked.lane, &runs, request, &what)?;
            }
            let whole = Carried {
                lane: asked.lane.clone(),
                record_id: asked.record_id,
                runs,
            };
            if asked.kind.writes_fields() {
                for run in &whole.runs {
                    self.fold.note_body(&asked.lane, run, &asked.fields);
                }
            }
            let sent = whole.longest().iter();
            self.fold
                .sent
                .extend(sent.map(|id| (*id, account.to_owned())));
            self.fold.answered.remove(&asked.lane);
            if let Some(open) = self.calls.insert(asked.lane, whole.clone()) {
                return Err(format!("I4 {what}: a call of {open:?} is open"));
            }
            carried.push(whole);
        }
        Ok(carried)
    }

    /// The engine was told how a call ended.
    pub(in crate::sim) fn call_ends(&mut self, carried: &[Carried]) {
        for carried in carried {
            if let Some(open) = self.calls.remove(&carried.lane) {
                self.fold.answered.insert(open.lane, open.runs);
            }
        }
    }

    /// The records of a request.
    fn asked(&self, account: &str, request: &Request, what: &str) -> Result<Vec<Asked>, Broken> {
        let named: OperationId = request
            .request_id
            .parse()
            .map_err(|_| "a call without an operation".to_owned())?;
        let op = self
            .op(named, account)
            .ok_or(format!("I3 {what}: no such operation"))?;
        if op.ended.is_some() {
            return Err(format!("I2 {what}: it has ended"));
        }
        let unreadable = |error: serde_json::Error| format!("I3 {what}: {error}");
        if is_batch(request) {
            let body = serde_json::from_slice(&request.body).map_err(unreadable)?;
            return self.asked_in_batch(account, request, &body, what);
        }
        if self.account(account).system_a {
            let change: Value = serde_json::from_slice(&request.body).map_err(unreadable)?;
            let deletes = change["operation"] == "DELETE";
            return Ok(vec![Asked {
                lane: (named.record, account.to_owned()),
                record_id: op.record_id.clone(),
                kind: if deletes {
                    CallKind::Delete
                } else {
                    CallKind::Update
                },
                fields: change["data"].as_object().cloned().unwrap_or_default(),
                marks: false,
                named: Some(named),
            }]);
        }
        let mut fields = Map::new();
        if request.kind.writes_fields() {
            fields = serde_json::from_slice(&request.body).map_err(unreadable)?;
        }
        if request.kind == CallKind::Create {
            fields.remove("external_id");
        }
        Ok(vec![Asked {
            lane: (named.record, account.to_owned()),
            record_id: op.record_id.clone(),
            kind: request.kind,
            marks: self.is_marked(account, &op.object, &fields),
            fields: self.led_back(account, &op.object, fields),
            named: Some(named),
        }])
    }

    fn asked_in_batch(
        &self,
        account: &str,
        request: &Request,
        body: &Value,
        what: &str,
    ) -> Result<Vec<Asked>, Broken> {
        let object = request.path_and_query.split('/').nth(1).unwrap_or_default();
        let records = body["records"].as_array().map_or(&[][..], Vec::as_slice);
        let asked = records.iter().enumerate().map(|(place, record)| {
            let record_id = record["external_id"].as_str()?;
            let kind = match record["operation"].as_str()? {
                "create" => CallKind::Create,
                "upsert" => CallKind::Upsert,
                "update" => CallKind::Update,
                "delete" => CallKind::Delete,
                _ => return None,
            };
            let sets = self.sets.as_deref();
            let object = sets.map_or(object, |sets| sets.local_object(account, object));
            let fields = record["fields"].as_object().cloned().unwrap_or_default();
            Some(Asked {
                lane: (self.hash_key.record(object, record_id), account.to_owned()),
                record_id: record_id.to_owned(),
                kind,
                marks: self.is_marked(account, object, &fields),
                fields: self.led_back(account, object, fields),
                named: request.request_id.parse().ok().filter(|_| place == 0),
            })
        });
        let asked: Option<Vec<Asked>> = asked.collect();
        asked.ok_or(format!("I3 {what}: a batch that cannot be read: {body}"))
    }

    /// No batch is larger than its account takes, and no record is in it twice.
    fn check_company(&self, account: &str, asked: &[Asked], what: &str) -> Result<(), Broken> {
        let most = self.account(account).batch_max;
        if asked.is_empty() || asked.len() > most {
            return Err(format!(
                "B1 {what}: {} records, at most {most}",
                asked.len()
            ));
        }
        let lanes: BTreeSet<&LaneKey> = asked.iter().map(|asked| &asked.lane).collect();
        if lanes.len() < asked.len() {
            return Err(format!("B2 {what}: a record twice in a call"));
        }
        Ok(())
    }

    /// The runs of operations, from the record's oldest on, that say what is asked for.
    fn runs(
        &self,
        shard: usize,
        asked: &Asked,
        what: &str,
    ) -> Result<Vec<Vec<OperationId>>, Broken> {
        let durable = self.promised[shard];
        let account = &asked.lane.1;
        if let Some(named) = asked.named {
            let run = self.fold.run(&asked.lane, named)?;
            if run.len() > 1 && !self.account(account).fold {
                return Err(format!("I4 {what}: {} comes first", run[0]));
            }
            if run.iter().any(|id| self.event_at(*id, account) >= durable) {
                return Err(format!("I1 {what}: left before its events were durable"));
            }
            if self.fold.check_barriers(account, &run)? {
                return Err(format!("I5 {what}: makes and deletes a record"));
            }
            self.check_content(shard, asked, &run, what)?;
            return Ok(vec![run]);
        }
        let open = self.fold.lanes.get(&asked.lane);
        let open: Vec<OperationId> = open.into_iter().flatten().copied().collect();
        let longest = if self.account(account).fold {
            open.len()
        } else {
            open.len().min(1)
        };
        let mut runs = Vec::new();
        let mut refused = format!("I3 {what}: nothing is open");
        for length in 1..=longest {
            let run = &open[..length];
            let durable = self.event_at(run[length - 1], account) < durable;
            if !durable || !matches!(self.fold.check_barriers(account, run), Ok(false)) {
                break;
            }
            match self.check_content(shard, asked, run, what) {
                Ok(()) => runs.push(run.to_vec()),
                Err(broken) => refused = broken,
            }
        }
        if runs.is_empty() {
            Err(refused)
        } else {
            Ok(runs)
        }
    }

    fn check_durable(&self, lane: &LaneKey, durable: Lsn, what: &str) -> Result<(), Broken> {
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
        runs: &[Vec<OperationId>],
        durable: Lsn,
        what: &str,
    ) -> Result<(), Broken> {
        let first = runs[0][0];
        let front = self.op(first, &lane.1);
        let intent = front.and_then(|op| op.intent_at);
        let Some(intent) = intent.filter(|at| *at < durable) else {
            return Err(format!("I11 {what}: no durable intent"));
        };
        let open = self.fold.lanes.get(lane);
        let behind = runs.last().and_then(|run| open?.get(run.len()));
        let behind = behind.and_then(|id| self.op(*id, &lane.1));
        let deleted = behind.is_some_and(|op| {
            op.operation == Operation::Delete
                && !op.scheduled
                && !op.redriven
                && !op.skipped
                && op.event_at < intent
        });
        let creates = front.is_some_and(|op| op.operation == Operation::Create && op.folds());
        let never_sent = !self.fold.sent.contains(&(first, lane.1.clone()));
        // Of one that was part of another record it is only known then that it is one of its own.
        let merged = front.is_some_and(|op| {
            let key = owner(self, &op.object, &op.record_id);
            self.ledger.is_merged(&key)
        });
        if self.account(&lane.1).fold && creates && never_sent && deleted && !merged {
            return Err(format!("I5 {what}: its delete was waiting"));
        }
        Ok(())
    }

    /// While it is not known what became of a call, the next one carries the same.
    fn check_frozen(
        &self,
        lane: &LaneKey,
        runs: &mut Vec<Vec<OperationId>>,
        what: &str,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let Some(pending) = self.fold.pending.get(lane).filter(|it| it.frozen) else {
            return Ok(());
        };
        let carried = std::mem::take(runs);
        if !carried.contains(&pending.run) {
            let carried: Vec<String> = carried.iter().map(|run| names(run)).collect();
            return Err(format!(
                "I5 {what}: carries {}, what became of {} is not known",
                carried.join(" or "),
                names(&pending.run)
            ));
        }
        runs.push(pending.run.clone());
        let open = self.fold.lanes.get(lane).map_or(0, |open| open.len());
        if pending.run.len() > 1 && open > pending.run.len() {
            marks.hit(Mark::FoldedFrozen);
        }
        Ok(())
    }

    /// The same request goes by the same key, another one by another. A batch is another one with
    /// other company.
    fn check_key(
        &mut self,
        lane: &LaneKey,
        runs: &[Vec<OperationId>],
        request: &Request,
        what: &str,
    ) -> Result<(), Broken> {
        let write = Write {
            runs: runs.to_vec(),
            digest: request.digest().0,
            key: request.idempotency_key.clone(),
            batch: is_batch(request),
            after: self.fold.moved_at.get(lane).copied(),
            life: self.plan_book.life(),
        };
        let Some(before) = self.writes.insert(lane.clone(), write.clone()) else {
            return Ok(());
        };
        let same_request = before.runs == write.runs && before.digest == write.digest;
        let again = self.fold.pending.contains_key(lane) && !before.batch && !write.batch;
        // What System A is told also says what is known of the record now.
        let told = self.account(&lane.1).system_a;
        // What became of a call in an earlier life was never logged, and with it what was sent under
        // the key: where that might be another request, by other mappings or by what was seen of a
        // record since, it takes another key though it is the same.
        let remapped = before.after == write.after && before.life.1 < self.plan_book.changes();
        let unsure = before.life.0 < write.life.0 && (remapped || self.both_ways);
        if (again && same_request && before.key != write.key && !unsure)
            || (before.digest != write.digest && before.key == write.key && !told)
        {
            return Err(format!("I11 {what}: {before:?}, then {write:?}"));
        }
        Ok(())
    }

    /// A write carries what its operations say, one upon the other.
    fn check_content(
        &self,
        shard: usize,
        asked: &Asked,
        run: &[OperationId],
        what: &str,
    ) -> Result<(), Broken> {
        let ops: Vec<&Op> = run
            .iter()
            .filter_map(|id| self.op(*id, &asked.lane.1))
            .collect();
        if ops.iter().any(|op| op.skipped) {
            return Err(format!("R2 {what}: a rule skips {}", names(run)));
        }
        let deletes = ops[0].operation == Operation::Delete;
        if (asked.kind == CallKind::Delete || asked.marks) && !deletes {
            return Err(format!("I3 {what}: {} deletes nothing", run[0]));
        }
        let marks = self.marks_deletes(&asked.lane.1, &ops[0].object);
        if deletes && asked.kind.is_write() && asked.marks != marks {
            return Err(format!("I3 {what}: a delete that marks: {}", asked.marks));
        }
        if !asked.kind.writes_fields() {
            return Ok(());
        }
        // System A takes a change of a record that it does not hold for all there is of it.
        let makes = asked.kind == CallKind::Upsert || self.account(&asked.lane.1).system_a;
        let mut wanted = Map::new();
        if ops[0].operation == Operation::Update && makes {
            let expected = self.fold.expected.get(&asked.lane);
            wanted = expected.map_or(wanted, |expected| expected.undelivered.clone());
        }
        for data in ops.iter().filter_map(|op| op.data.as_ref()) {
            compose(&mut wanted, data);
        }
        let ways = written(asked.kind, &ops).iter().flat_map(|&written| {
            let as_what = (&*ops[0].object, written);
            self.mapped(shard, &asked.lane, run, as_what, &wanted)
        });
        let ways: Vec<_> = ways.collect();
        if ways.iter().flatten().any(|way| same(&asked.fields, way))
            || (self.both_ways && says_no_more(&asked.fields, &wanted, makes))
        {
            return Ok(());
        }
        Err(format!(
            "I3 {what} carries {:?}, its operations {} say {wanted:?}, mapped {ways:?}",
            asked.fields,
            names(run)
        ))
    }

    pub(super) fn op(&self, id: OperationId, account: &str) -> Option<&Op> {
        self.fold.ops.get(&(id, account.to_owned()))
    }

    pub(super) fn event_at(&self, id: OperationId, account: &str) -> Lsn {
        self.op(id, account).map_or(Lsn::ZERO, |op| op.event_at)
    }
}

/// Whether a call says all of a record, so that it comes with what mappings add, or changes of it. Of
/// a record that is linked by now no CREATE is left where others follow it.
fn written(kind: CallKind, ops: &[&Op]) -> &'static [Written] {
    let of = |operation| ops.iter().any(|op| op.operation == operation);
    let makes = of(Operation::Upsert) || !of(Operation::Update);
    match (kind, ops[0].operation) {
        (CallKind::Update, _) => &[Written::Changes],
        (_, Operation::Create) if ops.len() > 1 => &[Written::New, Written::Whole],
        (_, Operation::Create) => &[Written::New],
        _ if makes => &[Written::Whole],
        _ => &[Written::Changes],
    }
}

/// Whether a write says nothing else than its operations: fields that wait for an operator are left
/// out, and what lies beneath an update that makes a record may be forgotten since.
fn says_no_more(said: &Map<String, Value>, wanted: &Map<String, Value>, makes: bool) -> bool {
    let (said, wanted) = (leaves(said), leaves(wanted));
    said.iter()
        .all(|(place, value)| wanted.get(place).map_or(makes, |wanted| wanted == value))
}

/// Whether a request asks for a list, and so is of no record.
pub(in crate::sim) fn is_list(request: &Request) -> bool {
    request.request_id.is_empty()
}

/// Whether a request is of many records.
pub(in crate::sim) fn is_batch(request: &Request) -> bool {
    request.path_and_query.ends_with("/batch")
}
