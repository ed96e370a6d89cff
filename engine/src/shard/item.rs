//! One record in a call: what is sent of it, and how its outcome goes to the log.

use std::time::Duration;

use wal::Lsn;

use super::fold::{Fold, Told, Unreadable};
use super::refused::Asker;
use super::telling::Telling;
use super::{Observation, Shard};
use crate::event::Operation;
use crate::id::{OperationId, OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::{AppendError, Class, Journal, Kind};
use crate::json::RawObject;
use crate::lane;
use crate::merge::Fields;
use crate::operation_slab::OpIndex;
use crate::provider::CallKind;
use crate::record::{Attempt, DETAIL_MAX, Folded, Progress, RecordState, StateFrame, TargetState};
use crate::state::{CallClass, Reason, State};
use crate::time::Now;

use super::dispatch::composed;

/// A record from the decision to call until the outcome of the call is logged. At most one exists
/// for each record and target.
#[derive(Debug, Clone)]
pub(super) struct Item {
    /// The front of the record's lane.
    pub(super) op: OpIndex,
    pub(super) record: RecordHash,
    /// What the call does; `None` when the operation ends without one.
    pub(super) kind: Option<CallKind>,
    /// What the call stands for: the operation, or what the folded ones amount to.
    pub(super) operation: Operation,
    /// The newest operation, which the call is named after.
    pub(super) lead: Told,
    /// Where the oldest one's event lies.
    pub(super) oldest: Lsn,
    pub(super) folded: Vec<Folded>,
    pub(super) progress: Progress,
    /// The record's states as the call found them, its own first.
    pub(super) states: Vec<RecordState>,
    /// Where they lie; zero when the log has none.
    pub(super) state_at: Lsn,
    /// The provider's id that the events name.
    pub(super) remote_id: Option<String>,
    /// What System A says of the record, where that is remembered.
    pub(super) said: Option<Box<Fields>>,
    /// What System A is told, oldest first.
    pub(super) tellings: Vec<Telling>,
    /// System A's key of the record that this one, which it is to delete, is part of now.
    pub(super) merged_into: Option<String>,
    /// When its call left, ms since the epoch.
    pub(super) asked_at_ms: i64,
    /// Since when it waits for a record that it refers to, ms since the epoch.
    pub(super) waits_since_ms: Option<i64>,
    /// When the record was deleted that a read looks for again, ms since the epoch.
    pub(super) deleted_at_ms: Option<i64>,
}

impl Item {
    pub(super) fn new(
        op: OpIndex,
        record: RecordHash,
        fold: &Fold,
        operation: Operation,
        progress: Progress,
        (states, state_at): (Vec<RecordState>, Lsn),
    ) -> Self {
        let waits = progress.reason == Some(Reason::Parent) && !progress.state.is_final();
        let mut item = Self {
            waits_since_ms: waits.then_some(progress.updated_at_ms),
            op,
            record,
            kind: None,
            operation,
            lead: fold.lead,
            oldest: fold.lead.event,
            folded: fold.folded.clone(),
            progress,
            states,
            state_at,
            remote_id: fold.remote_id.clone(),
            said: None,
            tellings: Vec::new(),
            merged_into: None,
            asked_at_ms: 0,
            deleted_at_ms: None,
        };
        let oldest = item.events().next();
        item.oldest = oldest.unwrap_or(item.lead.event);
        item
    }

    /// The id its call goes by.
    pub(super) fn id(&self) -> OperationId {
        OperationId {
            record: self.record,
            seq: self.lead.seq,
        }
    }

    /// Whether its call before was refused for its credentials.
    pub(super) fn met_a_refused_token(&self) -> bool {
        let last = self.progress.attempts.last();
        last.is_some_and(|last| last.class == CallClass::Unauthorized)
    }

    pub(super) fn asker(&self) -> Asker {
        Asker {
            record: self.record,
            front: self.front_seq(),
        }
    }

    /// The oldest of its operations.
    pub(super) fn front_seq(&self) -> OperationSeq {
        self.folded.first().map_or(self.lead.seq, |front| front.seq)
    }

    pub(super) fn object(&self) -> &str {
        &self.states[0].object
    }

    pub(super) fn record_id(&self) -> &str {
        &self.states[0].record_id
    }

    /// Where the events of all its operations lie, oldest first.
    fn events(&self) -> impl Iterator<Item = Lsn> + use<'_> {
        let older = |folded: &Folded| Lsn::checked(folded.event).unwrap_or(Lsn::ZERO);
        self.folded.iter().map(older).chain([self.lead.event])
    }
}

impl<T> Shard<T> {
    /// Brings an item's states up to date with what was logged of the record meanwhile: another
    /// target's outcome, an operator's drop. False when they cannot be read.
    pub(super) fn refresh(&mut self, journal: &mut impl Journal, item: &mut Item) -> bool {
        let at = self.index.state_position(item.record).unwrap_or(Lsn::ZERO);
        if at == item.state_at {
            return true;
        }
        let (object, record_id) = (item.object().to_owned(), item.record_id().to_owned());
        match self.read_state(journal, item.record, &object, &record_id) {
            Some((states, at)) => {
                (item.states, item.state_at) = (states, at);
                true
            }
            None => false,
        }
    }

    /// Writes what became of an item and applies it. `detail` tells of an end without a call.
    pub(super) fn log_item(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        mut item: Item,
        detail: String,
    ) {
        if !detail.is_empty() {
            item.progress.push_attempt(Attempt {
                at_ms: now.wall.0,
                status: 0,
                class: CallClass::Permanent,
                detail: clipped(detail),
            });
        }
        self.locate(&mut item);
        let state = item.progress.state;
        let left = if state == State::Failed && item.operation.writes_fields() {
            match self.data_of(journal, item.events()) {
                Ok(data) => data,
                // Without its fields nothing could be laid beneath a later UPDATE: it stays open, for
                // the operator, like every record that cannot be read.
                Err(Unreadable) => return self.pause_unlogged(&item),
            }
        } else {
            None
        };
        let target = self.index.slab[item.op].target();
        self.unlogged.remove(&(item.record, item.lead.seq, target));
        if state.is_final() {
            self.unsent.remove(&(item.record, item.front_seq(), target));
            if !self.unlogged.is_empty() {
                for folded in &item.folded {
                    self.unlogged.remove(&(item.record, folded.seq, target));
                }
            }
            self.release_object(target, item.object(), item.asker());
        }
        let target = item.states[0].target_mut(account);
        match state {
            State::Synced if !matches!(item.operation, Operation::Read | Operation::Pull) => {
                target.undelivered.clear();
            }
            State::Failed => {
                if let Some(left) = left {
                    target.undelivered = undelivered(&target.undelivered, &left);
                }
            }
            _ => {}
        }
        item.progress.folded = item.folded.len() as u32;
        target.last = Some(item.progress);
        let moved = item.states[0]
            .targets
            .iter()
            .position(|target| target.account == account);
        let ended = state.is_final();
        let linked = ended && target_is_linked(&item.states[0], account);
        let (record, op_target) = (item.record, self.index.slab[item.op].target());
        let frame = StateFrame {
            record: item.record.0,
            previous: self
                .index
                .state_position(item.record)
                .map_or(0, |at| at.get()),
            moved: moved.map(|at| at as u8),
            records: item.states,
            folded: if ended { item.folded } else { Vec::new() },
        };
        self.log_state(now, journal, &frame);
        if linked && !self.fenced {
            self.tell_linked(record, op_target, journal.end());
        }
        if ended && !self.fenced {
            self.observe_end(now, account, &item.lead, state, &frame.folded);
        }
    }

    /// The log cannot be read, and so not take in what became of an item: it waits for the operator.
    /// What went out under its key is remembered as long as the process lives.
    pub(super) fn pause_unlogged(&mut self, item: &Item) {
        let target = self.index.slab[item.op].target();
        let newest = (item.record, item.lead.seq, target);
        self.unlogged.insert(newest, item.progress.key);
        self.index.make_paused(item.op);
    }

    /// Compaction may have moved the events since the call was made.
    fn locate(&self, item: &mut Item) {
        let slab = &self.index.slab;
        let target = slab[item.op].target();
        let lane = lane::of(slab, self.index.lanes_of(item.record), target);
        let Some(lane) = lane else { return };
        let mut positions = lane.iter(slab).map(|op| lsn(slab[op].position()));
        for folded in &mut item.folded {
            if let Some(at) = positions.next() {
                folded.event = at.get();
            }
        }
        if let Some(at) = positions.next() {
            item.lead.event = at;
            item.progress.event = at.get();
        }
    }

    fn observe_end(&mut self, now: Now, account: &str, lead: &Told, end: State, folded: &[Folded]) {
        let took = now.wall.0.saturating_sub(lead.accepted_at_ms).max(0);
        let took = Duration::from_millis(took.unsigned_abs());
        let account: std::sync::Arc<str> = account.into();
        let mut counts: Vec<(Operation, State, u64)> = Vec::new();
        for older in folded {
            let Some(&operation) = Operation::ALL.get(usize::from(older.operation)) else {
                continue;
            };
            let state = older.state(end);
            match counts
                .iter_mut()
                .find(|(known, ended, _)| (*known, *ended) == (operation, state))
            {
                Some((_, _, count)) => *count += 1,
                None => counts.push((operation, state, 1)),
            }
        }
        for (operation, state, count) in counts {
            self.observe(Observation::Folded {
                account: account.clone(),
                operation,
                state,
                count,
            });
        }
        self.observe(Observation::Ended {
            account,
            operation: lead.operation,
            state: end,
            took,
        });
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
            folded: Vec::new(),
        };
        self.log_state(now, journal, &frame);
    }

    /// Appends a state frame and applies it. One that is too large for the log does without what
    /// it can best spare: a record that grew fat must not stop its shard.
    pub(super) fn log_state(&mut self, now: Now, journal: &mut impl Journal, frame: &StateFrame) {
        let mut smaller: Option<StateFrame> = None;
        loop {
            let frame = smaller.as_ref().unwrap_or(frame);
            self.scratch.entry.clear();
            frame.encode(&mut self.scratch.entry);
            match journal.append(Class::Outcome, Kind::State, &[&self.scratch.entry]) {
                Ok(at) => return self.index.apply_state(now, at, frame),
                Err(AppendError::TooLarge) => {
                    let mut less = frame.clone();
                    if !less.shed() {
                        return self.fence();
                    }
                    smaller = Some(less);
                }
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
}

fn target_is_linked(state: &RecordState, account: &str) -> bool {
    let target = state.target(account);
    target.is_some_and(|target| target.link.remote_id().is_some())
}

/// Fields that failed, over those that had failed before.
fn undelivered(before: &[u8], fields: &str) -> Vec<u8> {
    let before = std::str::from_utf8(before).ok().and_then(RawObject::new);
    match before {
        Some(before) => composed(before, RawObject::new(fields)).into_bytes(),
        None => fields.as_bytes().to_vec(),
    }
}

/// At most [`DETAIL_MAX`] bytes of what is told of an attempt.
pub(super) fn clipped(mut detail: String) -> String {
    if detail.len() > DETAIL_MAX {
        let end = (0..=DETAIL_MAX)
            .rev()
            .find(|&at| detail.is_char_boundary(at))
            .unwrap_or(0);
        detail.truncate(end);
    }
    detail
}
