//! The log entry that says where a record stands.

use super::{Attempt, KeyUse, Link, Progress, RecordState, Resume, TargetState};
use crate::codec::{Damaged, Decoder, Encoder};
use crate::id::OperationSeq;
use crate::merge::Base;
use crate::state::{CallClass, Reason, State};

/// Everything a state frame holds: the record it was written for first, then any
/// record that shares its index tag.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StateFrame {
    /// The record's full hash.
    pub record: u64,
    /// Where the state frame before this one lies, as the raw position; 0 for none.
    pub previous: u64,
    /// The target whose operation moved, by its place in the first record's targets;
    /// `None` for a copy made by compaction.
    pub moved: Option<u8>,
    /// The records, at least one.
    pub records: Vec<RecordState>,
    /// Older operations that ended with the one that moved, oldest first; empty unless it ended.
    pub folded: Vec<Folded>,
}

/// An operation that ended because a newer one's call carried it, or overwrote all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Folded {
    /// The operation.
    pub seq: OperationSeq,
    /// What it is, as [`crate::event::Operation`] numbers it.
    pub operation: u8,
    /// Where its event lies in the log, as the raw position.
    pub event: u64,
    /// Newer operations of the same call wrote all of its fields.
    pub overwritten: bool,
}

impl Folded {
    /// How it ends with an operation that ends like `end`.
    #[must_use]
    pub fn state(&self, end: State) -> State {
        if self.overwritten {
            State::Superseded
        } else {
            end
        }
    }
}

impl StateFrame {
    /// Makes the frame smaller by what it can best do without: answers of READs first, then what
    /// was said of attempts, then the largest set of undelivered fields, whose record loses the
    /// ground beneath a later UPDATE, then what both sides agreed on. False when there is nothing
    /// left to give.
    pub fn shed(&mut self) -> bool {
        let mut targets: Vec<&mut TargetState> = self
            .records
            .iter_mut()
            .flat_map(|record| &mut record.targets)
            .collect();
        let results = targets.iter_mut().filter_map(|target| target.last.as_mut());
        if let Some(last) = results.max_by_key(|last| last.result.len())
            && !last.result.is_empty()
        {
            last.result.clear();
            return true;
        }
        let attempts = targets.iter_mut().filter_map(|target| target.last.as_mut());
        if let Some(last) = attempts.max_by_key(|last| last.attempts.len())
            && !last.attempts.is_empty()
        {
            last.attempts.clear();
            return true;
        }
        let undelivered = targets.iter_mut().map(|target| &mut target.undelivered);
        if let Some(largest) = undelivered.max_by_key(|undelivered| undelivered.len())
            && !largest.is_empty()
        {
            largest.clear();
            return true;
        }
        // Without a base all that an account shows counts as changed by it.
        let bases = targets.iter_mut().filter_map(|target| target.base.take());
        bases.count() > 0
    }
}

/// 2 added folded operations, 3 what both sides agreed on and records known by a remote id, 4 records
/// that were merged and when System A heard of what it was told, 5 up to which operation, 6 when it
/// heard that first and match keys.
const STATE_VERSION: u8 = 6;
/// Set in a folded operation's number when it was overwritten.
const OVERWRITTEN: u8 = 0x80;

impl StateFrame {
    /// Appends the frame's payload to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut e = Encoder::new(out);
        e.u8(STATE_VERSION)
            .u8(self.moved.unwrap_or(u8::MAX))
            .u64(self.record)
            .u64(self.previous);
        e.u16(self.records.len() as u16);
        for record in &self.records {
            e.text(&record.object)
                .text(&record.record_id)
                .optional_text(record.alias_of.as_deref())
                .u16(record.targets.len() as u16);
            for target in &record.targets {
                encode_target(&mut e, target);
            }
        }
        e.u32(self.folded.len() as u32);
        for folded in &self.folded {
            let overwritten = if folded.overwritten { OVERWRITTEN } else { 0 };
            e.u64(folded.seq.0)
                .u8(folded.operation | overwritten)
                .u64(folded.event);
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] for anything [`StateFrame::encode`] of this version would not write.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = Decoder::new(payload);
        let version = d.u8("version")?;
        if !(1..=STATE_VERSION).contains(&version) {
            return Err(d.damaged("version"));
        }
        let moved = Some(d.u8("moved")?).filter(|&at| at != u8::MAX);
        let (record, previous) = (d.u64("record")?, d.u64("previous")?);
        let count = d.u16("records")?;
        let mut records = Vec::new();
        for _ in 0..count {
            let (object, record_id) = (
                d.text("object")?.to_owned(),
                d.text("record_id")?.to_owned(),
            );
            let alias_of = match version {
                3.. => d.optional_text("alias")?.map(str::to_owned),
                _ => None,
            };
            let mut targets = Vec::new();
            for _ in 0..d.u16("targets")? {
                targets.push(decode_target(&mut d, version)?);
            }
            records.push(RecordState {
                object,
                record_id,
                targets,
                alias_of,
            });
        }
        let mut folded = Vec::new();
        for _ in 0..if version >= 2 { d.u32("folded")? } else { 0 } {
            let (seq, operation, event) = (
                OperationSeq(d.u64("folded seq")?),
                d.u8("folded operation")?,
                d.u64("folded event")?,
            );
            folded.push(Folded {
                seq,
                operation: operation & !OVERWRITTEN,
                event,
                overwritten: operation & OVERWRITTEN != 0,
            });
        }
        if !d.is_empty() || records.is_empty() {
            return Err(d.damaged("end"));
        }
        if let Some(at) = moved {
            let moved = records[0]
                .targets
                .get(usize::from(at))
                .and_then(|target| target.last.as_ref());
            if moved.is_none() {
                return Err(d.damaged("moved"));
            }
        }
        Ok(Self {
            record,
            previous,
            moved,
            records,
            folded,
        })
    }
}

fn encode_target(e: &mut Encoder<'_>, target: &TargetState) {
    e.text(&target.account);
    match &target.link {
        Link::Unlinked => e.u8(0),
        Link::Linked(id) => e.u8(1).text(id),
        Link::Deleted { changed_at_ms } => e.u8(2).i64(*changed_at_ms),
        Link::Doubtful => e.u8(3),
        Link::MergedInto(record_id) => e.u8(4).text(record_id),
    };
    e.bytes(&target.undelivered);
    match &target.last {
        Some(last) => encode_progress(e, last),
        None => {
            e.u8(0);
        }
    }
    match &target.base {
        Some(base) => {
            e.u8(1);
            base.encode(e);
        }
        None => {
            e.u8(0);
        }
    }
}

fn encode_progress(e: &mut Encoder<'_>, last: &Progress) {
    e.u8(1).u64(last.seq.0).u8(last.operation).u64(last.event);
    e.u8(last.state as u8)
        .u8(last.reason.map_or(0, |reason| reason as u8))
        .u8(last.resume.byte());
    e.u16(last.key.number).u64(last.key.digest).u16(last.burnt);
    e.i64(last.first_attempt_ms)
        .i64(last.updated_at_ms)
        .i64(last.unknown_since_ms)
        .i64(last.due_ms);
    e.u16(last.attempts.len() as u16);
    for attempt in &last.attempts {
        e.i64(attempt.at_ms)
            .u16(attempt.status)
            .u8(attempt.class as u8)
            .text(&attempt.detail);
    }
    e.bytes(&last.result).u32(last.folded);
}

fn decode_target(d: &mut Decoder<'_>, version: u8) -> Result<TargetState, Damaged> {
    let account = d.text("account")?.to_owned();
    let link = match d.u8("link")? {
        0 => Link::Unlinked,
        1 => Link::Linked(d.text("remote id")?.to_owned()),
        2 => Link::Deleted {
            changed_at_ms: d.i64("deleted at")?,
        },
        3 => Link::Doubtful,
        4 => Link::MergedInto(d.text("merged into")?.to_owned()),
        _ => return Err(d.damaged("link")),
    };
    let undelivered = d.bytes("undelivered")?.to_vec();
    let last = match d.u8("progress")? {
        0 => None,
        1 => Some(decode_progress(d, version)?),
        _ => return Err(d.damaged("progress")),
    };
    let base = match if version >= 3 { d.u8("base")? } else { 0 } {
        0 => None,
        1 => Some(Box::new(Base::decode(d, version)?)),
        _ => return Err(d.damaged("base")),
    };
    Ok(TargetState {
        account,
        link,
        undelivered,
        last,
        base,
    })
}

fn decode_progress(d: &mut Decoder<'_>, version: u8) -> Result<Progress, Damaged> {
    let mut progress = Progress::new(
        OperationSeq(d.u64("seq")?),
        d.u8("operation")?,
        d.u64("event")?,
    );
    progress.state = State::from_byte(d.u8("state")?).ok_or(d.damaged("state"))?;
    progress.reason = match d.u8("reason")? {
        0 => None,
        byte => Some(Reason::from_byte(byte).ok_or(d.damaged("reason"))?),
    };
    progress.resume = Resume::from_byte(d.u8("resume")?).ok_or(d.damaged("resume"))?;
    progress.key = KeyUse {
        number: d.u16("key number")?,
        digest: d.u64("key digest")?,
    };
    progress.burnt = d.u16("burnt")?;
    progress.first_attempt_ms = d.i64("first attempt")?;
    progress.updated_at_ms = d.i64("updated at")?;
    progress.unknown_since_ms = d.i64("unknown since")?;
    progress.due_ms = d.i64("due")?;
    for _ in 0..d.u16("attempts")? {
        progress.attempts.push(Attempt {
            at_ms: d.i64("attempt at")?,
            status: d.u16("attempt status")?,
            class: CallClass::from_byte(d.u8("attempt class")?)
                .ok_or(d.damaged("attempt class"))?,
            detail: d.text("attempt detail")?.to_owned(),
        });
    }
    progress.result = d.bytes("result")?.to_vec();
    if version >= 2 {
        progress.folded = d.u32("folded beneath")?;
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StateFrame {
        let mut record = RecordState::new("contact", "c-1");
        let target = record.target_mut("crm");
        target.link = Link::Linked("r-9".into());
        target.undelivered = br#"{"a":1}"#.to_vec();
        let mut progress = Progress::new(OperationSeq(77), 2, 4096);
        progress.state = State::Retrying;
        progress.reason = Some(Reason::Backoff);
        progress.resume = Resume::LookUp;
        progress.key = KeyUse {
            number: 2,
            digest: 0xfeed,
        };
        progress.burnt = 3;
        progress.push_attempt(Attempt {
            at_ms: 5,
            status: 503,
            class: CallClass::Transient,
            detail: "busy".into(),
        });
        target.last = Some(progress);
        record.target_mut("other").link = Link::Deleted { changed_at_ms: -4 };
        StateFrame {
            record: 1 << 60,
            previous: 64,
            moved: Some(0),
            records: vec![record],
            folded: vec![Folded {
                seq: OperationSeq(70),
                operation: 2,
                event: 2048,
                overwritten: true,
            }],
        }
    }

    #[test]
    fn a_state_frame_survives_its_bytes_and_no_prefix_of_them_decodes() {
        let frame = sample();
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(StateFrame::decode(&bytes), Ok(frame));
        for cut in 0..bytes.len() {
            assert!(
                StateFrame::decode(&bytes[..cut]).is_err(),
                "prefix of {cut} bytes decodes"
            );
        }
    }

    #[test]
    fn damaged_bytes_are_an_error_or_another_value_but_never_a_panic() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                if let Ok(frame) = StateFrame::decode(&damaged) {
                    assert!(!frame.records.is_empty());
                }
            }
        }
    }
}
