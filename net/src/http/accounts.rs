//! `/v1/providers`, `/v1/pause`, `/v1/resume`: accounts, and holding them.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use engine::view::{AccountStatus, AccountView, Hold, JobState, OpenOperations};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::backend::Backend;
use super::body;
use super::operations::rfc3339;
use super::problem::Problem;
use super::{AccountRequest, Api};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    provider: Option<String>,
    object: Option<String>,
    record_id: Option<String>,
}

pub(super) async fn list<B: Backend>(State(api): State<Api<B>>) -> Response {
    let accounts: Vec<Value> = api.backend.accounts().iter().map(account_json).collect();
    Json(json!({ "providers": accounts })).into_response()
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    let accounts = api.backend.accounts();
    match accounts.iter().find(|account| account.name == name) {
        Some(account) => Ok(Json(account_json(account)).into_response()),
        None => Err(unknown_account(&name)),
    }
}

pub(super) async fn status<B: Backend>(
    State(api): State<Api<B>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    match api.backend.account_status(&name).await? {
        Some(status) => {
            let mut told = status_json(&status);
            let walks = api.backend.walks();
            let running = walks
                .iter()
                .filter(|walk| walk.state == JobState::Running && walk.request.provider == name);
            let running = running.map(|walk| {
                json!({
                    "id": walk.id,
                    "purpose": walk.request.purpose.as_str(),
                    "object": walk.request.object,
                    "phase": walk.phase,
                })
            });
            told["walks"] = running.collect();
            Ok(Json(told).into_response())
        }
        None => Err(unknown_account(&name)),
    }
}

pub(super) async fn put<B: Backend>(
    State(api): State<Api<B>>,
    Extension(Caller(by)): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    let request = AccountRequest::read(&body::read(body, api.limits).await?)?;
    let name = request.name.clone();
    let is_new = api.backend.put_account(&by, request).await?;
    let accounts = api.backend.accounts();
    let account = accounts.iter().find(|account| account.name == name);
    let shown = account.map_or_else(|| json!({ "name": name }), account_json);
    let status = match is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, Json(shown)).into_response())
}

pub(super) async fn remove<B: Backend>(
    State(api): State<Api<B>>,
    Extension(Caller(by)): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    match api.backend.remove_account(&by, &name).await? {
        true => Ok(Json(json!({ "name": name, "removed": true })).into_response()),
        false => Err(unknown_account(&name)),
    }
}

pub(super) async fn pause<B: Backend>(
    State(api): State<Api<B>>,
    body: Body,
) -> Result<Response, Problem> {
    let hold = read_hold(&api, body).await?;
    api.backend.pause(hold.clone()).await?;
    Ok(Json(hold_json(&hold, true)).into_response())
}

pub(super) async fn resume<B: Backend>(
    State(api): State<Api<B>>,
    body: Body,
) -> Result<Response, Problem> {
    let hold = read_hold(&api, body).await?;
    api.backend.resume(hold.clone()).await?;
    Ok(Json(hold_json(&hold, false)).into_response())
}

async fn read_hold<B: Backend>(api: &Api<B>, body: Body) -> Result<Hold, Problem> {
    let HoldRequest {
        provider,
        object,
        record_id,
    } = body::read_json(body, api.limits).await?;
    Ok(Hold {
        provider,
        object,
        record_id,
    })
}

fn hold_json(hold: &Hold, paused: bool) -> Value {
    json!({
        "paused": paused,
        "provider": hold.provider,
        "object": hold.object,
        "record_id": hold.record_id,
    })
}

fn unknown_account(name: &str) -> Problem {
    Problem::not_found(format!("no account {name:?} is configured"))
}

fn account_json(account: &AccountView) -> Value {
    json!({
        "name": account.name,
        "type": account.definition,
        "base_url": account.base_url,
        "fold": account.fold,
        "max_in_flight": account.max_in_flight,
        "timeout_ms": account.timeout_ms,
    })
}

/// An account's status; also an element of `/health`'s `provider_metrics`.
pub(super) fn status_json(status: &AccountStatus) -> Value {
    let limits: Vec<Value> = status
        .limits
        .iter()
        .map(|limit| {
            json!({
                "name": limit.name,
                "limit": limit.limit,
                "used": limit.used,
                "left": limit.limit.saturating_sub(limit.used),
                "used_ratio": limit.used_ratio(),
                "window_ms": limit.window_ms,
                "others": limit.others,
                "kept": limit.kept,
                "allowed": limit.allowed,
                "frees_at": limit.frees_at.map(rfc3339),
                "used_up_at": limit.used_up_at.map(rfc3339),
            })
        })
        .collect();
    let held = status.outlook.held_objects.iter().map(|held| {
        json!({
            "object": held.object,
            "since": rfc3339(held.since),
            "asks_again_at": rfc3339(held.asks_again_at),
            "detail": held.detail,
        })
    });
    let held: Vec<Value> = held.collect();
    let endpoints = status.outlook.endpoints.iter().map(|endpoint| {
        json!({
            "endpoint": endpoint.endpoint,
            "breaker": endpoint.breaker.as_str(),
            "failures_in_row": endpoint.failures_in_row,
            "resumes_at": endpoint.resumes_at.map(rfc3339),
        })
    });
    let endpoints: Vec<Value> = endpoints.collect();
    json!({
        "name": status.account.name,
        "type": status.account.definition,
        "paused": status.paused,
        "breaker": status.breaker.as_str(),
        "token": status.auth.as_str(),
        "token_state": status.auth.as_str(),
        "queue_depth": status.open.total(),
        "open": open_json(&status.open),
        "dead_letters": status.dead_letters,
        "limits": limits,
        "held_by": status.outlook.held_by,
        "held_objects": held,
        "endpoints": endpoints,
        "resumes_at": status.outlook.resumes_at.map(rfc3339),
        "drained_at": status.outlook.drained_at.map(rfc3339),
    })
}

pub(super) fn open_json(open: &OpenOperations) -> Value {
    open.by_state()
        .into_iter()
        .map(|(state, count)| (state.as_str().to_owned(), Value::from(count)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
