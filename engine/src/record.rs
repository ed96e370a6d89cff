//! What the log remembers of one record: its links, what was never delivered, its last operations.

use crate::codec::{Damaged, Decoder, Encoder};
use crate::id::OperationSeq;
use crate::state::{CallClass, Reason, State};

/// Attempts kept with an operation, the newest. The count of burnt ones is exact beyond it.
pub const ATTEMPTS_KEPT: usize = 16;
/// Bytes of a provider's words kept with an attempt.
pub const DETAIL_MAX: usize = 512;

/// A record as its newest state frame holds it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RecordState {
    /// Local object name.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// One entry per account that ever took an operation of this record.
    pub targets: Vec<TargetState>,
}

impl RecordState {
    /// A record nothing is known of.
    #[must_use]
    pub fn new(object: &str, record_id: &str) -> Self {
        Self {
            object: object.to_owned(),
            record_id: record_id.to_owned(),
            targets: Vec::new(),
        }
    }

    /// What is known of the record at `account`.
    #[must_use]
    pub fn target(&self, account: &str) -> Option<&TargetState> {
        self.targets.iter().find(|target| target.account == account)
    }

    /// Takes out the entries made for dropped dead letters beside an account's own.
    pub fn leave_out_drops(&mut self) {
        let mut at = 0;
        while at < self.targets.len() {
            let account = &self.targets[at].account;
            if self.targets[..at]
                .iter()
                .any(|before| before.account == *account)
            {
                self.targets.remove(at);
            } else {
                at += 1;
            }
        }
    }

    /// The same, begun when nothing is known.
    pub fn target_mut(&mut self, account: &str) -> &mut TargetState {
        let at = match self
            .targets
            .iter()
            .position(|target| target.account == account)
        {
            Some(at) => at,
            None => {
                self.targets.push(TargetState::new(account));
                self.targets.len() - 1
            }
        };
        &mut self.targets[at]
    }
}

/// A record at one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetState {
    /// The account's name.
    pub account: String,
    /// Whether and as what the record exists there.
    pub link: Link,
    /// Fields of failed operations since the last one that arrived, merged in order: the
    /// ground beneath an UPDATE that has to create the record. A JSON object, or empty.
    pub undelivered: Vec<u8>,
    /// The operation whose outcome this frame was written for.
    pub last: Option<Progress>,
}

impl TargetState {
    pub(crate) fn new(account: &str) -> Self {
        Self {
            account: account.to_owned(),
            link: Link::Unlinked,
            undelivered: Vec::new(),
            last: None,
        }
    }

    /// The producer says under which id the record is there. A record that was deleted since
    /// stays deleted, and a link that is known stays.
    pub fn adopt(&mut self, remote_id: &str) {
        if matches!(self.link, Link::Unlinked | Link::Doubtful) {
            self.link = Link::Linked(remote_id.to_owned());
        }
    }

    /// The progress of operation `seq`, if it is the last one here.
    #[must_use]
    pub fn progress_of(&self, seq: OperationSeq) -> Option<&Progress> {
        self.last.as_ref().filter(|progress| progress.seq == seq)
    }
}

/// Whether a record exists at a target.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Link {
    /// Not known to exist.
    #[default]
    Unlinked,
    /// Exists under this remote id.
    Linked(String),
    /// May exist: an attempt to create it ended without a clear answer. It is looked up before
    /// another create, since that could make a second one.
    Doubtful,
    /// Deleted by us; `changed_at_ms` is when System A deleted it.
    Deleted {
        /// System A's time of the delete, ms since the epoch.
        changed_at_ms: i64,
    },
}

impl Link {
    /// The remote id, when linked.
    #[must_use]
    pub fn remote_id(&self) -> Option<&str> {
        match self {
            Self::Linked(id) => Some(id),
            Self::Unlinked | Self::Doubtful | Self::Deleted { .. } => None,
        }
    }
}

/// How far an operation has come at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The operation.
    pub seq: OperationSeq,
    /// What it is, as [`crate::event::Operation`] numbers it.
    pub operation: u8,
    /// Where its event lies in the log, as the raw position.
    pub event: u64,
    /// Its state after the latest attempt.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// What its next call has to be.
    pub resume: Resume,
    /// The idempotency key in use.
    pub key: KeyUse,
    /// Attempts that count toward the limit.
    pub burnt: u16,
    /// The first attempt, ms since the epoch; 0 before it.
    pub first_attempt_ms: i64,
    /// When the state changed last, ms since the epoch.
    pub updated_at_ms: i64,
    /// When an unknown outcome arose, ms since the epoch; 0 if none is open.
    pub unknown_since_ms: i64,
    /// Not before this, ms since the epoch; 0 for at once.
    pub due_ms: i64,
    /// The newest attempts, at most [`ATTEMPTS_KEPT`].
    pub attempts: Vec<Attempt>,
    /// What a READ returned: a JSON object, or empty.
    pub result: Vec<u8>,
}

impl Progress {
    /// An operation before its first attempt.
    #[must_use]
    pub fn new(seq: OperationSeq, operation: u8, event: u64) -> Self {
        Self {
            seq,
            operation,
            event,
            state: State::Queued,
            reason: None,
            resume: Resume::Normal,
            key: KeyUse::default(),
            burnt: 0,
            first_attempt_ms: 0,
            updated_at_ms: 0,
            unknown_since_ms: 0,
            due_ms: 0,
            attempts: Vec::new(),
            result: Vec::new(),
        }
    }

    /// Adds an attempt, letting the oldest go when the list is full.
    pub fn push_attempt(&mut self, attempt: Attempt) {
        if self.attempts.len() == ATTEMPTS_KEPT {
            self.attempts.remove(0);
        }
        self.attempts.push(attempt);
    }
}

/// What the next call of an operation has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Resume {
    /// What the table of operations says.
    #[default]
    Normal = 0,
    /// A look-up: the outcome of the call before is unknown.
    LookUp = 1,
    /// An upsert by key: the look-up found nothing and the time to settle is over.
    Upsert = 2,
    /// A look-up: the target says that the record exists.
    LookUpDuplicate = 3,
}

/// The idempotency key of an operation's newest request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeyUse {
    /// 0 before the first request, 1 for `<operation_id>`, n for `<operation_id>.n`.
    pub number: u16,
    /// Digest of method, path and body sent under it.
    pub digest: u64,
}

impl KeyUse {
    /// The key use for a request with this digest: the same request keeps its key, any
    /// other one gets the next.
    #[must_use]
    pub fn advance(self, digest: u64) -> Self {
        if self.number > 0 && self.digest == digest {
            self
        } else {
            Self {
                number: self.number.saturating_add(1),
                digest,
            }
        }
    }
}

/// One call made for an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When its outcome was known, ms since the epoch.
    pub at_ms: i64,
    /// HTTP status; 0 when no answer came.
    pub status: u16,
    /// What it came to.
    pub class: CallClass,
    /// The provider's words or ours, at most [`DETAIL_MAX`] bytes.
    pub detail: String,
}

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
}

impl StateFrame {
    /// Makes the frame smaller by what it can best do without: answers of READs first, then what
    /// was said of attempts, then the largest set of undelivered fields, whose record loses the
    /// ground beneath a later UPDATE. False when there is nothing left to give.
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
        let largest = targets
            .into_iter()
            .max_by_key(|target| target.undelivered.len());
        match largest.filter(|target| !target.undelivered.is_empty()) {
            Some(target) => {
                target.undelivered.clear();
                true
            }
            None => false,
        }
    }
}

const STATE_VERSION: u8 = 1;

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
                .u16(record.targets.len() as u16);
            for target in &record.targets {
                encode_target(&mut e, target);
            }
        }
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`Damaged`] for anything [`StateFrame::encode`] of this version would not write.
    pub fn decode(payload: &[u8]) -> Result<Self, Damaged> {
        let mut d = Decoder::new(payload);
        if d.u8("version")? != STATE_VERSION {
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
            let mut targets = Vec::new();
            for _ in 0..d.u16("targets")? {
                targets.push(decode_target(&mut d)?);
            }
            records.push(RecordState {
                object,
                record_id,
                targets,
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
    };
    e.bytes(&target.undelivered);
    let Some(last) = &target.last else {
        e.u8(0);
        return;
    };
    e.u8(1).u64(last.seq.0).u8(last.operation).u64(last.event);
    e.u8(last.state as u8)
        .u8(last.reason.map_or(0, |reason| reason as u8))
        .u8(last.resume as u8);
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
    e.bytes(&last.result);
}

fn decode_target(d: &mut Decoder<'_>) -> Result<TargetState, Damaged> {
    let account = d.text("account")?.to_owned();
    let link = match d.u8("link")? {
        0 => Link::Unlinked,
        1 => Link::Linked(d.text("remote id")?.to_owned()),
        2 => Link::Deleted {
            changed_at_ms: d.i64("deleted at")?,
        },
        3 => Link::Doubtful,
        _ => return Err(d.damaged("link")),
    };
    let undelivered = d.bytes("undelivered")?.to_vec();
    let last = match d.u8("progress")? {
        0 => None,
        1 => Some(decode_progress(d)?),
        _ => return Err(d.damaged("progress")),
    };
    Ok(TargetState {
        account,
        link,
        undelivered,
        last,
    })
}

fn decode_progress(d: &mut Decoder<'_>) -> Result<Progress, Damaged> {
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
    progress.resume = match d.u8("resume")? {
        0 => Resume::Normal,
        1 => Resume::LookUp,
        2 => Resume::Upsert,
        3 => Resume::LookUpDuplicate,
        _ => return Err(d.damaged("resume")),
    };
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

    #[test]
    fn the_same_request_keeps_its_key_and_another_gets_the_next() {
        let first = KeyUse::default().advance(10);
        assert_eq!(first.number, 1);
        assert_eq!(first.advance(10), first);
        assert_eq!(first.advance(11).number, 2);
    }

    #[test]
    fn attempts_beyond_the_kept_ones_push_out_the_oldest() {
        let mut progress = Progress::new(OperationSeq(1), 0, 8);
        for at_ms in 0..(ATTEMPTS_KEPT as i64 + 3) {
            progress.push_attempt(Attempt {
                at_ms,
                status: 0,
                class: CallClass::Transient,
                detail: String::new(),
            });
        }
        assert_eq!(progress.attempts.len(), ATTEMPTS_KEPT);
        assert_eq!(progress.attempts[0].at_ms, 3);
    }
}
