//! syncline engine

pub mod provider;
