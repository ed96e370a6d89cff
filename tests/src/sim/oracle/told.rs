//! What providers told of operations, before the engine makes something of it.

use engine::provider::{Reply, Request};
use serde_json::Value;

use super::Oracle;
use super::outgoing::{Carried, is_batch};
use crate::sim::marks::{Mark, Marks};

impl Oracle {
    /// A provider answers a call.
    pub(in crate::sim) fn told(
        &mut self,
        carried: &[Carried],
        request: &Request,
        reply: &Reply,
        marks: &mut Marks,
    ) {
        let many = carried.len() > 1;
        if (400..500).contains(&reply.status) && many && !matches!(reply.status, 401 | 429) {
            marks.hit(Mark::BatchRefused);
        }
        let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
        if is_day_spent(reply) {
            marks.hit(Mark::DaySpent);
            let lanes = carried.iter().map(|carried| carried.lane.clone());
            return self.fold.spent.extend(lanes);
        }
        // What a failed read kept from being logged is called again, and told of by that.
        for carried in carried {
            self.fold.spent.remove(&carried.lane);
        }
        let rows = body.as_ref().and_then(|body| body["results"].as_array());
        for carried in carried {
            let own = rows.and_then(|rows| {
                let own = |row: &&Value| row["external_id"] == carried.record_id.as_str();
                rows.iter().find(own)?["status"].as_u64()
            });
            // Of a batch that was answered well only its rows tell; refused, it tells of a record
            // that was alone.
            let status = match (is_batch(request), reply.status) {
                (true, 200..300) => own,
                (true, _) if many => None,
                (false, 200) if body.is_none() => None,
                (_, status) => Some(u64::from(status)),
            };
            if status.is_none() && reply.status == 200 && many {
                marks.hit(Mark::RecordUntold);
            }
            let ops = carried.longest().iter();
            let keys = ops.map(|id| (*id, carried.lane.1.clone()));
            match status {
                Some(200..300) if request.kind.is_write() => self.told_done.extend(keys),
                Some(400..500) => self.told_refused.extend(keys),
                _ => {}
            }
        }
    }
}

/// Whether an account says that nothing goes before its next day.
pub(in crate::sim) fn is_day_spent(reply: &Reply) -> bool {
    let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
    let error = body.as_ref().and_then(|body| body["error"].as_str());
    reply.status == 429 && error.is_some_and(|error| error.contains("day's calls"))
}
