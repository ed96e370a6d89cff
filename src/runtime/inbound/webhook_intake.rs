//! Deliveries of providers: believed, read, made durable, acknowledged.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::provider::{Delivery, Unproven, WebhookDefinition};
use engine::refusal::{Code, Refusal};
use net::http::{WebhookDelivery, Webhooks};
use net::metrics::{AccountLabel, MetricsWriter, WebhookResult};

use super::sink::{InboundSink, Taken, Via};
use crate::settings::Secret;

/// Takes the deliveries of all accounts that have webhooks.
pub(crate) struct WebhookIntake<S> {
    accounts: BTreeMap<String, WebhookAccount>,
    /// How the outside reaches this node, without a slash at its end; providers sign it.
    public_url: Option<String>,
    sink: Arc<S>,
    metrics: Mutex<MetricsWriter>,
    /// The wall clock, ms since the epoch.
    now_ms: fn() -> i64,
}

/// One account's side of it.
#[derive(Debug)]
pub(crate) struct WebhookAccount {
    pub(crate) definition: WebhookDefinition,
    /// The signature it chose.
    pub(crate) signature: Option<String>,
    /// Its id at the provider.
    pub(crate) account: Option<String>,
    pub(crate) secrets: Vec<Secret<String>>,
    pub(crate) rate: Mutex<Rate>,
    pub(crate) label: Option<AccountLabel>,
}

/// Deliveries of the second that runs.
#[derive(Debug)]
pub(crate) struct Rate {
    max: u32,
    second: i64,
    taken: u32,
}

impl<S: InboundSink> WebhookIntake<S> {
    pub(crate) fn new(
        accounts: BTreeMap<String, WebhookAccount>,
        public_url: Option<&str>,
        sink: Arc<S>,
        metrics: MetricsWriter,
        now_ms: fn() -> i64,
    ) -> WebhookIntake<S> {
        WebhookIntake {
            accounts,
            public_url: public_url.map(|url| url.trim_end_matches('/').to_owned()),
            sink,
            metrics: Mutex::new(metrics),
            now_ms,
        }
    }

    async fn take(
        &self,
        name: &str,
        account: &WebhookAccount,
        delivery: &WebhookDelivery,
    ) -> Result<(u16, WebhookResult), (Refusal, WebhookResult)> {
        let now_ms = (self.now_ms)();
        let uri = self.uri(delivery);
        let delivered = Delivery {
            method: &delivery.method,
            uri: &uri,
            headers: &delivery.headers,
            body: &delivery.body,
        };
        let definition = &account.definition;
        let secrets = account.secrets.iter();
        let secrets: Vec<&str> = secrets.map(|secret| secret.expose().as_str()).collect();
        let signature = account.signature.as_deref();
        let own = account.account.as_deref();
        definition
            .verify(signature, &secrets, own, now_ms, &delivered)
            .map_err(unproven)?;
        // Counted only now: who cannot sign must not keep out who can.
        if !lock(&account.rate).admits(now_ms) {
            let detail = "the account delivers faster than its `rate_limit`";
            let refusal = Refusal::new(Code::RateLimited, detail);
            return Err((refusal, WebhookResult::RateLimited));
        }
        let received = definition.read(&delivered).map_err(|error| {
            let refusal = Refusal::new(Code::Malformed, error.to_string());
            (refusal, WebhookResult::Unreadable)
        })?;
        if let Some(fault) = received.fault {
            let events = received.unreadable;
            tracing::warn!(
                account = name,
                events,
                fault,
                "events of a delivery are passed over"
            );
        }
        if received.changes.is_empty() {
            return Ok((definition.ack(), WebhookResult::Ignored));
        }
        match self.sink.take(name, Via::Webhook, received.changes).await {
            Ok(taken) => Ok((definition.ack(), result_of(taken))),
            Err(refusal) => Err((refusal, WebhookResult::Refused)),
        }
    }

    /// The URL that the provider called, as it knows it.
    fn uri(&self, delivery: &WebhookDelivery) -> String {
        let path = &delivery.path_and_query;
        match &self.public_url {
            Some(url) => format!("{url}{path}"),
            // Whoever names another host has signed another text than the provider would.
            None => format!("http://{}{path}", delivery.host),
        }
    }

    fn count(&self, account: &str, result: WebhookResult) {
        let label = self.accounts.get(account);
        if let Some(label) = label.and_then(|account| account.label) {
            lock(&self.metrics).webhook(label, result);
        }
    }
}

impl<S: InboundSink> Webhooks for WebhookIntake<S> {
    fn takes(&self, account: &str) -> bool {
        self.accounts.contains_key(account)
    }

    fn too_large(&self, account: &str) {
        self.count(account, WebhookResult::TooLarge);
    }

    async fn deliver(&self, name: &str, delivery: WebhookDelivery) -> Result<u16, Refusal> {
        let Some(account) = self.accounts.get(name) else {
            return Err(Refusal::new(Code::NotFound, "no such account"));
        };
        let taken = self.take(name, account, &delivery).await;
        let (answer, result) = match taken {
            Ok((status, result)) => (Ok(status), result),
            Err((refusal, result)) => (Err(refusal), result),
        };
        self.count(name, result);
        answer
    }
}

impl<S> std::fmt::Debug for WebhookIntake<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.accounts.keys()).finish()
    }
}

impl Rate {
    pub(crate) fn new(max: u32) -> Rate {
        Rate {
            max,
            second: i64::MIN,
            taken: 0,
        }
    }

    fn admits(&mut self, now_ms: i64) -> bool {
        let second = now_ms.div_euclid(1000);
        if second != self.second {
            (self.second, self.taken) = (second, 0);
        }
        let admitted = self.taken < self.max;
        self.taken += u32::from(admitted);
        admitted
    }
}

/// One word to whoever is not believed: which part was wrong is told to the operator alone.
fn unproven(why: Unproven) -> (Refusal, WebhookResult) {
    let (detail, result) = match why {
        Unproven::Stale => (
            "the delivery was not signed within the time that is allowed",
            WebhookResult::Stale,
        ),
        Unproven::Unsigned | Unproven::Forged | Unproven::OtherAccount => (
            "the delivery carries no signature of this account",
            WebhookResult::Forged,
        ),
    };
    tracing::debug!(%why, "a delivery is refused");
    (Refusal::new(Code::Unauthorized, detail), result)
}

fn result_of(taken: Taken) -> WebhookResult {
    match taken {
        Taken { new: 1.., .. } => WebhookResult::Taken,
        Taken { duplicate: 1.., .. } => WebhookResult::Duplicate,
        Taken { unusable: 1.., .. } => WebhookResult::Unreadable,
        Taken { .. } => WebhookResult::Ignored,
    }
}

/// A panic while one of these short sections ran leaves plain data behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "tests/webhook_intake.rs"]
mod tests;
