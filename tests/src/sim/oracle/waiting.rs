//! Who waits for a first attempt, as the logs say.

use engine::id::OperationId;
use engine::provider::Request;
use wal::Lsn;

use super::Oracle;

impl Oracle {
    /// How far a shard's log is durable.
    pub(in crate::sim) fn promised(&self, shard: usize) -> Lsn {
        self.promised[shard]
    }

    /// Where the log tells of the attempt before this call of one record, if there was one.
    pub(in crate::sim) fn attempted_at(&self, account: &str, request: &Request) -> Option<Lsn> {
        let id: OperationId = request.request_id.parse().ok()?;
        let lane = (id.record, account.to_owned());
        self.fold.pending.get(&lane)?.attempted_at
    }

    /// Whether an operation that nothing was sent of has been the oldest of its record since before
    /// that place in its shard's log.
    pub(in crate::sim) fn first_waits(
        &self,
        (shard, shards): (usize, usize),
        account: &str,
        since: Lsn,
    ) -> bool {
        let mut lanes = self.fold.lanes.iter();
        lanes.any(|(lane, open)| {
            let Some(front) = open.front().filter(|_| lane.1 == account) else {
                return false;
            };
            let key = (*front, lane.1.clone());
            let Some(op) = self.fold.ops.get(&key) else {
                return false;
            };
            let last_final = self.fold.last_final.get(lane);
            lane.0.vshard().owner(shards) == shard
                && op.event_at < since
                && last_final.is_none_or(|last| *last < since)
                && !op.scheduled
                && !op.observed
                && !op.repeated
                && !self.fold.sent.contains(&key)
                && !self.fold.pending.contains_key(lane)
                && !self.calls.contains_key(lane)
        })
    }
}
