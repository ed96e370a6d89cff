//! The plans of a run's accounts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use engine::merge::ConflictPolicy;
use engine::provider::{Definition, shipped};
use engine::retry::RetryPolicy;
use engine::shard::{AccountPlan, DeletePolicy, Role, SYSTEM_A, TwoWay};

use super::mutants::Mutant;
use super::options::Options;

/// The plan of every account.
pub(super) fn plans(options: &Options) -> Vec<Arc<AccountPlan>> {
    let definition = definition(options.two_way.is_some());
    let plan = |account: &super::options::AccountOptions| {
        let overfull = options.mutant == Some(Mutant::OverfullBatch) && account.batch_max > 1;
        let batch_max = account.batch_max * if overfull { 2 } else { 1 };
        let endless = options.mutant == Some(Mutant::EndlessAttempts);
        let more_attempts = if endless { 3 } else { 0 };
        Arc::new(AccountPlan {
            name: account.name.as_str().into(),
            definition: definition.clone().with_batch_items_max(batch_max),
            mappings: HashMap::new(),
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
        })
    };
    options.accounts.iter().map(plan).collect()
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

fn definition(lists: bool) -> Definition {
    let shipped = shipped("rest").expect("rest is shipped");
    let list = if lists { LIST } else { "" };
    Definition::parse(&format!("{shipped}{SPENT}{list}")).expect("and parses")
}

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
            default: two_way.policy.rule(),
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
