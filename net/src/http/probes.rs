//! Probes, health and metrics.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use engine::view::{AuthState, BreakerState, Check, HealthView, OpenOperations};
use http::{StatusCode, header};
use serde_json::{Value, json};

use super::Api;
use super::accounts::{open_json, status_json};
use super::backend::Backend;
use super::operations::rfc3339;

/// Prometheus' text format.
const METRICS_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The process turns; says nothing of what is behind it.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The node takes events.
pub(super) async fn ready<B: Backend>(State(api): State<Api<B>>) -> Response {
    let health = api.backend.health().await;
    if health.ready && overall(&health) != Overall::Unhealthy {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n").into_response()
    }
}

pub(super) async fn health<B: Backend>(State(api): State<Api<B>>) -> Response {
    let health = api.backend.health().await;
    let overall = overall(&health);
    let status = match overall {
        Overall::Healthy | Overall::Degraded => StatusCode::OK,
        Overall::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    let metrics: Vec<Value> = health.accounts.iter().map(status_json).collect();
    let answer = json!({
        "status": overall.as_str(),
        "timestamp": rfc3339(health.at),
        "version": env!("CARGO_PKG_VERSION"),
        "ready": health.ready,
        "active_providers": health.accounts.len(),
        "checks": {
            "wal": check_json(&health.wal),
            "disk": check_json(&health.disk),
            "shards": check_json(&health.shards),
            "providers": check_json(&providers_check(&health)),
        },
        "queue_metrics": queue_json(&health),
        "provider_metrics": metrics,
    });
    (status, Json(answer)).into_response()
}

pub(super) async fn queue<B: Backend>(State(api): State<Api<B>>) -> Response {
    Json(queue_json(&api.backend.health().await)).into_response()
}

pub(super) async fn metrics<B: Backend>(State(api): State<Api<B>>) -> Response {
    let text = api.backend.metrics().await;
    ([(header::CONTENT_TYPE, METRICS_CONTENT_TYPE)], text).into_response()
}

fn queue_json(health: &HealthView) -> Value {
    let mut open = OpenOperations::default();
    let mut dead_letters = 0;
    for account in &health.accounts {
        open += account.open;
        dead_letters += account.dead_letters;
    }
    let mut answer = open_json(&open);
    answer["open"] = open.total().into();
    answer["dead_letters"] = dead_letters.into();
    answer
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overall {
    Healthy,
    Degraded,
    Unhealthy,
}

impl Overall {
    fn as_str(self) -> &'static str {
        match self {
            Overall::Healthy => "healthy",
            Overall::Degraded => "degraded",
            Overall::Unhealthy => "unhealthy",
        }
    }
}

/// A provider that is down leaves the node merely degraded: it still takes events.
fn overall(health: &HealthView) -> Overall {
    let checks = [&health.wal, &health.disk, &health.shards];
    if checks
        .iter()
        .any(|check| matches!(check, Check::Unhealthy(_)))
    {
        return Overall::Unhealthy;
    }
    let degraded = checks
        .iter()
        .any(|check| matches!(check, Check::Degraded(_)))
        || providers_check(health) != Check::Healthy;
    if degraded {
        Overall::Degraded
    } else {
        Overall::Healthy
    }
}

fn providers_check(health: &HealthView) -> Check {
    let ill: Vec<&str> = health
        .accounts
        .iter()
        .filter(|status| {
            status.breaker != BreakerState::Closed || status.auth == AuthState::Refused
        })
        .map(|status| status.account.name.as_str())
        .collect();
    if ill.is_empty() {
        Check::Healthy
    } else {
        Check::Degraded(format!(
            "held by breaker or credentials: {}",
            ill.join(", ")
        ))
    }
}

fn check_json(check: &Check) -> Value {
    match check {
        Check::Healthy => json!({"status": Overall::Healthy.as_str()}),
        Check::Degraded(detail) => {
            json!({"status": Overall::Degraded.as_str(), "detail": detail})
        }
        Check::Unhealthy(detail) => {
            json!({"status": Overall::Unhealthy.as_str(), "detail": detail})
        }
    }
}
