//! An independent reading of the logs: what was accepted, how it ended, what the providers must
//! hold.
//!
//! It shares only the decoders with the engine. After a crash it is made anew from what the logs
//! still hold.

mod bodies;
mod ends;
mod expected;
mod pending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use engine::codec::Damaged;
use engine::entry::{Consumed, Intent};
use engine::event::codec;
use engine::event::{Operation, TargetAction};
use engine::id::{OperationId, OperationSeq, RecordHash};
use engine::journal::Kind;
use engine::record::StateFrame;
use engine::shard::extra;
use engine::state::{Reason, State};
use serde_json::{Map, Value};
use wal::Lsn;

use super::marks::{Mark, Marks};
use super::options::Options;
use super::oracle::asked_at;
use super::spied_log::{PAYLOAD_BYTES_MAX, Written};
use bodies::Body;
use ends::End;
pub(super) use expected::Expected;
use pending::Pending;

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
    pub(super) data: Option<Map<String, Value>>,
    /// It has a time before which it does not run.
    pub(super) scheduled: bool,
    /// It came back from the dead letters.
    pub(super) redriven: bool,
    /// A rule or a switch leaves it out: it ends in its turn, without a call.
    pub(super) skipped: bool,
    /// It is compared with what waits for its target, and nothing is sent.
    pub(super) observed: bool,
    /// Others under the same number, which come when it has ended: what is handed over may be again
    /// after a crash, and so may what comes of it.
    pub(super) twins: Vec<Op>,
    /// There is one, or was.
    pub(super) repeated: bool,
    /// Where its newest event frame lies, copies by compaction apart.
    pub(super) event_at: Lsn,
    /// Its newest intent.
    pub(super) intent_at: Option<Lsn>,
    /// `None` while it is open.
    pub(super) ended: Option<(State, Option<Reason>)>,
    /// The operation that its call was named after, and how that one ended.
    pub(super) ended_with: Option<(OperationId, State)>,
    /// The same operation, if later ones of that call wrote all of this one's fields.
    pub(super) superseded_by: Option<OperationId>,
}

impl Op {
    /// Whether it may share a call with others of its record.
    pub(super) fn folds(&self) -> bool {
        self.operation.writes_fields() && !self.scheduled && !self.observed && !self.skipped
    }

    /// Whether it says something of fields.
    fn writes(&self) -> bool {
        self.operation.writes_fields() && !self.skipped
    }

    /// Makes place for the next one under its number.
    pub(super) fn next_twin(&mut self) {
        if !self.twins.is_empty() {
            let mut next = self.twins.remove(0);
            next.twins = std::mem::take(&mut self.twins);
            next.repeated = true;
            *self = next;
        }
    }
}

/// A broken promise, in words.
pub(super) type Broken = String;

/// What the logs say.
#[derive(Debug, Default, Clone)]
pub(super) struct Fold {
    /// Attempts that may fail, by account.
    attempts_max: BTreeMap<String, u16>,
    pub(super) ops: BTreeMap<OpKey, Op>,
    /// Open operations of a record at an account, in the order of acceptance.
    pub(super) lanes: BTreeMap<LaneKey, VecDeque<OperationId>>,
    /// Every operation of a record at an account, in the order of acceptance, with its fields.
    accepted: BTreeMap<LaneKey, Vec<(OperationId, Vec<String>)>>,
    pub(super) dead: BTreeSet<OpKey>,
    pub(super) expected: BTreeMap<LaneKey, Expected>,
    /// Records between two calls that belong together.
    pub(super) pending: BTreeMap<LaneKey, Pending>,
    /// Records of which the account said, at their last call, that its day's calls are spent.
    pub(super) spent: BTreeSet<LaneKey>,
    /// The runs that ended calls may have carried whose outcomes are not in the log yet.
    pub(super) answered: BTreeMap<LaneKey, Vec<Vec<OperationId>>>,
    /// Operations of which some call was let out, in whatever life of the engine.
    pub(super) sent: BTreeSet<OpKey>,
    /// What the newest call named after an operation carried, in whatever life of the engine.
    bodies: BTreeMap<OpKey, Body>,
    /// Fields are mapped: what an account holds follows from what its calls carried.
    mapped: bool,
    /// Where the newest frame of a record's progress at an account lies.
    pub(super) moved_at: BTreeMap<LaneKey, Lsn>,
    /// What accounts told, by scope and name.
    pub(super) delivered: BTreeSet<(u64, String)>,
    /// Changes come back: redriven operations may meet newer ones that came of others.
    both_ways: bool,
    /// Where each producer's numbers lie: shard and position.
    pub(super) taken: BTreeMap<(u64, u64), (usize, Lsn)>,
    /// The newest number that a producer had taken of a record.
    newest: BTreeMap<(u64, RecordHash), u64>,
    /// Numbers that ended without an event.
    pub(super) consumed: BTreeMap<(u64, u64), (usize, Lsn)>,
    /// Where the last final outcome of a record at an account lies.
    pub(super) last_final: BTreeMap<LaneKey, Lsn>,
}

/// Operations by their names.
pub(super) fn names(run: &[OperationId]) -> String {
    let names: Vec<String> = run.iter().map(ToString::to_string).collect();
    format!("[{}]", names.join(" "))
}

impl Fold {
    /// Before the first frame.
    pub(super) fn new(options: &Options) -> Self {
        let accounts = options.accounts.iter();
        let attempts = accounts.map(|account| (account.name.clone(), account.max_attempts));
        Self {
            both_ways: options.two_way.is_some(),
            mapped: options.sets.is_some(),
            attempts_max: attempts.collect(),
            ..Self::default()
        }
    }

    /// As it was before the first frame; what was sent stays sent.
    pub(super) fn anew(&mut self) -> Self {
        Self {
            sent: std::mem::take(&mut self.sent),
            bodies: std::mem::take(&mut self.bodies),
            mapped: self.mapped,
            both_ways: self.both_ways,
            attempts_max: std::mem::take(&mut self.attempts_max),
            ..Self::default()
        }
    }

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
            Kind::StateMoved | Kind::Lease | Kind::LeaseReturn | Kind::Learned | Kind::Hold => {
                Ok(())
            }
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

    /// Operations that have ended, by account.
    pub(super) fn ended_by_account(&self) -> BTreeMap<String, usize> {
        let mut ended = BTreeMap::new();
        for ((_, account), _) in self.ops.iter().filter(|(_, op)| op.ended.is_some()) {
            *ended.entry(account.clone()).or_default() += 1;
        }
        ended
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
        if let Some(from) = event.producer {
            let of = (from.producer_hash, id.record);
            let before = self.newest.insert(of, from.seq).unwrap_or_default();
            if before > from.seq {
                return Err(format!(
                    "I2 number {} of a producer is taken behind its {before}, of the same record",
                    from.seq
                ));
            }
        }
        let data = event
            .event
            .data
            .and_then(|data| serde_json::from_str(data.text()).ok());
        if let (Some(dedup), Some(name)) = (event.dedup, &event.event.event_id) {
            self.delivered.insert((dedup.scope, name.to_string()));
        }
        for target in event.targets.iter() {
            let account = target.name;
            let observed = target.action == TargetAction::Observe;
            let lane = (id.record, account.to_owned());
            let late = event.event.extras.iter().any(|it| it.name == extra::LATE);
            if observed && !late && !self.lanes.contains_key(&lane) {
                continue;
            }
            let op = Op {
                operation: asked_at(target.action, event.event.operation),
                object: event.event.object.to_string(),
                record_id: event
                    .event
                    .record_id
                    .as_deref()
                    .unwrap_or_default()
                    .to_owned(),
                data: data.clone(),
                scheduled: event.event.scheduled_at_ms.is_some(),
                redriven: false,
                skipped: target.action == TargetAction::Skip,
                observed,
                twins: Vec::new(),
                repeated: false,
                event_at: frame.at,
                intent_at: None,
                ended: None,
                ended_with: None,
                superseded_by: None,
            };
            self.accept(id, account, op)?;
        }
        Ok(())
    }

    fn accept(&mut self, id: OperationId, account: &str, op: Op) -> Result<(), Broken> {
        let lane = (id.record, account.to_owned());
        self.lanes.entry(lane.clone()).or_default().push_back(id);
        let written = op.data.as_ref().filter(|_| op.writes());
        let fields = written.into_iter().flat_map(Map::keys).cloned().collect();
        self.accepted
            .entry(lane.clone())
            .or_default()
            .push((id, fields));
        self.expected.entry(lane).or_insert_with(|| Expected {
            object: op.object.clone(),
            record_id: op.record_id.clone(),
            ..Expected::default()
        });
        let key = (id, account.to_owned());
        let derived = !id.seq.0.is_multiple_of(OperationSeq::STEP);
        if let Some(known) = self.ops.get_mut(&key)
            && self.both_ways
            && (derived || op.operation == Operation::Pull)
        {
            known.twins.push(op);
            known.repeated = true;
            if known.ended.is_some() {
                known.next_twin();
            }
            return Ok(());
        }
        match self.ops.insert(key, op) {
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
            // Of a delete, by a rule too, no field is sent: nothing is left out.
            let deletes = op.operation == Operation::Delete;
            let expected = op.data.as_ref().map(|data| {
                data.iter()
                    .filter(|(name, _)| deletes || !since.contains(*name))
                    .map(|(n, v)| (n.clone(), v.clone()))
                    .collect()
            });
            let given: Option<Map<String, Value>> = event
                .event
                .data
                .and_then(|data| serde_json::from_str(data.text()).ok());
            if given != expected && !self.both_ways {
                return Err(format!(
                    "redrive of {id} at {account} carries {given:?}, without fields written since it is {expected:?}"
                ));
            }
            accepted.push((id, given.iter().flat_map(Map::keys).cloned().collect()));
            op.data = given;
            op.redriven = true;
            op.event_at = frame.at;
            op.ended = None;
            op.ended_with = None;
            op.superseded_by = None;
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
        let attempts_max = self.attempts_max.get(&target.account);
        if attempts_max.is_some_and(|most| progress.burnt > *most) {
            return Err(format!(
                "I9 {} attempts were made at {}",
                progress.burnt, target.account
            ));
        }
        let id = OperationId {
            record: RecordHash(states.record),
            seq: progress.seq,
        };
        let key = (id, target.account.clone());
        let Some(op) = self.ops.get_mut(&key) else {
            return Err(format!("the state of an unknown operation {key:?}"));
        };
        if self.dead.contains(&key) && op.ended.is_some() {
            let decided =
                (progress.state, progress.reason) == (State::Synced, Some(Reason::Conflict));
            if decided && self.both_ways {
                marks.hit(Mark::Decided);
                self.dead.remove(&key);
                op.ended = Some((State::Synced, progress.reason));
                return Ok(());
            }
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
        let lane_key = (id.record, key.1);
        self.moved_at.insert(lane_key.clone(), frame.at);
        let run = self.run(&lane_key, id)?;
        if progress.folded as usize + 1 != run.len() {
            return Err(format!(
                "I4 {id} at {} moved to {:?} with {} folded, up to it come {}",
                lane_key.1,
                progress.state,
                progress.folded,
                names(&run)
            ));
        }
        // What cannot be mapped ends without a call: the one before it ended unheard.
        let unsent = (progress.state, progress.reason) == (State::Failed, Some(Reason::Mapping));
        if let Some(runs) = self.answered.remove(&lane_key)
            && !unsent
            && !runs.contains(&run)
        {
            let carried: Vec<String> = runs.iter().map(|run| names(run)).collect();
            return Err(format!(
                "I5 the outcome at {} is of {}, the call was of {}",
                lane_key.1,
                names(&run),
                carried.join(" or ")
            ));
        }
        let pending = self.pending.entry(lane_key.clone()).or_default();
        // A pull may find, when it is looked at again, that it needs no call after all.
        let uncalled = progress.operation == Operation::Pull as u8
            && progress.state == State::Synced
            && progress.burnt == pending.burnt;
        if self.spent.remove(&lane_key)
            && !uncalled
            && (progress.state.is_final() || progress.burnt > pending.burnt)
        {
            return Err(format!(
                "I9 {id} at {} is {:?} after {} attempts, {} before the day's calls were spent",
                lane_key.1, progress.state, progress.burnt, pending.burnt
            ));
        }
        pending.note(&run, progress, marks);
        if !progress.state.is_final() {
            return match states.folded.as_slice() {
                [] => Ok(()),
                folded => Err(format!("{id} is open and ends {folded:?}")),
            };
        }
        let unclear = pending.unclear;
        self.pending.remove(&lane_key);
        let end = End {
            at: frame.at,
            lane: &lane_key,
            run: &run,
            states: &states,
            progress,
            unclear,
        };
        self.end_run(&end, marks)?;
        self.note_shed(frame, &states, marks);
        Ok(())
    }

    /// The open operations of a record up to one of them: what a call of that name carries.
    pub(super) fn run(
        &self,
        lane: &LaneKey,
        last: OperationId,
    ) -> Result<Vec<OperationId>, Broken> {
        let open = self.lanes.get(lane);
        let place = open.and_then(|open| open.iter().position(|id| *id == last));
        match (open, place) {
            (Some(open), Some(place)) => Ok(open.iter().take(place + 1).copied().collect()),
            _ => Err(format!("I4 {last} at {} is not open", lane.1)),
        }
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
