//! One consumer: what it has been given, under which numbers, and what it has acknowledged.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use engine::view::ConsumerView;
use net::subscription::{NeverSent, Seat};

use super::OfferId;

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
    /// Offers under their numbers, which rise: given to it and not acknowledged.
    numbered: VecDeque<(u64, OfferId)>,
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
            ..Consumer::default()
        }
    }

    /// A connection takes the consumer's place; the one before finds it taken.
    pub(super) fn sit(&mut self, seat: Seat) {
        self.wake();
        self.given = 0;
        self.seat = Some(seat);
    }

    pub(super) fn has_seat(&self, seat: &Seat) -> bool {
        self.seat.as_ref().is_some_and(|own| own.id == seat.id)
    }

    pub(super) fn leave(&mut self, seat: &Seat) {
        if self.has_seat(seat) {
            self.seat = None;
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
    pub(super) fn next(&mut self) -> Option<(u64, OfferId)> {
        if self.given == self.numbered.len() {
            if self.given >= WINDOW_MAX || self.last_seq >= self.reserved {
                return None;
            }
            let id = self.waiting.pop_front()?;
            self.last_seq += 1;
            self.numbered.push_back((self.last_seq, id));
        }
        let next = self.numbered[self.given];
        self.given += 1;
        Some(next)
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
        Ok(self.numbered.drain(..count).map(|(_, id)| id).collect())
    }

    /// Whether it had this offer to acknowledge.
    pub(super) fn forget(&mut self, id: OfferId) -> bool {
        if let Some(at) = self.waiting.iter().position(|&waiting| waiting == id) {
            self.waiting.remove(at);
            return true;
        }
        let Some(at) = self.numbered.iter().position(|&(_, given)| given == id) else {
            return false;
        };
        self.numbered.remove(at);
        if at < self.given {
            self.given -= 1;
        }
        true
    }

    /// Everything that it has not acknowledged.
    pub(super) fn forget_offers(&mut self) -> Vec<OfferId> {
        self.given = 0;
        let numbered = self.numbered.drain(..).map(|(_, id)| id);
        numbered.chain(self.waiting.drain(..)).collect()
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
        let numbered = self.numbered.front().map(|&(_, id)| id);
        numbered.or(self.waiting.front().copied())
    }

    /// How it stands, lacking its oldest change for so long.
    pub(super) fn view(&self, name: &str, lag: Duration) -> ConsumerView {
        ConsumerView {
            name: name.to_owned(),
            objects: self.wish.names(),
            connected: self.seat.is_some(),
            unacked: self.waiting.len() + self.numbered.len(),
            acked: self.acked,
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
        }
    }
}
