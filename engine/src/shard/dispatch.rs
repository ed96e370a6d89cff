//! Starting calls: the best ready operation of each account, as far as slots, permits and the
//! gate allow.

use std::borrow::Cow;

use super::calls::OpenCall;
use super::item::Item;
use super::prepare::Payload;
use super::two_way::Role;
use super::{AccountPlan, CallId, Output, RECORDS_PER_TURN, Shard};
use crate::id::OperationId;
use crate::journal::{Class, Journal, Kind};
use crate::json::{RawObject, compose_patches};
use crate::operation_slab::{OpState, Target};
use crate::provider::{
    BatchGroup, BatchItem, CallKind, Field, Method, RenderError, Request, Subject,
};
use crate::quota::{Attempts, CostClass, Gate};
use crate::record::KeyUse;
use crate::state::{Reason, State};
use crate::time::{Mono, Now};

/// Room in the log below which no call starts: its intent needs some now, and the outcomes of
/// all open calls some later, of which one may carry a megabyte of undelivered fields. The
/// driver takes replies down to half of it; on a full disk the rest of them wait for space.
pub(super) const CALL_ROOM: usize = 4 * 1024 * 1024;

/// What a call is beside the records that it carries.
#[derive(Debug, Clone, Copy)]
struct Terms {
    /// What the records share; `None`: a single record's own call.
    group: Option<BatchGroup>,
    class: CostClass,
    /// The endpoint it is the probe of, by number.
    probes: Option<usize>,
    attempts: Attempts,
}

impl<T> Shard<T> {
    /// Starts calls, fairly among accounts, up to the turn's bound.
    pub(super) fn dispatch(&mut self, now: Now, journal: &mut impl Journal) {
        let accounts = self.accounts.len();
        if accounts == 0 || self.draining {
            return;
        }
        self.has_room = journal.room(Class::Outcome) >= CALL_ROOM;
        self.start_fetches(now, journal, |account| !account.records_next);
        let share = (RECORDS_PER_TURN / accounts).max(1);
        for at in 0..accounts {
            let mut left = share;
            self.look_at_pulls(now, journal, at, share / 2);
            self.accounts[at].part_batches.begin_turn();
            while left > 0 && !self.fenced && journal.room(Class::Outcome) >= CALL_ROOM {
                if self.lingers(now.mono, at) {
                    break;
                }
                let Some(mut call) = self.gather(now, journal, at, &mut left) else {
                    break;
                };
                self.accounts[at].lingers_since = None;
                self.accounts[at].records_next = false;
                let terms = Terms {
                    group: call.group,
                    class: call.class,
                    probes: call.probes,
                    attempts: call.attempts,
                };
                match (call.group, self.accounts[at].plan.clone()) {
                    (Some(group), Some(plan)) => {
                        let records = call.records;
                        if let Some((items, request)) =
                            self.render_batch(now, journal, &plan, group, records)
                        {
                            self.send(now, journal, at, terms, items, request);
                        }
                    }
                    _ => {
                        let (item, payload) = call.records.remove(0);
                        self.send_one(now, journal, at, terms, item, &payload);
                    }
                }
            }
        }
        self.start_fetches(now, journal, |_| true);
    }

    pub(super) fn accounts_can_start(&self) -> bool {
        // Permits whose time was over have just been given back.
        let lingers = |at: usize| self.accounts[at].lingers_until.is_some();
        let can_start = |at: usize| !lingers(at) && self.can_start(Mono(0), at);
        let pulls = |at: usize| self.has_room && self.may_look_at_pulls(at);
        (0..self.accounts.len()).any(|at| pulls(at) || can_start(at))
    }

    /// A call for one record.
    fn send_one(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        terms: Terms,
        mut item: Item,
        payload: &Payload,
    ) {
        let Some(plan) = self.accounts[at].plan.clone() else {
            return self.index.make_ready(item.op);
        };
        let kind = item.kind.expect("a prepared item has its call");
        let members = members(&payload.fields);
        let fields = fields(&members);
        let subject = subject(&item, &plan.name, payload, &fields);
        let rendered = plan.definition.render(kind, &subject);
        let long = match &rendered {
            Err(RenderError::PathTooLong { .. }) if kind == CallKind::Read => {
                plan.definition.long_read_group(&payload.object)
            }
            _ => None,
        };
        let rendered = match long {
            Some(group) => {
                let items = [BatchItem { kind, subject }];
                plan.definition.render_batch(group, &items)
            }
            None => rendered,
        };
        let mut request = match rendered {
            Ok(request) => request,
            Err(error) => {
                return self.unsendable(now, journal, &plan.name, item, error.to_string());
            }
        };
        if plan.role == Role::SystemA {
            // It is told at one address, its account's own.
            request.method = Method::Post;
            request.path_and_query.clear();
            request.body = super::feed::change(&item, payload);
        }
        request.request_id = item.id().to_string();
        request.traceparent.clone_from(&payload.traceparent);
        if kind.is_write() {
            // A create goes out under the key of its intent again: nobody may make a second record.
            let gone_out = match kind {
                CallKind::Create => 0,
                _ => self.keys_gone_out(&plan, &item),
            };
            item.progress.key = item.progress.key.advance(request.digest().0, gone_out);
            request.idempotency_key = Some(idempotency_key(item.id(), item.progress.key));
        }
        let terms = Terms {
            group: long,
            ..terms
        };
        self.send(now, journal, at, terms, vec![item], request);
    }

    /// How many of an operation's keys may have gone out since the last that was logged, with other
    /// bytes than now.
    fn keys_gone_out(&self, plan: &AccountPlan, item: &Item) -> u16 {
        let by_others = plan.keys_gone_out(item.lead.seq);
        if !plan.two_way.contains_key(item.object()) {
            return by_others;
        }
        // What is left to say of a record that others change as well depends on what was seen of it
        // since: in each run before this one a call may have been cut off.
        let runs = self.settings.first_seq.run();
        let runs = runs.saturating_sub(item.lead.seq.run());
        by_others.saturating_add(u16::try_from(runs).unwrap_or(u16::MAX))
    }

    /// A record that no request can carry.
    pub(super) fn unsendable(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        mut item: Item,
        detail: String,
    ) {
        item.progress.state = State::Failed;
        item.progress.reason = Some(Reason::Mapping);
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, account, item, detail);
    }

    fn send(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        terms: Terms,
        items: Vec<Item>,
        request: Request,
    ) {
        let account = &self.accounts[at];
        let callable = account.plan.clone().zip(account.id);
        let paid = callable
            .filter(|_| !items.is_empty())
            .and_then(|(plan, id)| {
                let permit = self.holdings.try_spend(now.mono, id, terms.class);
                Some((plan, permit.ok()?))
            });
        let Some((plan, permit)) = paid else {
            for item in items.iter().rev() {
                self.index.put_back(item.op);
            }
            return;
        };
        // A frame of this turn is durable only once everything to the log's end is. Nothing of
        // this turn: the call depends on its events, its records' last states and its lease.
        let mut fresh = permit.is_leased();
        for item in &items {
            if item.kind == Some(CallKind::Create) {
                fresh = true;
                self.unsent
                    .remove(&(item.record, item.front_seq(), Target(at as u16)));
                self.log_intent(now, journal, &plan.name, item);
                if self.fenced {
                    return self.holdings.cancel(permit);
                }
            }
            fresh |= item.state_at.max(item.lead.event) >= journal.durable();
            self.index.slab[item.op].set_sorted(None);
            self.index.slab[item.op].set_state(OpState::InFlight);
        }
        let needs = if fresh {
            journal.end()
        } else {
            journal.durable()
        };
        if let Some(endpoint) = terms.probes {
            self.accounts[at].endpoints.probing(endpoint);
        }
        self.accounts[at].retry_budget.on_call(terms.attempts);
        let id = self.calls.insert(OpenCall {
            items,
            group: terms.group,
            target: Target(at as u16),
            permit,
            class: terms.class,
            attempts: terms.attempts,
            endpoint: None,
            probes: terms.probes.is_some(),
            started: now.mono,
        });
        self.effects.push(
            needs,
            Output::Call {
                call: id,
                plan,
                request,
            },
        );
    }

    /// Whether a call that waited for the disk may still be sent: within the time of its permit,
    /// after which the coordinator counts it as over, and while its account is not held.
    pub(super) fn may_leave(&self, now: Mono, call: CallId) -> bool {
        let Some(call) = self.calls.get(call) else {
            return true;
        };
        let open = matches!(
            self.gate(usize::from(call.target.0)),
            Some(Gate::Open | Gate::Suspect)
        );
        let open = call.permit.is_probe() || open;
        now <= call.permit.usable_until() && open && self.endpoint_lets(call)
    }

    /// A call that was never sent: its operation is ready again. A create keeps the mark of its
    /// intent, as the log does; only this life knows that it never left.
    pub(super) fn take_back(&mut self, call: CallId) {
        self.take_fetch_back(call);
        let Some(call) = self.calls.remove(call) else {
            return;
        };
        if call.probes {
            self.probe_taken_back(&call);
        }
        self.holdings.cancel(call.permit);
        let account = &mut self.accounts[usize::from(call.target.0)];
        account.retry_budget.on_call_taken_back(call.attempts);
        for item in call.items.iter().rev() {
            if item.kind == Some(CallKind::Create) {
                self.unsent
                    .insert((item.record, item.front_seq(), call.target));
            }
            self.index.slab[item.op].set_state(OpState::Waiting);
            self.index.put_back(item.op);
        }
    }

    /// Says that a create is about to leave. It is written for the front of the lane, which is what
    /// a restart finds first.
    fn log_intent(&mut self, now: Now, journal: &mut impl Journal, account: &str, item: &Item) {
        let front = item.front_seq();
        let intent = crate::entry::Intent {
            record: item.record,
            seq: front,
            account,
            key: item.progress.key,
            at_ms: now.wall.0,
        };
        self.scratch.entry.clear();
        intent.encode(&mut self.scratch.entry);
        match journal.append(Class::Outcome, Kind::Intent, &[&self.scratch.entry]) {
            Ok(_) => {
                let target = self.index.slab[item.op].target();
                self.index.apply_intent(item.record, front, target);
            }
            // Without a durable intent the call must not leave: a fenced shard lets nothing out.
            Err(_) => self.fence(),
        }
    }
}

/// A record as a definition's templates see it.
pub(super) fn subject<'a>(
    item: &'a Item,
    account: &str,
    payload: &'a Payload,
    fields: &'a [Field<'a>],
) -> Subject<'a> {
    let target = item.states[0].target(account);
    Subject {
        object: &payload.object,
        record_id: item.record_id(),
        remote_id: target.and_then(|target| target.link.remote_id()),
        fields,
    }
}

pub(super) fn fields<'a>(members: &'a [(Cow<'a, str>, &'a str)]) -> Vec<Field<'a>> {
    let field = |(name, value): &'a (Cow<'a, str>, &'a str)| Field { name, value };
    members.iter().map(field).collect()
}

/// The members of an object, names unescaped.
pub(super) fn members(data: &str) -> Vec<(Cow<'_, str>, &str)> {
    let Some(data) = object(data.as_bytes()) else {
        return Vec::new();
    };
    data.members()
        .map(|member| (member.key.name(), member.value.text()))
        .collect()
}

/// The object these bytes are; they were validated when the event was taken.
pub(super) fn object(bytes: &[u8]) -> Option<RawObject<'_>> {
    RawObject::new(std::str::from_utf8(bytes).ok()?)
}

/// One patch that does what `beneath` and then `above` would do.
pub(super) fn composed(beneath: RawObject<'_>, above: Option<RawObject<'_>>) -> String {
    let Some(above) = above else {
        return beneath.text().to_owned();
    };
    let mut out = Vec::new();
    compose_patches(beneath, above, &mut out);
    String::from_utf8(out).expect("patches of UTF-8 texts are composed of their slices")
}

fn idempotency_key(id: OperationId, key: KeyUse) -> String {
    if key.number <= 1 {
        id.to_string()
    } else {
        format!("{id}.{}", key.number)
    }
}
