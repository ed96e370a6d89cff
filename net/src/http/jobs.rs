//! `/v1/dlq/redrives`, `/v1/replay/{id}`: work that goes on after its request.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use engine::view::{JobKind, JobView};
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::operations::rfc3339;
use super::problem::Problem;

pub(super) async fn redrives<B: Backend>(State(api): State<Api<B>>) -> Response {
    list(&api, JobKind::Redrive)
}

pub(super) async fn redrive<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    answer(&id, api.backend.job(JobKind::Redrive, &id))
}

pub(super) async fn cancel_redrive<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    answer(&id, api.backend.cancel_job(JobKind::Redrive, &id))
}

pub(super) fn list<B: Backend>(api: &Api<B>, kind: JobKind) -> Response {
    let jobs: Vec<Value> = api.backend.jobs(kind).iter().map(job_json).collect();
    Json(json!({ "items": jobs })).into_response()
}

pub(super) fn answer(id: &str, job: Option<JobView>) -> Result<Response, Problem> {
    match job {
        Some(job) => Ok(Json(job_json(&job)).into_response()),
        None => Err(Problem::not_found(format!("no job {id:?} is known"))),
    }
}

pub(super) fn job_json(job: &JobView) -> Value {
    json!({
        "id": job.id,
        "state": job.state.as_str(),
        "matched": job.matched,
        "done": job.done,
        "left_out": job.left_out,
        "rate": job.rate,
        "started_at": rfc3339(job.started_at),
        "ended_at": job.ended_at.map(rfc3339),
        "detail": job.detail,
    })
}
