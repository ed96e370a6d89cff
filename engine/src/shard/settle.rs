//! Ending calls: the outcome goes to the log, the record moves on.

use super::calls::OpenCall;
use super::item::{Item, clipped};
use super::{AccountPlan, CallId, Observation, Shard};
use crate::decide::{Outcome, class_of, conclude, tells_the_id};
use crate::event::Operation;
use crate::journal::Journal;
use crate::json::RawObject;
use crate::operation_slab::OpState;
use crate::provider::{
    BatchGroup, BatchItemRef, BatchVerdict, CallKind, PauseScope, Reply, RetryAfter, SendFailure,
    Verdict,
};
use crate::quota::{self, CallEnd, Ended, Trouble};
use crate::record::Attempt;
use crate::state::{CallClass, State};
use crate::time::{Mono, Now, WallMs};

impl<T> Shard<T> {
    pub(super) fn settle(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        call: CallId,
        result: &Result<Reply, SendFailure>,
        ended_at: Mono,
    ) {
        let id = call;
        let Some(call) = self.calls.remove(id) else {
            return;
        };
        if call.items.is_empty() {
            return self.settle_fetch(now, id, call, result, ended_at);
        }
        let OpenCall {
            mut items,
            group,
            target,
            permit,
            class,
            attempts: _,
            endpoint: _,
            probes,
            started,
        } = call;
        let open_for = now.mono.saturating_since(started).as_millis() as i64;
        for item in &mut items {
            item.asked_at_ms = now.wall.0.saturating_sub(open_for);
        }
        let at = usize::from(target.0);
        let probe = permit.is_probe() || probes;
        let plan = self.accounts[at].plan.clone();
        let judged = plan.map(|plan| {
            let verdict = verdict_of(&plan, group, &items, result, now);
            (plan, verdict)
        });
        let mut parts = judged
            .as_ref()
            .and_then(|(plan, _)| parts_of(plan, group, &items, result));
        let of_account = judged
            .as_ref()
            .and_then(|(_, verdict)| verdict.of_account(parts.as_ref()));
        let end = end_of(result, ended_at, of_account, now);
        let again = items.iter().any(Item::met_a_refused_token);
        let end = judged_by_next(end, result, again);
        let end = self.judge_endpoint(at, probes, end, |shard| {
            shard.endpoint_of(at, &items, group.is_none())
        });
        self.holdings.complete(permit, end);
        if let (Some((plan, _)), Ok(reply)) = (&judged, result) {
            let kind = items[0].kind.expect("an item in a call has a kind");
            self.hear_limits(now, at, plan, kind, reply, (started, ended_at));
        }
        let Some((plan, verdict)) = judged else {
            // Its account was removed meanwhile; with the account it comes back.
            return items.iter().for_each(|item| self.pause_unlogged(item));
        };
        self.observe(Observation::Call {
            account: plan.name.clone(),
            class: verdict.class(),
            records: items.len(),
            took: ended_at.saturating_since(started),
        });
        match verdict {
            // What failed together comes back together: one by one, each would be a call of its
            // own. So the dice fall once a call, and for all of its records alike.
            BatchVerdict::Whole(verdict) => {
                for item in items {
                    self.settle_item(now, journal, probe, &plan, item, &verdict, result);
                }
            }
            BatchVerdict::Items(verdicts) => {
                let untold = Verdict::Unknown {
                    detail: "the reply does not tell of this record".to_owned(),
                };
                let mut alone = Vec::new();
                for (at, item) in items.into_iter().enumerate() {
                    let verdict = verdicts.get(at).unwrap_or(&untold);
                    match &mut parts {
                        None => self.settle_item(now, journal, probe, &plan, item, verdict, result),
                        Some(parts) if parts.is_untold(at, verdict) => alone.push(item.op),
                        Some(parts) => {
                            let part = parts.take(at);
                            let part = part.as_ref().unwrap_or(result);
                            self.settle_item(now, journal, probe, &plan, item, verdict, part);
                        }
                    }
                }
                self.ask_alone(at, class, alone);
            }
            BatchVerdict::Split { detail } => {
                self.halve(at, class, &items);
                let status = result.as_ref().map_or(0, |reply| reply.status);
                self.answer_intents(now, journal, &plan.name, items, (status, &detail));
            }
        }
        self.dice.roll();
    }

    /// Takes in what a reply says of its account's limits.
    pub(super) fn hear_limits(
        &mut self,
        now: Now,
        at: usize,
        plan: &AccountPlan,
        kind: CallKind,
        reply: &Reply,
        (sent_at, answered_at): (Mono, Mono),
    ) {
        let id = self.accounts[at].id;
        let Some(id) = id.filter(|id| !self.holdings.is_unlimited(*id)) else {
            return;
        };
        let readings = plan.definition.observe(kind, reply, timestamp(now));
        if readings.is_empty() {
            return;
        }
        let server_time = reply
            .server_time()
            .map(|time| WallMs(time.as_millisecond()));
        for reading in readings {
            let word = quota::Observation {
                server_time,
                ..quota::Observation::of(&reading, sent_at, answered_at)
            };
            self.holdings.observed(id, word);
        }
    }

    /// Logs what became of one record of a call.
    #[expect(
        clippy::too_many_arguments,
        reason = "one outcome, taken apart by its only caller"
    )]
    fn settle_item(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        probe: bool,
        plan: &AccountPlan,
        mut item: Item,
        verdict: &Verdict,
        result: &Result<Reply, SendFailure>,
    ) {
        if !self.refresh(journal, &mut item) {
            return self.pause_unlogged(&item);
        }
        let marked = shown_as_deleted(plan, &item, verdict, result);
        let verdict = marked.as_ref().unwrap_or(verdict);
        let keys = plan.key_support(item.object());
        let target = item.states[0].target_mut(&plan.name);
        let tells = tells_the_id(item.operation, &target.link, keys);
        if let Some(remote_id) = item
            .remote_id
            .as_deref()
            .filter(|_| tells && item.progress.resume.is_normal())
        {
            target.adopt(remote_id);
        }
        let outcome = Outcome {
            operation: item.operation,
            changed_at_ms: item.lead.changed_at_ms,
            kind: item.kind.expect("an item in a call has a kind"),
            verdict,
            now_ms: now.wall.0,
            retry: &plan.retry,
            settle: plan.settle,
            keys,
            probe,
            from_before: item.oldest < self.born,
        };
        let mut dice = self.dice.clone();
        conclude(&outcome, &mut target.link, &mut item.progress, &mut dice);
        let whose = self.index.slab[item.op].target();
        self.judge_object(now, whose, &mut item, verdict);
        if item.operation == Operation::Read && item.progress.state == State::Synced {
            let reply = result.as_ref().ok();
            item.progress.result = reply
                .map(|reply| plan.read_result(item.object(), &reply.body))
                .unwrap_or_default();
        }
        let (status, detail) = words(verdict, result);
        item.progress.push_attempt(Attempt {
            at_ms: now.wall.0,
            status,
            class: class_of(verdict),
            detail: clipped(detail),
        });
        let waits = self.conclude_two_way(now, journal, plan, &mut item, verdict, result);
        if waits || self.fenced {
            return;
        }
        self.log_item(now, journal, &plan.name, item, String::new());
    }

    /// A refused batch wrote nothing. Its creates are told so, or each would be looked up for its
    /// intent, and given time to settle, before it is made again.
    fn answer_intents(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        items: Vec<Item>,
        (status, detail): (u16, &str),
    ) {
        for mut item in items {
            let creates = item.kind == Some(CallKind::Create);
            if !creates || self.fenced || !self.refresh(journal, &mut item) {
                continue;
            }
            let op = item.op;
            item.progress.state = State::Queued;
            item.progress.reason = None;
            item.progress.due_ms = 0;
            item.progress.updated_at_ms = now.wall.0;
            item.progress.push_attempt(Attempt {
                at_ms: now.wall.0,
                status,
                // It was in the way of others, not refused itself.
                class: CallClass::Contention,
                detail: clipped(detail.to_owned()),
            });
            self.log_item(now, journal, account, item, String::new());
            // It stays with its half, which goes next.
            self.index.unschedule(op);
            self.index.slab[op].set_state(OpState::InFlight);
        }
    }
}

/// How a call ended, for its account.
pub(super) fn end_of(
    result: &Result<Reply, SendFailure>,
    ended_at: Mono,
    verdict: Option<&Verdict>,
    now: Now,
) -> CallEnd {
    let answered = !matches!(result, Err(SendFailure::AfterSent { .. }));
    let trouble = verdict.and_then(|verdict| trouble(verdict, now));
    CallEnd {
        at: ended_at,
        ended: if answered {
            Ended::Answered
        } else {
            Ended::Unanswered
        },
        verdict: trouble.map_or(quota::Verdict::Healthy, quota::Verdict::Trouble),
    }
}

/// A token that was refused for its age says nothing of the account: the same call with the next one
/// does, unless that is what this one was.
pub(super) fn judged_by_next(
    end: CallEnd,
    result: &Result<Reply, SendFailure>,
    again: bool,
) -> CallEnd {
    let verdict = match result {
        Err(SendFailure::TokenRefused) if !again => quota::Verdict::Silent,
        _ => end.verdict,
    };
    CallEnd { verdict, ..end }
}

/// What a call came to, for each of its records.
fn verdict_of(
    plan: &AccountPlan,
    group: Option<BatchGroup>,
    items: &[Item],
    result: &Result<Reply, SendFailure>,
    now: Now,
) -> BatchVerdict {
    let kind = |item: &Item| item.kind.expect("an item in a call has a kind");
    match (result, group) {
        (Err(failure), _) => BatchVerdict::Whole(failure.verdict()),
        (Ok(reply), Some(group)) => {
            let refs = references(plan, items);
            plan.definition
                .classify_batch(group, &refs, reply, timestamp(now))
        }
        (Ok(reply), None) => {
            let item = &items[0];
            let verdict =
                plan.definition
                    .classify(kind(item), item.record_id(), reply, timestamp(now));
            BatchVerdict::Whole(verdict)
        }
    }
}

/// What a read comes to that shows its record marked as deleted: what the account has is gone.
fn shown_as_deleted(
    plan: &AccountPlan,
    item: &Item,
    verdict: &Verdict,
    result: &Result<Reply, SendFailure>,
) -> Option<Verdict> {
    let mark = plan.deletion_mark(item.object())?;
    let read = item.kind == Some(CallKind::Read) && matches!(verdict, Verdict::Done { .. });
    let reply = result.as_ref().ok().filter(|_| read)?;
    let (record, _) = plan.definition.record_in(&reply.body)?;
    mark.stands_in(RawObject::new(record)?)
        .then(|| Verdict::Gone {
            detail: "it is marked as deleted".to_owned(),
        })
}

fn references<'i>(plan: &AccountPlan, items: &'i [Item]) -> Vec<BatchItemRef<'i>> {
    let reference = |item: &'i Item| BatchItemRef {
        kind: item.kind.expect("an item in a call has a kind"),
        record_id: item.record_id(),
        remote_id: item.states[0]
            .target(&plan.name)
            .and_then(|target| target.link.remote_id()),
    };
    items.iter().map(reference).collect()
}

/// What a call of several reads showed, record by record.
struct Parts {
    of: Vec<Option<Result<Reply, SendFailure>>>,
}

impl Parts {
    /// Whether nothing was said of a record that others were told of: by itself it may be, under
    /// whatever id it goes by now.
    fn is_untold(&self, at: usize, verdict: &Verdict) -> bool {
        let unknown = matches!(verdict, Verdict::Unknown { .. });
        unknown && self.of.len() > 1 && self.of.get(at).is_some_and(Option::is_none)
    }

    fn take(&mut self, at: usize) -> Option<Result<Reply, SendFailure>> {
        self.of[at].take()
    }
}

/// `None`: not a call of reads, or one that was not answered; each record has all of it.
fn parts_of(
    plan: &AccountPlan,
    group: Option<BatchGroup>,
    items: &[Item],
    result: &Result<Reply, SendFailure>,
) -> Option<Parts> {
    let reads = items.iter().all(|item| item.kind == Some(CallKind::Read));
    let (group, reply) = group.zip(result.as_ref().ok()).filter(|_| reads)?;
    let parts = plan
        .definition
        .batch_parts(group, &references(plan, items), reply);
    let of = parts.into_iter().map(|part| part.map(Ok)).collect();
    Some(Parts { of })
}

impl BatchVerdict {
    /// What the call counts under; a call whose records fared differently was answered.
    fn class(&self) -> CallClass {
        match self {
            Self::Whole(verdict) => class_of(verdict),
            Self::Items(_) => CallClass::Done,
            Self::Split { .. } => CallClass::Permanent,
        }
    }

    /// The verdict that may say something of the account: also what one record of many was told,
    /// since all of them would have been.
    fn of_account(&self, parts: Option<&Parts>) -> Option<&Verdict> {
        match self {
            Self::Whole(verdict) => Some(verdict),
            Self::Items(verdicts) => {
                let is_told = |at: usize, verdict: &Verdict| {
                    parts.is_none_or(|parts| !parts.is_untold(at, verdict))
                };
                let says = |verdict: &Verdict| {
                    verdict.says_nothing_about_record() && !verdict.is_of_object()
                };
                let mut verdicts = verdicts.iter().enumerate();
                verdicts
                    .find(|(at, verdict)| says(verdict) && is_told(*at, verdict))
                    .map(|(_, verdict)| verdict)
            }
            Self::Split { .. } => None,
        }
    }
}

/// What a verdict says about the account rather than the record.
fn trouble(verdict: &Verdict, now: Now) -> Option<Trouble> {
    match verdict {
        Verdict::Throttled { retry_after, .. } => {
            let until = until(*retry_after, now);
            Some(Trouble::Throttled { until })
        }
        Verdict::Maintenance { retry_after, .. } => {
            let until = until(*retry_after, now);
            Some(Trouble::Maintenance { until })
        }
        Verdict::QuotaExhausted { retry_after, .. } => {
            let until = until(*retry_after, now);
            Some(Trouble::QuotaSpent { until })
        }
        // The account waits for a person, and is asked now and then whether one has come.
        Verdict::Unauthorized { .. }
        | Verdict::Permission {
            pause: PauseScope::Account,
            ..
        } => Some(Trouble::Unauthorized),
        Verdict::Unreachable { .. } => Some(Trouble::Unreachable),
        Verdict::Transient { .. } | Verdict::Unknown { .. } => Some(Trouble::Failing),
        Verdict::Done { .. }
        | Verdict::Found { .. }
        | Verdict::Absent
        | Verdict::Gone { .. }
        | Verdict::Duplicate { .. }
        | Verdict::Conflict { .. }
        | Verdict::Contention { .. }
        | Verdict::Ambiguous { .. }
        | Verdict::Permission {
            pause: PauseScope::Object,
            ..
        }
        | Verdict::Permanent { .. } => None,
    }
}

fn until(retry_after: RetryAfter, now: Now) -> Option<Mono> {
    match retry_after {
        RetryAfter::Wait(wait) => Some(now.mono.saturating_add(wait)),
        RetryAfter::BackOff => None,
    }
}

pub(super) fn timestamp(now: Now) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(now.wall.0).unwrap_or(jiff::Timestamp::MAX)
}

fn words(verdict: &Verdict, result: &Result<Reply, SendFailure>) -> (u16, String) {
    let status = result.as_ref().map_or(0, |reply| reply.status);
    let detail = verdict.detail().map(str::to_owned);
    (
        status,
        detail.unwrap_or_else(|| {
            result
                .as_ref()
                .err()
                .map(ToString::to_string)
                .unwrap_or_default()
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> Verdict {
        Verdict::Throttled {
            retry_after: RetryAfter::BackOff,
            limit: None,
            detail: String::new(),
        }
    }

    fn permission(pause: PauseScope) -> Verdict {
        Verdict::Permission {
            pause,
            detail: String::new(),
        }
    }

    #[test]
    fn what_one_record_of_a_batch_is_told_of_the_account_is_said_of_the_account() {
        let items = BatchVerdict::Items(vec![Verdict::Absent, throttled()]);
        assert_eq!(items.of_account(None), Some(&throttled()));
        let account = permission(PauseScope::Account);
        let items = BatchVerdict::Items(vec![permission(PauseScope::Object), account.clone()]);
        assert_eq!(items.of_account(None), Some(&account));
    }

    #[test]
    fn what_a_record_is_told_of_itself_or_its_object_leaves_the_account_alone() {
        let failed = Verdict::Transient {
            detail: String::new(),
        };
        let object = permission(PauseScope::Object);
        let items = BatchVerdict::Items(vec![failed, object.clone(), Verdict::Absent]);
        assert_eq!(items.of_account(None), None);
        let now = Now {
            mono: Mono(0),
            wall: crate::time::WallMs(0),
        };
        assert_eq!(trouble(&object, now), None);
    }
}
