//! The simulated accounts, running: their faults, and what they counted.

use std::collections::BTreeMap;
use std::time::Duration;

use ::mock::server::StartError;
use ::mock::{AccountConfig, FaultSpec, Limit, Server, ServerConfig, ServerHandle, Violations};
use serde_json::{Map, Value};

use super::accounts::{ACCOUNTS, AccountPlan};

/// One simulated account on a port of its own.
#[derive(Debug)]
pub(super) struct ProviderSide {
    pub(super) plan: &'static AccountPlan,
    server: ServerHandle,
}

/// Calls by what the account did with them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CallCounts {
    pub(super) calls: u64,
    /// Answered 429, and over no limit.
    pub(super) throttled: u64,
    /// Answered 5xx.
    pub(super) errors: u64,
    /// Ended without an answer: reset by the account, or left by an engine that was killed.
    pub(super) unanswered: u64,
}

/// A record at the account: its fields, and how many there are under the same external id.
#[derive(Debug, Clone)]
pub(super) struct RemoteRecord {
    pub(super) fields: Map<String, Value>,
    pub(super) copies: u32,
}

impl ProviderSide {
    /// Starts every account of the plan.
    ///
    /// # Errors
    /// When one cannot listen; those before it are stopped.
    pub(super) fn start_all(seed: u64, faults: &str) -> Result<Vec<ProviderSide>, StartError> {
        let sides = ACCOUNTS.iter().enumerate().map(|(at, plan)| {
            let limits = plan.limits.iter().map(|(limit, window_ms)| {
                let limit: Result<Limit, _> = format!("{limit}/{window_ms}ms").parse();
                limit.expect("the plan's limits are well-formed")
            });
            let account = AccountConfig {
                seed: seed.wrapping_add(at as u64),
                limits: limits.collect(),
                faults: parsed(faults),
                ..AccountConfig::default()
            };
            let server = Server::start(ServerConfig {
                account,
                ..ServerConfig::default()
            })?;
            Ok(ProviderSide { plan, server })
        });
        sides.collect()
    }

    pub(super) fn base_url(&self) -> String {
        self.server.base_url()
    }

    /// Replaces the standing faults.
    pub(super) fn set_faults(&self, faults: &str) {
        self.server
            .with_account(|_, account| account.replace_faults(&parsed(faults)));
    }

    /// Lays faults over the standing ones for a time.
    pub(super) fn add_faults(&self, length: Duration, faults: &str) {
        let added = self
            .server
            .with_account(|now, account| account.add_faults(now, length, parsed(faults)));
        added.expect("a script has a few windows only");
    }

    pub(super) fn counts(&self) -> CallCounts {
        self.server.with_account(|_, account| {
            let mut counts = CallCounts::default();
            for call in account.journal().after(0) {
                counts.calls += 1;
                match call.status {
                    0 => counts.unanswered += 1,
                    429 => counts.throttled += 1,
                    500.. => counts.errors += 1,
                    _ => {}
                }
            }
            counts.throttled = counts.throttled.saturating_sub(account.violations().total);
            counts
        })
    }

    pub(super) fn violations(&self) -> Violations {
        self.server.with_account(|_, account| account.violations())
    }

    /// The records by remote object and external id.
    pub(super) fn records(&self) -> BTreeMap<(String, String), RemoteRecord> {
        self.server.with_account(|_, account| {
            let mut records: BTreeMap<(String, String), RemoteRecord> = BTreeMap::new();
            for (object, id, record) in account.records() {
                let external_id = record
                    .external_id
                    .clone()
                    .unwrap_or_else(|| format!("(none, {id})"));
                records
                    .entry((object.to_owned(), external_id))
                    .and_modify(|known| known.copies += 1)
                    .or_insert_with(|| RemoteRecord {
                        fields: record.fields.clone(),
                        copies: 1,
                    });
            }
            records
        })
    }
}

fn parsed(faults: &str) -> FaultSpec {
    faults
        .parse()
        .expect("the script's faults are well-formed, as its tests check")
}
