//! The index on disk, so that a restart replays the log's end only.
//!
//! A checkpoint is a general part and one part per virtual shard, each taken at an instant of
//! its own: a part says how far into the log it has seen, and replay skips for it what lies
//! before. So a large index is written in slices between turns, and no turn waits for it.

use wal::Lsn;

use super::Shard;
use super::learned_book::LearnedBook;
use super::leases::LoggedLease;
use super::recover::Recovery;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::entry::HoldScope;
use crate::id::{RecordHash, VShard};
use crate::journal::Journal;
use crate::lane;
use crate::operation_slab::{
    Flow, NewOperation, OpClass, OpFlags, OpIndex, Position, Priority, Target,
};
use crate::producers::{Producers, Seen};
use crate::quota::Learned;
use crate::record_table::RecordTag;
use crate::time::{Mono, WallMs};

const VERSION: u8 = 3;
/// Its operations have no flow, and its leases do not say when their calls had ended.
const VERSION_WITHOUT_FLOWS: u8 = 2;
/// Its leases have no label, and nothing is said of learned sizes.
const VERSION_WITHOUT_LABELS: u8 = 1;
/// Part number of what belongs to no virtual shard.
const GENERAL: u16 = u16::MAX;

/// One section of a checkpoint file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointPart {
    /// Encoded content; its first bytes are version, number and how far it has seen.
    pub bytes: Vec<u8>,
}

/// What a part keeps of an operation's flags, by bit. Parts written before the last of them was kept
/// take a retry for a first attempt.
const KEPT_FLAGS: [OpFlags; 3] = [
    OpFlags::INTENT_LOGGED,
    OpFlags::REDRIVEN,
    OpFlags::ATTEMPTED,
];

impl<T> Shard<T> {
    /// What belongs to no virtual shard: holds, producers, leases, object names.
    #[must_use]
    pub fn general_part(&self, journal: &impl Journal) -> CheckpointPart {
        let index = &self.index;
        encode_general(
            journal.end(),
            index.holds(),
            &index.producers,
            index.leases.logged(),
            index.learned.iter(),
            index.objects(),
        )
    }

    /// One virtual shard: its records, their open operations, its dead letters.
    #[must_use]
    pub fn vshard_part(&self, journal: &impl Journal, vshard: VShard) -> Option<CheckpointPart> {
        let table = self.index.table_of(vshard)?;
        let mut bytes = Vec::new();
        let mut e = Encoder::new(&mut bytes);
        e.u8(VERSION)
            .u16(vshard.index() as u16)
            .u64(journal.end().get());
        e.u16(self.index.accounts.len() as u16);
        for account in &self.index.accounts {
            e.text(&account.name);
        }
        e.u64(table.len() as u64);
        for record in table.iter() {
            e.u64(record.tag.get())
                .u64(record.position.map_or(0, Position::offset));
            let lanes: Vec<_> = lane::lanes(&self.index.slab, record.lane).collect();
            e.u16(lanes.len() as u16);
            for lane in lanes {
                let ops: Vec<OpIndex> = lane.iter(&self.index.slab).collect();
                e.u32(ops.len() as u32);
                for op in ops {
                    self.encode_operation(&mut e, op);
                }
            }
        }
        let dead: Vec<OpIndex> = self.index.dead_of(vshard).iter(&self.index.slab).collect();
        e.u32(dead.len() as u32);
        for op in dead {
            e.u64(self.index.slab[op].dead_record().0);
            self.encode_operation(&mut e, op);
        }
        Some(CheckpointPart { bytes })
    }

    /// Virtual shards this shard owns, for a checkpoint to go through.
    pub fn owned(&self) -> impl Iterator<Item = VShard> + '_ {
        self.index.owned()
    }

    fn encode_operation(&self, e: &mut Encoder<'_>, op: OpIndex) {
        let node = &self.index.slab[op];
        e.u64(node.position().offset())
            .u16(node.target().0)
            .u32(node.sequence_low());
        e.u8(node.priority().get()).u8(node.class() as u8);
        let marks = KEPT_FLAGS.iter().enumerate();
        let marks = marks.map(|(bit, &flag)| u8::from(node.has(flag)) << bit);
        e.u8(marks.sum());
        e.u16(node.flow().get());
    }
}

fn encode_general<'a>(
    seen_to: Lsn,
    holds: &[HoldScope],
    producers: &Producers,
    leases: impl Iterator<Item = &'a LoggedLease>,
    learned: impl Iterator<Item = Learned>,
    objects: impl Iterator<Item = &'a str>,
) -> CheckpointPart {
    let mut bytes = Vec::new();
    let mut e = Encoder::new(&mut bytes);
    e.u8(VERSION).u16(GENERAL).u64(seen_to.get());
    e.u32(holds.len() as u32);
    for scope in holds {
        e.optional_text(scope.provider.as_deref());
        e.optional_text(scope.object.as_deref());
        e.optional_text(scope.record_id.as_deref());
    }
    let producers = producers.sorted();
    e.u32(producers.len() as u32);
    for (producer, seen) in producers {
        e.u64(producer).u64(seen.base).u32(seen.above.len() as u32);
        for &seq in &seen.above {
            e.u64(seq);
        }
    }
    let leases: Vec<_> = leases.collect();
    e.u32(leases.len() as u32);
    for lease in leases {
        e.text(&lease.account).u64(lease.id).u32(lease.permits);
        e.u64(lease.usable_until.0)
            .i64(lease.usable_until_wall.0)
            .u64(lease.boot)
            .text(&lease.label)
            .u64(lease.ended_by.map_or(0, |by| by.0));
    }
    let learned: Vec<Learned> = learned.collect();
    e.u32(learned.len() as u32);
    let mut entry = Vec::new();
    for learned in learned {
        entry.clear();
        learned.encode(&mut entry);
        e.bytes(&entry);
    }
    let objects: Vec<&str> = objects.collect();
    e.u32(objects.len() as u32);
    for object in objects {
        e.text(object);
    }
    CheckpointPart { bytes }
}

/// Takes a part into a recovery.
pub(super) fn load<T>(recovery: &mut Recovery<T>, part: &CheckpointPart) -> Result<(), Damaged> {
    let mut d = Decoder::new(&part.bytes);
    let version = version(&mut d)?;
    let number = d.u16("part")?;
    let seen_to = Lsn::checked(d.u64("seen to")?).ok_or(d.damaged("seen to"))?;
    if number == GENERAL {
        let (shard, _, seen) = recovery.parts();
        *seen = seen_to;
        load_general(shard, version, &mut d)?;
    } else {
        let vshard = VShard::new(usize::from(number)).ok_or(d.damaged("part"))?;
        let (shard, seen, _) = recovery.parts();
        seen[vshard.index()] = seen_to;
        if shard.index.table_of(vshard).is_none() {
            return Err(d.damaged("virtual shard of another shard"));
        }
        load_vshard(shard, vshard, version, &mut d)?;
    }
    if d.is_empty() {
        Ok(())
    } else {
        Err(d.damaged("end"))
    }
}

fn version(d: &mut Decoder<'_>) -> Result<u8, Damaged> {
    match d.u8("version")? {
        version @ (VERSION_WITHOUT_LABELS | VERSION_WITHOUT_FLOWS | VERSION) => Ok(version),
        _ => Err(d.damaged("version")),
    }
}

fn load_general<T>(shard: &mut Shard<T>, version: u8, d: &mut Decoder<'_>) -> Result<(), Damaged> {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    for _ in 0..d.u32("holds")? {
        let scope = HoldScope {
            provider: owned(d.optional_text("provider")?),
            object: owned(d.optional_text("object")?),
            record_id: owned(d.optional_text("record_id")?),
        };
        shard
            .index
            .apply_hold(&crate::entry::HoldChange { scope, set: true });
    }
    for _ in 0..d.u32("producers")? {
        let (producer, base) = (d.u64("producer")?, d.u64("base")?);
        let mut seen = Seen {
            base,
            ..Seen::default()
        };
        for _ in 0..d.u32("above")? {
            seen.above.push_back(d.u64("seq")?);
        }
        shard.index.producers.restore(producer, &seen);
    }
    for _ in 0..d.u32("leases")? {
        let mut lease = LoggedLease {
            account: d.text("account")?.to_owned(),
            id: d.u64("lease")?,
            permits: d.u32("permits")?,
            usable_until: Mono(d.u64("usable until")?),
            usable_until_wall: WallMs(d.i64("usable until, wall")?),
            boot: d.u64("boot")?,
            label: match version {
                VERSION_WITHOUT_LABELS => String::new(),
                _ => d.text("label")?.to_owned(),
            },
            ended_by: None,
            since_wall: WallMs::default(),
        };
        lease.since_wall = lease.usable_until_wall;
        if version == VERSION {
            lease.ended_by = Some(Mono(d.u64("ended by")?)).filter(|by| by.0 > 0);
        }
        shard.index.leases.restore(lease);
    }
    if version != VERSION_WITHOUT_LABELS {
        for _ in 0..d.u32("learned")? {
            let learned = Learned::decode(d.bytes("learned")?)?;
            shard.index.learned.apply(&learned);
        }
    }
    for _ in 0..d.u32("objects")? {
        shard.index.note_object(d.text("object")?);
    }
    Ok(())
}

fn load_vshard<T>(
    shard: &mut Shard<T>,
    vshard: VShard,
    version: u8,
    d: &mut Decoder<'_>,
) -> Result<(), Damaged> {
    let mut targets = Vec::new();
    for _ in 0..d.u16("accounts")? {
        targets.push(shard.account(d.text("account")?));
    }
    for _ in 0..d.u64("records")? {
        let tag = RecordTag::from_hash(d.u64("tag")?);
        let at = d.u64("position")?;
        shard.index.load_record(vshard, tag, Position::new(at));
        for _ in 0..d.u16("lanes")? {
            for _ in 0..d.u32("operations")? {
                let (new, flags) = decode_operation(d, version, &targets)?;
                shard.index.load_operation(vshard, tag, new, flags);
            }
        }
    }
    for _ in 0..d.u32("dead letters")? {
        let record = RecordHash(d.u64("record")?);
        let (new, flags) = decode_operation(d, version, &targets)?;
        shard.index.load_dead(record, new, flags);
    }
    Ok(())
}

fn decode_operation(
    d: &mut Decoder<'_>,
    version: u8,
    targets: &[Target],
) -> Result<(NewOperation, OpFlags), Damaged> {
    let position = Position::new(d.u64("event")?).ok_or(d.damaged("event"))?;
    let target = *targets
        .get(usize::from(d.u16("target")?))
        .ok_or(d.damaged("target"))?;
    let sequence_low = d.u32("sequence")?;
    let priority = Priority::new(d.u8("priority")?).ok_or(d.damaged("priority"))?;
    let class = *OpClass::ALL
        .get(usize::from(d.u8("class")?))
        .ok_or(d.damaged("class"))?;
    let marks = d.u8("flags")?;
    let kept = KEPT_FLAGS.iter().enumerate();
    let kept = kept.filter(|(bit, _)| marks & (1 << bit) != 0);
    let flags = kept.fold(OpFlags::NONE, |flags, (_, &flag)| flags.with(flag));
    let flow = decode_flow(d, version)?;
    Ok((
        NewOperation {
            position,
            target,
            sequence_low,
            priority,
            class,
            flow,
        },
        flags,
    ))
}

/// Of an older part's operations it is found out when they are looked at.
fn decode_flow(d: &mut Decoder<'_>, version: u8) -> Result<Flow, Damaged> {
    if version < VERSION {
        return Ok(Flow::UNREAD);
    }
    Flow::new(d.u16("flow")?).ok_or(d.damaged("flow"))
}

/// What a part is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// What belongs to no virtual shard.
    General,
    /// One virtual shard.
    Records(VShard),
}

/// Copies a frame into another log; where it lies there.
pub trait Carry {
    /// Why a frame could not be carried over.
    type Error;

    /// A record's state frame. What it says of positions in the old log has to go.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn state(&mut self, at: Lsn) -> Result<Lsn, Self::Error>;

    /// An event.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn event(&mut self, at: Lsn) -> Result<Lsn, Self::Error>;
}

/// Why a part could not be carried into another log. Nothing refers to the copy yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarryError<E> {
    /// The part does not decode.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A frame could not be carried.
    #[error("a frame cannot be carried into the new log")]
    Frame(E),
}

impl CheckpointPart {
    /// What the part is about.
    ///
    /// # Errors
    /// [`Damaged`] when it is no part of this version.
    pub fn kind(&self) -> Result<PartKind, Damaged> {
        let mut d = Decoder::new(&self.bytes);
        version(&mut d)?;
        match d.u16("part")? {
            GENERAL => Ok(PartKind::General),
            number => VShard::new(usize::from(number))
                .map(PartKind::Records)
                .ok_or(d.damaged("part")),
        }
    }

    /// The same virtual shard in another log: every frame it points at is carried over. The new
    /// log's end afterwards, from `end`, is what the part has seen.
    ///
    /// # Errors
    /// [`CarryError`].
    pub fn carried<C: Carry>(
        &self,
        carry: &mut C,
        end: impl FnOnce(&mut C) -> Lsn,
    ) -> Result<Self, CarryError<C::Error>> {
        let mut d = Decoder::new(&self.bytes);
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut e = Encoder::new(&mut bytes);
        let version = version(&mut d)?;
        e.u8(VERSION).u16(d.u16("part")?).u64(0);
        d.u64("seen to")?;
        let accounts = d.u16("accounts")?;
        e.u16(accounts);
        for _ in 0..accounts {
            e.text(d.text("account")?);
        }
        let records = d.u64("records")?;
        e.u64(records);
        for _ in 0..records {
            e.u64(d.u64("tag")?);
            let state = Lsn::checked(d.u64("position")?).ok_or(d.damaged("position"))?;
            let state = if state == Lsn::ZERO {
                state
            } else {
                carry.state(state).map_err(CarryError::Frame)?
            };
            e.u64(state.get());
            let lanes = d.u16("lanes")?;
            e.u16(lanes);
            for _ in 0..lanes {
                let operations = d.u32("operations")?;
                e.u32(operations);
                for _ in 0..operations {
                    carry_operation(&mut d, version, &mut e, carry)?;
                }
            }
        }
        let dead = d.u32("dead letters")?;
        e.u32(dead);
        for _ in 0..dead {
            e.u64(d.u64("record")?);
            carry_operation(&mut d, version, &mut e, carry)?;
        }
        let seen = end(carry).get().to_le_bytes();
        bytes[3..11].copy_from_slice(&seen);
        Ok(Self { bytes })
    }
}

fn carry_operation<C: Carry>(
    d: &mut Decoder<'_>,
    version: u8,
    e: &mut Encoder<'_>,
    carry: &mut C,
) -> Result<(), CarryError<C::Error>> {
    let event = Lsn::checked(d.u64("event")?).ok_or(d.damaged("event"))?;
    e.u64(carry.event(event).map_err(CarryError::Frame)?.get());
    e.u16(d.u16("target")?)
        .u32(d.u32("sequence")?)
        .u8(d.u8("priority")?)
        .u8(d.u8("class")?)
        .u8(d.u8("flags")?);
    e.u16(decode_flow(d, version)?.get());
    Ok(())
}

/// The general parts of several shards as one.
#[derive(Debug, Default)]
pub struct GeneralUnion {
    holds: Vec<HoldScope>,
    producers: Producers,
    leases: Vec<LoggedLease>,
    learned: LearnedBook,
    objects: std::collections::BTreeSet<String>,
}

impl GeneralUnion {
    /// Adds a shard's own.
    pub fn add<T>(&mut self, shard: &Shard<T>) {
        for scope in shard.index.holds() {
            if !self.holds.contains(scope) {
                self.holds.push(scope.clone());
            }
        }
        for (producer, seen) in shard.index.producers.sorted() {
            self.producers.restore(producer, seen);
        }
        self.leases.extend(shard.index.leases.logged().cloned());
        for learned in shard.index.learned.iter() {
            self.learned.apply(&learned);
        }
        self.objects
            .extend(shard.index.objects().map(str::to_owned));
    }

    /// The part for one of the new shards. What is of no virtual shard, but for holds, goes to one
    /// of them only.
    #[must_use]
    pub fn part(&self, seen_to: Lsn, first: bool) -> CheckpointPart {
        let nobody = Producers::default();
        let (producers, leases) = if first {
            (&self.producers, &self.leases[..])
        } else {
            (&nobody, &[][..])
        };
        let learned = self.learned.iter().filter(|_| first);
        let objects = self.objects.iter().map(String::as_str);
        let leases = leases.iter();
        encode_general(seen_to, &self.holds, producers, leases, learned, objects)
    }
}
