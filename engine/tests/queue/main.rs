//! The structures that hold a shard's backlog, each beside a naive model.

mod dedup;
mod lanes;
mod operation_slab;
mod ready_queue;
mod record_table;
mod timer;

use proptest::test_runner::Config;
use syncline_engine::operation_slab::{Flow, NewOperation, OpClass, Position, Priority, Target};

/// Proptest cases a structure: each is a few hundred steps.
fn cases() -> Config {
    Config {
        cases: 200,
        failure_persistence: None,
        ..Config::default()
    }
}

fn operation(number: u32, target: u16, priority: u8, class: OpClass) -> NewOperation {
    NewOperation {
        position: Position::new(8 + 8 * u64::from(number)).expect("a multiple of 8"),
        target: Target(target),
        sequence_low: number,
        priority: Priority::new(priority).expect("from 1 to 10"),
        class,
        flow: Flow::UNREAD,
    }
}

/// SplitMix64: as good as a keyed hash to place records, and the same in every run.
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
