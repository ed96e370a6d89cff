//! syncline engine

pub mod dedup;
pub mod lane;
pub mod operation_slab;
pub mod ready;
pub mod record_table;
pub mod timer;
