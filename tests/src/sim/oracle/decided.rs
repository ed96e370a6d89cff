//! What was decided of an event when it was taken, read anew from the line that its producer wrote.

use std::collections::BTreeMap;

use engine::entry::Consumed;
use engine::event::codec::{self, AcceptedEvent};
use engine::event::{Operation, Priority, TargetAction};
use engine::id::{OperationId, RecordHash};
use engine::journal::Kind;
use engine::record::StateFrame;
use engine::state::{Reason, State};
use serde_json::{Map, Value};
use wal::Lsn;

use super::Oracle;
use crate::sim::fold::{Broken, LaneKey};
use crate::sim::marks::{Mark, Marks};
use crate::sim::patch::compose;
use crate::sim::sets::mapping::Written as Write;
use crate::sim::sets::rules::{Asked, Decision, Verdict};
use crate::sim::sets::{InForce, SetsOptions};
use crate::sim::spied_log::Written;

/// What was offered where events are taken in, and by which sets.
#[derive(Debug, Default)]
pub(super) struct Offered {
    lines: BTreeMap<(u64, u64), Offer>,
}

/// A line under its producer's number.
#[derive(Debug)]
struct Offer {
    line: Map<String, Value>,
    /// What was in force whenever it came.
    under: Vec<InForce>,
}

/// Which mappings each shard's calls of an account went by since when, in this life of the engine.
#[derive(Debug, Default)]
pub(super) struct PlanBook {
    /// At the start.
    first: u32,
    taken: BTreeMap<(usize, String), Vec<(Lsn, u32)>>,
    /// Lives so far, and sets that were taken in all of them before this one.
    lives: u32,
    before: usize,
}

impl PlanBook {
    /// A life begins, with these.
    fn begin(&mut self, version: u32) {
        self.before = self.changes() + usize::from(self.first != version);
        self.lives += 1;
        self.first = version;
        self.taken.clear();
    }

    /// The life, and the sets that had been taken when it began.
    pub(super) fn life(&self) -> (u32, usize) {
        (self.lives, self.before)
    }

    /// Sets that were taken so far, each counted by all who took it.
    pub(super) fn changes(&self) -> usize {
        self.before + self.taken.values().map(Vec::len).sum::<usize>()
    }

    fn took(&mut self, shard: usize, account: &str, at: Lsn, version: u32) {
        let taken = self.taken.entry((shard, account.to_owned())).or_default();
        taken.push((at, version));
    }

    fn taken(&self, shard: usize, account: &str) -> Vec<(Lsn, u32)> {
        let taken = self.taken.get(&(shard, account.to_owned()));
        let taken = taken.into_iter().flatten().copied();
        std::iter::once((Lsn::ZERO, self.first))
            .chain(taken)
            .collect()
    }

    /// The versions by which a shard may have prepared a call after a place in its log.
    fn since(&self, shard: usize, account: &str, after: Lsn) -> Vec<u32> {
        let taken = self.taken(shard, account);
        let ends = taken.iter().skip(1).map(|(at, _)| Some(*at));
        let taken = taken.iter().zip(ends.chain([None]));
        let kept = taken.filter(|(_, end)| end.is_none_or(|end| end > after));
        kept.map(|((_, version), _)| *version).collect()
    }

    /// The version by which a frame was written.
    fn at(&self, shard: usize, account: &str, at: Lsn) -> Option<u32> {
        let taken = self.taken(shard, account);
        let before = taken.iter().rev().find(|(from, _)| *from <= at);
        before.map(|(_, version)| *version)
    }
}

impl Oracle {
    /// A producer's lines are offered while these sets are in force.
    pub(in crate::sim) fn offered(
        &mut self,
        producer: u64,
        first_seq: u64,
        lines: &[Vec<u8>],
        under: InForce,
    ) {
        if self.sets.is_none() {
            return;
        }
        for (seq, line) in (first_seq..).zip(lines) {
            let offer = self.offered.lines.entry((producer, seq));
            let offer = offer.or_insert_with(|| Offer {
                line: serde_json::from_slice(line).expect("clients write objects"),
                under: Vec::new(),
            });
            if !offer.under.contains(&under) {
                offer.under.push(under);
            }
        }
    }

    /// A shard's calls go by other mappings from here on.
    pub(in crate::sim) fn took_mappings(
        &mut self,
        shard: usize,
        account: &str,
        at: Lsn,
        version: u32,
    ) {
        self.plan_book.took(shard, account, at, version);
    }

    /// A life of the engine begins, with these mappings.
    pub(in crate::sim) fn life_begins(&mut self, version: u32) {
        self.plan_book.begin(version);
    }

    /// What a frame says of rules and mappings.
    pub(super) fn check_decided(
        &self,
        shard: usize,
        frame: &Written,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let Some(sets) = self.sets.as_deref() else {
            return Ok(());
        };
        match frame.kind {
            Kind::Event => {
                let event = codec::decode(&frame.payload).map_err(|error| error.to_string())?;
                self.check_event(sets, &event, marks)
            }
            Kind::Consumed => {
                let consumed = Consumed::decode(&frame.payload).map_err(|e| e.to_string())?;
                let seqs = consumed.seqs.into_iter();
                for seq in seqs {
                    self.check_consumed(sets, (consumed.producer, seq), marks)?;
                }
                Ok(())
            }
            Kind::State => self.check_unmappable(sets, shard, frame, marks),
            _ => Ok(()),
        }
    }

    /// What is taken is decided as the sets say that it was taken under, which were in force then.
    fn check_event(
        &self,
        sets: &SetsOptions,
        event: &AcceptedEvent<'_>,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let Some(from) = event.producer else {
            return Ok(());
        };
        let number = (from.producer_hash, from.seq);
        let under = InForce {
            mappings: event.mapping_version,
            rules: event.rules_version,
        };
        let offer = self.offered.lines.get(&number);
        let offer = offer.ok_or(format!("I3 number {number:?} was never offered"))?;
        if !offer.under.contains(&under) {
            return Err(format!(
                "R1 number {number:?} is taken under {under:?}, it was offered under {:?}",
                offer.under
            ));
        }
        let decided = self.decide(sets, &offer.line, under);
        let decided = decided.ok_or(format!(
            "R1 number {number:?} is taken, which every account's rules reject: {:?}",
            offer.line
        ))?;
        let logged: BTreeMap<&str, (TargetAction, u16)> = event
            .targets
            .iter()
            .map(|target| (target.name, (target.action, target.rule)))
            .collect();
        let expected: BTreeMap<&str, (TargetAction, u16)> = decided
            .iter()
            .map(|(account, decision)| (*account, (logged_as(decision.verdict), decision.rule)))
            .collect();
        if logged != expected {
            return Err(format!(
                "R1 number {number:?} is decided as {logged:?}, the rules say {expected:?} of {:?}",
                offer.line
            ));
        }
        let sent = decided
            .iter()
            .filter(|(_, decision)| logged_as(decision.verdict) != TargetAction::Skip);
        let given = sent.filter_map(|(_, decision)| decision.priority).min();
        let own = offer.line.get("priority").and_then(Value::as_u64);
        let wanted = given.map(u64::from).or(own).unwrap_or(DEFAULT_PRIORITY);
        if Priority::new(wanted as u8) != Some(event.event.priority) {
            return Err(format!(
                "R1 number {number:?} has priority {:?}, the rules say {wanted}",
                event.event.priority
            ));
        }
        for (_, decision) in &decided {
            match decision.verdict {
                Verdict::Sync => {}
                Verdict::Skip => marks.hit(Mark::Skipped),
                Verdict::Turn(_) => marks.hit(Mark::Turned),
                Verdict::Reject => marks.hit(Mark::RejectedAtOne),
            }
            if decision.priority.is_some() {
                marks.hit(Mark::RulePriority);
            }
        }
        Ok(())
    }

    /// A number without an event was no event, or every account's rules reject it.
    fn check_consumed(
        &self,
        sets: &SetsOptions,
        number: (u64, u64),
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let offer = self.offered.lines.get(&number);
        let offer = offer.ok_or(format!("I3 number {number:?} was never offered"))?;
        if offer.line.get("priority") == Some(&Value::from(99)) {
            return Ok(());
        }
        let mut under = offer.under.iter();
        if under.any(|under| self.decide(sets, &offer.line, *under).is_none()) {
            marks.hit(Mark::Rejected);
            return Ok(());
        }
        Err(format!(
            "R1 number {number:?} is refused, the rules take it: {:?}",
            offer.line
        ))
    }

    /// By account; `None`: every one of them rejects it.
    fn decide<'o>(
        &'o self,
        sets: &SetsOptions,
        line: &Map<String, Value>,
        under: InForce,
    ) -> Option<Vec<(&'o str, Decision)>> {
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "UPSERT" => Operation::Upsert,
            "DELETE" => Operation::Delete,
            _ => Operation::Read,
        };
        let (mappings, rules) = (
            sets.mapping_set(under.mappings)?,
            sets.rule_list(under.rules)?,
        );
        let only = line.get("provider").and_then(Value::as_str);
        let accounts = self.accounts.iter().map(|account| account.name.as_str());
        let accounts = accounts.filter(|name| only.is_none_or(|only| only == *name));
        let decided = accounts.map(|account| {
            let asked = Asked {
                operation,
                object: text("object"),
                record_id: text("record_id"),
                account,
                changed: line.get("data").and_then(Value::as_object),
                before: line.get("before").and_then(Value::as_object),
            };
            let nothing = |verdict| Decision {
                verdict,
                rule: 0,
                priority: None,
            };
            if !mappings.admits(account, asked.object, asked.record_id) {
                return (account, nothing(Verdict::Skip));
            }
            let decision = rules.decide(asked);
            let lacks = || {
                let mapping = mappings.object(account, asked.object)?;
                let written = match decision.verdict {
                    Verdict::Sync => operation,
                    Verdict::Turn(operation) => operation,
                    Verdict::Skip | Verdict::Reject => return None,
                };
                let written = match written {
                    Operation::Create => Write::New,
                    Operation::Upsert => Write::Whole,
                    Operation::Update => Write::Changes,
                    _ => return None,
                };
                (!mapping.has_required(written, asked.changed?)).then_some(())
            };
            match lacks() {
                Some(()) => (account, nothing(Verdict::Reject)),
                None => (account, decision),
            }
        });
        let decided: Vec<_> = decided.collect();
        let rejected = decided
            .iter()
            .all(|(_, decision)| decision.verdict == Verdict::Reject);
        (!rejected).then_some(decided)
    }

    /// What ends for its mapping could not be mapped.
    fn check_unmappable(
        &self,
        sets: &SetsOptions,
        shard: usize,
        frame: &Written,
        marks: &mut Marks,
    ) -> Result<(), Broken> {
        let states = StateFrame::decode(&frame.payload).map_err(|error| error.to_string())?;
        let Some(moved) = states.moved else {
            return Ok(());
        };
        let target = &states.records[0].targets[usize::from(moved)];
        let Some(last) = target
            .last
            .as_ref()
            .filter(|last| (last.state, last.reason) == (State::Failed, Some(Reason::Mapping)))
        else {
            return Ok(());
        };
        let id = OperationId {
            record: RecordHash(states.record),
            seq: last.seq,
        };
        let lane = (id.record, target.account.clone());
        let run = self.fold.run(&lane, id)?;
        let ops = run.iter().filter_map(|id| self.op(*id, &lane.1));
        let ops: Vec<_> = ops.collect();
        let version = self
            .plan_book
            .at(shard, &lane.1, frame.at)
            .unwrap_or_default();
        let object = ops[0].object.as_str();
        let refused = || format!("I3 {id} at {} is called unmappable", lane.1);
        let mapping = sets.mapping(version, &lane.1, object).ok_or_else(refused)?;
        let expected = self.fold.expected.get(&lane);
        let beneath = expected.map(|expected| expected.undelivered.clone());
        let grounds = [Some(Map::new()), beneath.filter(|it| !it.is_empty())];
        for mut data in grounds.into_iter().flatten() {
            for own in ops.iter().filter_map(|op| op.data.as_ref()) {
                compose(&mut data, own);
            }
            let fits = [Write::New, Write::Whole, Write::Changes]
                .map(|it| mapping.map(it, &data).is_some());
            if fits != [true, true, true] {
                marks.hit(Mark::Unmappable);
                return Ok(());
            }
        }
        Err(refused())
    }

    /// The versions of mappings by which a call of a run may have been written.
    fn versions(&self, shard: usize, lane: &LaneKey, run: &[OperationId]) -> Vec<u32> {
        let lead = run.last().map(|id| self.event_at(*id, &lane.1));
        let moved = self.fold.moved_at.get(lane).copied();
        let after = lead.max(moved).unwrap_or(Lsn::ZERO);
        self.plan_book.since(shard, &lane.1, after)
    }

    /// How the fields of a record's run may be named and written by the call's account: one way for
    /// each version of its mappings that may have been in force.
    pub(super) fn mapped(
        &self,
        shard: usize,
        lane: &LaneKey,
        run: &[OperationId],
        (object, written): (&str, Write),
        wanted: &Map<String, Value>,
    ) -> Vec<Option<Map<String, Value>>> {
        let Some(sets) = self.sets.as_deref() else {
            return vec![Some(wanted.clone())];
        };
        let versions = self.versions(shard, lane, run).into_iter();
        let ways = versions.map(|version| match sets.mapping(version, &lane.1, object) {
            Some(mapping) => mapping.map(written, wanted),
            None => Some(wanted.clone()),
        });
        ways.collect()
    }
}

/// Of an event that names none.
const DEFAULT_PRIORITY: u64 = 5;

/// What the log keeps of a verdict.
fn logged_as(verdict: Verdict) -> TargetAction {
    match verdict {
        Verdict::Sync => TargetAction::Sync,
        Verdict::Skip | Verdict::Reject => TargetAction::Skip,
        Verdict::Turn(operation) => TargetAction::Instead(operation),
    }
}

/// What an operation of the log is at an account.
pub(in crate::sim) fn asked_at(action: TargetAction, own: Operation) -> Operation {
    match action {
        TargetAction::Instead(operation) => operation,
        TargetAction::Sync | TargetAction::Skip | TargetAction::Observe => own,
    }
}
