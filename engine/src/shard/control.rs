//! An operator's commands: holds, retries, drops.

use std::sync::Arc;

use super::dead_letter::{DeadFilter, DeadId};
use super::dispatch::CALL_ROOM;
use super::relink::LinkStep;
use super::replay::ReplaySpan;
use super::resolve::Resolution;
use super::{AccountPlan, EventBatch, Output, Shard};
use crate::entry::{HoldChange, HoldScope};
use crate::event::codec;
use crate::id::{OperationSeq, RecordHash};
use crate::index::lsn;
use crate::journal::{Class, Journal, Kind};
use crate::ready::FlowWeights;
use crate::record::Progress;
use crate::state::State;
use crate::time::Now;

/// A command to one shard.
#[derive(Debug, Clone)]
pub enum Command {
    /// Sets or lifts a hold.
    Hold(HoldChange),
    /// Takes dead letters back to the queue, and ends back-offs of the record if one is named.
    Retry(DeadFilter),
    /// Takes these dead letters back to the queue.
    Redrive(Vec<DeadId>),
    /// Gives a dead letter other data, the text of a JSON object.
    Edit(DeadId, String),
    /// Gives dead letters up for good.
    Drop(DeadFilter),
    /// Sends the state of records again that a span of time changed.
    Replay {
        /// Which changes are meant.
        span: Arc<ReplaySpan>,
        /// The records, each with the number of the operation that it becomes.
        records: Vec<(RecordHash, OperationSeq)>,
    },
    /// Counts dead letters.
    Count(DeadFilter),
    /// Says whose values stand in a conflict.
    Resolve(Resolution),
    /// Takes events of records that their targets know nothing of, and passes the others over.
    Fill(EventBatch),
    /// One step of setting a link.
    Link(LinkStep),
    /// Calls of an account that begin from now on go by this plan.
    Plan(Arc<AccountPlan>),
    /// The account is not configured any more: its operations wait until it is.
    PlanGone(Arc<str>),
    /// Holds an account whole, or lets it go, beside the holds that the log keeps: whoever sends it
    /// sends it again after a restart.
    Suspend {
        /// The account.
        account: Arc<str>,
        /// Held, or let go.
        suspended: bool,
    },
}

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandReply {
    /// Carried out and durable, on this many operations.
    Done {
        /// Operations it concerned.
        matched: usize,
    },
    /// A list was worked on, and that is durable; what the log had no room for takes another
    /// command.
    Partly {
        /// So many of the list are done with.
        through: usize,
        /// Of these, those that were carried out; the others are not as they have to be for it.
        done: usize,
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
                Command::Redrive(ids) => self.redrive_each(now, journal, &ids),
                Command::Edit(id, data) => self.edit(now, journal, &id, &data),
                Command::Drop(filter) => self.drop_dead(now, journal, &filter),
                Command::Replay { span, records } => {
                    self.replay_each(now, journal, &span, &records)
                }
                Command::Plan(plan) => {
                    let target = self.account(&plan.name);
                    let at = usize::from(target.0);
                    // Learned anew from what is looked at.
                    self.index.accounts[at].weights = FlowWeights::equal();
                    if self.accounts[at].set_plan(plan) {
                        self.forget_classes(at);
                    }
                    self.retry_objects(target);
                    CommandReply::Done { matched: 0 }
                }
                Command::PlanGone(account) => {
                    let target = self.account(&account);
                    self.release_suspects(usize::from(target.0));
                    self.accounts[usize::from(target.0)].plan = None;
                    CommandReply::Done { matched: 0 }
                }
                Command::Suspend { account, suspended } => {
                    self.suspended.retain(|known| *known != account);
                    self.suspended.extend(suspended.then_some(account));
                    self.refresh_pauses();
                    CommandReply::Done { matched: 0 }
                }
                Command::Resolve(resolution) => self.resolve(now, journal, &resolution),
                Command::Fill(events) => self.fill(now, journal, &events),
                Command::Link(step) => self.link_step(now, journal, &step),
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
        if !change.set {
            self.resume_objects(&change.scope);
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
            account.paused =
                self.index.holds().iter().any(whole) || self.suspended.contains(&account.name);
        }
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
}
