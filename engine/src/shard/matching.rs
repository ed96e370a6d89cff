//! A record that is about to be made at an account may be there already, made by somebody else: it
//! is asked for by the match keys of its mapping, linked if it is the only one, and updated.

use std::borrow::Cow;
use std::sync::Arc;

use super::dispatch::members;
use super::fold::Fold;
use super::handoff::{News, Pull};
use super::item::{Item, clipped};
use super::links::{LinkWord, Parents};
use super::prepare::{Hindrance, Payload, Sent};
use super::{Output, Shard};
use crate::event::Operation;
use crate::event::codec::AcceptedEvent;
use crate::journal::Journal;
use crate::json::{ObjectWriter, RawValue};
use crate::provider::CallKind;
use crate::record::{Link, Resume};
use crate::state::{Reason, State};
use crate::time::Now;

impl<T> Shard<T> {
    /// What asks for the record by its next match key that has a value; `None`: by none any more.
    pub(super) fn match_payload(
        &mut self,
        journal: &mut impl Journal,
        account: &Arc<str>,
        event: &AcceptedEvent<'_>,
        item: &mut Item,
        fold: &Fold,
        parents: Option<Parents>,
    ) -> Result<Option<Payload>, Hindrance> {
        let sent = Sent {
            // Only what it says is asked for, whether or not that makes a whole record.
            kind: CallKind::Update,
            beneath: event.event.operation == Operation::Update,
        };
        let mut payload = self.payload(journal, account, event, item, fold, sent, parents)?;
        let plan = self.plan_of(account);
        let mapping = plan
            .as_ref()
            .and_then(|plan| plan.mappings.get(item.object()));
        let keys = mapping.map_or(&[][..], |mapping| mapping.match_keys());
        let known = members(&payload.fields);
        let asked = item.progress.resume.matched().unwrap_or(0);
        let mut left = keys.iter().enumerate().skip(usize::from(asked));
        let next = left.find_map(|(at, key)| Some((at, values_of(key, &known)?)));
        let (at, fields) = match next {
            Some((at, fields)) => (at, Some(fields)),
            None => (keys.len(), None),
        };
        item.progress.resume = Resume::Match(at as u8);
        Ok(fields.map(|fields| {
            payload.fields = fields;
            payload
        }))
    }

    /// Links an item's record to the one that was found, unless that one is another record's here.
    /// True when its owner, another shard, is asked.
    pub(super) fn claim_match(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        remote_id: &str,
    ) -> bool {
        let claim = self.claim_on(account, item, remote_id);
        if self.index.owns(claim.record) {
            match self.holder_of(now, journal, &claim) {
                Some(holder) => self.adopt(now, journal, account, item, remote_id, &holder),
                None => ask_again(account, item),
            }
            return false;
        }
        if self.links.is_full() {
            ask_again(account, item);
            return false;
        }
        self.links.hand(item.op, item.clone());
        // It shows nothing of this log that is not durable: the event was, before it was asked for.
        self.effects
            .push(journal.end(), Output::Link(LinkWord::Claim(claim)));
        true
    }

    /// Takes up whose the record is that was found.
    pub(super) fn adopt(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        account: &Arc<str>,
        item: &mut Item,
        remote_id: &str,
        holder: &str,
    ) {
        let (object, record_id) = (item.object().to_owned(), item.record_id().to_owned());
        let link = &mut item.states[0].target_mut(account).link;
        if holder != record_id {
            *link = Link::Unlinked;
            item.progress.state = State::Failed;
            item.progress.reason = Some(Reason::MatchTaken);
            if let Some(last) = item.progress.attempts.last_mut() {
                last.detail = clipped(format!("{remote_id} is linked to {holder}"));
            }
            return;
        }
        *link = Link::Linked(remote_id.to_owned());
        // What it shows beside what is written now, its next operation finds out.
        let look = Pull {
            account,
            object: &object,
            record_id: &record_id,
            provisional: false,
            remote_id,
            fields: None,
            read_at_ms: 0,
            whole: false,
            news: News::Changed,
            changed_at_ms: item.lead.changed_at_ms,
        };
        let look = look.encode(self.number_of_outcome(item).0, item.record, now.wall.0);
        self.take_handoff(now, journal, &look, false);
    }
}

/// The fields of an update that gives a record our key.
pub(super) fn with_key(fields: &str, key: &str, record_id: &str) -> String {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    for (name, value) in members(fields) {
        if name != key {
            object.raw(&name, value);
        }
    }
    object.text(key, record_id);
    object.close();
    String::from_utf8(out).expect("an object is written of texts")
}

/// The fields of a match key as a JSON object; `None` where one of them has no value to ask for.
fn values_of(key: &[String], known: &[(Cow<'_, str>, &str)]) -> Option<String> {
    let mut out = Vec::new();
    let mut object = ObjectWriter::open(&mut out);
    for name in key {
        let (_, value) = known.iter().find(|(known, _)| known == name)?;
        let text = RawValue::new(value).as_text();
        let asks = match &text {
            Some(text) => !text.trim().is_empty(),
            None => value.starts_with(|c: char| c.is_ascii_digit() || c == '-'),
        };
        if !asks {
            return None;
        }
        object.raw(name, value);
    }
    object.close();
    String::from_utf8(out).ok()
}

/// Who owns the record cannot be asked now: it is looked for once more.
fn ask_again(account: &str, item: &mut Item) {
    item.states[0].target_mut(account).link = Link::Unlinked;
    item.progress.resume = Resume::Normal;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_asks_for_all_of_its_fields_or_not_at_all() {
        let key = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let fields = r#"{"email":"a@b.c","phone":"","fax":null,"size":7,"tags":["x"]}"#;
        let known = members(fields);
        for (names, asked) in [
            (&["email"][..], Some(r#"{"email":"a@b.c"}"#)),
            (&["size", "email"], Some(r#"{"size":7,"email":"a@b.c"}"#)),
            (&["email", "phone"], None),
            (&["fax"], None),
            (&["tags"], None),
            (&["name"], None),
        ] {
            let found = values_of(&key(names), &known);
            assert_eq!(found.as_deref(), asked, "{names:?}");
        }
    }

    #[test]
    fn our_key_is_said_once() {
        let fields = with_key(r#"{"a":1,"key":"other"}"#, "key", "c-1");
        assert_eq!(fields, r#"{"a":1,"key":"c-1"}"#);
    }
}
