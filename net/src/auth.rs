//! Access tokens: asked for, kept, renewed ahead of their end and after a 401, once for all threads.
//!
//! One [`Refresher`] an account asks for tokens; nothing else does, so requests for tokens never
//! overlap. It shares a [`TokenCell`] with every thread that calls the account:
//!
//! 1. A call takes the token in the cell. There is none: it waits while one is asked for, and
//!    fails when the last answer was a failure.
//! 2. A call that gets a 401 tells the cell which token that was. The first to do so has it
//!    renewed; all of them wait for the next token.
//! 3. The refresher keeps a new token durably ([`TokenStore`]) before the cell hands it out.
//!
//! When to ask, and what a failure means, is decided in `renewal`, which is told the time.

mod cell;
mod grant;
mod kept_token;
mod refresher;
mod renewal;
mod seal;
mod signing_key;
mod token_reply;

pub use cell::{Clock, TokenCell, TokenStanding};
pub use grant::{Client, Grant};
pub use kept_token::{KeptToken, StoreError, TokenStore};
pub use refresher::{Refresher, TokenEndpoint, TokenEndpointError};
pub use renewal::RenewalRules;
pub use seal::{NONCE_BYTES, SEAL_KEY_BYTES, Seal};
pub use signing_key::{SigningKey, SigningKeyError};

pub(crate) use cell::AccessToken;
