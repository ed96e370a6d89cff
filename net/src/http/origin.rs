//! Keeps web pages of other origins away from the API.
//!
//! On loopback there are no keys, so a page in a browser on the same machine
//! could post events: from its own origin (told by `Origin`), or after making
//! its own name resolve to 127.0.0.1 (told by `Host`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};

use super::problem::Problem;

/// Which `Host` a request may name.
#[derive(Debug)]
pub(super) struct AllowedHosts {
    /// False off loopback, where TLS and keys stand in for it.
    checked: bool,
    /// Names beside loopback's own: the host of `public_url`.
    names: Vec<String>,
}

impl AllowedHosts {
    pub(super) fn for_listener(address: IpAddr, names: Vec<String>) -> AllowedHosts {
        AllowedHosts {
            checked: address.is_loopback(),
            names,
        }
    }

    fn allows(&self, host: &str) -> bool {
        if !self.checked {
            return true;
        }
        let name = without_port(host);
        let literal = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        let is_loopback = literal
            .unwrap_or(name)
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
        is_loopback
            || name.eq_ignore_ascii_case("localhost")
            || self
                .names
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name))
    }
}

pub(super) async fn refuse_foreign(
    State(hosts): State<Arc<AllowedHosts>>,
    request: Request,
    next: Next,
) -> Response {
    match check(&hosts, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(hosts: &AllowedHosts, headers: &HeaderMap) -> Result<(), Problem> {
    let mut named = headers.get_all(header::HOST).iter();
    let host = match (named.next(), named.next()) {
        (Some(host), None) => host.to_str().unwrap_or_default(),
        (None, _) => "",
        (Some(_), Some(_)) => return Err(Problem::malformed("more than one Host header")),
    };
    if !hosts.allows(host) {
        return Err(Problem::foreign_origin(
            "the Host header names another host",
        ));
    }
    for origin in headers.get_all(header::ORIGIN) {
        let authority = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"));
        if !authority.is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)) {
            return Err(Problem::foreign_origin(
                "the Origin header names another origin",
            ));
        }
    }
    Ok(())
}

/// `[::1]:80`, `localhost:80`, `localhost`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn passes(listener: &str, host: &str, origin: Option<&str>) -> bool {
        let names = vec!["sync.example.com".to_owned()];
        let hosts = AllowedHosts::for_listener(listener.parse().unwrap(), names);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        check(&hosts, &headers).is_ok()
    }

    #[test]
    fn on_loopback_only_its_own_names_pass() {
        for (host, holds) in [
            ("127.0.0.1:7401", true),
            ("127.0.0.2", true),
            ("localhost:7401", true),
            ("LocalHost", true),
            ("[::1]:7401", true),
            ("sync.example.com", true),
            ("evil.example.com", false),
            ("evil.example.com:7401", false),
            ("127.0.0.1.evil.example.com", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(passes("127.0.0.1", host, None), holds, "{host}");
        }
        assert!(passes("0.0.0.0", "anything.example.com", None));
    }

    #[test]
    fn an_origin_has_to_be_our_own() {
        for (origin, holds) in [
            ("http://127.0.0.1:7401", true),
            ("http://127.0.0.1:8080", false),
            ("http://localhost:7401", false),
            ("https://evil.example.com", false),
            ("null", false),
        ] {
            assert_eq!(
                passes("127.0.0.1", "127.0.0.1:7401", Some(origin)),
                holds,
                "{origin}"
            );
        }
        assert!(!passes(
            "0.0.0.0",
            "api.example.com",
            Some("https://evil.example.com")
        ));
    }

    #[test]
    fn a_request_without_a_host_or_with_two_is_refused() {
        let hosts = AllowedHosts::for_listener("127.0.0.1".parse().unwrap(), Vec::new());
        assert!(check(&hosts, &HeaderMap::new()).is_err());
        let mut headers = HeaderMap::new();
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        headers.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(check(&hosts, &headers).is_err());
    }
}
