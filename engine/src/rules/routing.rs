//! A set's decision over all accounts of one event.

use super::{Action, RuleInput, RuleOutcome, RuleSet};
use crate::event::{Event, Operation, Target, TargetAction, Targets};
use crate::json::{RawObject, merge_patch};
use crate::mapping::{MapFailure, Write};
use crate::refusal::{Code, Refusal};

impl RuleSet {
    /// Decides for each target of an event, and sets the event's priority: an event has one, the
    /// best that a rule gives it at any account that it goes to. `lacks` tells what the mapping of
    /// an account requires and the event has not: then that account rejects it.
    ///
    /// # Errors
    /// `rule_rejected` when every target rejects it; the event is as it was.
    pub fn route<'t>(
        &self,
        event: &mut Event<'_>,
        targets: &Targets<'t>,
        lacks: impl Fn(&Event<'_>, &str, Write) -> Option<MapFailure>,
    ) -> Result<Targets<'t>, Refusal> {
        // Where an event comes from nothing is decided.
        let observes = |target: &Target<'_>| target.action == TargetAction::Observe;
        let (here, targets): (Vec<Target<'t>>, Vec<Target<'t>>) =
            targets.iter().partition(observes);
        let targets = &targets.into_iter().collect::<Targets<'t>>();
        let mut rejection = None;
        let mut rejected = 0;
        let mut priority = None;
        let mut decided = Targets::default();
        self.decide_event(event, targets, |target, outcome| {
            // A switch has left this target out already.
            if target.action == TargetAction::Skip {
                return decided.push(target);
            }
            let write = outcome.action.write(event.operation);
            let failure = write.and_then(|write| lacks(event, target.name, write));
            let outcome = failure.map_or(outcome, rejection_for);
            let action = match outcome.action {
                Action::Sync => TargetAction::Sync,
                Action::Instead(operation) => TargetAction::Instead(operation),
                Action::Skip => TargetAction::Skip,
                Action::Reject => {
                    rejected += 1;
                    rejection.get_or_insert(outcome.clone());
                    TargetAction::Skip
                }
            };
            if action != TargetAction::Skip {
                priority = priority.into_iter().chain(outcome.priority).min();
            }
            decided.push(Target {
                action,
                rule: outcome.rule,
                ..target
            });
        });
        if let Some(outcome) = rejection.filter(|_| rejected == targets.len()) {
            return Err(refusal(outcome));
        }
        event.priority = priority.unwrap_or(event.priority);
        here.into_iter().for_each(|target| decided.push(target));
        Ok(decided)
    }

    /// Calls `each` with what becomes of an event at each of its targets.
    pub(super) fn decide_event<'t>(
        &self,
        event: &Event<'_>,
        targets: &Targets<'t>,
        mut each: impl FnMut(Target<'t>, RuleOutcome),
    ) {
        let merged = merged(event);
        let merged = merged.as_deref().and_then(RawObject::new);
        for target in targets.iter() {
            let outcome = self.decide(&RuleInput {
                operation: event.operation,
                object: &event.object,
                provider: target.name,
                record_id: event.record_id.as_deref().unwrap_or_default(),
                data: merged.or(event.data).or(event.before),
                changed: event.data,
                before: event.before,
                linked: None,
            });
            each(target, outcome);
        }
    }
}

/// The record after the change, when the event tells what it was before.
fn merged(event: &Event<'_>) -> Option<String> {
    let (before, data) = event.before.zip(event.data)?;
    let mut merged = Vec::with_capacity(before.text().len() + data.text().len());
    merge_patch(before, data, &mut merged);
    Some(String::from_utf8(merged).expect("a merge copies slices of UTF-8 texts"))
}

impl Action {
    /// What is written, where an event of this operation is sent.
    fn write(self, operation: Operation) -> Option<Write> {
        let operation = match self {
            Self::Sync => operation,
            Self::Instead(operation) => operation,
            Self::Skip | Self::Reject => return None,
        };
        match operation {
            Operation::Create => Some(Write::Create),
            Operation::Upsert => Some(Write::Upsert),
            Operation::Update => Some(Write::Update),
            Operation::Read | Operation::Delete | Operation::Pull => None,
        }
    }
}

fn rejection_for(failure: MapFailure) -> RuleOutcome {
    RuleOutcome {
        action: Action::Reject,
        rule: 0,
        priority: None,
        pointer: Some(failure.pointer),
        reason: failure.detail,
    }
}

fn refusal(outcome: RuleOutcome) -> Refusal {
    let detail = match outcome.reason.as_ref() {
        "" => format!("rule {} rejects it", outcome.rule).into(),
        _ => outcome.reason,
    };
    Refusal {
        code: Code::RuleRejected,
        detail,
        pointer: outcome.pointer,
    }
}
