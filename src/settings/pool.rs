//! `[pools.NAME]`: several accounts of one type behind one name.

use serde::Deserialize;

/// A pool: each record goes to one of its members, always the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// Accounts of `[providers]`, all of one type.
    pub members: Vec<String>,
}
