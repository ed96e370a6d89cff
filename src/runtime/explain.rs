//! Why a record waits, in words: what its shard says, with the account's limits and rate.

use std::fmt::Write as _;

use engine::entry::HoldScope;
use engine::quota::{AccountLimits, AccountView, HoldReason, Policy};
use engine::shard::{Explanation, OpenCounts, Wait};
use engine::state::{Reason, State};
use engine::time::Now;
use engine::view::ExplainTarget;

/// What one account's shards and coordinator say beside the record's own shard.
#[derive(Debug, Default)]
pub(crate) struct Surroundings<'a> {
    pub(crate) limits: Option<&'a AccountLimits>,
    pub(crate) view: Option<&'a AccountView>,
    /// Ready operations of the account on each of the other shards.
    pub(crate) ready_elsewhere: Vec<u64>,
}

/// Tells one explanation.
pub(crate) fn told(now: Now, why: &Explanation, around: &Surroundings<'_>) -> ExplainTarget {
    let standing = &why.standing;
    let (reason, mut detail) = match &why.wait {
        None => (standing.reason, without_wait(standing.state)),
        Some(Wait::Backoff) if standing.state == State::Unknown => (
            Some(Reason::Backoff),
            "the time after which what became of its call is looked up".to_owned(),
        ),
        Some(wait) => sentence(wait, around),
    };
    if why.behind > 0 {
        let many = if why.behind == 1 { "" } else { "s" };
        write!(
            detail,
            "; {} newer operation{many} of the record behind it",
            why.behind
        )
        .expect("a String takes all");
    }
    let queued = matches!(
        why.wait,
        Some(
            Wait::Turn
                | Wait::Quota
                | Wait::Throttled
                | Wait::Breaker(_)
                | Wait::Endpoint(_)
                | Wait::Credentials
                | Wait::Hold(_)
                | Wait::Override
                | Wait::NoAccount
        )
    ) && why.standing.state != State::InFlight;
    let ahead = queued.then(|| ahead(why, around));
    let until = why.until_ms.or_else(|| next_permit(now, why, around));
    let open_ended = matches!(
        why.wait,
        None | Some(
            Wait::Hold(_)
                | Wait::Override
                | Wait::NoAccount
                | Wait::Unreadable
                | Wait::Credentials
                | Wait::Refused(_)
        )
    );
    let expected_at = if open_ended {
        None
    } else {
        expected(now, until, ahead.unwrap_or(0), around)
    };
    ExplainTarget {
        provider: standing.account.clone(),
        state: standing.state,
        reason,
        detail,
        since: standing.updated_at_ms,
        until,
        ahead,
        expected_at,
    }
}

fn without_wait(state: State) -> String {
    let text = match state {
        State::InFlight => "its call is under way",
        State::Synced => "nothing: the target has the newest change",
        State::Failed => "a person: it is a dead letter until it is retried or dropped",
        State::Dropped => "nothing: an operator gave it up",
        State::Superseded => "nothing: a newer operation replaced it",
        State::SkippedByRule => "nothing: a rule leaves this target out",
        State::Conflict => "a person: both sides changed the same field",
        State::Queued | State::Waiting | State::Retrying | State::Unknown => {
            "it goes along with a call that is under way"
        }
    };
    text.to_owned()
}

fn sentence(wait: &Wait, around: &Surroundings<'_>) -> (Option<Reason>, String) {
    match wait {
        Wait::Turn => (None, "its turn".to_owned()),
        Wait::Quota => {
            let name = exhausted(around);
            let detail = match name {
                Some(name) => format!("the account's limit {name:?} is used up"),
                None => "a permit of the account's limits".to_owned(),
            };
            (Some(Reason::Quota), detail)
        }
        Wait::Throttled => (
            Some(Reason::Quota),
            "the provider asked for a pause".to_owned(),
        ),
        Wait::Breaker(reason) => {
            let why = match reason {
                HoldReason::Unreachable => "connections to it fail",
                HoldReason::Failing => "its calls fail",
                HoldReason::Throttled => "it asked for a pause",
                HoldReason::QuotaSpent => "its quota is spent",
                HoldReason::Unauthorized => "it refuses our credentials",
            };
            let detail = format!("the account's breaker is open: {why}");
            (Some(Reason::Breaker), detail)
        }
        Wait::Endpoint(endpoint) => (
            Some(Reason::Breaker),
            format!(
                "calls to the account's endpoint {endpoint:?} fail: its breaker is open; other \
                 endpoints are called meanwhile"
            ),
        ),
        Wait::Credentials => (
            Some(Reason::Auth),
            "the provider refuses the account's credentials".to_owned(),
        ),
        Wait::Hold(scope) => (Some(Reason::Paused), format!("held: {}", scope_text(scope))),
        Wait::Override => (
            Some(Reason::Paused),
            "held: the account, by a config override".to_owned(),
        ),
        Wait::Schedule => (
            Some(Reason::Scheduled),
            "the time that its event names".to_owned(),
        ),
        Wait::Backoff => (
            Some(Reason::Backoff),
            "the pause after a failed attempt".to_owned(),
        ),
        Wait::Refused(refused) => (
            Some(Reason::Paused),
            format!(
                "the provider does not let the account write {:?}; one record asks again every \
                 minute, all of them after a resume. It said: {}",
                refused.object, refused.detail
            ),
        ),
        Wait::Parent => (
            Some(Reason::Parent),
            "a record that it refers to and that has no id at the account yet".to_owned(),
        ),
        Wait::NoAccount => (
            Some(Reason::NoAccount),
            "its account is not in the configuration".to_owned(),
        ),
        Wait::Unreadable => (
            Some(Reason::Damaged),
            "an operator: the log cannot be read where it lies".to_owned(),
        ),
    }
}

fn scope_text(scope: &HoldScope) -> String {
    let parts: Vec<String> = [
        ("provider", &scope.provider),
        ("object", &scope.object),
        ("record_id", &scope.record_id),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some(format!("{name} {:?}", value.as_ref()?)))
    .collect();
    if parts.is_empty() {
        "everything".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The limit that has nothing left; of several the one that has least.
fn exhausted(around: &Surroundings<'_>) -> Option<String> {
    let view = around.view?;
    let empty = view.limits.iter().filter(|limit| limit.available <= 0);
    let tightest = empty.max_by(|a, b| a.used_ratio.total_cmp(&b.used_ratio));
    match tightest {
        Some(limit) => Some(limit.name.to_string()),
        None if view.slots_held >= view.slots => Some("in_flight".to_owned()),
        None => None,
    }
}

/// When the used-up limit has its next permit.
fn next_permit(now: Now, why: &Explanation, around: &Surroundings<'_>) -> Option<i64> {
    if why.wait != Some(Wait::Quota) {
        return None;
    }
    let empty = around.view?.limits.iter();
    let restores = empty
        .filter(|limit| limit.available <= 0)
        .filter_map(|limit| limit.next_restore);
    let ahead = restores.max()?.saturating_since(now.mono);
    Some(now.wall.0 + i64::try_from(ahead.as_millis()).ok()?)
}

/// Shards are served in turn, so each of the others calls about as many before it as its own.
fn ahead(why: &Explanation, around: &Surroundings<'_>) -> u64 {
    let own = why.ahead as u64;
    let others = around.ready_elsewhere.iter();
    own + others.map(|&ready| ready.min(own + 1)).sum::<u64>()
}

/// By the account's slowest limit, from when it may be called again.
fn expected(now: Now, until: Option<i64>, ahead: u64, around: &Surroundings<'_>) -> Option<i64> {
    let from = until.unwrap_or(now.wall.0).max(now.wall.0);
    match calls_per_second(around.limits?) {
        Some(rate) => Some(from.saturating_add((ahead as f64 / rate * 1000.0) as i64)),
        // Without a rate the first in line goes at once, and of the rest nobody knows.
        None => (ahead == 0).then_some(from),
    }
}

/// What all windows together allow in the long run; `None` without any.
fn calls_per_second(limits: &AccountLimits) -> Option<f64> {
    let rates = limits.limits.iter().filter_map(|limit| match limit.policy {
        Policy::Sliding { limit, window } | Policy::Fixed { limit, window, .. } => {
            Some(f64::from(limit) / window.as_secs_f64())
        }
        Policy::TokenBucket { refill, period, .. } => {
            Some(f64::from(refill) / period.as_secs_f64())
        }
        Policy::Concurrency { .. } => None,
    });
    rates.min_by(f64::total_cmp)
}

/// Ready operations of an account on the shards other than `own`.
pub(crate) fn ready_elsewhere(
    counts: &[Vec<(String, OpenCounts)>],
    own: usize,
    account: &str,
) -> Vec<u64> {
    let others = counts.iter().enumerate().filter(|(shard, _)| *shard != own);
    others
        .filter_map(|(_, counts)| counts.iter().find(|(name, _)| name == account))
        .map(|(_, counts)| counts.ready)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use engine::id::{OperationId, OperationSeq, RecordHash};
    use engine::quota::{HoldSettings, Limit};
    use engine::shard::Standing;
    use engine::time::{Mono, WallMs};

    use super::*;

    const NOW: Now = Now {
        mono: Mono(5_000_000_000),
        wall: WallMs(1_000_000),
    };

    fn explanation(wait: Option<Wait>, ahead: usize) -> Explanation {
        let standing = Standing {
            id: OperationId {
                record: RecordHash(1),
                seq: OperationSeq(2),
            },
            object: "contact".into(),
            record_id: "c-1".into(),
            operation: "UPDATE",
            account: "crm".into(),
            state: State::Waiting,
            reason: None,
            attempts: Vec::new(),
            burnt: 0,
            remote_id: None,
            accepted_at_ms: 1,
            updated_at_ms: 1,
            result: Vec::new(),
            superseded_by: None,
        };
        Explanation {
            standing,
            wait,
            until_ms: None,
            ahead,
            behind: 0,
        }
    }

    fn limits(limits: Vec<Limit>) -> AccountLimits {
        AccountLimits {
            name: "crm".into(),
            limits,
            max_in_flight: 1,
            call_timeout: Duration::from_secs(1),
            hold: HoldSettings::default(),
        }
    }

    fn window(name: &str, limit: u32, seconds: u64) -> Limit {
        let policy = Policy::Sliding {
            limit,
            window: Duration::from_secs(seconds),
        };
        Limit::new(name, policy)
    }

    #[test]
    fn the_expected_time_goes_by_the_slowest_limit_and_all_shards() {
        let limits = limits(vec![window("burst", 100, 1), window("minute", 600, 60)]);
        let around = Surroundings {
            limits: Some(&limits),
            view: None,
            ready_elsewhere: vec![3, 1000],
        };
        let told = told(NOW, &explanation(Some(Wait::Turn), 46), &around);
        // 46 of its own shard's, 3 of one, 47 of the other: 96 at 10/s.
        assert_eq!(told.ahead, Some(96));
        assert_eq!(told.expected_at, Some(1_000_000 + 9_600));
        assert_eq!(told.reason, None);
    }

    #[test]
    fn what_an_operator_holds_has_no_expected_time() {
        let scope = HoldScope {
            provider: Some("crm".into()),
            object: None,
            record_id: Some("c-1".into()),
        };
        let limits = limits(vec![window("burst", 100, 1)]);
        let around = Surroundings {
            limits: Some(&limits),
            ..Surroundings::default()
        };
        let told = told(NOW, &explanation(Some(Wait::Hold(scope)), 0), &around);
        assert_eq!(told.reason, Some(Reason::Paused));
        assert_eq!(told.detail, "held: provider \"crm\", record_id \"c-1\"");
        assert_eq!(told.expected_at, None);
    }

    #[test]
    fn newer_operations_behind_it_are_told() {
        let mut why = explanation(Some(Wait::Backoff), 0);
        (why.behind, why.until_ms) = (2, Some(1_000_500));
        let limits = limits(Vec::new());
        let around = Surroundings {
            limits: Some(&limits),
            ..Surroundings::default()
        };
        let told = told(NOW, &why, &around);
        assert!(
            told.detail
                .ends_with("; 2 newer operations of the record behind it")
        );
        assert_eq!(
            (told.until, told.expected_at),
            (Some(1_000_500), Some(1_000_500))
        );
        assert_eq!(told.ahead, None, "it is not in the queue");
    }
}
