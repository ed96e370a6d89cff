//! Questions that cross into a shard's thread and come back as plain values.

use engine::id::OperationId;
use engine::shard::{DeadFilter, DeadLetter, OpenCounts, Shard, Standing};
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
    /// Dead letters.
    DeadLetters {
        filter: DeadFilter,
        skip: usize,
        limit: usize,
        reply: oneshot::Sender<Vec<DeadLetter>>,
    },
    /// Open operations by account.
    Counts {
        reply: oneshot::Sender<Vec<(String, OpenCounts)>>,
    },
}

impl Query {
    /// Answers; whoever asked may have gone.
    pub(crate) fn answer<T, S: Storage>(self, shard: &mut Shard<T>, journal: &mut ShardLog<S>) {
        match self {
            Self::Record {
                object,
                record_id,
                reply,
            } => {
                drop(reply.send(shard.record(journal, &object, &record_id)));
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
                skip,
                limit,
                reply,
            } => {
                drop(reply.send(shard.dead_letters(journal, &filter, skip, limit)));
            }
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
