//! Calls about one record, and what they are about.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use super::id::SalesforceId;
use super::rows::NotUpserted;
use super::schema::{Object, SYSTEM};
use super::wrong::Wrong;
use super::{Ask, Salesforce};
use crate::crm::{Grave, Row, text_of};
use crate::exchange::Reply;
use crate::open_writes::RecordKey;
use crate::provider::{Scene, Subject};
use crate::stamp;

/// A record that a call found.
pub(super) struct Found<'a> {
    pub(super) object: &'a Object,
    pub(super) serial: u64,
    pub(super) row: &'a Row,
    /// Of one that was deleted.
    pub(super) grave: Option<&'a Grave>,
}

/// The first version that answers an upsert of a known record with 200 and a body.
const UPSERT_TELLS_FROM: u32 = 46;

impl Salesforce {
    pub(super) fn create(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let fields = ask.json_object()?;
        let external_id = self.crm.external_id_in(&object.name, &fields);
        let roll = scene.roll.of_record(0);
        self.row_fault(scene, roll, external_id.as_deref(), &fields)?;
        let written = self.create_row(scene, &object, &fields)?;
        let location = ask.url(&format!("sobjects/{}/{}", object.name, written.id));
        Ok(Reply::json(201, &written.as_row()).with_header("location", location))
    }

    pub(super) fn by_id(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let serial = self.id_of(&object, id)?.serial();
        match ask.method {
            Method::GET => self.read(scene, ask, &object, serial),
            Method::PATCH => {
                let fields = ask.json_object()?;
                self.precondition(scene, ask, &object, serial)?;
                let external_id = self.crm.external_id_of(&object.name, serial);
                let roll = scene.roll.of_record(0);
                self.row_fault(scene, roll, external_id, &fields)?;
                self.update_row(scene, &object, serial, &fields)?;
                Ok(Reply::empty(204))
            }
            Method::DELETE => {
                let external_id = self.crm.external_id_of(&object.name, serial);
                let roll = scene.roll.of_record(0);
                self.row_fault(scene, roll, external_id, &Map::new())?;
                self.delete_row(scene, &object, serial)?;
                Ok(Reply::empty(204))
            }
            _ => Err(method_not_allowed()),
        }
    }

    pub(super) fn by_key(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &str,
        field: &str,
        value: &str,
    ) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        if ask.method == Method::PATCH {
            return self.upsert(scene, ask, &object, field, value);
        }
        let found = self.find_by_key(&object, field, value)?;
        let serial = match found.as_slice() {
            [] => return Err(Wrong::not_found()),
            [id] => id.serial(),
            _ => return Ok(several(ask, &object, &found)),
        };
        match ask.method {
            Method::GET => self.read(scene, ask, &object, serial),
            Method::DELETE => {
                self.delete_row(scene, &object, serial)?;
                Ok(Reply::empty(204))
            }
            _ => Err(method_not_allowed()),
        }
    }

    fn upsert(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &Object,
        field: &str,
        value: &str,
    ) -> Result<Reply, Wrong> {
        let fields = ask.json_object()?;
        if fields.contains_key(field) {
            let message = format!("The {field} field should not be specified in the sobject data.");
            return Err(Wrong::new("INVALID_FIELD", message).about(&[field]));
        }
        let roll = scene.roll.of_record(0);
        self.row_fault(scene, roll, Some(value), &fields)?;
        let update_only = ask.query_value("updateOnly").as_deref() == Some("true");
        match self.upsert_row(scene, object, (field, value), &fields, update_only) {
            Ok(written) if written.created => Ok(Reply::json(201, &written.as_upsert_row())),
            Ok(_) if ask.version_number() < UPSERT_TELLS_FROM => Ok(Reply::empty(204)),
            Ok(written) => Ok(Reply::json(200, &written.as_upsert_row())),
            Err(NotUpserted::Ambiguous(found)) => Ok(several(ask, object, &found)),
            Err(NotUpserted::Wrong(wrong)) => Err(wrong),
        }
    }

    fn read(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &Object,
        serial: u64,
    ) -> Result<Reply, Wrong> {
        self.must_live(object, serial)?;
        let row = self
            .crm
            .row(&object.name, serial)
            .ok_or_else(Wrong::not_found)?;
        let since = ask.header("if-modified-since").and_then(stamp::parse);
        if since.is_some_and(|since| scene.epoch + row.modified_at <= since) {
            return Ok(Reply::empty(304));
        }
        let fields = match ask.query_value("fields") {
            Some(fields) => fields
                .split(',')
                .map(|field| field.trim().to_owned())
                .collect(),
            None => all_fields(row),
        };
        let found = Found {
            object,
            serial,
            row,
            grave: None,
        };
        let shown = found.shown(scene, ask, &fields)?;
        Ok(Reply::json(200, &shown))
    }

    /// `If-Unmodified-Since`: a record that changed later is not written.
    fn precondition(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        object: &Object,
        serial: u64,
    ) -> Result<(), Wrong> {
        let until = ask.header("if-unmodified-since").and_then(stamp::parse);
        let row = self.crm.row(&object.name, serial);
        let (Some(until), Some(row)) = (until, row) else {
            return Ok(());
        };
        if (scene.epoch + row.modified_at).as_secs() > until.as_secs() {
            let message = "The entity was modified since the time given";
            return Err(Wrong::of_status(412, "PRECONDITION_FAILED", message));
        }
        Ok(())
    }

    pub(super) fn object(&self, name: &str) -> Result<Object, Wrong> {
        self.schema.object(name).ok_or_else(Wrong::not_found)
    }

    pub(super) fn describe_all(&self, ask: &Ask) -> Reply {
        let mut names: Vec<&str> = self.crm.records().map(|(object, ..)| object).collect();
        names.dedup();
        let objects: Vec<Value> = names
            .into_iter()
            .filter_map(|name| Some(describe(ask, &self.schema.object(name)?)))
            .collect();
        let page = json!({ "encoding": "UTF-8", "maxBatchSize": 200, "sobjects": objects });
        Reply::json(200, &page)
    }

    pub(super) fn describe(&self, ask: &Ask, object: &str) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let page = json!({ "objectDescribe": describe(ask, &object), "recentItems": [] });
        Ok(Reply::json(200, &page))
    }

    /// With the fields that it is known to have: standard ones, keys, and what its records hold.
    pub(super) fn describe_fields(&self, ask: &Ask, object: &str) -> Result<Reply, Wrong> {
        let object = self.object(object)?;
        let rows = self.crm.rows(&object.name);
        let custom = rows.flat_map(|(_, row)| row.record.fields.keys());
        let keys = self.crm.key_names(&object.name);
        let mut named: BTreeSet<&str> = object.standard_fields().collect();
        named.extend(keys);
        named.extend(custom.map(String::as_str));
        let fields = named.into_iter().map(|field| {
            let is_key = self.crm.is_key(&object.name, field);
            describe_field(&object, field, is_key)
        });
        let mut page = describe(ask, &object);
        page["fields"] = fields.collect();
        Ok(Reply::json(200, &page))
    }

    /// What a call is about, for the journal and the overlaps.
    pub(super) fn subject_of(&self, ask: &Ask) -> Subject {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        let writes = ask.method != Method::GET;
        match parts.as_slice() {
            ["sobjects", object] if writes => {
                let Some(object) = self.schema.object(object) else {
                    return Subject::none();
                };
                let fields = ask.json_object().unwrap_or_default();
                let external_id = self.crm.external_id_in(&object.name, &fields);
                let key = external_id.map(|id| RecordKey::by_external_id(&object.name, &id));
                Subject {
                    records: 1,
                    ..Subject::of(&object.name).writing(key.into_iter().collect())
                }
            }
            ["sobjects", object, "updated" | "deleted"] => Subject {
                records: 0,
                ..Subject::of(object)
            },
            ["sobjects", object, id] => {
                let Some(object) = self.schema.object(object) else {
                    return Subject::none();
                };
                let key = self.key_of(&object, id);
                let subject = Subject {
                    external_id: key.external_id().map(str::to_owned),
                    ..Subject::of(&object.name)
                };
                if writes {
                    subject.writing(vec![key])
                } else {
                    subject
                }
            }
            ["sobjects", object, field, value] => {
                let Some(object) = self.schema.object(object) else {
                    return Subject::none();
                };
                let key = self.key_by_field(&object, field, value);
                let subject = Subject {
                    external_id: key.external_id().map(str::to_owned),
                    ..Subject::of(&object.name)
                };
                if writes {
                    subject.writing(vec![key])
                } else {
                    subject
                }
            }
            ["composite", ..] => self.composite_subject(ask),
            _ => Subject::none(),
        }
    }

    /// How a record named by its id is known.
    pub(super) fn key_of(&self, object: &Object, id: &str) -> RecordKey {
        let serial = SalesforceId::parse(id).map(SalesforceId::serial);
        self.crm.record_key(&object.name, serial, id)
    }

    /// How a record named by a key field is known.
    pub(super) fn key_by_field(&self, object: &Object, field: &str, value: &str) -> RecordKey {
        let mut named = Map::new();
        named.insert(field.to_owned(), value.into());
        if self.crm.external_id_in(&object.name, &named).is_some() {
            return RecordKey::by_external_id(&object.name, value);
        }
        match self.find_by_key(object, field, value).as_deref() {
            Ok([id]) => self.key_of(object, &id.to_string()),
            _ => RecordKey::by_external_id(&object.name, value),
        }
    }
}

impl Found<'_> {
    /// The record as queries and reads return it.
    pub(super) fn shown(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        fields: &[String],
    ) -> Result<Value, Wrong> {
        let id = self.object.id(self.serial);
        let url = ask.url(&format!("sobjects/{}/{id}", self.object.name));
        let mut shown = Map::new();
        let attributes = json!({ "type": self.object.name, "url": url });
        shown.insert("attributes".into(), attributes);
        for field in fields {
            shown.insert(field.clone(), self.value(scene, field)?);
        }
        Ok(Value::Object(shown))
    }

    /// The value of a field; null when the record has none.
    pub(super) fn value(&self, scene: &Scene<'_>, field: &str) -> Result<Value, Wrong> {
        let at = |at| stamp::whole_seconds_offset(scene.epoch + at).into();
        let fields = &self.row.record.fields;
        let value = match field {
            "Id" => self.object.id(self.serial).to_string().into(),
            "IsDeleted" => self.grave.is_some().into(),
            "MasterRecordId" if self.object.can_merge() => {
                let into = self.grave.and_then(|grave| grave.merged_into);
                into.map_or(Value::Null, |into| self.object.id(into).to_string().into())
            }
            "CreatedDate" => at(self.row.record.created_at),
            // A delete moves them too.
            "LastModifiedDate" | "SystemModstamp" => at(self
                .grave
                .map_or(self.row.modified_at, |grave| grave.deleted_at)),
            "Name" if !fields.contains_key("Name") => {
                let part = |name| fields.get(name).and_then(text_of);
                let parts = ["FirstName", "LastName"].into_iter().filter_map(part);
                let parts: Vec<String> = parts.collect();
                if parts.is_empty() {
                    Value::Null
                } else {
                    parts.join(" ").into()
                }
            }
            field if self.object.has(field) => fields.get(field).cloned().unwrap_or_default(),
            field => {
                let object = &self.object.name;
                let message = format!("No such column '{field}' on sobject of type {object}");
                return Err(Wrong::new("INVALID_FIELD", message));
            }
        };
        Ok(value)
    }
}

pub(super) fn method_not_allowed() -> Wrong {
    let message = "HTTP Method not allowed for this resource";
    Wrong::of_status(405, "METHOD_NOT_ALLOWED", message)
}

fn all_fields(row: &Row) -> Vec<String> {
    let system = SYSTEM.iter().map(|field| (*field).to_owned());
    system.chain(row.record.fields.keys().cloned()).collect()
}

/// 300: the key names several records.
fn several(ask: &Ask, object: &Object, found: &[SalesforceId]) -> Reply {
    let urls: Vec<String> = found
        .iter()
        .map(|id| ask.url(&format!("sobjects/{}/{id}", object.name)))
        .collect();
    Reply::json(300, &json!(urls))
}

/// Types are told by the name alone, as the org keeps values as they come.
fn describe_field(object: &Object, field: &str, is_key: bool) -> Value {
    let kind = match field {
        "Id" => "id",
        "IsDeleted" => "boolean",
        "CreatedDate" | "LastModifiedDate" | "SystemModstamp" => "datetime",
        "Email" => "email",
        _ if field.ends_with("Id") => "reference",
        _ => "string",
    };
    json!({
        "name": field,
        "label": field,
        "type": kind,
        "custom": field.ends_with("__c"),
        "nillable": !object.required.contains(&field) && !SYSTEM.contains(&field),
        "createable": object.is_writable(field),
        "updateable": object.is_writable(field),
        "externalId": is_key && field.ends_with("__c"),
        "idLookup": is_key || field == "Id",
    })
}

fn describe(ask: &Ask, object: &Object) -> Value {
    let prefix = String::from_utf8_lossy(&object.prefix).into_owned();
    json!({
        "name": object.name,
        "label": object.name,
        "custom": object.name.ends_with("__c"),
        "keyPrefix": prefix,
        "createable": true,
        "updateable": true,
        "deletable": true,
        "queryable": true,
        "replicateable": true,
        "urls": {
            "sobject": ask.url(&format!("sobjects/{}", object.name)),
            "rowTemplate": ask.url(&format!("sobjects/{}/{{ID}}", object.name)),
        },
    })
}
