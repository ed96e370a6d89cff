//! The `rest` provider: plain JSON over HTTP, one path for each operation.

mod operation;
mod replayed_keys;
mod store;

use serde_json::{Map, Value, json};

use crate::exchange::Reply;
use crate::fault::Fault;
use crate::oauth::Credentials;
use crate::open_writes::RecordKey;
use crate::provider::{
    Change, Edit, Provider, RawCall, Refusal, Scene, Subject, is_poison, whole_seconds,
};
use crate::record::{Record, RemoteId};
use operation::{BatchOperation, BatchRecord, ExternalId, Operation};
use replayed_keys::{Fingerprint, ReplayedKeys};
pub(crate) use store::RestId;
use store::Store;

/// An account of the `rest` provider.
#[derive(Debug)]
pub(crate) struct Rest {
    store: Store,
    keys: ReplayedKeys,
    honour_keys: bool,
    /// Whether a create with a live external id is refused.
    unique: bool,
    credentials: Credentials,
    duplicate_creates: u64,
}

/// What became of one record.
struct Outcome {
    status: u16,
    id: Option<RestId>,
    error: Option<&'static str>,
}

impl Outcome {
    fn done(status: u16, id: RestId) -> Self {
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

    /// The record's row among a batch's results.
    fn into_row(self, external_id: &str) -> Value {
        let mut row = Map::new();
        row.insert("external_id".into(), external_id.into());
        row.insert("status".into(), self.status.into());
        if let Some(id) = self.id {
            row.insert("id".into(), id.to_string().into());
        }
        if let Some(error) = self.error {
            row.insert("error".into(), error.into());
        }
        Value::Object(row)
    }
}

const ABSENT: &str = "there is no such record";
const DUPLICATE: &str = "external_id is taken";
const POISONED: &str = "this record is not accepted";

impl Rest {
    pub(crate) fn new(credentials: Credentials, unique: bool, honour_keys: bool) -> Self {
        Self {
            store: Store::default(),
            keys: ReplayedKeys::default(),
            honour_keys,
            unique,
            credentials,
            duplicate_creates: 0,
        }
    }

    fn apply(&mut self, scene: &Scene<'_>, operation: &Operation) -> Reply {
        if operation.fields().any(is_poison) {
            return Reply::error(400, POISONED);
        }
        match operation {
            Operation::Create {
                object,
                external_id,
                fields,
            } => self
                .create(scene, object, external_id.as_deref(), fields)
                .into_reply(),
            Operation::Upsert {
                object,
                external_id,
                fields,
            } => self.upsert(scene, object, external_id, fields).into_reply(),
            Operation::Update { object, id, fields } => {
                self.update(scene, object, id, fields).into_reply()
            }
            Operation::Delete { object, id } => match self.delete(scene, object, id) {
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
                let seen =
                    found.filter(|(_, record)| record.visible(scene.now, scene.faults.stale));
                let results: Vec<_> = seen.map(|(id, record)| as_read(id, record)).collect();
                Reply::json(200, &json!({ "results": results }))
            }
            Operation::Batch { object, records } => self.batch(scene, object, records),
        }
    }

    fn create(
        &mut self,
        scene: &Scene<'_>,
        object: &str,
        external_id: Option<&str>,
        fields: &Map<String, Value>,
    ) -> Outcome {
        if let Some(external_id) = external_id {
            if scene.faults.poisons(external_id) {
                return Outcome::refused(422, POISONED);
            }
            if self.store.look_up(object, external_id).next().is_some() {
                if self.unique {
                    return Outcome::refused(409, DUPLICATE);
                }
                self.duplicate_creates += 1;
            }
        }
        Outcome::done(
            201,
            self.store.create(scene.now, object, external_id, fields),
        )
    }

    /// Of several records with the external id, the oldest is the one that is merged into.
    fn upsert(
        &mut self,
        scene: &Scene<'_>,
        object: &str,
        external_id: &str,
        fields: &Map<String, Value>,
    ) -> Outcome {
        if scene.faults.poisons(external_id) {
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
                    .create(scene.now, object, Some(external_id), fields),
            ),
        }
    }

    fn update(
        &mut self,
        scene: &Scene<'_>,
        object: &str,
        id: &str,
        fields: &Map<String, Value>,
    ) -> Outcome {
        if self.is_poisoned(scene, object, id) {
            return Outcome::refused(422, POISONED);
        }
        match self.store.update(object, id, fields) {
            Some(id) => Outcome::done(200, id),
            None => Outcome::refused(404, ABSENT),
        }
    }

    fn delete(&mut self, scene: &Scene<'_>, object: &str, id: &str) -> Outcome {
        if self.is_poisoned(scene, object, id) {
            return Outcome::refused(422, POISONED);
        }
        match self.store.delete(object, id) {
            Some(id) => Outcome::done(200, id),
            None => Outcome::refused(404, ABSENT),
        }
    }

    /// A batch that holds a poisoned record is refused whole, as some providers do for one bad
    /// field; otherwise each record has its own result.
    fn batch(&mut self, scene: &Scene<'_>, object: &str, records: &[BatchRecord]) -> Reply {
        let poisoned = |record: &BatchRecord| scene.faults.poisons(&record.external_id.0);
        if records.iter().any(poisoned) {
            return Reply::error(400, POISONED);
        }
        if scene.faults.strikes(Fault::Empty, scene.roll) {
            return Reply::json(200, &json!({ "results": [] }));
        }
        let mut results = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            let roll = scene.roll.of_record(index);
            let strikes = |fault| scene.faults.strikes(fault, roll);
            if strikes(Fault::ItemLost) {
                continue;
            }
            let outcome = if strikes(Fault::ItemRefused) {
                Outcome::refused(422, POISONED)
            } else if strikes(Fault::ItemFailed) {
                Outcome::refused(roll.server_error(), "something went wrong with this record")
            } else if strikes(Fault::Lock) {
                Outcome::refused(423, "the record is locked")
            } else {
                self.batched(scene, object, record)
            };
            if !strikes(Fault::ItemMissing) {
                results.push(outcome.into_row(&record.external_id.0));
            }
        }
        if scene.faults.strikes(Fault::Shuffle, scene.roll) {
            scene.roll.shuffle(&mut results);
        }
        Reply::json(200, &json!({ "results": results }))
    }

    fn batched(&mut self, scene: &Scene<'_>, object: &str, record: &BatchRecord) -> Outcome {
        let ExternalId(external_id) = &record.external_id;
        let fields = &record.fields;
        match (record.operation, record.id.as_deref()) {
            (BatchOperation::Create, _) => self.create(scene, object, Some(external_id), fields),
            (BatchOperation::Upsert, _) => self.upsert(scene, object, external_id, fields),
            (BatchOperation::Update, Some(id)) => self.update(scene, object, id, fields),
            (BatchOperation::Delete, Some(id)) => self.delete(scene, object, id),
            (BatchOperation::Update | BatchOperation::Delete, None) => {
                Outcome::refused(400, "id is missing")
            }
            (BatchOperation::Read, _) => Outcome::refused(400, "a batch does not read"),
        }
    }

    fn is_poisoned(&self, scene: &Scene<'_>, object: &str, id: &str) -> bool {
        let external_id = self.external_id_of(object, id);
        external_id.is_some_and(|external_id| scene.faults.poisons(external_id))
    }

    fn external_id_of(&self, object: &str, id: &str) -> Option<&str> {
        let (_, record) = self.store.read(object, id)?;
        record.external_id.as_deref()
    }

    /// The records an operation writes to.
    fn writes(&self, operation: &Operation) -> Vec<RecordKey> {
        let object = operation.object();
        let by_external_id = |id: &str| RecordKey::by_external_id(object, id);
        match operation {
            Operation::Create { external_id, .. } => {
                let key = external_id.as_deref().map(by_external_id);
                key.into_iter().collect()
            }
            Operation::Upsert { external_id, .. } => vec![by_external_id(external_id)],
            Operation::Update { id, .. } | Operation::Delete { id, .. } => {
                let known = self.external_id_of(object, id);
                vec![known.map_or_else(|| RecordKey::by_id(object, id), by_external_id)]
            }
            Operation::Read { .. } | Operation::LookUp { .. } => Vec::new(),
            Operation::Batch { records, .. } => records
                .iter()
                .map(|record| by_external_id(&record.external_id.0))
                .collect(),
        }
    }
}

impl Provider for Rest {
    fn subject(&self, call: &RawCall) -> Subject {
        let Ok(operation) = Operation::parse(call) else {
            return Subject::none();
        };
        let subject = Subject::of(operation.object());
        match &operation {
            Operation::LookUp { external_id, .. } => Subject {
                external_id: Some(external_id.clone()),
                ..subject
            },
            Operation::Batch { records, .. } => Subject {
                records: records.len(),
                external_id: None,
                ..subject.writing(self.writes(&operation))
            },
            _ if operation.is_write() => Subject {
                records: 1,
                ..subject.writing(self.writes(&operation))
            },
            _ => subject,
        }
    }

    fn admit(&mut self, _: &Scene<'_>, call: &RawCall) -> Result<(), Reply> {
        let tokens = &self.credentials.tokens;
        let known = |token: &str| tokens.iter().any(|known| known == token);
        if tokens.is_empty() || call.bearer().is_some_and(known) {
            return Ok(());
        }
        Err(self.refuse(&Refusal::Unauthorized))
    }

    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        let operation = match Operation::parse(call) {
            Ok(operation) => operation,
            Err(refused) => return refused,
        };
        let key = call.idempotency_key.as_deref();
        let Some(key) = key.filter(|_| self.honour_keys && operation.is_write()) else {
            return self.apply(scene, &operation);
        };
        let fingerprint = Fingerprint::of(call);
        if let Some(first) = self.keys.look_up(key, fingerprint) {
            return first;
        }
        let reply = self.apply(scene, &operation);
        self.keys.remember(key, fingerprint, &reply);
        reply
    }

    fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        match *refusal {
            Refusal::OverLimit { wait, .. } => {
                Reply::error(429, "over a rate limit").with_retry_after(whole_seconds(wait))
            }
            Refusal::Throttled { wait } => {
                Reply::error(429, "too many calls").with_retry_after(whole_seconds(wait))
            }
            Refusal::DailySpent { wait } => {
                Reply::error(429, "the day's calls are spent").with_retry_after(whole_seconds(wait))
            }
            Refusal::Unauthorized => Reply::error(401, "the credentials are not accepted"),
            Refusal::ServerError(status) => Reply::error(status, "something went wrong"),
            Refusal::Maintenance { wait, .. } => {
                Reply::error(503, "down for maintenance").with_retry_after(whole_seconds(wait))
            }
        }
    }

    fn records(&self) -> Box<dyn Iterator<Item = (&str, RemoteId, &Record)> + '_> {
        let records = self.store.records();
        Box::new(records.map(|(object, id, record)| (object, RemoteId::from(id), record)))
    }

    fn duplicate_creates(&self) -> u64 {
        self.duplicate_creates
    }

    fn edit(&mut self, scene: &Scene<'_>, edit: &Edit) -> Result<RemoteId, &'static str> {
        let object = &edit.object;
        let id = match (&edit.change, edit.id.as_deref()) {
            (Change::Create(fields), None) => {
                Some(self.store.create(scene.now, object, None, fields))
            }
            (Change::Update(fields), Some(id)) => self.store.update(object, id, fields),
            (Change::Delete, Some(id)) => self.store.delete(object, id),
            (Change::MergeInto(_), _) => return Err("records of `rest` are not merged"),
            (Change::Create(_), Some(_)) => return Err("a create has no id"),
            (_, None) => return Err("id is missing"),
        };
        id.map(RemoteId::from).ok_or(ABSENT)
    }

    fn expire_tokens(&mut self) {}
}

/// A record as a read returns it: its ids beside its fields.
fn as_read(id: RestId, record: &Record) -> Value {
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
