//! `[[rules]]`: what becomes of an event before it is queued.

use serde::Deserialize;

/// One rule; the first whose condition holds decides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuleSettings {
    /// Only events for this account.
    pub provider: Option<String>,
    /// Only events of this object.
    pub object: Option<String>,
    /// CEL.
    pub when: Option<String>,
    /// What becomes of the event.
    pub action: Option<RuleAction>,
    /// The operation's priority from here on.
    pub priority: Option<u8>,
    /// Told to whoever asks why.
    pub reason: Option<String>,
    /// Shorthand: CREATE and UPSERT need these, UPDATE may not clear them.
    pub required_fields: Vec<String>,
    /// Shorthand: skip while one of these is true.
    pub disallow_if: Vec<String>,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "each is named after what it makes of the event"
)]
pub enum RuleAction {
    Sync,
    Skip,
    Create,
    Update,
    Upsert,
    Delete,
    Reject,
}
