//! Asks one account for changes, list by list, within its budget.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::provider::{Gap, Poll, PollFault, PollState, Reply, Request, Step};
use engine::refusal::Refusal;
use net::metrics::{AccountLabel, MetricsWriter, PollResult};
use tokio::time::{Instant, sleep_until};

use super::cursors::CursorFile;
use super::sink::{InboundSink, Taken, Via};

/// Makes a call for an account, when its limits and its gate allow it.
pub(crate) trait Fetcher: Send + Sync + 'static {
    /// The reply, or why there is none.
    fn fetch(
        &self,
        account: &str,
        list: &Poll,
        request: Request,
    ) -> impl Future<Output = Result<Reply, FetchFailed>> + Send;
}

/// A call for changes without a reply; it is made again later.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchFailed {
    /// The account may not be called now, or could not be reached.
    #[error("no reply: {0}")]
    NoReply(String),
    /// The engine stops, or the shard that makes the calls is gone.
    #[error(transparent)]
    Down(#[from] Refusal),
}

/// What one account is asked for.
#[derive(Debug)]
pub(crate) struct AccountPolls {
    pub(crate) account: String,
    /// Without a slash at its end.
    pub(crate) base_url: String,
    pub(crate) polls: Vec<Poll>,
    /// Between two rounds of a list of changes, where the account says so.
    pub(crate) interval: Option<Duration>,
    /// Where a list begins that was never read.
    pub(crate) from_ms: i64,
}

/// Polls one account for as long as it is run.
pub(crate) struct Poller<F, S> {
    account: String,
    base_url: String,
    lists: Vec<List>,
    cursors: CursorFile,
    fetcher: Arc<F>,
    sink: Arc<S>,
    metrics: Arc<Mutex<MetricsWriter>>,
    label: Option<AccountLabel>,
    /// The wall clock, ms since the epoch.
    now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
}

/// One list, and how many pages of it came without a rest.
struct List {
    state: PollState,
    pages: u32,
    /// ms since the epoch.
    rests_until_ms: i64,
}

/// Pages of one list without a rest: a provider that comes to no end must not have the whole
/// budget, and 1,000 pages are 200,000 records and more.
const PAGES_MAX: u32 = 1_000;

/// Longest sleep, and the rest after [`PAGES_MAX`]: the wall clock may step meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a page was not taken.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Fetch(#[from] FetchFailed),
    #[error(transparent)]
    Page(#[from] PollFault),
    #[error("the changes are not taken")]
    Sink(#[source] Refusal),
    #[error("keep the cursor in {path}")]
    Cursor {
        path: String,
        #[source]
        source: io::Error,
    },
}

impl<F: Fetcher, S: InboundSink> Poller<F, S> {
    pub(crate) fn new(
        account: AccountPolls,
        cursors: CursorFile,
        fetcher: Arc<F>,
        sink: Arc<S>,
        metrics: (Arc<Mutex<MetricsWriter>>, Option<AccountLabel>),
        now_ms: Box<dyn Fn() -> i64 + Send + Sync>,
    ) -> Poller<F, S> {
        let lists = account.polls.into_iter().map(|poll| {
            let cursor = cursors.cursor(poll.feed(), poll.object());
            let cursor = cursor.unwrap_or(engine::provider::Cursor {
                from_ms: account.from_ms,
                after_id: None,
            });
            let own = account.interval.filter(|_| poll.tells_changes());
            let interval = own.unwrap_or(poll.interval());
            List {
                state: PollState::new(poll, interval, cursor),
                pages: 0,
                rests_until_ms: i64::MIN,
            }
        });
        Poller {
            lists: lists.collect(),
            account: account.account,
            base_url: account.base_url,
            cursors,
            fetcher,
            sink,
            metrics: metrics.0,
            label: metrics.1,
            now_ms,
        }
    }

    /// Polls; never ends by itself. Dropped between two steps it loses nothing but the time.
    pub(crate) async fn run(mut self) {
        // A list that was never read begins now, whenever its first change comes.
        for at in 0..self.lists.len() {
            if let Err(failed) = self.keep_cursor(at).await {
                self.tell_failed(at, &failed);
            }
        }
        loop {
            let mut next_ms = i64::MAX;
            for at in 0..self.lists.len() {
                match self.step(at).await {
                    Some(due_ms) => next_ms = next_ms.min(due_ms),
                    // Each list has its turn, however long one of them is.
                    None => next_ms = i64::MIN,
                }
            }
            let wait_ms = next_ms.saturating_sub((self.now_ms)());
            if let Ok(wait_ms @ 1..) = u64::try_from(wait_ms) {
                let wait = Duration::from_millis(wait_ms).min(SLEEP_MAX);
                sleep_until(Instant::now() + wait).await;
            }
        }
    }

    /// Makes one call for a list, or says when it is due.
    async fn step(&mut self, at: usize) -> Option<i64> {
        let now_ms = (self.now_ms)();
        let list = &mut self.lists[at];
        if now_ms < list.rests_until_ms {
            return Some(list.rests_until_ms);
        }
        if list.pages >= PAGES_MAX {
            list.pages = 0;
            list.rests_until_ms = now_ms + SLEEP_MAX.as_millis() as i64;
            return Some(list.rests_until_ms);
        }
        let request = match list.state.next(now_ms) {
            Step::Wait(due_ms) => {
                list.pages = 0;
                return Some(due_ms);
            }
            Step::Gap(gap) => {
                // On disk before the cursor that has passed it: a crash in between finds the gap
                // again.
                let kept = match self.on_gap(at, gap).await {
                    Ok(()) => self.keep_cursor(at).await,
                    failed => failed,
                };
                if let Err(failed) = kept {
                    self.rest(at, &failed);
                }
                return None;
            }
            Step::Call(request) => request,
        };
        list.pages += 1;
        let began = Instant::now();
        match self.page(at, request).await {
            Ok(()) => self.count(PollResult::Page),
            Err(failed) => self.rest(at, &failed),
        }
        sleep_until(began + self.lists[at].state.poll().pace()).await;
        None
    }

    /// Asks for a page, hands it on, and moves on once it is durable.
    async fn page(&mut self, at: usize, request: Request) -> Result<(), Failed> {
        let asked_ms = (self.now_ms)();
        let state = &self.lists[at].state;
        let reply = self.fetcher.fetch(&self.account, state.poll(), request);
        let reply = reply.await?;
        let progress = state.take((self.now_ms)(), &self.base_url, &reply)?;
        let taken = match progress.changes.is_empty() {
            true => Taken::default(),
            false => self
                .sink
                .take(&self.account, Via::Poll { asked_ms }, progress.changes)
                .await
                .map_err(Failed::Sink)?,
        };
        if let Some(gap) = progress.gap {
            self.on_gap(at, gap).await?;
        }
        self.lists[at].state = progress.next;
        let poll = self.lists[at].state.poll();
        if progress.unreadable > 0 || taken.unusable > 0 {
            tracing::warn!(
                account = self.account,
                list = poll.feed(),
                object = poll.object(),
                entries = progress.unreadable + taken.unusable,
                "entries of a list of changes are not understood and are passed over"
            );
        }
        self.keep_cursor(at).await
    }

    async fn keep_cursor(&mut self, at: usize) -> Result<(), Failed> {
        let state = &self.lists[at].state;
        let (feed, object) = (state.poll().feed(), state.poll().object());
        let Some(next) = self.cursors.with(feed, object, state.cursor()) else {
            return Ok(());
        };
        // A disk may take its time, and others live on this thread.
        let written = tokio::task::spawn_blocking(move || next.write()).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        self.cursors = written.map_err(|source| Failed::Cursor {
            path: self.cursors.path().display().to_string(),
            source,
        })?;
        Ok(())
    }

    fn rest(&mut self, at: usize, failed: &Failed) {
        self.count(PollResult::Failed);
        self.tell_failed(at, failed);
        let fault = match failed {
            Failed::Page(fault) => Some(*fault),
            Failed::Fetch(_) | Failed::Sink(_) | Failed::Cursor { .. } => None,
        };
        self.lists[at].state.failed((self.now_ms)(), fault);
    }

    fn tell_failed(&self, at: usize, failed: &Failed) {
        let poll = self.lists[at].state.poll();
        tracing::warn!(
            account = self.account,
            list = poll.feed(),
            object = poll.object(),
            error = %crate::runtime::shard_thread::chain(failed),
            "an account was asked for changes in vain; it is asked again later"
        );
    }

    /// Tells of a gap, and has the object walked through.
    async fn on_gap(&self, at: usize, gap: Gap) -> Result<(), Failed> {
        self.count(PollResult::Gap);
        let poll = self.lists[at].state.poll();
        tracing::error!(
            account = self.account,
            list = poll.feed(),
            object = poll.object(),
            ?gap,
            "changes were missed that the account does not tell any more; the object is resynced"
        );
        let cause = format!("the list {} has a gap: {gap:?}", poll.feed());
        let missed = self.sink.missed(&self.account, poll.object(), cause);
        missed.await.map_err(Failed::Sink)
    }

    fn count(&self, result: PollResult) {
        if let Some(label) = self.label {
            let metrics = self.metrics.lock();
            metrics
                .unwrap_or_else(PoisonError::into_inner)
                .poll(label, result);
        }
    }
}

#[cfg(test)]
#[path = "tests/poller.rs"]
mod tests;
