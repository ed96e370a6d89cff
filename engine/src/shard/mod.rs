//! One shard: takes accepted events, keeps them in order per record, makes the calls, logs what
//! became of them.
//!
//! The driver tells it everything through [`Shard::handle`] and ends each turn with
//! [`Shard::upkeep`]; effects come out of [`Shard::poll`] once the log positions they depend on
//! are durable. What is decided goes into a log entry, and [`Index`] changes only by applying
//! entries, the same live and in replay.

mod absorb;
mod accept;
mod account;
mod barrier;
mod calls;
mod checkpoint;
mod class_mix;
mod clock_watch;
mod compare;
mod control;
mod crossing;
mod dead_letter;
mod dispatch;
mod effects;
mod endpoints;
mod explain;
mod feed;
mod fetch;
mod fill;
mod fold;
mod gather;
mod handoff;
mod heard;
mod item;
mod learned_book;
mod leases;
mod link_list;
mod links;
mod matching;
mod merged;
mod picture;
mod prepare;
mod pulls;
mod query;
mod recover;
mod redrive;
mod references;
mod refused;
mod relink;
mod relocate;
mod rendering;
mod replay;
mod resolve;
mod settle;
mod siblings;
mod sides;
mod source;
mod steady;
mod telling;
mod trade;
mod two_way;
mod unheard;
mod weights;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

pub use accept::{EventBatch, Origin};
pub use account::AccountPlan;
pub use barrier::Barrier;
pub use checkpoint::{Carry, CarryError, CheckpointPart, GeneralUnion, PartKind};
pub use compare::{Comparison, Listed};
pub use control::{Command, CommandReply};
pub use dead_letter::{DeadCause, DeadFilter, DeadId, DeadLetter, DeadSlice};
pub use explain::{Explanation, Wait};
pub use fetch::ListUse;
pub use handoff::{Handed, Handoff, KnownAs, News, Pull, provisional_id};
pub use learned_book::LearnedBook;
pub use leases::{LeaseBook, LoggedLease};
pub use link_list::{LinkCursor, LinkFilter, LinkRow, LinkSlice};
pub use links::{Asked, Child, LinkAnswer, LinkQuestion, LinkWord};
pub use merged::{Claim, Claimed};
pub use picture::{RecordPicture, SidePicture};
pub use query::{OpenCounts, Standing};
pub use recover::{Recovered, Recovery};
pub use refused::RefusedObject;
pub use relink::{LinkName, LinkStep};
pub use rendering::Rendering;
pub use replay::{ReplayCursor, ReplaySlice, ReplaySpan};
pub use resolve::Resolution;

pub use two_way::{DeletePolicy, Role, SYSTEM_A, TwoWay, extra};
pub use weights::Weights;

use crate::id::{HashKey, OperationSeq, RecordHash};
use crate::index::Index;
use crate::journal::Journal;
use crate::merge::Winner;
use crate::operation_slab::Target;
use crate::provider::{Reply, Request, SendFailure};
use crate::quota::{FromShard, Holdings, ShardId, ToShard};
use crate::record::KeyUse;
use crate::refusal::Code;
use crate::retry::Dice;
use crate::state::{CallClass, State};
use crate::time::{Mono, Now};
use account::Account;
use calls::CallTable;
use clock_watch::ClockWatch;
use effects::Effects;
use fetch::Fetches;
use handoff::Untold;
use heard::Heard;
use links::LinkBook;
use refused::RefusedObjects;
use relocate::Relocation;
use steady::{SaidBook, SteadyClock};
use unheard::Unheard;

/// Records looked at for calls in one turn at most, so that a turn stays short.
const RECORDS_PER_TURN: usize = 256;

/// What a shard needs to know at birth.
#[derive(Debug, Clone)]
pub struct ShardSettings {
    /// Its number among the shards of this run.
    pub id: ShardId,
    /// The data directory's secret.
    pub hash_key: HashKey,
    /// The present boot of the machine, so that leases of another are told apart.
    pub boot: u64,
    /// When the boot-time clock began, ms since the epoch by a clock that nobody sets; the same in all
    /// runs of this boot.
    pub booted_at_ms: i64,
    /// No operation that is accepted in this run has a lower number.
    pub first_seq: OperationSeq,
    /// Seed of its dice.
    pub seed: u64,
    /// Accounts of the configuration.
    pub accounts: Vec<Arc<AccountPlan>>,
}

/// One input. `T` is the driver's name for whoever waits for the result.
#[derive(Debug)]
pub enum Input<T> {
    /// Accepted events, to be taken all or not at all.
    Events {
        /// The events.
        batch: EventBatch,
        /// Of the connection that they came by.
        barrier: Barrier,
        /// Who waits.
        ticket: T,
    },
    /// A call ended.
    Reply {
        /// Which.
        call: CallId,
        /// How.
        result: Result<Reply, SendFailure>,
        /// Read from the clock after it ended.
        ended_at: Mono,
    },
    /// Word from the coordinator.
    Coordinator(ToShard),
    /// The log's durable position moved, or the log broke.
    Log {
        /// Whether a write failed: nothing is accepted or sent any more.
        poisoned: bool,
    },
    /// Word from another shard, or back from this one.
    Link(LinkWord),
    /// Ask an account for something that is no record's.
    Fetch {
        /// The account's name.
        account: Arc<str>,
        /// What for.
        list: ListUse,
        /// What fails with it, apart from all else of the account.
        endpoint: Arc<str>,
        /// What to send.
        request: Request,
        /// Who waits.
        ticket: T,
    },
    /// An operator's command.
    Control {
        /// What to do.
        command: Command,
        /// Who waits.
        ticket: T,
    },
}

/// One effect, safe to let out.
#[derive(Debug)]
pub enum Output<T> {
    /// The events of this ticket are durable.
    Accepted(T),
    /// None of this ticket's events was taken.
    Refused {
        /// Who waits.
        ticket: T,
        /// Why; one that time can cure.
        code: Code,
    },
    /// Make this call.
    Call {
        /// Its name in [`Input::Reply`].
        call: CallId,
        /// The account's plan, for its origin, headers and time-out.
        plan: Arc<AccountPlan>,
        /// What to send.
        request: Request,
    },
    /// Tell the coordinator.
    Coordinator(FromShard),
    /// Tell the shard that owns the record: [`LinkWord::owner`].
    Link(LinkWord),
    /// Tell this shard.
    LinkTo(ShardId, LinkWord),
    /// A fetch ended.
    Fetched {
        /// Who waits.
        ticket: T,
        /// With what.
        result: Result<Reply, SendFailure>,
    },
    /// A command was carried out.
    Done {
        /// Who waits.
        ticket: T,
        /// With what result.
        reply: CommandReply,
    },
}

/// One open call of a shard, unique for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallId(pub u64);

/// Something to be counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// A call ended.
    Call {
        /// The account called.
        account: Arc<str>,
        /// What it came to.
        class: CallClass,
        /// Records it carried.
        records: usize,
        /// From the decision to send to the answer.
        took: Duration,
    },
    /// An operation reached a final state at one target.
    Ended {
        /// The account.
        account: Arc<str>,
        /// What it was.
        operation: crate::event::Operation,
        /// How it ended.
        state: State,
        /// From acceptance to here; negative steps of the wall clock count as nothing.
        took: Duration,
    },
    /// A field that System A and an account had both changed was decided, or is left to an operator.
    Conflict {
        /// The account.
        account: Arc<str>,
        /// Whose value stands.
        winner: Winner,
    },
    /// Operations of one record ended with a newer one's call.
    Folded {
        /// The account.
        account: Arc<str>,
        /// What they were.
        operation: crate::event::Operation,
        /// How they ended.
        state: State,
        /// How many.
        count: u64,
    },
}

/// Observations kept between two drains; more are dropped, never blocking the turn.
const OBSERVATIONS_MAX: usize = 16 * 1024;

/// The state machine of one shard.
#[derive(Debug)]
pub struct Shard<T> {
    settings: ShardSettings,
    index: Index,
    /// What dispatch knows of each account, by the index's numbers.
    accounts: Vec<Account>,
    /// Accounts held whole for a time, by a word that is not in the log.
    suspended: Vec<Arc<str>>,
    calls: CallTable,
    /// Creates whose call was taken back before it left: their intents stand for nothing.
    unsent: HashSet<(RecordHash, OperationSeq, Target)>,
    /// What the last requests of open operations went under, where the newest state says nothing of
    /// that: the log could not be read when they ended, or an older operation leads in their place;
    /// by the newest operation of each.
    unlogged: HashMap<(RecordHash, OperationSeq, Target), KeyUse>,
    /// What the coordinator lets it do.
    holdings: Holdings,
    effects: Effects<Output<T>>,
    observations: Vec<Observation>,
    refused: RefusedObjects,
    links: LinkBook,
    heard: Heard,
    untold: Untold,
    unheard: Unheard,
    clock: ClockWatch,
    said: SaidBook,
    fetches: Fetches<T>,
    relocation: Option<Relocation>,
    relocated_below: wal::Lsn,
    /// Where the log ended when this life began.
    born: wal::Lsn,
    dice: Dice,
    scratch: Scratch,
    fenced: bool,
    /// The log had room for outcomes when work was last looked for.
    has_room: bool,
    /// No new calls: the process is about to stop.
    draining: bool,
}

/// Buffers reused from turn to turn.
#[derive(Debug, Default)]
struct Scratch {
    event: Vec<u8>,
    state: Vec<u8>,
    entry: Vec<u8>,
}

impl<T> Shard<T> {
    /// Handles one input. Effects become visible through [`Shard::poll`].
    pub fn handle(&mut self, now: Now, journal: &mut impl Journal, input: Input<T>) {
        self.clock.look(now);
        match input {
            Input::Events {
                batch,
                barrier,
                ticket,
            } => self.accept(now, journal, (&batch, &barrier), ticket),
            Input::Reply {
                call,
                result,
                ended_at,
            } => self.settle(now, journal, call, &result, ended_at),
            Input::Coordinator(word) => self.on_coordinator(now, journal, word),
            Input::Log { poisoned: false } => self.effects.on_durable(journal.durable()),
            Input::Log { poisoned: true } => self.fence(),
            Input::Fetch {
                account,
                list,
                endpoint,
                request,
                ticket,
            } => self.fetch(&account, (list, endpoint), request, ticket),
            Input::Link(word) => self.on_link_word(now, journal, word),
            Input::Control { command, ticket } => self.control(now, journal, command, ticket),
        }
    }

    /// Ends a turn: what is due wakes up, what can be sent is sent, what is not needed is
    /// given back.
    pub fn upkeep(&mut self, now: Now, journal: &mut impl Journal) {
        if self.fenced {
            return;
        }
        self.index.wake_due(now.mono);
        self.tend_endpoints(now.mono);
        self.relocate_some(now, journal);
        self.tell_again(now, journal);
        self.hear_waiting(now, journal);
        self.dispatch(now, journal);
        self.trade(now, journal);
        // What the turn logged may already be durable when the log is in memory only.
        self.effects.on_durable(journal.durable());
    }

    /// The next effect that may be let out. `now` is read just before: a call that waited for
    /// the disk beyond the last instant of its permit does not leave any more.
    pub fn poll(&mut self, now: Mono) -> Option<Output<T>> {
        loop {
            match self.effects.poll()? {
                Output::Call { call, .. } if !self.may_leave(now, call) => self.take_back(call),
                output => return Some(output),
            }
        }
    }

    /// When [`Shard::upkeep`] has something to do even if nothing comes in.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        if self.fenced {
            return None;
        }
        let lingering = self.accounts.iter().filter_map(|a| a.lingers_until).min();
        [
            self.index.next_timer(),
            self.holdings.next_deadline(),
            self.next_ask(),
            self.unheard.next_deadline(),
            lingering,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Takes out what was observed since the last time.
    pub fn drain_observations(&mut self) -> impl Iterator<Item = Observation> + '_ {
        self.observations.drain(..)
    }

    /// Heap memory of the index, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.index.memory_bytes()
    }

    /// Calls that are open.
    #[must_use]
    pub fn open_calls(&self) -> usize {
        self.calls.len()
    }

    /// Starts no more calls; those that are open end as usual.
    pub fn stop_calls(&mut self) {
        self.draining = true;
    }

    /// Whether upkeep left work that needs no new input: calls that may start, or compaction.
    #[must_use]
    pub fn has_work(&self) -> bool {
        let can_call = || !self.draining && self.accounts_can_start();
        let inner = || self.relocation.is_some() || self.takes_back() || self.has_untold();
        !self.fenced && (inner() || can_call())
    }

    /// Whether the log is poisoned and the shard takes nothing more.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    fn steady(&self) -> SteadyClock {
        SteadyClock {
            booted_at_ms: self.settings.booted_at_ms,
        }
    }

    fn fence(&mut self) {
        self.fenced = true;
        let waiting: Vec<Output<T>> = self.effects.abandon().collect();
        for effect in waiting {
            if let Output::Accepted(ticket) = effect {
                self.effects.push_unconditional(Output::Refused {
                    ticket,
                    code: Code::ShardDown,
                });
            }
        }
    }

    fn observe(&mut self, observation: Observation) {
        if self.observations.len() < OBSERVATIONS_MAX {
            self.observations.push(observation);
        }
    }
}
