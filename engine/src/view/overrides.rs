//! Settings changed at run time, as the API tells of them. Values are the text of JSON.

use super::UnixMs;

/// A change that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideRequest {
    /// The account.
    pub provider: String,
    /// Of its mapping of this object, instead of the account.
    pub object: Option<String>,
    /// Settings by name with their values; `null` takes one back.
    pub set: Vec<(String, String)>,
    /// How long it holds, such as `10m`; `None`: until it is taken back.
    pub ttl: Option<String>,
}

/// What is in force, and what was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverridesView {
    /// In force.
    pub members: Vec<OverrideMember>,
    /// The newest first; of very many only the newest.
    pub audit: Vec<OverrideChange>,
}

/// A setting in force in the place of the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideMember {
    /// The account.
    pub provider: String,
    /// Of its mapping of this object.
    pub object: Option<String>,
    /// The setting.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Since when.
    pub at: UnixMs,
    /// Who changed it.
    pub by: String,
    /// When it ends by itself.
    pub until: Option<UnixMs>,
}

/// One change, remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverrideChange {
    /// When.
    pub at: UnixMs,
    /// Who.
    pub by: String,
    /// The account.
    pub provider: String,
    /// Of its mapping of this object.
    pub object: Option<String>,
    /// The setting.
    pub name: &'static str,
    /// What was in force of overrides before; `null`: the file's value.
    pub old: String,
    /// What is since; `null`: the file's value.
    pub new: String,
    /// When it was to end by itself.
    pub until: Option<UnixMs>,
}
