//! The config file as plain values: read, overlaid with the environment, checked.

mod auth;
mod check;
mod document;
mod limit;
mod node;
mod object;
mod pool;
mod problem;
mod provider;
mod quantity;
mod secret;
mod source;
mod system_a;

use std::collections::BTreeMap;
use std::path::Path;

pub use auth::{AuthSettings, OAuthClient};
pub(crate) use check::is_name;
pub use engine::rules::{RuleAction, RuleSettings};
pub use limit::{LimitKind, LimitScope, LimitSettings, limits_of};
pub use node::{
    Durability, EgressSettings, ListenSettings, LogFormat, LogLevel, LogSettings, MemorySettings,
    Retention, RetentionSettings, ServerSettings, ShardSettings, WalSettings,
};
pub use object::{
    ConflictPolicy, ConflictSettings, Deletes, Direction, FieldSettings, MatchKey, ObjectSettings,
    OnNull, RecordSettings, SourceSettings, TargetSettings, read_schema,
};
pub use pool::PoolSettings;
pub use problem::{Problem, Problems};
pub use provider::{
    AccountSettings, BatchSettings, BreakerSettings, ObjectSwitch, PollSettings, ProviderSettings,
    RecordIdIs, RetrySettings, WebhookSettings, WeightSettings,
};
pub use quantity::{ByteSize, parse_duration, parse_size};
pub use secret::{Credential, EXEC_TIMEOUT, SECRET_BYTES_MAX, Secret, SecretError, SecretSource};
pub use source::{Place, Source};
pub use system_a::{PostgresSettings, SystemASettings};

use document::{Document, Section};
use engine::shard::SYSTEM_A;
use object::TargetKeys;
use problem::ProblemList;

/// Everything the config file can say, with defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[server]`
    pub server: ServerSettings,
    /// `[listen]`
    pub listen: ListenSettings,
    /// `[shards]`
    pub shards: ShardSettings,
    /// `[wal]`
    pub wal: WalSettings,
    /// `[memory]`
    pub memory: MemorySettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[retention]`
    pub retention: RetentionSettings,
    /// `[egress]`
    pub egress: EgressSettings,
    /// `[providers.NAME]`, in the file's order.
    pub providers: Vec<(String, ProviderSettings)>,
    /// `[pools.NAME]`, in the file's order.
    pub pools: Vec<(String, PoolSettings)>,
    /// `[objects.NAME]`, in the file's order.
    pub objects: Vec<(String, ObjectSettings)>,
    /// `[[rules]]`, in the file's order.
    pub rules: Vec<RuleSettings>,
    /// `[system_a]`; there when changes come back to it.
    pub system_a: Option<SystemASettings>,
}

const SECTIONS: [&str; 13] = [
    "server",
    "listen",
    "shards",
    "wal",
    "memory",
    "log",
    "retention",
    "egress",
    "providers",
    "pools",
    "objects",
    "rules",
    "system_a",
];

/// A config is written by people; more than this is the wrong file.
const FILE_BYTES_MAX: u64 = 16 << 20;

impl Settings {
    /// Reads `file` (none: only defaults) with this process's environment over it.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once where possible.
    pub fn load(file: Option<&Path>) -> Result<Settings, Problems> {
        let source = match file {
            None => Source::new("the defaults", ""),
            Some(path) => {
                let name = path.display().to_string();
                match read_file(path) {
                    Ok(text) => {
                        let folder = path.parent().unwrap_or(Path::new(""));
                        Source::new(name, text).in_folder(folder)
                    }
                    Err(error) => {
                        let source = Source::new(name, "");
                        let mut problems = ProblemList::new(&source);
                        problems
                            .add(0..0, format!("cannot read the file: {error}"))
                            .unquoted();
                        return Err(problems.finish().expect_err("a problem was just added"));
                    }
                }
            }
        };
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Settings::read(&source.with_environment(variables))
    }

    /// Reads what `source` says.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once where possible.
    pub fn read(source: &Source) -> Result<Settings, Problems> {
        let mut problems = ProblemList::new(source);
        let mut document = Document::parse(source, &mut problems);
        let mut unread = Vec::new();
        let mut settings = Settings {
            server: document.take("server", &mut problems),
            listen: document.take("listen", &mut problems),
            shards: document.take("shards", &mut problems),
            wal: document.take("wal", &mut problems),
            memory: document.take("memory", &mut problems),
            log: document.take("log", &mut problems),
            retention: document.take("retention", &mut problems),
            egress: document.take("egress", &mut problems),
            providers: document
                .take_named("providers", &mut problems)
                .into_iter()
                .map(|(name, section)| {
                    let provider = read_provider(&name, section, &mut problems);
                    let provider = provider.unwrap_or_else(|| {
                        unread.push(name.clone());
                        ProviderSettings::default()
                    });
                    (name, provider)
                })
                .collect(),
            pools: document
                .take_named("pools", &mut problems)
                .into_iter()
                .map(|(name, section)| (name, section.rest(&mut problems).unwrap_or_default()))
                .collect(),
            objects: document
                .take_named("objects", &mut problems)
                .into_iter()
                .map(|(name, section)| {
                    let mut object = read_object(section, &mut problems);
                    let schema = object.record.schema.take();
                    object.record.schema = schema.map(|path| source.folder().join(path));
                    (name, object)
                })
                .collect(),
            rules: document.take_list("rules", &mut problems),
            system_a: document.take("system_a", &mut problems),
        };
        if settings.system_a.is_none() && settings.comes_back() {
            settings.system_a = Some(SystemASettings::default());
        }
        check::check(&settings, &unread, &document.places, &mut problems);
        if let Some(system_a) = &settings.system_a {
            let account = system_a.account();
            settings.providers.push((SYSTEM_A.to_owned(), account));
        }
        document.refuse_rest(&SECTIONS, &mut problems);
        problems.finish().map(|()| settings)
    }

    /// The account of this name.
    pub fn provider(&self, name: &str) -> Option<&ProviderSettings> {
        self.providers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, provider)| provider)
    }

    /// Whether changes of some object are taken from accounts.
    pub fn comes_back(&self) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|(_, object)| object.record.direction != Direction::Out)
    }

    /// The accounts that take an object: those it is mapped to, or where it is mapped to none, those
    /// that nothing is mapped to.
    pub fn accounts_of(&self, object: &ObjectSettings) -> Vec<&str> {
        let accounts = self.providers.iter().map(|(name, _)| name.as_str());
        let accounts = accounts.filter(|name| *name != SYSTEM_A);
        if object.to.is_empty() {
            let mapped = |name: &str| {
                let mut objects = self.objects.iter();
                objects.any(|(_, object)| object.to.iter().any(|(to, _)| to == name))
            };
            return accounts.filter(|name| !mapped(name)).collect();
        }
        let takes = |name: &&str| object.to.iter().any(|(to, _)| to == name);
        accounts.filter(takes).collect()
    }

    /// The pool that an account belongs to.
    pub fn pool_of(&self, account: &str) -> Option<&str> {
        let mut pools = self.pools.iter();
        let pool = pools.find(|(_, pool)| pool.members.iter().any(|member| member == account));
        pool.map(|(name, _)| name.as_str())
    }

    /// The object of this name.
    pub fn object(&self, name: &str) -> Option<&ObjectSettings> {
        self.objects
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, object)| object)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::read(&Source::new("the defaults", "")).expect("an empty file is a valid one")
    }
}

fn read_file(path: &Path) -> std::io::Result<String> {
    let length = std::fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!(
            "expected at most {FILE_BYTES_MAX} bytes, found {length}"
        )));
    }
    std::fs::read_to_string(path)
}

fn read_provider(
    name: &str,
    mut section: Section<'_>,
    problems: &mut ProblemList<'_>,
) -> Option<ProviderSettings> {
    let limits = section.take_list("limits", problems);
    let auth = section.take_secretive("auth", problems).unwrap_or_default();
    let webhook = section.take_secretive("webhook", problems);
    let account: AccountSettings = section.rest(problems)?;
    let definition = account
        .definition
        .clone()
        .unwrap_or_else(|| name.to_owned());
    Some(ProviderSettings {
        definition,
        account,
        limits,
        auth,
        webhook,
        switches: BTreeMap::new(),
    })
}

fn read_object(mut section: Section<'_>, problems: &mut ProblemList<'_>) -> ObjectSettings {
    let to = section
        .take_named("to", problems)
        .into_iter()
        .map(|(account, mut section)| {
            let fields = section.take_list("fields", problems);
            let keys: TargetKeys = section.rest(problems).unwrap_or_default();
            (account, keys.with(fields))
        })
        .collect();
    ObjectSettings {
        record: section.rest(problems).unwrap_or_default(),
        to,
    }
}

#[cfg(test)]
mod tests;
