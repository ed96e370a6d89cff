//! From settings to what takes deliveries and asks for changes.

use std::collections::BTreeMap;
use std::sync::Mutex;

use engine::provider::{Definition, shipped};
use engine::shard::SYSTEM_A;
use net::metrics::Metrics;

use super::webhook_intake::{Rate, WebhookAccount};
use crate::runtime::StartError;
use crate::settings::{Settings, WebhookSettings};

/// The accounts that take deliveries, secrets resolved.
pub(crate) fn webhook_accounts(
    settings: &Settings,
    metrics: &Metrics,
) -> Result<BTreeMap<String, WebhookAccount>, StartError> {
    let mut accounts = BTreeMap::new();
    for (name, provider) in &settings.providers {
        // System A's secret signs what it is told; nothing comes in by it here.
        let webhook = provider.webhook.as_ref().filter(|_| name != SYSTEM_A);
        let Some(webhook) = webhook else {
            continue;
        };
        let definition = shipped(&provider.definition);
        let definition = definition.and_then(|text| Definition::parse(text).ok());
        let definition = definition.as_ref().and_then(Definition::webhook);
        let definition = definition
            .ok_or_else(|| StartError::config(name, "its definition has no webhooks".to_owned()))?;
        let account = WebhookAccount {
            definition: definition.clone(),
            signature: webhook.signature.clone(),
            account: webhook.account.clone(),
            secrets: WebhookSettings::secrets(webhook)
                .map(|source| source.resolve())
                .collect::<Result<_, _>>()
                .map_err(|error| StartError::config(name, error.to_string()))?,
            rate: Mutex::new(Rate::new(webhook.rate_limit.get())),
            label: metrics.account(name),
        };
        accounts.insert(name.clone(), account);
    }
    Ok(accounts)
}
