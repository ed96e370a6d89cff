//! The account with its clock and its journal file, shared by the connections.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use tokio::time::Instant;

use super::StartError;
use crate::account::{Account, AccountConfig, Arrival, CallId};
use crate::exchange::{Answer, Request};
use crate::webhook::Delivery;

/// All connections run on one thread; the lock is there for a [`ServerHandle`](super::ServerHandle)
/// that looks in from another, and is never held across an await.
#[derive(Debug)]
pub(super) struct Books {
    started: Instant,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    account: Account,
    file: Option<BufWriter<File>>,
}

impl Books {
    pub(super) fn open(
        mut config: AccountConfig,
        journal: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let open = |path: PathBuf| {
            let file = OpenOptions::new().create(true).append(true).open(&path);
            file.map_err(|source| StartError::Journal { path, source })
        };
        let file = journal.map(open).transpose()?.map(BufWriter::new);
        config.epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let pages = Pages {
            account: Account::new(config),
            file,
        };
        Ok(Self {
            started: Instant::now(),
            pages: Mutex::new(pages),
        })
    }

    pub(super) fn with_account<T>(&self, look: impl FnOnce(Duration, &mut Account) -> T) -> T {
        let mut pages = self.lock();
        look(self.started.elapsed(), &mut pages.account)
    }

    /// The next notification that is due.
    pub(super) fn poll_delivery(&self) -> Option<Delivery> {
        self.with_account(|now, account| account.poll_delivery(now))
    }

    /// Stamps and takes in a call whose request is complete.
    pub(super) fn arrive(self: &Arc<Self>, request: &Request<'_>, headers: HeaderMap) -> OpenCall {
        let (now, arrival) =
            self.with_account(|now, account| (now, account.arrive_with(now, request, headers)));
        let delayed = arrival.answer_at > now;
        OpenCall {
            books: Arc::clone(self),
            arrival,
            delayed,
            ended: false,
        }
    }

    /// Hands the journal's lines to the system.
    pub(super) fn flush(&self) {
        let mut pages = self.lock();
        let flushed = pages.file.as_mut().map(Write::flush).transpose();
        pages.give_up_on(flushed.map(drop));
    }

    /// The clock is read under the lock, so that the account's time never goes back.
    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages
            .lock()
            .expect("a panic with the lock held ends the server's thread")
    }
}

impl Pages {
    fn write_down(&mut self, call: CallId) {
        let Some(file) = self.file.as_mut() else {
            return;
        };
        let journal = self.account.journal();
        let Some(entry) = journal.get(call.seq()) else {
            return;
        };
        let written = writeln!(file, "{}", journal.render(entry));
        self.give_up_on(written);
    }

    /// A journal with a hole is worse than one that ends: after an error nothing more is written.
    fn give_up_on(&mut self, written: io::Result<()>) {
        if let Err(error) = written {
            eprintln!("mock: the journal file ends here: {error}");
            self.file = None;
        }
    }
}

/// A call between arrival and answer. Dropped without an answer, when the peer hangs up, it is
/// abandoned.
#[derive(Debug)]
pub(super) struct OpenCall {
    books: Arc<Books>,
    arrival: Arrival,
    delayed: bool,
    ended: bool,
}

impl OpenCall {
    /// When to answer; `None` for at once, which spares the call a timer.
    pub(super) fn waits_until(&self) -> Option<Instant> {
        self.delayed
            .then(|| self.books.started + self.arrival.answer_at)
    }

    pub(super) fn finish(mut self) -> Answer {
        self.ended = true;
        let mut pages = self.books.lock();
        let now = self.books.started.elapsed();
        let answer = pages.account.finish(now, self.arrival.call);
        pages.write_down(self.arrival.call);
        answer
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let Ok(mut pages) = self.books.pages.lock() else {
            return;
        };
        let now = self.books.started.elapsed();
        pages.account.abandon(now, self.arrival.call);
        pages.write_down(self.arrival.call);
    }
}
