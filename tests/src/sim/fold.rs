//! An independent reading of the logs: what was accepted, how it ended, what the providers must
//! hold.
//!
//! It shares only the decoders with the engine. After a crash it is made anew from what the logs
//! still hold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::codec::Damaged;
use engine::entry::{Consumed, Intent};
use engine::event::Operation;
use engine::event::codec;
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::Kind;
use engine::record::{Attempt, Progress, Resume, StateFrame};
use engine::state::{CallClass, Reason, State};
use serde_json::{Map, Value};
use wal::Lsn;

use super::marks::{Mark, Marks};
use super::merge::merge_patch;
use super::spied_log::{PAYLOAD_BYTES_MAX, Written};

/// An operation at one account.
pub(super) type OpKey = (OperationId, String);
/// A record at one account.
pub(super) type LaneKey = (RecordHash, String);

/// What one operation came to.
#[derive(Debug, Clone)]
pub(super) struct Op {
    pub(super) operation: Operation,
    pub(super) object: String,
    pub(super) record_id: String,
    data: Option<Map<String, Value>>,
    /// Where its newest event frame lies, copies by compaction apart.
    pub(super) event_at: Lsn,
    /// Its newest intent.
    pub(super) intent_at: Option<Lsn>,
    /// `None` while it is open.
    pub(super) ended: Option<(State, Option<Reason>)>,
    /// Its outcome was unknown at some time.
    unknown: bool,
    /// Some attempt may have arrived without our knowing.
    unclear: bool,
}

/// What a provider should hold of a record.
#[derive(Debug, Clone, Default)]
pub(super) struct Expected {
    pub(super) object: String,
    pub(super) record_id: String,
    /// `None`: there is no record.
    pub(super) fields: Option<Map<String, Value>>,
    /// Fields of failed operations since the last that arrived.
    undelivered: Map<String, Value>,
    /// An operation failed in a way that leaves open whether it arrived.
    pub(super) in_doubt: bool,
}

/// A broken promise, in words.
pub(super) type Broken = String;

/// What the logs say.
#[derive(Debug, Default, Clone)]
pub(super) struct Fold {
    pub(super) ops: BTreeMap<OpKey, Op>,
    /// Open operations of a record at an account, in the order of acceptance.
    pub(super) lanes: BTreeMap<LaneKey, VecDeque<OperationId>>,
    /// Every operation of a record at an account, in the order of acceptance, with its fields.
    accepted: BTreeMap<LaneKey, Vec<(OperationId, Vec<String>)>>,
    pub(super) dead: BTreeSet<OpKey>,
    pub(super) expected: BTreeMap<LaneKey, Expected>,
    /// Where each producer's numbers lie: shard and position.
    pub(super) taken: BTreeMap<(u64, u64), (usize, Lsn)>,
    /// Numbers that ended without an event.
    pub(super) consumed: BTreeMap<(u64, u64), (usize, Lsn)>,
    /// Where the last final outcome of a record at an account lies.
    pub(super) last_final: BTreeMap<LaneKey, Lsn>,
}

impl Fold {
    /// Takes the next frame of a shard's log.
    pub(super) fn apply(
        &mut self,
        shard: usize,
        frame: &Written,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let damaged = |error: Damaged| format!("a frame does not decode: {error}");
        match frame.kind {
            Kind::Event => self.event(shard, frame),
            Kind::EventRedriven => {
                marks.hit(Mark::Redriven);
                self.redriven(frame)
            }
            Kind::EventMoved => {
                marks.hit(Mark::EventMoved);
                Ok(())
            }
            Kind::Intent => {
                let intent = Intent::decode(&frame.payload).map_err(damaged)?;
                let key = (
                    OperationId {
                        record: intent.record,
                        seq: intent.seq,
                    },
                    intent.account.to_owned(),
                );
                let op = self
                    .ops
                    .get_mut(&key)
                    .ok_or(format!("an intent of an unknown operation {key:?}"))?;
                op.intent_at = Some(frame.at);
                Ok(())
            }
            Kind::State => self.state(frame, marks),
            Kind::Consumed => {
                let consumed = Consumed::decode(&frame.payload).map_err(damaged)?;
                for seq in consumed.seqs {
                    self.consumed
                        .insert((consumed.producer, seq), (shard, frame.at));
                }
                Ok(())
            }
            Kind::StateMoved | Kind::Lease | Kind::LeaseReturn | Kind::Hold => Ok(()),
        }
    }

    /// Operations accepted, times their targets.
    pub(super) fn accepted_count(&self) -> usize {
        self.ops.len()
    }

    /// Operations not final, by account.
    pub(super) fn open_by_account(&self) -> BTreeMap<&str, u64> {
        let mut open = BTreeMap::new();
        for ((_, account), lane) in &self.lanes {
            *open.entry(account.as_str()).or_default() += lane.len() as u64;
        }
        open
    }

    /// Where a number of a producer lies, if it is in some log.
    pub(super) fn place_of(&self, producer: u64, seq: u64) -> Option<(usize, Lsn)> {
        self.taken
            .get(&(producer, seq))
            .or_else(|| self.consumed.get(&(producer, seq)))
            .copied()
    }

    fn event(&mut self, shard: usize, frame: &Written) -> Result<(), Broken> {
        let event = codec::decode(&frame.payload)
            .map_err(|error| format!("an event does not decode: {error}"))?;
        if let Some(from) = event.producer {
            let number = (from.producer_hash, from.seq);
            if let Some(before) = self.taken.insert(number, (shard, frame.at)) {
                return Err(format!(
                    "I12 number {number:?} was taken twice: {before:?} and {:?}",
                    frame.at
                ));
            }
        }
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        let data = event
            .event
            .data
            .and_then(|data| serde_json::from_str(data.text()).ok());
        for account in event.targets.iter().map(|target| target.name) {
            let op = Op {
                operation: event.event.operation,
                object: event.event.object.to_string(),
                record_id: event
                    .event
                    .record_id
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                data: data.clone(),
                event_at: frame.at,
                intent_at: None,
                ended: None,
                unknown: false,
                unclear: false,
            };
            self.accept(id, account, op)?;
        }
        Ok(())
    }

    fn accept(&mut self, id: OperationId, account: &str, op: Op) -> Result<(), Broken> {
        let lane = (id.record, account.to_owned());
        self.lanes.entry(lane.clone()).or_default().push_back(id);
        let fields = op.data.iter().flat_map(Map::keys).cloned().collect();
        self.accepted
            .entry(lane.clone())
            .or_default()
            .push((id, fields));
        self.expected.entry(lane).or_insert_with(|| Expected {
            object: op.object.clone(),
            record_id: op.record_id.clone(),
            ..Expected::default()
        });
        match self.ops.insert((id, account.to_owned()), op) {
            Some(_) => Err(format!("operation {id} was accepted twice for {account}")),
            None => Ok(()),
        }
    }

    fn redriven(&mut self, frame: &Written) -> Result<(), Broken> {
        let event = codec::decode(&frame.payload)
            .map_err(|error| format!("an event does not decode: {error}"))?;
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        for account in event.targets.iter().map(|target| target.name) {
            let key = (id, account.to_owned());
            if !self.dead.remove(&key) {
                return Err(format!(
                    "{id} at {account} was redriven and is no dead letter"
                ));
            }
            let lane = (id.record, account.to_owned());
            let accepted = self.accepted.entry(lane.clone()).or_default();
            let place = accepted
                .iter()
                .rposition(|(other, _)| *other == id)
                .unwrap_or(0);
            let since: BTreeSet<String> = accepted[place + 1..]
                .iter()
                .flat_map(|(_, fields)| fields)
                .cloned()
                .collect();
            let op = self
                .ops
                .get_mut(&key)
                .ok_or("a dead letter is an operation")?;
            let expected = op.data.as_ref().map(|data| {
                data.iter()
                    .filter(|(name, _)| !since.contains(*name))
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect()
            });
            let given: Option<Map<String, Value>> = event
                .event
                .data
                .and_then(|data| serde_json::from_str(data.text()).ok());
            if given != expected {
                return Err(format!(
                    "redrive of {id} at {account} carries {given:?}, without fields written since it is {expected:?}"
                ));
            }
            accepted.push((id, given.iter().flat_map(Map::keys).cloned().collect()));
            op.data = given;
            op.event_at = frame.at;
            op.ended = None;
            self.lanes.entry(lane).or_default().push_back(id);
        }
        Ok(())
    }

    fn state(&mut self, frame: &Written, marks: &mut Marks) -> Result<(), Broken> {
        let states = StateFrame::decode(&frame.payload)
            .map_err(|error| format!("a state does not decode: {error}"))?;
        let Some(moved) = states.moved else {
            return Ok(());
        };
        let target = &states.records[0].targets[usize::from(moved)];
        let Some(progress) = &target.last else {
            return Err("a moved target has no progress".to_owned());
        };
        let id = OperationId {
            record: RecordHash(states.record),
            seq: progress.seq,
        };
        let key = (id, target.account.clone());
        let Some(op) = self.ops.get_mut(&key) else {
            return Err(format!("the state of an unknown operation {key:?}"));
        };
        note_unknown(op, progress, marks);
        if self.dead.contains(&key) {
            if progress.state != State::Dropped {
                return Err(format!(
                    "I2 dead letter {id} at {} became {:?}",
                    key.1, progress.state
                ));
            }
            marks.hit(Mark::Dropped);
            self.dead.remove(&key);
            op.ended = Some((State::Dropped, None));
            return Ok(());
        }
        if let Some(ended) = op.ended {
            return Err(format!(
                "I2 {id} at {} ended as {ended:?}, then {:?}",
                key.1, progress.state
            ));
        }
        let lane_key = (id.record, key.1.clone());
        let lane = self.lanes.entry(lane_key.clone()).or_default();
        if lane.front() != Some(&id) {
            return Err(format!(
                "I4 {id} at {} moved to {:?} before {:?}",
                key.1,
                progress.state,
                lane.front()
            ));
        }
        if !progress.state.is_final() {
            return Ok(());
        }
        lane.pop_front();
        if lane.is_empty() {
            self.lanes.remove(&lane_key);
        }
        op.ended = Some((progress.state, progress.reason));
        self.last_final.insert(lane_key.clone(), frame.at);
        let expected = self.expected.entry(lane_key).or_default();
        match progress.state {
            State::Synced => expected.deliver(op),
            State::Failed => {
                marks.hit(Mark::Failed);
                expected.fail(op, progress.reason);
                self.dead.insert(key);
            }
            State::Superseded => marks.hit(Mark::Superseded),
            _ => return Err(format!("{id} ended as {:?}", progress.state)),
        }
        self.note_shed(frame, &states, marks);
        Ok(())
    }

    /// A state too large for a frame goes without undelivered fields.
    fn note_shed(&mut self, frame: &Written, states: &StateFrame, marks: &mut Marks) {
        for target in &states.records[0].targets {
            let lane = (RecordHash(states.record), target.account.clone());
            let Some(expected) = self.expected.get_mut(&lane) else {
                continue;
            };
            let bytes = Value::Object(expected.undelivered.clone())
                .to_string()
                .len();
            let too_large = frame.payload.len() + bytes > PAYLOAD_BYTES_MAX;
            if target.undelivered.is_empty() && !expected.undelivered.is_empty() && too_large {
                expected.undelivered = Map::new();
                marks.hit(Mark::Shed);
            }
        }
    }
}

fn note_unknown(op: &mut Op, progress: &Progress, marks: &mut Marks) {
    let unclear =
        |attempt: &Attempt| matches!(attempt.class, CallClass::Transient | CallClass::Unknown);
    op.unclear |= progress.attempts.iter().any(unclear);
    if progress.resume == Resume::LookUp {
        op.unknown = true;
    } else if op.unknown {
        op.unknown = false;
        marks.hit(if progress.resume == Resume::Upsert {
            Mark::UnknownAbsent
        } else {
            Mark::UnknownFound
        });
    }
}

impl Expected {
    fn deliver(&mut self, op: &Op) {
        let empty = Map::new();
        let data = op.data.as_ref().unwrap_or(&empty);
        match op.operation {
            Operation::Read => return,
            Operation::Delete => self.fields = None,
            Operation::Update if self.fields.is_none() => {
                let mut fields = Map::new();
                merge_patch(&mut fields, &self.undelivered);
                merge_patch(&mut fields, data);
                self.fields = Some(fields);
            }
            Operation::Create | Operation::Update | Operation::Upsert => {
                merge_patch(self.fields.get_or_insert_default(), data);
            }
        }
        self.undelivered = Map::new();
    }

    fn fail(&mut self, op: &Op, reason: Option<Reason>) {
        let refused = matches!(
            reason,
            Some(Reason::Permanent | Reason::RecordDeleted | Reason::NotFound | Reason::Mapping)
        );
        self.in_doubt |= (!refused || op.unclear) && op.operation != Operation::Read;
        if op.operation != Operation::Delete
            && let Some(data) = &op.data
        {
            compose(&mut self.undelivered, data);
        }
    }
}

/// Makes `first` the patch that does what both do, one after the other: a null stays a null.
fn compose(first: &mut Map<String, Value>, second: &Map<String, Value>) {
    for (name, change) in second {
        match (first.get_mut(name), change) {
            (Some(Value::Object(before)), Value::Object(change)) => compose(before, change),
            _ => {
                first.insert(name.clone(), change.clone());
            }
        }
    }
}
