//! Bugs planted on purpose: surroundings of the shards that behave as theirs would with the bug.

use syncline_engine::event::codec;
use syncline_engine::journal::Kind;
use syncline_engine::quota::FromShard;

/// One planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// The coordinator does not hear which demand is urgent.
    UrgencyLost,
    /// All demand is told as urgent.
    AllUrgent,
    /// What is kept for other applications is not known.
    OthersForgotten,
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
