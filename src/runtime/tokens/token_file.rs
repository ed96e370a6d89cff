//! One account's token at rest: `tokens/NAME.token` in the data directory.
//!
//! | bytes | what |
//! | --- | --- |
//! | 7 | `SYNCTOK` |
//! | 1 | version, 1 |
//! | 12 | nonce |
//! | rest | JSON, sealed with ChaCha20-Poly1305 as `SYNCTOK`, version and account |
//!
//! The file is replaced as a whole (written beside, fsynced, renamed, its folder fsynced), so a
//! crash leaves the old token or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use net::auth::{KeptToken, Seal, StoreError, TokenStore};

use crate::runtime::clock;

const FOLDER: &str = "tokens";
const HEAD: [u8; 8] = *b"SYNCTOK\x01";
const VERSION_AT: usize = 7;

/// Tokens are at most a few KiB; more is another file.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Where one account's token lies.
#[derive(Debug)]
pub(crate) struct TokenFile {
    data_dir: PathBuf,
    path: PathBuf,
    beside: PathBuf,
    context: Vec<u8>,
    seal: Arc<Seal>,
}

/// The file cannot be used; it was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    /// The disk failed.
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Changed, or sealed with another key.
    #[error(
        "{path} does not open with this key: put the key back, or move the file away to begin \
         with the settings' credentials"
    )]
    Sealed { path: PathBuf },
    /// A newer build wrote it.
    #[error("{path} has version {version}, this build reads 1")]
    Newer { path: PathBuf, version: u8 },
}

impl TokenFile {
    /// `account` is a name that the settings have checked: letters, digits, `-` and `_`.
    pub(crate) fn new(data_dir: &Path, account: &str, seal: Arc<Seal>) -> Self {
        let folder = data_dir.join(FOLDER);
        Self {
            data_dir: data_dir.to_owned(),
            path: folder.join(format!("{account}.token")),
            beside: folder.join(format!("{account}.token.new")),
            context: [&HEAD, account.as_bytes()].concat(),
            seal,
        }
    }

    /// Whether what is kept can be read.
    pub(crate) fn check(&self) -> Result<(), TokenFileError> {
        self.read().map(drop)
    }

    /// Forgets the token, durably; one that is not there is forgotten.
    pub(crate) fn remove(&self) -> Result<(), TokenFileError> {
        match fs::remove_file(&self.path) {
            Ok(()) => fsync_folder(&self.data_dir.join(FOLDER)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &self.path)(error)),
        }
    }

    fn read(&self) -> Result<Option<KeptToken>, TokenFileError> {
        let path = || self.path.clone();
        let unopened = || TokenFileError::Sealed { path: path() };
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("look at", &self.path)(error)),
            Ok(found) if found.len() > FILE_BYTES_MAX => return Err(unopened()),
            Ok(_) => {}
        }
        let bytes = fs::read(&self.path).map_err(failed("read", &self.path))?;
        let (head, sealed) = bytes
            .split_first_chunk::<{ HEAD.len() }>()
            .ok_or_else(unopened)?;
        if head[..VERSION_AT] == HEAD[..VERSION_AT] && head[VERSION_AT] > HEAD[VERSION_AT] {
            return Err(TokenFileError::Newer {
                path: path(),
                version: head[VERSION_AT],
            });
        }
        if *head != HEAD {
            return Err(unopened());
        }
        let json = self.seal.open(&self.context, sealed).ok_or_else(unopened)?;
        serde_json::from_slice(&json)
            .map(Some)
            .map_err(|_| unopened())
    }

    fn write(&self, token: &KeptToken) -> Result<(), TokenFileError> {
        let folder = self.data_dir.join(FOLDER);
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => fsync_folder(&self.data_dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed("create", &folder)(error)),
        }
        let json = serde_json::to_vec(token).expect("plain values are JSON");
        let sealed = self.seal.seal(&self.context, clock::random_bytes(), &json);
        let beside = &self.beside;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(beside)
            .map_err(failed("create", beside))?;
        file.write_all(&HEAD)
            .and_then(|()| file.write_all(&sealed))
            .map_err(failed("write", beside))?;
        file.sync_all().map_err(failed("fsync", beside))?;
        fs::rename(beside, &self.path).map_err(failed("rename", beside))?;
        fsync_folder(&folder)
    }
}

impl TokenStore for TokenFile {
    fn load(&mut self) -> Result<Option<KeptToken>, StoreError> {
        Ok(self.read()?)
    }

    fn keep(&mut self, token: &KeptToken) -> Result<(), StoreError> {
        Ok(self.write(token)?)
    }
}

fn fsync_folder(folder: &Path) -> Result<(), TokenFileError> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .map_err(failed("fsync", folder))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> TokenFileError {
    let path = path.to_owned();
    move |source| TokenFileError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(access: &str) -> KeptToken {
        KeptToken {
            grant: "g".to_owned(),
            access_token: access.to_owned(),
            refresh_token: Some("r3fresh".to_owned()),
            asked_at_ms: 1_000,
            lifetime_s: Some(1_800),
        }
    }

    fn file(folder: &Path, account: &str, key: u8) -> TokenFile {
        TokenFile::new(folder, account, Arc::new(Seal::new(&[key; 32])))
    }

    #[test]
    fn what_was_kept_last_is_loaded_and_stands_nowhere_in_clear() {
        let folder = tempfile::tempdir().unwrap();
        let mut crm = file(folder.path(), "crm", 7);
        assert_eq!(crm.load().unwrap(), None);
        for access in ["acc3ss", "acc3ss-2"] {
            crm.keep(&token(access)).unwrap();
            assert_eq!(crm.load().unwrap(), Some(token(access)));
        }
        let bytes = fs::read(&crm.path).unwrap();
        assert_eq!(bytes[..8], HEAD);
        for secret in ["acc3ss", "r3fresh"] {
            let found = bytes
                .windows(secret.len())
                .any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} can be read");
        }
    }

    #[test]
    fn another_key_another_account_or_any_changed_byte_does_not_open_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut crm = file(folder.path(), "crm", 7);
        crm.keep(&token("a")).unwrap();
        assert!(file(folder.path(), "crm", 8).load().is_err());
        fs::copy(&crm.path, crm.path.with_file_name("erp.token")).unwrap();
        assert!(file(folder.path(), "erp", 7).load().is_err());
        let bytes = fs::read(&crm.path).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            fs::write(&crm.path, &changed).unwrap();
            assert!(crm.load().is_err(), "byte {at}");
            fs::write(&crm.path, &bytes[..at]).unwrap();
            assert!(crm.load().is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_token_that_was_removed_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let mut crm = file(folder.path(), "crm", 7);
        crm.remove().unwrap();
        crm.keep(&token("a")).unwrap();
        crm.remove().unwrap();
        assert_eq!(crm.load().unwrap(), None);
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_token() {
        let folder = tempfile::tempdir().unwrap();
        let mut crm = file(folder.path(), "crm", 7);
        crm.keep(&token("a")).unwrap();
        fs::write(&crm.beside, b"SYNC").unwrap();
        assert_eq!(crm.load().unwrap(), Some(token("a")));
        crm.keep(&token("b")).unwrap();
        assert_eq!(crm.load().unwrap(), Some(token("b")));
    }
}
