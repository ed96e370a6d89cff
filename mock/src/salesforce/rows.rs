//! One record written: what the org checks, and what it makes of it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Salesforce;
use super::id::SalesforceId;
use super::schema::{self, Object};
use super::wrong::Wrong;
use crate::fault::{Fault, Roll};
use crate::provider::{Mishap, Scene};

/// A write that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) id: SalesforceId,
    pub(super) created: bool,
}

/// An upsert that was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotUpserted {
    Wrong(Wrong),
    /// The key names several records.
    Ambiguous(Vec<SalesforceId>),
}

impl From<Wrong> for NotUpserted {
    fn from(wrong: Wrong) -> Self {
        Self::Wrong(wrong)
    }
}

/// Characters of a text field unless it is a long one (most standard and custom text fields).
const TEXT_CHARS_MAX: usize = 255;
/// Fields that take long texts.
const LONG_TEXTS: [&str; 2] = ["Description", "NextStep"];

impl Salesforce {
    pub(super) fn create_row(
        &mut self,
        scene: &Scene<'_>,
        object: &Object,
        fields: &Map<String, Value>,
    ) -> Result<Written, Wrong> {
        let fields = self.checked(object, fields, true)?;
        self.refuse_taken(object, &fields, None)?;
        self.schema.settle(object);
        let serial = self.crm.create(scene.now, &object.name, fields);
        Ok(Written {
            id: object.id(serial),
            created: true,
        })
    }

    pub(super) fn update_row(
        &mut self,
        scene: &Scene<'_>,
        object: &Object,
        serial: u64,
        fields: &Map<String, Value>,
    ) -> Result<Written, Wrong> {
        self.must_live(object, serial)?;
        let fields = self.checked(object, fields, false)?;
        self.refuse_taken(object, &fields, Some(serial))?;
        self.crm
            .update(scene.now, &object.name, serial, fields, Duration::ZERO);
        Ok(Written {
            id: object.id(serial),
            created: false,
        })
    }

    /// Updates the one record that the key names, or creates it unless `update_only`.
    pub(super) fn upsert_row(
        &mut self,
        scene: &Scene<'_>,
        object: &Object,
        (field, value): (&str, &str),
        fields: &Map<String, Value>,
        update_only: bool,
    ) -> Result<Written, NotUpserted> {
        let found = self.find_by_key(object, field, value)?;
        match found.as_slice() {
            [] if update_only => Err(Wrong::not_found().into()),
            [] => {
                let mut fields = fields.clone();
                fields.insert(field.to_owned(), value.into());
                Ok(self.create_row(scene, object, &fields)?)
            }
            [id] => Ok(self.update_row(scene, object, id.serial(), fields)?),
            _ => Err(NotUpserted::Ambiguous(found)),
        }
    }

    pub(super) fn delete_row(
        &mut self,
        scene: &Scene<'_>,
        object: &Object,
        serial: u64,
    ) -> Result<Written, Wrong> {
        self.must_live(object, serial)?;
        self.crm.delete(scene.now, &object.name, serial);
        Ok(Written {
            id: object.id(serial),
            created: false,
        })
    }

    /// Records that a key names, oldest first.
    pub(super) fn find_by_key(
        &self,
        object: &Object,
        field: &str,
        value: &str,
    ) -> Result<Vec<SalesforceId>, Wrong> {
        if field == "Id" {
            let id = self.id_of(object, value)?;
            self.must_live(object, id.serial())?;
            return Ok(vec![id]);
        }
        if !self.crm.is_key(&object.name, field) {
            let message =
                format!("Provided external ID field does not exist or is not accessible: {field}");
            return Err(Wrong::absent("NOT_FOUND", message));
        }
        let found = self.crm.find(&object.name, field, value);
        Ok(found.map(|serial| object.id(serial)).collect())
    }

    /// Reads an id of this object.
    pub(super) fn id_of(&self, object: &Object, text: &str) -> Result<SalesforceId, Wrong> {
        let id = SalesforceId::parse(text).filter(|id| id.prefix() == object.prefix);
        id.ok_or_else(|| {
            let message = format!("{} ID: id value of incorrect type: {text}", object.name);
            match text.len() {
                15 | 18 => Wrong::not_found(),
                _ => Wrong::new("MALFORMED_ID", message).about(&["Id"]),
            }
        })
    }

    /// The object and number of an id of any object.
    pub(super) fn locate(&self, text: &str) -> Result<(Object, u64), Wrong> {
        let id = SalesforceId::parse(text)
            .ok_or_else(|| Wrong::new("MALFORMED_ID", format!("malformed id {text}")))?;
        let object = self.schema.object_of(id).ok_or_else(Wrong::not_found)?;
        Ok((object, id.serial()))
    }

    pub(super) fn must_live(&self, object: &Object, serial: u64) -> Result<(), Wrong> {
        if self.crm.row(&object.name, serial).is_some() {
            return Ok(());
        }
        match self.crm.grave(&object.name, serial) {
            Some(_) => Err(Wrong::deleted()),
            None => Err(Wrong::not_found()),
        }
    }

    /// Faults that strike one row of a write.
    pub(super) fn row_fault(
        &self,
        scene: &Scene<'_>,
        roll: Roll,
        external_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Result<(), Wrong> {
        let strikes = |fault| scene.faults.strikes(fault, roll);
        let (code, message) = match scene.mishap(roll, external_id, fields) {
            Some(Mishap::Locked) => (
                "UNABLE_TO_LOCK_ROW",
                "unable to obtain exclusive access to this record",
            ),
            None if strikes(Fault::ItemFailed) => {
                ("UNKNOWN_EXCEPTION", "An unexpected error occurred")
            }
            None if !strikes(Fault::ItemRefused) => return Ok(()),
            None | Some(Mishap::Refused) => (
                "FIELD_CUSTOM_VALIDATION_EXCEPTION",
                "this record is not accepted",
            ),
        };
        Err(Wrong::new(code, message))
    }

    /// The fields as they will be kept: texts checked, parents found.
    fn checked(
        &self,
        object: &Object,
        fields: &Map<String, Value>,
        creating: bool,
    ) -> Result<Map<String, Value>, Wrong> {
        let mut checked = Map::new();
        for (name, value) in fields {
            if name == "attributes" || name == "poison" {
                continue;
            }
            if let Value::Object(parent) = value {
                let (field, id) = self.parent(name, parent)?;
                checked.insert(field, id);
                continue;
            }
            if !object.has(name) {
                let message = format!("No such column '{name}' on sobject of type {}", object.name);
                return Err(Wrong::new("INVALID_FIELD", message));
            }
            if !object.is_writable(name) {
                let message = format!(
                    "Unable to create/update fields: {name}. Please check the security settings \
                     of this field and verify that it is read/write for your profile or \
                     permission set."
                );
                let wrong = Wrong::new("INVALID_FIELD_FOR_INSERT_UPDATE", message);
                return Err(wrong.about(&[name]));
            }
            checked.insert(name.clone(), self.checked_value(name, value)?);
        }
        let lacks = |field: &&&str| match checked.get(**field) {
            Some(value) => value.is_null(),
            None => creating,
        };
        let missing: Vec<&str> = object.required.iter().filter(lacks).copied().collect();
        if !missing.is_empty() {
            let message = format!("Required fields are missing: [{}]", missing.join(", "));
            return Err(Wrong::new("REQUIRED_FIELD_MISSING", message).about(&missing));
        }
        Ok(checked)
    }

    fn checked_value(&self, name: &str, value: &Value) -> Result<Value, Wrong> {
        let text = match value {
            Value::Array(_) => {
                let message = format!("Cannot deserialize a list for field {name}");
                return Err(Wrong::new("JSON_PARSER_ERROR", message).about(&[name]));
            }
            // An empty text is no value.
            Value::String(text) if text.is_empty() => return Ok(Value::Null),
            Value::String(text) => text,
            other => return Ok(other.clone()),
        };
        if name == "Email" && !text.contains('@') {
            let message = format!("{name}: invalid email address: {text}");
            return Err(Wrong::new("INVALID_EMAIL_ADDRESS", message).about(&[name]));
        }
        if text.chars().count() > TEXT_CHARS_MAX && !LONG_TEXTS.contains(&name) {
            let message =
                format!("{name}: data value too large: {text} (max length={TEXT_CHARS_MAX})");
            return Err(Wrong::new("STRING_TOO_LONG", message).about(&[name]));
        }
        if name == "AccountId" || name == "ParentId" || name == "ContactId" {
            return self.reference_by_id(name, text);
        }
        Ok(value.clone())
    }

    fn reference_by_id(&self, name: &str, text: &str) -> Result<Value, Wrong> {
        let Some(id) = SalesforceId::parse(text) else {
            let message = format!("{name}: id value of incorrect type: {text}");
            return Err(Wrong::new("MALFORMED_ID", message).about(&[name]));
        };
        let object = self.schema.object_of(id);
        let parent = object.as_ref().map(|object| object.name.as_str());
        let lives = parent.is_some_and(|parent| self.crm.row(parent, id.serial()).is_some());
        if lives {
            return Ok(id.to_string().into());
        }
        let buried = parent.is_some_and(|parent| self.crm.grave(parent, id.serial()).is_some());
        let wrong = if buried {
            Wrong::new("ENTITY_IS_DELETED", "entity is deleted")
        } else {
            Wrong::new("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
        };
        Err(wrong.about(&[name]))
    }

    /// A parent named by its own key: `"Account": {"External_Id__c": "a-1"}`. Gives the field that
    /// refers to it and the parent's id.
    fn parent(
        &self,
        relationship: &str,
        parent: &Map<String, Value>,
    ) -> Result<(String, Value), Wrong> {
        let type_first = parent
            .keys()
            .next()
            .is_some_and(|first| first == "attributes");
        if parent.contains_key("attributes") && !type_first {
            let message = "Nested object for polymorphic foreign key must have an attributes \
                           field before any other fields.";
            return Err(Wrong::new("JSON_PARSER_ERROR", message));
        }
        let (field, name) = schema::reference(relationship);
        let typed = parent
            .get("attributes")
            .and_then(|own| own["type"].as_str());
        let object = self.schema.object(typed.unwrap_or(&name)).ok_or_else(|| {
            let message = format!("No such relation '{relationship}'");
            Wrong::new("INVALID_FIELD", message)
        })?;
        let key = parent.iter().find(|(name, _)| *name != "attributes");
        let (key, value) = key.ok_or_else(|| {
            Wrong::new("INVALID_FIELD", format!("{relationship} names no parent"))
        })?;
        let value = crate::crm::text_of(value).unwrap_or_default();
        match self.find_by_key(&object, key, &value)?.as_slice() {
            [id] => Ok((field, id.to_string().into())),
            [] => {
                let message = format!(
                    "Foreign key external ID: {value} not found for field {key} in entity {}",
                    object.name
                );
                Err(Wrong::new("INVALID_FIELD", message))
            }
            _ => {
                let message = format!("Foreign key external ID {value} matches several records");
                Err(Wrong::new("INVALID_FIELD", message))
            }
        }
    }

    fn refuse_taken(
        &self,
        object: &Object,
        fields: &Map<String, Value>,
        except: Option<u64>,
    ) -> Result<(), Wrong> {
        let Some(taken) = self.crm.taken(&object.name, fields, except) else {
            return Ok(());
        };
        let message = format!(
            "duplicate value found: {} duplicates value on record with id: {}",
            taken.field,
            object.id(taken.by).short()
        );
        Err(Wrong::new("DUPLICATE_VALUE", message).about(&[&taken.field]))
    }
}

impl Written {
    /// A row among the results of a collection.
    pub(super) fn as_row(self) -> Value {
        json!({ "id": self.id.to_string(), "success": true, "errors": [] })
    }

    /// The same with whether it was created, as upserts tell it.
    pub(super) fn as_upsert_row(self) -> Value {
        let mut row = self.as_row();
        row["created"] = self.created.into();
        row
    }
}
