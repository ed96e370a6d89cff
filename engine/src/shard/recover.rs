//! Coming back: a checkpoint, then every later entry, through the same functions as live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use wal::Lsn;

use super::account::Account;
use super::calls::CallTable;
use super::checkpoint::{self, CheckpointPart};
use super::clock_watch::ClockWatch;
use super::effects::Effects;
use super::fetch::Fetches;
use super::handoff::Untold;
use super::heard::Heard;
use super::links::LinkBook;
use super::refused::RefusedObjects;
use super::steady::SaidBook;
use super::unheard::Unheard;
use super::{AccountPlan, LoggedLease, Output, Scratch, Shard, ShardSettings};
use crate::codec::Damaged;
use crate::entry::{Consumed, HoldChange, Intent, Lease, LeaseReturn};
use crate::event::codec;
use crate::id::{OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use crate::index::Index;
use crate::journal::Kind;
use crate::producers::Seen;
use crate::quota::{Holdings, Learned};
use crate::record::StateFrame;
use crate::retry::Dice;
use crate::time::{Mono, Now};

/// A shard that is being rebuilt from its log.
#[derive(Debug)]
pub struct Recovery<T> {
    shard: Shard<T>,
    /// Up to where each virtual shard's part of the checkpoint has seen the log.
    seen: Vec<Lsn>,
    seen_general: Lsn,
    /// Entries applied.
    replayed: u64,
}

/// What others need of a recovered shard.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Leases that count as spent.
    pub leases: Vec<LoggedLease>,
    /// Sizes of limits, as they were learned.
    pub learned: Vec<Learned>,
    /// What this shard settled per producer.
    pub producers: Vec<(u64, Seen)>,
    /// Entries replayed after the checkpoint.
    pub replayed: u64,
}

impl<T> Recovery<T> {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(
        settings: ShardSettings,
        owned: impl IntoIterator<Item = VShard>,
        base: Mono,
    ) -> Self {
        let mut index = Index::new(owned, base);
        let accounts = settings
            .accounts
            .iter()
            .map(|plan: &Arc<AccountPlan>| {
                index.account(&plan.name);
                Account::new(&plan.name, Some(plan.clone()))
            })
            .collect();
        let dice = Dice::seeded(settings.seed);
        let shard = Shard {
            settings,
            index,
            accounts,
            suspended: Vec::new(),
            calls: CallTable::default(),
            unsent: HashSet::new(),
            unlogged: HashMap::new(),
            holdings: Holdings::new(),
            effects: Effects::new(Lsn::ZERO),
            observations: Vec::new(),
            refused: RefusedObjects::default(),
            links: LinkBook::default(),
            heard: Heard::default(),
            untold: Untold::default(),
            unheard: Unheard::default(),
            clock: ClockWatch::default(),
            said: SaidBook::default(),
            fetches: Fetches::default(),
            relocation: None,
            relocated_below: Lsn::ZERO,
            born: Lsn::ZERO,
            dice,
            scratch: Scratch::default(),
            fenced: false,
            has_room: true,
            draining: false,
        };
        Self {
            shard,
            seen: vec![Lsn::ZERO; VSHARD_COUNT],
            seen_general: Lsn::ZERO,
            replayed: 0,
        }
    }

    /// Takes one part of a checkpoint.
    ///
    /// # Errors
    /// [`Damaged`] when it does not decode; the recovery must be begun anew without it.
    pub fn load(&mut self, part: &CheckpointPart) -> Result<(), Damaged> {
        checkpoint::load(self, part)
    }

    /// Applies one log entry.
    ///
    /// # Errors
    /// [`Damaged`] when an entry whose checksum is right does not decode: a newer version's
    /// log. Nothing may be served from it.
    pub fn replay(&mut self, now: Now, at: Lsn, kind: Kind, payload: &[u8]) -> Result<(), Damaged> {
        self.replayed += 1;
        let general = at >= self.seen_general;
        let shard = &mut self.shard;
        match kind {
            Kind::Event => {
                let event = codec::decode(payload).map_err(|_| Damaged {
                    what: "event",
                    offset: 0,
                })?;
                if let Some(from) = event.producer.filter(|_| general) {
                    shard
                        .index
                        .producers
                        .settle(from.producer_hash, from.seq, from.acked_base);
                }
                if self.seen[RecordHash(event.record_hash).vshard().index()] <= at {
                    shard.index.note_object(&event.event.object);
                    shard.queue_targets(now, at, &event);
                }
            }
            Kind::EventMoved | Kind::EventRedriven => {
                let event = codec::decode(payload).map_err(|_| Damaged {
                    what: "event",
                    offset: 0,
                })?;
                let record = RecordHash(event.record_hash);
                if self.seen[record.vshard().index()] <= at {
                    for account in event.targets.iter().map(|target| target.name) {
                        let target = shard.account(account);
                        if kind == Kind::EventMoved {
                            let seq = OperationSeq(event.operation_seq);
                            shard.index.apply_event_moved(at, record, seq, target);
                        } else {
                            let accepted = {
                                let flow = shard.flow_of(&event.event);
                                super::accept::accepted(now, &event, target, flow)
                            };
                            shard.index.apply_redrive(at, &accepted);
                        }
                    }
                }
            }
            Kind::Intent => {
                let intent = Intent::decode(payload)?;
                if self.seen[intent.record.vshard().index()] <= at {
                    let target = shard.account(intent.account);
                    shard.index.apply_intent(intent.record, intent.seq, target);
                }
            }
            Kind::State | Kind::StateMoved => {
                let frame = StateFrame::decode(payload)?;
                if self.seen[RecordHash(frame.record).vshard().index()] <= at {
                    for target in &frame.records[0].targets {
                        shard.account(&target.account);
                    }
                    shard.index.note_object(&frame.records[0].object);
                    shard.index.apply_state(now, at, &frame);
                    shard.untold.replay(&frame);
                }
            }
            Kind::Lease if general => shard.index.leases.apply_lease(&Lease::decode(payload)?),
            Kind::LeaseReturn if general => shard
                .index
                .leases
                .apply_return(LeaseReturn::decode(payload)?),
            Kind::Learned if general => shard.index.learned.apply(&Learned::decode(payload)?),
            Kind::Hold if general => shard.index.apply_hold(&HoldChange::decode(payload)?),
            Kind::Consumed if general => {
                let consumed = Consumed::decode(payload)?;
                for &seq in &consumed.seqs {
                    shard
                        .index
                        .producers
                        .settle(consumed.producer, seq, consumed.acked_base);
                }
            }
            Kind::Lease | Kind::LeaseReturn | Kind::Learned | Kind::Hold | Kind::Consumed => {}
        }
        Ok(())
    }

    /// The shard, ready to serve once its log is durable up to `durable`, which is where the
    /// recovered log ends.
    #[must_use]
    pub fn finish(mut self, now: Now, durable: Lsn) -> (Shard<T>, Recovered) {
        let shard = &mut self.shard;
        shard.index.leases.prune(now.wall);
        shard.index.sort_ready();
        shard.effects = Effects::new(durable);
        shard.born = durable;
        shard.refresh_pauses();
        let began_at_ms = shard.steady().ms(now);
        shard.heard.begin(began_at_ms);
        shard.said.begin(began_at_ms);
        // What a shard says first: that it is there and holds nothing.
        while let Some(word) = shard.holdings.poll() {
            shard.effects.push_unconditional(Output::Coordinator(word));
        }
        let recovered = Recovered {
            leases: shard.index.leases.logged().cloned().collect(),
            learned: shard.index.learned.iter().collect(),
            producers: shard
                .index
                .producers
                .sorted()
                .into_iter()
                .map(|(id, seen)| (id, seen.clone()))
                .collect(),
            replayed: self.replayed,
        };
        (self.shard, recovered)
    }

    pub(super) fn parts(&mut self) -> (&mut Shard<T>, &mut Vec<Lsn>, &mut Lsn) {
        (&mut self.shard, &mut self.seen, &mut self.seen_general)
    }
}
