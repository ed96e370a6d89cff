//! Where changes go.

use std::future::Future;

use engine::provider::Change;
use engine::refusal::Refusal;
use tokio::sync::oneshot;

/// Takes changes of the accounts into the engine.
pub(crate) trait InboundSink: Send + Sync + 'static {
    /// Takes all of these changes, or says why none of them: those that were taken before, by
    /// their delivery ids, are taken and do nothing. Answers when they are durable.
    fn take(
        &self,
        account: &str,
        via: Via,
        changes: Vec<Change>,
    ) -> impl Future<Output = Result<Taken, Refusal>> + Send;

    /// Takes up that changes of an object, by its remote name, were missed; answers when what
    /// follows from that is durable.
    fn missed(
        &self,
        account: &str,
        object: &str,
        cause: String,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Changes were missed.
#[derive(Debug)]
pub(crate) struct GapNotice {
    pub(crate) account: String,
    /// By its remote name.
    pub(crate) object: String,
    /// What happened, for people.
    pub(crate) cause: String,
    /// Who waits until a resync of the object is on disk.
    pub(crate) begun: oneshot::Sender<Result<(), Refusal>>,
}

/// How changes came in: each way names its deliveries by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// The provider told.
    Webhook,
    /// It was asked, at this instant of our clock, ms since the epoch.
    Poll {
        /// What was written since may be missing.
        asked_ms: i64,
    },
    /// A walk through all records of an object brought them. They are taken as often as they come,
    /// behind everything else.
    Walk {
        /// As of a poll.
        asked_ms: i64,
    },
}

/// What became of changes that were taken; together all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Taken {
    /// Durable now.
    pub(crate) new: usize,
    /// Durable before.
    pub(crate) duplicate: usize,
    /// Of objects that are not kept in step from this account.
    pub(crate) ignored: usize,
    /// Of which no event could be made: told in the log, and passed over.
    pub(crate) unusable: usize,
}

impl Via {
    /// The first part of the scope within which delivery ids are unique.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Via::Webhook => "webhook",
            Via::Poll { .. } => "poll",
            Via::Walk { .. } => "walk",
        }
    }
}
