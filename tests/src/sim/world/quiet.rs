//! After the trouble: all sides come to rest and are compared; then edits one by one, whose calls
//! are counted; then everything is told again, which must cause none.

use engine::id::OperationId;

use super::World;
use super::people::Errand;
use crate::sim::fold::Broken;
use crate::sim::marks::Mark;
use crate::sim::two_way::agreement::Agreement;
use crate::sim::two_way::ledger::{Edit, Key};
use crate::sim::two_way::options::Policy;
use crate::sim::two_way::side::Place;

/// How far a run is once its trouble is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    /// What happened meanwhile comes to its end.
    Settling,
    /// Edits were made, one of each record, and come to theirs.
    Quiet {
        /// Edits before them, and writing calls at each side.
        edits: usize,
        writes: Vec<usize>,
    },
    /// All was told again.
    Retold {
        /// Writing calls before that, at each side.
        writes: Vec<usize>,
    },
}

impl World {
    /// Whether nothing is on its way between the sides.
    pub(super) fn sides_rest(&self) -> bool {
        let idle = self
            .node
            .as_ref()
            .is_some_and(|node| node.inbound.is_idle());
        idle && self.people.to_come == 0
            && self.notices.is_empty()
            && self.set_back.is_empty()
            && self.lists_are_read()
    }

    /// All rests: goes on with what comes next. False when that was all.
    pub(super) fn go_on(&mut self) -> bool {
        if self.options.two_way.is_none() || self.oracle.broken.is_some() {
            return false;
        }
        let checked = self.check_rest();
        let agreement = match checked {
            Ok(agreement) => agreement,
            Err(broken) => {
                self.oracle.note(Err(broken));
                return false;
            }
        };
        match self.phase {
            Phase::Settling => {
                let (edits, writes) = (self.oracle.ledger.edits.len(), self.written());
                self.phase = Phase::Quiet { edits, writes };
                self.edit_quietly(&agreement);
                true
            }
            Phase::Quiet { .. } => {
                let writes = self.written();
                self.phase = Phase::Retold { writes };
                self.tell_again();
                true
            }
            Phase::Retold { .. } => false,
        }
    }

    fn check_rest(&mut self) -> Result<Agreement, Broken> {
        let agreement = Agreement::look(&self.oracle, &self.providers)?;
        let edits = &self.oracle.ledger.edits;
        let policy = self.oracle.policy.unwrap_or(Policy::LastWriteWins);
        agreement.check_equal(&self.oracle.ledger, policy)?;
        match &self.phase {
            Phase::Settling => agreement.check_edits(&self.oracle.ledger, edits, policy)?,
            Phase::Quiet {
                edits: from,
                writes,
            } => {
                let quiet = &edits[*from..];
                agreement.check_quiet(&self.oracle.ledger, quiet, policy)?;
                self.check_cost(quiet, self.writes_since(writes, &agreement))?;
            }
            Phase::Retold { writes } => {
                let caused = self.writes_since(writes, &agreement);
                if caused > 0 {
                    return Err(format!("I15 what was told again caused {caused} writes"));
                }
            }
        }
        Ok(agreement)
    }

    /// An edit costs a write at each other side at most, and one at its own where it is written back.
    fn check_cost(&self, edits: &[Edit], writes: usize) -> Result<(), Broken> {
        let sides = match self.oracle.policy {
            Some(Policy::Reverts) => self.providers.len(),
            _ => self.providers.len() - 1,
        };
        let most = edits.len() * sides;
        if writes > most {
            return Err(format!(
                "I15 {} edits caused {writes} writes at {} sides",
                edits.len(),
                self.providers.len()
            ));
        }
        Ok(())
    }

    /// Writing calls that took effect, at each side.
    fn written(&self) -> Vec<usize> {
        let sides = self.providers.iter();
        sides.map(|provider| provider.written.len()).collect()
    }

    /// Of those since, the ones for records of which no operation failed: what failed before may
    /// come right now.
    fn writes_since(&self, before: &[usize], agreement: &Agreement) -> usize {
        let counts = |ids: &&Vec<OperationId>| {
            let mut records = ids.iter().filter_map(|id| self.oracle.key_of(*id));
            records.any(|key| !agreement.is_listed(&key))
        };
        let sides = self.providers.iter().zip(before);
        let since = sides.flat_map(|(provider, before)| &provider.written[*before..]);
        since.filter(counts).count()
    }

    fn edit_quietly(&mut self, agreement: &Agreement) {
        let two_way = self.options.two_way.as_ref();
        let count = two_way.map_or(0, |two_way| two_way.quiet_edits);
        let edits = self.oracle.ledger.edits.iter();
        let mut taken: Vec<Key> = edits.map(|edit| edit.key.clone()).collect();
        taken.retain(|key| agreement.is_listed(key));
        let sides = self.providers.len();
        let (here, there): (Vec<usize>, Vec<usize>) =
            (0..count as usize).partition(|at| at % sides == sides - 1);
        for side in there.into_iter().map(|at| at % sides) {
            let before = self.oracle.ledger.edits.len();
            self.quiet_edit_there(side, &taken);
            let made = self.oracle.ledger.edits[before..].iter();
            taken.extend(made.map(|edit| edit.key.clone()));
        }
        let clients = self.clients.len();
        for client in here.into_iter().map(|at| at % clients) {
            self.send_on(client, Errand::Quiet(taken.clone()));
        }
        self.marks.hit(Mark::QuietEdits);
    }

    /// Records that were edited since all was quiet.
    pub(super) fn quiet_keys(&self) -> Vec<Key> {
        let Phase::Quiet { edits: from, .. } = &self.phase else {
            return Vec::new();
        };
        let edits = self.oracle.ledger.edits[*from..].iter();
        edits.map(|edit| edit.key.clone()).collect()
    }

    /// Every account tells of all that it has, and of what it had, in no good order.
    fn tell_again(&mut self) {
        for side in 0..self.sides.len() {
            let gone: Vec<Place> = self.sides[side].gone.clone();
            let live: Vec<Place> = self.sides[side].records.keys().cloned().collect();
            for place in &live {
                self.send_notice(side, place, false, false);
            }
            for place in &gone {
                if !self.sides[side].marks_deletes(&place.0) {
                    self.send_notice(side, place, true, false);
                }
                self.send_notice(side, place, false, false);
            }
        }
    }
}
