//! An account's token, shared by all threads that call it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::provider::{NotSent, SendFailure};
use engine::time::{Mono, Now};
use http::HeaderValue;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

use super::renewal::{Failure, Renewal, RenewalRules, Without};

/// Reads both clocks.
pub type Clock = fn() -> Now;

/// Hands out the token of one account, or says why there is none. Clones are the same cell.
#[derive(Clone)]
pub struct TokenCell {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    /// Locked for moments, after a 401 and by the refresher; calls look at `view`.
    renewal: Mutex<Renewal>,
    view: watch::Sender<View>,
    /// Tells the refresher that a token was refused.
    nudge: Notify,
}

/// What calls see.
#[derive(Clone)]
enum View {
    Token(Arc<AccessToken>),
    Without(Without),
}

/// A token as calls carry it.
pub(crate) struct AccessToken {
    generation: u64,
    /// Of `Authorization`; marked so that it is never logged.
    header: HeaderValue,
}

/// How an account's token is, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStanding {
    /// There is one, and it is good as far as is known.
    Valid,
    /// There is none; one is being asked for.
    Asking,
    /// There is none, because the credentials were refused; they are shown again every minute.
    Refused,
    /// There is none, for a reason that may pass.
    Failing,
}

impl TokenCell {
    /// An empty cell; a [`super::Refresher`] fills it.
    pub fn new(rules: RenewalRules, clock: Clock) -> TokenCell {
        TokenCell {
            shared: Arc::new(Shared {
                clock,
                renewal: Mutex::new(Renewal::new(rules)),
                view: watch::Sender::new(View::Without(Without::Wait)),
                nudge: Notify::new(),
            }),
        }
    }

    /// How the token is now.
    pub fn standing(&self) -> TokenStanding {
        match &*self.shared.view.borrow() {
            View::Token(_) => TokenStanding::Valid,
            View::Without(Without::Wait) => TokenStanding::Asking,
            View::Without(Without::Fail(Failure::Refused { .. })) => TokenStanding::Refused,
            View::Without(Without::Fail(Failure::Passing { .. })) => TokenStanding::Failing,
        }
    }

    /// The token, once there is one.
    ///
    /// # Errors
    /// Always [`SendFailure::BeforeSent`]: there is none, and none was had by the deadline.
    pub(crate) async fn usable(&self, deadline: Instant) -> Result<Arc<AccessToken>, SendFailure> {
        if let View::Token(token) = &*self.shared.view.borrow() {
            return Ok(Arc::clone(token));
        }
        let mut views = self.shared.view.subscribe();
        let settled = views.wait_for(|view| !matches!(view, View::Without(Without::Wait)));
        let late = || SendFailure::BeforeSent {
            cause: NotSent::Deadline,
            detail: "no access token in time".to_owned(),
        };
        let view = timeout_at(deadline, settled).await.map_err(|_| late())?;
        let view = view.map_err(|_| late())?;
        match &*view {
            View::Token(token) => Ok(Arc::clone(token)),
            View::Without(Without::Wait) => Err(late()),
            View::Without(Without::Fail(failure)) => Err(SendFailure::BeforeSent {
                cause: match failure {
                    Failure::Refused { .. } => NotSent::Unauthorized,
                    Failure::Passing { .. } => NotSent::Connect,
                },
                detail: failure.detail().to_owned(),
            }),
        }
    }

    /// A call with this token got a 401; whether to try once more with the next.
    pub(crate) fn reject(&self, token: &AccessToken) -> bool {
        let mut renewal = self.renewal();
        let again = renewal.on_rejected((self.shared.clock)().mono, token.generation);
        self.withdraw(&renewal);
        drop(renewal);
        self.shared.nudge.notify_one();
        again
    }

    /// Puts a token in that was kept, or not if its time is over.
    pub(super) fn restore(&self, header: HeaderValue, kept: impl FnOnce(&mut Renewal) -> bool) {
        let mut renewal = self.renewal();
        if kept(&mut renewal) {
            self.publish(&renewal, header);
        }
    }

    /// As [`Renewal::begin`].
    pub(super) fn begin(&self, now: Mono) -> bool {
        let mut renewal = self.renewal();
        let due = renewal.begin(now);
        self.withdraw(&renewal);
        due
    }

    /// As [`Renewal::on_granted`].
    pub(super) fn grant(&self, now: Mono, header: HeaderValue, lifetime: Option<Duration>) {
        let mut renewal = self.renewal();
        renewal.on_granted(now, lifetime);
        self.publish(&renewal, header);
    }

    /// As [`Renewal::on_failed`].
    pub(super) fn fail(&self, now: Mono, dice: u64, failure: Failure) {
        let mut renewal = self.renewal();
        renewal.on_failed(now, dice, failure);
        self.withdraw(&renewal);
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.renewal().next_deadline()
    }

    pub(super) fn now(&self) -> Now {
        (self.shared.clock)()
    }

    /// Returns when a token may have been refused.
    pub(super) async fn nudged(&self) {
        self.shared.nudge.notified().await;
    }

    fn renewal(&self) -> MutexGuard<'_, Renewal> {
        // Nothing panics between two of its states.
        self.shared
            .renewal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, renewal: &Renewal, header: HeaderValue) {
        let generation = renewal.generation();
        self.shared
            .view
            .send_replace(View::Token(Arc::new(AccessToken { generation, header })));
    }

    /// Shows why there is no token, if there is none.
    fn withdraw(&self, renewal: &Renewal) {
        if renewal.holds() {
            return;
        }
        let without = renewal.without();
        self.shared.view.send_if_modified(|view| {
            let changed = !matches!(view, View::Without(shown) if *shown == without);
            if changed {
                *view = View::Without(without);
            }
            changed
        });
    }
}

impl AccessToken {
    pub(crate) fn header(&self) -> &HeaderValue {
        &self.header
    }
}

impl PartialEq for TokenCell {
    fn eq(&self, other: &TokenCell) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for TokenCell {}

impl fmt::Debug for TokenCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokenCell").field(&self.standing()).finish()
    }
}
