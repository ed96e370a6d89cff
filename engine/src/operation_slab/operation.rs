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
/// | 28 | priority (low half), best priority of the lane (high half, in a head only) | |
/// | 29 | class (2 bits), state (3 bits) | |
/// | 30 | attempts | |
/// | 31 | flags (5 bits), its account's list of calls of one cost class (3 bits, 0 none) | |
#[derive(Debug)]
#[repr(C)]
pub struct Operation {
    place: u64,
    sequence_low: u32,
    next: u32,
    next_lane: u32,
    list_prev: u32,
    list_next: u32,
    priorities: u8,
    class_state: u8,
    attempts: u8,
    flags: u8,
}

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
            priorities: 0,
            class_state: 0,
            attempts: 0,
            flags: 0,
        }
    }

    pub(super) fn new(new: NewOperation) -> Self {
        Self {
            place: new.position.packed() << 16 | u64::from(new.target.0),
            sequence_low: new.sequence_low,
            next: 0,
            next_lane: 0,
            list_prev: 0,
            list_next: 0,
            priorities: new.priority.0,
            class_state: new.class as u8,
            attempts: 0,
            flags: 0,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        self.place == 0
    }

    pub(super) fn next_free(&self) -> u32 {
        debug_assert!(self.is_free());
        self.next
    }

    /// Counts one more attempt, up to 255.
    pub fn count_attempt(&mut self) {
        self.attempts = self.attempts.saturating_add(1);
    }

    /// Starts the attempts anew, as a redrive does.
    pub fn reset_attempts(&mut self) {
        self.attempts = 0;
    }

    /// Moves the operation to `state`; lists and timers are the caller's to keep in step.
    pub fn set_state(&mut self, state: OpState) {
        debug_assert!(!self.is_free());
        self.class_state = self.class_state & CLASS_MASK | (state as u8) << STATE_SHIFT;
    }

    /// Adds `flags`.
    pub fn set_flags(&mut self, flags: OpFlags) {
        self.flags |= flags.0;
    }

    /// Takes `flags` away.
    pub fn clear_flags(&mut self, flags: OpFlags) {
        self.flags &= !flags.0;
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
        Priority(self.priorities & 0x0f)
    }

    /// What it does.
    pub fn class(&self) -> OpClass {
        OpClass::from_bits(self.class_state & CLASS_MASK)
    }

    /// Where it stands.
    pub fn state(&self) -> OpState {
        OpState::from_bits(self.class_state >> STATE_SHIFT)
    }

    /// Attempts so far, at most 255.
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: OpFlags) -> bool {
        self.flags & flags.0 == flags.0
    }

    /// Which of its account's lists by cost class it lies in; `None`: not sorted yet.
    pub(crate) fn sorted(&self) -> Option<usize> {
        usize::from(self.flags >> SORTED_SHIFT).checked_sub(1)
    }

    /// Says in which list by cost class it is about to be put, below [`SORTED_LISTS`].
    pub(crate) fn set_sorted(&mut self, list: Option<usize>) {
        let number = list.map_or(0, |list| list as u8 + 1);
        debug_assert!(usize::from(number) <= SORTED_LISTS);
        self.flags = self.flags & FLAGS_MASK | number << SORTED_SHIFT;
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
        debug_assert!(
            self.priorities >> 4 != 0,
            "only the head of a lane knows the lane's best priority"
        );
        Priority(self.priorities >> 4)
    }

    pub(crate) fn set_lane_best(&mut self, best: Option<Priority>) {
        self.priorities = self.priorities & 0x0f | best.map_or(0, |best| best.0 << 4);
    }
}

/// Lists by cost class that an operation can tell apart.
pub const SORTED_LISTS: usize = 7;
const SORTED_SHIFT: u32 = 5;
const FLAGS_MASK: u8 = (1 << SORTED_SHIFT) - 1;
const _: () = assert!(SORTED_LISTS < 1 << (u8::BITS - SORTED_SHIFT));

const STATE_SHIFT: u32 = 2;
const CLASS_MASK: u8 = (1 << STATE_SHIFT) - 1;
const _: () = assert!(
    (Priority::WORST.0 as usize) < 16,
    "two priorities share a byte"
);

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

/// What an operation does, in the order served among equal priorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum OpClass {
    /// May create.
    Create = 0,
    /// Changes or reads what is there.
    Update = 1,
    /// Deletes.
    Delete = 2,
}

impl OpClass {
    /// All, in the order served.
    pub const ALL: [Self; 3] = [Self::Create, Self::Update, Self::Delete];

    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Self::Create,
            1 => Self::Update,
            _ => Self::Delete,
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
    fn from_bits(bits: u8) -> Self {
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
    /// No mark.
    pub const NONE: Self = Self(0);

    /// These and `others`.
    #[must_use]
    pub const fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}
