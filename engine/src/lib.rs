//! syncline engine

pub mod event;
pub mod json;
pub mod mapping;
pub mod provider;
pub mod refusal;
pub mod state;
pub mod timestamp;
pub mod view;
