//! `/v1/links`, `/v1/records/{record_id}/links/{provider}`: links listed, and set by hand.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Extension, Path, Query, State};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::shard::{LinkFilter, LinkRow};
use engine::view::{LinkAnswer, LinkChange, LinkRequest, PageRequest};
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::access::Caller;
use super::backend::Backend;
use super::body;
use super::operations::rfc3339;
use super::problem::Problem;
use super::sync::{ambiguous, unknown_record};

/// Links of a page when the client names no number: some 100 KiB.
const LINKS_DEFAULT: usize = 1_000;
/// Links of a page, at most; with long ids some MiB.
const LINKS_MAX: usize = 10_000;
/// A remote id's bytes, at most: as many as a record id's.
const REMOTE_ID_BYTES_MAX: usize = 512;
/// The header that names what goes into `after` for the next page.
const NEXT: &str = "syncline-next";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LinkQuery {
    object: Option<String>,
    provider: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectQuery {
    object: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkBody {
    remote_id: String,
}

pub(super) async fn list<B: Backend>(
    State(api): State<Api<B>>,
    query: Result<Query<LinkQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(LINKS_DEFAULT);
    if !(1..=LINKS_MAX).contains(&limit) {
        let detail = format!("a page has 1 to {LINKS_MAX} links");
        return Err(Refusal::at(Code::InvalidField, "/limit", detail).into());
    }
    let filter = LinkFilter {
        object: query.object,
        account: query.provider,
    };
    let after = query.after;
    let page = api.backend.links(filter, PageRequest { limit, after });
    let page = page.await?;
    let mut lines = String::new();
    for link in &page.items {
        lines.push_str(&link_json(link).to_string());
        lines.push('\n');
    }
    let mut response = Response::new(Body::from(lines));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, ndjson);
    let next = page.next.and_then(|next| HeaderValue::try_from(next).ok());
    if let Some(next) = next {
        headers.insert(NEXT, next);
    }
    Ok(response)
}

pub(super) async fn changes<B: Backend>(State(api): State<Api<B>>) -> Response {
    let changes = api.backend.link_changes().await;
    let changes: Vec<Value> = changes.iter().map(change_json).collect();
    Json(json!({ "items": changes })).into_response()
}

pub(super) async fn put<B: Backend>(
    State(api): State<Api<B>>,
    Extension(Caller(by)): Extension<Caller>,
    place: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<ObjectQuery>, QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    let (Path((record_id, provider)), Query(query)) = (place?, query?);
    let LinkBody { remote_id } = body::read_json(body, api.limits).await?;
    let is_plain = !remote_id.chars().any(char::is_control);
    if !(1..=REMOTE_ID_BYTES_MAX).contains(&remote_id.len()) || !is_plain {
        let detail = "a remote id has 1 to 512 bytes and no control characters";
        return Err(Refusal::at(Code::InvalidField, "/remote_id", detail).into());
    }
    let request = LinkRequest {
        record_id,
        object: query.object,
        provider,
        remote_id: Some(remote_id),
    };
    answer(&request, api.backend.set_link(&by, request.clone()).await?)
}

pub(super) async fn delete<B: Backend>(
    State(api): State<Api<B>>,
    Extension(Caller(by)): Extension<Caller>,
    place: Result<Path<(String, String)>, PathRejection>,
    query: Result<Query<ObjectQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path((record_id, provider)), Query(query)) = (place?, query?);
    let request = LinkRequest {
        record_id,
        object: query.object,
        provider,
        remote_id: None,
    };
    answer(&request, api.backend.set_link(&by, request.clone()).await?)
}

fn answer(request: &LinkRequest, answer: LinkAnswer) -> Result<Response, Problem> {
    let told = |object: &str, changed: bool, former: Option<&str>| {
        let told = json!({
            "record_id": request.record_id,
            "object": object,
            "provider": request.provider,
            "remote_id": request.remote_id,
            "changed": changed,
            "former": former,
        });
        Ok(Json(told).into_response())
    };
    match answer {
        LinkAnswer::Changed { object, former } => told(&object, true, former.as_deref()),
        LinkAnswer::Unchanged { object } => told(&object, false, request.remote_id.as_deref()),
        LinkAnswer::Owned(owner) => {
            let detail = format!("the remote id is linked to the record {owner:?}");
            Err(Problem::conflict("link_owned", detail).with("record_id", json!(owner)))
        }
        LinkAnswer::InCall => {
            let detail = "a call for this record is under way; try again when it has ended";
            Err(Problem::conflict("in_flight", detail))
        }
        LinkAnswer::Ambiguous(objects) => Err(ambiguous(objects)),
        LinkAnswer::NotFound => Err(unknown_record(&request.record_id)),
    }
}

fn link_json(link: &LinkRow) -> Value {
    json!({
        "object": link.object,
        "record_id": link.record_id,
        "provider": link.account,
        "remote_id": link.remote_id,
    })
}

fn change_json(change: &LinkChange) -> Value {
    json!({
        "at": rfc3339(change.at),
        "by": change.by,
        "object": change.object,
        "record_id": change.record_id,
        "provider": change.provider,
        "old": change.old,
        "new": change.new,
    })
}
