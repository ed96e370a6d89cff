//! An account's list of an object, read from its beginning to its end.

use std::sync::Arc;
use std::time::Duration;

use engine::json::RawObject;
use engine::mapping::DeletionMark;
use engine::provider::{Change, ChangeKind, Cursor, Gap, Poll, PollFault, PollState, Step};
use tokio::time::sleep;

use super::super::clock;
use super::super::inbound::{FetchFailed, Fetcher};
use super::spare::Spare;

/// Failures in a row after which a walk gives up: with the rests between them half an hour.
const FAILURES_MAX: u32 = 12;
/// The first rest; doubled each time.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(300);

/// A list of records by the time of their last change, walked through once.
#[derive(Debug)]
pub(super) struct Listing<F> {
    account: Arc<str>,
    base_url: String,
    fetcher: Arc<F>,
    state: PollState,
    /// Some page was read: the end of the list ends the walk.
    begun: bool,
}

/// A part of the list.
#[derive(Debug)]
pub(super) struct ListedPage {
    pub(super) changes: Vec<Change>,
    /// When it was asked for, ms since the epoch.
    pub(super) asked_ms: i64,
    /// Entries that are not understood.
    pub(super) unreadable: usize,
    /// Some of the list cannot be had.
    pub(super) gap: Option<Gap>,
    next: PollState,
}

/// Why a list was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the account's list cannot be read")]
pub(super) struct Unlisted(#[source] Failed);

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Fetch(#[from] FetchFailed),
    #[error(transparent)]
    Page(#[from] PollFault),
}

impl ListedPage {
    /// Takes what is marked as deleted for deleted.
    pub(super) fn heed(&mut self, mark: &DeletionMark) {
        for change in &mut self.changes {
            let record = change.fields.as_deref().and_then(RawObject::new);
            if record.is_some_and(|record| mark.stands_in(record)) {
                change.kind = ChangeKind::Deleted;
                change.fields = None;
                change.complete = false;
            }
        }
    }
}

impl<F: Fetcher> Listing<F> {
    /// Reads on from `cursor`, or from the beginning.
    pub(super) fn new(
        account: Arc<str>,
        base_url: String,
        poll: Poll,
        fetcher: Arc<F>,
        cursor: Option<Cursor>,
    ) -> Listing<F> {
        let beginning = || Cursor {
            from_ms: i64::try_from(poll.overlap().as_millis()).unwrap_or(i64::MAX),
            after_id: None,
        };
        let cursor = cursor.unwrap_or_else(beginning);
        let interval = poll.interval();
        Listing {
            account,
            base_url,
            fetcher,
            state: PollState::new(poll, interval, cursor),
            begun: false,
        }
    }

    /// How far it is; everything before it was passed on.
    pub(super) fn cursor(&self) -> &Cursor {
        self.state.cursor()
    }

    /// The next part; `None` at the end. The same part comes again until it is
    /// [passed](Listing::pass). Waits before each call until there is quota to spare.
    ///
    /// # Errors
    /// The account gave no page for a long time.
    pub(super) async fn next(&mut self, spare: &Spare) -> Result<Option<ListedPage>, Unlisted> {
        let mut rest = REST_MIN;
        for failures in 1.. {
            let now_ms = clock::now().wall.0;
            let request = match self.state.next(now_ms) {
                Step::Call(request) => request,
                Step::Wait(_) if self.begun => return Ok(None),
                Step::Wait(due_ms) => {
                    let wait_ms = u64::try_from(due_ms - now_ms).unwrap_or_default();
                    sleep(Duration::from_millis(wait_ms).min(REST_MAX)).await;
                    continue;
                }
                // What a list cannot show any more no walk finds; the next call reads what it has.
                Step::Gap(_) => continue,
            };
            spare.wait().await;
            let asked_ms = clock::now().wall.0;
            let reply = self
                .fetcher
                .fetch(&self.account, self.state.poll(), request);
            let failed = match reply.await {
                Ok(reply) => {
                    let now_ms = clock::now().wall.0;
                    match self.state.take(now_ms, &self.base_url, &reply) {
                        Ok(progress) => {
                            return Ok(Some(ListedPage {
                                changes: progress.changes,
                                asked_ms,
                                unreadable: progress.unreadable,
                                gap: progress.gap,
                                next: progress.next,
                            }));
                        }
                        Err(fault) => {
                            // A page that is too large is asked for in halves.
                            self.state.failed(i64::MIN / 2, Some(fault));
                            Failed::Page(fault)
                        }
                    }
                }
                Err(failed) => Failed::Fetch(failed),
            };
            tracing::warn!(
                account = &*self.account,
                object = self.state.poll().object(),
                error = %super::super::shard_thread::chain(&failed),
                "a page of a walk did not come; it is asked for again"
            );
            if failures >= FAILURES_MAX {
                return Err(Unlisted(failed));
            }
            sleep(rest).await;
            rest = (rest * 2).min(REST_MAX);
        }
        unreachable!("the loop ends by its returns")
    }

    /// What the page brought is durable.
    pub(super) async fn pass(&mut self, page: ListedPage) {
        self.state = page.next;
        self.begun = true;
        sleep(self.state.poll().pace()).await;
    }
}
