//! What a provider should hold of a record.

use engine::event::Operation;
use engine::state::Reason;
use serde_json::{Map, Value};

use super::Op;
use super::bodies::Body;
use crate::sim::merge::merge_patch;
use crate::sim::patch::compose;

/// What a provider should hold of a record.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Expected {
    pub(in crate::sim) object: String,
    pub(in crate::sim) record_id: String,
    /// `None`: there is no record.
    pub(in crate::sim) fields: Option<Map<String, Value>>,
    /// Fields of failed operations since the last that arrived.
    pub(in crate::sim) undelivered: Map<String, Value>,
    /// An operation failed in a way that leaves open whether it arrived.
    pub(in crate::sim) in_doubt: bool,
}

impl Expected {
    /// It took an operation.
    pub(super) fn deliver(&mut self, op: &Op) {
        let empty = Map::new();
        let data = op.data.as_ref().unwrap_or(&empty);
        match op.operation {
            Operation::Read | Operation::Pull => return,
            Operation::Delete => self.fields = None,
            Operation::Update if self.fields.is_none() => {
                let mut fields = Map::new();
                merge_patch(&mut fields, &self.undelivered);
                merge_patch(&mut fields, data);
                self.fields = Some(fields);
            }
            Operation::Create | Operation::Update | Operation::Upsert => {
                merge_patch(self.fields.get_or_insert_default(), data);
            }
        }
        self.undelivered = Map::new();
    }

    /// It took a call of these fields, in its own names.
    pub(super) fn take_body(&mut self, op: &Op, body: Option<&Body>) {
        match op.operation {
            Operation::Read | Operation::Pull => return,
            Operation::Delete => self.fields = None,
            Operation::Create | Operation::Update | Operation::Upsert => {
                if let Some(body) = body {
                    merge_patch(self.fields.get_or_insert_default(), &body.fields);
                    self.in_doubt |= body.left_over;
                }
            }
        }
        self.undelivered = Map::new();
    }

    /// An operation failed; `unclear`: some attempt may have arrived without our knowing.
    pub(super) fn fail(&mut self, op: &Op, reason: Option<Reason>, unclear: bool) {
        let refused = matches!(
            reason,
            Some(Reason::Permanent | Reason::RecordDeleted | Reason::NotFound | Reason::Mapping)
        );
        self.in_doubt |= (!refused || unclear) && op.operation != Operation::Read;
        if op.operation != Operation::Delete
            && let Some(data) = &op.data
        {
            compose(&mut self.undelivered, data);
        }
    }
}
