//! What an object that is kept in step both ways adds to an operation: before its call and after.

use std::sync::Arc;

use super::absorb::{Derived, Shown, base_of};
use super::fold::Fold;
use super::handoff::{HandedOver, News, Pull, provisional_id};
use super::item::Item;
use super::prepare::Prepared;
use super::telling::Telling;
use super::two_way::{Hint, Role, SYSTEM_A, TwoWay, merged_into};
use super::{AccountPlan, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::index::lsn;
use crate::journal::Journal;
use crate::json::RawObject;
use crate::lane;
use crate::merge::{Base, Fields};
use crate::operation_slab::OpFlags;
use crate::provider::{CallKind, Reply, SendFailure, Verdict};
use crate::record::Link;
use crate::state::{Reason, State};
use crate::time::Now;

/// How an operation goes on without a call.
pub(super) enum Aside {
    /// As its item's progress says.
    Told,
    /// It waits for another shard.
    Waits,
    /// It comes again: too much waits for other shards.
    Later,
}

impl<T> Shard<T> {
    /// Looks at an operation of an object that is kept in step both ways. `None`: it goes on to its
    /// call.
    pub(super) fn prepare_two_way(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        event: &AcceptedEvent<'_>,
        fold: &mut Fold,
        item: &mut Item,
    ) -> Option<Aside> {
        if event.action_at(account) == TargetAction::Observe {
            self.compare_told(now, journal, event, item);
            return Some(Aside::Told);
        }
        let plan = self.accounts[usize::from(self.index.slab[item.op].target().0)]
            .plan
            .clone()?;
        if plan.role == Role::SystemA {
            let record_id = item.record_id().to_owned();
            item.states[0].target_mut(SYSTEM_A).link = Link::Linked(record_id);
            item.merged_into = merged_into(event).map(std::borrow::Cow::into_owned);
            item.tellings = match fold.tellings.is_empty() {
                true => Telling::of(event),
                false => std::mem::take(&mut fold.tellings),
            };
            return None;
        }
        let Some(two_way) = plan.two_way.get(item.object()) else {
            if item.operation != Operation::Pull {
                return None;
            }
            item.progress.state = State::SkippedByRule;
            return Some(Aside::Told);
        };
        let merged = matches!(
            item.states[0].target(account).map(|target| &target.link),
            Some(Link::MergedInto(_))
        );
        let again = merged && self.is_made_again(now, event, item);
        if again {
            // System A has been told that it ended: this is another one under its key.
            let target = item.states[0].target_mut(account);
            (target.link, target.base) = (Link::Unlinked, None);
        } else if merged && !item.progress.is_frozen() {
            let said = item.operation.writes_fields().then(|| said(event, fold));
            let passed = self.pass_on(now, journal, &plan, two_way, item, said)?;
            return Some(aside(passed));
        }
        match item.operation {
            Operation::Pull => self.prepare_pull(now, journal, &plan, two_way, event, item),
            Operation::Create | Operation::Update | Operation::Upsert => {
                let target = item.states[0].target(account);
                let linked = target.is_some_and(|target| target.link.remote_id().is_some());
                if linked && two_way.inbound && item.progress.resume.is_normal() {
                    // By our key a record would be made that was deleted there meanwhile, or a
                    // second one of one that does not bear it.
                    item.operation = Operation::Update;
                }
                let new = item.front_seq() >= self.settings.first_seq;
                weigh(account, said(event, fold), (fold, new), item)
            }
            Operation::Read | Operation::Delete => None,
        }
    }

    /// Whether System A makes a record of whose end it knows.
    fn is_made_again(&self, now: Now, event: &AcceptedEvent<'_>, item: &Item) -> bool {
        let makes = matches!(item.operation, Operation::Create | Operation::Upsert);
        let told = item.states[0].target(SYSTEM_A);
        let told = told.and_then(|target| target.base.as_deref());
        let from_system_a = super::two_way::origin_of(event).is_none();
        makes
            && from_system_a
            && told.is_some_and(|told| told.told().knew_of_delete(i64::MIN, self.said(now, event)))
    }

    fn prepare_pull(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        two_way: &TwoWay,
        event: &AcceptedEvent<'_>,
        item: &mut Item,
    ) -> Option<Aside> {
        let mut hint = Hint::of(event);
        let account = &plan.name;
        let remote_id = event.event.remote_id.as_deref().unwrap_or_default();
        let changed_at_ms = event.event.changed_at_ms.unwrap_or(event.accepted_at_ms);
        let target = item.states[0].target(account);
        let base = target.and_then(|target| target.base.as_deref());
        let fresh = hint
            .read_at_ms
            .filter(|&at| self.clock.is_comparable(at))
            .filter(|&at| base.is_none_or(|base| base.is_fresh(at)))
            // Nor is it, whatever the clock says, when something ended since that may have been a
            // write of ours: it may have waited until a clock that was set back came by again.
            .filter(|_| item.state_at < item.lead.event);
        let read_at_ms = fresh.unwrap_or_default();
        let fields = event
            .event
            .data
            .filter(|_| hint.news() == News::Changed && fresh.is_some());
        let alias = item.states[0].alias_of.clone().filter(|_| hint.provisional);
        if let Some(record_id) = alias {
            let told = Pull {
                account,
                object: &event.event.object,
                record_id: &record_id,
                provisional: false,
                remote_id,
                fields,
                read_at_ms,
                whole: hint.whole,
                news: hint.news(),
                changed_at_ms,
            };
            let handed = self.hand_over(now, journal, account, item, &told);
            return Some(aside(handed));
        }
        let marked = fields.is_some_and(|fields| plan.is_marked(item.object(), fields.text()));
        let told_deleted = hint.deleted;
        hint.deleted |= marked;
        let target = item.states[0].target_mut(account);
        if target
            .link
            .remote_id()
            .is_some_and(|known| known != remote_id && !remote_id.is_empty())
        {
            // Either it was linked to another one since, or two records claim to be this one.
            let base = target.base.as_deref();
            let former = base.is_some_and(|base| !base.is_fresh(changed_at_ms));
            let over = hint.deleted || hint.merged_into.is_some() || former;
            let (state, reason) = if over {
                (State::Synced, Reason::Unchanged)
            } else {
                (State::Failed, Reason::Duplicate)
            };
            item.progress.state = state;
            item.progress.reason = Some(reason);
            return Some(Aside::Told);
        }
        let born = target.base.is_some();
        if hint.news() == News::Changed
            && (born || !hint.provisional)
            && self.is_told_again(journal, item, remote_id)
        {
            item.progress.state = State::Synced;
            item.progress.reason = Some(Reason::Unchanged);
            return Some(Aside::Told);
        }
        let target = item.states[0].target_mut(account);
        let seen_since = |base: &Base| base.seen_after(changed_at_ms);
        if hint.deleted && target.base.as_deref().is_some_and(seen_since) {
            // It may be back since. A read says.
            return None;
        }
        let keys = plan.key_support(&event.event.object);
        if told_deleted && keys.marks_deletes && target.link.remote_id().is_some() {
            // Under the same id it may have been made again since.
            return None;
        }
        let in_doubt = target.link == Link::Doubtful;
        if hint.deleted && in_doubt && keys.look_up {
            // It may be the record from before the create that is in doubt. A look-up says.
            return None;
        }
        if hint.deleted {
            if hint.provisional && !born {
                bury(account, item, changed_at_ms);
            } else {
                self.absorb_delete(now, journal, account, item, two_way, changed_at_ms);
            }
            return Some(Aside::Told);
        }
        if let Some(into) = &hint.merged_into {
            if target.link.remote_id().is_none() || (hint.provisional && !born) {
                // Nobody knew it. Whoever the one that stays belongs to is told of that one.
                item.progress.state = State::Synced;
                item.progress.reason = Some(Reason::Absent);
                return Some(Aside::Told);
            }
            return Some(aside(self.absorb_merge(now, journal, account, item, into)));
        }
        if let Link::Deleted {
            changed_at_ms: deleted_at_ms,
        } = target.link
        {
            // It may be back. What is told now may be of any time before it was deleted: it is read.
            let told_later = changed_at_ms > deleted_at_ms;
            if !told_later && !hint.restored {
                return None;
            }
            target.link = Link::Linked(remote_id.to_owned());
            target.base = None;
            if !told_later {
                self.delete_once_more(now, journal, account, item, deleted_at_ms);
                return Some(Aside::Told);
            }
            item.deleted_at_ms = Some(deleted_at_ms);
            return None;
        }
        if item.waits_since_ms.is_some()
            && let Some(waits) = self.still_waits(now, journal, plan, item)
        {
            return Some(waits);
        }
        let fields = fields?;
        let shown = Shown {
            remote: fields.text(),
            whole: hint.whole,
            changed_at_ms,
            read_at_ms,
        };
        if hint.provisional && !born {
            return Some(self.examine(now, journal, plan, item, shown));
        }
        Some(self.absorb_referring(now, journal, plan, item, shown))
    }

    /// Whether the next operation of the lane is another notice of the same: one look serves both.
    fn is_told_again(&self, journal: &mut impl Journal, item: &Item, remote_id: &str) -> bool {
        let slab = &self.index.slab;
        let target = slab[item.op].target();
        let lane = lane::of(slab, self.index.lanes_of(item.record), target);
        let next = lane.and_then(|lane| lane.iter(slab).nth(1));
        let Some(next) = next.filter(|next| !slab[*next].has(OpFlags::REDRIVEN)) else {
            return false;
        };
        let mut bytes = Vec::new();
        if journal
            .read(lsn(slab[next].position()), &mut bytes)
            .is_err()
        {
            return false;
        }
        codec::decode(&bytes).is_ok_and(|event| {
            event.record_hash == item.record.0
                && event.event.operation == Operation::Pull
                && event.event.object == item.object()
                && event.event.record_id.as_deref() == Some(item.record_id())
                && event.event.remote_id.as_deref() == Some(remote_id)
                && Hint::of(&event).news() == News::Changed
        })
    }

    /// A record that came back at its account, and was deleted after that, goes again.
    fn delete_once_more(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        deleted_at_ms: i64,
    ) {
        let derived = Derived {
            record: item.record,
            object: item.object(),
            record_id: item.record_id(),
            seq: self.number_of_outcome(item),
            operation: Operation::Delete,
            data: None,
            changed_at_ms: deleted_at_ms,
            origin: account,
            remote_id: None,
            sources: &[],
            merged_into: None,
            targets: std::slice::from_ref(account),
        };
        self.log_derived(now, journal, &derived);
        item.progress.state = State::Superseded;
        item.progress.reason = Some(Reason::RecordDeleted);
    }

    /// Finds out whose a record is that is known by the account's id only.
    fn examine(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        item: &mut Item,
        shown: Shown<'_>,
    ) -> Aside {
        let account = &plan.name;
        let mapping = plan.mappings.get(item.object());
        let key = match mapping.and_then(|mapping| mapping.external_id()) {
            Some(field) => Some(field.to_owned()),
            None => {
                let remote = mapping.map_or(item.object(), |mapping| mapping.remote());
                plan.definition.record_key(remote).map(str::to_owned)
            }
        };
        let remote = RawObject::new(shown.remote);
        let record_id = key
            .as_deref()
            .and_then(|key| remote?.get(key))
            .and_then(|value| value.as_text().map(std::borrow::Cow::into_owned))
            .filter(|id| !id.is_empty());
        // Somebody may have been linked to it while it was read.
        let record_id = item.states[0].alias_of.clone().or(record_id);
        let remote_id = item.states[0]
            .target(account)
            .and_then(|target| target.link.remote_id())
            .unwrap_or_default()
            .to_owned();
        match record_id.filter(|id| *id != provisional_id(account, &remote_id)) {
            Some(record_id) => {
                let object = item.object().to_owned();
                let told = Pull {
                    account,
                    object: &object,
                    record_id: &record_id,
                    provisional: false,
                    remote_id: &remote_id,
                    fields: remote,
                    read_at_ms: shown.read_at_ms,
                    whole: shown.whole,
                    news: News::Changed,
                    changed_at_ms: shown.changed_at_ms,
                };
                item.states[0].alias_of = Some(record_id.clone());
                aside(self.hand_over(now, journal, account, item, &told))
            }
            None if key.is_none() && item.progress.unknown_since_ms == 0 => {
                // A create of ours may have made it, and its answer be still on the way.
                item.progress.unknown_since_ms = now.wall.0;
                item.progress.due_ms = now.wall.0.saturating_add(plan.settle.as_millis() as i64);
                item.progress.state = State::Retrying;
                item.progress.reason = Some(Reason::Backoff);
                Aside::Told
            }
            None => self.absorb_referring(now, journal, plan, item, shown),
        }
    }

    /// Tells the owner of the account's id whose record it is, if changes come from there.
    pub(super) fn announce_if_inbound(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        item: &mut Item,
    ) {
        let two_way = plan.two_way.get(item.object());
        if two_way.is_some_and(|two_way| two_way.inbound) {
            self.announce(now, journal, &plan.name, item);
        }
    }

    /// Takes up in an item what its call did. True when the item waits for another shard.
    pub(super) fn conclude_two_way(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &AccountPlan,
        item: &mut Item,
        verdict: &Verdict,
        result: &Result<Reply, SendFailure>,
    ) -> bool {
        let account = &plan.name;
        hold_link(account, item);
        let gone = (Some(Reason::Gone), State::Failed);
        if (item.progress.reason, item.progress.state) == gone {
            // Somebody deleted it there, and nobody has told us yet.
            if let Some(two_way) = plan.two_way.get(item.object()) {
                let changed_at_ms = item.lead.changed_at_ms;
                self.absorb_delete(now, journal, account, item, two_way, changed_at_ms);
                (item.progress.reason, item.progress.state) = gone;
            }
        }
        if let (Some(CallKind::Match), Verdict::Found { remote_id }) = (item.kind, verdict) {
            let two_way = plan.two_way.get(item.object());
            let inbound = two_way.is_some_and(|two_way| two_way.inbound);
            return inbound && self.claim_match(now, journal, account, item, remote_id);
        }
        if item.progress.state != State::Synced {
            return false;
        }
        if plan.role == Role::SystemA {
            self.note_told(now, journal, item);
            return false;
        }
        let Some(two_way) = plan.two_way.get(item.object()) else {
            return false;
        };
        match item.operation {
            Operation::Create | Operation::Update | Operation::Upsert => {
                if let Some(mut said) = item.said.take() {
                    let base = base_of(item, account);
                    base.withhold(&mut said);
                    base.sent(&said, now.wall.0);
                }
                if two_way.inbound {
                    self.announce(now, journal, account, item);
                }
                false
            }
            Operation::Delete => {
                item.states[0].target_mut(account).base = None;
                false
            }
            Operation::Read => false,
            Operation::Pull => {
                let deleted = item.progress.reason == Some(Reason::Gone);
                let changed_at_ms = item.lead.changed_at_ms;
                if deleted && item.deleted_at_ms.is_some() {
                    // As it was.
                    item.progress.reason = Some(Reason::Unchanged);
                    return false;
                }
                if deleted && is_unborn(account, item) {
                    bury(account, item, changed_at_ms);
                    return false;
                }
                if deleted {
                    self.absorb_delete(now, journal, account, item, two_way, changed_at_ms);
                    return false;
                }
                if let Some(into) = led_elsewhere(verdict, item, account) {
                    let merged = self.absorb_merge(now, journal, account, item, &into);
                    return stays(&aside(merged), item);
                }
                let reply = result.as_ref().ok();
                let record = reply.and_then(|reply| plan.definition.record_in(&reply.body));
                let Some((remote, whole)) = record.filter(|_| item.progress.reason.is_none())
                else {
                    return false;
                };
                let shown = Shown {
                    remote,
                    whole,
                    changed_at_ms,
                    read_at_ms: item.asked_at_ms,
                };
                let target = item.states[0].target(account);
                let born = target.is_some_and(|target| target.base.is_some());
                let own = target.and_then(|target| target.link.remote_id());
                let provisional = own.map(|own| provisional_id(account, own));
                if provisional.as_deref() == Some(item.record_id()) && !born {
                    let examined = self.examine(now, journal, plan, item, shown);
                    return stays(&examined, item);
                }
                let absorbed = self.absorb_referring(now, journal, plan, item, shown);
                if stays(&absorbed, item) {
                    return true;
                }
                if item.progress.state.is_final() {
                    self.announce_if_inbound(now, journal, plan, item);
                }
                false
            }
        }
    }

    /// Takes up that System A has what it was told.
    fn note_told(&mut self, now: Now, journal: &mut impl Journal, item: &mut Item) {
        let heard = self.heard_now(now, journal, item);
        let tellings = std::mem::take(&mut item.tellings);
        let deletes = item.operation == Operation::Delete;
        let book = base_of(item, SYSTEM_A).told_mut();
        for told in &tellings {
            if deletes {
                book.tell_deleted(told.changed_at_ms, &told.origin, heard);
            } else {
                book.tell(&told.fields, told.changed_at_ms, &told.origin, heard);
            }
        }
        self.heard.note(item.record, heard.at_ms);
    }

    /// Ends an operation that was set aside.
    pub(super) fn set_aside(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        mut item: Item,
        aside: Aside,
    ) -> Prepared {
        match aside {
            Aside::Told => {
                item.progress.updated_at_ms = now.wall.0;
                self.log_item(now, journal, account, item, String::new());
                Prepared::Settled
            }
            Aside::Waits => Prepared::Settled,
            Aside::Later => {
                self.index.put_back(item.op);
                Prepared::Later
            }
        }
    }
}

fn said(event: &AcceptedEvent<'_>, fold: &Fold) -> Fields {
    match &fold.data {
        Some(data) => Fields::parse(data),
        None => event.event.data.map(Fields::of).unwrap_or_default(),
    }
}

/// Takes out of a write what an operator has to decide, and ends one that says nothing new.
fn weigh(
    account: &str,
    said: Fields,
    (fold, new): (&mut Fold, bool),
    item: &mut Item,
) -> Option<Aside> {
    let resume = item.progress.resume;
    let target = item.states[0].target_mut(account);
    let linked = target.link.remote_id().is_some();
    let settled = linked && resume.is_normal() && target.undelivered.is_empty();
    let base = target.base.get_or_insert_default();
    let mut sent = said.clone();
    let withheld = base.withhold(&mut sent);
    // A call for one of an earlier life may have gone without the log's knowing.
    let known = settled && new && !item.progress.is_frozen() && base.has(&sent);
    item.said = Some(Box::new(said));
    if withheld && sent.is_empty() {
        item.progress.state = State::Superseded;
        item.progress.reason = Some(Reason::Conflict);
        return Some(Aside::Told);
    }
    if known {
        item.progress.state = State::Synced;
        item.progress.reason = Some(Reason::Unchanged);
        return Some(Aside::Told);
    }
    if withheld {
        fold.data = Some(sent.to_json());
    }
    None
}

/// Whether an item whose call has ended waits for another shard.
fn stays(aside: &Aside, item: &mut Item) -> bool {
    if matches!(aside, Aside::Later) {
        item.progress.state = State::Queued;
    }
    matches!(aside, Aside::Waits)
}

/// Whether an item's record is one that only the account's own id is known of, and nothing else.
fn is_unborn(account: &str, item: &Item) -> bool {
    item.states[0].target(account).is_some_and(|target| {
        let own = target.link.remote_id();
        target.base.is_none()
            && own.is_some_and(|own| provisional_id(account, own) == item.record_id())
    })
}

/// Remembers of a record that nothing was known of that it is gone: whoever is linked to it yet, by an
/// answer that is still under way, is told then.
fn bury(account: &str, item: &mut Item, changed_at_ms: i64) {
    let link = &mut item.states[0].target_mut(account).link;
    // One that we deleted is told of afterwards.
    if !matches!(link, Link::Deleted { .. }) {
        *link = Link::Deleted { changed_at_ms };
    }
    item.progress.state = State::Synced;
    item.progress.reason = Some(Reason::Absent);
}

/// Links a record again that was deleted and is found by a read; any other end leaves it as it was.
fn hold_link(account: &str, item: &mut Item) {
    let (Some(changed_at_ms), Some(remote_id)) = (item.deleted_at_ms, &item.remote_id) else {
        return;
    };
    let found = item.progress.state == State::Synced && item.progress.reason.is_none();
    let target = item.states[0].target_mut(account);
    if found {
        target.link = Link::Linked(remote_id.clone());
        target.base = None;
    } else {
        target.link = Link::Deleted { changed_at_ms };
    }
}

/// The id that a read came out at, if it is not the one that was asked for: an account leads on from
/// what was merged.
fn led_elsewhere(verdict: &Verdict, item: &Item, account: &str) -> Option<String> {
    let Verdict::Done { remote_id, .. } = verdict else {
        return None;
    };
    let asked = item.states[0].target(account)?.link.remote_id()?;
    remote_id.clone().filter(|shown| shown != asked)
}

fn aside(handed: HandedOver) -> Aside {
    match handed {
        HandedOver::Ended => Aside::Told,
        HandedOver::Waits => Aside::Waits,
        HandedOver::Full => Aside::Later,
    }
}
