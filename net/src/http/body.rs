//! Reads a request's body within its bounds of size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use engine::refusal::{Code, Refusal};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::server::HttpLimits;

/// Largest body (PRODUCT section 6).
pub const BODY_BYTES_MAX: usize = 8 << 20;
/// Largest event (PRODUCT section 6).
pub const EVENT_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(EVENT_BYTES_MAX <= BODY_BYTES_MAX);

/// Of a larger body the connection is closed while it is sent.
const DISCARDED_BYTES_MAX: usize = 16 << 20;
/// So long more of it is waited for each time, once it is refused.
const LINGER: Duration = Duration::from_secs(1);

/// The whole body.
pub(super) async fn read(body: Body, limits: HttpLimits) -> Result<Bytes, Problem> {
    read_up_to(BODY_BYTES_MAX, body, limits).await
}

/// The whole body, where less is taken than elsewhere.
pub(super) async fn read_up_to(
    bytes_max: usize,
    mut body: Body,
    limits: HttpLimits,
) -> Result<Bytes, Problem> {
    let too_large = || Problem::too_large(format!("a body has at most {bytes_max} bytes"));
    // None of it is kept when the length is announced.
    if body.size_hint().lower() > bytes_max as u64 {
        tokio::spawn(discard(body, limits));
        return Err(too_large());
    }
    let collected = Limited::new(&mut body, bytes_max).collect();
    match tokio::time::timeout(limits.body_timeout, collected).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            tokio::spawn(discard(body, limits));
            Err(too_large())
        }
        Ok(Err(_)) => Err(Problem::malformed("the body ended early")),
        Err(_elapsed) => Err(Problem::body_timeout()),
    }
}

/// Reads what is left of a body that is not taken, while it is answered. A sender that writes all of
/// it before it reads would find a broken connection otherwise, and not the answer, which is the
/// same whatever comes of this.
async fn discard(mut body: Body, limits: HttpLimits) {
    if body.size_hint().lower() > DISCARDED_BYTES_MAX as u64 {
        return;
    }
    let rest = async {
        let mut left = DISCARDED_BYTES_MAX;
        while let Ok(Some(Ok(frame))) = tokio::time::timeout(LINGER, body.frame()).await {
            let read = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(read) {
                Some(less) => left = less,
                None => break,
            }
        }
    };
    drop(tokio::time::timeout(limits.body_timeout, rest).await);
}

/// The whole body as `T`; an empty one reads as `{}`.
pub(super) async fn read_json<T: DeserializeOwned>(
    body: Body,
    limits: HttpLimits,
) -> Result<T, Problem> {
    let body = read(body, limits).await?;
    let text: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(text).map_err(|error| {
        let detail = error.to_string();
        let code = match error.classify() {
            serde_json::error::Category::Data if detail.starts_with("unknown field") => {
                Code::UnknownField
            }
            serde_json::error::Category::Data if detail.starts_with("missing field") => {
                Code::MissingField
            }
            serde_json::error::Category::Data => Code::InvalidField,
            _ => Code::Malformed,
        };
        Problem::from(Refusal::new(code, detail))
    })
}
