//! Errors as clients read them: RFC 9457 problem details.

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use engine::refusal::{Code, Refusal};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

/// An error answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    status: StatusCode,
    /// The last part of `type`; stable, for programs.
    code: &'static str,
    /// For people.
    detail: String,
    /// What in the request is at fault: RFC 6901 pointer.
    pointer: Option<String>,
    /// Members of this problem's own.
    extra: Option<Box<(&'static str, serde_json::Value)>>,
    retry: bool,
}

/// Seconds after which a client may try again; the engine asks shards to
/// recover within this.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            detail: detail.into(),
            pointer: None,
            extra: None,
            retry: false,
        }
    }

    pub(super) fn not_found(what: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, Code::NotFound.as_str(), what)
    }

    pub(super) fn method_not_allowed() -> Problem {
        let detail = "this path does not answer that method";
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
    }

    /// The contract knows it, this version does not do it.
    pub(super) fn not_available() -> Problem {
        let detail = "not available in this version";
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not_available", detail)
    }

    /// The request is fine, but what it asks of is not in a state for it.
    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, code, detail)
    }

    /// The key is for other things.
    pub(super) fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Code::Unauthorized.as_str(), detail)
    }

    /// A page of another origin tried to use a person's browser.
    pub(super) fn foreign_origin(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, Code::Unauthorized.as_str(), detail)
    }

    pub(super) fn body_timeout() -> Problem {
        let detail = "the request's body did not arrive in time";
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail)
    }

    pub(super) fn malformed(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, Code::Malformed.as_str(), detail)
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::TooLarge.as_str(),
            detail,
        )
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }

    /// A member beside the standard ones.
    pub(super) fn with(mut self, name: &'static str, value: serde_json::Value) -> Problem {
        self.extra = Some(Box::new((name, value)));
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let status = StatusCode::from_u16(refusal.code.http_status())
            .expect("every code of the table carries a valid status");
        let mut problem = Problem::new(status, refusal.code.as_str(), refusal.detail);
        problem.pointer = refusal.pointer;
        problem.retry = refusal.code.retry();
        problem
    }
}

impl From<PathRejection> for Problem {
    fn from(_: PathRejection) -> Problem {
        Problem::not_found("the path is not percent-encoded UTF-8")
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        let detail = format!("the query is not understood: {}", rejection.body_text());
        Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Code::InvalidField.as_str(),
            detail,
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": format!("urn:syncline:problem:{}", self.code),
            "title": self.code.replace('_', " "),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(pointer) = self.pointer {
            body["errors"] = json!([{"pointer": pointer, "detail": self.detail}]);
        }
        if let Some(extra) = self.extra {
            let (name, value) = *extra;
            body[name] = value;
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, PROBLEM_JSON);
        if self.retry {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
