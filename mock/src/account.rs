//! The model of one provider account: counts, decides, applies, remembers.

mod config;

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;

use crate::exchange::{Answer, Reply, Request};
use crate::fault::{Fault, FaultSpec, Faults, Roll};
use crate::journal::{Call, Journal};
use crate::limit::{CallClass, Limit, LimitSet};
use crate::open_writes::{OpenWrites, RecordKey};
use crate::provider::{Edit, Provider, RawCall, Refusal, Scene, Subject};
use crate::record::{Record, RemoteId};
use crate::scenario::{Scenario, ScenarioError};
use crate::webhook::{Delivered, Deliveries, Delivery, DeliveryCounts, DeliveryId};
pub use config::AccountConfig;

/// A simulated account of one provider.
///
/// A driver tells it of each call twice: [`arrive`](Self::arrive) when the whole request is there,
/// and [`finish`](Self::finish) at the time that `arrive` named, for the answer (or
/// [`abandon`](Self::abandon) when the caller went away first). `now` is the time since the
/// account started and never goes back.
#[derive(Debug)]
pub struct Account {
    seed: u64,
    epoch: Duration,
    provider: Box<dyn Provider>,
    standing_faults: Faults,
    scenario: Scenario,
    limits: LimitSet,
    writes: OpenWrites,
    journal: Journal,
    last_seq: u64,
    open: BTreeMap<CallId, OpenCall>,
    /// Calls applied when they are due, by that time.
    late: BTreeMap<(Duration, CallId), Effect>,
}

/// A call's place in the order of arrival, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(u64);

impl CallId {
    #[cfg(test)]
    pub(crate) fn of(seq: u64) -> Self {
        Self(seq)
    }

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
    class: CallClass,
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
    call: RawCall,
    faults: Faults,
    roll: Roll,
}

impl Account {
    /// An account without records.
    #[must_use]
    pub fn new(config: AccountConfig) -> Self {
        let provider = config.provider.open(&config);
        let limits = Limit::overlay(provider.limits(), config.limits);
        let mut account = Self {
            seed: config.seed,
            epoch: config.epoch,
            provider,
            standing_faults: Faults::default(),
            scenario: config.scenario,
            limits: LimitSet::new(limits, config.epoch),
            writes: OpenWrites::default(),
            journal: Journal::new(config.journal_bytes_max, config.epoch),
            last_seq: 0,
            open: BTreeMap::new(),
            late: BTreeMap::new(),
        };
        account.replace_faults(&config.faults);
        account
    }

    /// Takes in a call without headers: counts it against the limits, decides its faults, applies
    /// it.
    pub fn arrive(&mut self, now: Duration, request: &Request<'_>) -> Arrival {
        self.arrive_with(now, request, HeaderMap::new())
    }

    /// Takes in a call with its headers, which all providers but `rest` look at.
    pub fn arrive_with(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        headers: HeaderMap,
    ) -> Arrival {
        self.settle_late(now);
        self.last_seq += 1;
        let id = CallId(self.last_seq);
        let roll = Roll::of_call(self.seed, id.0);
        let call = RawCall {
            method: request.method.clone(),
            target: request.target.into(),
            headers,
            idempotency_key: request.idempotency_key.map(Into::into),
            body: request.body.clone(),
        };
        let subject = self.provider.subject(&call);
        self.writes.open(&subject.writes);
        self.journal.push(entry(now, id, &call, &subject));

        let faults = self.faults_at(now);
        let mut answer_at = now + faults.delay(roll);
        let ending = match self.turn_away(now, &call, &subject, &faults, roll) {
            Some(TurnedAway { answer, at_once }) => {
                if at_once {
                    answer_at = now;
                }
                Ending::Decided(answer)
            }
            None => {
                let effect = Effect { call, faults, roll };
                self.bring_about(now, id, answer_at, effect)
            }
        };
        self.limits.opened(now, id, subject.class);
        let open = OpenCall {
            keys: subject.writes,
            class: subject.class,
            ending,
        };
        self.open.insert(id, open);
        Arrival {
            call: id,
            answer_at,
        }
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
        let Ending::Decided(mut answer) = open.ending else {
            unreachable!("a late call was settled above");
        };
        if let Answer::Reply(reply) = &mut answer {
            self.provider.stamp(&self.limits, now, open.class, reply);
            if let Some(entry) = self.journal.get_mut(call.0) {
                entry.status = reply.status;
            }
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
        self.handle_with(now, request, HeaderMap::new())
    }

    /// The same for a call with headers.
    pub fn handle_with(
        &mut self,
        now: Duration,
        request: &Request<'_>,
        headers: HeaderMap,
    ) -> Answer {
        let arrival = self.arrive_with(now, request, headers);
        self.finish(now, arrival.call)
    }

    /// A change made at the provider by somebody else: counts against no limit and is in no
    /// journal. Gives the record's id.
    ///
    /// # Errors
    /// A sentence that says why not; nothing has changed.
    pub fn edit(&mut self, now: Duration, edit: &Edit) -> Result<RemoteId, &'static str> {
        self.settle_late(now);
        let faults = self.faults_at(now);
        let scene = Scene {
            now,
            epoch: self.epoch,
            faults: &faults,
            limits: &self.limits,
            roll: Roll::of_call(self.seed, self.last_seq),
        };
        self.provider.edit(&scene, edit)
    }

    /// Every access token handed out so far is worth nothing from now on.
    pub fn expire_tokens(&mut self) {
        self.provider.expire_tokens();
    }

    /// When there is a notification to send.
    #[must_use]
    pub fn next_delivery_at(&self) -> Option<Duration> {
        self.provider.deliveries()?.next_at()
    }

    /// The next notification to send; its end is told by [`delivered`](Self::delivered).
    pub fn poll_delivery(&mut self, now: Duration) -> Option<Delivery> {
        let epoch = self.epoch;
        self.provider.deliveries_mut()?.poll(now, epoch)
    }

    /// A notification was answered, or nobody was there.
    pub fn delivered(&mut self, now: Duration, id: DeliveryId, outcome: Delivered) {
        if let Some(deliveries) = self.provider.deliveries_mut() {
            deliveries.delivered(now, id, outcome);
        }
    }

    /// What became of the notifications.
    #[must_use]
    pub fn delivery_counts(&self) -> DeliveryCounts {
        let deliveries = self.provider.deliveries();
        deliveries.map(Deliveries::counts).unwrap_or_default()
    }

    /// Replaces the faults that hold always.
    pub fn replace_faults(&mut self, faults: &FaultSpec) {
        let nature = self.provider.nature().parse();
        self.standing_faults = Faults::default();
        self.standing_faults
            .apply(&nature.expect("a provider's own faults are well-formed"));
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

    /// Ends every window of faults, those to come among them.
    pub fn end_windows(&mut self) {
        self.scenario.forget_before(Duration::MAX);
    }

    /// Puts other limits in place beside the provider's own; what is counted already stays so.
    pub fn replace_limits(&mut self, limits: Vec<Limit>) {
        self.limits
            .replace(Limit::overlay(self.provider.limits(), limits));
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
            duplicate_creates: self.provider.duplicate_creates(),
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
        self.provider.records()
    }

    fn faults_at(&self, now: Duration) -> Faults {
        let mut faults = self.standing_faults.clone();
        self.scenario.overlay(now, &mut faults);
        faults
    }

    /// Whether a call is answered without being applied, and how.
    fn turn_away(
        &mut self,
        now: Duration,
        call: &RawCall,
        subject: &Subject,
        faults: &Faults,
        roll: Roll,
    ) -> Option<TurnedAway> {
        let scene = Scene {
            now,
            epoch: self.epoch,
            faults,
            limits: &self.limits,
            roll,
        };
        let unix = scene.unix();
        // Who may not come in and who comes too often is told at the door, before what is slow.
        let at_the_door = |reply| {
            Some(TurnedAway {
                answer: Answer::Reply(reply),
                at_once: true,
            })
        };
        if let Err(stranger) = self.provider.admit(&scene, call) {
            return at_the_door(stranger);
        }
        if let Err(over) = self.limits.admit(now, subject.class, subject.cost) {
            return at_the_door(self.provider.refuse(&Refusal::OverLimit {
                name: &over.name,
                wait: over.wait,
            }));
        }
        if faults.strikes(Fault::ResetBefore, roll) {
            return Some(TurnedAway {
                answer: Answer::Reset,
                at_once: false,
            });
        }
        let wait = faults.retry_after;
        let refusal = if faults.strikes(Fault::Unauthorized, roll) {
            Refusal::Unauthorized
        } else if faults.strikes(Fault::Throttled, roll) {
            Refusal::Throttled { wait }
        } else if faults.strikes(Fault::Daily, roll) {
            Refusal::DailySpent { wait }
        } else if faults.strikes(Fault::ServerError, roll) || faults.takes_down(call.path()) {
            Refusal::ServerError(roll.server_error())
        } else if faults.strikes(Fault::Maintenance, roll) {
            let over_at = unix + wait;
            Refusal::Maintenance { wait, over_at }
        } else {
            return None;
        };
        Some(TurnedAway {
            answer: Answer::Reply(self.provider.refuse(&refusal)),
            at_once: false,
        })
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
        let scene = Scene {
            now,
            epoch: self.epoch,
            faults: &effect.faults,
            limits: &self.limits,
            roll: effect.roll,
        };
        let reply = self.provider.carry_out(&scene, &effect.call);
        if let Some(entry) = self.journal.get_mut(call.0) {
            entry.applied = true;
        }
        let strikes = |fault| effect.faults.strikes(fault, effect.roll);
        if strikes(Fault::ResetAfter) {
            return Answer::Reset;
        }
        if strikes(Fault::ServerErrorAfter) {
            let refusal = Refusal::ServerError(effect.roll.server_error());
            return Answer::Reply(self.provider.refuse(&refusal));
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

    fn close(&mut self, now: Duration, call: CallId) -> Option<OpenCall> {
        let open = self.open.remove(&call)?;
        self.writes.close(&open.keys);
        self.limits.closed(call);
        if let Some(entry) = self.journal.get_mut(call.0) {
            entry.done = Some(now);
        }
        Some(open)
    }
}

/// An answer to a call that is not applied.
struct TurnedAway {
    answer: Answer,
    /// Whether it comes before what makes answers slow.
    at_once: bool,
}

fn entry(now: Duration, id: CallId, call: &RawCall, subject: &Subject) -> Call {
    Call {
        seq: id.0,
        at: now,
        done: None,
        method: call.method.clone(),
        path: call.path().into(),
        query: Some(call.query())
            .filter(|query| !query.is_empty())
            .map(Into::into),
        status: 0,
        applied: false,
        object: subject.object.as_deref().map(Into::into),
        external_id: subject.external_id.as_deref().map(Into::into),
        records: subject.records,
        idempotency_key: call.idempotency_key.clone(),
        body: call.body.clone(),
    }
}
