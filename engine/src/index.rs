//! What the log's entries amount to: where each record stands and which operations are open.
//!
//! Every change comes from one log entry through one `apply_*` function, the same live and in
//! replay. Nothing here decides anything.

use std::collections::BTreeSet;
use std::time::Duration;

use wal::Lsn;

use crate::entry::{HoldChange, HoldScope};
use crate::id::{OperationSeq, RecordHash, VSHARD_COUNT, VShard};
use crate::lane;
use crate::operation_slab::{
    Flow, NewOperation, OpClass, OpFlags, OpIndex, OpState, Operation, OperationSlab, Position,
    Priority, Target,
};
use crate::producers::Producers;
use crate::ready::{Aside, ByAttempt, FlowWeights, OpList, ReadyQueue};
use crate::record::{Progress, StateFrame};
use crate::record_table::{RecordTable, RecordTag};
use crate::shard::{LearnedBook, LeaseBook};
use crate::state::{Reason, State};
use crate::time::{Mono, Now};
use crate::timer::TimerQueue;

const NANOS_PER_MS: u64 = 1_000_000;
/// Timers handled in one turn, so that a million due at once do not hold it up.
const TIMER_MOVES_PER_TURN: usize = 4096;

/// Object names remembered. A company has tens of them; the bound is against hostile input.
const OBJECTS_MAX: usize = 4096;

/// The state of one shard's virtual shards, without the calls that are open.
#[derive(Debug)]
pub struct Index {
    /// Known records by virtual shard; `None` for those another shard owns.
    tables: Vec<Option<RecordTable>>,
    /// Dead letters by virtual shard, oldest first.
    dead: Vec<OpList>,
    /// Object names seen, so that a record id can be asked for without one.
    objects: BTreeSet<String>,
    pub(crate) slab: OperationSlab,
    pub(crate) accounts: Vec<AccountQueue>,
    pub(crate) timers: TimerQueue,
    holds: Vec<HoldScope>,
    /// Sequence numbers settled per producer.
    pub producers: Producers,
    /// Leases that count after a crash.
    pub leases: LeaseBook,
    /// Sizes of limits that the next run is told.
    pub learned: LearnedBook,
}

/// The open operations of one account.
#[derive(Debug)]
pub(crate) struct AccountQueue {
    pub(crate) name: Box<str>,
    /// Those whose call is not known yet.
    pub(crate) unsorted: ByAttempt,
    /// What the account changed, not looked at yet.
    pub(crate) pulls: ByAttempt,
    /// Those that were looked at and wait for a permit of their cost class, by it. Where all calls
    /// cost the same only pulls that need one are sorted.
    pub(crate) sorted: Vec<ByAttempt>,
    /// How the flows of all these queues share calls.
    pub(crate) weights: FlowWeights,
    pub(crate) paused: OpList,
    /// Fronts of lanes that wait for an endpoint, by its number with the shard.
    pub(crate) aside: Aside,
    /// Waiting for a time; they lie in the shard's timer queue.
    pub(crate) timed: Timed,
    /// Dead letters; they lie in the lists of their virtual shards.
    pub(crate) dead: u64,
    /// Operations not final, dead letters apart.
    pub(crate) open: u64,
}

/// Operations that wait for a time, by what they wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timed {
    /// Their `scheduled_at`.
    pub scheduled: u64,
    /// The end of a back-off.
    pub backoff: u64,
    /// The look-up of what became of a call.
    pub unknown: u64,
    /// A parent's remote id.
    pub parent: u64,
}

impl Timed {
    /// All of them.
    #[must_use]
    pub fn sum(self) -> u64 {
        self.scheduled + self.backoff + self.unknown + self.parent
    }

    fn of(&mut self, node: &Operation) -> &mut u64 {
        match node.state() {
            OpState::Scheduled => &mut self.scheduled,
            _ if node.has(OpFlags::UNKNOWN) => &mut self.unknown,
            _ if node.has(OpFlags::PARENT) => &mut self.parent,
            _ => &mut self.backoff,
        }
    }
}

impl AccountQueue {
    /// The queue a ready operation belongs to.
    fn queue_of(&mut self, node: &Operation) -> &mut ReadyQueue {
        let queues = match node.sorted() {
            Some(list) => &mut self.sorted[list],
            None if node.class() == OpClass::Pull => &mut self.pulls,
            None => &mut self.unsorted,
        };
        queues.of_mut(node)
    }

    /// The queue in which a ready operation waits.
    pub(crate) fn queue_holding(&self, node: &Operation) -> &ReadyQueue {
        let queues = match node.sorted() {
            Some(list) => &self.sorted[list],
            None if node.class() == OpClass::Pull => &self.pulls,
            None => &self.unsorted,
        };
        queues.of(node)
    }

    /// Operations that wait for nothing but to be looked at, or for a call.
    pub(crate) fn ready_len(&self) -> usize {
        self.pulls.len() + self.callable_len()
    }

    /// Of these, those that a call could take: pulls are looked at first.
    pub(crate) fn callable_len(&self) -> usize {
        self.unsorted_len() + self.sorted_len()
    }

    /// Of these, those whose call is not known yet.
    pub(crate) fn unsorted_len(&self) -> usize {
        self.unsorted.len()
    }

    /// Of these, those that wait for a permit of their cost class.
    pub(crate) fn sorted_len(&self) -> usize {
        self.sorted.iter().map(ByAttempt::len).sum()
    }
}

/// An operation to be queued, as its event says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Accepted {
    pub(crate) record: RecordHash,
    pub(crate) seq: OperationSeq,
    pub(crate) target: Target,
    pub(crate) priority: Priority,
    pub(crate) class: OpClass,
    pub(crate) flow: Flow,
    /// Not before this.
    pub(crate) due: Option<Mono>,
}

impl Index {
    /// An empty index for these virtual shards.
    #[must_use]
    pub fn new(owned: impl IntoIterator<Item = VShard>, base: Mono) -> Self {
        let mut tables: Vec<Option<RecordTable>> = (0..VSHARD_COUNT).map(|_| None).collect();
        for vshard in owned {
            tables[vshard.index()] = Some(RecordTable::new());
        }
        Self {
            tables,
            dead: (0..VSHARD_COUNT).map(|_| OpList::new()).collect(),
            objects: BTreeSet::new(),
            slab: OperationSlab::new(),
            accounts: Vec::new(),
            timers: TimerQueue::new(base.0 / NANOS_PER_MS),
            holds: Vec::new(),
            producers: Producers::default(),
            leases: LeaseBook::default(),
            learned: LearnedBook::default(),
        }
    }

    /// The number of an account, made when it is new. A log may name accounts that the
    /// configuration no longer has; their operations wait.
    ///
    /// # Panics
    /// Beyond 65,536 accounts; the settings refuse far fewer.
    pub fn account(&mut self, name: &str) -> Target {
        if let Some(at) = self
            .accounts
            .iter()
            .position(|account| &*account.name == name)
        {
            return Target(at as u16);
        }
        let at = u16::try_from(self.accounts.len()).expect("the settings bound the accounts");
        self.accounts.push(AccountQueue {
            name: name.into(),
            unsorted: ByAttempt::default(),
            pulls: ByAttempt::default(),
            sorted: Vec::new(),
            weights: FlowWeights::equal(),
            paused: OpList::new(),
            aside: Aside::new(),
            timed: Timed::default(),
            dead: 0,
            open: 0,
        });
        Target(at)
    }

    pub(crate) fn queue(&mut self, target: Target) -> &mut AccountQueue {
        &mut self.accounts[usize::from(target.0)]
    }

    /// Where the newest state frame of a record lies, if it has one.
    #[must_use]
    pub fn state_position(&self, record: RecordHash) -> Option<Lsn> {
        self.table(record)?.find(tag(record))?.position.map(lsn)
    }

    /// Whether this shard owns the record.
    #[must_use]
    pub fn owns(&self, record: RecordHash) -> bool {
        self.table(record).is_some()
    }

    /// Queues an operation behind its record's others.
    pub(crate) fn apply_event(&mut self, at: Lsn, accepted: &Accepted) -> OpIndex {
        let op = self.slab.insert(NewOperation {
            position: position(at),
            target: accepted.target,
            sequence_low: accepted.seq.low(),
            priority: accepted.priority,
            class: accepted.class,
            flow: accepted.flow,
        });
        self.queue(accepted.target).open += 1;
        self.enter_lane(accepted.record, op, accepted.due);
        op
    }

    /// A call that must not be repeated blindly is about to leave.
    pub(crate) fn apply_intent(&mut self, record: RecordHash, seq: OperationSeq, target: Target) {
        if let Some(op) = self.find(record, seq, target) {
            self.slab[op].set_flags(OpFlags::INTENT_LOGGED);
        }
    }

    /// A record's state frame: moves its place and, if it was written for an operation, that
    /// operation.
    pub(crate) fn apply_state(&mut self, now: Now, at: Lsn, frame: &StateFrame) {
        let record = RecordHash(frame.record);
        if let Some(table) = self.table_mut(record) {
            table.entry(tag(record)).set_position(Some(position(at)));
        }
        let Some(moved) = frame.moved else { return };
        let moved = &frame.records[0].targets[usize::from(moved)];
        let target = self.account(&moved.account);
        let progress = moved
            .last
            .as_ref()
            .expect("decoding checked that a moved target has progress");
        let open = self.find(record, progress.seq, target);
        let Some(op) = open.or_else(|| self.find_dead(record, progress.seq, target)) else {
            return;
        };
        if progress.state.is_final() {
            for folded in &frame.folded {
                if let Some(older) = self.find(record, folded.seq, target) {
                    self.end_operation(record, older, folded.state(progress.state));
                }
            }
            self.end_operation(record, op, progress.state);
        } else if self.slab[op].state() != OpState::Dead {
            // What was folded goes on with the front of the lane, which is what waits and runs.
            let front = self.lane_front(record, target).unwrap_or(op);
            self.reschedule(now, front, progress);
        }
    }

    /// A dead letter goes back to the queue as the newest of its record; its event is at `at` now.
    pub(crate) fn apply_redrive(&mut self, at: Lsn, accepted: &Accepted) {
        if let Some(dead) = self.find_dead(accepted.record, accepted.seq, accepted.target) {
            self.forget_dead(dead);
        }
        let op = self.apply_event(at, accepted);
        self.slab[op].set_flags(OpFlags::REDRIVEN);
    }

    /// An event was copied forward by compaction.
    pub(crate) fn apply_event_moved(
        &mut self,
        at: Lsn,
        record: RecordHash,
        seq: OperationSeq,
        target: Target,
    ) {
        if let Some(op) = self
            .find(record, seq, target)
            .or_else(|| self.find_dead(record, seq, target))
        {
            self.slab[op].set_position(position(at));
        }
    }

    /// Whether the open operation `seq` of a record at an account has its event at `at`.
    pub(crate) fn points_at(
        &self,
        at: Lsn,
        record: RecordHash,
        seq: OperationSeq,
        account: &str,
    ) -> bool {
        let Some(number) = self
            .accounts
            .iter()
            .position(|known| &*known.name == account)
        else {
            return false;
        };
        let target = Target(number as u16);
        let op = self.find(record, seq, target);
        op.is_some_and(|op| self.slab[op].position() == position(at))
    }

    /// A hold set or lifted. Lifting one frees what it alone held.
    pub(crate) fn apply_hold(&mut self, change: &HoldChange) {
        if change.set {
            if !self.holds.contains(&change.scope) {
                self.holds.push(change.scope.clone());
            }
            return;
        }
        self.holds.retain(|scope| !scope.lifted_by(&change.scope));
        for at in 0..self.accounts.len() {
            self.release_paused(Target(at as u16));
        }
    }

    /// Looks anew at what waits for an operator: what still has to wait is found out one by one.
    pub(crate) fn release_paused(&mut self, target: Target) {
        let at = usize::from(target.0);
        while let Some(op) = self.accounts[at].paused.pop_front(&mut self.slab) {
            self.slab[op].set_state(OpState::Waiting);
            self.make_ready(op);
        }
    }

    /// Holds in force.
    #[must_use]
    pub fn holds(&self) -> &[HoldScope] {
        &self.holds
    }

    /// The open operation `seq` of a record at a target.
    #[must_use]
    pub(crate) fn find(
        &self,
        record: RecordHash,
        seq: OperationSeq,
        target: Target,
    ) -> Option<OpIndex> {
        let first = self.lanes_of(record)?;
        lane::of(&self.slab, Some(first), target)?.find(&self.slab, seq.low())
    }

    /// The dead letter `seq` of a record at a target.
    #[must_use]
    pub(crate) fn find_dead(
        &self,
        record: RecordHash,
        seq: OperationSeq,
        target: Target,
    ) -> Option<OpIndex> {
        self.dead_of(record.vshard()).iter(&self.slab).find(|&op| {
            let node = &self.slab[op];
            node.sequence_low() == seq.low()
                && node.target() == target
                && node.dead_record() == record
        })
    }

    /// The first lane's tail of a record with open operations.
    #[must_use]
    /// Whether something waits or runs for a record at a target.
    pub(crate) fn is_open(&self, record: RecordHash, target: Target) -> bool {
        lane::front(&self.slab, self.lanes_of(record), target).is_some()
    }

    pub(crate) fn lanes_of(&self, record: RecordHash) -> Option<OpIndex> {
        self.table(record)?.find(tag(record))?.lane
    }

    /// Takes an operation out of whatever list its state puts it in.
    pub(crate) fn unschedule(&mut self, op: OpIndex) {
        let node = &self.slab[op];
        let (state, account) = (node.state(), usize::from(node.target().0));
        match state {
            OpState::Waiting | OpState::InFlight => {}
            OpState::Ready => {
                let queue = self.accounts[account].queue_of(&self.slab[op]);
                queue.remove(&mut self.slab, op);
            }
            OpState::Backoff | OpState::Scheduled => {
                let timed = self.timers.cancel(&mut self.slab, op);
                debug_assert!(timed, "its state says that it waits for a time");
                *self.accounts[account].timed.of(&self.slab[op]) -= 1;
            }
            OpState::Paused => self.accounts[account].paused.remove(&mut self.slab, op),
            OpState::Aside => self.accounts[account].aside.remove(&mut self.slab, op),
            OpState::Dead => self.unlist_dead(op),
        }
        self.slab[op].set_sorted(None);
        self.slab[op].set_state(OpState::Waiting);
    }

    /// Puts the front of a lane into its account's ready queue.
    pub(crate) fn make_ready(&mut self, op: OpIndex) {
        let priority = self.readied(op);
        let account = usize::from(self.slab[op].target().0);
        let queue = self.accounts[account].queue_of(&self.slab[op]);
        queue.push(&mut self.slab, op, priority);
    }

    /// Puts the front of a lane back where it was taken from.
    pub(crate) fn put_back(&mut self, op: OpIndex) {
        let priority = self.readied(op);
        let account = usize::from(self.slab[op].target().0);
        let queue = self.accounts[account].queue_of(&self.slab[op]);
        queue.push_front(&mut self.slab, op, priority);
    }

    fn readied(&mut self, op: OpIndex) -> Priority {
        debug_assert_eq!(self.slab[op].state(), OpState::Waiting);
        let node = &mut self.slab[op];
        let lists = self.accounts[usize::from(node.target().0)].sorted.len();
        if node.sorted().is_some_and(|list| list >= lists) {
            // The lists went while it was being looked at.
            node.set_sorted(None);
        }
        node.set_state(OpState::Ready);
        node.lane_best()
    }

    /// Puts the front of a lane, which was looked at, among those that wait for a permit of a cost
    /// class: behind the others if it comes from the queue of all, else back where it was.
    pub(crate) fn sort_into(&mut self, op: OpIndex, list: usize) {
        let known = self.slab[op].sorted() == Some(list);
        self.slab[op].set_sorted(Some(list));
        let account = usize::from(self.slab[op].target().0);
        let lists = &mut self.accounts[account].sorted;
        if lists.len() <= list {
            lists.resize_with(list + 1, ByAttempt::default);
        }
        if known {
            self.put_back(op);
        } else {
            self.make_ready(op);
        }
    }

    /// The cost classes of an account's calls have changed: what is sorted by them is not any more.
    pub(crate) fn unsort(&mut self, account: usize) {
        let mut lists = std::mem::take(&mut self.accounts[account].sorted);
        for list in lists.iter_mut().flat_map(ByAttempt::each_mut) {
            let mut ops: Vec<OpIndex> = Vec::new();
            while let Some(op) = list.pop(&mut self.slab, &FlowWeights::equal()) {
                ops.push(op);
            }
            for op in ops.into_iter().rev() {
                self.slab[op].set_sorted(None);
                self.slab[op].set_state(OpState::Waiting);
                self.put_back(op);
            }
        }
    }

    /// Puts what is ready into the order it was accepted in, within its priority and class.
    pub(crate) fn sort_ready(&mut self) {
        for account in &mut self.accounts {
            let pulls = account.pulls.each_mut();
            for queue in account.unsorted.each_mut().into_iter().chain(pulls) {
                queue.sort_by_position(&mut self.slab);
            }
        }
    }

    /// Lets an operation wait for a time.
    pub(crate) fn make_timed(&mut self, op: OpIndex, state: OpState, due: Mono) {
        debug_assert!(matches!(state, OpState::Backoff | OpState::Scheduled));
        self.unschedule(op);
        self.slab[op].set_state(state);
        let due_ms = due.0.div_ceil(NANOS_PER_MS);
        let timed = self.timers.insert(&mut self.slab, op, due_ms);
        let timed = timed.or_else(|beyond| {
            // At the horizon of two years it wakes up and finds that it has to wait on.
            let horizon_ms = beyond.horizon_ms();
            self.timers.insert(&mut self.slab, op, horizon_ms)
        });
        if timed.is_ok() {
            let account = usize::from(self.slab[op].target().0);
            *self.accounts[account].timed.of(&self.slab[op]) += 1;
        } else {
            debug_assert!(false, "half of the horizon lies within it");
            self.slab[op].set_state(OpState::Waiting);
            self.make_ready(op);
        }
    }

    /// Lets an operation wait for an operator.
    pub(crate) fn make_paused(&mut self, op: OpIndex) {
        self.unschedule(op);
        let account = usize::from(self.slab[op].target().0);
        self.slab[op].set_state(OpState::Paused);
        self.accounts[account].paused.push(&mut self.slab, op);
    }

    /// Lets an operation wait for an endpoint, by its number with the shard.
    pub(crate) fn set_aside(&mut self, op: OpIndex, endpoint: usize) {
        self.unschedule(op);
        let account = usize::from(self.slab[op].target().0);
        self.slab[op].set_state(OpState::Aside);
        self.accounts[account]
            .aside
            .push(&mut self.slab, endpoint, op);
    }

    /// Makes the first one that waits for an endpoint ready: behind the others.
    pub(crate) fn take_from_aside(&mut self, account: usize, endpoint: usize) -> Option<OpIndex> {
        let aside = &mut self.accounts[account].aside;
        let op = aside.pop_front(&mut self.slab, endpoint)?;
        self.slab[op].set_state(OpState::Waiting);
        self.make_ready(op);
        Some(op)
    }

    /// Takes a dead letter out for good.
    pub(crate) fn forget_dead(&mut self, op: OpIndex) {
        self.unlist_dead(op);
        self.slab.remove(op);
    }

    fn unlist_dead(&mut self, op: OpIndex) {
        let vshard = self.slab[op].dead_record().vshard();
        let account = usize::from(self.slab[op].target().0);
        self.dead[vshard.index()].remove(&mut self.slab, op);
        self.accounts[account].dead -= 1;
    }

    fn list_dead(&mut self, op: OpIndex, record: RecordHash) {
        self.slab[op].set_state(OpState::Dead);
        self.slab[op].set_dead_record(record);
        let account = usize::from(self.slab[op].target().0);
        self.dead[record.vshard().index()].push(&mut self.slab, op);
        self.accounts[account].dead += 1;
    }

    /// Dead letters of a virtual shard, oldest first.
    pub(crate) fn dead_of(&self, vshard: VShard) -> &OpList {
        &self.dead[vshard.index()]
    }

    /// Remembers an object's name. Beyond [`OBJECTS_MAX`] names a record has to be asked for
    /// with its object.
    pub(crate) fn note_object(&mut self, object: &str) {
        if !self.objects.contains(object) && self.objects.len() < OBJECTS_MAX {
            self.objects.insert(object.to_owned());
        }
    }

    /// Object names seen.
    pub fn objects(&self) -> impl Iterator<Item = &str> {
        self.objects.iter().map(String::as_str)
    }

    /// A record from a checkpoint.
    pub(crate) fn load_record(&mut self, vshard: VShard, tag: RecordTag, at: Option<Position>) {
        if let Some(table) = self.tables[vshard.index()].as_mut() {
            table.entry(tag).set_position(at);
        }
    }

    /// An open operation from a checkpoint, in the order of its lane.
    pub(crate) fn load_operation(
        &mut self,
        vshard: VShard,
        tag: RecordTag,
        new: NewOperation,
        flags: OpFlags,
    ) {
        let op = self.slab.insert(new);
        self.slab[op].set_flags(flags);
        self.queue(new.target).open += 1;
        self.enter_lane_of(vshard, tag, op, None);
    }

    /// A dead letter from a checkpoint.
    pub(crate) fn load_dead(&mut self, record: RecordHash, new: NewOperation, flags: OpFlags) {
        let op = self.slab.insert(new);
        self.slab[op].set_flags(flags);
        self.list_dead(op, record);
    }

    /// Operations whose time has come become ready.
    pub(crate) fn wake_due(&mut self, now: Mono) {
        let mut moves_left = TIMER_MOVES_PER_TURN;
        while let Some(op) =
            self.timers
                .pop_due(&mut self.slab, now.0 / NANOS_PER_MS, &mut moves_left)
        {
            let account = usize::from(self.slab[op].target().0);
            *self.accounts[account].timed.of(&self.slab[op]) -= 1;
            if self.slab[op].state() == OpState::Backoff {
                // It waited by the monotonic clock; the wall clock may have stepped back since.
                self.slab[op].set_flags(OpFlags::HURRIED);
            }
            self.slab[op].set_state(OpState::Waiting);
            self.make_ready(op);
        }
    }

    /// When [`Index::wake_due`] has something to do.
    pub(crate) fn next_timer(&self) -> Option<Mono> {
        self.timers
            .next_deadline()
            .map(|ms| Mono(ms.saturating_mul(NANOS_PER_MS)))
    }

    /// Heap memory of the index, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let tables: usize = self
            .tables
            .iter()
            .flatten()
            .map(RecordTable::memory_bytes)
            .sum();
        tables + self.slab.memory_bytes()
    }

    /// Virtual shards owned.
    pub fn owned(&self) -> impl Iterator<Item = VShard> + '_ {
        (0..VSHARD_COUNT)
            .filter(|&at| self.tables[at].is_some())
            .filter_map(VShard::new)
    }

    pub(crate) fn table_of(&self, vshard: VShard) -> Option<&RecordTable> {
        self.tables[vshard.index()].as_ref()
    }

    fn enter_lane(&mut self, record: RecordHash, op: OpIndex, due: Option<Mono>) {
        self.enter_lane_of(record.vshard(), tag(record), op, due);
    }

    fn enter_lane_of(&mut self, vshard: VShard, tag: RecordTag, op: OpIndex, due: Option<Mono>) {
        let table = self.tables[vshard.index()]
            .as_mut()
            .expect("records are routed to the shard that owns them");
        let front = {
            let mut slot = table.entry(tag);
            lane::push_back(&mut self.slab, slot.lane_mut(), op);
            lane::front(&self.slab, slot.lane(), self.slab[op].target())
                .expect("its lane was just entered")
        };
        if front == op {
            match due {
                Some(due) => self.make_timed(op, OpState::Scheduled, due),
                None => self.make_ready(op),
            }
        } else if self.slab[front].state() == OpState::Ready {
            let account = usize::from(self.slab[front].target().0);
            let best = self.slab[front].lane_best();
            let queue = self.accounts[account].queue_of(&self.slab[front]);
            queue.raise(&mut self.slab, front, best);
        }
    }

    fn end_operation(&mut self, record: RecordHash, op: OpIndex, end: State) {
        if self.slab[op].state() == OpState::Dead {
            // Only an operator moves a dead letter: by dropping it, or by deciding a conflict.
            if matches!(end, State::Dropped | State::Synced) {
                self.forget_dead(op);
            }
            return;
        }
        self.unschedule(op);
        self.leave_lane(record, op);
        let account = usize::from(self.slab[op].target().0);
        self.accounts[account].open -= 1;
        if end == State::Failed {
            self.list_dead(op, record);
        } else {
            self.slab.remove(op);
        }
    }

    fn reschedule(&mut self, now: Now, op: OpIndex, progress: &Progress) {
        self.unschedule(op);
        let outdated = OpFlags::INTENT_LOGGED
            .with(OpFlags::HURRIED)
            .with(OpFlags::UNKNOWN)
            .with(OpFlags::PARENT);
        self.slab[op].clear_flags(outdated);
        if progress.state == State::Unknown {
            self.slab[op].set_flags(OpFlags::UNKNOWN);
        } else if progress.reason == Some(Reason::Parent) {
            self.slab[op].set_flags(OpFlags::PARENT);
        }
        if !progress.attempts.is_empty() {
            self.slab[op].set_flags(OpFlags::ATTEMPTED);
        }
        match due(now, progress.due_ms) {
            Some(due) => self.make_timed(op, OpState::Backoff, due),
            None => self.make_ready(op),
        }
    }

    /// The oldest open operation of a record at a target.
    fn lane_front(&self, record: RecordHash, target: Target) -> Option<OpIndex> {
        let first = self.lanes_of(record)?;
        lane::front(&self.slab, Some(first), target)
    }

    fn leave_lane(&mut self, record: RecordHash, op: OpIndex) {
        let Some(table) = self.tables[record.vshard().index()].as_mut() else {
            return;
        };
        let target = self.slab[op].target();
        let next = {
            let mut slot = table.entry(tag(record));
            let in_lane = lane::remove(&mut self.slab, slot.lane_mut(), op);
            debug_assert!(in_lane, "an open operation is in its record's lane");
            lane::front(&self.slab, slot.lane(), target)
        };
        if let Some(next) = next.filter(|&next| self.slab[next].state() == OpState::Waiting) {
            self.make_ready(next);
        }
    }

    fn table(&self, record: RecordHash) -> Option<&RecordTable> {
        self.tables[record.vshard().index()].as_ref()
    }

    fn table_mut(&mut self, record: RecordHash) -> Option<&mut RecordTable> {
        self.tables[record.vshard().index()].as_mut()
    }
}

impl HoldScope {
    /// Lifting a scope lifts every hold that is as wide or narrower within it.
    fn lifted_by(&self, lifted: &HoldScope) -> bool {
        let within =
            |hold: &Option<String>, lifted: &Option<String>| lifted.is_none() || hold == lifted;
        within(&self.provider, &lifted.provider)
            && within(&self.object, &lifted.object)
            && within(&self.record_id, &lifted.record_id)
    }
}

/// When something due at a wall-clock time is due on the monotonic clock; `None` when it is past.
pub(crate) fn due(now: Now, due_ms: i64) -> Option<Mono> {
    let ahead_ms = due_ms.saturating_sub(now.wall.0);
    (due_ms > 0 && ahead_ms > 0).then(|| {
        now.mono
            .saturating_add(Duration::from_millis(ahead_ms.unsigned_abs()))
    })
}

pub(crate) fn tag(record: RecordHash) -> RecordTag {
    RecordTag::from_hash(record.tag())
}

pub(crate) fn position(at: Lsn) -> Position {
    Position::new(at.get()).expect("a frame's position is not zero and fits the index")
}

pub(crate) fn lsn(position: Position) -> Lsn {
    Lsn::new(position.offset())
}
