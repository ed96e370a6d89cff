//! The plans of a run's accounts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::mapping::{Direction, FieldSettings, Mapping, MappingError, MappingSettings, OnNull};
use engine::merge::{ConflictPolicy, Foreign, Rule};
use engine::provider::{Definition, shipped};
use engine::retry::RetryPolicy;
use engine::shard::{AccountPlan, DeletePolicy, Role, SYSTEM_A, TwoWay};

use super::mutants::Mutant;
use super::options::Options;
use super::sets::mapping::MappingSet;

/// The plan of every account, with a set of mappings.
///
/// # Errors
/// Why the set cannot be right: none of it is taken.
pub(super) fn plans(
    options: &Options,
    set: Option<&MappingSet>,
) -> Result<Vec<Arc<AccountPlan>>, MappingError> {
    let definition = definition(options.two_way.is_some());
    let plan = |account: &super::options::AccountOptions| {
        let overfull = options.mutant == Some(Mutant::OverfullBatch) && account.batch_max > 1;
        let batch_max = account.batch_max * if overfull { 2 } else { 1 };
        let endless = options.mutant == Some(Mutant::EndlessAttempts);
        let more_attempts = if endless { 3 } else { 0 };
        Ok(Arc::new(AccountPlan {
            name: account.name.as_str().into(),
            definition: definition.clone().with_batch_items_max(batch_max),
            mappings: mappings(options, set, &account.name)?,
            retry: RetryPolicy {
                max_attempts: account.max_attempts + more_attempts,
                max_age: Duration::from_secs(24 * 3600),
                base_delay: Duration::from_millis(200),
                max_delay: Duration::from_secs(5),
            },
            settle: Duration::from_secs(5),
            timeout: account.timeout,
            parent_timeout: Duration::from_secs(60),
            max_wait: Duration::from_millis(50),
            weights: engine::shard::Weights::default(),
            fold: account.fold,
            role: match account.system_a {
                true => Role::SystemA,
                false => Role::Provider,
            },
            two_way: match account.system_a {
                true => HashMap::new(),
                false => two_way(options, &account.name),
            },
            renewed: Vec::new(),
        }))
    };
    options.accounts.iter().map(plan).collect()
}

/// The mappings of an account.
fn mappings(
    options: &Options,
    set: Option<&MappingSet>,
    account: &str,
) -> Result<HashMap<String, Mapping>, MappingError> {
    let Some((set, own)) = set.and_then(|set| Some((set, set.accounts.get(account)?))) else {
        return Ok(HashMap::new());
    };
    let objects = own.objects.iter().map(|(object, mapping)| {
        let mut settings = mapping.settings(set.flaw);
        plant(options.mutant, mapping.fields.len(), &mut settings);
        Ok(((*object).to_owned(), Mapping::compile(object, &settings)?))
    });
    objects.collect()
}

/// Settings as an engine with a planted bug would understand them.
fn plant(mutant: Option<Mutant>, sound: usize, settings: &mut MappingSettings) {
    let sound = sound
        + settings
            .fields
            .iter()
            .filter(|it| it.constant.is_some())
            .count();
    match mutant {
        Some(Mutant::BadMappingsTaken) => settings.fields.truncate(sound),
        Some(Mutant::NullPolicyIgnored) => {
            let fields = settings.fields.iter_mut();
            fields.for_each(|field| field.on_null = OnNull::Clear);
        }
        Some(Mutant::InverseLeftOut) => {
            let fields = settings.fields.iter_mut();
            for field in fields.filter(|field| field.convert == ["text"]) {
                field.convert = vec!["to_string".to_owned()];
                field.lossy = true;
            }
        }
        Some(Mutant::SwappedBack) => {
            let crossed = ["name", "email"].map(|local| {
                let mut fields = settings.fields.iter_mut();
                let field = fields.find(|field| field.local == local)?;
                field.direction = Direction::Out;
                Some(field.remote.clone())
            });
            if let [Some(name), Some(email)] = crossed {
                for (local, remote) in [("name", email), ("email", name)] {
                    settings.fields.push(FieldSettings {
                        local: local.to_owned(),
                        remote,
                        direction: Direction::In,
                        ..FieldSettings::default()
                    });
                }
            }
        }
        Some(Mutant::DefaultForgotten) => {
            let fields = settings.fields.iter_mut();
            fields.for_each(|field| field.default = None);
        }
        Some(Mutant::CapitalsLeftOut) => {
            let fields = settings.fields.iter_mut();
            for field in fields.filter(|field| field.lossy) {
                field.convert.clear();
            }
        }
        Some(Mutant::ValueTableLeftOut) => {
            let fields = settings.fields.iter_mut();
            fields.for_each(|field| field.values.clear());
        }
        _ => {}
    }
}

/// A list of changes as `rest` has none of its own: `since` and pages by time and id.
const LIST: &str = r#"
[poll.changes]
interval = "5s"
overlap = "20s"
method = "GET"
path = "/{object}/changes"
query = { since = "{from|ms}", limit = "{size}", page = "{page?}" }
size = 4
records = "/results"
record = "/record"
id = "/id"
modified_at = "/at"
unit = "ms"
deleted = { at = "/deleted", is = true }
merged_into = "/into"
page = { token = "/next" }
"#;

/// What the model of an account says when its day's calls are spent.
const SPENT: &str = r#"
[error]
message = "/error"

[[errors]]
status = 429
message = "the day's calls are spent"
class = "quota_exhausted"
"#;

fn definition(both_ways: bool) -> Definition {
    let shipped = shipped("rest").expect("rest is shipped");
    let (list, shipped) = match both_ways {
        true => (LIST, shipped.replace(KINDS, KINDS_AND_MERGED)),
        false => ("", shipped.to_owned()),
    };
    Definition::parse(&format!("{shipped}{SPENT}{list}")).expect("and parses")
}

/// The end of `rest`'s table of what notices tell of,
const KINDS: &str = r#"restored = "restored" } }"#;
/// and with merges, of which it has none.
const KINDS_AND_MERGED: &str = r#"restored = "restored", merged = "merged" } }
merged = { into = "/into", from = "/id" }"#;

/// How an account's changes come back.
fn two_way(options: &Options, account: &str) -> HashMap<String, TwoWay> {
    let Some(two_way) = &options.two_way else {
        return HashMap::new();
    };
    let others = options.accounts.iter().map(|account| &*account.name);
    let others = others.filter(|name| *name != account && *name != SYSTEM_A);
    let forgets = options.mutant == Some(Mutant::ForgottenLearner);
    let learners = [SYSTEM_A].into_iter().chain(others.filter(|_| !forgets));
    let two_way = TwoWay {
        conflicts: ConflictPolicy {
            default: match options.mutant {
                Some(Mutant::OwnedTaken) => Rule::LastWriteWins,
                Some(Mutant::NotWrittenBack) => Rule::Owned(Foreign::Refuse),
                _ => two_way.policy.rule(),
            },
            ..ConflictPolicy::default()
        },
        deletes: DeletePolicy::Propagate,
        learners: learners.map(Arc::from).collect(),
        inbound: true,
    };
    ["contact", "company"]
        .map(|object| (object.to_owned(), two_way.clone()))
        .into()
}
