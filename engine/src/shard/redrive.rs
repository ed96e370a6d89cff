//! Dead letters on their way back: retried, edited, and never over what was written since.

use super::dead_letter::{DeadFilter, DeadId};
use super::dispatch::{CALL_ROOM, object};
use super::{CommandReply, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::RecordHash;
use crate::index::lsn;
use crate::journal::{Class, Journal, Kind};
use crate::json::{ObjectWriter, RawObject};
use crate::operation_slab::{OpFlags, OpIndex, OpState};
use crate::record::StateFrame;
use crate::time::Now;

/// What became of one dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Redriven {
    /// Queued again.
    Queued,
    /// Left where it is: unreadable, or a delete of what was written anew since.
    Left,
    /// The log takes nothing.
    Unlogged,
}

/// What operations accepted after another one wrote.
#[derive(Debug, Default)]
struct WrittenSince {
    /// Names of top-level fields.
    fields: Vec<String>,
    /// The record was created or changed.
    any: bool,
}

impl<T> Shard<T> {
    /// Takes dead letters that a filter names back to the queue, and ends back-offs of the record
    /// if it names one.
    pub(super) fn retry(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        filter: &DeadFilter,
    ) -> CommandReply {
        let mut matched = 0;
        for op in self.matching_dead(journal, filter) {
            match self.redrive(now, journal, op) {
                Redriven::Queued => matched += 1,
                Redriven::Left => {}
                Redriven::Unlogged => return CommandReply::Unavailable,
            }
        }
        if let Some(record_id) = &filter.record_id {
            matched += self.end_backoffs(journal, filter, record_id);
        }
        CommandReply::Done { matched }
    }

    /// Takes these back to the queue, as far as the log has room.
    pub(super) fn redrive_each(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        ids: &[DeadId],
    ) -> CommandReply {
        let mut done = 0;
        for (through, id) in ids.iter().enumerate() {
            if journal.room(Class::Outcome) < CALL_ROOM {
                return CommandReply::Partly { through, done };
            }
            let Some(op) = self.find_dead(id) else {
                continue;
            };
            match self.redrive(now, journal, op) {
                Redriven::Queued => done += 1,
                Redriven::Left => {}
                Redriven::Unlogged => return CommandReply::Unavailable,
            }
        }
        let through = ids.len();
        CommandReply::Partly { through, done }
    }

    /// Gives a dead letter other data, for whoever redrives it.
    pub(super) fn edit(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        id: &DeadId,
        data: &str,
    ) -> CommandReply {
        const NOTHING: CommandReply = CommandReply::Done { matched: 0 };
        let (Some(op), Some(data)) = (self.find_dead(id), RawObject::new(data)) else {
            return NOTHING;
        };
        let mut bytes = Vec::new();
        let position = lsn(self.index.slab[op].position());
        if journal.read(position, &mut bytes).is_err() {
            return NOTHING;
        }
        let Ok(mut event) = codec::decode(&bytes) else {
            return NOTHING;
        };
        let target = self.index.slab[op].target();
        let name = self.accounts[usize::from(target.0)].name.clone();
        // Before the event: a crash between the two leaves the letter as it was, to be edited again.
        if !self.edit_undelivered(now, journal, &event, &name, data) {
            return CommandReply::Unavailable;
        }
        event.event.data = Some(data);
        event.targets = only(&event, &name);
        self.scratch.entry.clear();
        event.encode_into(&mut self.scratch.entry);
        let entry = [self.scratch.entry.as_slice()];
        let Ok(at) = journal.append(Class::Outcome, Kind::EventMoved, &entry) else {
            return CommandReply::Unavailable;
        };
        let seq = crate::id::OperationSeq(event.operation_seq);
        self.index
            .apply_event_moved(at, RecordHash(event.record_hash), seq, target);
        CommandReply::Done { matched: 1 }
    }

    /// What the record keeps of the letter, to lie beneath a later UPDATE that has to create it, is
    /// edited as well: else a field that was taken out would come back with it. False when the
    /// log takes nothing.
    fn edit_undelivered(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
        data: RawObject<'_>,
    ) -> bool {
        let record = RecordHash(event.record_hash);
        let record_id = event.event.record_id.as_deref().unwrap_or_default();
        let states = self.read_state(journal, record, &event.event.object, record_id);
        let (Some((mut states, _)), Some(before)) = (states, event.event.data) else {
            return true;
        };
        let target = states[0].target_mut(account);
        let Some(kept) = object(&target.undelivered) else {
            return true;
        };
        let edited = edited(kept, before, data);
        if edited == target.undelivered {
            return true;
        }
        target.undelivered = edited;
        let frame = StateFrame {
            record: record.0,
            previous: self.index.state_position(record).map_or(0, |at| at.get()),
            moved: None,
            records: states,
            folded: Vec::new(),
        };
        self.scratch.entry.clear();
        frame.encode(&mut self.scratch.entry);
        match journal.append(Class::Outcome, Kind::State, &[&self.scratch.entry]) {
            Ok(at) => {
                self.index.apply_state(now, at, &frame);
                true
            }
            Err(_) => false,
        }
    }

    /// Logs a dead letter as the newest event of its record.
    fn redrive(&mut self, now: Now, journal: &mut impl Journal, op: OpIndex) -> Redriven {
        let mut bytes = Vec::new();
        let position = lsn(self.index.slab[op].position());
        let target = self.index.slab[op].target();
        let name = self.accounts[usize::from(target.0)].name.clone();
        if journal.read(position, &mut bytes).is_err() {
            return Redriven::Left;
        }
        let Ok(mut event) = codec::decode(&bytes) else {
            return Redriven::Left;
        };
        let Some(since) = self.written_since(journal, &event, &name) else {
            return Redriven::Left;
        };
        if asked(&event, &name) == Operation::Delete && since.any {
            return Redriven::Left;
        }
        let data = event
            .event
            .data
            .map(|data| without_members(data, &since.fields));
        event.event.data = data.as_deref().and_then(RawObject::new);
        event.targets = only(&event, &name);
        self.scratch.entry.clear();
        event.encode_into(&mut self.scratch.entry);
        let entry = [self.scratch.entry.as_slice()];
        let Ok(at) = journal.append(Class::Outcome, Kind::EventRedriven, &entry) else {
            return Redriven::Unlogged;
        };
        let flow = self.flow_of(&event.event);
        let accepted = super::accept::accepted(now, &event, target, flow);
        self.index.apply_redrive(at, &accepted);
        Redriven::Queued
    }

    /// An event's data without the fields that operations accepted after it carry. `None` when
    /// the log cannot be read: old values must not come back over new ones.
    pub(super) fn data_not_written_since(
        &mut self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
    ) -> Option<Option<String>> {
        let since = self.written_since(journal, event, account)?;
        let data = event.event.data;
        Some(data.map(|data| without_members(data, &since.fields)))
    }

    fn written_since(
        &mut self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
    ) -> Option<WrittenSince> {
        let mut since = WrittenSince::default();
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
            let newer =
                later.operation_seq > event.operation_seq && later.record_hash == event.record_hash;
            // A rule may have left it out here, or made a DELETE of it, which writes none of its fields.
            let sent = newer
                && later.action_at(account) != TargetAction::Skip
                && asked(&later, account).writes_fields();
            if let Some(data) = later.event.data.filter(|_| sent) {
                since.any = true;
                let names = data.members().map(|member| member.key.name().into_owned());
                since.fields.extend(names);
            }
        }
        Some(since)
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
                    self.index.slab[op].set_flags(OpFlags::HURRIED);
                    self.index.make_ready(op);
                    ended += 1;
                }
            }
        }
        ended
    }
}

/// What an account is asked to do: a rule may have put another operation in the event's place.
pub(super) fn asked(event: &AcceptedEvent<'_>, account: &str) -> Operation {
    match event.action_at(account) {
        TargetAction::Instead(operation) => operation,
        TargetAction::Sync | TargetAction::Skip | TargetAction::Observe => event.event.operation,
    }
}

/// An event's targets, this account alone.
fn only<'a>(event: &AcceptedEvent<'a>, account: &str) -> crate::event::Targets<'a> {
    let targets = event.targets.iter();
    targets.filter(|target| target.name == account).collect()
}

/// An object without some of its top-level members.
pub(super) fn without_members(data: RawObject<'_>, names: &[String]) -> String {
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

/// `kept` with each member that is still as `before` has it made as `after` has it, or left out.
fn edited(kept: RawObject<'_>, before: RawObject<'_>, after: RawObject<'_>) -> Vec<u8> {
    let value = |object: RawObject<'_>, name: &str| {
        let member = object.members().find(|member| member.key.is(name))?;
        Some(member.value.text().to_owned())
    };
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    for member in kept.members() {
        let name = member.key.name();
        let text = member.value.text();
        let text = if value(before, &name).as_deref() == Some(text) {
            value(after, &name)
        } else {
            Some(text.to_owned())
        };
        if let Some(text) = text {
            object
                .member_escaped(member.key.escaped())
                .extend_from_slice(text.as_bytes());
        }
    }
    object.close();
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_reaches_what_is_kept_but_not_what_others_wrote() {
        let check = |kept, before, after, expected: &str| {
            let object = |text| RawObject::new(text).unwrap();
            let out = edited(object(kept), object(before), object(after));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        };
        let kept = r#"{"name":"Ada","email":"no","city":"Turin"}"#;
        check(
            kept,
            r#"{"name":"Ada","email":"no"}"#,
            r#"{"name":"Ada"}"#,
            r#"{"name":"Ada","city":"Turin"}"#,
        );
        check(
            kept,
            r#"{"email":"no"}"#,
            r#"{"email":"a@b.c"}"#,
            r#"{"name":"Ada","email":"a@b.c","city":"Turin"}"#,
        );
        check(kept, r#"{"email":"older"}"#, "{}", kept);
    }

    #[test]
    fn members_are_left_out_by_their_unescaped_name() {
        let data = RawObject::new(r#"{"a":1,"\u0062":2,"c":3}"#).unwrap();
        assert_eq!(without_members(data, &["b".into()]), r#"{"a":1,"c":3}"#);
    }
}
