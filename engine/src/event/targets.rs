//! The accounts that one event goes to.

use super::Operation;

/// Targets of one event, which is also the number of accounts that can be configured.
pub const TARGETS_MAX: usize = 255;

/// One account that the event goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The account's name.
    pub name: &'a str,
    /// What the rules decided for it.
    pub action: TargetAction,
    /// The rule that decided, counted from 1 in its version of the rules; 0: none did.
    pub rule: u16,
}

/// What happens to an event at one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TargetAction {
    /// The event's own operation.
    Sync,
    /// Nothing: the target ends as `skipped_by_rule`.
    Skip,
    /// This operation in place of the event's own.
    Instead(Operation),
    /// Nothing is sent: the target is where the event comes from. It waits there only behind
    /// changes that are on their way to it, to be compared with them.
    Observe,
}

/// Targets in the order of their accounts; a single one, the usual case, needs no allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets<'a> {
    first: Option<Target<'a>>,
    more: Vec<Target<'a>>,
}

impl<'a> Targets<'a> {
    /// Adds a target behind the others.
    pub fn push(&mut self, target: Target<'a>) {
        match self.first {
            None => self.first = Some(target),
            Some(_) => self.more.push(target),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.more.len()
    }

    /// Whether the event goes nowhere.
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The targets, in order.
    pub fn iter(&self) -> impl Iterator<Item = Target<'a>> {
        self.first.iter().chain(&self.more).copied()
    }
}

impl<'a> FromIterator<Target<'a>> for Targets<'a> {
    fn from_iter<I: IntoIterator<Item = Target<'a>>>(targets: I) -> Self {
        let mut targets = targets.into_iter();
        Self {
            first: targets.next(),
            more: targets.collect(),
        }
    }
}
