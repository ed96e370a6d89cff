//! The end of a call's operations: all of them at once, each as it should.

use engine::event::Operation;
use engine::id::{OperationId, OperationSeq};
use engine::record::{Progress, StateFrame};
use engine::state::{Reason, State};
use serde_json::{Map, Value};
use wal::Lsn;

use super::{Broken, Fold, LaneKey, Op, names};
use crate::sim::marks::{Mark, Marks};
use crate::sim::patch;

/// What a state frame says of operations that ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct End<'a> {
    pub(super) at: Lsn,
    pub(super) lane: &'a LaneKey,
    /// The operations, oldest first; the call was named after the last.
    pub(super) run: &'a [OperationId],
    pub(super) states: &'a StateFrame,
    pub(super) progress: &'a Progress,
    /// Some attempt may have arrived without our knowing.
    pub(super) unclear: bool,
}

impl End<'_> {
    fn lead(&self) -> OperationId {
        self.run[self.run.len() - 1]
    }

    fn older(&self) -> &[OperationId] {
        &self.run[..self.run.len() - 1]
    }
}

impl Fold {
    /// Takes the operations of an ended call out of their lane, each to its own end.
    pub(super) fn end_run(&mut self, end: &End<'_>, marks: &mut Marks) -> Result<(), Broken> {
        let unborn = self.check_end(end, marks)?;
        if let Some(lane) = self.lanes.get_mut(end.lane) {
            lane.drain(..end.run.len());
            if lane.is_empty() {
                self.lanes.remove(end.lane);
            }
        }
        self.last_final.insert(end.lane.clone(), end.at);
        let ended = end.progress.state;
        for (place, id) in end.run.iter().enumerate() {
            let folded = end.states.folded.get(place);
            let overwritten = folded.is_some_and(|folded| folded.overwritten);
            let key = (*id, end.lane.1.clone());
            let op = self.ops.get_mut(&key).ok_or("what is open is known")?;
            let expected = self.expected.entry(end.lane.clone()).or_default();
            if op.skipped != (ended == State::SkippedByRule) {
                return Err(format!(
                    "R2 {id} ended as {ended:?}, skipped: {}",
                    op.skipped
                ));
            }
            match ended {
                State::SkippedByRule => {}
                State::Synced if self.mapped && *id == end.lead() => {
                    expected.take_body(op, self.bodies.get(&key));
                }
                State::Synced if self.mapped => {}
                State::Synced if unborn && *id != end.lead() => {}
                State::Synced => expected.deliver(op),
                State::Failed => expected.fail(op, end.progress.reason, end.unclear),
                State::Superseded => {}
                _ => return Err(format!("{id} ended as {ended:?}")),
            }
            let state = if overwritten {
                State::Superseded
            } else {
                ended
            };
            op.ended = Some((state, end.progress.reason));
            op.ended_with = Some((end.lead(), ended));
            op.superseded_by = overwritten.then_some(end.lead());
            op.next_twin();
            match state {
                State::Failed => {
                    if end.progress.reason == Some(Reason::Conflict) {
                        marks.hit(Mark::Undecided);
                    }
                    marks.hit(Mark::Failed);
                    self.dead.insert(key);
                }
                State::Superseded => marks.hit(Mark::Superseded),
                _ => {}
            }
        }
        Ok(())
    }

    /// All that came before it ends with the call, and as superseded if nothing of it is left.
    /// Answers whether a record was unmade before anything of it was sent.
    fn check_end(&self, end: &End<'_>, marks: &mut Marks) -> Result<bool, Broken> {
        let (account, lead, older) = (&end.lane.1, end.lead(), end.older());
        let told: Vec<OperationSeq> = end.states.folded.iter().map(|folded| folded.seq).collect();
        if !told.iter().copied().eq(older.iter().map(|id| id.seq)) {
            return Err(format!(
                "I5 {lead} at {account} ends {told:?} with it, before it come {}",
                names(older)
            ));
        }
        let unborn = self.check_barriers(account, end.run)?;
        if unborn {
            marks.hit(Mark::Unborn);
            self.check_unborn(end)?;
        } else if !older.is_empty() {
            marks.hit(Mark::Folded);
        }
        if end.run.len() >= MANY {
            marks.hit(Mark::FoldedMany);
        }
        let ops = self.ops_of(account, end.run);
        let empty = Map::new();
        let datas: Vec<&Map<String, Value>> = ops
            .iter()
            .map(|op| op.data.as_ref().unwrap_or(&empty))
            .collect();
        for (place, folded) in end.states.folded.iter().enumerate() {
            let (data, later) = (datas[place], &datas[place + 1..]);
            let may = unborn || patch::is_overwritten(data, later);
            let must = unborn || patch::is_replaced(data, later);
            if (folded.overwritten && !may) || (!folded.overwritten && must) {
                return Err(format!(
                    "I5 {} at {account} wrote {data:?}, then came {later:?}; overwritten: {}",
                    end.run[place], folded.overwritten
                ));
            }
            if folded.operation != ops[place].operation as u8 {
                return Err(format!("{} is told as {folded:?}", end.run[place]));
            }
        }
        Ok(unborn)
    }

    fn check_unborn(&self, end: &End<'_>) -> Result<(), Broken> {
        let (account, lead) = (&end.lane.1, end.lead());
        let ended = (end.progress.state, end.progress.reason);
        if ended != (State::Synced, Some(Reason::Absent)) {
            return Err(format!(
                "I5 {lead} at {account} deletes what never was and is {ended:?}"
            ));
        }
        let mut run = end.run.iter();
        match run.find(|id| self.sent.contains(&(**id, account.clone()))) {
            Some(sent) => Err(format!(
                "I5 {lead} at {account} unmakes {sent}, which was sent"
            )),
            None => Ok(()),
        }
    }

    /// What shares a call are changes without a time of their own. The one exception is told: a
    /// record that is made and deleted again.
    pub(in crate::sim) fn check_barriers(
        &self,
        account: &str,
        run: &[OperationId],
    ) -> Result<bool, Broken> {
        if run.len() < 2 {
            return Ok(false);
        }
        let ops = self.ops_of(account, run);
        let (lead, older) = ops.split_last().ok_or("a run is not empty")?;
        let unborn = lead.operation == Operation::Delete
            && !lead.scheduled
            && older
                .first()
                .is_some_and(|op| op.operation == Operation::Create);
        if !older.iter().all(|op| op.folds()) || !(unborn || lead.folds()) {
            let kinds: Vec<_> = ops.iter().map(|op| (op.operation, op.scheduled)).collect();
            let run = names(run);
            return Err(format!("I5 {run} share a call at {account}: {kinds:?}"));
        }
        // An event that a rule made a delete of still has its data, which nobody is sent.
        let said = if unborn { older } else { &ops[..] };
        let datas: Vec<_> = said.iter().filter_map(|op| op.data.as_ref()).collect();
        if !patch::composable(&datas) {
            return Err(format!(
                "I5 {} share a call at {account}, which no patch can say: {datas:?}",
                names(run)
            ));
        }
        Ok(unborn)
    }

    fn ops_of(&self, account: &str, run: &[OperationId]) -> Vec<&Op> {
        run.iter()
            .filter_map(|id| self.ops.get(&(*id, account.to_owned())))
            .collect()
    }
}

/// From so many operations on a call counts as one of many.
const MANY: usize = 8;
