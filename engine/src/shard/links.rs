//! Parents first: a record that refers to another is not sent before that one's remote id is known.
//!
//! The shard that owns the parent is asked. Either it knows the id, or the child waits: until the
//! parent is linked, which its owner tells whom it remembers to have asked, or until a timer asks
//! again, since what is remembered is bounded and lost in a crash.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use wal::Lsn;

use super::fold::FOLDED_ANY;
use super::handoff::{HANDING_MAX, Handed, Handoff, KnownAs};
use super::item::Item;
use super::merged::{Claim, Claimed};
use super::references::{Referring, remote_id_of};
use super::{Output, Shard};
use crate::id::{OperationSeq, RecordHash};
use crate::journal::Journal;
use crate::json::RawObject;
use crate::lane;
use crate::mapping::Mapping;
use crate::operation_slab::{OpFlags, OpIndex, OpState, Target};
use crate::quota::ShardId;
use crate::record::Link;
use crate::state::{Reason, State};
use crate::time::Now;

/// Children whose questions are under way, at most; the next one waits its turn.
const ASKING_MAX: usize = 1024;
/// Children a shard remembers to tell when a parent of its own is linked.
const WAITERS_MAX: usize = 64 * 1024;
/// The first wait before a child asks again; it asks after a quarter of its age, so rarer each time.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(100);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(60);

/// An operation that refers to a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Child {
    /// Its record.
    pub record: RecordHash,
    /// The front operation of the record's lane.
    pub seq: OperationSeq,
}

/// Asks the shard that owns a parent for its remote id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkQuestion {
    /// Who wants to know.
    pub asker: ShardId,
    /// For which operation.
    pub child: Child,
    /// The parent; its virtual shard says who owns it.
    pub parent: RecordHash,
    /// At which account.
    pub account: Arc<str>,
    /// The parent's local object.
    pub object: String,
    /// The parent's key in System A, or what stands for one.
    pub record_id: String,
    /// What is wanted of it.
    pub asked: Asked,
}

/// What an asker wants to know of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// As what the account knows it.
    RemoteId,
    /// As what System A knows it, of which the account's own id is given:
    /// [`super::provisional_id`].
    RecordId,
}

/// The answer; or, later, the news that the parent was linked, for which the child asks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAnswer {
    /// For which operation.
    pub child: Child,
    /// At which account.
    pub account: Arc<str>,
    /// The parent's local object.
    pub object: String,
    /// As it was given in the question.
    pub record_id: String,
    /// As what it is known on the other side. `None`: it is not; the child is told when it is.
    pub remote_id: Option<String>,
    /// What was wanted of it.
    pub asked: Asked,
}

/// What shards tell each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkWord {
    /// To the owner of the parent.
    Question(LinkQuestion),
    /// To the asker.
    Answer(LinkAnswer),
    /// To whom the answer was that the parent is not linked.
    News(LinkAnswer),
    /// To the owner of a record of which an account told something.
    Handoff(Handoff),
    /// Back: it is durable there.
    Handed(Handed),
    /// To the owner of an account's own id.
    KnownAs(KnownAs),
    /// To the owner of an account's own id, which another one was merged into.
    Claim(Claim),
    /// Back: whose it is.
    Claimed(Claimed),
}

impl LinkWord {
    /// The record whose owner it is for; `None`: it goes back to who asked.
    #[must_use]
    pub fn owner(&self) -> Option<RecordHash> {
        match self {
            Self::Question(question) => Some(question.parent),
            Self::Handoff(handoff) => Some(handoff.record),
            Self::KnownAs(known) => Some(known.record),
            Self::Claim(claim) => Some(claim.record),
            Self::Answer(_) | Self::News(_) | Self::Handed(_) | Self::Claimed(_) => None,
        }
    }

    /// Whether hearing it writes to the log.
    pub(super) fn is_logged(&self) -> bool {
        match self {
            Self::Question(_) | Self::News(_) => false,
            // It may be the last that a change waited for.
            Self::Answer(answer) => answer.asked == Asked::RecordId,
            Self::Handoff(_)
            | Self::Handed(_)
            | Self::KnownAs(_)
            | Self::Claim(_)
            | Self::Claimed(_) => true,
        }
    }
}

/// The remote ids that an operation's references lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parents {
    /// Object, record id, remote id.
    known: Vec<(String, String, Option<String>)>,
    /// How many operations behind the front the fold may have that they were asked for.
    pub(super) folded_max: usize,
}

impl Default for Parents {
    fn default() -> Self {
        Self {
            known: Vec::new(),
            folded_max: FOLDED_ANY,
        }
    }
}

impl Parents {
    pub(super) fn remote_id(&self, object: &str, record_id: &str) -> Option<String> {
        let mut known = self.known.iter();
        let parent = known.find(|(of, id, _)| of == object && id == record_id);
        parent.and_then(|(_, _, remote_id)| remote_id.clone())
    }

    fn names(&self, object: &str, record_id: &str) -> bool {
        let mut known = self.known.iter();
        known.any(|(of, id, _)| of == object && id == record_id)
    }

    /// What an account's own id stands for.
    pub(super) fn learn(&mut self, object: String, provisional: String, record_id: String) {
        self.known.push((object, provisional, Some(record_id)));
    }

    /// The answer to what it stands for is under way.
    pub(super) fn expect(&mut self, object: String, provisional: String) {
        self.known.push((object, provisional, None));
    }

    /// Those that nobody knows.
    pub(super) fn missing(&self) -> Vec<(String, String)> {
        let missing = self.known.iter().filter(|(_, _, known)| known.is_none());
        missing
            .map(|(object, id, _)| (object.clone(), id.clone()))
            .collect()
    }

    fn all_linked(&self) -> bool {
        self.known
            .iter()
            .all(|(_, _, remote_id)| remote_id.is_some())
    }
}

/// What a child can do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resolved {
    /// Every parent has its id.
    Known(Parents),
    /// Its owner was asked; the operation is in no list until the answers are there.
    Asked,
    /// Too many questions are under way.
    Full,
    /// A parent is not linked.
    Unlinked,
}

/// Children waiting for answers, and parents' owners' memory of who asked.
#[derive(Debug, Default)]
pub(super) struct LinkBook {
    asking: HashMap<OpIndex, Asking>,
    waiters: HashMap<(RecordHash, Target), Vec<Waiter>>,
    waiting: usize,
    /// Changes whose references are asked for, at most [`HANDING_MAX`] with those handed over.
    referring: HashMap<OpIndex, Referring>,
    /// What changes wait for that refer to records nobody knows yet, at most [`WAITERS_MAX`]; without
    /// its entry a change is read again to find out.
    missing: HashMap<Child, Vec<(String, String)>>,
    /// Operations that were handed over and not yet taken, at most
    /// [`super::handoff::HANDING_MAX`].
    handing: HashMap<OpIndex, Box<Item>>,
}

impl LinkBook {
    /// What the owners answered about an operation's parents, once all have.
    pub(super) fn take(&mut self, op: OpIndex) -> Option<Parents> {
        self.asking.remove(&op).map(|asking| asking.parents)
    }

    pub(super) fn hand(&mut self, op: OpIndex, item: Item) {
        self.handing.insert(op, Box::new(item));
    }

    pub(super) fn take_handed(&mut self, op: OpIndex) -> Option<Box<Item>> {
        self.handing.remove(&op)
    }

    pub(super) fn refer(
        &mut self,
        op: OpIndex,
        referring: Referring,
        parents: Parents,
        open: usize,
    ) {
        self.referring.insert(op, referring);
        self.asking.insert(op, Asking { parents, open });
    }

    pub(super) fn missing_of(&self, child: Child) -> Option<&[(String, String)]> {
        self.missing.get(&child).map(Vec::as_slice)
    }

    pub(super) fn remember_missing(&mut self, child: Child, missing: Vec<(String, String)>) {
        if self.missing.len() < WAITERS_MAX {
            self.missing.insert(child, missing);
        }
    }

    pub(super) fn forget_missing(&mut self, child: Child) {
        self.missing.remove(&child);
    }

    /// The records that others wait for at an account, with those that do, as far as they are here.
    pub(super) fn parents_of(
        &self,
        target: Target,
    ) -> impl Iterator<Item = (RecordHash, impl Iterator<Item = Child> + '_)> + '_ {
        let here = self
            .waiters
            .iter()
            .filter(move |((_, at), _)| *at == target);
        here.map(|((parent, _), waiters)| (*parent, waiters.iter().map(|waiter| waiter.child)))
    }

    /// Too many wait for other shards.
    pub(super) fn is_full(&self) -> bool {
        self.handing.len() + self.referring.len() >= HANDING_MAX
    }
}

#[derive(Debug)]
struct Asking {
    parents: Parents,
    open: usize,
}

#[derive(Debug)]
pub(super) struct Waiter {
    asker: ShardId,
    child: Child,
    object: String,
    record_id: String,
    asked: Asked,
}

impl Waiter {
    /// A child that waits for the remote id of a record.
    pub(super) fn new(asker: ShardId, child: Child, object: &str, record_id: &str) -> Self {
        Self {
            asker,
            child,
            object: object.to_owned(),
            record_id: record_id.to_owned(),
            asked: Asked::RemoteId,
        }
    }

    /// A change that waits for the key that an account's own id stands for.
    pub(super) fn for_key(asker: ShardId, child: Child, object: &str, provisional: &str) -> Self {
        Self {
            asked: Asked::RecordId,
            ..Self::new(asker, child, object, provisional)
        }
    }
}

impl<T> Shard<T> {
    /// Finds the parents of an item's data.
    pub(super) fn resolve_parents(
        &mut self,
        journal: &mut impl Journal,
        account: &Arc<str>,
        mapping: &Mapping,
        item: &Item,
        data: RawObject<'_>,
        (answered, folded_max): (Option<Parents>, usize),
    ) -> Resolved {
        let references = mapping.references(data);
        if references.is_empty() {
            return Resolved::Known(Parents::default());
        }
        let target = self.index.slab[item.op].target();
        let child = Child {
            record: item.record,
            seq: item.front_seq(),
        };
        // Changes that came since may refer to others.
        let names_all =
            |answered: &Parents| references.iter().all(|(of, id)| answered.names(of, id));
        if let Some(answered) = answered.filter(names_all) {
            return if answered.all_linked() {
                Resolved::Known(answered)
            } else {
                Resolved::Unlinked
            };
        }
        let mut parents = Parents {
            folded_max,
            ..Parents::default()
        };
        let mut questions = Vec::new();
        // Of several that are not linked, the one that waits itself, or else the last, is linked
        // last: woken by another, the child would only be looked at in vain.
        let mut missing: Option<(RecordHash, &str, Cow<'_, str>)> = None;
        for (object, record_id) in references {
            let parent = self.settings.hash_key.record(object, &record_id);
            let owned = self.index.owns(parent);
            let remote_id = if owned {
                self.link_of(journal, parent, object, &record_id, account)
            } else {
                questions.push(LinkQuestion {
                    asker: self.settings.id,
                    child,
                    parent,
                    account: account.clone(),
                    object: object.to_owned(),
                    record_id: record_id.to_string(),
                    asked: Asked::RemoteId,
                });
                None
            };
            if remote_id.is_none() && owned {
                let known = missing.as_ref().map(|(parent, ..)| *parent);
                if !known.is_some_and(|known| self.waits_itself(known, target)) {
                    missing = Some((parent, object, record_id));
                }
                continue;
            }
            parents
                .known
                .push((object.to_owned(), record_id.into_owned(), remote_id));
        }
        if let Some((parent, object, record_id)) = missing {
            let waiter = Waiter::new(self.settings.id, child, object, &record_id);
            self.remember_waiter(parent, target, waiter);
            return Resolved::Unlinked;
        }
        if questions.is_empty() {
            return Resolved::Known(parents);
        }
        if self.links.asking.len() >= ASKING_MAX {
            return Resolved::Full;
        }
        let asking = Asking {
            parents,
            open: questions.len(),
        };
        self.links.asking.insert(item.op, asking);
        for question in questions {
            // It shows nothing of this log that is not durable: the event was, or its call waits.
            self.effects
                .push_unconditional(Output::Link(LinkWord::Question(question)));
        }
        Resolved::Asked
    }

    pub(super) fn answer_link(&mut self, journal: &mut impl Journal, question: LinkQuestion) {
        let LinkQuestion {
            asker,
            child,
            parent,
            account,
            object,
            record_id,
            asked,
        } = question;
        let remote_id = match asked {
            Asked::RemoteId => self.link_of(journal, parent, &object, &record_id, &account),
            Asked::RecordId => {
                let remote_id = remote_id_of(&account, &record_id);
                self.whose(journal, &account, &object, remote_id)
            }
        };
        if remote_id.is_none() {
            let target = self.account(&account);
            let waiter = Waiter {
                asked,
                ..Waiter::new(asker, child, &object, &record_id)
            };
            self.remember_waiter(parent, target, waiter);
        }
        let answer = LinkAnswer {
            child,
            account,
            object,
            record_id,
            remote_id,
            asked,
        };
        // The link may be of this turn: its frame has to be durable before anyone builds on it.
        self.effects.push(
            journal.end(),
            Output::LinkTo(asker, LinkWord::Answer(answer)),
        );
    }

    pub(super) fn take_link(&mut self, now: Now, journal: &mut impl Journal, answer: LinkAnswer) {
        let target = self.account(&answer.account);
        let Some(op) = self
            .index
            .find(answer.child.record, answer.child.seq, target)
        else {
            return;
        };
        if answer.asked == Asked::RecordId && !self.links.referring.contains_key(&op) {
            if answer.remote_id.is_some() {
                self.wake_referring(answer.child, &answer.account);
            }
            return;
        }
        if let Some(asking) = self.links.asking.get_mut(&op) {
            let mut known = asking.parents.known.iter_mut();
            let parent = known.find(|(object, id, remote_id)| {
                remote_id.is_none() && *object == answer.object && *id == answer.record_id
            });
            if let Some((_, _, remote_id)) = parent {
                *remote_id = answer.remote_id;
            }
            asking.open = asking.open.saturating_sub(1);
            if asking.open == 0
                && let Some(referring) = self.links.referring.remove(&op)
            {
                let known = self.links.take(op).unwrap_or_default();
                return self.on_referred(now, journal, &answer.account, (referring, known));
            }
            if asking.open == 0 && self.index.slab[op].state() == OpState::Waiting {
                self.index.put_back(op);
            }
        }
    }

    /// A parent was linked: the child asks again, and gets the id.
    pub(super) fn take_news(&mut self, now: Now, news: &LinkAnswer) {
        let target = self.account(&news.account);
        let parent = self.settings.hash_key.record(&news.object, &news.record_id);
        let account = &mut self.accounts[usize::from(target.0)];
        if self.index.owns(parent) {
            account.news_under_way = account.news_under_way.saturating_sub(1);
        }
        let Child { record, seq } = news.child;
        let Some(op) = self.index.find(record, seq, target) else {
            return;
        };
        let node = &self.index.slab[op];
        if node.state() == OpState::Backoff && node.has(OpFlags::PARENT) {
            self.links.forget_missing(news.child);
            account.parent_linked = Some(now.mono);
            self.index.unschedule(op);
            self.index.make_ready(op);
        }
    }

    /// Whether the record's next operation at the target waits for a parent of its own.
    fn waits_itself(&self, record: RecordHash, target: Target) -> bool {
        let slab = &self.index.slab;
        let front = lane::front(slab, self.index.lanes_of(record), target);
        front
            .is_some_and(|op| slab[op].state() == OpState::Backoff && slab[op].has(OpFlags::PARENT))
    }

    /// A record was linked: whoever waits for that is told.
    pub(super) fn tell_linked(&mut self, record: RecordHash, target: Target, at: Lsn) {
        let Some(waiters) = self.links.waiters.remove(&(record, target)) else {
            return;
        };
        self.links.waiting -= waiters.len();
        let account = self.accounts[usize::from(target.0)].name.clone();
        for waiter in waiters {
            let answer = LinkAnswer {
                child: waiter.child,
                account: account.clone(),
                object: waiter.object,
                record_id: waiter.record_id,
                remote_id: None,
                asked: waiter.asked,
            };
            let own = waiter.asker == self.settings.id;
            self.accounts[usize::from(target.0)].news_under_way += usize::from(own);
            self.effects
                .push(at, Output::LinkTo(waiter.asker, LinkWord::News(answer)));
        }
    }

    /// Lets an operation wait for a parent, or gives it up when it has waited too long. `None`: it
    /// waits.
    pub(super) fn wait_for_parent(
        &mut self,
        now: Now,
        item: &mut Item,
        timeout: Duration,
    ) -> ParentWait {
        let since = item.waits_since_ms.unwrap_or(now.wall.0);
        let age = Duration::from_millis(now.wall.0.saturating_sub(since).max(0).unsigned_abs());
        if age >= timeout {
            return ParentWait::TimedOut;
        }
        let again = (age / 4).clamp(ASK_AGAIN_MIN, ASK_AGAIN_MAX);
        if item.waits_since_ms.is_some() {
            self.index.unschedule(item.op);
            self.index.slab[item.op].set_flags(OpFlags::PARENT);
            let due = now.mono.saturating_add(again);
            self.index.make_timed(item.op, OpState::Backoff, due);
            return ParentWait::Waits;
        }
        item.progress.state = State::Waiting;
        item.progress.reason = Some(Reason::Parent);
        item.progress.updated_at_ms = now.wall.0;
        item.progress.due_ms = now.wall.0.saturating_add(again.as_millis() as i64);
        ParentWait::Begins
    }

    fn link_of(
        &mut self,
        journal: &mut impl Journal,
        record: RecordHash,
        object: &str,
        record_id: &str,
        account: &str,
    ) -> Option<String> {
        let (states, _) = self.read_state(journal, record, object, record_id)?;
        match &states[0].target(account)?.link {
            Link::Linked(id) => Some(id.clone()),
            Link::Unlinked | Link::Doubtful | Link::Deleted { .. } | Link::MergedInto(_) => None,
        }
    }

    pub(super) fn remember_waiter(&mut self, parent: RecordHash, target: Target, waiter: Waiter) {
        if self.links.waiting == WAITERS_MAX {
            return;
        }
        let waiters = self.links.waiters.entry((parent, target)).or_default();
        if waiters.iter().any(|known| known.child == waiter.child) {
            return;
        }
        waiters.push(waiter);
        self.links.waiting += 1;
    }
}

/// How a child waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ParentWait {
    /// For the first time: its progress is to be logged.
    Begins,
    /// On.
    Waits,
    /// Long enough.
    TimedOut,
}
