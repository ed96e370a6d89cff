//! syncline engine
