//! The thread of one shard: gathers what came, lets the core decide, hands one block to the
//! disk, then lets effects out.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use engine::journal::Journal;
use engine::provider::{Reply, Request, SendFailure};
use engine::quota::{FromShard, ShardId, ToShard};
use engine::shard::{
    AccountPlan, CallId, Command, CommandReply, Input, LinkWord, ListUse, Observation, Output,
    Role, Shard,
};
use engine::time::{Mono, Now};
use net::egress::{Account, AccountSettings, Egress};
use net::metrics::{AccountLabel, MetricsWriter};
use tokio::sync::{Notify, mpsc, oneshot};
use wal::writer_thread::WriterHandle;
use wal::{Disk, Lsn};

use super::checkpointer::{CheckpointFeed, Checkpointing};
use super::clock;
use super::feed::Feed;
use super::journal::ShardLog;
use super::mailbox::{Mailbox, Parcel};
use super::postgres::Tables;
use super::query::Query;
use super::ticket::Part;

/// Parcels taken from the ring in one turn at most; a turn is what the disk commits at once.
const PARCELS_PER_TURN: usize = 256;
/// Idle time after which the log is sealed, so that its end is beyond doubt.
const SEAL_AFTER: Duration = Duration::from_millis(50);
/// Turns between two looks at the index's memory: at most 256 parcels each.
const MEMORY_EVERY_TURNS: u64 = 64;
/// Longest sleep without a reason to wake up.
const IDLE_MAX: Duration = Duration::from_secs(1);

/// Who waits for an effect of the core.
#[derive(Debug)]
pub(crate) enum Waiting {
    /// A part of a batch.
    Part(Part),
    /// A command.
    Command(oneshot::Sender<CommandReply>),
    /// A fetch.
    Fetch(oneshot::Sender<Result<Reply, SendFailure>>),
}

/// What the control side sends a shard.
#[derive(Debug)]
pub(crate) enum Word {
    /// From the coordinator.
    Coordinator(ToShard),
    /// An operator's command.
    Command(Command, oneshot::Sender<CommandReply>),
    /// Asks an account, at an endpoint of it, for a list.
    Fetch(
        Arc<str>,
        (ListUse, Arc<str>),
        Request,
        oneshot::Sender<Result<Reply, SendFailure>>,
    ),
    /// A question.
    Query(Query),
    /// From another shard.
    Link(LinkWord),
    /// Calls of an account that begin from now on go this way.
    Egress(Arc<str>, Box<AccountSettings>, Option<AccountLabel>),
}

/// How a shard reaches another.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) words: mpsc::Sender<Word>,
    pub(crate) wake: Arc<Notify>,
}

/// Figures of a shard, written by its thread only, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) memory_bytes: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) fenced: AtomicBool,
    pub(crate) disk_full: AtomicBool,
    pub(crate) durable: AtomicU64,
}

/// Everything that a shard's thread owns.
pub(crate) struct ShardThread {
    pub(crate) id: ShardId,
    pub(crate) shard: Shard<Waiting>,
    pub(crate) journal: ShardLog<Disk>,
    pub(crate) writer: WriterHandle,
    pub(crate) mailbox: Mailbox,
    pub(crate) words: mpsc::Receiver<Word>,
    /// All shards, this one too, by their numbers.
    pub(crate) peers: Vec<Peer>,
    pub(crate) coordinator: mpsc::Sender<(ShardId, FromShard)>,
    pub(crate) wake: Arc<Notify>,
    /// Where changes for System A go when it is a database.
    pub(crate) tables: Option<Arc<Tables>>,
    pub(crate) egress: Egress,
    pub(crate) accounts: HashMap<Arc<str>, Rc<Account>>,
    /// Where changes for System A go when it subscribes to them.
    pub(crate) feed: Option<Arc<Feed>>,
    pub(crate) gauges: Arc<Gauges>,
    pub(crate) metrics: MetricsWriter,
    pub(crate) labels: HashMap<Arc<str>, AccountLabel>,
    pub(crate) checkpoints: CheckpointFeed,
    pub(crate) checkpoint_covers: Lsn,
    pub(crate) memory_max: u64,
    pub(crate) stopping: Arc<AtomicBool>,
    pub(crate) drain_deadline: Duration,
}

/// Calls that ended since the last turn.
type Ended = Rc<RefCell<VecDeque<(CallId, Result<Reply, SendFailure>, Mono)>>>;

/// How a call leaves.
enum Way {
    Egress(Rc<Account>),
    Feed(Arc<Feed>),
    Tables(Arc<Tables>),
}

/// The state of the loop beside the thread's possessions.
struct Turn {
    ended: Ended,
    egress: Rc<Egress>,
    /// A parcel that found no room; intake waits behind it.
    held: Option<Parcel>,
    /// Words to the coordinator that found its mailbox full.
    unsaid: VecDeque<FromShard>,
    /// Words to other shards.
    links: VecDeque<(usize, LinkWord)>,
    committing_since: Option<Mono>,
    last_commit: Mono,
    sealed_to: Lsn,
    checkpointing: Checkpointing,
    stop_since: Option<Mono>,
}

impl ShardThread {
    /// Runs until it is told to stop and its log is sealed.
    pub(crate) async fn run(mut self) {
        let now = clock::now();
        let mut turn = Turn {
            ended: Rc::default(),
            egress: Rc::new(std::mem::replace(
                &mut self.egress,
                Egress::new(net::egress::EgressSettings::default()),
            )),
            held: None,
            unsaid: VecDeque::new(),
            links: VecDeque::new(),
            committing_since: None,
            last_commit: now.mono,
            sealed_to: Lsn::ZERO,
            checkpointing: Checkpointing::new(self.checkpoint_covers),
            stop_since: None,
        };
        loop {
            let worked = self.turn(&mut turn);
            if self.is_stopped(&mut turn) {
                break;
            }
            if worked {
                tokio::task::yield_now().await;
            } else {
                let sleep = self.sleep(&turn);
                // Whichever comes first; the timer is precise to a millisecond.
                drop(tokio::time::timeout(sleep, self.wake.notified()).await);
            }
        }
        self.writer.stop();
    }

    /// One turn; whether it did anything that may have left more to do.
    fn turn(&mut self, turn: &mut Turn) -> bool {
        let now = clock::now();
        let mut worked = self.hear(now, turn);
        worked |= self.take_answers(now, turn);
        worked |= self.take_replies(now, turn);
        worked |= self.take_parcels(now, turn);
        self.shard.upkeep(now, &mut self.journal);
        worked |= self.checkpoint(now, turn);
        worked |= self.let_out(turn);
        self.commit(now, turn);
        self.publish();
        worked || self.shard.has_work()
    }

    fn hear(&mut self, now: Now, turn: &Turn) -> bool {
        let mut heard = false;
        while let Ok(word) = self.words.try_recv() {
            heard = true;
            match word {
                Word::Coordinator(word) => self.handle(now, Input::Coordinator(word)),
                Word::Command(command, reply) => {
                    self.handle(
                        now,
                        Input::Control {
                            command,
                            ticket: Waiting::Command(reply),
                        },
                    );
                }
                Word::Fetch(account, (list, endpoint), request, reply) => {
                    let ticket = Waiting::Fetch(reply);
                    let input = Input::Fetch {
                        account,
                        list,
                        endpoint,
                        request,
                        ticket,
                    };
                    self.handle(now, input);
                }
                Word::Query(query) => query.answer(now, &mut self.shard, &mut self.journal),
                Word::Link(word) => self.handle(now, Input::Link(word)),
                Word::Egress(name, settings, label) => match turn.egress.account(*settings) {
                    Ok(account) => {
                        self.labels.extend(label.map(|label| (name.clone(), label)));
                        self.accounts.insert(name, Rc::new(account));
                    }
                    Err(error) => {
                        tracing::error!(account = &*name, error = %chain(&error), "the account is called as before");
                    }
                },
            }
        }
        heard
    }

    fn take_answers(&mut self, now: Now, turn: &mut Turn) -> bool {
        let mut answered = false;
        while let Some(answer) = self.writer.poll_answer() {
            answered = true;
            if let Err(error) = &answer {
                tracing::error!(shard = self.id.0, error = %chain(error), "the log failed; the shard takes nothing more");
            }
            if let Some(since) = turn.committing_since.take() {
                self.metrics.wal_commit(now.mono.saturating_since(since));
            }
            let poisoned = self.journal.log().on_committed(answer).is_err();
            turn.last_commit = now.mono;
            self.handle(now, Input::Log { poisoned });
        }
        answered
    }

    fn take_replies(&mut self, now: Now, turn: &mut Turn) -> bool {
        let mut ended = turn.ended.borrow_mut();
        let mut any = false;
        // Each outcome may take a megabyte; what finds no room stays for after the next commit.
        while self.journal.room(engine::journal::Class::Outcome) > 2 * 1024 * 1024
            && let Some((call, result, ended_at)) = ended.pop_front()
        {
            any = true;
            self.shard.handle(
                now,
                &mut self.journal,
                Input::Reply {
                    call,
                    result,
                    ended_at,
                },
            );
        }
        any
    }

    fn take_parcels(&mut self, now: Now, turn: &mut Turn) -> bool {
        self.journal.refresh_space();
        if self.gauges.memory_bytes.load(Ordering::Relaxed) > self.memory_max
            && !self.shard.is_fenced()
        {
            // Held back: the ring fills, and its senders stop reading.
            return false;
        }
        let mut taken = 0;
        while taken < PARCELS_PER_TURN
            && let Some(parcel) = turn.held.take().or_else(|| self.mailbox.pop())
        {
            let room = self.shard.has_room_for(&self.journal, &parcel.batch);
            if !room
                && self.journal.intake_open()
                && !self.shard.is_fenced()
                && (self.journal.log().staged_bytes() > 0 || self.journal.log().is_preparing())
            {
                turn.held = Some(parcel);
                break;
            }
            taken += 1;
            self.metrics.events_accepted(parcel.batch.len() as u64);
            let ticket = Waiting::Part(parcel.part);
            self.handle(
                now,
                Input::Events {
                    batch: parcel.batch,
                    barrier: parcel.barrier,
                    ticket,
                },
            );
        }
        taken > 0
    }

    fn handle(&mut self, now: Now, input: Input<Waiting>) {
        self.shard.handle(now, &mut self.journal, input);
    }

    fn let_out(&mut self, turn: &mut Turn) -> bool {
        let mut any = false;
        while let Some(output) = self.shard.poll(clock::now().mono) {
            any = true;
            match output {
                Output::Accepted(Waiting::Part(part)) => part.durable(),
                Output::Refused {
                    ticket: Waiting::Part(part),
                    code,
                } => part.refused(code),
                Output::Done {
                    ticket: Waiting::Command(reply),
                    reply: result,
                } => {
                    // Whoever asked may have gone.
                    let _gone = reply.send(result);
                }
                Output::Fetched {
                    ticket: Waiting::Fetch(reply),
                    result,
                } => drop(reply.send(result)),
                Output::Call {
                    call,
                    plan,
                    request,
                } => self.call(turn, call, &plan, request),
                Output::Coordinator(word) => turn.unsaid.push_back(word),
                Output::Link(word) => {
                    if let Some(record) = word.owner() {
                        let owner = record.vshard().owner(self.peers.len());
                        turn.links.push_back((owner, word));
                    }
                }
                Output::LinkTo(shard, word) => turn.links.push_back((usize::from(shard.0), word)),
                Output::Accepted(Waiting::Command(_) | Waiting::Fetch(_))
                | Output::Refused {
                    ticket: Waiting::Command(_) | Waiting::Fetch(_),
                    ..
                }
                | Output::Done {
                    ticket: Waiting::Part(_) | Waiting::Fetch(_),
                    ..
                }
                | Output::Fetched {
                    ticket: Waiting::Part(_) | Waiting::Command(_),
                    ..
                } => {
                    unreachable!("each kind of input has its own kind of answer")
                }
            }
        }
        while let Some(word) = turn.unsaid.pop_front() {
            if let Err(mpsc::error::TrySendError::Full((_, word))) =
                self.coordinator.try_send((self.id, word))
            {
                turn.unsaid.push_front(word);
                break;
            }
        }
        self.pass_links_on(turn);
        self.observe();
        any
    }

    /// Hands words to other shards. What finds a full mailbox waits for the next turn: questions are
    /// bounded where they are asked, and each has one answer.
    fn pass_links_on(&self, turn: &mut Turn) {
        for _ in 0..turn.links.len() {
            let Some((to, word)) = turn.links.pop_front() else {
                return;
            };
            let Some(peer) = self.peers.get(to) else {
                continue;
            };
            match peer.words.try_send(Word::Link(word)) {
                Ok(()) => peer.wake.notify_one(),
                Err(mpsc::error::TrySendError::Full(Word::Link(word))) => {
                    turn.links.push_back((to, word));
                }
                // The shard is gone, and the process about to end.
                Err(_) => {}
            }
        }
    }

    fn observe(&mut self) {
        for observation in self.shard.drain_observations() {
            match observation {
                Observation::Call {
                    account,
                    class,
                    records,
                    took,
                } => {
                    if let Some(&label) = self.labels.get(&account) {
                        self.metrics.call(label, class, took, records);
                    }
                }
                Observation::Ended {
                    account,
                    operation,
                    state,
                    took,
                } => {
                    self.metrics.end_to_end(took);
                    if let Some(&label) = self.labels.get(&account) {
                        self.metrics.operations(label, operation, state, 1);
                    }
                }
                Observation::Conflict { account, winner } => {
                    if let Some(&label) = self.labels.get(&account) {
                        self.metrics.conflict(label, winner);
                    }
                }
                Observation::Folded {
                    account,
                    operation,
                    state,
                    count,
                } => {
                    if let Some(&label) = self.labels.get(&account) {
                        self.metrics.operations(label, operation, state, count);
                    }
                }
            }
        }
    }

    fn call(&mut self, turn: &Turn, call: CallId, plan: &AccountPlan, request: Request) {
        let (ended, wake, egress) = (turn.ended.clone(), self.wake.clone(), turn.egress.clone());
        let told = plan.role == Role::SystemA;
        let tables = self.tables.clone().filter(|_| told).map(Way::Tables);
        let feed = self.feed.clone().filter(|_| told).map(Way::Feed);
        let way = match (tables.or(feed), self.accounts.get(&plan.name)) {
            (Some(way), _) => way,
            (_, Some(account)) => Way::Egress(account.clone()),
            (_, None) => {
                debug_assert!(false, "every planned account has an egress side");
                return;
            }
        };
        tokio::task::spawn_local(async move {
            let result = match way {
                Way::Egress(account) => egress.call(&account, &request).await,
                Way::Feed(feed) => feed.offer(request.body).await,
                Way::Tables(tables) => tables.write(request.body).await,
            };
            ended
                .borrow_mut()
                .push_back((call, result, clock::now().mono));
            wake.notify_one();
        });
    }

    fn commit(&mut self, now: Now, turn: &mut Turn) {
        let idle = self.journal.log().is_idle();
        if idle
            && turn.sealed_to != self.journal.end()
            && now.mono.saturating_since(turn.last_commit) >= SEAL_AFTER
        {
            self.journal.log().seal();
            // A log that ends with a seal already hands out no other.
            turn.sealed_to = self.journal.end();
        }
        if let Some(block) = self
            .journal
            .log()
            .take_block(now.wall.0.max(0).unsigned_abs())
        {
            if idle {
                turn.sealed_to = block.end();
            }
            turn.committing_since = Some(now.mono);
            self.writer.submit(block);
        }
    }

    fn checkpoint(&mut self, now: Now, turn: &mut Turn) -> bool {
        turn.checkpointing.step(
            now,
            &mut self.shard,
            &mut self.journal,
            &mut self.checkpoints,
        )
    }

    fn publish(&self) {
        let gauges = &self.gauges;
        let turns = gauges.turns.load(Ordering::Relaxed);
        gauges.turns.store(turns + 1, Ordering::Relaxed);
        // Adding up a thousand tables costs microseconds; a few hundred turns add little memory.
        if turns.is_multiple_of(MEMORY_EVERY_TURNS) {
            let bytes = self.shard.memory_bytes() as u64;
            gauges.memory_bytes.store(bytes, Ordering::Relaxed);
        }
        gauges
            .fenced
            .store(self.shard.is_fenced(), Ordering::Relaxed);
        gauges
            .disk_full
            .store(!self.journal.intake_open(), Ordering::Relaxed);
        gauges
            .durable
            .store(self.journal.durable().get(), Ordering::Relaxed);
    }

    fn sleep(&self, turn: &Turn) -> Duration {
        let seal = if turn.sealed_to == self.journal.end() {
            IDLE_MAX
        } else {
            SEAL_AFTER
        };
        if turn.stop_since.is_some() {
            return Duration::from_millis(1);
        }
        let due = self.shard.next_deadline().map_or(IDLE_MAX, clock::until);
        due.min(seal).max(Duration::from_micros(100))
    }

    /// A stop first lets open calls end, up to a deadline, then seals the log.
    fn is_stopped(&mut self, turn: &mut Turn) -> bool {
        if !self.stopping.load(Ordering::Acquire) {
            return false;
        }
        let now = clock::now().mono;
        let since = *turn.stop_since.get_or_insert(now);
        self.shard.stop_calls();
        let quiet = self.shard.open_calls() == 0 && self.mailbox.len() == 0 && turn.held.is_none();
        let over = now.saturating_since(since) >= self.drain_deadline;
        if self.shard.is_fenced() {
            return true;
        }
        let sealed = self.journal.log().is_idle() && turn.sealed_to == self.journal.end();
        if quiet || over {
            if sealed {
                return true;
            }
            // The seal follows at once instead of after the idle time.
            turn.last_commit = Mono(0);
        }
        false
    }
}

/// An error with everything beneath it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
