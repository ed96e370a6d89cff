//! What Outreach says when something is wrong.

use serde_json::json;

use crate::exchange::Reply;

/// An error of a request; nothing was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    status: u16,
    id: &'static str,
    detail: String,
    pointer: Option<String>,
}

impl Wrong {
    pub(super) fn new(status: u16, id: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            id,
            detail: detail.into(),
            pointer: None,
        }
    }

    /// A value of the document that is not taken.
    pub(super) fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            ..Self::new(422, "validationError", detail)
        }
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "resourceNotFound", "The resource could not be found")
    }

    pub(super) fn into_reply(self) -> Reply {
        // `rateLimitExceeded` is titled "Rate limit exceeded".
        let mut title = String::new();
        for (at, c) in self.id.char_indices() {
            match c {
                c if at == 0 => title.extend(c.to_uppercase()),
                c if c.is_uppercase() => {
                    title.push(' ');
                    title.extend(c.to_lowercase());
                }
                c => title.push(c),
            }
        }
        let mut error = json!({ "id": self.id, "title": title, "detail": self.detail });
        if let Some(pointer) = self.pointer {
            error["source"] = json!({ "pointer": pointer });
        }
        Reply::json(self.status, &json!({ "errors": [error] }))
    }
}
