//! What an account is opened with.

use std::time::Duration;

use crate::fault::FaultSpec;
use crate::limit::Limit;
use crate::oauth::Credentials;
use crate::provider_kind::ProviderKind;
use crate::scenario::Scenario;

/// How an account behaves.
#[derive(Debug, Clone)]
pub struct AccountConfig {
    /// The provider it is an account of.
    pub provider: ProviderKind,
    /// What its dice start from.
    pub seed: u64,
    /// Rate limits beside the provider's own, all in force at once; one that bears the name of an
    /// own one changes it.
    pub limits: Vec<Limit>,
    /// Faults that hold always.
    pub faults: FaultSpec,
    /// Faults that hold at times.
    pub scenario: Scenario,
    /// `rest`: refuse a create whose external id is live, with 409.
    pub unique: bool,
    /// `rest`: answer a repeated idempotency key with the first answer.
    pub honour_keys: bool,
    /// What callers prove themselves with. `rest` asks for it when there are `tokens`.
    pub credentials: Credentials,
    /// Fields that hold the caller's own key, as `FIELD` or `OBJECT.FIELD`, beside the usual one.
    pub key_fields: Vec<String>,
    /// Where callers reach the account, for replies that tell them.
    pub base_url: String,
    /// Where notifications of changes go, for providers that send any.
    pub webhook: Option<String>,
    /// Memory for the journal; the oldest calls are forgotten beyond it.
    pub journal_bytes_max: usize,
    /// Unix time at which `now` is zero: what the journal and the records' own times count from.
    pub epoch: Duration,
}

impl Default for AccountConfig {
    fn default() -> Self {
        Self {
            provider: ProviderKind::Rest,
            seed: 0,
            limits: Vec::new(),
            faults: FaultSpec::default(),
            scenario: Scenario::default(),
            unique: false,
            honour_keys: false,
            credentials: Credentials::default(),
            key_fields: Vec::new(),
            base_url: "http://127.0.0.1".to_owned(),
            webhook: None,
            // About 700,000 calls with a body of 400 bytes.
            journal_bytes_max: 512 << 20,
            epoch: Duration::ZERO,
        }
    }
}
