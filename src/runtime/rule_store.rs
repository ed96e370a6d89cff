//! `rules.json` in the data directory: the newest set, whoever gave it.
//!
//! A set given over the API wins over the file's `[[rules]]` until that section is another than
//! at the last start: then the file's is the newest. The file is replaced as a whole (written
//! beside, fsynced, renamed, its folder fsynced), so a crash leaves the old set or the new one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use engine::refusal::{Code, Refusal};
use engine::rules::{RuleError, RuleSet, RuleSettings};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::open::told;

const NAME: &str = "rules.json";
const BESIDE: &str = "rules.json.new";

/// The format that this build writes, and the only one there is.
const FORMAT: u32 = 1;

/// Far over [`engine::rules::RULES_MAX`] rules of a usual length; the API takes bodies of 8 MiB.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The newest set and where it lies.
#[derive(Debug)]
pub(crate) struct RuleStore {
    folder: PathBuf,
    /// Counts sets; 0: none was ever given.
    version: u32,
    origin: RuleOrigin,
    /// Of the config file's section at the last start.
    file_hash: u64,
    rules: Vec<RuleSettings>,
}

/// What the file holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    version: u32,
    origin: RuleOrigin,
    file_hash: u64,
    /// Of the text of `rules` below: numbers need not read back as they were.
    hash: u64,
    rules: Box<RawValue>,
}

/// Who gave the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RuleOrigin {
    /// The config file.
    File,
    /// The API.
    Api,
}

impl RuleOrigin {
    /// As the API says it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// The store cannot be used; the sets in it and in force are as they were.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RuleStoreError {
    /// The disk failed.
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What lies there is not what was written.
    #[error("{path} is damaged: {detail}; move it away to start with the config file's rules")]
    Damaged { path: PathBuf, detail: String },
    /// A newer build wrote it.
    #[error("{path} has format {format}, this build reads {FORMAT}")]
    Newer { path: PathBuf, format: u32 },
    /// It was taken once and is not any more.
    #[error("the set in {path} does not compile any more")]
    Rules { path: PathBuf, source: RuleError },
}

impl RuleStore {
    /// Reads the newest set and weighs the config file's rules against it.
    pub(crate) fn open(
        folder: &Path,
        from_file: &[RuleSettings],
    ) -> Result<(Self, RuleSet), RuleStoreError> {
        let path = folder.join(NAME);
        let file_hash = hash_of(&text_of(from_file));
        let mut store = match read(&path)? {
            Some((kept, rules)) => Self {
                folder: folder.to_owned(),
                version: kept.version,
                origin: kept.origin,
                file_hash: kept.file_hash,
                rules,
            },
            None => Self {
                folder: folder.to_owned(),
                version: 0,
                origin: RuleOrigin::File,
                file_hash: hash_of(&text_of(&[])),
                rules: Vec::new(),
            },
        };
        if store.file_hash != file_hash {
            if store.origin == RuleOrigin::Api {
                tracing::warn!(
                    version = store.version + 1,
                    "[[rules]] changed since the last start: they replace the set that the API gave"
                );
            }
            store.file_hash = file_hash;
            store.keep(RuleOrigin::File, from_file.to_vec())?;
        }
        let set = RuleSet::compile(store.version, &store.rules)
            .map_err(|source| RuleStoreError::Rules { path, source })?;
        Ok((store, set))
    }

    pub(crate) fn version(&self) -> u32 {
        self.version
    }

    pub(crate) fn origin(&self) -> RuleOrigin {
        self.origin
    }

    pub(crate) fn rules(&self) -> &[RuleSettings] {
        &self.rules
    }

    /// Makes a set the newest, durably.
    pub(crate) fn keep(
        &mut self,
        origin: RuleOrigin,
        rules: Vec<RuleSettings>,
    ) -> Result<(), RuleStoreError> {
        let text = text_of(&rules);
        let kept = Kept {
            format: FORMAT,
            version: self.version.saturating_add(1),
            origin,
            file_hash: self.file_hash,
            hash: hash_of(&text),
            rules: RawValue::from_string(text).expect("rules were just written as JSON"),
        };
        write(&self.folder, &kept)?;
        self.version = kept.version;
        self.origin = origin;
        self.rules = rules;
        Ok(())
    }
}

/// Compiles a set from the API; `known` tells which accounts there are.
pub(crate) fn checked(
    version: u32,
    rules: &[RuleSettings],
    known: impl Fn(&str) -> bool,
) -> Result<RuleSet, Refusal> {
    let strangers = rules.iter().enumerate().filter_map(|(at, rule)| {
        let provider = rule.provider.as_deref().filter(|name| !known(name))?;
        Some((at, provider))
    });
    if let Some((at, provider)) = strangers.into_iter().next() {
        let detail = format!("no account {provider:?} is configured");
        let pointer = format!("/rules/{at}/provider");
        return Err(Refusal::at(Code::InvalidField, pointer, detail));
    }
    let set = RuleSet::compile(version, rules).map_err(|error| {
        let pointer = match error.key {
            "" => format!("/rules/{}", error.rule),
            key => format!("/rules/{}/{key}", error.rule),
        };
        Refusal::at(Code::InvalidField, pointer, error.detail)
    })?;
    if set.reads_linked() {
        let detail = "`linked` is not available in this version: whether a record is linked is \
                      not known when its event is accepted";
        return Err(Refusal::at(Code::InvalidField, "/rules", detail));
    }
    Ok(set)
}

impl RuleStoreError {
    /// What the API tells of it; the rest is logged.
    pub(crate) fn into_refusal(self) -> Refusal {
        let full = matches!(
            &self,
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull
        );
        tracing::error!(error = told(&self), "the rules cannot be kept");
        if full {
            Refusal::new(
                Code::DiskFull,
                "the disk is full: the rules are as they were",
            )
        } else {
            let detail = "the rules cannot be kept and are as they were";
            Refusal::new(Code::ShardDown, detail)
        }
    }
}

fn read(path: &Path) -> Result<Option<(Kept, Vec<RuleSettings>)>, RuleStoreError> {
    let damaged = |detail: String| RuleStoreError::Damaged {
        path: path.to_owned(),
        detail,
    };
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            return Err(damaged(format!("{} bytes", found.len())));
        }
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(_) => fs::read_to_string(path).map_err(failed("read", path))?,
    };
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } =
        serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if format > FORMAT {
        return Err(RuleStoreError::Newer {
            path: path.to_owned(),
            format,
        });
    }
    let kept: Kept = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if kept.hash != hash_of(kept.rules.get()) {
        return Err(damaged("its checksum does not verify".to_owned()));
    }
    let rules = serde_json::from_str(kept.rules.get());
    let rules = rules.map_err(|error| damaged(error.to_string()))?;
    Ok(Some((kept, rules)))
}

fn write(folder: &Path, kept: &Kept) -> Result<(), RuleStoreError> {
    let (beside, path) = (folder.join(BESIDE), folder.join(NAME));
    let mut text = serde_json::to_vec_pretty(kept).expect("plain values are JSON");
    text.push(b'\n');
    let mut file = File::create(&beside).map_err(failed("create", &beside))?;
    file.write_all(&text).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("fsync", &beside))?;
    fs::rename(&beside, &path).map_err(failed("rename", &beside))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed("fsync", folder))
}

fn text_of(rules: &[RuleSettings]) -> String {
    serde_json::to_string(rules).expect("plain values are JSON")
}

fn hash_of(text: &str) -> u64 {
    xxh3_64(text.as_bytes())
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RuleStoreError {
    let path = path.to_owned();
    move |source| RuleStoreError::Io {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use engine::rules::RuleAction;

    use super::*;

    fn skip(when: &str) -> Vec<RuleSettings> {
        vec![RuleSettings {
            when: Some(when.to_owned()),
            action: Some(RuleAction::Skip),
            share: Some(0.1),
            ..RuleSettings::default()
        }]
    }

    fn open(folder: &Path, from_file: &[RuleSettings]) -> (u32, RuleOrigin, Vec<RuleSettings>) {
        let (store, set) = RuleStore::open(folder, from_file).expect("a folder of its own");
        assert_eq!(set.version(), store.version());
        (store.version(), store.origin(), store.rules().to_vec())
    }

    #[test]
    fn what_the_api_gave_wins_until_the_file_says_something_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, api) = (skip("data.a"), skip("data.b"));
        assert_eq!(open(folder.path(), &[]), (0, RuleOrigin::File, vec![]));
        assert!(!folder.path().join(NAME).exists(), "nothing was given");
        assert_eq!(
            open(folder.path(), &file),
            (1, RuleOrigin::File, file.clone())
        );
        assert_eq!(
            open(folder.path(), &file),
            (1, RuleOrigin::File, file.clone())
        );
        let (mut store, _) = RuleStore::open(folder.path(), &file).expect("opens");
        store.keep(RuleOrigin::Api, api.clone()).expect("is kept");
        assert_eq!(
            open(folder.path(), &file),
            (2, RuleOrigin::Api, api.clone())
        );
        let other = skip("data.c");
        assert_eq!(open(folder.path(), &other), (3, RuleOrigin::File, other));
        assert_eq!(open(folder.path(), &[]), (4, RuleOrigin::File, vec![]));
    }

    #[test]
    fn a_file_that_is_not_what_was_written_is_refused_and_left() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        open(folder.path(), &skip("data.a"));
        let path = folder.path().join(NAME);
        let text = fs::read_to_string(&path).expect("it was written");
        for (bad, is_damage) in [
            (text.replace("data.a", "data.x"), true),
            (text[..text.len() / 2].to_owned(), true),
            (String::new(), true),
            (text.replace("\"format\": 1", "\"format\": 2"), false),
        ] {
            fs::write(&path, &bad).expect("written");
            let error = RuleStore::open(folder.path(), &skip("data.a")).expect_err(&bad);
            assert_eq!(
                matches!(error, RuleStoreError::Damaged { .. }),
                is_damage,
                "{error}"
            );
            assert_eq!(fs::read_to_string(&path).expect("is left"), bad);
        }
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_set() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let rules = skip("data.a");
        open(folder.path(), &rules);
        fs::write(folder.path().join(BESIDE), "{\"format\":").expect("written");
        assert_eq!(
            open(folder.path(), &rules),
            (1, RuleOrigin::File, rules.clone())
        );
    }
}
