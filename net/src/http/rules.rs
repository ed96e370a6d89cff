//! `/v1/sync/rules`: the set of rules in force, and its replacement.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use engine::event::Operation;
use engine::refusal::{Code, Refusal};
use engine::rules::{Action, Difference, FORCE_ABOVE_POINTS, RuleSettings, Tally, Trial};
use engine::view::{RulesPush, RulesPushed};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::body;
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PushQuery {
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    force: bool,
}

/// `rules` has no default: nobody drops all rules by leaving a word out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushRequest {
    /// Each by itself, so that an error has its place.
    rules: Vec<Box<RawValue>>,
    #[serde(default)]
    force: bool,
}

pub(super) async fn show<B: Backend>(State(api): State<Api<B>>) -> Response {
    let view = api.backend.rules();
    Json(json!({
        "version": view.version,
        "origin": view.origin,
        "rules": view.rules,
    }))
    .into_response()
}

pub(super) async fn replace<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<PushQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Query(PushQuery { dry_run, force }) = query?;
    let request: PushRequest = body::read_json(body, api.limits).await?;
    let rules = request.rules.iter().enumerate();
    let rules: Result<Vec<RuleSettings>, Problem> =
        rules.map(|(at, rule)| parse_rule(at, rule)).collect();
    let push = RulesPush {
        rules: rules?,
        dry_run,
        force: force || request.force,
    };
    match api.backend.push_rules(push).await? {
        RulesPushed::Replaced(version, trial) => {
            Ok(Json(json!({"version": version, "trial": trial_json(&trial)})).into_response())
        }
        RulesPushed::Tried(trial) => {
            Ok(Json(json!({"dry_run": true, "trial": trial_json(&trial)})).into_response())
        }
        RulesPushed::NeedsForce(trial) => {
            let detail = format!(
                "the set would skip, reject or delete {:.0} points more of the last operations, \
                 over {FORCE_ABOVE_POINTS}: say force=true if that is meant",
                trial.points_more_withheld()
            );
            let problem = Problem::conflict("force_required", detail);
            Err(problem.with("trial", trial_json(&trial)))
        }
    }
}

fn parse_rule(at: usize, rule: &RawValue) -> Result<RuleSettings, Problem> {
    serde_json::from_str(rule.get()).map_err(|error| {
        let detail = error.to_string();
        let code = if detail.starts_with("unknown field") {
            Code::UnknownField
        } else {
            Code::InvalidField
        };
        Problem::from(Refusal::at(code, format!("/rules/{at}"), detail))
    })
}

fn trial_json(trial: &Trial) -> Value {
    let examples: Vec<Value> = trial.examples.iter().map(difference_json).collect();
    json!({
        "decisions": trial.decisions,
        "changed": trial.changed,
        "share_changed": trial.share_changed(),
        "before": tally_json(trial.before),
        "after": tally_json(trial.after),
        "examples": examples,
    })
}

fn tally_json(tally: Tally) -> Value {
    json!({
        "synced": tally.synced,
        "skipped": tally.skipped,
        "rejected": tally.rejected,
        "converted": tally.converted,
        "deleted": tally.deleted,
    })
}

fn difference_json(difference: &Difference) -> Value {
    json!({
        "record_id": difference.record_id,
        "object": difference.object,
        "provider": difference.provider,
        "operation": difference.operation.as_str(),
        "before": action_name(difference.before),
        "after": action_name(difference.after),
        "rule": difference.rule,
    })
}

/// As rules spell it.
fn action_name(action: Action) -> &'static str {
    match action {
        Action::Sync => "sync",
        Action::Skip => "skip",
        Action::Reject => "reject",
        Action::Instead(Operation::Create) => "create",
        Action::Instead(Operation::Read) => "read",
        Action::Instead(Operation::Update) => "update",
        Action::Instead(Operation::Upsert) => "upsert",
        Action::Instead(Operation::Delete) => "delete",
        Action::Instead(Operation::Pull) => "pull",
    }
}
