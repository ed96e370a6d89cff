//! Changes of accounts as events of the engine, through the same rings as everybody's.

use std::sync::atomic::Ordering;

use engine::dedup::{Dedup, EventKey, TakenOperation};
use engine::event::codec::Dedup as LoggedDedup;
use engine::event::{EVENT_BYTES_MAX, Priority};
use engine::id::{OperationSeq, RecordHash};
use engine::json::{RawObject, Scratch};
use engine::provider::{Change, ChangeKind};
use engine::refusal::{Code, Refusal};
use engine::shard::{EventBatch, News, Pull, provisional_id};
use tokio::sync::{mpsc, oneshot};
use xxhash_rust::xxh3::xxh3_64;

use super::objects::InboundObjects;
use super::sink::{GapNotice, InboundSink, Taken, Via};
use crate::runtime::clock;
use crate::runtime::shards::{Shards, down};

/// The engine behind [`InboundSink`].
#[derive(Debug)]
pub(crate) struct PullSink {
    shards: Shards,
    objects: InboundObjects,
    gaps: mpsc::Sender<GapNotice>,
}

/// Changes staged for the shards that own them.
struct Staging {
    batches: Vec<EventBatch>,
    /// The places of the changes that each shard answers for.
    numbers: Vec<Vec<u64>>,
    /// By place, what is forgotten if the shard does not take it.
    remembered: Vec<(u64, EventKey, TakenOperation)>,
    taken: Taken,
}

impl PullSink {
    pub(crate) fn new(
        shards: Shards,
        objects: InboundObjects,
        gaps: mpsc::Sender<GapNotice>,
    ) -> PullSink {
        PullSink {
            shards,
            objects,
            gaps,
        }
    }

    /// The local name of an object whose changes are taken from an account.
    pub(crate) fn local(&self, account: &str, remote: &str) -> Option<String> {
        self.objects.local(account, remote).map(str::to_owned)
    }

    fn stage(&self, account: &str, via: Via, changes: &[Change]) -> Staging {
        let shards = self.shards.count();
        let mut staging = Staging {
            batches: (0..shards).map(|_| EventBatch::default()).collect(),
            numbers: vec![Vec::new(); shards],
            remembered: Vec::new(),
            taken: Taken::default(),
        };
        let scope = scope(via, account);
        let mut scratch = Scratch::new();
        for (at, change) in changes.iter().enumerate() {
            let Some(object) = self.objects.local(account, &change.object) else {
                staging.taken.ignored += 1;
                continue;
            };
            match usable(via, change, &mut scratch) {
                Ok(shown) => {
                    let walked = matches!(via, Via::Walk { .. });
                    let scope = (!walked).then_some(scope);
                    self.stage_one(account, scope, object, at, change, shown, &mut staging);
                }
                Err(refusal) => {
                    staging.taken.unusable += 1;
                    tracing::warn!(
                        account,
                        object = change.object,
                        remote_id = change.remote_id,
                        code = refusal.code.as_str(),
                        "a change is passed over: its fields cannot be kept"
                    );
                }
            }
        }
        staging
    }

    #[expect(clippy::too_many_arguments, reason = "all that one event is made of")]
    fn stage_one(
        &self,
        account: &str,
        scope: Option<u64>,
        object: &str,
        at: usize,
        change: &Change,
        shown: Option<Shown<'_>>,
        staging: &mut Staging,
    ) {
        let shared = &self.shards.shared;
        let now_ms = clock::now().wall.0;
        let record_id = provisional_id(account, &change.remote_id);
        let record = shared.router.hash_key.record(object, &record_id);
        let shard = shared.router.shard_of(record);
        let pull = Pull {
            account,
            object,
            record_id: &record_id,
            provisional: true,
            remote_id: &change.remote_id,
            fields: shown.map(|shown| shown.fields),
            read_at_ms: shown.map_or(now_ms, |shown| shown.read_at_ms),
            whole: shown.is_some(),
            news: news_of(&change.kind),
            changed_at_ms: change.occurred_at_ms.unwrap_or(now_ms),
        };
        let next_seq = &shared.router.next_seq;
        let seq = next_seq.fetch_add(OperationSeq::STEP, Ordering::Relaxed);
        pull.with_event(seq, record, now_ms, |event| {
            let mut event = event.clone();
            event.mapping_version = shared.router.routes().mapping_version;
            let Some(scope) = scope else {
                event.event.priority = Priority::LOWEST;
                staging.batches[shard].push_with(|out| event.encode_into(out));
                staging.numbers[shard].push(at as u64);
                staging.taken.new += 1;
                return;
            };
            event.event.event_id = Some(change.delivery_id.as_str().into());
            let body_hash = event.event.body_hash();
            event.dedup = Some(LoggedDedup { scope, body_hash });
            let key = shared.remembered.key(scope, &change.delivery_id);
            let taken = TakenOperation {
                record: record.0,
                sequence: seq,
            };
            match shared
                .remembered
                .check_or_insert(now_ms, key, body_hash, taken)
            {
                Dedup::New => staging.remembered.push((at as u64, key, taken)),
                // A delivery is what its id says, whatever it is told with the second time.
                Dedup::Same(original) | Dedup::Reused(original) => {
                    let shard = shared.router.shard_of(RecordHash(original.record));
                    staging.numbers[shard].push(at as u64);
                    staging.taken.duplicate += 1;
                    return;
                }
            }
            staging.batches[shard].push_with(|out| event.encode_into(out));
            staging.numbers[shard].push(at as u64);
            staging.taken.new += 1;
        });
    }
}

fn news_of(kind: &ChangeKind) -> News<'_> {
    match kind {
        ChangeKind::Created | ChangeKind::Changed => News::Changed,
        ChangeKind::Deleted => News::Deleted,
        ChangeKind::Merged { into } => News::MergedInto(into),
        ChangeKind::Restored => News::Restored,
    }
}

impl InboundSink for PullSink {
    async fn take(&self, account: &str, via: Via, changes: Vec<Change>) -> Result<Taken, Refusal> {
        let staging = self.stage(account, via, &changes);
        let refused = self.shards.hand_in(staging.batches, staging.numbers).await;
        let Some((_, code)) = refused.first() else {
            return Ok(staging.taken);
        };
        let lost: Vec<u64> = refused.iter().flat_map(|(at, _)| at).copied().collect();
        for (at, key, taken) in staging.remembered {
            if lost.contains(&at) {
                self.shards.shared.remembered.forget(key, taken);
            }
        }
        Err(Refusal::new(*code, "not taken; send it again later"))
    }

    async fn missed(&self, account: &str, object: &str, cause: String) -> Result<(), Refusal> {
        let (begun, waiting) = oneshot::channel();
        let gap = GapNotice {
            account: account.to_owned(),
            object: object.to_owned(),
            cause,
            begun,
        };
        self.gaps.send(gap).await.map_err(|_| down())?;
        waiting.await.map_err(|_| down())?
    }
}

/// A whole record, and up to when what was written must be in it.
#[derive(Debug, Clone, Copy)]
struct Shown<'c> {
    fields: RawObject<'c>,
    read_at_ms: i64,
}

/// How far a list may lag behind what was written: search indexes follow by moments (HubSpot's
/// search guide, read 2026-11), which is taken for 10 s.
const LAG_MS: i64 = 10_000;

/// What of a change can be kept of its record: all of it, of a time that is known. What a delivery
/// carries is a part, and of any time: it says that the record is to be read.
fn usable<'c>(
    via: Via,
    change: &'c Change,
    scratch: &mut Scratch,
) -> Result<Option<Shown<'c>>, Refusal> {
    let asked_ms = match via {
        Via::Poll { asked_ms } | Via::Walk { asked_ms } => asked_ms,
        Via::Webhook => return Ok(None),
    };
    let Some(fields) = change.fields.as_ref().filter(|_| change.complete) else {
        return Ok(None);
    };
    // What surrounds it in the event is small.
    let value = scratch.validate(fields.as_bytes(), EVENT_BYTES_MAX)?;
    let object = value.as_object();
    let shown = object.map(|fields| Shown {
        fields,
        read_at_ms: asked_ms - LAG_MS,
    });
    match shown {
        Some(shown) => Ok(Some(shown)),
        None => Err(Refusal::new(Code::Malformed, "a record is a JSON object")),
    }
}

/// Scopes of event ids are hashes of names; producers' names have no colon first to last but by
/// chance, and what they name is another event then.
fn scope(via: Via, account: &str) -> u64 {
    xxh3_64(format!("{}:{account}", via.as_str()).as_bytes()).max(1)
}
