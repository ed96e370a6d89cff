//! Calls about one record.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::wrong::Wrong;
use super::{Ask, Outreach, is_relationship};
use crate::crm::{Row, Taken};
use crate::exchange::Reply;
use crate::provider::{Mishap, Scene};
use crate::stamp;

/// Resources and the type of their records.
const RESOURCES: [(&str, &str); 6] = [
    ("prospects", "prospect"),
    ("accounts", "account"),
    ("opportunities", "opportunity"),
    ("users", "user"),
    ("tasks", "task"),
    ("stages", "stage"),
];

/// Attributes that the org writes itself.
const READ_ONLY: [&str; 3] = ["createdAt", "updatedAt", "id"];

/// The body of a write.
#[derive(Debug, Deserialize)]
pub(super) struct Document {
    data: Resource,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<Value>,
    #[serde(default)]
    attributes: Map<String, Value>,
    #[serde(default)]
    relationships: Map<String, Value>,
}

/// The type of a resource's records; `None` when there is no such resource.
pub(super) fn singular(resource: &str) -> Option<&'static str> {
    let known = RESOURCES.iter().find(|(plural, _)| *plural == resource);
    known.map(|(_, singular)| *singular)
}

impl Outreach {
    pub(super) fn create(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let document = ask.document()?;
        document.must_be(ask, None)?;
        let fields = checked(document.into_fields())?;
        self.row_fault(scene, ask, None, &fields)?;
        self.refuse_taken(ask, &fields, None)?;
        let serial = self.crm.create(scene.now, &ask.resource, fields.clone());
        self.tell(
            scene,
            &ask.resource,
            serial,
            "created",
            &fields,
            &Map::new(),
        );
        let shown = self.shown(scene, ask, serial)?;
        Ok(Reply::json(201, &json!({ "data": shown })))
    }

    pub(super) fn update(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        let document = ask.document()?;
        document.must_be(ask, Some(serial))?;
        let fields = checked(document.into_fields())?;
        self.row_fault(scene, ask, Some(serial), &fields)?;
        self.refuse_taken(ask, &fields, Some(serial))?;
        let before = self.fields_of(&ask.resource, serial);
        self.crm.update(
            scene.now,
            &ask.resource,
            serial,
            fields.clone(),
            Duration::ZERO,
        );
        self.tell(scene, &ask.resource, serial, "updated", &fields, &before);
        let shown = self.shown(scene, ask, serial)?;
        Ok(Reply::json(200, &json!({ "data": shown })))
    }

    pub(super) fn destroy(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        self.row_fault(scene, ask, Some(serial), &Map::new())?;
        let before = self.fields_of(&ask.resource, serial);
        self.crm.delete(scene.now, &ask.resource, serial);
        self.tell(
            scene,
            &ask.resource,
            serial,
            "destroyed",
            &Map::new(),
            &before,
        );
        Ok(Reply::empty(204))
    }

    pub(super) fn read(&self, scene: &Scene<'_>, ask: &Ask, id: &str) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        let shown = self.shown(scene, ask, serial)?;
        Ok(Reply::json(200, &json!({ "data": shown })))
    }

    pub(super) fn fields_of(&self, resource: &str, serial: u64) -> Map<String, Value> {
        let row = self.crm.row(resource, serial);
        row.map(|row| row.record.fields.clone()).unwrap_or_default()
    }

    fn serial(&self, ask: &Ask, id: &str) -> Result<u64, Wrong> {
        let found = self.crm.serial_of(&ask.resource, id);
        found.ok_or_else(Wrong::not_found)
    }

    fn row_fault(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        serial: Option<u64>,
        fields: &Map<String, Value>,
    ) -> Result<(), Wrong> {
        let key = self.crm.key_of_write(&ask.resource, serial, fields);
        match scene.mishap(scene.roll.of_record(0), key.as_deref(), fields) {
            None => Ok(()),
            Some(Mishap::Refused) => {
                let detail = "this record is not accepted";
                Err(Wrong::invalid("/data/attributes", detail))
            }
            Some(Mishap::Locked) => {
                let detail = "The resource is being changed";
                Err(Wrong::new(409, "resourceConflict", detail))
            }
        }
    }

    fn refuse_taken(
        &self,
        ask: &Ask,
        fields: &Map<String, Value>,
        except: Option<u64>,
    ) -> Result<(), Wrong> {
        let Some(Taken { field, .. }) = self.crm.taken(&ask.resource, fields, except) else {
            return Ok(());
        };
        let detail = match field.as_str() {
            "emails" => "Contacts email hash has already been taken.".to_owned(),
            field => format!("{field} has already been taken."),
        };
        Err(Wrong::invalid(format!("/data/attributes/{field}"), detail))
    }

    fn shown(&self, scene: &Scene<'_>, ask: &Ask, serial: u64) -> Result<Value, Wrong> {
        let row = self
            .crm
            .row(&ask.resource, serial)
            .ok_or_else(Wrong::not_found)?;
        Ok(self.document_of(scene, ask, serial, row))
    }

    /// A record as replies show it; `fields[TYPE]` narrows its attributes.
    pub(super) fn document_of(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        serial: u64,
        row: &Row,
    ) -> Value {
        let kind = singular(&ask.resource).unwrap_or_default();
        let wanted = ask.query_value(&format!("fields[{kind}]"));
        let is_wanted =
            |name: &str| wanted.is_none_or(|wanted| wanted.split(',').any(|wanted| wanted == name));
        let (mut attributes, mut relationships) = (Map::new(), Map::new());
        for (name, value) in row.record.fields.iter().filter(|(name, _)| is_wanted(name)) {
            if is_relationship(value) {
                relationships.insert(name.clone(), value.clone());
            } else {
                attributes.insert(name.clone(), value.clone());
            }
        }
        let times = [
            ("createdAt", row.record.created_at),
            ("updatedAt", row.modified_at),
        ];
        for (name, at) in times.into_iter().filter(|(name, _)| is_wanted(name)) {
            attributes.insert(name.into(), stamp::millis(scene.epoch + at).into());
        }
        json!({
            "type": kind,
            "id": serial,
            "attributes": attributes,
            "relationships": relationships,
            "links": { "self": format!("{}/api/v2/{}/{serial}", self.base_url, ask.resource) },
        })
    }
}

impl Ask {
    pub(super) fn document(&self) -> Result<Document, Wrong> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Wrong::new(400, "invalidRequestBody", error.to_string()))
    }
}

impl Document {
    /// Type and id stand in the body as well as in the path, the id as a number.
    fn must_be(&self, ask: &Ask, serial: Option<u64>) -> Result<(), Wrong> {
        let kind = singular(&ask.resource);
        if self.data.kind.as_deref() != kind {
            let detail = format!("type must be {}", kind.unwrap_or_default());
            return Err(Wrong::invalid("/data/type", detail));
        }
        if let Some(serial) = serial
            && self.data.id.as_ref().and_then(Value::as_u64) != Some(serial)
        {
            return Err(Wrong::invalid(
                "/data/id",
                "id must be the number in the path",
            ));
        }
        Ok(())
    }

    /// Attributes, and relationships beside them.
    pub(super) fn into_fields(self) -> Map<String, Value> {
        let mut fields = self.data.attributes;
        fields.extend(self.data.relationships);
        fields
    }
}

fn checked(fields: Map<String, Value>) -> Result<Map<String, Value>, Wrong> {
    for (name, value) in &fields {
        let camel = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_alphanumeric());
        if !camel || READ_ONLY.contains(&name.as_str()) {
            let pointer = format!("/data/attributes/{name}");
            return Err(Wrong::invalid(
                pointer,
                format!("{name} is not a writable attribute"),
            ));
        }
        if name == "emails" && !(value.is_array() || value.is_null()) {
            return Err(Wrong::invalid(
                "/data/attributes/emails",
                "emails must be a list",
            ));
        }
    }
    Ok(fields)
}
