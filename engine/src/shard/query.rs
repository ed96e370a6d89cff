//! Where records and operations stand, read from the index and the log. Changes nothing.

use wal::Lsn;

use super::Shard;
use crate::event::codec::{self, AcceptedEvent};
use crate::event::{Operation, TargetAction};
use crate::id::{OperationId, OperationSeq, RecordHash};
use crate::index::{Timed, lsn};
use crate::journal::Journal;
use crate::lane;
use crate::operation_slab::{OpIndex, OpState};
use crate::quota::{Gate, HoldReason};
use crate::record::{Attempt, Folded, KeyUse, Progress, StateFrame, TargetState};
use crate::state::{Reason, State};

/// State frames of one record read back at most to find an old operation.
const HISTORY_MAX: usize = 10_000;
/// Keys that an operation is taken to have used when the log does not keep how many: more than its
/// attempts, and far from the end of the numbers.
const KEYS_FORGOTTEN: u16 = 1_000;

/// One operation at one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The operation.
    pub id: OperationId,
    /// Local object.
    pub object: String,
    /// System A's key.
    pub record_id: String,
    /// What it does, e.g. `UPDATE`.
    pub operation: &'static str,
    /// The account.
    pub account: String,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: Option<Reason>,
    /// The newest attempts.
    pub attempts: Vec<Attempt>,
    /// Attempts that count toward the limit.
    pub burnt: u16,
    /// The provider's id of the record.
    pub remote_id: Option<String>,
    /// When it was accepted, ms since the epoch; 0 when the event is not kept any more.
    pub accepted_at_ms: i64,
    /// When its state changed last, ms since the epoch.
    pub updated_at_ms: i64,
    /// What a READ returned.
    pub result: Vec<u8>,
    /// The newer operation that wrote all of its fields.
    pub superseded_by: Option<OperationId>,
}

/// Open operations of one account by state, for gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OpenCounts {
    /// Not final, dead letters apart.
    pub open: u64,
    /// Ready to be called.
    pub ready: u64,
    /// In an open call.
    pub in_flight: u64,
    /// Held by an operator, one by one.
    pub paused: u64,
    /// Waiting for an endpoint that fails.
    pub aside: u64,
    /// Waiting for a time.
    pub timed: Timed,
    /// The account is held whole.
    pub held: bool,
    /// Dead letters.
    pub dead: u64,
}

impl<T> Shard<T> {
    /// A record's standing at each target: its oldest open operation, else its last.
    pub fn record(
        &mut self,
        journal: &mut impl Journal,
        object: &str,
        record_id: &str,
    ) -> Vec<Standing> {
        let record = self.settings.hash_key.record(object, record_id);
        let mut standings: Vec<Standing> = self
            .fronts_of(record)
            .into_iter()
            .filter_map(|op| self.open_standing(journal, op))
            .filter(|standing| standing.object == object && standing.record_id == record_id)
            .collect();
        if let Some(states) = self.states_of(journal, record, object, record_id) {
            for target in &states.targets {
                let open = standings
                    .iter()
                    .any(|standing| standing.account == target.account);
                if let Some(progress) = target.last.as_ref().filter(|_| !open) {
                    let told = Told {
                        progress,
                        folded: None,
                    };
                    standings.push(standing(record, &states, target, &told));
                }
            }
        }
        standings.sort_by(|a, b| a.account.cmp(&b.account));
        standings
    }

    /// An operation's standing at each target it has; empty when it is not known or not kept.
    pub fn operation(&mut self, journal: &mut impl Journal, id: OperationId) -> Vec<Standing> {
        let mut standings = Vec::new();
        for at in 0..self.accounts.len() {
            let target = crate::operation_slab::Target(at as u16);
            let found = self.index.find(id.record, id.seq, target);
            if let Some(standing) = found
                .and_then(|op| self.open_standing(journal, op))
                .filter(|s| s.id == id)
            {
                standings.push(standing);
            }
        }
        self.walk_history(journal, id.record, |frame, at| {
            let record = &frame.records[0];
            let target = &record.targets[at];
            let seen = standings
                .iter()
                .any(|standing| standing.account == target.account);
            if let Some(told) = Told::of(frame, at, id.seq).filter(|_| !seen) {
                standings.push(standing(id.record, record, target, &told));
            }
            standings.len() < self.accounts.len()
        });
        for standing in &mut standings {
            self.complete(journal, standing);
        }
        standings.sort_by(|a, b| a.account.cmp(&b.account));
        standings
    }

    /// Objects under which a record id is known here.
    pub fn objects(&mut self, journal: &mut impl Journal, record_id: &str) -> Vec<String> {
        let names: Vec<String> = self.index.objects().map(str::to_owned).collect();
        names
            .into_iter()
            .filter(|object| {
                !self.record(journal, object, record_id).is_empty()
                    || self.is_linked(journal, object, record_id)
            })
            .collect()
    }

    /// Whether a record exists somewhere: an operator may have said so before anything was sent.
    fn is_linked(&self, journal: &mut impl Journal, object: &str, record_id: &str) -> bool {
        let record = self.settings.hash_key.record(object, record_id);
        let state = self.states_of(journal, record, object, record_id);
        state.is_some_and(|state| {
            let mut targets = state.targets.iter();
            targets.any(|target| target.link.remote_id().is_some())
        })
    }

    /// Open operations and dead letters, in no stated order, at most `limit`.
    pub fn operations(
        &mut self,
        journal: &mut impl Journal,
        keep: impl Fn(&Standing) -> bool,
        limit: usize,
    ) -> Vec<Standing> {
        let ops: Vec<OpIndex> = self.index.slab.iter().map(|(op, _)| op).collect();
        let standings = ops
            .into_iter()
            .filter_map(|op| self.open_standing(journal, op));
        standings.filter(keep).take(limit).collect()
    }

    /// Counts per account, in the order of accounts.
    pub fn open_counts(&self) -> impl Iterator<Item = (&str, OpenCounts)> {
        self.accounts
            .iter()
            .zip(&self.index.accounts)
            .enumerate()
            .map(|(target, (account, queue))| {
                let counts = OpenCounts {
                    open: queue.open,
                    ready: (queue.ready_len() + account.suspects_len()) as u64,
                    in_flight: self.calls.records_of(target as u16),
                    paused: queue.paused.len() as u64,
                    aside: queue.aside.len() as u64,
                    timed: queue.timed,
                    held: account.paused,
                    dead: queue.dead,
                };
                (&*account.name, counts)
            })
    }

    /// The idempotency key an operation used last: from the record's state or its history.
    pub(super) fn last_key(
        &self,
        journal: &mut impl Journal,
        record: RecordHash,
        account: &str,
        seq: OperationSeq,
        last: Option<&Progress>,
    ) -> KeyUse {
        let forgotten = KeyUse {
            number: KEYS_FORGOTTEN,
            digest: 0,
        };
        self.key_of(journal, record, account, seq, last)
            .unwrap_or(forgotten)
    }

    /// The same; `None` where nothing of that number ended.
    pub(super) fn key_of(
        &self,
        journal: &mut impl Journal,
        record: RecordHash,
        account: &str,
        seq: OperationSeq,
        last: Option<&Progress>,
    ) -> Option<KeyUse> {
        if let Some(last) = last.filter(|last| last.seq == seq) {
            return Some(last.key);
        }
        let mut key = None;
        self.walk_history(journal, record, |frame, at| {
            let target = &frame.records[0].targets[at];
            match target
                .progress_of(seq)
                .filter(|_| target.account == account)
            {
                Some(progress) => {
                    key = Some(progress.key);
                    false
                }
                None => true,
            }
        });
        key
    }

    /// The front operation of each lane of a record.
    pub(super) fn fronts_of(&self, record: RecordHash) -> Vec<OpIndex> {
        let first = self.index.lanes_of(record);
        lane::lanes(&self.index.slab, first)
            .map(|lane| lane.front(&self.index.slab))
            .collect()
    }

    pub(super) fn objects_of(
        &mut self,
        journal: &mut impl Journal,
        object: Option<&str>,
        record_id: &str,
    ) -> Vec<RecordHash> {
        let key = self.settings.hash_key;
        match object {
            Some(object) => vec![key.record(object, record_id)],
            None => self
                .objects(journal, record_id)
                .iter()
                .map(|object| key.record(object, record_id))
                .collect(),
        }
    }

    /// Where the events of a record lie that one account took after `event`, as far as the log
    /// keeps them; `None` when it cannot be read.
    pub(super) fn later_events(
        &mut self,
        journal: &mut impl Journal,
        event: &AcceptedEvent<'_>,
        account: &str,
    ) -> Option<Vec<Lsn>> {
        let record = RecordHash(event.record_hash);
        let mut positions = Vec::new();
        for lane in lane::lanes(&self.index.slab, self.index.lanes_of(record)) {
            let target = usize::from(lane.target(&self.index.slab).0);
            if &*self.accounts[target].name == account {
                positions.extend(
                    lane.iter(&self.index.slab)
                        .map(|op| lsn(self.index.slab[op].position())),
                );
            }
        }
        let walked = self.walk_history(journal, record, |frame, at| {
            let target = &frame.records[0].targets[at];
            match target.last.as_ref().filter(|_| target.account == account) {
                Some(progress) if progress.seq.0 > event.operation_seq => {
                    let own = (frame.moved == Some(at as u8)).then_some(&frame.folded);
                    let newer = own.into_iter().flatten();
                    let newer = newer.filter(|folded| folded.seq.0 > event.operation_seq);
                    let events = newer.map(|folded| folded.event).chain([progress.event]);
                    positions.extend(events.map(|at| Lsn::checked(at).unwrap_or(Lsn::ZERO)));
                    Told::of(frame, at, OperationSeq(event.operation_seq)).is_none()
                }
                Some(progress) => progress.seq.0 != event.operation_seq,
                None => true,
            }
        });
        (walked != Walked::Unreadable).then_some(positions)
    }

    /// Calls `visit` with a record's state frames, newest first, and the place of the target
    /// each was written for, until it returns false or the log keeps no more.
    pub(super) fn walk_history(
        &self,
        journal: &mut impl Journal,
        record: RecordHash,
        mut visit: impl FnMut(&StateFrame, usize) -> bool,
    ) -> Walked {
        let mut next = self.index.state_position(record);
        let mut bytes = Vec::new();
        for _ in 0..HISTORY_MAX {
            let Some(at) = next else { return Walked::Whole };
            if let Err(error) = journal.read(at, &mut bytes) {
                return if error.gone {
                    Walked::Cut
                } else {
                    Walked::Unreadable
                };
            }
            let Ok(frame) = StateFrame::decode(&bytes) else {
                return Walked::Unreadable;
            };
            if RecordHash(frame.record).tag() != record.tag() {
                return Walked::Whole;
            }
            let targets = frame.records[0].targets.len();
            let places = match frame.moved {
                Some(at) => usize::from(at)..usize::from(at) + 1,
                None => 0..targets,
            };
            for place in places {
                let known = frame.records[0].targets[place].last.is_some();
                if known && !visit(&frame, place) {
                    return Walked::Whole;
                }
            }
            next = Lsn::checked(frame.previous).filter(|&at| at != Lsn::ZERO);
        }
        Walked::Cut
    }

    pub(super) fn open_standing(
        &mut self,
        journal: &mut impl Journal,
        op: OpIndex,
    ) -> Option<Standing> {
        let mut bytes = Vec::new();
        let node = &self.index.slab[op];
        let target = usize::from(node.target().0);
        journal.read(lsn(node.position()), &mut bytes).ok()?;
        let event = codec::decode(&bytes).ok()?;
        let account = self.accounts[target].name.clone();
        let record = RecordHash(event.record_hash);
        let seq = OperationSeq(event.operation_seq);
        let states = self.states_of(journal, record, &event.event.object, record_id(&event));
        let known = states.as_ref().and_then(|states| states.target(&account));
        let progress = known.and_then(|known| known.progress_of(seq));
        let (state, reason) = self.live_state(op, progress);
        let (state, reason) = self.in_call(op, &event).unwrap_or((state, reason));
        Some(Standing {
            id: OperationId { record, seq },
            object: event.event.object.to_string(),
            record_id: record_id(&event).to_owned(),
            operation: event.event.operation.as_str(),
            account: account.to_string(),
            state,
            reason,
            attempts: progress
                .map(|progress| progress.attempts.clone())
                .unwrap_or_default(),
            burnt: progress.map_or(0, |progress| progress.burnt),
            remote_id: known
                .and_then(|known| known.link.remote_id())
                .map(str::to_owned),
            accepted_at_ms: event.accepted_at_ms,
            updated_at_ms: progress.map_or(event.accepted_at_ms, |progress| progress.updated_at_ms),
            result: Vec::new(),
            superseded_by: None,
        })
    }

    /// Where an operation stands in a record's open call, or with the record's next one.
    fn in_call(&self, op: OpIndex, event: &AcceptedEvent<'_>) -> Option<(State, Option<Reason>)> {
        let record = RecordHash(event.record_hash);
        let node = &self.index.slab[op];
        let lane = lane::of(&self.index.slab, self.index.lanes_of(record), node.target())?;
        let front = lane.front(&self.index.slab);
        let seq = OperationSeq(event.operation_seq);
        if self.index.slab[front].state() == OpState::InFlight
            && let Some(item) = self.calls.item_of(front)
        {
            if item.lead.seq == seq {
                return Some((State::InFlight, None));
            }
            if item.folded.iter().any(|folded| folded.seq == seq) {
                return Some((State::Waiting, Some(Reason::Folded)));
            }
        }
        let account = &self.accounts[usize::from(node.target().0)];
        let joins = op != front
            && node.state() == OpState::Waiting
            && account.plan.as_ref().is_some_and(|plan| plan.fold)
            && event.event.scheduled_at_ms.is_none()
            && event.action_at(&account.name) != TargetAction::Skip
            && matches!(
                event.event.operation,
                Operation::Create | Operation::Update | Operation::Upsert
            );
        joins.then_some((State::Waiting, Some(Reason::Folded)))
    }

    fn live_state(&self, op: OpIndex, progress: Option<&Progress>) -> (State, Option<Reason>) {
        let at = usize::from(self.index.slab[op].target().0);
        let account = &self.accounts[at];
        match self.index.slab[op].state() {
            OpState::Waiting => (State::Waiting, Some(Reason::Order)),
            OpState::InFlight => (State::InFlight, None),
            OpState::Backoff
                if progress.and_then(|progress| progress.reason) == Some(Reason::Parent) =>
            {
                (State::Waiting, Some(Reason::Parent))
            }
            // It asks again for its whole object.
            OpState::Backoff
                if progress.and_then(|progress| progress.reason) == Some(Reason::Paused) =>
            {
                (State::Waiting, Some(Reason::Paused))
            }
            OpState::Backoff => (
                progress.map_or(State::Retrying, |progress| progress.state),
                Some(Reason::Backoff),
            ),
            OpState::Scheduled => (State::Waiting, Some(Reason::Scheduled)),
            OpState::Paused => (State::Waiting, Some(Reason::Paused)),
            OpState::Aside => (State::Waiting, Some(Reason::Breaker)),
            OpState::Dead => (State::Failed, progress.and_then(|progress| progress.reason)),
            OpState::Ready if account.paused => (State::Waiting, Some(Reason::Paused)),
            OpState::Ready if account.plan.is_none() => (State::Waiting, Some(Reason::NoAccount)),
            OpState::Ready => match self.gate(at) {
                Some(Gate::Held {
                    reason: HoldReason::Unauthorized,
                    ..
                }) => (State::Waiting, Some(Reason::Auth)),
                Some(Gate::Held {
                    reason: HoldReason::Throttled | HoldReason::QuotaSpent,
                    ..
                }) => (State::Waiting, Some(Reason::Quota)),
                Some(Gate::Held { .. } | Gate::Probe) => (State::Waiting, Some(Reason::Breaker)),
                Some(Gate::Open | Gate::Suspect) if self.waits_for_quota(op) => {
                    (State::Waiting, Some(Reason::Quota))
                }
                Some(Gate::Open | Gate::Suspect) | None => (State::Queued, None),
            },
        }
    }

    pub(super) fn states_of(
        &self,
        journal: &mut impl Journal,
        record: RecordHash,
        object: &str,
        record_id: &str,
    ) -> Option<crate::record::RecordState> {
        let mut bytes = Vec::new();
        journal
            .read(self.index.state_position(record)?, &mut bytes)
            .ok()?;
        let frame = StateFrame::decode(&bytes).ok()?;
        frame
            .records
            .into_iter()
            .find(|state| state.object == object && state.record_id == record_id)
    }

    /// Adds what only the event knows, while the log keeps it.
    fn complete(&self, journal: &mut impl Journal, standing: &mut Standing) {
        if standing.accepted_at_ms != 0 {
            return;
        }
        let mut accepted = None;
        let mut bytes = Vec::new();
        self.walk_history(journal, standing.id.record, |frame, at| {
            let told = Told::of(frame, at, standing.id.seq);
            accepted = told.map(|told| Lsn::checked(told.event()).unwrap_or(Lsn::ZERO));
            accepted.is_none()
        });
        if let Some(at) = accepted
            && journal.read(at, &mut bytes).is_ok()
            && let Ok(event) = codec::decode(&bytes)
            && event.operation_seq == standing.id.seq.0
        {
            standing.accepted_at_ms = event.accepted_at_ms;
        }
    }
}

pub(super) fn record_id<'a>(event: &'a AcceptedEvent<'_>) -> &'a str {
    event.event.record_id.as_deref().unwrap_or_default()
}

/// How far back a record's history could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walked {
    /// To its beginning, or as far as was asked.
    Whole,
    /// To where the log was given up.
    Cut,
    /// A frame that the log keeps could not be read.
    Unreadable,
}

/// What a state frame tells of an operation's end: the one it was written for, or one folded into it.
pub(super) struct Told<'a> {
    pub(super) progress: &'a Progress,
    pub(super) folded: Option<&'a Folded>,
}

impl<'a> Told<'a> {
    pub(super) fn of(frame: &'a StateFrame, at: usize, seq: OperationSeq) -> Option<Self> {
        let progress = frame.records[0].targets[at].last.as_ref()?;
        if progress.seq == seq {
            return Some(Self {
                progress,
                folded: None,
            });
        }
        let moved = frame.moved.map(usize::from) == Some(at);
        let mut folded = frame.folded.iter().filter(|_| moved);
        let folded = folded.find(|folded| folded.seq == seq)?;
        Some(Self {
            progress,
            folded: Some(folded),
        })
    }

    pub(super) fn event(&self) -> u64 {
        self.folded
            .map_or(self.progress.event, |folded| folded.event)
    }
}

fn standing(
    record: RecordHash,
    state: &crate::record::RecordState,
    target: &TargetState,
    told: &Told<'_>,
) -> Standing {
    let progress = told.progress;
    let id = |seq| OperationId { record, seq };
    let mut standing = Standing {
        id: id(progress.seq),
        object: state.object.clone(),
        record_id: state.record_id.clone(),
        operation: operation_name(progress.operation),
        account: target.account.clone(),
        state: progress.state,
        reason: progress.reason,
        attempts: progress.attempts.clone(),
        burnt: progress.burnt,
        remote_id: target.link.remote_id().map(str::to_owned),
        accepted_at_ms: 0,
        updated_at_ms: progress.updated_at_ms,
        result: progress.result.clone(),
        superseded_by: None,
    };
    if let Some(folded) = told.folded {
        standing.id = id(folded.seq);
        standing.operation = operation_name(folded.operation);
        standing.state = folded.state(progress.state);
        standing.reason = Some(Reason::Folded);
        standing.result.clear();
        if folded.overwritten {
            standing.superseded_by = Some(id(progress.seq));
        } else if progress.state == State::Failed {
            standing.reason = progress.reason;
        }
    }
    standing
}

pub(super) fn operation_name(number: u8) -> &'static str {
    Operation::ALL
        .get(usize::from(number))
        .map_or("UNKNOWN", |operation| operation.as_str())
}
