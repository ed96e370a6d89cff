//! Asks for an account's tokens.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use engine::provider::{CallKind, Method, Request};

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use thiserror::Error;
use tokio::sync::watch;

use super::renewal::Failure;
use super::token_reply::Granted;
use super::{Grant, KeptToken, StoreError, TokenCell, TokenStore};
use crate::egress::{
    self, AccountError, AccountSettings, AddressPolicy, Authorization, Egress, HeaderSettings,
    Origin, OriginError, chain,
};

/// Keeps the token in one cell good. Its future is not `Send`; run it with `spawn_local`, once.
pub struct Refresher {
    cell: TokenCell,
    grant: Grant,
    endpoint: TokenEndpoint,
    /// Before a token in `Authorization`.
    scheme: String,
    store: Box<dyn TokenStore>,
    random: fn() -> u64,
    refresh_token: Option<String>,
    /// A token that could not be kept and has to be, because it brought the next refresh token.
    unkept: Option<KeptToken>,
}

/// Where tokens are had, over the same client as calls: TLS, deadlines and address policy.
#[derive(Debug, Clone)]
pub struct TokenEndpoint {
    url: String,
    path_and_query: String,
    account: AccountSettings,
}

/// Why a token URL cannot be used. It is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TokenEndpointError {
    /// Not a URL with a scheme and a host.
    #[error("the token URL is not a URL")]
    NotAUrl,
    /// Its scheme, host or port.
    #[error("the token URL has no usable origin: {0}")]
    Origin(OriginError),
}

/// A token is a small thing: what takes longer will not come.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);

impl TokenEndpoint {
    /// Of a URL with `http` or `https`.
    ///
    /// # Errors
    /// See [`TokenEndpointError`].
    pub fn new(
        url: &str,
        addresses: AddressPolicy,
        ca_file: Option<PathBuf>,
        timeout: Duration,
    ) -> Result<TokenEndpoint, TokenEndpointError> {
        let uri: Uri = url.parse().map_err(|_| TokenEndpointError::NotAUrl)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(TokenEndpointError::NotAUrl);
        };
        let origin = Origin::parse(&format!("{scheme}://{authority}"))
            .map_err(TokenEndpointError::Origin)?;
        let path_and_query = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        Ok(TokenEndpoint {
            url: url.to_owned(),
            path_and_query: path_and_query.to_owned(),
            account: AccountSettings {
                origin,
                addresses,
                authorization: Authorization::None,
                headers: HeaderSettings {
                    sent: vec![(
                        "content-type".to_owned(),
                        "application/x-www-form-urlencoded".to_owned(),
                    )],
                    kept: Vec::new(),
                    signer: None,
                },
                ca_file,
                connections_max: 1,
                timeout: timeout.min(TIMEOUT_MAX),
            },
        })
    }

    fn request(&self, form: String) -> Request {
        Request {
            // What it does matters to nobody who sees it: it is classified here.
            kind: CallKind::Read,
            method: Method::Post,
            path_and_query: self.path_and_query.clone(),
            body: Bytes::from(form),
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        }
    }
}

impl Refresher {
    /// For `cell`; a kept token of the same grant is in it when this returns.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(
        cell: TokenCell,
        grant: Grant,
        endpoint: TokenEndpoint,
        scheme: &str,
        mut store: Box<dyn TokenStore>,
        random: fn() -> u64,
    ) -> Result<Refresher, StoreError> {
        let kept = store.load()?;
        let mut refresher = Refresher {
            cell,
            grant,
            endpoint,
            scheme: scheme.to_owned(),
            store,
            random,
            refresh_token: None,
            unkept: None,
        };
        if let Some(kept) = kept.filter(|kept| kept.grant == refresher.fingerprint()) {
            refresher.restore(kept);
        }
        Ok(refresher)
    }

    fn restore(&mut self, kept: KeptToken) {
        let now = self.cell.now();
        // A clock that was set back makes a token young, not immortal: its 401 will tell.
        let age_ms = now.wall.0.saturating_sub(kept.asked_at_ms).max(0);
        let age = Duration::from_millis(age_ms.unsigned_abs());
        // Boot time does not reach back to it: as if asked for at boot, which is later.
        let asked_at = now.mono.checked_sub(age);
        let lifetime = kept.lifetime_s.map(Duration::from_secs);
        if let Ok(header) = self.header(&kept.access_token) {
            self.cell.restore(header, |renewal| match asked_at {
                Some(asked_at) => renewal.restore(now.mono, asked_at, lifetime),
                None => {
                    let left = lifetime.map(|lifetime| lifetime.saturating_sub(age));
                    renewal.restore(now.mono, now.mono, left)
                }
            });
        }
        self.refresh_token = kept.refresh_token;
    }

    /// Asks for tokens as they are needed until `stopped` says so; a request under way is
    /// finished first, since it may bring the only refresh token that is still good.
    ///
    /// # Errors
    /// The endpoint cannot be called at all, such as for want of its CA file.
    pub async fn run(
        mut self,
        egress: &Egress,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<(), AccountError> {
        let endpoint = egress
            .account(self.endpoint.account.clone())
            .inspect_err(|error| {
                let now = self.cell.now().mono;
                self.cell.fail(now, 0, Failure::passing(error.to_string()));
            })?;
        while !*stopped.borrow() {
            let now = self.cell.now();
            if self.cell.begin(now.mono) {
                self.renew(egress, &endpoint).await;
                continue;
            }
            let wait = self
                .cell
                .next_deadline()
                .map_or(WAIT_MAX, |at| at.saturating_since(now.mono).min(WAIT_MAX));
            tokio::select! {
                () = self.cell.nudged() => {}
                () = tokio::time::sleep(wait) => {}
                // Its other side gone is a stop too.
                changed = stopped.changed() => if changed.is_err() { break },
            }
        }
        Ok(())
    }

    /// One request, from its begin to the cell.
    async fn renew(&mut self, egress: &Egress, endpoint: &egress::Account) {
        let asked = match self.unkept.take() {
            Some(kept) => Ok(kept),
            None => self.ask(egress, endpoint).await,
        };
        let result = asked.and_then(|token| self.keep(token));
        let now = self.cell.now().mono;
        match result {
            Ok((header, lifetime)) => self.cell.grant(now, header, lifetime),
            Err(failure) => {
                tracing::warn!(
                    endpoint = %endpoint.origin(),
                    reason = failure.detail(),
                    "no new access token"
                );
                self.cell.fail(now, (self.random)(), failure);
            }
        }
    }

    async fn ask(&self, egress: &Egress, endpoint: &egress::Account) -> Result<KeptToken, Failure> {
        let asked_at_ms = self.cell.now().wall.0;
        let unix_s = asked_at_ms.div_euclid(1000);
        let form = self.grant.form(self.refresh_token.as_deref(), unix_s);
        let result = egress.call(endpoint, &self.endpoint.request(form)).await;
        let granted = Granted::read(result)?;
        let current = match &self.grant {
            Grant::Refresh { refresh_token, .. } => {
                Some(self.refresh_token.as_ref().unwrap_or(refresh_token).clone())
            }
            Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => None,
        };
        Ok(KeptToken {
            grant: self.fingerprint(),
            access_token: granted.access_token,
            refresh_token: current.map(|current| granted.refresh_token.unwrap_or(current)),
            asked_at_ms,
            lifetime_s: granted.lifetime.map(|lifetime| lifetime.as_secs()),
        })
    }

    /// Keeps a token, so that it may be used.
    fn keep(&mut self, token: KeptToken) -> Result<(HeaderValue, Option<Duration>), Failure> {
        let rotated = match &self.grant {
            Grant::Refresh { refresh_token, .. } => {
                let current = self.refresh_token.as_ref().unwrap_or(refresh_token);
                token.refresh_token.as_ref() != Some(current)
            }
            Grant::ClientCredentials(_) | Grant::JwtBearer { .. } => false,
        };
        if let Err(error) = self.store.keep(&token) {
            let detail = format!("the access token could not be kept: {}", chain(&*error));
            if rotated {
                // It is used once it is kept: a crash before that could not go on from the old.
                self.unkept = Some(token);
                return Err(Failure::passing(detail));
            }
            tracing::warn!(reason = detail, "the next start asks for another token");
        }
        self.refresh_token = token.refresh_token;
        let header = self.header(&token.access_token).map_err(|_| {
            Failure::passing("the access token holds a character that no header can carry".into())
        })?;
        Ok((header, token.lifetime_s.map(Duration::from_secs)))
    }

    fn header(&self, access_token: &str) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        let mut header = HeaderValue::try_from(format!("{} {access_token}", self.scheme))?;
        header.set_sensitive(true);
        Ok(header)
    }

    fn fingerprint(&self) -> String {
        self.grant.fingerprint(&self.endpoint.url)
    }
}

impl fmt::Debug for Refresher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresher")
            .field("cell", &self.cell)
            .field("grant", &self.grant)
            .field("endpoint", &self.endpoint.account.origin)
            .finish_non_exhaustive()
    }
}

/// Timers do not count while the machine is suspended; tokens age.
const WAIT_MAX: Duration = Duration::from_secs(30);
