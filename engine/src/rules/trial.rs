//! What another set would have made of events that were taken.

use super::{Action, RuleOutcome, RuleSet};
use crate::event::Operation;
use crate::event::codec::AcceptedEvent;

/// A push that keeps more than this many points more of the operations from their accounts, or
/// turns them into deletes, has to be meant.
pub const FORCE_ABOVE_POINTS: u64 = 20;

/// Differences that are told one by one.
const EXAMPLES_MAX: usize = 10;

/// Two sets side by side over the same events.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Trial {
    /// Decisions: one an event and account.
    pub decisions: u64,
    /// Those in which the two sets differ.
    pub changed: u64,
    /// What the set in force makes of them.
    pub before: Tally,
    /// What the other set would.
    pub after: Tally,
    /// Some of the differences, the newest event first.
    pub examples: Vec<Difference>,
}

/// Decisions by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Sent as they are.
    pub synced: u64,
    /// Not sent to an account.
    pub skipped: u64,
    /// Not accepted for an account.
    pub rejected: u64,
    /// Sent as another operation than a delete.
    pub converted: u64,
    /// Turned into deletes.
    pub deleted: u64,
}

/// One event at one account, on which the sets differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// System A's key.
    pub record_id: String,
    /// The kind of record.
    pub object: String,
    /// The account.
    pub provider: String,
    /// What the event asked for.
    pub operation: Operation,
    /// What the set in force makes of it.
    pub before: Action,
    /// What the other set would.
    pub after: Action,
    /// The other set's rule, counted from 1; 0: none.
    pub rule: u16,
}

impl Trial {
    /// Holds both sets against events, the newest first.
    pub fn run<'e>(
        in_force: &RuleSet,
        other: &RuleSet,
        events: impl Iterator<Item = AcceptedEvent<'e>>,
    ) -> Self {
        let mut trial = Self::default();
        for accepted in events {
            let mut outcomes: Vec<RuleOutcome> = Vec::with_capacity(accepted.targets.len());
            let event = &accepted.event;
            in_force.decide_event(event, &accepted.targets, |_, outcome| {
                outcomes.push(outcome)
            });
            let mut outcomes = outcomes.into_iter();
            other.decide_event(event, &accepted.targets, |target, after| {
                let before = outcomes.next().map_or(Action::Sync, |before| before.action);
                trial.decisions += 1;
                trial.before.count(before);
                trial.after.count(after.action);
                if before == after.action {
                    return;
                }
                trial.changed += 1;
                if trial.examples.len() < EXAMPLES_MAX {
                    trial.examples.push(Difference {
                        record_id: event.record_id.as_deref().unwrap_or_default().to_owned(),
                        object: event.object.as_ref().to_owned(),
                        provider: target.name.to_owned(),
                        operation: event.operation,
                        before,
                        after: after.action,
                        rule: after.rule,
                    });
                }
            });
        }
        trial
    }

    /// The part of the decisions that would be another one, 0 to 1.
    pub fn share_changed(&self) -> f64 {
        self.share(self.changed)
    }

    /// Percentage points by which more would be skipped, rejected or deleted.
    pub fn points_more_withheld(&self) -> f64 {
        100.0 * (self.share(self.after.withheld()) - self.share(self.before.withheld()))
    }

    /// Whether the push has to be forced.
    pub fn needs_force(&self) -> bool {
        let more = self.after.withheld().saturating_sub(self.before.withheld());
        more * 100 > FORCE_ABOVE_POINTS * self.decisions
    }

    fn share(&self, some: u64) -> f64 {
        if self.decisions == 0 {
            return 0.0;
        }
        some as f64 / self.decisions as f64
    }
}

impl Tally {
    fn count(&mut self, action: Action) {
        *match action {
            Action::Sync => &mut self.synced,
            Action::Skip => &mut self.skipped,
            Action::Reject => &mut self.rejected,
            Action::Instead(Operation::Delete) => &mut self.deleted,
            Action::Instead(_) => &mut self.converted,
        } += 1;
    }

    fn withheld(self) -> u64 {
        self.skipped + self.rejected + self.deleted
    }
}
