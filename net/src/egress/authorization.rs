//! How an account proves who it is.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST,
    TE, TRAILER, TRANSFER_ENCODING, UPGRADE, USER_AGENT,
};
use http::{HeaderName, HeaderValue};
use thiserror::Error;

use crate::auth::TokenCell;

/// Resolved credentials: values, not where they come from. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// No credentials.
    None,
    /// `Authorization: Bearer TOKEN`, also of an OAuth access token.
    Bearer {
        /// The token.
        token: String,
    },
    /// `Authorization: Basic …`.
    Basic {
        /// Without a colon.
        username: String,
        /// Any text.
        password: String,
    },
    /// A header of the provider's own.
    ApiKey {
        /// Its name.
        header: String,
        /// Its value.
        value: String,
    },
    /// A token that is renewed; each call takes the one of its time.
    Token(TokenCell),
}

/// Why credentials cannot be sent; never with the credentials. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthorizationError {
    /// Not a header name, or one that belongs to the client.
    #[error("`{0}` cannot be the name of an API key's header")]
    HeaderName(String),
    /// A line break or another control character, often from the end of a secret's file.
    #[error("the secret holds a character that no header can carry")]
    Value,
    /// A colon would end the user name early (RFC 7617, section 2).
    #[error("the user name holds a colon")]
    Username,
}

impl Authorization {
    /// Whether calls can carry it.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self) -> Result<(), AuthorizationError> {
        self.header().map(drop)
    }

    /// Where its tokens come from, if they are renewed.
    pub(crate) fn tokens(&self) -> Option<&TokenCell> {
        match self {
            Authorization::Token(tokens) => Some(tokens),
            Authorization::None
            | Authorization::Bearer { .. }
            | Authorization::Basic { .. }
            | Authorization::ApiKey { .. } => None,
        }
    }

    /// The header that every call carries, marked so that it is never logged.
    pub(crate) fn header(&self) -> Result<Option<(HeaderName, HeaderValue)>, AuthorizationError> {
        let (name, text) = match self {
            Authorization::None | Authorization::Token(_) => return Ok(None),
            Authorization::Bearer { token } => (AUTHORIZATION, format!("Bearer {token}")),
            Authorization::Basic { username, password } => {
                if username.contains(':') {
                    return Err(AuthorizationError::Username);
                }
                (
                    AUTHORIZATION,
                    format!(
                        "Basic {}",
                        BASE64_STANDARD.encode(format!("{username}:{password}"))
                    ),
                )
            }
            Authorization::ApiKey { header, value } => {
                let name = HeaderName::try_from(header.as_str())
                    .ok()
                    .filter(|name| !RESERVED.contains(name));
                (
                    name.ok_or_else(|| AuthorizationError::HeaderName(header.clone()))?,
                    value.clone(),
                )
            }
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| AuthorizationError::Value)?;
        value.set_sensitive(true);
        Ok(Some((name, value)))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Authorization::None => "None",
            Authorization::Bearer { .. } => "Bearer",
            Authorization::Basic { .. } => "Basic",
            Authorization::ApiKey { .. } => "ApiKey",
            Authorization::Token(_) => "Token",
        })
    }
}

/// Headers that frame the message, or that every request sets by itself.
const RESERVED: [HeaderName; 15] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONNECTION,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    EXPECT,
    HOST,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    USER_AGENT,
    IDEMPOTENCY_KEY,
    REQUEST_ID,
    TRACEPARENT,
];

/// Same value: same request (draft-ietf-httpapi-idempotency-key-header).
pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// One attempt, for the provider's support.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context.
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

#[cfg(test)]
mod tests {
    use super::*;

    fn api_key(header: &str, value: &str) -> Authorization {
        Authorization::ApiKey {
            header: header.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn each_kind_is_one_header() {
        let basic = Authorization::Basic {
            username: "Aladdin".to_owned(),
            password: "open sesame".to_owned(),
        };
        let rows = [
            (
                Authorization::Bearer {
                    token: "t0k".to_owned(),
                },
                "authorization",
                "Bearer t0k",
            ),
            // RFC 7617, section 2.
            (basic, "authorization", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            (api_key("X-API-Token", "k"), "x-api-token", "k"),
            (
                api_key("Authorization", "Token k"),
                "authorization",
                "Token k",
            ),
        ];
        for (authorization, name, value) in rows {
            let (sent_name, sent_value) = authorization.header().unwrap().unwrap();
            assert_eq!(
                (sent_name.as_str(), sent_value.to_str().unwrap()),
                (name, value)
            );
            assert!(sent_value.is_sensitive());
        }
        assert_eq!(Authorization::None.header(), Ok(None));
    }

    #[test]
    fn a_secret_is_neither_shown_nor_able_to_write_headers() {
        for authorization in [
            Authorization::Bearer {
                token: "s3cret\r\nX: y".to_owned(),
            },
            api_key("X-Key", "s3cret\n"),
        ] {
            assert_eq!(authorization.header(), Err(AuthorizationError::Value));
            assert!(!format!("{authorization:?}").contains("s3cret"));
        }
        for header in [
            "",
            "a b",
            "Host",
            "content-length",
            "Transfer-Encoding",
            "Idempotency-Key",
        ] {
            assert_eq!(
                api_key(header, "k").header(),
                Err(AuthorizationError::HeaderName(header.to_owned()))
            );
        }
        let colon = Authorization::Basic {
            username: "a:b".to_owned(),
            password: String::new(),
        };
        assert_eq!(colon.header(), Err(AuthorizationError::Username));
    }
}
