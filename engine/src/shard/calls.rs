//! The calls that are open, by number.

use std::collections::HashMap;
use std::sync::Arc;

use super::CallId;
use super::item::Item;
use crate::operation_slab::{OpIndex, Target};
use crate::provider::BatchGroup;
use crate::quota::{Attempts, CostClass, Permit};
use crate::time::Mono;

/// A call between the decision to make it and its outcome.
#[derive(Debug)]
pub(super) struct OpenCall {
    /// The records it carries; none: it is a fetch.
    pub(super) items: Vec<Item>,
    /// What they share; `None`: a single record's own call.
    pub(super) group: Option<BatchGroup>,
    pub(super) target: Target,
    /// What pays for it, until it ends.
    pub(super) permit: Permit,
    pub(super) class: CostClass,
    /// What its records count for among the account's retries.
    pub(super) attempts: Attempts,
    /// Of a fetch: its endpoint.
    pub(super) endpoint: Option<Arc<str>>,
    /// Whether it is the probe of its endpoint.
    pub(super) probes: bool,
    /// Before its first byte left.
    pub(super) started: Mono,
}

/// Bounded by the slots that the coordinator grants.
#[derive(Debug, Default)]
pub(super) struct CallTable {
    open: HashMap<u64, OpenCall>,
    next: u64,
}

impl CallTable {
    pub(super) fn insert(&mut self, call: OpenCall) -> CallId {
        self.next += 1;
        self.open.insert(self.next, call);
        CallId(self.next)
    }

    pub(super) fn remove(&mut self, call: CallId) -> Option<OpenCall> {
        self.open.remove(&call.0)
    }

    pub(super) fn get(&self, call: CallId) -> Option<&OpenCall> {
        self.open.get(&call.0)
    }

    /// The open item whose record's lane begins with `front`.
    pub(super) fn item_of(&self, front: OpIndex) -> Option<&Item> {
        let mut items = self.open.values().flat_map(|call| &call.items);
        items.find(|item| item.op == front)
    }

    /// Records in open calls of an account.
    pub(super) fn records_of(&self, target: u16) -> u64 {
        let calls = self.open.values().filter(|call| call.target.0 == target);
        calls.map(|call| call.items.len() as u64).sum()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
