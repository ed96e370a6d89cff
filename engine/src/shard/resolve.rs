//! An operator's word on fields that both sides changed and no rule decides.

use std::sync::Arc;

use super::absorb::Derived;
use super::dead_letter::DeadId;
use super::dispatch::CALL_ROOM;
use super::{CommandReply, Shard};
use crate::event::Operation;
use crate::event::codec;
use crate::id::{OperationId, OperationSeq};
use crate::index::lsn;
use crate::journal::{Class, Journal};
use crate::merge::{Base, Fields, Winner};
use crate::record::{Progress, StateFrame};
use crate::state::{Reason, State};
use crate::time::Now;

/// Whose values stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The operation that found the conflict.
    pub id: OperationId,
    /// At this account.
    pub account: Arc<str>,
    /// Which fields, as pointers; `None`: all that wait.
    pub fields: Option<Vec<String>>,
    /// System A or the account.
    pub winner: Winner,
    /// The number of the change that comes of it.
    pub seq: OperationSeq,
}

impl<T> Shard<T> {
    /// Ends the wait of fields: whoever lost is told what stands. Answers how many fields that was.
    pub(super) fn resolve(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        resolution: &Resolution,
    ) -> CommandReply {
        let none = CommandReply::Done { matched: 0 };
        let account = &resolution.account;
        let id = DeadId::new(resolution.id, account);
        let Some(op) = self.find_dead(&id) else {
            return none;
        };
        if journal.room(Class::Outcome) < CALL_ROOM {
            return CommandReply::Unavailable;
        }
        let position = lsn(self.index.slab[op].position());
        let mut bytes = Vec::new();
        let read = journal.read(position, &mut bytes);
        let Some(event) = read.ok().and_then(|_| codec::decode(&bytes).ok()) else {
            return none;
        };
        let (object, record_id) = (
            event.event.object.to_string(),
            event
                .event
                .record_id
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
        );
        let record = resolution.id.record;
        let Some((mut states, at)) = self.read_state(journal, record, &object, &record_id) else {
            return none;
        };
        let learners = self
            .plan_of(account)
            .and_then(|plan| Some(plan.two_way.get(&object)?.learners.clone()))
            .unwrap_or_default();
        let base = states[0].target_mut(account).base.get_or_insert_default();
        let (count, values) = take(base, resolution);
        if count == 0 {
            return none;
        }
        let settled = base.held().is_empty();
        let targets = match resolution.winner {
            Winner::SystemA => vec![account.clone()],
            Winner::Provider | Winner::Undecided => {
                let mut learners = learners;
                // A change that lost may wait for the account, and is undone there behind itself.
                let target = self.account(account);
                if self.index.is_open(record, target) {
                    learners.push(account.clone());
                }
                learners
            }
        };
        let derived = Derived {
            record,
            object: &object,
            record_id: &record_id,
            seq: resolution.seq,
            operation: Operation::Update,
            data: Some(&values.to_json()),
            changed_at_ms: now.wall.0,
            merged_into: None,
            origin: match resolution.winner {
                Winner::SystemA => super::SYSTEM_A,
                Winner::Provider | Winner::Undecided => account,
            },
            remote_id: states[0]
                .target(account)
                .and_then(|target| target.link.remote_id())
                .filter(|_| resolution.winner != Winner::SystemA),
            sources: &[],
            targets: &targets,
        };
        self.log_derived(now, journal, &derived);
        if settled {
            let known = states[0]
                .target(account)
                .and_then(|target| target.progress_of(resolution.id.seq));
            let mut progress = known.cloned().unwrap_or_else(|| {
                let operation = event.event.operation as u8;
                Progress::new(resolution.id.seq, operation, position.get())
            });
            progress.state = State::Synced;
            progress.reason = Some(Reason::Conflict);
            progress.updated_at_ms = now.wall.0;
            self.log_drop(now, journal, record, states, account, progress);
        } else {
            let frame = StateFrame {
                record: record.0,
                previous: at.get(),
                moved: None,
                records: states,
                folded: Vec::new(),
            };
            self.log_state(now, journal, &frame);
        }
        CommandReply::Done { matched: count }
    }
}

/// Takes the fields out of those that wait. Answers how many there were, and the values that stand.
fn take(base: &mut Base, resolution: &Resolution) -> (usize, Fields) {
    let wanted: Vec<String> = match &resolution.fields {
        Some(fields) => fields.clone(),
        None => base.held().keys().cloned().collect(),
    };
    let mut values = Fields::default();
    let mut count = 0;
    for pointer in wanted {
        let Some(held) = base.resolve(&pointer) else {
            continue;
        };
        count += 1;
        let stands = match resolution.winner {
            Winner::SystemA => &held.ours,
            Winner::Provider | Winner::Undecided => &held.theirs,
        };
        values.set(&pointer, stands);
        // This is what the account has; System A's goes there as a change of it.
        base.observed(&pointer, &held.theirs);
    }
    (count, values)
}
