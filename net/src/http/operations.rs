//! `/v1/operations`: single operations with their attempts.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::state;
use engine::timestamp;
use engine::view::{
    AttemptView, OperationFilter, OperationTarget, OperationView, PageRequest, UnixMs,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::problem::Problem;

/// Items of a list when the client names no number.
const PAGE_DEFAULT: usize = 100;
/// Items of a list, at most; one answer stays below some MiB.
const PAGE_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperationQuery {
    state: Option<String>,
    provider: Option<String>,
    object: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Serialize)]
struct OperationJson<'a> {
    operation_id: &'a str,
    record_id: &'a str,
    object: &'a str,
    operation: &'static str,
    state: &'static str,
    /// The account, when it is one.
    provider: Option<&'a str>,
    accepted_at: String,
    providers: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct OperationPage<'a> {
    items: Vec<OperationJson<'a>>,
    next: Option<&'a str>,
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    match api.backend.operation(&id).await? {
        Some(operation) => Ok(Json(OperationJson::from(&operation)).into_response()),
        None => Err(unknown_operation(&id)),
    }
}

pub(super) async fn list<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<OperationQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let state = match &query.state {
        None => None,
        Some(name) => Some(state_named(name).ok_or_else(|| {
            let detail = format!("no operation is ever in state {name:?}");
            Refusal::at(Code::InvalidField, "/state", detail)
        })?),
    };
    let filter = OperationFilter {
        state,
        provider: query.provider,
        object: query.object,
    };
    let page = page_request(query.limit, query.after)?;
    let page = api.backend.operations(filter, page).await?;
    let items: Vec<OperationJson<'_>> = page.items.iter().map(OperationJson::from).collect();
    Ok(Json(OperationPage {
        items,
        next: page.next.as_deref(),
    })
    .into_response())
}

/// The page that a list's query asks for.
pub(super) fn page_request(
    limit: Option<usize>,
    after: Option<String>,
) -> Result<PageRequest, Refusal> {
    let limit = limit.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&limit) {
        let detail = format!("a page has 1 to {PAGE_MAX} items");
        return Err(Refusal::at(Code::InvalidField, "/limit", detail));
    }
    Ok(PageRequest { limit, after })
}

pub(super) fn unknown_operation(id: &str) -> Problem {
    Problem::not_found(format!("no operation {id:?} is kept"))
}

/// `2026-11-20T10:00:00.123Z`.
pub(super) fn rfc3339(at: UnixMs) -> String {
    let mut text = Vec::with_capacity(24);
    timestamp::write_rfc3339(&mut text, at);
    String::from_utf8(text).expect("a timestamp is ASCII")
}

/// A READ's result as it came, digit for digit.
pub(super) fn result_json(operation: &OperationView) -> Option<Box<RawValue>> {
    operation
        .result
        .clone()
        .and_then(|text| RawValue::from_string(text).ok())
}

impl<'a> From<&'a OperationView> for OperationJson<'a> {
    fn from(operation: &'a OperationView) -> OperationJson<'a> {
        OperationJson {
            operation_id: &operation.operation_id,
            record_id: &operation.record_id,
            object: &operation.object,
            operation: operation.operation,
            state: operation.state.as_str(),
            provider: sole_provider(operation),
            accepted_at: rfc3339(operation.accepted_at),
            providers: operation.targets.iter().map(target_json).collect(),
            result: result_json(operation),
        }
    }
}

/// The account's name when the operation goes to one only.
pub(super) fn sole_provider(operation: &OperationView) -> Option<&str> {
    match operation.targets.as_slice() {
        [only] => Some(&only.provider),
        _ => None,
    }
}

fn target_json(target: &OperationTarget) -> Value {
    let attempts: Vec<Value> = target.attempts.iter().map(attempt_json).collect();
    let mut answer = json!({
        "provider": target.provider,
        "state": target.state.as_str(),
        "reason": target.reason.map(|reason| reason.as_str()),
        "remote_id": target.remote_id,
        "updated_at": rfc3339(target.updated_at),
        "attempts": attempts,
    });
    if let Some(newer) = &target.superseded_by {
        answer["superseded_by"] = json!(newer);
    }
    answer
}

pub(super) fn attempt_json(attempt: &AttemptView) -> Value {
    json!({
        "at": rfc3339(attempt.at),
        "status": attempt.status,
        "class": attempt.class.as_str(),
        "detail": attempt.detail,
    })
}

fn state_named(name: &str) -> Option<state::State> {
    use state::State as S;
    [
        S::Queued,
        S::Waiting,
        S::InFlight,
        S::Retrying,
        S::Unknown,
        S::Conflict,
        S::Synced,
        S::Superseded,
        S::SkippedByRule,
        S::Failed,
        S::Dropped,
    ]
    .into_iter()
    .find(|state| state.as_str() == name)
}
