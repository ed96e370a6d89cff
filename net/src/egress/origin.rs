//! Where an account's requests go.

use std::fmt;

use http::{HeaderValue, Uri, uri::Scheme};
use thiserror::Error;

/// Scheme, host and port of a base URL, and the path that all requests begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    tls: bool,
    /// Lower case, IPv6 without brackets.
    host: String,
    port: u16,
    /// As in the `Host` header: the port only if it is not the scheme's.
    authority: HeaderValue,
    /// Empty, or begins with `/` and does not end with one.
    base_path: String,
}

/// Why a base URL was refused. The URL is not repeated: it may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OriginError {
    /// Not a URL at all.
    #[error("base_url is not a URL")]
    NotAUrl,
    /// Neither `http` nor `https`.
    #[error("base_url begins with http:// or https://")]
    Scheme,
    /// No host, or one that no request can name.
    #[error("base_url has no usable host")]
    Host,
    /// 0, or not a number.
    #[error("base_url has no usable port")]
    Port,
    /// `user:password@`: credentials belong into `[auth]`, where they are kept secret.
    #[error("base_url holds credentials; they belong into the account's auth")]
    Credentials,
    /// A base URL ends with its path.
    #[error("base_url has a query or a fragment")]
    QueryOrFragment,
}

impl Origin {
    /// Reads a base URL: `https://api.example.com/v2`.
    pub fn parse(base_url: &str) -> Result<Origin, OriginError> {
        if base_url.contains(['?', '#']) {
            return Err(OriginError::QueryOrFragment);
        }
        let uri: Uri = base_url.trim().parse().map_err(|_| OriginError::NotAUrl)?;
        let tls = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            _ => return Err(OriginError::Scheme),
        };
        let authority = uri.authority().ok_or(OriginError::Host)?;
        if authority.as_str().contains('@') {
            return Err(OriginError::Credentials);
        }
        let bracketed = authority.host().to_ascii_lowercase();
        let host = bracketed
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(&bracketed);
        if host.is_empty() {
            return Err(OriginError::Host);
        }
        let default_port = if tls { 443 } else { 80 };
        let port = match (authority.port_u16(), authority.as_str().rsplit_once(':')) {
            (Some(0), _) => return Err(OriginError::Port),
            (Some(port), _) => port,
            // `host:` and `host:99999` have a colon after the host, yet no port.
            (None, Some((before, _))) if before.len() >= bracketed.len() => {
                return Err(OriginError::Port);
            }
            (None, _) => default_port,
        };
        let authority = if port == default_port {
            bracketed.clone()
        } else {
            format!("{bracketed}:{port}")
        };
        Ok(Origin {
            tls,
            host: host.to_owned(),
            port,
            authority: HeaderValue::from_str(&authority).map_err(|_| OriginError::Host)?,
            base_path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether requests go over TLS.
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What every request's path begins with; empty, or without a slash at its end.
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    pub(crate) fn authority(&self) -> &HeaderValue {
        &self.authority
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        let authority = self.authority.to_str().expect("made from text");
        write!(f, "{scheme}://{authority}{}", self.base_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_is_an_origin_and_a_path() {
        let rows = [
            (
                "http://127.0.0.1:9100",
                "127.0.0.1",
                9100,
                "127.0.0.1:9100",
                "",
            ),
            ("http://example.com", "example.com", 80, "example.com", ""),
            (
                "http://example.com:80/",
                "example.com",
                80,
                "example.com",
                "",
            ),
            (
                "HTTPS://API.Example.com/v2/",
                "api.example.com",
                443,
                "api.example.com",
                "/v2",
            ),
            (
                "https://example.com:80/a/b",
                "example.com",
                80,
                "example.com:80",
                "/a/b",
            ),
            ("http://[::1]:8080/x", "::1", 8080, "[::1]:8080", "/x"),
            (
                "http://[2001:db8::1]",
                "2001:db8::1",
                80,
                "[2001:db8::1]",
                "",
            ),
        ];
        for (url, host, port, authority, base_path) in rows {
            let origin = Origin::parse(url).unwrap();
            assert_eq!(
                (origin.host(), origin.port(), origin.base_path()),
                (host, port, base_path),
                "{url}"
            );
            assert_eq!(origin.authority(), authority);
            assert_eq!(Origin::parse(&origin.to_string()), Ok(origin));
        }
    }

    #[test]
    fn a_base_url_that_could_mislead_a_request_is_refused() {
        let rows = [
            ("", OriginError::NotAUrl),
            ("example.com", OriginError::Scheme),
            ("/v2", OriginError::Scheme),
            ("ftp://example.com", OriginError::Scheme),
            ("http://", OriginError::NotAUrl),
            ("http://user:secret@example.com", OriginError::Credentials),
            ("http://example.com?x=1", OriginError::QueryOrFragment),
            ("http://example.com/#x", OriginError::QueryOrFragment),
            ("http://example.com:0", OriginError::Port),
            ("http://example.com:99999", OriginError::Port),
            ("http://example.com:", OriginError::Port),
            ("http://exa mple.com", OriginError::NotAUrl),
        ];
        for (url, error) in rows {
            assert_eq!(Origin::parse(url), Err(error), "{url}");
        }
    }
}
