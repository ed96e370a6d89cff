//! Shards, their logs, two accounts and System A, moved by hand.

mod fingerprint;
mod frames;
mod plans;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use syncline_engine::event::codec::{self, AcceptedEvent};
use syncline_engine::event::{Defaults, Surface, Target, TargetAction, parse};
use syncline_engine::id::{HashKey, OperationId, OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use syncline_engine::journal::Journal;
use syncline_engine::json::RawObject;
use syncline_engine::merge::{ConflictPolicy, Winner};
use syncline_engine::provider::{CallKind, NoReply, Reply, Request, SendFailure};
use syncline_engine::quota::{AccountId, CostClasses, FromShard, Gate, ShardId, ToShard};
use syncline_engine::shard::{
    AccountPlan, Barrier, CallId, Command, CommandReply, DeadFilter, DeadLetter, EventBatch, Input,
    LinkWord, News, Output, Pull, Recovery, Resolution, Role, SYSTEM_A, Shard, ShardSettings,
    provisional_id,
};
use syncline_engine::state::Reason;
use syncline_engine::time::{Mono, Now, WallMs};

use super::store::Store;
use frames::{Frames, lsn_of};
use plans::{plan, store_of, with_marks, with_matches};

pub(crate) const OBJECT: &str = "contact";
const START_MS: i64 = 1_000_000;
/// Numbers between are of what comes of an operation.
const FIRST_SEQ: u64 = OperationSeq::STEP;
const KEY: HashKey = HashKey([7; 16]);

/// A call that has left and was not answered.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    shard: usize,
    id: CallId,
    pub(crate) account: String,
    pub(crate) request: Request,
    /// Where its shard's log ended when it left.
    left_at: usize,
    left_ms: i64,
}

/// An account's word that a record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) account: String,
    pub(crate) remote_id: String,
    pub(crate) what: What,
    pub(crate) at_ms: i64,
    /// The record as a list showed it then.
    pub(crate) listed: Option<String>,
}

impl Notice {
    /// Whether another one says the same, at whatever time.
    pub(crate) fn is_of_the_same(&self, other: &Self) -> bool {
        let at_ms = other.at_ms;
        Self {
            at_ms,
            ..self.clone()
        } == *other
    }
}

/// What happened to a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Changed,
    Deleted,
    Restored,
    MergedInto(String),
}

/// How a call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Done,
    /// The account is ill, and did nothing.
    Refused,
    /// It did it, and nobody hears of that.
    Lost,
    /// It never came there, and nobody knows.
    NeverArrived,
}

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// One account is not told what the other changed.
    ForgetsLearner,
    /// A read shows the record as it was when it was read first.
    StaleReads,
    /// A crash takes what was durable.
    LosesTheTail,
    /// What is told under an account's own id is not told to the record it stands for.
    DropsHandoffs,
}

fn no_reply() -> SendFailure {
    SendFailure::AfterSent {
        cause: NoReply::Closed,
        detail: "closed".to_owned(),
    }
}

pub(crate) struct Stage {
    shards: Vec<Shard<u64>>,
    logs: Vec<Frames>,
    settings: Vec<ShardSettings>,
    now_ms: i64,
    /// The wall clock before the other.
    ahead_ms: i64,
    seq: u64,
    pub(crate) stores: BTreeMap<String, Store>,
    pub(crate) calls: Vec<Call>,
    /// Calls that were done, with their answers, which are on their way.
    pub(crate) answers: Vec<(Call, Reply)>,
    pub(crate) notices: VecDeque<Notice>,
    /// Calls that were made for nothing but reading.
    pub(crate) reads: u32,
    /// Notices carry what a list shows.
    pub(crate) lists: bool,
    /// Whoever hands something over hears nothing of it.
    pub(crate) deaf: bool,
    mutant: Option<Mutant>,
    /// The first answer to each read.
    first_reads: BTreeMap<(String, String), Reply>,
    /// To operators.
    replies: Vec<CommandReply>,
    /// What arrived under each idempotency key, by account.
    keys: BTreeMap<(String, String), Request>,
}

impl Stage {
    pub(crate) fn new(accounts: &[&str], shards: u16, conflicts: &ConflictPolicy) -> Self {
        Self::mutated(accounts, shards, conflicts, None)
    }

    /// One account, where records are found by these keys.
    pub(crate) fn matching(shards: u16, conflicts: &ConflictPolicy, keys: &[&[&str]]) -> Self {
        let plans = [
            with_matches(plan("alpha", &["alpha"], conflicts, None), keys),
            plan(SYSTEM_A, &["alpha"], conflicts, None),
        ];
        Self::of(plans.map(Arc::new).to_vec(), shards, None)
    }

    /// Accounts whose records are marked when they are deleted.
    pub(crate) fn marking(
        accounts: &[&str],
        shards: u16,
        conflicts: &ConflictPolicy,
        mutant: Option<Mutant>,
    ) -> Self {
        let names = accounts.iter().chain([&SYSTEM_A]);
        let plans = names.map(|name| {
            let plan = plan(name, accounts, conflicts, mutant);
            Arc::new(match plan.role {
                Role::Provider => with_marks(plan),
                Role::SystemA => plan,
            })
        });
        Self::of(plans.collect(), shards, mutant)
    }

    pub(crate) fn mutated(
        accounts: &[&str],
        shards: u16,
        conflicts: &ConflictPolicy,
        mutant: Option<Mutant>,
    ) -> Self {
        let names = accounts.iter().chain([&SYSTEM_A]);
        let plans = names.map(|name| Arc::new(plan(name, accounts, conflicts, mutant)));
        Self::of(plans.collect(), shards, mutant)
    }

    fn of(plans: Vec<Arc<AccountPlan>>, shards: u16, mutant: Option<Mutant>) -> Self {
        let settings: Vec<ShardSettings> = (0..shards)
            .map(|id| ShardSettings {
                id: ShardId(id),
                hash_key: KEY,
                boot: 1,
                booted_at_ms: 0,
                first_seq: OperationSeq::default(),
                seed: u64::from(id),
                accounts: plans.clone(),
            })
            .collect();
        let mut stage = Self {
            shards: Vec::new(),
            logs: settings.iter().map(|_| Frames::default()).collect(),
            settings,
            now_ms: START_MS,
            ahead_ms: 0,
            seq: FIRST_SEQ,
            stores: plans
                .iter()
                .map(|plan| (plan.name.to_string(), store_of(plan)))
                .collect(),
            calls: Vec::new(),
            answers: Vec::new(),
            notices: VecDeque::new(),
            reads: 0,
            lists: false,
            deaf: false,
            mutant,
            first_reads: BTreeMap::new(),
            replies: Vec::new(),
            keys: BTreeMap::new(),
        };
        stage.start();
        stage
    }

    /// Another one of the same settings, where nothing has happened yet.
    pub(crate) fn anew(&self) -> Self {
        let stores = self.stores.iter();
        let mut stage = Self {
            shards: Vec::new(),
            logs: self.settings.iter().map(|_| Frames::default()).collect(),
            settings: self.settings.clone(),
            stores: stores
                .map(|(name, store)| (name.clone(), store.anew()))
                .collect(),
            calls: Vec::new(),
            answers: Vec::new(),
            notices: VecDeque::new(),
            first_reads: BTreeMap::new(),
            replies: Vec::new(),
            keys: BTreeMap::new(),
            ..*self
        };
        (stage.now_ms, stage.ahead_ms, stage.seq, stage.reads) = (START_MS, 0, FIRST_SEQ, 0);
        stage.start();
        stage
    }

    fn start(&mut self) {
        let now = self.now();
        let count = self.settings.len();
        self.shards = (0..count)
            .map(|at| {
                let owned = (0..VSHARD_COUNT).filter_map(VShard::new);
                let owned = owned.filter(|vshard| vshard.owner(count) == at);
                let mut settings = self.settings[at].clone();
                settings.first_seq = OperationSeq(self.seq + 1);
                let mut recovery = Recovery::new(settings, owned, now.mono);
                for (place, frame) in self.logs[at].iter().enumerate() {
                    let lsn = lsn_of(place);
                    recovery
                        .replay(now, lsn, frame.kind, &frame.payload)
                        .unwrap();
                }
                recovery.finish(now, self.logs[at].end()).0
            })
            .collect();
        self.run();
    }

    /// The process dies: what is under way is done, or not, and nobody hears of it.
    pub(crate) fn crash(&mut self) {
        self.calls.clear();
        self.answers.clear();
        if self.mutant == Some(Mutant::LosesTheTail) {
            for log in &mut self.logs {
                log.lose(3);
            }
        }
        self.start();
    }

    pub(crate) fn tick(&mut self, ms: i64) {
        self.now_ms += ms;
        self.run();
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono(self.now_ms.unsigned_abs() * 1_000_000),
            wall: WallMs(self.wall_ms()),
        }
    }

    /// The wall clock, ms since the epoch.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.now_ms + self.ahead_ms
    }

    /// The wall clock is set.
    pub(crate) fn set_clock(&mut self, by_ms: i64) {
        self.ahead_ms += by_ms;
    }

    /// System A changes a record and says so.
    pub(crate) fn say(&mut self, event: &str) {
        self.now_ms += 10;
        self.say_of(event, self.now_ms);
    }

    /// System A changes a record of its own, and keeps that to itself. Answers when.
    pub(crate) fn write_here(&mut self, record_id: &str, patch: &str) -> i64 {
        self.now_ms += 10;
        self.stores
            .get_mut(SYSTEM_A)
            .unwrap()
            .edit(record_id, patch);
        self.now_ms
    }

    /// System A says what it changed then.
    pub(crate) fn say_late(&mut self, record_id: &str, patch: &str, changed_at_ms: i64) {
        self.now_ms += 10;
        let event = format!(r#"{{"operation":"UPDATE","record_id":"{record_id}","data":{patch}}}"#);
        self.say_of(&event, changed_at_ms);
    }

    /// Somebody clears a field of an inner object; the object stays, empty.
    pub(crate) fn clear_there(&mut self, account: &str, id: &str, field: &str, within: &str) {
        self.now_ms += 10;
        let store = self.stores.get_mut(account).unwrap();
        let fields = &mut store.records.get_mut(id).unwrap().fields;
        fields.remove(field);
        fields.set(within, "{}");
        self.notice(account, id, false);
    }

    fn say_of(&mut self, event: &str, changed_at_ms: i64) {
        let mut scratch = syncline_engine::json::Scratch::new();
        let event = parse(
            event.as_bytes(),
            &mut scratch,
            &Defaults {
                default_object: Some(OBJECT),
                ..Defaults::default()
            },
            Surface::Stream,
        )
        .unwrap();
        let record_id = event.record_id.clone().unwrap().into_owned();
        let record = KEY.record(OBJECT, &record_id);
        let accounts: Vec<String> = self.stores.keys().cloned().collect();
        let targets = accounts.iter().map(|name| Target {
            name,
            action: if name == SYSTEM_A {
                TargetAction::Observe
            } else {
                TargetAction::Sync
            },
            rule: 0,
        });
        self.seq += OperationSeq::STEP;
        let mut event = event;
        event.changed_at_ms = Some(changed_at_ms);
        let accepted = AcceptedEvent {
            event,
            operation_seq: self.seq,
            record_hash: record.0,
            accepted_at_ms: self.now_ms,
            producer: None,
            dedup: None,
            targets: targets.collect(),
            rules_version: 0,
            mapping_version: 0,
        };
        self.take(record, &accepted);
    }

    /// System A's own edit, in its store and told.
    pub(crate) fn edit_here(&mut self, record_id: &str, patch: &str) {
        let store = self.stores.get_mut(SYSTEM_A).unwrap();
        let operation = if store.edit(record_id, patch) {
            "UPDATE"
        } else {
            store.put(record_id, patch);
            "CREATE"
        };
        self.say(&format!(
            r#"{{"operation":"{operation}","record_id":"{record_id}","data":{patch}}}"#
        ));
    }

    pub(crate) fn delete_here(&mut self, record_id: &str) {
        self.stores
            .get_mut(SYSTEM_A)
            .unwrap()
            .records
            .remove(record_id);
        self.say(&format!(
            r#"{{"operation":"DELETE","record_id":"{record_id}"}}"#
        ));
    }

    /// Somebody edits a record at an account; its notice waits to be delivered.
    pub(crate) fn edit_there(&mut self, account: &str, remote_id: &str, patch: &str) {
        self.now_ms += 10;
        if self.stores.get_mut(account).unwrap().edit(remote_id, patch) {
            self.notice(account, remote_id, false);
        }
    }

    pub(crate) fn delete_there(&mut self, account: &str, remote_id: &str) {
        self.now_ms += 10;
        let store = self.stores.get_mut(account).unwrap();
        if store.delete(remote_id) {
            let marked = store.marks;
            self.notice(account, remote_id, !marked);
        }
    }

    /// Somebody takes a record back out of the bin.
    pub(crate) fn restore_there(&mut self, account: &str, remote_id: &str) {
        self.now_ms += 10;
        let store = self.stores.get_mut(account).unwrap();
        if store.restore(remote_id) {
            let what = match store.marks {
                true => What::Changed,
                false => What::Restored,
            };
            self.notice_of(account, remote_id, what);
        }
    }

    /// Somebody makes one record of two; what the one that stays has not, it takes over.
    pub(crate) fn merge_there(&mut self, account: &str, loser: &str, winner: &str) {
        self.now_ms += 10;
        let store = self.stores.get_mut(account).unwrap();
        if store.merge(loser, winner) {
            self.notice_of(account, loser, What::MergedInto(winner.to_owned()));
            self.notice(account, winner, false);
        }
    }

    pub(crate) fn make_there(&mut self, account: &str, fields: &str) -> String {
        self.now_ms += 10;
        let id = self.stores.get_mut(account).unwrap().make(fields);
        self.notice(account, &id, false);
        id
    }

    pub(crate) fn notice(&mut self, account: &str, remote_id: &str, deleted: bool) {
        let what = if deleted {
            What::Deleted
        } else {
            What::Changed
        };
        self.notice_of(account, remote_id, what);
    }

    fn notice_of(&mut self, account: &str, remote_id: &str, what: What) {
        let kept = self.stores[account].records.get(remote_id);
        let listed = kept.filter(|_| self.lists && what == What::Changed);
        self.notices.push_back(Notice {
            account: account.to_owned(),
            remote_id: remote_id.to_owned(),
            what,
            at_ms: self.now_ms,
            listed: listed.map(|kept| super::store::shown(remote_id, kept)),
        });
    }

    pub(crate) fn deliver(&mut self, notice: &Notice) {
        let provisional = provisional_id(&notice.account, &notice.remote_id);
        let record = KEY.record(OBJECT, &provisional);
        let pull = Pull {
            account: &notice.account,
            object: OBJECT,
            record_id: &provisional,
            provisional: true,
            remote_id: &notice.remote_id,
            fields: notice.listed.as_deref().and_then(RawObject::new),
            read_at_ms: notice.at_ms,
            whole: notice.listed.is_some(),
            news: match &notice.what {
                What::Changed => News::Changed,
                What::Deleted => News::Deleted,
                What::Restored => News::Restored,
                What::MergedInto(into) => News::MergedInto(into),
            },
            changed_at_ms: notice.at_ms,
        };
        self.seq += OperationSeq::STEP;
        let (seq, now_ms) = (self.seq, self.now_ms);
        let mut payload = Vec::new();
        pull.with_event(seq, record, now_ms, |event| event.encode_into(&mut payload));
        self.push(record, payload);
    }

    /// Ends a call in one of the ways that calls end.
    pub(crate) fn end(&mut self, at: usize, answer: Answer) {
        match answer {
            Answer::Done => self.answer(at),
            Answer::Refused => {
                let call = self.calls.remove(at);
                self.tell(&call, Ok(super::store::reply(503, "{}")));
            }
            Answer::Lost => {
                let (call, _) = self.arrive(at);
                self.tell(&call, Err(no_reply()));
            }
            Answer::NeverArrived => {
                let call = self.calls.remove(at);
                self.tell(&call, Err(no_reply()));
            }
        }
    }

    /// Does a call at its store and answers it.
    pub(crate) fn answer(&mut self, at: usize) {
        let call = self.arrive(at);
        self.reply(call);
    }

    /// Does a call at its store; the answer is on its way.
    pub(crate) fn arrive(&mut self, at: usize) -> (Call, Reply) {
        let call = self.calls.remove(at);
        self.note_key(&call);
        let store = self.stores.get_mut(&call.account).unwrap();
        if call.account == SYSTEM_A {
            let reply = store.learn(&call.request);
            return (call, reply);
        }
        self.reads += u32::from(!call.request.kind.is_write());
        let (mut reply, changed) = store.serve(&call.request);
        if self.mutant == Some(Mutant::StaleReads) && call.request.kind == CallKind::Read {
            let key = (call.account.clone(), call.request.path_and_query.clone());
            reply = self.first_reads.entry(key).or_insert(reply).clone();
        }
        if let Some(remote_id) = changed {
            let deleted = !store.records.contains_key(&remote_id);
            let account = call.account.clone();
            self.notice(&account, &remote_id, deleted);
        }
        (call, reply)
    }

    /// Whoever sees a key again takes the request for the one that it has seen.
    fn note_key(&mut self, call: &Call) {
        let Some(key) = &call.request.idempotency_key else {
            return;
        };
        let known = (call.account.clone(), key.clone());
        let first = self
            .keys
            .entry(known)
            .or_insert_with(|| call.request.clone());
        let same = first.digest() == call.request.digest();
        assert!(
            same,
            "two requests of one key: {first:?} and {:?}",
            call.request
        );
    }

    /// An answer that was on its way comes.
    pub(crate) fn hear(&mut self, at: usize) {
        let answer = self.answers.remove(at);
        self.reply(answer);
    }

    /// When what a call goes after was changed, as the event says that led to it.
    pub(crate) fn changed_ms(&self, call: &Call) -> i64 {
        let id: OperationId = call.request.request_id.parse().unwrap();
        let event = self.logs[call.shard].event(id.record.0, id.seq.0);
        let (_, frame) = event.expect("its operation is in the log");
        let event = codec::decode(&frame.payload).unwrap();
        event.event.changed_at_ms.unwrap()
    }

    fn reply(&mut self, (call, reply): (Call, Reply)) {
        self.tell(&call, Ok(reply));
    }

    fn tell(&mut self, call: &Call, result: Result<Reply, SendFailure>) {
        let now = self.now();
        self.shards[call.shard].handle(
            now,
            &mut self.logs[call.shard],
            Input::Reply {
                call: call.id,
                result,
                ended_at: now.mono,
            },
        );
        self.run();
    }

    /// Everything that can happen without anybody's edit happens.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1_000 {
            if !self.answers.is_empty() {
                self.hear(0);
            } else if !self.calls.is_empty() {
                self.answer(0);
            } else if let Some(notice) = self.notices.pop_front() {
                self.deliver(&notice);
            } else {
                let before = self.now_ms;
                self.tick(60_000);
                if self.calls.is_empty() && self.notices.is_empty() {
                    self.now_ms = before.max(self.now_ms);
                    return;
                }
            }
        }
        panic!(
            "it never comes to rest: {:?} {:?}",
            self.calls, self.notices
        );
    }

    /// Conflicts that wait for an operator.
    pub(crate) fn conflicts(&mut self) -> Vec<DeadLetter> {
        let mut dead = self.dead();
        dead.retain(|letter| letter.code == Some(Reason::Conflict));
        dead
    }

    /// All that failed.
    pub(crate) fn dead(&mut self) -> Vec<DeadLetter> {
        let filter = DeadFilter::default();
        let mut found = Vec::new();
        for at in 0..self.shards.len() {
            let mut from = None;
            loop {
                let slice = self.shards[at].dead_letters(&mut self.logs[at], &filter, from);
                found.extend(slice.items);
                from = slice.next;
                if from.is_none() {
                    break;
                }
            }
        }
        found
    }

    /// An operator decides all fields of a conflict.
    pub(crate) fn resolve(&mut self, conflict: &DeadLetter, winner: Winner) {
        self.seq += OperationSeq::STEP;
        let resolution = Resolution {
            id: conflict.id,
            account: conflict.account.as_str().into(),
            fields: None,
            winner,
            seq: OperationSeq(self.seq),
        };
        let at = conflict.id.record.vshard().owner(self.shards.len());
        let now = self.now();
        let input = Input::Control {
            command: Command::Resolve(resolution),
            ticket: 0,
        };
        self.shards[at].handle(now, &mut self.logs[at], input);
        self.run();
    }

    pub(crate) fn shards_len(&self) -> usize {
        self.shards.len()
    }

    /// The shard that owns a record of this id.
    pub(crate) fn owner_of(&self, record_id: &str) -> usize {
        KEY.vshard(record_id).owner(self.shards.len())
    }

    /// Asks one shard.
    pub(crate) fn at<R>(
        &mut self,
        at: usize,
        ask: impl FnOnce(Now, &mut Shard<u64>, &mut Frames) -> R,
    ) -> R {
        let now = self.now();
        ask(now, &mut self.shards[at], &mut self.logs[at])
    }

    /// Asks the shard that owns the records of this id.
    pub(crate) fn owner<R>(
        &mut self,
        record_id: &str,
        ask: impl FnOnce(Now, &mut Shard<u64>, &mut Frames) -> R,
    ) -> R {
        self.at(self.owner_of(record_id), ask)
    }

    /// An operator's command to the owner of a record.
    pub(crate) fn command(&mut self, record_id: &str, command: Command) -> CommandReply {
        self.replies.clear();
        self.owner(record_id, |now, shard, log| {
            shard.handle(now, log, Input::Control { command, ticket: 0 });
        });
        self.run();
        self.replies.pop().expect("a command is answered")
    }

    /// An event as the log takes it, for one account.
    pub(crate) fn encode_for(&mut self, account: &str, event: &str, batch: &mut EventBatch) {
        let mut scratch = syncline_engine::json::Scratch::new();
        let defaults = Defaults {
            default_object: Some(OBJECT),
            ..Defaults::default()
        };
        let event = parse(event.as_bytes(), &mut scratch, &defaults, Surface::Stream).unwrap();
        let record = KEY.record(OBJECT, event.record_id.as_deref().unwrap());
        self.seq += OperationSeq::STEP;
        let target = Target {
            name: account,
            action: TargetAction::Sync,
            rule: 0,
        };
        let accepted = AcceptedEvent {
            event,
            operation_seq: self.seq,
            record_hash: record.0,
            accepted_at_ms: self.now_ms,
            producer: None,
            dedup: None,
            targets: [target].into_iter().collect(),
            rules_version: 0,
            mapping_version: 0,
        };
        batch.push_with(|out| accepted.encode_into(out));
    }

    /// Each account tells of all it has and of all that was deleted, as a poll finds it.
    pub(crate) fn tell_all(&mut self) {
        let accounts: Vec<String> = self.stores.keys().cloned().collect();
        for account in accounts.iter().filter(|name| *name != SYSTEM_A) {
            let ids: Vec<String> = self.stores[account].records.keys().cloned().collect();
            let gone = self.stores[account].tombstones.clone();
            for (loser, winner) in self.stores[account].merged.clone() {
                self.notice_of(account, &loser, What::MergedInto(winner));
            }
            for (id, deleted) in ids
                .iter()
                .map(|id| (id, false))
                .chain(gone.iter().map(|id| (id, true)))
            {
                self.notice(account, id, deleted);
            }
        }
    }

    /// The records of a side by System A's key, where that is known, else by the side's.
    pub(crate) fn view(&self, side: &str) -> BTreeMap<String, String> {
        let mut view = BTreeMap::new();
        for (id, kept) in self.stores[side].live() {
            let mut key = match &kept.external_id {
                Some(key) => key.clone(),
                None if side == SYSTEM_A => id.clone(),
                None => provisional_id(side, id),
            };
            // The key may have been given to another record once this one was part of a merge.
            if view.contains_key(&key) {
                key = format!("{key} ({id})");
            }
            view.insert(key, kept.unmarked().to_json());
        }
        view
    }

    fn take(&mut self, record: RecordHash, event: &AcceptedEvent<'_>) {
        let mut payload = Vec::new();
        event.encode_into(&mut payload);
        self.push(record, payload);
    }

    fn push(&mut self, record: RecordHash, payload: Vec<u8>) {
        let at = record.vshard().owner(self.shards.len());
        let mut batch = EventBatch::default();
        batch.push_with(|out| out.extend_from_slice(&payload));
        let now = self.now();
        let input = Input::Events {
            batch,
            barrier: Barrier::default(),
            ticket: 0,
        };
        self.shards[at].handle(now, &mut self.logs[at], input);
        self.run();
    }

    /// Turns of all shards until nothing moves.
    fn run(&mut self) {
        let now = self.now();
        loop {
            let mut moved = false;
            for at in 0..self.shards.len() {
                self.shards[at].upkeep(now, &mut self.logs[at]);
                while let Some(output) = self.shards[at].poll(now.mono) {
                    moved = true;
                    self.carry(now, at, output);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn carry(&mut self, now: Now, at: usize, output: Output<u64>) {
        match output {
            Output::Call {
                call,
                plan,
                request,
            } => self.calls.push(Call {
                shard: at,
                id: call,
                account: plan.name.to_string(),
                request,
                left_at: self.logs[at].len(),
                left_ms: self.now_ms,
            }),
            Output::Link(LinkWord::Handoff(_)) if self.mutant == Some(Mutant::DropsHandoffs) => {}
            Output::Link(word) => {
                let owner = word.owner().unwrap().vshard().owner(self.shards.len());
                self.shards[owner].handle(now, &mut self.logs[owner], Input::Link(word));
            }
            Output::LinkTo(_, LinkWord::Handed(_)) if self.deaf => {}
            Output::LinkTo(shard, word) => {
                let to = usize::from(shard.0);
                self.shards[to].handle(now, &mut self.logs[to], Input::Link(word));
            }
            Output::Coordinator(word) => self.coordinate(now, at, &word),
            Output::Done { reply, .. } => self.replies.push(reply),
            Output::Accepted(_) | Output::Fetched { .. } => {}
            Output::Refused { code, .. } => panic!("refused: {code:?}"),
        }
    }

    /// Slots for whoever wants some, and no other limit.
    fn coordinate(&mut self, now: Now, at: usize, word: &FromShard) {
        let mut tell = |word| {
            self.shards[at].handle(now, &mut self.logs[at], Input::Coordinator(word));
        };
        match word {
            FromShard::Connected => {
                for (number, plan) in self.settings[at].accounts.iter().enumerate() {
                    let account = AccountId(number as u32);
                    tell(ToShard::Account {
                        account,
                        name: plan.name.clone(),
                        unlimited: true,
                        classes: Arc::new(CostClasses::compile(&[])),
                        call_timeout: Duration::from_secs(30),
                        lease_memory: Duration::from_secs(60),
                    });
                    let gate = Gate::Open;
                    tell(ToShard::Gate { account, gate });
                }
            }
            FromShard::Want { account, slots, .. } if *slots > 0 => {
                let account = *account;
                tell(ToShard::GrantSlots { account, slots: 8 });
            }
            _ => {}
        }
    }
}
