//! What was promised, checked from the outside: the logs' frames, what clients were told, what
//! the providers saw.

mod both_ways;
mod decided;
mod outgoing;
mod told;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::id::HashKey;
use engine::journal::Kind;
use engine::state::{Reason, State};
use serde_json::{Map, Value};
use wal::Lsn;

use super::fold::{Broken, Expected, Fold, LaneKey, OpKey};
use super::index_dump::IndexDump;
use super::marks::{Mark, Marks};
use super::merge::same;
use super::node::{HASH_KEY, Opened};
use super::options::{AccountOptions, Options};
use super::provider::Provider;
use super::sets::SetsOptions;
use super::sets::mapping::MappingSet;
use super::spied_log::Written;
use super::two_way::agreement::owner;
use super::two_way::ledger::Ledger;
use super::two_way::options::Policy;
pub(super) use decided::asked_at;
use decided::{Offered, PlanBook};
use outgoing::Write;
pub(super) use outgoing::{Carried, is_batch, is_list};
pub(super) use told::is_day_spent;

/// Every frame ever appended, by shard, and what follows from it.
pub(super) struct Oracle {
    /// Frames in the order of their places; after a crash only those that survived.
    pub(super) traces: Vec<Vec<Written>>,
    pub(super) fold: Fold,
    /// What each shard's log has promised to keep.
    promised: Vec<Lsn>,
    /// Records with a call out, at which account, and the operations it carries.
    calls: BTreeMap<LaneKey, Carried>,
    /// The newest write of a record at an account, in whatever life of the engine.
    writes: BTreeMap<LaneKey, Write>,
    /// Operations of which a provider told that it did them, and that it refused them for what
    /// they are.
    told_done: BTreeSet<OpKey>,
    told_refused: BTreeSet<OpKey>,
    /// Numbers of producers of which a log that broke may have kept the event, until a restart tells.
    unsure: BTreeSet<(u64, u64)>,
    accounts: Vec<AccountOptions>,
    /// Mappings and rules, by their versions.
    sets: Option<Arc<SetsOptions>>,
    offered: Offered,
    plan_book: PlanBook,
    /// Mappings where changes come back: all that is said here of records is in System A's names.
    pub(super) mapped_back: Option<MappingSet>,
    /// Changes come back.
    both_ways: bool,
    /// Whose fields are, where changes come back.
    pub(super) policy: Option<Policy>,
    /// Who else wrote what.
    pub(super) ledger: Ledger,
    hash_key: HashKey,
    /// The first broken promise.
    pub(super) broken: Option<Broken>,
}

impl Oracle {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            traces: Vec::new(),
            fold: Fold::new(options),
            promised: Vec::new(),
            calls: BTreeMap::new(),
            writes: BTreeMap::new(),
            told_done: BTreeSet::new(),
            told_refused: BTreeSet::new(),
            unsure: BTreeSet::new(),
            accounts: options.accounts.clone(),
            sets: options.sets.clone().map(Arc::new),
            offered: Offered::default(),
            plan_book: PlanBook::default(),
            mapped_back: options.mapped_back.clone(),
            both_ways: options.two_way.is_some(),
            policy: options.two_way.as_ref().map(|two_way| two_way.policy),
            ledger: Ledger::default(),
            hash_key: HashKey(HASH_KEY),
            broken: None,
        }
    }

    /// System A's fields for an account's, where changes come back.
    pub(super) fn led_back(
        &self,
        account: &str,
        object: &str,
        fields: Map<String, Value>,
    ) -> Map<String, Value> {
        match &self.mapped_back {
            Some(set) => set.led_back(account, object, fields),
            None => fields,
        }
    }

    /// Whether records of an object are marked at an account when they are deleted.
    pub(super) fn marks_deletes(&self, account: &str, object: &str) -> bool {
        let mapping = self.mapped_back.as_ref();
        let mapping = mapping.and_then(|set| set.object(account, object));
        mapping.is_some_and(|mapping| mapping.marks_deletes)
    }

    /// Whether an account's record is marked as deleted.
    pub(super) fn is_marked(
        &self,
        account: &str,
        object: &str,
        fields: &Map<String, Value>,
    ) -> bool {
        let mapping = self.mapped_back.as_ref();
        let mapping = mapping.and_then(|set| set.object(account, object));
        mapping.is_some_and(|mapping| mapping.is_marked(fields))
    }

    fn account(&self, name: &str) -> &AccountOptions {
        let mut accounts = self.accounts.iter();
        let account = accounts.find(|account| account.name == name);
        account.expect("calls are of accounts of the run")
    }

    /// Notes the outcome of a check; the first that fails stays.
    pub(super) fn note(&mut self, checked: Result<(), Broken>) {
        if let (Err(broken), None) = (checked, &self.broken) {
            self.broken = Some(broken);
        }
    }

    /// A shard appended these.
    pub(super) fn appended(&mut self, shard: usize, frames: Vec<Written>, marks: &mut Marks) {
        for frame in frames {
            let decided = self.check_decided(shard, &frame, marks);
            self.note(
                decided.map_err(|broken| format!("shard {shard} at {}: {broken}", frame.at.get())),
            );
            let applied = self.fold.apply(shard, &frame, marks);
            self.note(
                applied.map_err(|broken| format!("shard {shard} at {}: {broken}", frame.at.get())),
            );
            let checked = self.check_back(shard, &frame, marks);
            self.note(
                checked.map_err(|broken| format!("shard {shard} at {}: {broken}", frame.at.get())),
            );
            self.traces[shard].push(frame);
        }
    }

    /// A shard's log says that it is durable up to here.
    pub(super) fn durable(&mut self, shard: usize, durable: Lsn) {
        if durable < self.promised[shard] {
            self.note(Err(format!(
                "shard {shard}: durability went back to {durable:?}"
            )));
        }
        self.promised[shard] = durable;
    }

    /// A client is told that every number up to `last` is settled.
    pub(super) fn acknowledged(&mut self, producer: u64, from: u64, last: u64) {
        for seq in from + 1..=last {
            let durable = self
                .fold
                .place_of(producer, seq)
                .is_some_and(|(shard, at)| at < self.promised[shard]);
            if !durable {
                let place = self.fold.place_of(producer, seq);
                self.note(Err(format!(
                    "I1 number {seq} was acknowledged and is not durable: {place:?}"
                )));
            }
        }
    }

    /// A client is told that these numbers were not taken, or that nobody knows: then nobody does
    /// when they come again either.
    pub(super) fn refused(&mut self, producer: u64, seqs: &[u64], unsure: bool) {
        for &seq in seqs {
            if unsure {
                self.unsure.insert((producer, seq));
            }
            if self.unsure.contains(&(producer, seq)) {
                continue;
            }
            if let Some(place) = self.fold.taken.get(&(producer, seq)) {
                self.note(Err(format!(
                    "I13 number {seq} was refused and is in the log at {place:?}"
                )));
            }
        }
    }

    /// The engine died: what no log kept never was.
    pub(super) fn died(&mut self) {
        self.calls.clear();
        self.unsure.clear();
        self.fold.spent.clear();
    }

    /// A log was opened: what it holds must be what was written, without a gap, up to all that
    /// was promised.
    pub(super) fn recovered(&mut self, shard: usize, opened: &Opened) {
        let checked = self.check_recovered(shard, opened);
        self.note(checked);
    }

    fn check_recovered(&mut self, shard: usize, opened: &Opened) -> Result<(), Broken> {
        if self.traces.len() <= shard {
            self.traces.resize_with(shard + 1, Vec::new);
            self.promised.resize(shard + 1, Lsn::ZERO);
        }
        let trace = &mut self.traces[shard];
        let before = trace
            .iter()
            .take_while(|frame| frame.at < opened.replay_from)
            .count();
        for (at, pair) in trace[before..].iter().zip(&opened.frames).enumerate() {
            if pair.0 != pair.1 {
                return Err(format!(
                    "I18 shard {shard}: frame {at} reads {:?}, was {:?}",
                    pair.1, pair.0
                ));
            }
        }
        let written = trace.len() - before;
        if opened.frames.len() > written {
            return Err(format!(
                "I20 shard {shard}: {} frames recovered of {written}",
                opened.frames.len()
            ));
        }
        let lost = trace.split_off(before + opened.frames.len());
        if let Some(first) = lost.first().filter(|first| first.at < self.promised[shard]) {
            return Err(format!(
                "I1 shard {shard} lost what was durable, from {:?} on: {:?}",
                first.at, first.kind
            ));
        }
        let end = opened.report.end;
        self.promised[shard] = end;
        if let Some(difference) = opened
            .other_dump
            .as_ref()
            .and_then(|other| opened.dump.difference(other))
        {
            return Err(format!(
                "I19 shard {shard}: a checkpoint and the log before it differ: {difference}"
            ));
        }
        Ok(())
    }

    /// Folds the logs anew after recovery and compares them with the recovered indexes.
    pub(super) fn refold(&mut self, dumps: &[&IndexDump]) {
        let mut fold = self.fold.anew();
        let mut unseen = Marks::default();
        for (shard, trace) in self.traces.iter().enumerate() {
            for frame in trace {
                if let Err(broken) = fold.apply(shard, frame, &mut unseen) {
                    self.note(Err(format!(
                        "after recovery, shard {shard} at {}: {broken}",
                        frame.at.get()
                    )));
                    return;
                }
            }
        }
        self.fold = fold;
        let compared = compare_lanes(&self.fold, dumps);
        self.note(compared);
    }

    /// Whatever was acknowledged before is in some log.
    pub(super) fn still_there(&mut self, producer: u64, acked: u64) {
        for seq in 1..=acked {
            if self.fold.place_of(producer, seq).is_none() {
                self.note(Err(format!(
                    "I1 number {seq} of {acked} acknowledged ones is lost"
                )));
                return;
            }
        }
    }

    /// Accepted = ended + open, shard by shard and account by account.
    pub(super) fn conserved(&mut self, open: &BTreeMap<String, u64>, dead: u64) {
        let mine = self.fold.open_by_account();
        let differs = open.iter().find_map(|(account, &count)| {
            let expected = mine.get(account.as_str()).copied().unwrap_or(0);
            (expected != count).then(|| {
                format!("I29 {account}: {count} operations are open, the logs say {expected}")
            })
        });
        self.note(differs.map_or(Ok(()), Err));
        if dead != self.fold.dead.len() as u64 {
            self.note(Err(format!(
                "I29 {dead} dead letters, the logs say {}",
                self.fold.dead.len()
            )));
        }
    }

    /// Every frame is durable, everything has ended, and the providers hold what follows.
    pub(super) fn converged(&mut self, providers: &[Provider]) {
        if let Some((lane, open)) = self.fold.lanes.iter().next() {
            let op = open
                .front()
                .and_then(|id| self.fold.ops.get(&(*id, lane.1.clone())));
            self.note(Err(format!(
                "I24 {} lanes are not empty: {lane:?} {open:?} {op:?}",
                self.fold.lanes.len()
            )));
            return;
        }
        for provider in providers {
            // Where others write as well, the sides are compared instead.
            let records = if self.both_ways {
                Ok(())
            } else {
                check_records(&self.fold, provider, self.sets.as_deref())
            };
            self.note(records.and_then(|()| provider.check_windows()));
        }
        let checked = self.check_told();
        self.note(checked);
    }

    /// What is called synced was told to be done, and what is called refused to be refused: of the
    /// operation itself, not of others that shared its call.
    fn check_told(&self) -> Result<(), Broken> {
        for (key, op) in &self.fold.ops {
            let (id, account) = key;
            match op.ended {
                Some((State::Synced, Some(Reason::Unchanged))) if self.both_ways => {}
                // It went on to the record that this one is part of, as an operation of its own.
                Some((State::Synced, Some(Reason::HandedOver)))
                    if self
                        .ledger
                        .is_merged(&owner(self, &op.object, &op.record_id)) => {}
                Some((State::Synced, _))
                    if op.operation.writes_fields()
                        && !op.observed
                        && !self.told_done.contains(key) =>
                {
                    return Err(format!(
                        "I2 {id} is called synced at {account}, which told of no write of it"
                    ));
                }
                Some((State::Failed, Some(Reason::Permanent)))
                    if !self.told_refused.contains(key) =>
                {
                    return Err(format!(
                        "B3 {id} is called refused at {account}, which refused others"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Intents without an outcome, for the marks.
    pub(super) fn note_open_intents(&self, marks: &mut Marks) {
        let open = self.fold.lanes.iter().any(|(lane, ops)| {
            let front = ops
                .front()
                .and_then(|id| self.fold.ops.get(&(*id, lane.1.clone())));
            front.is_some_and(|op| {
                op.intent_at
                    .is_some_and(|at| self.fold.last_final.get(lane).is_none_or(|last| *last < at))
            })
        });
        if open {
            marks.hit(Mark::IntentOpen);
        }
        debug_assert!(
            self.traces
                .iter()
                .flatten()
                .all(|frame| frame.kind as u8 >= Kind::Event as u8)
        );
    }
}

/// Open operations and dead letters as the logs say against what the indexes hold.
fn compare_lanes(fold: &Fold, dumps: &[&IndexDump]) -> Result<(), Broken> {
    let mut open = BTreeMap::new();
    let mut dead = BTreeSet::new();
    for dump in dumps {
        for (&(vshard, tag), (_, lanes)) in &dump.records {
            for (account, ops) in lanes {
                let numbers: Vec<u32> = ops.iter().map(|op| op.1).collect();
                open.insert((vshard, tag, account.as_str()), numbers);
            }
        }
        dead.extend(
            dump.dead
                .iter()
                .map(|(record, account, op)| (*record, account.as_str(), op.1)),
        );
    }
    for ((record, account), lane) in &fold.lanes {
        let key = (
            record.vshard().index() as u16,
            record.tag(),
            account.as_str(),
        );
        let numbers: Vec<u32> = lane.iter().map(|id| id.seq.low()).collect();
        let held = open.remove(&key);
        if held.as_ref() != Some(&numbers) {
            return Err(format!(
                "I19 record {record:?} at {account}: {numbers:?} are open, the index holds {held:?}"
            ));
        }
    }
    if let Some((key, ops)) = open.first_key_value() {
        return Err(format!(
            "I19 the index holds {ops:?} of {key:?}, which are not open"
        ));
    }
    let expected: BTreeSet<_> = fold
        .dead
        .iter()
        .map(|(id, account)| (id.record.0, account.as_str(), id.seq.low()))
        .collect();
    if dead != expected {
        return Err(format!(
            "I19 dead letters: the index holds {dead:?}, the logs say {expected:?}"
        ));
    }
    Ok(())
}

/// The provider's records are those that follow from what was delivered.
fn check_records(
    fold: &Fold,
    provider: &Provider,
    sets: Option<&SetsOptions>,
) -> Result<(), Broken> {
    let name = &provider.options.name;
    let mut held = BTreeMap::new();
    for (object, id, record) in provider.account.records() {
        let external_id = record.external_id.clone().unwrap_or_default();
        let object = sets.map_or(object, |sets| sets.local_object(name, object));
        if let Some(other) = held.insert(
            (object.to_owned(), external_id.clone()),
            (id, &record.fields),
        ) {
            return Err(format!(
                "I11 {name} holds {object} {external_id} twice: {id} and {}",
                other.0
            ));
        }
    }
    // A call that took effect before a crash, or without an answer, and was refused when it was
    // made again: its operation is listed as failed.
    let failed_yet_applied: BTreeSet<LaneKey> = fold
        .ops
        .iter()
        .filter(|((id, account), op)| {
            let dropped = matches!(op.ended, Some((State::Dropped, _)));
            let failed = matches!(op.ended_with, Some((_, State::Failed)));
            account == name && (failed || dropped) && provider.applied.contains(id)
        })
        .map(|((id, account), _)| (id.record, account.clone()))
        .collect();
    let mine = fold
        .expected
        .iter()
        .filter(|((_, account), _)| account == name);
    for (
        lane,
        Expected {
            object,
            record_id,
            fields,
            in_doubt,
            ..
        },
    ) in mine
    {
        let found = held.remove(&(object.clone(), record_id.clone()));
        if *in_doubt || failed_yet_applied.contains(lane) {
            continue;
        }
        let equal = match (fields, &found) {
            (None, None) => true,
            (Some(fields), Some((_, found))) => same(fields, found),
            _ => false,
        };
        if !equal {
            return Err(format!(
                "I14 {name} holds {object} {record_id} as {found:?}, delivered was {fields:?}"
            ));
        }
    }
    match held.first_key_value() {
        Some((key, _)) => Err(format!("I3 {name} holds {key:?}, which nobody sent")),
        None => Ok(()),
    }
}
