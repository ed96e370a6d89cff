//! Up to 200 records in one call, each with its own result in the order of the request.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::rows::{NotUpserted, Written};
use super::schema::Object;
use super::sobjects::{Found, method_not_allowed};
use super::wrong::Wrong;
use super::{Ask, Salesforce};
use crate::crm::{fold, text_of};
use crate::exchange::Reply;
use crate::open_writes::RecordKey;
use crate::provider::{Scene, Subject};

/// Records in a collection that is written (sObject Collections, REST API Developer Guide).
const RECORDS_MAX: usize = 200;
/// Records in a collection that is read.
const READ_MAX: usize = 2_000;
/// Runs of one type in a create or update (the same page: chunks).
const CHUNKS_MAX: usize = 10;

/// The body of a write.
struct Collection {
    all_or_none: bool,
    rows: Vec<CollectionRow>,
}

struct CollectionRow {
    object: String,
    fields: Map<String, Value>,
}

/// The result of one row.
type RowResult = Result<Written, Wrong>;

impl Salesforce {
    /// Creates by POST, updates by PATCH, deletes by DELETE.
    pub(super) fn write_collection(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
    ) -> Result<Reply, Wrong> {
        if ask.method == Method::DELETE {
            return self.delete_collection(scene, ask);
        }
        let creates = match ask.method {
            Method::POST => true,
            Method::PATCH => false,
            _ => return Err(method_not_allowed()),
        };
        let collection = Collection::of(ask)?;
        let chunks = collection
            .rows
            .chunk_by(|one, next| one.object == next.object);
        if chunks.count() > CHUNKS_MAX {
            let message = format!("a single request can process up to {CHUNKS_MAX} chunks");
            return Err(Wrong::new("INVALID_INPUT", message));
        }
        let ids = collection.rows.iter().map(CollectionRow::id);
        let repeated = if creates { Vec::new() } else { repeated(ids) };
        let before = collection.all_or_none.then(|| self.crm.clone());
        let mut results = Vec::with_capacity(collection.rows.len());
        for (index, row) in collection.rows.iter().enumerate() {
            let result = if repeated.contains(&index) {
                Err(Wrong::new("DUPLICATE_VALUE", "Duplicate id specified"))
            } else if creates {
                self.created(scene, index, row)
            } else {
                self.updated_row(scene, index, row)
            };
            results.push(result);
        }
        if let Some(before) = before {
            roll_back(&mut results, || self.crm = before);
        }
        Ok(reply(&results, Written::as_row))
    }

    pub(super) fn upsert_collection(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
        field: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        if field == "Id" || !self.crm.is_key(&object.name, field) {
            let message =
                format!("Provided external ID field does not exist or is not accessible: {field}");
            return Err(Wrong::absent("NOT_FOUND", message));
        }
        let collection = Collection::of(ask)?;
        if collection.rows.iter().any(|row| row.object != object.name) {
            let message = "all records must be of the type in the path";
            return Err(Wrong::new("INVALID_INPUT", message));
        }
        let keys = collection.rows.iter().map(|row| row.key(field));
        let repeated = repeated(keys);
        let before = collection.all_or_none.then(|| self.crm.clone());
        let mut results = Vec::with_capacity(collection.rows.len());
        for (index, row) in collection.rows.iter().enumerate() {
            // Every row that shares a key is turned down, the first one too.
            let result = if repeated.contains(&index) {
                let key = row.key(field).unwrap_or_default();
                let message = format!("Duplicate external id specified: {key}");
                Err(Wrong::new("DUPLICATE_VALUE", message).about(&[field]))
            } else {
                self.upserted(scene, index, &object, field, row)
            };
            results.push(result);
        }
        if let Some(before) = before {
            roll_back(&mut results, || self.crm = before);
        }
        Ok(reply(&results, Written::as_upsert_row))
    }

    /// Records by id, in the order asked for, null where there is none.
    pub(super) fn read_collection(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let (ids, fields) = if ask.method == Method::GET {
            let listed = |name| list(&ask.query_value(name).unwrap_or_default());
            (listed("ids"), listed("fields"))
        } else {
            let body = ask.json_object()?;
            let texts = |name: &str| -> Vec<String> {
                let items = body.get(name).and_then(Value::as_array);
                items.into_iter().flatten().filter_map(text_of).collect()
            };
            (texts("ids"), texts("fields"))
        };
        if ids.len() > READ_MAX {
            return Err(too_many(READ_MAX));
        }
        let mut shown = Vec::with_capacity(ids.len());
        for id in &ids {
            let serial = self.id_of(&object, id).map(super::SalesforceId::serial);
            let row = serial
                .ok()
                .and_then(|serial| Some((serial, self.crm.row(&object.name, serial)?)));
            shown.push(match row {
                None => Value::Null,
                Some((serial, row)) => Found {
                    object: &object,
                    serial,
                    row,
                    grave: None,
                }
                .shown(scene, ask, &fields)?,
            });
        }
        Ok(Reply::json(200, &Value::Array(shown)))
    }

    /// What a collection is about, whichever it is.
    pub(super) fn collection_subject(&self, ask: &Ask) -> Subject {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        if let ([_, _, object], true) = (parts.as_slice(), ask.method != Method::PATCH) {
            return Subject::of(object);
        }
        if ask.method == Method::DELETE {
            let keys = list(&ask.query_value("ids").unwrap_or_default());
            let keys = keys.iter().filter_map(|id| {
                let (object, _) = self.locate(id).ok()?;
                Some(self.key_of(&object, id))
            });
            return Subject::none().writing(keys.collect());
        }
        let Ok(collection) = Collection::of(ask) else {
            return Subject::none();
        };
        let records = collection.rows.len();
        let keys = collection.rows.iter().filter_map(|row| {
            let object = self.schema.object(&row.object)?;
            if let [_, _, _, field] = parts.as_slice() {
                return Some(self.key_by_field(&object, field, &row.key(field)?));
            }
            if let Some(id) = row.id() {
                return Some(self.key_of(&object, &id));
            }
            let external_id = self.crm.external_id_in(&object.name, &row.fields)?;
            Some(RecordKey::by_external_id(&object.name, &external_id))
        });
        let object = collection.rows.first().map(|row| row.object.clone());
        Subject {
            object,
            records,
            external_id: None,
            ..Subject::none().writing(keys.collect())
        }
    }

    fn created(&mut self, scene: &Scene<'_>, index: usize, row: &CollectionRow) -> RowResult {
        let object = self.object(&row.object)?;
        let external_id = self.crm.external_id_in(&object.name, &row.fields);
        let roll = scene.roll.of_record(index);
        self.row_fault(scene, roll, external_id.as_deref(), &row.fields)?;
        self.create_row(scene, &object, &row.fields)
    }

    fn updated_row(&mut self, scene: &Scene<'_>, index: usize, row: &CollectionRow) -> RowResult {
        let object = self.object(&row.object)?;
        let id = row
            .id()
            .ok_or_else(|| Wrong::new("MISSING_ARGUMENT", "Id not specified in an update call"))?;
        let serial = self.id_of(&object, &id)?.serial();
        let external_id = self.crm.external_id_of(&object.name, serial);
        let mut fields = row.fields.clone();
        fields.retain(|name, _| !name.eq_ignore_ascii_case("id"));
        let roll = scene.roll.of_record(index);
        self.row_fault(scene, roll, external_id, &fields)?;
        self.update_row(scene, &object, serial, &fields)
    }

    fn upserted(
        &mut self,
        scene: &Scene<'_>,
        index: usize,
        object: &Object,
        field: &str,
        row: &CollectionRow,
    ) -> RowResult {
        let key = row.key(field).ok_or_else(|| {
            let message = format!("{field} not specified");
            Wrong::new("MISSING_ARGUMENT", message).about(&[field])
        })?;
        let roll = scene.roll.of_record(index);
        self.row_fault(scene, roll, Some(&key), &row.fields)?;
        let written = self.upsert_row(scene, object, (field, &key), &row.fields, false);
        written.map_err(|refused| match refused {
            NotUpserted::Wrong(wrong) => wrong,
            NotUpserted::Ambiguous(found) => {
                let message = format!(
                    "{field}: more than one record found for external id field: {found}",
                    found = found
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join(", ")
                );
                Wrong::new("DUPLICATE_EXTERNAL_ID", message).about(&[field])
            }
        })
    }

    fn delete_collection(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let ids = list(&ask.query_value("ids").unwrap_or_default());
        if ids.len() > RECORDS_MAX {
            return Err(too_many(RECORDS_MAX));
        }
        let all_or_none = ask.query_value("allOrNone").as_deref() == Some("true");
        let before = all_or_none.then(|| self.crm.clone());
        let mut results = Vec::with_capacity(ids.len());
        for (index, id) in ids.iter().enumerate() {
            results.push(self.locate(id).and_then(|(object, serial)| {
                let external_id = self.crm.external_id_of(&object.name, serial);
                let roll = scene.roll.of_record(index);
                self.row_fault(scene, roll, external_id, &Map::new())?;
                self.delete_row(scene, &object, serial)
            }));
        }
        if let Some(before) = before {
            roll_back(&mut results, || self.crm = before);
        }
        Ok(reply(&results, Written::as_row))
    }
}

impl Collection {
    fn of(ask: &Ask) -> Result<Self, Wrong> {
        let mut body = ask.json_object()?;
        let all_or_none = body.get("allOrNone") == Some(&Value::Bool(true));
        let Some(Value::Array(records)) = body.remove("records") else {
            return Err(Wrong::new("JSON_PARSER_ERROR", "records are missing"));
        };
        if records.len() > RECORDS_MAX {
            return Err(too_many(RECORDS_MAX));
        }
        let rows = records.into_iter().map(CollectionRow::of);
        Ok(Self {
            all_or_none,
            rows: rows.collect::<Result<_, _>>()?,
        })
    }
}

impl CollectionRow {
    fn of(record: Value) -> Result<Self, Wrong> {
        let Value::Object(mut fields) = record else {
            return Err(Wrong::new("JSON_PARSER_ERROR", "a record was expected"));
        };
        // Anywhere among them: clients send an update's id before it. Within a parent it is first.
        let attributes = fields.shift_remove("attributes").unwrap_or_default();
        let Some(object) = attributes["type"].as_str().map(str::to_owned) else {
            let message = "a record must have attributes with its type";
            return Err(Wrong::new("JSON_PARSER_ERROR", message));
        };
        Ok(Self { object, fields })
    }

    fn key(&self, field: &str) -> Option<String> {
        text_of(self.fields.get(field)?)
    }

    fn id(&self) -> Option<String> {
        self.key("id").or_else(|| self.key("Id"))
    }
}

/// The places of keys that occur more than once; keys that differ in case alone are one.
fn repeated(keys: impl Iterator<Item = Option<String>>) -> Vec<usize> {
    let mut places: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (index, key) in keys.enumerate() {
        if let Some(key) = key {
            places.entry(fold(&key)).or_default().push(index);
        }
    }
    places
        .into_values()
        .filter(|places| places.len() > 1)
        .flatten()
        .collect()
}

/// With `allOrNone`, one row that failed takes the others back.
fn roll_back(results: &mut [RowResult], undo: impl FnOnce()) {
    if results.iter().all(Result::is_ok) {
        return;
    }
    undo();
    for result in results.iter_mut().filter(|result| result.is_ok()) {
        let message = "Record rolled back because not all records were valid and the request was \
                       using AllOrNone header";
        *result = Err(Wrong::new("ALL_OR_NONE_OPERATION_ROLLED_BACK", message));
    }
}

fn reply(results: &[RowResult], shown: impl Fn(Written) -> Value) -> Reply {
    let rows: Vec<Value> = results
        .iter()
        .map(|result| match result {
            Ok(written) => shown(*written),
            Err(wrong) => wrong.as_row(),
        })
        .collect();
    Reply::json(200, &json!(rows))
}

fn list(text: &str) -> Vec<String> {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

fn too_many(most: usize) -> Wrong {
    let message = format!("record limit reached: at most {most} records in one request");
    Wrong::new("LIMIT_EXCEEDED", message)
}
