//! Taking what an account shows of a record: compared with what both sides agreed on, and told to
//! whoever does not know it.
//!
//! What comes of it is an event like any other, behind all that the record has. So the record's log
//! is the order in which everybody ends up with the same: a change of System A's that waits and
//! loses is followed by what it lost to.

use std::borrow::Cow;
use std::sync::Arc;

use super::fold::Unreadable;
use super::handoff::provisional_id;
use super::item::{Item, clipped};
use super::links::Parents;
use super::merged::stand_alone;
use super::telling::{Source, write_sources};
use super::two_way::{Role, TwoWay, extra};
use super::{Observation, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Event, Extra, Operation, Priority, Target, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::{Class, Journal, Kind};
use crate::json::{ObjectWriter, RawObject, RawValue, write_string};
use crate::lane;
use crate::mapping::{Mapping, ResolveReference, referred_id};
use crate::merge::{Absorbed, Base, Conflict, Fields, Pending, Said, Sighting, Winner};
use crate::operation_slab::{OpFlags, Target as TargetIndex};
use crate::record::Link;
use crate::state::{Reason, State};
use crate::time::Now;

/// An inner object without members.
const HOLLOW: &str = "{}";
/// How an account whose values are all texts says that there is none.
const EMPTY: &str = "\"\"";

/// What an account shows of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a> {
    /// Its fields, in the account's names.
    pub(super) remote: &'a str,
    /// A mapped field that is not among them is cleared.
    pub(super) whole: bool,
    /// When it was changed there, ms since the epoch.
    pub(super) changed_at_ms: i64,
    /// When it was asked for, ms since the epoch.
    pub(super) read_at_ms: i64,
}

/// A change for others, to be logged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Derived<'a> {
    pub(super) record: RecordHash,
    pub(super) object: &'a str,
    pub(super) record_id: &'a str,
    pub(super) seq: OperationSeq,
    pub(super) operation: Operation,
    pub(super) data: Option<&'a str>,
    pub(super) changed_at_ms: i64,
    /// The account it comes from.
    pub(super) origin: &'a str,
    /// That one's id of the record.
    pub(super) remote_id: Option<&'a str>,
    /// Fields that come from elsewhere.
    pub(super) sources: &'a [Source<'a>],
    /// System A's key of the record that this one is part of now.
    pub(super) merged_into: Option<&'a str>,
    pub(super) targets: &'a [Arc<str>],
}

impl Derived<'_> {
    /// The event that says this, as it lies in the log.
    pub(super) fn encode(&self, now: Now) -> Vec<u8> {
        self.encode_as(now, None)
    }

    /// `late`: it was said then, and is to be compared with what System A has heard.
    fn encode_as(&self, now: Now, late: Option<i64>) -> Vec<u8> {
        let origin = quoted(self.origin);
        let remote_id = self.remote_id.map_or_else(|| "null".to_owned(), quoted);
        let sources = write_sources(self.sources);
        let merged_into = self.merged_into.map(quoted);
        let mut extras = vec![
            Extra {
                name: Cow::Borrowed(extra::ORIGIN),
                value: RawValue::new(&origin),
            },
            Extra {
                name: Cow::Borrowed(extra::REMOTE_ID),
                value: RawValue::new(&remote_id),
            },
        ];
        if !self.sources.is_empty() {
            extras.push(Extra {
                name: Cow::Borrowed(extra::SOURCES),
                value: RawValue::new(&sources),
            });
        }
        if let Some(merged_into) = &merged_into {
            extras.push(Extra {
                name: Cow::Borrowed(extra::MERGED_INTO),
                value: RawValue::new(merged_into),
            });
        }
        let said_at = late.map(|at_ms| at_ms.to_string());
        if let Some(said_at) = &said_at {
            extras.push(Extra {
                name: Cow::Borrowed(extra::LATE),
                value: RawValue::new(said_at),
            });
        }
        let action = match late {
            Some(_) => TargetAction::Observe,
            None => TargetAction::Sync,
        };
        let targets = self.targets.iter().map(|name| Target {
            name,
            action,
            rule: 0,
        });
        let accepted = AcceptedEvent {
            event: Event {
                operation: self.operation,
                provider: None,
                object: Cow::Borrowed(self.object),
                record_id: Some(Cow::Borrowed(self.record_id)),
                remote_id: None,
                data: self.data.and_then(RawObject::new),
                before: None,
                event_id: None,
                changed_at_ms: Some(self.changed_at_ms),
                priority: Priority::DEFAULT,
                scheduled_at_ms: None,
                schema_version: None,
                tenant: None,
                traceparent: None,
                correlation_id: None,
                seq: None,
                extras,
            },
            operation_seq: self.seq.0,
            record_hash: self.record.0,
            accepted_at_ms: now.wall.0,
            producer: None,
            dedup: None,
            targets: targets.collect(),
            rules_version: 0,
            mapping_version: 0,
        };
        let mut payload = Vec::new();
        accepted.encode_into(&mut payload);
        payload
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(&mut out, text);
    String::from_utf8(out).expect("a text is written as text")
}

/// Changes of a record that wait behind the operation that is looked at.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) changes: Vec<Pending>,
    /// The record goes, whether or not it is made again after that.
    pub(super) deletes: bool,
    /// Somebody makes it, or makes it again.
    pub(super) remade: bool,
}

impl<T> Shard<T> {
    /// Brings what an account shows of an item's record in, and says in the item how that ended.
    pub(super) fn absorb(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        shown: Shown<'_>,
        referred: &Parents,
    ) {
        let plan = self.accounts[usize::from(self.index.slab[item.op].target().0)]
            .plan
            .clone();
        let Some(two_way) = plan
            .as_ref()
            .and_then(|plan| plan.two_way.get(item.object()))
            .filter(|two_way| two_way.inbound)
        else {
            return ended(item, State::SkippedByRule, None);
        };
        let mapping = plan
            .as_ref()
            .and_then(|plan| plan.mappings.get(item.object()));
        let target = item.states[0].target(account);
        let born = target.is_none_or(|target| target.base.is_none());
        let own = target.and_then(|target| target.link.remote_id());
        let own = own.map(str::to_owned);
        // Nobody else knows a record that was made there, or is back, even if it has no field yet.
        let made_there = |own: &String| provisional_id(account, own) == item.record_id();
        let news = born && (own.as_ref().is_some_and(made_there) || item.deleted_at_ms.is_some());
        let base = base_of(item, account);
        let resolve = |object: &str, remote_id: &str| {
            referred.remote_id(object, &provisional_id(account, remote_id))
        };
        let fields = match local(mapping, shown, base, &resolve) {
            Ok(fields) => fields,
            Err(detail) => {
                item.progress.result = error_result(&detail);
                return ended(item, State::Failed, Some(Reason::Mapping));
            }
        };
        let Ok(behind) = self.behind_of(journal, item, account) else {
            return ended(item, State::Failed, Some(Reason::Damaged));
        };
        if behind.deletes {
            // System A deletes it: what the account changed goes with it.
            return ended(item, State::Synced, Some(Reason::Unchanged));
        }
        let sighting = Sighting {
            fields: &fields,
            changed_at_ms: shown.changed_at_ms,
            read_at_ms: shown.read_at_ms,
            now_ms: now.wall.0,
        };
        let base = base_of(item, account);
        let mut absorbed = base.observe(&sighting, &behind.changes, &two_way.conflicts);
        if item.deleted_at_ms.is_some() {
            absorbed.complete(&fields, &behind.changes);
            stand_alone(item);
        }
        for conflict in &absorbed.conflicts {
            self.observe(Observation::Conflict {
                account: account.clone(),
                winner: conflict.winner,
            });
        }
        item.progress.result = result(&absorbed);
        let seq = self.number_of_outcome(item);
        let change = absorbed.change.to_json();
        let derived = Derived {
            record: item.record,
            object: item.object(),
            record_id: item.record_id(),
            seq,
            operation: if born {
                Operation::Upsert
            } else {
                Operation::Update
            },
            data: Some(&change),
            changed_at_ms: shown.changed_at_ms,
            origin: account,
            remote_id: own.as_deref(),
            sources: &[],
            merged_into: None,
            targets: &two_way.learners,
        };
        if news || !absorbed.change.is_empty() {
            self.log_derived(now, journal, &derived);
        }
        if !absorbed.restore.is_empty() {
            let restored = Derived {
                operation: Operation::Update,
                data: Some(&absorbed.restore.to_json()),
                targets: std::slice::from_ref(account),
                ..derived
            };
            self.log_derived(now, journal, &restored);
        }
        let undecided = absorbed
            .conflicts
            .iter()
            .any(|conflict| conflict.winner == Winner::Undecided);
        if undecided {
            ended(item, State::Failed, Some(Reason::Conflict));
        } else {
            let unchanged = !news && absorbed.change.is_empty() && absorbed.conflicts.is_empty();
            ended(item, State::Synced, unchanged.then_some(Reason::Unchanged));
        }
    }

    /// Takes up that the record is gone at an account.
    pub(super) fn absorb_delete(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        two_way: &TwoWay,
        deleted_at_ms: i64,
    ) {
        let target = item.states[0].target_mut(account);
        let Some(remote_id) = target.link.remote_id().map(str::to_owned) else {
            return ended(item, State::Synced, Some(Reason::Absent));
        };
        target.base = None;
        target.undelivered.clear();
        let behind = self.behind_of(journal, item, account).unwrap_or_default();
        let ignored = two_way.deletes == super::DeletePolicy::Ignore || !two_way.inbound;
        // A delete that waits for the account says that everybody knows, and maybe that the record was
        // made again since.
        let known = behind.deletes;
        // What waits there goes with the record, as it goes everywhere else.
        let waiting = behind.changes.iter().map(|change| change.changed_at_ms + 1);
        let deleted_at_ms = waiting.filter(|_| !known).fold(deleted_at_ms, i64::max);
        let target = item.states[0].target_mut(account);
        target.link = if ignored {
            Link::Unlinked
        } else {
            Link::Deleted {
                changed_at_ms: deleted_at_ms,
            }
        };
        if !ignored && !known {
            let derived = Derived {
                record: item.record,
                object: item.object(),
                record_id: item.record_id(),
                seq: self.number_of_outcome(item),
                operation: Operation::Delete,
                data: None,
                changed_at_ms: deleted_at_ms,
                origin: account,
                remote_id: Some(&remote_id),
                sources: &[],
                merged_into: None,
                targets: &two_way.learners,
            };
            self.log_derived(now, journal, &derived);
        }
        ended(item, State::Synced, None);
    }

    /// The number of what comes of an operation, one of three. What comes of a change of System A's in
    /// the lane to System A, where it met another one, has the first of them or, if it came late, the
    /// second; what comes of it at an account, where the record is gone, has the last: all of it may go
    /// to a third side. One that is retried may have told of something before that waits still: what
    /// comes of it now has the next number that does not.
    pub(super) fn number_of_outcome(&self, item: &Item) -> OperationSeq {
        let first = item.lead.seq.derived();
        let second = first.derived();
        let mut numbers = [first, second, second.derived()];
        let is_derived = !item.lead.seq.0.is_multiple_of(OperationSeq::STEP);
        let at = usize::from(self.index.slab[item.op].target().0);
        let plan = self.accounts[at].plan.as_ref();
        let of_account = plan.is_none_or(|plan| plan.role == Role::Provider);
        if of_account && !is_derived && item.operation != Operation::Pull {
            numbers.reverse();
        }
        if !is_derived && !self.index.slab[item.op].has(OpFlags::REDRIVEN) {
            return numbers[0];
        }
        let waits = |number: OperationSeq| {
            let mut targets = (0..self.accounts.len()).map(|at| TargetIndex(at as u16));
            targets.any(|target| self.index.find(item.record, number, target).is_some())
        };
        let free = numbers.into_iter().find(|number| !waits(*number));
        free.unwrap_or(numbers[2])
    }

    /// Logs a change that comes of another operation, behind all that the record has.
    pub(super) fn log_derived(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        derived: &Derived<'_>,
    ) {
        // A delete that two accounts found out by one event is told once.
        let told = |name: &str| {
            let mut accounts = self.accounts.iter();
            let target = accounts.position(|account| &*account.name == name);
            derived.operation == Operation::Delete
                && target.is_some_and(|at| {
                    let target = crate::operation_slab::Target(at as u16);
                    self.index
                        .find(derived.record, derived.seq, target)
                        .is_some()
                })
        };
        let targets: Vec<Arc<str>> = derived
            .targets
            .iter()
            .filter(|name| !told(name))
            .cloned()
            .collect();
        if targets.is_empty() {
            return;
        }
        let derived = Derived {
            targets: &targets,
            ..*derived
        };
        self.log_payload(now, journal, &derived.encode(now));
    }

    /// Logs what is to be compared with what System A heard already.
    pub(super) fn log_late(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        derived: &Derived<'_>,
        said: Said,
    ) {
        let payload = derived.encode_as(now, Some(said.at_ms));
        self.log_payload(now, journal, &payload);
    }

    fn log_payload(&mut self, now: Now, journal: &mut impl Journal, payload: &[u8]) {
        match journal.append(Class::Outcome, Kind::Event, &[payload]) {
            Ok(at) => match codec::decode(payload) {
                Ok(event) => self.queue_targets(now, at, &event),
                Err(_) => unreachable!("what was just written is read"),
            },
            // What it comes of cannot be logged without it.
            Err(_) => self.fence(),
        }
    }

    pub(super) fn plan_of(&self, account: &str) -> Option<Arc<super::AccountPlan>> {
        let mut accounts = self.accounts.iter();
        accounts.find(|known| &*known.name == account)?.plan.clone()
    }

    /// What waits for the record at the account behind an item's operations.
    pub(super) fn behind_of(
        &self,
        journal: &mut impl Journal,
        item: &Item,
        account: &str,
    ) -> Result<Behind, Unreadable> {
        let slab = &self.index.slab;
        let target = slab[item.op].target();
        let mut behind = Behind::default();
        let mut bytes = Vec::new();
        let lane = lane::of(slab, self.index.lanes_of(item.record), target);
        for op in lane.into_iter().flat_map(|lane| lane.iter(slab).skip(1)) {
            journal
                .read(lsn(slab[op].position()), &mut bytes)
                .map_err(|_| Unreadable)?;
            let event = codec::decode(&bytes).map_err(|_| Unreadable)?;
            let same = event.record_hash == item.record.0
                && event.event.object == item.object()
                && event.event.record_id.as_deref() == Some(item.record_id());
            if !same || event.action_at(account) == TargetAction::Skip {
                continue;
            }
            let makes = matches!(event.event.operation, Operation::Create | Operation::Upsert);
            behind.remade |= makes;
            let event = event.asked_of(account);
            match event.event.operation {
                Operation::Delete => behind.deletes = true,
                Operation::Create | Operation::Update | Operation::Upsert => {
                    let data = event.event.data.map(Fields::of).unwrap_or_default();
                    behind.changes.push(Pending {
                        fields: data,
                        changed_at_ms: event.event.changed_at_ms.unwrap_or(event.accepted_at_ms),
                    });
                }
                Operation::Read | Operation::Pull => {}
            }
        }
        Ok(behind)
    }
}

/// What both sides agreed on, begun when there is nothing.
pub(super) fn base_of<'i>(item: &'i mut Item, account: &str) -> &'i mut Base {
    item.states[0]
        .target_mut(account)
        .base
        .get_or_insert_default()
}

/// What an account shows, in System A's names. A field that holds the id of another record becomes
/// that record's key, or is left out where nobody knows it.
pub(super) fn local(
    mapping: Option<&Mapping>,
    shown: Shown<'_>,
    base: &Base,
    resolve: ResolveReference<'_>,
) -> Result<Fields, String> {
    let remote = RawObject::new(shown.remote).ok_or("the record is no object")?;
    let Some(mapping) = mapping.filter(|mapping| !mapping.is_plain()) else {
        let mut fields = Fields::of(remote);
        for own in ["/id", "/external_id"] {
            if base.agreed().get(own).is_none() {
                fields.remove(own);
            }
        }
        let fields = without_hollows(fields);
        return Ok(cleared(fields, shown.whole, base, |_| true));
    };
    let mut out = Vec::new();
    mapping
        .unapply(remote, &mut out)
        .map_err(|failure| failure.to_string())?;
    let text = String::from_utf8(out).map_err(|_| "the fields are no UTF-8")?;
    let fields = without_hollows(Fields::parse(&text));
    let mut fields = cleared(fields, shown.whole, base, |pointer| {
        mapping.comes_back(pointer)
    });
    for (pointer, object) in mapping.reference_fields() {
        let Some(value) = fields.get(pointer) else {
            continue;
        };
        if value == "null" || value == EMPTY {
            fields.set(pointer, "null");
            continue;
        }
        let id = referred_id(RawValue::new(value));
        match id.and_then(|id| resolve(object, &id)) {
            Some(key) => fields.set(pointer, &quoted(&key)),
            None => fields.remove(pointer),
        }
    }
    Ok(fields)
}

/// An inner object without members says nothing: what was in it is not there.
fn without_hollows(mut fields: Fields) -> Fields {
    let hollows = fields.iter().filter(|(_, value)| *value == HOLLOW);
    let hollows: Vec<String> = hollows.map(|(pointer, _)| pointer.to_owned()).collect();
    for pointer in hollows {
        fields.remove(&pointer);
    }
    fields
}

/// A whole record clears what was agreed on and is not in it.
fn cleared(mut fields: Fields, whole: bool, base: &Base, mapped: impl Fn(&str) -> bool) -> Fields {
    if whole {
        for (pointer, value) in base.agreed().iter() {
            let there = value != "null" && value != HOLLOW;
            if there && !fields.touches(pointer) && mapped(pointer) {
                fields.set(pointer, "null");
            }
        }
    }
    fields
}

pub(super) fn ended(item: &mut Item, state: State, reason: Option<Reason>) {
    item.progress.state = state;
    item.progress.reason = reason;
}

/// The fields that crossed, as an operation of System A's shows them.
pub(super) fn conflicts_result(conflicts: Vec<Conflict>) -> Vec<u8> {
    result(&Absorbed {
        conflicts,
        ..Absorbed::default()
    })
}

/// What a pull came to, as its operation shows it.
fn result(absorbed: &Absorbed) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    object.raw("changed", &absorbed.change.to_json());
    if !absorbed.conflicts.is_empty() {
        let conflicts = object.member("conflicts");
        conflicts.push(b'[');
        for (at, conflict) in absorbed.conflicts.iter().enumerate() {
            if at > 0 {
                conflicts.push(b',');
            }
            let mut one = ObjectWriter::open(conflicts);
            one.text("field", &conflict.field);
            one.raw("system_a", &conflict.ours);
            one.raw("provider", &conflict.theirs);
            one.text("winner", conflict.winner.as_str());
            one.close();
        }
        conflicts.push(b']');
    }
    object.close();
    out
}

fn error_result(detail: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    object.text("error", &clipped(detail.to_owned()));
    object.close();
    out
}
