//! HTTP/1.1 client of a shard thread: one request in, one reply or one honest failure out.
//!
//! Built for calls whose fate matters more than their success:
//!
//! - Every failure says whether a byte of the request had left. A counter beneath the HTTP codec
//!   knows; nothing is guessed from error texts.
//! - Only a request of which no byte left is sent again by itself, and only when a pooled
//!   connection turned out to be dead.
//! - A call owns its connection and drives it itself: dropping the call closes the connection, so
//!   no reply can meet the wrong request, and there is no task, channel or lock per call.
//! - Redirects are replies like any other: credentials go to the account's own origin only.

mod account;
mod address_policy;
mod authorization;
mod connection;
mod message_signature;
mod origin;
mod pool;
mod resolver;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use engine::provider::{BodyEnd, NoReply, NotSent, Reply, Request, SendFailure};
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

pub use account::{Account, AccountError, AccountSettings, HeaderSettings};
pub use address_policy::{AddressPolicy, Cidr, InvalidCidr};
pub use authorization::{Authorization, AuthorizationError};
pub use message_signature::{MessageSigner, NotASecret};
pub use origin::{Origin, OriginError};

pub(crate) use connection::chain;

use crate::auth::AccessToken;
use connection::{Connection, Progress};

/// The credentials were not good.
const UNAUTHORIZED: u16 = 401;

/// The client of one thread. Its futures are not `Send`; run them with `spawn_local`.
pub struct Egress {
    settings: EgressSettings,
    /// For all accounts without a CA of their own, so that they share session tickets.
    tls: Arc<ClientConfig>,
}

/// What holds for all accounts of a client.
#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// For name, TCP and TLS together; the call's own deadline holds as well.
    pub connect_timeout: Duration,
    /// An idle connection older than this is not used again.
    pub idle_max: Duration,
    /// A reply's body is read up to here.
    pub body_bytes_max: usize,
}

impl Default for EgressSettings {
    fn default() -> EgressSettings {
        EgressSettings {
            connect_timeout: Duration::from_secs(10),
            // Below the shortest keep-alive in common use (Node.js and Apache: 5 s), so that we
            // hang up first.
            idle_max: Duration::from_secs(4),
            // A reply is one record or one batch's results; events are at most as large.
            body_bytes_max: 1 << 20,
        }
    }
}

impl Egress {
    /// A client without connections.
    pub fn new(settings: EgressSettings) -> Egress {
        Egress {
            settings,
            tls: tls::public_roots(),
        }
    }

    /// An account with its connections; it lives on this thread.
    pub fn account(&self, settings: AccountSettings) -> Result<Account, AccountError> {
        Account::new(settings, &self.tls)
    }

    /// Sends `request` and reads its reply, by the account's timeout in total: waiting for a
    /// connection, connecting, sending and reading.
    ///
    /// One request is sent, whatever comes of it: a provider counts each. Of a 401 to a token that is
    /// renewed it is for the caller to make another call.
    ///
    /// Dropping the future closes the connection; what was sent stays sent.
    ///
    /// # Errors
    /// [`SendFailure`] says whether the request may have arrived.
    pub async fn call(&self, account: &Account, request: &Request) -> Result<Reply, SendFailure> {
        let deadline = Instant::now() + account.timeout();
        let Some(tokens) = account.tokens() else {
            return self.send(account, request, None, deadline).await;
        };
        let token = tokens.usable(deadline).await?;
        let reply = self.send(account, request, Some(&token), deadline).await?;
        if reply.status != UNAUTHORIZED || !tokens.reject(&token) {
            return Ok(reply);
        }
        Err(SendFailure::TokenRefused)
    }

    async fn send(
        &self,
        account: &Account,
        request: &Request,
        token: Option<&AccessToken>,
        deadline: Instant,
    ) -> Result<Reply, SendFailure> {
        let mut progress = Progress::keeping(account.kept_headers());
        let attempt = self.attempt(account, request, token, deadline, &mut progress);
        let failure = match timeout_at(deadline, attempt).await {
            Ok(Ok(body_end)) => return Ok(progress.into_reply(body_end)),
            Ok(Err(_)) if progress.has_head() => return Ok(progress.into_reply(BodyEnd::Broken)),
            Ok(Err(failure)) => failure,
            Err(_) if progress.has_head() => return Ok(progress.into_reply(BodyEnd::Deadline)),
            Err(_) => {
                let detail = format!("no reply within {:?}", account.timeout());
                if progress.may_have_sent() {
                    SendFailure::AfterSent {
                        cause: NoReply::Deadline,
                        detail,
                    }
                } else {
                    SendFailure::BeforeSent {
                        cause: NotSent::Deadline,
                        detail,
                    }
                }
            }
        };
        Err(failure)
    }

    /// Closes connections that were idle for too long. Calls do so by themselves for their
    /// account; this is for accounts that have none.
    pub fn close_idle(&self, account: &Account) {
        account
            .pool()
            .close_idle(Instant::now(), self.settings.idle_max);
    }

    async fn attempt(
        &self,
        account: &Account,
        request: &Request,
        token: Option<&AccessToken>,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<BodyEnd, SendFailure> {
        let _slot = account.pool().slot().await;
        let http_request = account.http_request(request, token)?;

        if let Some(mut connection) = account.pool().take(self.settings.idle_max).await {
            let body_bytes_max = self.settings.body_bytes_max;
            match connection
                .exchange(http_request, body_bytes_max, progress)
                .await
            {
                Ok(body_end) => return Ok(account.pool().put_back(connection, body_end)),
                // The server hung up between our look and our first byte: as if not tried.
                Err(SendFailure::BeforeSent {
                    cause: NotSent::Closed,
                    ..
                }) => {}
                Err(failure) => return Err(failure),
            }
            let http_request = account.http_request(request, token)?;
            return self
                .attempt_fresh(account, http_request, deadline, progress)
                .await;
        }
        self.attempt_fresh(account, http_request, deadline, progress)
            .await
    }

    async fn attempt_fresh(
        &self,
        account: &Account,
        http_request: connection::HttpRequest,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<BodyEnd, SendFailure> {
        let connect_by = deadline.min(Instant::now() + self.settings.connect_timeout);
        let mut connection = Connection::open(account, connect_by).await?;
        let body_bytes_max = self.settings.body_bytes_max;
        let body_end = connection
            .exchange(http_request, body_bytes_max, progress)
            .await?;
        Ok(account.pool().put_back(connection, body_end))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use engine::provider::{CallKind, Method};

    use super::*;

    #[test]
    fn a_call_that_got_no_connection_in_time_was_not_sent() {
        let egress = Egress::new(EgressSettings::default());
        let settings = AccountSettings {
            // Discard: whoever connects to it sees a refusal, not a deadline.
            origin: Origin::parse("http://127.0.0.1:9").unwrap(),
            addresses: AddressPolicy::Any,
            authorization: Authorization::None,
            headers: HeaderSettings::default(),
            ca_file: None,
            connections_max: 1,
            timeout: Duration::from_millis(20),
        };
        let account = egress.account(settings).unwrap();
        let request = Request {
            kind: CallKind::Read,
            method: Method::Get,
            path_and_query: "/".to_owned(),
            body: Bytes::new(),
            idempotency_key: None,
            request_id: String::new(),
            traceparent: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let _all_slots = account.pool().slot().await;
            let failure = egress.call(&account, &request).await.unwrap_err();
            assert!(matches!(
                failure,
                SendFailure::BeforeSent {
                    cause: NotSent::Deadline,
                    ..
                }
            ));
        });
    }
}
