//! What the quota coordinator knows of an account, as the API shows it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use engine::quota::{
    AccountView, BacklogTrend, BreakerPhase, EndpointView, Gate, HoldReason, IN_FLIGHT, drains_in,
};
use engine::shard::RefusedObject;
use engine::time::{Mono, Now};
use engine::view::{AccountOutlook, BreakerState, EndpointStatus, HeldObject, LimitStatus, UnixMs};

/// How the backlog of each account goes, by its name: one for each that is configured.
#[derive(Debug, Default)]
pub(crate) struct Trends {
    by_account: Mutex<BTreeMap<String, BacklogTrend>>,
}

impl Trends {
    /// When nothing of an account waits any more, if something does: by how its backlog fell
    /// from look to look, or before the second one by the calls it makes.
    pub(super) fn drained_at(
        &self,
        now: Now,
        account: &str,
        open: u64,
        view: Option<&AccountView>,
    ) -> Option<UnixMs> {
        let mut trends = self
            .by_account
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let trend = trends.entry(account.to_owned()).or_default();
        trend.observe(now.mono, open);
        let calls_per_s = view.and_then(|view| {
            let paces = view.limits.iter().map(|limit| limit.spent_per_s);
            paces.max_by(f64::total_cmp)
        });
        let falls = trend.falls_per_s().or(calls_per_s)?;
        let drains = drains_in(open, falls).filter(|_| open > 0)?;
        Some(wall_at(now, now.mono.saturating_add(drains)))
    }
}

/// What an account may not write at present. Each shard asks for itself: the earliest counts.
pub(super) fn held_objects(refused: &[RefusedObject], account: &str) -> Vec<HeldObject> {
    let mut held: Vec<HeldObject> = Vec::new();
    for refused in refused.iter().filter(|refused| refused.account == account) {
        match held.iter_mut().find(|held| held.object == refused.object) {
            Some(held) => {
                held.since = held.since.min(refused.since_ms);
                held.asks_again_at = held.asks_again_at.min(refused.asks_again_ms);
            }
            None => held.push(HeldObject {
                object: refused.object.clone(),
                since: refused.since_ms,
                asks_again_at: refused.asks_again_ms,
                detail: refused.detail.clone(),
            }),
        }
    }
    held
}

/// The breaker as the API shows it: the account's own, or of its endpoints' the one that lets least
/// through.
pub(super) fn breaker(view: &AccountView) -> BreakerState {
    match (view.breaker.phase, view.gate) {
        (BreakerPhase::Closed, _) => worst_endpoint(view),
        // A quota that is spent is no trip of the breaker.
        (
            _,
            Gate::Held {
                reason: HoldReason::QuotaSpent,
                ..
            },
        ) => worst_endpoint(view),
        (BreakerPhase::HalfOpen, _) => BreakerState::HalfOpen,
        (BreakerPhase::Open, _) => BreakerState::Open,
    }
}

fn worst_endpoint(view: &AccountView) -> BreakerState {
    let phases = view.endpoints.iter().map(|endpoint| endpoint.breaker.phase);
    let states = phases.map(state_of);
    let let_through = |state: &BreakerState| match state {
        BreakerState::Closed => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Open => 2,
    };
    states
        .max_by_key(let_through)
        .unwrap_or(BreakerState::Closed)
}

fn state_of(phase: BreakerPhase) -> BreakerState {
    match phase {
        BreakerPhase::Closed => BreakerState::Closed,
        BreakerPhase::HalfOpen => BreakerState::HalfOpen,
        BreakerPhase::Open => BreakerState::Open,
    }
}

/// Endpoints that fail by themselves.
pub(super) fn endpoints(now: Now, view: &AccountView) -> Vec<EndpointStatus> {
    let status = |endpoint: &EndpointView| EndpointStatus {
        endpoint: endpoint.endpoint.to_string(),
        breaker: state_of(endpoint.breaker.phase),
        failures_in_row: endpoint.breaker.failures_in_row,
        resumes_at: endpoint.breaker.until.map(|until| wall_at(now, until)),
    };
    view.endpoints.iter().map(status).collect()
}

/// Why no call goes, and until when.
pub(super) fn hold(now: Now, view: &AccountView) -> AccountOutlook {
    let (held_by, until) = match view.gate {
        Gate::Held { until, reason } => {
            let word = match reason {
                HoldReason::Throttled => "throttled",
                HoldReason::QuotaSpent => "quota_spent",
                HoldReason::Unreachable => "unreachable",
                HoldReason::Failing => "failing",
                HoldReason::Unauthorized => "unauthorized",
            };
            (Some(word), Some(until))
        }
        Gate::Open | Gate::Suspect | Gate::Probe => {
            let parked = view.parked_until;
            (parked.map(|_| "quota_spent"), parked)
        }
    };
    AccountOutlook {
        held_by,
        resumes_at: until.map(|until| wall_at(now, until)),
        drained_at: None,
        held_objects: Vec::new(),
        endpoints: Vec::new(),
    }
}

/// What the wall clock will read, if it is not stepped.
fn wall_at(now: Now, at: Mono) -> UnixMs {
    let ahead = i64::try_from(at.saturating_since(now.mono).as_millis()).unwrap_or(i64::MAX);
    let behind = i64::try_from(now.mono.saturating_since(at).as_millis()).unwrap_or(i64::MAX);
    now.wall.0.saturating_add(ahead).saturating_sub(behind)
}

/// Every limit, and the calls in flight as one more.
pub(super) fn limits(now: Now, view: &AccountView) -> Vec<LimitStatus> {
    let windows = view.limits.iter().map(|limit| {
        let held = i64::from(limit.capacity) - limit.available;
        LimitStatus {
            name: limit.name.to_string(),
            limit: u64::from(limit.capacity),
            used: u64::try_from(held).unwrap_or(0) + limit.others,
            window_ms: u64::try_from(limit.window.as_millis()).unwrap_or(u64::MAX),
            others: limit.others,
            kept: limit.kept,
            allowed: u64::from(limit.allowed),
            frees_at: limit.next_restore.map(|at| wall_at(now, at)),
            used_up_at: limit.used_up_at.map(|at| wall_at(now, at)),
        }
    });
    let slots = LimitStatus {
        name: IN_FLIGHT.to_owned(),
        limit: u64::from(view.slots),
        used: u64::from(view.slots_held),
        allowed: u64::from(view.slots),
        ..LimitStatus::default()
    };
    windows.chain([slots]).collect()
}
