//! A Salesforce org over its REST API: records, collections, composite calls, queries.
//!
//! Paths, replies and limits are those of the REST API Developer Guide for v60 to v67 and of
//! recorded calls; `docs/design/simulated-providers.md` lists what is modelled and what is not.

mod changes;
mod collections;
mod composite;
mod id;
mod query;
mod rows;
mod schema;
mod sobjects;
mod soql;
mod wrong;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Map, Value, json};

use crate::account::AccountConfig;
use crate::crm::{Crm, KeyField};
use crate::exchange::Reply;
use crate::limit::{CallClass, Limit, LimitSet};
use crate::oauth::{Denied, Form, JWT_BEARER, TokenRules, Tokens, Worth};
use crate::provider::{Edit, Provider, RawCall, Refusal, Scene, Subject};
use crate::record::{Record, RemoteId};
use crate::signature::Signature;
use crate::target;
pub(crate) use id::SalesforceId;
use query::Cursors;
use schema::Schema;
use wrong::Wrong;

/// An org.
#[derive(Debug)]
pub(crate) struct Salesforce {
    crm: Crm,
    schema: Schema,
    tokens: Tokens,
    cursors: Cursors,
    base_url: String,
}

/// A request below `/services/data/vXX.X`: a call's own, or a part of a composite one.
#[derive(Debug)]
struct Ask {
    method: Method,
    version: String,
    /// The path's parts behind the version.
    parts: Vec<String>,
    query: String,
    headers: HeaderMap,
    body: Bytes,
}

/// Enterprise edition without licences (REST API limits, read 2026-11).
const DAILY_CALLS: u32 = 100_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Requests open for 20 s or longer in production (the same page).
const LONG_RUNNING_CALLS: u32 = 25;
const LONG_RUNNING_FROM: Duration = Duration::from_secs(20);

/// Versions that answer; older ones were retired by 2025.
const VERSIONS: std::ops::RangeInclusive<u32> = 31..=67;

/// Sessions end by the org's policy; two hours is what a new org has.
const TOKENS: TokenRules = TokenRules {
    prefix: "00D5e0000000001!",
    ttl: Duration::from_secs(2 * 60 * 60),
    refresh_ttl: None,
    rotates: false,
    grants: &["client_credentials", "refresh_token", JWT_BEARER],
};

impl Salesforce {
    pub(crate) fn new(config: &AccountConfig) -> Self {
        let typed = config.key_fields.iter().map(|text| KeyField::typed(text));
        let mut keys: Vec<_> = typed.collect();
        keys.push(KeyField::external("External_Id__c"));
        for object in ["Contact", "Lead"] {
            // E-mail addresses find records, and several may share one.
            keys.push(KeyField::external("Email").of(object).shared().incidental());
        }
        Self {
            crm: Crm::new(keys, 1),
            schema: Schema::default(),
            tokens: Tokens::new(TOKENS, config.credentials.clone(), config.seed),
            cursors: Cursors::default(),
            base_url: config.base_url.clone(),
        }
    }

    fn token(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        let minted = self.tokens.mint(scene.now, scene.unix(), &Form::of(call));
        let (code, description) = match minted {
            Ok(minted) => {
                let id = format!("{}/id/00D5e0000000001EAA/0055e0000000001AAA", self.base_url);
                let issued_at = scene.unix().as_millis().to_string();
                let secret = self.tokens.credentials().client_secret.as_deref();
                let signed = [id.as_bytes(), issued_at.as_bytes()];
                let signature = Signature::of(secret.unwrap_or_default(), &signed);
                // Neither expires_in nor refresh_token: callers learn of the end by a 401.
                let reply = json!({
                    "access_token": minted.access,
                    "instance_url": self.base_url,
                    "id": id,
                    "token_type": "Bearer",
                    "issued_at": issued_at,
                    "signature": signature.base64(),
                });
                return Reply::json(200, &reply);
            }
            Err(Denied::UnsupportedGrant) => ("unsupported_grant_type", "grant type not supported"),
            Err(Denied::InvalidClient) => ("invalid_client", "invalid client credentials"),
            Err(Denied::InvalidGrant(why)) => ("invalid_grant", why),
        };
        let error = json!({ "error": code, "error_description": description });
        Reply::json(400, &error)
    }

    fn resource(&mut self, scene: &Scene<'_>, ask: &Ask) -> Reply {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        let replied = match (ask.method.as_str(), parts.as_slice()) {
            ("GET", ["limits"]) => Ok(limits_page(scene)),
            ("GET", ["sobjects"]) => Ok(self.describe_all(ask)),
            ("POST", ["sobjects", object]) => self.create(scene, ask, object),
            ("GET", ["sobjects", object]) => self.describe(ask, object),
            ("GET", ["sobjects", object, "describe"]) => self.describe_fields(ask, object),
            ("GET", ["sobjects", object, "updated"]) => self.updated(scene, ask, object),
            ("GET", ["sobjects", object, "deleted"]) => self.deleted(scene, ask, object),
            (_, ["sobjects", object, id]) => self.by_id(scene, ask, object, id),
            (_, ["sobjects", object, field, value]) => {
                self.by_key(scene, ask, object, field, value)
            }
            ("GET", ["query"]) => self.query(scene, ask, false),
            ("GET", ["queryAll"]) => self.query(scene, ask, true),
            ("GET", ["query" | "queryAll", locator]) => self.next_page(ask, locator),
            ("POST", ["composite"]) => self.composite(scene, ask),
            ("GET" | "POST", ["composite", "sobjects", object]) => {
                self.read_collection(scene, ask, object)
            }
            (_, ["composite", "sobjects"]) => self.write_collection(scene, ask),
            ("PATCH", ["composite", "sobjects", object, field]) => {
                self.upsert_collection(scene, ask, object, field)
            }
            _ => Err(Wrong::not_found()),
        };
        replied.unwrap_or_else(Wrong::into_reply)
    }
}

impl Ask {
    /// `None` when the path is not below a version that answers.
    fn of(call: &RawCall) -> Option<Self> {
        Self::parse(
            call.method.clone(),
            &call.target,
            call.headers.clone(),
            call.body.clone(),
        )
    }

    fn parse(method: Method, target: &str, headers: HeaderMap, body: Bytes) -> Option<Self> {
        let (path, query) = target::split(target);
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts = target::path_parts(path).ok()?;
        let [services, data, version, rest @ ..] = parts.as_slice() else {
            return None;
        };
        let number = version.strip_prefix('v')?.strip_suffix(".0")?;
        let known = number
            .parse()
            .is_ok_and(|number| VERSIONS.contains(&number));
        (services == "services" && data == "data" && known).then(|| Self {
            method,
            version: version.clone(),
            parts: rest.to_vec(),
            query: query.to_owned(),
            headers,
            body,
        })
    }

    fn query_value(&self, name: &str) -> Option<String> {
        target::query_value(&self.query, name).ok().flatten()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn version_number(&self) -> u32 {
        let number = self.version.trim_start_matches('v').split('.').next();
        number.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// A path below the same version.
    fn url(&self, path: &str) -> String {
        format!("/services/data/{}/{path}", self.version)
    }

    fn json(&self) -> Result<Value, Wrong> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Wrong::new("JSON_PARSER_ERROR", error.to_string()))
    }

    fn json_object(&self) -> Result<Map<String, Value>, Wrong> {
        match self.json()? {
            Value::Object(members) => Ok(members),
            _ => Err(Wrong::new("JSON_PARSER_ERROR", "an object was expected")),
        }
    }
}

impl Provider for Salesforce {
    fn limits(&self) -> Vec<Limit> {
        vec![
            Limit::sliding("daily", DAILY_CALLS, DAY),
            Limit::open("long_running", LONG_RUNNING_CALLS, LONG_RUNNING_FROM),
        ]
    }

    fn subject(&self, call: &RawCall) -> Subject {
        if is_token_path(call.path()) {
            return Subject::mint();
        }
        Ask::of(call).map_or_else(Subject::none, |ask| self.subject_of(&ask))
    }

    fn admit(&mut self, scene: &Scene<'_>, call: &RawCall) -> Result<(), Reply> {
        let path = call.path().trim_end_matches('/');
        if is_token_path(path) || path == "/services/data" {
            return Ok(());
        }
        let wrong = match (call.bearer(), call.header("authorization")) {
            (Some(token), _) => match self.tokens.worth(scene.now, token) {
                Worth::Good => return Ok(()),
                Worth::Expired | Worth::Unknown => session_over(),
            },
            (None, Some(_)) => Reply::json(
                401,
                &json!([{ "message": "INVALID_HEADER_TYPE", "errorCode": "INVALID_AUTH_HEADER" }]),
            ),
            (None, None) => session_over(),
        };
        Err(wrong)
    }

    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        if is_token_path(call.path()) {
            return self.token(scene, call);
        }
        if call.path().trim_end_matches('/') == "/services/data" {
            let versions = VERSIONS.map(|number| {
                let version = format!("{number}.0");
                let url = format!("/services/data/v{version}");
                json!({ "version": version, "url": url, "label": version })
            });
            return Reply::json(200, &versions.collect());
        }
        match Ask::of(call) {
            Some(ask) => self.resource(scene, &ask),
            None => Wrong::not_found().into_reply(),
        }
    }

    fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        let said = |status, code: &str, message: &str| {
            let error = json!([{ "message": message, "errorCode": code }]);
            Reply::json(status, &error)
        };
        let over = |message| said(403, "REQUEST_LIMIT_EXCEEDED", message);
        match *refusal {
            Refusal::OverLimit { name: "daily", .. } | Refusal::DailySpent { .. } => {
                over("TotalRequests Limit exceeded.")
            }
            Refusal::OverLimit {
                name: "long_running",
                ..
            }
            | Refusal::Throttled { .. } => over("ConcurrentPerOrgLongTxn Limit exceeded."),
            Refusal::OverLimit { .. } => over("ConcurrentRequests Limit exceeded."),
            Refusal::Unauthorized => session_over(),
            Refusal::ServerError(503) => {
                said(503, "SERVER_UNAVAILABLE", "Server temporarily unavailable")
            }
            Refusal::ServerError(status) => {
                said(status, "UNKNOWN_EXCEPTION", "An unexpected error occurred")
            }
            Refusal::Maintenance { .. } => said(
                503,
                "SERVER_UNAVAILABLE",
                "The instance is down for maintenance",
            ),
        }
    }

    fn stamp(&self, limits: &LimitSet, now: Duration, class: CallClass, reply: &mut Reply) {
        if class == CallClass::Mint {
            return;
        }
        if let Some(daily) = limits.gauge("daily", now) {
            let usage = format!("api-usage={}/{}", daily.used, daily.limit);
            reply.headers.push(("sforce-limit-info", usage));
        }
    }

    fn records(&self) -> Box<dyn Iterator<Item = (&str, RemoteId, &Record)> + '_> {
        Box::new(self.crm.records().filter_map(|(object, serial, record)| {
            let id = self.schema.object(object)?.id(serial);
            Some((object, id.into(), record))
        }))
    }

    fn duplicate_creates(&self) -> u64 {
        self.crm.duplicate_creates()
    }

    fn edit(&mut self, scene: &Scene<'_>, edit: &Edit) -> Result<RemoteId, &'static str> {
        let object = self
            .schema
            .object(&edit.object)
            .ok_or("there is no such object")?;
        self.schema.settle(&object);
        let serial_of = |id: &str| {
            let id = SalesforceId::parse(id).filter(|id| id.prefix() == object.prefix);
            id.map(SalesforceId::serial)
        };
        let serial = self.crm.edit(scene.now, &object.name, edit, serial_of)?;
        Ok(object.id(serial).into())
    }

    fn expire_tokens(&mut self) {
        self.tokens.expire();
    }
}

fn is_token_path(path: &str) -> bool {
    path.trim_end_matches('/') == "/services/oauth2/token"
}

fn session_over() -> Reply {
    let error = json!([
        { "message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID" }
    ]);
    Reply::json(401, &error)
}

/// `GET /limits`, as far as calls go.
fn limits_page(scene: &Scene<'_>) -> Reply {
    let daily = scene.limits.gauge("daily", scene.now);
    let page = daily.map_or_else(|| json!({}), |daily| {
        json!({ "DailyApiRequests": { "Max": daily.limit, "Remaining": daily.remaining() } })
    });
    Reply::json(200, &page)
}
