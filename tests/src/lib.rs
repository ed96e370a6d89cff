//! syncline tests

pub mod process;
