use std::collections::BTreeMap;

use proptest::prelude::*;
use syncline_engine::operation_slab::{OpClass, OpIndex, OpState, OperationSlab, Priority};
use syncline_engine::ready::{OpList, ReadyQueue};

use crate::{cases, operation};

#[derive(Clone, Debug)]
enum Step {
    Push { priority: u8, class: OpClass },
    Pop,
    Remove(usize),
    Raise(usize, u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = || prop::sample::select(&OpClass::ALL[..]);
    let step = prop_oneof![
        4 => (1..=10_u8, class()).prop_map(|(priority, class)| Step::Push { priority, class }),
        2 => Just(Step::Pop),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (any::<usize>(), 1..=10_u8).prop_map(|(at, priority)| Step::Raise(at, priority)),
    ];
    prop::collection::vec(step, 1..300)
}

/// By priority, class and arrival.
type Model = BTreeMap<(Priority, OpClass, u32), OpIndex>;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn operations_leave_by_priority_then_class_then_arrival(steps in steps()) {
        let mut slab = OperationSlab::new();
        let mut queue = ReadyQueue::new();
        let mut model = Model::new();
        for (arrival, step) in (0..).zip(steps) {
            match step {
                Step::Push { priority, class } => {
                    // Its lane's best priority counts, not its own.
                    let op = slab.insert(operation(arrival, 0, 10, class));
                    let priority = Priority::new(priority).unwrap();
                    queue.push(&mut slab, op, priority);
                    model.insert((priority, class, arrival), op);
                }
                Step::Pop => {
                    let expected = model.pop_first().map(|(_, op)| op);
                    prop_assert_eq!(queue.peek(), expected);
                    prop_assert_eq!(queue.pop(&mut slab), expected);
                }
                Step::Remove(at) => {
                    if let Some(key) = pick(&model, at) {
                        queue.remove(&mut slab, model.remove(&key).expect("picked"));
                    }
                }
                Step::Raise(at, priority) => {
                    let priority = Priority::new(priority).unwrap();
                    if let Some(key) = pick(&model, at) {
                        let op = model.remove(&key).expect("picked");
                        queue.raise(&mut slab, op, priority);
                        model.insert((priority, key.1, arrival), op);
                    }
                }
            }
            prop_assert_eq!(queue.len(), model.len());
        }
        while let Some((_, op)) = model.pop_first() {
            prop_assert_eq!(queue.pop(&mut slab), Some(op));
        }
        prop_assert!(queue.is_empty() && queue.pop(&mut slab).is_none());
    }

    #[test]
    fn a_list_keeps_its_order_and_a_walk_goes_on_where_it_stopped(
        steps in prop::collection::vec((0..4_u8, any::<usize>()), 1..300),
    ) {
        let mut slab = OperationSlab::new();
        let mut list = OpList::new();
        let mut model: Vec<OpIndex> = Vec::new();
        for (number, (step, at)) in (0..).zip(steps) {
            if step > 0 || model.is_empty() {
                let op = slab.insert(operation(number, 0, 5, OpClass::Create));
                slab[op].set_state(OpState::Dead);
                list.push(&mut slab, op);
                model.push(op);
            } else {
                let op = model.remove(at % model.len());
                let cursor = list.cursor(&slab, op);
                list.remove(&mut slab, op);
                slab.remove(op);
                prop_assert!(list.resume(&slab, cursor).is_none(), "its operation is gone");
            }
            prop_assert_eq!(list.len(), model.len());
            prop_assert_eq!(list.iter(&slab).collect::<Vec<_>>(), model.clone());
            if !model.is_empty() {
                let at = at % model.len();
                let cursor = list.cursor(&slab, model[at]);
                let rest = list.resume(&slab, cursor).expect("still there");
                prop_assert_eq!(rest.collect::<Vec<_>>(), &model[at + 1..]);
            }
        }
        let popped: Vec<OpIndex> = std::iter::from_fn(|| list.pop_front(&mut slab)).collect();
        prop_assert_eq!(popped, model);
    }
}

fn pick(model: &Model, at: usize) -> Option<(Priority, OpClass, u32)> {
    model.keys().nth(at.checked_rem(model.len())?).copied()
}

#[test]
fn a_reused_place_does_not_pass_for_the_operation_a_cursor_meant() {
    let mut slab = OperationSlab::new();
    let mut list = OpList::new();
    let gone = slab.insert(operation(1, 0, 5, OpClass::Create));
    slab[gone].set_state(OpState::Dead);
    list.push(&mut slab, gone);
    let cursor = list.cursor(&slab, gone);
    list.remove(&mut slab, gone);
    slab.remove(gone);

    let newcomer = slab.insert(operation(2, 0, 5, OpClass::Create));
    assert_eq!(newcomer, gone, "the slab hands the place out again");
    slab[newcomer].set_state(OpState::Dead);
    list.push(&mut slab, newcomer);
    assert!(list.resume(&slab, cursor).is_none());
}

#[test]
fn a_queue_filled_in_any_order_can_be_put_into_the_order_of_the_log() {
    let mut slab = OperationSlab::new();
    let mut queue = ReadyQueue::new();
    let mut model = Model::new();
    for step in 0..1_000_u32 {
        let place = step * 7_919 % 1_000;
        let class = OpClass::ALL[place as usize % OpClass::ALL.len()];
        let priority = Priority::new(1 + (place % 10) as u8).unwrap();
        let op = slab.insert(operation(place, 0, 10, class));
        queue.push(&mut slab, op, priority);
        model.insert((priority, class, place), op);
    }
    queue.sort_by_position(&mut slab);
    assert_eq!(queue.len(), 1_000);
    let popped = std::iter::from_fn(|| queue.pop(&mut slab));
    assert!(popped.eq(model.into_values()));
}
