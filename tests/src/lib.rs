//! syncline tests
