//! Accounts that the API added, changed or removed: kept sealed, laid over the file's.
//!
//! `accounts.sealed` in the data directory:
//!
//! | bytes | what |
//! | --- | --- |
//! | 7 | `SYNCACC` |
//! | 1 | version, 1 |
//! | 12 | nonce |
//! | rest | JSON, sealed with ChaCha20-Poly1305 as the first 8 bytes |

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::view::UnixMs;
use net::http::AccountRequest;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::added_account::settings_of;
use super::tokens::{SealKeeper, SecretKeyError};
use super::{added_mappings, clock, durable_file};
use crate::settings::{ProviderSettings, Settings};

const FILE: &str = "accounts.sealed";
const HEAD: [u8; 8] = *b"SYNCACC\x01";
/// A thousand accounts with a private key and mappings of some kilobytes each.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What the API made of accounts.
#[derive(Debug)]
pub(crate) struct AccountStore {
    path: PathBuf,
    seal: Arc<SealKeeper>,
    kept: Kept,
}

/// By account.
type Kept = BTreeMap<String, KeptAccount>;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptAccount {
    at: UnixMs,
    by: String,
    /// The file's section at the time, as a digest.
    file: Option<u64>,
    /// `None`: removed.
    request: Option<AccountRequest>,
}

/// The accounts cannot be had; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountStoreError {
    /// The disk failed.
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// No key to seal with.
    #[error(transparent)]
    Key(#[from] SecretKeyError),
    /// What is to be kept would not be read at the next start.
    #[error("accounts and their mappings take more than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Changed, sealed with another key, or a newer version's.
    #[error(
        "{0} does not open with this key: put the key back, or move the file away to do without \
         the accounts that were added"
    )]
    Sealed(PathBuf),
}

impl AccountStore {
    /// Reads what earlier runs left. What concerns an account whose section of the file was changed
    /// since is dropped: the file says the newest.
    pub(crate) fn load(
        data_dir: &Path,
        settings: &Settings,
        seal: Arc<SealKeeper>,
    ) -> Result<AccountStore, AccountStoreError> {
        let path = data_dir.join(FILE);
        let read = durable_file::read(&path, FILE_BYTES_MAX).map_err(|source| {
            let (operation, path) = ("read", path.clone());
            AccountStoreError::Io {
                operation,
                path,
                source,
            }
        })?;
        let kept = match read {
            None => Kept::new(),
            Some(bytes) => {
                let sealed = bytes.strip_prefix(&HEAD);
                let opened = match sealed {
                    Some(sealed) => seal.seal()?.open(&HEAD, sealed),
                    None => None,
                };
                let kept = opened.and_then(|json| serde_json::from_slice(&json).ok());
                kept.ok_or_else(|| AccountStoreError::Sealed(path.clone()))?
            }
        };
        let mut store = AccountStore { path, seal, kept };
        let mut present = store.kept.clone();
        present.retain(|name, account| {
            let same = account.file == digest_of(settings, name);
            if !same {
                tracing::warn!(
                    account = name,
                    "its section of the file was changed, and wins over what the API set"
                );
            }
            same
        });
        if present.len() != store.kept.len() {
            store.keep(present)?;
        }
        Ok(store)
    }

    /// The file's settings with these accounts.
    pub(crate) fn over(&self, file: &Settings) -> Settings {
        let mut settings = file.clone();
        for (name, account) in &self.kept {
            let at = settings
                .providers
                .iter()
                .position(|(known, _)| known == name);
            match (&account.request, at) {
                (Some(request), at) => {
                    if let Some(mappings) = &request.mappings {
                        added_mappings::lay_over(&mut settings, name, mappings);
                    }
                    let provider = settings_of(request, file.provider(name));
                    match at {
                        Some(at) => settings.providers[at].1 = provider,
                        None => settings.providers.push((name.clone(), provider)),
                    }
                }
                (None, Some(at)) => drop(settings.providers.remove(at)),
                (None, None) => {}
            }
        }
        settings
    }

    /// What the API was last asked for an account.
    pub(crate) fn request(&self, name: &str) -> Option<&AccountRequest> {
        self.kept.get(name)?.request.as_ref()
    }

    /// Keeps an account, durably.
    pub(crate) fn put(
        &mut self,
        (at, by): (UnixMs, &str),
        file: &Settings,
        request: AccountRequest,
    ) -> Result<(), AccountStoreError> {
        let name = request.name.clone();
        self.change((at, by), file, &name, Some(request))
    }

    /// Keeps that an account is not there any more, durably.
    pub(crate) fn remove(
        &mut self,
        (at, by): (UnixMs, &str),
        file: &Settings,
        name: &str,
    ) -> Result<(), AccountStoreError> {
        if file.provider(name).is_some() {
            return self.change((at, by), file, name, None);
        }
        let mut next = self.kept.clone();
        next.remove(name);
        self.keep(next)
    }

    fn change(
        &mut self,
        (at, by): (UnixMs, &str),
        file: &Settings,
        name: &str,
        request: Option<AccountRequest>,
    ) -> Result<(), AccountStoreError> {
        let mut next = self.kept.clone();
        let account = KeptAccount {
            at,
            by: by.to_owned(),
            file: digest_of(file, name),
            request,
        };
        next.insert(name.to_owned(), account);
        self.keep(next)
    }

    fn keep(&mut self, next: Kept) -> Result<(), AccountStoreError> {
        let json = serde_json::to_vec(&next).expect("maps of plain values are JSON");
        // Head and seal are some forty bytes.
        if json.len() as u64 + 64 > FILE_BYTES_MAX {
            return Err(AccountStoreError::TooLarge);
        }
        let seal = self.seal.seal()?;
        let sealed = seal.seal(&HEAD, clock::random_bytes(), &json);
        let bytes = [&HEAD[..], &sealed].concat();
        durable_file::replace(&self.path, &bytes).map_err(|source| AccountStoreError::Io {
            operation: "write",
            path: self.path.clone(),
            source,
        })?;
        self.kept = next;
        Ok(())
    }
}

/// `Debug` of settings shows where secrets come from and never the secrets.
fn digest_of(settings: &Settings, name: &str) -> Option<u64> {
    let digest = |provider: &ProviderSettings| xxh3_64(format!("{provider:?}").as_bytes());
    settings.provider(name).map(digest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::settings::Source;

    use super::*;

    const FILE_TEXT: &str = "[providers.crm]\ntype = \"rest\"\nbase_url = \"http://127.0.0.1:9\"\n";

    fn settings(text: &str) -> Settings {
        Settings::read(&Source::new("test", text)).unwrap()
    }

    fn store(folder: &Path, file: &Settings) -> AccountStore {
        let seal = Arc::new(SealKeeper::new(folder, None));
        AccountStore::load(folder, file, seal).unwrap()
    }

    fn request(text: &str) -> AccountRequest {
        serde_json::from_str(text).unwrap()
    }

    fn names(settings: &Settings) -> Vec<&str> {
        let providers = settings.providers.iter();
        providers.map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn what_was_added_changed_and_removed_is_so_after_a_restart_and_stands_nowhere_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let file = settings(FILE_TEXT);
        let mut first = store(folder.path(), &file);
        let shop = r#"{"name":"shop","base_url":"http://127.0.0.1:1","auth_config":
            {"auth_type":"bearer","credentials":{"token":"s3cret-t0ken"}}}"#;
        first.put((1, "ada"), &file, request(shop)).unwrap();
        let slower = request(r#"{"name":"crm","timeout_seconds":7}"#);
        first.put((2, "ada"), &file, slower).unwrap();
        let check = |store: &AccountStore| {
            let settings = store.over(&file);
            assert_eq!(names(&settings), ["crm", "shop"]);
            let crm = settings.provider("crm").unwrap();
            assert_eq!(crm.account.timeout.as_secs(), 7);
        };
        check(&first);
        check(&store(folder.path(), &file));
        let bytes = fs::read(folder.path().join(FILE)).unwrap();
        assert!(!bytes.windows(6).any(|part| part == b"s3cret"));

        first.remove((3, "ada"), &file, "crm").unwrap();
        first.remove((3, "ada"), &file, "shop").unwrap();
        let again = store(folder.path(), &file).over(&file);
        assert_eq!(names(&again), [""; 0]);
    }

    #[test]
    fn a_section_of_the_file_that_was_changed_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = settings(FILE_TEXT);
        let mut first = store(folder.path(), &file);
        first.remove((1, "ada"), &file, "crm").unwrap();
        let changed = settings(&format!("{FILE_TEXT}timeout = \"9s\"\n"));
        let second = store(folder.path(), &changed);
        assert_eq!(names(&second.over(&changed)), ["crm"]);
        // And it stays so when the section is as before.
        assert_eq!(names(&store(folder.path(), &file).over(&file)), ["crm"]);
    }

    #[test]
    fn a_file_that_does_not_open_stops_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = settings(FILE_TEXT);
        store(folder.path(), &file)
            .remove((1, "ada"), &file, "crm")
            .unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        let seal = Arc::new(SealKeeper::new(folder.path(), None));
        assert!(AccountStore::load(folder.path(), &file, seal).is_err());
    }
}
