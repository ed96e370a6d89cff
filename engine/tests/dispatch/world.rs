//! Shards with logs in memory, the coordinator between them, and an account that answers in time.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use syncline_engine::event::codec::AcceptedEvent;
use syncline_engine::event::{Defaults, Surface, Target, TargetAction, parse};
use syncline_engine::id::{HashKey, OperationSeq, VSHARD_COUNT, VShard};
use syncline_engine::journal::{AppendError, Class, Journal, Kind, ReadError};
use syncline_engine::json::{RawObject, Scratch};
use syncline_engine::mapping::Mapping;
use syncline_engine::provider::{
    BodyEnd, CallKind, Definition, Method, Reply, ReplyHeaders, Request, SendFailure, shipped,
};
use syncline_engine::quota::{
    AccountLimits, AccountView, Coordinator, HoldSettings, LeaseId, Limit, RecoveredLease, ShardId,
    Start, ToShard,
};
use syncline_engine::retry::RetryPolicy;
use syncline_engine::shard::{
    AccountPlan, Barrier, CallId, CheckpointPart, Command, DeadFilter, EventBatch, Explanation,
    Input, ListUse, News, Output, Pull, Recovered, Recovery, ReplaySpan, Role, Shard,
    ShardSettings, TwoWay, Weights, provisional_id,
};
use syncline_engine::state::{Reason, State};
use syncline_engine::time::{Mono, Now, WallMs};
use wal::Lsn;

use super::planted::{Below, Bug, Outgoing};

pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// How long a record waits for company at most.
pub(super) const MAX_WAIT: Duration = Duration::from_secs(1);

const HASH_KEY: HashKey = HashKey([3; 16]);
/// Frames lie so far apart in a log that is only a list.
const FRAME_STEP: u64 = 64;

/// A call as the account saw it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) at: u64,
    pub(super) account: usize,
    pub(super) kind: CallKind,
    pub(super) path: String,
    /// The end of the path: of an upsert by key the record id.
    pub(super) of: String,
    /// HTTP status of the answer.
    pub(super) status: u16,
    /// Records in it.
    pub(super) records: usize,
}

type Answer = Box<dyn FnMut(u64, &Request) -> Result<Reply, SendFailure>>;

pub(super) struct World {
    pub(super) now: u64,
    /// Between two turns.
    pub(super) step: u64,
    /// From a call's first byte to the end of its reply.
    pub(super) round_trip: u64,
    pub(super) seen: Vec<Seen>,
    pub(super) coordinator: Coordinator,
    shards: Vec<(Shard<()>, MemoryLog)>,
    plans: Vec<Arc<AccountPlan>>,
    answer: Answer,
    /// While an account answers 503 to everything.
    outage: Option<(usize, Range<u64>)>,
    under_way: BTreeMap<(u64, usize, u64), Result<Reply, SendFailure>>,
    next_operation: u64,
    bug: Option<Bug>,
    below: Below,
}

/// A log in memory, durable at once.
#[derive(Debug, Default)]
struct MemoryLog {
    frames: Vec<(Kind, Vec<u8>)>,
    bug: Option<Bug>,
    /// What is written now is a replay.
    replays: bool,
    checkpoint: Vec<CheckpointPart>,
}

impl World {
    /// Shards that call the account `crm`, a `rest` one unless it is changed.
    pub(super) fn new(shards: u16, limits: Vec<Limit>, items_max: usize) -> Self {
        let definition = shipped("rest").expect("shipped");
        let definition = Definition::parse(definition).expect("without fault");
        Self::with(shards, limits, definition.with_batch_items_max(items_max))
    }

    /// The same with more accounts: `crm`, `crm-1`, `crm-2` and so on.
    pub(super) fn of_many(shards: u16, accounts: usize, limits: Vec<Limit>) -> Self {
        let definition = shipped("rest").expect("shipped");
        let definition = Definition::parse(definition).expect("without fault");
        let plans = (0..accounts).map(|at| plan(&name_of(at), definition.clone()));
        Self::calling(shards, limits, plans.collect())
    }

    pub(super) fn with(shards: u16, limits: Vec<Limit>, definition: Definition) -> Self {
        Self::calling(shards, limits, vec![plan("crm", definition)])
    }

    /// One shard that calls the account `crm`, records of which are mapped like this.
    pub(super) fn mapped(definition: Definition, mappings: Vec<Mapping>) -> Self {
        Self::mapped_over(1, definition, mappings)
    }

    /// The same with several shards, each of which owns its part of all records.
    pub(super) fn mapped_over(shards: u16, definition: Definition, mappings: Vec<Mapping>) -> Self {
        let mut plan = plan("crm", definition);
        let own = Arc::get_mut(&mut plan).expect("nobody else has it yet");
        let mappings = mappings.into_iter();
        own.mappings = mappings
            .map(|mapping| (mapping.object().to_owned(), mapping))
            .collect();
        let mut world = Self::calling(shards, Vec::new(), vec![plan]);
        if shards > 1 {
            let logs = (0..shards).map(|_| MemoryLog::default()).collect();
            let at = (world.now(), true);
            let (owners, coordinator, _) = open(at, &world.plans, Vec::new(), logs, false);
            (world.shards, world.coordinator) = (owners, coordinator);
        }
        world
    }

    fn calling(shards: u16, limits: Vec<Limit>, plans: Vec<Arc<AccountPlan>>) -> Self {
        let logs = (0..shards).map(|_| MemoryLog::default()).collect();
        let (shards, coordinator, _) = open((clocks(SECOND), false), &plans, limits, logs, false);
        Self {
            now: SECOND,
            step: 500 * US,
            round_trip: 20 * MS,
            seen: Vec::new(),
            shards,
            coordinator,
            plans,
            outage: None,
            answer: Box::new(|_, request| Ok(done(request))),
            under_way: BTreeMap::new(),
            next_operation: 1,
            bug: None,
            below: Below::default(),
        }
    }

    /// Puts these surroundings in the place of sound ones.
    pub(super) fn with_bug(mut self, bug: Option<Bug>) -> Self {
        self.bug = bug;
        for (_, log) in &mut self.shards {
            log.bug = bug;
        }
        self
    }

    /// Sends again what a shard was told in a span.
    pub(super) fn replay(&mut self, shard: usize, span: &ReplaySpan) -> usize {
        let now = self.now();
        let (own, log) = &mut self.shards[shard];
        let records = own.changed_in(log, span, None).records;
        let count = records.len();
        let first = self.next_operation;
        self.next_operation += count as u64;
        let numbered = records.into_iter().zip((first..).map(OperationSeq));
        let command = Command::Replay {
            span: Arc::new(span.clone()),
            records: numbered.collect(),
        };
        let ticket = ();
        log.replays = true;
        own.handle(now, log, Input::Control { command, ticket });
        log.replays = false;
        count
    }

    /// Changes the account's limits.
    pub(super) fn set_limits(&mut self, limits: Vec<Limit>) {
        let accounts = self.plans.iter().map(|plan| account(&plan.name, &limits));
        let accounts = accounts.collect();
        let changed = self.coordinator.reconfigure(clocks(self.now), accounts);
        changed.expect("limits in range");
    }

    /// Has no account held for failures, however many there are in a row.
    pub(super) fn never_hold(&mut self, limits: Vec<Limit>) {
        let accounts = self.plans.iter().map(|plan| {
            let mut account = account(&plan.name, &limits);
            account.hold.failure_threshold = u32::MAX;
            account
        });
        let accounts = accounts.collect();
        let changed = self.coordinator.reconfigure(clocks(self.now), accounts);
        changed.expect("limits in range");
    }

    /// The process ends, with all calls that are under way, and comes back from its logs: from a
    /// checkpoint taken now, or from their beginning.
    pub(super) fn restart(&mut self, limits: Vec<Limit>, from_checkpoint: bool) -> Recovered {
        let now = self.now();
        self.under_way.clear();
        let logs = std::mem::take(&mut self.shards).into_iter();
        let logs = logs.map(|(shard, mut log)| {
            let vshards = shard.owned();
            let vshards = vshards.filter_map(|vshard| shard.vshard_part(&log, vshard));
            let parts = std::iter::once(shard.general_part(&log)).chain(vshards);
            let parts = parts.collect();
            log.checkpoint = parts;
            log
        });
        let logs = logs.collect();
        let (shards, coordinator, recovered) =
            open((now, false), &self.plans, limits, logs, from_checkpoint);
        (self.shards, self.coordinator) = (shards, coordinator);
        recovered
    }

    /// Lets the account answer this at that time.
    pub(super) fn answering(
        mut self,
        answer: impl FnMut(u64, &Request) -> Result<Reply, SendFailure> + 'static,
    ) -> Self {
        self.answer = Box::new(answer);
        self
    }

    /// Lets objects and tenants share calls by these weights.
    pub(super) fn sharing(mut self, weights: Weights) -> Self {
        let now = self.now();
        for plan in &mut self.plans {
            let mut changed = plan_like(plan);
            changed.weights = weights.clone();
            *plan = Arc::new(changed);
        }
        for (shard, log) in &mut self.shards {
            for plan in &self.plans {
                let command = Command::Plan(Arc::clone(plan));
                let ticket = ();
                shard.handle(now, log, Input::Control { command, ticket });
            }
        }
        self
    }

    /// The shard that such a record goes to, spread by a hash.
    pub(super) fn shard_of(&self, record_id: &str) -> usize {
        HASH_KEY.vshard(record_id).index() % self.shards.len()
    }

    /// The one that owns a record, where each has its own.
    pub(super) fn owner_of(&self, object: &str, record_id: &str) -> usize {
        let record = HASH_KEY.record(object, record_id);
        record.vshard().owner(self.shards.len())
    }

    /// A shard's dead letters in the order they came in, by the numbers of their operations, and what
    /// each died of.
    pub(super) fn dead(&mut self, shard: usize) -> Vec<(u64, Option<Reason>)> {
        let (shard, log) = &mut self.shards[shard];
        let slice = shard.dead_letters(log, &DeadFilter::default(), None);
        assert_eq!(slice.next, None, "few enough for one slice");
        let dead = slice.items.iter();
        let mut dead: Vec<_> = dead.map(|letter| (letter.id.seq.0, letter.code)).collect();
        dead.sort_by_key(|(seq, _)| *seq);
        dead
    }

    /// Maps the account's objects like this from here on.
    pub(super) fn remap(&mut self, mappings: Vec<Mapping>) {
        let mut changed = plan_like(&self.plans[0]);
        let mappings = mappings.into_iter();
        changed.mappings = mappings
            .map(|mapping| (mapping.object().to_owned(), mapping))
            .collect();
        self.plans[0] = Arc::new(changed);
        for (shard, log) in &mut self.shards {
            let command = Command::Plan(Arc::clone(&self.plans[0]));
            let ticket = ();
            shard.handle(clocks(self.now), log, Input::Control { command, ticket });
        }
    }

    /// Takes what the account `crm` changes of contacts; nobody else learns of it.
    pub(super) fn take_changes(&mut self) {
        let mut changed = plan_like(&self.plans[0]);
        let taken = TwoWay {
            inbound: true,
            ..TwoWay::default()
        };
        changed.two_way.insert("contact".to_owned(), taken);
        self.plans[0] = Arc::new(changed);
        for (shard, log) in &mut self.shards {
            let command = Command::Plan(Arc::clone(&self.plans[0]));
            let ticket = ();
            shard.handle(clocks(self.now), log, Input::Control { command, ticket });
        }
    }

    /// The account `crm` tells of a contact by its own id, maybe with all that it has.
    pub(super) fn tell(&mut self, shard: usize, remote_id: &str, fields: Option<&str>) {
        let record_id = provisional_id("crm", remote_id);
        let now_ms = clocks(self.now).wall.0;
        let pull = Pull {
            account: "crm",
            object: "contact",
            record_id: &record_id,
            provisional: true,
            remote_id,
            fields: fields.and_then(RawObject::new),
            read_at_ms: now_ms,
            whole: fields.is_some(),
            news: News::Changed,
            changed_at_ms: now_ms,
        };
        let record = HASH_KEY.record("contact", &record_id);
        let mut batch = EventBatch::default();
        pull.with_event(self.next_operation, record, now_ms, |event| {
            batch.push_with(|out| event.encode_into(out));
        });
        self.next_operation += 1;
        let (own, log) = &mut self.shards[shard];
        let input = Input::Events {
            batch,
            barrier: Barrier::default(),
            ticket: (),
        };
        own.handle(clocks(self.now), log, input);
    }

    /// Lets an account answer 503 to everything for a time.
    pub(super) fn fail(&mut self, account: usize, span: Range<u64>) {
        self.outage = Some((account, span));
    }

    /// Gives a shard an event, which it owns whatever its record.
    pub(super) fn submit(&mut self, shard: usize, event: &str) {
        self.submit_to(0, shard, event);
    }

    /// The same for another account.
    pub(super) fn submit_to(&mut self, account: usize, shard: usize, event: &str) {
        let mut scratch = Scratch::default();
        let event = self.bug.map_or(event.into(), |bug| bug.taken(event));
        let event = parse(
            event.as_bytes(),
            &mut scratch,
            &Defaults::default(),
            Surface::Stream,
        )
        .expect("a sound event");
        let record_id = event.record_id.as_deref().expect("a record id");
        let record = HASH_KEY.record(&event.object, record_id);
        let priority = event.priority.get();
        let priorities = &mut self.below.priorities;
        priorities.insert(record_id.to_owned(), priority);
        let target = Target {
            name: &self.plans[account].name,
            action: TargetAction::Sync,
            rule: 0,
        };
        let accepted = AcceptedEvent {
            operation_seq: self.next_operation,
            record_hash: record.0,
            accepted_at_ms: clocks(self.now).wall.0,
            producer: None,
            dedup: None,
            targets: std::iter::once(target).collect(),
            rules_version: 0,
            mapping_version: 0,
            event,
        };
        self.next_operation += 1;
        let mut batch = EventBatch::default();
        batch.push_with(|out| accepted.encode_into(out));
        let (own, log) = &mut self.shards[shard];
        let input = Input::Events {
            batch,
            barrier: Barrier::default(),
            ticket: (),
        };
        own.handle(clocks(self.now), log, input);
    }

    /// An UPDATE of that record, sent as an upsert while it is not linked.
    pub(super) fn update(&mut self, shard: usize, record: usize, value: u64) {
        let event = format!(
            r#"{{"operation":"UPDATE","object":"contact","record_id":"c-{record}","data":{{"n":{value}}}}}"#
        );
        self.submit(shard, &event);
    }

    /// The same at a priority.
    pub(super) fn update_at(&mut self, shard: usize, record: usize, priority: u8) {
        let value = self.next_operation;
        let event = format!(
            r#"{{"operation":"UPDATE","object":"contact","record_id":"c-{record}","priority":{priority},"data":{{"n":{value}}}}}"#
        );
        self.submit(shard, &event);
    }

    /// A DELETE of a record that nobody knows, which is looked up.
    pub(super) fn look_up(&mut self, shard: usize, record: usize) {
        let event =
            format!(r#"{{"operation":"DELETE","object":"contact","record_id":"d-{record}"}}"#);
        self.submit(shard, &event);
    }

    /// Asks an account for a list; it is seen as a call whose path is the list's name.
    pub(super) fn ask_list(&mut self, shard: usize, list: ListUse, name: &str) {
        let now = self.now();
        let request = Request {
            kind: CallKind::Read,
            method: Method::Get,
            path_and_query: format!("/{name}"),
            body: Bytes::new(),
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        };
        let input = Input::Fetch {
            account: self.plans[0].name.clone(),
            list: self.bug.map_or(list, |bug| bug.asked(list)),
            endpoint: name.into(),
            request,
            ticket: (),
        };
        let (shard, log) = &mut self.shards[shard];
        shard.handle(now, log, input);
    }

    /// Turns of everyone for so long.
    pub(super) fn run(&mut self, span: u64) {
        let end = self.now + span;
        while self.now < end {
            self.turn();
            self.now += self.step;
        }
    }

    /// Why a record of a shard waits.
    pub(super) fn explain(&mut self, shard: usize, object: &str, record_id: &str) -> Explanation {
        let now = self.now();
        let (shard, log) = &mut self.shards[shard];
        let explained = shard.explain(now, log, object, record_id);
        explained.into_iter().next().expect("a record of the shard")
    }

    /// Where the operation of a record with one stands, why, and what it returned.
    pub(super) fn told(
        &mut self,
        shard: usize,
        object: &str,
        record_id: &str,
    ) -> (State, Option<Reason>, String) {
        let (shard, log) = &mut self.shards[shard];
        let standings = shard.record(log, object, record_id);
        let standing = standings.into_iter().next().expect("an operation");
        let result = String::from_utf8(standing.result).expect("text");
        (standing.state, standing.reason, result)
    }

    /// Where an account stands with the coordinator.
    pub(super) fn view(&mut self, account: usize) -> AccountView {
        let now = self.now();
        let mut views = self.coordinator.views(now);
        views.nth(account).expect("an account of the world")
    }

    /// One turn of every shard and of the coordinator.
    pub(super) fn turn(&mut self) {
        let now = clocks(self.now);
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= self.now
        {
            let ((_, shard, call), result) = entry.remove_entry();
            let (shard, log) = &mut self.shards[shard];
            let input = Input::Reply {
                call: CallId(call),
                result,
                ended_at: now.mono,
            };
            shard.handle(now, log, input);
        }
        for at in 0..self.shards.len() {
            self.shard_turn(at, now);
        }
        if let Some(next) = self.below.next(self.now) {
            self.let_out(next.shard, next.call, next.account, &next.request);
        }
        self.coordinator.tick(now);
        let mut words: Vec<_> = std::iter::from_fn(|| self.coordinator.poll()).collect();
        let learned = self.coordinator.take_learned().into_iter();
        words.extend(learned.map(|learned| (ShardId(0), ToShard::Learned(learned))));
        for (shard, word) in words {
            let (shard, log) = &mut self.shards[usize::from(shard.0)];
            shard.handle(now, log, Input::Coordinator(word));
        }
    }

    fn shard_turn(&mut self, at: usize, now: Now) {
        let (shard, log) = &mut self.shards[at];
        shard.upkeep(now, log);
        let mut told = Vec::new();
        while let Some(output) = self.shards[at].0.poll(now.mono) {
            match output {
                Output::Call {
                    call,
                    plan,
                    request,
                } => {
                    let known = self.plans.iter().position(|known| known.name == plan.name);
                    let account = known.expect("an account of the world");
                    if self.bug == Some(Bug::BestFirstBelow) {
                        let shard = at;
                        self.below.push(Outgoing {
                            shard,
                            call,
                            account,
                            request,
                        });
                        continue;
                    }
                    self.let_out(at, call, account, &request);
                }
                Output::Coordinator(word) => {
                    let word = match self.bug {
                        Some(bug) => bug.told(word),
                        None => word,
                    };
                    self.coordinator.handle(now, ShardId(at as u16), word);
                }
                Output::Accepted(()) | Output::Done { .. } | Output::Fetched { .. } => {}
                Output::LinkTo(asker, word) => told.push((usize::from(asker.0), word)),
                Output::Link(word) => {
                    let asked = word.owner().expect("a record's").vshard();
                    told.push((asked.owner(self.shards.len()), word));
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
        for (to, word) in told {
            let (shard, log) = &mut self.shards[to];
            shard.handle(now, log, Input::Link(word));
        }
    }

    /// A call leaves for its account.
    fn let_out(&mut self, at: usize, call: CallId, account: usize, request: &Request) {
        let fails = |(of, span): &(usize, Range<u64>)| *of == account && span.contains(&self.now);
        let result = if self.outage.as_ref().is_some_and(fails) {
            Ok(reply(503, "{}"))
        } else {
            (self.answer)(self.now, request)
        };
        let path = &request.path_and_query;
        let status = result.as_ref().map_or(0, |reply| reply.status);
        let seen = Seen {
            at: self.now,
            account,
            kind: request.kind,
            path: path.clone(),
            of: path.rsplit('/').next().unwrap_or_default().to_owned(),
            status,
            records: records_in(request),
        };
        let again = self.bug == Some(Bug::RetriesBelow) && status >= 500;
        let times = if again { 3 } else { 1 };
        self.seen.extend(std::iter::repeat_n(seen, times));
        let ends = self.now + self.round_trip;
        self.under_way.insert((ends, at, call.0), result);
    }

    pub(super) fn now(&self) -> Now {
        clocks(self.now)
    }

    pub(super) fn calls(&self, kind: CallKind) -> Vec<&Seen> {
        self.seen.iter().filter(|call| call.kind == kind).collect()
    }
}

impl Journal for MemoryLog {
    fn append(&mut self, _: Class, kind: Kind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        let at = self.end();
        let payload = parts.concat();
        let bug = self.bug.filter(|_| self.replays);
        let planted = bug.and_then(|bug| bug.replayed(kind, &payload, &self.frames));
        self.frames.push((kind, planted.unwrap_or(payload)));
        Ok(at)
    }

    fn read(&mut self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<Kind, ReadError> {
        let at = (lsn.get() / FRAME_STEP - 1) as usize;
        let (kind, bytes) = &self.frames[at];
        payload.clear();
        payload.extend_from_slice(bytes);
        Ok(*kind)
    }

    fn durable(&self) -> Lsn {
        self.end()
    }

    fn end(&self) -> Lsn {
        Lsn::new((self.frames.len() as u64 + 1) * FRAME_STEP)
    }

    fn room(&self, _: Class) -> usize {
        usize::MAX
    }
}

/// Shards as their logs make them, and a coordinator that knows what these tell. Each owns its own
/// part of all records, or whatever it is given.
fn open(
    (now, apart): (Now, bool),
    plans: &[Arc<AccountPlan>],
    limits: Vec<Limit>,
    logs: Vec<MemoryLog>,
    from_checkpoint: bool,
) -> (Vec<(Shard<()>, MemoryLog)>, Coordinator, Recovered) {
    let start = Start {
        now,
        shards: logs.len() as u16,
        // No run of these lends so many.
        last_lease: LeaseId(now.mono.0 << 8),
        seed: 1,
    };
    let accounts = plans.iter().map(|plan| account(&plan.name, &limits));
    let limits = accounts.collect();
    let mut coordinator = Coordinator::new(start, limits).expect("limits in range");
    let mut found = Recovered::default();
    let mut shards = Vec::new();
    let count = logs.len();
    for (shard, log) in logs.into_iter().enumerate() {
        let settings = ShardSettings {
            id: ShardId(shard as u16),
            hash_key: HASH_KEY,
            boot: 1,
            booted_at_ms: 0,
            first_seq: OperationSeq::default(),
            seed: shard as u64,
            accounts: plans.to_vec(),
        };
        let owned = (0..VSHARD_COUNT).filter_map(VShard::new);
        let owned = owned.filter(|vshard| !apart || vshard.owner(count) == shard);
        let mut recovery = Recovery::new(settings, owned, now.mono);
        if from_checkpoint {
            for part in &log.checkpoint {
                recovery.load(part).expect("as it was written");
            }
        } else {
            for (at, (kind, payload)) in log.frames.iter().enumerate() {
                let at = Lsn::new((at as u64 + 1) * FRAME_STEP);
                let planted = log.bug.and_then(|bug| bug.recovered(*kind, payload));
                let payload = planted.as_ref().unwrap_or(payload);
                recovery
                    .replay(now, at, *kind, payload)
                    .expect("as it was written");
            }
        }
        let (shard, recovered) = recovery.finish(now, log.end());
        shards.push((shard, log));
        found.leases.extend(recovered.leases);
        found.learned.extend(recovered.learned);
    }
    let leases = found.leases.iter().map(|lease| RecoveredLease {
        account: lease.account.clone(),
        permits: lease.permits,
        label: lease.label.clone(),
        usable_until: lease.usable_until,
        wall_until: lease.usable_until_wall,
        ended_by: lease.ended_by,
        same_boot: true,
    });
    coordinator.restore(now, &leases.collect::<Vec<_>>());
    coordinator.recall(now, &found.learned);
    (shards, coordinator, found)
}

fn name_of(account: usize) -> String {
    match account {
        0 => "crm".to_owned(),
        more => format!("crm-{more}"),
    }
}

fn plan(name: &str, definition: Definition) -> Arc<AccountPlan> {
    Arc::new(AccountPlan {
        name: name.into(),
        definition,
        mappings: std::collections::HashMap::new(),
        retry: RetryPolicy {
            max_attempts: 12,
            max_age: Duration::from_secs(86_400),
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        },
        settle: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        fold: true,
        parent_timeout: Duration::from_secs(60),
        max_wait: MAX_WAIT,
        weights: Weights::default(),
        role: Role::Provider,
        two_way: std::collections::HashMap::new(),
        renewed: Vec::new(),
    })
}

/// The same plan, to be changed.
fn plan_like(known: &AccountPlan) -> AccountPlan {
    let made = plan(&known.name, known.definition.clone());
    Arc::into_inner(made).expect("nobody else has it yet")
}

fn account(name: &str, limits: &[Limit]) -> AccountLimits {
    AccountLimits {
        name: name.to_owned(),
        limits: limits.to_vec(),
        max_in_flight: 32,
        call_timeout: Duration::from_secs(30),
        hold: HoldSettings::default(),
    }
}

/// Both clocks at that many nanoseconds.
pub(super) fn clocks(ns: u64) -> Now {
    Now {
        mono: Mono(ns),
        wall: WallMs(1_795_000_000_000 + (ns / MS) as i64),
    }
}

/// The most calls that arrived within any interval of this length.
pub(super) fn most_within(calls: &[&Seen], window: u64) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (at, call) in calls.iter().enumerate() {
        while calls[first].at + window <= call.at {
            first += 1;
        }
        most = most.max(at + 1 - first);
    }
    most
}

/// All that was asked for is done; a look-up finds nothing.
pub(super) fn done(request: &Request) -> Reply {
    let body = if request.path_and_query.ends_with("/batch") {
        let records = batch_records(request);
        let results: Vec<String> = records
            .iter()
            .map(|id| format!(r#"{{"external_id":"{id}","status":200,"id":"r-{id}"}}"#))
            .collect();
        format!(r#"{{"results":[{}]}}"#, results.join(","))
    } else if request.kind == CallKind::Lookup {
        r#"{"results":[]}"#.to_owned()
    } else {
        r#"{"id":"r-1"}"#.to_owned()
    };
    reply(200, &body)
}

pub(super) fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        body_end: BodyEnd::Complete,
    }
}

/// As the definitions of this world's tests have it.
fn records_in(request: &Request) -> usize {
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let lists = ["records", "inputs"];
    let list = lists.into_iter().find_map(|name| body[name].as_array());
    list.map_or(1, Vec::len)
}

pub(super) fn batch_records(request: &Request) -> Vec<String> {
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    let records = body["records"].as_array().expect("records");
    let id = |record: &serde_json::Value| record["external_id"].as_str().map(str::to_owned);
    records.iter().filter_map(id).collect()
}
