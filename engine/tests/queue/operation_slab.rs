use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use proptest::test_runner::Config;
use syncline_engine::id::RecordHash;
use syncline_engine::operation_slab::{
    Flow, NewOperation, OPERATION_BYTES, OpClass, OpFlags, OpIndex, OpState, OperationSlab,
    Position, Priority, Target,
};

use crate::{cases, operation};

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_slab_holds_what_was_inserted_and_not_removed(
        steps in prop::collection::vec((any::<bool>(), any::<u16>()), 1..500),
    ) {
        let mut slab = OperationSlab::new();
        let mut model: Vec<(OpIndex, u32)> = Vec::new();
        for (number, (insert, pick)) in (0..).zip(steps) {
            if insert || model.is_empty() {
                let op = slab.insert(operation(number, pick % 7, 3, OpClass::Delete));
                prop_assert!(model.iter().all(|(other, _)| *other != op), "an index in use twice");
                model.push((op, number));
            } else {
                let (op, _) = model.swap_remove(usize::from(pick) % model.len());
                slab.remove(op);
                prop_assert!(!slab.contains(op));
            }
            prop_assert_eq!(slab.len(), model.len());
        }
        let held: BTreeMap<OpIndex, u32> =
            slab.iter().map(|(op, node)| (op, node.sequence_low())).collect();
        prop_assert_eq!(held, model.iter().copied().collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn an_operation_keeps_every_field_apart(
        position in 1..Position::LIMIT / 8,
        target: u16,
        sequence_low: u32,
        priority in 1..=10_u8,
        class in prop::sample::select(&OpClass::ALL[..]),
        flow in 0..Flow::COUNT as u16,
    ) {
        const STATES: [OpState; 8] = [
            OpState::Waiting,
            OpState::Ready,
            OpState::InFlight,
            OpState::Backoff,
            OpState::Scheduled,
            OpState::Paused,
            OpState::Aside,
            OpState::Dead,
        ];
        let new = NewOperation {
            position: Position::new(position * 8).unwrap(),
            target: Target(target),
            sequence_low,
            priority: Priority::new(priority).unwrap(),
            class,
            flow: Flow::new(flow).unwrap(),
        };
        let mut slab = OperationSlab::new();
        let op = slab.insert(new);
        let node = &mut slab[op];
        node.set_flags(OpFlags::REDRIVEN);
        for state in STATES {
            node.set_state(state);
            prop_assert_eq!(node.state(), state);
        }
        node.set_dead_record(RecordHash(u64::MAX));
        prop_assert_eq!(node.dead_record(), RecordHash(u64::MAX));
        node.set_position(Position::new(Position::LIMIT - 8).unwrap());
        prop_assert_eq!(node.position().offset(), Position::LIMIT - 8);
        node.set_position(new.position);

        prop_assert!(node.has(OpFlags::REDRIVEN) && !node.has(OpFlags::INTENT_LOGGED));
        prop_assert!(!node.has(OpFlags::ATTEMPTED));
        let read = NewOperation {
            position: node.position(),
            target: node.target(),
            sequence_low: node.sequence_low(),
            priority: node.priority(),
            class: node.class(),
            flow: node.flow(),
        };
        prop_assert_eq!(read, new);
    }
}

proptest! {
    #![proptest_config(Config { cases: 40, ..cases() })]

    /// A few chunks that fill and empty from either end.
    #[test]
    fn chunks_come_and_go_without_touching_what_is_held(
        steps in prop::collection::vec((0..3_u8, 1..3 * OperationSlab::CHUNK_OPERATIONS), 1..12),
    ) {
        const CHUNK_BYTES: usize = OperationSlab::CHUNK_OPERATIONS * OPERATION_BYTES;
        let mut slab = OperationSlab::new();
        let mut held: VecDeque<(OpIndex, u32)> = VecDeque::new();
        let mut numbers = 0..;
        for (step, count) in steps {
            if step == 0 || held.is_empty() {
                held.extend(numbers.by_ref().take(count).map(|number| {
                    (slab.insert(operation(number, 0, 5, OpClass::Update)), number)
                }));
            } else {
                let leave = count.min(held.len());
                let leaving = if step == 1 { 0..leave } else { held.len() - leave..held.len() };
                held.drain(leaving).for_each(|(op, _)| slab.remove(op));
            }
        }
        let found: BTreeMap<OpIndex, u32> =
            slab.iter().map(|(op, node)| (op, node.sequence_low())).collect();
        prop_assert_eq!(found, held.iter().copied().collect::<BTreeMap<_, _>>());
        held.into_iter().for_each(|(op, _)| slab.remove(op));
        prop_assert!(slab.memory_bytes() <= CHUNK_BYTES + 1024, "one spare chunk stays");
    }
}

#[test]
fn a_million_operations_take_32_bytes_each_and_give_them_back() {
    const COUNT: u32 = 1_000_000;
    const CHUNK_BYTES: usize = OperationSlab::CHUNK_OPERATIONS * OPERATION_BYTES;
    let mut slab = OperationSlab::new();
    let ops: Vec<OpIndex> = (0..COUNT)
        .map(|number| slab.insert(operation(number, 1, 5, OpClass::Update)))
        .collect();
    let exact = COUNT as usize * OPERATION_BYTES;
    let described = 64 * COUNT as usize / OperationSlab::CHUNK_OPERATIONS * 2;
    assert!(slab.memory_bytes() >= exact);
    assert!(slab.memory_bytes() <= exact + CHUNK_BYTES + described);

    // The oldest leave first, as a backlog does, while a few new ones come.
    for (number, op) in (COUNT..).zip(&ops[1_000..]) {
        slab.remove(*op);
        if number % 1_000 == 0 {
            slab.insert(operation(number, 1, 5, OpClass::Update));
        }
    }
    let left = slab.len() * OPERATION_BYTES;
    assert!(
        slab.memory_bytes() <= left + 2 * CHUNK_BYTES + described,
        "chunks are given back"
    );
}

#[test]
#[should_panic(expected = "removed twice")]
fn an_operation_is_removed_once() {
    let mut slab = OperationSlab::new();
    let op = slab.insert(operation(0, 0, 1, OpClass::Create));
    slab.remove(op);
    slab.remove(op);
}
