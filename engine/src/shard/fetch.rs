//! Calls that carry no record: an account is asked for a list of what changed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::account::Account;
use super::calls::OpenCall;
use super::endpoints::Way;
use super::settle::{end_of, judged_by_next, timestamp};
use super::{CallId, Observation, Output, Shard};
use crate::decide::class_of;
use crate::journal::Journal;
use crate::operation_slab::Target;
use crate::provider::{CallKind, NotSent, Reply, Request, SendFailure, Verdict};
use crate::quota::{Attempts, CostClass};
use crate::time::{Mono, Now};

/// Fetches that wait for their account, at most; one more is refused.
const WAITING_MAX: usize = 64;

/// What a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListUse {
    /// What changed: what limits keep for polls pays for it.
    Poll,
    /// All records, when there is quota to spare.
    Walk,
}

/// Fetches that wait, and those that are under way.
#[derive(Debug)]
pub(super) struct Fetches<T> {
    waiting: VecDeque<Fetch<T>>,
    open: HashMap<CallId, Fetch<T>>,
}

#[derive(Debug)]
struct Fetch<T> {
    target: Target,
    list: ListUse,
    endpoint: Arc<str>,
    request: Request,
    ticket: T,
    /// Its call before was refused for its token.
    again: bool,
}

impl<T> Default for Fetches<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            open: HashMap::new(),
        }
    }
}

impl<T> Fetches<T> {
    /// Calls of an account that wait.
    fn waiting_of(&self, at: usize) -> impl Iterator<Item = &Fetch<T>> {
        let mine = move |fetch: &&Fetch<T>| usize::from(fetch.target.0) == at;
        self.waiting.iter().filter(mine)
    }

    /// Whether a call to this endpoint of an account waits.
    pub(super) fn waits_for(&self, at: usize, endpoint: &str) -> bool {
        let mut waiting = self.waiting.iter();
        waiting.any(|it| usize::from(it.target.0) == at && *it.endpoint == *endpoint)
    }
}

impl<T> Shard<T> {
    /// Asks an account for something as soon as its limits and its gate allow.
    pub(super) fn fetch(
        &mut self,
        account: &str,
        (list, endpoint): (ListUse, Arc<str>),
        request: Request,
        ticket: T,
    ) {
        let target = self.account(account);
        let known = self.accounts[usize::from(target.0)].plan.is_some();
        if self.fenced || !known || self.fetches.waiting.len() >= WAITING_MAX {
            return self.refuse_fetch(ticket, "the account cannot be asked now".to_owned());
        }
        self.fetches.waiting.push_back(Fetch {
            target,
            list,
            endpoint,
            request,
            ticket,
            again: false,
        });
    }

    fn refuse_fetch(&mut self, ticket: T, detail: String) {
        let cause = NotSent::Connect;
        let result = Err(SendFailure::BeforeSent { cause, detail });
        self.effects
            .push_unconditional(Output::Fetched { ticket, result });
    }

    /// Starts what waits and may go. What asks an endpoint that is held does not wait: whoever asks
    /// has others to ask, and comes again. When the hold is over it may be the probe.
    ///
    /// Of accounts whose turn it is: where permits are few, fetches and records take them in turns, or
    /// lists that are asked for without a pause would starve the records.
    pub(super) fn start_fetches(
        &mut self,
        now: Now,
        journal: &impl Journal,
        has_turn: impl Fn(&Account) -> bool,
    ) {
        for _ in 0..self.fetches.waiting.len() {
            let Some(fetch) = self.fetches.waiting.pop_front() else {
                return;
            };
            let at = usize::from(fetch.target.0);
            if !has_turn(&self.accounts[at]) {
                self.fetches.waiting.push_back(fetch);
                continue;
            }
            let way = self.accounts[at].endpoints.way(&fetch.endpoint);
            if let Way::Held(number) = way {
                if self.accounts[at].endpoints.is_held_beyond(number, now.mono) {
                    let detail = format!("the endpoint `{}` is held", fetch.endpoint);
                    self.refuse_fetch(fetch.ticket, detail);
                } else {
                    self.fetches.waiting.push_back(fetch);
                }
                continue;
            }
            let account = &self.accounts[at];
            let class = account.class_of_list(fetch.request.kind, fetch.list);
            let callable = account.plan.clone().zip(account.id);
            let callable = callable.filter(|_| !account.paused);
            let paid = callable.and_then(|(plan, id)| {
                let permit = self.holdings.try_spend(now.mono, id, class);
                Some((plan, permit.ok()?))
            });
            let Some((plan, permit)) = paid else {
                self.fetches.waiting.push_back(fetch);
                continue;
            };
            let needs = if permit.is_leased() {
                journal.end()
            } else {
                journal.durable()
            };
            if let Way::Probe(number) = way {
                self.accounts[at].endpoints.probing(number);
            }
            self.accounts[at].records_next = true;
            let request = fetch.request.clone();
            let call = self.calls.insert(OpenCall {
                items: Vec::new(),
                group: None,
                target: fetch.target,
                permit,
                class,
                attempts: Attempts::default(),
                endpoint: Some(Arc::clone(&fetch.endpoint)),
                probes: matches!(way, Way::Probe(_)),
                started: now.mono,
            });
            self.fetches.open.insert(call, fetch);
            let output = Output::Call {
                call,
                plan,
                request,
            };
            self.effects.push(needs, output);
        }
    }

    /// A fetch that did not leave after all waits again.
    pub(super) fn take_fetch_back(&mut self, call: CallId) {
        if let Some(fetch) = self.fetches.open.remove(&call) {
            self.fetches.waiting.push_front(fetch);
        }
    }

    /// Ends a fetch. Its account hears of it as of any call.
    pub(super) fn settle_fetch(
        &mut self,
        now: Now,
        id: CallId,
        call: OpenCall,
        result: &Result<Reply, SendFailure>,
        ended_at: Mono,
    ) {
        let at = usize::from(call.target.0);
        let plan = self.accounts[at].plan.clone();
        let kind = self.fetches.open.get(&id).map(|it| it.request.kind);
        let kind = kind.unwrap_or(CallKind::Read);
        let verdict = plan.as_ref().map(|plan| match result {
            Ok(reply) if plan.definition.operation(CallKind::Read).is_some() => {
                let read = CallKind::Read;
                plan.definition.classify(read, "", reply, timestamp(now))
            }
            Ok(_) => Verdict::Absent,
            Err(failure) => failure.verdict(),
        });
        let again = self.fetches.open.get(&id).is_some_and(|it| it.again);
        let end = end_of(result, ended_at, verdict.as_ref(), now);
        let end = judged_by_next(end, result, again);
        let end = self.judge_endpoint(at, call.probes, end, |_| {
            call.endpoint.as_deref().map(str::to_owned)
        });
        self.holdings.complete(call.permit, end);
        if let (Some(plan), Some(verdict)) = (plan, verdict) {
            if let Ok(reply) = result {
                self.hear_limits(now, at, &plan, kind, reply, (call.started, ended_at));
            }
            self.observe(Observation::Call {
                account: plan.name.clone(),
                class: class_of(&verdict),
                records: 0,
                took: ended_at.saturating_since(call.started),
            });
        }
        if let Some(mut fetch) = self.fetches.open.remove(&id) {
            if matches!(result, Err(SendFailure::TokenRefused)) && !fetch.again {
                fetch.again = true;
                return self.fetches.waiting.push_front(fetch);
            }
            self.effects.push_unconditional(Output::Fetched {
                ticket: fetch.ticket,
                result: result.clone(),
            });
        }
    }

    /// Fetches of an account that wait for permits of a class.
    pub(super) fn fetches_of(&self, at: usize, class: CostClass) -> usize {
        let account = &self.accounts[at];
        let waiting = self.fetches.waiting_of(at);
        waiting
            .filter(|it| account.class_of_list(it.request.kind, it.list) == class)
            .count()
    }
}
