//! `/v1/replay`: what was sent in a span of time, sent once more.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::timestamp;
use engine::view::{JobKind, ReplayRequest, UnixMs};
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::Api;
use super::backend::Backend;
use super::body;
use super::jobs::{answer, job_json, list};
use super::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayBody {
    provider: String,
    object: Option<String>,
    from: String,
    to: String,
    rate: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn start<B: Backend>(
    State(api): State<Api<B>>,
    body: Body,
) -> Result<Response, Problem> {
    let body: ReplayBody = body::read_json(body, api.limits).await?;
    let request = ReplayRequest {
        from: instant(&body.from, "/from")?,
        to: instant(&body.to, "/to")?,
        provider: body.provider,
        object: body.object,
        rate: body.rate,
    };
    if body.dry_run {
        let count = api.backend.count_replay(request).await?;
        let answer = json!({"matched": count.matched, "not_kept": count.not_kept});
        return Ok(Json(answer).into_response());
    }
    let job = api.backend.replay(request).await?;
    Ok((StatusCode::ACCEPTED, Json(job_json(&job))).into_response())
}

pub(super) async fn replays<B: Backend>(State(api): State<Api<B>>) -> Response {
    list(&api, JobKind::Replay)
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    answer(&id, api.backend.job(JobKind::Replay, &id))
}

pub(super) async fn cancel<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    answer(&id, api.backend.cancel_job(JobKind::Replay, &id))
}

fn instant(text: &str, pointer: &str) -> Result<UnixMs, Refusal> {
    timestamp::parse_rfc3339(text).ok_or_else(|| {
        let detail = "expected an instant such as 2026-11-20T10:00:00Z";
        Refusal::at(Code::InvalidField, pointer, detail)
    })
}
