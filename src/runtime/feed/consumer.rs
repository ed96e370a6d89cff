//! One consumer: what it has been given, under which numbers, and what it has acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use engine::view::ConsumerView;
use net::subscription::{NeverSent, Seat};
use tokio::time::Instant;

use super::OfferId;
use super::spill::Spill;

/// Changes that a consumer is given without an ack at most; a few hundred kilobytes of common
/// ones.
pub(super) const WINDOW_MAX: usize = 1024;

/// Numbers set aside at once. One write of the roster lasts for this many changes, and a crash
/// skips at most as many.
const NUMBERS_AHEAD: u64 = 1 << 16;

/// A name that subscribed once.
#[derive(Debug, Default)]
pub(super) struct Consumer {
    pub(super) wish: Wish,
    /// The version of the roster that has to be durable before it is given anything.
    pub(super) since: u64,
    /// Offers without a number, in order of their arrival.
    waiting: VecDeque<OfferId>,
    /// What it is given and has not acknowledged, under numbers that rise.
    numbered: VecDeque<(u64, Given)>,
    /// Changes on disk, which it is given before what waits.
    spill: Option<Spill>,
    /// Where the first of them begins that has no number.
    unread: u64,
    /// Since when something lies there.
    spilled_since: Option<Instant>,
    /// Since when it has no connection.
    away_since: Option<Instant>,
    /// How many of these its connection has been given.
    given: usize,
    /// The last number used, in any run.
    last_seq: u64,
    /// Numbers up to this one are set aside for it on disk: no later run uses them.
    pub(super) reserved: u64,
    /// What `reserved` becomes with the write under way.
    pub(super) promised: u64,
    acked: u64,
    seat: Option<Seat>,
}

/// Where a change under a number is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    /// In memory.
    Offer(OfferId),
    /// On disk, from the one place to the other.
    Spilled(u64, u64),
}

/// What a consumer is given next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An offer's change.
    Offer(OfferId),
    /// The members of a change, as JSON behind an opening brace.
    Spilled(Vec<u8>),
}

/// Which changes a consumer takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Wish {
    /// Of every object.
    #[default]
    All,
    /// Of these.
    Objects(BTreeSet<String>),
}

impl Wish {
    pub(super) fn of(objects: Option<&[String]>) -> Wish {
        objects.map_or(Wish::All, |names| {
            Wish::Objects(names.iter().cloned().collect())
        })
    }

    pub(super) fn takes(&self, object: &str) -> bool {
        match self {
            Wish::All => true,
            Wish::Objects(names) => names.contains(object),
        }
    }

    pub(super) fn names(&self) -> Option<Vec<String>> {
        match self {
            Wish::All => None,
            Wish::Objects(names) => Some(names.iter().cloned().collect()),
        }
    }
}

impl Consumer {
    /// As a roster knows it. Numbers that were set aside may have been used.
    pub(super) fn remembered(wish: Wish, reserved: u64, acked: u64) -> Consumer {
        Consumer {
            wish,
            last_seq: reserved,
            reserved,
            promised: reserved,
            acked,
            away_since: Some(Instant::now()),
            ..Consumer::default()
        }
    }

    /// Changes that wait for it on disk, and those that will.
    pub(super) fn keep_in(&mut self, spill: Spill) {
        self.unread = spill.first();
        self.spilled_since = (!spill.is_empty()).then(Instant::now);
        self.spill = Some(spill);
    }

    pub(super) fn has_spill(&self) -> bool {
        self.spill.is_some()
    }

    /// Whether it has been away for longer than `patience` while something waits for it in memory.
    pub(super) fn holds_others_back(&self, patience: Duration) -> bool {
        let mut numbered = self.numbered.iter();
        let waits =
            !self.waiting.is_empty() || numbered.any(|(_, given)| matches!(given, Given::Offer(_)));
        waits
            && self
                .away_since
                .is_some_and(|since| since.elapsed() >= patience)
    }

    /// What waits for it in memory, in order.
    pub(super) fn offers(&self) -> Vec<OfferId> {
        let numbered = self.numbered.iter().filter_map(|(_, given)| match given {
            Given::Offer(id) => Some(*id),
            Given::Spilled(..) => None,
        });
        numbered.chain(self.waiting.iter().copied()).collect()
    }

    /// Keeps the changes of all its offers on disk, and needs the offers no more. False: there is no
    /// room for them.
    ///
    /// # Errors
    /// The disk refuses; it needs its offers still.
    pub(super) fn spill(&mut self, changes: &[Bytes]) -> io::Result<bool> {
        let Some(spill) = &mut self.spill else {
            return Ok(false);
        };
        if !spill.append(changes)? {
            return Ok(false);
        }
        self.spilled_since.get_or_insert_with(Instant::now);
        self.unread = spill.first();
        self.numbered.clear();
        self.waiting.clear();
        self.given = 0;
        Ok(true)
    }

    /// A connection takes the consumer's place; the one before finds it taken.
    pub(super) fn sit(&mut self, seat: Seat) {
        self.wake();
        self.given = 0;
        self.away_since = None;
        self.seat = Some(seat);
    }

    pub(super) fn has_seat(&self, seat: &Seat) -> bool {
        self.seat.as_ref().is_some_and(|own| own.id == seat.id)
    }

    pub(super) fn leave(&mut self, seat: &Seat) {
        if self.has_seat(seat) {
            self.seat = None;
            self.away_since = Some(Instant::now());
        }
    }

    pub(super) fn wake(&self) {
        if let Some(seat) = &self.seat {
            seat.wake.notify_one();
        }
    }

    /// One more change for it.
    pub(super) fn expect(&mut self, id: OfferId) {
        self.waiting.push_back(id);
        self.wake();
    }

    /// The next change for its connection, under its number; `None` while there is none, too many
    /// are not acknowledged, or no number is set aside.
    pub(super) fn next(&mut self) -> Option<(u64, Next)> {
        if self.given < self.numbered.len() {
            let (seq, given) = self.numbered[self.given];
            let next = match given {
                Given::Offer(id) => Next::Offer(id),
                Given::Spilled(at, _) => Next::Spilled(self.spilled_at(at)?.0),
            };
            self.given += 1;
            return Some((seq, next));
        }
        if self.given >= WINDOW_MAX || self.last_seq >= self.reserved {
            return None;
        }
        let (given, next) = match self.spilled_at(self.unread) {
            Some((change, end)) => {
                let given = Given::Spilled(self.unread, end);
                self.unread = end;
                (given, Next::Spilled(change))
            }
            // What is on disk and cannot be read is not passed over.
            None if self
                .spill
                .as_ref()
                .is_some_and(|spill| spill.has(self.unread)) =>
            {
                return None;
            }
            None => {
                let id = self.waiting.pop_front()?;
                (Given::Offer(id), Next::Offer(id))
            }
        };
        self.last_seq += 1;
        self.numbered.push_back((self.last_seq, given));
        self.given += 1;
        Some((self.last_seq, next))
    }

    fn spilled_at(&self, at: u64) -> Option<(Vec<u8>, u64)> {
        match self.spill.as_ref()?.read(at) {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(%error, "changes that wait for a consumer cannot be read");
                None
            }
        }
    }

    /// The offers that `seq` acknowledges. An ack below numbers of this run is of changes that
    /// come again under others, and means nothing.
    pub(super) fn ack(&mut self, seq: u64) -> Result<Vec<OfferId>, NeverSent> {
        let last = self.last_seq;
        if seq > last {
            return Err(NeverSent { seq, last });
        }
        self.acked = self.acked.max(seq);
        let count = self.numbered.partition_point(|&(number, _)| number <= seq);
        self.given = self.given.saturating_sub(count);
        let mut arrived = Vec::new();
        let mut spilled = None;
        for (_, given) in self.numbered.drain(..count) {
            match given {
                Given::Offer(id) => arrived.push(id),
                Given::Spilled(_, end) => {
                    let (_, so_far) = spilled.unwrap_or((end, 0));
                    spilled = Some((end, so_far + 1));
                }
            }
        }
        if let (Some((end, count)), Some(spill)) = (spilled, &mut self.spill) {
            if let Err(error) = spill.ack(end, count) {
                tracing::warn!(%error, "what a consumer acknowledged may come to it again");
            }
            if spill.is_empty() {
                self.unread = spill.first();
                self.spilled_since = None;
            }
        }
        Ok(arrived)
    }

    /// Whether it had this offer to acknowledge.
    pub(super) fn forget(&mut self, id: OfferId) -> bool {
        if let Some(at) = self.waiting.iter().position(|&waiting| waiting == id) {
            self.waiting.remove(at);
            return true;
        }
        let given = Given::Offer(id);
        let Some(at) = self.numbered.iter().position(|(_, it)| *it == given) else {
            return false;
        };
        self.numbered.remove(at);
        if at < self.given {
            self.given -= 1;
        }
        true
    }

    /// All offers that it has not acknowledged. What is on disk stays there.
    pub(super) fn forget_offers(&mut self) -> Vec<OfferId> {
        let offers = self.offers();
        self.given = 0;
        self.numbered.clear();
        self.waiting.clear();
        self.unread = self.spill.as_ref().map_or(0, Spill::first);
        offers
    }

    /// Forgets what is on disk for it.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn forget_spill(&mut self) -> io::Result<()> {
        self.spill.as_mut().map_or(Ok(()), Spill::remove)
    }

    /// Whether numbers should be set aside, before it has to wait for them.
    pub(super) fn wants_numbers(&self) -> bool {
        self.reserved - self.last_seq < NUMBERS_AHEAD / 2
    }

    /// The numbers to be set aside with the next write.
    pub(super) fn ahead(&self) -> u64 {
        if self.wants_numbers() {
            self.last_seq + NUMBERS_AHEAD
        } else {
            self.reserved
        }
    }

    /// The numbers that were used: the next run goes on behind them.
    pub(super) fn at_rest(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn acked(&self) -> u64 {
        self.acked
    }

    /// The oldest offer that it has not acknowledged.
    pub(super) fn oldest(&self) -> Option<OfferId> {
        self.offers().first().copied()
    }

    /// Since when something waits for it on disk.
    pub(super) fn spilled_since(&self) -> Option<Instant> {
        self.spilled_since
    }

    /// How it stands, lacking its oldest change for so long.
    pub(super) fn view(&self, name: &str, lag: Duration) -> ConsumerView {
        ConsumerView {
            name: name.to_owned(),
            objects: self.wish.names(),
            connected: self.seat.is_some(),
            unacked: self.offers().len() + self.spill.as_ref().map_or(0, Spill::len),
            acked: self.acked,
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
