//! What a Salesforce org says when something is wrong.

use serde_json::{Value, json};

use crate::exchange::Reply;

/// An error of a request or of one row; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    /// Of the reply when the request is about one record.
    status: u16,
    code: &'static str,
    message: String,
    fields: Vec<String>,
}

impl Wrong {
    /// A request that cannot be carried out.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            code,
            message: message.into(),
            fields: Vec::new(),
        }
    }

    /// The same with a status of its own.
    pub(super) fn of_status(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            ..Self::new(code, message)
        }
    }

    /// Something that is not there.
    pub(super) fn absent(code: &'static str, message: impl Into<String>) -> Self {
        Self::of_status(404, code, message)
    }

    /// The record or path does not exist.
    pub(super) fn not_found() -> Self {
        Self::absent("NOT_FOUND", "The requested resource does not exist")
    }

    /// The record was deleted.
    pub(super) fn deleted() -> Self {
        Self::absent("ENTITY_IS_DELETED", "entity is deleted")
    }

    /// The same error, about these fields.
    pub(super) fn about(self, fields: &[&str]) -> Self {
        Self {
            fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            ..self
        }
    }

    /// A reply of which it is all.
    pub(super) fn into_reply(self) -> Reply {
        Reply::json(self.status, &Value::Array(vec![self.as_request_error()]))
    }

    /// A row among the results of a collection, where the code has another name.
    pub(super) fn as_row(&self) -> Value {
        json!({
            "success": false,
            "errors": [{
                "statusCode": self.code,
                "message": self.message,
                "fields": self.fields,
            }],
        })
    }

    fn as_request_error(&self) -> Value {
        let mut error = json!({ "message": self.message, "errorCode": self.code });
        if !self.fields.is_empty() {
            error["fields"] = json!(self.fields);
        }
        error
    }
}
