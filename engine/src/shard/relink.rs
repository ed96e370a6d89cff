//! An operator's word on which record of an account a record of System A's is.
//!
//! A link is one fact in two places: the record says under which remote id it exists, and the
//! account's own id leads to the record (`handoff`). So it is set in steps, each durable before the
//! next: the id is claimed where it lies, the record is linked, the id it had before is given up. A
//! crash in between leaves an id that leads to a record which does not know it; the same request
//! again goes on from there.

use std::sync::Arc;

use super::dispatch::CALL_ROOM;
use super::{CommandReply, Shard};
use crate::id::RecordHash;
use crate::journal::{Class, Journal};
use crate::lane;
use crate::operation_slab::OpState;
use crate::record::{Link, RecordState, StateFrame};
use crate::time::Now;

/// One step. It matched 1 when things stand as it says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkStep {
    /// The account's id leads to this record from now on, unless it is another's.
    Claim(LinkName),
    /// The account's id does not lead to this record any more.
    GiveUp(LinkName),
    /// The record exists there under this id, or (`None`) is not known to exist. Not while a call
    /// for it is under way, which would say otherwise when it ends.
    Set {
        /// The account.
        account: Arc<str>,
        /// Local object.
        object: String,
        /// System A's key.
        record_id: String,
        /// The account's key.
        remote_id: Option<String>,
        /// The name under which the id was claimed; empty: it was not.
        claimed: String,
    },
}

/// An account's own id of a record of System A's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkName {
    /// The account.
    pub account: Arc<str>,
    /// Local object.
    pub object: String,
    /// [`super::provisional_id`].
    pub provisional: String,
    /// System A's key.
    pub record_id: String,
}

impl<T> Shard<T> {
    pub(super) fn link_step(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        step: &LinkStep,
    ) -> CommandReply {
        if journal.room(Class::Outcome) < CALL_ROOM {
            return CommandReply::Unavailable;
        }
        let stands = match step {
            LinkStep::Claim(name) => self.claim(now, journal, name),
            LinkStep::GiveUp(name) => self.give_up(now, journal, name),
            LinkStep::Set {
                account,
                object,
                record_id,
                remote_id,
                claimed,
            } => {
                let record = self.settings.hash_key.record(object, record_id);
                if self.is_in_call(record, account) {
                    return CommandReply::Done { matched: 0 };
                }
                self.change(now, journal, object, record_id, |state| {
                    let target = state.target_mut(account);
                    if target.link.remote_id() == remote_id.as_deref() {
                        return false;
                    }
                    target.link = remote_id.clone().map_or(Link::Unlinked, Link::Linked);
                    // What was agreed on was agreed on with another record.
                    target.base = None;
                    if remote_id.is_some() && !claimed.is_empty() {
                        target.base.get_or_insert_default().announce(claimed);
                    }
                    true
                })
            }
        };
        match stands {
            Some(stands) => CommandReply::Done {
                matched: usize::from(stands),
            },
            None => CommandReply::Unavailable,
        }
    }

    fn claim(&mut self, now: Now, journal: &mut impl Journal, name: &LinkName) -> Option<bool> {
        let mut free = true;
        self.change(now, journal, &name.object, &name.provisional, |state| {
            let own = state.target(&name.account);
            let is_record = own.is_some_and(|own| own.link.remote_id().is_some());
            let led = state.alias_of.as_deref();
            if led == Some(&*name.record_id) {
                return false;
            }
            free = led.is_none() && (!is_record || name.provisional == name.record_id);
            if free && name.provisional != name.record_id {
                state.alias_of = Some(name.record_id.clone());
                return true;
            }
            false
        })?;
        Some(free)
    }

    fn give_up(&mut self, now: Now, journal: &mut impl Journal, name: &LinkName) -> Option<bool> {
        self.change(now, journal, &name.object, &name.provisional, |state| {
            let leads = state.alias_of.as_deref() == Some(&*name.record_id);
            if leads {
                state.alias_of = None;
            }
            leads
        })
    }

    /// Changes a record's state where `change` says that it did, and logs it. `None` when it cannot
    /// be read or logged.
    fn change(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        object: &str,
        record_id: &str,
        change: impl FnOnce(&mut RecordState) -> bool,
    ) -> Option<bool> {
        let record = self.settings.hash_key.record(object, record_id);
        let (mut states, at) = self.read_state(journal, record, object, record_id)?;
        if change(&mut states[0]) {
            for target in &states[0].targets {
                self.account(&target.account);
            }
            let frame = StateFrame {
                record: record.0,
                previous: at.get(),
                moved: None,
                records: states,
                folded: Vec::new(),
            };
            self.index.note_object(object);
            self.log_state(now, journal, &frame);
        }
        (!self.fenced).then_some(true)
    }

    fn is_in_call(&self, record: RecordHash, account: &str) -> bool {
        let slab = &self.index.slab;
        lane::lanes(slab, self.index.lanes_of(record)).any(|lane| {
            let target = usize::from(lane.target(slab).0);
            *self.accounts[target].name == *account
                && slab[lane.front(slab)].state() == OpState::InFlight
        })
    }
}
