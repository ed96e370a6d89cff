//! `/v1/conflicts`: fields that both sides changed and that a person decides.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::merge::Winner;
use engine::refusal::{Code, Refusal};
use engine::state::Reason;
use engine::view::{DeadLetterFilter, DeadLetterView, HeldView};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::operations::{page_request, rfc3339};
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConflictQuery {
    provider: Option<String>,
    object: Option<String>,
    record_id: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    winner: String,
    fields: Option<Vec<String>>,
}

pub(super) async fn list<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<ConflictQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(ConflictQuery {
        provider,
        object,
        record_id,
        limit,
        after,
    }) = query?;
    let filter = DeadLetterFilter {
        provider,
        object,
        record_id,
        code: Some(Reason::Conflict.as_str().to_owned()),
        signature: None,
    };
    let page = page_request(limit, after)?;
    let page = api.backend.dead_letters(filter, page).await?;
    let conflicts = page.items.iter().filter(|item| !item.held.is_empty());
    let items: Vec<Value> = conflicts.map(conflict_json).collect();
    Ok(Json(json!({"items": items, "next": page.next})).into_response())
}

pub(super) async fn resolve<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let decision: Decision = serde_json::from_slice(&body)
        .map_err(|error| Refusal::new(Code::Malformed, error.to_string()))?;
    let winner = match decision.winner.as_str() {
        "system_a" => Winner::SystemA,
        "provider" => Winner::Provider,
        _ => {
            let detail = "the winner is `system_a` or `provider`";
            return Err(Refusal::at(Code::InvalidField, "/winner", detail).into());
        }
    };
    let resolved = api
        .backend
        .resolve_conflict(&id, decision.fields, winner)
        .await?;
    if resolved == 0 {
        let detail = format!("no conflict {id:?} waits with such a field");
        return Err(Refusal::new(Code::NotFound, detail).into());
    }
    Ok(Json(json!({"id": id, "resolved": resolved})).into_response())
}

fn conflict_json(conflict: &DeadLetterView) -> Value {
    let fields: Vec<Value> = conflict.held.iter().map(field_json).collect();
    json!({
        "id": conflict.id,
        "record_id": conflict.record_id,
        "object": conflict.object,
        "provider": conflict.provider,
        "operation_id": conflict.operation_id,
        "fields": fields,
    })
}

fn field_json(held: &HeldView) -> Value {
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or(Value::Null);
    json!({
        "field": held.field,
        "system_a": value(&held.system_a),
        "provider": value(&held.provider),
        "since": rfc3339(held.since),
    })
}
