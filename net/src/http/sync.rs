//! `/v1/sync`: events in, where a record stands, retry by hand.

use std::borrow::Cow;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use engine::refusal::{Code, Refusal};
use engine::view::{Accepted, RecordLookup, RecordView};
use http::{HeaderMap, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backend::Backend;
use super::body::{self, EVENT_BYTES_MAX};
use super::problem::Problem;
use super::split::{Events, split};
use super::{Api, operations};

/// What came of a request's events.
pub(super) enum Submitted {
    /// Of its only event.
    One(Result<Accepted, Refusal>),
    /// Of each, in order.
    List(Vec<Result<Accepted, Refusal>>),
}

/// One event's answer.
#[derive(Serialize)]
struct Item<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    operation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record_id: Option<&'a str>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    retry: bool,
    #[serde(skip_serializing_if = "is_false")]
    duplicate: bool,
}

#[derive(Serialize)]
struct Results<'a> {
    results: Vec<Item<'a>>,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde asks for a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ObjectQuery {
    object: Option<String>,
}

pub(super) async fn submit<B: Backend>(
    State(api): State<Api<B>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    match take(&api, &headers, body).await? {
        Submitted::One(accepted) => {
            let accepted = accepted?;
            Ok((StatusCode::ACCEPTED, Json(Item::from(&Ok(accepted)))).into_response())
        }
        Submitted::List(results) => Ok(list_answer(&results)),
    }
}

/// Reads, cuts and submits a request's events.
pub(super) async fn take<B: Backend>(
    api: &Api<B>,
    headers: &HeaderMap,
    body: Body,
) -> Result<Submitted, Problem> {
    let body = body::read(body, api.limits).await?;
    match split(&body, says_lines(headers))? {
        Events::One(event) => {
            let mut results = submit_each(api, vec![event]).await;
            Ok(Submitted::One(
                results.pop().expect("one event has one result"),
            ))
        }
        Events::List(events) => Ok(Submitted::List(submit_each(api, events).await)),
    }
}

/// Submits what is small enough; results are in the order of `events`.
async fn submit_each<B: Backend>(
    api: &Api<B>,
    events: Vec<Bytes>,
) -> Vec<Result<Accepted, Refusal>> {
    let fits = |event: &Bytes| event.len() <= EVENT_BYTES_MAX;
    let all_fit = events.iter().all(fits);
    if all_fit {
        let count = events.len();
        let results = api.backend.submit(events).await;
        assert_eq!(results.len(), count, "one result an event");
        return results;
    }
    let sizes: Vec<bool> = events.iter().map(fits).collect();
    let fitting: Vec<Bytes> = events.into_iter().filter(fits).collect();
    let count = fitting.len();
    let results = api.backend.submit(fitting).await;
    assert_eq!(results.len(), count, "one result an event");
    let mut results = results.into_iter();
    sizes
        .into_iter()
        .map(|fits| {
            if fits {
                results.next().expect("one result an event")
            } else {
                let detail = format!("an event has at most {EVENT_BYTES_MAX} bytes");
                Err(Refusal::new(Code::TooLarge, detail))
            }
        })
        .collect()
}

/// 202 if any was taken, else 422 with the same list.
pub(super) fn list_answer(results: &[Result<Accepted, Refusal>]) -> Response {
    let status = if results.iter().any(Result::is_ok) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::UNPROCESSABLE_ENTITY
    };
    let results = results.iter().map(Item::from).collect();
    (status, Json(Results { results })).into_response()
}

/// A hint only; the first bytes decide.
fn says_lines(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.contains("ndjson") || value.contains("jsonl"))
}

impl<'a> From<&'a Result<Accepted, Refusal>> for Item<'a> {
    fn from(result: &'a Result<Accepted, Refusal>) -> Item<'a> {
        match result {
            Ok(accepted) => Item {
                operation_id: Some(&accepted.operation_id),
                record_id: Some(&accepted.record_id),
                status: "queued",
                code: None,
                detail: None,
                pointer: None,
                retry: false,
                duplicate: accepted.duplicate,
            },
            Err(refusal) => Item {
                operation_id: None,
                record_id: None,
                status: "refused",
                code: Some(refusal.code.as_str()),
                detail: Some(&refusal.detail),
                pointer: refusal.pointer.as_deref(),
                retry: refusal.code.retry(),
                duplicate: false,
            },
        }
    }
}

pub(super) async fn status<B: Backend>(
    State(api): State<Api<B>>,
    record_id: Result<Path<String>, PathRejection>,
    query: Result<Query<ObjectQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(record_id), Query(query)) = (record_id?, query?);
    match api
        .backend
        .record(&record_id, query.object.as_deref())
        .await?
    {
        RecordLookup::Found(record) => Ok(Json(record_json(&record)).into_response()),
        RecordLookup::Ambiguous(objects) => Err(ambiguous(objects)),
        RecordLookup::NotFound => Err(unknown_record(&record_id)),
    }
}

pub(super) async fn retry<B: Backend>(
    State(api): State<Api<B>>,
    record_id: Result<Path<String>, PathRejection>,
    query: Result<Query<ObjectQuery>, QueryRejection>,
) -> Result<Response, Problem> {
    let (Path(record_id), Query(query)) = (record_id?, query?);
    match api
        .backend
        .retry_record(&record_id, query.object.as_deref())
        .await?
    {
        None => Err(unknown_record(&record_id)),
        Some(0) => {
            let detail = "no operation of this record has failed or waits for a retry";
            Err(Problem::conflict("nothing_to_retry", detail))
        }
        Some(redriven) => {
            let answer = json!({"record_id": record_id, "redriven": redriven});
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
    }
}

pub(super) fn ambiguous(objects: Vec<String>) -> Problem {
    let detail = "several objects have a record of this id; name one with ?object=";
    Problem::conflict("ambiguous", detail).with("objects", json!(objects))
}

pub(super) fn unknown_record(record_id: &str) -> Problem {
    Problem::not_found(format!("nothing is known of record {record_id:?}"))
}

fn record_json(record: &RecordView) -> serde_json::Value {
    let targets: Vec<_> = record
        .targets
        .iter()
        .map(|target| {
            json!({
                "provider": target.provider,
                "state": target.state.as_str(),
                "operation_id": target.operation_id,
                "attempts": target.attempts,
                "reason": target.reason.map(|reason| reason.as_str()),
                "remote_id": target.remote_id,
                "updated_at": operations::rfc3339(target.updated_at),
            })
        })
        .collect();
    json!({"record_id": record.record_id, "object": record.object, "providers": targets})
}
