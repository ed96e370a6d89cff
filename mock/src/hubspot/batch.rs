//! Up to 100 records in one call, each found again by its trace id, its id or its key.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::kind::Kind;
use super::records::row_fault;
use super::wrong::Wrong;
use super::{Ask, HubSpot};
use crate::crm::fold;
use crate::exchange::Reply;
use crate::fault::Fault;
use crate::open_writes::RecordKey;
use crate::provider::{Scene, Subject};
use crate::stamp;

/// Inputs of a batch (CRM objects guide, read 2026-11).
const INPUTS_MAX: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Create,
    Update,
    Upsert,
    Read,
    Archive,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    inputs: Vec<Input>,
    /// Of a read, for all inputs.
    id_property: Option<String>,
    /// Of a read: what to return.
    properties: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    #[serde(default, deserialize_with = "text_or_number")]
    id: Option<String>,
    id_property: Option<String>,
    object_write_trace_id: Option<String>,
    #[serde(default)]
    properties: Map<String, Value>,
}

/// What an input will do once every check is passed.
#[derive(Debug)]
enum Plan {
    Create(Map<String, Value>),
    Update(u64, Map<String, Value>),
}

impl HubSpot {
    pub(super) fn batch(
        &mut self,
        scene: &Scene<'_>,
        ask: &Ask,
        operation: &str,
    ) -> Result<Reply, Wrong> {
        let operation = Operation::of(operation).ok_or_else(Wrong::not_found)?;
        let body = Body::of(ask)?;
        if body.inputs.len() > INPUTS_MAX {
            let message = format!("A batch takes at most {INPUTS_MAX} inputs");
            return Err(Wrong::invalid(message));
        }
        let repeated = body.repeated_ids();
        if operation != Operation::Create && !repeated.is_empty() {
            let message = format!(
                "Duplicate IDs found in batch input: [{}]. IDs must be unique",
                repeated.join(", ")
            );
            return Err(Wrong::invalid(message));
        }
        if operation != Operation::Read && scene.faults.strikes(Fault::Empty, scene.roll) {
            return Ok(answer(scene, operation.status(), Vec::new(), Vec::new()));
        }
        match operation {
            Operation::Read => self.read_batch(scene, &ask.kind, &body),
            Operation::Archive => {
                for input in &body.inputs {
                    let id = input.id.as_deref().unwrap_or_default();
                    if let Ok(serial) = self.serial_of(&ask.kind, None, id) {
                        self.archived(scene, &ask.kind, serial);
                    }
                }
                Ok(Reply::empty(204))
            }
            // With a trace id on each input they stand or fall one by one; without, together.
            _ if body
                .inputs
                .iter()
                .all(|input| input.object_write_trace_id.is_some()) =>
            {
                Ok(self.write_one_by_one(scene, &ask.kind, operation, &body))
            }
            _ => self.write_together(scene, &ask.kind, operation, &body),
        }
    }

    /// What a batch is about.
    pub(super) fn batch_subject(&self, ask: &Ask, operation: &str) -> Subject {
        let subject = Subject::of(&ask.kind.name);
        let (Some(operation), Ok(body)) = (Operation::of(operation), Body::of(ask)) else {
            return subject;
        };
        let records = body.inputs.len();
        if operation == Operation::Read {
            return Subject { records, ..subject };
        }
        let keys = body.inputs.iter().filter_map(|input| match &input.id {
            Some(id) => Some(self.key_of(&ask.kind, input.id_property.as_deref(), id)),
            None => {
                let external_id = self.crm.external_id_in(&ask.kind.name, &input.properties)?;
                Some(RecordKey::by_external_id(&ask.kind.name, &external_id))
            }
        });
        Subject {
            records,
            external_id: None,
            ..subject.writing(keys.collect())
        }
    }

    fn write_one_by_one(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        operation: Operation,
        body: &Body,
    ) -> Reply {
        let (mut results, mut errors) = (Vec::new(), Vec::new());
        for (index, input) in body.inputs.iter().enumerate() {
            if scene
                .faults
                .strikes(Fault::ItemLost, scene.roll.of_record(index))
            {
                continue;
            }
            match self.plan(scene, kind, operation, index, input) {
                Ok(plan) => {
                    results.extend(self.carried_out(scene, kind, operation, index, input, plan))
                }
                Err(wrong) => {
                    let trace = [input.object_write_trace_id.as_deref()];
                    errors.push(wrong.in_batch(json!({ "objectWriteTraceId": trace })));
                }
            }
        }
        answer(scene, operation.status(), results, errors)
    }

    fn write_together(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        operation: Operation,
        body: &Body,
    ) -> Result<Reply, Wrong> {
        let mut plans = Vec::with_capacity(body.inputs.len());
        let mut new_keys = BTreeSet::new();
        let mut gone = false;
        for (index, input) in body.inputs.iter().enumerate() {
            let planned = self.plan(scene, kind, operation, index, input);
            let plan = match planned {
                // Ids that are not there are left out without a word.
                Err(Wrong { status: 404, .. }) => {
                    gone = true;
                    continue;
                }
                planned => planned?,
            };
            if let Plan::Create(properties) = &plan {
                for (name, value) in properties {
                    let text = value.as_str().unwrap_or_default();
                    let is_key = self.crm.is_key(&kind.name, name) && !text.is_empty();
                    if is_key && !new_keys.insert((name.clone(), fold(text))) {
                        let message = format!("{name} occurs twice in the batch: {text}");
                        return Err(Wrong::new(409, "CONFLICT", message));
                    }
                }
            }
            plans.push((index, input, plan));
        }
        let mut results = Vec::with_capacity(plans.len());
        for (index, input, plan) in plans {
            if !scene
                .faults
                .strikes(Fault::ItemLost, scene.roll.of_record(index))
            {
                results.extend(self.carried_out(scene, kind, operation, index, input, plan));
            }
        }
        let status = if gone { 207 } else { operation.status() };
        Ok(answer(scene, status, results, Vec::new()))
    }

    /// Checks an input against the portal as it is now.
    fn plan(
        &self,
        scene: &Scene<'_>,
        kind: &Kind,
        operation: Operation,
        index: usize,
        input: &Input,
    ) -> Result<Plan, Wrong> {
        let roll = scene.roll.of_record(index);
        let id_property = input.id_property.as_deref();
        let id = input.id.as_deref().unwrap_or_default();
        let found = match operation {
            Operation::Create => None,
            Operation::Update => Some(self.serial_of(kind, id_property, id)?),
            _ => {
                self.must_be_unique(kind, id_property.unwrap_or("hs_object_id"))?;
                self.serial_of(kind, id_property, id).ok()
            }
        };
        let mut properties = input.properties.clone();
        if let (Operation::Upsert, None, Some(property)) = (operation, found, id_property) {
            properties.entry(property).or_insert_with(|| id.into());
        }
        let external_id = match found {
            Some(serial) => self
                .crm
                .external_id_of(&kind.name, serial)
                .map(str::to_owned),
            None => self.crm.external_id_in(&kind.name, &properties),
        };
        row_fault(scene, roll, external_id.as_deref(), &properties)?;
        if scene.faults.strikes(Fault::ItemRefused, roll) {
            return Err(Wrong::invalid("this record is not accepted"));
        }
        if scene.faults.strikes(Fault::ItemFailed, roll) {
            return Err(Wrong::new(500, "INTERNAL_ERROR", "internal error"));
        }
        let properties = self.checked(kind, &properties, found)?;
        Ok(match found {
            Some(serial) => Plan::Update(serial, properties),
            None => Plan::Create(properties),
        })
    }

    /// The row among the results, unless a fault leaves it out.
    fn carried_out(
        &mut self,
        scene: &Scene<'_>,
        kind: &Kind,
        operation: Operation,
        index: usize,
        input: &Input,
        plan: Plan,
    ) -> Option<Value> {
        let (serial, new) = match plan {
            Plan::Create(properties) => (self.created(scene, kind, properties), true),
            Plan::Update(serial, properties) => {
                self.updated(scene, kind, serial, properties);
                (serial, false)
            }
        };
        if scene
            .faults
            .strikes(Fault::ItemMissing, scene.roll.of_record(index))
        {
            return None;
        }
        let mut row = self.live(scene, kind, serial, None).ok()?;
        if operation == Operation::Upsert {
            row["new"] = new.into();
        }
        if let Some(trace) = &input.object_write_trace_id {
            row["objectWriteTraceId"] = trace.clone().into();
        }
        Some(row)
    }

    /// A merged record is found under its former id and shown under its new one.
    fn read_batch(&self, scene: &Scene<'_>, kind: &Kind, body: &Body) -> Result<Reply, Wrong> {
        let id_property = body.id_property.as_deref();
        if let Some(property) = id_property {
            self.must_be_unique(kind, property)?;
        }
        let wanted = kind.shown_of(body.properties.as_deref().unwrap_or_default());
        let (mut results, mut missing) = (Vec::new(), Vec::new());
        for input in &body.inputs {
            let id = input.id.as_deref().unwrap_or_default();
            match self.serial_of(kind, id_property, id) {
                Ok(serial) => {
                    results.push(self.live(scene, kind, serial, Some(&wanted))?);
                }
                Err(_) => missing.push(id),
            }
        }
        let errors = if missing.is_empty() {
            Vec::new()
        } else {
            let message = format!(
                "Could not get some {} objects, they may be deleted or not exist. Check that ids \
                 are valid.",
                kind.singular.to_uppercase()
            );
            let wrong = Wrong::new(404, "OBJECT_NOT_FOUND", message);
            vec![wrong.in_batch(json!({ "ids": missing }))]
        };
        Ok(answer(scene, 200, results, errors))
    }
}

impl Operation {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "create" => Self::Create,
            "update" => Self::Update,
            "upsert" => Self::Upsert,
            "read" => Self::Read,
            "archive" => Self::Archive,
            _ => return None,
        })
    }

    fn status(self) -> u16 {
        if self == Self::Create { 201 } else { 200 }
    }
}

impl Body {
    fn of(ask: &Ask) -> Result<Self, Wrong> {
        serde_json::from_slice(&ask.body)
            .map_err(|error| Wrong::invalid(format!("Invalid input JSON: {error}")))
    }

    /// Ids that occur more than once, each once, as first written; case does not tell them apart.
    fn repeated_ids(&self) -> Vec<&str> {
        let (mut seen, mut told) = (BTreeSet::new(), BTreeSet::new());
        let ids = self.inputs.iter().filter_map(|input| input.id.as_deref());
        ids.filter(|id| !seen.insert(fold(id)) && told.insert(fold(id)))
            .collect()
    }
}

/// The results come in no particular order.
fn answer(scene: &Scene<'_>, status: u16, mut results: Vec<Value>, errors: Vec<Value>) -> Reply {
    if scene.faults.strikes(Fault::Shuffle, scene.roll) {
        scene.roll.shuffle(&mut results);
    }
    let now = stamp::millis(scene.unix());
    let mut body = json!({
        "status": "COMPLETE",
        "results": results,
        "startedAt": now,
        "completedAt": now,
    });
    if errors.is_empty() {
        return Reply::json(status, &body);
    }
    body["numErrors"] = errors.len().into();
    body["errors"] = json!(errors);
    Reply::json(207, &body)
}

fn text_or_number<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.as_ref().and_then(crate::crm::text_of))
}
