//! The producers of this node: what of each is settled, and which session is its live one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::producers::{Seen, resume_point};
use net::ingest::SessionId;

/// Shared by the ingest threads; locked per hello, batch and settlement, never per event.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    producers: Mutex<HashMap<u64, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    /// Every number up to here is settled.
    last: u64,
    /// Settled ranges above it, first → last.
    above: BTreeMap<u64, u64>,
    /// The live session and the ingest thread it is on.
    live: Option<(usize, SessionId)>,
    /// Batches on their way to the disk.
    in_flight: u32,
}

/// What a hello comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Go on after `last`; `already` are settled numbers above it.
    Welcome {
        /// The last number below which nothing is missing.
        last: u64,
        /// Settled numbers above it, ascending.
        already: Vec<u64>,
    },
    /// Batches of the session before are still under way.
    Later,
}

impl Registry {
    /// What the shards' logs know, joined.
    pub(crate) fn restore(&self, producer: u64, seen: Seen) {
        let (last, already) = resume_point(seen);
        let mut producers = self.lock();
        let entry = producers.entry(producer).or_default();
        entry.last = entry.last.max(last);
        for seq in already {
            entry.settle(seq, seq);
        }
    }

    /// A session says hello. The session to be fenced is returned, when there is one.
    pub(crate) fn hello(
        &self,
        producer: u64,
        thread: usize,
        session: SessionId,
    ) -> (Admission, Option<(usize, SessionId)>) {
        let mut producers = self.lock();
        let entry = producers.entry(producer).or_default();
        let fenced = entry.live.filter(|live| *live != (thread, session));
        entry.live = Some((thread, session));
        if entry.in_flight > 0 {
            return (Admission::Later, fenced);
        }
        let already = entry
            .above
            .iter()
            .flat_map(|(&first, &last)| first..=last)
            .collect();
        (
            Admission::Welcome {
                last: entry.last,
                already,
            },
            fenced,
        )
    }

    /// Begins a batch; the base to be logged with its events. `None`: the session was fenced.
    pub(crate) fn begin(&self, producer: u64, thread: usize, session: SessionId) -> Option<u64> {
        let mut producers = self.lock();
        let entry = producers.entry(producer).or_default();
        if entry.live != Some((thread, session)) {
            return None;
        }
        entry.in_flight += 1;
        Some(entry.last)
    }

    /// What [`Registry::begin`] would log now.
    pub(crate) fn base(&self, producer: u64) -> u64 {
        self.lock().get(&producer).map_or(0, |entry| entry.last)
    }

    /// A batch ended; these ranges of its numbers are settled.
    pub(crate) fn end(&self, producer: u64, settled: impl IntoIterator<Item = (u64, u64)>) {
        let mut producers = self.lock();
        let entry = producers.entry(producer).or_default();
        entry.in_flight = entry.in_flight.saturating_sub(1);
        for (first, last) in settled {
            entry.settle(first, last);
        }
    }

    /// A session is over.
    pub(crate) fn leave(&self, producer: u64, thread: usize, session: SessionId) {
        if let Some(entry) = self.lock().get_mut(&producer)
            && entry.live == Some((thread, session))
        {
            entry.live = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.producers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn settle(&mut self, first: u64, last: u64) {
        if last <= self.last {
            return;
        }
        let known = self.above.entry(first).or_insert(last);
        *known = last.max(*known);
        while let Some(range) = self.above.first_entry() {
            if *range.key() > self.last + 1 {
                break;
            }
            self.last = self.last.max(*range.get());
            range.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = 7;
    const A: SessionId = SessionId(1);
    const B: SessionId = SessionId(2);

    #[test]
    fn batches_that_settle_out_of_order_advance_once_the_gap_closes() {
        let registry = Registry::default();
        registry.hello(P, 0, A);
        assert_eq!(registry.begin(P, 0, A), Some(0));
        assert_eq!(registry.begin(P, 0, A), Some(0));
        registry.end(P, [(11, 20)]);
        assert_eq!(registry.base(P), 0);
        registry.end(P, [(1, 10)]);
        assert_eq!(registry.base(P), 20);
    }

    #[test]
    fn a_new_hello_fences_the_old_session_and_waits_for_its_batches() {
        let registry = Registry::default();
        registry.hello(P, 0, A);
        registry.begin(P, 0, A);
        assert_eq!(registry.hello(P, 1, B), (Admission::Later, Some((0, A))));
        assert_eq!(
            registry.begin(P, 0, A),
            None,
            "the fenced session stages nothing more"
        );
        registry.end(P, [(1, 4), (6, 6)]);
        let welcome = Admission::Welcome {
            last: 4,
            already: vec![6],
        };
        assert_eq!(registry.hello(P, 1, B), (welcome, None));
    }

    #[test]
    fn what_the_logs_know_is_where_a_producer_goes_on() {
        let registry = Registry::default();
        registry.restore(
            P,
            Seen {
                base: 3,
                above: [4, 5, 9].into(),
            },
        );
        let welcome = Admission::Welcome {
            last: 5,
            already: vec![9],
        };
        assert_eq!(registry.hello(P, 0, A).0, welcome);
    }
}
