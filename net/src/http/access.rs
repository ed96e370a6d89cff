//! Keys: who may ask what. Probes are for everyone.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use engine::view::{Admission, Scope};
use http::{HeaderMap, Method, header};

use super::Api;
use super::backend::Backend;
use super::problem::Problem;

/// Who asks, for what is audited.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) String);

/// A key's own header; `Authorization: Bearer` does as well.
const API_KEY: &str = "x-api-key";

pub(super) async fn guard<B: Backend>(
    State(api): State<Api<B>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(scope) = scope_of(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    match api.backend.admit(key_of(request.headers()), scope) {
        Admission::Granted(name) => {
            request.extensions_mut().insert(Caller(name));
            next.run(request).await
        }
        Admission::NoKey => {
            let detail = "a key is needed: `Authorization: Bearer` or `X-Api-Key`";
            Problem::from(Refusal::new(Code::Unauthorized, detail)).into_response()
        }
        Admission::OtherScope => {
            Problem::forbidden(format!("the key has no scope `{}`", scope.as_str())).into_response()
        }
        Admission::TooFast => {
            let detail = "the key asks faster than its own limit";
            Problem::from(Refusal::new(Code::RateLimited, detail)).into_response()
        }
    }
}

/// What a request needs; `None`: nothing.
fn scope_of(method: &Method, path: &str) -> Option<Scope> {
    match path {
        "/livez" | "/readyz" => None,
        // A delivery proves by its signature whose it is; providers have no key.
        _ if method == Method::POST && path.starts_with("/v1/webhooks/") => None,
        "/v1/sync" | "/v1/sync/" | "/sync" if method == Method::POST => Some(Scope::Ingest),
        _ if method == Method::GET || method == Method::HEAD => Some(Scope::Read),
        _ => Some(Scope::Admin),
    }
}

fn key_of(headers: &HeaderMap) -> Option<&str> {
    if let Some(key) = headers.get(API_KEY) {
        return key.to_str().ok();
    }
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_something_needs_the_widest_scope() {
        for (method, path, scope) in [
            (Method::GET, "/livez", None),
            (Method::GET, "/readyz", None),
            (Method::GET, "/health", Some(Scope::Read)),
            (Method::GET, "/v1/dlq", Some(Scope::Read)),
            (Method::POST, "/v1/sync", Some(Scope::Ingest)),
            (Method::POST, "/v1/sync/", Some(Scope::Ingest)),
            (Method::POST, "/sync", Some(Scope::Ingest)),
            (Method::POST, "/v1/sync/config-override", Some(Scope::Admin)),
            (Method::POST, "/v1/pause", Some(Scope::Admin)),
            (Method::DELETE, "/v1/dlq/x", Some(Scope::Admin)),
            (Method::POST, "/livez/x", Some(Scope::Admin)),
            (Method::POST, "/v1/webhooks/crm", None),
            (Method::GET, "/v1/webhooks/crm", Some(Scope::Read)),
        ] {
            assert_eq!(scope_of(&method, path), scope, "{method} {path}");
        }
    }

    #[test]
    fn a_key_stands_in_either_header() {
        let with = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            key_of(&headers).map(str::to_owned)
        };
        assert_eq!(with("x-api-key", "k1").as_deref(), Some("k1"));
        assert_eq!(with("authorization", "bearer k1").as_deref(), Some("k1"));
        assert_eq!(with("authorization", "Basic k1"), None);
    }
}
