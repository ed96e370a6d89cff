//! Settings of accounts that an operator changes at run time, for a time or for good: kept,
//! audited, laid over the file's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::quota::AccountLimits;
use engine::refusal::{Code, Refusal};
use engine::shard::SYSTEM_A;
use engine::view::{OverrideChange, OverrideMember, OverrideRequest, OverridesView, UnixMs};
use net::egress::{AddressPolicy, Cidr};
use net::http::{AccountRequest, AuthRequest};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;

use super::account_store::{AccountStore, AccountStoreError};
use super::added_account::settings_of;
use super::override_member::Member;
use super::shard_thread::chain;
use super::{added_account, durable_file, plans};
use crate::settings::{ProviderSettings, Settings, parse_duration};

const FILE: &str = "overrides.json";
/// Its version; newer ones are refused unchanged.
const VERSION: u32 = 1;
/// Changes remembered, the newest.
const CHANGES_KEPT: usize = 1000;
/// As many changes with long values, and the members in force.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Longest time for which a setting is changed; what holds longer belongs into the file.
const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// The settings as the file states them, with what operators changed since.
#[derive(Debug)]
pub(crate) struct Tuning {
    path: PathBuf,
    file: Settings,
    /// What the API made of accounts, over the file's.
    accounts: Mutex<AccountStore>,
    /// Where the API may send calls to.
    addresses: AddressPolicy,
    kept: Mutex<Kept>,
    /// Something changed: the account's settings are to be put in force, timers set anew.
    changed: Notify,
}

/// What the file of overrides says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// By account, or account and object (`crm/contact`), then by member.
    members: BTreeMap<String, BTreeMap<Member, Change>>,
    /// The newest last.
    audit: Vec<Audited>,
}

/// A member in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Change {
    value: Value,
    at: UnixMs,
    by: String,
    until: Option<UnixMs>,
}

/// One change, remembered.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Audited {
    at: UnixMs,
    by: String,
    provider: String,
    member: Member,
    old: Value,
    new: Value,
    until: Option<UnixMs>,
}

/// Why the overrides cannot be had. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TuningError {
    /// The disk refuses.
    #[error("read {path}")]
    Read {
        /// Of the file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What it says is not understood, perhaps a newer version's.
    #[error("{path} is damaged or of a newer version")]
    Format {
        /// Of the file.
        path: PathBuf,
    },
}

impl Tuning {
    /// Reads what earlier runs left.
    ///
    /// # Errors
    /// See [`TuningError`]: limits that an operator set must not be forgotten silently.
    pub(crate) fn load(
        data_dir: &Path,
        file: &Settings,
        accounts: AccountStore,
    ) -> Result<Tuning, TuningError> {
        let path = data_dir.join(FILE);
        let read = durable_file::read(&path, FILE_BYTES_MAX).map_err(|source| {
            let path = path.clone();
            TuningError::Read { path, source }
        })?;
        let kept = match read {
            None => Kept {
                version: VERSION,
                members: BTreeMap::new(),
                audit: Vec::new(),
            },
            Some(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .ok()
                .filter(|kept| kept.version == VERSION)
                .ok_or_else(|| TuningError::Format { path: path.clone() })?,
        };
        let allow = file.egress.allow.iter();
        Ok(Tuning {
            path,
            addresses: AddressPolicy::Public {
                allow: allow
                    .filter_map(|block| block.parse::<Cidr>().ok())
                    .collect(),
                loopback: file.listen.http.ip().is_loopback(),
            },
            file: file.clone(),
            accounts: Mutex::new(accounts),
            kept: Mutex::new(kept),
            changed: Notify::new(),
        })
    }

    /// The settings without what was changed for a time: the file's, with the accounts of the API.
    pub(crate) fn configured(&self) -> Settings {
        self.accounts().over(&self.file)
    }

    /// The settings in force.
    pub(crate) fn effective(&self) -> Settings {
        let mut settings = self.configured();
        let kept = self.lock();
        for (whose, members) in &kept.members {
            let (name, object) = named(whose);
            let mut providers = settings.providers.iter_mut();
            let Some((_, provider)) = providers.find(|(known, _)| known == name) else {
                continue;
            };
            for (member, change) in members {
                match object {
                    None => member.apply(&change.value, provider),
                    Some(object) => {
                        let switch = provider.switches.entry(object.to_owned()).or_default();
                        member.apply_to_object(&change.value, switch);
                    }
                }
            }
        }
        settings
    }

    /// Whether an operator took the account, with these settings in force, out of work.
    pub(crate) fn is_suspended(&self, account: &str, provider: &ProviderSettings) -> bool {
        let kept = self.lock();
        let members = kept.members.get(account);
        let paused = members.and_then(|members| members.get(&Member::Paused));
        !provider.account.enabled || paused.is_some_and(|change| change.value == Value::Bool(true))
    }

    /// Which addresses an account may call: its own file's base URL leads anywhere.
    pub(crate) fn addresses(&self, account: &str) -> AddressPolicy {
        let accounts = self.accounts();
        let asked = accounts.request(account);
        let added = asked.is_some_and(|request| request.base_url.is_some());
        drop(accounts);
        let kept = self.lock();
        let members = kept.members.get(account);
        if added || members.is_some_and(|members| members.contains_key(&Member::BaseUrl)) {
            self.addresses.clone()
        } else {
            AddressPolicy::Any
        }
    }

    /// The same for where its tokens are had.
    pub(crate) fn token_addresses(&self, account: &str) -> AddressPolicy {
        let accounts = self.accounts();
        let named = |request: &AccountRequest| {
            let auth = request.auth_config.as_ref();
            request.base_url.is_some() || auth.and_then(AuthRequest::token_url).is_some()
        };
        if accounts.request(account).is_some_and(named) {
            self.addresses.clone()
        } else {
            AddressPolicy::Any
        }
    }

    /// Adds an account or changes one; it is on disk when this returns, and in force soon after.
    /// Whether it is new.
    ///
    /// # Errors
    /// A refusal that names the place; nothing changed.
    pub(crate) fn put_account(
        &self,
        now: UnixMs,
        by: &str,
        request: AccountRequest,
    ) -> Result<bool, Refusal> {
        let mut accounts = self.accounts();
        let request = match accounts.request(&request.name) {
            Some(earlier) => request.over(earlier),
            None => request,
        };
        let name = request.name.clone();
        let configured = accounts.over(&self.file);
        let is_new = configured.provider(&name).is_none();
        let provider = settings_of(&request, self.file.provider(&name));
        added_account::check(&configured, &request, &provider, &self.addresses)?;
        accounts
            .put((now, by), &self.file, request)
            .map_err(|error| unkept(&error))?;
        drop(accounts);
        tracing::info!(
            account = name,
            by,
            is_new,
            "an account was set over the API"
        );
        self.changed.notify_one();
        Ok(is_new)
    }

    /// Removes an account; false when there is none of this name.
    ///
    /// # Errors
    /// It is needed, or cannot be removed from disk; nothing changed.
    pub(crate) fn remove_account(
        &self,
        now: UnixMs,
        by: &str,
        name: &str,
    ) -> Result<bool, Refusal> {
        let mut accounts = self.accounts();
        let configured = accounts.over(&self.file);
        if name == SYSTEM_A || configured.provider(name).is_none() {
            return Ok(false);
        }
        if let Some(pool) = configured.pool_of(name) {
            let detail = format!("the account is a member of the pool {pool:?}");
            return Err(Refusal::new(Code::InvalidField, detail));
        }
        accounts
            .remove((now, by), &self.file, name)
            .map_err(|error| unkept(&error))?;
        drop(accounts);
        let mut kept = self.lock();
        let mut next = kept.clone();
        next.members.retain(|whose, _| named(whose).0 != name);
        if next.members.len() < kept.members.len() {
            self.keep(&mut kept, next)?;
        }
        tracing::info!(account = name, by, "an account was removed over the API");
        self.changed.notify_one();
        Ok(true)
    }

    /// The limits in force, for all accounts; none where settings that were checked when they were
    /// taken cannot be read after all.
    pub(crate) fn limits(&self) -> Vec<AccountLimits> {
        plans::account_limits(&self.effective()).unwrap_or_default()
    }

    /// Takes a change; it is on disk when this returns, and in force soon after.
    ///
    /// # Errors
    /// A refusal that names the place; nothing changed.
    pub(crate) fn change(
        &self,
        now: UnixMs,
        by: &str,
        request: &OverrideRequest,
    ) -> Result<(), Refusal> {
        let provider = &request.provider;
        if self.configured().provider(provider).is_none() {
            let detail = "no account of this name is configured";
            return Err(Refusal::at(Code::UnknownProvider, "/provider", detail));
        }
        let until = match &request.ttl {
            None => None,
            Some(ttl) => {
                let ttl = parse_duration(ttl)
                    .filter(|ttl| !ttl.is_zero() && *ttl <= TTL_MAX)
                    .ok_or_else(|| {
                        let detail = "expected a duration such as \"10m\", up to 366 days";
                        Refusal::at(Code::InvalidField, "/ttl", detail)
                    })?;
                Some(now.saturating_add(ttl.as_millis() as i64))
            }
        };
        let mut kept = self.lock();
        let mut next = kept.clone();
        let whose = match &request.object {
            None => provider.clone(),
            Some(object) => format!("{provider}/{object}"),
        };
        let members = next.members.entry(whose.clone()).or_default();
        for (name, text) in &request.set {
            let pointer = format!("/set/{name}");
            let member = Member::named(name)
                .filter(|member| request.object.is_none() || member.is_of_objects())
                .ok_or_else(|| Refusal::at(Code::UnknownField, &pointer, "no such setting"))?;
            let new: Value = serde_json::from_str(text)
                .map_err(|_| Refusal::at(Code::Malformed, &pointer, "not JSON"))?;
            let old = if new.is_null() {
                members.remove(&member)
            } else {
                member
                    .check(&new, &self.addresses)
                    .map_err(|detail| Refusal::at(Code::InvalidField, &pointer, detail))?;
                let change = Change {
                    value: new.clone(),
                    at: now,
                    by: by.to_owned(),
                    until,
                };
                members.insert(member, change)
            };
            next.audit.push(Audited {
                at: now,
                by: by.to_owned(),
                provider: whose.clone(),
                member,
                old: old.map_or(Value::Null, |old| old.value),
                until: until.filter(|_| !new.is_null()),
                new,
            });
        }
        self.keep(&mut kept, next)
    }

    /// Ends what is over; when the next one is, ms since the epoch.
    pub(crate) fn expire(&self, now: UnixMs) -> Result<Option<UnixMs>, Refusal> {
        let mut kept = self.lock();
        let mut next = kept.clone();
        let mut expired = Vec::new();
        for (provider, members) in &mut next.members {
            members.retain(|&member, change| {
                let stays = change.until.is_none_or(|until| until > now);
                if !stays {
                    expired.push(Audited {
                        at: now,
                        by: "its ttl".to_owned(),
                        provider: provider.clone(),
                        member,
                        old: change.value.clone(),
                        new: Value::Null,
                        until: None,
                    });
                }
                stays
            });
        }
        if !expired.is_empty() {
            next.audit.append(&mut expired);
            self.keep(&mut kept, next)?;
        }
        let changes = kept.members.values().flat_map(BTreeMap::values);
        Ok(changes.filter_map(|change| change.until).min())
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is in force, and what was changed.
    pub(crate) fn view(&self) -> OverridesView {
        let kept = self.lock();
        let members = kept.members.iter().flat_map(|(provider, members)| {
            let (name, object) = named(provider);
            members.iter().map(move |(member, change)| OverrideMember {
                provider: name.to_owned(),
                object: object.map(str::to_owned),
                name: member.as_str(),
                value: change.value.to_string(),
                at: change.at,
                by: change.by.clone(),
                until: change.until,
            })
        });
        let audit = kept.audit.iter().rev().map(|audited| OverrideChange {
            at: audited.at,
            by: audited.by.clone(),
            provider: named(&audited.provider).0.to_owned(),
            object: named(&audited.provider).1.map(str::to_owned),
            name: audited.member.as_str(),
            old: audited.old.to_string(),
            new: audited.new.to_string(),
            until: audited.until,
        });
        OverridesView {
            members: members.collect(),
            audit: audit.collect(),
        }
    }

    fn keep(&self, kept: &mut Kept, mut next: Kept) -> Result<(), Refusal> {
        let fresh = next.audit.len() - kept.audit.len();
        let surplus = next.audit.len().saturating_sub(CHANGES_KEPT);
        next.audit.drain(..surplus);
        next.members.retain(|_, members| !members.is_empty());
        let text = serde_json::to_vec_pretty(&next).expect("maps of texts and JSON values");
        durable_file::replace(&self.path, &text).map_err(|error| {
            tracing::error!(path = %self.path.display(), %error, "an override cannot be kept");
            Refusal::new(Code::DiskFull, "the change cannot be written to disk")
        })?;
        for audited in next.audit.iter().rev().take(fresh).rev() {
            tracing::info!(
                provider = audited.provider,
                member = audited.member.as_str(),
                old = %audited.old,
                new = %audited.new,
                by = audited.by,
                "a setting was changed at run time"
            );
        }
        *kept = next;
        self.changed.notify_one();
        Ok(())
    }

    fn accounts(&self) -> MutexGuard<'_, AccountStore> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account and the object that an override is of; no account's name has a slash.
fn named(whose: &str) -> (&str, Option<&str>) {
    match whose.split_once('/') {
        Some((account, object)) => (account, Some(object)),
        None => (whose, None),
    }
}

fn unkept(error: &AccountStoreError) -> Refusal {
    if let AccountStoreError::TooLarge = error {
        return Refusal::new(Code::TooLarge, error.to_string());
    }
    tracing::error!(error = %chain(error), "the accounts cannot be kept");
    Refusal::new(Code::DiskFull, "the change cannot be written to disk")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use engine::rules::Share;

    use super::super::tokens::SealKeeper;
    use crate::settings::Source;

    use super::*;

    fn load(folder: &Path, file: &Settings) -> Result<Tuning, TuningError> {
        let seal = Arc::new(SealKeeper::new(folder, None));
        Tuning::load(
            folder,
            file,
            AccountStore::load(folder, file, seal).unwrap(),
        )
    }

    fn settings() -> Settings {
        let text = "[providers.crm]\ntype = \"rest\"\nbase_url = \"http://10.0.0.1\"\n\
                    [[providers.crm.limits]]\nname = \"minute\"\nkind = \"sliding\"\nlimit = 100\nwindow = \"60s\"\n\
                    [[providers.crm.limits]]\nname = \"burst\"\nkind = \"sliding\"\nlimit = 10\nwindow = \"1s\"\n";
        Settings::read(&Source::new("test", text)).unwrap()
    }

    fn is_suspended(tuning: &Tuning) -> bool {
        let settings = tuning.effective();
        tuning.is_suspended("crm", settings.provider("crm").unwrap())
    }

    fn request(set: &[(&str, &str)], ttl: Option<&str>) -> OverrideRequest {
        let set = set
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        OverrideRequest {
            provider: "crm".into(),
            object: None,
            set: set.collect(),
            ttl: ttl.map(str::to_owned),
        }
    }

    #[test]
    fn a_change_is_in_force_after_a_restart_until_its_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let tuning = load(folder.path(), &settings()).unwrap();
        let set = [("rate_limit_per_minute", "600"), ("timeout", "\"2s\"")];
        tuning
            .change(1000, "ada", &request(&set, Some("500ms")))
            .unwrap();
        tuning
            .change(1000, "ada", &request(&[("paused", "true")], None))
            .unwrap();
        drop(tuning);

        let tuning = load(folder.path(), &settings()).unwrap();
        let crm = tuning.effective().provider("crm").unwrap().clone();
        let limits: Vec<(&str, u64)> = crm
            .limits
            .iter()
            .map(|limit| (limit.name.as_str(), limit.limit.get()))
            .collect();
        assert_eq!(limits, [("burst", 10), ("rate_limit_per_minute", 600)]);
        assert_eq!(crm.account.timeout.as_secs(), 2);
        assert!(is_suspended(&tuning));
        assert_eq!(tuning.expire(1499).unwrap(), Some(1500));
        assert_eq!(tuning.expire(1500).unwrap(), None);
        assert_eq!(tuning.effective().provider("crm").unwrap().limits.len(), 2);
        assert!(is_suspended(&tuning), "it has no ttl");
        let audit = tuning.view().audit;
        assert_eq!(audit.len(), 5);
        assert_eq!(
            (audit[0].by.as_str(), audit[0].new.as_str()),
            ("its ttl", "null")
        );
        assert_eq!(
            (audit[4].by.as_str(), audit[4].new.as_str()),
            ("ada", "600")
        );
    }

    #[test]
    fn an_object_of_an_account_is_switched_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let tuning = load(folder.path(), &settings()).unwrap();
        let mut share = request(&[("share", "0.1")], Some("1s"));
        share.object = Some("contact".to_owned());
        tuning.change(500, "ada", &share).unwrap();
        let switch = |tuning: &Tuning| {
            let settings = tuning.effective();
            let crm = settings.provider("crm").unwrap();
            (crm.account.share, crm.switches.get("contact").copied())
        };
        let (all, contact) = switch(&tuning);
        assert_eq!(all, Share::ALL);
        assert_eq!(contact.unwrap().share, Share::new(0.1));
        let view = tuning.view();
        assert_eq!(view.members[0].object.as_deref(), Some("contact"));
        assert_eq!(view.members[0].provider, "crm");
        tuning.expire(1_500).unwrap();
        assert_eq!(switch(&tuning).1, None);
        let mut timeout = request(&[("timeout", "\"2s\"")], None);
        timeout.object = Some("contact".to_owned());
        let refused = tuning.change(1_600, "ada", &timeout).unwrap_err();
        assert_eq!(refused.code, Code::UnknownField);
    }

    #[test]
    fn a_change_that_is_refused_in_part_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let tuning = load(folder.path(), &settings()).unwrap();
        let before = tuning.effective();
        for (set, code) in [
            ([("timeout", "\"2s\""), ("colour", "1")], Code::UnknownField),
            (
                [("timeout", "\"2s\""), ("max_in_flight", "0")],
                Code::InvalidField,
            ),
            (
                [("timeout", "\"2s\""), ("base_url", "\"http://10.0.0.2\"")],
                Code::InvalidField,
            ),
        ] {
            let refused = tuning.change(1, "ada", &request(&set, None)).unwrap_err();
            assert_eq!(refused.code, code);
            assert_eq!(tuning.effective(), before);
        }
        let mut other = request(&[("paused", "true")], None);
        other.provider = "other".into();
        let refused = tuning.change(1, "ada", &other).unwrap_err();
        assert_eq!(refused.code, Code::UnknownProvider);
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, r#"{"version":2,"members":{},"audit":[]}"#).unwrap();
        assert!(load(folder.path(), &settings()).is_err());
    }
}
