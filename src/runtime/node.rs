//! Starting and stopping the engine: threads, what connects them, and the order of both.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::dedup::{DedupBounds, DedupIndex, EventKeys};
use engine::producers::Producers;
use engine::quota::{Coordinator, Learned, LeaseId, RecoveredLease, ShardId, Start};
use engine::shard::{ListUse, Recovered};
use net::egress::{AccountSettings, Egress, EgressSettings};
use net::gate::wake_gate;
use net::http::HttpLimits;
use net::ingest::{Driver, Limits, Server, SessionId, StopSignal};
use net::metrics::Metrics;
use net::subscription::Subscriptions;
use tokio::sync::{Notify, mpsc, watch};
use wal::{DataDir, Disk, writer_thread};

use super::account_store::AccountStore;
use super::backend::Node;
use super::boot_clock::BootClock;
use super::causes::Causes;
use super::checkpointer::{CheckpointFeed, Checkpointer, EventIdRules, Keep};
use super::feed::{Arrivals, Desk, Feed};
use super::in_force::InForce;
use super::inbound::{
    CursorFile, GapNotice, InboundObjects, Poller, PullSink, ShardFetcher, WebhookIntake,
    account_polls, webhook_accounts,
};
use super::intake::{Shared, ThreadIntake};
use super::keys::Keys;
use super::links::{LinkAudit, Links};
use super::mailbox::Mailbox;
use super::open::{self, OpenPlan, OpenedShard};
use super::postgres::{Database, Tables};
use super::registry::Registry;
use super::remembered::Remembered;
use super::renderings::Renderings;
use super::rule_store::RuleStore;
use super::shard_thread::{Gauges, Peer, ShardThread, Word, chain};
use super::shards::Shards;
use super::tokens::{SealKeeper, Tokens};
use super::tuning::Tuning;
use super::walks::Walks;
use super::{StartError, clock, coordinator, plans};
use crate::settings::{Retention, Settings, SystemASettings};

/// Words that wait for a shard at most; more wait with their sender.
const WORDS_MAX: usize = 4096;
/// Words that wait for the coordinator at most.
const COORDINATOR_WORDS_MAX: usize = 16 * 1024;
/// Gaps that wait for their resyncs; more wait with the polls that found them.
const GAPS_MAX: usize = 16;
/// How long a stop waits for open calls.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    tcp: SocketAddr,
    http: SocketAddr,
    webhooks: Option<SocketAddr>,
    node: Arc<Node>,
    ingest_stop: StopSignal,
    http_stop: watch::Sender<bool>,
    stopping: Arc<AtomicBool>,
    ingest: Option<JoinHandle<()>>,
    control: Option<JoinHandle<()>>,
    shards: Vec<JoinHandle<()>>,
    checkpointer: Option<Checkpointer>,
    tokens: Arc<Tokens>,
    dir: Option<DataDirHandle>,
}

/// Keeps the lock on the data directory.
struct DataDirHandle(DataDir<Disk>);

impl std::fmt::Debug for DataDirHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DataDir")
    }
}

impl Engine {
    /// Recovers what the data directory holds and begins to serve.
    ///
    /// # Errors
    /// [`StartError`]; nothing was accepted or sent.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let count = shard_count(settings);
        let tcp = listener("tcp", settings.listen.tcp)?;
        let http = listener("http", settings.listen.http)?;
        let (tcp_at, http_at) = (address(&tcp)?, address(&http)?);
        let webhooks = settings.listen.webhooks;
        let webhooks = webhooks.map(|at| listener("webhooks", at)).transpose()?;
        let webhooks_at = webhooks.as_ref().map(address).transpose()?;

        let mut dir = open::data_dir(&settings.server.data_dir)?;
        let superblock = *dir.superblock();
        let file = settings;
        let data_dir = &file.server.data_dir;
        let seal = Arc::new(SealKeeper::new(data_dir, file.server.secret_key.clone()));
        let unreadable =
            |error: &dyn std::error::Error| StartError::data_dir(&file.server.data_dir, error);
        let accounts =
            AccountStore::load(data_dir, file, seal.clone()).map_err(|error| unreadable(&error))?;
        let tuning = Tuning::load(data_dir, file, accounts).map_err(|error| unreadable(&error))?;
        if let Err(refusal) = tuning.expire(clock::now().wall.0) {
            let source = std::io::Error::other(refusal.to_string());
            return Err(StartError::system(
                "end an override whose time is over",
                source,
            ));
        }
        let tuning = Arc::new(tuning);
        let settings = &tuning.effective();
        let mut plans = plans::account_plans(settings)?;
        let tokens = Arc::new(Tokens::new(data_dir.clone(), seal)?);
        for (name, provider) in &tuning.configured().providers {
            tokens.put(name, provider, tuning.token_addresses(name))?;
        }
        let egress = plans::egress_accounts(settings, &tuning, tokens.cells())?;
        let feed = feed(settings)?;
        let steady = BootClock::open(data_dir, clock::boot(), clock::now())
            .map_err(|error| unreadable(&error))?;
        let renderings = plans
            .iter()
            .map(|plan| Ok((plan.name.to_string(), plans::rendering(settings, plan)?)))
            .collect::<Result<Vec<_>, StartError>>()?;
        let renderings = Renderings::begin(data_dir, superblock.run_epoch, renderings)
            .map_err(|error| unreadable(&error))?;
        for plan in &mut plans {
            let renewed = renderings.renewed(&plan.name);
            Arc::make_mut(plan).renewed = renewed;
        }
        let mut plan = OpenPlan::new(settings, count, plans, steady.booted_at_ms());
        let key_seed =
            u64::from_le_bytes(*superblock.hash_key.first_chunk().expect("16 bytes have 8"));
        plan.dedup_keys = EventIdRules {
            keys: EventKeys::new(key_seed),
        };
        let (rule_store, rules) = RuleStore::open(&settings.server.data_dir, &settings.rules)
            .map_err(|error| StartError::data_dir(&settings.server.data_dir, &error))?;
        let opened = open::shards(&mut dir, &plan)?;

        let causes = Causes::compare(&settings.server.data_dir, settings, key_seed);
        let coordinator = coordinator(settings, count, superblock.run_epoch, &opened)?;
        let database = Database::of(settings)?;
        let wakes: Vec<Arc<Notify>> = opened.iter().map(|_| Arc::default()).collect();
        let ring = settings.shards.ring_capacity.get();
        let remembered = Arc::new(remembered(settings, key_seed, &opened));
        let (checkpointer, outcomes) =
            Checkpointer::spawn(remembered.clone(), usize::from(count), wakes.clone())
                .map_err(|source| StartError::system("start the checkpoint thread", source))?;
        let shared = Arc::new(Shared {
            router: plans::router(
                settings,
                &plan.accounts,
                rules,
                engine::id::HashKey(superblock.hash_key),
                usize::from(count),
                superblock.run_epoch,
            )?,
            mailboxes: wakes
                .iter()
                .map(|wake| Mailbox::new(ring, wake.clone()))
                .collect(),
            registry: registry(&opened),
            remembered: remembered.clone(),
            threads: Mutex::default(),
        });
        let metrics = Metrics::new(
            settings
                .providers
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
        );
        let stopping = Arc::new(AtomicBool::new(false));
        let (to_coordinator, from_shards) = mpsc::channel(COORDINATOR_WORDS_MAX);
        let (words, heard): (Vec<_>, Vec<_>) =
            wakes.iter().map(|_| mpsc::channel(WORDS_MAX)).unzip();
        let peers: Vec<Peer> = words
            .iter()
            .zip(&wakes)
            .map(|(words, wake)| Peer {
                words: words.clone(),
                wake: wake.clone(),
            })
            .collect();
        let mut gauges = Vec::new();
        let mut threads = Vec::new();
        let memory_each = settings.memory.max.0 / u64::from(count);
        let retention = retention(settings, count);
        let opened = opened.into_iter().zip(wakes).zip(outcomes).zip(heard);
        for (((opened, wake), outcome), words) in opened {
            let gauge = Arc::new(Gauges::default());
            gauges.push(gauge.clone());
            let parts = ShardParts {
                number: opened.log.shard,
                checkpoints: checkpointer.feed(
                    dir.log_folder(opened.log),
                    opened.log,
                    superblock.instance,
                    retention,
                    outcome,
                ),
                mailbox: shared.mailboxes[usize::from(opened.log.shard)].clone(),
                opened,
                words,
                peers: peers.clone(),
                coordinator: to_coordinator.clone(),
                wake,
                tables: database.as_ref().and_then(Database::tables),
                egress: egress.clone(),
                feed: feed.clone(),
                gauges: gauge,
                metrics: metrics.clone(),
                memory_max: memory_each,
                stopping: stopping.clone(),
                cpu: pinned_cpu(settings, count, threads.len()),
            };
            threads.push(parts.spawn()?);
        }
        drop(to_coordinator);

        let shards = Shards {
            shared: shared.clone(),
            words: words.clone().into(),
        };
        let in_force = InForce::new(
            tuning,
            shards.clone(),
            coordinator.clone(),
            (tokens.clone(), metrics.clone()),
            (settings.clone(), renderings),
        );
        let objects = InboundObjects::of(plan.accounts.iter().map(Arc::as_ref));
        let plans = plan.accounts.iter().map(Arc::as_ref);
        let polls = account_polls(settings, plans, &objects, clock::now().wall.0);
        let (gaps, gap_notices) = mpsc::channel(GAPS_MAX);
        let pull_sink = Arc::new(PullSink::new(shards.clone(), objects, gaps));
        let fetcher = |list| Arc::new(ShardFetcher::new(shards.clone(), list));
        let poll_fetcher = fetcher(ListUse::Poll);
        let poll_metrics = Arc::new(Mutex::new(metrics.writer()));
        let pollers = polls
            .into_iter()
            .map(|polls| {
                let data_dir = &settings.server.data_dir;
                let cursors = CursorFile::load(data_dir, &polls.account)
                    .map_err(|error| StartError::data_dir(data_dir, &error))?;
                let label = metrics.account(&polls.account);
                Ok(Poller::new(
                    polls,
                    cursors,
                    poll_fetcher.clone(),
                    pull_sink.clone(),
                    (poll_metrics.clone(), label),
                    Box::new(|| clock::now().wall.0),
                ))
            })
            .collect::<Result<Vec<_>, StartError>>()?;
        let webhook_intake = WebhookIntake::new(
            webhook_accounts(settings, &metrics)?,
            settings.server.public_url.as_deref(),
            pull_sink.clone(),
            metrics.writer(),
            || clock::now().wall.0,
        );
        let audit =
            LinkAudit::load(data_dir).map_err(|error| StartError::data_dir(data_dir, &error))?;
        let links = Arc::new(Links::new(shards.clone(), audit));
        let in_force = Arc::new(in_force);
        let walks = Walks::open(
            data_dir,
            (shards.clone(), links.clone()),
            (fetcher(ListUse::Walk), pull_sink),
            (coordinator.clone(), in_force.clone()),
            database.as_ref().map(Database::rows),
        )
        .map_err(|error| StartError::data_dir(data_dir, &error))?;
        let node = Arc::new(Node {
            links,
            walks: Arc::new(walks),
            shards,
            webhooks: webhook_intake,
            in_force,
            jobs: Arc::default(),
            keys: Arc::new(Keys::new(&file.server.data_dir, http_at)),
            feed: feed.clone(),
            coordinator: coordinator.clone(),
            metrics: metrics.clone(),
            rejected: Mutex::new(metrics.writer()),
            gauges,
            rule_store: Mutex::new(rule_store),
            tokens: tokens.cells().clone(),
            trends: super::account_outlook::Trends::default(),
        });
        let (http_stop, http_stopped) = watch::channel(false);
        let links: Vec<(mpsc::Sender<Word>, Mailbox)> = words
            .into_iter()
            .zip(shared.mailboxes.iter().cloned())
            .collect();
        let public_host = public_host(settings);
        let (desk, arrivals) = Desk::new();
        let control = spawn_control(
            node.clone(),
            arrivals,
            Listeners { http, webhooks },
            coordinator,
            from_shards,
            links,
            public_host,
            Chores {
                steady,
                causes,
                database,
                pollers,
                gaps: gap_notices,
            },
            http_stopped,
        )?;
        let (ingest, ingest_stop) = spawn_ingest(tcp, shared, feed.map(|_| desk), &metrics)?;
        Ok(Self {
            tcp: tcp_at,
            http: http_at,
            webhooks: webhooks_at,
            node,
            ingest_stop,
            http_stop,
            stopping,
            ingest: Some(ingest),
            control: Some(control),
            shards: threads,
            checkpointer: Some(checkpointer),
            tokens,
            dir: Some(DataDirHandle(dir)),
        })
    }

    /// Where producers connect.
    #[must_use]
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
    }

    /// Where the API is.
    #[must_use]
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where webhooks alone are taken, when they have a listener of their own.
    #[must_use]
    pub fn webhooks(&self) -> Option<SocketAddr> {
        self.webhooks
    }

    /// Whether some shard has given up, so that the process should end and recover.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.node.is_broken() || self.shards.iter().any(JoinHandle::is_finished)
    }

    /// Stops in order: intake, then open calls up to a deadline, then the logs are sealed.
    ///
    /// # Errors
    /// When the data directory could not be closed; the next start recovers as after a crash.
    pub fn shutdown(mut self) -> Result<(), StartError> {
        self.ingest_stop.stop();
        join(self.ingest.take(), "ingest");
        if let Some(feed) = &self.node.feed {
            feed.stop();
        }
        self.http_stop.send_replace(true);
        self.stopping.store(true, Ordering::Release);
        self.node.shards.wake_all();
        let mut clean = true;
        for shard in self.shards.drain(..) {
            clean &= join(Some(shard), "shard");
        }
        clean &= self.checkpointer.take().is_none_or(Checkpointer::join);
        join(self.control.take(), "control");
        if !self.tokens.stop() {
            tracing::error!("the token thread panicked");
        }
        if let Some(feed) = &self.node.feed
            && let Err(error) = feed.close()
        {
            tracing::error!(%error, "the consumers cannot be written");
        }
        clean &= !self.node.is_broken();
        match self.dir.take() {
            Some(DataDirHandle(dir)) if clean => {
                dir.close().map_err(|error| StartError::log(&error))
            }
            _ => Ok(()),
        }
    }
}

/// What a shard's thread is made of; all of it may cross to the thread.
struct ShardParts {
    number: u16,
    checkpoints: CheckpointFeed,
    opened: OpenedShard,
    mailbox: Mailbox,
    words: mpsc::Receiver<Word>,
    peers: Vec<Peer>,
    coordinator: mpsc::Sender<(ShardId, engine::quota::FromShard)>,
    wake: Arc<Notify>,
    tables: Option<Arc<Tables>>,
    egress: Vec<(Arc<str>, AccountSettings)>,
    feed: Option<Arc<Feed>>,
    gauges: Arc<Gauges>,
    metrics: Metrics,
    memory_max: u64,
    stopping: Arc<AtomicBool>,
    cpu: Option<usize>,
}

impl ShardParts {
    fn spawn(self) -> Result<JoinHandle<()>, StartError> {
        let name = format!("shard-{}", self.number);
        let wake = self.wake.clone();
        let OpenedShard {
            shard,
            journal,
            writer,
            checkpoint_covers,
            ..
        } = self.opened;
        let checkpoints = self.checkpoints;
        let writer = writer_thread::spawn(writer, &format!("wal-{}", self.number), move || {
            wake.notify_one()
        })
        .map_err(|source| StartError::system("start a log's writer", source))?;
        let (number, cpu) = (self.number, self.cpu);
        let rest = (
            self.mailbox,
            self.words,
            self.peers,
            self.coordinator,
            self.wake,
            self.tables,
            self.egress,
            self.feed,
            self.gauges,
            self.metrics,
            self.memory_max,
            self.stopping,
        );
        let run = move || {
            let (
                mailbox,
                words,
                peers,
                coordinator,
                wake,
                tables,
                accounts,
                feed,
                gauges,
                metrics,
                memory_max,
                stopping,
            ) = rest;
            pin_to(cpu);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default());
            let runtime = match runtime {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(shard = number, %error, "a shard has no event loop");
                    return;
                }
            };
            let egress = Egress::new(EgressSettings::default());
            let mut known = HashMap::new();
            for (name, settings) in accounts {
                match egress.account(settings) {
                    Ok(account) => drop(known.insert(name, Rc::new(account))),
                    Err(error) => {
                        tracing::error!(account = &*name, error = %chain(&error), "the account cannot be called");
                        return;
                    }
                }
            }
            let labels = known
                .keys()
                .filter_map(|name| Some((name.clone(), metrics.account(name)?)))
                .collect();
            let thread = ShardThread {
                id: ShardId(number),
                shard,
                journal,
                writer,
                mailbox,
                words,
                peers,
                coordinator,
                wake,
                tables,
                egress,
                accounts: known,
                feed,
                gauges,
                metrics: metrics.writer(),
                labels,
                checkpoints,
                checkpoint_covers,
                memory_max,
                stopping,
                drain_deadline: DRAIN_DEADLINE,
            };
            runtime.block_on(thread.run());
        };
        thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|source| StartError::system("start a shard", source))
    }
}

fn coordinator(
    settings: &Settings,
    shards: u16,
    run_epoch: u64,
    opened: &[OpenedShard],
) -> Result<coordinator::SharedCoordinator, StartError> {
    let now = clock::now();
    let start = Start {
        now,
        shards,
        // Above all leases of earlier runs: no run grants 2^40 of them.
        last_lease: LeaseId(run_epoch << 40),
        seed: clock::random(),
    };
    let mut coordinator = Coordinator::new(start, plans::account_limits(settings)?)
        .map_err(|error| StartError::config("providers", error.to_string()))?;
    let boot = clock::boot();
    let leases: Vec<RecoveredLease> = opened
        .iter()
        .flat_map(|shard| &shard.recovered.leases)
        .map(|lease| RecoveredLease {
            account: lease.account.clone(),
            label: lease.label.clone(),
            permits: lease.permits,
            usable_until: lease.usable_until,
            wall_until: lease.usable_until_wall,
            ended_by: lease.ended_by,
            same_boot: lease.boot == boot,
        })
        .collect();
    coordinator.restore(now, &leases);
    let learned = opened.iter().flat_map(|shard| &shard.recovered.learned);
    let learned: Vec<Learned> = learned.cloned().collect();
    coordinator.recall(now, &learned);
    Ok(Arc::new(Mutex::new(coordinator)))
}

fn registry(opened: &[OpenedShard]) -> Registry {
    let mut joined = Producers::default();
    for Recovered { producers, .. } in opened.iter().map(|shard| &shard.recovered) {
        for (producer, seen) in producers {
            joined.restore(*producer, seen);
        }
    }
    let registry = Registry::default();
    for (producer, seen) in joined.sorted() {
        registry.restore(producer, seen.clone());
    }
    registry
}

fn remembered(settings: &Settings, seed: u64, opened: &[OpenedShard]) -> Remembered {
    let bounds = DedupBounds {
        window_ms: settings.server.dedup_window.as_millis() as u64,
        count_max: u32::try_from(settings.server.dedup_max.get())
            .unwrap_or(DedupIndex::COUNT_LIMIT)
            .min(DedupIndex::COUNT_LIMIT),
    };
    let remembered = Remembered::new(seed, bounds);
    let entries = opened
        .iter()
        .flat_map(|shard| shard.event_ids.iter().copied())
        .collect();
    remembered.restore(clock::now().wall.0, entries);
    remembered
}

/// What the control thread does of itself for as long as the node runs.
struct Chores {
    steady: BootClock,
    causes: Causes,
    database: Option<Database>,
    pollers: Vec<Poller<ShardFetcher, PullSink>>,
    gaps: mpsc::Receiver<GapNotice>,
}

#[expect(
    clippy::too_many_arguments,
    reason = "all that the control thread owns, once"
)]
fn spawn_control(
    node: Arc<Node>,
    arrivals: Arrivals,
    listeners: Listeners,
    coordinator: coordinator::SharedCoordinator,
    from_shards: mpsc::Receiver<(ShardId, engine::quota::FromShard)>,
    links: Vec<(mpsc::Sender<Word>, Mailbox)>,
    public_host: Option<String>,
    chores: Chores,
    mut stopped: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| StartError::system("start the control thread", source))?;
    let Listeners { http, webhooks } = listeners;
    for listener in [Some(&http), webhooks.as_ref()].into_iter().flatten() {
        listener
            .set_nonblocking(true)
            .map_err(|source| StartError::system("use the HTTP listener", source))?;
    }
    let run = move || {
        runtime.block_on(async move {
            // Before the coordinator's first word, so that no call leaves under other settings.
            tokio::spawn(node.in_force.clone().run());
            let trade = tokio::spawn(coordinator::run(coordinator, from_shards, links));
            if let Some(feed) = &node.feed {
                tokio::spawn(feed.clone().keep());
                tokio::spawn(feed.clone().watch_absent());
                tokio::spawn(arrivals.serve(feed.clone(), node.keys.clone()));
            }
            let Chores {
                steady,
                causes,
                database,
                pollers,
                gaps,
            } = chores;
            tokio::spawn(steady.watch());
            tokio::spawn(causes.redrive(node.shards.clone(), node.jobs.clone()));
            tokio::spawn(node.walks.clone().run(gaps));
            for poller in pollers {
                tokio::spawn(poller.run());
            }
            if let Some(database) = database {
                tokio::spawn(database.run(node.clone(), stopped.clone()));
            }
            let listener = match tokio::net::TcpListener::from_std(http) {
                Ok(listener) => listener,
                Err(error) => {
                    tracing::error!(%error, "the HTTP listener cannot be used");
                    return;
                }
            };
            let hooks = webhooks.map(|webhooks| {
                let (node, mut stopped) = (node.clone(), stopped.clone());
                let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
                tokio::spawn(take_webhooks(webhooks, node, stop))
            });
            let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
            if let Err(error) =
                net::http::serve(listener, node, HttpLimits::default(), public_host, stop).await
            {
                tracing::error!(%error, "the HTTP API ended");
            }
            // Its open requests end before the shards that answer them.
            if let Some(Err(error)) = match hooks {
                Some(hooks) => Some(hooks.await),
                None => None,
            } {
                tracing::error!(%error, "the webhook listener ended early");
            }
            // Shards trade until they are gone.
            if let Err(error) = trade.await {
                tracing::error!(%error, "the coordinator ended early");
            }
        });
    };
    thread::Builder::new()
        .name("control".into())
        .spawn(run)
        .map_err(|source| StartError::system("start the control thread", source))
}

/// The control thread's sockets.
struct Listeners {
    http: TcpListener,
    webhooks: Option<TcpListener>,
}

async fn take_webhooks(listener: TcpListener, node: Arc<Node>, stop: impl Future<Output = ()>) {
    match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => {
            net::http::serve_webhooks(listener, node, HttpLimits::for_webhooks(), stop).await;
        }
        Err(error) => tracing::error!(%error, "the webhook listener cannot be used"),
    }
}

fn spawn_ingest(
    listener: TcpListener,
    shared: Arc<Shared>,
    desk: Option<Desk>,
    metrics: &Metrics,
) -> Result<(JoinHandle<()>, StopSignal), StartError> {
    let (gate, wake) =
        wake_gate().map_err(|source| StartError::system("make a wake-up socket", source))?;
    let stop = StopSignal::new(gate.clone());
    let intake = ThreadIntake::new(shared, 0, gate, metrics.writer());
    let server = Server {
        listener,
        intake,
        subscriptions: desk.map(|desk| Arc::new(desk) as Arc<dyn Subscriptions>),
        wake,
        stop: stop.clone(),
        limits: Limits::default(),
        first_session: SessionId(1),
    };
    let run = move || {
        if let Err(error) = Driver::Tokio.run(server) {
            tracing::error!(%error, "the ingest thread ended");
        }
    };
    let join = thread::Builder::new()
        .name("ingest-0".into())
        .spawn(run)
        .map_err(|source| StartError::system("start the ingest thread", source))?;
    Ok((join, stop))
}

/// Where changes for System A go when it has no address that they are posted to.
fn feed(settings: &Settings) -> Result<Option<Arc<Feed>>, StartError> {
    let system_a = settings.system_a.as_ref();
    let elsewhere = |it: &SystemASettings| it.url.is_some() || it.postgres.is_some();
    let Some(system_a) = system_a.filter(|it| !elsewhere(it)) else {
        return Ok(None);
    };
    let data_dir = &settings.server.data_dir;
    let feed = Feed::open(data_dir, system_a.absent_after)
        .map_err(|error| StartError::data_dir(data_dir, &error))?;
    Ok(Some(Arc::new(feed)))
}

fn listener(name: &str, at: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(at)
        .map_err(|source| StartError::system(format!("listen on {at} ({name})"), source))
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener
        .local_addr()
        .map_err(|source| StartError::system("read a listener's address", source))
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn shard_count(settings: &Settings) -> u16 {
    let count = settings.shards.count.map_or_else(cores, NonZeroUsize::get);
    u16::try_from(count.min(engine::id::VSHARD_COUNT)).unwrap_or(u16::MAX)
}

/// Shards get cores of their own only where the other threads have some left.
fn pinned_cpu(settings: &Settings, shards: u16, number: usize) -> Option<usize> {
    (settings.shards.pin && cores() >= usize::from(shards) + 2).then_some(number)
}

fn pin_to(cpu: Option<usize>) {
    let Some(cpu) = cpu else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(cpu, %error, "cannot pin a shard to its core; it runs anywhere");
    }
}

/// How long finished operations can be read, for each shard.
fn retention(settings: &Settings, shards: u16) -> Keep {
    match settings.retention.operations {
        Retention::For(age) => Keep {
            age,
            bytes: u64::MAX,
        },
        Retention::UpTo(size) => Keep {
            age: Duration::MAX,
            bytes: size.0 / u64::from(shards),
        },
    }
}

fn public_host(settings: &Settings) -> Option<String> {
    let url = settings.server.public_url.as_deref()?;
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    Some(host.split(['/', ':']).next().unwrap_or(host).to_owned())
}

/// Whether the thread ended in order.
fn join(thread: Option<JoinHandle<()>>, what: &str) -> bool {
    let Some(thread) = thread else { return true };
    let ended = thread.join().is_ok();
    if !ended {
        tracing::error!(thread = what, "a thread panicked");
    }
    ended
}
