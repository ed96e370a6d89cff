//! What calls carried, in the names of their accounts.

use engine::id::OperationId;
use serde_json::{Map, Value};

use super::{Fold, LaneKey};
use crate::sim::two_way::leaves::leaves;

/// The fields of a call.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Body {
    pub(super) fields: Map<String, Value>,
    /// An earlier call wrote places that the newest does not, by other mappings: whether they are
    /// there nobody knows.
    pub(super) left_over: bool,
}

impl Fold {
    /// A call leaves for these operations.
    pub(in crate::sim) fn note_body(
        &mut self,
        lane: &LaneKey,
        run: &[OperationId],
        fields: &Map<String, Value>,
    ) {
        let Some(lead) = run.last().filter(|_| self.mapped) else {
            return;
        };
        let places = leaves(fields);
        let mut left_over = false;
        for id in run {
            if let Some(before) = self.bodies.get(&(*id, lane.1.clone())) {
                let mut written = leaves(&before.fields).into_keys();
                left_over |= before.left_over || written.any(|place| !places.contains_key(&place));
            }
        }
        let body = Body {
            fields: fields.clone(),
            left_over,
        };
        self.bodies.insert((*lead, lane.1.clone()), body);
    }
}
