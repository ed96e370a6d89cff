//! A log in memory.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use syncline_engine::event::codec;
use syncline_engine::journal::{AppendError, Class, Journal, Kind, ReadError};
use syncline_engine::record::{Progress, RecordState, StateFrame, TargetState};
use wal::Lsn;

/// A log in memory, durable at once.
#[derive(Debug, Default)]
pub(crate) struct Frames(Vec<Frame>);

#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
    says: OnceLock<Says>,
}

/// What of a frame is asked again and again.
#[derive(Debug)]
enum Says {
    Event { record: u64, seq: u64 },
    State(StateText),
    Other,
}

/// What a state frame says, in words.
#[derive(Debug)]
pub(super) struct StateText {
    /// The record's full hash.
    pub(super) record: u64,
    pub(super) records: Vec<RecordText>,
}

#[derive(Debug)]
pub(super) struct RecordText {
    pub(super) name: String,
    /// By account.
    pub(super) targets: Vec<TargetText>,
}

#[derive(Debug)]
pub(super) struct TargetText {
    /// The account, its link and what was not delivered.
    pub(super) link: String,
    pub(super) base: String,
    pub(super) last: Option<Progress>,
}

impl Says {
    fn of(kind: Kind, payload: &[u8]) -> Self {
        match kind {
            Kind::Event => {
                let event = codec::decode(payload).unwrap();
                Self::Event {
                    record: event.record_hash,
                    seq: event.operation_seq,
                }
            }
            Kind::State => Self::State(StateText::of(StateFrame::decode(payload).unwrap())),
            _ => Self::Other,
        }
    }
}

impl StateText {
    fn of(frame: StateFrame) -> Self {
        Self {
            record: frame.record,
            records: frame.records.into_iter().map(RecordText::of).collect(),
        }
    }
}

impl RecordText {
    fn of(mut record: RecordState) -> Self {
        record.targets.sort_by(|a, b| a.account.cmp(&b.account));
        let (object, id, alias) = (&record.object, &record.record_id, &record.alias_of);
        Self {
            name: format!("{object} {id} {alias:?}"),
            targets: record.targets.into_iter().map(TargetText::of).collect(),
        }
    }
}

impl TargetText {
    fn of(target: TargetState) -> Self {
        let TargetState {
            account,
            link,
            undelivered,
            last,
            base,
        } = target;
        Self {
            link: format!("{account} {link:?} {undelivered:?}"),
            base: format!("{base:?}"),
            last,
        }
    }
}

impl Frame {
    fn says(&self) -> &Says {
        self.says.get_or_init(|| Says::of(self.kind, &self.payload))
    }

    /// What it says if it is a state frame.
    pub(super) fn state(&self) -> Option<&StateText> {
        match self.says() {
            Says::State(text) => Some(text),
            _ => None,
        }
    }

    fn is_event(&self, of: u64, number: u64) -> bool {
        matches!(self.says(), Says::Event { record, seq } if (*record, *seq) == (of, number))
    }
}

pub(super) fn lsn_of(place: usize) -> Lsn {
    Lsn::new((place as u64 + 1) * 8)
}

impl Frames {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Frame> {
        self.0.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The event of an operation, by its record's hash and its number, and where it lies.
    pub(super) fn event(&self, record: u64, seq: u64) -> Option<(usize, &Frame)> {
        let place = self
            .0
            .iter()
            .position(|frame| frame.is_event(record, seq))?;
        Some((place, &self.0[place]))
    }

    /// What was known of each record when the log ended at a place, by the records' hashes.
    pub(super) fn states(&self, end: usize) -> BTreeMap<u64, &StateText> {
        let states = self.0[..end].iter().filter_map(Frame::state);
        states.map(|state| (state.record, state)).collect()
    }

    /// The last ones are lost.
    pub(super) fn lose(&mut self, count: usize) {
        self.0.truncate(self.0.len().saturating_sub(count));
    }
}

impl Journal for Frames {
    fn append(&mut self, _: Class, kind: Kind, parts: &[&[u8]]) -> Result<Lsn, AppendError> {
        self.0.push(Frame {
            kind,
            payload: parts.concat(),
            says: OnceLock::new(),
        });
        Ok(lsn_of(self.0.len() - 1))
    }

    fn read(&mut self, lsn: Lsn, payload: &mut Vec<u8>) -> Result<Kind, ReadError> {
        let frame = &self.0[(lsn.get() / 8 - 1) as usize];
        payload.clear();
        payload.extend_from_slice(&frame.payload);
        Ok(frame.kind)
    }

    fn durable(&self) -> Lsn {
        self.end()
    }

    fn end(&self) -> Lsn {
        lsn_of(self.0.len())
    }

    fn room(&self, _: Class) -> usize {
        64 * 1024 * 1024
    }
}
