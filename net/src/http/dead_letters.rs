//! `/v1/dlq`: operations that were given up, and what becomes of them.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::view::{DeadLetterDetail, DeadLetterFilter, DeadLetterGroup, DeadLetterView, JobState};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::body;
use super::operations::{attempt_json, page_request, rfc3339};
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadLetterQuery {
    provider: Option<String>,
    object: Option<String>,
    code: Option<String>,
    record_id: Option<String>,
    signature: Option<String>,
    group: Option<String>,
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
    rate: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterMembers {
    provider: Option<String>,
    object: Option<String>,
    code: Option<String>,
    record_id: Option<String>,
    signature: Option<String>,
}

/// The record's new data, digit for digit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EditRequest {
    data: Box<RawValue>,
    #[serde(default)]
    retry: bool,
}

#[derive(Serialize)]
struct DetailJson {
    #[serde(flatten)]
    members: Value,
    /// As it was sent, digit for digit.
    data: Option<Box<RawValue>>,
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
        signature,
        group,
        limit,
        after,
    }) = query?;
    let filter = DeadLetterFilter {
        provider,
        object,
        code,
        record_id,
        signature,
    };
    match group.as_deref() {
        None => {}
        Some("signature") => {
            let found = api.backend.dead_letter_groups(filter).await?;
            let groups: Vec<Value> = found.groups.iter().map(group_json).collect();
            let answer = json!({"groups": groups, "others": found.others});
            return Ok(Json(answer).into_response());
        }
        Some(_) => {
            let detail = "dead letters are grouped by `signature` only";
            return Err(Refusal::at(Code::InvalidField, "/group", detail).into());
        }
    }
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
        Some(dead_letter) => Ok(Json(detail_json(dead_letter)).into_response()),
        None => Err(unknown_dead_letter(&id)),
    }
}

pub(super) async fn edit<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let EditRequest { data, retry } = body::read_json(body, api.limits).await?;
    let Some(edited) = api.backend.edit_dead_letter(&id, data.get()).await? else {
        return Err(unknown_dead_letter(&id));
    };
    let mut answer = detail_json(edited);
    if retry {
        answer.members["redriven"] = json!(u8::from(api.backend.redrive_one(&id).await?));
    }
    Ok(Json(answer).into_response())
}

pub(super) async fn retry<B: Backend>(
    State(api): State<Api<B>>,
    body: Body,
) -> Result<Response, Problem> {
    let RetryRequest {
        filter,
        dry_run,
        rate,
    } = body::read_json(body, api.limits).await?;
    let FilterMembers {
        provider,
        object,
        code,
        record_id,
        signature,
    } = filter;
    let filter = DeadLetterFilter {
        provider,
        object,
        code,
        record_id,
        signature,
    };
    if rate == Some(0) {
        let detail = "a rate is at least one a second";
        return Err(Refusal::at(Code::InvalidField, "/rate", detail).into());
    }
    if dry_run {
        let matched = api.backend.count_dead_letters(filter).await?;
        return Ok(Json(json!({ "matched": matched })).into_response());
    }
    let job = api.backend.redrive(filter, rate).await?;
    if job.state == JobState::Failed {
        let detail = job.detail.unwrap_or_default();
        return Err(Refusal::new(Code::ShardDown, detail).into());
    }
    let answer = json!({
        "matched": job.matched,
        "redriven": job.done,
        "redrive": job.id,
        "state": job.state.as_str(),
    });
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

fn detail_json(detail: DeadLetterDetail) -> DetailJson {
    let mut members = dead_letter_json(&detail.letter);
    members["operation"] = json!(detail.operation);
    members["accepted_at"] = json!(rfc3339(detail.accepted_at));
    members["signature"] = json!(detail.signature);
    members["rules_version"] = json!(detail.rules_version);
    members["mapping_version"] = json!(detail.mapping_version);
    members["history"] = detail.attempts.iter().map(attempt_json).collect();
    let data = detail.data;
    DetailJson {
        members,
        data: data.and_then(|text| RawValue::from_string(text).ok()),
    }
}

fn group_json(group: &DeadLetterGroup) -> Value {
    json!({
        "provider": group.provider,
        "object": group.object,
        "code": group.code,
        "signature": group.signature,
        "count": group.count,
        "example": group.example,
        "oldest": rfc3339(group.oldest),
        "newest": rfc3339(group.newest),
    })
}
