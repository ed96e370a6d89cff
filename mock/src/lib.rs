//! syncline mock
