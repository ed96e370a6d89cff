//! Starting calls: the best ready operation of each account, as far as slots, permits and the
//! gate allow.

use std::borrow::Cow;

use wal::Lsn;

use super::calls::OpenCall;
use super::{CALLS_PER_TURN, CallId, Output, Shard};
use crate::decide::{Step, step};
use crate::event::Operation;
use crate::event::codec::{self, AcceptedEvent};
use crate::id::{OperationId, OperationSeq, RecordHash};
use crate::index::{due, lsn};
use crate::journal::{Class, Journal, Kind};
use crate::json::{RawObject, compose_patches};
use crate::mapping::{Mapping, Write, keep_reference, write_unmapped};
use crate::operation_slab::{OpFlags, OpIndex, OpState, Target};
use crate::provider::{CallKind, Field, Request, Subject};
use crate::quota::{FromShard, Gate, LeaseId};
use crate::record::{KeyUse, Progress, RecordState, Resume};
use crate::state::{Reason, State};
use crate::time::{Mono, Now};

/// Room in the log below which no call starts: its intent needs some now, and the outcomes of
/// all open calls some later, of which one may carry a megabyte of undelivered fields. The
/// driver takes replies down to half of it; on a full disk the rest of them wait for space.
pub(super) const CALL_ROOM: usize = 4 * 1024 * 1024;

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
        if accounts == 0 || self.draining {
            return;
        }
        let share = (CALLS_PER_TURN / accounts).max(1);
        for at in 0..accounts {
            for _ in 0..share {
                if self.fenced
                    || !self.accounts[at].may_start()
                    || journal.room(Class::Outcome) < CALL_ROOM
                {
                    break;
                }
                let Some(op) = self.index.accounts[at].ready.pop(&mut self.index.slab) else {
                    break;
                };
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
        let go_on = match codec::decode(&event_bytes).ok().filter(|_| read.is_ok()) {
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
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let target = self.index.slab[op].target();
        let at = usize::from(target.0);
        let name = self.accounts[at].name.clone();
        if self
            .index
            .holds()
            .iter()
            .any(|hold| hold.covers(&name, &event.event.object, record_id))
        {
            self.index.make_paused(op);
            return true;
        }
        if let Some(due) = due(now, event.event.scheduled_at_ms.unwrap_or(0)) {
            self.index.make_timed(op, OpState::Scheduled, due);
            return true;
        }
        let record = RecordHash(event.record_hash);
        let Some((mut states, state_at)) =
            self.read_state(journal, record, &event.event.object, record_id)
        else {
            self.index.make_paused(op);
            return true;
        };
        let seq = OperationSeq(event.operation_seq);
        let known = states[0].target(&name);
        let mut progress = known
            .and_then(|known| known.progress_of(seq))
            .filter(|progress| !progress.state.is_final())
            .cloned()
            .unwrap_or_else(|| Progress::new(seq, event.event.operation as u8, position.get()));
        if progress.key.number == 0 && self.index.slab[op].has(OpFlags::REDRIVEN) {
            progress.key = self.last_key(journal, record, &name, seq);
        }
        let hurried = self.index.slab[op].has(OpFlags::HURRIED);
        if let Some(due) = due(now, progress.due_ms).filter(|_| !hurried) {
            self.index.make_timed(op, OpState::Backoff, due);
            return true;
        }
        if self.index.slab[op].has(OpFlags::INTENT_LOGGED) && progress.resume == Resume::Normal {
            // The engine stopped between this call and its outcome.
            progress.resume = Resume::LookUp;
            progress.unknown_since_ms = now.wall.0;
        }
        if let Some(remote_id) = event
            .event
            .remote_id
            .as_deref()
            .filter(|_| progress.resume == Resume::Normal)
        {
            states[0].target_mut(&name).adopt(remote_id);
        }
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let ended = match step(
            event.event.operation,
            changed_at_ms,
            states[0].target(&name),
            progress.resume,
        ) {
            Step::End(state, reason) => (state, reason, String::new()),
            Step::Call { kind, beneath } => {
                match self.request(event, &name, &states[0], kind, beneath, &mut progress) {
                    Ok(request) => {
                        let call = Ready {
                            op,
                            target,
                            record,
                            seq,
                            kind,
                            key: progress.key,
                            state_at,
                        };
                        return matches!(self.send(now, journal, call, request), Started::Call);
                    }
                    Err(unsendable) => (State::Failed, Some(unsendable.reason), unsendable.detail),
                }
            }
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
        let plan = self
            .accounts
            .iter()
            .find(|known| &*known.name == account)
            .and_then(|known| known.plan.as_ref());
        let plan = plan.ok_or(Unsendable {
            reason: Reason::NoAccount,
            detail: String::new(),
        })?;
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let target = state.target(account);
        let own = event.event.data.map_or("{}", |data| data.text());
        let beneath = target.filter(|target| beneath && !target.undelivered.is_empty());
        let data: Cow<'_, str> = match beneath.and_then(|target| object(&target.undelivered)) {
            Some(undelivered) => Cow::Owned(composed(undelivered, object(own.as_bytes()))),
            None => Cow::Borrowed(own),
        };
        let mapping = plan.mappings.get(&*event.event.object);
        let mapped = match mapping.filter(|_| kind.writes_fields()) {
            Some(mapping) => {
                let write = match (event.event.operation, kind) {
                    (_, CallKind::Update) | (Operation::Update, _) => Write::Update,
                    (Operation::Create, _) => Write::Create,
                    (Operation::Upsert | Operation::Delete | Operation::Read, _) => Write::Upsert,
                };
                Cow::Owned(mapped(mapping, &data, write)?)
            }
            None if kind.writes_fields() => Cow::Owned(unmapped(&data, record_id)?),
            None => data,
        };
        let members = if kind.writes_fields() {
            members(&mapped)
        } else {
            Vec::new()
        };
        let fields: Vec<Field<'_>> = members
            .iter()
            .map(|(name, value)| Field { name, value })
            .collect();
        let subject = Subject {
            object: mapping.map_or(&*event.event.object, |mapping| mapping.remote()),
            record_id,
            remote_id: target.and_then(|target| target.link.remote_id()),
            fields: &fields,
        };
        let mut request = plan
            .definition
            .render(kind, &subject)
            .map_err(|error| Unsendable {
                reason: Reason::Mapping,
                detail: error.to_string(),
            })?;
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        request.request_id = id.to_string();
        request.traceparent = event.event.traceparent.as_deref().map(str::to_owned);
        if kind.is_write() {
            progress.key = progress.key.advance(request.digest().0);
            request.idempotency_key = Some(idempotency_key(id, progress.key));
        }
        Ok(request)
    }

    fn send(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        call: Ready,
        request: Request,
    ) -> Started {
        let account = &mut self.accounts[usize::from(call.target.0)];
        let Some(plan) = account.plan.clone() else {
            return Started::NoCall;
        };
        let lease = if account.unlimited {
            None
        } else {
            let Some(lease) = account.permits.spend(now.mono) else {
                self.index.make_ready(call.op);
                return Started::NoCall;
            };
            Some((LeaseId(lease.0), lease.1))
        };
        let probe = account.gate == Gate::Probe;
        account.probe_sent |= probe;
        account.in_use += 1;
        if call.kind == CallKind::Create {
            self.log_intent(now, journal, &call);
            if self.fenced {
                return Started::NoCall;
            }
        }
        self.index.slab[call.op].set_state(OpState::InFlight);
        // A frame of this turn is durable only once everything to the log's end is. Nothing of
        // this turn: the call depends on its event, its record's last state and its lease.
        let fresh = lease.is_some()
            || call.kind == CallKind::Create
            || call.state_at >= journal.durable()
            || lsn(self.index.slab[call.op].position()) >= journal.durable();
        let needs = if fresh {
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
        self.effects.push(
            needs,
            Output::Call {
                call: id,
                plan,
                request,
            },
        );
        Started::Call
    }

    /// Whether a call that waited for the disk may still be sent: within the time of its permit,
    /// after which the coordinator counts it as over, and while its account is not held.
    pub(super) fn may_leave(&self, now: Mono, call: CallId) -> bool {
        let Some(call) = self.calls.get(call) else {
            return true;
        };
        let gate = self.accounts[usize::from(call.target.0)].gate;
        call.lease.is_none_or(|(_, until)| now <= until)
            && (call.probe || matches!(gate, Gate::Open | Gate::Suspect))
    }

    /// A call that was never sent: its operation is ready again. A create keeps the mark of its
    /// intent, as the log does, and is looked up first.
    pub(super) fn take_back(&mut self, call: CallId) {
        let Some(call) = self.calls.remove(call) else {
            return;
        };
        let account = &mut self.accounts[usize::from(call.target.0)];
        account.in_use -= 1;
        if call.probe && account.gate == Gate::Probe {
            account.probe_sent = false;
        }
        if let (Some(account), Some((lease, _))) = (account.id, call.lease) {
            self.effects
                .push_unconditional(Output::Coordinator(FromShard::Unspent {
                    account,
                    lease,
                    count: 1,
                }));
        }
        self.index.slab[call.op].set_state(OpState::Waiting);
        self.index.make_ready(call.op);
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

fn mapped(mapping: &Mapping, data: &str, write: Write) -> Result<String, Unsendable> {
    let failed = |detail| Unsendable {
        reason: Reason::Mapping,
        detail,
    };
    let data = object(data.as_bytes()).ok_or_else(|| failed("the data is no object".to_owned()))?;
    let mut out = Vec::new();
    mapping
        .apply(data, write, &keep_reference, &mut out)
        .map_err(|failure| failed(failure.to_string()))?;
    String::from_utf8(out).map_err(|_| failed("the mapping wrote no UTF-8".to_owned()))
}

/// Fields that go as they are.
fn unmapped(data: &str, record_id: &str) -> Result<String, Unsendable> {
    let failed = |detail: &str| Unsendable {
        reason: Reason::Mapping,
        detail: detail.to_owned(),
    };
    let data = object(data.as_bytes()).ok_or_else(|| failed("the data is no object"))?;
    let mut out = Vec::new();
    write_unmapped(data, record_id, &mut out);
    String::from_utf8(out).map_err(|_| failed("the data is no UTF-8"))
}

/// The members of an object, names unescaped.
fn members(data: &str) -> Vec<(Cow<'_, str>, &str)> {
    let Some(data) = object(data.as_bytes()) else {
        return Vec::new();
    };
    data.members()
        .map(|member| (member.key.name(), member.value.text()))
        .collect()
}

/// The object these bytes are; they were validated when the event was taken.
fn object(bytes: &[u8]) -> Option<RawObject<'_>> {
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
