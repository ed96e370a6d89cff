//! The engine's side of the ingest port: parse, remember, route, hand to the shards' rings.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crossbeam::queue::ArrayQueue;
use engine::dedup::{Dedup, EventKey, TakenOperation};
use engine::event::codec::{Dedup as LoggedDedup, ProducerPosition};
use engine::event::{Event, Surface, parse};
use engine::json::Scratch;
use engine::refusal::{Code, Refusal};
use engine::shard::{Barrier, EventBatch, Origin};
use net::gate::WakeGate;
use net::ingest::{BatchId, Busy, Greeting, Intake, Producer, SessionId, Settled, Welcome};
use net::metrics::MetricsWriter;
use xxhash_rust::xxh3::xxh3_64;

use super::clock;
use super::mailbox::{Mailbox, Parcel};
use super::registry::{Admission, Registry};
use super::remembered::Remembered;
use super::router::{Router, Routes};
use super::ticket::{Ticket, Waiter};

/// Batches of one ingest thread on their way to the disk at most.
const BATCHES_IN_FLIGHT_MAX: usize = 8192;

/// What all ingest threads and the HTTP side share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) router: Router,
    pub(crate) mailboxes: Vec<Mailbox>,
    pub(crate) registry: Registry,
    pub(crate) remembered: Arc<Remembered>,
    /// Sessions fenced by a hello elsewhere, by ingest thread.
    pub(crate) threads: Mutex<Vec<ThreadLink>>,
}

/// How another thread reaches an ingest thread.
#[derive(Debug, Clone)]
pub(crate) struct ThreadLink {
    fenced: Arc<ArrayQueue<SessionId>>,
    gate: WakeGate,
}

/// Where settled batches of one ingest thread come out.
#[derive(Debug, Clone)]
pub(crate) struct CompletionQueue {
    queue: Arc<ArrayQueue<Completion>>,
    gate: WakeGate,
}

impl CompletionQueue {
    /// Adds a batch and wakes its thread. There is room for every batch that may be under way.
    pub(crate) fn push(&self, completion: Completion) {
        let full = self.queue.push(completion).is_err();
        debug_assert!(!full, "no more batches are under way than the queue holds");
        self.gate.wake();
    }
}

/// A batch of a session that came back.
#[derive(Debug)]
pub(crate) struct Completion {
    session: SessionId,
    batch: BatchId,
    producer: Option<u64>,
    first_seq: u64,
    last_seq: u64,
    /// What its event ids were remembered as, to be forgotten if they were not taken.
    remembered: Vec<(u64, EventKey, TakenOperation)>,
    pub(crate) refused: Vec<(Vec<u64>, Code)>,
}

/// One ingest thread's way into the engine.
pub(crate) struct ThreadIntake {
    shared: Arc<Shared>,
    thread: usize,
    scratch: Scratch,
    sessions: HashMap<SessionId, SessionState>,
    done: CompletionQueue,
    fenced: Arc<ArrayQueue<SessionId>>,
    in_flight: usize,
    next_batch: u64,
    /// The clock, read once per dispatch; events of one read share it.
    now_ms: i64,
    metrics: MetricsWriter,
}

#[derive(Debug, Default)]
struct SessionState {
    producer: Option<u64>,
    /// Its base, as read when the batch being staged began.
    base: u64,
    staging: bool,
    fenced: bool,
    barrier: Barrier,
    first_seq: u64,
    shards: Vec<Staged>,
    remembered: Vec<(u64, EventKey, TakenOperation)>,
    /// Duplicates: settled once the shard that has the original says so.
    duplicates: Vec<(usize, u64)>,
    /// Events that a schema or rules reject, with the shards of their records.
    rejected: Vec<(usize, u64)>,
}

#[derive(Debug, Default)]
struct Staged {
    batch: EventBatch,
    seqs: Vec<u64>,
}

/// A producer's name as the log keeps it. Scopes of event ids are the same numbers.
pub(crate) fn producer_hash(name: &str) -> u64 {
    // 0 is nobody.
    xxh3_64(name.as_bytes()).max(1)
}

impl ThreadIntake {
    /// The way in of ingest thread number `thread`, woken through `gate`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        thread: usize,
        gate: WakeGate,
        metrics: MetricsWriter,
    ) -> Self {
        let fenced = Arc::new(ArrayQueue::new(BATCHES_IN_FLIGHT_MAX));
        let done = CompletionQueue {
            queue: Arc::new(ArrayQueue::new(BATCHES_IN_FLIGHT_MAX)),
            gate: gate.clone(),
        };
        let link = ThreadLink {
            fenced: fenced.clone(),
            gate,
        };
        let mut threads = shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        debug_assert_eq!(
            threads.len(),
            thread,
            "threads are made in the order of their numbers"
        );
        threads.push(link);
        drop(threads);
        Self {
            shared,
            thread,
            scratch: Scratch::new(),
            sessions: HashMap::new(),
            done,
            fenced,
            in_flight: 0,
            next_batch: 0,
            now_ms: clock::now().wall.0,
            metrics,
        }
    }

    fn fence(&self, thread: usize, session: SessionId) {
        let threads = self
            .shared
            .threads
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = threads.get(thread) {
            // A full queue means thousands of fenced sessions not yet looked at; the session
            // finds itself fenced at its next batch all the same.
            let _full = link.fenced.push(session);
            link.gate.wake();
        }
    }
}

impl Intake for ThreadIntake {
    fn hello(
        &mut self,
        session: SessionId,
        producer: Option<&str>,
        _key: Option<&str>,
    ) -> Greeting {
        let shards = self.shared.mailboxes.len();
        let state = self.sessions.entry(session).or_default();
        state.shards.resize_with(shards, Staged::default);
        let Some(name) = producer else {
            return Greeting::Welcome(Welcome::default());
        };
        let producer = producer_hash(name);
        state.producer = Some(producer);
        let (admission, fenced) = self.shared.registry.hello(producer, self.thread, session);
        if let Some((thread, old)) = fenced {
            if thread == self.thread
                && let Some(old) = self.sessions.get_mut(&old)
            {
                old.fenced = true;
            }
            self.fence(thread, old);
        }
        match admission {
            Admission::Later => Greeting::Later,
            Admission::Welcome { last, already } => Greeting::Welcome(Welcome {
                last_seq: last,
                already,
            }),
        }
    }

    fn stage(
        &mut self,
        session: SessionId,
        _producer: &Producer,
        seq: u64,
        event: &[u8],
    ) -> Result<(), Refusal> {
        let shared = &*self.shared;
        let Some(state) = self.sessions.get_mut(&session) else {
            return Err(Refusal::new(Code::ShardDown, "the session is closed"));
        };
        if !state.staging {
            state.staging = true;
            state.first_seq = seq;
            self.now_ms = clock::now().wall.0;
            state.base = state
                .producer
                .map_or(0, |producer| shared.registry.base(producer));
        }
        let now_ms = self.now_ms;
        let scratch = &mut self.scratch;
        let routes = shared.router.routes();
        shared.router.with_defaults(|defaults| {
            let event = parse(event, scratch, defaults, Surface::Stream)?;
            stage_event(shared, &routes, state, seq, event, now_ms)
        })
    }

    fn dispatch(
        &mut self,
        session: SessionId,
        last_seq: u64,
        refused: &[(u64, Code)],
    ) -> Result<BatchId, Busy> {
        let Some(state) = self.sessions.get_mut(&session) else {
            return Err(Busy);
        };
        let mailboxes = &self.shared.mailboxes;
        let fits = |(staged, mailbox): (&Staged, &Mailbox)| {
            staged.seqs.is_empty() || mailbox.has_room_for(staged.seqs.len())
        };
        if self.in_flight >= BATCHES_IN_FLIGHT_MAX || !state.shards.iter().zip(mailboxes).all(fits)
        {
            return Err(Busy);
        }
        if let Some(producer) = state.producer {
            match self.shared.registry.begin(producer, self.thread, session) {
                Some(_) => {}
                // Fenced: what it staged is forgotten, and the session hears of its end.
                None => return Err(Busy),
            }
            // Numbers without an event are remembered where the original is, or anywhere.
            let base = state.base;
            for (shard, seq) in state.duplicates.drain(..) {
                state.shards[shard].batch.consumed.push(Origin {
                    producer,
                    seq,
                    base,
                });
                state.shards[shard].seqs.push(seq);
            }
            for &(seq, code) in refused {
                if !code.retry() {
                    // Beside what its record is told next: whatever of that a crash leaves, it leaves
                    // this number as well. Else the event would come again, and other rules might
                    // take it behind a newer one.
                    let mut rejected = state.rejected.iter();
                    let own = rejected.find(|(_, rejected)| *rejected == seq);
                    let any = (producer % mailboxes.len() as u64) as usize;
                    let shard = own.map_or(any, |(shard, _)| *shard);
                    state.shards[shard].batch.consumed.push(Origin {
                        producer,
                        seq,
                        base,
                    });
                    state.shards[shard].seqs.push(seq);
                }
            }
        }
        for (shard, seq) in state.duplicates.drain(..) {
            // An anonymous duplicate only has to wait until the original is on disk.
            state.shards[shard].seqs.push(seq);
        }
        state.rejected.clear();
        for &(_, code) in refused {
            self.metrics.events_rejected(code, 1);
        }
        self.next_batch += 1;
        self.in_flight += 1;
        let batch = BatchId(self.next_batch);
        let first_seq = if state.staging {
            state.first_seq
        } else {
            last_seq
        };
        state.staging = false;
        let completion = Completion {
            session,
            batch,
            producer: state.producer,
            first_seq: refused
                .first()
                .map_or(first_seq, |&(seq, _)| seq.min(first_seq)),
            last_seq,
            remembered: std::mem::take(&mut state.remembered),
            refused: Vec::new(),
        };
        let waiter = Waiter::Session {
            batch: completion,
            queue: self.done.clone(),
        };
        let used: Vec<usize> = (0..mailboxes.len())
            .filter(|&at| !state.shards[at].seqs.is_empty())
            .collect();
        let parts = Ticket::split(
            waiter,
            used.iter()
                .map(|&at| std::mem::take(&mut state.shards[at].seqs))
                .collect(),
        );
        for (&at, part) in used.iter().zip(parts) {
            let batch = std::mem::take(&mut state.shards[at].batch);
            let parcel = Parcel {
                batch,
                part,
                barrier: state.barrier.clone(),
            };
            if let Err(parcel) = mailboxes[at].push(parcel) {
                parcel.barrier.close();
                // Another thread took the room in between: the sender tries again later.
                parcel.part.refused(Code::Overloaded);
            }
        }
        Ok(batch)
    }

    fn poll_settled(&mut self) -> Option<Settled> {
        let done = self.done.queue.pop()?;
        self.in_flight -= 1;
        let retry = done
            .refused
            .iter()
            .filter_map(|(seqs, code)| Some((*seqs.iter().min()?, *code)))
            .min_by_key(|&(seq, _)| seq);
        let lost: Vec<u64> = done
            .refused
            .iter()
            .flat_map(|(seqs, _)| seqs.iter().copied())
            .collect();
        for (seq, key, taken) in &done.remembered {
            if lost.contains(seq) {
                self.shared.remembered.forget(*key, *taken);
            }
        }
        if let Some(producer) = done.producer {
            self.shared.registry.end(
                producer,
                settled_ranges(done.first_seq, done.last_seq, lost),
            );
        }
        let retry =
            retry.map(|(seq, code)| (seq, Refusal::new(code, "not taken; send it again later")));
        Some(Settled {
            session: done.session,
            batch: done.batch,
            refusals: Vec::new(),
            retry,
        })
    }

    fn poll_fenced(&mut self) -> Option<SessionId> {
        self.fenced.pop()
    }

    fn closed(&mut self, session: SessionId) {
        let Some(state) = self.sessions.remove(&session) else {
            return;
        };
        for (_, key, taken) in state.remembered {
            self.shared.remembered.forget(key, taken);
        }
        if let Some(producer) = state.producer {
            self.shared.registry.leave(producer, self.thread, session);
        }
    }
}

/// Remembers and routes one event, and stages it for its shard.
fn stage_event(
    shared: &Shared,
    routes: &Routes,
    state: &mut SessionState,
    seq: u64,
    event: Event<'_>,
    now_ms: i64,
) -> Result<(), Refusal> {
    let position = state.producer.map(|producer_hash| ProducerPosition {
        producer_hash,
        seq,
        acked_base: state.base,
    });
    let dedup = event.event_id.as_ref().map(|_| LoggedDedup {
        scope: state.producer.unwrap_or(0),
        body_hash: event.body_hash(),
    });
    let mut routed = shared
        .router
        .route(routes, event, position, dedup, now_ms)?;
    let mut remembered = None;
    if let (Some(id), Some(dedup)) = (routed.event.event.event_id.as_deref(), routed.event.dedup) {
        let key = shared.remembered.key(dedup.scope, id);
        let taken = TakenOperation {
            record: routed.id.record.0,
            sequence: routed.id.seq.0,
        };
        match shared
            .remembered
            .check_or_insert(now_ms, key, dedup.body_hash, taken)
        {
            Dedup::New => remembered = Some((seq, key, taken)),
            Dedup::Same(original) => {
                let shard = shared
                    .router
                    .shard_of(engine::id::RecordHash(original.record));
                state.duplicates.push((shard, seq));
                return Ok(());
            }
            Dedup::Reused(_) => {
                return Err(Refusal::at(
                    Code::EventIdReused,
                    "/event_id",
                    "an event with this id and another body was taken before",
                ));
            }
        }
    }
    if let Err(refusal) = shared.router.decide(routes, &mut routed) {
        if let Some((_, key, taken)) = remembered {
            shared.remembered.forget(key, taken);
        }
        state.rejected.push((routed.shard, seq));
        return Err(refusal);
    }
    state.remembered.extend(remembered);
    let staged = &mut state.shards[routed.shard];
    staged.batch.push_with(|out| routed.event.encode_into(out));
    staged.seqs.push(seq);
    Ok(())
}

/// The ranges of `first..=last` that remain without the `lost` numbers.
fn settled_ranges(first: u64, last: u64, mut lost: Vec<u64>) -> Vec<(u64, u64)> {
    lost.sort_unstable();
    let mut ranges = Vec::new();
    let mut next = first;
    for seq in lost {
        if seq > next {
            ranges.push((next, seq - 1));
        }
        next = next.max(seq + 1);
    }
    if next <= last {
        ranges.push((next, last));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_splits_what_was_settled() {
        assert_eq!(settled_ranges(1, 5, vec![]), [(1, 5)]);
        assert_eq!(settled_ranges(1, 5, vec![3]), [(1, 2), (4, 5)]);
        assert_eq!(settled_ranges(1, 5, vec![5, 1]), [(2, 4)]);
        assert_eq!(settled_ranges(1, 2, vec![2, 1]), []);
    }
}
