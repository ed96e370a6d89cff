//! Questions that cross into a shard's thread and come back as plain values.

use std::sync::Arc;

use engine::id::{OperationId, VShard};
use engine::merge::Fields;
use engine::shard::{
    Comparison, DeadFilter, DeadId, DeadLetter, DeadSlice, Explanation, LinkCursor, LinkFilter,
    LinkSlice, Listed, OpenCounts, RecordPicture, RefusedObject, ReplayCursor, ReplaySlice,
    ReplaySpan, Shard, Standing,
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
    /// All that is held of a record.
    Picture {
        object: String,
        record_id: String,
        reply: oneshot::Sender<Option<RecordPicture>>,
    },
    /// A slice of the links.
    Links {
        filter: LinkFilter,
        from: Option<LinkCursor>,
        records_max: usize,
        reply: oneshot::Sender<LinkSlice>,
    },
    /// Which records an account's own ids stand for, in the order asked.
    Whose {
        account: Arc<str>,
        object: Arc<str>,
        remote_ids: Vec<String>,
        reply: oneshot::Sender<Vec<Option<String>>>,
    },
    /// How records stand against a list of an account, in its order.
    Compare {
        account: Arc<str>,
        object: Arc<str>,
        listed: Vec<Listed>,
        reply: oneshot::Sender<Vec<Comparison>>,
    },
    /// How records stand against rows of System A's, by their ids and texts, in their order.
    CompareRows {
        account: Arc<str>,
        object: Arc<str>,
        rows: Vec<(String, String)>,
        reply: oneshot::Sender<Vec<Comparison>>,
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
            Self::Picture {
                object,
                record_id,
                reply,
            } => drop(reply.send(shard.picture(journal, &object, &record_id))),
            Self::Links {
                filter,
                from,
                records_max,
                reply,
            } => drop(reply.send(shard.links_in(journal, &filter, from, records_max))),
            Self::Whose {
                account,
                object,
                remote_ids,
                reply,
            } => {
                let ids = remote_ids.iter();
                let records = ids.map(|id| shard.whose(journal, &account, &object, id));
                drop(reply.send(records.collect()));
            }
            Self::Compare {
                account,
                object,
                listed,
                reply,
            } => {
                let listed = listed.iter();
                let found = listed.map(|it| shard.compare(now, journal, &account, &object, it));
                drop(reply.send(found.collect()));
            }
            Self::CompareRows {
                account,
                object,
                rows,
                reply,
            } => {
                let found = rows.iter().map(|(id, row)| {
                    shard.compare_row(journal, &account, &object, id, &Fields::parse(row))
                });
                drop(reply.send(found.collect()));
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
