//! Bugs planted on purpose: surroundings of the shards that behave as theirs would with the bug.

use syncline_engine::event::codec;
use syncline_engine::journal::Kind;
use syncline_engine::provider::{CallKind, Request};
use syncline_engine::quota::FromShard;

use super::world::{SECOND, Seen};

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The coordinator does not hear which demand is urgent.
    UrgencyLost,
    /// All demand is told as urgent.
    AllUrgent,
    /// What is kept for other applications is not known.
    OthersForgotten,
    /// Calls for records of low priority are kept back while others go.
    LowKeptBack,
    /// So are creates.
    CreatesKeptBack,
    /// A field that refers to another record is taken for a plain one.
    ReferenceForgotten,
    /// A replay sends what the record was when it was told first.
    ReplayAsItWas,
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

    /// Whether this call has to wait for others to go.
    pub(super) fn keeps_back(self, now: u64, request: &Request, seen: &[Seen]) -> bool {
        let is_kept = match self {
            Self::LowKeptBack => request.path_and_query.ends_with(LOW),
            Self::CreatesKeptBack => request.kind == CallKind::Create,
            _ => false,
        };
        let mut others = seen.iter().rev();
        let other = others.find(|call| call.kind != CallKind::Create);
        is_kept && other.is_some_and(|call| call.at + SECOND > now)
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

/// The record of low priority of a test.
pub(super) const LOW: &str = "low";
