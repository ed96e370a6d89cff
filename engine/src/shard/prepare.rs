//! From a ready operation to what its call sends, or to its end without one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use wal::Lsn;

use super::Shard;
use super::dispatch::{composed, object};
use super::fold::{FOLDED_ANY, Fold, Reach, Unreadable};
use super::item::Item;
use super::links::{ParentWait, Parents, Resolved};
use super::matching::with_key;
use super::refused::Asker;
use super::two_way::{Role, SYSTEM_A};
use crate::decide::{Step, step, tells_the_id};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::{due, lsn};
use crate::journal::Journal;
use crate::mapping::{Mapping, Write, write_unmapped};
use crate::operation_slab::{OpFlags, OpIndex, OpState, Target};
use crate::provider::{CallKind, Definition, KeySupport};
use crate::record::{Attempt, KeyUse, Link, Progress, RecordState, Resume};
use crate::state::{CallClass, Reason, State};
use crate::time::Now;

/// What became of a ready operation.
#[derive(Debug)]
pub(super) enum Prepared {
    /// It can be sent.
    Item(Box<Item>, Payload),
    /// It ended, or waits for something else than a call.
    Settled,
    /// It has to be asked for, and too much is asked for already: put back, to come again.
    Later,
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
pub(super) enum Hindrance {
    /// It never can.
    Unsendable { reason: Reason, detail: String },
    /// A record it refers to is not linked yet.
    Unlinked,
    /// The owners of the records it refers to were asked.
    Asked,
    /// They cannot be asked yet.
    Full,
}

/// What was folded cannot go in one call; at most so many behind the front may.
pub(super) struct Fewer(usize);

impl Fold {
    /// Asks for a shorter fold where one operation of several may be all that cannot be sent: it has
    /// to fail alone, as it would without folding.
    fn fewer(&self, hindrance: &Hindrance) -> Result<(), Fewer> {
        let unsendable = matches!(hindrance, Hindrance::Unsendable { .. });
        if !unsendable || self.is_whole || self.folded.is_empty() {
            return Ok(());
        }
        Err(Fewer(self.folded.len() / 2))
    }
}

impl Hindrance {
    fn mapping(detail: impl Into<String>) -> Self {
        Self::Unsendable {
            reason: Reason::Mapping,
            detail: detail.into(),
        }
    }
}

impl<T> Shard<T> {
    /// Looks at one operation, the front of its lane, which is in no list.
    pub(super) fn prepare(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        op: OpIndex,
    ) -> Prepared {
        let parents = self.links.take(op);
        let mut event_bytes = std::mem::take(&mut self.scratch.event);
        let position = lsn(self.index.slab[op].position());
        let read = journal.read(position, &mut event_bytes);
        let prepared = match codec::decode(&event_bytes).ok().filter(|_| read.is_ok()) {
            Some(event) => {
                let account = usize::from(self.index.slab[op].target().0);
                let event = event.asked_of(&self.accounts[account].name);
                self.prepare_event(now, journal, op, position, &event, parents)
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
        parents: Option<Parents>,
    ) -> Result<Prepared, Unreadable> {
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let at = usize::from(self.index.slab[op].target().0);
        let name = self.accounts[at].name.clone();
        self.note_flow(at, op, &event.event);
        let mut holds = self.index.holds().iter();
        if holds.any(|hold| hold.covers(&name, &event.event.object, record_id)) {
            self.index.make_paused(op);
            return Ok(Prepared::Settled);
        }
        let asker = Asker {
            record: RecordHash(event.record_hash),
            front: OperationSeq(event.operation_seq),
        };
        if self.is_held_back(Target(at as u16), &event.event.object, asker) {
            self.index.make_paused(op);
            return Ok(Prepared::Settled);
        }
        if let Some(due) = due(now, event.event.scheduled_at_ms.unwrap_or(0)) {
            self.index.make_timed(op, OpState::Scheduled, due);
            return Ok(Prepared::Settled);
        }
        let mut folded_max = parents
            .as_ref()
            .map_or(FOLDED_ANY, |parents| parents.folded_max);
        loop {
            let parents = parents.clone();
            match self.prepare_fold(now, journal, op, position, event, (parents, folded_max))? {
                Ok(prepared) => return Ok(prepared),
                Err(Fewer(folded)) => folded_max = folded,
            }
        }
    }

    /// Prepares the front operation with at most so many behind it.
    fn prepare_fold(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        op: OpIndex,
        position: Lsn,
        event: &AcceptedEvent<'_>,
        (parents, folded_max): (Option<Parents>, usize),
    ) -> Result<Result<Prepared, Fewer>, Unreadable> {
        let at = usize::from(self.index.slab[op].target().0);
        let name = self.accounts[at].name.clone();
        let record = RecordHash(event.record_hash);
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let (mut states, state_at) = self
            .read_state(journal, record, &event.event.object, record_id)
            .ok_or(Unreadable)?;
        let mut progress = self.progress_of(journal, op, position, event, &states[0], &name);
        // What waits for a parent is looked at when there is news of it, and asks again then.
        let hurried =
            self.index.slab[op].has(OpFlags::HURRIED) || progress.reason == Some(Reason::Parent);
        if let Some(due) = due(now, progress.due_ms).filter(|_| !hurried) {
            self.index.make_timed(op, OpState::Backoff, due);
            return Ok(Ok(Prepared::Settled));
        }
        let keys = self.key_support(at, &event.event.object);
        let intent_logged = self.index.slab[op].has(OpFlags::INTENT_LOGGED)
            && !self.is_unsent(record, OperationSeq(event.operation_seq), op);
        // As the log tells it. A create that was under way when the engine stopped may have carried
        // any of the operations that wait: none of them may be left out of what comes next, or an
        // older value would be written after a newer one.
        let frozen = progress.is_frozen();
        let untold =
            intent_logged && (progress.resume.is_normal() || progress.resume == Resume::Create);
        if untold {
            // The engine stopped between this call and its outcome.
            progress.unknown_since_ms = now.wall.0;
            let again = keys.keyed_create && !keys.look_up && !keys.upsert;
            progress.resume = if again {
                Resume::Create
            } else if keys.unique {
                Resume::Upsert
            } else {
                Resume::LookUp
            };
        }
        let link = states[0].target(&name).map(|known| &known.link);
        if link == Some(&Link::Doubtful) && self.is_decided(op, &progress, keys) {
            progress.resume = Resume::Create;
        }
        let mut fold = match self.first_end(now, event, &name, &states[0], &progress, keys) {
            Some(_) => Fold::one(event, position),
            None => {
                // A dead letter that comes back was sent in its former life.
                let redriven = self.index.slab[op].has(OpFlags::REDRIVEN);
                // What takes a mark away is an upsert, of which no intent tells that it went.
                let deleted = matches!(link, Some(Link::Deleted { .. }));
                let by_upsert = deleted && keys.marks_deletes && keys.upsert;
                let sent = intent_logged || redriven || by_upsert;
                let reach = self.reach(at, &progress, frozen, &states[0], sent);
                let unlinked = Link::Unlinked;
                let link = states[0]
                    .target(&name)
                    .map_or(&unlinked, |known| &known.link);
                let mut fold = self.fold(journal, op, event, link, (reach, folded_max))?;
                // Part of it written after the whole would be older values upon newer ones.
                fold.is_whole = frozen || untold;
                fold
            }
        };
        if progress.seq != fold.lead.seq {
            let lead = &fold.lead;
            let last = states[0]
                .target(&name)
                .and_then(|known| known.last.as_ref());
            // It may have led before: then requests went out under its keys.
            let led = lead.seq < progress.seq || last.is_some_and(|last| last.seq == lead.seq);
            let key = led.then(|| self.last_key(journal, record, &name, lead.seq, last));
            if lead.seq < progress.seq && progress.key.number > 0 {
                // The state will tell of the older one, and the newer one leads again after it.
                let newer = (record, progress.seq, self.index.slab[op].target());
                self.unlogged.insert(newer, progress.key);
            }
            progress = progress.handed_to(lead.seq, lead.operation as u8, lead.event.get());
            progress.key = key.unwrap_or_default();
        }
        let newest = (record, progress.seq, self.index.slab[op].target());
        if let Some(key) = self.unlogged.get(&newest) {
            progress.key = *key;
        }
        if untold && progress.resume != Resume::Create {
            // The key went out with the create, which no outcome tells of, and is no other request's.
            progress.key = KeyUse {
                number: progress.key.number.saturating_add(1),
                digest: 0,
            };
        }
        if let Some(remote_id) = fold
            .remote_id
            .as_deref()
            .filter(|_| progress.resume.is_normal())
        {
            let target = states[0].target_mut(&name);
            if tells_the_id(event.event.operation, &target.link, keys) {
                target.adopt(remote_id);
            }
        }
        let unlinked = Link::Unlinked;
        let link = states[0]
            .target(&name)
            .map_or(&unlinked, |known| &known.link);
        let operation = fold.operation(link);
        let mut item = Item::new(op, record, &fold, operation, progress, (states, state_at));
        let aside = self.prepare_two_way(now, journal, &name, event, &mut fold, &mut item);
        if let Some(aside) = aside {
            return Ok(Ok(self.set_aside(now, journal, &name, item, aside)));
        }
        Ok(self.prepare_item(now, journal, &name, event, &fold, item, (keys, parents)))
    }

    fn key_support(&self, account: usize, object: &str) -> KeySupport {
        let plan = self.accounts[account].plan.as_ref();
        plan.map_or(KeySupport::FULL, |plan| plan.key_support(object))
    }

    fn is_unsent(&self, record: RecordHash, front: OperationSeq, op: OpIndex) -> bool {
        let create = (record, front, self.index.slab[op].target());
        !self.unsent.is_empty() && self.unsent.contains(&create)
    }

    /// Whether an operator decided that a record in doubt is to be made: by a retry, where nobody
    /// can be asked.
    fn is_decided(&self, op: OpIndex, progress: &Progress, keys: KeySupport) -> bool {
        self.index.slab[op].has(OpFlags::REDRIVEN)
            && progress.attempts.is_empty()
            && progress.resume.is_normal()
            && !keys.look_up
            && !keys.upsert
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
        let record = RecordHash(event.record_hash);
        if progress.key.number == 0 && self.index.slab[op].has(OpFlags::REDRIVEN) {
            progress.key = self.last_key(journal, record, account, seq, last);
        } else if progress.key.number == 0 && seq.may_come_again() {
            let key = self.key_of(journal, record, account, seq, last);
            progress.key = key.unwrap_or_default();
        }
        progress
    }

    /// Whether System A said this knowing that the account had deleted the record: it comes after
    /// that, whatever times the two of them name.
    fn knows_of_delete(
        &self,
        now: Now,
        event: &AcceptedEvent<'_>,
        state: &RecordState,
        account: &str,
    ) -> bool {
        let link = state.target(account).map(|target| &target.link);
        let told = state
            .target(SYSTEM_A)
            .and_then(|target| target.base.as_deref());
        let (Some(Link::Deleted { changed_at_ms }), Some(told)) = (link, told) else {
            return false;
        };
        let said = self.said(now, event);
        told.told().knew_of_delete(*changed_at_ms, said)
    }

    /// The end of the front operation, if it needs no call: nothing is folded into it.
    fn first_end(
        &self,
        now: Now,
        event: &AcceptedEvent<'_>,
        account: &str,
        state: &RecordState,
        progress: &Progress,
        keys: KeySupport,
    ) -> Option<(State, Option<Reason>)> {
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        match event.action_at(account) {
            TargetAction::Skip => return Some((State::SkippedByRule, None)),
            TargetAction::Observe => return Some((State::Synced, None)),
            TargetAction::Sync | TargetAction::Instead(_) => {}
        }
        let target = state.target(account);
        let knowing = self.knows_of_delete(now, event, state, account);
        match step(
            event.event.operation,
            if knowing { i64::MAX } else { changed_at_ms },
            target,
            progress.resume,
            keys,
        ) {
            Step::End(state, reason) => Some((state, reason)),
            Step::Call { .. } => None,
        }
    }

    fn reach(
        &self,
        account: usize,
        progress: &Progress,
        frozen: bool,
        state: &RecordState,
        sent: bool,
    ) -> Reach {
        let account = &self.accounts[account];
        if !account.plan.as_ref().is_some_and(|plan| plan.fold) {
            return Reach::One;
        }
        if frozen {
            return if progress.folded == 0 {
                Reach::One
            } else {
                Reach::Frozen(progress.folded)
            };
        }
        let absent = state
            .target(&account.name)
            .is_none_or(|known| matches!(known.link, Link::Unlinked | Link::Deleted { .. }));
        let never_sent = absent && progress.attempts.is_empty() && !sent;
        if never_sent {
            Reach::Unborn
        } else {
            Reach::Far
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what was found of one operation, gathered by its only caller"
    )]
    fn prepare_item(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        event: &AcceptedEvent<'_>,
        fold: &Fold,
        mut item: Item,
        (keys, parents): (KeySupport, Option<Parents>),
    ) -> Result<Prepared, Fewer> {
        if event.action_at(account) == TargetAction::Skip {
            return Ok(self.end(now, journal, account, item, State::SkippedByRule, None, ""));
        }
        if fold.unborn {
            let link = &mut item.states[0].target_mut(account).link;
            *link = Link::Deleted {
                changed_at_ms: item.lead.changed_at_ms,
            };
            let absent = Some(Reason::Absent);
            return Ok(self.end(now, journal, account, item, State::Synced, absent, ""));
        }
        let target = item.states[0].target(account);
        let resume = item.progress.resume;
        let at = usize::from(self.index.slab[item.op].target().0);
        let role = self.accounts[at]
            .plan
            .as_ref()
            .map_or(Role::Provider, |plan| plan.role);
        let changed_at_ms = item.lead.changed_at_ms;
        let knowing = self.knows_of_delete(now, event, &item.states[0], account);
        let made_at_ms = if knowing { i64::MAX } else { changed_at_ms };
        let mut next = match role {
            Role::Provider => step(item.operation, made_at_ms, target, resume, keys),
            // It is told of everything alike, by its own key.
            Role::SystemA => Step::Call {
                kind: CallKind::Upsert,
                beneath: false,
            },
        };
        if let Step::Call {
            kind: CallKind::Match,
            ..
        } = next
        {
            let asked = parents.clone();
            match self.match_payload(journal, account, event, &mut item, fold, asked) {
                Ok(Some(payload)) => {
                    item.kind = Some(CallKind::Match);
                    return Ok(Prepared::Item(Box::new(item), payload));
                }
                Ok(None) => {
                    let target = item.states[0].target(account);
                    let resume = item.progress.resume;
                    next = step(item.operation, made_at_ms, target, resume, keys);
                }
                Err(hindrance) => {
                    fold.fewer(&hindrance)?;
                    return Ok(self.hinder(now, journal, account, item, hindrance));
                }
            }
        }
        match next {
            Step::End(state, reason) => {
                let undecided = reason == Some(Reason::NeedsDecision);
                if undecided {
                    // None of the record's other operations may make it either.
                    item.states[0].target_mut(account).doubt();
                }
                if item.operation == Operation::Delete {
                    item.states[0]
                        .target_mut(account)
                        .delete_again(changed_at_ms);
                }
                let detail = if undecided { UNDECIDED } else { "" };
                Ok(self.end(now, journal, account, item, state, reason, detail))
            }
            Step::Call { kind, beneath } => {
                // An UPDATE at the front wants the undelivered fields beneath, whatever the
                // operations folded into it are.
                let updates = event.event.operation == Operation::Update;
                let makes = matches!(kind, CallKind::Upsert | CallKind::Create);
                let beneath = beneath || (updates && makes);
                let sent = Sent { kind, beneath };
                match self.payload(journal, account, event, &item, fold, sent, parents) {
                    Ok(payload) => {
                        item.kind = Some(kind);
                        Ok(Prepared::Item(Box::new(item), payload))
                    }
                    Err(hindrance) => {
                        fold.fewer(&hindrance)?;
                        Ok(self.hinder(now, journal, account, item, hindrance))
                    }
                }
            }
        }
    }

    fn hinder(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        mut item: Item,
        hindrance: Hindrance,
    ) -> Prepared {
        match hindrance {
            Hindrance::Asked => Prepared::Settled,
            Hindrance::Full => {
                self.index.put_back(item.op);
                Prepared::Later
            }
            Hindrance::Unsendable { reason, detail } => {
                if self.may_have_made(&item) {
                    item.states[0].target_mut(account).doubt();
                }
                let reason = Some(reason);
                self.end(now, journal, account, item, State::Failed, reason, &detail)
            }
            Hindrance::Unlinked => {
                let plan = self.accounts[usize::from(self.index.slab[item.op].target().0)]
                    .plan
                    .as_ref();
                let timeout = plan.map_or(Duration::MAX, |plan| plan.parent_timeout);
                match self.wait_for_parent(now, &mut item, timeout) {
                    ParentWait::Begins => {
                        self.log_item(now, journal, account, item, String::new());
                    }
                    ParentWait::Waits => {}
                    ParentWait::TimedOut => {
                        let reason = Some(Reason::Parent);
                        let detail = "a record it refers to was not linked in time";
                        return self.end(
                            now,
                            journal,
                            account,
                            item,
                            State::Failed,
                            reason,
                            detail,
                        );
                    }
                }
                Prepared::Settled
            }
        }
    }

    /// Whether an earlier call of what cannot be sent any more may have made its record: one that
    /// nothing usable came of, or one that was under way when the engine stopped, of which the log
    /// tells for creates only.
    fn may_have_made(&self, item: &Item) -> bool {
        let at = usize::from(self.index.slab[item.op].target().0);
        let unclear =
            |attempt: &Attempt| matches!(attempt.class, CallClass::Transient | CallClass::Unknown);
        let called = item.oldest < self.born || item.progress.attempts.iter().any(unclear);
        called && item.operation.writes_fields() && self.key_support(at, item.object()).upsert
    }

    /// Ends an item without a call.
    #[expect(clippy::too_many_arguments, reason = "the parts of one end")]
    fn end(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        mut item: Item,
        state: State,
        reason: Option<Reason>,
        detail: &str,
    ) -> Prepared {
        item.progress.state = state;
        item.progress.reason = reason;
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, account, item, detail.to_owned());
        Prepared::Settled
    }

    /// What is sent of the record.
    #[expect(
        clippy::too_many_arguments,
        reason = "what was found of one operation, gathered by its only caller"
    )]
    pub(super) fn payload(
        &mut self,
        journal: &mut impl Journal,
        account: &Arc<str>,
        event: &AcceptedEvent<'_>,
        item: &Item,
        fold: &Fold,
        sent: Sent,
        parents: Option<Parents>,
    ) -> Result<Payload, Hindrance> {
        let at = usize::from(self.index.slab[item.op].target().0);
        let plan = self.accounts[at].plan.clone();
        let plan = plan.ok_or(Hindrance::Unsendable {
            reason: Reason::NoAccount,
            detail: String::new(),
        })?;
        let mapping = plan.mappings.get(&*event.event.object);
        let mark = mapping.and_then(Mapping::deletion_mark);
        let fields = if let Some(mark) = mark.filter(|_| marks(item, sent.kind)) {
            mark.fields()
        } else if sent.kind.writes_fields() {
            let own = match &fold.data {
                Some(data) => data.as_str(),
                None => event.event.data.map_or("{}", |data| data.text()),
            };
            let target = item.states[0].target(account);
            let ground = target.filter(|target| sent.beneath && !target.undelivered.is_empty());
            let data: Cow<'_, str> = match ground.and_then(|target| object(&target.undelivered)) {
                Some(undelivered) => Cow::Owned(composed(undelivered, object(own.as_bytes()))),
                None => Cow::Borrowed(own),
            };
            let data = object(data.as_bytes())
                .ok_or_else(|| Hindrance::mapping("the data is no object"))?;
            let mut out = Vec::new();
            match mapping.filter(|mapping| !mapping.is_plain()) {
                Some(mapping) => {
                    let asked = (parents, fold.folded_max);
                    let parents =
                        match self.resolve_parents(journal, account, mapping, item, data, asked) {
                            Resolved::Known(parents) => parents,
                            Resolved::Asked => return Err(Hindrance::Asked),
                            Resolved::Full => return Err(Hindrance::Full),
                            Resolved::Unlinked => return Err(Hindrance::Unlinked),
                        };
                    let resolve = |object: &str, id: &str| parents.remote_id(object, id);
                    let write = write_of(item.operation, sent.kind);
                    mapping
                        .apply(data, write, &resolve, &mut out)
                        .map_err(|failure| Hindrance::mapping(failure.to_string()))?;
                }
                None => {
                    write_unmapped(data, item.record_id(), &mut out);
                }
            }
            let fields = String::from_utf8(out)
                .map_err(|_| Hindrance::mapping("the fields are no UTF-8"))?;
            let remote = mapping.map_or(&*event.event.object, |mapping| mapping.remote());
            let key = plan.definition.external_id(remote);
            let fields = match key.filter(|_| item.progress.resume == Resume::Adopt) {
                Some(key) => with_key(&fields, key, item.record_id()),
                None => fields,
            };
            match mark.filter(|_| lifts_mark(item, sent.kind)) {
                Some(mark) => mark.lifted_in(&fields),
                None => fields,
            }
        } else {
            names_asked_for(sent.kind, &plan.definition, mapping)
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

/// What a person is told who has to decide.
const UNDECIDED: &str = "the record may exist, and the provider cannot be asked by its key: send \
                         an event with its `remote_id`, or retry to create it";

/// The call that an operation needs.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) kind: CallKind,
    /// Undelivered fields of earlier operations lie beneath its own.
    pub(super) beneath: bool,
}

/// Whether a call marks its record as deleted.
fn marks(item: &Item, kind: CallKind) -> bool {
    item.operation == Operation::Delete && kind == CallKind::Update
}

/// Whether a write says that its record is there, where one may be found that is marked as deleted.
fn lifts_mark(item: &Item, kind: CallKind) -> bool {
    let makes = matches!(kind, CallKind::Create | CallKind::Upsert);
    let found = matches!(item.progress.resume, Resume::Update | Resume::Adopt);
    makes || found || matches!(item.operation, Operation::Create | Operation::Upsert)
}

/// A read asks for what the mapping knows and for System A's key, by which a record that is new here
/// is known; other calls without fields name none.
fn names_asked_for(kind: CallKind, definition: &Definition, mapping: Option<&Mapping>) -> String {
    let mapping = mapping.filter(|mapping| kind == CallKind::Read && !mapping.is_plain());
    let names = mapping.into_iter().flat_map(|mapping| {
        let key = definition.record_key(mapping.remote());
        mapping.remote_fields().chain(key)
    });
    let nulls = names.map(|name| (name.to_owned(), serde_json::Value::Null));
    serde_json::Value::Object(nulls.collect()).to_string()
}

/// What a mapping has to see to: an UPDATE names some fields only.
fn write_of(operation: Operation, kind: CallKind) -> Write {
    match (operation, kind) {
        (_, CallKind::Update) | (Operation::Update, _) => Write::Update,
        (Operation::Create, _) => Write::Create,
        (Operation::Upsert | Operation::Delete | Operation::Read | Operation::Pull, _) => {
            Write::Upsert
        }
    }
}
