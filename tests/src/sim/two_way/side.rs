//! One account as its people and its lists of changes see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use engine::provider::{BodyEnd, Reply, ReplyHeaders};
use serde_json::{Map, Value, json};

use super::options::InboundOptions;
use crate::sim::dice::Dice;
use crate::sim::sets::mapping::{AccountMappings, ObjectMapping};

/// A record's object and id at its account.
pub(in crate::sim) type Place = (String, String);

/// A record as it was seen last.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::sim) struct Kept {
    pub(in crate::sim) external_id: Option<String>,
    /// In System A's names.
    pub(in crate::sim) fields: Map<String, Value>,
    /// As the account names them.
    shown: Map<String, Value>,
}

/// A record that is not as it was.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Touched {
    pub(in crate::sim) place: Place,
    pub(in crate::sim) before: Option<Kept>,
    pub(in crate::sim) after: Option<Kept>,
    /// It was marked as deleted, and is not any more: all that it had shows again.
    pub(in crate::sim) taken_back: bool,
}

/// What a list shows of a record.
#[derive(Debug, Clone)]
struct Version {
    /// On the account's clock, ms since the epoch.
    at_ms: i64,
    /// True time from which lists show it, ns.
    listed_ns: u64,
    /// `None`: it is gone.
    record: Option<Value>,
}

/// What is known of one account besides what its model knows.
#[derive(Debug)]
pub(in crate::sim) struct Side {
    pub(in crate::sim) options: InboundOptions,
    pub(in crate::sim) records: BTreeMap<Place, Kept>,
    /// Records that are marked as deleted.
    pub(in crate::sim) marked: BTreeMap<Place, Kept>,
    /// What records that are part of another one are part of, by their ids there.
    pub(in crate::sim) merged_into: BTreeMap<Place, String>,
    /// Records that were deleted there.
    pub(in crate::sim) gone: Vec<Place>,
    versions: BTreeMap<Place, Vec<Version>>,
    /// True time from which every list shows everything, ns.
    pub(in crate::sim) listed_ns: u64,
    pub(in crate::sim) dice: Dice,
    /// How its fields are named here and there.
    pub(in crate::sim) mapped: Option<AccountMappings>,
}

impl Side {
    pub(in crate::sim) fn new(
        seed: u64,
        at: usize,
        options: InboundOptions,
        mapped: Option<AccountMappings>,
    ) -> Self {
        Self {
            options,
            records: BTreeMap::new(),
            marked: BTreeMap::new(),
            merged_into: BTreeMap::new(),
            gone: Vec::new(),
            versions: BTreeMap::new(),
            listed_ns: 0,
            dice: Dice::stream(seed, &format!("side {at}")),
            mapped,
        }
    }

    /// How an object's fields are named here and there.
    pub(in crate::sim) fn mapping(&self, object: &str) -> Option<&ObjectMapping> {
        self.mapped.as_ref()?.objects.get(object)
    }

    /// What changed since the last look.
    pub(in crate::sim) fn look(&mut self, account: &mock::Account) -> Vec<Touched> {
        let (mut now, mut marked) = (BTreeMap::new(), BTreeMap::new());
        for (object, id, record) in account.records() {
            let place = (object.to_owned(), id.to_string());
            let kept = Kept {
                external_id: record.external_id.clone(),
                fields: match self.mapping(object) {
                    Some(mapping) => mapping.unmap(&record.fields),
                    None => record.fields.clone(),
                },
                shown: record.fields.clone(),
            };
            let mapping = self.mapping(object);
            match mapping.is_some_and(|mapping| mapping.is_marked(&record.fields)) {
                true => marked.insert(place, kept),
                false => now.insert(place, kept),
            };
        }
        let marked = std::mem::replace(&mut self.marked, marked);
        let mut touched = Vec::new();
        for (place, after) in &now {
            let before = self.records.get(place);
            if before != Some(after) {
                touched.push(Touched {
                    place: place.clone(),
                    before: before.cloned(),
                    after: Some(after.clone()),
                    taken_back: marked.contains_key(place),
                });
            }
        }
        for (place, before) in &self.records {
            if !now.contains_key(place) {
                self.gone.push(place.clone());
                touched.push(Touched {
                    place: place.clone(),
                    before: Some(before.clone()),
                    after: None,
                    taken_back: false,
                });
            }
        }
        self.records = now;
        touched
    }

    /// What the account holds of a record, though it may be marked as deleted.
    pub(in crate::sim) fn held(&self, place: &Place) -> Option<&Kept> {
        self.records.get(place).or_else(|| self.marked.get(place))
    }

    /// Whether records of an object are marked when they are deleted.
    pub(in crate::sim) fn marks_deletes(&self, object: &str) -> bool {
        let mapping = self.mapping(object);
        mapping.is_some_and(|mapping| mapping.marks_deletes)
    }

    /// Lists will show a record as it is now: changed at this instant of the account's clock, and
    /// from some time later on.
    pub(in crate::sim) fn list_later(&mut self, place: &Place, now_ns: u64, at_ms: i64) {
        let lag_ms = self.dice.below(self.options.list_lag_ms + 1);
        let listed_ns = now_ns + lag_ms * 1_000_000;
        self.listed_ns = self.listed_ns.max(listed_ns);
        let version = Version {
            at_ms,
            listed_ns,
            record: self.held(place).map(|kept| as_listed(&place.1, kept)),
        };
        let versions = self.versions.entry(place.clone()).or_default();
        versions.push(version);
    }

    /// Answers a request for changes: `/OBJECT/changes?limit=&page=&since=`.
    pub(in crate::sim) fn list(&self, target: &str, now_ns: u64) -> Reply {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let object = path.split('/').nth(1).unwrap_or_default();
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(known, _)| *known == name).map(|(_, it)| it)
        };
        let number = |name: &str| value(name).and_then(|it| it.parse::<i64>().ok());
        let since = number("since").unwrap_or_default();
        let limit = number("limit").unwrap_or(1).max(1) as usize;
        let after = value("page").and_then(|page| page.split_once('.'));
        let after = after.and_then(|(at, id)| Some((at.parse::<i64>().ok()?, id.to_owned())));
        let mut entries: Vec<(i64, &str, &Version)> = Vec::new();
        for ((of, id), versions) in &self.versions {
            let shown = versions.iter().rfind(|it| it.listed_ns <= now_ns);
            let Some(version) = shown.filter(|_| of == object) else {
                continue;
            };
            let behind = after
                .as_ref()
                .is_none_or(|after| (version.at_ms, id) > (after.0, &after.1));
            if version.at_ms >= since && behind {
                entries.push((version.at_ms, id, version));
            }
        }
        entries.sort_by_key(|(at_ms, id, _)| (*at_ms, *id));
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next = entries.last().filter(|_| more);
        let next = next.map(|(at_ms, id, _)| format!("{at_ms}.{id}"));
        let rows: Vec<Value> = entries
            .iter()
            .map(|(at_ms, id, version)| {
                let place = (object.to_owned(), (*id).to_owned());
                let into = self.merged_into.get(&place);
                let gone = version.record.is_none();
                let record = version.record.clone().unwrap_or_else(|| json!({}));
                json!({ "id": id, "at": at_ms, "deleted": gone, "into": into, "record": record })
            })
            .collect();
        reply(200, &json!({ "results": rows, "next": next }))
    }
}

/// A record as the account's model shows it to a reader.
fn as_listed(id: &str, kept: &Kept) -> Value {
    let mut shown = kept.shown.clone();
    shown.insert("id".to_owned(), id.into());
    if let Some(external_id) = &kept.external_id {
        shown.insert("external_id".to_owned(), external_id.clone().into());
    }
    Value::Object(shown)
}

/// A JSON reply.
pub(in crate::sim) fn reply(status: u16, body: &Value) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::from(body.to_string()),
        body_end: BodyEnd::Complete,
    }
}
