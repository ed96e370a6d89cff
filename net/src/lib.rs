//! syncline net

pub mod egress;
