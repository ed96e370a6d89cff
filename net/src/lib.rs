//! syncline net
