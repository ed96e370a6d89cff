//! A HubSpot portal over its CRM object API: records, batches, search, merges, notifications.
//!
//! Paths, replies and limits are those of the published schema of v3 and of the dated versions,
//! and of recorded calls; `docs/design/simulated-providers.md` lists what is modelled and what is
//! not.

mod batch;
mod events;
mod kind;
mod records;
mod search;
mod wrong;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::account::AccountConfig;
use crate::crm::{Crm, KeyField};
use crate::exchange::Reply;
use crate::limit::{CallClass, Limit, LimitSet};
use crate::oauth::{Denied, Form, TokenRules, Tokens, Worth};
use crate::open_writes::RecordKey;
use crate::provider::{Change, Edit, Provider, RawCall, Refusal, Scene, Subject, whole_seconds};
use crate::record::{Record, RemoteId};
use crate::target;
use crate::webhook::Deliveries;
use events::Source;
use kind::Kind;
use wrong::{CORRELATION, Wrong};

/// A portal.
#[derive(Debug)]
pub(crate) struct HubSpot {
    crm: Crm,
    tokens: Tokens,
    deliveries: Deliveries,
    events: u64,
}

/// A request below the objects' root.
#[derive(Debug)]
struct Ask {
    method: Method,
    kind: Kind,
    /// The path's parts behind the type.
    parts: Vec<String>,
    query: String,
    body: bytes::Bytes,
}

const PORTAL: u64 = 62_515;
const APP: u64 = 54_321;

/// The first record's id; real ones have at least three digits.
const FIRST_ID: u64 = 1_001;

/// A private app of a Professional portal (usage limits, read 2026-11).
const BURST_CALLS: u32 = 190;
const BURST_WINDOW: Duration = Duration::from_secs(10);
const DAILY_CALLS: u32 = 625_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Search, per account (CRM search guide, read 2026-11).
const SEARCH_CALLS: u32 = 5;
const SEARCH_WINDOW: Duration = Duration::from_secs(1);

/// OAuth guide, read 2026-11.
const TOKENS: TokenRules = TokenRules {
    prefix: "CL-",
    ttl: Duration::from_secs(1_800),
    refresh_ttl: None,
    rotates: false,
    grants: &["refresh_token", "authorization_code"],
};

impl HubSpot {
    pub(crate) fn new(config: &AccountConfig) -> Self {
        let typed = config.key_fields.iter().map(|text| KeyField::typed(text));
        let mut keys: Vec<_> = typed.collect();
        keys.push(KeyField::external("external_id"));
        keys.push(KeyField::external("email").of("contacts"));
        let secret = config.credentials.client_secret.clone();
        Self {
            crm: Crm::new(keys, FIRST_ID),
            tokens: Tokens::new(TOKENS, config.credentials.clone(), config.seed),
            deliveries: Deliveries::new(events::RULES, config.webhook.clone(), secret),
            events: 0,
        }
    }

    fn token(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        let minted = self.tokens.mint(scene.now, scene.unix(), &Form::of(call));
        let (status, message) = match minted {
            Ok(minted) => {
                let reply = json!({
                    "token_type": "bearer",
                    "refresh_token": minted.refresh,
                    "access_token": minted.access,
                    "expires_in": minted.expires_in.as_secs(),
                });
                return Reply::json(200, &reply);
            }
            Err(Denied::UnsupportedGrant) => ("BAD_GRANT_TYPE", "unknown or missing grant type"),
            Err(Denied::InvalidClient) => ("BAD_CLIENT_ID", "missing or unknown client id"),
            Err(Denied::InvalidGrant(_)) => {
                ("BAD_REFRESH_TOKEN", "missing or invalid refresh token")
            }
        };
        let error = json!({
            "status": status,
            "message": message,
            "correlationId": CORRELATION,
            "error": "invalid_grant",
            "error_description": message,
        });
        Reply::json(400, &error)
    }

    fn resource(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        match (ask.method.as_str(), parts.as_slice()) {
            ("GET", []) => self.list(scene, ask),
            ("POST", []) => self.create(scene, ask),
            ("POST", ["search"]) => self.search(scene, ask),
            ("POST", ["merge"]) => self.merge(scene, ask),
            ("POST", ["batch", operation]) => self.batch(scene, ask, operation),
            ("GET", [id]) => self.read(scene, ask, id),
            ("PATCH", [id]) => self.update(scene, ask, id),
            ("DELETE", [id]) => self.archive(scene, ask, id),
            (_, [] | [_] | ["batch", _]) => {
                Err(Wrong::new(405, "METHOD_NOT_ALLOWED", "Method Not Allowed"))
            }
            _ => Err(Wrong::not_found()),
        }
    }

    /// How a record is known, by its id or by a unique property.
    fn key_of(&self, kind: &Kind, id_property: Option<&str>, id: &str) -> RecordKey {
        let serial = self.serial_of(kind, id_property, id).ok();
        if serial.is_none() && id_property.is_some() {
            return RecordKey::by_external_id(&kind.name, id);
        }
        self.crm.record_key(&kind.name, serial, id)
    }

    fn subject_of(&self, ask: &Ask) -> Subject {
        let kind = &ask.kind;
        let subject = Subject::of(&kind.name);
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        let id_property = ask.query_value("idProperty");
        match (ask.method.as_str(), parts.as_slice()) {
            ("POST", []) => {
                let properties = ask.properties().unwrap_or_default();
                let external_id = self.crm.external_id_in(&kind.name, &properties);
                let key = external_id.map(|id| RecordKey::by_external_id(&kind.name, &id));
                Subject {
                    records: 1,
                    ..subject.writing(key.into_iter().collect())
                }
            }
            ("POST", ["search"]) => Subject {
                class: CallClass::Search,
                ..subject
            },
            ("POST", ["batch", operation]) => self.batch_subject(ask, operation),
            ("PATCH" | "DELETE", [id]) => {
                subject.writing(vec![self.key_of(kind, id_property.as_deref(), id)])
            }
            ("GET", [id]) => {
                let key = self.key_of(kind, id_property.as_deref(), id);
                Subject {
                    external_id: key.external_id().map(str::to_owned),
                    ..subject
                }
            }
            _ => subject,
        }
    }
}

impl Ask {
    /// `None` when the path is not below the objects' root, of v3 or of a dated version.
    fn of(call: &RawCall) -> Option<Self> {
        let path = call.path();
        let parts = target::path_parts(path.strip_suffix('/').unwrap_or(path)).ok()?;
        let (kind, rest) = match parts.as_slice() {
            [crm, v3, objects, kind, rest @ ..]
                if crm == "crm" && v3 == "v3" && objects == "objects" =>
            {
                (kind, rest)
            }
            [crm, objects, date, kind, rest @ ..]
                if crm == "crm" && objects == "objects" && is_dated(date) =>
            {
                (kind, rest)
            }
            _ => return None,
        };
        Some(Self {
            method: call.method.clone(),
            kind: Kind::of(kind)?,
            parts: rest.to_vec(),
            query: call.query().to_owned(),
            body: call.body.clone(),
        })
    }

    fn query_value(&self, name: &str) -> Option<String> {
        target::query_value(&self.query, name).ok().flatten()
    }

    fn json(&self) -> Result<Value, Wrong> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Wrong::invalid(format!("Invalid input JSON: {error}")))
    }

    /// The `properties` of a body about one record.
    fn properties(&self) -> Result<serde_json::Map<String, Value>, Wrong> {
        match self.json()?.get_mut("properties").map(Value::take) {
            Some(Value::Object(properties)) => Ok(properties),
            _ => Err(Wrong::invalid("Invalid input JSON: properties are missing")),
        }
    }
}

impl Provider for HubSpot {
    fn limits(&self) -> Vec<Limit> {
        vec![
            Limit::sliding("burst", BURST_CALLS, BURST_WINDOW).only(CallClass::General),
            Limit::fixed("daily", DAILY_CALLS, DAY),
            Limit::sliding("search", SEARCH_CALLS, SEARCH_WINDOW).only(CallClass::Search),
        ]
    }

    /// The search index follows "a few moments" later.
    fn nature(&self) -> &'static str {
        "stale=2s"
    }

    fn subject(&self, call: &RawCall) -> Subject {
        if is_token_path(call.path()) {
            return Subject::mint();
        }
        Ask::of(call).map_or_else(Subject::none, |ask| self.subject_of(&ask))
    }

    fn admit(&mut self, scene: &Scene<'_>, call: &RawCall) -> Result<(), Reply> {
        if is_token_path(call.path()) {
            return Ok(());
        }
        let token = call.bearer().unwrap_or_default();
        // Tokens of private apps are static; any is taken unless some are named.
        let private = token.starts_with("pat-") && self.tokens.credentials().tokens.is_empty();
        let (category, message) = match self.tokens.worth(scene.now, token) {
            Worth::Good => return Ok(()),
            _ if private => return Ok(()),
            Worth::Expired => (
                "EXPIRED_AUTHENTICATION",
                "The OAuth token used to make this call expired.",
            ),
            Worth::Unknown => (
                "INVALID_AUTHENTICATION",
                "Authentication credentials not found.",
            ),
        };
        Err(Wrong::new(401, category, message).into_reply())
    }

    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        if is_token_path(call.path()) {
            return self.token(scene, call);
        }
        if call.path().starts_with("/account-info/") {
            let details = json!({ "portalId": PORTAL, "timeZone": "UTC", "utcOffset": "+00:00" });
            return Reply::json(200, &details);
        }
        let replied = match Ask::of(call) {
            Some(ask) if scene.faults.forbids(&ask.kind.name) => Err(Wrong::new(
                403,
                "MISSING_SCOPES",
                "This app hasn't been granted all required scopes to make this call.",
            )),
            Some(ask) => self.resource(scene, &ask),
            None => Err(Wrong::not_found()),
        };
        replied.unwrap_or_else(Wrong::into_reply)
    }

    fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        let over = |policy: &str, message: &str| {
            let body = json!({
                "status": "error",
                "message": message,
                "errorType": "RATE_LIMIT",
                "correlationId": CORRELATION,
                "policyName": policy,
                "requestId": CORRELATION,
            });
            Reply::json(429, &body)
        };
        match *refusal {
            Refusal::OverLimit { name: "daily", .. } | Refusal::DailySpent { .. } => {
                over("DAILY", "You have reached your daily limit.")
            }
            Refusal::OverLimit { name: "search", .. } => {
                over("SECONDLY", "You have reached your secondly limit.")
            }
            Refusal::OverLimit { .. } | Refusal::Throttled { .. } => over(
                "TEN_SECONDLY_ROLLING",
                "You have reached your ten_secondly_rolling limit.",
            ),
            Refusal::Unauthorized => {
                let message = "Authentication credentials not found.";
                Wrong::new(401, "INVALID_AUTHENTICATION", message).into_reply()
            }
            Refusal::ServerError(status) => {
                Wrong::new(status, "INTERNAL_ERROR", "internal error").into_reply()
            }
            Refusal::Maintenance { wait, .. } => {
                let message = "The portal is being migrated to another data center";
                let reply = Wrong::new(477, "MIGRATION_IN_PROGRESS", message).into_reply();
                reply.with_retry_after(whole_seconds(wait))
            }
        }
    }

    /// Searches carry no headers of limits.
    fn stamp(&self, limits: &LimitSet, now: Duration, class: CallClass, reply: &mut Reply) {
        if class != CallClass::General {
            return;
        }
        let headers = &mut reply.headers;
        if let Some(burst) = limits.gauge("burst", now) {
            let per_second = burst.limit / 10;
            headers.push(("x-hubspot-ratelimit-max", burst.limit.to_string()));
            headers.push((
                "x-hubspot-ratelimit-remaining",
                burst.remaining().to_string(),
            ));
            headers.push(("x-hubspot-ratelimit-interval-milliseconds", "10000".into()));
            headers.push(("x-hubspot-ratelimit-secondly", per_second.to_string()));
        }
        if let Some(daily) = limits.gauge("daily", now) {
            headers.push(("x-hubspot-ratelimit-daily", daily.limit.to_string()));
            let remaining = daily.remaining().to_string();
            headers.push(("x-hubspot-ratelimit-daily-remaining", remaining));
        }
    }

    fn records(&self) -> Box<dyn Iterator<Item = (&str, RemoteId, &Record)> + '_> {
        let records = self.crm.records();
        Box::new(records.map(|(object, id, record)| (object, RemoteId::number(id), record)))
    }

    fn duplicate_creates(&self) -> u64 {
        self.crm.duplicate_creates()
    }

    fn edit(&mut self, scene: &Scene<'_>, edit: &Edit) -> Result<RemoteId, &'static str> {
        let kind = Kind::of(&edit.object).ok_or("there is no such object")?;
        let serial_of = |id: &str| id.parse().ok();
        let edit = Edit {
            change: records::as_texts(&edit.change),
            ..edit.clone()
        };
        let serial = self.crm.edit(scene.now, &kind.name, &edit, serial_of)?;
        match &edit.change {
            Change::Create(properties) => {
                self.tell_created(scene, &kind, serial, properties, Source::Person);
            }
            Change::Update(properties) => {
                self.tell_changed(scene, &kind, serial, properties, Source::Person);
            }
            Change::Delete => self.tell_deleted(scene, &kind, serial, Source::Person),
            Change::MergeInto(winner) => {
                let winner = serial_of(winner).unwrap_or(serial);
                self.tell_merged(scene, &kind, serial, winner, Source::Person);
            }
        }
        Ok(RemoteId::number(serial))
    }

    fn expire_tokens(&mut self) {
        self.tokens.expire();
    }

    fn deliveries(&self) -> Option<&Deliveries> {
        Some(&self.deliveries)
    }

    fn deliveries_mut(&mut self) -> Option<&mut Deliveries> {
        Some(&mut self.deliveries)
    }
}

fn is_token_path(path: &str) -> bool {
    let version = path
        .strip_prefix("/oauth/")
        .and_then(|rest| rest.strip_suffix("/token"));
    version.is_some_and(|version| matches!(version, "v1" | "v3") || is_dated(version))
}

/// Whether a version is one by date, as `2026-03`.
fn is_dated(version: &str) -> bool {
    let digits = |text: &str, count| text.len() == count && text.parse::<u32>().is_ok();
    let parts = version.split_once('-');
    parts.is_some_and(|(year, month)| digits(year, 4) && digits(month, 2))
}
