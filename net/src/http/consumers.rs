//! `/v1/consumers`: who has subscribed to changes.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use engine::view::ConsumerView;
use serde_json::{Value, json};

use super::Api;
use super::backend::Backend;
use super::problem::Problem;

pub(super) async fn list<B: Backend>(State(api): State<Api<B>>) -> Response {
    let consumers: Vec<Value> = api.backend.consumers().iter().map(consumer_json).collect();
    Json(json!({ "consumers": consumers })).into_response()
}

pub(super) async fn remove<B: Backend>(
    State(api): State<Api<B>>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(name) = name?;
    if api.backend.remove_consumer(&name).await? {
        Ok(Json(json!({"name": name, "removed": true})).into_response())
    } else {
        Err(Problem::not_found(format!("there is no consumer {name:?}")))
    }
}

fn consumer_json(consumer: &ConsumerView) -> Value {
    json!({
        "name": consumer.name,
        "objects": consumer.objects,
        "connected": consumer.connected,
        "unacked": consumer.unacked,
        "last_acked_seq": consumer.acked,
        "lag_ms": consumer.lag_ms,
    })
}
