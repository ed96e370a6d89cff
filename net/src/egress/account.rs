//! One provider account: where, as whom, and over which connections.

use std::cell::RefCell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use engine::provider::{Method, NotSent, REPLY_HEADERS_MAX, Request, SendFailure};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use http_body_util::Full;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;

use super::authorization::{IDEMPOTENCY_KEY, REQUEST_ID, TRACEPARENT};
use super::connection::HttpRequest;
use super::message_signature::MessageSigner;
use super::pool::Pool;
use super::resolver::Resolver;
use super::{AddressPolicy, Authorization, AuthorizationError, Origin, tls};
use crate::auth::{AccessToken, TokenCell};

/// An account's side of the client. Accounts share nothing, so that a slow provider holds up none
/// but itself.
pub struct Account {
    origin: Origin,
    timeout: Duration,
    addresses: AddressPolicy,
    /// `None` for plain HTTP.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    resolver: Resolver,
    pool: Pool,
    headers: RefCell<Headers>,
    /// Where calls get their token, if it is one that is renewed.
    tokens: RefCell<Option<TokenCell>>,
    /// Reply headers that its definition reads.
    kept_headers: Vec<HeaderName>,
    signer: Option<MessageSigner>,
}

/// What an account is made of; secrets resolved.
#[derive(Debug, Clone)]
pub struct AccountSettings {
    /// From `base_url`.
    pub origin: Origin,
    /// Which of its addresses may be called.
    pub addresses: AddressPolicy,
    /// Credentials.
    pub authorization: Authorization,
    /// The definition's headers.
    pub headers: HeaderSettings,
    /// PEM file of certificates to trust beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Connections open at once, at least 1; `max_in_flight` makes it the bound of waiting calls too.
    pub connections_max: usize,
    /// For each call in total.
    pub timeout: Duration,
}

/// Headers beside those that every call has.
#[derive(Debug, Clone, Default)]
pub struct HeaderSettings {
    /// Sent with every call, in place of the client's own of the same name.
    pub sent: Vec<(String, String)>,
    /// Names of reply headers to keep, at most [`REPLY_HEADERS_MAX`] of them.
    pub kept: Vec<String>,
    /// Signs each request that has an id and a body.
    pub signer: Option<MessageSigner>,
}

/// Why an account cannot be set up. Nothing was changed.
#[derive(Debug, Error)]
pub enum AccountError {
    /// Its credentials cannot be sent.
    #[error(transparent)]
    Authorization(#[from] AuthorizationError),
    /// Its CA file cannot be used.
    #[error("CA file {path}")]
    CaFile {
        /// Of the file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: io::Error,
    },
    /// A header that cannot be sent or asked for.
    #[error("`{0}` cannot be a header")]
    Header(String),
    /// TLS needs a name or an address to check the certificate against.
    #[error("`{0}` is not a name that a certificate can have")]
    ServerName(String),
}

impl Account {
    pub(crate) fn new(
        settings: AccountSettings,
        public: &Arc<ClientConfig>,
    ) -> Result<Account, AccountError> {
        let origin = settings.origin;
        let tls = if origin.is_tls() {
            let config = match settings.ca_file {
                Some(path) => tls::roots_with(&path)
                    .map_err(|source| AccountError::CaFile { path, source })?,
                None => Arc::clone(public),
            };
            let name = ServerName::try_from(origin.host().to_owned())
                .map_err(|_| AccountError::ServerName(origin.host().to_owned()))?;
            Some((config, name))
        } else {
            None
        };
        let mut headers = Headers::new(&origin);
        headers.add(&settings.headers.sent)?;
        headers.authorize(&settings.authorization)?;
        let kept = settings.headers.kept.iter().take(REPLY_HEADERS_MAX);
        let kept_headers = kept
            .map(|name| HeaderName::try_from(name).map_err(|_| AccountError::Header(name.clone())))
            .collect::<Result<_, _>>()?;
        Ok(Account {
            resolver: Resolver::new(origin.host(), origin.port()),
            pool: Pool::new(settings.connections_max.max(1)),
            origin,
            timeout: settings.timeout,
            addresses: settings.addresses,
            tls,
            headers: RefCell::new(headers),
            tokens: RefCell::new(settings.authorization.tokens().cloned()),
            kept_headers,
            signer: settings.headers.signer,
        })
    }

    /// Calls from now on use these credentials; those under way keep theirs.
    pub fn authorize(&self, authorization: &Authorization) -> Result<(), AuthorizationError> {
        self.headers.borrow_mut().authorize(authorization)?;
        *self.tokens.borrow_mut() = authorization.tokens().cloned();
        Ok(())
    }

    /// Where requests go.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Connections that wait for a call.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle_connections()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn addresses(&self) -> &AddressPolicy {
        &self.addresses
    }

    pub(crate) fn tls(&self) -> Option<&(Arc<ClientConfig>, ServerName<'static>)> {
        self.tls.as_ref()
    }

    pub(crate) fn resolver(&self) -> &Resolver {
        &self.resolver
    }

    pub(crate) fn kept_headers(&self) -> &[HeaderName] {
        &self.kept_headers
    }

    pub(crate) fn tokens(&self) -> Option<TokenCell> {
        self.tokens.borrow().clone()
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// `request` as this account sends it, with a token if it takes one.
    pub(crate) fn http_request(
        &self,
        request: &Request,
        token: Option<&AccessToken>,
    ) -> Result<HttpRequest, SendFailure> {
        let unsendable = |what: &str| SendFailure::BeforeSent {
            cause: NotSent::Unsendable,
            detail: format!("{what} cannot be sent over HTTP"),
        };
        let base_path = self.origin.base_path();
        let mut path = BytesMut::with_capacity(base_path.len() + request.path_and_query.len());
        path.put_slice(base_path.as_bytes());
        path.put_slice(request.path_and_query.as_bytes());
        if path.is_empty() {
            path.put_slice(b"/");
        }
        let path =
            PathAndQuery::from_maybe_shared(path.freeze()).map_err(|_| unsendable("the path"))?;
        let value =
            |text: &str, what: &str| HeaderValue::from_str(text).map_err(|_| unsendable(what));

        let mut http_request = http::Request::new(Full::new(request.body.clone()));
        *http_request.method_mut() = match request.method {
            Method::Get => http::Method::GET,
            Method::Post => http::Method::POST,
            Method::Put => http::Method::PUT,
            Method::Patch => http::Method::PATCH,
            Method::Delete => http::Method::DELETE,
        };
        *http_request.uri_mut() = Uri::from(path);
        let own = self.headers.borrow();
        let mut headers = own.block.clone();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, token.header().clone());
        }
        if !request.body.is_empty() {
            headers.insert(CONTENT_TYPE, own.content_type.clone());
        }
        if let Some(key) = &request.idempotency_key {
            headers.insert(IDEMPOTENCY_KEY, value(key, "the idempotency key")?);
        }
        if !request.request_id.is_empty() {
            headers.insert(REQUEST_ID, value(&request.request_id, "the request id")?);
        }
        if let Some(traceparent) = &request.traceparent {
            headers.insert(TRACEPARENT, value(traceparent, "the traceparent")?);
        }
        if let Some(signer) = &self.signer {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let at_s = now.map_or(0, |now| now.as_secs());
            signer.sign(&request.request_id, at_s, &request.body, &mut headers);
        }
        *http_request.headers_mut() = headers;
        Ok(http_request)
    }
}

/// What every request of the account carries, made once.
struct Headers {
    block: HeaderMap,
    /// Of requests with a body.
    content_type: HeaderValue,
    /// Where the credentials are, to take them out again.
    credentials: Option<HeaderName>,
}

impl Headers {
    fn new(origin: &Origin) -> Headers {
        // The block and what a request adds to it, so that adding does not grow it.
        let mut block = HeaderMap::with_capacity(12);
        block.insert(HOST, origin.authority().clone());
        block.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("syncline/", env!("CARGO_PKG_VERSION"))),
        );
        block.insert(ACCEPT, HeaderValue::from_static("application/json"));
        // A compressed body would have to be unpacked to be bounded.
        block.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        Headers {
            block,
            content_type: HeaderValue::from_static("application/json"),
            credentials: None,
        }
    }

    fn add(&mut self, headers: &[(String, String)]) -> Result<(), AccountError> {
        for (name, value) in headers {
            let wrong = || AccountError::Header(name.clone());
            let value = HeaderValue::from_str(value).map_err(|_| wrong())?;
            match HeaderName::try_from(name).map_err(|_| wrong())? {
                CONTENT_TYPE => self.content_type = value,
                name => {
                    self.block.insert(name, value);
                }
            }
        }
        Ok(())
    }

    fn authorize(&mut self, authorization: &Authorization) -> Result<(), AuthorizationError> {
        let header = authorization.header()?;
        if let Some(name) = self.credentials.take() {
            self.block.remove(name);
        }
        if let Some((name, value)) = header {
            self.block.insert(&name, value);
            self.credentials = Some(name);
        }
        Ok(())
    }
}

/// Body of every request.
pub(crate) type RequestBody = Full<Bytes>;
