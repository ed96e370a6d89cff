//! Two sides of one record: what changed where since they last agreed, and what each has to learn.
//!
//! Everything here is a pure function of three states: what both sides agreed on ([`Base`]), what
//! one side shows now ([`Sighting`]), and what the other side changed meanwhile ([`Pending`]).

mod base;
mod fields;
mod policy;
mod told;

pub use base::{Absorbed, Base, Conflict, Held, Pending, Sighting};
pub use fields::Fields;
pub use policy::{ConflictPolicy, Foreign, Rivals, Rule, Winner};
pub use told::{Heard, Said, Told, ToldBook};
