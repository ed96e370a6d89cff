//! The key that seals what is kept of credentials: `secret.key` in the data directory, made when
//! it is first needed, or a secret of the operator's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use net::auth::{SEAL_KEY_BYTES, Seal};

use crate::runtime::clock;
use crate::settings::{SecretError, SecretSource};

const NAME: &str = "secret.key";
const BESIDE: &str = "secret.key.new";

/// As many characters as a random key of 24 bytes has in base64.
const TEXT_BYTES_MIN: usize = 32;

/// Seals what is kept of credentials; the key is had when it is first needed.
#[derive(Debug)]
pub(crate) struct SealKeeper {
    folder: PathBuf,
    source: Option<SecretSource>,
    seal: OnceLock<Arc<Seal>>,
}

/// The key cannot be had; nothing that it sealed was touched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretKeyError {
    /// The disk failed.
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Group or others may read it.
    #[error("{path} may be read by others (mode {mode:04o}); make it 0600")]
    ReadableByOthers { path: PathBuf, mode: u32 },
    /// What lies there is no key.
    #[error("{path} is damaged: {bytes} bytes, a key has {SEAL_KEY_BYTES}")]
    Damaged { path: PathBuf, bytes: usize },
    /// The operator's secret cannot be had.
    #[error("server.secret_key")]
    Source(#[source] SecretError),
    /// It can be guessed.
    #[error("server.secret_key: expected a random secret of at least {TEXT_BYTES_MIN} characters")]
    TooShort,
}

impl SealKeeper {
    /// With the key of `source`, or else that of the data directory.
    pub(crate) fn new(folder: &Path, source: Option<SecretSource>) -> Self {
        Self {
            folder: folder.to_owned(),
            source,
            seal: OnceLock::new(),
        }
    }

    /// The seal.
    pub(crate) fn seal(&self) -> Result<Arc<Seal>, SecretKeyError> {
        if let Some(seal) = self.seal.get() {
            return Ok(seal.clone());
        }
        let seal = match &self.source {
            Some(source) => {
                let secret = source.resolve().map_err(SecretKeyError::Source)?;
                from_text(secret.expose()).ok_or(SecretKeyError::TooShort)?
            }
            None => from_folder(&self.folder, clock::random_bytes)?,
        };
        Ok(self.seal.get_or_init(|| Arc::new(seal)).clone())
    }
}

/// Of a secret that the settings name; `None` if it can be guessed.
fn from_text(secret: &str) -> Option<Seal> {
    (secret.len() >= TEXT_BYTES_MIN).then(|| Seal::new(secret.as_bytes()))
}

/// The key in `folder`; a new one is durable before it is used.
fn from_folder(
    folder: &Path,
    random: impl FnOnce() -> [u8; SEAL_KEY_BYTES],
) -> Result<Seal, SecretKeyError> {
    let path = folder.join(NAME);
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = random();
            write(folder, &key)?;
            return Ok(Seal::new(&key));
        }
        Err(error) => return Err(failed("look at", &path)(error)),
        Ok(found) if found.mode() & 0o077 != 0 => {
            return Err(SecretKeyError::ReadableByOthers {
                path,
                mode: found.mode() & 0o7777,
            });
        }
        Ok(found) if found.len() != SEAL_KEY_BYTES as u64 => {
            let bytes = usize::try_from(found.len()).unwrap_or(usize::MAX);
            return Err(SecretKeyError::Damaged { path, bytes });
        }
        Ok(_) => {}
    }
    let key = fs::read(&path).map_err(failed("read", &path))?;
    if key.len() != SEAL_KEY_BYTES {
        let bytes = key.len();
        return Err(SecretKeyError::Damaged { path, bytes });
    }
    Ok(Seal::new(&key))
}

fn write(folder: &Path, key: &[u8]) -> Result<(), SecretKeyError> {
    let (beside, path) = (folder.join(BESIDE), folder.join(NAME));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("remove", &beside)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(failed("create", &beside))?;
    file.write_all(key).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("fsync", &beside))?;
    fs::rename(&beside, &path).map_err(failed("rename", &beside))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("fsync", folder))
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretKeyError {
    let path = path.to_owned();
    move |source| SecretKeyError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sealed(seal: &Seal) -> Vec<u8> {
        seal.seal(b"", [0; 12], b"plain")
    }

    #[test]
    fn a_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let first = from_folder(folder.path(), || [7; SEAL_KEY_BYTES]).unwrap();
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let again = from_folder(folder.path(), || unreachable!("there is one")).unwrap();
        assert_eq!(sealed(&first), sealed(&again));
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_cut_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        from_folder(folder.path(), || [7; SEAL_KEY_BYTES]).unwrap();
        let path = folder.path().join(NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = from_folder(folder.path(), || [8; SEAL_KEY_BYTES]).unwrap_err();
        assert!(
            matches!(error, SecretKeyError::ReadableByOthers { .. }),
            "{error}"
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [7; 31]).unwrap();
        let error = from_folder(folder.path(), || [8; SEAL_KEY_BYTES]).unwrap_err();
        assert!(
            matches!(error, SecretKeyError::Damaged { bytes: 31, .. }),
            "{error}"
        );
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_none() {
        assert!(from_text("hunter2").is_none());
        assert!(from_text(&"x".repeat(32)).is_some());
    }
}
