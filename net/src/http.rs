//! The HTTP API: events in, and everything an operator asks.

mod access;
mod account_request;
mod accounts;
mod backend;
mod body;
mod conflicts;
mod consumers;
mod dead_letters;
mod explain;
mod founding;
mod jobs;
mod links;
mod operations;
mod origin;
mod overrides;
mod probes;
mod problem;
mod records;
mod replay;
mod rules;
mod server;
mod split;
mod sync;
mod walks;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{any, delete, get, post, put};

pub use account_request::{AccountRequest, AuthRequest, ClientRequest};
pub use backend::Backend;
pub use body::{BODY_BYTES_MAX, EVENT_BYTES_MAX};
pub use server::{HttpLimits, serve, serve_webhooks};
pub use webhooks::{WEBHOOK_BYTES_MAX, WebhookDelivery, Webhooks};

use origin::AllowedHosts;
use problem::Problem;

/// What every handler gets.
struct Api<B> {
    backend: Arc<B>,
    limits: HttpLimits,
}

// Not derived: a derive would ask `B: Clone`.
impl<B> Clone for Api<B> {
    fn clone(&self) -> Api<B> {
        Api {
            backend: Arc::clone(&self.backend),
            limits: self.limits,
        }
    }
}

fn router<B: Backend>(backend: Arc<B>, limits: HttpLimits, hosts: Arc<AllowedHosts>) -> Router {
    let webhooks = webhooks::routes(Arc::clone(&backend), limits);
    let api = Api { backend, limits };
    Router::new()
        .route("/v1/sync", post(sync::submit::<B>))
        .route("/v1/sync/", post(sync::submit::<B>))
        .route("/v1/sync/status/{record_id}", get(sync::status::<B>))
        .route("/v1/sync/retry/{record_id}", post(sync::retry::<B>))
        .route(
            "/v1/sync/rules",
            get(rules::show::<B>)
                .put(rules::replace::<B>)
                .post(rules::replace::<B>),
        )
        .route(
            "/v1/sync/config-override",
            get(overrides::list::<B>).post(overrides::change::<B>),
        )
        .route("/v1/explain/{record_id}", get(explain::show::<B>))
        .route("/v1/operations", get(operations::list::<B>))
        .route("/v1/operations/{id}", get(operations::show::<B>))
        .route("/v1/dlq", get(dead_letters::list::<B>))
        .route("/v1/dlq/retry", post(dead_letters::retry::<B>))
        .route("/v1/dlq/redrives", get(jobs::redrives::<B>))
        .route(
            "/v1/dlq/redrives/{id}",
            get(jobs::redrive::<B>).delete(jobs::cancel_redrive::<B>),
        )
        .route(
            "/v1/dlq/{id}",
            get(dead_letters::show::<B>)
                .delete(dead_letters::drop_one::<B>)
                .patch(dead_letters::edit::<B>),
        )
        .route(
            "/v1/replay",
            get(replay::replays::<B>).post(replay::start::<B>),
        )
        .route(
            "/v1/replay/{id}",
            get(replay::show::<B>).delete(replay::cancel::<B>),
        )
        .route("/v1/records/{record_id}", get(records::show::<B>))
        .route(
            "/v1/records/{record_id}/links/{provider}",
            put(links::put::<B>).delete(links::delete::<B>),
        )
        .route("/v1/links", get(links::list::<B>))
        .route("/v1/links/changes", get(links::changes::<B>))
        .route("/v1/backfill", post(walks::backfill::<B>))
        .route("/v1/reconcile", post(walks::reconcile::<B>))
        .route("/v1/resync", post(walks::resync::<B>))
        .route("/v1/walks", get(walks::list::<B>))
        .route(
            "/v1/walks/{id}",
            get(walks::show::<B>).delete(walks::cancel::<B>),
        )
        .route("/v1/conflicts", get(conflicts::list::<B>))
        .route("/v1/conflicts/{id}/resolve", post(conflicts::resolve::<B>))
        .route("/v1/pause", post(accounts::pause::<B>))
        .route("/v1/resume", post(accounts::resume::<B>))
        .route(
            "/v1/providers",
            get(accounts::list::<B>).post(accounts::put::<B>),
        )
        .route(
            "/v1/providers/{name}",
            get(accounts::show::<B>).delete(accounts::remove::<B>),
        )
        .route("/v1/providers/{name}/status", get(accounts::status::<B>))
        .route("/v1/consumers", get(consumers::list::<B>))
        .route("/v1/consumers/{name}", delete(consumers::remove::<B>))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready::<B>))
        .route("/health", get(probes::health::<B>))
        .route("/metrics", get(probes::metrics::<B>))
        .route("/metrics/prometheus", get(probes::metrics::<B>))
        .route("/metrics/queue", get(probes::queue::<B>))
        .route("/sync", post(founding::submit::<B>))
        .route("/sync/status/{operation_id}", get(founding::status::<B>))
        .route(
            "/providers",
            get(founding::providers::<B>).post(accounts::put::<B>),
        )
        .route("/providers/{name}", delete(accounts::remove::<B>))
        .route("/providers/{name}/status", get(accounts::status::<B>))
        .merge(webhooks)
        .merge(not_available())
        .fallback(async || Problem::not_found("no such path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        // The body's size and time are bounded where it is read.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            api.clone(),
            access::guard::<B>,
        ))
        .layer(middleware::from_fn_with_state(
            hosts,
            origin::refuse_foreign,
        ))
        .with_state(api)
}

/// Paths of the contract that this version does not answer: told apart from
/// paths that are nobody's, so that a client sees which of the two it is.
fn not_available<S: Clone + Send + Sync + 'static>() -> Router<S> {
    const PATHS: [&str; 3] = ["/openapi.json", "/docs", "/"];
    PATHS.into_iter().fold(Router::new(), |router, path| {
        router.route(path, any(unavailable))
    })
}

async fn unavailable() -> Problem {
    Problem::not_available()
}
