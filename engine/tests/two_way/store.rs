//! One side's records: a provider account, or System A.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use syncline_engine::merge::Fields;
use syncline_engine::provider::{BodyEnd, Method, Reply, ReplyHeaders, Request};

/// A record as one side keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) external_id: Option<String>,
    pub(crate) fields: Fields,
}

/// Says of a record that it is deleted, where a side marks that.
pub(crate) const MARK: &str = "/gone";

/// Records by the side's own id.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pub(crate) records: BTreeMap<String, Kept>,
    /// Ids of records that a person deleted.
    pub(crate) tombstones: Vec<String>,
    /// Ids of records that are part of another one, and of that one.
    pub(crate) merged: Vec<(String, String)>,
    /// What is deleted is marked, in the field [`MARK`].
    pub(crate) marks: bool,
    /// What can be taken back.
    bin: BTreeMap<String, Kept>,
    /// Ids of what was taken back: its key is not given to another one.
    back: BTreeSet<String>,
    made: u32,
    /// Writes that calls of the engine did.
    pub(crate) writes: u32,
    /// Of these, those that changed nothing.
    pub(crate) idle_writes: u32,
    pub(crate) creates: u32,
}

impl Kept {
    pub(crate) fn is_marked(&self) -> bool {
        self.fields.get(MARK) == Some("true")
    }

    /// Its fields, but for the mark.
    pub(crate) fn unmarked(&self) -> Fields {
        let mut fields = self.fields.clone();
        fields.remove(MARK);
        fields
    }
}

impl Store {
    /// One of records that are marked when they are deleted.
    pub(crate) fn marking() -> Self {
        Self {
            marks: true,
            ..Self::default()
        }
    }

    /// One of the same kind, without records.
    pub(crate) fn anew(&self) -> Self {
        Self {
            marks: self.marks,
            ..Self::default()
        }
    }

    /// Records that are not deleted, by the side's own id.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&String, &Kept)> {
        self.records.iter().filter(|(_, kept)| !kept.is_marked())
    }

    /// All that it has, without what it only counts.
    pub(crate) fn contents(&self) -> String {
        format!(
            "{:?} {:?} {:?} {:?} {}",
            self.records, self.tombstones, self.merged, self.bin, self.made
        )
    }

    /// A record made here by a person.
    pub(crate) fn make(&mut self, fields: &str) -> String {
        self.made += 1;
        let id = format!("r{}", self.made);
        self.put(&id, fields);
        id
    }

    /// A record under an id of the maker's own.
    pub(crate) fn put(&mut self, id: &str, fields: &str) {
        let mut kept = Kept {
            external_id: None,
            fields: Fields::default(),
        };
        lay(&mut kept.fields, fields);
        self.records.insert(id.to_owned(), kept);
    }

    /// Lays a change over a record; false when it is not there.
    pub(crate) fn edit(&mut self, id: &str, patch: &str) -> bool {
        match self.records.get_mut(id) {
            Some(kept) => {
                lay(&mut kept.fields, patch);
                true
            }
            None => false,
        }
    }

    /// Takes a record away, into the bin.
    pub(crate) fn delete(&mut self, id: &str) -> bool {
        if self.marks {
            let live = self.records.get_mut(id).filter(|kept| !kept.is_marked());
            return live.map(|kept| kept.fields.set(MARK, "true")).is_some();
        }
        let Some(kept) = self.records.remove(id) else {
            return false;
        };
        self.bin.insert(id.to_owned(), kept);
        self.tombstones.push(id.to_owned());
        true
    }

    pub(crate) fn restore(&mut self, id: &str) -> bool {
        if self.marks {
            let gone = self.records.get_mut(id).filter(|kept| kept.is_marked());
            return gone.map(|kept| kept.fields.set(MARK, "false")).is_some();
        }
        let Some(kept) = self.bin.get(id).cloned() else {
            return false;
        };
        if kept
            .external_id
            .as_deref()
            .is_some_and(|key| self.by_key(key).is_some())
        {
            return false;
        }
        self.bin.remove(id);
        self.back.insert(id.to_owned());
        self.tombstones.retain(|gone| gone != id);
        self.records.insert(id.to_owned(), kept);
        true
    }

    pub(crate) fn merge(&mut self, loser: &str, winner: &str) -> bool {
        if loser == winner || !self.records.contains_key(winner) {
            return false;
        }
        let Some(lost) = self.records.remove(loser) else {
            return false;
        };
        self.merged.push((loser.to_owned(), winner.to_owned()));
        let kept = self.records.get_mut(winner).unwrap();
        for (pointer, value) in lost.fields.iter() {
            if kept.fields.get(pointer).is_none() {
                kept.fields.set(pointer, value);
            }
        }
        true
    }

    /// Does what a request asks; the id of the record that it changed.
    pub(crate) fn serve(&mut self, request: &Request) -> (Reply, Option<String>) {
        let path = request.path_and_query.replace("%3A", ":");
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        match (request.method, parts.as_slice()) {
            (Method::Get, [query]) => {
                let query = query.split_once('?').unwrap().1;
                let found = match query.strip_prefix("external_id=") {
                    Some(key) => self.by_key(key).into_iter().collect(),
                    None => self.matching(query),
                };
                let results: Vec<String> = found
                    .iter()
                    .map(|id| format!(r#"{{"id":"{id}"}}"#))
                    .collect();
                let results = results.join(",");
                (reply(200, &format!(r#"{{"results":[{results}]}}"#)), None)
            }
            (Method::Get, [_, id]) => match self.records.get(*id) {
                Some(kept) => (reply(200, &shown(id, kept)), None),
                None => (reply(404, "{}"), None),
            },
            (Method::Post, [_]) => {
                let mut fields = Fields::parse(&body);
                let key = text(&fields, "/external_id");
                if self.by_key(&key).is_some_and(|id| self.back.contains(&id)) {
                    return (reply(409, "{}"), None);
                }
                self.creates += 1;
                fields.remove("/external_id");
                let id = self.make(&fields.to_json());
                self.records.get_mut(&id).unwrap().external_id = Some(key);
                self.writes += 1;
                (reply(201, &format!(r#"{{"id":"{id}"}}"#)), Some(id))
            }
            (Method::Put, [_, "external", key]) => {
                let id = self.by_key(key).unwrap_or_else(|| {
                    let id = self.make("{}");
                    self.records.get_mut(&id).unwrap().external_id = Some((*key).to_owned());
                    id
                });
                self.write(&id, &body);
                (reply(200, &format!(r#"{{"id":"{id}"}}"#)), Some(id))
            }
            (Method::Patch, [_, id]) if self.records.contains_key(*id) => {
                self.write(id, &body);
                (reply(200, ""), Some((*id).to_owned()))
            }
            (Method::Delete, [_, id]) if self.delete(id) => {
                self.tombstones.pop();
                self.writes += 1;
                (reply(204, ""), Some((*id).to_owned()))
            }
            (Method::Patch | Method::Delete, [_, _]) => (reply(404, "{}"), None),
            other => panic!("no such request: {other:?}"),
        }
    }

    /// Does what System A is told.
    pub(crate) fn learn(&mut self, request: &Request) -> Reply {
        let change = Fields::parse(std::str::from_utf8(&request.body).unwrap());
        let id = text(&change, "/record_id");
        self.writes += 1;
        if text(&change, "/operation") == "DELETE" {
            self.records.remove(&id);
            return reply(204, "");
        }
        let json: &str = std::str::from_utf8(&request.body).unwrap();
        let data = syncline_engine::json::RawObject::new(json)
            .unwrap()
            .get("data");
        let kept = self.records.entry(id).or_insert(Kept {
            external_id: None,
            fields: Fields::default(),
        });
        let before = kept.fields.clone();
        lay(&mut kept.fields, data.unwrap().text());
        self.idle_writes += u32::from(before == kept.fields);
        reply(200, "")
    }

    /// Records with all of a query's values.
    fn matching(&self, query: &str) -> Vec<String> {
        let wanted: Vec<(String, String)> = query
            .split('&')
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap();
                (
                    format!("/{name}"),
                    format!("\"{}\"", value.replace("%40", "@")),
                )
            })
            .collect();
        let has = |kept: &Kept| {
            let mut wanted = wanted.iter();
            wanted.all(|(at, value)| kept.fields.get(at) == Some(value))
        };
        let records = self.records.iter().filter(|(_, kept)| has(kept));
        records.map(|(id, _)| id.clone()).collect()
    }

    fn write(&mut self, id: &str, body: &str) {
        let kept = self.records.get_mut(id).unwrap();
        let before = kept.fields.clone();
        lay(&mut kept.fields, body);
        if kept.fields.get("/external_id").is_some() {
            kept.external_id = Some(text(&kept.fields, "/external_id"));
            kept.fields.remove("/external_id");
        }
        self.writes += 1;
        self.idle_writes += u32::from(before == kept.fields);
    }

    fn by_key(&self, key: &str) -> Option<String> {
        let mut records = self.records.iter();
        let found = records.find(|(_, kept)| kept.external_id.as_deref() == Some(key));
        found.map(|(id, _)| id.clone())
    }
}

/// A patch; `null` takes a field away.
fn lay(fields: &mut Fields, patch: &str) {
    for (pointer, value) in Fields::parse(patch).iter() {
        if value == "null" {
            fields.remove(pointer);
        } else {
            fields.set(pointer, value);
        }
    }
}

pub(crate) fn shown(id: &str, kept: &Kept) -> String {
    let mut fields = kept.fields.clone();
    fields.set("/id", &format!(r#""{id}""#));
    if let Some(key) = &kept.external_id {
        fields.set("/external_id", &format!(r#""{key}""#));
    }
    fields.to_json()
}

fn text(fields: &Fields, pointer: &str) -> String {
    let value = fields.get(pointer).unwrap_or_default();
    value.trim_matches('"').to_owned()
}

pub(crate) fn reply(status: u16, body: &str) -> Reply {
    Reply {
        status,
        retry_after: None,
        date: None,
        headers: ReplyHeaders::default(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        body_end: BodyEnd::Complete,
    }
}
