//! Keys of the API: made and revoked in a file of the data directory, which a running engine
//! notices by itself.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use engine::time::Mono;
use engine::view::{Admission, Scope, UnixMs};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{clock, durable_file};

const FILE: &str = "keys.json";
/// Thousands of keys.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// How often the file is looked at for changes.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// Bytes of a key: beyond guessing, so that a plain digest of it can lie on disk.
const KEY_BYTES: usize = 32;
/// What a key begins with, so that one that leaked is recognised.
const PREFIX: &str = "sk_";

/// One key, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Names it in commands.
    pub id: String,
    /// Who has it; stands in the audit.
    pub name: String,
    scopes: Vec<String>,
    /// SHA-256 of the key, in hex.
    sha256: String,
    /// Requests a second, at most.
    pub rate_per_second: Option<u32>,
    /// When it was made, ms since the epoch.
    pub created_at: UnixMs,
    /// When it was revoked.
    pub revoked_at: Option<UnixMs>,
}

/// The file of keys of a data directory.
#[derive(Debug)]
pub struct KeyFile {
    path: PathBuf,
}

/// Keys as a running engine goes by them.
#[derive(Debug)]
pub(crate) struct Keys {
    file: KeyFile,
    loopback: bool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    looked_at: Option<Mono>,
    changed_at: Option<SystemTime>,
    /// Active ones; `None`: the file cannot be read, and nobody is let in.
    keys: Option<Vec<ApiKey>>,
    /// What each limited key may still ask, by id.
    allowances: HashMap<String, Allowance>,
}

/// A bucket of a second's requests.
#[derive(Debug, Clone, Copy)]
struct Allowance {
    left: f64,
    at: Mono,
}

impl ApiKey {
    /// What it may be used for.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        self.scopes.iter().filter_map(|name| Scope::named(name))
    }
}

impl KeyFile {
    /// That of this data directory.
    #[must_use]
    pub fn of(data_dir: &Path) -> KeyFile {
        KeyFile {
            path: data_dir.join(FILE),
        }
    }

    /// All keys, revoked ones included.
    ///
    /// # Errors
    /// When the file cannot be read or understood.
    pub fn list(&self) -> io::Result<Vec<ApiKey>> {
        match durable_file::read(&self.path, FILE_BYTES_MAX)? {
            None => Ok(Vec::new()),
            Some(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        }
    }

    /// Makes a key: what is kept of it, and its secret, which is told this once.
    ///
    /// # Errors
    /// When the file cannot be read or written; no key was made.
    pub fn create(
        &self,
        name: &str,
        scopes: &[Scope],
        rate_per_second: Option<u32>,
    ) -> io::Result<(ApiKey, String)> {
        let mut keys = self.list()?;
        let secret = format!("{PREFIX}{}", hex(&clock::random_bytes::<KEY_BYTES>()));
        let key = ApiKey {
            id: hex(&clock::random_bytes::<4>()),
            name: name.to_owned(),
            scopes: scopes
                .iter()
                .map(|scope| scope.as_str().to_owned())
                .collect(),
            sha256: hash(&secret),
            rate_per_second,
            created_at: clock::now().wall.0,
            revoked_at: None,
        };
        keys.push(key.clone());
        self.write(&keys)?;
        Ok((key, secret))
    }

    /// Revokes a key; `None` when there is none of this id.
    ///
    /// # Errors
    /// When the file cannot be read or written; the key is as before.
    pub fn revoke(&self, id: &str) -> io::Result<Option<ApiKey>> {
        let mut keys = self.list()?;
        let Some(key) = keys.iter_mut().find(|key| key.id == id) else {
            return Ok(None);
        };
        key.revoked_at.get_or_insert(clock::now().wall.0);
        let revoked = key.clone();
        self.write(&keys)?;
        Ok(Some(revoked))
    }

    fn write(&self, keys: &[ApiKey]) -> io::Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_vec_pretty(keys).map_err(io::Error::other)?;
        durable_file::replace(&self.path, &text)
    }
}

impl Keys {
    pub(crate) fn new(data_dir: &Path, listener: SocketAddr) -> Keys {
        Keys {
            file: KeyFile::of(data_dir),
            loopback: listener.ip().is_loopback(),
            known: Mutex::default(),
        }
    }

    /// Whether a request with this key may do what needs this scope.
    pub(crate) fn admit(&self, now: Mono, key: Option<&str>, needed: Scope) -> Admission {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.look(now, &self.file);
        let Some(keys) = &known.keys else {
            return Admission::NoKey;
        };
        if keys.is_empty() {
            // Off loopback whoever reaches the port may look and send, as `insecure` says, but
            // not change anything.
            return if self.loopback || needed != Scope::Admin {
                Admission::Granted("nobody by name".to_owned())
            } else {
                Admission::NoKey
            };
        }
        let hash = key.map(hash);
        let found = keys
            .iter()
            .find(|known| Some(&known.sha256) == hash.as_ref());
        let Some(found) = found.cloned() else {
            return Admission::NoKey;
        };
        if !found.scopes().any(|scope| scope.covers(needed)) {
            return Admission::OtherScope;
        }
        if let Some(rate) = found.rate_per_second
            && !known.spend(now, &found.id, rate)
        {
            return Admission::TooFast;
        }
        Admission::Granted(found.name)
    }
}

impl Known {
    /// Reads the file when it changed since the last look.
    fn look(&mut self, now: Mono, file: &KeyFile) {
        let recent = |at: Mono| now.saturating_since(at) < LOOK_PERIOD;
        if self.looked_at.is_some_and(recent) {
            return;
        }
        let first = self.looked_at.is_none();
        self.looked_at = Some(now);
        let changed_at = fs::metadata(&file.path).and_then(|found| found.modified());
        let changed_at = changed_at.ok();
        if !first && changed_at == self.changed_at {
            return;
        }
        self.changed_at = changed_at;
        self.keys = match file.list() {
            Ok(mut keys) => {
                keys.retain(|key| key.revoked_at.is_none());
                Some(keys)
            }
            Err(error) => {
                tracing::error!(path = %file.path.display(), %error, "the keys cannot be read; nobody is let in");
                None
            }
        };
    }

    fn spend(&mut self, now: Mono, id: &str, rate: u32) -> bool {
        let burst = f64::from(rate);
        let allowance = self.allowances.entry(id.to_owned()).or_insert(Allowance {
            left: burst,
            at: now,
        });
        let passed = now.saturating_since(allowance.at).as_secs_f64();
        allowance.left = (allowance.left + passed * burst).min(burst);
        allowance.at = now;
        let enough = allowance.left >= 1.0;
        if enough {
            allowance.left -= 1.0;
        }
        enough
    }
}

fn hash(key: &str) -> String {
    hex(digest(&SHA256, key.as_bytes()).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn keys(folder: &Path, listener: &str) -> Keys {
        Keys::new(folder, listener.parse().unwrap())
    }

    #[test]
    fn without_keys_loopback_is_open_and_elsewhere_nothing_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let near = keys(folder.path(), "127.0.0.1:1");
        let far = keys(folder.path(), "0.0.0.0:1");
        for scope in Scope::ALL {
            let granted = Admission::Granted("nobody by name".into());
            assert_eq!(near.admit(Mono(0), None, scope), granted);
            let expected = if scope == Scope::Admin {
                Admission::NoKey
            } else {
                granted
            };
            assert_eq!(far.admit(Mono(0), None, scope), expected);
        }
    }

    #[test]
    fn a_key_opens_what_it_is_for_until_it_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        let (key, secret) = file.create("billing", &[Scope::Ingest], None).unwrap();
        let (_, admin) = file.create("ada", &[Scope::Admin], None).unwrap();
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert!(
            !text.contains(&secret) && !text.contains(&admin),
            "never on disk"
        );

        let keys = keys(folder.path(), "127.0.0.1:1");
        let admit = |at, key: Option<&str>, scope| keys.admit(Mono(at), key, scope);
        assert_eq!(admit(0, None, Scope::Read), Admission::NoKey);
        assert_eq!(admit(0, Some("sk_guess"), Scope::Read), Admission::NoKey);
        let granted = Admission::Granted("billing".into());
        assert_eq!(admit(0, Some(&secret), Scope::Ingest), granted);
        assert_eq!(admit(0, Some(&secret), Scope::Read), Admission::OtherScope);
        let granted = Admission::Granted("ada".into());
        assert_eq!(admit(0, Some(&admin), Scope::Read), granted);

        assert!(file.revoke(&key.id).unwrap().unwrap().revoked_at.is_some());
        assert_eq!(file.revoke("none").unwrap(), None);
        // The file's time may not have moved within its resolution.
        let later = keys_again(folder.path());
        assert_eq!(
            later.admit(Mono(0), Some(&secret), Scope::Ingest),
            Admission::NoKey
        );
    }

    fn keys_again(folder: &Path) -> Keys {
        keys(folder, "127.0.0.1:1")
    }

    #[test]
    fn a_key_keeps_its_own_rate() {
        let folder = tempfile::tempdir().unwrap();
        let file = KeyFile::of(folder.path());
        let (_, secret) = file.create("slow", &[Scope::Read], Some(2)).unwrap();
        let keys = keys(folder.path(), "127.0.0.1:1");
        let fast = |at| keys.admit(Mono(at), Some(&secret), Scope::Read) == Admission::TooFast;
        assert_eq!([fast(0), fast(0), fast(0)], [false, false, true]);
        assert_eq!([fast(SECOND / 2), fast(SECOND / 2)], [false, true]);
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "[{").unwrap();
        let keys = keys(folder.path(), "127.0.0.1:1");
        assert_eq!(keys.admit(Mono(0), None, Scope::Read), Admission::NoKey);
    }
}
