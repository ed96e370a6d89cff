//! `[providers.NAME.rest]`: an account's own requests.

use serde::Deserialize;
use serde_json::Value;

use super::CallKind;

/// What an account changes of its definition's requests; every key left out keeps the definition's.
///
/// ```toml
/// [providers.crm.rest]
/// create = "POST /v2/{object}"
/// create_body = { key = "{record_id}", properties = { "$fields" = true } }
/// id_at = "/data/id"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestSettings {
    /// The version of the provider's API, where the definition has several.
    pub api_version: Option<String>,
    /// `METHOD /path` of a create.
    pub create: Option<String>,
    /// `METHOD /path` of an upsert by key.
    pub upsert: Option<String>,
    /// `METHOD /path` of an update.
    pub update: Option<String>,
    /// `METHOD /path` of a delete.
    pub delete: Option<String>,
    /// `METHOD /path` of a read.
    pub read: Option<String>,
    /// `METHOD /path` of a look-up.
    pub lookup: Option<String>,
    /// `METHOD /path` of a match.
    #[serde(rename = "match")]
    pub matching: Option<String>,
    /// `METHOD /path` of a batch, for a definition that has one.
    pub batch: Option<String>,
    /// JSON pointer to the remote id in the reply to a create or upsert.
    pub id_at: Option<String>,
    /// JSON pointer to the remote id in the reply to a look-up or match; an empty array on the way is "absent".
    pub found_at: Option<String>,
    /// Body template of a create.
    pub create_body: Option<Value>,
    /// Body template of an upsert by key.
    pub upsert_body: Option<Value>,
    /// Body template of an update.
    pub update_body: Option<Value>,
    /// Body template of a delete.
    pub delete_body: Option<Value>,
    /// Body template of a read.
    pub read_body: Option<Value>,
    /// Body template of a look-up.
    pub lookup_body: Option<Value>,
    /// Body template of a match.
    pub match_body: Option<Value>,
    /// Body template of a batch, its records under `$each`.
    pub batch_body: Option<Value>,
}

impl RestSettings {
    pub(crate) fn request(&self, kind: CallKind) -> Option<&str> {
        match kind {
            CallKind::Create => self.create.as_deref(),
            CallKind::Upsert => self.upsert.as_deref(),
            CallKind::Update => self.update.as_deref(),
            CallKind::Delete => self.delete.as_deref(),
            CallKind::Read => self.read.as_deref(),
            CallKind::Lookup => self.lookup.as_deref(),
            CallKind::Match => self.matching.as_deref(),
        }
    }

    pub(crate) fn body(&self, kind: CallKind) -> Option<&Value> {
        match kind {
            CallKind::Create => self.create_body.as_ref(),
            CallKind::Upsert => self.upsert_body.as_ref(),
            CallKind::Update => self.update_body.as_ref(),
            CallKind::Delete => self.delete_body.as_ref(),
            CallKind::Read => self.read_body.as_ref(),
            CallKind::Lookup => self.lookup_body.as_ref(),
            CallKind::Match => self.match_body.as_ref(),
        }
    }

    /// The pointer that applies to this kind, with its key.
    pub(crate) fn id(&self, kind: CallKind) -> Option<(&'static str, &str)> {
        match kind {
            CallKind::Create | CallKind::Upsert => {
                self.id_at.as_deref().map(|id_at| ("id_at", id_at))
            }
            CallKind::Lookup | CallKind::Match => self
                .found_at
                .as_deref()
                .map(|found_at| ("found_at", found_at)),
            CallKind::Update | CallKind::Delete | CallKind::Read => None,
        }
    }
}
