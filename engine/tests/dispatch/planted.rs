//! Bugs planted on purpose: surroundings of the shards that behave as theirs would with the bug.

use std::borrow::Cow;
use std::collections::HashMap;

use syncline_engine::event::codec;
use syncline_engine::journal::Kind;
use syncline_engine::provider::Request;
use syncline_engine::quota::FromShard;
use syncline_engine::record::StateFrame;
use syncline_engine::shard::{CallId, ListUse};

use super::world::MS;

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The coordinator does not hear which demand is urgent.
    UrgencyLost,
    /// All demand is told as urgent.
    AllUrgent,
    /// Polls are asked for as walks are.
    PollsTakenForWalks,
    /// What is kept for other applications is not known.
    OthersForgotten,
    /// A field that refers to another record is taken for a plain one.
    ReferenceForgotten,
    /// A replay sends what the record was when it was told first.
    ReplayAsItWas,
    /// What is below the shards has a pace of its own, and lets the best priority go first.
    BestFirstBelow,
    /// The way in tells a CREATE as an UPSERT, which is of another class.
    ClassForgotten,
    /// What is below the shards sends a call that failed again at once, and tells nobody.
    RetriesBelow,
    /// After a restart it is not known which operations were called before.
    AttemptsForgotten,
}

impl Bug {
    /// What the coordinator hears of a shard's word.
    pub(super) fn told(self, mut word: FromShard) -> FromShard {
        if let FromShard::Want {
            permits, urgent, ..
        } = &mut word
        {
            match self {
                Self::UrgencyLost => *urgent = 0,
                Self::AllUrgent => *urgent = *permits,
                _ => {}
            }
        }
        word
    }

    /// What a list is asked for, as a shard hears it.
    pub(super) fn asked(self, list: ListUse) -> ListUse {
        match self {
            Self::PollsTakenForWalks => ListUse::Walk,
            _ => list,
        }
    }

    /// What the way in makes of an event.
    pub(super) fn taken(self, event: &str) -> Cow<'_, str> {
        match self {
            Self::ClassForgotten => event.replace(r#""CREATE""#, r#""UPSERT""#).into(),
            _ => event.into(),
        }
    }

    /// A frame as a restart reads it.
    pub(super) fn recovered(self, kind: Kind, payload: &[u8]) -> Option<Vec<u8>> {
        if (self, kind) != (Self::AttemptsForgotten, Kind::State) {
            return None;
        }
        let mut frame = StateFrame::decode(payload).ok()?;
        let records = frame.records.iter_mut();
        let targets = records.flat_map(|record| &mut record.targets);
        for last in targets.flat_map(|target| &mut target.last) {
            last.attempts.clear();
        }
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        Some(bytes)
    }

    /// What a replay writes to a log in place of a frame.
    pub(super) fn replayed(
        self,
        kind: Kind,
        payload: &[u8],
        frames: &[(Kind, Vec<u8>)],
    ) -> Option<Vec<u8>> {
        if (self, kind) != (Self::ReplayAsItWas, Kind::Event) {
            return None;
        }
        let mut event = codec::decode(payload).ok()?;
        let mut events = frames.iter().filter(|(kind, _)| *kind == Kind::Event);
        let first = events.find_map(|(_, bytes)| {
            let first = codec::decode(bytes).ok()?;
            (first.record_hash == event.record_hash).then_some(first)
        })?;
        event.event.data = first.event.data;
        let mut bytes = Vec::new();
        event.encode_into(&mut bytes);
        Some(bytes)
    }
}

/// Calls that have left their shard and wait below it.
#[derive(Debug, Default)]
pub(super) struct Below {
    waiting: Vec<Outgoing>,
    /// Not before this does the next one go.
    next_at: u64,
    /// Of records, as their newest events named it.
    pub(super) priorities: HashMap<String, u8>,
}

/// A call on its way.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) shard: usize,
    pub(super) call: CallId,
    pub(super) account: usize,
    pub(super) request: Request,
}

/// Between two calls: slower than the limits of these tests.
const PACE: u64 = 125 * MS;

impl Below {
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.waiting.push(outgoing);
    }

    /// The next call, if it is time for one: the best priority, of these the oldest.
    pub(super) fn next(&mut self, now: u64) -> Option<Outgoing> {
        let priority = |outgoing: &Outgoing| {
            let of = outgoing.request.path_and_query.rsplit('/').next();
            of.and_then(|of| self.priorities.get(of)).copied()
        };
        let places = 0..self.waiting.len();
        let best = places.min_by_key(|&place| priority(&self.waiting[place]))?;
        if now < self.next_at {
            return None;
        }
        self.next_at = now + PACE;
        Some(self.waiting.remove(best))
    }
}
