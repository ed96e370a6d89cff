//! Where a poll stands: which request comes next, and what its answer moves.
//!
//! A round begins at the stored cursor less the overlap and asks page by page until the list ends.
//! The cursor moves with every page, to the time of the newest record seen; records of that very
//! instant come again, and are known by their delivery ids. Where a query ends before the list does
//! (its cap is reached), the next one begins at that time; when all of a query's records are of
//! one instant, that instant is read by ids, and the list goes on behind it.

use std::time::Duration;

use super::poll::{NextPage, Part, Poll};
use super::poll_page::{Entry, Page, PollFault};
use super::{Change, Reply, Request};

/// A poll and its position. Taking a page gives the state after it: whoever keeps the changes
/// first and then that state loses nothing at a crash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PollState {
    poll: Poll,
    interval: Duration,
    cursor: Cursor,
    round: Option<Round>,
    due_ms: i64,
    /// In a row.
    failures: u32,
    /// How many times less is asked for at once was halved, after pages that were too large.
    halved: u32,
}

/// What of a list has been seen. This is what is kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// All changes before this instant of the provider's clock, ms since the epoch.
    pub from_ms: i64,
    /// And those of the instant itself up to this id, while they are read by ids.
    pub after_id: Option<String>,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this instant, ms since the epoch.
    Wait(i64),
    /// Make this call; [`PollState::take`] its reply.
    Call(Request),
    /// Something was missed; it cannot be had by polling any more, and the poll goes on behind it.
    Gap(Gap),
}

/// Changes that the list does not tell any more: the object needs a resync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// The list goes back to `earliest_ms` only, and was read up to `from_ms`.
    OutOfReach {
        /// Up to where nothing was missed.
        from_ms: i64,
        /// From where nothing is missed again.
        earliest_ms: i64,
    },
    /// More records changed in one instant than can be asked for.
    TooMany {
        /// The instant.
        at_ms: i64,
    },
}

/// What a page brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// In the order of the list.
    pub changes: Vec<Change>,
    /// Entries that are not understood and were passed over.
    pub unreadable: usize,
    /// What was missed, if anything was.
    pub gap: Option<Gap>,
    /// The poll after it.
    pub next: PollState,
}

/// One walk through the list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Round {
    part: Part,
    /// Records of the query so far, over its pages.
    seen: u64,
    newest_ms: i64,
    /// When its first page was asked for, by our clock, ms since the epoch.
    began_ms: i64,
    /// Changes before it are in the list: the provider's clock at the first answer.
    listed_until_ms: Option<i64>,
}

/// Longest rest after failures: a provider that is well again is heard within it.
const REST_MAX: Duration = Duration::from_secs(15 * 60);

/// A thousandth of what was asked for at first.
const HALVED_MAX: u32 = 10;

/// How close to the end of a list's reach a round begins after a gap.
const REACH_MARGIN: Duration = Duration::from_secs(60);

impl PollState {
    /// A poll that goes on from a cursor, due at once.
    pub fn new(poll: Poll, interval: Duration, cursor: Cursor) -> PollState {
        PollState {
            poll,
            interval,
            cursor,
            round: None,
            due_ms: i64::MIN,
            failures: 0,
            halved: 0,
        }
    }

    /// What is polled.
    pub fn poll(&self) -> &Poll {
        &self.poll
    }

    /// How far it is.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// What to do at this instant.
    pub fn next(&mut self, now_ms: i64) -> Step {
        // No rest is as long as this: the clock was set back since.
        let longest = millis(self.interval.max(REST_MAX));
        let wait_ms = self.due_ms.saturating_sub(now_ms);
        if (1..=longest).contains(&wait_ms) {
            return Step::Wait(self.due_ms);
        }
        if self.round.is_none() {
            if let Some(gap) = self.out_of_reach(now_ms) {
                return Step::Gap(gap);
            }
            match self.first_part(now_ms) {
                Ok(part) => self.begin(part, now_ms),
                Err(due_ms) => {
                    self.due_ms = due_ms;
                    return Step::Wait(due_ms);
                }
            }
        }
        let round = self.round.as_ref().expect("it was just begun");
        Step::Call(self.poll.request(&round.part))
    }

    /// Reads the reply to the last call.
    ///
    /// # Errors
    /// See [`PollFault`]; nothing moved. Tell [`PollState::failed`], and ask again.
    pub fn take(&self, now_ms: i64, base_url: &str, reply: &Reply) -> Result<Progress, PollFault> {
        let page = self.poll.page(reply, base_url)?;
        if page.entries.is_empty() && page.unreadable > 0 {
            return Err(PollFault::Unreadable("holds no record that can be read"));
        }
        let mut next = self.clone();
        next.failures = 0;
        let gap = next.pass(now_ms, &page);
        let since_ms = self.cursor.from_ms - millis(self.poll.feed.overlap);
        // What is read whole each time tells of much that was told before.
        let is_new = |entry: &Entry| !self.poll.feed.scan || entry.at_ms >= since_ms;
        let entries = page.entries.into_iter().filter(is_new);
        Ok(Progress {
            changes: entries.map(|entry| entry.change).collect(),
            unreadable: page.unreadable,
            gap,
            next,
        })
    }

    /// The last call failed, and is made again after a rest. One that was refused, or was not
    /// understood, may name a page that the provider has forgotten: then the round begins anew from
    /// the cursor. It does not where no reply came or the provider failed: many such failures would
    /// keep a long round from its end.
    pub fn failed(&mut self, now_ms: i64, fault: Option<PollFault>) {
        let again = matches!(
            fault,
            None | Some(PollFault::Status(408 | 425 | 429 | 500..=599))
        );
        if !again {
            self.round = None;
        }
        if fault == Some(PollFault::TooLarge) && self.halved < HALVED_MAX {
            self.halved += 1;
            return;
        }
        self.failures = self.failures.saturating_add(1);
        let factor = 1_u32 << self.failures.min(8);
        let rest = self.interval.saturating_mul(factor / 2).min(REST_MAX);
        self.due_ms = now_ms.saturating_add(millis(rest));
    }

    /// Moves the cursor into the list's reach, and says what that passed over.
    fn out_of_reach(&mut self, now_ms: i64) -> Option<Gap> {
        let reach = millis(self.poll.feed.reach?);
        if now_ms.saturating_sub(self.cursor.from_ms) <= reach {
            return None;
        }
        let from_ms = self.cursor.from_ms;
        let earliest_ms = now_ms - reach + millis(REACH_MARGIN).min(reach);
        self.cursor = Cursor {
            from_ms: earliest_ms + millis(self.poll.feed.overlap),
            after_id: None,
        };
        Some(Gap::OutOfReach {
            from_ms,
            earliest_ms,
        })
    }

    /// Where a round begins, or when it can.
    fn first_part(&self, now_ms: i64) -> Result<Part, i64> {
        let feed = &self.poll.feed;
        let reading_ties = self.cursor.after_id.is_some() && feed.ties.is_some();
        let part = Part {
            from_ms: match reading_ties {
                true => self.cursor.from_ms,
                false => self.cursor.from_ms - millis(feed.overlap),
            },
            to_ms: now_ms,
            after_id: self.cursor.after_id.clone().filter(|_| reading_ties),
            page: None,
            size: (feed.size >> self.halved).max(1),
        };
        let span = feed.span.map_or(1, millis);
        let asked = part.to_ms - part.from_ms;
        if feed.is_span() && asked < span {
            return Err(part.from_ms + span);
        }
        Ok(Part {
            to_ms: part.from_ms + (asked >> self.halved).max(span),
            ..part
        })
    }

    fn begin(&mut self, part: Part, began_ms: i64) {
        self.round = Some(Round {
            newest_ms: part.from_ms,
            began_ms,
            part,
            seen: 0,
            listed_until_ms: None,
        });
    }

    /// Moves past a page.
    fn pass(&mut self, now_ms: i64, page: &Page) -> Option<Gap> {
        let feed = &self.poll.feed;
        let mut round = self.round.take()?;
        let entries = page.entries.len() + page.unreadable;
        round.seen += entries as u64;
        round.listed_until_ms = round.listed_until_ms.or(page.served_at_ms);
        let times = page.entries.iter().map(|entry| entry.at_ms);
        round.newest_ms = times.max().unwrap_or(i64::MIN).max(round.newest_ms);
        // A page behind the cap would be refused.
        let cap = feed.cap(round.part.size);
        let behind = round.seen.saturating_add(u64::from(round.part.size));
        let full = round.seen >= cap || (page.next.is_some() && behind > cap);
        if feed.is_span() {
            return self.pass_span(now_ms, page, &round);
        }
        if feed.scan {
            self.pass_scan(now_ms, page.next.clone(), round);
            return None;
        }
        match &round.part.after_id {
            Some(_) => self.pass_ties(now_ms, page, round, full),
            None => self.pass_since(now_ms, page.next.clone(), round, full),
        }
    }

    fn pass_since(
        &mut self,
        now_ms: i64,
        next: Option<NextPage>,
        mut round: Round,
        full: bool,
    ) -> Option<Gap> {
        let newest_ms = round.newest_ms;
        self.pass_to(now_ms, &round, newest_ms, None);
        if !full && next.is_some() {
            round.part.page = next;
            self.round = Some(round);
            return None;
        }
        if !full {
            self.end(now_ms, &round);
            return None;
        }
        let part = Part {
            from_ms: newest_ms,
            page: None,
            ..round.part.clone()
        };
        if newest_ms > round.part.from_ms {
            self.go_on(part, &round);
            return None;
        }
        match &self.poll.feed.ties {
            Some(ties) => {
                let after_id = Some(ties.first.clone());
                self.go_on(Part { after_id, ..part }, &round);
                None
            }
            None => Some(self.skip_instant(newest_ms, &round)),
        }
    }

    fn pass_ties(&mut self, now_ms: i64, page: &Page, mut round: Round, full: bool) -> Option<Gap> {
        let at_ms = round.part.from_ms;
        let last = page.entries.last().map(|entry| &entry.change.remote_id);
        if !full && page.next.is_none() {
            self.pass_to(now_ms, &round, at_ms + 1, None);
            let part = Part {
                from_ms: at_ms + 1,
                after_id: None,
                page: None,
                ..round.part.clone()
            };
            self.go_on(part, &round);
            return None;
        }
        // It stands in a query from here on, which it must not be able to change.
        let Some(last) = last.filter(|id| is_plain(id)) else {
            return Some(self.skip_instant(at_ms, &round));
        };
        self.pass_to(now_ms, &round, at_ms, Some(last.clone()));
        if full {
            let part = Part {
                after_id: Some(last.clone()),
                page: None,
                ..round.part.clone()
            };
            self.go_on(part, &round);
        } else {
            round.part.page.clone_from(&page.next);
            self.round = Some(round);
        }
        None
    }

    fn pass_scan(&mut self, now_ms: i64, next: Option<NextPage>, mut round: Round) {
        if next.is_some() {
            round.part.page = next;
            self.round = Some(round);
        } else {
            self.pass_to(now_ms, &round, round.newest_ms, None);
            self.end(now_ms, &round);
        }
    }

    fn pass_span(&mut self, now_ms: i64, page: &Page, round: &Round) -> Option<Gap> {
        let from_ms = self.cursor.from_ms;
        let until_ms = page.next_from_ms.unwrap_or(round.part.to_ms);
        if page.next.is_some() {
            let mut round = round.clone();
            round.part.page.clone_from(&page.next);
            self.round = Some(round);
        } else {
            self.advance(until_ms, None);
            self.rest(now_ms);
        }
        let earliest_ms = page.earliest_ms.filter(|earliest| *earliest > from_ms)?;
        Some(Gap::OutOfReach {
            from_ms,
            earliest_ms,
        })
    }

    /// The list goes on with another query.
    fn go_on(&mut self, part: Part, round: &Round) {
        let listed_until_ms = round.listed_until_ms;
        self.begin(part, round.began_ms);
        if let Some(round) = &mut self.round {
            round.listed_until_ms = listed_until_ms;
        }
    }

    fn skip_instant(&mut self, at_ms: i64, round: &Round) -> Gap {
        self.advance(at_ms + 1, None);
        let part = Part {
            from_ms: at_ms + 1,
            after_id: None,
            page: None,
            ..round.part.clone()
        };
        self.go_on(part, round);
        Gap::TooMany { at_ms }
    }

    /// The list's end. What the provider's own clock had not reached may still come; our clock
    /// says nothing about that.
    fn end(&mut self, now_ms: i64, round: &Round) {
        if let Some(until_ms) = round.listed_until_ms {
            self.advance(until_ms, None);
        }
        self.rest(now_ms);
    }

    fn rest(&mut self, now_ms: i64) {
        self.round = None;
        self.halved = 0;
        self.due_ms = now_ms.saturating_add(millis(self.interval));
    }

    /// Moves the cursor behind what a page showed, but not behind where the provider's clock was when
    /// the round began. What was written before that may have been missing from an early page, as
    /// lists lag, and later ones do not go back: the next round's overlap does.
    fn pass_to(&mut self, now_ms: i64, round: &Round, at_ms: i64, after_id: Option<String>) {
        // Of a provider that does not tell its time: it was at least what the newest change says,
        // so at the beginning at least that less what has passed since.
        let passed = now_ms.saturating_sub(round.began_ms).max(0);
        let untold = round.newest_ms.saturating_sub(passed);
        let until_ms = round.listed_until_ms.unwrap_or(untold);
        if until_ms < at_ms {
            self.advance(until_ms, None);
        } else {
            self.advance(at_ms, after_id);
        }
    }

    /// Moves the cursor, never back: what lies in the overlap is read again from the cursor less it.
    fn advance(&mut self, from_ms: i64, after_id: Option<String>) {
        let same_instant = from_ms == self.cursor.from_ms && after_id.is_some();
        if same_instant || from_ms > self.cursor.from_ms {
            self.cursor = Cursor { from_ms, after_id };
        }
    }
}

/// Letters, digits and what ids hold besides: nothing that ends a quoted text.
fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    id.bytes().all(plain)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
