//! A Pipedrive company account over API v2: one record a call, paid for in tokens.
//!
//! Paths, replies and limits are those of the API reference of v2 and of recorded headers;
//! `docs/design/simulated-providers.md` lists what is modelled and what is not.

mod records;

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::account::AccountConfig;
use crate::crm::{Crm, KeyField};
use crate::exchange::Reply;
use crate::limit::{CallClass, Limit, LimitSet};
use crate::oauth::{Denied, Form, TokenRules, Tokens, Worth};
use crate::open_writes::RecordKey;
use crate::provider::{Edit, Provider, RawCall, Refusal, Scene, Subject, whole_seconds};
use crate::record::{Record, RemoteId};
use crate::target;

/// A company's account.
#[derive(Debug)]
pub(crate) struct Pipedrive {
    crm: Crm,
    tokens: Tokens,
    base_url: String,
}

/// A request below `/api/v2`, or a merge below `/v1`.
#[derive(Debug)]
struct Ask {
    method: Method,
    entity: String,
    /// The path's parts behind the entity.
    parts: Vec<String>,
    query: Vec<(String, String)>,
    body: bytes::Bytes,
}

/// An error: status, code, sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wrong(u16, &'static str, String);

/// One seat of the Lite plan: 30,000 tokens a day, 80 requests in 2 s for each API token (rate
/// limiting, read 2026-11; the headers `x-ratelimit-limit: 80`, `-reset: 2` recorded 2026-05).
const DAILY_TOKENS: u32 = 30_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const BURST_CALLS: u32 = 80;
const SEARCH_CALLS: u32 = 10;
const BURST_WINDOW: Duration = Duration::from_secs(2);

/// What a 429 asks for, whichever limit it is: for a spent day it says nothing (recorded).
const RETRY_AFTER_S: u64 = 3;

const TOKENS: TokenRules = TokenRules {
    prefix: "v1u:",
    ttl: Duration::from_secs(60 * 60),
    refresh_ttl: None,
    rotates: false,
    grants: &["refresh_token", "authorization_code"],
};

const ENTITIES: [&str; 5] = [
    "persons",
    "organizations",
    "deals",
    "activities",
    "products",
];

impl Pipedrive {
    pub(crate) fn new(config: &AccountConfig) -> Self {
        let typed = config
            .key_fields
            .iter()
            .map(|text| KeyField::typed(text).shared());
        let mut keys: Vec<_> = typed.collect();
        for entity in ENTITIES {
            // Nothing is unique here: a custom field holds the caller's key, e-mail finds persons.
            let field = KeyField::external("custom_fields.external_id");
            keys.push(field.of(entity).shared());
        }
        keys.push(
            KeyField::external("emails")
                .of("persons")
                .shared()
                .incidental(),
        );
        Self {
            crm: Crm::new(keys, 1),
            tokens: Tokens::new(TOKENS, config.credentials.clone(), config.seed),
            base_url: config.base_url.clone(),
        }
    }

    fn token(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        let minted = self.tokens.mint(scene.now, scene.unix(), &Form::of(call));
        let (status, code) = match minted {
            Ok(minted) => {
                let reply = json!({
                    "access_token": minted.access,
                    "token_type": "Bearer",
                    "refresh_token": minted.refresh,
                    "scope": "base deals:full contacts:full",
                    "expires_in": minted.expires_in.as_secs(),
                    "api_domain": self.base_url,
                });
                return Reply::json(200, &reply);
            }
            Err(Denied::UnsupportedGrant) => (400, "unsupported_grant_type"),
            Err(Denied::InvalidClient) => (401, "invalid_client"),
            Err(Denied::InvalidGrant(_)) => (400, "invalid_grant"),
        };
        let error = json!({ "success": false, "error": code, "message": code });
        Reply::json(status, &error)
    }

    fn resource(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        match (ask.method.as_str(), parts.as_slice()) {
            ("GET", []) => self.list(scene, ask),
            ("POST", []) => self.create(scene, ask),
            ("GET", ["search"]) => self.search(scene, ask),
            ("GET", [id]) => self.read(scene, ask, id),
            ("PATCH", [id]) => self.update(scene, ask, id),
            ("DELETE", [id]) => self.delete(scene, ask, id),
            ("PUT", [id, "merge"]) => self.merge(scene, ask, id),
            _ => Err(Wrong::not_found("Resource")),
        }
    }

    fn subject_of(&self, ask: &Ask) -> Subject {
        let parts: Vec<&str> = ask.parts.iter().map(String::as_str).collect();
        let searches = parts.as_slice() == ["search"];
        let subject = Subject {
            cost: ask.cost(),
            class: if searches {
                CallClass::Search
            } else {
                CallClass::General
            },
            ..Subject::of(&ask.entity)
        };
        let by_id = |id: &str| self.crm.record_key(&ask.entity, id.parse().ok(), id);
        match (ask.method.as_str(), parts.as_slice()) {
            ("POST", []) => {
                let fields = ask.fields().unwrap_or_default();
                let external_id = self.crm.external_id_in(&ask.entity, &fields);
                let key = external_id.map(|id| RecordKey::by_external_id(&ask.entity, &id));
                Subject {
                    records: 1,
                    ..subject.writing(key.into_iter().collect())
                }
            }
            ("PATCH" | "DELETE" | "PUT", [id, ..]) => subject.writing(vec![by_id(id)]),
            ("GET", [id]) if !searches => Subject {
                external_id: by_id(id).external_id().map(str::to_owned),
                ..subject
            },
            _ => subject,
        }
    }
}

impl Ask {
    fn of(call: &RawCall) -> Option<Self> {
        let parts = target::path_parts(call.path()).ok()?;
        let texts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (entity, rest) = match texts.as_slice() {
            ["api", "v2", entity, rest @ ..] => (*entity, rest),
            ["v1", entity, rest @ ..] | ["api", "v1", entity, rest @ ..]
                if rest.last() == Some(&"merge") =>
            {
                (*entity, rest)
            }
            _ => return None,
        };
        ENTITIES.contains(&entity).then(|| Self {
            method: call.method.clone(),
            entity: entity.to_owned(),
            parts: rest.iter().map(|part| (*part).to_owned()).collect(),
            query: target::pairs(call.query()).unwrap_or_default(),
            body: call.body.clone(),
        })
    }

    /// Tokens of the day that the request costs (rate limiting, costs of API v2, read 2026-11).
    fn cost(&self) -> u32 {
        match (self.method.as_str(), self.parts.as_slice()) {
            ("GET", []) => 10,
            ("GET", [part]) if part == "search" => 20,
            ("GET", _) => 1,
            ("DELETE", _) => 3,
            ("PUT", _) => 40,
            _ => 5,
        }
    }

    fn query_value(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Wrong {
    fn not_found(what: &str) -> Self {
        Self(404, "ERR_NOT_FOUND", format!("{what} not found"))
    }

    fn invalid(message: impl Into<String>) -> Self {
        Self(400, "ERR_SCHEMA_VALIDATION_FAILED", message.into())
    }

    fn into_reply(self) -> Reply {
        let Self(status, code, message) = self;
        let body = json!({ "success": false, "error": message, "code": code, "data": null });
        Reply::json(status, &body)
    }
}

impl Provider for Pipedrive {
    fn limits(&self) -> Vec<Limit> {
        vec![
            Limit::sliding("burst", BURST_CALLS, BURST_WINDOW).only(CallClass::General),
            Limit::sliding("search", SEARCH_CALLS, BURST_WINDOW).only(CallClass::Search),
            Limit::fixed("daily", DAILY_TOKENS, DAY).weighed(),
        ]
    }

    /// Searches go by an index.
    fn nature(&self) -> &'static str {
        "stale=1s"
    }

    fn subject(&self, call: &RawCall) -> Subject {
        if call.path() == "/oauth/token" {
            return Subject::mint();
        }
        Ask::of(call).map_or_else(Subject::none, |ask| self.subject_of(&ask))
    }

    /// An API token in a header or in the query, or OAuth's bearer.
    fn admit(&mut self, scene: &Scene<'_>, call: &RawCall) -> Result<(), Reply> {
        if call.path() == "/oauth/token" {
            return Ok(());
        }
        let in_query = target::query_value(call.query(), "api_token")
            .ok()
            .flatten();
        let api_token = call.header("x-api-token").map(str::to_owned).or(in_query);
        let known = &self.tokens.credentials().tokens;
        let admitted = match &api_token {
            // Any API token is taken unless some are named.
            Some(token) => !token.is_empty() && (known.is_empty() || known.contains(token)),
            None => {
                let token = call.bearer().unwrap_or_default();
                self.tokens.worth(scene.now, token) == Worth::Good
            }
        };
        admitted
            .then_some(())
            .ok_or_else(|| self.refuse(&Refusal::Unauthorized))
    }

    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        if call.path() == "/oauth/token" {
            return self.token(scene, call);
        }
        let replied = match Ask::of(call) {
            Some(ask) => self.resource(scene, &ask),
            None => Err(Wrong::not_found("Resource")),
        };
        replied.unwrap_or_else(Wrong::into_reply)
    }

    fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        let said = |status, code, message: &str| Wrong(status, code, message.into()).into_reply();
        match *refusal {
            Refusal::OverLimit { name: "daily", .. } | Refusal::DailySpent { .. } => {
                let reply = said(429, "ERR_RATE_LIMIT", "daily API token budget exceeded");
                let reply = reply.with_retry_after(RETRY_AFTER_S);
                reply.with_header("x-daily-ratelimit-token-remaining", "0")
            }
            Refusal::OverLimit { wait, .. } | Refusal::Throttled { wait } => {
                let reply = said(429, "ERR_RATE_LIMIT", "request over limit");
                reply.with_retry_after(whole_seconds(wait))
            }
            Refusal::Unauthorized => said(401, "ERR_UNAUTHORIZED", "unauthorized access"),
            Refusal::ServerError(status) => said(status, "ERR_INTERNAL", "something went wrong"),
            Refusal::Maintenance { wait, .. } => {
                let reply = said(503, "ERR_UNAVAILABLE", "scheduled maintenance in progress");
                reply.with_retry_after(whole_seconds(wait))
            }
        }
    }

    fn stamp(&self, limits: &LimitSet, now: Duration, class: CallClass, reply: &mut Reply) {
        let burst = match class {
            CallClass::General => "burst",
            CallClass::Search => "search",
            CallClass::Mint => return,
        };
        if let Some(burst) = limits.gauge(burst, now) {
            let reset = BURST_WINDOW.as_secs().to_string();
            let remaining = burst.remaining().to_string();
            reply
                .headers
                .push(("x-ratelimit-limit", burst.limit.to_string()));
            reply.headers.push(("x-ratelimit-remaining", remaining));
            reply.headers.push(("x-ratelimit-reset", reset));
        }
        let told = reply.header("x-daily-ratelimit-token-remaining").is_some();
        if let Some(daily) = limits.gauge("daily", now).filter(|_| !told) {
            let remaining = daily.remaining().to_string();
            let headers = &mut reply.headers;
            headers.push(("x-daily-ratelimit-token-limit", daily.limit.to_string()));
            headers.push(("x-daily-ratelimit-token-remaining", remaining));
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
        if !ENTITIES.contains(&edit.object.as_str()) {
            return Err("there is no such object");
        }
        let serial_of = |id: &str| id.parse().ok();
        let serial = self.crm.edit(scene.now, &edit.object, edit, serial_of)?;
        Ok(RemoteId::number(serial))
    }

    fn expire_tokens(&mut self) {
        self.tokens.expire();
    }
}

/// A list of texts as a query carries it.
fn listed(value: Option<&str>) -> Option<Vec<&str>> {
    value.map(|value| value.split(',').map(str::trim).collect())
}

/// A reply about one thing.
fn success(data: &Value) -> Reply {
    Reply::json(200, &json!({ "success": true, "data": data }))
}
