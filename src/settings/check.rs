//! What must hold between settings that are each well-formed.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::auth::AuthSettings;
use engine::mapping::Mapping;
use engine::provider::{CallKind, Definition, DefinitionError, shipped, shipped_ids};
use engine::quota::{AccountLimits, LimitsError};
use engine::ready::WEIGHT_MAX;
use engine::rules::RuleSet;
use engine::shard::SYSTEM_A;
use net::egress::Origin;

use super::document::Places;
use super::limit::limits_of;
use super::problem::ProblemList;
use super::provider::{ProviderSettings, RecordIdIs, WeightSettings};
use super::quantity::ByteSize;
use super::{
    ConflictSettings, Deletes, Direction, ObjectSettings, PoolSettings, RuleSettings, Settings,
    SystemASettings, TargetSettings, read_schema,
};

/// What a file may say but this version does not do: refused, so that nobody
/// believes it done. An entry goes with the commit that builds the thing.
const NOT_AVAILABLE: [&str; 2] = ["egress.allow", "log.file"];

/// As many virtual shards as a record's hash is spread over.
const SHARDS_MAX: usize = 1024;
/// Below this a ring wakes its shard for almost every event.
const RING_CAPACITY_MIN: usize = 64;
/// Above this the rings alone outgrow a small machine's memory.
const RING_CAPACITY_MAX: usize = 1 << 24;
/// A segment holds at least one event of the largest size.
const SEGMENT_BYTES_MIN: ByteSize = ByteSize::mebibytes(2);
const SEGMENT_BYTES_MAX: ByteSize = ByteSize::mebibytes(4096);
/// Buffers alone take this much.
const MEMORY_MIN: ByteSize = ByteSize::mebibytes(64);
/// Names are labels of metrics and parts of paths.
const NAME_BYTES_MAX: usize = 64;

/// `unread` accounts have been refused already; what they lack is not told again.
pub(super) fn check(
    settings: &Settings,
    unread: &[String],
    places: &Places,
    problems: &mut ProblemList<'_>,
) {
    let mut checker = Checker {
        settings,
        places,
        problems,
    };
    checker.node();
    checker.listeners();
    for (name, provider) in &settings.providers {
        if unread.contains(name) {
            continue;
        }
        checker.provider(name, provider);
    }
    for (at, (name, pool)) in settings.pools.iter().enumerate() {
        checker.pool(at, name, pool);
    }
    for (name, object) in &settings.objects {
        checker.object(name, object);
    }
    if let Some(Err(found)) = settings.system_a.as_ref().map(SystemASettings::check_url) {
        checker.refuse("system_a.url", found);
    }
    checker.rules();
    checker.refuse_unavailable();
}

struct Checker<'c, 's> {
    settings: &'c Settings,
    places: &'c Places,
    problems: &'c mut ProblemList<'s>,
}

impl Checker<'_, '_> {
    fn refuse(&mut self, path: &str, message: impl Into<String>) -> &mut super::Problem {
        self.problems.add(self.places.of(path), message)
    }

    fn node(&mut self) {
        let Settings {
            server,
            shards,
            wal,
            memory,
            ..
        } = self.settings;
        if let Some(url) = &server.public_url
            && let Err(found) = base_url(url)
        {
            self.refuse("server.public_url", found);
        }
        if shards.count.is_some_and(|count| count.get() > SHARDS_MAX) {
            self.refuse("shards.count", format!("expected 1 to {SHARDS_MAX} shards"));
        }
        if !(RING_CAPACITY_MIN..=RING_CAPACITY_MAX).contains(&shards.ring_capacity.get()) {
            let message = format!("expected {RING_CAPACITY_MIN} to {RING_CAPACITY_MAX} events");
            self.refuse("shards.ring_capacity", message);
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&wal.segment_bytes) {
            self.refuse("wal.segment_bytes", "expected \"2MiB\" to \"4GiB\"");
        }
        if memory.max < MEMORY_MIN {
            self.refuse("memory.max", "expected at least \"64MiB\"");
        }
    }

    fn listeners(&mut self) {
        let listen = &self.settings.listen;
        let mut taken: Vec<SocketAddr> = Vec::new();
        let addresses = [
            ("tcp", Some(listen.tcp)),
            ("http", Some(listen.http)),
            ("webhooks", listen.webhooks),
        ];
        for (key, address) in addresses {
            let Some(address) = address else { continue };
            let path = format!("listen.{key}");
            if address.port() != 0 && taken.contains(&address) {
                self.refuse(&path, format!("{address} is taken by another listener"));
            }
            taken.push(address);
            // A webhook carries its own proof: the signature over its body.
            let needs_keys = key != "webhooks";
            if needs_keys && !address.ip().is_loopback() && !listen.insecure {
                self.refuse(
                    &path,
                    format!("{address} is off loopback without TLS and keys"),
                )
                .help(
                    "listen on 127.0.0.1 behind a proxy that does both, \
                     or set `insecure = true` in [listen]",
                );
            }
        }
    }

    fn provider(&mut self, name: &str, provider: &ProviderSettings) {
        let path = format!("providers.{name}");
        if !is_name(name) {
            self.refuse(
                &path,
                format!("expected letters, digits, `-` and `_`, found `{name}`"),
            );
        }
        if name == SYSTEM_A {
            self.refuse(
                &path,
                "`system_a` is the company's own system: see [system_a]",
            );
        }
        self.definition(name, provider);
        if let Some(url) = &provider.account.base_url
            && let Err(error) = Origin::parse(url)
        {
            self.refuse(&format!("{path}.base_url"), error.to_string());
        }
        let retry = &provider.account.retry;
        if retry.max_delay < retry.base_delay {
            let message = "`max_delay` is shorter than `base_delay`";
            self.refuse(&format!("{path}.retry"), message);
        }
        self.weights(&path, &provider.account.weights);
        self.limits(&path, provider);
        self.auth(&path, provider);
        self.webhook(&path, provider);
        if provider.account.record_id_is == RecordIdIs::Remote {
            let message = "`record_id_is = \"remote\"` is not available in this version";
            self.refuse(&format!("{path}.record_id_is"), message);
        }
    }

    fn weights(&mut self, path: &str, weights: &WeightSettings) {
        for (table, named) in [("objects", &weights.objects), ("tenants", &weights.tenants)] {
            for (name, _) in named.iter().filter(|(_, weight)| weight.get() > WEIGHT_MAX) {
                let message = format!("a weight is at most {WEIGHT_MAX}");
                self.refuse(&format!("{path}.weights.{table}.{name}"), message);
            }
        }
    }

    fn auth(&mut self, path: &str, provider: &ProviderSettings) {
        let token_url = match &provider.auth {
            AuthSettings::None
            | AuthSettings::Bearer { .. }
            | AuthSettings::ApiKey { .. }
            | AuthSettings::Basic { .. } => return,
            AuthSettings::ClientCredentials(client) | AuthSettings::Refresh { client, .. } => {
                &client.token_url
            }
            AuthSettings::JwtBearer { token_url, .. } => token_url,
        };
        if let Some(url) = token_url {
            if let Err(found) = base_url(url) {
                self.refuse(&format!("{path}.auth.token_url"), found)
                    .unquoted();
            }
            return;
        }
        // A definition that does not parse is told elsewhere.
        let definition = shipped(&provider.definition).map(Definition::parse);
        let Some(Ok(definition)) = definition else {
            return;
        };
        if definition
            .auth()
            .is_none_or(|auth| auth.token_url.is_none())
        {
            let message = format!(
                "type \"{}\" has no URL of its own for tokens: auth needs `token_url`",
                provider.definition
            );
            self.refuse(&format!("{path}.auth"), message).unquoted();
        }
    }

    fn webhook(&mut self, path: &str, provider: &ProviderSettings) {
        let Some(settings) = &provider.webhook else {
            return;
        };
        let path = format!("{path}.webhook");
        let definition = shipped(&provider.definition);
        let definition = definition.and_then(|text| Definition::parse(text).ok());
        // An unknown type was told already.
        let Some(definition) = definition else { return };
        let Some(webhook) = definition.webhook() else {
            let message = format!("a \"{}\" sends no webhooks", provider.definition);
            self.refuse(&path, message).unquoted();
            return;
        };
        if let Some(chosen) = &settings.signature
            && !webhook.signatures().any(|known| known == chosen)
        {
            let known = webhook.signatures().collect::<Vec<_>>().join(", ");
            let message = format!("there is no signature `{chosen}`");
            let problem = self.refuse(&format!("{path}.signature"), message);
            problem.unquoted().help(format!("known: {known}"));
        }
        if settings.account.is_some() && !webhook.names_account() {
            let message = "deliveries of this type do not say whose they are";
            self.refuse(&format!("{path}.account"), message).unquoted();
        }
    }

    fn definition(&mut self, name: &str, provider: &ProviderSettings) {
        let id = provider.definition.as_str();
        let path = format!("providers.{name}");
        let Some(text) = shipped(id) else {
            let message = if provider.account.definition.is_some() {
                format!("provider type \"{id}\" is not available in this version")
            } else {
                format!("`{name}` has no `type`, and is not available as one in this version")
            };
            let known = shipped_ids().collect::<Vec<_>>().join(", ");
            self.refuse(&format!("{path}.type"), message)
                .help(format!("available: {known}"));
            return;
        };
        let compiled = Definition::parse(text)
            .and_then(|definition| definition.with_rest(&provider.account.rest));
        let host = compiled.as_ref().ok().and_then(Definition::base_url);
        if provider.account.base_url.is_none() && host.is_none() {
            let message = format!("`{name}` is of type \"{id}\" and needs a `base_url`");
            self.refuse(&path, message);
        }
        match compiled {
            Ok(_) => {}
            Err(DefinitionError::Template { key, source }) => {
                self.refuse(&format!("{path}.{key}"), source.to_string());
            }
            Err(error) => {
                self.refuse(&format!("{path}.type"), error.to_string());
            }
        }
    }

    fn limits(&mut self, path: &str, provider: &ProviderSettings) {
        let mut names = HashSet::new();
        for (index, limit) in provider.limits.iter().enumerate() {
            let at = format!("{path}.limits.{index}");
            if !is_name(&limit.name) {
                let message = "expected letters, digits, `-` and `_` in a limit's name";
                self.refuse(&format!("{at}.name"), message);
            }
            if !names.insert(&limit.name) {
                let message = format!("a second limit named \"{}\"", limit.name);
                self.refuse(&format!("{at}.name"), message);
            }
        }
        let definition = shipped(&provider.definition);
        let definition = definition.and_then(|text| Definition::parse(text).ok());
        let shipped = definition.as_ref().map_or(&[][..], Definition::limits);
        let limits = AccountLimits {
            limits: limits_of(provider, shipped, true),
            ..AccountLimits::unlimited(path)
        };
        // Two of one name were refused above, with their place.
        match limits.validate() {
            Ok(()) | Err(LimitsError::Duplicate { .. }) => {}
            Err(error) => {
                self.refuse(&format!("{path}.limits"), error.to_string());
            }
        }
    }

    fn pool(&mut self, at: usize, name: &str, pool: &PoolSettings) {
        let path = format!("pools.{name}");
        let settings = self.settings;
        if !is_name(name) || settings.provider(name).is_some() {
            let message = "expected letters, digits, `-` and `_`, and no account's name";
            self.refuse(&path, message);
        }
        if pool.members.is_empty() {
            self.refuse(
                &format!("{path}.members"),
                "a pool needs at least one account",
            );
        }
        let first = pool
            .members
            .iter()
            .find_map(|member| settings.provider(member));
        for (index, member) in pool.members.iter().enumerate() {
            let path = format!("{path}.members.{index}");
            let elsewhere = settings.pools[..at]
                .iter()
                .any(|(_, other)| other.members.contains(member));
            if elsewhere || pool.members[..index].contains(member) {
                self.refuse(&path, format!("`{member}` is a member already"));
            }
            match (settings.provider(member), first) {
                (None, _) => {
                    self.refuse(&path, format!("`{member}` is no account in [providers]"));
                }
                (Some(account), Some(first)) if account.definition != first.definition => {
                    let message = format!("`{member}` is of another type than the first member");
                    self.refuse(&path, message);
                }
                _ => {}
            }
        }
    }

    fn object(&mut self, name: &str, object: &ObjectSettings) {
        let path = format!("objects.{name}");
        if !is_name(name) {
            self.refuse(
                &path,
                format!("expected letters, digits, `-` and `_`, found `{name}`"),
            );
        }
        if let Some(schema) = &object.record.schema
            && let Err(found) = read_schema(schema)
        {
            self.refuse(&format!("{path}.schema"), found);
        }
        if object.record.direction != Direction::Out {
            let pools = &self.settings.pools;
            let pool = object
                .to
                .iter()
                .find(|(to, _)| pools.iter().any(|(pool, _)| pool == to));
            if let Some((pool, _)) = pool {
                let message = format!("changes do not come back from a pool: `{pool}`");
                self.refuse(&format!("{path}.direction"), message);
            }
        } else if object.record.conflict.is_some() {
            let message = "changes of one side alone never conflict: `direction` is \"out\"";
            self.refuse(&format!("{path}.conflict"), message);
        }
        let conflict = object.record.conflict.as_ref();
        if let Some(Err((key, detail))) = conflict.map(ConflictSettings::policy) {
            self.refuse(&format!("{path}.conflict.{key}"), detail);
        }
        for (account, target) in &object.to {
            let path = format!("{path}.to.{account}");
            let is_pool = self.settings.pools.iter().any(|(pool, _)| pool == account);
            if self.settings.provider(account).is_none() && !is_pool {
                let accounts = self
                    .settings
                    .providers
                    .iter()
                    .map(|(name, _)| name.as_str());
                let pools = self.settings.pools.iter().map(|(name, _)| name.as_str());
                let known: Vec<&str> = accounts.chain(pools).collect();
                let known = if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                };
                // Taken, a slip of the pen would be a mapping that never applies.
                self.refuse(&path, format!("`{account}` is no account in [providers]"))
                    .help(format!(
                        "accounts: {known}; one that is added at run time brings its mappings \
                         with it: `mappings` of POST /v1/providers"
                    ));
            }
            self.target(&path, name, account, target);
        }
        self.marks(name, object);
    }

    /// What is only marked as deleted has to be marked by every side that keeps it.
    fn marks(&mut self, name: &str, object: &ObjectSettings) {
        let path = format!("objects.{name}");
        for (account, target) in &object.to {
            let at = format!("{path}.to.{account}");
            if object.record.deletes == Deletes::Soft && target.deleted.is_none() {
                let message = "`deletes` is \"soft\", and there is no `deleted`: the field by \
                               which this account marks a record";
                self.refuse(&at, message);
            }
            if target.deleted.is_some() && !self.updates(account) {
                let message = format!("`{account}` has no update by which to mark a record");
                self.refuse(&format!("{at}.deleted"), message);
            }
        }
        let source = object.record.source.as_ref();
        let unmarked = source.is_some_and(|source| source.deleted.is_none());
        if object.record.deletes == Deletes::Soft && unmarked {
            let message = "`deletes` is \"soft\", and there is no `deleted`: the column by which \
                           the table marks a row";
            self.refuse(&format!("{path}.source"), message);
        }
    }

    /// Whether an account can update a record. What is wrong with an account is told elsewhere.
    fn updates(&self, account: &str) -> bool {
        self.definition_of(account)
            .is_none_or(|definition| definition.operation(CallKind::Update).is_some())
    }

    /// Tells every field that cannot be right: a wrong one is told, left out,
    /// and the rest tried again.
    fn target(&mut self, path: &str, object: &str, account: &str, target: &TargetSettings) {
        let mut mapping = target.mapping(object);
        let mut places: Vec<usize> = (0..mapping.fields.len()).collect();
        while let Err(error) = Mapping::compile(object, &mapping) {
            let place = FieldPlace::of(&error.place);
            let index = place.field.and_then(|at| places.get(at).copied());
            let at = match index {
                Some(index) => format!("{path}.fields.{index}{}", place.rest),
                None if error.place.starts_with("match") => format!("{path}.match"),
                None if error.place.starts_with("deleted") => format!("{path}.{}", error.place),
                None => path.to_owned(),
            };
            match place.rest.strip_prefix('.') {
                // The field stands for a key that is not there.
                Some(key) if !key.contains('.') && !self.places.has(&at) => {
                    self.refuse(&at, format!("`{key}` {}", error.detail));
                }
                _ => {
                    self.refuse(&at, error.detail);
                }
            }
            let Some(at) = place.field.filter(|at| *at < places.len()) else {
                break;
            };
            mapping.fields.remove(at);
            places.remove(at);
        }
        if let Some(found) = self.match_fault(object, account, target) {
            let at = format!("{path}.match");
            self.refuse(&at, found).unquoted();
        }
    }

    /// Why records cannot be found by a mapping's match keys. What is wrong with the rest of it, or with
    /// its account, is told elsewhere.
    fn match_fault(&self, object: &str, account: &str, target: &TargetSettings) -> Option<String> {
        let mapping = Mapping::compile(object, &target.mapping(object)).ok()?;
        let mut definition = self.definition_of(account)?;
        if let Some(field) = mapping.external_id() {
            definition = definition.with_external_id(mapping.remote(), field);
        }
        definition.check_match(&mapping).err()
    }

    /// The definition that an account, or a pool, goes by, if it can be read.
    fn definition_of(&self, account: &str) -> Option<Definition> {
        let settings = self.settings;
        let pools = settings.pools.iter().filter(|(pool, _)| pool == account);
        let members = pools.flat_map(|(_, pool)| &pool.members);
        let provider = std::iter::once(account)
            .chain(members.map(String::as_str))
            .find_map(|name| settings.provider(name))?;
        let definition = Definition::parse(shipped(&provider.definition)?);
        let definition = definition.and_then(|it| it.with_rest(&provider.account.rest));
        definition.ok()
    }

    /// Tells every rule that cannot be right, then what is wrong with all of them together.
    fn rules(&mut self) {
        let rules = &self.settings.rules;
        let mut wrong = false;
        for (index, rule) in rules.iter().enumerate() {
            let path = format!("rules.{index}");
            for message in self.strangers(rule) {
                wrong = true;
                self.refuse(&format!("{path}.{}", message.0), message.1);
            }
            match RuleSet::compile(0, std::slice::from_ref(rule)) {
                Ok(set) if set.reads_linked() => {
                    wrong = true;
                    let message = "`linked` is not available in this version: whether a record \
                                   is linked is not known when its event is accepted";
                    self.refuse(&format!("{path}.when"), message);
                }
                Ok(_) => {}
                Err(error) => {
                    wrong = true;
                    self.refuse(&rule_place(&path, error.key), error.detail);
                }
            }
        }
        if !wrong && let Err(error) = RuleSet::compile(0, rules) {
            let path = rule_place(&format!("rules.{}", error.rule), error.key);
            self.refuse(&path, error.detail);
        }
    }

    /// Keys of a rule that name what is not configured, and what to say of each.
    fn strangers(&self, rule: &RuleSettings) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some(account) = &rule.provider
            && self.settings.provider(account).is_none()
        {
            let message = format!("`{account}` is no account in [providers]");
            found.push(("provider", message));
        }
        found
    }

    fn refuse_unavailable(&mut self) {
        for pattern in NOT_AVAILABLE {
            for (path, range) in self.places.matching(pattern) {
                self.problems
                    .add(range, format!("`{path}` is not available in this version"));
            }
        }
    }
}

/// `fields[2].convert[0]`, as a mapping's errors name their place.
struct FieldPlace {
    field: Option<usize>,
    /// `.convert.0`
    rest: String,
}

impl FieldPlace {
    fn of(place: &str) -> FieldPlace {
        let dotted = place.replace('[', ".").replace(']', "");
        let after = dotted.strip_prefix("fields.").unwrap_or_default();
        let (index, rest) = after.split_at(after.find('.').unwrap_or(after.len()));
        FieldPlace {
            field: index.parse().ok(),
            rest: rest.to_owned(),
        }
    }
}

fn rule_place(path: &str, key: &str) -> String {
    match key {
        "" => path.to_owned(),
        key => format!("{path}.{key}"),
    }
}

/// Whether accounts, limits and the like can be named so.
pub(crate) fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// A URL that paths can be put after; `Err` says what was found instead.
fn base_url(text: &str) -> Result<(), String> {
    let expected = "expected a URL such as \"https://api.example.com\"";
    // The text itself is not repeated: it may hold a password.
    let uri: http::Uri = text
        .parse()
        .map_err(|error| format!("{expected}: {error}"))?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err(format!("{expected}, found no http or https")),
    }
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.is_empty() {
        return Err(format!("{expected}, found no host"));
    }
    if authority.contains('@') {
        return Err(format!(
            "{expected}, found a user name; use [providers.NAME.auth]"
        ));
    }
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{expected}, found a query or a fragment"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_told_from_other_text() {
        for (text, holds) in [
            ("https://api.example.com", true),
            ("http://127.0.0.1:9100/v2", true),
            ("ftp://example.com", false),
            ("example.com", false),
            ("/path", false),
            ("https://user:pw@example.com", false),
            ("https://example.com?x=1", false),
            ("https://", false),
        ] {
            assert_eq!(base_url(text).is_ok(), holds, "{text}");
        }
    }
}
