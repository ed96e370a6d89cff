//! `[providers.NAME]`: one account at a provider, as the file states it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use engine::provider::RestSettings;
use engine::rules::Share;
use serde::Deserialize;

use super::auth::AuthSettings;
use super::limit::LimitSettings;
use super::quantity;
use super::secret::SecretSource;

/// One account, ready to use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderSettings {
    /// A definition's name, or the path of one's own; default: the account's name.
    pub definition: String,
    /// The account's plain keys.
    pub account: AccountSettings,
    /// Windows that hold at once; a name equal to the definition's replaces it.
    pub limits: Vec<LimitSettings>,
    /// How calls prove who they are.
    pub auth: AuthSettings,
    /// Verifies inbound notifications.
    pub webhook: Option<WebhookSettings>,
    /// Set at run time, in place of what the mappings of these objects say.
    pub switches: BTreeMap<String, ObjectSwitch>,
}

/// What takes part, of an object's records at an account; what is absent is as its mapping says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ObjectSwitch {
    /// False: none of them.
    pub enabled: Option<bool>,
    /// This part of them.
    pub share: Option<Share>,
}

impl ProviderSettings {
    /// Every secret the account needs.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let webhook = self.webhook.iter().flat_map(WebhookSettings::secrets);
        self.auth.secrets().chain(webhook)
    }
}

/// The keys that stand directly in `[providers.NAME]`, with its small tables.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountSettings {
    /// As [`ProviderSettings::definition`]; `None`: the account's name.
    #[serde(rename = "type")]
    pub definition: Option<String>,
    /// Replaces the definition's host.
    pub base_url: Option<String>,
    /// PEM file of certificates to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Calls in flight at once, at most.
    pub max_in_flight: NonZeroU32,
    /// One call's time, from connecting to the last byte.
    #[serde(deserialize_with = "quantity::duration")]
    pub timeout: Duration,
    /// Whether waiting changes of a record become one call.
    pub fold: bool,
    /// False: no calls are made; events are taken and wait.
    pub enabled: bool,
    /// The part of the records that it takes.
    pub share: Share,
    /// How long an absent record may still appear after an unknown create.
    #[serde(deserialize_with = "quantity::duration")]
    pub settle: Duration,
    /// How long a record waits for one it refers to before it fails.
    #[serde(deserialize_with = "quantity::duration")]
    pub parent_timeout: Duration,
    /// Whose id the producers' `record_id` is.
    pub record_id_is: RecordIdIs,
    /// `[providers.NAME.retry]`
    pub retry: RetrySettings,
    /// `[providers.NAME.breaker]`
    pub breaker: BreakerSettings,
    /// `[providers.NAME.batch]`
    pub batch: BatchSettings,
    /// `[providers.NAME.weights]`
    pub weights: WeightSettings,
    /// `[providers.NAME.rest]`: requests that replace the definition's.
    pub rest: RestSettings,
    /// `[providers.NAME.poll]`
    pub poll: PollSettings,
}

impl Default for AccountSettings {
    fn default() -> AccountSettings {
        AccountSettings {
            definition: None,
            base_url: None,
            ca_file: None,
            max_in_flight: NonZeroU32::new(32).expect("not zero"),
            timeout: Duration::from_secs(30),
            fold: true,
            enabled: true,
            share: Share::ALL,
            settle: Duration::from_secs(5),
            parent_timeout: Duration::from_secs(3600),
            record_id_is: RecordIdIs::Local,
            retry: RetrySettings::default(),
            breaker: BreakerSettings::default(),
            batch: BatchSettings::default(),
            weights: WeightSettings::default(),
            rest: RestSettings::default(),
            poll: PollSettings::default(),
        }
    }
}

/// Whose id an event's `record_id` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecordIdIs {
    /// System A's.
    Local,
    /// The provider's.
    Remote,
}

/// When a failed operation is tried again, and when no more; full jitter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrySettings {
    /// Calls that may fail before the operation does.
    pub max_attempts: NonZeroU32,
    /// Since acceptance; then the operation fails whatever its attempts.
    #[serde(deserialize_with = "quantity::duration")]
    pub max_age: Duration,
    /// Ceiling of the first wait; doubles each time.
    #[serde(deserialize_with = "quantity::duration")]
    pub base_delay: Duration,
    /// Ceiling of every wait.
    #[serde(deserialize_with = "quantity::duration")]
    pub max_delay: Duration,
}

impl Default for RetrySettings {
    fn default() -> RetrySettings {
        RetrySettings {
            max_attempts: NonZeroU32::new(12).expect("not zero"),
            max_age: Duration::from_secs(86_400),
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(60),
        }
    }
}

/// When an account rests because its provider is ill.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerSettings {
    /// Failures in a row that open it.
    pub failure_threshold: NonZeroU32,
    /// How long it stays open before a probe.
    #[serde(deserialize_with = "quantity::duration")]
    pub open_for: Duration,
}

impl Default for BreakerSettings {
    fn default() -> BreakerSettings {
        BreakerSettings {
            failure_threshold: NonZeroU32::new(5).expect("not zero"),
            open_for: Duration::from_secs(30),
        }
    }
}

/// How many records one call takes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchSettings {
    /// Records in one call; 1 = no batches; absent: the definition's.
    pub max_items: Option<NonZeroU32>,
    /// How long a record may wait for company.
    #[serde(deserialize_with = "quantity::wait")]
    pub max_wait: Duration,
}

impl Default for BatchSettings {
    fn default() -> BatchSettings {
        BatchSettings {
            max_items: None,
            max_wait: Duration::from_millis(50),
        }
    }
}

/// How the objects and tenants of an account share its calls; whoever is not named has 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WeightSettings {
    /// By object.
    pub objects: BTreeMap<String, NonZeroU32>,
    /// By an event's `tenant`.
    pub tenants: BTreeMap<String, NonZeroU32>,
}

/// Verifies a provider's notifications.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookSettings {
    /// The key of the signature.
    pub secret: SecretSource,
    /// Keys that are still good while the provider changes over to `secret`.
    #[serde(default)]
    pub former_secrets: Vec<SecretSource>,
    /// One of the definition's signatures by name; absent: its first.
    #[serde(default)]
    pub signature: Option<String>,
    /// The account's id at the provider; deliveries for another one are refused.
    #[serde(default)]
    pub account: Option<String>,
    /// Deliveries in a second, at most.
    #[serde(default = "webhook_rate")]
    pub rate_limit: NonZeroU32,
}

/// Ten open requests (what HubSpot and Outreach allow an account) of 25 ms each, and half of it.
fn webhook_rate() -> NonZeroU32 {
    NonZeroU32::new(200).expect("not zero")
}

impl WebhookSettings {
    /// One key, and defaults.
    pub(super) fn signed_with(secret: SecretSource) -> WebhookSettings {
        WebhookSettings {
            secret,
            former_secrets: Vec::new(),
            signature: None,
            account: None,
            rate_limit: webhook_rate(),
        }
    }

    /// Every key that is good, the newest first.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        std::iter::once(&self.secret).chain(&self.former_secrets)
    }
}

/// How an account is asked for changes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PollSettings {
    /// Whether it is.
    pub enabled: bool,
    /// Between two rounds, for lists of changes; absent: the definition's.
    #[serde(deserialize_with = "quantity::optional_duration")]
    pub interval: Option<Duration>,
    /// How much of a list is read again each round; absent: the definition's.
    #[serde(deserialize_with = "quantity::optional_duration")]
    pub overlap: Option<Duration>,
    /// Where the first round of a list begins; absent: at the time of the first start.
    #[serde(deserialize_with = "quantity::optional_instant")]
    pub from: Option<i64>,
}

impl Default for PollSettings {
    fn default() -> PollSettings {
        PollSettings {
            enabled: true,
            interval: None,
            overlap: None,
            from: None,
        }
    }
}
