//! How the objects and tenants of an account share its calls.

use std::collections::HashMap;

use super::Shard;
use crate::event::Event;
use crate::operation_slab::{Flow, OpIndex};

/// What an account's settings say of shares. Who is not named has 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Weights {
    /// By System A's name of an object.
    pub objects: HashMap<String, u32>,
    /// By an event's `tenant`.
    pub tenants: HashMap<String, u32>,
}

impl Weights {
    /// Nobody is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.tenants.is_empty()
    }

    /// The weight of an object's records of one tenant.
    #[must_use]
    pub fn of(&self, object: &str, tenant: Option<&str>) -> u32 {
        let object = self.objects.get(object).copied().unwrap_or(1);
        let tenant = tenant.and_then(|tenant| self.tenants.get(tenant));
        object.saturating_mul(tenant.copied().unwrap_or(1))
    }
}

impl<T> Shard<T> {
    pub(super) fn flow_of(&self, event: &Event<'_>) -> Flow {
        let key = self.settings.hash_key;
        Flow::of_hash(key.flow(&event.object, event.tenant.as_deref()))
    }

    /// Takes in what an operation's event, which was just read, says of its flow. The operation is in
    /// no queue.
    pub(super) fn note_flow(&mut self, at: usize, op: OpIndex, event: &Event<'_>) {
        if self.index.slab[op].flow() == Flow::UNREAD {
            let flow = self.flow_of(event);
            self.index.slab[op].set_flow(flow);
        }
        let plan = self.accounts[at].plan.as_ref();
        if let Some(plan) = plan.filter(|plan| !plan.weights.is_empty()) {
            let weight = plan.weights.of(&event.object, event.tenant.as_deref());
            let flow = self.index.slab[op].flow();
            self.index.accounts[at].weights.set(flow, weight);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_that_of_the_object_times_that_of_the_tenant() {
        let weights = Weights {
            objects: [("deal".to_owned(), 3)].into(),
            tenants: [("acme".to_owned(), 5)].into(),
        };
        assert_eq!(weights.of("deal", Some("acme")), 15);
        assert_eq!(weights.of("deal", None), 3);
        assert_eq!(weights.of("contact", Some("acme")), 5);
        assert_eq!(weights.of("contact", Some("other")), 1);
    }
}
