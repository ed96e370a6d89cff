//! Starting calls: the best ready operation of each account, as far as slots, permits and the
//! gate allow.

use std::borrow::Cow;

use wal::Lsn;

use super::calls::OpenCall;
use super::{CALLS_PER_TURN, Output, Shard};
use crate::decide::{Step, step};
use crate::event::AcceptedEvent;
use crate::id::{OperationId, OperationSeq, RecordHash};
use crate::index::{due, lsn};
use crate::journal::{Class, Journal, Kind};
use crate::json;
use crate::operation_slab::{OpFlags, OpIndex, OpState, Target};
use crate::provider::{CallKind, Request, RequestContext};
use crate::quota::{Gate, LeaseId};
use crate::record::{KeyUse, Progress, RecordState, Resume};
use crate::state::{Reason, State};
use crate::time::Now;

/// Room a started call may need in the log: its intent now and its outcome later, which may
/// carry a megabyte of undelivered fields.
const CALL_ROOM: usize = 2 * 1024 * 1024;

/// What became of a ready operation.
enum Started {
    /// A call is on its way.
    Call,
    /// It ended or waits; no slot was used.
    NoCall,
}

/// Why an operation cannot be sent as it is.
struct Unsendable {
    reason: Reason,
    detail: String,
}

impl<T> Shard<T> {
    /// Starts calls, fairly among accounts, up to the turn's bound.
    pub(super) fn dispatch(&mut self, now: Now, journal: &mut impl Journal) {
        let accounts = self.accounts.len();
        if accounts == 0 {
            return;
        }
        let share = (CALLS_PER_TURN / accounts).max(1);
        for at in 0..accounts {
            for _ in 0..share {
                if !self.accounts[at].may_start() || journal.room(Class::Outcome) < CALL_ROOM {
                    break;
                }
                let Some(op) = self.index.accounts[at].ready.pop(&mut self.index.slab) else { break };
                self.index.slab[op].set_state(OpState::Waiting);
                if !self.start(now, journal, op) {
                    break;
                }
            }
        }
    }

    pub(super) fn accounts_can_start(&self) -> bool {
        let mut accounts = self.accounts.iter().zip(&self.index.accounts);
        accounts.any(|(account, queue)| account.may_start() && !queue.ready.is_empty())
    }

    /// Starts one operation; false when the account can take no more for now.
    fn start(&mut self, now: Now, journal: &mut impl Journal, op: OpIndex) -> bool {
        let mut event_bytes = std::mem::take(&mut self.scratch.event);
        let position = lsn(self.index.slab[op].position());
        let read = journal.read(position, &mut event_bytes);
        let event = match (&read, AcceptedEvent::decode(&event_bytes)) {
            (Ok(_), Ok(event)) => Some(event),
            (Err(_), _) | (_, Err(_)) => None,
        };
        let go_on = match event {
            Some(event) => self.start_event(now, journal, op, position, &event),
            None => {
                // The log reports damage by itself; the operation waits for the operator, and
                // nothing behind it in its record overtakes it.
                self.index.make_paused(op);
                true
            }
        };
        self.scratch.event = event_bytes;
        go_on
    }

    fn start_event(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        op: OpIndex,
        position: Lsn,
        event: &AcceptedEvent<'_>,
    ) -> bool {
        let target = self.index.slab[op].target();
        let at = usize::from(target.0);
        let name = self.accounts[at].name.clone();
        if self.index.holds().iter().any(|hold| hold.covers(&name, event.object, event.record_id)) {
            self.index.make_paused(op);
            return true;
        }
        if let Some(due) = due(now, event.scheduled_at_ms.unwrap_or(0)) {
            self.index.make_timed(op, OpState::Scheduled, due);
            return true;
        }
        let record = RecordHash(event.record);
        let Some((mut states, state_at)) = self.read_state(journal, record, event.object, event.record_id) else {
            self.index.make_paused(op);
            return true;
        };
        let seq = OperationSeq(event.operation_seq);
        let known = states[0].target(&name);
        let mut progress = known
            .and_then(|known| known.progress_of(seq))
            .filter(|progress| !progress.state.is_final())
            .cloned()
            .unwrap_or_else(|| Progress::new(seq, event.operation as u8, position.0));
        if let Some(due) = due(now, progress.due_ms) {
            self.index.make_timed(op, OpState::Backoff, due);
            return true;
        }
        if self.index.slab[op].has(OpFlags::INTENT_LOGGED) && progress.resume == Resume::Normal {
            // The engine stopped between this call and its outcome.
            progress.resume = Resume::LookUp;
            progress.unknown_since_ms = now.wall.0;
        }
        let link_to = event.remote_id.filter(|_| known.is_none_or(|known| known.link.remote_id().is_none()));
        if let Some(remote_id) = link_to {
            states[0].target_mut(&name).link = crate::record::Link::Linked(remote_id.to_owned());
        }
        let changed_at_ms = event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let ended = match step(event.operation, changed_at_ms, states[0].target(&name), progress.resume) {
            Step::End(state, reason) => (state, reason, String::new()),
            Step::Call { kind, beneath } => match self.request(event, &name, &states[0], kind, beneath, &mut progress) {
                Ok(request) => {
                    let call = Ready { op, target, record, seq, kind, key: progress.key, state_at };
                    return matches!(self.send(now, journal, call, request), Started::Call);
                }
                Err(unsendable) => (State::Failed, Some(unsendable.reason), unsendable.detail),
            },
        };
        let (state, reason, detail) = ended;
        progress.state = state;
        progress.reason = reason;
        progress.updated_at_ms = now.wall.0;
        self.log_progress(now, journal, record, states, &name, progress, event, detail);
        true
    }

    /// Renders the request and gives it its idempotency key.
    fn request(
        &self,
        event: &AcceptedEvent<'_>,
        account: &str,
        state: &RecordState,
        kind: CallKind,
        beneath: bool,
        progress: &mut Progress,
    ) -> Result<Request, Unsendable> {
        let plan = self.accounts.iter().find(|known| &*known.name == account).and_then(|known| known.plan.as_ref());
        let plan = plan.ok_or(Unsendable { reason: Reason::NoAccount, detail: String::new() })?;
        let target = state.target(account);
        let data: Cow<'_, [u8]> = match target.filter(|target| beneath && !target.undelivered.is_empty()) {
            Some(target) => Cow::Owned(json::merge_patch(&target.undelivered, event.data.unwrap_or(b"{}"))),
            None => Cow::Borrowed(event.data.unwrap_or(b"{}")),
        };
        let full = matches!(kind, CallKind::Create | CallKind::Upsert);
        let mapping = plan.mappings.get(event.object);
        let fields = match (kind, mapping) {
            (CallKind::Create | CallKind::Upsert | CallKind::Update, Some(mapping)) => {
                let mapped = mapping.apply(&data, full).map_err(|failure| Unsendable {
                    reason: Reason::Mapping,
                    detail: format!("{}: {}", failure.pointer, failure.detail),
                })?;
                Cow::Owned(mapped)
            }
            (CallKind::Create | CallKind::Upsert | CallKind::Update, None) => data,
            (CallKind::Delete | CallKind::Read | CallKind::Lookup, _) => Cow::Borrowed(&b"{}"[..]),
        };
        let id = OperationId { record: RecordHash(event.record), seq: OperationSeq(event.operation_seq) };
        let mut request = plan.definition.request(&RequestContext {
            kind,
            object: mapping.map_or(event.object, |mapping| mapping.remote()),
            record_id: event.record_id,
            remote_id: target.and_then(|target| target.link.remote_id()),
            fields: &fields,
            request_id: &id.to_string(),
            traceparent: event.traceparent,
        });
        if kind.is_write() {
            progress.key = progress.key.advance(request.digest());
            request.idempotency_key = Some(idempotency_key(id, progress.key));
        }
        Ok(request)
    }

    fn send(&mut self, now: Now, journal: &mut impl Journal, call: Ready, request: Request) -> Started {
        let account = &mut self.accounts[usize::from(call.target.0)];
        let Some(plan) = account.plan.clone() else { return Started::NoCall };
        let lease = if account.unlimited {
            None
        } else {
            let Some(lease) = account.permits.spend(now.mono) else {
                self.index.make_ready(call.op);
                return Started::NoCall;
            };
            Some(LeaseId(lease))
        };
        let probe = account.gate == Gate::Probe;
        account.probe_sent |= probe;
        account.in_use += 1;
        if call.kind == CallKind::Create {
            self.log_intent(now, journal, &call);
        }
        self.index.slab[call.op].set_state(OpState::InFlight);
        // A frame of this turn is durable only once everything to the log's end is. Nothing of
        // this turn: the call depends on its event, its record's last state and its lease.
        let needs = if lease.is_some() || call.kind == CallKind::Create || call.state_at >= journal.durable() {
            journal.end()
        } else if lsn(self.index.slab[call.op].position()) >= journal.durable() {
            journal.end()
        } else {
            journal.durable()
        };
        let id = self.calls.insert(OpenCall {
            op: call.op,
            target: call.target,
            record: call.record,
            seq: call.seq,
            kind: call.kind,
            key: call.key,
            lease,
            probe,
            started: now.mono,
        });
        self.effects.push(needs, Output::Call { call: id, plan, request });
        Started::Call
    }

    fn log_intent(&mut self, now: Now, journal: &mut impl Journal, call: &Ready) {
        let name = self.accounts[usize::from(call.target.0)].name.clone();
        let intent = crate::entry::Intent {
            record: call.record,
            seq: call.seq,
            account: &name,
            key: call.key,
            at_ms: now.wall.0,
        };
        self.scratch.entry.clear();
        intent.encode(&mut self.scratch.entry);
        match journal.append(Class::Outcome, Kind::Intent, &[&self.scratch.entry]) {
            Ok(_) => self.index.apply_intent(call.record, call.seq, call.target),
            // Without a durable intent the call must not leave: a fenced shard lets nothing out.
            Err(_) => self.fence(),
        }
    }
}

/// An operation whose request is rendered.
struct Ready {
    op: OpIndex,
    target: Target,
    record: RecordHash,
    seq: OperationSeq,
    kind: CallKind,
    key: KeyUse,
    /// The record's newest state frame; 0 when there is none.
    state_at: Lsn,
}

fn idempotency_key(id: OperationId, key: KeyUse) -> String {
    if key.number <= 1 { id.to_string() } else { format!("{id}.{}", key.number) }
}
