//! Ending calls: the outcome goes to the log, the record moves on.

use std::time::Duration;

use wal::Lsn;

use super::calls::OpenCall;
use super::dispatch::composed;
use super::{AccountPlan, CallId, Observation, Shard};
use crate::decide::{Outcome, class_of, conclude};
use crate::event::Operation;
use crate::event::codec::{self, AcceptedEvent};
use crate::id::RecordHash;
use crate::index::lsn;
use crate::journal::{AppendError, Class, Journal, Kind};
use crate::json::RawObject;
use crate::provider::{CallKind, Reply, RetryAfter, SendFailure, Verdict};
use crate::quota::{Ended, FromShard, Gate, Trouble};
use crate::record::{Attempt, DETAIL_MAX, Progress, RecordState, StateFrame, TargetState};
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
        let Some(call) = self.calls.remove(call) else {
            return;
        };
        self.give_back(&call, result, ended_at);
        let account = &self.accounts[usize::from(call.target.0)];
        let Some(plan) = account.plan.clone() else {
            // Its account was removed meanwhile; with the account it comes back.
            self.index.make_paused(call.op);
            return;
        };
        let mut event_bytes = std::mem::take(&mut self.scratch.event);
        let read = journal.read(lsn(self.index.slab[call.op].position()), &mut event_bytes);
        match codec::decode(&event_bytes).ok().filter(|_| read.is_ok()) {
            Some(event) => self.settle_event(now, journal, &call, &plan, &event, result, ended_at),
            None => self.index.make_paused(call.op),
        }
        self.scratch.event = event_bytes;
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one outcome, taken apart by its only caller"
    )]
    fn settle_event(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        call: &OpenCall,
        plan: &AccountPlan,
        event: &AcceptedEvent<'_>,
        result: &Result<Reply, SendFailure>,
        ended_at: Mono,
    ) {
        let name = &plan.name;
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let verdict = match result {
            Ok(reply) => plan
                .definition
                .classify(call.kind, record_id, reply, timestamp(now)),
            Err(failure) => failure.verdict(),
        };
        self.observe(Observation::Call {
            account: name.clone(),
            class: class_of(&verdict),
            took: ended_at.saturating_since(call.started),
        });
        self.report(call, &verdict, now);
        let Some((mut states, _)) =
            self.read_state(journal, call.record, &event.event.object, record_id)
        else {
            self.index.make_paused(call.op);
            return;
        };
        let target = states[0].target_mut(name);
        let position = self.index.slab[call.op].position();
        let mut progress = target
            .progress_of(call.seq)
            .filter(|progress| !progress.state.is_final())
            .cloned()
            .unwrap_or_else(|| {
                Progress::new(call.seq, event.event.operation as u8, lsn(position).get())
            });
        if let Some(remote_id) = event
            .event
            .remote_id
            .as_deref()
            .filter(|_| progress.resume == crate::record::Resume::Normal)
        {
            target.adopt(remote_id);
        }
        progress.key = call.key;
        if call.kind == CallKind::Lookup && progress.resume == crate::record::Resume::Normal {
            self.note_interrupted(call, &mut progress, now, event.event.operation);
        }
        let outcome = Outcome {
            operation: event.event.operation,
            changed_at_ms: event.event.changed_at_ms.unwrap_or(event.accepted_at_ms),
            kind: call.kind,
            verdict: &verdict,
            now_ms: now.wall.0,
            retry: &plan.retry,
            settle: plan.settle,
            probe: call.probe,
            from_before: lsn(position) < self.born,
        };
        conclude(&outcome, &mut target.link, &mut progress, &mut self.dice);
        if event.event.operation == Operation::Read && progress.state == State::Synced {
            progress.result = result
                .as_ref()
                .map(|reply| reply.body.to_vec())
                .unwrap_or_default();
        }
        let (status, detail) = words(&verdict, result);
        progress.push_attempt(Attempt {
            at_ms: now.wall.0,
            status,
            class: class_of(&verdict),
            detail: clipped(detail),
        });
        self.log_progress(
            now,
            journal,
            call.record,
            states,
            name,
            progress,
            event,
            String::new(),
        );
    }

    /// A create that was under way when the engine stopped is looked up; the log has only its
    /// intent, so the progress is told here.
    fn note_interrupted(
        &self,
        call: &OpenCall,
        progress: &mut Progress,
        now: Now,
        operation: Operation,
    ) {
        let intent = self.index.slab[call.op].has(crate::operation_slab::OpFlags::INTENT_LOGGED);
        if intent && operation == Operation::Create {
            progress.resume = crate::record::Resume::LookUp;
            progress.unknown_since_ms = now.wall.0;
        }
    }

    /// Writes a record's new state and applies it.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one frame, gathered by both callers"
    )]
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
            State::Synced if event.event.operation != Operation::Read => target.undelivered.clear(),
            State::Failed if event.event.operation != Operation::Delete => {
                target.undelivered = undelivered(&target.undelivered, event);
            }
            _ => {}
        }
        let ended = progress.state.is_final().then_some(progress.state);
        target.last = Some(progress);
        let moved = states[0]
            .targets
            .iter()
            .position(|target| target.account == account);
        let frame = StateFrame {
            record: record.0,
            previous: self.index.state_position(record).map_or(0, |at| at.get()),
            moved: moved.map(|at| at as u8),
            records: states,
        };
        self.log_state(now, journal, frame);
        if self.fenced {
            return;
        }
        if let Some(state) = ended {
            let taken = Duration::from_millis(
                now.wall
                    .0
                    .saturating_sub(event.accepted_at_ms)
                    .max(0)
                    .unsigned_abs(),
            );
            self.observe(Observation::Ended {
                account: account.into(),
                operation: event.event.operation,
                state,
                took: taken,
            });
        }
    }

    /// Writes that a dead letter was dropped. The record's newest operation may be under way,
    /// and its progress must not be lost to an older one's: the drop gets an entry of its own,
    /// which the next frame of the record leaves out.
    pub(super) fn log_drop(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        record: RecordHash,
        mut states: Vec<RecordState>,
        account: &str,
        dropped: Progress,
    ) {
        let targets = &mut states[0].targets;
        let known = targets.iter_mut().find(|target| target.account == account);
        let mut entry = known
            .as_deref()
            .cloned()
            .unwrap_or_else(|| TargetState::new(account));
        let newest = entry
            .last
            .as_ref()
            .is_none_or(|last| last.seq == dropped.seq);
        entry.last = Some(dropped);
        let moved = match known.filter(|_| newest) {
            Some(known) => {
                *known = entry;
                targets.iter().position(|target| target.account == account)
            }
            None => {
                targets.push(entry);
                Some(targets.len() - 1)
            }
        };
        let frame = StateFrame {
            record: record.0,
            previous: self.index.state_position(record).map_or(0, |at| at.get()),
            moved: moved.map(|at| at as u8),
            records: states,
        };
        self.log_state(now, journal, frame);
    }

    /// Appends a state frame and applies it. One that is too large for the log does without what
    /// it can best spare: a record that grew fat must not stop its shard.
    fn log_state(&mut self, now: Now, journal: &mut impl Journal, mut frame: StateFrame) {
        loop {
            self.scratch.entry.clear();
            frame.encode(&mut self.scratch.entry);
            match journal.append(Class::Outcome, Kind::State, &[&self.scratch.entry]) {
                Ok(at) => return self.index.apply_state(now, at, &frame),
                Err(AppendError::TooLarge) if frame.shed() => {}
                // An outcome that cannot be logged must not be acted on: nothing leaves any
                // more, and the restart finds the call without an outcome.
                Err(_) => return self.fence(),
            }
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
            return Some((vec![RecordState::new(object, record_id)], Lsn::ZERO));
        };
        journal.read(at, &mut self.scratch.state).ok()?;
        let mut states = StateFrame::decode(&self.scratch.state).ok()?.records;
        for state in &mut states {
            state.leave_out_drops();
        }
        match states
            .iter()
            .position(|state| state.object == object && state.record_id == record_id)
        {
            Some(own) => states.swap(0, own),
            None => states.insert(0, RecordState::new(object, record_id)),
        }
        Some((states, at))
    }

    /// Gives the slot and the permit of an ended call back, whatever becomes of its operation.
    fn give_back(&mut self, call: &OpenCall, result: &Result<Reply, SendFailure>, ended_at: Mono) {
        let account = &mut self.accounts[usize::from(call.target.0)];
        account.in_use -= 1;
        if let (Some(id), Some((lease, _))) = (account.id, call.lease) {
            let answered = result.is_ok() || matches!(result, Err(SendFailure::BeforeSent { .. }));
            let ended = if answered {
                Ended::Answered
            } else {
                Ended::Unanswered
            };
            let word = FromShard::Completed {
                account: id,
                lease,
                count: 1,
                completed_at: ended_at,
                ended,
            };
            self.effects
                .push_unconditional(super::Output::Coordinator(word));
        }
    }

    /// Says what the call told of its account.
    fn report(&mut self, call: &OpenCall, verdict: &Verdict, now: Now) {
        let account = &mut self.accounts[usize::from(call.target.0)];
        let Some(id) = account.id else { return };
        let mut words = Vec::new();
        match trouble(verdict, now) {
            Some(trouble) => {
                let after_success = std::mem::take(&mut account.succeeded);
                words.push(FromShard::Trouble {
                    account: id,
                    trouble,
                    probe: call.probe,
                    after_success,
                });
            }
            None if call.probe || account.owes_health => {
                account.succeeded = true;
                account.owes_health = false;
                words.push(FromShard::Healthy {
                    account: id,
                    probe: call.probe,
                });
            }
            None => account.succeeded = true,
        }
        // A probe that ends after the gate has moved on, as a second one may, closes nothing.
        if call.probe && account.gate == Gate::Probe {
            account.gate = Gate::Held {
                until: now.mono,
                reason: crate::quota::HoldReason::Failing,
            };
        }
        for word in words {
            self.effects
                .push_unconditional(super::Output::Coordinator(word));
        }
    }
}

/// What a verdict says about the account rather than the record.
fn trouble(verdict: &Verdict, now: Now) -> Option<Trouble> {
    match verdict {
        Verdict::Throttled { retry_after, .. }
        | Verdict::QuotaExhausted { retry_after, .. }
        | Verdict::Maintenance { retry_after, .. } => {
            let until = match retry_after {
                RetryAfter::Wait(wait) => Some(now.mono.saturating_add(*wait)),
                RetryAfter::BackOff => None,
            };
            Some(Trouble::Throttled { until })
        }
        // The account waits for a person, and is asked now and then whether one has come.
        Verdict::Unauthorized { .. } | Verdict::Permission { .. } => Some(Trouble::Unauthorized),
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
        | Verdict::Permanent { .. } => None,
    }
}

/// Fields that failed, over those that had failed before.
fn undelivered(before: &[u8], event: &AcceptedEvent<'_>) -> Vec<u8> {
    let Some(fields) = event.event.data else {
        return before.to_vec();
    };
    let before = std::str::from_utf8(before).ok().and_then(RawObject::new);
    match before {
        Some(before) => composed(before, Some(fields)).into_bytes(),
        None => fields.text().as_bytes().to_vec(),
    }
}

fn timestamp(now: Now) -> jiff::Timestamp {
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

fn clipped(mut detail: String) -> String {
    if detail.len() > DETAIL_MAX {
        let end = (0..=DETAIL_MAX)
            .rev()
            .find(|&at| detail.is_char_boundary(at))
            .unwrap_or(0);
        detail.truncate(end);
    }
    detail
}
