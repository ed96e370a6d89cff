//! References back: a field that holds the account's id of another record comes to System A as that
//! record's key.
//!
//! Whose record an account's id stands for, the owner of the id knows: it is asked, as the owner of a
//! parent is on the way out. While it does not know, the change waits, as a child waits for its
//! parent, and is looked at again when it does.

use std::sync::Arc;

use super::absorb::Shown;
use super::handoff::provisional_id;
use super::item::Item;
use super::links::{Asked, Child, LinkQuestion, LinkWord, ParentWait, Parents, Waiter};
use super::sides::Aside;
use super::{AccountPlan, Output, Shard};
use crate::id::RecordHash;
use crate::journal::Journal;
use crate::json::RawObject;
use crate::operation_slab::{OpFlags, OpState};
use crate::state::{Reason, State};
use crate::time::Now;

/// A record that another one refers to: its object, and the account's id as [`provisional_id`].
type Referred = (String, String);

/// A change whose references are asked for.
#[derive(Debug)]
pub(super) struct Referring {
    item: Item,
    shown: OwnShown,
}

/// What an account shows of a record, kept until it is known what it refers to.
#[derive(Debug)]
struct OwnShown {
    remote: String,
    whole: bool,
    changed_at_ms: i64,
    read_at_ms: i64,
}

impl Referring {
    fn new(item: Item, shown: Shown<'_>) -> Self {
        let shown = OwnShown {
            remote: shown.remote.to_owned(),
            whole: shown.whole,
            changed_at_ms: shown.changed_at_ms,
            read_at_ms: shown.read_at_ms,
        };
        Self { item, shown }
    }
}

impl OwnShown {
    fn as_shown(&self) -> Shown<'_> {
        Shown {
            remote: &self.remote,
            whole: self.whole,
            changed_at_ms: self.changed_at_ms,
            read_at_ms: self.read_at_ms,
        }
    }
}

impl<T> Shard<T> {
    /// Brings in what an account shows of an item's record, as soon as it is known what its references
    /// stand for.
    pub(super) fn absorb_referring(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        item: &mut Item,
        shown: Shown<'_>,
    ) -> Aside {
        let child = child_of(item);
        let referred = referred(plan, item.object(), shown.remote);
        let (mut known, mut asked) = (Parents::default(), Vec::new());
        let mut missing = Vec::new();
        for (object, remote_id) in referred {
            let provisional = provisional_id(&plan.name, &remote_id);
            let record = self.settings.hash_key.record(&object, &provisional);
            if !self.index.owns(record) {
                asked.push(self.whose_question(child, plan, record, &object, &provisional));
                known.expect(object, provisional);
                continue;
            }
            match self.whose(journal, &plan.name, &object, &remote_id) {
                Some(record_id) => known.learn(object, provisional, record_id),
                None => missing.push((object, provisional)),
            }
        }
        if !missing.is_empty() {
            return self.wait_for_referred(now, plan, item, missing);
        }
        if asked.is_empty() {
            self.links.forget_missing(child);
            self.absorb(now, journal, &plan.name, item, shown, &known);
            return Aside::Told;
        }
        if self.links.is_full() {
            return Aside::Later;
        }
        let referring = Referring::new(item.clone(), shown);
        self.links.refer(item.op, referring, known, asked.len());
        self.ask(asked);
        Aside::Waits
    }

    /// Whether a change still waits for what its references stand for, as far as is known here. The
    /// owners elsewhere are asked once more, and wake it.
    pub(super) fn still_waits(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        item: &mut Item,
    ) -> Option<Aside> {
        let child = child_of(item);
        let missing = self.links.missing_of(child)?.to_vec();
        let (mut asked, mut unknown) = (Vec::new(), false);
        for (object, provisional) in &missing {
            let record = self.settings.hash_key.record(object, provisional);
            if self.index.owns(record) {
                let remote_id = remote_id_of(&plan.name, provisional);
                let whose = self.whose(journal, &plan.name, object, remote_id);
                unknown |= whose.is_none();
            } else {
                asked.push(self.whose_question(child, plan, record, object, provisional));
            }
        }
        if !unknown && asked.is_empty() {
            self.links.forget_missing(child);
            return None;
        }
        self.ask(asked);
        Some(self.wait_for_referred(now, plan, item, missing))
    }

    /// All that was asked for a change was answered.
    pub(super) fn on_referred(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        (mut referring, known): (Referring, Parents),
    ) {
        let op = referring.item.op;
        let plan = self.plan_of(account);
        let Some(plan) = plan.filter(|_| self.refresh(journal, &mut referring.item)) else {
            return self.index.make_paused(op);
        };
        let mut item = referring.item;
        let missing = known.missing();
        if missing.is_empty() {
            self.links.forget_missing(child_of(&item));
            self.absorb(
                now,
                journal,
                account,
                &mut item,
                referring.shown.as_shown(),
                &known,
            );
            self.announce_if_inbound(now, journal, &plan, &mut item);
        } else if let Aside::Waits = self.wait_for_referred(now, &plan, &mut item, missing) {
            return;
        }
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, account, item, String::new());
    }

    /// Who asked later than the answer came waits no longer.
    pub(super) fn wake_referring(&mut self, child: Child, account: &str) {
        let target = self.account(account);
        let Some(op) = self.index.find(child.record, child.seq, target) else {
            return;
        };
        let node = &self.index.slab[op];
        let waits = node.state() == OpState::Backoff;
        if waits && node.has(OpFlags::PARENT) {
            self.links.forget_missing(child);
            self.index.unschedule(op);
            self.index.make_ready(op);
        }
    }

    fn wait_for_referred(
        &mut self,
        now: Now,
        plan: &AccountPlan,
        item: &mut Item,
        missing: Vec<Referred>,
    ) -> Aside {
        let child = child_of(item);
        let target = self.index.slab[item.op].target();
        for (object, provisional) in &missing {
            let record = self.settings.hash_key.record(object, provisional);
            if self.index.owns(record) {
                let waiter = Waiter::for_key(self.settings.id, child, object, provisional);
                self.remember_waiter(record, target, waiter);
            }
        }
        match self.wait_for_parent(now, item, plan.parent_timeout) {
            ParentWait::Begins => {
                self.links.remember_missing(child, missing);
                Aside::Told
            }
            ParentWait::Waits => {
                self.links.remember_missing(child, missing);
                Aside::Waits
            }
            ParentWait::TimedOut => {
                self.links.forget_missing(child);
                item.progress.state = State::Failed;
                item.progress.reason = Some(Reason::Parent);
                Aside::Told
            }
        }
    }

    fn whose_question(
        &self,
        child: Child,
        plan: &AccountPlan,
        parent: RecordHash,
        object: &str,
        provisional: &str,
    ) -> LinkQuestion {
        LinkQuestion {
            asker: self.settings.id,
            child,
            parent,
            account: plan.name.clone(),
            object: object.to_owned(),
            record_id: provisional.to_owned(),
            asked: Asked::RecordId,
        }
    }

    fn ask(&mut self, questions: Vec<LinkQuestion>) {
        for question in questions {
            // It shows nothing of this log but what an account told, which its event made durable.
            self.effects
                .push_unconditional(Output::Link(LinkWord::Question(question)));
        }
    }
}

/// The account's own id that a provisional one is made of.
pub(super) fn remote_id_of<'p>(account: &str, provisional: &'p str) -> &'p str {
    let own = provisional.strip_prefix(account);
    own.and_then(|own| own.strip_prefix(':'))
        .unwrap_or(provisional)
}

fn child_of(item: &Item) -> Child {
    Child {
        record: item.record,
        seq: item.front_seq(),
    }
}

/// What a record refers to, of the objects whose records come from the account: others are known by
/// nobody's key.
fn referred(plan: &AccountPlan, object: &str, remote: &str) -> Vec<(String, String)> {
    let mapping = plan.mappings.get(object).filter(|it| !it.is_plain());
    let (Some(mapping), Some(remote)) = (mapping, RawObject::new(remote)) else {
        return Vec::new();
    };
    let comes_in = |object: &str| plan.two_way.get(object).is_some_and(|it| it.inbound);
    let shown = mapping.references_back(remote).into_iter();
    let mut referred: Vec<(String, String)> =
        shown.filter(|(object, _)| comes_in(object)).collect();
    referred.sort();
    referred.dedup();
    referred
}
