//! One record under two names: an account's own id of a record leads to System A's.
//!
//! What an account tells names its own id. That id hashes to a shard of its own, which knows from the
//! owner of the record what it stands for and hands over what it is told.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::dispatch::CALL_ROOM;
use super::item::Item;
use super::links::{Child, LinkWord};
use super::two_way::extra;
use super::{Output, Shard};
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Event, Extra, Operation, Priority, Target, TargetAction};
use crate::id::{OperationId, OperationSeq, RecordHash};
use crate::journal::{Class, Journal, Kind};
use crate::json::{RawObject, RawValue, write_string};
use crate::operation_slab::Target as SlabTarget;
use crate::quota::ShardId;
use crate::record::{Link, RecordState, StateFrame};
use crate::state::{Reason, State};
use crate::time::Now;

/// Links told again after a restart, at most. Those of a longer tail are told with their record's next
/// write.
const UNTOLD_MAX: usize = 64 * 1024;
/// Of them, in one turn.
const TOLD_PER_TURN: usize = 16;
/// Operations whose handing over is under way, at most; the next one waits its turn.
pub(super) const HANDING_MAX: usize = 1024;

/// To the owner of a record: something an account told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handoff {
    /// Who hands it over, and wants to know that it is durable.
    pub asker: ShardId,
    /// The operation that ends then.
    pub child: Child,
    /// The account.
    pub account: Arc<str>,
    /// The record; its virtual shard says who owns it.
    pub record: RecordHash,
    /// The event as it will lie in the log.
    pub event: Vec<u8>,
    /// It may have been handed over in an earlier life, and be known there.
    pub again: bool,
}

/// Back to the shard that handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    /// The operation that can end.
    pub child: Child,
    /// The account.
    pub account: Arc<str>,
}

/// To the owner of an account's id: which record it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownAs {
    /// The id as a record of its own; its virtual shard says who owns it.
    pub record: RecordHash,
    /// The record's local object.
    pub object: String,
    /// [`provisional_id`].
    pub provisional: String,
    /// System A's key.
    pub record_id: String,
}

/// The key of a record of which only an account's own id is known, and for good where the record
/// was made there.
#[must_use]
pub fn provisional_id(account: &str, remote_id: &str) -> String {
    format!("{account}:{remote_id}")
}

/// What an account tells of a record.
#[derive(Debug, Clone, Copy)]
pub struct Pull<'a> {
    /// The account.
    pub account: &'a str,
    /// Local object.
    pub object: &'a str,
    /// System A's key, or [`provisional_id`].
    pub record_id: &'a str,
    /// Whether `record_id` is the provisional one.
    pub provisional: bool,
    /// The account's own id.
    pub remote_id: &'a str,
    /// The record's fields in the account's names, all of them; `None`: they have to be asked for.
    pub fields: Option<RawObject<'a>>,
    /// When they were asked for, ms since the epoch: what was written since they do not show.
    pub read_at_ms: i64,
    /// A field that is not among them is empty there.
    pub whole: bool,
    /// What happened to it there.
    pub news: News<'a>,
    /// When it changed there, ms since the epoch.
    pub changed_at_ms: i64,
}

/// What happened to a record at an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum News<'a> {
    /// It is new, or some of its fields changed.
    #[default]
    Changed,
    /// It is gone.
    Deleted,
    /// It was gone and is back.
    Restored,
    /// It is part of the record with this id now, which stays.
    MergedInto(&'a str),
}

impl Pull<'_> {
    /// The event that says this, as it lies in the log.
    pub(super) fn encode(
        &self,
        operation_seq: u64,
        record: RecordHash,
        accepted_at_ms: i64,
    ) -> Vec<u8> {
        let mut payload = Vec::new();
        self.with_event(operation_seq, record, accepted_at_ms, |event| {
            event.encode_into(&mut payload);
        });
        payload
    }

    /// Hands `use_it` the event that says this.
    pub fn with_event<R>(
        &self,
        operation_seq: u64,
        record: RecordHash,
        accepted_at_ms: i64,
        use_it: impl FnOnce(&AcceptedEvent<'_>) -> R,
    ) -> R {
        let flag = |name: &'static str, value: &'static str| Extra {
            name: Cow::Borrowed(name),
            value: RawValue::new(value),
        };
        let mut extras = Vec::new();
        let mut into = Vec::new();
        let kind = match self.news {
            News::Changed => None,
            News::Deleted => Some(r#""deleted""#),
            News::Restored => Some(r#""restored""#),
            News::MergedInto(remote_id) => {
                write_string(&mut into, remote_id);
                None
            }
        };
        let into = String::from_utf8(into).expect("a text is written as text");
        if let Some(kind) = kind {
            extras.push(flag(extra::KIND, kind));
        }
        if !into.is_empty() {
            extras.push(Extra {
                name: Cow::Borrowed(extra::MERGED_INTO),
                value: RawValue::new(&into),
            });
        }
        let read_at = self.read_at_ms.to_string();
        if self.fields.is_some() {
            extras.push(Extra {
                name: Cow::Borrowed(extra::READ_AT),
                value: RawValue::new(&read_at),
            });
        }
        if self.whole {
            extras.push(flag(extra::WHOLE, "true"));
        }
        if self.provisional {
            extras.push(flag(extra::PROVISIONAL, "true"));
        }
        let target = Target {
            name: self.account,
            action: TargetAction::Sync,
            rule: 0,
        };
        let event = AcceptedEvent {
            event: Event {
                operation: Operation::Pull,
                provider: Some(Cow::Borrowed(self.account)),
                object: Cow::Borrowed(self.object),
                record_id: Some(Cow::Borrowed(self.record_id)),
                remote_id: Some(Cow::Borrowed(self.remote_id)),
                data: self.fields,
                before: None,
                event_id: None,
                changed_at_ms: Some(self.changed_at_ms),
                priority: Priority::DEFAULT,
                scheduled_at_ms: None,
                schema_version: None,
                tenant: None,
                traceparent: None,
                correlation_id: None,
                seq: None,
                extras,
            },
            operation_seq,
            record_hash: record.0,
            accepted_at_ms,
            producer: None,
            dedup: None,
            targets: [target].into_iter().collect(),
            rules_version: 0,
            mapping_version: 0,
        };
        use_it(&event)
    }
}

/// Whether an item's operation ended by handing over, or waits until that is durable.
pub(super) enum HandedOver {
    /// The item says how it ended.
    Ended,
    /// The item is kept until word comes back.
    Waits,
    /// Too many are under way.
    Full,
}

/// Links that the log's tail shows: whether the owner of the account's id knows of them, a crash may
/// have left open. They are told again, some each turn.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// By the name that was announced: object and System A's key.
    links: BTreeMap<String, (String, String)>,
    /// They wait for room in the log.
    pub(super) stalled: bool,
}

impl Untold {
    /// Takes up what a state frame of the log says.
    pub(super) fn replay(&mut self, frame: &StateFrame) {
        for record in &frame.records {
            for base in record.targets.iter().filter_map(|t| t.base.as_deref()) {
                if !base.announced().is_empty() && self.links.len() < UNTOLD_MAX {
                    let link = (record.object.clone(), record.record_id.clone());
                    self.links.insert(base.announced().to_owned(), link);
                }
            }
        }
    }
}

impl<T> Shard<T> {
    /// Tells some of the links again that were told in an earlier life.
    pub(super) fn tell_again(&mut self, now: Now, journal: &mut impl Journal) {
        self.untold.stalled =
            !self.untold.links.is_empty() && journal.room(Class::Outcome) < CALL_ROOM;
        if self.untold.stalled {
            return;
        }
        for _ in 0..TOLD_PER_TURN {
            let Some(provisional) = self.untold.links.keys().next().cloned() else {
                return;
            };
            if let Some((object, record_id)) = self.untold.links.remove(&provisional) {
                if !self.leads_to(journal, &provisional, &object, &record_id) {
                    continue;
                }
                let word = self.known_as(object, provisional, record_id);
                self.tell_known(now, journal, word);
            }
        }
    }

    /// Whether an account's own id leads to a record as it is now: the log's tail shows links, too,
    /// that were taken away since.
    fn leads_to(
        &self,
        journal: &mut impl Journal,
        provisional: &str,
        object: &str,
        record_id: &str,
    ) -> bool {
        let record = self.settings.hash_key.record(object, record_id);
        let state = self.states_of(journal, record, object, record_id);
        state.is_some_and(|state| {
            let mut bases = state.targets.iter().filter_map(|it| it.base.as_deref());
            bases.any(|base| base.announced() == provisional)
        })
    }

    /// Whether links can be told again now.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.links.is_empty() && !self.untold.stalled
    }

    /// Passes on to the record it is of what an account told under its own id.
    pub(super) fn hand_over(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        told: &Pull<'_>,
    ) -> HandedOver {
        let record = self.settings.hash_key.record(item.object(), told.record_id);
        let payload = told.encode(item.lead.seq.0, record, now.wall.0);
        self.hand_event(now, journal, account, item, (record, payload))
    }

    /// Passes an event on to the record it is of, whoever owns that.
    pub(super) fn hand_event(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        (record, event): (RecordHash, Vec<u8>),
    ) -> HandedOver {
        let again = item.oldest < self.born;
        if self.index.owns(record) {
            self.take_handoff(now, journal, &event, again);
            item.progress.state = State::Synced;
            item.progress.reason = Some(Reason::HandedOver);
            return HandedOver::Ended;
        }
        if self.links.is_full() {
            return HandedOver::Full;
        }
        let child = Child {
            record: item.record,
            seq: item.front_seq(),
        };
        let word = Handoff {
            asker: self.settings.id,
            child,
            account: account.clone(),
            record,
            event,
            again,
        };
        self.links.hand(item.op, item.clone());
        // Nothing of this log is shown by it but what its own event said, which is durable.
        self.effects
            .push(journal.end(), Output::Link(LinkWord::Handoff(word)));
        HandedOver::Waits
    }

    pub(super) fn on_handoff(&mut self, now: Now, journal: &mut impl Journal, word: Handoff) {
        self.take_handoff(now, journal, &word.event, word.again);
        let handed = Handed {
            child: word.child,
            account: word.account,
        };
        self.effects.push(
            journal.end(),
            Output::LinkTo(word.asker, LinkWord::Handed(handed)),
        );
    }

    pub(super) fn on_handed(&mut self, now: Now, journal: &mut impl Journal, word: &Handed) {
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
        item.progress.state = State::Synced;
        item.progress.reason = Some(Reason::HandedOver);
        item.progress.updated_at_ms = now.wall.0;
        self.log_item(now, journal, &word.account, *item, String::new());
    }

    pub(super) fn take_handoff(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        payload: &[u8],
        again: bool,
    ) {
        let Ok(event) = codec::decode(payload) else {
            return;
        };
        // What was taken once, before a crash, would be looked at twice under one number. A change may
        // come round in one life, too: two accounts merged the same two records, each another way.
        let comes_twice = again || event.event.operation != Operation::Pull;
        if comes_twice && self.has_taken(journal, &event) {
            return;
        }
        match journal.append(Class::Outcome, Kind::Event, &[payload]) {
            Ok(at) => {
                self.index.note_object(&event.event.object);
                self.queue_targets(now, at, &event);
            }
            Err(_) => self.fence(),
        }
    }

    fn has_taken(&mut self, journal: &mut impl Journal, event: &AcceptedEvent<'_>) -> bool {
        let id = OperationId {
            record: RecordHash(event.record_hash),
            seq: OperationSeq(event.operation_seq),
        };
        !self.operation(journal, id).is_empty()
    }

    /// Tells the owner of an account's id which record it is, once for each id.
    pub(super) fn announce(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &str,
        item: &mut Item,
    ) {
        let (object, record_id) = (item.object().to_owned(), item.record_id().to_owned());
        let target = item.states[0].target_mut(account);
        let Some(remote_id) = target.link.remote_id() else {
            return;
        };
        let provisional = provisional_id(account, remote_id);
        let base = target.base.get_or_insert_default();
        if provisional == record_id || !base.announce(&provisional) {
            return;
        }
        let word = self.known_as(object, provisional, record_id);
        self.tell_known(now, journal, word);
    }

    pub(super) fn known_as(
        &self,
        object: String,
        provisional: String,
        record_id: String,
    ) -> KnownAs {
        KnownAs {
            record: self.settings.hash_key.record(&object, &provisional),
            object,
            provisional,
            record_id,
        }
    }

    pub(super) fn tell_known(&mut self, now: Now, journal: &mut impl Journal, word: KnownAs) {
        if self.index.owns(word.record) {
            self.on_known(now, journal, &word);
        } else {
            self.effects
                .push(journal.end(), Output::Link(LinkWord::KnownAs(word)));
        }
    }

    /// A record that somebody is linked to by now was told to be gone before that.
    fn tell_of_grave(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        word: &KnownAs,
        known: &RecordState,
    ) {
        let grave = known.targets.iter().find_map(|target| match target.link {
            Link::Deleted { changed_at_ms } => Some((target, changed_at_ms)),
            _ => None,
        });
        let Some((target, changed_at_ms)) = grave else {
            return;
        };
        let remote_id = word.provisional.strip_prefix(&target.account);
        let (Some(remote_id), Some(last)) = (
            remote_id.and_then(|rest| rest.strip_prefix(':')),
            target.last.as_ref(),
        ) else {
            return;
        };
        let told = Pull {
            account: &target.account,
            object: &word.object,
            record_id: &word.record_id,
            provisional: false,
            remote_id,
            fields: None,
            read_at_ms: 0,
            whole: false,
            news: News::Deleted,
            changed_at_ms,
        };
        let record = self.settings.hash_key.record(&word.object, &word.record_id);
        let event = told.encode(last.seq.derived().0, record, now.wall.0);
        if self.index.owns(record) {
            return self.take_handoff(now, journal, &event, true);
        }
        let handoff = Handoff {
            asker: self.settings.id,
            // Nobody waits for the answer.
            child: Child {
                record: word.record,
                seq: last.seq,
            },
            account: target.account.as_str().into(),
            record,
            event,
            // Each life tells of it once more.
            again: true,
        };
        self.effects
            .push(journal.end(), Output::Link(LinkWord::Handoff(handoff)));
    }

    pub(super) fn on_known(&mut self, now: Now, journal: &mut impl Journal, word: &KnownAs) {
        let read = self.read_state(journal, word.record, &word.object, &word.provisional);
        let Some((mut states, at)) = read else {
            return;
        };
        self.tell_of_grave(now, journal, word, &states[0]);
        if states[0].alias_of.as_ref() == Some(&word.record_id) {
            return;
        }
        states[0].alias_of = Some(word.record_id.clone());
        let frame = StateFrame {
            record: word.record.0,
            previous: at.get(),
            moved: None,
            records: states,
            folded: Vec::new(),
        };
        self.index.note_object(&word.object);
        self.log_state(now, journal, &frame);
        // Changes that refer to it wait for that.
        for at in 0..self.accounts.len() {
            let of_account = word.provisional.strip_prefix(&*self.accounts[at].name);
            if of_account.is_some_and(|rest| rest.starts_with(':')) {
                self.tell_linked(word.record, SlabTarget(at as u16), journal.end());
            }
        }
    }
}
