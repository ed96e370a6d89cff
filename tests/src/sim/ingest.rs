//! The way in, as the runtime has it: parse, number, split by shard, settle, acknowledge.

use std::collections::{BTreeMap, BTreeSet};

use engine::event::codec::{AcceptedEvent, ProducerPosition};
use engine::event::{Defaults, Surface, Target, TargetAction, parse};
use engine::id::{HashKey, OperationSeq};
use engine::json::Scratch;
use engine::producers::{Producers, resume_point};
use engine::refusal::Code;
use engine::shard::{Barrier, EventBatch, Origin, SYSTEM_A};

use super::judge::Judge;
use super::mutants::Mutant;

/// Who waits for an effect of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ticket {
    /// A part of a batch.
    Part {
        /// The batch.
        batch: u64,
        /// The shard that has this part.
        shard: usize,
    },
    /// An operator's command.
    Command(u64),
    /// A part of what accounts told.
    Pulls {
        /// What was told together.
        take: u64,
        /// The shard that has this part.
        shard: usize,
    },
    /// A page of a list of changes.
    Page {
        /// The list.
        list: usize,
    },
}

/// A part of a batch on its way to a shard.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) shard: usize,
    pub(super) events: EventBatch,
    pub(super) barrier: Barrier,
    pub(super) ticket: Ticket,
}

/// A batch of a session until all of its shards have answered.
#[derive(Debug)]
struct Batch {
    client: usize,
    producer: u64,
    seqs: Vec<u64>,
    parts: BTreeMap<usize, Vec<u64>>,
    refused: Vec<u64>,
}

/// What the way in remembers while the process lives.
pub(super) struct Ingest {
    shards: usize,
    hash_key: HashKey,
    accounts: Vec<String>,
    /// What decides on events; none: all of them are synced.
    pub(super) judge: Option<Judge>,
    producers: BTreeMap<u64, Settled>,
    batches: BTreeMap<u64, Batch>,
    /// By client: of its newest connection.
    barriers: BTreeMap<usize, (u64, Barrier)>,
    last_batch: u64,
    next_operation: u64,
    scratch: Scratch,
    mutant: Option<Mutant>,
}

#[derive(Debug, Default)]
struct Settled {
    last: u64,
    above: BTreeSet<u64>,
    in_flight: u32,
}

/// A batch that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) client: usize,
    /// Every number up to here is settled.
    pub(super) last: u64,
    /// Something was refused that time can cure: the session is over.
    pub(super) refused: bool,
}

impl Ingest {
    /// Starts from what the shards' logs know of producers, joined.
    pub(super) fn new(
        shards: usize,
        hash_key: HashKey,
        accounts: Vec<String>,
        run_epoch: u64,
        joined: &Producers,
        mutant: Option<Mutant>,
    ) -> Self {
        let mut producers = BTreeMap::new();
        for (producer, seen) in joined.sorted() {
            let (mut last, mut above) = resume_point(seen.clone());
            match mutant {
                Some(Mutant::LostIslands) => above.clear(),
                Some(Mutant::SkippedGaps) => {
                    last = above.last().copied().unwrap_or(last);
                    above.clear();
                }
                _ => {}
            }
            producers.insert(
                producer,
                Settled {
                    last,
                    above: above.into_iter().collect(),
                    in_flight: 0,
                },
            );
        }
        Self {
            shards,
            hash_key,
            accounts,
            judge: None,
            producers,
            batches: BTreeMap::new(),
            barriers: BTreeMap::new(),
            last_batch: 0,
            next_operation: OperationSeq::first_of_run(run_epoch).0,
            scratch: Scratch::new(),
            mutant,
        }
    }

    /// A hello: the last settled number, or `None` while batches of the session before are under
    /// way.
    pub(super) fn hello(&mut self, producer: u64) -> Option<u64> {
        let settled = self.producers.entry(producer).or_default();
        (settled.in_flight == 0).then_some(settled.last)
    }

    /// What places a record, and the number of the next operation.
    pub(super) fn place(&mut self) -> ((HashKey, usize), &mut u64) {
        ((self.hash_key, self.shards), &mut self.next_operation)
    }

    /// Whether some number above the base is settled.
    pub(super) fn has_islands(&self) -> bool {
        self.producers
            .values()
            .any(|settled| !settled.above.is_empty())
    }

    /// Takes lines of a client; the parts go to their shards. The batch may have ended already.
    pub(super) fn take(
        &mut self,
        now_ms: i64,
        (client, session): (usize, u64),
        producer: u64,
        first_seq: u64,
        lines: &[Vec<u8>],
    ) -> (Vec<Parcel>, Option<Ended>) {
        let settled = self.producers.entry(producer).or_default();
        let base = settled.last;
        settled.in_flight += 1;
        let above = settled.above.clone();
        let mut staged: BTreeMap<usize, (EventBatch, Vec<u64>)> = BTreeMap::new();
        let mut seqs = Vec::new();
        for (seq, line) in (first_seq..).zip(lines) {
            seqs.push(seq);
            if seq <= base || above.contains(&seq) {
                continue;
            }
            match parse(
                line,
                &mut self.scratch,
                &Defaults::default(),
                Surface::Stream,
            ) {
                Err(_) => {
                    let shard = (producer % self.shards as u64) as usize;
                    consume(&mut staged, shard, (producer, seq, base));
                }
                Ok(event) => {
                    let record_id = event.record_id.as_deref().unwrap_or_default();
                    let record = self.hash_key.record(&event.object, record_id);
                    let only = event.provider.clone();
                    let names = self
                        .accounts
                        .iter()
                        .filter(|name| only.as_deref().is_none_or(|only| only == *name));
                    let target = |name| Target {
                        name,
                        action: match name {
                            SYSTEM_A => TargetAction::Observe,
                            _ => TargetAction::Sync,
                        },
                        rule: 0,
                    };
                    let operation_seq = self.next_operation;
                    self.next_operation += OperationSeq::STEP;
                    let mut accepted = AcceptedEvent {
                        operation_seq,
                        record_hash: record.0,
                        accepted_at_ms: now_ms,
                        producer: Some(ProducerPosition {
                            producer_hash: producer,
                            seq,
                            acked_base: base,
                        }),
                        dedup: None,
                        targets: names.map(|name| target(name)).collect(),
                        rules_version: 0,
                        mapping_version: 0,
                        event,
                    };
                    let judged = self.judge.as_ref().map(|judge| judge.decide(&mut accepted));
                    if let Some(Err(_)) = judged {
                        // Beside what its record is told next, as the runtime has it.
                        let mut shard = record.vshard().owner(self.shards);
                        if self.mutant == Some(Mutant::RejectedKeptElsewhere) {
                            shard = (producer % self.shards as u64) as usize;
                        }
                        consume(&mut staged, shard, (producer, seq, base));
                        continue;
                    }
                    let shard = record.vshard().owner(self.shards);
                    let (batch, part) = staged.entry(shard).or_default();
                    batch.push_with(|out| accepted.encode_into(out));
                    part.push(seq);
                }
            }
        }
        self.last_batch += 1;
        let batch = self.last_batch;
        let barrier = self.barrier(client, session);
        let mut parcels = Vec::new();
        let mut parts = BTreeMap::new();
        for (shard, (events, part)) in staged {
            parts.insert(shard, part);
            parcels.push(Parcel {
                shard,
                events,
                barrier: barrier.clone(),
                ticket: Ticket::Part { batch, shard },
            });
        }
        let all = Batch {
            client,
            producer,
            seqs,
            parts,
            refused: Vec::new(),
        };
        let done = all.parts.is_empty() || self.mutant == Some(Mutant::AckBeforeDurable);
        self.batches.insert(batch, all);
        let ended = if done { self.end(batch) } else { None };
        (parcels, ended)
    }

    /// What all parcels of a connection share.
    fn barrier(&mut self, client: usize, session: u64) -> Barrier {
        if self.mutant == Some(Mutant::OvertakenRefusal) {
            return Barrier::default();
        }
        let kept = self.barriers.entry(client).or_default();
        if kept.0 != session {
            *kept = (session, Barrier::default());
        }
        kept.1.clone()
    }

    /// A shard has answered for its part.
    pub(super) fn answered(
        &mut self,
        batch: u64,
        shard: usize,
        refusal: Option<Code>,
    ) -> Option<Ended> {
        let under_way = self.batches.get_mut(&batch)?;
        let part = under_way.parts.remove(&shard).unwrap_or_default();
        if refusal.is_some() && self.mutant != Some(Mutant::AckedRefusal) {
            under_way.refused.extend(part);
        }
        if under_way.parts.is_empty() {
            self.end(batch)
        } else {
            None
        }
    }

    /// The numbers of a part, while its shard has not answered.
    pub(super) fn part(&self, batch: u64, shard: usize) -> Option<(u64, &[u64])> {
        let batch = self.batches.get(&batch)?;
        Some((batch.producer, batch.parts.get(&shard)?))
    }

    fn end(&mut self, batch: u64) -> Option<Ended> {
        let batch = self.batches.remove(&batch)?;
        let settled = self.producers.entry(batch.producer).or_default();
        settled.in_flight -= 1;
        settled
            .above
            .extend(batch.seqs.iter().filter(|seq| !batch.refused.contains(seq)));
        while settled.above.remove(&(settled.last + 1)) {
            settled.last += 1;
        }
        let last = settled.last;
        settled.above.retain(|&seq| seq > last);
        Some(Ended {
            client: batch.client,
            last,
            refused: !batch.refused.is_empty(),
        })
    }
}

/// A number that ends without an event is remembered by a shard.
fn consume(
    staged: &mut BTreeMap<usize, (EventBatch, Vec<u64>)>,
    shard: usize,
    (producer, seq, base): (u64, u64, u64),
) {
    let (batch, part) = staged.entry(shard).or_default();
    batch.consumed.push(Origin {
        producer,
        seq,
        base,
    });
    part.push(seq);
}
