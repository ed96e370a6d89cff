//! What the answer to a request for a token says.

use std::time::Duration;

use engine::provider::{BodyEnd, RETRY_AFTER_MAX, Reply, SendFailure};
use serde::Deserialize;
use serde_json::Value;

use super::renewal::Failure;

/// A token, and what came with it (RFC 6749, section 5.1).
pub(crate) struct Granted {
    pub(crate) access_token: String,
    pub(crate) refresh_token: Option<String>,
    pub(crate) lifetime: Option<Duration>,
}

#[derive(Deserialize)]
struct Members {
    access_token: Option<String>,
    refresh_token: Option<String>,
    expires_in: Option<Value>,
    error: Option<Value>,
}

/// Longer than any token code in use; the rest of a reply may quote what was sent.
const CODE_BYTES_MAX: usize = 40;

impl Granted {
    /// Failures tell the status and the error's code, no other text of the reply: it may repeat
    /// a secret.
    pub(crate) fn read(result: Result<Reply, SendFailure>) -> Result<Granted, Failure> {
        let reply = result.map_err(|failure| Failure::passing(failure.to_string()))?;
        let members: Option<Members> = serde_json::from_slice(&reply.body).ok();
        if !(200..300).contains(&reply.status) {
            return Err(refusal(&reply, members.and_then(|members| members.error)));
        }
        if reply.body_end != BodyEnd::Complete {
            return Err(Failure::passing("the token's reply broke off".to_owned()));
        }
        let members = members
            .ok_or_else(|| Failure::passing("the token's reply is not as JSON".to_owned()))?;
        let access_token = members.access_token.filter(|token| !token.is_empty());
        Ok(Granted {
            access_token: access_token.ok_or_else(|| {
                Failure::passing("the token's reply has no access_token".to_owned())
            })?,
            refresh_token: members.refresh_token.filter(|token| !token.is_empty()),
            lifetime: members.expires_in.as_ref().and_then(seconds),
        })
    }
}

/// A number, or one as text, as some providers send it; 0 says nothing.
fn seconds(expires_in: &Value) -> Option<Duration> {
    let seconds = match expires_in {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    seconds
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs)
}

fn refusal(reply: &Reply, error: Option<Value>) -> Failure {
    let code = error.as_ref().and_then(Value::as_str).filter(|code| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-. ".contains(&byte);
        code.len() <= CODE_BYTES_MAX && code.bytes().all(plain)
    });
    let code = code.map(|code| format!(" {code}")).unwrap_or_default();
    let detail = format!(
        "the request for a token was answered {}{code}",
        reply.status
    );
    match reply.status {
        // What time may cure; everything else of the 4xx says that the credentials are wrong.
        408 | 425 | 429 | 500.. => {
            // A date is left to the back-off, which asks at least once a minute.
            let seconds = reply.retry_after.as_deref().map(str::trim);
            let seconds = seconds.and_then(|text| text.parse().ok());
            let told = seconds.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
            Failure::Passing {
                detail,
                retry_after: told.filter(|told| !told.is_zero()),
            }
        }
        400..500 => Failure::Refused { detail },
        _ => Failure::passing(detail),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use engine::provider::ReplyHeaders;

    use super::*;

    fn read(status: u16, body: &str) -> Result<Granted, Failure> {
        let reply = Reply {
            status,
            retry_after: None,
            date: None,
            headers: ReplyHeaders::default(),
            body: Bytes::copy_from_slice(body.as_bytes()),
            body_end: BodyEnd::Complete,
        };
        Granted::read(Ok(reply))
    }

    #[test]
    fn a_grant_is_read_whatever_else_it_says() {
        for (lifetime, expected) in [
            ("", None),
            (",\"expires_in\":1800", Some(1800)),
            (",\"expires_in\":\"1800\"", Some(1800)),
            (",\"expires_in\":0", None),
            (",\"expires_in\":-1", None),
            (",\"expires_in\":null", None),
        ] {
            let body = format!("{{\"access_token\":\"a\",\"x\":[1]{lifetime}}}");
            let granted = read(200, &body).ok().unwrap();
            assert_eq!(granted.access_token, "a");
            assert_eq!(granted.refresh_token, None);
            assert_eq!(
                granted.lifetime,
                expected.map(Duration::from_secs),
                "{lifetime}"
            );
        }
        let both = read(200, r#"{"access_token":"a","refresh_token":"r"}"#)
            .ok()
            .unwrap();
        assert_eq!(both.refresh_token.as_deref(), Some("r"));
    }

    #[test]
    fn wrong_credentials_are_told_from_what_time_may_cure() {
        let invalid = r#"{"error":"invalid_grant","error_description":"token s3cret"}"#;
        for (status, body, refused) in [
            (400, invalid, true),
            (401, r#"{"error":"invalid_client"}"#, true),
            (403, "", true),
            (429, invalid, false),
            (500, "", false),
            (503, "<html>", false),
            (302, "", false),
            (200, "<html>", false),
            (200, "{}", false),
            (200, r#"{"access_token":""}"#, false),
        ] {
            let failure = read(status, body).err().unwrap();
            assert_eq!(
                matches!(failure, Failure::Refused { .. }),
                refused,
                "{status} {body}"
            );
            assert!(!failure.detail().contains("s3cret"));
        }
        let told = read(400, invalid).err().unwrap();
        assert_eq!(
            told.detail(),
            "the request for a token was answered 400 invalid_grant"
        );
    }

    #[test]
    fn an_error_that_could_quote_a_secret_is_not_told() {
        let failure = read(400, r#"{"error":"no such token: eyJhbGciOi/JSUzI1NiJ9"}"#);
        let failure = failure.err().unwrap();
        assert_eq!(failure.detail(), "the request for a token was answered 400");
    }
}
