//! What an account sends when a record changed, signed as it should be or not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use super::side::Place;

/// What both ends know.
pub(in crate::sim) const SECRET: &str = "a secret of the account and the node";

/// Word of a change, until it is taken or lost.
#[derive(Debug, Clone)]
pub(in crate::sim) struct Notice {
    /// The account's place among the accounts.
    pub(in crate::sim) account: usize,
    pub(in crate::sim) place: Place,
    pub(in crate::sim) deleted: bool,
    /// The record that it is part of since.
    pub(in crate::sim) into: Option<String>,
    /// Names it, on each attempt the same.
    pub(in crate::sim) id: String,
    /// By somebody who has no secret.
    pub(in crate::sim) forged: bool,
    /// In which life of the engine it was acknowledged, though it is not logged.
    pub(in crate::sim) acknowledged: Option<u64>,
}

impl Notice {
    pub(in crate::sim) fn body(&self) -> Vec<u8> {
        let kind = match (self.deleted, &self.into) {
            (false, _) => "changed",
            (true, None) => "deleted",
            (true, Some(_)) => "merged",
        };
        let (object, id) = &self.place;
        let body = json!({ "object": object, "id": id, "kind": kind, "into": self.into });
        body.to_string().into_bytes()
    }

    /// The headers of an attempt at this time of the sender's clock.
    pub(in crate::sim) fn headers(&self, sent_ms: i64, body: &[u8]) -> Vec<(String, String)> {
        let sent = (sent_ms / 1000).to_string();
        let secret = if self.forged { "guessed" } else { SECRET };
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{}.{sent}.", self.id).as_bytes());
        context.update(body);
        let signature = format!("v1,{}", STANDARD.encode(context.sign().as_ref()));
        [
            ("webhook-id", self.id.clone()),
            ("webhook-timestamp", sent),
            ("webhook-signature", signature),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
