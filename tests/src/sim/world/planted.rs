//! Requests as an engine with a planted bug would make them, replies as it would understand them.

use engine::event::Operation;
use engine::id::OperationId;
use engine::provider::{CallKind, Change, ChangeKind, Reply, Request};
use engine::quota::{AccountId, Gate, ShardId, ToShard};
use engine::time::Mono;
use serde_json::{Map, Value, json};

use super::World;
use crate::sim::fold::Op;
use crate::sim::mutants::Mutant;
use crate::sim::oracle::{Carried, is_batch, is_day_spent};
use crate::sim::patch::compose;
use crate::sim::sets::mapping::DELETION_MARK;

impl World {
    /// The request, with the planted bug if it is one of folding.
    pub(super) fn planted(&self, shard: usize, account: &str, mut request: Request) -> Request {
        let changed = match self.options.mutant {
            Some(Mutant::FoldAcrossDelete) => self.across_delete(shard, account, &request),
            Some(Mutant::LostFoldedField) => self.without_a_field(account, &request),
            Some(Mutant::ReversedFold) => self.reversed(account, &request),
            _ => None,
        };
        if self.options.mutant == Some(Mutant::MarkLeftStanding)
            && request.kind.writes_fields()
            && let Ok(mut body) = serde_json::from_slice::<Value>(&request.body)
        {
            let records = body.get_mut("records").and_then(Value::as_array_mut);
            for record in records.into_iter().flatten() {
                leave_standing(&mut record["fields"]);
            }
            leave_standing(&mut body);
            request.body = body.to_string().into();
        }
        if let Some((id, fields)) = changed {
            request.request_id = id.to_string();
            request.body = Value::Object(fields).to_string().into();
        }
        request
    }

    /// The operations of a call that writes fields, and the fields it writes.
    fn write(
        &self,
        account: &str,
        request: &Request,
    ) -> Option<(Vec<OperationId>, Map<String, Value>)> {
        if !request.kind.writes_fields() || is_batch(request) {
            return None;
        }
        let id: OperationId = request.request_id.parse().ok()?;
        let lane = (id.record, account.to_owned());
        let run = self.oracle.fold.run(&lane, id).ok()?;
        Some((run, serde_json::from_slice(&request.body).ok()?))
    }

    fn op(&self, id: OperationId, account: &str) -> Option<&Op> {
        self.oracle.fold.ops.get(&(id, account.to_owned()))
    }

    /// The change behind a waiting DELETE goes along.
    fn across_delete(
        &self,
        shard: usize,
        account: &str,
        request: &Request,
    ) -> Option<(OperationId, Map<String, Value>)> {
        let (run, mut fields) = self.write(account, request)?;
        let lane = (run[0].record, account.to_owned());
        let open = self.oracle.fold.lanes.get(&lane)?;
        let delete = self.op(*open.get(run.len())?, account)?;
        let id = *open.get(run.len() + 1)?;
        let behind = self.op(id, account)?;
        let durable = self.node.as_ref()?.shards[shard].journal.truly_durable();
        if delete.operation != Operation::Delete || !behind.folds() || behind.event_at >= durable {
            return None;
        }
        compose(&mut fields, behind.data.as_ref()?);
        Some((id, fields))
    }

    /// What only the oldest operation wrote is gone.
    fn without_a_field(
        &self,
        account: &str,
        request: &Request,
    ) -> Option<(OperationId, Map<String, Value>)> {
        let (run, mut fields) = self.write(account, request)?;
        let (lead, older) = run.split_last()?;
        let newest = self.op(*lead, account)?.data.as_ref()?;
        let oldest = self.op(*older.first()?, account)?.data.as_ref()?;
        let lost = oldest.keys().find(|name| !newest.contains_key(*name))?;
        fields.remove(lost);
        Some((*lead, fields))
    }

    /// The newest operation lies beneath the others.
    fn reversed(
        &self,
        account: &str,
        request: &Request,
    ) -> Option<(OperationId, Map<String, Value>)> {
        let (run, before) = self.write(account, request)?;
        let mut fields = Map::new();
        if request.kind == CallKind::Create {
            fields.insert("external_id".into(), before.get("external_id")?.clone());
        }
        for id in run.iter().rev() {
            compose(&mut fields, self.op(*id, account)?.data.as_ref()?);
        }
        (run.len() > 1).then_some((*run.last()?, fields))
    }
}

impl World {
    /// What the coordinator says, with the planted bug if it is one of leases or gates.
    pub(super) fn planted_words(&self, words: Vec<(ShardId, ToShard)>) -> Vec<(ShardId, ToShard)> {
        let Some(mutant) = self.options.mutant else {
            return words;
        };
        let shards = self.node.as_ref().map_or(0, |node| node.shards.len()) as u16;
        let accounts = self.options.accounts.len() as u32;
        let planted = words.into_iter().flat_map(|(to, mut word)| {
            let held = is_gate(&word, |gate| matches!(gate, Gate::Held { .. }));
            let probes = is_gate(&word, |gate| gate == Gate::Probe);
            match (mutant, &mut word) {
                (Mutant::GatesLost, _) if held => Vec::new(),
                (Mutant::NeverHalfOpen, _) if probes => Vec::new(),
                (Mutant::DoubledGrants, ToShard::Grant { .. })
                | (Mutant::DoubledSlots, ToShard::GrantSlots { .. }) => {
                    vec![(to, word.clone()), (to, word)]
                }
                (Mutant::LeaseSpentLate, ToShard::Grant { usable_until, .. }) => {
                    *usable_until = Mono(usable_until.0 + LONGER);
                    vec![(to, word)]
                }
                (Mutant::ProbesForAll, _) if probes => (0..shards)
                    .map(|shard| (ShardId(shard), word.clone()))
                    .collect(),
                (Mutant::HoldForAll, ToShard::Gate { gate, .. }) if !probes => {
                    let of = |account| ToShard::Gate {
                        account: AccountId(account),
                        gate: *gate,
                    };
                    (0..accounts).map(|account| (to, of(account))).collect()
                }
                _ => vec![(to, word)],
            }
        });
        planted.collect()
    }
}

/// Changes as an engine with a planted bug would take them in.
pub(super) fn planted_changes(mutant: Option<Mutant>, changes: &[Change]) -> Vec<Change> {
    let mut changes = changes.to_vec();
    if mutant == Some(Mutant::MergeUnheard) {
        changes.retain(|change| !matches!(change.kind, ChangeKind::Merged { .. }));
    }
    changes
}

/// Leaves out that a record is not deleted any more.
fn leave_standing(fields: &mut Value) {
    if let Some(fields) = fields.as_object_mut() {
        fields.retain(|name, value| name != DELETION_MARK || *value != Value::Bool(false));
    }
}

/// By how much a planted bug stretches leases, ns.
const LONGER: u64 = 30_000_000_000;

/// Whether a word tells of such a gate, of an account or of an endpoint.
fn is_gate(word: &ToShard, such: impl Fn(Gate) -> bool) -> bool {
    match word {
        ToShard::Gate { gate, .. } | ToShard::Endpoint { gate, .. } => such(*gate),
        _ => false,
    }
}

/// The reply to a batch, with the planted bug if it is one of reading it.
pub(super) fn planted_reply(
    mutant: Option<Mutant>,
    request: &Request,
    carried: &[Carried],
    mut reply: Reply,
) -> Reply {
    if is_day_spent(&reply) {
        match mutant {
            Some(Mutant::SpentTakenForFailure) => (reply.status, reply.retry_after) = (503, None),
            Some(Mutant::SpentTakenForRefusal) => reply.status = 400,
            _ => {}
        }
        return reply;
    }
    let body: Option<Value> = serde_json::from_slice(&reply.body).ok();
    if mutant == Some(Mutant::TwoLinks)
        && request.kind == CallKind::Read
        && let Some(Value::Object(mut record)) = body.clone()
    {
        record.remove("external_id");
        let rows = record.get_mut("results").and_then(Value::as_array_mut);
        for row in rows.into_iter().flatten() {
            row["record"]["external_id"] = Value::Null;
        }
        reply.body = Value::Object(record).to_string().into();
        return reply;
    }
    if mutant == Some(Mutant::MarkOverlooked)
        && request.kind == CallKind::Read
        && let Some(Value::Object(mut record)) = body.clone()
    {
        record.remove(DELETION_MARK);
        let rows = record.get_mut("results").and_then(Value::as_array_mut);
        for row in rows.into_iter().flatten() {
            let row = row["record"].as_object_mut();
            row.and_then(|row| row.remove(DELETION_MARK));
        }
        reply.body = Value::Object(record).to_string().into();
        return reply;
    }
    let Some(mut body) = body.filter(|_| is_batch(request)) else {
        return reply;
    };
    let row = |carried: &Carried, status: u16| json!({ "external_id": carried.record_id, "status": status });
    match mutant {
        Some(Mutant::UntoldTakenForDone) => {
            let Some(rows) = body["results"].as_array_mut() else {
                return reply;
            };
            for carried in carried {
                if !rows
                    .iter()
                    .any(|row| row["external_id"] == carried.record_id.as_str())
                {
                    rows.push(row(carried, 200));
                }
            }
        }
        Some(Mutant::ErrorTakenForDone) => {
            for row in body["results"].as_array_mut().into_iter().flatten() {
                row["status"] = 200.into();
            }
        }
        Some(Mutant::ResultsByPosition) => {
            let rows = body["results"].as_array_mut().into_iter().flatten();
            for (row, carried) in rows.zip(carried) {
                row["external_id"] = json!(carried.record_id);
            }
        }
        Some(Mutant::FailedNeighbours) if reply.status == 400 => {
            reply.status = 200;
            let rows: Vec<Value> = carried.iter().map(|carried| row(carried, 400)).collect();
            body = json!({ "results": rows });
        }
        _ => return reply,
    }
    reply.body = body.to_string().into();
    reply
}
