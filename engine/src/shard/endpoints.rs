//! Endpoints of an account that fail: what goes to one of them waits aside, all else goes on.
//!
//! The breaker of each is with the coordinator, which tells of those endpoints that are not well.
//! Of the others nothing is kept, and a call to them costs nothing more.

use std::borrow::Cow;
use std::sync::Arc;

use super::calls::OpenCall;
use super::item::Item;
use super::two_way::Role;
use super::{AccountPlan, Output, Shard};
use crate::operation_slab::{OpIndex, OpState};
use crate::provider::CallKind;
use crate::quota::{
    self, AccountId, CallEnd, ENDPOINTS_MAX, EndpointWord, FromShard, Gate, Trouble,
};
use crate::time::Mono;

/// Operations taken back a turn when an endpoint is well again, so that a long list does not hold
/// the turn up.
const TAKEN_BACK_PER_TURN: usize = 4096;

/// Endpoints of an account that a shard keeps apart: those the coordinator does, and as many whose
/// operations have yet to be taken back.
const KEPT_MAX: usize = 2 * ENDPOINTS_MAX;

/// What a shard was told of one account's endpoints.
#[derive(Debug, Default)]
pub(super) struct Endpoints {
    /// By number, which is also that of the list of operations that wait for it.
    kept: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    /// `None`: the number is free.
    name: Option<Arc<str>>,
    gate: Gate,
    /// Whether the coordinator was asked for a probe since it told of the gate.
    asked: bool,
    /// The next success is to be told.
    success_wanted: bool,
    last_success: Option<Mono>,
    probe: Probe,
}

/// How far a probe has come, while the gate allows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// Any call may be it.
    Wanted,
    /// This operation was made ready for it; by its number, since it may be gone by now.
    Candidate { op: OpIndex, sequence_low: u32 },
    /// A call is under way, or the coordinator was told that there is none.
    Spent,
}

/// What an endpoint means for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// Nothing.
    Open,
    /// It waits aside, under this number.
    Held(usize),
    /// It goes alone, as the probe of the endpoint with this number.
    Probe(usize),
}

impl Endpoints {
    /// Nothing is known to fail.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// How an endpoint may be called.
    pub(super) fn way(&self, name: &str) -> Way {
        let Some(at) = self.find(name) else {
            return Way::Open;
        };
        match self.kept[at].gate {
            Gate::Open | Gate::Suspect => Way::Open,
            Gate::Probe if self.kept[at].probe != Probe::Spent => Way::Probe(at),
            Gate::Probe | Gate::Held { .. } => Way::Held(at),
        }
    }

    /// The name and gate of an endpoint by its number.
    pub(super) fn at(&self, number: usize) -> Option<(&Arc<str>, Gate)> {
        let endpoint = self.kept.get(number)?;
        Some((endpoint.name.as_ref()?, endpoint.gate))
    }

    /// Whether an endpoint is held for longer than until now.
    pub(super) fn is_held_beyond(&self, number: usize, now: Mono) -> bool {
        match self.kept[number].gate {
            Gate::Held { until, .. } => now < until,
            Gate::Open | Gate::Suspect | Gate::Probe => false,
        }
    }

    /// A probe has begun.
    pub(super) fn probing(&mut self, number: usize) {
        self.kept[number].probe = Probe::Spent;
    }

    /// A probe did not leave after all.
    pub(super) fn probe_taken_back(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.kept[at].probe = Probe::Wanted;
        }
    }

    /// What the coordinator says of an endpoint. Of more than are kept it is not heard: they are
    /// called, and their failures are told like others'.
    fn set_gate(&mut self, name: &Arc<str>, gate: Gate, is_free: impl Fn(usize) -> bool) {
        let free = |at: usize| self.kept[at].name.is_none() && is_free(at);
        let known = self.find(name);
        let at = match known.or_else(|| (0..self.kept.len()).find(|&at| free(at))) {
            Some(at) => at,
            None if gate == Gate::Open || self.kept.len() == KEPT_MAX => return,
            None => {
                self.kept.push(Endpoint::free());
                self.kept.len() - 1
            }
        };
        let endpoint = &mut self.kept[at];
        if endpoint.name.is_none() {
            *endpoint = Endpoint::free();
            endpoint.name = Some(Arc::clone(name));
        }
        endpoint.gate = gate;
        endpoint.asked = false;
        endpoint.success_wanted = gate == Gate::Suspect;
        endpoint.probe = Probe::Wanted;
    }

    fn find(&self, name: &str) -> Option<usize> {
        let mut kept = self.kept.iter();
        kept.position(|endpoint| endpoint.name.as_deref() == Some(name))
    }

    /// What there is to say of a call that went well or did not.
    fn word_of(&mut self, at: Mono, name: &str, failed: bool, probe: bool) -> Option<EndpointWord> {
        let mut known = self.find(name).map(|at| &mut self.kept[at]);
        if failed {
            let last_success = known.and_then(|known| known.last_success);
            return Some(EndpointWord::Failed {
                probe,
                last_success,
            });
        }
        let known = known.as_mut()?;
        known.last_success = Some(at);
        let wanted = probe || std::mem::take(&mut known.success_wanted);
        wanted.then_some(EndpointWord::Worked { probe })
    }
}

impl Endpoint {
    fn free() -> Self {
        Self {
            name: None,
            gate: Gate::Open,
            asked: false,
            success_wanted: false,
            last_success: None,
            probe: Probe::Wanted,
        }
    }
}

impl AccountPlan {
    /// What a call's endpoint is called; `None` where all calls go to the same one.
    pub(super) fn endpoint<'a>(
        &'a self,
        kind: CallKind,
        object: &'a str,
        alone: bool,
    ) -> Option<Cow<'a, str>> {
        if self.role == Role::SystemA {
            return None;
        }
        let remote = self.mappings.get(object).map(|mapping| mapping.remote());
        Some(
            self.definition
                .endpoint(kind, remote.unwrap_or(object), alone),
        )
    }
}

impl<T> Shard<T> {
    pub(super) fn on_endpoint(&mut self, account: AccountId, name: &Arc<str>, gate: Gate) {
        if let Some(at) = self.by_id(account) {
            let aside = &self.index.accounts[at].aside;
            let endpoints = &mut self.accounts[at].endpoints;
            endpoints.set_gate(name, gate, |number| aside.is_empty_at(number));
        }
    }

    /// The account is gone, and the coordinator's word of its endpoints with it.
    pub(super) fn forget_endpoints(&mut self, at: usize) {
        for endpoint in &mut self.accounts[at].endpoints.kept {
            endpoint.gate = Gate::Open;
        }
    }

    /// What the endpoint of a record's call means for it.
    pub(super) fn way_of(&self, at: usize, item: &Item, alone: bool) -> Way {
        let account = &self.accounts[at];
        let (Some(plan), Some(kind)) = (&account.plan, item.kind) else {
            return Way::Open;
        };
        if account.endpoints.is_empty() {
            return Way::Open;
        }
        let name = plan.endpoint(kind, item.object(), alone);
        name.map_or(Way::Open, |name| account.endpoints.way(&name))
    }

    /// What the endpoint of a call with these records is called.
    pub(super) fn endpoint_of(&self, at: usize, items: &[Item], alone: bool) -> Option<String> {
        let first = items.first()?;
        let plan = self.accounts[at].plan.as_ref()?;
        let name = plan.endpoint(first.kind?, first.object(), alone);
        name.map(Cow::into_owned)
    }

    /// Whether the endpoint of a call that waited for the disk lets it leave still.
    pub(super) fn endpoint_lets(&self, call: &OpenCall) -> bool {
        let at = usize::from(call.target.0);
        let endpoints = &self.accounts[at].endpoints;
        if call.probes || endpoints.is_empty() {
            return true;
        }
        match (&call.endpoint, call.items.first()) {
            (Some(name), _) => endpoints.way(name) == Way::Open,
            (None, Some(item)) => self.way_of(at, item, call.group.is_none()) == Way::Open,
            (None, None) => true,
        }
    }

    /// The probe of an endpoint did not leave after all.
    pub(super) fn probe_taken_back(&mut self, call: &OpenCall) {
        let at = usize::from(call.target.0);
        let of_fetch = call.endpoint.as_deref().map(str::to_owned);
        let name = of_fetch.or_else(|| self.endpoint_of(at, &call.items, call.group.is_none()));
        if let Some(name) = name {
            self.accounts[at].endpoints.probe_taken_back(&name);
        }
    }

    /// Takes back what waited for endpoints that are well, asks for probes whose time has come, and
    /// sees to it that a probe has something to carry.
    pub(super) fn tend_endpoints(&mut self, now: Mono) {
        for at in 0..self.accounts.len() {
            for number in 0..self.accounts[at].endpoints.kept.len() {
                self.tend_endpoint(now, at, number);
            }
            let kept = &self.accounts[at].endpoints.kept;
            if kept.iter().all(|endpoint| endpoint.name.is_none()) {
                self.accounts[at].endpoints.kept.clear();
            }
        }
    }

    fn tend_endpoint(&mut self, now: Mono, at: usize, number: usize) {
        let waits =
            !self.index.accounts[at].aside.is_empty_at(number) || self.is_asked_for(at, number);
        match self.accounts[at].endpoints.kept[number].gate {
            Gate::Open | Gate::Suspect => {
                let mut left = TAKEN_BACK_PER_TURN;
                while left > 0 && self.index.take_from_aside(at, number).is_some() {
                    left -= 1;
                }
                let endpoint = &mut self.accounts[at].endpoints.kept[number];
                if left > 0 && endpoint.gate == Gate::Open {
                    endpoint.name = None;
                }
            }
            Gate::Held { until, .. } => {
                let endpoint = &mut self.accounts[at].endpoints.kept[number];
                if waits && !endpoint.asked && until <= now {
                    endpoint.asked = true;
                    self.say_of_endpoint(at, number, EndpointWord::Asks);
                }
            }
            Gate::Probe => self.tend_probe(at, number),
        }
    }

    /// Whether a list is to be asked for at an endpoint.
    fn is_asked_for(&self, at: usize, number: usize) -> bool {
        let known = self.accounts[at].endpoints.at(number);
        known.is_some_and(|(name, _)| self.fetches.waits_for(at, name))
    }

    /// A probe is carried by the first that waits for it; one that ends another way, by the next.
    fn tend_probe(&mut self, at: usize, number: usize) {
        let still_ready = |op: OpIndex, sequence_low: u32| {
            let slab = &self.index.slab;
            slab.contains(op)
                && slab[op].sequence_low() == sequence_low
                && slab[op].state() == OpState::Ready
        };
        match self.accounts[at].endpoints.kept[number].probe {
            Probe::Spent => return,
            Probe::Candidate { op, sequence_low } if still_ready(op, sequence_low) => return,
            Probe::Candidate { .. } | Probe::Wanted => {}
        }
        let next = self.index.take_from_aside(at, number);
        let probe = match next {
            None if self.is_asked_for(at, number) => Probe::Wanted,
            Some(op) => {
                let sequence_low = self.index.slab[op].sequence_low();
                Probe::Candidate { op, sequence_low }
            }
            None => {
                self.say_of_endpoint(at, number, EndpointWord::ProbeUnused);
                Probe::Spent
            }
        };
        self.accounts[at].endpoints.kept[number].probe = probe;
    }

    /// Draws from a call's end what it says of its endpoint, and leaves what it says of the account.
    pub(super) fn judge_endpoint(
        &mut self,
        at: usize,
        probe: bool,
        end: CallEnd,
        name: impl FnOnce(&Self) -> Option<String>,
    ) -> CallEnd {
        use quota::Verdict::{Healthy, Silent, Trouble as Troubled};
        let failed = end.verdict == Troubled(Trouble::Failing);
        if !failed && self.accounts[at].endpoints.is_empty() {
            return end;
        }
        let Some(name) = name(self) else {
            return end;
        };
        let account = &mut self.accounts[at];
        let word = match end.verdict {
            Silent => probe.then_some(EndpointWord::ProbeUnused),
            Troubled(trouble) if trouble != Trouble::Failing => {
                probe.then_some(EndpointWord::ProbeUnused)
            }
            _ => account.endpoints.word_of(end.at, &name, failed, probe),
        };
        if let (Some(word), Some(account)) = (word, account.id) {
            let word = FromShard::Endpoint {
                account,
                endpoint: name.into(),
                word,
            };
            self.effects.push_unconditional(Output::Coordinator(word));
        }
        // An account that answers is there, whatever one of its endpoints says.
        let verdict = if failed { Healthy } else { end.verdict };
        CallEnd { verdict, ..end }
    }

    /// Whether what waited for an endpoint has yet to be taken back.
    pub(super) fn takes_back(&self) -> bool {
        let accounts = self.accounts.iter().zip(&self.index.accounts);
        accounts
            .filter(|(account, queue)| !account.endpoints.is_empty() && !queue.aside.is_empty())
            .any(|(account, queue)| {
                let mut kept = account.endpoints.kept.iter().enumerate();
                kept.any(|(number, endpoint)| {
                    let open = matches!(endpoint.gate, Gate::Open | Gate::Suspect);
                    open && !queue.aside.is_empty_at(number)
                })
            })
    }

    /// When a probe is to be asked for.
    pub(super) fn next_ask(&self) -> Option<Mono> {
        let accounts = self.accounts.iter().zip(&self.index.accounts);
        let due = accounts.flat_map(|(account, queue)| {
            let kept = account.endpoints.kept.iter().enumerate();
            kept.filter_map(|(number, endpoint)| match endpoint.gate {
                Gate::Held { until, .. } if !endpoint.asked => {
                    (!queue.aside.is_empty_at(number)).then_some(until)
                }
                _ => None,
            })
        });
        due.min()
    }

    fn say_of_endpoint(&mut self, at: usize, number: usize, word: EndpointWord) {
        let account = &self.accounts[at];
        if let (Some(account), Some((name, _))) = (account.id, account.endpoints.at(number)) {
            let word = FromShard::Endpoint {
                account,
                endpoint: Arc::clone(name),
                word,
            };
            self.effects.push_unconditional(Output::Coordinator(word));
        }
    }
}
