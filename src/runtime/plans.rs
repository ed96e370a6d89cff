//! From settings to what the engine and the egress side work with.

use std::collections::{BTreeMap, HashMap};
use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, RwLock};

use engine::id::{HashKey, OperationSeq};
use engine::mapping::Mapping;
use engine::provider::Definition;
use engine::quota::{AccountLimits, HoldSettings};
use engine::retry::RetryPolicy;
use engine::rules::{RuleSet, Share};
use engine::schema::Schema;
use engine::shard::{AccountPlan, DeletePolicy, Role, SYSTEM_A, TwoWay, Weights};
use net::egress::{self, AddressPolicy, Authorization, Origin};
use xxhash_rust::xxh3::Xxh3;

use super::StartError;
use super::router::{Pool, Router, Routes, Switches, Taker};
use super::rules::Rules;
use super::tokens::TokenCells;
use super::tuning::Tuning;
use crate::settings::{
    AuthSettings, ConflictSettings, Deletes, Direction, ObjectSettings, ProviderSettings, Settings,
    TargetSettings, WeightSettings, limits_of, read_schema,
};

/// The plan of every account.
pub(crate) fn account_plans(settings: &Settings) -> Result<Vec<Arc<AccountPlan>>, StartError> {
    settings
        .providers
        .iter()
        .map(|(name, provider)| Ok(Arc::new(plan(settings, name, provider)?)))
        .collect()
}

/// The plan of one account.
pub(crate) fn plan(
    settings: &Settings,
    name: &str,
    provider: &ProviderSettings,
) -> Result<AccountPlan, StartError> {
    let account = &provider.account;
    let mut definition = definition(name, provider)?;
    if let Some(items) = account.batch.max_items {
        definition = definition.with_batch_items_max(items.get() as usize);
    }
    let mut mappings = HashMap::new();
    for (object, wanted) in &settings.objects {
        let own = wanted.to.iter().find(|(account, _)| account == name);
        let pool = settings.pool_of(name);
        let pools = || {
            wanted
                .to
                .iter()
                .find(|(account, _)| Some(account.as_str()) == pool)
        };
        if let Some((_, target)) = own.or_else(pools) {
            let mapping = mapping(object, target)?;
            if let Some(field) = mapping.external_id() {
                definition = definition.with_external_id(mapping.remote(), field);
            }
            let matched = definition.check_match(&mapping);
            matched.map_err(|detail| {
                StartError::config(name, format!("objects.{object}.to.{name}.match: {detail}"))
            })?;
            mappings.insert(object.clone(), mapping);
        }
    }
    for (object, shipped) in definition.default_mappings() {
        if !mappings.contains_key(object) {
            let mapping = Mapping::compile(object, shipped)
                .map_err(|error| StartError::config(object, error.to_string()))?;
            mappings.insert(object.to_owned(), mapping);
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
        max_wait: account.batch.max_wait,
        weights: weights(&account.weights),
        role: if name == SYSTEM_A {
            Role::SystemA
        } else {
            Role::Provider
        },
        two_way: two_way(settings, name)?,
        renewed: Vec::new(),
    })
}

/// A hash of what an account's calls are made by: its definition, what the account changes of it, and
/// its mappings.
pub(crate) fn rendering(settings: &Settings, plan: &AccountPlan) -> Result<u64, StartError> {
    let name = &*plan.name;
    let provider = settings
        .provider(name)
        .ok_or_else(|| StartError::config(name, "no account of this name".to_owned()))?;
    let mappings = plan.mappings.iter();
    let mappings: BTreeMap<&str, u64> = mappings
        .map(|(object, mapping)| (object.as_str(), mapping.version()))
        .collect();
    let mut hasher = Xxh3::new();
    engine::provider::shipped(&provider.definition).hash(&mut hasher);
    format!("{:?}", provider.account.rest).hash(&mut hasher);
    mappings.hash(&mut hasher);
    Ok(hasher.finish())
}

fn weights(settings: &WeightSettings) -> Weights {
    let of = |named: &BTreeMap<String, NonZeroU32>| {
        let named = named.iter();
        named
            .map(|(name, weight)| (name.clone(), weight.get()))
            .collect()
    };
    Weights {
        objects: of(&settings.objects),
        tenants: of(&settings.tenants),
    }
}

/// The objects whose changes at an account matter: they are taken, or told to it by others.
fn two_way(settings: &Settings, name: &str) -> Result<HashMap<String, TwoWay>, StartError> {
    let objects = settings.objects.iter();
    let objects = objects.filter(|(_, object)| object.record.direction != Direction::Out);
    let taken = objects.filter_map(|(object, wanted)| {
        let accounts = settings.accounts_of(wanted);
        if !accounts.contains(&name) {
            return None;
        }
        let conflict = wanted
            .record
            .conflict
            .as_ref()
            .map(ConflictSettings::policy);
        let conflicts = match conflict.transpose() {
            Ok(conflicts) => conflicts.unwrap_or_default(),
            Err((_, detail)) => return Some(Err(StartError::config(object, detail))),
        };
        let tells_accounts = wanted.record.direction == Direction::Both;
        let others = accounts
            .into_iter()
            .filter(|other| *other != name && tells_accounts);
        let two_way = TwoWay {
            conflicts,
            deletes: match wanted.record.deletes {
                // How a delete is told to each side is that side's own.
                Deletes::Propagate | Deletes::Soft => DeletePolicy::Propagate,
                Deletes::Ignore => DeletePolicy::Ignore,
            },
            learners: std::iter::once(SYSTEM_A)
                .chain(others)
                .map(Arc::from)
                .collect(),
            inbound: true,
        };
        Some(Ok((object.clone(), two_way)))
    });
    taken.collect()
}

pub(crate) fn definition(
    name: &str,
    provider: &ProviderSettings,
) -> Result<Definition, StartError> {
    let id = &provider.definition;
    let text = engine::provider::shipped(id)
        .ok_or_else(|| StartError::config(name, format!("there is no definition {id:?}")))?;
    Definition::parse(text)
        .and_then(|definition| definition.with_rest(&provider.account.rest))
        .map_err(|error| StartError::config(name, super::shard_thread::chain(&error)))
}

fn mapping(object: &str, target: &TargetSettings) -> Result<Mapping, StartError> {
    Mapping::compile(object, &target.mapping(object))
        .map_err(|error| StartError::config(object, error.to_string()))
}

/// The limits of every account: its own, and those of its definition that it does not name.
pub(crate) fn account_limits(settings: &Settings) -> Result<Vec<AccountLimits>, StartError> {
    let accounts = settings.providers.iter();
    accounts
        .map(|(name, provider)| limits_of_account(settings, name, provider))
        .collect()
}

/// The limits of one account.
pub(crate) fn limits_of_account(
    settings: &Settings,
    name: &str,
    provider: &ProviderSettings,
) -> Result<AccountLimits, StartError> {
    let account = &provider.account;
    let definition = definition(name, provider)?;
    let comes_in = |(_, object): &(String, ObjectSettings)| {
        object.record.direction != Direction::Out && settings.accounts_of(object).contains(&name)
    };
    let polls = account.poll.enabled
        && definition.poll_feeds().next().is_some()
        && settings.objects.iter().any(comes_in);
    Ok(AccountLimits {
        name: name.to_owned(),
        limits: limits_of(provider, definition.limits(), polls),
        max_in_flight: account.max_in_flight.get(),
        call_timeout: account.timeout,
        hold: HoldSettings {
            failure_threshold: account.breaker.failure_threshold.get(),
            open_for: account.breaker.open_for,
            ..HoldSettings::default()
        },
    })
}

/// The egress side of every account, secrets resolved.
pub(crate) fn egress_accounts(
    settings: &Settings,
    tuning: &Tuning,
    tokens: &TokenCells,
) -> Result<Vec<(Arc<str>, egress::AccountSettings)>, StartError> {
    let named = |(name, provider): &(String, ProviderSettings)| {
        let account = egress_account(name, provider, tuning.addresses(name), tokens)?;
        Ok((name.as_str().into(), account))
    };
    settings.providers.iter().map(named).collect()
}

/// The egress side of one account. Addresses in the file are the operator's own choice; those that
/// the API set are not.
pub(crate) fn egress_account(
    name: &str,
    provider: &ProviderSettings,
    addresses: AddressPolicy,
    tokens: &TokenCells,
) -> Result<egress::AccountSettings, StartError> {
    let account = &provider.account;
    let definition = definition(name, provider)?;
    let base_url = account.base_url.as_deref().or(definition.base_url());
    let base_url = base_url.unwrap_or_default();
    let origin = Origin::parse(base_url)
        .map_err(|error| StartError::config(name, format!("base_url: {error}")))?;
    let authorization = match tokens.get(name) {
        Some(cell) => Authorization::Token(cell),
        None => authorization(name, &provider.auth)?,
    };
    Ok(egress::AccountSettings {
        origin,
        addresses,
        authorization,
        headers: egress::HeaderSettings {
            sent: definition.headers().to_vec(),
            kept: definition.kept_headers().to_vec(),
            signer: signer(name, provider)?,
        },
        ca_file: account.ca_file.clone(),
        connections_max: account.max_in_flight.get() as usize,
        timeout: account.timeout,
    })
}

/// What is told to System A is signed, by the secret that a receiver verifies it with.
fn signer(
    name: &str,
    provider: &ProviderSettings,
) -> Result<Option<egress::MessageSigner>, StartError> {
    let secret = provider.webhook.as_ref().filter(|_| name == SYSTEM_A);
    let Some(webhook) = secret else {
        return Ok(None);
    };
    let secret = webhook.secret.resolve();
    let secret = secret.map_err(|error| StartError::config(name, error.to_string()))?;
    let signer = egress::MessageSigner::new(secret.expose());
    signer
        .map(Some)
        .map_err(|error| StartError::config(name, error.to_string()))
}

/// Credentials that are one header, resolved.
pub(crate) fn authorization(name: &str, auth: &AuthSettings) -> Result<Authorization, StartError> {
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
    plans: &[Arc<AccountPlan>],
    rules: RuleSet,
    hash_key: HashKey,
    shards: usize,
    epoch: u64,
) -> Result<Router, StartError> {
    let come_back = settings.objects.iter();
    let come_back = come_back.filter(|(_, object)| object.record.direction == Direction::Both);
    let come_back = come_back.map(|(object, _)| object.clone()).collect();
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
        routes: RwLock::new(Arc::new(routes(settings, plans))),
        come_back,
        default_object: settings.server.default_object.clone(),
        only_mapped,
        sources,
        rules: Rules::new(rules),
        schemas: schemas(settings)?,
        next_seq: AtomicU64::new(OperationSeq::first_of_run(epoch).0),
    })
}

/// Which account takes what.
pub(crate) fn routes(settings: &Settings, plans: &[Arc<AccountPlan>]) -> Routes {
    // System A is no account that an event could name.
    let accounts = settings.providers.iter().map(|(name, _)| name.as_str());
    let accounts = accounts.filter(|name| *name != SYSTEM_A);
    let accounts: Vec<Arc<str>> = accounts.map(Arc::from).collect();
    let place = |name: &str| accounts.iter().position(|account| **account == *name);
    let pools: Vec<Pool> = settings
        .pools
        .iter()
        .map(|(name, pool)| Pool {
            name: name.as_str().into(),
            members: pool.members.iter().filter_map(|name| place(name)).collect(),
        })
        .collect();
    let mut mapped: BTreeMap<String, Vec<Taker>> = BTreeMap::new();
    for (object, wanted) in &settings.objects {
        if wanted.record.direction == Direction::In {
            // Nobody takes what System A says of it.
            mapped.insert(object.clone(), Vec::new());
            continue;
        }
        for (name, _) in &wanted.to {
            let pool = || pools.iter().position(|pool| *pool.name == **name);
            let account = place(name).map(Taker::Account);
            if let Some(taker) = account.or_else(|| pool().map(Taker::Pool)) {
                mapped.entry(object.clone()).or_default().push(taker);
            }
        }
    }
    // A member takes its records as a member, unless it is mapped by its own name.
    let singles = (0..accounts.len())
        .filter(|&at| settings.pool_of(&accounts[at]).is_none())
        .map(Taker::Account);
    let unmapped = singles
        .chain((0..pools.len()).map(Taker::Pool))
        .filter(|taker| !mapped.values().any(|takers| takers.contains(taker)))
        .collect();
    let switched = settings.providers.iter();
    Routes {
        switches: switched
            .filter(|(name, _)| name != SYSTEM_A)
            .map(|(name, provider)| switches(settings, name, provider))
            .collect(),
        accounts,
        pools,
        mapped,
        unmapped,
        plans: plans.to_vec(),
        requires_fields: plans
            .iter()
            .any(|plan| plan.mappings.values().any(Mapping::requires_fields)),
        mapping_version: mapping_version(plans),
    }
}

/// What takes part of an account's records: as its mappings say, or those of its pool, unless it
/// was set otherwise at run time.
fn switches(settings: &Settings, name: &str, provider: &ProviderSettings) -> Switches {
    let mut objects = BTreeMap::new();
    for (object, wanted) in &settings.objects {
        let own = wanted.to.iter().find(|(account, _)| account == name);
        let pool = settings.pool_of(name);
        let mut pools = wanted.to.iter();
        let target = own.or_else(|| pools.find(|(account, _)| Some(account.as_str()) == pool));
        if let Some((_, target)) = target {
            objects.insert(object.clone(), (target.enabled, target.share));
        }
    }
    for (object, switch) in &provider.switches {
        let known = objects.entry(object.clone()).or_insert((true, Share::ALL));
        known.0 = switch.enabled.unwrap_or(known.0);
        known.1 = switch.share.unwrap_or(known.1);
    }
    Switches {
        share: provider.account.share,
        objects,
    }
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
fn mapping_version(plans: &[Arc<AccountPlan>]) -> u32 {
    let mut versions = BTreeMap::new();
    for plan in plans {
        for (object, mapping) in &plan.mappings {
            versions.insert((&*plan.name, object.as_str()), mapping.version());
        }
    }
    let mut hasher = Xxh3::new();
    versions.hash(&mut hasher);
    // The low half: it tells versions apart, it is no key.
    hasher.finish() as u32
}
