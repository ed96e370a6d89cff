//! Why a record waits: the one reason, its place in the queue, and until when as far as the shard
//! can tell.

use std::sync::Arc;

use super::query::Standing;
use super::{RefusedObject, Shard};
use crate::entry::HoldScope;
use crate::event::codec;
use crate::index::lsn;
use crate::journal::Journal;
use crate::lane;
use crate::operation_slab::{OpIndex, OpState, Target};
use crate::quota::{Gate, HoldReason};
use crate::state::Reason;
use crate::time::{Mono, Now};

/// Ready operations counted at most to find a place among them: some milliseconds.
const COUNTED_MAX: usize = 65_536;

/// Where a record stands at one account, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Its oldest open operation, else its last.
    pub standing: Standing,
    /// What it waits for; `None` when nothing more happens, or a call is open.
    pub wait: Option<Wait>,
    /// The earliest instant at which that may change, ms since the epoch.
    pub until_ms: Option<i64>,
    /// Ready operations of the account that this shard calls before it; counted up to a bound.
    pub ahead: usize,
    /// Newer operations of the record, which go along with it or wait for its end.
    pub behind: usize,
}

/// What an operation waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wait {
    /// Its turn.
    Turn,
    /// A permit or a place for an open call.
    Quota,
    /// The provider asked for a pause.
    Throttled,
    /// The account's next probe, since calls to it fail.
    Breaker(HoldReason),
    /// The next probe of one endpoint of the account, since calls to it fail.
    Endpoint(Arc<str>),
    /// The account's credentials to be accepted.
    Credentials,
    /// An operator, who holds this.
    Hold(HoldScope),
    /// An operator, who changed the account's settings for a time.
    Override,
    /// The time that its event names.
    Schedule,
    /// The end of its back-off.
    Backoff,
    /// The account's right to write the object.
    Refused(RefusedObject),
    /// A record that it refers to, which has no id at the account yet.
    Parent,
    /// The account, which is not in the configuration.
    NoAccount,
    /// An operator: the log cannot be read where it lies.
    Unreadable,
}

impl<T> Shard<T> {
    /// Why a record stands where it stands, at each account that ever took it.
    pub fn explain(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        object: &str,
        record_id: &str,
    ) -> Vec<Explanation> {
        let standings = self.record(journal, object, record_id);
        standings
            .into_iter()
            .map(|standing| self.explain_standing(now, journal, standing))
            .collect()
    }

    fn explain_standing(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        standing: Standing,
    ) -> Explanation {
        let mut told = Explanation {
            standing,
            wait: None,
            until_ms: None,
            ahead: 0,
            behind: 0,
        };
        let standing = &told.standing;
        let mut names = self.accounts.iter();
        let Some(at) = names.position(|known| *known.name == *standing.account) else {
            return told;
        };
        let target = Target(at as u16);
        let found = self
            .index
            .find(standing.id.record, standing.id.seq, target)
            .filter(|_| !standing.state.is_final());
        let Some(op) = found else { return told };
        let lanes = self.index.lanes_of(standing.id.record);
        let lane = lane::of(&self.index.slab, lanes, target);
        told.behind = lane.map_or(0, |lane| lane.iter(&self.index.slab).skip(1).count());
        match self.index.slab[op].state() {
            // The front of a lane waits in no list only while it is looked at.
            OpState::Waiting | OpState::InFlight | OpState::Dead => {}
            OpState::Backoff => {
                told.wait = Some(match told.standing.reason {
                    Some(Reason::Parent) => Wait::Parent,
                    Some(Reason::Paused) => {
                        let refused = self.refused_over(&told.standing);
                        refused.map_or(Wait::Backoff, Wait::Refused)
                    }
                    _ => Wait::Backoff,
                });
                told.until_ms = self.due_of(journal, &told.standing);
            }
            OpState::Scheduled => {
                told.wait = Some(Wait::Schedule);
                told.until_ms = self.scheduled_at(journal, op);
            }
            OpState::Paused => {
                let hold = self.hold_over(&told.standing).map(Wait::Hold);
                let refused = self.refused_over(&told.standing);
                told.until_ms = refused.as_ref().map(|refused| refused.asks_again_ms);
                let refused = refused.map(Wait::Refused);
                told.wait = Some(hold.or(refused).unwrap_or(Wait::Unreadable));
            }
            OpState::Aside => self.explain_aside(now, at, op, &mut told),
            OpState::Ready => self.explain_ready(now, at, op, &mut told),
        }
        told
    }

    fn explain_aside(&self, now: Now, at: usize, op: OpIndex, told: &mut Explanation) {
        let queue = &self.index.accounts[at];
        let place = queue.aside.place_of(&self.index.slab, op, COUNTED_MAX);
        let (number, ahead) = place.unwrap_or((0, COUNTED_MAX));
        told.ahead = ahead;
        let endpoint = place.and_then(|_| self.accounts[at].endpoints.at(number));
        told.wait = Some(match endpoint {
            Some((name, gate)) => {
                if let Gate::Held { until, .. } = gate {
                    told.until_ms = wall_ms(now, until);
                }
                Wait::Endpoint(Arc::clone(name))
            }
            // So far back in its list that the list was not told.
            None => Wait::Breaker(HoldReason::Failing),
        });
    }

    fn explain_ready(&self, now: Now, at: usize, op: OpIndex, told: &mut Explanation) {
        let account = &self.accounts[at];
        let queues = &self.index.accounts[at];
        let queue = queues.queue_holding(&self.index.slab[op]);
        told.ahead = queue.ahead_of(&self.index.slab, op, &queues.weights, COUNTED_MAX);
        let held = match self.gate(at) {
            Some(Gate::Held { until, reason }) => Some((reason, Some(until))),
            Some(Gate::Probe) => Some((HoldReason::Failing, None)),
            Some(Gate::Open | Gate::Suspect) | None => None,
        };
        told.wait = Some(if account.plan.is_none() {
            Wait::NoAccount
        } else if account.paused {
            self.hold_over(&told.standing)
                .map_or(Wait::Override, Wait::Hold)
        } else if let Some((reason, until)) = held {
            told.until_ms = until.and_then(|until| wall_ms(now, until));
            match reason {
                HoldReason::Throttled | HoldReason::QuotaSpent => Wait::Throttled,
                HoldReason::Unauthorized => Wait::Credentials,
                HoldReason::Unreachable | HoldReason::Failing => Wait::Breaker(reason),
            }
        } else if self.waits_for_quota(op) {
            Wait::Quota
        } else {
            Wait::Turn
        });
    }

    /// The hold that a record falls under.
    fn hold_over(&self, standing: &Standing) -> Option<HoldScope> {
        let mut holds = self.index.holds().iter();
        holds
            .find(|hold| hold.covers(&standing.account, &standing.object, &standing.record_id))
            .cloned()
    }

    fn refused_over(&self, standing: &Standing) -> Option<RefusedObject> {
        self.refused_object(&standing.account, &standing.object)
    }

    fn due_of(&self, journal: &mut impl Journal, standing: &Standing) -> Option<i64> {
        let Standing {
            object, record_id, ..
        } = standing;
        let states = self.states_of(journal, standing.id.record, object, record_id)?;
        let progress = states.target(&standing.account)?.last.as_ref()?;
        (progress.due_ms > 0).then_some(progress.due_ms)
    }

    fn scheduled_at(&self, journal: &mut impl Journal, op: OpIndex) -> Option<i64> {
        let mut bytes = Vec::new();
        let position = lsn(self.index.slab[op].position());
        journal.read(position, &mut bytes).ok()?;
        codec::decode(&bytes).ok()?.event.scheduled_at_ms
    }
}

/// An instant of the monotonic clock as the wall clock will show it; `None` when it is past.
fn wall_ms(now: Now, at: Mono) -> Option<i64> {
    let ahead_ms = at.saturating_since(now.mono).as_millis();
    let ahead_ms = i64::try_from(ahead_ms).ok().filter(|&ms| ms > 0)?;
    Some(now.wall.0.saturating_add(ahead_ms))
}
