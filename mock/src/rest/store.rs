//! The account's records: by object and the account's own id, found by external id as well.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::record::Record;

/// Everything the account holds; iterates in the order of objects and ids.
#[derive(Debug, Default)]
pub(crate) struct Store {
    objects: BTreeMap<String, Table>,
    last_id: u64,
}

#[derive(Debug, Default)]
struct Table {
    records: BTreeMap<RestId, Record>,
    /// Live records of one external id, oldest first; more than one after a duplicate create.
    by_external_id: BTreeMap<String, Vec<RestId>>,
}

/// The provider's own key, written `r1`, `r2` … so that it is never taken for an external id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RestId(u64);

impl fmt::Display for RestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl RestId {
    fn parse(text: &str) -> Option<Self> {
        let id = Self(text.strip_prefix('r')?.parse().ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl Store {
    /// Adds a record, whether or not its external id is taken.
    pub(crate) fn create(
        &mut self,
        now: Duration,
        object: &str,
        external_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> RestId {
        self.last_id += 1;
        let id = RestId(self.last_id);
        let table = match self.objects.get_mut(object) {
            Some(table) => table,
            None => self.objects.entry(object.to_owned()).or_default(),
        };
        let mut record = Record {
            external_id: external_id.map(str::to_owned),
            fields: Map::new(),
            created_at: now,
        };
        merge(&mut record.fields, fields);
        if let Some(external_id) = external_id {
            table
                .by_external_id
                .entry(external_id.to_owned())
                .or_default()
                .push(id);
        }
        table.records.insert(id, record);
        id
    }

    /// Merges fields into a record; `None` when there is none of that id.
    pub(crate) fn update(
        &mut self,
        object: &str,
        id: &str,
        fields: &Map<String, Value>,
    ) -> Option<RestId> {
        let id = RestId::parse(id)?;
        let record = self.objects.get_mut(object)?.records.get_mut(&id)?;
        merge(&mut record.fields, fields);
        Some(id)
    }

    /// Removes a record; `None` when there is none of that id.
    pub(crate) fn delete(&mut self, object: &str, id: &str) -> Option<RestId> {
        let id = RestId::parse(id)?;
        let table = self.objects.get_mut(object)?;
        let record = table.records.remove(&id)?;
        if let Some(external_id) = record.external_id
            && let Some(ids) = table.by_external_id.get_mut(&external_id)
        {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                table.by_external_id.remove(&external_id);
            }
        }
        Some(id)
    }

    /// The record of that id.
    pub(crate) fn read(&self, object: &str, id: &str) -> Option<(RestId, &Record)> {
        let id = RestId::parse(id)?;
        Some((id, self.objects.get(object)?.records.get(&id)?))
    }

    /// Live records of an external id, oldest first.
    pub(crate) fn look_up(
        &self,
        object: &str,
        external_id: &str,
    ) -> impl Iterator<Item = (RestId, &Record)> {
        let table = self.objects.get(object);
        let ids = table.and_then(|table| table.by_external_id.get(external_id));
        ids.into_iter()
            .flatten()
            .filter_map(move |id| Some((*id, table?.records.get(id)?)))
    }

    /// Every live record with its object and id.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, RestId, &Record)> {
        self.objects.iter().flat_map(|(object, table)| {
            table
                .records
                .iter()
                .map(move |(id, record)| (object.as_str(), *id, record))
        })
    }
}

impl Record {
    /// Whether a look-up served by a replica that lags by `stale` sees the record.
    pub(crate) fn visible(&self, now: Duration, stale: Duration) -> bool {
        self.created_at + stale <= now
    }
}

/// RFC 7396: null clears, objects merge, anything else replaces. The depth is bounded by the JSON
/// parser's own limit of 128.
fn merge(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, change) in patch {
        match change {
            Value::Null => {
                target.shift_remove(name);
            }
            Value::Object(change) => {
                let field = target.entry(name.clone()).or_insert(Value::Null);
                if !field.is_object() {
                    *field = Value::Object(Map::new());
                }
                if let Value::Object(field) = field {
                    merge(field, change);
                }
            }
            _ => {
                target.insert(name.clone(), change.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_merge_is_that_of_rfc_7396() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (
                json!({"a": "b", "b": "c"}),
                json!({"a": null}),
                json!({"b": "c"}),
            ),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"a": [{"b": "c"}]}),
                json!({"a": [1]}),
                json!({"a": [1]}),
            ),
            (
                json!({"e": 1}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"e": 1, "a": {"bb": {}}}),
            ),
        ] {
            let mut merged = fields(&target);
            merge(&mut merged, &fields(&patch));
            assert_eq!(Value::Object(merged), result, "{target} with {patch}");
        }
    }

    #[test]
    fn a_deleted_record_leaves_its_external_id_to_the_next() {
        let mut store = Store::default();
        let first = store.create(Duration::ZERO, "contact", Some("c-1"), &Map::new());
        let second = store.create(Duration::ZERO, "contact", Some("c-1"), &Map::new());
        assert_eq!(store.delete("contact", "r1"), Some(first));
        assert_eq!(store.delete("contact", "r1"), None);
        let found: Vec<_> = store.look_up("contact", "c-1").map(|(id, _)| id).collect();
        assert_eq!(found, [second]);
    }

    #[test]
    fn only_the_canonical_text_of_an_id_names_a_record() {
        let mut store = Store::default();
        store.create(Duration::ZERO, "contact", None, &Map::new());
        assert!(store.read("contact", "r1").is_some());
        for other in ["1", "r01", "r+1", "R1", "r", "r2", "r99999999999999999999"] {
            assert!(store.read("contact", other).is_none(), "{other}");
        }
        assert!(store.read("company", "r1").is_none());
    }
}
