//! Secrets: where one comes from, and the value, which nothing prints.

use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::de::{Deserializer, Visitor};

/// Where a secret comes from. Printing one prints the source, never the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// `env:NAME`: an environment variable.
    Env(String),
    /// `file:PATH`: a file that only its owner may read.
    File(PathBuf),
    /// `exec:PROGRAM ARGUMENT...`: what a program prints; no shell is involved.
    Exec(Vec<String>),
    /// Given over the API, and kept sealed; no text of a file reads as one.
    Given(Secret<String>),
}

/// A value that shows itself to nobody who does not ask with [`Secret::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

/// Either plain text or the source of a secret: user names, client ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Stands in the file as it is.
    Plain(String),
    /// Stands elsewhere.
    Secret(SecretSource),
}

/// Why a secret could not be had; nothing was changed, and no text of it is told.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set, or not UTF-8.
    #[error("environment variable {0} is not set to text")]
    Env(String),
    /// The file cannot be read.
    #[error("cannot read secret file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Group or others may read the file.
    #[error(
        "secret file {} may be read by others (mode {mode:04o}); make it 0600", path.display()
    )]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The program could not be started.
    #[error("cannot run {program}")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The program ended with an error.
    #[error("{program} ended with {status}")]
    Failed {
        /// The program.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// The program took longer than [`EXEC_TIMEOUT`].
    #[error("{0} gave no secret within {EXEC_TIMEOUT:?}")]
    TimedOut(String),
    /// Empty, over [`SECRET_BYTES_MAX`], or not UTF-8.
    #[error("{0} holds no secret: expected 1 to {SECRET_BYTES_MAX} bytes of UTF-8")]
    Unusable(String),
}

/// Keys and certificates are a few KiB; more is the wrong file.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Long enough for a vault's command line, short enough for a start.
pub const EXEC_TIMEOUT: Duration = Duration::from_secs(5);

impl<T> Secret<T> {
    /// Hides `value`.
    pub const fn new(value: T) -> Secret<T> {
        Secret(value)
    }

    /// The value itself.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Credential {
    /// The text itself.
    ///
    /// # Errors
    /// As [`SecretSource::resolve`].
    pub fn resolve(&self) -> Result<Secret<String>, SecretError> {
        match self {
            Credential::Plain(text) => Ok(Secret::new(text.clone())),
            Credential::Secret(source) => source.resolve(),
        }
    }
}

impl SecretSource {
    fn parse(text: &str) -> Option<SecretSource> {
        let (scheme, rest) = text.split_once(':')?;
        if rest.trim().is_empty() {
            return None;
        }
        match scheme {
            "env" => Some(SecretSource::Env(rest.to_owned())),
            "file" => Some(SecretSource::File(PathBuf::from(rest))),
            "exec" => Some(SecretSource::Exec(
                rest.split_whitespace().map(str::to_owned).collect(),
            )),
            _ => None,
        }
    }

    /// Reads the secret; one trailing line break is not part of it.
    ///
    /// # Errors
    /// When the source is missing, unsafe or empty; see [`SecretError`].
    pub fn resolve(&self) -> Result<Secret<String>, SecretError> {
        let bytes = match self {
            SecretSource::Env(name) => std::env::var(name)
                .map_err(|_| SecretError::Env(name.clone()))?
                .into_bytes(),
            SecretSource::File(path) => read_private_file(path)?,
            SecretSource::Exec(argv) => run(argv)?,
            SecretSource::Given(secret) => secret.expose().clone().into_bytes(),
        };
        let unusable = || SecretError::Unusable(self.to_string());
        if bytes.len() as u64 > SECRET_BYTES_MAX {
            return Err(unusable());
        }
        let text = String::from_utf8(bytes).map_err(|_| unusable())?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        if text.is_empty() {
            Err(unusable())
        } else {
            Ok(Secret::new(text.to_owned()))
        }
    }
}

impl std::fmt::Display for SecretSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SecretSource::Env(name) => write!(f, "env:{name}"),
            SecretSource::File(path) => write!(f, "file:{}", path.display()),
            // Arguments may carry a token of their own.
            SecretSource::Exec(argv) => write!(f, "exec:{}", argv[0]),
            SecretSource::Given(_) => f.write_str("what the API was given"),
        }
    }
}

fn read_private_file(path: &Path) -> Result<Vec<u8>, SecretError> {
    let failed = |source| SecretError::Read {
        path: path.to_owned(),
        source,
    };
    // NONBLOCK: opening a FIFO must not hang the start.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)
        .map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::ReadableByOthers {
            path: path.to_owned(),
            mode,
        });
    }
    read_capped(file).map_err(failed)
}

fn run(argv: &[String]) -> Result<Vec<u8>, SecretError> {
    let program = argv[0].clone();
    let cannot_run = |source| SecretError::Run {
        program: argv[0].clone(),
        source,
    };
    let mut child = Command::new(&program)
        .args(&argv[1..])
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(cannot_run)?;
    let stdout = child.stdout.take().expect("stdout was asked to be piped");
    let (sender, printed) = mpsc::sync_channel(1);
    // Ends with the program, which is killed at the deadline.
    std::thread::spawn(move || sender.send(read_capped(stdout)).ok());
    let printed = printed.recv_timeout(EXEC_TIMEOUT);
    if printed.is_err() {
        child.kill().map_err(cannot_run)?;
    }
    let status = child.wait().map_err(cannot_run)?;
    match printed {
        Err(_) => Err(SecretError::TimedOut(program)),
        Ok(_) if !status.success() => Err(SecretError::Failed { program, status }),
        Ok(bytes) => bytes.map_err(cannot_run),
    }
}

/// One byte over the cap is enough to see that it is too much.
fn read_capped(from: impl Read) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

impl<'de> serde::Deserialize<'de> for SecretSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<SecretSource, D::Error> {
        struct SourceVisitor;
        impl Visitor<'_> for SourceVisitor {
            type Value = SecretSource;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("env:NAME, file:PATH or exec:PROGRAM")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SecretSource, E> {
                // What was found is not told: it may be the secret itself.
                SecretSource::parse(text).ok_or_else(|| {
                    E::custom(
                        "a secret may not stand in the file: \
                         expected env:NAME, file:PATH or exec:PROGRAM",
                    )
                })
            }
        }
        from.deserialize_str(SourceVisitor)
    }
}

impl<'de> serde::Deserialize<'de> for Credential {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Credential, D::Error> {
        let text = <String as serde::Deserialize>::deserialize(from)?;
        Ok(match SecretSource::parse(&text) {
            Some(source) => Credential::Secret(source),
            None => Credential::Plain(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, SecretSource) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        (dir, SecretSource::File(path))
    }

    #[test]
    fn a_private_file_gives_its_text_without_the_line_break() {
        let (_dir, source) = file("s3cret\n", 0o600);
        assert_eq!(source.resolve().unwrap().expose(), "s3cret");
    }

    #[test]
    fn a_file_others_may_read_is_refused() {
        for mode in [0o640, 0o604, 0o644] {
            let (_dir, source) = file("s3cret", mode);
            let error = source.resolve().unwrap_err();
            assert!(
                matches!(error, SecretError::ReadableByOthers { .. }),
                "{error}"
            );
        }
    }

    #[test]
    fn a_link_in_place_of_the_file_is_refused() {
        let (dir, _source) = file("s3cret", 0o600);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("secret"), &link).unwrap();
        let error = SecretSource::File(link).resolve().unwrap_err();
        assert!(matches!(error, SecretError::Read { .. }), "{error}");
    }

    #[test]
    fn empty_and_oversized_secrets_are_unusable() {
        for text in [
            String::new(),
            "\n".to_owned(),
            "x".repeat(SECRET_BYTES_MAX as usize + 1),
        ] {
            let (_dir, source) = file(&text, 0o600);
            let error = source.resolve().unwrap_err();
            assert!(matches!(error, SecretError::Unusable(_)), "{error}");
        }
    }

    #[test]
    fn a_program_gives_what_it_prints_without_a_shell() {
        let source = SecretSource::parse("exec:echo $HOME; x").unwrap();
        assert_eq!(source.resolve().unwrap().expose(), "$HOME; x");
        let error = SecretSource::parse("exec:false")
            .unwrap()
            .resolve()
            .unwrap_err();
        assert!(matches!(error, SecretError::Failed { .. }), "{error}");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = Secret::new("s3cret".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret");
    }
}
