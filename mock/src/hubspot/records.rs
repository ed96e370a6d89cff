//! Calls about one record, and what a portal makes of its properties.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::events::Source;
use super::kind::Kind;
use super::wrong::Wrong;
use super::{Ask, HubSpot, PORTAL};
use crate::crm::{Row, Taken, text_of};
use crate::exchange::Reply;
use crate::fault::Roll;
use crate::provider::{Change, Mishap, Scene};
use crate::stamp;

/// Records in a page of a list (CRM objects guide).
const LIST_MAX: usize = 100;
const LIST_DEFAULT: usize = 10;

/// Properties that the portal writes itself.
const READ_ONLY: [&str; 4] = [
    "hs_object_id",
    "createdate",
    "lastmodifieddate",
    "hs_lastmodifieddate",
];

impl HubSpot {
    pub(super) fn create(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let properties = ask.properties()?;
        let external_id = self.crm.external_id_in(&ask.kind.name, &properties);
        let roll = scene.roll.of_record(0);
        row_fault(scene, roll, external_id.as_deref(), &properties)?;
        let properties = self.checked(&ask.kind, &properties, None)?;
        let serial = self.created(scene, &ask.kind, properties);
        Ok(Reply::json(
            201,
            &self.live(scene, &ask.kind, serial, None)?,
        ))
    }

    pub(super) fn update(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let id_property = ask.query_value("idProperty");
        let serial = self.serial_of(&ask.kind, id_property.as_deref(), id)?;
        let properties = ask.properties()?;
        let external_id = self.crm.external_id_of(&ask.kind.name, serial);
        let roll = scene.roll.of_record(0);
        row_fault(scene, roll, external_id, &properties)?;
        let properties = self.checked(&ask.kind, &properties, Some(serial))?;
        self.updated(scene, &ask.kind, serial, properties);
        Ok(Reply::json(
            200,
            &self.live(scene, &ask.kind, serial, None)?,
        ))
    }

    /// A second archive answers as the first.
    pub(super) fn archive(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let number = id.parse().ok();
        let buried = number.and_then(|serial| self.crm.grave(&ask.kind.name, serial));
        if buried.is_some() {
            return Ok(Reply::empty(204));
        }
        let id_property = ask.query_value("idProperty");
        let serial = self.serial_of(&ask.kind, id_property.as_deref(), id)?;
        let external_id = self.crm.external_id_of(&ask.kind.name, serial);
        let roll = scene.roll.of_record(0);
        row_fault(scene, roll, external_id, &Map::new())?;
        self.archived(scene, &ask.kind, serial);
        Ok(Reply::empty(204))
    }

    pub(super) fn read(&self, scene: &Scene<'_>, ask: &Ask, id: &str) -> Result<Reply, Wrong> {
        let wanted = ask.wanted();
        if ask.query_value("archived").as_deref() == Some("true") {
            let serial = id.parse().ok();
            let grave = serial.and_then(|serial| {
                let grave = self.crm.grave(&ask.kind.name, serial)?;
                Some((serial, grave))
            });
            let (serial, grave) = grave.ok_or_else(Wrong::not_found)?;
            let shown = shown(scene, &ask.kind, serial, &grave.row, Some(&wanted));
            return Ok(Reply::json(
                200,
                &as_archived(scene, shown, grave.deleted_at),
            ));
        }
        let id_property = ask.query_value("idProperty");
        let serial = self.serial_of(&ask.kind, id_property.as_deref(), id)?;
        let shown = self.live(scene, &ask.kind, serial, Some(&wanted))?;
        Ok(Reply::json(200, &shown))
    }

    /// Records in the order of their ids, `after` the one before the page.
    pub(super) fn list(&self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let number = |name: &str| {
            let value = ask.query_value(name).filter(|value| !value.is_empty());
            value
                .map(|value| value.parse::<u64>())
                .transpose()
                .map_err(|_| Wrong::invalid(format!("{name} must be a number")))
        };
        let limit = number("limit")?.map_or(LIST_DEFAULT, |limit| limit as usize);
        if !(1..=LIST_MAX).contains(&limit) {
            let message = format!("limit must be between 1 and {LIST_MAX}");
            return Err(Wrong::invalid(message));
        }
        let after = number("after")?.unwrap_or(0);
        let wanted = ask.wanted();
        let wanted = Some(wanted.as_slice());
        let name = &ask.kind.name;
        let mut rows: Vec<(u64, Value)> = if ask.query_value("archived").as_deref() == Some("true")
        {
            let graves = self.crm.graves(name).filter(|(serial, _)| *serial > after);
            let shown = graves.map(|(serial, grave)| {
                let shown = shown(scene, &ask.kind, serial, &grave.row, wanted);
                (serial, as_archived(scene, shown, grave.deleted_at))
            });
            shown.take(limit + 1).collect()
        } else {
            let rows = self.crm.rows(name).filter(|(serial, _)| *serial > after);
            let shown =
                rows.map(|(serial, row)| (serial, shown(scene, &ask.kind, serial, row, wanted)));
            shown.take(limit + 1).collect()
        };
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().map(|(serial, _)| serial.to_string());
        let results: Vec<Value> = rows.into_iter().map(|(_, shown)| shown).collect();
        let mut page = json!({ "results": results });
        if let (true, Some(last)) = (more, last) {
            page["paging"] = json!({ "next": { "after": last } });
        }
        Ok(Reply::json(200, &page))
    }

    /// `primaryObjectId` stays, `objectIdToMerge` becomes part of it.
    pub(super) fn merge(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let body = ask.json()?;
        let serial = |name: &str| {
            let id = text_of(&body[name]).unwrap_or_default();
            self.serial_of(&ask.kind, None, &id)
        };
        let (winner, loser) = (serial("primaryObjectId")?, serial("objectIdToMerge")?);
        if !self.crm.merge(scene.now, &ask.kind.name, loser, winner) {
            return Err(Wrong::invalid("Cannot merge an object into itself"));
        }
        self.tell_merged(scene, &ask.kind, loser, winner, Source::App);
        Ok(Reply::json(
            200,
            &self.live(scene, &ask.kind, winner, None)?,
        ))
    }

    /// The record that an id, or the value of a unique property, leads to, over merges.
    pub(super) fn serial_of(
        &self,
        kind: &Kind,
        id_property: Option<&str>,
        id: &str,
    ) -> Result<u64, Wrong> {
        match id_property {
            None | Some("hs_object_id") => {
                let serial = id.parse().map_err(|_| Wrong::not_found())?;
                let survivor = self.crm.survivor(&kind.name, serial);
                survivor.ok_or_else(Wrong::not_found)
            }
            Some(property) => {
                self.must_be_unique(kind, property)?;
                let found = self.crm.find(&kind.name, property, id).next();
                found.ok_or_else(Wrong::not_found)
            }
        }
    }

    pub(super) fn must_be_unique(&self, kind: &Kind, property: &str) -> Result<(), Wrong> {
        if property == "hs_object_id" || self.crm.is_key(&kind.name, property) {
            return Ok(());
        }
        let message = format!("Property {property} does not exist or is not a unique property");
        Err(Wrong::invalid(message))
    }

    /// The properties as they will be kept: all texts, null where cleared.
    pub(super) fn checked(
        &self,
        kind: &Kind,
        properties: &Map<String, Value>,
        except: Option<u64>,
    ) -> Result<Map<String, Value>, Wrong> {
        let mut checked = Map::new();
        for (name, value) in properties {
            if name == "poison" {
                continue;
            }
            checked.insert(name.clone(), checked_value(name, value)?);
        }
        match self.crm.taken(&kind.name, &checked, except) {
            None => Ok(checked),
            Some(taken) => Err(is_taken(kind, &taken)),
        }
    }

    /// Makes a record of checked properties.
    pub(super) fn created(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        properties: Map<String, Value>,
    ) -> u64 {
        let serial = self.crm.create(scene.now, &kind.name, properties.clone());
        self.tell_created(scene, kind, serial, &properties, Source::App);
        serial
    }

    /// Writes checked properties to a record that is there.
    pub(super) fn updated(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        properties: Map<String, Value>,
    ) {
        let lag = scene.faults.stale;
        self.tell_changed(scene, kind, serial, &properties, Source::App);
        self.crm
            .update(scene.now, &kind.name, serial, properties, lag);
    }

    pub(super) fn archived(&mut self, scene: &Scene<'_>, kind: &Kind, serial: u64) {
        if self.crm.delete(scene.now, &kind.name, serial) {
            self.tell_deleted(scene, kind, serial, Source::App);
        }
    }

    /// A record that is there, as replies show it.
    pub(super) fn live(
        &self,
        scene: &Scene<'_>,
        kind: &Kind,
        serial: u64,
        wanted: Option<&[String]>,
    ) -> Result<Value, Wrong> {
        let row = self
            .crm
            .row(&kind.name, serial)
            .ok_or_else(Wrong::not_found)?;
        Ok(shown(scene, kind, serial, row, wanted))
    }
}

impl Ask {
    /// The properties that a read asks for; `None` for those that come by themselves.
    fn wanted(&self) -> Vec<String> {
        let pairs = crate::target::pairs(&self.query).unwrap_or_default();
        let named = pairs.into_iter().filter(|(name, _)| name == "properties");
        let names: Vec<String> = named
            .flat_map(|(_, list)| list.split(',').map(str::to_owned).collect::<Vec<_>>())
            .filter(|name| !name.is_empty())
            .collect();
        self.kind.shown_of(&names)
    }
}

/// Faults that strike one record of a write, whether or not it is alone.
pub(super) fn row_fault(
    scene: &Scene<'_>,
    roll: Roll,
    external_id: Option<&str>,
    properties: &Map<String, Value>,
) -> Result<(), Wrong> {
    match scene.mishap(roll, external_id, properties) {
        None => Ok(()),
        Some(Mishap::Refused) => Err(Wrong::invalid("this record is not accepted")),
        Some(Mishap::Locked) => {
            let message = "The resource is locked; locks last for 2 seconds";
            Err(Wrong::new(423, "LOCKED", message))
        }
    }
}

/// A change with every value a text, as the portal keeps them.
pub(super) fn as_texts(change: &Change) -> Change {
    let texts = |properties: &Map<String, Value>| {
        let text = |value| text_of(value).map_or(Value::Null, Value::from);
        let properties = properties.iter();
        properties
            .map(|(name, value)| (name.clone(), text(value)))
            .collect()
    };
    match change {
        Change::Create(properties) => Change::Create(texts(properties)),
        Change::Update(properties) => Change::Update(texts(properties)),
        other => other.clone(),
    }
}

/// A unique value that another record has: e-mail addresses of contacts have an answer of their
/// own.
pub(super) fn is_taken(kind: &Kind, taken: &Taken) -> Wrong {
    if kind.name == "contacts" && taken.field == "email" {
        let message = format!("Contact already exists. Existing ID: {}", taken.by);
        return Wrong::new(409, "CONFLICT", message);
    }
    let message = format!("{} already has that value.", taken.by);
    Wrong::property(&taken.field, "CONFLICTING_UNIQUE_VALUE", &message)
}

/// A record as replies show it; properties that were asked for and are not set are null.
pub(super) fn shown(
    scene: &Scene<'_>,
    kind: &Kind,
    serial: u64,
    row: &Row,
    wanted: Option<&[String]>,
) -> Value {
    let fields = &row.record.fields;
    shown_as(
        scene,
        kind,
        serial,
        fields,
        (row.record.created_at, row.modified_at),
        wanted,
    )
}

/// The same for properties and times as an index has them.
pub(super) fn shown_as(
    scene: &Scene<'_>,
    kind: &Kind,
    serial: u64,
    fields: &Map<String, Value>,
    (created_at, modified_at): (Duration, Duration),
    wanted: Option<&[String]>,
) -> Value {
    let created = stamp::millis(scene.epoch + created_at);
    let modified = stamp::millis(scene.epoch + modified_at);
    let mut properties = Map::new();
    properties.insert("createdate".into(), created.clone().into());
    properties.insert("hs_object_id".into(), serial.to_string().into());
    properties.insert(kind.modified_property().into(), modified.clone().into());
    match wanted {
        Some(wanted) => {
            for name in wanted {
                let value = fields.get(name).cloned().unwrap_or_default();
                properties.entry(name.clone()).or_insert(value);
            }
        }
        None => {
            for name in kind.default_properties() {
                properties.insert(
                    (*name).to_owned(),
                    fields.get(*name).cloned().unwrap_or_default(),
                );
            }
            for (name, value) in fields {
                properties.insert(name.clone(), value.clone());
            }
        }
    }
    let url = format!(
        "https://app.hubspot.com/contacts/{PORTAL}/record/{}/{serial}",
        kind.type_id
    );
    json!({
        "id": serial.to_string(),
        "properties": properties,
        "createdAt": created,
        "updatedAt": modified,
        "archived": false,
        "url": url,
    })
}

fn as_archived(scene: &Scene<'_>, mut shown: Value, at: Duration) -> Value {
    shown["archived"] = true.into();
    shown["archivedAt"] = stamp::millis(scene.epoch + at).into();
    shown
}

fn checked_value(name: &str, value: &Value) -> Result<Value, Wrong> {
    // Internal names are in lower case; what else is asked for cannot have been made.
    let internal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    if name.is_empty() || !name.bytes().all(internal) {
        let message = format!("Property \"{name}\" does not exist");
        return Err(Wrong::property(name, "PROPERTY_DOESNT_EXIST", &message));
    }
    if READ_ONLY.contains(&name) {
        let message = format!("\"{name}\" is a read only property; its value cannot be set.");
        return Err(Wrong::property(name, "READ_ONLY_VALUE", &message));
    }
    let text = match value {
        Value::Null => return Ok(Value::Null),
        Value::Array(_) | Value::Object(_) => {
            let message = format!("Invalid input JSON: {name} must be a text");
            return Err(Wrong::invalid(message));
        }
        // Every value is a text, and the empty one clears.
        value => text_of(value),
    };
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    if name == "email" && !text.contains('@') {
        let message = format!("Email address {text} is invalid");
        return Err(Wrong::property(name, "INVALID_EMAIL", &message));
    }
    Ok(text.into())
}
