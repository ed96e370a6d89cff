//! `/v1/dlq`: operations that were given up, and what becomes of them.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::view::{DeadLetterFilter, DeadLetterView};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::body;
use super::operations::{page_request, rfc3339};
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetterQuery {
    provider: Option<String>,
    object: Option<String>,
    code: Option<String>,
    record_id: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// `filter` has no default: nobody redrives everything by leaving a word out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryRequest {
    filter: FilterMembers,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterMembers {
    provider: Option<String>,
    object: Option<String>,
    code: Option<String>,
    record_id: Option<String>,
}

pub(super) async fn list<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<DeadLetterQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(DeadLetterQuery {
        provider,
        object,
        code,
        record_id,
        limit,
        after,
    }) = query?;
    let filter = DeadLetterFilter {
        provider,
        object,
        code,
        record_id,
    };
    let page = api
        .backend
        .dead_letters(filter, page_request(limit, after)?)
        .await?;
    let items: Vec<Value> = page.items.iter().map(dead_letter_json).collect();
    Ok(Json(json!({"items": items, "next": page.next})).into_response())
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    match api.backend.dead_letter(&id).await? {
        Some(dead_letter) => Ok(Json(dead_letter_json(&dead_letter)).into_response()),
        None => Err(unknown_dead_letter(&id)),
    }
}

pub(super) async fn retry<B: Backend>(
    State(api): State<Api<B>>,
    body: Body,
) -> Result<Response, Problem> {
    let RetryRequest { filter, dry_run } = body::read_json(body, api.limits).await?;
    let FilterMembers {
        provider,
        object,
        code,
        record_id,
    } = filter;
    let filter = DeadLetterFilter {
        provider,
        object,
        code,
        record_id,
    };
    let redriven = api.backend.retry_dead_letters(filter, dry_run).await?;
    let answer = if dry_run {
        json!({"matched": redriven.matched})
    } else {
        json!({"matched": redriven.matched, "redriven": redriven.redriven})
    };
    Ok(Json(answer).into_response())
}

pub(super) async fn drop_one<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    if api.backend.drop_dead_letter(&id).await? {
        Ok(Json(json!({"id": id, "state": "dropped"})).into_response())
    } else {
        Err(unknown_dead_letter(&id))
    }
}

fn unknown_dead_letter(id: &str) -> Problem {
    Problem::not_found(format!("there is no dead letter {id:?}"))
}

fn dead_letter_json(dead_letter: &DeadLetterView) -> Value {
    json!({
        "id": dead_letter.id,
        "record_id": dead_letter.record_id,
        "object": dead_letter.object,
        "provider": dead_letter.provider,
        "operation_id": dead_letter.operation_id,
        "code": dead_letter.code,
        "detail": dead_letter.detail,
        "attempts": dead_letter.attempts,
        "dead_at": rfc3339(dead_letter.dead_at),
    })
}
