//! syncline engine
pub mod quota;
pub mod time;
