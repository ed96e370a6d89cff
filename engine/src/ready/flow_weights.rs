//! How many calls in a row each flow has when it is its turn.

use crate::operation_slab::Flow;

/// More than that between two flows is a priority, not a share; it also bounds how many calls go
/// before it is another flow's turn.
pub const WEIGHT_MAX: u32 = 100;

/// The weights of an account's flows. Those that are not named here have 1.
#[derive(Debug, Clone, Default)]
pub struct FlowWeights {
    /// By flow. There are as many as have been seen of those that the settings name.
    named: Vec<(Flow, u32)>,
}

impl FlowWeights {
    /// Each flow has as much as any other.
    pub fn equal() -> Self {
        Self::default()
    }

    /// A flow's weight, at least 1.
    pub fn of(&self, flow: Flow) -> u32 {
        let at = self.named.binary_search_by_key(&flow, |(known, _)| *known);
        at.map_or(1, |at| self.named[at].1)
    }

    /// Gives a flow a weight, between 1 and [`WEIGHT_MAX`].
    pub fn set(&mut self, flow: Flow, weight: u32) {
        let weight = weight.clamp(1, WEIGHT_MAX);
        match self.named.binary_search_by_key(&flow, |(known, _)| *known) {
            Ok(at) => self.named[at].1 = weight,
            Err(_) if weight == 1 => {}
            Err(at) => self.named.insert(at, (flow, weight)),
        }
    }
}
