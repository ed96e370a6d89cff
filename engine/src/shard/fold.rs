//! Folding: the waiting changes of a record that one call can make in the place of many.
//!
//! A fold is a run of operations at the front of a lane. Its newest one leads: the call carries that
//! one's id and ends all of them. DELETE, READ and scheduled operations end a run.

use std::collections::HashMap;

use wal::Lsn;

use super::dispatch::{composed, object};
use super::telling::Telling;
use super::{SYSTEM_A, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::OperationSeq;
use crate::index::lsn;
use crate::journal::Journal;
use crate::json::RawObject;
use crate::lane;
use crate::operation_slab::{OpClass, OpFlags, OpIndex};
use crate::record::{Folded, Link};

/// Operations in one call at most. A record with more of them takes another call, so that no turn
/// reads, and no outcome names, without bound.
const OPERATIONS_MAX: usize = 16 * 1024;
/// A fold of as many as its limits allow.
pub(super) const FOLDED_ANY: usize = OPERATIONS_MAX;
/// Bytes of all their data read for one call at most.
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The folded data is at most as long as an event may be.
const DATA_BYTES_MAX: usize = 1024 * 1024;

/// How far a fold may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The front operation alone.
    One,
    /// As far as the record's waiting operations allow.
    Far,
    /// As far, and a record never sent may be unmade: CREATE then DELETE.
    Unborn,
    /// Exactly so many operations behind the front: they were sent, and what became of that is not
    /// known.
    Frozen(u32),
}

/// One operation as its event tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) seq: OperationSeq,
    pub(super) operation: Operation,
    /// Where its event lies.
    pub(super) event: Lsn,
    pub(super) changed_at_ms: i64,
    pub(super) accepted_at_ms: i64,
}

impl Told {
    pub(super) fn of(event: &AcceptedEvent<'_>, at: Lsn) -> Self {
        Self {
            seq: OperationSeq(event.operation_seq),
            operation: event.event.operation,
            event: at,
            changed_at_ms: event.event.changed_at_ms.unwrap_or(event.accepted_at_ms),
            accepted_at_ms: event.accepted_at_ms,
        }
    }
}

/// What a call makes of a record's front operations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fold {
    /// The newest operation.
    pub(super) lead: Told,
    /// The older ones, oldest first.
    pub(super) folded: Vec<Folded>,
    /// All of their data as one patch; `None`: the front's own.
    pub(super) data: Option<String>,
    /// Some operation is an UPSERT.
    pub(super) upserts: bool,
    /// Some operation is an UPDATE.
    pub(super) updates: bool,
    /// The provider's id that the newest event to name one names.
    pub(super) remote_id: Option<String>,
    /// A record was made and deleted before any call: nothing is to be sent.
    pub(super) unborn: bool,
    /// Of several for System A what each of them tells; empty: the front's own.
    pub(super) tellings: Vec<Telling>,
    /// How many operations behind the front were looked for at most.
    pub(super) folded_max: usize,
    /// All of it was sent once, or may have been: none may be left out.
    pub(super) is_whole: bool,
}

impl Fold {
    /// The front operation alone.
    pub(super) fn one(front: &AcceptedEvent<'_>, at: Lsn) -> Self {
        let told = Told::of(front, at);
        Self {
            lead: told,
            folded: Vec::new(),
            data: None,
            upserts: told.operation == Operation::Upsert,
            updates: told.operation == Operation::Update,
            remote_id: front.event.remote_id.as_deref().map(str::to_owned),
            unborn: false,
            tellings: Vec::new(),
            folded_max: FOLDED_ANY,
            is_whole: false,
        }
    }

    /// What the run amounts to, for a record with this link.
    pub(super) fn operation(&self, link: &Link) -> Operation {
        let creates = self
            .folded
            .first()
            .map_or(self.lead.operation as u8, |front| front.operation)
            == Operation::Create as u8;
        if self.folded.is_empty() {
            self.lead.operation
        } else if creates && link.remote_id().is_none() {
            Operation::Create
        } else if self.upserts {
            Operation::Upsert
        } else if self.updates {
            Operation::Update
        } else {
            Operation::Create
        }
    }
}

/// The log cannot be read: the record waits for the operator.
#[derive(Debug)]
pub(super) struct Unreadable;

impl<T> Shard<T> {
    /// Folds what waits behind `front` into it, as far as `reach` says, and at most `folded_max` of
    /// them. `link` is how the record stands.
    pub(super) fn fold(
        &self,
        journal: &mut impl Journal,
        op: OpIndex,
        front: &AcceptedEvent<'_>,
        link: &Link,
        (reach, folded_max): (Reach, usize),
    ) -> Result<Fold, Unreadable> {
        let at = lsn(self.index.slab[op].position());
        let account = &self.accounts[usize::from(self.index.slab[op].target().0)].name;
        let mut fold = Fold {
            folded_max,
            ..Fold::one(front, at)
        };
        if reach == Reach::One || !folds(front) {
            return Ok(fold);
        }
        let most = match reach {
            Reach::Frozen(count) => count as usize,
            Reach::One | Reach::Far | Reach::Unborn => folded_max,
        };
        let mut patch = Patch::new(front.event.data);
        let mut bytes = Vec::new();
        let mut read = 0;
        for next in self.behind(op, front) {
            if most == fold.folded.len() {
                break;
            }
            let node = &self.index.slab[next];
            if node.has(OpFlags::REDRIVEN) {
                break;
            }
            let position = lsn(node.position());
            if node.class() == OpClass::Delete && reach != Reach::Unborn {
                break;
            }
            journal.read(position, &mut bytes).map_err(|_| Unreadable)?;
            let event = codec::decode(&bytes).map_err(|_| Unreadable)?;
            let action = event.action_at(account);
            let sent = !matches!(action, TargetAction::Skip | TargetAction::Observe);
            if !same_record(front, &event) || !sent {
                break;
            }
            let event = event.asked_of(account);
            let told = Told::of(&event, position);
            if event.event.operation == Operation::Delete {
                let unborn = reach == Reach::Unborn
                    && front.event.operation == Operation::Create
                    && event.event.scheduled_at_ms.is_none();
                if unborn {
                    fold.take_delete(told);
                }
                break;
            }
            let outdated = matches!(link, Link::Deleted { changed_at_ms } if told.changed_at_ms < *changed_at_ms);
            if !folds(&event) || outdated {
                break;
            }
            read += bytes.len();
            if read > READ_BYTES_MAX || !patch.add(event.event.data) {
                break;
            }
            if **account == *SYSTEM_A {
                fold.tell(front, &event);
            }
            fold.take(told, event.event.remote_id.as_deref());
        }
        if !fold.folded.is_empty() {
            for (folded, overwritten) in fold.folded.iter_mut().zip(patch.overwritten()) {
                folded.overwritten |= overwritten;
            }
            fold.data = Some(patch.text);
        }
        Ok(fold)
    }

    /// The data of an operation and of those folded beneath it, read again from the log.
    pub(super) fn data_of(
        &self,
        journal: &mut impl Journal,
        events: impl Iterator<Item = Lsn>,
    ) -> Result<Option<String>, Unreadable> {
        let mut bytes = Vec::new();
        let mut patch: Option<Patch> = None;
        for at in events {
            journal.read(at, &mut bytes).map_err(|_| Unreadable)?;
            let event = codec::decode(&bytes).map_err(|_| Unreadable)?;
            match &mut patch {
                Some(patch) => {
                    patch.add(event.event.data);
                }
                None => patch = event.event.data.map(|data| Patch::new(Some(data))),
            }
        }
        Ok(patch.map(|patch| patch.text))
    }

    /// The operations behind the front of its lane.
    fn behind(&self, op: OpIndex, front: &AcceptedEvent<'_>) -> impl Iterator<Item = OpIndex> + '_ {
        let slab = &self.index.slab;
        let first = self
            .index
            .lanes_of(crate::id::RecordHash(front.record_hash));
        lane::of(slab, first, slab[op].target())
            .into_iter()
            .flat_map(|lane| lane.iter(slab).skip(1))
    }
}

impl Fold {
    /// A newer change leads from here on.
    fn take(&mut self, told: Told, remote_id: Option<&str>) {
        self.push_lead(false);
        self.upserts |= told.operation == Operation::Upsert;
        self.updates |= told.operation == Operation::Update;
        if let Some(remote_id) = remote_id {
            self.remote_id = Some(remote_id.to_owned());
        }
        self.lead = told;
    }

    /// System A is told of both in one change, of each part where it comes from.
    fn tell(&mut self, front: &AcceptedEvent<'_>, event: &AcceptedEvent<'_>) {
        if self.tellings.is_empty() {
            self.tellings = Telling::of(front);
        }
        self.tellings.extend(Telling::of(event));
    }

    /// The record is deleted before anything of it was sent.
    fn take_delete(&mut self, told: Told) {
        self.push_lead(true);
        for folded in &mut self.folded {
            folded.overwritten = true;
        }
        self.lead = told;
        self.unborn = true;
    }

    fn push_lead(&mut self, overwritten: bool) {
        self.folded.push(Folded {
            seq: self.lead.seq,
            operation: self.lead.operation as u8,
            event: self.lead.event.get(),
            overwritten,
        });
    }
}

/// The composed data, and how much of each part of it is left.
#[derive(Debug, Default)]
struct Patch {
    text: String,
    /// For each top-level field the parts of which something is left there: more than one where
    /// objects were merged.
    writers: HashMap<String, Vec<usize>>,
    /// For each part the fields it wrote that no later part replaced.
    left: Vec<usize>,
}

impl Patch {
    fn new(data: Option<RawObject<'_>>) -> Self {
        let mut patch = Self::default();
        "{}".clone_into(&mut patch.text);
        patch.left.push(0);
        if let Some(data) = data {
            data.text().clone_into(&mut patch.text);
            patch.note(data);
        }
        patch
    }

    /// Lays a part on top. False when one patch cannot say the whole, or would grow too long: it is
    /// left out.
    fn add(&mut self, data: Option<RawObject<'_>>) -> bool {
        if let Some(data) = data {
            let beneath = object(self.text.as_bytes()).expect("a patch is composed of objects");
            if !fits_upon(beneath, data) {
                return false;
            }
            let text = composed(beneath, Some(data));
            if text.len() > DATA_BYTES_MAX {
                return false;
            }
            self.text = text;
            self.left.push(0);
            self.note(data);
        } else {
            self.left.push(0);
        }
        true
    }

    fn note(&mut self, data: RawObject<'_>) {
        let part = self.left.len() - 1;
        for member in data.members() {
            let writers = self
                .writers
                .entry(member.key.name().into_owned())
                .or_default();
            // Two objects are merged: something of the earlier one may be left.
            if member.value.as_object().is_none() {
                for before in writers.drain(..) {
                    self.left[before] -= 1;
                }
            }
            writers.push(part);
            self.left[part] += 1;
        }
    }

    /// For each part, oldest first, whether nothing of it is left.
    fn overwritten(&self) -> impl Iterator<Item = bool> + '_ {
        self.left.iter().map(|&left| left == 0)
    }
}

/// Whether one patch can do what both do in a row. RFC 7396 has no words for "drop what was there,
/// then set these members of it": an object upon anything but an object.
fn fits_upon(beneath: RawObject<'_>, above: RawObject<'_>) -> bool {
    let objects = above.members();
    let mut objects = objects
        .filter_map(|member| Some((member.key.name(), member.value.as_object()?)))
        .peekable();
    if objects.peek().is_none() {
        return true;
    }
    let beneath: HashMap<_, _> = beneath
        .members()
        .map(|member| (member.key.name(), member.value))
        .collect();
    objects.all(|(name, above)| {
        beneath.get(&name).is_none_or(|value| {
            value
                .as_object()
                .is_some_and(|beneath| fits_upon(beneath, above))
        })
    })
}

/// Whether an operation may share a call with others of its record.
fn folds(event: &AcceptedEvent<'_>) -> bool {
    event.event.scheduled_at_ms.is_none()
        && matches!(
            event.event.operation,
            Operation::Create | Operation::Update | Operation::Upsert
        )
}

/// A lane is of an index tag, which two records may share.
fn same_record(one: &AcceptedEvent<'_>, other: &AcceptedEvent<'_>) -> bool {
    one.record_hash == other.record_hash
        && one.event.object == other.event.object
        && one.event.record_id == other.event.record_id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(parts: &[&str]) -> (String, Vec<bool>) {
        let mut patch = Patch::new(RawObject::new(parts[0]));
        for part in &parts[1..] {
            assert!(patch.add(RawObject::new(part)));
        }
        (patch.text.clone(), patch.overwritten().collect())
    }

    #[test]
    fn a_part_is_overwritten_once_later_ones_replaced_all_of_its_fields() {
        let check = |parts: &[&str], text: &str, overwritten: &[bool]| {
            assert_eq!(patch(parts), (text.to_owned(), overwritten.to_vec()));
        };
        check(&[r#"{"a":1}"#, r#"{"a":2}"#], r#"{"a":2}"#, &[true, false]);
        check(
            &[r#"{"a":1,"b":1}"#, r#"{"a":2}"#],
            r#"{"a":2,"b":1}"#,
            &[false, false],
        );
        check(
            &[r#"{"a":1,"b":1}"#, r#"{"a":2}"#, r#"{"b":null}"#],
            r#"{"a":2,"b":null}"#,
            &[true, false, false],
        );
        check(&["{}", r#"{"a":1}"#], r#"{"a":1}"#, &[true, false]);
    }

    #[test]
    fn an_object_laid_on_an_object_leaves_something_of_it() {
        let (text, overwritten) = patch(&[r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#]);
        assert_eq!(
            (text.as_str(), overwritten),
            (r#"{"a":{"x":1,"y":2}}"#, vec![false, false])
        );
        let (text, overwritten) = patch(&[r#"{"a":{"x":1}}"#, r#"{"a":3}"#]);
        assert_eq!(
            (text.as_str(), overwritten),
            (r#"{"a":3}"#, vec![true, false])
        );
        let parts = [r#"{"a":{"x":1}}"#, r#"{"a":{"y":2}}"#, r#"{"a":null}"#];
        assert_eq!(patch(&parts).1, [true, true, false]);
    }

    #[test]
    fn an_object_upon_what_replaced_one_takes_a_call_of_its_own() {
        for (beneath, fits) in [
            (r#"{"a":null}"#, false),
            (r#"{"a":[{}]}"#, false),
            (r#"{"a":{"b":1}}"#, false),
            (r#"{"a":{"b":{"d":1}}}"#, true),
            (r#"{"a":{"e":1}}"#, true),
            (r#"{"b":1}"#, true),
        ] {
            let mut patch = Patch::new(RawObject::new(beneath));
            let added = patch.add(RawObject::new(r#"{"a":{"b":{"c":1}}}"#));
            assert_eq!(added, fits, "{beneath}");
        }
    }

    #[test]
    fn a_patch_does_not_grow_beyond_an_event() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(DATA_BYTES_MAX - 20));
        let mut patch = Patch::new(RawObject::new(&long));
        assert!(!patch.add(RawObject::new(r#"{"b":"0123456789"}"#)));
        assert!(patch.add(RawObject::new(r#"{"b":1}"#)));
    }
}
