//! Filling a call: as many ready records as the provider's batch takes, none of them waiting for
//! company that is not there.

use std::sync::Arc;

use super::dispatch::{fields, members, subject};
use super::item::Item;
use super::prepare::{Payload, Prepared};
use super::{AccountPlan, Shard};
use crate::journal::Journal;
use crate::operation_slab::{OpIndex, OpState};
use crate::provider::{BatchGroup, BatchItem, Field, RenderError, Request};
use crate::quota::Gate;
use crate::time::Now;

/// Records looked at and put back for one call, because they go into another one, at most.
const ASIDE_MAX: usize = 256;

/// One in so many records is the oldest that is ready, whatever its priority: the worst priority
/// waits at most so many times as long as it would in a plain queue.
const AGEING: u32 = 8;

/// A record with what is sent of it.
pub(super) type Sendable = (Item, Payload);

/// The records of one call.
#[derive(Debug)]
pub(super) struct Gathered {
    /// What they share; `None`: a single record's own call.
    pub(super) group: Option<BatchGroup>,
    /// At least one.
    pub(super) records: Vec<Sendable>,
    /// More of them fit and none was ready.
    pub(super) starved: bool,
}

impl<T> Shard<T> {
    /// Takes the records of the account's next call. `left` counts down what the turn may look at;
    /// a call is filled even beyond it. `None`: nothing is ready.
    pub(super) fn gather(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        at: usize,
        left: &mut usize,
    ) -> Option<Gathered> {
        let plan = self.accounts[at].plan.clone()?;
        let mut suspects = self.accounts[at].suspects.pop_front().map(Vec::into_iter);
        let mut call: Option<Gathered> = None;
        let (mut items_max, mut bytes_left) = (1, 0);
        let mut aside: Vec<OpIndex> = Vec::new();
        while aside.len() < ASIDE_MAX && !self.fenced {
            let next = match &mut suspects {
                Some(suspects) => suspects.next(),
                None => self.next_ready(at),
            };
            let Some(op) = next else {
                if let Some(call) = &mut call {
                    call.starved = true;
                }
                break;
            };
            self.index.slab[op].set_state(OpState::Waiting);
            *left = left.saturating_sub(1);
            let (item, payload) = match self.prepare(now, journal, op) {
                Prepared::Item(item, payload) => (item, payload),
                // A queue of operations that all end without a call must not hold up the turn.
                Prepared::Settled if *left == 0 && call.is_none() => break,
                Prepared::Settled => continue,
                Prepared::Later => break,
            };
            let kind = item.kind.expect("a prepared item has its call");
            let group = plan.definition.batch_group(kind, &payload.object);
            let bytes = payload.fields.len() + item.record_id().len() + ITEM_OVERHEAD;
            match &mut call {
                None => {
                    if let Some(group) = group {
                        items_max = plan.definition.batch_items_max(group);
                        bytes_left = plan.definition.batch_bytes_max(group);
                        let account = &mut self.accounts[at];
                        account.records_per_call = account.records_per_call.max(items_max);
                        if account.gate == Gate::Probe {
                            items_max = 1;
                        }
                    }
                    bytes_left = bytes_left.saturating_sub(bytes);
                    call = Some(Gathered {
                        group,
                        records: vec![(*item, payload)],
                        starved: false,
                    });
                }
                Some(call) if call.group == group && bytes <= bytes_left => {
                    bytes_left -= bytes;
                    call.records.push((*item, payload));
                }
                Some(_) => {
                    aside.push(op);
                    continue;
                }
            }
            if call
                .as_ref()
                .is_some_and(|call| call.records.len() >= items_max)
            {
                break;
            }
        }
        // Halves of a refused call keep together; what is not sent with them is ready again.
        for op in suspects.into_iter().flatten() {
            self.index.slab[op].set_state(OpState::Waiting);
            aside.push(op);
        }
        for op in aside.into_iter().rev() {
            self.index.put_back(op);
        }
        call
    }

    /// The account's next operation: by priority, class and age, retries within their budget, and
    /// every so often the oldest of all, so that low priorities move too.
    fn next_ready(&mut self, at: usize) -> Option<OpIndex> {
        let (queue, slab) = (&mut self.index.accounts[at], &mut self.index.slab);
        let account = &mut self.accounts[at];
        let firsts_wait = !queue.ready.is_empty();
        let retry = !queue.retries.is_empty() && account.retry_budget.allows_retry(firsts_wait);
        if retry {
            account.retry_budget.on_retry(firsts_wait);
        } else if firsts_wait {
            account.retry_budget.on_first_attempt();
        }
        let from = if retry {
            &mut queue.retries
        } else {
            &mut queue.ready
        };
        account.taken = account.taken.wrapping_add(1);
        if account.taken.is_multiple_of(AGEING) {
            from.pop_oldest(slab)
        } else {
            from.pop(slab)
        }
    }

    /// The one request for all records. Those that cannot go with the others are put back, or end.
    pub(super) fn render_batch(
        &mut self,
        now: Now,
        journal: &mut impl Journal,
        plan: &Arc<AccountPlan>,
        group: BatchGroup,
        mut records: Vec<Sendable>,
    ) -> Option<(Vec<Item>, Request)> {
        loop {
            match rendered(plan, group, &records) {
                Ok(mut request) => {
                    let items: Vec<Item> = records.into_iter().map(|(item, _)| item).collect();
                    request.request_id = items[0].id().to_string();
                    request.idempotency_key = Some(content_key(&items, &request));
                    return Some((items, request));
                }
                Err(RenderError::Item { index, source }) if index < records.len() => {
                    let (item, _) = records.remove(index);
                    if *source == RenderError::RepeatedKey {
                        // Two records that the provider takes for one: never in the same call.
                        self.index.put_back(item.op);
                    } else {
                        self.unsendable(now, journal, &plan.name, item, source.to_string());
                    }
                }
                Err(RenderError::BatchTooLarge { .. }) if records.len() > 1 => {
                    for (item, _) in records.drain(records.len() / 2..).rev() {
                        self.index.put_back(item.op);
                    }
                }
                Err(error) => {
                    for (item, _) in records.drain(..) {
                        self.unsendable(now, journal, &plan.name, item, error.to_string());
                    }
                }
            }
            if records.is_empty() || self.fenced {
                return None;
            }
        }
    }

    /// A call was refused for what some record in it holds: each half goes again on its own, so
    /// that the one record is found and its neighbours arrive.
    pub(super) fn halve(&mut self, at: usize, items: &[Item]) {
        let (first, second) = items.split_at(items.len() / 2);
        let suspects = &mut self.accounts[at].suspects;
        for half in [second, first] {
            if !half.is_empty() {
                suspects.push_front(half.iter().map(|item| item.op).collect());
            }
        }
    }

    /// Halves of refused calls that no call takes any more are ready like others.
    pub(super) fn release_suspects(&mut self, at: usize) {
        for op in std::mem::take(&mut self.accounts[at].suspects)
            .into_iter()
            .flatten()
        {
            self.index.slab[op].set_state(OpState::Waiting);
            self.index.put_back(op);
        }
    }
}

/// What a record adds to a batch beside its fields and key, about.
const ITEM_OVERHEAD: usize = 128;

fn rendered(
    plan: &AccountPlan,
    group: BatchGroup,
    records: &[Sendable],
) -> Result<Request, RenderError> {
    let members: Vec<_> = records
        .iter()
        .map(|(_, payload)| members(&payload.fields))
        .collect();
    let fields: Vec<Vec<Field<'_>>> = members.iter().map(|members| fields(members)).collect();
    let items: Vec<BatchItem<'_>> = records
        .iter()
        .zip(&fields)
        .map(|((item, payload), fields)| BatchItem {
            kind: item.kind.expect("a prepared item has its call"),
            subject: subject(item, &plan.name, payload, fields),
        })
        .collect();
    plan.definition.render_batch(group, &items)
}

/// A key for exactly this content: the same operations in the same request. Equal bytes that a later
/// operation asks for are another change, and must not be taken for a repeat.
fn content_key(items: &[Item], request: &Request) -> String {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(&request.digest().0.to_le_bytes());
    for item in items {
        hash.update(&item.record.0.to_le_bytes());
        hash.update(&item.lead.seq.0.to_le_bytes());
    }
    format!("batch-{:032x}", hash.digest128())
}
