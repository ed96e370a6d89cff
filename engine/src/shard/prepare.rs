//! From a ready operation to what its call sends, or to its end without one.

use std::borrow::Cow;

use wal::Lsn;

use super::Shard;
use super::dispatch::{composed, object};
use super::fold::{Fold, Reach, Unreadable};
use super::item::Item;
use crate::decide::{Step, step};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::{due, lsn};
use crate::journal::Journal;
use crate::mapping::{Mapping, Write, keep_reference, write_unmapped};
use crate::operation_slab::{OpFlags, OpIndex, OpState};
use crate::provider::CallKind;
use crate::record::{Link, Progress, RecordState, Resume};
use crate::state::{Reason, State};
use crate::time::Now;

/// What became of a ready operation.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It can be sent.
    Item(Box<Item>, Payload),
    /// It ended, or waits for something else than a call.
    Settled,
}

/// What a call sends of one record.
#[derive(Debug)]
pub(super) struct Payload {
    /// The target's name of the object.
    pub(super) object: String,
    /// The mapped fields, a JSON object.
    pub(super) fields: String,
    pub(super) traceparent: Option<String>,
}

/// Why an operation cannot be sent as it is.
struct Unsendable {
    reason: Reason,
    detail: String,
}

impl<T> Shard<T> {
    /// Looks at one operation, the front of its lane, which is in no list.
    pub(super) fn prepare(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        op: OpIndex,
    ) -> Prepared {
        let mut event_bytes = std::mem::take(&mut self.scratch.event);
        let position = lsn(self.index.slab[op].position());
        let read = journal.read(position, &mut event_bytes);
        let prepared = match codec::decode(&event_bytes).ok().filter(|_| read.is_ok()) {
            Some(event) => {
                let account = usize::from(self.index.slab[op].target().0);
                let event = event.asked_of(&self.accounts[account].name);
                self.prepare_event(now, journal, op, position, &event)
            }
            None => Err(Unreadable),
        };
        self.scratch.event = event_bytes;
        prepared.unwrap_or_else(|Unreadable| {
            // The log reports damage by itself; the operation waits for the operator, and nothing
            // behind it in its record overtakes it.
            self.index.make_paused(op);
            Prepared::Settled
        })
    }

    fn prepare_event(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        op: OpIndex,
        position: Lsn,
        event: &AcceptedEvent<'_>,
    ) -> Result<Prepared, Unreadable> {
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let at = usize::from(self.index.slab[op].target().0);
        let name = self.accounts[at].name.clone();
        let mut holds = self.index.holds().iter();
        if holds.any(|hold| hold.covers(&name, &event.event.object, record_id)) {
            self.index.make_paused(op);
            return Ok(Prepared::Settled);
        }
        if let Some(due) = due(now, event.event.scheduled_at_ms.unwrap_or(0)) {
            self.index.make_timed(op, OpState::Scheduled, due);
            return Ok(Prepared::Settled);
        }
        let record = RecordHash(event.record_hash);
        let (mut states, state_at) = self
            .read_state(journal, record, &event.event.object, record_id)
            .ok_or(Unreadable)?;
        let mut progress = self.progress_of(journal, op, position, event, &states[0], &name);
        let hurried = self.index.slab[op].has(OpFlags::HURRIED);
        if let Some(due) = due(now, progress.due_ms).filter(|_| !hurried) {
            self.index.make_timed(op, OpState::Backoff, due);
            return Ok(Prepared::Settled);
        }
        let intent_logged = self.index.slab[op].has(OpFlags::INTENT_LOGGED);
        if intent_logged && progress.resume == Resume::Normal {
            // The engine stopped between this call and its outcome.
            progress.resume = Resume::LookUp;
            progress.unknown_since_ms = now.wall.0;
        }
        let fold = match self.first_end(event, &name, &states[0], &progress) {
            Some(_) => Fold::one(event, position),
            None => {
                let reach = self.reach(at, &progress, &states[0], intent_logged);
                let unlinked = Link::Unlinked;
                let link = states[0]
                    .target(&name)
                    .map_or(&unlinked, |known| &known.link);
                self.fold(journal, op, event, link, reach)?
            }
        };
        if progress.seq != fold.lead.seq {
            let lead = &fold.lead;
            progress = progress.handed_to(lead.seq, lead.operation as u8, lead.event.get());
        }
        if let Some(remote_id) = fold
            .remote_id
            .as_deref()
            .filter(|_| progress.resume == Resume::Normal)
        {
            states[0].target_mut(&name).adopt(remote_id);
        }
        let unlinked = Link::Unlinked;
        let link = states[0]
            .target(&name)
            .map_or(&unlinked, |known| &known.link);
        let operation = fold.operation(link);
        let item = Item::new(op, record, &fold, operation, progress, (states, state_at));
        Ok(self.prepare_item(now, journal, &name, event, &fold, item))
    }

    /// How far the operation has come: what the record's newest state says of it, or of the newer
    /// one that took it into its call.
    fn progress_of(
        &mut self,
        journal: &mut impl Journal,
        op: OpIndex,
        position: Lsn,
        event: &AcceptedEvent<'_>,
        state: &RecordState,
        account: &str,
    ) -> Progress {
        let seq = OperationSeq(event.operation_seq);
        let last = state.target(account).and_then(|known| known.last.as_ref());
        // An open outcome is always that of the record's front, alone or folded into a newer one.
        let mut progress = last
            .filter(|last| !last.state.is_final() && (last.seq == seq || last.folded > 0))
            .cloned()
            .unwrap_or_else(|| Progress::new(seq, event.event.operation as u8, position.get()));
        if progress.key.number == 0 && self.index.slab[op].has(OpFlags::REDRIVEN) {
            progress.key = self.last_key(journal, RecordHash(event.record_hash), account, seq);
        }
        progress
    }

    /// The end of the front operation, if it needs no call: nothing is folded into it.
    fn first_end(
        &self,
        event: &AcceptedEvent<'_>,
        account: &str,
        state: &RecordState,
        progress: &Progress,
    ) -> Option<(State, Option<Reason>)> {
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        if event.action_at(account) == TargetAction::Skip {
            return Some((State::SkippedByRule, None));
        }
        let target = state.target(account);
        match step(
            event.event.operation,
            changed_at_ms,
            target,
            progress.resume,
        ) {
            Step::End(state, reason) => Some((state, reason)),
            Step::Call { .. } => None,
        }
    }

    fn reach(
        &self,
        account: usize,
        progress: &Progress,
        state: &RecordState,
        intent_logged: bool,
    ) -> Reach {
        let account = &self.accounts[account];
        if !account.plan.as_ref().is_some_and(|plan| plan.fold) {
            return Reach::One;
        }
        if progress.is_frozen() {
            return if progress.folded == 0 {
                Reach::One
            } else {
                Reach::Frozen(progress.folded)
            };
        }
        let unlinked = state
            .target(&account.name)
            .is_none_or(|known| known.link == Link::Unlinked);
        let never_sent = unlinked && progress.attempts.is_empty() && !intent_logged;
        if never_sent {
            Reach::Unborn
        } else {
            Reach::Far
        }
    }

    fn prepare_item(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        event: &AcceptedEvent<'_>,
        fold: &Fold,
        mut item: Item,
    ) -> Prepared {
        let (state, reason, detail) = if event.action_at(account) == TargetAction::Skip {
            (State::SkippedByRule, None, String::new())
        } else if fold.unborn {
            let link = &mut item.states[0].target_mut(account).link;
            *link = Link::Deleted {
                changed_at_ms: item.lead.changed_at_ms,
            };
            (State::Synced, Some(Reason::Absent), String::new())
        } else {
            let target = item.states[0].target(account);
            match step(
                item.operation,
                item.lead.changed_at_ms,
                target,
                item.progress.resume,
            ) {
                Step::End(state, reason) => (state, reason, String::new()),
                Step::Call { kind, beneath } => {
                    // An UPDATE at the front wants the undelivered fields beneath, whatever the
                    // operations folded into it are.
                    let beneath = beneath
                        || (event.event.operation == Operation::Update && kind == CallKind::Upsert);
                    match self.payload(event, account, &item, fold, kind, beneath) {
                        Ok(payload) => {
                            item.kind = Some(kind);
                            return Prepared::Item(Box::new(item), payload);
                        }
                        Err(unsendable) => {
                            (State::Failed, Some(unsendable.reason), unsendable.detail)
                        }
                    }
                }
            }
        };
        item.progress.state = state;
        item.progress.reason = reason;
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, account, item, detail);
        Prepared::Settled
    }

    /// What is sent of the record.
    fn payload(
        &self,
        event: &AcceptedEvent<'_>,
        account: &str,
        item: &Item,
        fold: &Fold,
        kind: CallKind,
        beneath: bool,
    ) -> Result<Payload, Unsendable> {
        let plan = self
            .accounts
            .iter()
            .find(|known| &*known.name == account)
            .and_then(|known| known.plan.as_ref());
        let plan = plan.ok_or(Unsendable {
            reason: Reason::NoAccount,
            detail: String::new(),
        })?;
        let mapping = plan.mappings.get(&*event.event.object);
        let fields = if kind.writes_fields() {
            let own = match &fold.data {
                Some(data) => data.as_str(),
                None => event.event.data.map_or("{}", |data| data.text()),
            };
            let target = item.states[0].target(account);
            let ground = target.filter(|target| beneath && !target.undelivered.is_empty());
            let data: Cow<'_, str> = match ground.and_then(|target| object(&target.undelivered)) {
                Some(undelivered) => Cow::Owned(composed(undelivered, object(own.as_bytes()))),
                None => Cow::Borrowed(own),
            };
            match mapping {
                Some(mapping) => mapped(mapping, &data, write_of(item.operation, kind))?,
                None => unmapped(&data, item.record_id())?,
            }
        } else {
            "{}".to_owned()
        };
        Ok(Payload {
            object: mapping
                .map_or(&*event.event.object, |mapping| mapping.remote())
                .to_owned(),
            fields,
            traceparent: event.event.traceparent.as_deref().map(str::to_owned),
        })
    }
}

/// What a mapping has to see to: an UPDATE names some fields only.
fn write_of(operation: Operation, kind: CallKind) -> Write {
    match (operation, kind) {
        (_, CallKind::Update) | (Operation::Update, _) => Write::Update,
        (Operation::Create, _) => Write::Create,
        (Operation::Upsert | Operation::Delete | Operation::Read, _) => Write::Upsert,
    }
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
