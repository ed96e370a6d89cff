//! `POST /v1/webhooks/{provider}`: deliveries of providers, handed on byte for byte.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use engine::refusal::Refusal;
use http::{StatusCode, header};

use super::body;
use super::problem::Problem;
use super::server::HttpLimits;

/// Takes what providers tell.
pub trait Webhooks: Send + Sync + 'static {
    /// Whether deliveries for an account of this name are taken.
    fn takes(&self, account: &str) -> bool;

    /// A delivery was over [`WEBHOOK_BYTES_MAX`] and was not read; it counts.
    fn too_large(&self, account: &str);

    /// Believes a delivery or not, and takes it; answers with the status for the provider once
    /// all of it is durable, or was before.
    fn deliver(
        &self,
        account: &str,
        delivery: WebhookDelivery,
    ) -> impl Future<Output = Result<u16, Refusal>> + Send;
}

/// One request of a provider, as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookDelivery {
    /// As on the request line.
    pub method: String,
    /// Path and query, as on the request line.
    pub path_and_query: String,
    /// The `Host` it was sent to.
    pub host: String,
    /// Names in lower case; values that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// Not one byte changed.
    pub body: Bytes,
}

/// Largest delivery: 100 events of a provider that sends the most in one (HubSpot's webhooks
/// guide, read 2026-11) may have 10 KiB each.
pub const WEBHOOK_BYTES_MAX: usize = 1 << 20;

struct Receiver<W> {
    webhooks: Arc<W>,
    limits: HttpLimits,
}

// Not derived: a derive would ask `W: Clone`.
impl<W> Clone for Receiver<W> {
    fn clone(&self) -> Receiver<W> {
        Receiver {
            webhooks: Arc::clone(&self.webhooks),
            limits: self.limits,
        }
    }
}

/// The one route, for a router of any state.
pub(super) fn routes<W: Webhooks, S>(webhooks: Arc<W>, limits: HttpLimits) -> Router<S> {
    Router::new()
        .route("/v1/webhooks/{provider}", post(deliver::<W>))
        .with_state(Receiver { webhooks, limits })
}

/// A router that answers nothing else.
pub(super) fn alone<W: Webhooks>(webhooks: Arc<W>, limits: HttpLimits) -> Router {
    routes(webhooks, limits)
        .fallback(async || Problem::not_found("no such path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
        // The body's size and time are bounded where it is read.
        .layer(DefaultBodyLimit::disable())
}

async fn deliver<W: Webhooks>(
    State(receiver): State<Receiver<W>>,
    account: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Path(account) = account?;
    let webhooks = &receiver.webhooks;
    if !webhooks.takes(&account) {
        return Err(Problem::not_found("no account of this name takes webhooks"));
    }
    let (head, body) = request.into_parts();
    let body = body::read_up_to(WEBHOOK_BYTES_MAX, body, receiver.limits).await;
    let body = body.inspect_err(|problem| {
        if problem.is_too_large() {
            webhooks.too_large(&account);
        }
    })?;
    let status = webhooks.deliver(&account, delivery(&head, body)).await?;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Ok(status.into_response())
}

fn delivery(head: &Parts, body: Bytes) -> WebhookDelivery {
    let text = |value: &http::HeaderValue| value.to_str().ok().map(str::to_owned);
    let headers = head.headers.iter();
    let headers =
        headers.filter_map(|(name, value)| Some((name.as_str().to_owned(), text(value)?)));
    let path = head.uri.path_and_query();
    WebhookDelivery {
        method: head.method.as_str().to_owned(),
        path_and_query: path.map_or("/", |path| path.as_str()).to_owned(),
        host: head
            .headers
            .get(header::HOST)
            .and_then(text)
            .unwrap_or_default(),
        headers: headers.collect(),
        body,
    }
}
