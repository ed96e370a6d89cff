//! Walks through all that an account lists of an object: after changes were missed, for a first
//! load, to compare both sides.
//!
//! A walk is kept on disk from the moment it is asked for, and goes on after a restart. It calls an
//! account only while live changes leave it quota, and what it finds takes the way that every
//! change takes: so a walk decides nothing, and whatever it is too late for is passed over there.

mod kept;
mod listing;
mod report;
mod rows;
mod spare;
mod walk;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use engine::mapping::{DeletionMark, Mapping};
use engine::provider::Poll;
use engine::refusal::{Code, Refusal};
use engine::view::{WalkPurpose, WalkRequest, WalkView};
use tokio::sync::mpsc;

use super::clock;
use super::coordinator::SharedCoordinator;
use super::in_force::InForce;
use super::inbound::{GapNotice, PullSink, ShardFetcher};
use super::links::Links;
use super::shards::Shards;
use crate::settings::Direction;
use kept::{KEPT_MAX, Kept, Purpose, State, WalkFile};
use walk::{Stopped, Walk};

pub(crate) use rows::RowTables;

/// Walks under way at once: each holds what it saw of a list.
const RUNNING_MAX: usize = 4;
/// What a resync may use of each limit.
const RESYNC_SHARE: f64 = 0.5;
/// If a larger part of an object's records were gone, somebody has to look first.
const ABSENT_MAX: f64 = 0.2;

/// What every walk works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) shards: Shards,
    pub(crate) links: Arc<Links>,
    pub(crate) fetcher: Arc<ShardFetcher>,
    pub(crate) sink: Arc<PullSink>,
    pub(crate) coordinator: SharedCoordinator,
    pub(crate) in_force: Arc<InForce>,
    /// System A's tables, where it is a database.
    pub(crate) rows: Option<Arc<RowTables>>,
    ledger: Ledger,
}

/// All walks that are known.
#[derive(Debug)]
pub(crate) struct Walks {
    parts: Arc<Parts>,
}

/// Where an object lies at an account.
struct Place {
    /// Below which its list is.
    base_url: String,
    list: Poll,
    /// The object's name there.
    remote: String,
    /// The field there that holds System A's key.
    key: Option<String>,
    /// How a record is marked as deleted there.
    mark: Option<DeletionMark>,
    comes_in: bool,
    goes_out: bool,
}

/// The walks as they are on disk and in memory.
#[derive(Debug)]
struct Ledger {
    file: Arc<WalkFile>,
    walks: Mutex<Vec<Kept>>,
    /// Held while the file is written, so that an older one never replaces a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl Walks {
    /// The walks of a data directory.
    ///
    /// # Errors
    /// When they are there and are not understood.
    pub(crate) fn open(
        data_dir: &Path,
        (shards, links): (Shards, Arc<Links>),
        (fetcher, sink): (Arc<ShardFetcher>, Arc<PullSink>),
        (coordinator, in_force): (SharedCoordinator, Arc<InForce>),
        rows: Option<RowTables>,
    ) -> io::Result<Walks> {
        let (file, walks) = WalkFile::load(data_dir)?;
        let parts = Parts {
            shards,
            links,
            fetcher,
            sink,
            coordinator,
            in_force,
            rows: rows.map(Arc::new),
            ledger: Ledger {
                file: Arc::new(file),
                walks: Mutex::new(walks),
                writing: tokio::sync::Mutex::new(()),
            },
        };
        Ok(Walks {
            parts: Arc::new(parts),
        })
    }

    /// Goes on with what a restart cut off, and begins a resync for each gap that it hears of.
    pub(crate) async fn run(self: Arc<Self>, mut gaps: mpsc::Receiver<GapNotice>) {
        let cut_off = self.parts.ledger.running();
        for walk in cut_off {
            tracing::info!(walk = walk.id, "a walk goes on");
            self.spawn(walk);
        }
        while let Some(gap) = gaps.recv().await {
            let begun = self.resync(&gap).await;
            if let Err(refusal) = &begun {
                tracing::error!(account = gap.account, object = gap.object, %refusal, "changes were missed and no resync could begin");
            }
            // The poll that asks may be gone.
            drop(gap.begun.send(begun));
        }
    }

    /// Begins a walk; it is on disk when this answers.
    ///
    /// # Errors
    /// The account has no list of the object, too many are under way, or the disk refuses.
    pub(crate) async fn begin(self: &Arc<Self>, request: WalkRequest) -> Result<WalkView, Refusal> {
        let place = self.parts.place(&request.provider, &request.object);
        let place =
            place.map_err(|stopped| Refusal::new(Code::InvalidField, stopped.to_string()))?;
        if request.purpose != WalkPurpose::Backfill && !place.comes_in {
            let detail = "changes of this object are not taken from the account: what it has is \
                          not known here";
            return Err(Refusal::at(Code::InvalidField, "/object", detail));
        }
        let now_ms = clock::now().wall.0;
        let id = format!("{:016x}", clock::random());
        let kept = self.parts.ledger.add(Kept::new(id, request, now_ms))?;
        if let Err(error) = self.parts.ledger.write().await {
            tracing::error!(%error, "walks cannot be written");
            self.parts.ledger.forget(&kept.id);
            let detail = "the walk cannot be written to disk";
            return Err(Refusal::new(Code::DiskFull, detail));
        }
        let view = kept.view();
        tracing::info!(
            walk = kept.id,
            account = kept.account,
            object = kept.object,
            purpose = view.request.purpose.as_str(),
            cause = kept.cause,
            "a walk begins"
        );
        self.spawn(kept);
        Ok(view)
    }

    /// All that are known, the oldest first.
    pub(crate) fn views(&self) -> Vec<WalkView> {
        self.parts.ledger.lock().iter().map(Kept::view).collect()
    }

    /// Ends a walk; what it handed in stays. How it stands then.
    pub(crate) async fn cancel(&self, id: &str) -> Option<WalkView> {
        let view = self.parts.ledger.end(id, State::Cancelled, None)?;
        if let Err(error) = self.parts.ledger.write().await {
            tracing::error!(%error, "walks cannot be written");
        }
        Some(view)
    }

    /// A resync of an object, unless one is under way: that one is walked once more.
    async fn resync(self: &Arc<Self>, gap: &GapNotice) -> Result<(), Refusal> {
        let local = self.parts.sink.local(&gap.account, &gap.object);
        let Some(object) = local else { return Ok(()) };
        if self.parts.ledger.walk_again(&gap.account, &object) {
            let written = self.parts.ledger.write().await;
            return written.map_err(|_| Refusal::new(Code::DiskFull, "walks cannot be written"));
        }
        let request = WalkRequest {
            purpose: WalkPurpose::Resync,
            provider: gap.account.clone(),
            object,
            share: RESYNC_SHARE,
            sample: 1.0,
            repair: true,
            repairs_max: u64::MAX,
            absent_max: ABSENT_MAX,
            cause: gap.cause.clone(),
        };
        self.begin(request).await.map(drop)
    }

    fn spawn(self: &Arc<Self>, kept: Kept) {
        let walks = self.clone();
        tokio::spawn(async move {
            let id = kept.id.clone();
            let ended = Walk::new(walks.parts.clone(), kept).run().await;
            walks.settle(&id, ended).await;
        });
    }

    async fn settle(self: &Arc<Self>, id: &str, ended: Result<Option<String>, Stopped>) {
        let ledger = &self.parts.ledger;
        let (state, detail) = match ended {
            Ok(note) => (State::Done, note),
            Err(Stopped::Cancelled) => (State::Cancelled, None),
            Err(stopped) => {
                let detail = super::shard_thread::chain(&stopped);
                tracing::error!(walk = id, error = detail, "a walk ended before its end");
                (State::Failed, Some(detail))
            }
        };
        if let Some(view) = ledger.end(id, state, detail) {
            let tally = &view.tally;
            tracing::info!(
                walk = id,
                state = view.state.as_str(),
                listed = tally.listed,
                taken = tally.taken,
                differs = tally.differs,
                missing_here = tally.missing_here,
                missing_there = tally.missing_there,
                repaired = tally.repaired,
                "a walk ended"
            );
            if ledger.takes_again(id)
                && let Err(refusal) = self.begin(view.request).await
            {
                tracing::error!(walk = id, %refusal, "a resync that is due once more cannot begin");
            }
        }
        if let Err(error) = ledger.write().await {
            tracing::error!(%error, "walks cannot be written");
        }
    }
}

impl Parts {
    /// Where an object lies at an account, as it is configured now.
    fn place(&self, account: &str, object: &str) -> Result<Place, Stopped> {
        let settings = self.in_force.tuning.effective();
        let routes = self.shards.shared.router.routes();
        let plan = routes.plans.iter().find(|plan| *plan.name == *account);
        let provider = settings.provider(account);
        let (Some(plan), Some(provider)) = (plan, provider) else {
            return Err(Stopped::Unknown("no account of this name is configured"));
        };
        let wanted = settings.objects.iter().find(|(name, _)| name == object);
        let (_, wanted) = wanted.ok_or(Stopped::Unknown("no object of this name is configured"))?;
        let mapping = plan.mappings.get(object);
        let remote = mapping.map_or_else(
            || plan.definition.remote_name(object),
            |mapping| mapping.remote(),
        );
        let own_key = mapping.and_then(|mapping| mapping.external_id());
        let key = own_key.or_else(|| plan.definition.record_key(remote));
        let read = mapping.into_iter().flat_map(|it| it.remote_fields());
        let read: Vec<&str> = read.chain(key).collect();
        let mut feeds = plan.definition.poll_feeds();
        let list = feeds.find_map(|feed| {
            let list = plan.definition.poll(feed, remote, read.iter().copied())?;
            list.lists_all().then_some(list)
        });
        let base_url = provider.account.base_url.as_deref();
        let base_url = base_url.or(plan.definition.base_url()).unwrap_or_default();
        let two_way = plan.two_way.get(object);
        Ok(Place {
            base_url: base_url.trim_end_matches('/').to_owned(),
            list: list.ok_or(Stopped::Unknown(
                "the account's definition has no list of all records",
            ))?,
            remote: remote.to_owned(),
            key: key.map(str::to_owned),
            mark: mapping.and_then(Mapping::deletion_mark).cloned(),
            comes_in: two_way.is_some_and(|two_way| two_way.inbound),
            goes_out: wanted.record.direction != Direction::In,
        })
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> Vec<Kept> {
        let walks = self.lock();
        let running = walks.iter().filter(|walk| walk.state == State::Running);
        running.cloned().collect()
    }

    /// Says what a walk waits for at present.
    fn waits(&self, id: &str, needed: Option<String>) {
        let mut walks = self.lock();
        if let Some(walk) = walks.iter_mut().find(|walk| walk.id == id) {
            walk.waits_for = needed;
        }
    }

    fn is_running(&self, id: &str) -> bool {
        let walks = self.lock();
        let mut walks = walks.iter();
        walks.any(|walk| walk.id == id && walk.state == State::Running)
    }

    fn add(&self, kept: Kept) -> Result<Kept, Refusal> {
        let mut walks = self.lock();
        let running = |walk: &&Kept| walk.state == State::Running;
        let same = |walk: &Kept| {
            (walk.purpose, &walk.account, &walk.object)
                == (kept.purpose, &kept.account, &kept.object)
        };
        if walks.iter().filter(running).any(same) {
            let detail = "such a walk is under way; cancel it or wait";
            return Err(Refusal::new(Code::Overloaded, detail));
        }
        if walks.iter().filter(running).count() >= RUNNING_MAX {
            let detail = format!("{RUNNING_MAX} walks are under way; cancel one or wait");
            return Err(Refusal::new(Code::Overloaded, detail));
        }
        if walks.len() >= KEPT_MAX
            && let Some(ended) = walks.iter().position(|walk| walk.state != State::Running)
        {
            walks.remove(ended);
        }
        walks.push(kept.clone());
        Ok(kept)
    }

    fn forget(&self, id: &str) {
        self.lock().retain(|walk| walk.id != id);
    }

    /// Keeps how far a walk is, durably. False: it is not to go on.
    async fn keep(&self, kept: &Kept) -> io::Result<bool> {
        {
            let mut walks = self.lock();
            let known = walks.iter_mut().find(|walk| walk.id == kept.id);
            let Some(known) = known.filter(|walk| walk.state == State::Running) else {
                return Ok(false);
            };
            let again = known.again;
            known.clone_from(kept);
            known.again = again;
        }
        self.write().await.map(|()| true)
    }

    fn end(&self, id: &str, state: State, detail: Option<String>) -> Option<WalkView> {
        let mut walks = self.lock();
        let walk = walks.iter_mut().find(|walk| walk.id == id)?;
        if walk.state == State::Running {
            walk.state = state;
            walk.ended_at = Some(clock::now().wall.0);
            walk.detail = detail;
            walk.waits_for = None;
        }
        Some(walk.view())
    }

    /// Has a resync under way walked once more; false when there is none.
    fn walk_again(&self, account: &str, object: &str) -> bool {
        let mut walks = self.lock();
        let running = walks.iter_mut().find(|walk| {
            walk.state == State::Running
                && walk.purpose == Purpose::Resync
                && (walk.account.as_str(), walk.object.as_str()) == (account, object)
        });
        running.is_some_and(|walk| {
            walk.again = true;
            true
        })
    }

    /// Whether a walk that ended is due once more, which is said once.
    fn takes_again(&self, id: &str) -> bool {
        let mut walks = self.lock();
        let walk = walks.iter_mut().find(|walk| walk.id == id);
        walk.is_some_and(|walk| std::mem::take(&mut walk.again) && walk.state == State::Done)
    }

    async fn write(&self) -> io::Result<()> {
        let _only_one = self.writing.lock().await;
        let walks = self.lock().clone();
        let file = self.file.clone();
        // A disk may take its time, and others live on this thread.
        let written = tokio::task::spawn_blocking(move || file.write(walks)).await;
        written.unwrap_or_else(|error| Err(io::Error::other(error)))
    }
}
