//! An operator's commands: holds, retries, drops.

use super::dispatch::CALL_ROOM;
use super::{Output, Shard};
use crate::entry::{HoldChange, HoldScope};
use crate::event::TargetAction;
use crate::event::codec::{self, AcceptedEvent};
use crate::id::{OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::{Class, Journal, Kind};
use crate::json::{ObjectWriter, RawObject};
use crate::operation_slab::{OpIndex, OpState};
use crate::record::Progress;
use crate::state::{Reason, State};
use crate::time::Now;

/// A command to one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Sets or lifts a hold.
    Hold(HoldChange),
    /// Takes dead letters back to the queue, and ends back-offs of the record if one is named.
    Retry(DeadFilter),
    /// Gives dead letters up for good.
    Drop(DeadFilter),
    /// Counts dead letters.
    Count(DeadFilter),
}

/// Which dead letters are meant. Absent parts match everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeadFilter {
    /// Account name.
    pub provider: Option<String>,
    /// Local object.
    pub object: Option<String>,
    /// System A's key.
    pub record_id: Option<String>,
    /// The reason it died of.
    pub code: Option<String>,
    /// One operation.
    pub operation: Option<(RecordHash, OperationSeq)>,
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandReply {
    /// Carried out and durable, on this many operations.
    Done {
        /// Operations it concerned.
        matched: usize,
    },
    /// The log takes nothing; nothing was changed.
    Unavailable,
}

impl<T> Shard<T> {
    pub(super) fn control(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        command: Command,
        ticket: T,
    ) {
        let reply = if self.fenced {
            CommandReply::Unavailable
        } else {
            match command {
                Command::Hold(change) => self.hold(journal, &change),
                Command::Retry(filter) => self.retry(now, journal, &filter),
                Command::Drop(filter) => self.drop_dead(now, journal, &filter),
                Command::Count(filter) => CommandReply::Done {
                    matched: self.matching_dead(journal, &filter).len(),
                },
            }
        };
        let done = Output::Done { ticket, reply };
        if reply == CommandReply::Unavailable {
            // Shows nothing of the log, which may never be durable any further.
            self.effects.push_unconditional(done);
        } else {
            self.effects.push(journal.end(), done);
        }
    }

    fn hold(&mut self, journal: &mut impl Journal, change: &HoldChange) -> CommandReply {
        self.scratch.entry.clear();
        change.encode(&mut self.scratch.entry);
        if journal
            .append(Class::Outcome, Kind::Hold, &[&self.scratch.entry])
            .is_err()
        {
            return CommandReply::Unavailable;
        }
        self.index.apply_hold(change);
        self.refresh_pauses();
        CommandReply::Done { matched: 0 }
    }

    /// Whole-account holds stop dispatch before it reads anything.
    pub(super) fn refresh_pauses(&mut self) {
        for account in &mut self.accounts {
            let whole = |scope: &HoldScope| {
                scope.whole_account() == Some(&*account.name) || *scope == HoldScope::default()
            };
            account.paused = self.index.holds().iter().any(whole);
        }
    }

    fn retry(&mut self, now: Now, journal: &mut impl Journal, filter: &DeadFilter) -> CommandReply {
        let mut matched = 0;
        for op in self.matching_dead(journal, filter) {
            match self.redrive(now, journal, op) {
                Some(true) => matched += 1,
                Some(false) => {}
                None => return CommandReply::Unavailable,
            }
        }
        if let Some(record_id) = &filter.record_id {
            matched += self.end_backoffs(journal, filter, record_id);
        }
        CommandReply::Done { matched }
    }

    /// Logs a dead letter as the newest event of its record. `None`: the log takes nothing.
    fn redrive(&mut self, now: Now, journal: &mut impl Journal, op: OpIndex) -> Option<bool> {
        let mut bytes = Vec::new();
        let position = lsn(self.index.slab[op].position());
        let target = self.index.slab[op].target();
        let name = self.accounts[usize::from(target.0)].name.clone();
        if journal.read(position, &mut bytes).is_err() {
            return Some(false);
        }
        #[expect(
            clippy::needless_late_init,
            reason = "it has to outlive the event that borrows it"
        )]
        let data;
        let Ok(event) = codec::decode(&bytes) else {
            return Some(false);
        };
        let Some(left) = self.data_not_written_since(journal, &event, &name) else {
            return Some(false);
        };
        data = left;
        let mut again = event;
        again.event.data = data.as_deref().and_then(RawObject::new);
        again.targets = again
            .targets
            .iter()
            .filter(|target| *target.name == *name)
            .collect();
        self.scratch.entry.clear();
        again.encode_into(&mut self.scratch.entry);
        let at = journal
            .append(Class::Outcome, Kind::EventRedriven, &[&self.scratch.entry])
            .ok()?;
        let accepted = super::accept::accepted(now, &again, target);
        self.index.apply_redrive(at, &accepted);
        Some(true)
    }

    /// An event's data without the fields that operations accepted after it carry. `None` when
    /// the log cannot be read: old values must not come back over new ones.
    pub(super) fn data_not_written_since(
        &mut self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
    ) -> Option<Option<String>> {
        let written = self.fields_written_since(journal, event, account)?;
        Some(event.event.data.map(|data| without_members(data, &written)))
    }

    /// Names of the top-level fields that operations accepted after this one carry.
    fn fields_written_since(
        &mut self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
    ) -> Option<Vec<String>> {
        let record = RecordHash(event.record_hash);
        let mut fields = Vec::new();
        let mut bytes = Vec::new();
        for position in self.later_events(journal, event, account)? {
            match journal.read(position, &mut bytes) {
                Ok(_) => {}
                // Compaction took them into account when it gave them up.
                Err(error) if error.gone => continue,
                Err(_) => return None,
            }
            let Ok(later) = codec::decode(&bytes) else {
                continue;
            };
            let newer = later.operation_seq > event.operation_seq && later.record_hash == record.0;
            let sent = newer && later.action_at(account) != TargetAction::Skip;
            if let Some(data) = later.event.data.filter(|_| sent) {
                fields.extend(data.members().map(|member| member.key.name().into_owned()));
            }
        }
        Some(fields)
    }

    fn end_backoffs(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
        record_id: &str,
    ) -> usize {
        let mut ended = 0;
        let objects = self.objects_of(journal, filter.object.as_deref(), record_id);
        for record in objects {
            for op in self.fronts_of(record) {
                let node = &self.index.slab[op];
                let named = filter.provider.as_deref().is_none_or(|provider| {
                    &*self.accounts[usize::from(node.target().0)].name == provider
                });
                if named && node.state() == OpState::Backoff {
                    self.index.unschedule(op);
                    self.index.slab[op].set_flags(crate::operation_slab::OpFlags::HURRIED);
                    self.index.make_ready(op);
                    ended += 1;
                }
            }
        }
        ended
    }

    fn drop_dead(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        filter: &DeadFilter,
    ) -> CommandReply {
        let mut matched = 0;
        for op in self.matching_dead(journal, filter) {
            let mut bytes = Vec::new();
            let position = lsn(self.index.slab[op].position());
            if journal.read(position, &mut bytes).is_err() {
                continue;
            }
            let Ok(event) = codec::decode(&bytes) else {
                continue;
            };
            let record = RecordHash(event.record_hash);
            let record_id = event.event.record_id.as_deref().unwrap_or_default();
            let name = self.accounts[usize::from(self.index.slab[op].target().0)]
                .name
                .clone();
            let Some((states, _)) =
                self.read_state(journal, record, &event.event.object, record_id)
            else {
                continue;
            };
            let seq = OperationSeq(event.operation_seq);
            let known = states[0]
                .target(&name)
                .and_then(|target| target.progress_of(seq))
                .cloned();
            let mut progress = known
                .unwrap_or_else(|| Progress::new(seq, event.event.operation as u8, position.get()));
            // Each frame may be as large as a record's; the rest takes another command.
            if journal.room(Class::Outcome) < CALL_ROOM {
                break;
            }
            progress.state = State::Dropped;
            progress.reason = None;
            progress.updated_at_ms = now.wall.0;
            self.log_drop(now, journal, record, states, &name, progress);
            if self.fenced {
                return CommandReply::Unavailable;
            }
            matched += 1;
        }
        CommandReply::Done { matched }
    }

    /// Dead letters that a filter names.
    pub(super) fn matching_dead(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
    ) -> Vec<OpIndex> {
        let named = |shard: &Self, op: OpIndex| {
            let account = &shard.accounts[usize::from(shard.index.slab[op].target().0)].name;
            filter
                .provider
                .as_deref()
                .is_none_or(|provider| provider == &**account)
        };
        let dead: Vec<OpIndex> = self
            .index
            .all_dead()
            .filter(|&op| named(self, op))
            .collect();
        dead.into_iter()
            .filter(|&op| self.dead_matches(journal, filter, op))
            .collect()
    }

    fn dead_matches(
        &mut self,
        journal: &mut impl Journal,
        filter: &DeadFilter,
        op: OpIndex,
    ) -> bool {
        if let Some((record, seq)) = filter.operation {
            let node = &self.index.slab[op];
            if node.sequence_low() != seq.low() || node.dead_record() != record {
                return false;
            }
        }
        if filter.object.is_none() && filter.record_id.is_none() && filter.code.is_none() {
            return true;
        }
        self.dead_letter(journal, op).is_some_and(|letter| {
            let matches = |wanted: &Option<String>, is: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == is)
            };
            matches(&filter.object, &letter.object)
                && matches(&filter.record_id, &letter.record_id)
                && matches(&filter.code, letter.code.map_or("", Reason::as_str))
        })
    }
}

/// An object without some of its top-level members.
fn without_members(data: RawObject<'_>, names: &[String]) -> String {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    for member in data
        .members()
        .filter(|member| !names.iter().any(|name| member.key.is(name)))
    {
        object
            .member_escaped(member.key.escaped())
            .extend_from_slice(member.value.text().as_bytes());
    }
    object.close();
    String::from_utf8(out).expect("written from slices of UTF-8 text")
}
