//! The checks at the end of a demo, each with what it found wrong.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::client::{Api, ApiError};
use super::audit::Audit;
use super::provider_side::ProviderSide;
use super::sender::Sent;
use super::system_a::RecordKey;
use super::workload::REFUSED_PREFIX;

/// All checks; it holds when none found anything.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) checks: Vec<Check>,
    /// Operations by their final state.
    pub(super) ended: BTreeMap<String, u64>,
    /// Records whose operations did not all arrive, and why.
    pub(super) excepted: BTreeMap<RecordKey, String>,
}

/// One thing that has to hold.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) what: String,
    pub(super) problems: Vec<String>,
}

impl Verdict {
    pub(super) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.problems.is_empty())
    }

    pub(super) fn add(&mut self, what: impl Into<String>, problems: Vec<String>) {
        self.checks.push(Check {
            what: what.into(),
            problems,
        });
    }

    /// Every acknowledged event is in the log once, and no refused one.
    pub(super) fn check_log(&mut self, sent: &Sent, audit: &Audit) {
        let mut problems = Vec::new();
        for seq in 1..=sent.acked {
            let taken = audit.taken.get(&seq).map_or(0, BTreeSet::len);
            match (sent.refused.contains_key(&seq), taken) {
                (true, 0) | (false, 1) => {}
                (true, _) => problems.push(format!("event {seq} was refused, and is in the log")),
                (false, 0) => problems.push(format!(
                    "event {seq} was acknowledged, and is not in the log"
                )),
                (false, times) => problems.push(format!("event {seq} was taken {times} times")),
            }
        }
        let beyond = audit.taken.keys().filter(|&&seq| seq > sent.acked);
        problems.extend(
            beyond.map(|seq| format!("event {seq} is in the log, and was never acknowledged")),
        );
        let taken = sent.acked - sent.refused.len() as u64;
        self.add(
            format!("each of {taken} acknowledged events is in the log, once"),
            problems,
        );
        self.add(
            format!(
                "{} frames of the log verify, and it is sealed",
                audit.frames
            ),
            audit.damage.clone(),
        );
    }

    /// Every operation of the log ended in a final state at every account it goes to.
    pub(super) fn check_states(&mut self, audit: &Audit, api: &Api) -> Result<(), ApiError> {
        let mut problems = Vec::new();
        let mut targets = 0;
        for event in audit.taken.values().flatten() {
            let name = format!(
                "{} {} ({})",
                event.object, event.record_id, event.operation_id
            );
            let operation = match api.get(&format!("/v1/operations/{}", event.operation_id)) {
                Ok(operation) => operation,
                Err(ApiError::Refused { detail, .. }) => {
                    problems.push(format!("{name}: {detail}"));
                    continue;
                }
                Err(error) => return Err(error),
            };
            for account in &event.accounts {
                targets += 1;
                let standings = operation["providers"].as_array().into_iter().flatten();
                let standing = standings
                    .into_iter()
                    .find(|standing| standing["provider"] == **account);
                match standing.and_then(|standing| standing["state"].as_str()) {
                    Some(state @ ("synced" | "superseded")) => self.count(state),
                    Some(state @ ("failed" | "skipped_by_rule" | "dropped" | "conflict")) => {
                        self.count(state);
                        let why = standing.map(why).unwrap_or_default();
                        self.except(
                            account,
                            &event.object,
                            &event.record_id,
                            format!("{state}, {why}"),
                        );
                    }
                    Some(state) => problems.push(format!("{name} is {state} at {account}")),
                    None => problems.push(format!("{name} has no state at {account}")),
                }
            }
        }
        self.add(
            format!("each of {targets} operations (event and account) ended in a final state"),
            problems,
        );
        Ok(())
    }

    /// Both sides are equal, but for records that did not arrive and are listed.
    pub(super) fn check_equality(&mut self, sent: &Sent, sides: &[ProviderSide]) {
        let mut problems = Vec::new();
        let mut compared = 0;
        for side in sides {
            let mut remote = side.records();
            for (key, (object, fields)) in sent.system_a.expected(side.plan) {
                let found = remote.remove(&(object, key.record_id.clone()));
                if self.excepted.contains_key(&key) {
                    continue;
                }
                compared += 1;
                let name = format!("{} {} at {}", key.object, key.record_id, key.account);
                match found {
                    None => problems.push(format!("{name} is missing")),
                    Some(found) if found.copies > 1 => {
                        problems.push(format!("{name} exists {} times", found.copies))
                    }
                    Some(found) if found.fields == fields => {}
                    Some(found) => problems.push(format!(
                        "{name} differs: {}",
                        difference(&fields, &found.fields)
                    )),
                }
            }
            let excepted = |id: &str| {
                self.excepted
                    .keys()
                    .any(|key| key.account == side.plan.name && key.record_id == id)
            };
            let more = remote.into_keys().filter(|(_, id)| !excepted(id));
            problems.extend(more.map(|(object, id)| {
                format!("{object} {id} is at {}, and should not be", side.plan.name)
            }));
        }
        let but = match self.excepted.len() {
            0 => String::new(),
            some => format!(", {some} listed above apart"),
        };
        self.add(
            format!("{compared} records are equal on both sides{but}"),
            problems,
        );
    }

    /// What the accounts counted against the engine.
    pub(super) fn check_conduct(&mut self, sides: &[ProviderSide]) {
        let (mut over, mut duplicates, mut overlaps) = (Vec::new(), Vec::new(), Vec::new());
        for side in sides {
            let name = side.plan.name;
            let violations = side.violations();
            let by_limit = violations.by_limit.iter().filter(|(_, count)| *count > 0);
            over.extend(
                by_limit.map(|(limit, count)| format!("{name}: {count} calls over {limit}")),
            );
            if violations.duplicate_creates > 0 {
                duplicates.push(format!("{name}: {}", violations.duplicate_creates));
            }
            if violations.overlaps > 0 {
                overlaps.push(format!("{name}: {}", violations.overlaps));
            }
        }
        self.add("0 limit violations", over);
        self.add("0 duplicate creates", duplicates);
        self.add("0 writes to one record at the same time", overlaps);
    }

    /// Only what was made wrong on purpose was refused, and with its place.
    pub(super) fn check_refusals(&mut self, sent: &Sent) {
        let refused = sent.refused.values();
        let unexpected = refused.filter(|refused| {
            let pointer = refused.reject.pointer.as_deref();
            !matches!(pointer, Some("/priority" | "/operation" | "/recrod_id"))
        });
        let problems = unexpected.map(|refused| {
            let reject = &refused.reject;
            format!(
                "{} was refused: {}, {}",
                refused.event, reject.code, reject.detail
            )
        });
        let problems = problems.collect();
        self.add(
            format!(
                "{} events made wrong on purpose were refused, with the place",
                sent.refused.len()
            ),
            problems,
        );
    }

    /// Records that the accounts refuse by their id fail, and no others.
    pub(super) fn check_failures(&mut self) {
        let others = self
            .excepted
            .iter()
            .filter(|(key, _)| !key.record_id.starts_with(REFUSED_PREFIX));
        let problems = others.map(|(key, why)| {
            format!("{} {} at {}: {why}", key.object, key.record_id, key.account)
        });
        let problems = problems.collect();
        self.add(
            "only records that the account refuses for good failed",
            problems,
        );
    }

    fn count(&mut self, state: &str) {
        *self.ended.entry(state.to_owned()).or_default() += 1;
    }

    fn except(&mut self, account: &str, object: &str, record_id: &str, why: String) {
        let Some(plan) = super::accounts::ACCOUNTS
            .iter()
            .find(|plan| plan.name == account)
        else {
            return;
        };
        let key = RecordKey {
            account: plan.name,
            object: object.to_owned(),
            record_id: record_id.to_owned(),
        };
        self.excepted.insert(key, why);
    }
}

fn why(standing: &Value) -> String {
    let last = standing["attempts"]
        .as_array()
        .and_then(|attempts| attempts.last());
    let detail = last
        .and_then(|attempt| attempt["detail"].as_str())
        .unwrap_or_default();
    format!(
        "{} {detail}",
        standing["reason"].as_str().unwrap_or("no reason")
    )
    .trim_end()
    .to_owned()
}

/// The first field that differs, as it is on both sides.
fn difference(
    expected: &serde_json::Map<String, Value>,
    found: &serde_json::Map<String, Value>,
) -> String {
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or_else(|| "absent".to_owned(), Value::to_string);
    let differing = names
        .into_iter()
        .filter(|name| expected.get(*name) != found.get(*name));
    let all: Vec<String> = differing
        .map(|name| {
            format!(
                "{name} should be {}, is {}",
                shown(expected.get(name)),
                shown(found.get(name))
            )
        })
        .collect();
    all.join("; ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::audit::TakenEvent;
    use super::super::sender::Refused;
    use super::*;

    fn taken(seqs: &[(u64, &str)]) -> Audit {
        let mut audit = Audit::default();
        for (seq, id) in seqs {
            let event = TakenEvent {
                operation_id: (*id).to_owned(),
                object: "contact".to_owned(),
                record_id: "c-1".to_owned(),
                accounts: vec!["crm".to_owned()],
            };
            audit.taken.entry(*seq).or_default().insert(event);
        }
        audit
    }

    fn problems_with(sent: &Sent, audit: &Audit) -> Vec<String> {
        let mut verdict = Verdict::default();
        verdict.check_log(sent, audit);
        assert_eq!(verdict.holds(), verdict.checks[0].problems.is_empty());
        verdict.checks.swap_remove(0).problems
    }

    #[test]
    fn an_event_lost_taken_twice_or_never_acknowledged_is_a_problem() {
        let sent = Sent {
            acked: 2,
            ..Sent::default()
        };
        assert!(problems_with(&sent, &taken(&[(1, "a"), (2, "b")])).is_empty());
        assert_eq!(
            problems_with(&sent, &taken(&[(2, "b"), (2, "c"), (3, "d")])),
            [
                "event 1 was acknowledged, and is not in the log",
                "event 2 was taken 2 times",
                "event 3 is in the log, and was never acknowledged",
            ]
        );
    }

    #[test]
    fn a_refused_event_must_not_be_in_the_log() {
        let reject = net::client::Reject {
            seq: 1,
            code: "invalid_field".to_owned(),
            detail: String::new(),
            pointer: Some("/priority".to_owned()),
        };
        let refused = BTreeMap::from([(
            1,
            Refused {
                event: "{}".to_owned(),
                reject,
            },
        )]);
        let sent = Sent {
            acked: 1,
            refused,
            ..Sent::default()
        };
        assert!(problems_with(&sent, &taken(&[])).is_empty());
        assert_eq!(
            problems_with(&sent, &taken(&[(1, "a")])),
            ["event 1 was refused, and is in the log"]
        );
        let mut verdict = Verdict::default();
        verdict.check_refusals(&sent);
        assert!(verdict.holds());
    }

    #[test]
    fn a_difference_names_the_field_and_both_values() {
        let map = |value: Value| value.as_object().unwrap().clone();
        let (expected, found) = (
            serde_json::json!({"a": 1, "b": 2}),
            serde_json::json!({"a": 1, "b": 3, "c": 4}),
        );
        assert_eq!(
            difference(&map(expected), &map(found)),
            "b should be 2, is 3; c should be absent, is 4"
        );
    }
}
