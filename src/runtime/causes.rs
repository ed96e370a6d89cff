//! Dead letters whose cause was set right between two runs: other credentials, another mapping.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use engine::shard::DeadCause;
use engine::view::JobKind;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::dead_letters::{REDRIVE_RATE, redrive_cause};
use super::durable_file;
use super::jobs::Jobs;
use super::shards::Shards;
use crate::settings::{ProviderSettings, Settings};

const FILE: &str = "causes.json";
/// A thousand accounts with a hundred mappings each.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// What was in force for each account, as digests.
type Digests = BTreeMap<String, AccountDigests>;

/// Sixteen bits of each: enough to see 65,535 of 65,536 changes, too few to test guesses of a
/// password against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct AccountDigests {
    credentials: u16,
    /// By object.
    mappings: BTreeMap<String, u16>,
}

/// What changed since the run before.
#[derive(Debug)]
pub(crate) struct Causes {
    path: PathBuf,
    present: Digests,
    cleared: Vec<Cleared>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cleared {
    account: String,
    /// Of this object only.
    object: Option<String>,
    cause: DeadCause,
}

impl Causes {
    /// Compares the settings with those of the run before. A file that cannot be read is as none:
    /// what it is for can be done by hand.
    pub(crate) fn compare(data_dir: &Path, settings: &Settings, seed: u64) -> Causes {
        let path = data_dir.join(FILE);
        let present = digests(settings, seed);
        let before = match durable_file::read(&path, FILE_BYTES_MAX) {
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(path = %path.display(), %error, "cannot tell which settings changed; dead letters stay");
                present.clone()
            }),
            Ok(None) => Digests::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "cannot tell which settings changed; dead letters stay");
                present.clone()
            }
        };
        Causes {
            cleared: changed(&before, &present),
            path,
            present,
        }
    }

    /// Redrives what died of what changed, then remembers the present settings: cut off between,
    /// the next run does it again.
    pub(crate) async fn redrive(self, shards: Shards, jobs: Arc<Jobs>) {
        for Cleared {
            account,
            object,
            cause,
        } in self.cleared
        {
            let Ok(work) = jobs.begin(JobKind::Redrive, REDRIVE_RATE) else {
                tracing::warn!(
                    account,
                    "too many jobs; dead letters stay until the next start"
                );
                return;
            };
            let what = match cause {
                DeadCause::Credentials => "credentials",
                DeadCause::Mapping => "mapping",
            };
            tracing::info!(
                account,
                object,
                what,
                "changed since the last start; dead letters of that cause are redriven"
            );
            redrive_cause(&shards, work, &account, object.as_deref(), cause).await;
        }
        let text = serde_json::to_vec(&self.present).expect("maps of texts and numbers");
        if let Err(error) = durable_file::replace(&self.path, &text) {
            tracing::warn!(path = %self.path.display(), %error, "the next start redrives once more");
        }
    }
}

fn changed(before: &Digests, present: &Digests) -> Vec<Cleared> {
    let mut cleared = Vec::new();
    for (account, now) in present {
        let Some(then) = before.get(account) else {
            continue;
        };
        let clear = |cause, object| Cleared {
            account: account.clone(),
            object,
            cause,
        };
        if then.credentials != now.credentials {
            cleared.push(clear(DeadCause::Credentials, None));
        }
        let gone = then.mappings.keys();
        let objects = gone
            .filter(|object| !now.mappings.contains_key(*object))
            .chain(now.mappings.keys());
        for object in objects {
            if then.mappings.get(object) != now.mappings.get(object) {
                cleared.push(clear(DeadCause::Mapping, Some(object.clone())));
            }
        }
    }
    cleared
}

fn digests(settings: &Settings, seed: u64) -> Digests {
    let of = |(name, provider): &(String, ProviderSettings)| {
        let mut mappings = BTreeMap::new();
        for (object, wanted) in &settings.objects {
            for (_, target) in wanted.to.iter().filter(|(account, _)| account == name) {
                let text = format!("{target:?}");
                mappings.insert(object.clone(), digest(text.as_bytes(), seed));
            }
        }
        let digests = AccountDigests {
            credentials: credentials(provider, seed),
            mappings,
        };
        (name.clone(), digests)
    };
    settings.providers.iter().map(of).collect()
}

fn credentials(provider: &ProviderSettings, seed: u64) -> u16 {
    let mut text = format!("{:?}", provider.auth);
    for source in provider.auth.secrets() {
        // One that cannot be had stops the start by itself.
        if let Ok(secret) = source.resolve() {
            text.push('\0');
            text.push_str(secret.expose());
        }
    }
    digest(text.as_bytes(), seed)
}

fn digest(bytes: &[u8], seed: u64) -> u16 {
    xxh3_64_with_seed(bytes, seed) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(credentials: u16, mappings: &[(&str, u16)]) -> Digests {
        let mappings = mappings
            .iter()
            .map(|(object, digest)| ((*object).to_owned(), *digest));
        let digests = AccountDigests {
            credentials,
            mappings: mappings.collect(),
        };
        Digests::from([("crm".to_owned(), digests)])
    }

    #[test]
    fn what_changed_is_told_by_cause_and_object() {
        let told = |before: &Digests, present: &Digests| {
            let cleared = changed(before, present).into_iter();
            cleared
                .map(|cleared| (cleared.cause, cleared.object))
                .collect::<Vec<_>>()
        };
        let before = account(1, &[("contact", 5), ("deal", 6)]);
        assert_eq!(told(&before, &before), []);
        assert_eq!(told(&Digests::new(), &before), [], "nothing was in force");
        assert_eq!(
            told(&before, &account(2, &[("contact", 5), ("deal", 7)])),
            [
                (DeadCause::Credentials, None),
                (DeadCause::Mapping, Some("deal".to_owned()))
            ]
        );
        assert_eq!(
            told(&before, &account(1, &[("deal", 6), ("lead", 1)])),
            [
                (DeadCause::Mapping, Some("contact".to_owned())),
                (DeadCause::Mapping, Some("lead".to_owned()))
            ]
        );
    }
}
