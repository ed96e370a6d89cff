//! One queued operation for one target, in 32 bytes.

use std::num::NonZeroU32;

use super::position::Position;
use crate::id::RecordHash;

/// A queued operation and target. What it does is in the log at its position; this is what scheduling
/// needs of it.
///
/// | bytes | field | |
/// | --- | --- | --- |
/// | 0–7 | position / 8 (48 bits), target (16 bits) | position 0: the node is free |
/// | 8–11 | sequence, low 32 bits | |
/// | 12–15 | next in its lane, the tail's next is the head | free: next free node; dead: low 32 bits of the tag |
/// | 16–19 | tail of the record's next lane, read in a tail only | dead: high 16 bits of the tag |
/// | 20–23 | previous in its list | in the timer queue: due tick |
/// | 24–27 | next in its list | |
/// | 28–31 | marks, by bits: | |
/// | | 0–3 priority, 4–7 best priority of the lane (in a head only) | |
/// | | 8–9 class, 10–12 state, 13–18 flags | |
/// | | 19–22 its account's list of calls of one cost class, 0 none | |
/// | | 23–31 flow | |
#[derive(Debug)]
#[repr(C)]
pub struct Operation {
    place: u64,
    sequence_low: u32,
    next: u32,
    next_lane: u32,
    list_prev: u32,
    list_next: u32,
    marks: u32,
}

/// Some bits of an operation's marks.
#[derive(Clone, Copy)]
struct Bits {
    from: u32,
    count: u32,
}

const PRIORITY: Bits = Bits { from: 0, count: 4 };
const LANE_BEST: Bits = Bits { from: 4, count: 4 };
const CLASS: Bits = Bits { from: 8, count: 2 };
const STATE: Bits = Bits { from: 10, count: 3 };
const FLAGS: Bits = Bits { from: 13, count: 6 };
const SORTED: Bits = Bits { from: 19, count: 4 };
const FLOW: Bits = Bits { from: 23, count: 9 };

impl Bits {
    const fn end(self) -> u32 {
        self.from + self.count
    }

    const fn mask(self) -> u32 {
        ((1 << self.count) - 1) << self.from
    }

    const fn max(self) -> u32 {
        (1 << self.count) - 1
    }
}

const _: () = assert!(PRIORITY.end() == LANE_BEST.from && LANE_BEST.end() == CLASS.from);
const _: () = assert!(CLASS.end() == STATE.from && STATE.end() == FLAGS.from);
const _: () = assert!(FLAGS.end() == SORTED.from && SORTED.end() == FLOW.from);
const _: () = assert!(FLOW.end() == u32::BITS);
const _: () = assert!(Priority::WORST.0 as u32 <= PRIORITY.max());
const _: () = assert!(SORTED_LISTS as u32 <= SORTED.max());
const _: () = assert!(Flow::COUNT as u32 == FLOW.max() + 1);

/// Promise: at most 32 bytes of memory a queued operation and target.
pub const OPERATION_BYTES: usize = 32;
const _: () = assert!(size_of::<Operation>() == OPERATION_BYTES);
const _: () = assert!(size_of::<Option<OpIndex>>() == size_of::<u32>());

/// What is known of an operation when it is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewOperation {
    /// Where its event lies in the log.
    pub position: Position,
    /// The account it goes to.
    pub target: Target,
    /// The low 32 bits of the operation's sequence.
    pub sequence_low: u32,
    /// Its own priority; its record may run at a better one.
    pub priority: Priority,
    /// What it does, for the order among equal priorities.
    pub class: OpClass,
    /// Whose share of the account's calls it goes by.
    pub flow: Flow,
}

impl Operation {
    pub(super) const fn free(next_free: u32) -> Self {
        Self {
            place: 0,
            sequence_low: 0,
            next: next_free,
            next_lane: 0,
            list_prev: 0,
            list_next: 0,
            marks: 0,
        }
    }

    pub(super) fn new(new: NewOperation) -> Self {
        let mut operation = Self {
            place: new.position.packed() << 16 | u64::from(new.target.0),
            sequence_low: new.sequence_low,
            next: 0,
            next_lane: 0,
            list_prev: 0,
            list_next: 0,
            marks: 0,
        };
        operation.set_bits(PRIORITY, u32::from(new.priority.0));
        operation.set_bits(CLASS, new.class as u32);
        operation.set_bits(FLOW, u32::from(new.flow.0));
        operation
    }

    fn bits(&self, bits: Bits) -> u32 {
        (self.marks & bits.mask()) >> bits.from
    }

    fn set_bits(&mut self, bits: Bits, value: u32) {
        debug_assert!(value <= bits.max());
        self.marks = self.marks & !bits.mask() | value << bits.from;
    }

    pub(super) fn is_free(&self) -> bool {
        self.place == 0
    }

    pub(super) fn next_free(&self) -> u32 {
        debug_assert!(self.is_free());
        self.next
    }

    /// Moves the operation to `state`; lists and timers are the caller's to keep in step.
    pub fn set_state(&mut self, state: OpState) {
        debug_assert!(!self.is_free());
        self.set_bits(STATE, state as u32);
    }

    /// Adds `flags`.
    pub fn set_flags(&mut self, flags: OpFlags) {
        self.set_bits(FLAGS, self.bits(FLAGS) | u32::from(flags.0));
    }

    /// Takes `flags` away.
    pub fn clear_flags(&mut self, flags: OpFlags) {
        self.set_bits(FLAGS, self.bits(FLAGS) & !u32::from(flags.0));
    }

    /// Takes a dead operation's record down in the links it no longer needs, so that a redrive finds its way back.
    ///
    /// # Panics
    /// Unless the operation is dead and out of its lane.
    pub fn set_dead_record(&mut self, record: RecordHash) {
        assert_eq!(
            self.state(),
            OpState::Dead,
            "only a dead operation's lane links are free"
        );
        assert!(
            self.next == 0 && self.next_lane == 0,
            "still in its lane, or marked before"
        );
        self.next = record.0 as u32;
        self.next_lane = (record.0 >> 32) as u32;
    }

    /// The record of a dead operation.
    ///
    /// # Panics
    /// Unless the operation is dead.
    pub fn dead_record(&self) -> RecordHash {
        assert_eq!(
            self.state(),
            OpState::Dead,
            "only a dead operation holds its record's hash"
        );
        RecordHash(u64::from(self.next_lane) << 32 | u64::from(self.next))
    }

    /// Where its event lies in the log.
    pub fn position(&self) -> Position {
        Position::unpacked(self.place >> 16).expect("a node in use was made from a position")
    }

    /// Points the operation at its event's new place: compaction moved it.
    pub fn set_position(&mut self, position: Position) {
        self.place = position.packed() << 16 | self.place & 0xffff;
    }

    /// The account it goes to.
    pub fn target(&self) -> Target {
        Target(self.place as u16)
    }

    /// The low 32 bits of its sequence.
    pub fn sequence_low(&self) -> u32 {
        self.sequence_low
    }

    /// Its own priority.
    pub fn priority(&self) -> Priority {
        Priority(self.bits(PRIORITY) as u8)
    }

    /// What it does.
    pub fn class(&self) -> OpClass {
        OpClass::from_bits(self.bits(CLASS))
    }

    /// Where it stands.
    pub fn state(&self) -> OpState {
        OpState::from_bits(self.bits(STATE))
    }

    /// Whose share of its account's calls it goes by.
    pub fn flow(&self) -> Flow {
        Flow(self.bits(FLOW) as u16)
    }

    /// Says whose share it goes by; in a ready queue it lies by the one before.
    pub(crate) fn set_flow(&mut self, flow: Flow) {
        self.set_bits(FLOW, u32::from(flow.0));
    }

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: OpFlags) -> bool {
        let wanted = u32::from(flags.0);
        self.bits(FLAGS) & wanted == wanted
    }

    /// Which of its account's lists by cost class it lies in; `None`: not sorted yet.
    pub(crate) fn sorted(&self) -> Option<usize> {
        (self.bits(SORTED) as usize).checked_sub(1)
    }

    /// Says in which list by cost class it is about to be put, below [`SORTED_LISTS`].
    pub(crate) fn set_sorted(&mut self, list: Option<usize>) {
        self.set_bits(SORTED, list.map_or(0, |list| list as u32 + 1));
    }

    pub(crate) fn next(&self) -> Option<OpIndex> {
        OpIndex::from_raw(self.next)
    }

    pub(crate) fn set_next(&mut self, next: Option<OpIndex>) {
        self.next = OpIndex::raw(next);
    }

    pub(crate) fn next_lane(&self) -> Option<OpIndex> {
        OpIndex::from_raw(self.next_lane)
    }

    pub(crate) fn set_next_lane(&mut self, tail: Option<OpIndex>) {
        self.next_lane = OpIndex::raw(tail);
    }

    pub(crate) fn list_prev(&self) -> Option<OpIndex> {
        OpIndex::from_raw(self.list_prev)
    }

    pub(crate) fn set_list_prev(&mut self, prev: Option<OpIndex>) {
        self.list_prev = OpIndex::raw(prev);
    }

    pub(crate) fn list_next(&self) -> Option<OpIndex> {
        OpIndex::from_raw(self.list_next)
    }

    pub(crate) fn set_list_next(&mut self, next: Option<OpIndex>) {
        self.list_next = OpIndex::raw(next);
    }

    /// The due tick of an operation in the timer queue.
    pub(crate) fn due_tick(&self) -> u32 {
        self.list_prev
    }

    pub(crate) fn set_due_tick(&mut self, tick: u32) {
        self.list_prev = tick;
    }

    pub(crate) fn lane_best(&self) -> Priority {
        let best = self.bits(LANE_BEST);
        debug_assert!(
            best != 0,
            "only the head of a lane knows the lane's best priority"
        );
        Priority(best as u8)
    }

    pub(crate) fn set_lane_best(&mut self, best: Option<Priority>) {
        self.set_bits(LANE_BEST, best.map_or(0, |best| u32::from(best.0)));
    }
}

/// Lists by cost class that an operation can tell apart.
pub const SORTED_LISTS: usize = 15;

/// An operation's place in the slab. It is reused after the operation leaves: whoever keeps one over
/// turns checks the sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpIndex(NonZeroU32);

impl OpIndex {
    pub(crate) const fn from_raw(raw: u32) -> Option<Self> {
        match NonZeroU32::new(raw) {
            Some(raw) => Some(Self(raw)),
            None => None,
        }
    }

    pub(crate) const fn raw(index: Option<Self>) -> u32 {
        match index {
            Some(index) => index.0.get(),
            None => 0,
        }
    }

    pub(super) const fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A provider account, by its number in this run's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target(pub u16);

/// Whose share of an account's calls an operation goes by: its object and tenant, by a hash of both.
/// Two of them with the same hash share a share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow(u16);

impl Flow {
    /// Flows that can be told apart.
    pub const COUNT: usize = 512;
    /// Of an operation whose object and tenant were not read since the engine started.
    pub const UNREAD: Self = Self(0);

    /// The flow of a hash.
    pub const fn of_hash(hash: u64) -> Self {
        Self(1 + (hash % (Self::COUNT as u64 - 1)) as u16)
    }

    /// The flow with this number, if there is one.
    pub const fn new(number: u16) -> Option<Self> {
        if (number as usize) < Self::COUNT {
            Some(Self(number))
        } else {
            None
        }
    }

    /// Its number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// 1, served first, to 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// Served first.
    pub const BEST: Self = Self(1);
    /// Served last.
    pub const WORST: Self = Self(10);
    /// Of an event that names none.
    pub const DEFAULT: Self = Self(5);

    /// The priority `value`, from 1 to 10.
    pub const fn new(value: u8) -> Option<Self> {
        if value < Self::BEST.0 || value > Self::WORST.0 {
            None
        } else {
            Some(Self(value))
        }
    }

    /// 1 to 10.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What an operation does, by which those of equal priority are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpClass {
    /// May create.
    Create = 0,
    /// Changes or reads what is there.
    Update = 1,
    /// Deletes.
    Delete = 2,
    /// Takes what the account changed; most end without a call.
    Pull = 3,
}

impl OpClass {
    /// All, by their numbers.
    pub const ALL: [Self; 4] = [Self::Create, Self::Update, Self::Delete, Self::Pull];
    /// How many places there are in the order served.
    pub const RANKS: usize = 3;

    /// Its place in the order served, below [`OpClass::RANKS`]: a pull is served as an update.
    pub const fn rank(self) -> usize {
        match self {
            Self::Create => 0,
            Self::Update | Self::Pull => 1,
            Self::Delete => 2,
        }
    }

    fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Create,
            1 => Self::Update,
            2 => Self::Delete,
            _ => Self::Pull,
        }
    }
}

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OpState {
    /// In its lane, behind others or held back by something that is not listed here.
    Waiting = 0,
    /// In the ready queue.
    Ready = 1,
    /// Part of a call whose outcome is not durable yet.
    InFlight = 2,
    /// In the timer queue after a failed attempt.
    Backoff = 3,
    /// In the timer queue until its event's `scheduled_at`.
    Scheduled = 4,
    /// In its account's list of paused operations.
    Paused = 5,
    /// In the list of dead letters, out of its lane.
    Dead = 6,
    /// In a list of its account, until an endpoint may be called again.
    Aside = 7,
}

impl OpState {
    fn from_bits(bits: u32) -> Self {
        match bits {
            0 => Self::Waiting,
            1 => Self::Ready,
            2 => Self::InFlight,
            3 => Self::Backoff,
            4 => Self::Scheduled,
            5 => Self::Paused,
            6 => Self::Dead,
            _ => Self::Aside,
        }
    }
}

/// A set of marks on an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpFlags(u8);

impl OpFlags {
    /// A durable intent to call went before: after a crash its outcome is unknown.
    pub const INTENT_LOGGED: Self = Self(1 << 0);
    /// It was dead and came back by an operator's retry.
    pub const REDRIVEN: Self = Self(1 << 1);
    /// An operator ended its back-off: it does not wait for its due time again.
    pub const HURRIED: Self = Self(1 << 2);
    /// What became of its last call is not known yet.
    pub const UNKNOWN: Self = Self(1 << 3);
    /// It waits for the record it refers to.
    pub const PARENT: Self = Self(1 << 4);
    /// A call was made for it, and what came of that is in the log.
    pub const ATTEMPTED: Self = Self(1 << 5);
    /// No mark.
    pub const NONE: Self = Self(0);

    /// These and `others`.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}
