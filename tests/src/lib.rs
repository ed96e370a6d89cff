//! What no single crate can be tested for: the whole program under faults, in real processes and
//! in virtual time.

pub mod process;
pub mod sim;
