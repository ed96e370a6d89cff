//! What no single crate can be tested for: the whole engine under faults, in virtual time.

pub mod sim;
