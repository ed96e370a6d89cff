//! The model of one provider account: counts, decides, applies, remembers.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::exchange::{Answer, Reply, Request};
use crate::fault::{Fault, FaultSpec, Faults, Roll};
use crate::journal::{Call, Journal};
use crate::limit::{Limit, LimitSet, OverLimit};
use crate::open_writes::{OpenWrites, RecordKey};
use crate::operation::Operation;
use crate::replayed_keys::{Fingerprint, ReplayedKeys};
use crate::rest::Rest;
use crate::scenario::{Scenario, ScenarioError};
use crate::store::{Record, RemoteId, Store};

/// How an account behaves.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// What its dice start from.
    pub seed: u64,
    /// Rate limits, all in force at once.
    pub limits: Vec<Limit>,
    /// Faults that hold always.
    pub faults: FaultSpec,
    /// Faults that hold at times.
    pub scenario: Scenario,
    /// Refuse a create whose external id is live, with 409.
    pub unique: bool,
    /// Answer a repeated idempotency key with the first answer.
    pub honour_keys: bool,
    /// Memory for the journal; the oldest calls are forgotten beyond it.
    pub journal_bytes_max: usize,
    /// Unix time at which `now` is zero; only shifts the times that the journal shows.
    pub epoch: Duration,
}

impl Default for AccountConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            limits: Vec::new(),
            faults: FaultSpec::default(),
            scenario: Scenario::default(),
            unique: false,
            honour_keys: false,
            // About 700,000 calls with a body of 400 bytes.
            journal_bytes_max: 512 << 20,
            epoch: Duration::ZERO,
        }
    }
}

/// A simulated account of the `rest` provider.
///
/// A driver tells it of each call twice: [`arrive`](Self::arrive) when the whole request is there,
/// and [`finish`](Self::finish) at the time that `arrive` named, for the answer (or
/// [`abandon`](Self::abandon) when the caller went away first). `now` is the time since the
/// account started and never goes back.
#[derive(Debug)]
pub struct Account {
    seed: u64,
    unique: bool,
    honour_keys: bool,
    standing_faults: Faults,
    scenario: Scenario,
    limits: LimitSet,
    store: Store,
    keys: ReplayedKeys,
    writes: OpenWrites,
    journal: Journal,
    last_seq: u64,
    duplicate_creates: u64,
    open: BTreeMap<CallId, OpenCall>,
    /// Calls applied when they are due, by that time.
    late: BTreeMap<(Duration, CallId), Effect>,
}

/// A call's place in the order of arrival, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

impl CallId {
    /// The call's `seq` in the journal.
    #[must_use]
    pub fn seq(self) -> u64 {
        self.0
    }
}

/// A call that was taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Names the call to [`Account::finish`].
    pub call: CallId,
    /// When it is to be answered.
    pub answer_at: Duration,
}

/// What the account holds against its callers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violations {
    /// Calls over at least one limit.
    pub total: u64,
    /// Calls over each limit, in the order of the limits.
    pub by_limit: Vec<(String, u64)>,
    /// Creates for an external id that was live already, each making a second record.
    pub duplicate_creates: u64,
    /// Writes begun while another write to the same record was open.
    pub overlaps: u64,
}

#[derive(Debug)]
struct OpenCall {
    keys: Vec<RecordKey>,
    ending: Ending,
}

#[derive(Debug)]
enum Ending {
    Decided(Answer),
    /// The effect waits in `late` under this time.
    Late(Duration),
}

/// What a call does when it is applied.
#[derive(Debug)]
struct Effect {
    operation: Operation,
    idempotency: Option<(String, Fingerprint)>,
    faults: Faults,
    roll: Roll,
}

impl Account {
    /// An account without records.
    #[must_use]
    pub fn new(config: AccountConfig) -> Self {
        let mut standing_faults = Faults::default();
        standing_faults.apply(&config.faults);
        Self {
            seed: config.seed,
            unique: config.unique,
            honour_keys: config.honour_keys,
            standing_faults,
            scenario: config.scenario,
            limits: LimitSet::new(config.limits),
            store: Store::default(),
            keys: ReplayedKeys::default(),
            writes: OpenWrites::default(),
            journal: Journal::new(config.journal_bytes_max, config.epoch),
            last_seq: 0,
            duplicate_creates: 0,
            open: BTreeMap::new(),
            late: BTreeMap::new(),
        }
    }

    /// Takes in a call: counts it against the limits, decides its faults, applies it.
    pub fn arrive(&mut self, now: Duration, request: &Request<'_>) -> Arrival {
        self.settle_late(now);
        self.last_seq += 1;
        let call = CallId(self.last_seq);
        let roll = Roll::of_call(self.seed, call.0);
        let operation = Operation::parse(request);
        let keys = match &operation {
            Ok(operation) => RecordKey::written_by(operation, &self.store),
            Err(_) => Vec::new(),
        };
        self.writes.open(&keys);
        self.journal
            .push(entry(now, call, request, operation.as_ref().ok(), &keys));

        let faults = self.faults_at(now);
        let mut answer_at = now + faults.delay(roll);
        let ending = match (self.limits.admit(now), operation) {
            (Err(OverLimit { wait }), _) => {
                // A limiter stands in front of what is slow.
                answer_at = now;
                let reply = Reply::error(429, "over a rate limit");
                Ending::Decided(Answer::Reply(reply.with_retry_after(whole_seconds(wait))))
            }
            (Ok(()), operation) => match refusal(&faults, roll) {
                Some(answer) => Ending::Decided(answer),
                None => match operation {
                    Err(refused) => Ending::Decided(Answer::Reply(refused)),
                    Ok(operation) => {
                        let key = request.idempotency_key.filter(|_| operation.is_write());
                        let idempotency = key.map(|key| (key.to_owned(), Fingerprint::of(request)));
                        let effect = Effect {
                            operation,
                            idempotency,
                            faults,
                            roll,
                        };
                        self.bring_about(now, call, answer_at, effect)
                    }
                },
            },
        };
        self.open.insert(call, OpenCall { keys, ending });
        Arrival { call, answer_at }
    }

    /// Ends a call with its answer.
    ///
    /// # Panics
    /// When the call has ended already: a driver ends each call once.
    pub fn finish(&mut self, now: Duration, call: CallId) -> Answer {
        self.settle_late(now);
        if let Some(OpenCall {
            ending: Ending::Late(due),
            ..
        }) = self.open.get(&call)
        {
            let due = *due;
            self.settle_one(now, due, call);
        }
        let open = self.close(now, call).expect("a driver ends each call once");
        let Ending::Decided(answer) = open.ending else {
            unreachable!("a late call was settled above");
        };
        if let (Answer::Reply(reply), Some(entry)) = (&answer, self.journal.get_mut(call.0)) {
            entry.status = reply.status;
        }
        answer
    }

    /// Ends a call whose caller went away; does nothing when the call has ended already. A late
    /// effect still comes.
    pub fn abandon(&mut self, now: Duration, call: CallId) {
        self.close(now, call);
    }

    /// One call from arrival to answer in no time, for drivers that model no delay.
    pub fn handle(&mut self, now: Duration, request: &Request<'_>) -> Answer {
        let arrival = self.arrive(now, request);
        self.finish(now, arrival.call)
    }

    /// Replaces the faults that hold always.
    pub fn replace_faults(&mut self, faults: &FaultSpec) {
        self.standing_faults = Faults::default();
        self.standing_faults.apply(faults);
    }

    /// Lays faults over the standing ones from now on for a time.
    ///
    /// # Errors
    /// When too many windows are open or to come; nothing was added.
    pub fn add_faults(
        &mut self,
        now: Duration,
        length: Duration,
        faults: FaultSpec,
    ) -> Result<(), ScenarioError> {
        self.scenario.forget_before(now);
        self.scenario.add(now, length, faults)
    }

    /// Puts other limits in place; windows of the same length keep what they have counted.
    pub fn replace_limits(&mut self, limits: Vec<Limit>) {
        self.limits.replace(limits);
    }

    /// What the account counted against its callers.
    #[must_use]
    pub fn violations(&self) -> Violations {
        let by_limit = self
            .limits
            .violations()
            .map(|(name, count)| (name.to_owned(), count));
        Violations {
            total: self.limits.refused(),
            by_limit: by_limit.collect(),
            duplicate_creates: self.duplicate_creates,
            overlaps: self.writes.overlaps(),
        }
    }

    /// The calls, in the order of arrival.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Every live record with its object and id, in the order of objects and ids.
    pub fn records(&self) -> impl Iterator<Item = (&str, RemoteId, &Record)> {
        self.store.records()
    }

    fn faults_at(&self, now: Duration) -> Faults {
        let mut faults = self.standing_faults.clone();
        self.scenario.overlay(now, &mut faults);
        faults
    }

    /// Applies an effect now, or lays it by when the call is to take effect late.
    fn bring_about(
        &mut self,
        now: Duration,
        call: CallId,
        answer_at: Duration,
        effect: Effect,
    ) -> Ending {
        if answer_at > now && effect.faults.strikes(Fault::Late, effect.roll) {
            self.late.insert((answer_at, call), effect);
            return Ending::Late(answer_at);
        }
        Ending::Decided(self.apply(now, call, &effect))
    }

    fn settle_late(&mut self, now: Duration) {
        while let Some((&(due, call), _)) = self.late.first_key_value()
            && due <= now
        {
            self.settle_one(due, due, call);
        }
    }

    fn settle_one(&mut self, now: Duration, due: Duration, call: CallId) {
        let Some(effect) = self.late.remove(&(due, call)) else {
            return;
        };
        let answer = self.apply(now, call, &effect);
        if let Some(open) = self.open.get_mut(&call) {
            open.ending = Ending::Decided(answer);
        }
    }

    fn apply(&mut self, now: Duration, call: CallId, effect: &Effect) -> Answer {
        let reply = self.reply_to(now, effect);
        if let Some(entry) = self.journal.get_mut(call.0) {
            entry.applied = true;
        }
        let strikes = |fault| effect.faults.strikes(fault, effect.roll);
        if strikes(Fault::ResetAfter) {
            return Answer::Reset;
        }
        if strikes(Fault::ServerErrorAfter) {
            let status = effect.roll.server_error();
            return Answer::Reply(Reply::error(status, "something went wrong afterwards"));
        }
        if strikes(Fault::Garbage) {
            let page = Reply::rendered(200, "<html><body>welcome to the proxy</body></html>");
            return Answer::Reply(Reply {
                content_type: Some("text/html"),
                ..page
            });
        }
        Answer::Reply(reply)
    }

    fn reply_to(&mut self, now: Duration, effect: &Effect) -> Reply {
        let idempotency = effect.idempotency.as_ref().filter(|_| self.honour_keys);
        if let Some((key, fingerprint)) = idempotency
            && let Some(first) = self.keys.look_up(key, *fingerprint)
        {
            return first;
        }
        let mut rest = Rest {
            now,
            store: &mut self.store,
            faults: &effect.faults,
            roll: effect.roll,
            unique: self.unique,
            duplicate_creates: &mut self.duplicate_creates,
        };
        let reply = rest.apply(&effect.operation);
        if let Some((key, fingerprint)) = idempotency {
            self.keys.remember(key, *fingerprint, &reply);
        }
        reply
    }

    fn close(&mut self, now: Duration, call: CallId) -> Option<OpenCall> {
        let open = self.open.remove(&call)?;
        self.writes.close(&open.keys);
        if let Some(entry) = self.journal.get_mut(call.0) {
            entry.done = Some(now);
        }
        Some(open)
    }
}

/// The answer that a fault gives instead of applying the call.
fn refusal(faults: &Faults, roll: Roll) -> Option<Answer> {
    if faults.strikes(Fault::ResetBefore, roll) {
        return Some(Answer::Reset);
    }
    let reply = if faults.strikes(Fault::Unauthorized, roll) {
        Reply::error(401, "the credentials are not accepted")
    } else if faults.strikes(Fault::Throttled, roll) {
        let wait = whole_seconds(faults.retry_after);
        Reply::error(429, "too many calls").with_retry_after(wait)
    } else if faults.strikes(Fault::ServerError, roll) {
        Reply::error(roll.server_error(), "something went wrong")
    } else {
        return None;
    };
    Some(Answer::Reply(reply))
}

/// `Retry-After` has no fractions: the next whole second is the first that is late enough.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

fn entry(
    now: Duration,
    call: CallId,
    request: &Request<'_>,
    operation: Option<&Operation>,
    keys: &[RecordKey],
) -> Call {
    let external_id = match operation {
        Some(Operation::LookUp { external_id, .. }) => Some(external_id.as_str()),
        Some(Operation::Batch { .. }) => None,
        _ => keys.first().and_then(RecordKey::external_id),
    };
    let path = request
        .target
        .split_once('?')
        .map_or(request.target, |(path, _)| path);
    Call {
        seq: call.0,
        at: now,
        done: None,
        method: request.method.clone(),
        path: path.into(),
        status: 0,
        applied: false,
        object: operation.map(|operation| operation.object().into()),
        external_id: external_id.map(Into::into),
        idempotency_key: request.idempotency_key.map(Into::into),
        body: request.body.clone(),
    }
}
