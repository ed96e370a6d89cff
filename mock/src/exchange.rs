//! One call as the account sees it: what came in, what goes out.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

/// A request, reduced to what every account looks at; headers beside it go to
/// [`Account::arrive_with`](crate::Account::arrive_with).
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: Method,
    /// Path and query, percent-encoded, as on the request line.
    pub target: &'a str,
    /// The `Idempotency-Key` header.
    pub idempotency_key: Option<&'a str>,
    /// The whole body.
    pub body: Bytes,
}

impl<'a> Request<'a> {
    /// A request without a body.
    #[must_use]
    pub fn bare(method: Method, target: &'a str) -> Self {
        Self {
            method,
            target,
            idempotency_key: None,
            body: Bytes::new(),
        }
    }

    /// A request with a JSON body.
    #[must_use]
    pub fn json(method: Method, target: &'a str, body: &Value) -> Self {
        Self {
            body: Bytes::from(body.to_string()),
            ..Self::bare(method, target)
        }
    }

    /// The same request under an idempotency key.
    #[must_use]
    pub fn keyed(self, key: &'a str) -> Self {
        Self {
            idempotency_key: Some(key),
            ..self
        }
    }
}

/// How a call ends for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A whole HTTP response.
    Reply(Reply),
    /// The connection is reset without a byte of response.
    Reset,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status code.
    pub status: u16,
    /// Seconds for `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// `Content-Type`, absent when the body is empty.
    pub content_type: Option<&'static str>,
    /// Other headers, names in lower case.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A response with no body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            retry_after_s: None,
            content_type: None,
            headers: Vec::new(),
            body: Bytes::new(),
        }
    }

    /// A JSON response.
    #[must_use]
    pub fn json(status: u16, body: &Value) -> Self {
        Self::rendered(status, body.to_string())
    }

    /// A response whose JSON text is already there.
    #[must_use]
    pub fn rendered(status: u16, json: impl Into<Bytes>) -> Self {
        Self {
            content_type: Some("application/json"),
            body: json.into(),
            ..Self::empty(status)
        }
    }

    /// A JSON error with a sentence for the person who reads it.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        Self::json(status, &serde_json::json!({ "error": message }))
    }

    /// The same response telling the caller to stay away.
    #[must_use]
    pub fn with_retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after_s: Some(seconds),
            ..self
        }
    }

    /// The same response with one header more; its name is in lower case.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The value of one of the [`headers`](Self::headers).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str())
    }
}
