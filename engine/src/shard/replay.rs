//! Records changed in a span of time, and what was written to them then sent once more.
//!
//! What is sent is built from the log and logged in the same turn, behind everything that the
//! record has: fields that anything newer wrote are left out, so nothing old comes back over it.

use std::sync::Arc;

use wal::Lsn;

use super::dispatch::{CALL_ROOM, composed, object};
use super::query::{Told, Walked, record_id};
use super::redrive::{asked, without_members};
use super::{CommandReply, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Event, Operation, Priority, Target, TargetAction};
use crate::id::{OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use crate::index::lsn;
use crate::journal::{AppendError, Class, Journal, Kind};
use crate::json::RawObject;
use crate::lane;
use crate::record::{Link, StateFrame};
use crate::record_table::RecordTag;
use crate::state::State;
use crate::time::Now;

/// Records looked at in one slice: each costs a read of the log, and one that changed then a few.
const RECORDS_PER_SLICE: usize = 512;

/// What was changed, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaySpan {
    /// At this account.
    pub account: Arc<str>,
    /// Of this object only.
    pub object: Option<String>,
    /// From this instant of acceptance, ms since the epoch.
    pub from_ms: i64,
    /// Up to and without this one.
    pub to_ms: i64,
}

/// Where in the index a search goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayCursor {
    vshard: VShard,
    tag: RecordTag,
}

/// A part of the records that a span names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplaySlice {
    /// They have something to send.
    pub records: Vec<RecordHash>,
    /// Records of which the log does not keep all that was written then.
    pub cut: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<ReplayCursor>,
}

/// What would be sent of a record.
#[derive(Debug)]
struct Again {
    object: String,
    record_id: String,
    data: String,
    changed_at_ms: i64,
}

/// What a record's history says of a span.
#[derive(Debug, Default)]
struct Found {
    again: Option<Again>,
    /// Something of the span is not kept.
    cut: bool,
}

/// One closed operation of a record.
#[derive(Debug, Clone, Copy)]
struct Closed {
    seq: OperationSeq,
    event: Lsn,
}

impl<T> Shard<T> {
    /// A slice of the records that were changed in a span and have something to send.
    pub fn changed_in(
        &mut self,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        from: Option<ReplayCursor>,
    ) -> ReplaySlice {
        let mut slice = ReplaySlice {
            records: Vec::new(),
            cut: 0,
            next: None,
        };
        let mut looked_at = 0;
        let first = from.map_or(0, |cursor| cursor.vshard.index());
        let mut tag = from.map_or(RecordTag::from_hash(0), |cursor| cursor.tag);
        for vshard in (first..VSHARD_COUNT).filter_map(VShard::new) {
            let left = RECORDS_PER_SLICE - looked_at;
            let table = self.index.table_of(vshard);
            let records: Vec<_> = table
                .into_iter()
                .flat_map(|table| table.iter_from(tag))
                .take(left + 1)
                .collect();
            for (count, record) in records.into_iter().enumerate() {
                if count == left {
                    let tag = record.tag;
                    slice.next = Some(ReplayCursor { vshard, tag });
                    return slice;
                }
                looked_at += 1;
                let Some(at) = record.position else { continue };
                let Some(record) = self.newest_in(journal, span, lsn(at)) else {
                    continue;
                };
                let found = self.again(journal, span, record);
                slice.cut += u64::from(found.cut);
                slice.records.extend(found.again.map(|_| record));
            }
            tag = RecordTag::from_hash(0);
        }
        slice
    }

    /// Sends the state of these records again, as far as the log has room. Each goes under the
    /// operation number that comes with it.
    pub(super) fn replay_each(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        records: &[(RecordHash, OperationSeq)],
    ) -> CommandReply {
        let mut done = 0;
        for (through, &(record, seq)) in records.iter().enumerate() {
            if journal.room(Class::Intake) < CALL_ROOM {
                return CommandReply::Partly { through, done };
            }
            // Once more, since newer changes may have come between the search and now.
            let Some(again) = self.again(journal, span, record).again else {
                continue;
            };
            match self.log_again(now, journal, span, record, seq, &again) {
                Ok(()) => done += 1,
                Err(AppendError::TooLarge) => {}
                Err(AppendError::Full | AppendError::DiskFull) => {
                    return CommandReply::Partly { through, done };
                }
                Err(AppendError::Poisoned) => return CommandReply::Unavailable,
            }
        }
        let through = records.len();
        CommandReply::Partly { through, done }
    }

    fn log_again(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        record: RecordHash,
        seq: OperationSeq,
        again: &Again,
    ) -> Result<(), AppendError> {
        let target = Target {
            name: &span.account,
            action: TargetAction::Sync,
            rule: 0,
        };
        let event = AcceptedEvent {
            event: Event {
                operation: Operation::Upsert,
                provider: Some(span.account.as_ref().into()),
                object: again.object.as_str().into(),
                record_id: Some(again.record_id.as_str().into()),
                remote_id: None,
                data: RawObject::new(&again.data),
                before: None,
                event_id: None,
                changed_at_ms: Some(again.changed_at_ms),
                priority: Priority::DEFAULT,
                scheduled_at_ms: None,
                schema_version: None,
                tenant: None,
                traceparent: None,
                correlation_id: None,
                seq: None,
                extras: Vec::new(),
            },
            operation_seq: seq.0,
            record_hash: record.0,
            accepted_at_ms: now.wall.0,
            producer: None,
            dedup: None,
            targets: [target].into_iter().collect(),
            rules_version: 0,
            mapping_version: 0,
        };
        self.scratch.entry.clear();
        event.encode_into(&mut self.scratch.entry);
        let at = journal.append(Class::Intake, Kind::Event, &[&self.scratch.entry])?;
        self.queue_targets(now, at, &event);
        Ok(())
    }

    /// The record whose newest state lies there, unless nothing happened to it since the span
    /// began, or it is of another object.
    fn newest_in(
        &self,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        at: Lsn,
    ) -> Option<RecordHash> {
        let mut bytes = Vec::new();
        journal.read(at, &mut bytes).ok()?;
        let frame = StateFrame::decode(&bytes).ok()?;
        let own = &frame.records[0];
        let fits = span
            .object
            .as_ref()
            .is_none_or(|object| *object == own.object);
        let mut known = own
            .targets
            .iter()
            .filter(|target| *target.account == *span.account);
        let recent = known.any(|target| {
            let last = target.last.as_ref();
            last.is_some_and(|last| last.updated_at_ms >= span.from_ms)
        });
        (fits && recent).then_some(RecordHash(frame.record))
    }

    /// What was written to a record in the span and by nothing newer.
    fn again(
        &mut self,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        record: RecordHash,
    ) -> Found {
        let mut found = Found::default();
        let mut closed: Vec<Closed> = Vec::new();
        let mut seen: Vec<OperationSeq> = Vec::new();
        let mut deleted = None;
        let open = self.open_events(record, &span.account);
        let walked = self.walk_history(journal, record, |frame, at| {
            let target = &frame.records[0].targets[at];
            if frame.record != record.0 || *target.account != *span.account {
                return true;
            }
            deleted.get_or_insert(matches!(target.link, Link::Deleted { .. }));
            let Some(progress) = &target.last else {
                return true;
            };
            // What ended before the span was accepted before it, and so was all that is older.
            if progress.updated_at_ms < span.from_ms {
                return false;
            }
            let own = frame.moved.map(usize::from) == Some(at);
            let folded = frame.folded.iter().filter(|_| own).map(|folded| folded.seq);
            for seq in folded.chain([progress.seq]) {
                // A record's newest frame says how an operation stands; older ones how it got there.
                if seen.contains(&seq) {
                    continue;
                }
                seen.push(seq);
                let told = Told::of(frame, at, seq);
                let event = told.map_or(0, |told| told.event());
                if progress.state != State::Dropped {
                    let event = Lsn::checked(event).unwrap_or(Lsn::ZERO);
                    closed.push(Closed { seq, event });
                }
            }
            true
        });
        if walked == Walked::Unreadable || deleted == Some(true) {
            return found;
        }
        found.cut = walked == Walked::Cut;
        closed.retain(|closed| !open.iter().any(|(seq, _)| seq.low() == closed.seq.low()));
        closed.sort_by_key(|closed| closed.seq);
        self.merge(journal, span, record, &closed, &open, &mut found);
        found
    }

    /// Open operations of a record at an account, by the low half of their numbers.
    fn open_events(&self, record: RecordHash, account: &str) -> Vec<(OperationSeq, Lsn)> {
        let slab = &self.index.slab;
        let mut open = Vec::new();
        for lane in lane::lanes(slab, self.index.lanes_of(record)) {
            let target = usize::from(lane.target(slab).0);
            if &*self.accounts[target].name == account {
                open.extend(lane.iter(slab).map(|op| {
                    let node = &slab[op];
                    let seq = OperationSeq(u64::from(node.sequence_low()));
                    (seq, lsn(node.position()))
                }));
            }
        }
        open
    }

    fn merge(
        &self,
        journal: &mut impl Journal,
        span: &ReplaySpan,
        record: RecordHash,
        closed: &[Closed],
        open: &[(OperationSeq, Lsn)],
        found: &mut Found,
    ) {
        let mut bytes = Vec::new();
        let mut newer: Vec<String> = Vec::new();
        let mut again: Option<Again> = None;
        for &Closed { event: at, .. } in closed {
            if journal.read(at, &mut bytes).is_err() {
                found.cut = true;
                continue;
            }
            let Ok(event) = codec::decode(&bytes) else {
                continue;
            };
            if event.record_hash != record.0 || event.accepted_at_ms < span.from_ms {
                continue;
            }
            if event.action_at(&span.account) == TargetAction::Skip {
                continue;
            }
            let since = event.accepted_at_ms >= span.to_ms;
            match (asked(&event, &span.account), event.event.data) {
                (Operation::Delete, _) => again = None,
                (Operation::Read, _) | (_, None) => {}
                (_, Some(data)) if since => newer.extend(names(data)),
                (_, Some(data)) => add(&mut again, &event, data),
            }
        }
        for &(_, at) in open {
            // What cannot be read may write anything: better nothing is sent than something old.
            let event = journal.read(at, &mut bytes).ok();
            let Some(event) = event.and_then(|_| codec::decode(&bytes).ok()) else {
                return;
            };
            match (asked(&event, &span.account), event.event.data) {
                (Operation::Delete, _) => return,
                (_, Some(data)) => newer.extend(names(data)),
                (_, None) => {}
            }
        }
        let Some(mut again) = again else { return };
        if let Some(data) = object(again.data.as_bytes()) {
            let left = without_members(data, &newer);
            if left != "{}" {
                again.data = left;
                found.again = Some(again);
            }
        }
    }
}

fn names(data: RawObject<'_>) -> impl Iterator<Item = String> {
    let members: Vec<String> = data
        .members()
        .map(|member| member.key.name().into_owned())
        .collect();
    members.into_iter()
}

/// Lays a newer event's data over what was found before.
fn add(again: &mut Option<Again>, event: &AcceptedEvent<'_>, data: RawObject<'_>) {
    let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
    match again {
        Some(again) => {
            if let Some(beneath) = object(again.data.as_bytes()) {
                again.data = composed(beneath, Some(data));
            }
            again.changed_at_ms = again.changed_at_ms.max(changed_at_ms);
        }
        None => {
            *again = Some(Again {
                object: event.event.object.to_string(),
                record_id: record_id(event).to_owned(),
                data: data.text().to_owned(),
                changed_at_ms,
            });
        }
    }
}
