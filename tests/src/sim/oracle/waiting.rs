//! First attempts and retries, as the logs tell them apart.

use engine::id::OperationId;
use engine::provider::Request;
use wal::Lsn;

use super::Oracle;
use crate::sim::fold::LaneKey;

impl Oracle {
    /// How far a shard's log is durable.
    pub(in crate::sim) fn promised(&self, shard: usize) -> Lsn {
        self.promised[shard]
    }

    /// Whether the log tells of an attempt before this call of one record.
    pub(in crate::sim) fn was_attempted(&self, account: &str, request: &Request) -> bool {
        let id: Option<OperationId> = request.request_id.parse().ok();
        let lane = id.map(|id| (id.record, account.to_owned()));
        let pending = lane.and_then(|lane| self.fold.pending.get(&lane));
        pending.is_some_and(|pending| pending.attempted)
    }

    /// Whether the log tells of an attempt at something that is open.
    pub(in crate::sim) fn has_retries(&self, at: (usize, usize), account: &str) -> bool {
        let mut pending = self.fold.pending.iter();
        pending.any(|(lane, pending)| pending.attempted && is_of(lane, at, account))
    }

    /// Objects and keys of records of which an operation that nothing was sent of has been the
    /// oldest since before that place in its shard's log.
    pub(in crate::sim) fn firsts(
        &self,
        at: (usize, usize),
        account: &str,
        before: Lsn,
    ) -> Vec<(&str, &str)> {
        let lanes = self.fold.lanes.iter();
        let lanes = lanes.filter(|(lane, _)| is_of(lane, at, account));
        let firsts = lanes.filter_map(|(lane, open)| {
            let key = (*open.front()?, lane.1.clone());
            let op = self.fold.ops.get(&key)?;
            let last_final = self.fold.last_final.get(lane);
            let waits = op.event_at < before
                && last_final.is_none_or(|last| *last < before)
                && !op.scheduled
                && !op.observed
                && !op.repeated
                && !self.fold.sent.contains(&key)
                && !self.fold.pending.contains_key(lane)
                && !self.calls.contains_key(lane);
            waits.then_some((op.object.as_str(), op.record_id.as_str()))
        });
        firsts.collect()
    }
}

/// Whether a record is a shard's of so many, and at that account.
fn is_of(lane: &LaneKey, (shard, shards): (usize, usize), account: &str) -> bool {
    lane.1 == account && lane.0.vshard().owner(shards) == shard
}
