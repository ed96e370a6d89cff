//! syncline engine
pub mod event;
pub mod refusal;
pub mod state;
pub mod timestamp;
pub mod view;
