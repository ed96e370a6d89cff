//! Taking events in: all of a batch or none.

use super::two_way::is_late;
use super::{Barrier, Output, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationSeq, RecordHash};
use crate::index::{Accepted, due};
use crate::journal::{AppendError, Class, Journal, Kind};
use crate::operation_slab::{Flow, OpClass, Priority};
use crate::refusal::Code;
use crate::time::Now;

/// Bytes a frame may cost beyond its payload: header and padding, rounded up.
const FRAME_OVERHEAD: usize = 32;

/// Accepted events, encoded as they go to the log.
#[derive(Debug, Default, Clone)]
pub struct EventBatch {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// Numbers of a producer that ended without an event and have to be remembered.
    pub consumed: Vec<Origin>,
}

/// A number of a producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Hash of the producer's name.
    pub producer: u64,
    /// The number.
    pub seq: u64,
    /// Every number up to here was settled when this was sent.
    pub base: u64,
}

impl EventBatch {
    /// Adds what `encode` appends to the buffer it is given.
    ///
    /// # Panics
    /// When a batch grows to 4 GiB; the ingest side sends one per read.
    pub fn push_with(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.ends
            .push(u32::try_from(self.bytes.len()).expect("a batch is bounded by a read"));
    }

    /// The encoded events.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.bytes[start as usize..end as usize])
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is nothing to log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.consumed.is_empty()
    }

    /// Bytes it takes in the log at most.
    #[must_use]
    pub fn log_bytes(&self) -> usize {
        self.bytes.len() + self.ends.len() * FRAME_OVERHEAD + self.consumed.len() * 64
    }

    /// Empties it, keeping its buffers.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        self.consumed.clear();
    }
}

impl<T> Shard<T> {
    /// Whether a batch of this size could be taken now; when not, the driver leaves it in the
    /// ring, and a full ring holds the senders back.
    #[must_use]
    pub fn has_room_for(&self, journal: &impl Journal, batch: &EventBatch) -> bool {
        journal.room(Class::Intake) >= batch.log_bytes()
    }

    pub(super) fn accept(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        (batch, barrier): (&EventBatch, &Barrier),
        ticket: T,
    ) {
        let taken = match barrier.is_closed() && !self.fenced {
            true => Err(Code::Overloaded),
            false => self.log_batch(now, journal, batch),
        };
        match taken {
            Ok(()) => self.effects.push(journal.end(), Output::Accepted(ticket)),
            Err(code) => {
                barrier.close();
                self.effects
                    .push_unconditional(Output::Refused { ticket, code });
            }
        }
    }

    fn log_batch(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        batch: &EventBatch,
    ) -> Result<(), Code> {
        if self.fenced {
            return Err(Code::ShardDown);
        }
        if !self.has_room_for(journal, batch) {
            return Err(
                if journal.room(Class::Outcome) > 0 && journal.room(Class::Intake) == 0 {
                    Code::DiskFull
                } else {
                    Code::Overloaded
                },
            );
        }
        let before = journal.end();
        match self.log_events(now, journal, batch) {
            Err(code) if journal.end() == before => Err(code),
            // Half a batch was taken, against the room that the log said it had. Whether the
            // rest may come again nobody could tell the sender: a restart settles it by number.
            Err(_) => {
                self.fence();
                Err(Code::ShardDown)
            }
            Ok(()) => Ok(()),
        }
    }

    fn log_events(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        batch: &EventBatch,
    ) -> Result<(), Code> {
        // The first frame decides; the others may use the reserve, so that a disk that fills up
        // in the middle of a batch does not part it.
        let mut class = Class::Intake;
        for payload in batch.iter() {
            let event = codec::decode(payload).map_err(|_| Code::Malformed)?;
            let at = journal
                .append(class, Kind::Event, &[payload])
                .map_err(refusal)?;
            class = Class::Outcome;
            if let Some(from) = event.producer {
                self.index
                    .producers
                    .settle(from.producer_hash, from.seq, from.acked_base);
            }
            self.index.note_object(&event.event.object);
            self.queue_targets(now, at, &event);
            self.look_back(now, journal, &event);
        }
        for origin in &batch.consumed {
            self.scratch.entry.clear();
            let consumed = crate::entry::Consumed {
                producer: origin.producer,
                acked_base: origin.base,
                seqs: vec![origin.seq],
            };
            consumed.encode(&mut self.scratch.entry);
            journal
                .append(class, Kind::Consumed, &[&self.scratch.entry])
                .map_err(refusal)?;
            class = Class::Outcome;
            self.index
                .producers
                .settle(origin.producer, origin.seq, origin.base);
        }
        Ok(())
    }

    /// Queues an event for each of its targets; shared with replay.
    pub(super) fn queue_targets(&mut self, now: Now, at: wal::Lsn, event: &AcceptedEvent<'_>) {
        for to in event.targets.iter() {
            let target = self.account(to.name);
            let record = RecordHash(event.record_hash);
            let waits = || self.index.is_open(record, target) || is_late(event);
            if to.action == TargetAction::Observe && !waits() {
                continue;
            }
            let accepted = accepted(now, event, target, self.flow_of(&event.event));
            self.index.apply_event(at, &accepted);
        }
    }

    /// The number of an account, known to index and dispatch alike.
    pub(super) fn account(&mut self, name: &str) -> crate::operation_slab::Target {
        let target = self.index.account(name);
        while self.accounts.len() < self.index.accounts.len() {
            let name = &self.index.accounts[self.accounts.len()].name;
            let mut account = super::Account::new(name, None);
            account.paused = self
                .index
                .holds()
                .iter()
                .any(|scope| scope.whole_account() == Some(name));
            self.accounts.push(account);
        }
        target
    }
}

pub(super) fn accepted(
    now: Now,
    event: &AcceptedEvent<'_>,
    target: crate::operation_slab::Target,
    flow: Flow,
) -> Accepted {
    Accepted {
        record: RecordHash(event.record_hash),
        seq: OperationSeq(event.operation_seq),
        target,
        priority: Priority::new(event.event.priority.get()).unwrap_or(Priority::DEFAULT),
        class: class_of(event.event.operation),
        flow,
        due: due(now, event.event.scheduled_at_ms.unwrap_or(0)),
    }
}

fn class_of(operation: Operation) -> OpClass {
    match operation {
        Operation::Create => OpClass::Create,
        Operation::Read | Operation::Update | Operation::Upsert => OpClass::Update,
        Operation::Delete => OpClass::Delete,
        Operation::Pull => OpClass::Pull,
    }
}

fn refusal(error: AppendError) -> Code {
    match error {
        AppendError::Full => Code::Overloaded,
        AppendError::DiskFull => Code::DiskFull,
        AppendError::TooLarge => Code::TooLarge,
        AppendError::Poisoned => Code::ShardDown,
    }
}
