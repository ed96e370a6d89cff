//! From settings to what the engine and the egress side work with.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use engine::id::{HashKey, OperationSeq};
use engine::mapping::Mapping;
use engine::provider::Definition;
use engine::quota::{AccountLimits, HoldSettings, Limit, Policy};
use engine::retry::RetryPolicy;
use engine::rules::RuleSet;
use engine::schema::Schema;
use engine::shard::AccountPlan;
use net::auth::TokenCell;
use net::egress::{self, AddressPolicy, Authorization, Origin};
use xxhash_rust::xxh3::xxh3_64;

use super::StartError;
use super::router::Router;
use super::rules::Rules;
use crate::settings::{
    AuthSettings, LimitKind, LimitSettings, ProviderSettings, Settings, TargetSettings, read_schema,
};

/// The plan of every account.
pub(crate) fn account_plans(settings: &Settings) -> Result<Vec<Arc<AccountPlan>>, StartError> {
    settings
        .providers
        .iter()
        .map(|(name, provider)| Ok(Arc::new(plan(settings, name, provider)?)))
        .collect()
}

fn plan(
    settings: &Settings,
    name: &str,
    provider: &ProviderSettings,
) -> Result<AccountPlan, StartError> {
    let account = &provider.account;
    let id = &provider.definition;
    let text = engine::provider::shipped(id)
        .ok_or_else(|| StartError::config(name, format!("there is no definition {id:?}")))?;
    let mut definition = Definition::parse(text)
        .and_then(|definition| definition.with_rest(&account.rest))
        .map_err(|error| StartError::config(name, super::shard_thread::chain(&error)))?;
    if let Some(items) = account.batch.max_items {
        definition = definition.with_batch_items_max(items.get() as usize);
    }
    let mut mappings = HashMap::new();
    for (object, wanted) in &settings.objects {
        for (_, target) in wanted.to.iter().filter(|(account, _)| account == name) {
            let mapping = mapping(object, target)?;
            if let Some(field) = mapping.external_id() {
                definition = definition.with_external_id(mapping.remote(), field);
            }
            mappings.insert(object.clone(), mapping);
        }
    }
    let retry = &account.retry;
    Ok(AccountPlan {
        name: name.into(),
        definition,
        mappings,
        retry: RetryPolicy {
            max_attempts: u16::try_from(retry.max_attempts.get()).unwrap_or(u16::MAX),
            max_age: retry.max_age,
            base_delay: retry.base_delay,
            max_delay: retry.max_delay,
        },
        settle: account.settle,
        timeout: account.timeout,
        fold: account.fold,
        parent_timeout: account.parent_timeout,
    })
}

fn mapping(object: &str, target: &TargetSettings) -> Result<Mapping, StartError> {
    Mapping::compile(object, &target.mapping(object))
        .map_err(|error| StartError::config(object, error.to_string()))
}

/// The limits of every account.
pub(crate) fn account_limits(settings: &Settings) -> Vec<AccountLimits> {
    settings
        .providers
        .iter()
        .map(|(name, provider)| {
            let account = &provider.account;
            AccountLimits {
                name: name.clone(),
                limits: provider.limits.iter().map(limit).collect(),
                max_in_flight: account.max_in_flight.get(),
                call_timeout: account.timeout,
                hold: HoldSettings {
                    failure_threshold: account.breaker.failure_threshold.get(),
                    open_for: account.breaker.open_for,
                    ..HoldSettings::default()
                },
            }
        })
        .collect()
}

fn limit(settings: &LimitSettings) -> Limit {
    let count = |value: NonZeroU64| u32::try_from(value.get()).unwrap_or(u32::MAX);
    let limit = count(settings.limit);
    let policy = match &settings.kind {
        LimitKind::Sliding(window) | LimitKind::Rolling(window) | LimitKind::Cost(window) => {
            Policy::Sliding {
                limit,
                window: *window,
            }
        }
        LimitKind::Fixed { window, timezone } => Policy::Fixed {
            limit,
            window: *window,
            utc_offset_s: utc_offset_s(timezone),
        },
        LimitKind::TokenBucket { window, burst } => Policy::TokenBucket {
            burst: count(*burst),
            refill: limit,
            period: *window,
        },
        LimitKind::Concurrency => Policy::Concurrency { limit },
    };
    Limit {
        name: settings.name.clone(),
        policy,
    }
}

/// `+02:00` as seconds; the settings have checked its form.
fn utc_offset_s(timezone: &str) -> i32 {
    let Some((hours, minutes)) = timezone.split_once(':') else {
        return 0;
    };
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let hours: i32 = hours.trim_start_matches(['+', '-']).parse().unwrap_or(0);
    let minutes: i32 = minutes.parse().unwrap_or(0);
    sign * (hours * 3600 + minutes * 60)
}

/// The egress side of every account, secrets resolved; `tokens` are of the accounts that have them.
pub(crate) fn egress_accounts(
    settings: &Settings,
    tokens: &HashMap<Arc<str>, TokenCell>,
) -> Result<Vec<(Arc<str>, egress::AccountSettings)>, StartError> {
    let named = |(name, provider): &(String, ProviderSettings)| {
        let authorization = match tokens.get(name.as_str()) {
            Some(cell) => Authorization::Token(cell.clone()),
            None => authorization(name, &provider.auth)?,
        };
        let account = egress_account(name, provider, authorization)?;
        Ok((name.as_str().into(), account))
    };
    settings.providers.iter().map(named).collect()
}

fn egress_account(
    name: &str,
    provider: &ProviderSettings,
    authorization: Authorization,
) -> Result<egress::AccountSettings, StartError> {
    let account = &provider.account;
    let base_url = account.base_url.as_deref().unwrap_or_default();
    let origin = Origin::parse(base_url)
        .map_err(|error| StartError::config(name, format!("base_url: {error}")))?;
    Ok(egress::AccountSettings {
        origin,
        // Addresses in the file are the operator's own choice.
        addresses: AddressPolicy::Any,
        authorization,
        headers: egress::HeaderSettings::default(),
        ca_file: account.ca_file.clone(),
        connections_max: account.max_in_flight.get() as usize,
        timeout: account.timeout,
    })
}

fn authorization(name: &str, auth: &AuthSettings) -> Result<Authorization, StartError> {
    let failed = |error: crate::settings::SecretError| StartError::config(name, error.to_string());
    Ok(match auth {
        AuthSettings::None => Authorization::None,
        AuthSettings::Bearer { token } => Authorization::Bearer {
            token: token.resolve().map_err(failed)?.expose().clone(),
        },
        AuthSettings::ApiKey { header, value } => Authorization::ApiKey {
            header: header.clone(),
            value: value.resolve().map_err(failed)?.expose().clone(),
        },
        AuthSettings::Basic { username, password } => Authorization::Basic {
            username: username.resolve().map_err(failed)?.expose().clone(),
            password: password.resolve().map_err(failed)?.expose().clone(),
        },
        AuthSettings::ClientCredentials(_)
        | AuthSettings::Refresh { .. }
        | AuthSettings::JwtBearer { .. } => {
            let detail = "its tokens have no cell".to_owned();
            return Err(StartError::config(name, detail));
        }
    })
}

/// What decides where events go and what becomes of them there.
pub(crate) fn router(
    settings: &Settings,
    rules: RuleSet,
    hash_key: HashKey,
    shards: usize,
    epoch: u64,
) -> Result<Router, StartError> {
    let accounts: Vec<Arc<str>> = settings
        .providers
        .iter()
        .map(|(name, _)| name.as_str().into())
        .collect();
    let mut mapped: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (object, wanted) in &settings.objects {
        for (name, _) in &wanted.to {
            if let Some(at) = accounts.iter().position(|account| **account == **name) {
                mapped.entry(object.clone()).or_default().push(at);
            }
        }
    }
    let unmapped = (0..accounts.len())
        .filter(|at| !mapped.values().any(|takers| takers.contains(at)))
        .collect();
    let only_mapped = if settings.objects.len() == 1 {
        Some(settings.objects[0].0.clone())
    } else {
        None
    };
    let sources = settings
        .objects
        .iter()
        .filter_map(|(object, wanted)| {
            let source = wanted.record.source.as_ref()?;
            Some((object.clone(), source.table.clone(), source.key.clone()))
        })
        .collect();
    Ok(Router {
        hash_key,
        shards,
        accounts,
        mapped,
        unmapped,
        default_object: settings.server.default_object.clone(),
        only_mapped,
        sources,
        rules: Rules::new(rules),
        schemas: schemas(settings)?,
        mapping_version: mapping_version(settings)?,
        next_seq: AtomicU64::new(OperationSeq::first_of_run(epoch).0),
    })
}

fn schemas(settings: &Settings) -> Result<BTreeMap<String, Schema>, StartError> {
    let mut schemas = BTreeMap::new();
    for (object, wanted) in &settings.objects {
        if let Some(path) = &wanted.record.schema {
            let schema = read_schema(path).map_err(|detail| StartError::config(object, detail))?;
            schemas.insert(object.clone(), schema);
        }
    }
    Ok(schemas)
}

/// One number for all mappings together: an event keeps it, whatever its accounts.
fn mapping_version(settings: &Settings) -> Result<u32, StartError> {
    let mut versions = Vec::new();
    for (object, wanted) in &settings.objects {
        for (account, target) in &wanted.to {
            let version = mapping(object, target)?.version();
            versions.extend_from_slice(format!("{object}\0{account}\0{version}\0").as_bytes());
        }
    }
    // The low half: it tells versions apart, it is no key.
    Ok(xxh3_64(&versions) as u32)
}
