//! Checkpoints: slices of the index on their way to a file, and back at a start.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use engine::dedup::{DedupEntry, EventKey, EventKeys, TakenOperation};
use engine::event::codec;
use engine::id::{RecordHash, VShard};
use engine::journal::{Journal, Kind};
use engine::shard::{CheckpointPart, Recovery, Shard, ShardSettings};
use engine::time::{Mono, Now};
use tokio::sync::Notify;
use wal::checkpoint::{
    CheckpointError, CheckpointVisit, CheckpointWriter, Finished, SECTION_BYTES_MAX, load_newest,
};
use wal::{Disk, InstanceId, LogId, Lsn, SegmentNumber, Storage, VisitError};

use super::StartError;
use super::journal::ShardLog;
use super::remembered::Remembered;
use super::shard_thread::{Waiting, chain};

/// Log bytes after which a checkpoint is due, so that a restart replays about as much: a second
/// or two of work.
const CHECKPOINT_EVERY_BYTES: u64 = 256 * 1024 * 1024;
/// How often retention is looked at.
const RETENTION_PERIOD: Duration = Duration::from_secs(1);
/// Parts of the index encoded in one turn, in bytes, about.
const BYTES_PER_TURN: usize = 512 * 1024;
/// Messages to the writing thread that wait at most.
const MESSAGES_MAX: usize = 16;

/// A slice of a part that goes on in the next section.
const SECTION_SLICE: u16 = 1;
/// The last slice of a part.
const SECTION_PART_END: u16 = 2;
/// Event ids.
const SECTION_EVENT_IDS: u16 = 3;
/// Bytes of one event id in a section.
const EVENT_ID_BYTES: usize = 36;

/// How event ids are turned into keys; the seed comes from the data directory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventIdRules {
    pub(crate) keys: EventKeys,
}

impl Default for EventIdRules {
    fn default() -> Self {
        Self {
            keys: EventKeys::new(0),
        }
    }
}

/// Event ids found in a checkpoint and in the log behind it.
#[derive(Debug, Default)]
pub(crate) struct EventIds {
    entries: Vec<DedupEntry>,
}

impl EventIds {
    pub(crate) fn replay(&mut self, kind: Kind, payload: &[u8], rules: &EventIdRules) {
        if kind != Kind::Event {
            return;
        }
        let Ok(accepted) = codec::decode(payload) else {
            return;
        };
        let (Some(id), Some(dedup)) = (accepted.event.event_id.as_deref(), accepted.dedup) else {
            return;
        };
        let key: EventKey = rules.keys.key(&dedup.scope.to_le_bytes(), id.as_bytes());
        self.entries.push(DedupEntry {
            key,
            body: dedup.body_hash as u32,
            operation: TakenOperation {
                record: accepted.record_hash,
                sequence: accepted.operation_seq,
            },
            accepted_at_ms: accepted.accepted_at_ms.max(0).unsigned_abs(),
        });
    }

    pub(crate) fn finish(self) -> Vec<DedupEntry> {
        self.entries
    }

    fn load(&mut self, bytes: &[u8]) -> Result<(), VisitError> {
        let entries = bytes.as_chunks::<EVENT_ID_BYTES>();
        if !entries.1.is_empty() {
            return Err("event ids of another length".into());
        }
        for entry in entries.0 {
            let word = |at: usize| {
                u64::from_le_bytes(*entry[at..].first_chunk().expect("36 bytes hold it"))
            };
            self.entries.push(DedupEntry {
                key: EventKey::from_raw(word(0)),
                operation: TakenOperation {
                    record: word(8),
                    sequence: word(16),
                },
                accepted_at_ms: word(24),
                body: u32::from_le_bytes(*entry[32..].first_chunk().expect("36 bytes hold it")),
            });
        }
        Ok(())
    }
}

/// Where a recovery starts.
pub(crate) struct Loaded {
    pub(crate) recovery: Recovery<Waiting>,
    pub(crate) replay_from: Lsn,
    pub(crate) event_ids: EventIds,
    /// Newer checkpoints that do not verify.
    pub(crate) damaged: Vec<(std::path::PathBuf, wal::checkpoint::CheckpointFault)>,
}

struct Loading {
    recovery: Recovery<Waiting>,
    event_ids: EventIds,
    part: Vec<u8>,
}

impl CheckpointVisit for Loading {
    fn section(&mut self, kind: u16, bytes: &[u8]) -> Result<(), VisitError> {
        match kind {
            SECTION_SLICE => self.part.extend_from_slice(bytes),
            SECTION_PART_END => {
                self.part.extend_from_slice(bytes);
                let part = CheckpointPart {
                    bytes: std::mem::take(&mut self.part),
                };
                self.recovery
                    .load(&part)
                    .map_err(|error| VisitError::from(error.to_string()))?;
                self.part = part.bytes;
                self.part.clear();
            }
            SECTION_EVENT_IDS => self.event_ids.load(bytes)?,
            _ => return Err("a section that this build does not know".into()),
        }
        Ok(())
    }
}

/// Loads the newest checkpoint that verifies, or begins with nothing.
pub(crate) fn load(
    folder: &Disk,
    log: LogId,
    instance: InstanceId,
    settings: &ShardSettings,
    owned: &[VShard],
    now: Now,
) -> Result<Loaded, StartError> {
    let begin = || Loading {
        recovery: Recovery::new(settings.clone(), owned.iter().copied(), now.mono),
        event_ids: EventIds::default(),
        part: Vec::new(),
    };
    let loaded =
        load_newest(folder, log, instance, begin).map_err(|error| StartError::log(&error))?;
    for (path, fault) in &loaded.damaged {
        tracing::error!(path = %path.display(), fault = %chain(fault), "a checkpoint is damaged; the one before it is used");
    }
    let (replay_from, loading) = match loaded.checkpoint {
        Some((head, loading)) => (head.covers, loading),
        None => (Lsn::ZERO, begin()),
    };
    Ok(Loaded {
        recovery: loading.recovery,
        replay_from,
        event_ids: loading.event_ids,
        damaged: loaded.damaged,
    })
}

/// Writes a part in as many sections as it takes.
pub(crate) fn write_part<S: Storage>(
    writer: &mut CheckpointWriter<S>,
    part: &CheckpointPart,
) -> Result<(), CheckpointError> {
    let mut rest = &part.bytes[..];
    while rest.len() > SECTION_BYTES_MAX {
        let (slice, after) = rest.split_at(SECTION_BYTES_MAX);
        writer.section(SECTION_SLICE, &[slice])?;
        rest = after;
    }
    writer.section(SECTION_PART_END, &[rest])
}

/// Writes event ids.
pub(crate) fn write_event_ids<S: Storage>(
    writer: &mut CheckpointWriter<S>,
    entries: &[DedupEntry],
) -> Result<(), CheckpointError> {
    for entries in entries.chunks(SECTION_BYTES_MAX / EVENT_ID_BYTES) {
        let mut bytes = Vec::with_capacity(entries.len() * EVENT_ID_BYTES);
        for entry in entries {
            bytes.extend_from_slice(&entry.key.get().to_le_bytes());
            bytes.extend_from_slice(&entry.operation.record.to_le_bytes());
            bytes.extend_from_slice(&entry.operation.sequence.to_le_bytes());
            bytes.extend_from_slice(&entry.accepted_at_ms.to_le_bytes());
            bytes.extend_from_slice(&entry.body.to_le_bytes());
        }
        writer.section(SECTION_EVENT_IDS, &[&bytes])?;
    }
    Ok(())
}

enum Message {
    Begin {
        shard: usize,
        folder: Disk,
        log: LogId,
        instance: InstanceId,
        covers: Lsn,
        wall_ms: u64,
    },
    Part {
        shard: usize,
        part: CheckpointPart,
    },
    Finish {
        shard: usize,
    },
}

/// What became of a checkpoint; `None` when it failed and does not count.
type Outcome = Arc<Mutex<VecDeque<Option<Finished>>>>;

/// The thread that writes the checkpoints of all shards.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    messages: SyncSender<Message>,
    thread: JoinHandle<()>,
}

/// A shard's way to that thread.
#[derive(Debug)]
pub(crate) struct CheckpointFeed {
    shard: usize,
    folder: Disk,
    log: LogId,
    instance: InstanceId,
    keep: Keep,
    messages: SyncSender<Message>,
    outcome: Outcome,
}

/// What of a shard's log is kept although nothing lives in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Since the last commit to a segment.
    pub(crate) age: Duration,
    /// Of all segments together.
    pub(crate) bytes: u64,
}

impl Checkpointer {
    /// Starts the thread. `owner` tells the shard of a record, for its event ids.
    pub(crate) fn spawn(
        remembered: Arc<Remembered>,
        shards: usize,
        wakes: Vec<Arc<Notify>>,
    ) -> std::io::Result<(Self, Vec<Outcome>)> {
        let (messages, from_shards) = sync_channel(MESSAGES_MAX);
        let outcomes: Vec<Outcome> = wakes.iter().map(|_| Outcome::default()).collect();
        let worker = Worker {
            remembered,
            shards,
            wakes,
            outcomes: outcomes.clone(),
            open: (0..shards).map(|_| None).collect(),
        };
        let thread = thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || worker.run(&from_shards))?;
        Ok((Self { messages, thread }, outcomes))
    }

    /// The way of one shard.
    pub(crate) fn feed(
        &self,
        folder: Disk,
        log: LogId,
        instance: InstanceId,
        keep: Keep,
        outcome: Outcome,
    ) -> CheckpointFeed {
        CheckpointFeed {
            shard: usize::from(log.shard),
            folder,
            log,
            instance,
            keep,
            messages: self.messages.clone(),
            outcome,
        }
    }

    /// Ends the thread once all shards are gone.
    pub(crate) fn join(self) -> bool {
        drop(self.messages);
        self.thread.join().is_ok()
    }
}

struct Worker {
    remembered: Arc<Remembered>,
    shards: usize,
    wakes: Vec<Arc<Notify>>,
    outcomes: Vec<Outcome>,
    open: Vec<Option<CheckpointWriter<Disk>>>,
}

impl Worker {
    fn run(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            let (shard, done) = match message {
                Message::Begin {
                    shard,
                    folder,
                    log,
                    instance,
                    covers,
                    wall_ms,
                } => {
                    let writer = CheckpointWriter::create(folder, log, instance, covers, wall_ms);
                    (
                        shard,
                        writer
                            .map(|writer| self.open[shard] = Some(writer))
                            .map(|()| None),
                    )
                }
                Message::Part { shard, part } => match self.open[shard].as_mut() {
                    Some(writer) => (shard, write_part(writer, &part).map(|()| None)),
                    None => continue,
                },
                Message::Finish { shard } => match self.open[shard].take() {
                    Some(writer) => (shard, self.finish(shard, writer).map(Some)),
                    None => {
                        self.tell(shard, None);
                        continue;
                    }
                },
            };
            match done {
                Ok(None) => {}
                Ok(Some(finished)) => self.tell(shard, Some(finished)),
                Err(error) => {
                    // The checkpoints before it still count; the log is kept until one succeeds.
                    tracing::error!(shard, error = %chain(&error), "a checkpoint could not be written");
                    // A shard that has asked for the end hears of it at once, any other when it asks.
                    if self.open[shard].take().is_none() {
                        self.tell(shard, None);
                    }
                }
            }
        }
    }

    fn finish(
        &self,
        shard: usize,
        mut writer: CheckpointWriter<Disk>,
    ) -> Result<Finished, CheckpointError> {
        let shards = self.shards;
        let entries = self
            .remembered
            .entries_of(move |record| RecordHash(record).vshard().owner(shards) == shard);
        write_event_ids(&mut writer, &entries)?;
        writer.finish()
    }

    fn tell(&self, shard: usize, finished: Option<Finished>) {
        self.outcomes[shard]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(finished);
        self.wakes[shard].notify_one();
    }
}

/// A shard's checkpoint, and what of its log can go.
#[derive(Debug)]
pub(crate) struct Checkpointing {
    stage: Stage,
    /// The log's end when the last checkpoint began.
    since: Lsn,
    /// A sweep ended: the next checkpoint lets segments go.
    wanted: bool,
    retention_seen: Mono,
    keep_from: Lsn,
}

#[derive(Debug)]
enum Stage {
    Idle,
    Parts {
        rest: VecDeque<VShard>,
        begun: bool,
        covers: Lsn,
        unsent: Option<Message>,
    },
    /// All parts are sent; what they point at has to be durable before it counts.
    Sealing {
        needs: Lsn,
    },
    Finishing,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Begin { .. } => "Begin",
            Self::Part { .. } => "Part",
            Self::Finish { .. } => "Finish",
        })
    }
}

impl Checkpointing {
    /// Of a log whose newest checkpoint covers it up to `since`.
    pub(crate) fn new(since: Lsn) -> Self {
        Self {
            stage: Stage::Idle,
            since,
            wanted: false,
            retention_seen: Mono(0),
            keep_from: Lsn::ZERO,
        }
    }

    /// A turn's share of the work; true when there is more to do at once.
    pub(crate) fn step<T>(
        &mut self,
        now: Now,
        shard: &mut Shard<T>,
        journal: &mut ShardLog<Disk>,
        feed: &mut CheckpointFeed,
    ) -> bool {
        self.collect(shard, journal, feed);
        match &mut self.stage {
            Stage::Idle => {
                self.retain(now, shard, journal, feed);
                let grown = journal.end().get().saturating_sub(self.since.get());
                if (grown >= CHECKPOINT_EVERY_BYTES || self.wanted) && !shard.is_relocating() {
                    self.wanted = false;
                    self.since = journal.end();
                    let rest = shard.owned().collect();
                    self.stage = Stage::Parts {
                        rest,
                        begun: false,
                        covers: self.since,
                        unsent: None,
                    };
                    return true;
                }
                false
            }
            Stage::Parts { .. } => self.send_parts(now, shard, journal, feed),
            Stage::Sealing { needs } => {
                if journal.durable() >= *needs
                    && feed
                        .messages
                        .try_send(Message::Finish { shard: feed.shard })
                        .is_ok()
                {
                    self.stage = Stage::Finishing;
                }
                false
            }
            Stage::Finishing => false,
        }
    }

    fn send_parts<T>(
        &mut self,
        now: Now,
        shard: &Shard<T>,
        journal: &ShardLog<Disk>,
        feed: &CheckpointFeed,
    ) -> bool {
        let Stage::Parts {
            rest,
            begun,
            covers,
            unsent,
        } = &mut self.stage
        else {
            return false;
        };
        let mut bytes = 0;
        while bytes < BYTES_PER_TURN {
            let message = match unsent.take() {
                Some(message) => message,
                None if !*begun => {
                    *begun = true;
                    Message::Begin {
                        shard: feed.shard,
                        folder: feed.folder.clone(),
                        log: feed.log,
                        instance: feed.instance,
                        covers: *covers,
                        wall_ms: now.wall.0.max(0).unsigned_abs(),
                    }
                }
                None => match rest.pop_front() {
                    Some(vshard) => {
                        let Some(part) = shard.vshard_part(journal, vshard) else {
                            continue;
                        };
                        bytes += part.bytes.len();
                        Message::Part {
                            shard: feed.shard,
                            part,
                        }
                    }
                    None => {
                        let part = shard.general_part(journal);
                        *unsent = Some(Message::Part {
                            shard: feed.shard,
                            part,
                        });
                        break;
                    }
                },
            };
            if let Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) =
                feed.messages.try_send(message)
            {
                *unsent = Some(message);
                return false;
            }
        }
        if rest.is_empty()
            && let Some(last) = unsent.take()
        {
            if let Err(TrySendError::Full(last) | TrySendError::Disconnected(last)) =
                feed.messages.try_send(last)
            {
                *unsent = Some(last);
                return false;
            }
            self.stage = Stage::Sealing {
                needs: journal.end(),
            };
        }
        true
    }

    /// Takes a finished checkpoint's word and lets segments go.
    fn collect<T>(
        &mut self,
        shard: &Shard<T>,
        journal: &mut ShardLog<Disk>,
        feed: &CheckpointFeed,
    ) {
        let outcome = feed
            .outcome
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(outcome) = outcome else { return };
        self.stage = Stage::Idle;
        let Some(finished) = outcome else { return };
        self.keep_from = self.keep_from.max(finished.keep_from);
        let free_below = self.keep_from.min(shard.relocated_below());
        let free: Vec<SegmentNumber> = journal
            .log()
            .segments()
            .filter(|segment| segment.sealed && segment.end <= free_below)
            .map(|segment| segment.number)
            .collect();
        for number in free {
            match journal.log().release(number) {
                Ok(()) => {
                    tracing::info!(log = %feed.log, segment = %number, "a segment that nothing needs was given up")
                }
                Err(error) => {
                    tracing::warn!(log = %feed.log, %error, "a segment could not be given up yet");
                    break;
                }
            }
        }
        // The checkpoint kept behind this one still needs what was just swept; the next one
        // lets it go.
        self.wanted |= self.keep_from < shard.relocated_below();
    }

    /// Begins a sweep when segments are past retention, or the disk is full.
    fn retain<T>(
        &mut self,
        now: Now,
        shard: &mut Shard<T>,
        journal: &mut ShardLog<Disk>,
        feed: &CheckpointFeed,
    ) {
        if now.mono.saturating_since(self.retention_seen) < RETENTION_PERIOD
            || shard.is_relocating()
        {
            return;
        }
        self.retention_seen = now.mono;
        let full = !journal.intake_open();
        let now_ms = now.wall.0.max(0).unsigned_abs();
        let oldest_ms =
            now_ms.saturating_sub(u64::try_from(feed.keep.age.as_millis()).unwrap_or(u64::MAX));
        let mut bytes: u64 = journal.log().segments().map(|segment| segment.bytes).sum();
        let mut cut = None;
        for segment in journal.log().segments().filter(|segment| segment.sealed) {
            if full || segment.last_wall_ms < oldest_ms || bytes > feed.keep.bytes {
                cut = Some(segment.end);
                bytes -= segment.bytes;
            }
        }
        match cut {
            Some(cut) if cut > shard.relocated_below() => drop(shard.relocate(cut)),
            Some(_) if shard.relocated_below() > self.keep_from => self.wanted = true,
            _ => {}
        }
    }
}
