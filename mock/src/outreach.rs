//! An Outreach org over its JSON:API: one record a call, filters, cursors, notifications.
//!
//! Paths, replies and limits are those of the published OpenAPI description and of recorded
//! calls; `docs/design/simulated-providers.md` lists what is modelled and what is not.

mod events;
mod list;
mod resources;
mod wrong;

use std::time::Duration;

use http::Method;
use serde_json::{Map, Value, json};

use crate::account::AccountConfig;
use crate::crm::{Crm, KeyField};
use crate::exchange::Reply;
use crate::limit::{CallClass, Limit, LimitSet};
use crate::oauth::{Denied, Form, TokenRules, Tokens, Worth};
use crate::open_writes::RecordKey;
use crate::provider::{Change, Edit, Provider, RawCall, Refusal, Scene, Subject, whole_seconds};
use crate::record::{Record, RemoteId};
use crate::stamp;
use crate::target;
use crate::webhook::Deliveries;
use events::Subscription;
use wrong::Wrong;

/// An org.
#[derive(Debug)]
pub(crate) struct Outreach {
    crm: Crm,
    tokens: Tokens,
    deliveries: Deliveries,
    subscription: Option<Subscription>,
    subscriptions: u64,
    base_url: String,
}

/// A request below `/api/v2`.
#[derive(Debug)]
struct Ask {
    method: Method,
    resource: String,
    id: Option<String>,
    query: Vec<(String, String)>,
    content_type: String,
    body: bytes::Bytes,
}

/// Requests a user makes in an hour (API reference, rate limiting, read 2026-11).
const HOURLY_CALLS: u32 = 10_000;
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Tokens a user and application get (OAuth guide, read 2026-11).
const MINTS: u32 = 1;
const MINT_WINDOW: Duration = Duration::from_secs(60);

/// The same guide: two hours, two weeks, each refresh token once.
const TOKENS: TokenRules = TokenRules {
    prefix: "eyJ-",
    ttl: Duration::from_secs(2 * 60 * 60),
    refresh_ttl: Some(Duration::from_secs(14 * 24 * 60 * 60)),
    rotates: true,
    grants: &["refresh_token", "authorization_code"],
};

/// The one content type that bodies may have.
const JSON_API: &str = "application/vnd.api+json";

impl Outreach {
    pub(crate) fn new(config: &AccountConfig) -> Self {
        let typed = config.key_fields.iter().map(|text| KeyField::typed(text));
        let mut keys: Vec<_> = typed.collect();
        keys.push(KeyField::external("externalId").of("prospects"));
        keys.push(KeyField::external("emails").of("prospects").incidental());
        keys.push(KeyField::external("customId").of("accounts"));
        let secret = config.credentials.client_secret.clone();
        let subscription = config.webhook.clone().map(Subscription::to_everything);
        Self {
            crm: Crm::new(keys, 1),
            tokens: Tokens::new(TOKENS, config.credentials.clone(), config.seed),
            deliveries: Deliveries::new(events::RULES, config.webhook.clone(), secret),
            subscriptions: subscription.iter().len() as u64,
            subscription,
            base_url: config.base_url.clone(),
        }
    }

    fn token(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        let minted = self.tokens.mint(scene.now, scene.unix(), &Form::of(call));
        let (status, code, description) = match minted {
            Ok(minted) => {
                let reply = json!({
                    "access_token": minted.access,
                    "token_type": "Bearer",
                    "expires_in": minted.expires_in.as_secs(),
                    "refresh_token": minted.refresh,
                    "scope": "prospects.all accounts.all opportunities.all webhooks.all",
                    "created_at": scene.unix().as_secs(),
                });
                return Reply::json(200, &reply);
            }
            Err(Denied::UnsupportedGrant) => (
                400,
                "unsupported_grant_type",
                "the grant type is not supported",
            ),
            Err(Denied::InvalidClient) => (401, "invalid_client", "client authentication failed"),
            Err(Denied::InvalidGrant(why)) => (400, "invalid_grant", why),
        };
        let error = json!({ "error": code, "error_description": description });
        Reply::json(status, &error)
    }

    fn resource(&mut self, scene: &Scene<'_>, ask: &Ask) -> Result<Reply, Wrong> {
        let sends = ask.method == Method::POST || ask.method == Method::PATCH;
        if sends && !ask.content_type.starts_with(JSON_API) {
            let detail = format!("the content type must be {JSON_API}");
            return Err(Wrong::new(415, "unsupportedMediaType", detail));
        }
        if ask.resource == "webhooks" {
            return self.webhooks(ask);
        }
        if resources::singular(&ask.resource).is_none() {
            return Err(Wrong::not_found());
        }
        match (ask.method.as_str(), ask.id.as_deref()) {
            ("GET", None) => self.list(scene, ask),
            ("POST", None) => self.create(scene, ask),
            ("GET", Some(id)) => self.read(scene, ask, id),
            ("PATCH", Some(id)) => self.update(scene, ask, id),
            ("DELETE", Some(id)) => self.destroy(scene, ask, id),
            _ => Err(Wrong::new(
                405,
                "methodNotAllowed",
                "the method is not allowed here",
            )),
        }
    }

    fn subject_of(&self, ask: &Ask) -> Subject {
        let subject = Subject::of(&ask.resource);
        let by_id = |id: &str| self.crm.record_key(&ask.resource, id.parse().ok(), id);
        match (ask.method.as_str(), ask.id.as_deref()) {
            ("POST", None) => {
                let fields = ask.document().map(resources::Document::into_fields);
                let fields = fields.unwrap_or_default();
                let external_id = self.crm.external_id_in(&ask.resource, &fields);
                let key = external_id.map(|id| RecordKey::by_external_id(&ask.resource, &id));
                Subject {
                    records: 1,
                    ..subject.writing(key.into_iter().collect())
                }
            }
            ("PATCH" | "DELETE", Some(id)) => subject.writing(vec![by_id(id)]),
            ("GET", Some(id)) => Subject {
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
        let (resource, id) = match parts.as_slice() {
            [api, v2, resource] if api == "api" && v2 == "v2" => (resource, None),
            [api, v2, resource, id] if api == "api" && v2 == "v2" => (resource, Some(id)),
            _ => return None,
        };
        Some(Self {
            method: call.method.clone(),
            resource: resource.clone(),
            id: id.cloned(),
            query: target::pairs(call.query()).ok()?,
            content_type: call.header("content-type").unwrap_or_default().to_owned(),
            body: call.body.clone(),
        })
    }

    fn query_value(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl Provider for Outreach {
    fn limits(&self) -> Vec<Limit> {
        vec![
            Limit::fixed("hourly", HOURLY_CALLS, HOUR),
            Limit::sliding("mint", MINTS, MINT_WINDOW).only(CallClass::Mint),
        ]
    }

    fn subject(&self, call: &RawCall) -> Subject {
        if call.path() == "/oauth/token" {
            return Subject::mint();
        }
        Ask::of(call).map_or_else(Subject::none, |ask| self.subject_of(&ask))
    }

    fn admit(&mut self, scene: &Scene<'_>, call: &RawCall) -> Result<(), Reply> {
        let token = call.bearer().unwrap_or_default();
        let known = self.tokens.worth(scene.now, token) == Worth::Good;
        if call.path() == "/oauth/token" || known {
            return Ok(());
        }
        Err(self.refuse(&Refusal::Unauthorized))
    }

    fn carry_out(&mut self, scene: &Scene<'_>, call: &RawCall) -> Reply {
        if call.path() == "/oauth/token" {
            return self.token(scene, call);
        }
        let replied = match Ask::of(call) {
            Some(ask) if scene.faults.forbids(&ask.resource) => Err(Wrong::new(
                403,
                "unauthorizedOauthScope",
                "The token lacks the scope for this resource.",
            )),
            Some(ask) => self.resource(scene, &ask),
            None => Err(Wrong::not_found()),
        };
        let mut reply = replied.unwrap_or_else(Wrong::into_reply);
        reply.content_type = reply.content_type.map(|_| JSON_API);
        reply
    }

    fn refuse(&self, refusal: &Refusal<'_>) -> Reply {
        let said = |status, id: &'static str, detail: &str| {
            let reply = Wrong::new(status, id, detail).into_reply();
            Reply {
                content_type: Some(JSON_API),
                ..reply
            }
        };
        match *refusal {
            Refusal::OverLimit { wait, .. }
            | Refusal::Throttled { wait }
            | Refusal::DailySpent { wait } => {
                let reply = said(
                    429,
                    "rateLimitExceeded",
                    "You have exceeded your rate limit",
                );
                reply.with_retry_after(whole_seconds(wait))
            }
            Refusal::Unauthorized => said(
                401,
                "unauthorized",
                "The access token is invalid or expired",
            ),
            Refusal::ServerError(status) => {
                said(status, "internalServerError", "Something went wrong")
            }
            // Here alone the header is an instant.
            Refusal::Maintenance { over_at, .. } => {
                let detail = "The service is down for scheduled maintenance";
                let reply = said(503, "scheduledServerMaintenance", detail);
                reply.with_header("retry-after", stamp::seconds(over_at))
            }
        }
    }

    fn stamp(&self, limits: &LimitSet, now: Duration, class: CallClass, reply: &mut Reply) {
        if class == CallClass::Mint {
            return;
        }
        if let Some(hourly) = limits.gauge("hourly", now) {
            let reset = whole_seconds(hourly.resets_in).to_string();
            let remaining = hourly.remaining().to_string();
            reply
                .headers
                .push(("x-ratelimit-limit", hourly.limit.to_string()));
            reply.headers.push(("x-ratelimit-remaining", remaining));
            reply.headers.push(("x-ratelimit-reset", reset));
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
        let object = edit.object.as_str();
        if resources::singular(object).is_none() {
            return Err("there is no such object");
        }
        if matches!(edit.change, Change::MergeInto(_)) {
            return Err("records are not merged here");
        }
        let number = edit.id.as_deref().and_then(|id| id.parse().ok());
        let before = number.map(|serial| self.fields_of(object, serial));
        let serial = self
            .crm
            .edit(scene.now, object, edit, |id| id.parse().ok())?;
        let before = before.unwrap_or_default();
        match &edit.change {
            Change::Create(fields) => self.tell(scene, object, serial, "created", fields, &before),
            Change::Update(fields) => self.tell(scene, object, serial, "updated", fields, &before),
            _ => self.tell(scene, object, serial, "destroyed", &Map::new(), &before),
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

/// Attributes and relationships lie side by side in the books; these are told apart by their
/// shape.
fn is_relationship(value: &Value) -> bool {
    value.get("data").is_some() || value.get("type").is_some() && value.get("id").is_some()
}
