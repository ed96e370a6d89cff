//! Reading the reply to a batch: which record got which verdict.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::batch_results::{BatchResults, ItemList, MatchKey, Matching, ResultList};
use super::classify::{IdAt, id_at, readable, refusal_detail, unreadable};
use super::error_rule::ErrorClass;
use super::excerpt::excerpt;
use super::file::{EmptyMeans, IdMissing, MissingMeans};
use super::pointer::{Landing, Pointer, scalar_text};
use super::refusal::{About, ErrorWords, Meaning, Refusal};
use super::{BatchGroup, BatchItemRef, BodyEnd, CallKind, Definition, Reply, Verdict};
use crate::json::RawObject;

/// What came of a batch call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchVerdict {
    /// The same of every record: throttled, unauthorized, failed, not understood.
    Whole(Verdict),
    /// The call was refused for what some record in it holds, and nothing was written: halve it.
    /// Never of a single record. Of reads: their answer is larger than is read of one.
    Split {
        /// The provider's error, as in [`Verdict`].
        detail: String,
    },
    /// One verdict per record, in the order of the items. A record that the reply does not tell of
    /// is [`Verdict::Unknown`].
    Items(Vec<Verdict>),
}

impl Definition {
    /// Reads the reply to a batch call; verdicts are in the order of `items`, which is that of the
    /// call. `wall_now` as for [`Definition::classify`].
    pub fn classify_batch(
        &self,
        group: BatchGroup,
        items: &[BatchItemRef<'_>],
        reply: &Reply,
        wall_now: Timestamp,
    ) -> BatchVerdict {
        let status = reply.status;
        if !(200..=299).contains(&status) {
            return self.refused_batch(items, reply, wall_now);
        }
        let text = match readable(reply) {
            Ok(text) => text,
            Err(what) if reply.body_end == BodyEnd::TooLarge && reads_many(items) => {
                // Fewer records at a time are told in less.
                let detail = unreadable(reply, what);
                return BatchVerdict::Split { detail };
            }
            Err(what) => return unknown(reply, what),
        };
        match self.batch_results(group) {
            BatchResults::All => {
                let done = items.iter().map(|item| match item.kind {
                    CallKind::Create | CallKind::Upsert => Verdict::Unknown {
                        detail: unreadable(reply, "that names no remote id"),
                    },
                    _ => Verdict::Done {
                        remote_id: None,
                        created: false,
                    },
                });
                BatchVerdict::Items(done.collect())
            }
            BatchResults::Listed(list) => {
                let reading = Reading {
                    definition: self,
                    list,
                    items,
                    places: Places {
                        items,
                        key_field: self.objects().names_of_hash(group.object()).external_id,
                        ignores_case: list.ignores_case,
                    },
                    reply,
                    wall_now,
                };
                reading.verdicts(text)
            }
        }
    }

    /// The reply to a batch of reads as if each record had been read by itself, in the order of
    /// `items`; `None`: it does not show that one.
    pub fn batch_parts(
        &self,
        group: BatchGroup,
        items: &[BatchItemRef<'_>],
        reply: &Reply,
    ) -> Vec<Option<Reply>> {
        let mut parts = vec![None; items.len()];
        let (BatchResults::Listed(list), Ok(text)) = (self.batch_results(group), readable(reply))
        else {
            return parts;
        };
        let places = Places {
            items,
            key_field: self.objects().names_of_hash(group.object()).external_id,
            ignores_case: list.ignores_case,
        };
        let shown = entries(&list.done.at, text).unwrap_or_default();
        for (at, entry) in places.of(&list.done, &shown) {
            let body = reply.body.slice_ref(entry.get().as_bytes());
            parts[at].get_or_insert_with(|| Reply {
                body,
                ..reply.clone()
            });
        }
        parts
    }

    /// A batch that was refused as a whole.
    fn refused_batch(
        &self,
        items: &[BatchItemRef<'_>],
        reply: &Reply,
        wall_now: Timestamp,
    ) -> BatchVerdict {
        let alone = match items {
            [alone] => Some(alone),
            _ => None,
        };
        let first = items.first().map(|item| item.kind);
        let refusal = Refusal {
            about: About::Batch,
            kind: first.filter(|kind| items.iter().all(|item| item.kind == *kind)),
            status: reply.status,
            words: self.error_words(reply),
            reply,
            wall_now,
        };
        let meaning = self.meaning(&refusal);
        let detail = refusal_detail(reply);
        if meaning.class.is_about_a_record() {
            return match alone {
                Some(item) => BatchVerdict::Items(vec![meaning.verdict(item.kind, true, detail)]),
                None => BatchVerdict::Split { detail },
            };
        }
        let (kind, idempotent) = self.strictest(items);
        BatchVerdict::Whole(meaning.verdict(kind, idempotent, detail))
    }

    /// The kind of a batch's records that asks for most care, and whether all may be sent again.
    fn strictest(&self, items: &[BatchItemRef<'_>]) -> (CallKind, bool) {
        let careful = items.iter().find(|item| !self.may_repeat(item.kind));
        match careful.or(items.first()) {
            Some(item) => (item.kind, careful.is_none()),
            None => (CallKind::Update, true),
        }
    }

    fn may_repeat(&self, kind: CallKind) -> bool {
        self.operation(kind)
            .is_some_and(|operation| operation.idempotent())
    }
}

/// One reply being read.
struct Reading<'r> {
    definition: &'r Definition,
    list: &'r ResultList,
    items: &'r [BatchItemRef<'r>],
    places: Places<'r>,
    reply: &'r Reply,
    wall_now: Timestamp,
}

/// Which entry of a reply is about which record.
struct Places<'r> {
    items: &'r [BatchItemRef<'r>],
    key_field: Option<&'r str>,
    ignores_case: bool,
}

impl Reading<'_> {
    fn verdicts(&self, text: &str) -> BatchVerdict {
        let Some(done) = entries(&self.list.done.at, text) else {
            return unknown(self.reply, "without a list of results");
        };
        let refused = match &self.list.refused {
            // A list of errors that is not there is an empty one: many replies have none.
            Some(refused) => entries(&refused.at, text).unwrap_or_default(),
            None => Vec::new(),
        };
        if done.is_empty() && refused.is_empty() && self.list.empty == EmptyMeans::Transient {
            let (kind, idempotent) = self.definition.strictest(self.items);
            let detail = unreadable(self.reply, "that tells of no record");
            let meaning = Meaning::plain(ErrorClass::Transient);
            return BatchVerdict::Whole(meaning.verdict(kind, idempotent, detail));
        }
        if self.list.done.by == Matching::Position && done.len() != self.items.len() {
            return unknown(self.reply, "with another number of results than records");
        }
        let mut told: Vec<Option<Verdict>> = vec![None; self.items.len()];
        self.tell(&self.list.done, &done, &mut told, |kind, entry| {
            self.of_result(kind, entry)
        });
        if let Some(list) = &self.list.refused {
            self.tell(list, &refused, &mut told, |kind, entry| {
                self.of_error(kind, entry, list)
            });
        }
        let told = told.into_iter().zip(self.items);
        BatchVerdict::Items(
            told.map(|(told, item)| told.unwrap_or_else(|| self.untold(item.kind)))
                .collect(),
        )
    }

    fn untold(&self, kind: CallKind) -> Verdict {
        match (self.list.missing, kind) {
            (MissingMeans::Absent, CallKind::Read) => Verdict::Gone {
                detail: unreadable(self.reply, "that does not show this record"),
            },
            (MissingMeans::Absent, _) => Verdict::Absent,
            (MissingMeans::Unknown, _) => Verdict::Unknown {
                detail: unreadable(self.reply, "that does not tell of this record"),
            },
        }
    }

    /// Gives each entry's verdict to its record.
    fn tell(
        &self,
        list: &ItemList,
        entries: &[&RawValue],
        told: &mut [Option<Verdict>],
        verdict: impl Fn(usize, &str) -> Verdict,
    ) {
        for (at, entry) in self.places.of(list, entries) {
            self.note(told, at, verdict(at, entry.get()));
        }
    }

    /// A record that is told of twice is one we do not understand.
    fn note(&self, told: &mut [Option<Verdict>], at: usize, verdict: Verdict) {
        told[at] = Some(match (told[at].take(), verdict) {
            (None, verdict) => verdict,
            (Some(before), verdict) if before == verdict => verdict,
            (Some(Verdict::Found { remote_id: one }), Verdict::Found { remote_id: other }) => {
                Verdict::Ambiguous {
                    detail: format!("{one} and {other} have this key"),
                }
            }
            (Some(_), _) => Verdict::Unknown {
                detail: unreadable(self.reply, "that tells of this record twice"),
            },
        });
    }

    fn of_result(&self, at: usize, entry: &str) -> Verdict {
        let list = self.list;
        let item = &self.items[at];
        let status = list
            .status
            .as_ref()
            .map(|pointer| status_at(pointer, entry));
        let done = match (&list.ok, status) {
            (Some(ok), _) => ok.holds(entry).unwrap_or(false),
            (None, Some(Some(status))) => (200..=299).contains(&status),
            (None, Some(None)) => {
                return Verdict::Unknown {
                    detail: excerpt(entry.as_bytes()),
                };
            }
            (None, None) => true,
        };
        let status = status.flatten().unwrap_or(self.reply.status);
        if !done {
            return self.refused(at, status, list.done.error.read(entry), entry);
        }
        match item.kind {
            CallKind::Create | CallKind::Upsert => {}
            CallKind::Lookup => return self.found(entry),
            // No batch takes a match.
            CallKind::Read => return self.read(entry),
            CallKind::Update | CallKind::Delete | CallKind::Match => {
                return Verdict::Done {
                    remote_id: None,
                    created: false,
                };
            }
        }
        let created = match &list.created {
            Some(pointer) => matches!(pointer.find_any(entry), Ok(Landing::Value("true"))),
            None => status == 201,
        };
        let id = list
            .id
            .as_ref()
            .map_or(IdAt::None, |pointer| id_at(pointer, entry));
        let missing = || match list.id_missing {
            IdMissing::RecordId => Some(Some(item.record_id.to_owned())),
            IdMissing::Unlinked => Some(None),
            IdMissing::Unknown => None,
        };
        let remote_id = match id {
            IdAt::Text(id) => Some(Some(id)),
            IdAt::None | IdAt::EmptyList => missing(),
            IdAt::Unusable | IdAt::NotAnObject => None,
        };
        match remote_id {
            Some(remote_id) => Verdict::Done { remote_id, created },
            None => Verdict::Unknown {
                detail: excerpt(entry.as_bytes()),
            },
        }
    }

    /// An entry of a batch of reads: it may name another record, which the one asked for is part of.
    fn read(&self, entry: &str) -> Verdict {
        if RawObject::new(entry).is_none() {
            let detail = excerpt(entry.as_bytes());
            return Verdict::Unknown { detail };
        }
        let id = self.list.id.as_ref().map(|pointer| id_at(pointer, entry));
        let remote_id = match id {
            Some(IdAt::Text(remote_id)) => Some(remote_id),
            _ => None,
        };
        Verdict::Done {
            remote_id,
            created: false,
        }
    }

    /// An entry of a batch of look-ups.
    fn found(&self, entry: &str) -> Verdict {
        let id = self.list.id.as_ref().map(|pointer| id_at(pointer, entry));
        match id {
            Some(IdAt::Text(remote_id)) => Verdict::Found { remote_id },
            _ => Verdict::Unknown {
                detail: excerpt(entry.as_bytes()),
            },
        }
    }

    fn of_error(&self, at: usize, entry: &str, list: &ItemList) -> Verdict {
        self.refused(at, self.reply.status, list.error.read(entry), entry)
    }

    fn refused(&self, at: usize, status: u16, words: ErrorWords, entry: &str) -> Verdict {
        let kind = self.items[at].kind;
        let refusal = Refusal {
            about: About::Item,
            kind: Some(kind),
            status,
            words,
            reply: self.reply,
            wall_now: self.wall_now,
        };
        let idempotent = self.definition.may_repeat(kind);
        let detail = excerpt(entry.as_bytes());
        self.definition
            .meaning(&refusal)
            .verdict(kind, idempotent, detail)
    }
}

impl Places<'_> {
    /// The entries that tell of a record, each with the record's place in the call.
    fn of<'t>(&self, list: &ItemList, entries: &[&'t RawValue]) -> Vec<(usize, &'t RawValue)> {
        // Nothing stands where a record that was asked for by its place is not there.
        let tells = |entry: &&RawValue| entry.get() != "null";
        // One entry about one record needs no name.
        let alone = self.items.len() == 1 && entries.len() == 1;
        let keys = match &list.by {
            Matching::Keys(keys) if !alone => keys,
            Matching::Position | Matching::Keys(_) => {
                let entries = entries.iter().copied().enumerate().take(self.items.len());
                return entries.filter(|(_, entry)| tells(entry)).collect();
            }
        };
        let index = self.index(keys);
        let keys: Vec<(MatchKey, Pointer)> = keys
            .iter()
            .filter_map(|(key, pointer)| {
                Some((*key, pointer.with(KEY_FIELD_PART, self.key_field)?))
            })
            .collect();
        let mut placed = Vec::with_capacity(entries.len());
        for entry in entries.iter().copied() {
            let places = matched(&keys, &index, self.ignores_case, entry.get());
            placed.extend(places.into_iter().map(|at| (at, entry)));
        }
        placed
    }

    /// Where each record is, by each key in use.
    fn index(&self, keys: &[(MatchKey, Pointer)]) -> HashMap<(MatchKey, String), usize> {
        let mut index = HashMap::with_capacity(self.items.len() * keys.len());
        for (key, _) in keys {
            for (at, item) in self.items.iter().enumerate() {
                let value = match key {
                    MatchKey::Trace => at.to_string(),
                    MatchKey::RecordId if self.ignores_case => item.record_id.to_lowercase(),
                    MatchKey::RecordId => item.record_id.to_owned(),
                    MatchKey::RemoteId => match item.remote_id {
                        Some(remote_id) => remote_id.to_owned(),
                        None => continue,
                    },
                };
                index.insert((*key, value), at);
            }
        }
        index
    }
}

/// Whether this is several reads, which change nothing and can be asked again in smaller calls.
fn reads_many(items: &[BatchItemRef<'_>]) -> bool {
    items.len() > 1 && items.iter().all(|item| item.kind == CallKind::Read)
}

/// The records an entry is about: one, or all of a list of keys.
fn matched(
    keys: &[(MatchKey, Pointer)],
    index: &HashMap<(MatchKey, String), usize>,
    ignores_case: bool,
    entry: &str,
) -> Vec<usize> {
    for (key, pointer) in keys {
        let Ok(Landing::Value(json)) = pointer.find_any(entry) else {
            continue;
        };
        let values: Vec<String> = match scalar_text(json) {
            Some(value) => vec![value],
            None => list_of_texts(json),
        };
        let known = values.into_iter();
        let known: Vec<usize> = known
            .filter_map(|value| {
                let value = match key {
                    MatchKey::RecordId if ignores_case => value.to_lowercase(),
                    _ => value,
                };
                index.get(&(*key, value)).copied()
            })
            .collect();
        if !known.is_empty() {
            return known;
        }
    }
    Vec::new()
}

fn list_of_texts(json: &str) -> Vec<String> {
    let items: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
    let texts = items.iter();
    texts.filter_map(|item| scalar_text(item.get())).collect()
}

/// The entries of the list that `at` leads to.
fn entries<'t>(at: &Pointer, text: &'t str) -> Option<Vec<&'t RawValue>> {
    match at.find_any(text) {
        Ok(Landing::Value(json)) => serde_json::from_str(json).ok(),
        Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
    }
}

fn status_at(pointer: &Pointer, entry: &str) -> Option<u16> {
    match pointer.find_any(entry) {
        Ok(Landing::Value(json)) => scalar_text(json)?.parse().ok(),
        Ok(Landing::PastArrayEnd | Landing::Nowhere) | Err(_) => None,
    }
}

fn unknown(reply: &Reply, what: &str) -> BatchVerdict {
    BatchVerdict::Whole(Verdict::Unknown {
        detail: unreadable(reply, what),
    })
}

/// The part of a pointer that stands for the object's key field.
const KEY_FIELD_PART: &str = "{external_id_field}";
