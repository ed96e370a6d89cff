//! What is kept of a token across restarts.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A token as it was granted; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptToken {
    /// Of the grant it was granted for.
    pub grant: String,
    /// The token.
    pub access_token: String,
    /// What the next one is had for, where the grant is one of refresh tokens.
    pub refresh_token: Option<String>,
    /// When it was asked for, Unix time in ms.
    pub asked_at_ms: i64,
    /// From then on, as the reply said.
    pub lifetime_s: Option<u64>,
}

/// Where one account's token is kept. Called on the refresher's thread, which may block.
pub trait TokenStore: Send + fmt::Debug {
    /// The last token kept.
    ///
    /// # Errors
    /// It cannot be read; it is still there.
    fn load(&mut self) -> Result<Option<KeptToken>, StoreError>;

    /// Keeps `token` in place of the last, durably: when this returns, a crash does not lose it.
    ///
    /// # Errors
    /// The last one is still there.
    fn keep(&mut self, token: &KeptToken) -> Result<(), StoreError>;
}

/// Why a store failed, in its own words; they name no secret.
pub type StoreError = Box<dyn Error + Send + Sync>;

impl fmt::Debug for KeptToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptToken")
            .field("asked_at_ms", &self.asked_at_ms)
            .field("lifetime_s", &self.lifetime_s)
            .finish_non_exhaustive()
    }
}
