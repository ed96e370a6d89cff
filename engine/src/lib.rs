//! syncline engine

pub mod lane;
pub mod operation_slab;
pub mod ready;
pub mod record_table;
