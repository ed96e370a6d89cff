//! The records of a simulated CRM: by id, by their key fields, with what was deleted or merged.

mod key_field;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::open_writes::RecordKey;
use crate::provider::{Change, Edit};
use crate::record::Record;
pub(crate) use key_field::KeyField;

/// Everything the account holds; iterates in the order of objects and serial numbers.
#[derive(Debug, Clone)]
pub(crate) struct Crm {
    key_fields: Vec<KeyField>,
    objects: BTreeMap<String, Table>,
    /// Deleted records, oldest first, over all objects.
    buried: VecDeque<(String, u64)>,
    last_serial: u64,
    duplicate_creates: u64,
}

#[derive(Debug, Clone, Default)]
struct Table {
    rows: BTreeMap<u64, Row>,
    /// Live records by key field and folded value.
    by_key: BTreeMap<(String, String), BTreeSet<u64>>,
    graves: BTreeMap<u64, Grave>,
}

/// A live record.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) record: Record,
    pub(crate) modified_at: Duration,
    /// What an index that lags still shows, since the record changed a moment ago.
    stale: Option<Box<(Map<String, Value>, Duration)>>,
}

/// A deleted record.
#[derive(Debug, Clone)]
pub(crate) struct Grave {
    pub(crate) row: Row,
    pub(crate) deleted_at: Duration,
    /// The record that it was merged into.
    pub(crate) merged_into: Option<u64>,
}

/// A unique value that another record has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) field: String,
    pub(crate) value: String,
    pub(crate) by: u64,
}

/// Deleted records remembered, the oldest forgotten first. Salesforce tells of 600,000 at a time,
/// which would take a gigabyte here; tests delete thousands.
const GRAVES_MAX: usize = 100_000;

impl Crm {
    /// An account without records. Of the key fields of a record that hold the caller's key, the
    /// first that has a value is its external id.
    pub(crate) fn new(key_fields: Vec<KeyField>, first_serial: u64) -> Self {
        Self {
            key_fields,
            objects: BTreeMap::new(),
            buried: VecDeque::new(),
            last_serial: first_serial - 1,
            duplicate_creates: 0,
        }
    }

    /// Adds a record, whether or not its keys are taken.
    pub(crate) fn create(
        &mut self,
        now: Duration,
        object: &str,
        fields: Map<String, Value>,
    ) -> u64 {
        self.last_serial += 1;
        let serial = self.last_serial;
        let mut record = Record {
            external_id: None,
            fields: Map::new(),
            created_at: now,
        };
        patch(&mut record.fields, fields);
        let key = self.external_key_in(object, &record.fields);
        if key.is_some_and(|(field, id)| self.find(object, field, &id).next().is_some()) {
            self.duplicate_creates += 1;
        }
        record.external_id = self.external_id_in(object, &record.fields);
        self.insert(
            object,
            serial,
            Row {
                record,
                modified_at: now,
                stale: None,
            },
        );
        serial
    }

    /// Changes fields; null clears. An index that lags by `lag` goes on showing what stood before.
    /// `false` when there is no such record.
    pub(crate) fn update(
        &mut self,
        now: Duration,
        object: &str,
        serial: u64,
        fields: Map<String, Value>,
        lag: Duration,
    ) -> bool {
        let Some(mut row) = self.remove(object, serial) else {
            return false;
        };
        let settled = row.modified_at + lag <= now;
        if settled && !lag.is_zero() {
            row.stale = Some(Box::new((row.record.fields.clone(), row.modified_at)));
        }
        patch(&mut row.record.fields, fields);
        row.record.external_id = self.external_id_in(object, &row.record.fields);
        row.modified_at = now;
        self.insert(object, serial, row);
        true
    }

    /// Deletes a record; `false` when there is none.
    pub(crate) fn delete(&mut self, now: Duration, object: &str, serial: u64) -> bool {
        self.bury(now, object, serial, None)
    }

    /// Makes one record part of another, which stays and takes the fields that it lacked; `false`
    /// when there are not both.
    pub(crate) fn merge(&mut self, now: Duration, object: &str, loser: u64, winner: u64) -> bool {
        if loser == winner || self.row(object, winner).is_none() {
            return false;
        }
        let Some(lost) = self.row(object, loser).map(|row| row.record.fields.clone()) else {
            return false;
        };
        self.bury(now, object, loser, Some(winner));
        let kept = self.row(object, winner).map(|row| &row.record.fields);
        let new = lost
            .into_iter()
            .filter(|(name, _)| kept.is_some_and(|kept| !kept.contains_key(name)))
            .collect();
        self.update(now, object, winner, new, Duration::ZERO)
    }

    /// Does what somebody else did to a record; `serial_of` reads ids. Gives the record's number.
    ///
    /// # Errors
    /// A sentence that says why not; nothing has changed.
    pub(crate) fn edit(
        &mut self,
        now: Duration,
        object: &str,
        edit: &Edit,
        serial_of: impl Fn(&str) -> Option<u64>,
    ) -> Result<u64, &'static str> {
        const ABSENT: &str = "there is no such record";
        let Some(id) = &edit.id else {
            return match &edit.change {
                Change::Create(fields) => {
                    // A second record of a key is not held against the caller here.
                    let counted = self.duplicate_creates;
                    let serial = self.create(now, object, fields.clone());
                    self.duplicate_creates = counted;
                    Ok(serial)
                }
                _ => Err("id is missing"),
            };
        };
        let serial = serial_of(id).ok_or(ABSENT)?;
        let done = match &edit.change {
            Change::Create(_) => return Err("a create has no id"),
            Change::Update(fields) => {
                self.update(now, object, serial, fields.clone(), Duration::ZERO)
            }
            Change::Delete => self.delete(now, object, serial),
            Change::MergeInto(winner) => {
                let winner = serial_of(winner).ok_or(ABSENT)?;
                self.merge(now, object, serial, winner)
            }
        };
        done.then_some(serial).ok_or(ABSENT)
    }

    /// The live record of that number.
    pub(crate) fn row(&self, object: &str, serial: u64) -> Option<&Row> {
        self.objects.get(object)?.rows.get(&serial)
    }

    /// The deleted record of that number.
    pub(crate) fn grave(&self, object: &str, serial: u64) -> Option<&Grave> {
        self.objects.get(object)?.graves.get(&serial)
    }

    /// The record that a number leads to now, over merges.
    pub(crate) fn survivor(&self, object: &str, serial: u64) -> Option<u64> {
        let mut serial = serial;
        // A record is merged away once, so a walk meets each grave at most once.
        while let Some(grave) = self.grave(object, serial) {
            serial = grave.merged_into?;
        }
        self.row(object, serial).map(|_| serial)
    }

    /// Live records by the value of a key field, oldest first; values are told apart without
    /// their case.
    pub(crate) fn find(
        &self,
        object: &str,
        field: &str,
        value: &str,
    ) -> impl Iterator<Item = u64> + use<'_> {
        let table = self.objects.get(object);
        let key = (field.to_owned(), fold(value));
        let found = table.and_then(|table| table.by_key.get(&key));
        found.into_iter().flatten().copied()
    }

    /// Whether records of this object can be found by that field.
    pub(crate) fn is_key(&self, object: &str, field: &str) -> bool {
        self.keys_of(object).any(|key| key.field == field)
    }

    /// The key fields of an object.
    pub(crate) fn key_names(&self, object: &str) -> impl Iterator<Item = &str> {
        self.keys_of(object).map(|key| key.field.as_str())
    }

    /// A unique value among these fields that a record other than `except` has.
    pub(crate) fn taken(
        &self,
        object: &str,
        fields: &Map<String, Value>,
        except: Option<u64>,
    ) -> Option<Taken> {
        self.keys_of(object)
            .filter(|key| key.unique)
            .find_map(|key| {
                key.texts_in(fields).into_iter().find_map(|value| {
                    let mut others = self.find(object, &key.field, &value);
                    let by = others.find(|other| Some(*other) != except)?;
                    Some(Taken {
                        field: key.field.clone(),
                        value,
                        by,
                    })
                })
            })
    }

    /// Live records of an object.
    pub(crate) fn rows(&self, object: &str) -> impl Iterator<Item = (u64, &Row)> + use<'_> {
        let table = self.objects.get(object);
        table
            .into_iter()
            .flat_map(|table| table.rows.iter().map(|(serial, row)| (*serial, row)))
    }

    /// Deleted records of an object that are still remembered.
    pub(crate) fn graves(&self, object: &str) -> impl Iterator<Item = (u64, &Grave)> + use<'_> {
        let table = self.objects.get(object);
        table
            .into_iter()
            .flat_map(|table| table.graves.iter().map(|(serial, grave)| (*serial, grave)))
    }

    /// Every live record with its object.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&str, u64, &Record)> {
        self.objects.iter().flat_map(|(object, table)| {
            let rows = table.rows.iter();
            rows.map(move |(serial, row)| (object.as_str(), *serial, &row.record))
        })
    }

    /// Creates that made a second live record of one external id.
    pub(crate) fn duplicate_creates(&self) -> u64 {
        self.duplicate_creates
    }

    /// The caller's own key of a live record.
    pub(crate) fn external_id_of(&self, object: &str, serial: u64) -> Option<&str> {
        self.row(object, serial)?.record.external_id.as_deref()
    }

    /// The live record of this number, as paths have it.
    pub(crate) fn serial_of(&self, object: &str, number: &str) -> Option<u64> {
        let serial = number.parse().ok()?;
        self.row(object, serial).map(|_| serial)
    }

    /// The caller's key of the record that a write makes, or changes.
    pub(crate) fn key_of_write(
        &self,
        object: &str,
        serial: Option<u64>,
        fields: &Map<String, Value>,
    ) -> Option<String> {
        match serial {
            None => self.external_id_in(object, fields),
            Some(serial) => self.external_id_of(object, serial).map(str::to_owned),
        }
    }

    /// How a record is known that a call names by an id; `serial` is what the id leads to.
    pub(crate) fn record_key(&self, object: &str, serial: Option<u64>, id: &str) -> RecordKey {
        match serial.and_then(|serial| self.external_id_of(object, serial)) {
            Some(external_id) => RecordKey::by_external_id(object, external_id),
            None => RecordKey::by_id(object, id),
        }
    }

    /// The caller's own key among these fields.
    pub(crate) fn external_id_in(
        &self,
        object: &str,
        fields: &Map<String, Value>,
    ) -> Option<String> {
        self.external_key_in(object, fields).map(|(_, id)| id)
    }

    fn external_key_in(&self, object: &str, fields: &Map<String, Value>) -> Option<(&str, String)> {
        let mut external = self.keys_of(object).filter(|key| key.external);
        external.find_map(|key| {
            let text = key.texts_in(fields).into_iter().next()?;
            Some((key.field.as_str(), text))
        })
    }

    fn keys_of(&self, object: &str) -> impl Iterator<Item = &KeyField> {
        self.key_fields.iter().filter(move |key| key.is_of(object))
    }

    fn insert(&mut self, object: &str, serial: u64, row: Row) {
        let keys = self.index_keys(object, &row.record.fields);
        let table = self.objects.entry(object.to_owned()).or_default();
        for key in keys {
            table.by_key.entry(key).or_default().insert(serial);
        }
        table.rows.insert(serial, row);
    }

    fn remove(&mut self, object: &str, serial: u64) -> Option<Row> {
        let row = self.objects.get_mut(object)?.rows.remove(&serial)?;
        let keys = self.index_keys(object, &row.record.fields);
        let table = self.objects.get_mut(object)?;
        for key in keys {
            if let Some(serials) = table.by_key.get_mut(&key) {
                serials.remove(&serial);
                if serials.is_empty() {
                    table.by_key.remove(&key);
                }
            }
        }
        Some(row)
    }

    fn index_keys(&self, object: &str, fields: &Map<String, Value>) -> Vec<(String, String)> {
        self.keys_of(object)
            .flat_map(|key| {
                let texts = key.texts_in(fields).into_iter();
                texts.map(|text| (key.field.clone(), fold(&text)))
            })
            .collect()
    }

    fn bury(&mut self, now: Duration, object: &str, serial: u64, merged_into: Option<u64>) -> bool {
        let Some(row) = self.remove(object, serial) else {
            return false;
        };
        let grave = Grave {
            row,
            deleted_at: now,
            merged_into,
        };
        if let Some(table) = self.objects.get_mut(object) {
            table.graves.insert(serial, grave);
        }
        self.buried.push_back((object.to_owned(), serial));
        if self.buried.len() > GRAVES_MAX
            && let Some((object, serial)) = self.buried.pop_front()
            && let Some(table) = self.objects.get_mut(&object)
        {
            table.graves.remove(&serial);
        }
        true
    }
}

impl Row {
    /// Fields and change as an index shows them that lags by `lag`; `None` when it does not know
    /// the record yet.
    pub(crate) fn indexed(
        &self,
        now: Duration,
        lag: Duration,
    ) -> Option<(&Map<String, Value>, Duration)> {
        if self.modified_at + lag <= now {
            return Some((&self.record.fields, self.modified_at));
        }
        let (fields, modified_at) = &**self.stale.as_ref()?;
        Some((fields, *modified_at))
    }
}

/// A key's value as text; `None` when it is empty or no single value.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

/// Values that differ in case alone are one value.
pub(crate) fn fold(value: &str) -> String {
    value.to_lowercase()
}

fn patch(target: &mut Map<String, Value>, changes: Map<String, Value>) {
    for (name, value) in changes {
        if value.is_null() {
            target.shift_remove(&name);
        } else {
            target.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    fn fields(value: Value) -> Map<String, Value> {
        let Value::Object(fields) = value else {
            panic!("no object");
        };
        fields
    }

    fn crm() -> Crm {
        Crm::new(
            vec![
                KeyField::external("key"),
                KeyField::external("email")
                    .of("contact")
                    .shared()
                    .incidental(),
            ],
            1,
        )
    }

    #[test]
    fn a_key_is_found_in_any_case_and_follows_its_change() {
        let mut crm = crm();
        let serial = crm.create(NOW, "contact", fields(json!({"key": "C-1", "a": 1})));
        assert_eq!(
            crm.find("contact", "key", "c-1").collect::<Vec<_>>(),
            [serial]
        );
        assert!(crm.update(
            NOW,
            "contact",
            serial,
            fields(json!({"key": "c-2", "a": null})),
            Duration::ZERO
        ));
        assert_eq!(crm.find("contact", "key", "c-1").count(), 0);
        assert_eq!(crm.find("contact", "key", "c-2").count(), 1);
        let record = &crm.row("contact", serial).unwrap().record;
        assert_eq!(record.external_id.as_deref(), Some("c-2"));
        assert_eq!(Value::from(record.fields.clone()), json!({"key": "c-2"}));
    }

    #[test]
    fn a_unique_value_is_taken_for_others_and_a_shared_one_for_nobody() {
        let mut crm = crm();
        let first = fields(json!({"key": "c-1", "email": "a@b"}));
        let serial = crm.create(NOW, "contact", first.clone());
        let taken = crm.taken("contact", &first, None).unwrap();
        assert_eq!((taken.field.as_str(), taken.by), ("key", serial));
        assert_eq!(crm.taken("contact", &first, Some(serial)), None);
        assert_eq!(crm.taken("company", &first, None), None);
        crm.create(NOW, "contact", fields(json!({"email": "A@b"})));
        assert_eq!(crm.find("contact", "email", "a@B").count(), 2);
        assert_eq!(crm.duplicate_creates(), 0);
        crm.create(NOW, "contact", first);
        assert_eq!(crm.duplicate_creates(), 1);
    }

    #[test]
    fn a_merged_record_leads_to_the_one_that_stayed() {
        let mut crm = crm();
        let one = crm.create(NOW, "contact", fields(json!({"key": "1", "a": 1, "b": 1})));
        let two = crm.create(NOW, "contact", fields(json!({"key": "2", "a": 2})));
        let three = crm.create(NOW, "contact", fields(json!({"key": "3"})));
        assert!(crm.merge(NOW, "contact", one, two));
        assert!(crm.merge(NOW, "contact", two, three));
        assert!(!crm.merge(NOW, "contact", one, three));
        assert_eq!(crm.survivor("contact", one), Some(three));
        let kept = &crm.row("contact", three).unwrap().record.fields;
        assert_eq!(
            Value::from(kept.clone()),
            json!({"key": "3", "a": 2, "b": 1})
        );
        assert!(crm.delete(NOW, "contact", three));
        assert_eq!(crm.survivor("contact", one), None);
    }

    #[test]
    fn an_index_that_lags_shows_what_stood_before() {
        let mut crm = crm();
        let lag = Duration::from_secs(2);
        let at = Duration::from_secs;
        let serial = crm.create(at(1), "contact", fields(json!({"a": 1})));
        let seen = |crm: &Crm, now| {
            let row = crm.row("contact", serial).unwrap();
            row.indexed(now, lag).map(|(fields, _)| fields["a"].clone())
        };
        assert_eq!(seen(&crm, at(2)), None);
        assert_eq!(seen(&crm, at(3)), Some(json!(1)));
        crm.update(at(4), "contact", serial, fields(json!({"a": 2})), lag);
        crm.update(at(5), "contact", serial, fields(json!({"a": 3})), lag);
        assert_eq!(seen(&crm, at(6)), Some(json!(1)));
        assert_eq!(seen(&crm, at(7)), Some(json!(3)));
    }
}
