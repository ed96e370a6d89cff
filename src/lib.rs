//! Syncline.

pub mod settings;
