//! syncline engine
pub mod refusal;
pub mod state;
pub mod timestamp;
pub mod view;
