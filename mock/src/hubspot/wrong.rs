//! What HubSpot says when something is wrong.

use serde_json::{Value, json};

use crate::exchange::Reply;

/// An error of a request or of one input; nothing was written for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) status: u16,
    category: &'static str,
    message: String,
}

/// HubSpot names each error; here they all have one name, so that a seed gives the same bytes.
pub(super) const CORRELATION: &str = "8a4e6f30-0000-4000-8000-000000000000";

impl Wrong {
    pub(super) fn new(status: u16, category: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            category,
            message: message.into(),
        }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "VALIDATION_ERROR", message)
    }

    /// A property that cannot have this value.
    pub(super) fn property(name: &str, code: &str, message: &str) -> Self {
        let detail = json!([{
            "isValid": false,
            "message": message,
            "error": code,
            "name": name,
        }]);
        Self::invalid(format!("Property values were not valid: {detail}"))
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "OBJECT_NOT_FOUND", "resource not found")
    }

    pub(super) fn into_reply(self) -> Reply {
        let body = json!({
            "status": "error",
            "message": self.message,
            "correlationId": CORRELATION,
            "category": self.category,
        });
        Reply::json(self.status, &body)
    }

    /// The error among those of a batch.
    pub(super) fn in_batch(&self, context: Value) -> Value {
        json!({
            "status": "error",
            "category": self.category,
            "message": self.message,
            "context": context,
        })
    }
}
