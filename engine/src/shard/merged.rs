//! Two records of an account became one there: the link of the one that ended follows.
//!
//! An account's id leads to one record of System A's. Whose the id of the record that stays is, its
//! owner says: the one that was linked to it before, or the first that asks. That one is linked to
//! it from then on. Any other is part of it: what is said of it goes on to the record that stays,
//! and it is deleted everywhere else, where the object's deletes are.

use std::sync::Arc;

use super::absorb::Derived;
use super::handoff::{HandedOver, News, Pull, provisional_id};
use super::item::Item;
use super::links::{Child, LinkWord};
use super::two_way::{TwoWay, extra};
use super::{AccountPlan, DeletePolicy, Output, Shard};
use crate::event::Operation;
use crate::id::RecordHash;
use crate::journal::Journal;
use crate::json::ObjectWriter;
use crate::merge::Fields;
use crate::quota::ShardId;
use crate::record::{Link, RecordState, StateFrame};
use crate::state::{Reason, State};
use crate::time::Now;

/// To the owner of an account's id: a record whose own was merged into that one, or that was found
/// under it, asks whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Who wants to know.
    pub asker: ShardId,
    /// The operation that goes on then.
    pub child: Child,
    /// The account.
    pub account: Arc<str>,
    /// The id as a record of its own; its virtual shard says who owns it.
    pub record: RecordHash,
    /// The record's local object.
    pub object: String,
    /// The id.
    pub remote_id: String,
    /// System A's key of the record that asks.
    pub record_id: String,
}

/// Back: whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The operation that goes on.
    pub child: Child,
    /// The account.
    pub account: Arc<str>,
    /// The id.
    pub remote_id: String,
    /// System A's key of the record that it leads to.
    pub holder: String,
}

impl<T> Shard<T> {
    /// What the owner of an account's id is asked for an item's record.
    pub(super) fn claim_on(&self, account: &Arc<str>, item: &Item, remote_id: &str) -> Claim {
        let provisional = provisional_id(account, remote_id);
        Claim {
            asker: self.settings.id,
            child: Child {
                record: item.record,
                seq: item.front_seq(),
            },
            account: account.clone(),
            record: self.settings.hash_key.record(item.object(), &provisional),
            object: item.object().to_owned(),
            remote_id: remote_id.to_owned(),
            record_id: item.record_id().to_owned(),
        }
    }

    /// Takes up that an item's record is part of the account's record `into` now.
    pub(super) fn absorb_merge(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        into: &str,
    ) -> HandedOver {
        let claim = self.claim_on(account, item, into);
        if self.index.owns(claim.record) {
            let Some(holder) = self.holder_of(now, journal, &claim) else {
                return HandedOver::Full;
            };
            self.follow(now, journal, account, item, into, &holder);
            return HandedOver::Ended;
        }
        if self.links.is_full() {
            return HandedOver::Full;
        }
        self.links.hand(item.op, item.clone());
        // It shows nothing of this log that is not durable: the notice was, before it was looked at.
        self.effects
            .push(journal.end(), Output::Link(LinkWord::Claim(claim)));
        HandedOver::Waits
    }

    pub(super) fn on_claim(&mut self, now: Now, journal: &mut impl Journal, claim: Claim) {
        let Some(holder) = self.holder_of(now, journal, &claim) else {
            // Its log is damaged there: the asker asks again after a restart.
            return;
        };
        let claimed = Claimed {
            child: claim.child,
            account: claim.account,
            remote_id: claim.remote_id,
            holder,
        };
        self.effects.push(
            journal.end(),
            Output::LinkTo(claim.asker, LinkWord::Claimed(claimed)),
        );
    }

    pub(super) fn on_claimed(&mut self, now: Now, journal: &mut impl Journal, word: &Claimed) {
        let target = self.account(&word.account);
        let Some(op) = self.index.find(word.child.record, word.child.seq, target) else {
            return;
        };
        let Some(mut item) = self.links.take_handed(op) else {
            return;
        };
        if !self.refresh(journal, &mut item) {
            return self.index.make_paused(op);
        }
        let (into, holder) = (&word.remote_id, &word.holder);
        if item.operation == Operation::Pull {
            self.follow(now, journal, &word.account, &mut item, into, holder);
        } else {
            self.adopt(now, journal, &word.account, &mut item, into, holder);
        }
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, &word.account, *item, String::new());
    }

    /// System A's key of the record that an account's id leads to; if to none, the one that asks.
    pub(super) fn holder_of(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        claim: &Claim,
    ) -> Option<String> {
        let provisional = provisional_id(&claim.account, &claim.remote_id);
        let (mut states, at) =
            self.read_state(journal, claim.record, &claim.object, &provisional)?;
        let known: &RecordState = &states[0];
        if let Some(holder) = &known.alias_of {
            return Some(holder.clone());
        }
        let made_there = known
            .target(&claim.account)
            .is_some_and(|target| target.base.is_some() && target.link.remote_id().is_some());
        if made_there {
            return Some(provisional);
        }
        states[0].alias_of = Some(claim.record_id.clone());
        let frame = StateFrame {
            record: claim.record.0,
            previous: at.get(),
            moved: None,
            records: states,
            folded: Vec::new(),
        };
        self.index.note_object(&claim.object);
        self.log_state(now, journal, &frame);
        Some(claim.record_id.clone())
    }

    /// Links an item's record to what it was merged into, or makes it part of that one's record.
    fn follow(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        into: &str,
        holder: &str,
    ) {
        item.progress.state = State::Synced;
        item.progress.reason = None;
        item.progress.result = result(into, holder);
        let two_way = self
            .plan_of(account)
            .and_then(|plan| plan.two_way.get(item.object()).cloned());
        let (record_id, object) = (item.record_id().to_owned(), item.object().to_owned());
        let target = item.states[0].target_mut(account);
        if holder == record_id {
            target.link = Link::Linked(into.to_owned());
            let base = target.base.get_or_insert_default();
            base.announce(&provisional_id(account, into));
            // What it shows now is for the next operation of the lane to find out.
            let look = Pull {
                account,
                object: &object,
                record_id: &record_id,
                provisional: false,
                remote_id: into,
                fields: None,
                read_at_ms: 0,
                whole: false,
                news: News::Changed,
                changed_at_ms: item.lead.changed_at_ms,
            };
            let look = look.encode(self.number_of_outcome(item).0, item.record, now.wall.0);
            return self.take_handoff(now, journal, &look, false);
        }
        let former = target.link.remote_id().map(str::to_owned);
        target.link = Link::MergedInto(holder.to_owned());
        target.base = None;
        target.undelivered.clear();
        let Some(two_way) = two_way.filter(deletes_elsewhere) else {
            return;
        };
        let derived = Derived {
            record: item.record,
            object: item.object(),
            record_id: item.record_id(),
            seq: self.number_of_outcome(item),
            operation: Operation::Delete,
            data: None,
            changed_at_ms: item.lead.changed_at_ms,
            origin: account,
            remote_id: former.as_deref(),
            sources: &[],
            merged_into: Some(holder),
            targets: &two_way.learners,
        };
        self.log_derived(now, journal, &derived);
    }

    /// What becomes of an operation whose record is part of another one at the account. `None`: its
    /// record is its own.
    pub(super) fn pass_on(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        two_way: &TwoWay,
        item: &mut Item,
        said: Option<Fields>,
    ) -> Option<HandedOver> {
        let account = &plan.name;
        let target = item.states[0].target(account)?;
        let Link::MergedInto(holder) = target.link.clone() else {
            return None;
        };
        let (state, reason) = match item.operation {
            Operation::Create | Operation::Update | Operation::Upsert => {
                let record = self.settings.hash_key.record(item.object(), &holder);
                let mut targets = two_way.learners.clone();
                targets.push(account.clone());
                let change = Derived {
                    record,
                    object: item.object(),
                    record_id: &holder,
                    seq: item.lead.seq,
                    operation: Operation::Update,
                    data: Some(&said.unwrap_or_default().to_json()),
                    changed_at_ms: item.lead.changed_at_ms,
                    origin: account,
                    remote_id: None,
                    sources: &[],
                    merged_into: None,
                    targets: &targets,
                }
                .encode(now);
                return Some(self.hand_event(now, journal, account, item, (record, change)));
            }
            // The record that stays is not what was to be deleted.
            Operation::Delete => (State::Synced, Some(Reason::Absent)),
            Operation::Read => (State::Failed, Some(Reason::NotFound)),
            Operation::Pull => (State::Synced, Some(Reason::Unchanged)),
        };
        (item.progress.state, item.progress.reason) = (state, reason);
        Some(HandedOver::Ended)
    }
}

/// A record that is out of the bin again is its own at every account, also where it was made part of
/// another one: there it is made anew.
pub(super) fn stand_alone(item: &mut Item) {
    for target in &mut item.states[0].targets {
        if matches!(target.link, Link::MergedInto(_)) {
            target.link = Link::Unlinked;
        }
    }
}

fn deletes_elsewhere(two_way: &TwoWay) -> bool {
    two_way.inbound && two_way.deletes == DeletePolicy::Propagate
}

fn result(into: &str, holder: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    object.text(extra::MERGED_INTO, into);
    object.text("record_id", holder);
    object.close();
    out
}
