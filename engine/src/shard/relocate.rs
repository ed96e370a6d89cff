//! Compaction: what still lives below a cut is copied to the log's end, so that the segments
//! below can go.
//!
//! The sweep goes through the index, not through the old segments: whatever the index points at
//! below the cut is alive, all else is not. It takes a slice per turn.

use wal::Lsn;

use super::Shard;
use super::dispatch::CALL_ROOM;
use crate::event::codec;
use crate::id::{OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use crate::index::{lsn, position};
use crate::journal::{Class, Journal, Kind};
use crate::json::RawObject;
use crate::lane;
use crate::operation_slab::OpIndex;
use crate::record::StateFrame;
use crate::record_table::{Record, RecordTag};
use crate::time::Now;

/// Bytes copied in one turn, about: a commit's worth, so that live traffic is not held up.
const BYTES_PER_TURN: usize = 256 * 1024;
/// Records looked at in one turn.
const RECORDS_PER_TURN: usize = 4096;

/// Room in the log below which the sweep waits: a slice of it, and what calls need.
const SWEEP_ROOM: usize = CALL_ROOM + 2 * 1024 * 1024;

/// A sweep under way.
#[derive(Debug)]
pub(super) struct Relocation {
    cut: Lsn,
    vshard: usize,
    next: Option<RecordTag>,
    /// Something alive could not be copied: the log below the cut has to stay.
    incomplete: bool,
}

impl<T> Shard<T> {
    /// Begins to free the log below `cut`. One sweep at a time: false when one is under way.
    pub fn relocate(&mut self, cut: Lsn) -> bool {
        if self.relocation.is_some() {
            return false;
        }
        self.relocation = Some(Relocation {
            cut,
            vshard: 0,
            next: None,
            incomplete: false,
        });
        true
    }

    /// Nothing alive lies below this position any more, once what the sweep copied is durable.
    #[must_use]
    pub fn relocated_below(&self) -> Lsn {
        self.relocated_below
    }

    /// Whether a sweep is under way.
    #[must_use]
    pub fn is_relocating(&self) -> bool {
        self.relocation.is_some()
    }

    pub(super) fn relocate_some(&mut self, now: Now, journal: &mut impl Journal) {
        let Some(mut sweep) = self.relocation.take() else {
            return;
        };
        let mut bytes = 0;
        let mut records = 0;
        while bytes < BYTES_PER_TURN && records < RECORDS_PER_TURN {
            if sweep.vshard == VSHARD_COUNT {
                if !sweep.incomplete {
                    self.relocated_below = sweep.cut;
                }
                return;
            }
            if journal.room(Class::Outcome) < SWEEP_ROOM {
                break;
            }
            let vshard =
                VShard::new(sweep.vshard).expect("the sweep ends at the last virtual shard");
            match self.next_record(vshard, sweep.next) {
                Some(record) => {
                    bytes += self.relocate_record(now, journal, &mut sweep, record);
                    records += 1;
                    sweep.next = record.tag.successor();
                    if sweep.next.is_none() {
                        bytes += self.relocate_dead(journal, &mut sweep, vshard);
                        sweep.vshard += 1;
                    }
                }
                None => {
                    bytes += self.relocate_dead(journal, &mut sweep, vshard);
                    sweep.vshard += 1;
                    sweep.next = None;
                }
            }
        }
        self.relocation = Some(sweep);
    }

    fn next_record(&self, vshard: VShard, from: Option<RecordTag>) -> Option<Record> {
        let table = self.index.table_of(vshard)?;
        table
            .iter_from(from.unwrap_or(RecordTag::from_hash(0)))
            .next()
    }

    fn relocate_record(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        sweep: &mut Relocation,
        record: Record,
    ) -> usize {
        let cut = sweep.cut;
        let mut bytes = 0;
        if let Some(at) = record.position.map(lsn).filter(|&at| at < cut) {
            bytes += sweep.count(self.relocate_state(now, journal, at));
        }
        let slab = &self.index.slab;
        let old: Vec<OpIndex> = lane::lanes(slab, record.lane)
            .flat_map(|lane| lane.iter(slab).collect::<Vec<_>>())
            .filter(|&op| lsn(slab[op].position()) < cut)
            .collect();
        for op in old {
            bytes += sweep.count(self.relocate_event(journal, op, cut));
        }
        bytes
    }

    fn relocate_state(&mut self, now: Now, journal: &mut impl Journal, at: Lsn) -> Option<usize> {
        let mut payload = std::mem::take(&mut self.scratch.state);
        let mut copied = None;
        if journal.read(at, &mut payload).is_ok()
            && let Ok(mut frame) = StateFrame::decode(&payload)
        {
            // What else it tells, the operations that ended with the moved one, is found in the frame
            // itself as long as its segment is there: dead letters that the sweep has yet to come to
            // go without the fields that those wrote.
            frame.moved = None;
            frame.folded.clear();
            frame.previous = at.get();
            payload.clear();
            frame.encode(&mut payload);
            if let Ok(to) = journal.append(Class::Outcome, Kind::StateMoved, &[&payload]) {
                self.index.apply_state(now, to, &frame);
                copied = Some(payload.len());
            }
        }
        self.scratch.state = payload;
        copied
    }

    fn relocate_dead(
        &mut self,
        journal: &mut impl Journal,
        sweep: &mut Relocation,
        vshard: VShard,
    ) -> usize {
        let cut = sweep.cut;
        if self.index.table_of(vshard).is_none() {
            return 0;
        }
        let slab = &self.index.slab;
        let old: Vec<OpIndex> = self
            .index
            .dead_of(vshard)
            .iter(slab)
            .filter(|&op| lsn(slab[op].position()) < cut)
            .collect();
        old.into_iter()
            .map(|op| sweep.count(self.relocate_dead_event(journal, op)))
            .sum()
    }

    /// Copies a dead letter's event for its one target, without the fields written since: what
    /// tells them goes with the segments, and a retry must not bring old values back.
    fn relocate_dead_event(&mut self, journal: &mut impl Journal, op: OpIndex) -> Option<usize> {
        let mut payload = Vec::new();
        journal
            .read(lsn(self.index.slab[op].position()), &mut payload)
            .ok()?;
        let mut event = codec::decode(&payload).ok()?;
        let target = self.index.slab[op].target();
        let account = self.accounts[usize::from(target.0)].name.clone();
        let data = self.data_not_written_since(journal, &event, &account)?;
        event.event.data = data.as_deref().and_then(RawObject::new);
        event.targets = event
            .targets
            .iter()
            .filter(|target| *target.name == *account)
            .collect();
        let mut moved = Vec::new();
        event.encode_into(&mut moved);
        let to = journal
            .append(Class::Outcome, Kind::EventMoved, &[&moved])
            .ok()?;
        let (record, seq) = (
            RecordHash(event.record_hash),
            OperationSeq(event.operation_seq),
        );
        self.index.apply_event_moved(to, record, seq, target);
        Some(moved.len())
    }

    /// Copies an event once for all of its targets whose open operations point at it. The others
    /// have ended, died, or were redriven from a copy of their own.
    fn relocate_event(
        &mut self,
        journal: &mut impl Journal,
        op: OpIndex,
        cut: Lsn,
    ) -> Option<usize> {
        let at = lsn(self.index.slab[op].position());
        if at >= cut {
            return Some(0);
        }
        let mut payload = std::mem::take(&mut self.scratch.event);
        let mut moved = std::mem::take(&mut self.scratch.entry);
        let mut copied = None;
        if journal.read(at, &mut payload).is_ok()
            && let Ok(mut event) = codec::decode(&payload)
        {
            let (record, seq) = (
                RecordHash(event.record_hash),
                OperationSeq(event.operation_seq),
            );
            event.targets = event
                .targets
                .iter()
                .filter(|target| self.index.points_at(at, record, seq, target.name))
                .collect();
            moved.clear();
            event.encode_into(&mut moved);
            if let Ok(to) = journal.append(Class::Outcome, Kind::EventMoved, &[&moved]) {
                for account in event.targets.iter().map(|target| target.name) {
                    let target = self.index.account(account);
                    self.index.apply_event_moved(to, record, seq, target);
                }
                debug_assert_eq!(self.index.slab[op].position(), position(to));
                copied = Some(moved.len());
            }
        }
        self.scratch.event = payload;
        self.scratch.entry = moved;
        copied
    }
}

impl Relocation {
    fn count(&mut self, copied: Option<usize>) -> usize {
        self.incomplete |= copied.is_none();
        copied.unwrap_or(0)
    }
}
