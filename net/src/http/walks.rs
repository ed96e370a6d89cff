//! `/v1/backfill`, `/v1/reconcile`, `/v1/resync`, `/v1/walks`: walks through an object's records.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::view::{WalkExample, WalkPurpose, WalkRequest, WalkView};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::access::Caller;
use super::backend::Backend;
use super::body;
use super::operations::rfc3339;
use super::problem::Problem;

/// What a walk may use of each limit, unless it is told.
const SHARE_DEFAULT: f64 = 0.5;
/// If a larger part of the linked records is absent, nothing is deleted unless it is told.
const ABSENT_MAX_DEFAULT: f64 = 0.2;
/// Records that one reconcile repairs, unless it is told: somebody looks before more.
const REPAIRS_MAX_DEFAULT: u64 = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WalkBody {
    provider: String,
    object: String,
    share: Option<f64>,
    sample: Option<f64>,
    #[serde(default)]
    repair: bool,
    limit: Option<u64>,
    absent_max: Option<f64>,
}

pub(super) async fn backfill<B: Backend>(
    State(api): State<Api<B>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    begin(&api, &caller, WalkPurpose::Backfill, body).await
}

pub(super) async fn reconcile<B: Backend>(
    State(api): State<Api<B>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    begin(&api, &caller, WalkPurpose::Reconcile, body).await
}

pub(super) async fn resync<B: Backend>(
    State(api): State<Api<B>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response, Problem> {
    begin(&api, &caller, WalkPurpose::Resync, body).await
}

pub(super) async fn list<B: Backend>(State(api): State<Api<B>>) -> Response {
    let walks: Vec<Value> = api.backend.walks().iter().map(walk_json).collect();
    Json(json!({ "items": walks })).into_response()
}

pub(super) async fn show<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let walks = api.backend.walks();
    answer(&id, walks.iter().find(|walk| walk.id == id))
}

pub(super) async fn cancel<B: Backend>(
    State(api): State<Api<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(id) = id?;
    let walk = api.backend.cancel_walk(&id).await;
    answer(&id, walk.as_ref())
}

async fn begin<B: Backend>(
    api: &Api<B>,
    Caller(by): &Caller,
    purpose: WalkPurpose,
    body: Body,
) -> Result<Response, Problem> {
    let body: WalkBody = body::read_json(body, api.limits).await?;
    let reconciles = purpose == WalkPurpose::Reconcile;
    let strange = [
        ("/sample", body.sample.is_some()),
        ("/repair", body.repair),
        ("/limit", body.limit.is_some()),
    ];
    if let Some((pointer, _)) = strange.iter().find(|(_, given)| *given && !reconciles) {
        let detail = "only a reconcile has this";
        return Err(Refusal::at(Code::InvalidField, *pointer, detail).into());
    }
    let request = WalkRequest {
        purpose,
        share: part(body.share, SHARE_DEFAULT, "/share")?,
        sample: part(body.sample, 1.0, "/sample")?,
        repair: body.repair || !reconciles,
        repairs_max: match reconciles {
            true => body.limit.unwrap_or(REPAIRS_MAX_DEFAULT),
            false => u64::MAX,
        },
        absent_max: part(body.absent_max, ABSENT_MAX_DEFAULT, "/absent_max")?,
        cause: format!("asked for by {by}"),
        provider: body.provider,
        object: body.object,
    };
    let walk = api.backend.begin_walk(request).await?;
    Ok((StatusCode::ACCEPTED, Json(walk_json(&walk))).into_response())
}

/// A number above 0 and up to 1.
fn part(given: Option<f64>, default: f64, pointer: &str) -> Result<f64, Refusal> {
    let part = given.unwrap_or(default);
    if part > 0.0 && part <= 1.0 {
        return Ok(part);
    }
    let detail = "expected a number above 0 and up to 1";
    Err(Refusal::at(Code::InvalidField, pointer, detail))
}

fn answer(id: &str, walk: Option<&WalkView>) -> Result<Response, Problem> {
    match walk {
        Some(walk) => Ok(Json(walk_json(walk)).into_response()),
        None => Err(Problem::not_found(format!("no walk {id:?} is known"))),
    }
}

fn walk_json(walk: &WalkView) -> Value {
    let request = &walk.request;
    let examples: Vec<Value> = walk.tally.examples.iter().map(example_json).collect();
    let mut told = json!({
        "id": walk.id,
        "purpose": request.purpose.as_str(),
        "provider": request.provider,
        "object": request.object,
        "state": walk.state.as_str(),
        "phase": walk.phase,
        "cause": request.cause,
        "share": request.share,
        "started_at": rfc3339(walk.started_at),
        "ended_at": walk.ended_at.map(rfc3339),
        "detail": walk.detail,
        "waits_for": walk.waits_for,
        "listed": walk.tally.listed,
        "rows": walk.tally.rows,
        "taken": walk.tally.taken,
    });
    if request.purpose != WalkPurpose::Backfill {
        told["report"] = json!({
            "equal": walk.tally.equal,
            "missing_here": walk.tally.missing_here,
            "missing_there": walk.tally.missing_there,
            "unlinked": walk.tally.unlinked,
            "missing_row": walk.tally.missing_row,
            "differs": walk.tally.differs,
            "waits": walk.tally.waits,
            "held": walk.tally.held,
            "repaired": walk.tally.repaired,
            "fields": walk.tally.fields,
            "examples": examples,
        });
    }
    if request.purpose == WalkPurpose::Reconcile {
        told["sample"] = json!(request.sample);
        told["repair"] = json!(request.repair);
        told["limit"] = json!(request.repairs_max);
        told["absent_max"] = json!(request.absent_max);
    }
    told
}

fn example_json(example: &WalkExample) -> Value {
    json!({
        "cause": example.cause,
        "record_id": example.record_id,
        "remote_id": example.remote_id,
        "fields": example.fields,
    })
}
