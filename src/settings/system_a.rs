//! `[system_a]`: how the company's own system learns what the accounts changed.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use net::egress::Origin;
use serde::Deserialize;

use super::auth::AuthSettings;
use super::provider::{AccountSettings, ProviderSettings, RetrySettings, WebhookSettings};
use super::quantity;
use super::secret::SecretSource;

/// `[system_a]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemASettings {
    /// Each change is posted here; absent: consumers subscribe over TCP.
    pub url: Option<String>,
    /// Signs what is posted (Standard Webhooks).
    pub secret: Option<SecretSource>,
    /// Changes under way at once, at most; absent: 64 posts, or 1,024 changes that consumers have
    /// not acknowledged or a database has not committed.
    pub max_in_flight: Option<NonZeroU32>,
    /// How long a consumer may be away before what waits for it goes to disk.
    #[serde(deserialize_with = "quantity::duration")]
    pub absent_after: Duration,
    /// One post's time, from connecting to the last byte.
    #[serde(deserialize_with = "quantity::duration")]
    pub timeout: Duration,
    /// Whether waiting changes of a record become one.
    pub fold: bool,
    /// `[system_a.retry]`
    pub retry: RetrySettings,
    /// `[system_a.postgres]`: System A is this database.
    pub postgres: Option<PostgresSettings>,
}

/// `[system_a.postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresSettings {
    /// `postgres://user:password@host/database`, by `env:`, `file:` or `exec:`.
    pub url: SecretSource,
    /// The replication slot, made if there is none; of this node alone.
    #[serde(default = "syncline")]
    pub slot: String,
    /// The publication, made if there is none.
    #[serde(default = "syncline")]
    pub publication: String,
}

fn syncline() -> String {
    "syncline".to_owned()
}

/// Where changes would be posted if nobody subscribed: nowhere that exists (RFC 6761).
const NOWHERE: &str = "http://system-a.invalid";

/// Each post has a connection of its own.
const POSTS_MAX: NonZeroU32 = NonZeroU32::new(64).expect("not zero");
/// As many as one consumer is given without an ack: some hundred kilobytes of common changes.
const OFFERS_MAX: NonZeroU32 = NonZeroU32::new(1_024).expect("not zero");

impl Default for SystemASettings {
    fn default() -> SystemASettings {
        SystemASettings {
            url: None,
            secret: None,
            max_in_flight: None,
            absent_after: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            fold: true,
            retry: RetrySettings {
                // System A is down for a weekend now and then, and nothing else keeps its changes.
                max_attempts: NonZeroU32::new(1_000).expect("not zero"),
                max_age: Duration::from_secs(30 * 86_400),
                ..RetrySettings::default()
            },
            postgres: None,
        }
    }
}

impl SystemASettings {
    /// What is wrong with the address.
    pub(super) fn check_url(&self) -> Result<(), String> {
        if self.url.is_some() && self.postgres.is_some() {
            return Err("changes go to `url` or into the tables of `postgres`".to_owned());
        }
        let Some(url) = &self.url else { return Ok(()) };
        Origin::parse(url).map(|_| ()).map_err(|e| e.to_string())
    }

    /// System A as an account: what is sent to it waits, is retried and is shown like all else.
    pub(super) fn account(&self) -> ProviderSettings {
        let url = self.url.as_deref().unwrap_or(NOWHERE);
        ProviderSettings {
            definition: "rest".to_owned(),
            account: AccountSettings {
                definition: Some("rest".to_owned()),
                base_url: Some(url.to_owned()),
                max_in_flight: self.max_in_flight.unwrap_or(if self.url.is_some() {
                    POSTS_MAX
                } else {
                    OFFERS_MAX
                }),
                timeout: self.timeout,
                fold: self.fold,
                retry: self.retry.clone(),
                ..AccountSettings::default()
            },
            limits: Vec::new(),
            auth: AuthSettings::None,
            webhook: self.secret.clone().map(WebhookSettings::signed_with),
            switches: BTreeMap::new(),
        }
    }
}
