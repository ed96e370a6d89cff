//! The `rest` provider's answers: what each operation does to the store and says about it.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::exchange::Reply;
use crate::fault::{Fault, Faults, Roll};
use crate::operation::{BatchOperation, BatchRecord, ExternalId, Operation};
use crate::store::{Record, RemoteId, Store};

/// The store together with what holds for the call at hand.
pub(crate) struct Rest<'a> {
    pub(crate) now: Duration,
    pub(crate) store: &'a mut Store,
    pub(crate) faults: &'a Faults,
    pub(crate) roll: Roll,
    /// Whether a create with a live external id is refused.
    pub(crate) unique: bool,
    pub(crate) duplicate_creates: &'a mut u64,
}

/// What became of one record.
struct Outcome {
    status: u16,
    id: Option<RemoteId>,
    error: Option<&'static str>,
}

impl Outcome {
    fn done(status: u16, id: RemoteId) -> Self {
        Self {
            status,
            id: Some(id),
            error: None,
        }
    }

    fn refused(status: u16, error: &'static str) -> Self {
        Self {
            status,
            id: None,
            error: Some(error),
        }
    }

    fn into_reply(self) -> Reply {
        match (self.error, self.id) {
            (Some(error), _) => Reply::error(self.status, error),
            (None, Some(id)) => Reply::json(self.status, &json!({ "id": id.to_string() })),
            (None, None) => Reply::empty(self.status),
        }
    }
}

const ABSENT: &str = "there is no such record";
const DUPLICATE: &str = "external_id is taken";
const POISONED: &str = "this record is not accepted";

impl Rest<'_> {
    /// Carries out one call.
    pub(crate) fn apply(&mut self, operation: &Operation) -> Reply {
        match operation {
            Operation::Create {
                object,
                external_id,
                fields,
            } => self
                .create(object, external_id.as_deref(), fields)
                .into_reply(),
            Operation::Upsert {
                object,
                external_id,
                fields,
            } => self.upsert(object, external_id, fields).into_reply(),
            Operation::Update { object, id, fields } => {
                self.update(object, id, fields).into_reply()
            }
            Operation::Delete { object, id } => match self.delete(object, id) {
                Outcome { status: 200, .. } => Reply::empty(204),
                refused => refused.into_reply(),
            },
            Operation::Read { object, id } => match self.store.read(object, id) {
                Some((id, record)) => Reply::json(200, &as_read(id, record)),
                None => Reply::error(404, ABSENT),
            },
            Operation::LookUp {
                object,
                external_id,
            } => {
                let found = self.store.look_up(object, external_id);
                let seen = found.filter(|(_, record)| record.visible(self.now, self.faults.stale));
                let results: Vec<_> = seen.map(|(id, record)| as_read(id, record)).collect();
                Reply::json(200, &json!({ "results": results }))
            }
            Operation::Batch { object, records } => self.batch(object, records),
        }
    }

    fn create(
        &mut self,
        object: &str,
        external_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Outcome {
        if let Some(external_id) = external_id {
            if self.faults.poisons(external_id) {
                return Outcome::refused(422, POISONED);
            }
            if self.store.look_up(object, external_id).next().is_some() {
                if self.unique {
                    return Outcome::refused(409, DUPLICATE);
                }
                *self.duplicate_creates += 1;
            }
        }
        Outcome::done(
            201,
            self.store.create(self.now, object, external_id, fields),
        )
    }

    /// Of several records with the external id, the oldest is the one that is merged into.
    fn upsert(&mut self, object: &str, external_id: &str, fields: &Map<String, Value>) -> Outcome {
        if self.faults.poisons(external_id) {
            return Outcome::refused(422, POISONED);
        }
        let found = self
            .store
            .look_up(object, external_id)
            .next()
            .map(|(id, _)| id);
        match found.and_then(|id| self.store.update(object, &id.to_string(), fields)) {
            Some(id) => Outcome::done(200, id),
            None => Outcome::done(
                201,
                self.store
                    .create(self.now, object, Some(external_id), fields),
            ),
        }
    }

    fn update(&mut self, object: &str, id: &str, fields: &Map<String, Value>) -> Outcome {
        if self.is_poisoned(object, id) {
            return Outcome::refused(422, POISONED);
        }
        match self.store.update(object, id, fields) {
            Some(id) => Outcome::done(200, id),
            None => Outcome::refused(404, ABSENT),
        }
    }

    fn delete(&mut self, object: &str, id: &str) -> Outcome {
        if self.is_poisoned(object, id) {
            return Outcome::refused(422, POISONED);
        }
        match self.store.delete(object, id) {
            Some(id) => Outcome::done(200, id),
            None => Outcome::refused(404, ABSENT),
        }
    }

    /// A batch that holds a poisoned record is refused whole, as some providers do for one bad
    /// field; otherwise each record has its own result.
    fn batch(&mut self, object: &str, records: &[BatchRecord]) -> Reply {
        let poisoned = |record: &BatchRecord| self.faults.poisons(&record.external_id.0);
        if records.iter().any(poisoned) {
            return Reply::error(400, POISONED);
        }
        let mut results = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let outcome = self.batched(object, record);
            if self
                .faults
                .strikes(Fault::Missing, self.roll.of_record(index))
            {
                continue;
            }
            let mut result = Map::new();
            result.insert("external_id".into(), record.external_id.0.clone().into());
            result.insert("status".into(), outcome.status.into());
            if let Some(id) = outcome.id {
                result.insert("id".into(), id.to_string().into());
            }
            if let Some(error) = outcome.error {
                result.insert("error".into(), error.into());
            }
            results.push(Value::Object(result));
        }
        if self.faults.strikes(Fault::Shuffle, self.roll) {
            results.reverse();
        }
        Reply::json(200, &json!({ "results": results }))
    }

    fn batched(&mut self, object: &str, record: &BatchRecord) -> Outcome {
        let ExternalId(external_id) = &record.external_id;
        match (record.operation, record.id.as_deref()) {
            (BatchOperation::Create, _) => self.create(object, Some(external_id), &record.fields),
            (BatchOperation::Upsert, _) => self.upsert(object, external_id, &record.fields),
            (BatchOperation::Update, Some(id)) => self.update(object, id, &record.fields),
            (BatchOperation::Delete, Some(id)) => self.delete(object, id),
            (BatchOperation::Update | BatchOperation::Delete, None) => {
                Outcome::refused(400, "id is missing")
            }
            (BatchOperation::Read, _) => Outcome::refused(400, "a batch does not read"),
        }
    }

    fn is_poisoned(&self, object: &str, id: &str) -> bool {
        let record = self.store.read(object, id);
        let external_id = record.and_then(|(_, record)| record.external_id.as_deref());
        external_id.is_some_and(|external_id| self.faults.poisons(external_id))
    }
}

/// A record as a read returns it: its ids beside its fields.
fn as_read(id: RemoteId, record: &Record) -> Value {
    let mut shown = Map::new();
    shown.insert("id".into(), id.to_string().into());
    if let Some(external_id) = &record.external_id {
        shown.insert("external_id".into(), external_id.clone().into());
    }
    for (name, value) in &record.fields {
        shown.entry(name.clone()).or_insert_with(|| value.clone());
    }
    Value::Object(shown)
}
