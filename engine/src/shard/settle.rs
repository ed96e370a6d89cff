//! Ending calls: the outcome goes to the log, the record moves on.

use std::time::Duration;

use wal::Lsn;

use super::calls::OpenCall;
use super::{CallId, Observation, Shard};
use crate::decide::{Outcome, class_of, conclude};
use crate::event::{AcceptedEvent, Operation};
use crate::id::RecordHash;
use crate::index::lsn;
use crate::journal::{Class, Journal, Kind};
use crate::json;
use crate::provider::{CallKind, Reply, SendFailure, Verdict};
use crate::quota::{Ended, FromShard, Gate, Trouble};
use crate::record::{Attempt, DETAIL_MAX, Progress, RecordState, StateFrame};
use crate::state::State;
use crate::time::{Mono, Now};

impl<T> Shard<T> {
    pub(super) fn settle(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        call: CallId,
        result: &Result<Reply, SendFailure>,
        ended_at: Mono,
    ) {
        let Some(call) = self.calls.remove(call) else { return };
        let account = &self.accounts[usize::from(call.target.0)];
        let Some(plan) = account.plan.clone() else { return };
        let name = account.name.clone();
        let mut event_bytes = std::mem::take(&mut self.scratch.event);
        let read = journal.read(lsn(self.index.slab[call.op].position()), &mut event_bytes);
        let event = read.ok().and_then(|_| AcceptedEvent::decode(&event_bytes).ok());
        let Some(event) = event else {
            self.index.make_paused(call.op);
            self.scratch.event = event_bytes;
            return;
        };
        let verdict = match result {
            Ok(reply) => plan.definition.classify(call.kind, event.record_id, reply, now.wall),
            Err(failure) => Verdict::of_failure(call.kind, failure),
        };
        self.observe(Observation::Call {
            account: name.clone(),
            class: class_of(&verdict),
            seconds: ended_at.saturating_since(call.started).as_secs_f64(),
        });
        self.report(&call, &verdict, result, now, ended_at);
        if let Some((mut states, _)) = self.read_state(journal, call.record, event.object, event.record_id) {
            let target = states[0].target_mut(&name);
            if let Some(remote_id) = event.remote_id.filter(|_| target.link.remote_id().is_none()) {
                target.link = crate::record::Link::Linked(remote_id.to_owned());
            }
            let position = self.index.slab[call.op].position();
            let mut progress = target
                .progress_of(call.seq)
                .filter(|progress| !progress.state.is_final())
                .cloned()
                .unwrap_or_else(|| Progress::new(call.seq, event.operation as u8, lsn(position).0));
            progress.key = call.key;
            if call.kind == CallKind::Lookup && progress.resume == crate::record::Resume::Normal {
                self.note_interrupted(&call, &mut progress, now, event.operation);
            }
            let outcome = Outcome {
                operation: event.operation,
                changed_at_ms: event.changed_at_ms.unwrap_or(event.accepted_at_ms),
                kind: call.kind,
                verdict: &verdict,
                now_ms: now.wall.0,
                retry: &plan.retry,
                settle: plan.settle,
                probe: call.probe,
            };
            conclude(&outcome, &mut target.link, &mut progress, &mut self.dice);
            if event.operation == Operation::Read && progress.state == State::Synced {
                progress.result = result.as_ref().map(|reply| reply.body.to_vec()).unwrap_or_default();
            }
            let (status, detail) = words(&verdict, result);
            progress.push_attempt(Attempt {
                at_ms: now.wall.0,
                status,
                class: class_of(&verdict),
                detail: clipped(detail),
            });
            self.log_progress(now, journal, call.record, states, &name, progress, &event, String::new());
        } else {
            self.index.make_paused(call.op);
        }
        self.scratch.event = event_bytes;
    }

    /// A create that was under way when the engine stopped is looked up; the log has only its
    /// intent, so the progress is told here.
    fn note_interrupted(&self, call: &OpenCall, progress: &mut Progress, now: Now, operation: Operation) {
        let intent = self.index.slab[call.op].has(crate::operation_slab::OpFlags::INTENT_LOGGED);
        if intent && operation == Operation::Create {
            progress.resume = crate::record::Resume::LookUp;
            progress.unknown_since_ms = now.wall.0;
        }
    }

    /// Writes a record's new state and applies it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one frame, gathered by both callers")]
    pub(super) fn log_progress(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        record: RecordHash,
        mut states: Vec<RecordState>,
        account: &str,
        mut progress: Progress,
        event: &AcceptedEvent<'_>,
        detail: String,
    ) {
        if !detail.is_empty() {
            progress.push_attempt(Attempt {
                at_ms: now.wall.0,
                status: 0,
                class: crate::state::CallClass::Permanent,
                detail: clipped(detail),
            });
        }
        let target = states[0].target_mut(account);
        match progress.state {
            State::Synced if event.operation != Operation::Read => target.undelivered.clear(),
            State::Failed if event.operation != Operation::Delete => {
                let fields = event.data.unwrap_or(b"{}");
                target.undelivered = if target.undelivered.is_empty() {
                    fields.to_vec()
                } else {
                    json::merge_patch(&target.undelivered, fields)
                };
            }
            _ => {}
        }
        let ended = progress.state.is_final().then_some(progress.state);
        target.last = Some(progress);
        let moved = states[0].targets.iter().position(|target| target.account == account);
        let frame = StateFrame {
            record: record.0,
            previous: self.index.state_position(record).map_or(0, |at| at.0),
            moved: moved.map(|at| at as u8),
            records: states,
        };
        self.scratch.entry.clear();
        frame.encode(&mut self.scratch.entry);
        match journal.append(Class::Outcome, Kind::State, &[&self.scratch.entry]) {
            Ok(at) => self.index.apply_state(now, at, &frame),
            // An outcome that cannot be logged must not be acted on: nothing leaves any more,
            // and the restart finds the call without an outcome.
            Err(_) => return self.fence(),
        }
        if let Some(state) = ended {
            let taken = Duration::from_millis(now.wall.0.saturating_sub(event.accepted_at_ms).max(0).unsigned_abs());
            self.observe(Observation::Ended {
                account: account.into(),
                operation: event.operation.as_str(),
                state,
                seconds: taken.as_secs_f64(),
            });
        }
    }

    /// The states sharing a record's index tag, its own first; made when there is none. `None`
    /// when the frame cannot be read.
    pub(super) fn read_state(
        &mut self,
        journal: &mut impl Journal,
        record: RecordHash,
        object: &str,
        record_id: &str,
    ) -> Option<(Vec<RecordState>, Lsn)> {
        let Some(at) = self.index.state_position(record) else {
            return Some((vec![RecordState::new(object, record_id)], Lsn(0)));
        };
        journal.read(at, &mut self.scratch.state).ok()?;
        let mut states = StateFrame::decode(&self.scratch.state).ok()?.records;
        match states.iter().position(|state| state.object == object && state.record_id == record_id) {
            Some(own) => states.swap(0, own),
            None => states.insert(0, RecordState::new(object, record_id)),
        }
        Some((states, at))
    }

    /// Gives the slot and the permit back and says what the call told of its account.
    fn report(
        &mut self,
        call: &OpenCall,
        verdict: &Verdict,
        result: &Result<Reply, SendFailure>,
        now: Now,
        ended_at: Mono,
    ) {
        let account = &mut self.accounts[usize::from(call.target.0)];
        account.in_use -= 1;
        let Some(id) = account.id else { return };
        let mut words = Vec::new();
        if let Some(lease) = call.lease {
            let answered = result.is_ok() || matches!(result, Err(failure) if failure.before_sent());
            let ended = if answered { Ended::Answered } else { Ended::Unanswered };
            words.push(FromShard::Completed { account: id, lease, count: 1, completed_at: ended_at, ended });
        }
        match trouble(verdict, now) {
            Some(trouble) => words.push(FromShard::Trouble { account: id, trouble, probe: call.probe }),
            None if call.probe || account.owes_health => {
                account.owes_health = false;
                words.push(FromShard::Healthy { account: id, probe: call.probe });
            }
            None => {}
        }
        if call.probe {
            account.gate = Gate::Held { until: now.mono, reason: crate::quota::HoldReason::Failing };
        }
        for word in words {
            self.effects.push_unconditional(super::Output::Coordinator(word));
        }
    }
}

/// What a verdict says about the account rather than the record.
fn trouble(verdict: &Verdict, now: Now) -> Option<Trouble> {
    match verdict {
        Verdict::Throttled { retry_after } => {
            Some(Trouble::Throttled { until: retry_after.map(|after| now.mono.saturating_add(after)) })
        }
        Verdict::Unauthorized => Some(Trouble::Unauthorized),
        Verdict::Unreachable { .. } => Some(Trouble::Unreachable),
        Verdict::Transient { .. } | Verdict::Unknown { .. } => Some(Trouble::Failing),
        Verdict::Done { .. }
        | Verdict::Found { .. }
        | Verdict::Absent
        | Verdict::Gone
        | Verdict::Duplicate
        | Verdict::Conflict { .. }
        | Verdict::Permanent { .. } => None,
    }
}

fn words(verdict: &Verdict, result: &Result<Reply, SendFailure>) -> (u16, String) {
    let status = result.as_ref().map_or(0, |reply| reply.status);
    let detail = verdict.detail().map(str::to_owned);
    (status, detail.unwrap_or_else(|| result.as_ref().err().map(ToString::to_string).unwrap_or_default()))
}

fn clipped(mut detail: String) -> String {
    if detail.len() > DETAIL_MAX {
        let end = (0..=DETAIL_MAX).rev().find(|&at| detail.is_char_boundary(at)).unwrap_or(0);
        detail.truncate(end);
    }
    detail
}
