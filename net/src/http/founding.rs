//! The requests of the documents that Syncline was founded on, as printed there.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use engine::state::State as OperationState;
use engine::view::{OperationTarget, OperationView};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::Api;
use super::backend::Backend;
use super::operations::{result_json, rfc3339, sole_provider, unknown_operation};
use super::problem::Problem;
use super::sync::{self, Submitted};

#[derive(Serialize)]
struct OperationStatus<'a> {
    operation_id: &'a str,
    status: &'static str,
    provider: Option<&'a str>,
    external_id: Option<&'a str>,
    started_at: Option<String>,
    completed_at: Option<String>,
    error_message: Option<String>,
    retry_count: usize,
    response_data: Option<Box<RawValue>>,
}

pub(super) async fn submit<B: Backend>(
    State(api): State<Api<B>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    match sync::take(&api, &headers, body).await? {
        Submitted::One(accepted) => {
            let accepted = accepted?;
            let message = if accepted.duplicate {
                "This event was taken before; nothing was queued again"
            } else {
                "Sync operation submitted"
            };
            let answer = json!({
                "operation_id": accepted.operation_id,
                "record_id": accepted.record_id,
                "status": "submitted",
                "message": message,
            });
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
        Submitted::List(results) => Ok(sync::list_answer(&results)),
    }
}

pub(super) async fn status<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    match api.backend.operation(&id).await? {
        Some(operation) => Ok(Json(OperationStatus::from(&operation)).into_response()),
        None => Err(unknown_operation(&id)),
    }
}

pub(super) async fn providers<B: Backend>(State(api): State<Api<B>>) -> Response {
    let names: Vec<String> = api
        .backend
        .accounts()
        .into_iter()
        .map(|account| account.name)
        .collect();
    Json(json!({ "providers": names })).into_response()
}

impl<'a> From<&'a OperationView> for OperationStatus<'a> {
    fn from(operation: &'a OperationView) -> OperationStatus<'a> {
        let targets = &operation.targets;
        let attempts = || targets.iter().flat_map(|target| &target.attempts);
        // With several targets the one that gave the operation its state speaks for it.
        let telling = targets
            .iter()
            .find(|target| target.state == operation.state)
            .or_else(|| targets.first());
        OperationStatus {
            operation_id: &operation.operation_id,
            status: founding_status(operation.state),
            provider: sole_provider(operation)
                .or_else(|| telling.map(|target| target.provider.as_str())),
            external_id: telling.and_then(|target| target.remote_id.as_deref()),
            started_at: attempts().map(|attempt| attempt.at).min().map(rfc3339),
            completed_at: operation
                .state
                .is_final()
                .then(|| {
                    targets
                        .iter()
                        .map(|target| target.updated_at)
                        .max()
                        .map(rfc3339)
                })
                .flatten(),
            error_message: telling.and_then(error_message),
            retry_count: targets
                .iter()
                .map(|target| target.attempts.len().saturating_sub(1))
                .sum(),
            response_data: result_json(operation),
        }
    }
}

/// The founding documents' word for a state.
fn founding_status(state: OperationState) -> &'static str {
    use OperationState as S;
    match state {
        S::Queued | S::Waiting => "PENDING",
        S::InFlight => "PROCESSING",
        S::Retrying | S::Unknown => "RETRYING",
        S::Synced | S::Superseded | S::SkippedByRule => "COMPLETED",
        S::Failed | S::Dropped | S::Conflict => "FAILED",
    }
}

fn error_message(target: &OperationTarget) -> Option<String> {
    use OperationState as S;
    if !matches!(
        target.state,
        S::Failed | S::Conflict | S::Retrying | S::Unknown
    ) {
        return None;
    }
    let reason = target.reason.map(|reason| reason.as_str());
    let detail = target
        .attempts
        .last()
        .map(|attempt| attempt.detail.as_str());
    match (reason, detail.filter(|detail| !detail.is_empty())) {
        (Some(reason), Some(detail)) => Some(format!("{reason}: {detail}")),
        (Some(only), None) | (None, Some(only)) => Some(only.to_owned()),
        (None, None) => None,
    }
}
