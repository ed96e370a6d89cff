//! Questions that cross into a shard's thread and come back as plain values.

use engine::id::{OperationId, VShard};
use engine::shard::{
    DeadFilter, DeadId, DeadLetter, DeadSlice, Explanation, OpenCounts, RefusedObject,
    ReplayCursor, ReplaySlice, ReplaySpan, Shard, Standing,
};
use engine::time::Now;
use engine::view::OperationFilter;
use tokio::sync::oneshot;
use wal::Storage;

use super::journal::ShardLog;

/// A question to one shard.
#[derive(Debug)]
pub(crate) enum Query {
    /// Where a record stands.
    Record {
        object: String,
        record_id: String,
        reply: oneshot::Sender<Vec<Standing>>,
    },
    /// Why a record stands where it stands.
    Explain {
        object: String,
        record_id: String,
        reply: oneshot::Sender<Vec<Explanation>>,
    },
    /// Objects under which a record id is known.
    Objects {
        record_id: String,
        reply: oneshot::Sender<Vec<String>>,
    },
    /// Where an operation stands.
    Operation {
        id: OperationId,
        reply: oneshot::Sender<Vec<Standing>>,
    },
    /// Operations that are open or dead.
    Operations {
        filter: OperationFilter,
        limit: usize,
        reply: oneshot::Sender<Vec<Standing>>,
    },
    /// A slice of the dead letters.
    DeadLetters {
        filter: DeadFilter,
        from: Option<VShard>,
        reply: oneshot::Sender<DeadSlice<DeadLetter>>,
    },
    /// The same, their names only.
    DeadIds {
        filter: DeadFilter,
        from: Option<VShard>,
        reply: oneshot::Sender<DeadSlice<DeadId>>,
    },
    /// One dead letter, with its data.
    DeadLetter {
        id: DeadId,
        reply: oneshot::Sender<Option<DeadLetter>>,
    },
    /// A slice of the records that a span of time changed.
    ChangedIn {
        span: ReplaySpan,
        from: Option<ReplayCursor>,
        reply: oneshot::Sender<ReplaySlice>,
    },
    /// Objects that accounts may not write at present.
    Refused {
        reply: oneshot::Sender<Vec<RefusedObject>>,
    },
    /// Open operations by account.
    Counts {
        reply: oneshot::Sender<Vec<(String, OpenCounts)>>,
    },
}

impl Query {
    /// Answers; whoever asked may have gone.
    pub(crate) fn answer<T, S: Storage>(
        self,
        now: Now,
        shard: &mut Shard<T>,
        journal: &mut ShardLog<S>,
    ) {
        match self {
            Self::Record {
                object,
                record_id,
                reply,
            } => {
                drop(reply.send(shard.record(journal, &object, &record_id)));
            }
            Self::Explain {
                object,
                record_id,
                reply,
            } => {
                drop(reply.send(shard.explain(now, journal, &object, &record_id)));
            }
            Self::Objects { record_id, reply } => {
                drop(reply.send(shard.objects(journal, &record_id)))
            }
            Self::Operation { id, reply } => drop(reply.send(shard.operation(journal, id))),
            Self::Operations {
                filter,
                limit,
                reply,
            } => {
                let keep = |standing: &Standing| {
                    filter.state.is_none_or(|state| state == standing.state)
                        && filter
                            .provider
                            .as_deref()
                            .is_none_or(|provider| provider == standing.account)
                        && filter
                            .object
                            .as_deref()
                            .is_none_or(|object| object == standing.object)
                };
                drop(reply.send(shard.operations(journal, keep, limit)));
            }
            Self::DeadLetters {
                filter,
                from,
                reply,
            } => {
                drop(reply.send(shard.dead_letters(journal, &filter, from)));
            }
            Self::DeadIds {
                filter,
                from,
                reply,
            } => {
                drop(reply.send(shard.dead_ids(journal, &filter, from)));
            }
            Self::DeadLetter { id, reply } => {
                drop(reply.send(shard.dead_letter_of(journal, &id)));
            }
            Self::ChangedIn { span, from, reply } => {
                drop(reply.send(shard.changed_in(journal, &span, from)));
            }
            Self::Refused { reply } => drop(reply.send(shard.refused_objects().collect())),
            Self::Counts { reply } => {
                let counts = shard
                    .open_counts()
                    .map(|(name, counts)| (name.to_owned(), counts))
                    .collect();
                drop(reply.send(counts));
            }
        }
    }
}
