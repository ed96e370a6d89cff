//! Calls on the network: there, back, or lost.

use engine::provider::{
    BodyEnd, CallKind, NoReply, NotSent, Reply, ReplyHeaders, Request, SendFailure,
};
use engine::quota::AccountId;
use engine::shard::CallId;
use engine::time::Mono;
use mock::Answer;

use super::planted::planted_reply;
use super::{Due, MS, US, World};
use crate::sim::leases::Ledger;
use crate::sim::marks::{Mark, Marks};
use crate::sim::mutants::Mutant;
use crate::sim::node::Letter;
use crate::sim::oracle::{Carried, is_list};
use crate::sim::provider::Provider;
use crate::sim::trouble::Troubles;

/// Times that a planted bug sends a call again.
const REPEATS_MAX: u32 = 6;

/// One call between the shard and its end.
#[derive(Debug)]
pub(super) struct Call {
    life: u64,
    shard: usize,
    id: CallId,
    provider: usize,
    request: Request,
    carried: Vec<Carried>,
    started: Mono,
    /// Open at the provider.
    open: Option<mock::CallId>,
    arrived: bool,
    lost: bool,
    ended: bool,
    /// Times that a planted bug sent it again.
    repeats: u32,
}

impl Call {
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// Whether a request reads one record.
fn is_read_of_record(request: &Request) -> bool {
    request.kind == CallKind::Read && !is_list(request)
}

/// How a call ends for the engine.
#[derive(Debug)]
pub(super) enum CallEnd {
    Reply(Reply),
    Refused,
    Reset,
    TimedOut,
}

impl World {
    /// A shard lets a call out.
    pub(super) fn call_leaves(
        &mut self,
        shard: usize,
        id: CallId,
        account: &str,
        request: Request,
    ) {
        let checked = self.troubles.call_leaves(self.now_ns(), account, &request);
        self.oracle.note(checked);
        let request = self.planted(shard, account, request);
        let provider = self
            .providers
            .iter()
            .position(|provider| provider.options.name == account);
        let provider = provider.expect("every plan has its provider");
        self.check_permit(shard, provider);
        let again = self.oracle.was_attempted(account, &request);
        self.check_share(shard, id, provider, again);
        let carried = self
            .oracle
            .call_leaves(shard, account, &request, &mut self.marks);
        if self.print {
            let body = String::from_utf8_lossy(&request.body);
            let text = format!(
                "call {} {} {} {body}",
                request.kind, request.path_and_query, request.request_id
            );
            self.say(&text);
        }
        let faults = if self.healed {
            crate::sim::options::Faults::default()
        } else {
            self.options.faults.clone()
        };
        let started = self.clock.now().mono;
        let call = self.calls.len();
        let lost = self.net_dice.chance(faults.lost_requests);
        self.calls.push(Call {
            life: self.life,
            shard,
            id,
            provider,
            request,
            carried,
            started,
            open: None,
            arrived: false,
            lost,
            ended: false,
            repeats: 0,
        });
        let mut timeout = self.providers[provider].options.timeout.as_nanos() as u64;
        if self.options.mutant == Some(Mutant::OverlappingRetry) {
            timeout /= 20;
        }
        if self.net_dice.chance(faults.refused) {
            self.calls[call].lost = true;
            let delay = self.net_dice.between(100 * US, 20 * MS);
            self.after(
                delay,
                Due::CallEnds {
                    call,
                    end: CallEnd::Refused,
                },
            );
            return;
        }
        self.after(
            timeout,
            Due::CallEnds {
                call,
                end: CallEnd::TimedOut,
            },
        );
        if !lost {
            let delay = self.net_dice.skewed(50 * US, 5 * MS);
            self.after(delay, Due::CallArrives { call });
        }
    }

    pub(super) fn call_arrives(&mut self, at: usize) {
        let call = &mut self.calls[at];
        if call.lost || call.arrived {
            return;
        }
        call.arrived = true;
        let provider = &mut self.providers[call.provider];
        let now = self.clock.of_provider(provider.options.skew_ppm);
        let arrival = provider.arrive(now, &call.request, &call.carried);
        let checked = provider.check();
        let (of, writes) = (call.provider, call.request.kind.is_write());
        call.open = Some(arrival.call);
        if call.ended && self.options.mutant != Some(Mutant::OverlappingRetry) {
            provider.account.abandon(now, arrival.call);
            call.open = None;
        }
        let delay = arrival.answer_at.saturating_sub(now).as_nanos() as u64;
        self.oracle.note(checked);
        if writes {
            self.call_changed(of);
        }
        self.after(delay, Due::CallAnswered { call: at });
    }

    pub(super) fn call_answered(&mut self, at: usize) {
        let call = &mut self.calls[at];
        let Some(open) = call.open.take() else { return };
        let provider = &mut self.providers[call.provider];
        let now = self.clock.of_provider(provider.options.skew_ppm);
        let answer = provider.finish(now, open);
        let listed = self
            .sides
            .get(call.provider)
            .filter(|_| is_list(&call.request));
        let listed = listed.map(|side| side.list(&call.request.path_and_query, self.clock.true_ns));
        if call.ended || (self.net_dice.chance(self.options.faults.lost_answers) && !self.healed) {
            return;
        }
        let end = match answer {
            Answer::Reset => CallEnd::Reset,
            // The model has no such list; what it would refuse otherwise stays refused.
            Answer::Reply(mock::Reply { status: 404, .. }) if listed.is_some() => {
                CallEnd::Reply(listed.expect("it was just seen"))
            }
            Answer::Reply(reply) => CallEnd::Reply(Reply {
                status: reply.status,
                retry_after: reply.retry_after_s.map(|seconds| seconds.to_string()),
                date: None,
                headers: ReplyHeaders::default(),
                body: reply.body,
                body_end: BodyEnd::Complete,
            }),
        };
        let delay = self.net_dice.skewed(50 * US, 5 * MS);
        self.after(delay, Due::CallEnds { call: at, end });
    }

    /// A call may have written at a provider.
    fn call_changed(&mut self, provider: usize) {
        if self.options.two_way.is_none() {
            return;
        }
        if self.options.accounts[provider].system_a {
            self.system_a_was_told();
        } else {
            self.side_changed(provider, true);
        }
    }

    pub(super) fn call_ends(&mut self, at: usize, end: CallEnd) {
        if self.calls[at].ended || self.sent_again(at, &end) {
            return;
        }
        let call = &mut self.calls[at];
        call.ended = true;
        let name = &self.options.accounts[call.provider].name;
        self.troubles.call_is_over(name, &call.request);
        let provider = &mut self.providers[call.provider];
        if let Some(open) = call.open
            && self.options.mutant != Some(Mutant::OverlappingRetry)
        {
            call.open = None;
            let now = self.clock.of_provider(provider.options.skew_ppm);
            provider.account.abandon(now, open);
        }
        let after_sent = |cause| {
            Err(SendFailure::AfterSent {
                cause,
                detail: "simulated".to_owned(),
            })
        };
        let before_sent = || {
            Err(SendFailure::BeforeSent {
                cause: NotSent::Connect,
                detail: "simulated".to_owned(),
            })
        };
        let mut result = match end {
            CallEnd::Reply(reply) => {
                if reply.status == 429 {
                    self.marks.hit(Mark::Throttled);
                }
                self.oracle
                    .told(&call.carried, &call.request, &reply, &mut self.marks);
                if is_read_of_record(&call.request) {
                    let name = &self.providers[call.provider].options.name;
                    let path = call.request.path_and_query.split('?').next();
                    let mut parts = path.unwrap_or_default().split('/').skip(1);
                    if let (Some(object), Some(remote_id)) = (parts.next(), parts.next()) {
                        let shown = serde_json::from_slice(&reply.body).unwrap_or_default();
                        if reply.status == 404 || self.oracle.is_marked(name, object, &shown) {
                            self.oracle.ledger.hear(name, object, remote_id, true);
                        }
                    }
                }
                let mutant = self.options.mutant;
                let mut reply = planted_reply(mutant, &call.request, &call.carried, reply);
                if mutant == Some(Mutant::StaleReads) && is_read_of_record(&call.request) {
                    let path = (call.provider, call.request.path_and_query.clone());
                    reply = self.first_reads.entry(path).or_insert(reply).clone();
                }
                Ok(reply)
            }
            CallEnd::Refused => before_sent(),
            CallEnd::Reset => after_sent(NoReply::Closed),
            CallEnd::TimedOut => {
                self.marks.hit(Mark::TimedOut);
                after_sent(NoReply::Deadline)
            }
        };
        if self.options.mutant == Some(Mutant::BlindCreateRetry)
            && call.request.kind == CallKind::Create
            && result.as_ref().map_or(true, |reply| reply.status >= 500)
        {
            result = before_sent();
        }
        let ended_at = if self.options.mutant == Some(Mutant::EarlyCompletion) {
            call.started
        } else {
            self.clock.now().mono
        };
        let (life, shard, mut id) = (call.life, call.shard, call.id);
        if self.options.mutant == Some(Mutant::SwappedReplies) {
            id = self.swapped(at, id);
        }
        if self.print {
            let text = format!(
                "ends {id:?} {}",
                match &result {
                    Ok(reply) => reply.status.to_string(),
                    Err(failure) => failure.to_string(),
                }
            );
            self.say(&text);
        }
        let delay = self.net_dice.between(US, 100 * US);
        self.after(
            delay,
            Due::Deliver {
                life,
                shard,
                letter: Letter::Reply {
                    call: id,
                    result,
                    ended_at,
                },
            },
        );
    }

    /// The planted bugs that send calls again beneath the shards, where no limit would tell of it.
    fn sent_again(&mut self, at: usize, end: &CallEnd) -> bool {
        let failed = matches!(end, CallEnd::Reply(reply) if reply.status >= 500);
        let call = &mut self.calls[at];
        let unlimited = !self.providers[call.provider].options.has_windows();
        let again = match self.options.mutant {
            Some(Mutant::RetriesBelow) => true,
            Some(Mutant::RetriesTakeAll) => call.request.kind != CallKind::Create,
            _ => false,
        };
        if !again || !failed || !unlimited || call.repeats >= REPEATS_MAX {
            return false;
        }
        (call.repeats, call.arrived) = (call.repeats + 1, false);
        let (shard, provider) = (call.shard, call.provider);
        if call.life == self.life {
            self.check_share_below(shard, provider);
        }
        self.after(MS, Due::CallArrives { call: at });
        true
    }

    /// A call leaves, paid by a lease of its shard.
    fn check_permit(&mut self, shard: usize, provider: usize) {
        let mono = self.clock.now().mono.0;
        let options = &self.options.accounts[provider];
        let paid = self.leases.call_leaves(mono, shard, provider, options);
        self.oracle.note(paid);
    }

    /// Another open call of the same shard; the two change places.
    fn swapped(&mut self, at: usize, id: CallId) -> CallId {
        let (life, shard) = (self.calls[at].life, self.calls[at].shard);
        let other = self
            .calls
            .iter_mut()
            .find(|call| call.life == life && call.shard == shard && !call.ended);
        match other {
            Some(other) => std::mem::replace(&mut other.id, id),
            None => id,
        }
    }

    /// A shard takes in how a call ended: what an engine with a planted bug would understand.
    pub(super) fn taken_in(
        calls: &[Call],
        (life, shard, id): (u64, usize, CallId),
        (troubles, leases, marks): (&mut Troubles, &mut Ledger, &mut Marks),
        (now, providers, mutant): (u64, &[Provider], Option<Mutant>),
        mut result: Result<Reply, SendFailure>,
    ) -> Result<Reply, SendFailure> {
        let mut calls = calls.iter().rev();
        let own = |call: &&Call| call.life == life && call.shard == shard && call.id == id;
        if let Some(call) = calls.find(own) {
            let account = &providers[call.provider].options.name;
            let account = (AccountId(call.provider as u32), account.as_str());
            troubles.call_ended(now, account, &call.request, &result, marks);
            leases.call_ended(call.provider);
        }
        if let (Some(Mutant::RetryAfterLost), Ok(reply)) = (mutant, &mut result) {
            reply.retry_after = None;
        }
        result
    }

    /// What the call carried that the engine was told the end of.
    pub(super) fn carried_by(&self, shard: usize, id: CallId) -> Option<Vec<Carried>> {
        let mut calls = self.calls.iter().rev();
        let call =
            calls.find(|call| call.life == self.life && call.shard == shard && call.id == id)?;
        Some(call.carried.clone())
    }

    /// The engine died: what is on the wire arrives now or never, and nobody waits for answers.
    pub(super) fn calls_die(&mut self) {
        let mut changed = Vec::new();
        for call in &mut self.calls {
            let provider = &mut self.providers[call.provider];
            let now = self.clock.of_provider(provider.options.skew_ppm);
            if !call.ended && !call.arrived && !call.lost {
                call.arrived = true;
                if self.net_dice.chance(500) {
                    let arrival = provider.arrive(now, &call.request, &call.carried);
                    provider.account.abandon(now, arrival.call);
                    changed.push(call.provider);
                }
            }
            call.ended = true;
            if let Some(open) = call.open.take() {
                provider.account.abandon(now, open);
            }
        }
        for provider in changed {
            self.call_changed(provider);
        }
    }
}
