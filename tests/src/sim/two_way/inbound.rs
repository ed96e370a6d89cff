//! The way back in, as the runtime has it: believe, know again, log as pulls, acknowledge.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::codec::Dedup;
use engine::id::{HashKey, OperationSeq};
use engine::json::RawObject;
use engine::provider::{Change, ChangeKind};
use engine::refusal::Code;
use engine::shard::{Barrier, EventBatch, News, Pull, provisional_id};

use crate::sim::ingest::{Parcel, Ticket};

/// How far a list may lag behind what was written, as the runtime takes it.
const LAG_MS: i64 = 10_000;

/// Who waits until changes are durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) enum Source {
    /// A notice.
    Notice(u64),
    /// A page of a list.
    Page(usize),
}

/// Changes that were handed in together.
#[derive(Debug)]
struct Take {
    source: Source,
    waiting: BTreeSet<usize>,
    refused: bool,
    names: Vec<(u64, String)>,
}

/// What became of changes that were handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sim) struct Taken {
    pub(in crate::sim) source: Source,
    pub(in crate::sim) durable: bool,
}

/// What came in as one.
#[derive(Debug, Clone, Copy)]
pub(in crate::sim) struct Incoming<'a> {
    pub(in crate::sim) account: &'a str,
    /// Tells accounts and ways apart.
    pub(in crate::sim) scope: u64,
    pub(in crate::sim) changes: &'a [Change],
    /// When a list was asked for, on our wall clock.
    pub(in crate::sim) asked_ms: Option<i64>,
    pub(in crate::sim) now_ms: i64,
    pub(in crate::sim) source: Source,
}

/// What the way in remembers while the process lives.
#[derive(Debug, Default)]
pub(in crate::sim) struct Inbound {
    /// Deliveries by scope and name; those that are not durable yet with what waits for them.
    seen: BTreeMap<(u64, String), Option<u64>>,
    takes: BTreeMap<u64, Take>,
    last: u64,
    /// Lists are taken for as new as the moment at which they were asked for.
    pub(in crate::sim) trusts_lists: bool,
}

impl Inbound {
    /// Begins with what the logs know.
    pub(in crate::sim) fn new(delivered: impl Iterator<Item = (u64, String)>) -> Self {
        Self {
            seen: delivered.map(|name| (name, None)).collect(),
            ..Self::default()
        }
    }

    /// Takes changes in. What goes to the shards, and the end if it has come already.
    pub(in crate::sim) fn take(
        &mut self,
        incoming: &Incoming<'_>,
        (hash_key, shards): (HashKey, usize),
        next_seq: &mut u64,
    ) -> (Vec<Parcel>, Option<Taken>) {
        let source = incoming.source;
        let known = |change: &Change| {
            let name = (incoming.scope, change.delivery_id.clone());
            self.seen.get(&name).copied()
        };
        // What is on its way to the disk is answered for once it is there.
        if incoming
            .changes
            .iter()
            .any(|change| known(change).flatten().is_some())
        {
            let durable = false;
            return (Vec::new(), Some(Taken { source, durable }));
        }
        self.last += 1;
        let mut staged: BTreeMap<usize, EventBatch> = BTreeMap::new();
        let mut names = Vec::new();
        for change in incoming.changes {
            let name = (incoming.scope, change.delivery_id.clone());
            if self.seen.contains_key(&name) {
                continue;
            }
            self.seen.insert(name.clone(), Some(self.last));
            names.push(name);
            let record_id = provisional_id(incoming.account, &change.remote_id);
            let record = hash_key.record(&change.object, &record_id);
            let shown = change.fields.as_deref().filter(|_| change.complete);
            let asked_ms = incoming.asked_ms.filter(|_| shown.is_some());
            let lag_ms = if self.trusts_lists { 0 } else { LAG_MS };
            let pull = Pull {
                account: incoming.account,
                object: &change.object,
                record_id: &record_id,
                provisional: true,
                remote_id: &change.remote_id,
                fields: asked_ms.and(shown).and_then(RawObject::new),
                read_at_ms: asked_ms.map_or(incoming.now_ms, |asked| asked - lag_ms),
                whole: asked_ms.is_some(),
                news: match &change.kind {
                    ChangeKind::Deleted => News::Deleted,
                    ChangeKind::Merged { into } => News::MergedInto(into),
                    ChangeKind::Restored => News::Restored,
                    ChangeKind::Created | ChangeKind::Changed => News::Changed,
                },
                changed_at_ms: change.occurred_at_ms.unwrap_or(incoming.now_ms),
            };
            let seq = *next_seq;
            *next_seq += OperationSeq::STEP;
            pull.with_event(seq, record, incoming.now_ms, |event| {
                let mut event = event.clone();
                event.event.event_id = Some(change.delivery_id.as_str().into());
                let body_hash = event.event.body_hash();
                let scope = incoming.scope;
                event.dedup = Some(Dedup { scope, body_hash });
                let batch = staged.entry(record.vshard().owner(shards)).or_default();
                batch.push_with(|out| event.encode_into(out));
            });
        }
        if staged.is_empty() {
            let durable = true;
            return (Vec::new(), Some(Taken { source, durable }));
        }
        let take = self.last;
        let waiting = staged.keys().copied().collect();
        self.takes.insert(
            take,
            Take {
                source,
                waiting,
                refused: false,
                names,
            },
        );
        let parcels = staged.into_iter().map(|(shard, events)| Parcel {
            shard,
            events,
            barrier: Barrier::default(),
            ticket: Ticket::Pulls { take, shard },
        });
        (parcels.collect(), None)
    }

    /// A shard has answered for its part.
    pub(in crate::sim) fn answered(
        &mut self,
        take: u64,
        shard: usize,
        refusal: Option<Code>,
    ) -> Option<Taken> {
        let under_way = self.takes.get_mut(&take)?;
        under_way.waiting.remove(&shard);
        under_way.refused |= refusal.is_some();
        if !under_way.waiting.is_empty() {
            return None;
        }
        let ended = self.takes.remove(&take)?;
        for name in ended.names {
            if ended.refused {
                self.seen.remove(&name);
            } else {
                self.seen.insert(name, None);
            }
        }
        Some(Taken {
            source: ended.source,
            durable: !ended.refused,
        })
    }

    /// Whether nothing is on its way to the disk.
    pub(in crate::sim) fn is_idle(&self) -> bool {
        self.takes.is_empty()
    }
}
