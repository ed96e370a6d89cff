//! What the sides knew when, and what they have to end with by that.

use syncline_engine::merge::Rule;

/// What the sides knew when, of edits that set `/a` to their own number, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The last edit made here.
    pub(super) here: u64,
    /// The last one made there.
    pub(super) there: u64,
    /// The last one of there that was read,
    pub(super) seen: u64,
    /// the edit at which the account says that this one was made, in the notice that it was read for,
    pub(super) told: u64,
    /// and the last one of here that had arrived there when it was made.
    pub(super) seen_after: u64,
    /// The last one of there that System A heard of,
    pub(super) heard: u64,
    /// and when the last one was made here.
    pub(super) heard_here: u64,
    /// The last one of here that arrived there,
    pub(super) arrived: u64,
    /// and when the last one was made there.
    pub(super) arrived_there: u64,
}

impl Witness {
    /// What of it [`Witness::expected`] may ask for, now or after more has happened: edits by their
    /// numbers, and what is only compared as it compares. Numbers only grow, and a new edit's is higher
    /// than all.
    pub(super) fn asked_by(&self, rule: &Rule) -> (Vec<u64>, Vec<bool>) {
        match rule {
            Rule::LastWriteWins => (
                vec![self.here, self.there, self.seen],
                vec![
                    self.told <= self.here,
                    self.seen_after < self.here,
                    self.arrived < self.here,
                    self.arrived_there < self.here,
                ],
            ),
            // An edit of there that is older than one of here is asked for no more.
            Rule::SystemA if self.there < self.here => {
                (vec![self.here], vec![self.arrived < self.here])
            }
            Rule::SystemA => (
                vec![self.here, self.there],
                vec![self.arrived < self.here, self.arrived_there < self.here],
            ),
            // Nor is one of here that is older than one of there that was seen.
            Rule::Provider if self.here < self.seen => {
                (vec![self.there, self.seen], vec![self.heard < self.seen])
            }
            Rule::Provider => (
                vec![self.here, self.there, self.seen],
                vec![self.heard < self.seen, self.heard_here < self.seen],
            ),
            other => panic!("no fold for {other:?}"),
        }
    }

    /// An edit of there was read.
    pub(super) fn see(&mut self, number: u64, told: u64) {
        if number > self.seen {
            (self.seen, self.told, self.seen_after) = (number, told, self.arrived_there);
        }
    }

    /// The edit that both sides have to end with, once all that stands at the account was seen.
    pub(crate) fn expected(mut self, rule: &Rule, standing: u64) -> u64 {
        if standing == self.there {
            self.see(standing, standing);
        }
        match rule {
            // The last one of those that anybody saw: what we wrote over is not known to have been.
            // It is as old as the notice that it was read for, where that is of another edit.
            Rule::LastWriteWins if self.told <= self.here && self.seen_after < self.here => {
                self.here
            }
            Rule::LastWriteWins => self.here.max(self.seen),
            // What System A said last, unless it was changed after that had arrived.
            Rule::SystemA if self.there > self.here && self.arrived_there == self.here => {
                self.there
            }
            Rule::SystemA => self.here,
            // What was seen there last, unless System A knew it and changed it after that.
            Rule::Provider if self.here > self.seen && self.heard_here == self.seen => self.here,
            Rule::Provider => self.seen,
            other => panic!("no fold for {other:?}"),
        }
    }
}
