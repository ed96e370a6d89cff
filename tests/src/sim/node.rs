//! One life of the engine: opened from the disk, driven turn by turn, dropped at a crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use engine::id::{HashKey, OperationSeq, VSHARD_COUNT, VShard};
use engine::journal::Kind;
use engine::producers::Producers;
use engine::provider::{Reply, Request, SendFailure};
use engine::quota::{
    AccountLimits, Coordinator, HoldSettings, LeaseId, Limit, Policy, RecoveredLease, ShardId,
    Start, ToShard,
};
use engine::record::StateFrame;
use engine::shard::{
    AccountPlan, CallId, CheckpointPart, Command, LinkWord, ListUse, Recovery, Rendering, Shard,
    ShardSettings,
};
use engine::time::Mono;
use jiff::tz::{Offset, TimeZone};
use wal::{
    Committed, DataDir, DataDirError, Durability, InstanceId, Log, LogId, LogLimits, LogOptions,
    Lsn, NewDataDir, OpenError, OpenMode, RecoveryReport, Storage, VisitError, WriteFailed, Writer,
};

use super::clock::Clock;
use super::dice::Dice;
use super::index_dump::IndexDump;
use super::ingest::{Ingest, Parcel, Ticket};
use super::judge::Judge;
use super::medium::Medium;
use super::mutants::Mutant;
use super::options::{AccountOptions, Options};
use super::sets::InForce;
use super::spied_log::{PAYLOAD_BYTES_MAX, STAGED_BYTES_MAX, SpiedLog, Written};
use super::two_way::inbound::Inbound;

/// The key of every data directory's record hashes.
pub(super) const HASH_KEY: [u8; 16] = [9; 16];

/// What lies in a shard's mailbox.
#[derive(Debug)]
pub(super) enum Letter {
    Word(ToShard),
    Parcel(Parcel),
    Reply {
        call: CallId,
        result: Result<Reply, SendFailure>,
        ended_at: Mono,
    },
    Command {
        command: Command,
        ticket: Ticket,
    },
    Fetch {
        account: Arc<str>,
        list: ListUse,
        endpoint: Arc<str>,
        request: Request,
        ticket: Ticket,
    },
    Link(LinkWord),
}

/// One shard with its log.
pub(super) struct ShardNode {
    pub(super) shard: Shard<Ticket>,
    pub(super) journal: SpiedLog,
    pub(super) writer: Writer<Medium>,
    pub(super) mailbox: VecDeque<Letter>,
    /// What the writer said about the block it has; told when the commit is over.
    pub(super) answer: Option<Result<Committed, WriteFailed>>,
    /// True time of its next turn, ns.
    pub(super) next_turn: Option<u64>,
    pub(super) stalled_until: u64,
    pub(super) last_commit_ns: u64,
    pub(super) sealed_to: Lsn,
    pub(super) checkpoint: Option<Taking>,
    /// A sweep of compaction to be released: below the first, once durable to the second.
    pub(super) relocation: Option<(Lsn, Option<Lsn>)>,
}

/// A checkpoint being taken, slice by slice.
#[derive(Debug, Default)]
pub(super) struct Taking {
    pub(super) parts: Vec<CheckpointPart>,
    pub(super) left: Vec<VShard>,
    pub(super) replay_from: Option<Lsn>,
    pub(super) seen_to: Lsn,
}

/// A checkpoint that counts.
#[derive(Debug, Clone)]
pub(super) struct Saved {
    pub(super) parts: Vec<CheckpointPart>,
    pub(super) replay_from: Lsn,
}

/// A running engine.
pub(super) struct Node {
    pub(super) dir: DataDir<Medium>,
    pub(super) shards: Vec<ShardNode>,
    pub(super) coordinator: Coordinator,
    pub(super) ingest: Ingest,
    /// What accounts tell; made anew from the logs at each start.
    pub(super) inbound: Inbound,
}

/// What opening one log found, for the checkers.
pub(super) struct Opened {
    pub(super) report: RecoveryReport,
    /// Frames from `replay_from` on.
    pub(super) frames: Vec<Written>,
    pub(super) replay_from: Lsn,
    pub(super) dump: IndexDump,
    /// The newest checkpoint was gone.
    pub(super) fell_back: bool,
    /// The same from another starting point, when there is one.
    pub(super) other_dump: Option<IndexDump>,
}

/// Why the engine does not open.
#[derive(Debug)]
pub(super) enum OpenFailure {
    /// The disk is gone in the middle of it.
    Crashed,
    /// The log says that it is damaged.
    Damaged(String),
    /// The disk is full; with space it opens.
    Full,
    /// Anything else: a bug.
    Broken(String),
}

impl fmt::Display for OpenFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crashed => f.write_str("the disk is gone"),
            Self::Damaged(what) => write!(f, "damage: {what}"),
            Self::Full => f.write_str("the disk is full"),
            Self::Broken(what) => f.write_str(what),
        }
    }
}

/// What opening needs.
pub(super) struct OpenPlan<'a> {
    pub(super) options: &'a Options,
    pub(super) plans: &'a mut [Arc<AccountPlan>],
    /// The mappings and rules that the disk keeps.
    pub(super) in_force: InForce,
    /// By what calls were rendered, as the disk keeps it.
    pub(super) rendering: &'a mut Rendering,
    pub(super) medium: &'a Medium,
    pub(super) clock: &'a Clock,
    pub(super) dice: &'a mut Dice,
    /// Checkpoints by log, oldest first.
    pub(super) checkpoints: &'a BTreeMap<LogId, Vec<Saved>>,
    /// Logs that gave up a segment.
    pub(super) released: &'a BTreeSet<LogId>,
}

impl Node {
    /// Opens the data directory and recovers every shard.
    pub(super) fn open(mut plan: OpenPlan<'_>) -> Result<(Self, Vec<Opened>), OpenFailure> {
        let new = NewDataDir {
            instance: InstanceId([7; 16]),
            hash_key: HASH_KEY,
        };
        let mut dir =
            DataDir::open(plan.medium.clone(), &new).map_err(|error| plan.dir_failure(&error))?;
        let (layout, mode, staged) = match dir.layout() {
            Some(layout) => (layout, OpenMode::Existing, None),
            None => {
                let staged = dir
                    .stage_layout(plan.options.shards)
                    .map_err(|error| plan.dir_failure(&error))?;
                (staged.layout(), OpenMode::Create, Some(staged))
            }
        };
        let run = dir.superblock().run_epoch;
        plan.rendering.begin(run, u64::from(plan.in_force.mappings));
        renew(plan.plans, plan.rendering, plan.options.mutant);
        let mut shards = Vec::new();
        let mut opened = Vec::new();
        let mut leases = Vec::new();
        let mut learned = Vec::new();
        let mut joined = Producers::default();
        for shard in 0..layout.shards {
            let (node, found, recovered) =
                plan.open_shard(&dir, layout.log(shard), layout.shards, mode)?;
            for (producer, seen) in &recovered.producers {
                joined.restore(*producer, seen);
            }
            leases.extend(recovered.leases);
            learned.extend(recovered.learned);
            shards.push(node);
            opened.push(found);
        }
        if let Some(staged) = staged {
            dir.commit_layout(staged)
                .map_err(|error| plan.dir_failure(&error))?;
        }
        let now = plan.clock.now();
        let boot = plan.clock.boot;
        let start = Start {
            now,
            shards: layout.shards,
            last_lease: leases
                .iter()
                .map(|lease| LeaseId(lease.id))
                .max()
                .unwrap_or_default(),
            seed: plan.dice.roll(),
        };
        let limits = plan.options.accounts.iter().map(|account| AccountLimits {
            name: account.name.clone(),
            limits: limits_of(account, plan.options.mutant),
            max_in_flight: account.max_in_flight,
            call_timeout: account.timeout,
            hold: HoldSettings {
                open_for: Duration::from_secs(2),
                ..HoldSettings::default()
            },
        });
        let mut coordinator =
            Coordinator::new(start, limits.collect()).expect("the options' limits are in range");
        let leases: Vec<RecoveredLease> = leases
            .iter()
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
        if plan.options.mutant != Some(Mutant::FullBudgetAtRestart) {
            coordinator.restore(now, &leases);
        }
        coordinator.recall(now, &learned);
        let mut ingest = Ingest::new(
            usize::from(layout.shards),
            HashKey(dir.superblock().hash_key),
            plan.options
                .accounts
                .iter()
                .map(|account| account.name.clone())
                .collect(),
            dir.superblock().run_epoch,
            &joined,
            plan.options.mutant,
        );
        ingest.judge = Judge::new(plan.options, plan.in_force, plan.plans);
        Ok((
            Self {
                dir,
                shards,
                coordinator,
                ingest,
                inbound: Inbound::default(),
            },
            opened,
        ))
    }
}

/// Tells plans what an earlier run's calls may have been rendered by.
pub(super) fn renew(plans: &mut [Arc<AccountPlan>], rendering: &Rendering, mutant: Option<Mutant>) {
    if mutant == Some(Mutant::RenewalsForgotten) {
        return;
    }
    for plan in plans {
        Arc::make_mut(plan).renewed = rendering.renewed();
    }
}

impl OpenPlan<'_> {
    fn open_shard(
        &mut self,
        dir: &DataDir<Medium>,
        log: LogId,
        shards: u16,
        mode: OpenMode,
    ) -> Result<(ShardNode, Opened, engine::shard::Recovered), OpenFailure> {
        let folder = dir.log_folder(log);
        let options = LogOptions {
            log,
            instance: dir.superblock().instance,
            mode,
            durability: Durability::Fsync,
            limits: limits(self.options.segment_bytes),
            salt_seed: self.dice.roll(),
        };
        let settings = ShardSettings {
            id: ShardId(log.shard),
            hash_key: HashKey(dir.superblock().hash_key),
            boot: self.clock.boot,
            booted_at_ms: self.clock.booted_at_ms,
            first_seq: OperationSeq::first_of_run(dir.superblock().run_epoch),
            seed: self.dice.roll(),
            accounts: self.plans.to_vec(),
        };
        let none = Vec::new();
        let saved = self.checkpoints.get(&log).unwrap_or(&none);
        let newest_lost = saved.len() > 1 && self.dice.chance(self.options.faults.lost_checkpoints);
        let chosen = if newest_lost {
            saved.first()
        } else {
            saved.last()
        };
        let mut main = Replaying::new(self, &settings, shards, chosen)?;
        // Whatever a checkpoint stands for, the whole log says the same, while it is whole.
        let from_start = !self.released.contains(&log);
        let mut other = match (chosen, from_start) {
            (Some(_), true) => Some(Replaying::new(self, &settings, shards, None)?),
            (Some(_), false) if saved.len() > 1 && !newest_lost => {
                Some(Replaying::new(self, &settings, shards, saved.first())?)
            }
            _ => None,
        };
        let replay_from = other
            .as_ref()
            .map_or(main.from, |other| other.from.min(main.from));
        let now = self.clock.now();
        let mutant = self.options.mutant;
        let mut frames = Vec::new();
        let visit = |at: Lsn, kind: wal::FrameKind, payload: &[u8]| -> Result<(), VisitError> {
            let kind = Kind::from_byte(kind.0).ok_or("a kind of frame that was never written")?;
            frames.push(Written {
                at,
                kind,
                payload: payload.to_vec(),
            });
            if forgets(mutant, at, kind, payload) {
                return Ok(());
            }
            for replaying in [Some(&mut main), other.as_mut()].into_iter().flatten() {
                if at >= replaying.from {
                    replaying
                        .recovery
                        .replay(now, at, kind, payload)
                        .map_err(|error| error.to_string())?;
                }
            }
            Ok(())
        };
        let (wal_log, writer, report) =
            match Log::open(folder.clone(), options.clone(), replay_from, visit) {
                Err(OpenError::Corrupt(_)) if mutant == Some(Mutant::DamageTakenForEnd) => {
                    for name in folder.list().unwrap_or_default() {
                        folder.remove(&name).map_err(|_| OpenFailure::Crashed)?;
                    }
                    frames.clear();
                    main = Replaying::new(self, &settings, shards, None)?;
                    other = None;
                    let fresh = LogOptions {
                        mode: OpenMode::Create,
                        ..options
                    };
                    Log::open(folder, fresh, Lsn::ZERO, |_, _, _| Ok(()))
                        .map_err(|error| self.failure(&error))?
                }
                opened => opened.map_err(|error| self.failure(&error))?,
            };
        let (shard, recovered) = main.recovery.finish(now, report.end);
        let journal = SpiedLog::new(wal_log, mutant, self.judge_of_now());
        let dump = dump(&shard, &journal);
        let other_dump =
            other.map(|other| dump_of(other.recovery.finish(now, report.end).0, &journal));
        let opened = Opened {
            fell_back: newest_lost,
            frames,
            replay_from,
            dump,
            other_dump,
            report,
        };
        let node = ShardNode {
            shard,
            sealed_to: Lsn::ZERO,
            journal,
            writer,
            mailbox: VecDeque::new(),
            answer: None,
            next_turn: None,
            stalled_until: 0,
            last_commit_ns: self.clock.true_ns,
            checkpoint: None,
            relocation: None,
        };
        Ok((node, opened, recovered))
    }

    /// What decides anew after a restart, where a planted bug has it so.
    fn judge_of_now(&self) -> Option<Judge> {
        let anew = self.options.mutant == Some(Mutant::DecidedAnew);
        anew.then(|| Judge::new(self.options, self.in_force, self.plans))?
    }

    fn dir_failure(&self, error: &DataDirError) -> OpenFailure {
        match error {
            _ if self.medium.disk().is_crashed() => OpenFailure::Crashed,
            DataDirError::Damaged { .. } => OpenFailure::Damaged(chain(error)),
            other => self.broken(other),
        }
    }

    fn broken(&self, error: &dyn Error) -> OpenFailure {
        // A start needs a new segment when the last one was torn.
        let full = self
            .medium
            .disk()
            .free_space()
            .is_ok_and(|free| free < 1 << 20);
        if full {
            OpenFailure::Full
        } else {
            OpenFailure::Broken(chain(error))
        }
    }

    fn failure(&self, error: &OpenError) -> OpenFailure {
        match error {
            _ if self.medium.disk().is_crashed() => OpenFailure::Crashed,
            OpenError::Corrupt(_) => OpenFailure::Damaged(chain(error)),
            other => self.broken(other),
        }
    }
}

/// Kept for polls of the sliding limits of accounts that take batches.
const POLLS_PERMILLE: u16 = 50;

/// The limits of an account as the coordinator is told them.
fn limits_of(account: &AccountOptions, mutant: Option<Mutant>) -> Vec<Limit> {
    let sliding = account.limits.iter().map(|&(limit, window_ms)| {
        let window = Duration::from_millis(window_ms);
        let name = format!("{limit}/{window_ms}ms");
        let mut limit = Limit::new(name, Policy::Sliding { limit, window });
        // Where calls are told apart, first attempts that wait for permits of their own class do
        // not count as waiting behind retries of others; the oracle of these does not know that.
        if account.batch_max > 1 {
            limit.reserve.polls_permille = POLLS_PERMILLE;
        }
        limit
    });
    let fixed = account.fixed.map(|fixed| {
        let zone_s = match mutant {
            Some(Mutant::ZoneForgotten) => 0,
            _ => fixed.zone_s,
        };
        let offset = Offset::from_seconds(zone_s).expect("within half a day");
        let policy = Policy::Fixed {
            limit: fixed.limit,
            window: Duration::from_millis(fixed.window_ms),
            zone: TimeZone::fixed(offset),
        };
        Limit::new("fixed", policy)
    });
    let bucket = account.bucket.map(|bucket| {
        let period = Duration::from_millis(bucket.period_ms);
        let policy = match mutant {
            Some(Mutant::BucketTakenForWindow) => Policy::Sliding {
                limit: bucket.burst.max(bucket.refill),
                window: period,
            },
            _ => Policy::TokenBucket {
                burst: bucket.burst,
                refill: bucket.refill,
                period,
            },
        };
        Limit::new("bucket", policy)
    });
    sliding.chain(fixed).chain(bucket).collect()
}

/// A recovery and where it begins.
struct Replaying {
    recovery: Recovery<Ticket>,
    from: Lsn,
}

impl Replaying {
    fn new(
        plan: &OpenPlan<'_>,
        settings: &ShardSettings,
        shards: u16,
        saved: Option<&Saved>,
    ) -> Result<Self, OpenFailure> {
        let owned = (0..VSHARD_COUNT)
            .filter_map(VShard::new)
            .filter(|vshard| vshard.owner(usize::from(shards)) == usize::from(settings.id.0));
        let mut recovery = Recovery::new(settings.clone(), owned, plan.clock.now().mono);
        for part in saved.iter().flat_map(|saved| &saved.parts) {
            recovery
                .load(part)
                .map_err(|error| OpenFailure::Broken(format!("a checkpoint part: {error}")))?;
        }
        Ok(Self {
            recovery,
            from: saved.map_or(Lsn::ZERO, |saved| saved.replay_from),
        })
    }
}

/// What a planted bug leaves out of the replay.
fn forgets(mutant: Option<Mutant>, at: Lsn, kind: Kind, payload: &[u8]) -> bool {
    match (mutant, kind) {
        (Some(Mutant::ForgottenIntents), Kind::Intent) => true,
        (Some(Mutant::ForgottenOutcomes), Kind::State) => {
            let frame = StateFrame::decode(payload).ok();
            let last = frame.as_ref().and_then(|frame| {
                frame.records[0].targets[usize::from(frame.moved?)]
                    .last
                    .as_ref()
            });
            last.is_some_and(|last| last.state.is_final()) && at.get().is_multiple_of(3)
        }
        _ => false,
    }
}

/// A shard's index in canonical form.
pub(super) fn dump(shard: &Shard<Ticket>, journal: &SpiedLog) -> IndexDump {
    let parts: Vec<CheckpointPart> = std::iter::once(shard.general_part(journal))
        .chain(
            shard
                .owned()
                .filter_map(|vshard| shard.vshard_part(journal, vshard)),
        )
        .collect();
    IndexDump::read(&parts).expect("parts just written are read")
}

fn dump_of(shard: Shard<Ticket>, journal: &SpiedLog) -> IndexDump {
    dump(&shard, journal)
}

fn limits(segment_bytes: u64) -> LogLimits {
    LogLimits {
        segment_bytes,
        segment_bytes_min: 256 << 10,
        payload_bytes_max: PAYLOAD_BYTES_MAX,
        block_bytes: 8 << 10,
        staged_bytes_max: (STAGED_BYTES_MAX * 3 / 2) as usize,
        tail_cache_bytes: 32 << 10,
        read_cache_bytes: 64 << 10,
        outcome_reserve_bytes: 128 << 10,
        free_bytes_min: 64 << 10,
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
