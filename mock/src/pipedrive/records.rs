//! Calls about records: single ones, lists behind a cursor, searches, merges.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Ask, Pipedrive, Wrong, listed, success};
use crate::crm::{Row, fold, text_of};
use crate::exchange::Reply;
use crate::provider::{Mishap, Scene};
use crate::stamp;

/// Records in a page of a list, and of a search (API reference of v2, read 2026-11).
const LIST_MAX: usize = 500;
const LIST_DEFAULT: usize = 100;

/// Characters a search term has at least, unless it is to match exactly.
const TERM_MIN: usize = 2;

impl Pipedrive {
    pub(super) fn create(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let fields = ask.checked()?;
        let naming: &[&str] = match ask.entity.as_str() {
            "activities" => &[],
            "deals" => &["title"],
            "persons" => &["name", "first_name", "last_name"],
            _ => &["name"],
        };
        let mut names = naming.iter().filter_map(|name| text_of(fields.get(*name)?));
        if !naming.is_empty() && names.next().is_none() {
            return Err(Wrong::invalid(format!("{}: is required", naming[0])));
        }
        self.row_fault(scene, ask, None, &fields)?;
        let serial = self.crm.create(scene.now, &ask.entity, fields);
        Ok(success(&self.shown(scene, ask, serial)?))
    }

    pub(super) fn update(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        let mut fields = ask.checked()?;
        self.row_fault(scene, ask, Some(serial), &fields)?;
        // Custom fields that are not named stay.
        if let Some(Value::Object(changes)) = fields.get_mut("custom_fields") {
            let row = self.crm.row(&ask.entity, serial);
            let known = row.and_then(|row| row.record.fields.get("custom_fields")?.as_object());
            let mut merged = known.cloned().unwrap_or_default();
            merged.append(changes);
            merged.retain(|_, value| !value.is_null());
            *changes = merged;
        }
        self.crm
            .update(scene.now, &ask.entity, serial, fields, scene.faults.stale);
        Ok(success(&self.shown(scene, ask, serial)?))
    }

    pub(super) fn delete(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        id: &str,
    ) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        self.row_fault(scene, ask, Some(serial), &Map::new())?;
        self.crm.delete(scene.now, &ask.entity, serial);
        Ok(success(&json!({ "id": serial })))
    }

    pub(super) fn read(&self, scene: &Scene<'_>, ask: &Ask, id: &str) -> Result<Reply, Wrong> {
        let serial = self.serial(ask, id)?;
        Ok(success(&self.shown(scene, ask, serial)?))
    }

    /// The record in the path becomes part of `merge_with_id`.
    pub(super) fn merge(&mut self, scene: &Scene<'_>, ask: &Ask, id: &str) -> Result<Reply, Wrong> {
        let loser = self.serial(ask, id)?;
        let winner = ask.fields()?.get("merge_with_id").and_then(Value::as_u64);
        let merged = winner.filter(|winner| self.crm.merge(scene.now, &ask.entity, loser, *winner));
        let winner =
            merged.ok_or_else(|| Wrong::invalid("merge_with_id: names no other record"))?;
        Ok(success(&self.shown(scene, ask, winner)?))
    }

    /// By id or by time of the last change, in pages behind a cursor.
    pub(super) fn list(&self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let limit = ask.limit()?;
        let since = ask.query_value("updated_since").map(|text| {
            stamp::parse(text).ok_or_else(|| Wrong::invalid("updated_since: is no date-time"))
        });
        let since = since.transpose()?;
        let ids = listed(ask.query_value("ids"));
        let by_update = ask.query_value("sort_by") == Some("update_time");
        let after = ask.query_value("cursor").map(place_of).transpose()?;
        let mut found: Vec<(Duration, u64, &Row)> = self
            .crm
            .rows(&ask.entity)
            .filter(|(serial, row)| {
                let named = ids
                    .as_ref()
                    .is_none_or(|ids| ids.contains(&serial.to_string().as_str()));
                let fresh = since.is_none_or(|since| {
                    (scene.epoch + row.modified_at).as_secs() >= since.as_secs()
                });
                named && fresh
            })
            .map(|(serial, row)| {
                let at = if by_update {
                    row.modified_at
                } else {
                    Duration::ZERO
                };
                (at, serial, row)
            })
            .filter(|(at, serial, _)| after.is_none_or(|after| (*at, *serial) > after))
            .collect();
        found.sort_by_key(|(at, serial, _)| (*at, *serial));
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(at, serial, _)| cursor(*at, *serial));
        let data: Vec<Value> = found
            .iter()
            .map(|(_, serial, row)| shown(scene, *serial, row))
            .collect();
        let page = json!({
            "success": true,
            "data": data,
            "additional_data": { "next_cursor": next },
        });
        Ok(Reply::json(200, &page))
    }

    /// Finds a term in names, e-mail addresses and custom fields, behind an index that lags.
    pub(super) fn search(&self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let term = fold(ask.query_value("term").unwrap_or_default());
        let exact = ask
            .query_value("exact_match")
            .is_some_and(|text| text == "true" || text == "1");
        if term.is_empty() || !exact && term.chars().count() < TERM_MIN {
            return Err(Wrong::invalid("term: is too short"));
        }
        let limit = ask.limit()?;
        let fields = listed(ask.query_value("fields"));
        let wanted = |group: &str| fields.as_ref().is_none_or(|fields| fields.contains(&group));
        let is_hit = |text: &String| {
            let text = fold(text);
            if exact {
                text == term
            } else {
                text.contains(&term)
            }
        };
        let rows = self.crm.rows(&ask.entity).filter_map(|(serial, row)| {
            let (indexed, _) = row.indexed(scene.now, scene.faults.stale)?;
            let mut texts = Vec::new();
            for (group, name) in [
                ("name", "name"),
                ("title", "title"),
                ("email", "emails"),
                ("phone", "phones"),
            ] {
                if wanted(group) {
                    collect_texts(indexed.get(name).unwrap_or(&Value::Null), &mut texts);
                }
            }
            if wanted("custom_fields") {
                collect_texts(
                    indexed.get("custom_fields").unwrap_or(&Value::Null),
                    &mut texts,
                );
            }
            texts
                .iter()
                .any(is_hit)
                .then(|| json!({ "result_score": 1.0, "item": shown(scene, serial, row) }))
        });
        let items: Vec<Value> = rows.take(limit).collect();
        let page = json!({
            "success": true,
            "data": { "items": items },
            "additional_data": { "next_cursor": null },
        });
        Ok(Reply::json(200, &page))
    }

    fn serial(&self, ask: &Ask, id: &str) -> Result<u64, Wrong> {
        let found = self.crm.serial_of(&ask.entity, id);
        found.ok_or_else(|| Wrong::not_found("Entity"))
    }

    fn shown(&self, scene: &Scene<'_>, ask: &Ask, serial: u64) -> Result<Value, Wrong> {
        let row = self.crm.row(&ask.entity, serial);
        let row = row.ok_or_else(|| Wrong::not_found("Entity"))?;
        Ok(shown(scene, serial, row))
    }

    fn row_fault(
        &self,
        scene: &Scene<'_>,
        ask: &Ask,
        serial: Option<u64>,
        fields: &Map<String, Value>,
    ) -> Result<(), Wrong> {
        let key = self.crm.key_of_write(&ask.entity, serial, fields);
        match scene.mishap(scene.roll.of_record(0), key.as_deref(), fields) {
            None => Ok(()),
            Some(Mishap::Refused) => Err(Wrong::invalid("this record is not accepted")),
            Some(Mishap::Locked) => {
                let message = "the record is being changed".to_owned();
                Err(Wrong(409, "ERR_CONFLICT", message))
            }
        }
    }
}

impl Ask {
    pub(super) fn fields(&self) -> Result<Map<String, Value>, Wrong> {
        serde_json::from_slice(&self.body).map_err(|error| Wrong::invalid(error.to_string()))
    }

    fn checked(&self) -> Result<Map<String, Value>, Wrong> {
        let fields = self.fields()?;
        for name in ["id", "add_time", "update_time"] {
            if fields.contains_key(name) {
                return Err(Wrong::invalid(format!("{name}: is not allowed")));
            }
        }
        for name in ["emails", "phones"] {
            let listed = fields
                .get(name)
                .is_none_or(|value| value.is_array() || value.is_null());
            if !listed {
                return Err(Wrong::invalid(format!("{name}: must be an array")));
            }
        }
        Ok(fields)
    }

    fn limit(&self) -> Result<usize, Wrong> {
        let limit = self
            .query_value("limit")
            .map_or(Ok(LIST_DEFAULT), str::parse);
        let limit = limit.ok().filter(|limit| (1..=LIST_MAX).contains(limit));
        limit.ok_or_else(|| Wrong::invalid(format!("limit: must be from 1 to {LIST_MAX}")))
    }
}

fn shown(scene: &Scene<'_>, serial: u64, row: &Row) -> Value {
    let mut shown = Map::new();
    shown.insert("id".into(), serial.into());
    shown.extend(row.record.fields.clone());
    let added = stamp::seconds(scene.epoch + row.record.created_at);
    shown.insert("add_time".into(), added.into());
    let updated = stamp::seconds(scene.epoch + row.modified_at);
    shown.insert("update_time".into(), updated.into());
    Value::Object(shown)
}

/// A place in a list: time of the last change in nanoseconds, and id.
fn cursor(at: Duration, serial: u64) -> String {
    STANDARD.encode(json!([at.as_nanos().to_string(), serial]).to_string())
}

fn place_of(cursor: &str) -> Result<(Duration, u64), Wrong> {
    let bytes = STANDARD.decode(cursor).unwrap_or_default();
    let place: Result<(String, u64), _> = serde_json::from_slice(&bytes);
    let place = place
        .ok()
        .and_then(|(nanos, serial)| Some((Duration::from_nanos(nanos.parse().ok()?), serial)));
    place.ok_or_else(|| Wrong::invalid("cursor: is not one of this list"))
}

/// The texts in a value, at any depth; bounded by the JSON parser's own limit of 128.
fn collect_texts(value: &Value, texts: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(members) => members
            .values()
            .for_each(|member| collect_texts(member, texts)),
        value => texts.extend(text_of(value)),
    }
}
