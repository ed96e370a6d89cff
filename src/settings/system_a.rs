//! `[system_a]`: how the company's own system learns what the accounts changed.

use std::num::NonZeroU32;
use std::time::Duration;

use engine::provider::RestSettings;
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
    /// Changes under way at once, at most.
    pub max_in_flight: NonZeroU32,
    /// One post's time, from connecting to the last byte.
    #[serde(deserialize_with = "quantity::duration")]
    pub timeout: Duration,
    /// Whether waiting changes of a record become one.
    pub fold: bool,
    /// `[system_a.retry]`
    pub retry: RetrySettings,
}

/// Where changes would be posted if nobody subscribed: nowhere that exists (RFC 6761).
const NOWHERE: &str = "http://system-a.invalid";

impl Default for SystemASettings {
    fn default() -> SystemASettings {
        SystemASettings {
            url: None,
            secret: None,
            max_in_flight: NonZeroU32::new(64).expect("not zero"),
            timeout: Duration::from_secs(30),
            fold: true,
            retry: RetrySettings {
                // System A is down for a weekend now and then, and nothing else keeps its changes.
                max_attempts: NonZeroU32::new(1_000).expect("not zero"),
                max_age: Duration::from_secs(30 * 86_400),
                ..RetrySettings::default()
            },
        }
    }
}

impl SystemASettings {
    /// What is wrong with the address.
    pub(super) fn check_url(&self) -> Result<(), String> {
        let Some(url) = &self.url else { return Ok(()) };
        Origin::parse(url).map(|_| ()).map_err(|e| e.to_string())
    }

    /// System A as an account: what is sent to it waits, is retried and is shown like all else.
    pub(super) fn account(&self) -> ProviderSettings {
        let url = self.url.as_deref().unwrap_or(NOWHERE);
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        ProviderSettings {
            definition: "rest".to_owned(),
            account: AccountSettings {
                definition: Some("rest".to_owned()),
                base_url: Some(format!("{scheme}://{host}")),
                max_in_flight: self.max_in_flight,
                timeout: self.timeout,
                fold: self.fold,
                retry: self.retry.clone(),
                rest: RestSettings {
                    upsert: Some(format!("POST {path}")),
                    ..RestSettings::default()
                },
                ..AccountSettings::default()
            },
            limits: Vec::new(),
            auth: AuthSettings::None,
            webhook: self.secret.clone().map(WebhookSettings::signed_with),
        }
    }
}
