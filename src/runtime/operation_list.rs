//! Operations as the API lists them.

use engine::refusal::{Code, Refusal};
use engine::shard::Standing;
use engine::state::State;
use engine::view::{AttemptView, OperationTarget, OperationView, Page};

/// One operation over all its targets.
pub(super) fn operation_view(standings: Vec<Standing>) -> Option<OperationView> {
    let first = standings.first()?;
    let result = standings
        .iter()
        .find(|standing| !standing.result.is_empty());
    let result = result.map(|standing| String::from_utf8_lossy(&standing.result).into_owned());
    Some(OperationView {
        operation_id: first.id.to_string(),
        record_id: first.record_id.clone(),
        object: first.object.clone(),
        operation: first.operation,
        state: standings
            .iter()
            .map(|standing| standing.state)
            .max_by_key(|&state| severity(state))?,
        accepted_at: first.accepted_at_ms,
        result,
        targets: standings
            .into_iter()
            .map(|standing| OperationTarget {
                provider: standing.account,
                state: standing.state,
                reason: standing.reason,
                remote_id: standing.remote_id,
                updated_at: standing.updated_at_ms,
                superseded_by: standing.superseded_by.map(|newer| newer.to_string()),
                attempts: standing
                    .attempts
                    .into_iter()
                    .map(|attempt| AttemptView {
                        at: attempt.at_ms,
                        status: (attempt.status > 0).then_some(attempt.status),
                        class: attempt.class,
                        detail: attempt.detail,
                    })
                    .collect(),
            })
            .collect(),
    })
}

/// What is open outweighs what is final, and trouble outweighs success.
fn severity(state: State) -> u8 {
    match state {
        State::Conflict => 10,
        State::Unknown => 9,
        State::Retrying => 8,
        State::InFlight => 7,
        State::Waiting => 6,
        State::Queued => 5,
        State::Failed => 4,
        State::Dropped => 3,
        State::SkippedByRule => 2,
        State::Superseded => 1,
        State::Synced => 0,
    }
}

/// How many items of a list the pages before had.
pub(super) fn cursor(after: Option<&str>) -> Result<usize, Refusal> {
    let Some(after) = after else { return Ok(0) };
    after
        .parse()
        .map_err(|_| Refusal::new(Code::InvalidField, "`after` is not a cursor of this list"))
}

/// A page out of items of which one more than fits may be there.
pub(super) fn paged<V>(mut items: Vec<V>, skip: usize, limit: usize) -> Page<V> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page {
        items,
        next: more.then(|| (skip + limit).to_string()),
    }
}
