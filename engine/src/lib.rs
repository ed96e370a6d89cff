//! syncline engine

pub mod event;
pub mod json;
pub mod refusal;
pub mod timestamp;
