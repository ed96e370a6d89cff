//! `/v1/explain/{record_id}`: why a record waits.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::view::{ExplainLookup, ExplainTarget};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::operations::rfc3339;
use super::problem::Problem;
use super::sync::{ambiguous, unknown_record};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    object: Option<String>,
    provider: Option<String>,
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    record_id: Result<Path<String>, PathRejection>,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Path(record_id) = record_id?;
    let Query(ExplainQuery { object, provider }) = query?;
    let lookup = api
        .backend
        .explain(&record_id, object.as_deref(), provider.as_deref());
    match lookup.await? {
        ExplainLookup::Found(record) => {
            let targets: Vec<Value> = record.targets.iter().map(target_json).collect();
            Ok(Json(json!({
                "record_id": record.record_id,
                "object": record.object,
                "providers": targets,
            }))
            .into_response())
        }
        ExplainLookup::Ambiguous(objects) => Err(ambiguous(objects)),
        ExplainLookup::NotFound => Err(unknown_record(&record_id)),
    }
}

fn target_json(target: &ExplainTarget) -> Value {
    json!({
        "provider": target.provider,
        "state": target.state.as_str(),
        "reason": target.reason.map(|reason| reason.as_str()),
        "detail": target.detail,
        "since": rfc3339(target.since),
        "until": target.until.map(rfc3339),
        "ahead": target.ahead,
        "expected_at": target.expected_at.map(rfc3339),
    })
}
