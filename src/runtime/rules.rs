//! The rules in force, and some of the events that came last, to try others on.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use engine::event::codec::{self, AcceptedEvent};
use engine::rules::{RuleSet, Trial};

/// Events kept for trials.
const RECENT_MAX: usize = 1_000;
/// A larger event is not kept: all of them together take 8 MiB at most.
const RECENT_EVENT_BYTES_MAX: usize = 8 << 10;

/// What every thread that takes events in asks.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    in_force: RwLock<Arc<RuleSet>>,
    recent: RecentEvents,
}

/// One event a millisecond at most, before any rule saw it.
#[derive(Debug, Default)]
struct RecentEvents {
    last_at_ms: AtomicI64,
    encoded: Mutex<VecDeque<Vec<u8>>>,
}

impl Rules {
    pub(crate) fn new(set: RuleSet) -> Self {
        Self {
            in_force: RwLock::new(Arc::new(set)),
            recent: RecentEvents::default(),
        }
    }

    pub(crate) fn in_force(&self) -> Arc<RuleSet> {
        self.in_force
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on events are decided by `set`.
    pub(crate) fn replace(&self, set: RuleSet) {
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(set);
    }

    /// Keeps an event for trials, if it is this millisecond's first.
    pub(crate) fn note(&self, event: &AcceptedEvent<'_>) {
        let before = self
            .recent
            .last_at_ms
            .swap(event.accepted_at_ms, Ordering::Relaxed);
        if before == event.accepted_at_ms {
            return;
        }
        let mut encoded = Vec::new();
        event.encode_into(&mut encoded);
        if encoded.len() > RECENT_EVENT_BYTES_MAX {
            return;
        }
        let mut recent = self.recent.lock();
        if recent.len() == RECENT_MAX {
            recent.pop_front();
        }
        recent.push_back(encoded);
    }

    /// What `other` would have made of the events that came last.
    pub(crate) fn try_out(&self, other: &RuleSet) -> Trial {
        let in_force = self.in_force();
        // Copied, so that no event waits while the sets are held against each other.
        let recent: Vec<Vec<u8>> = self.recent.lock().iter().rev().cloned().collect();
        let events = recent.iter().filter_map(|bytes| codec::decode(bytes).ok());
        Trial::run(&in_force, other, events)
    }
}

impl RecentEvents {
    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
