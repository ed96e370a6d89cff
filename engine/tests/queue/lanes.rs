use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use syncline_engine::lane;
use syncline_engine::operation_slab::{OpClass, OpIndex, OperationSlab, Priority, Target};

use crate::{cases, operation};

#[derive(Clone, Debug)]
enum Step {
    Push { target: u16, priority: u8 },
    Pop { target: u16 },
    Remove { target: u16, at: usize },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (0..4_u16, 1..=10_u8).prop_map(|(target, priority)| Step::Push { target, priority }),
        3 => (0..4_u16).prop_map(|target| Step::Pop { target }),
        1 => (0..4_u16, any::<usize>()).prop_map(|(target, at)| Step::Remove { target, at }),
    ];
    prop::collection::vec(step, 1..300)
}

type Model = BTreeMap<u16, VecDeque<OpIndex>>;

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn lanes_are_queues_by_target_that_know_their_best_priority(steps in steps()) {
        let mut slab = OperationSlab::new();
        let mut first = None;
        let mut model = Model::new();
        for (number, step) in (0..).zip(steps) {
            match step {
                Step::Push { target, priority } => {
                    let op = slab.insert(operation(number, target, priority, OpClass::Update));
                    lane::push_back(&mut slab, &mut first, op);
                    model.entry(target).or_default().push_back(op);
                }
                Step::Pop { target } => {
                    let popped = lane::pop_front(&mut slab, &mut first, Target(target));
                    prop_assert_eq!(popped, model.entry(target).or_default().pop_front());
                }
                Step::Remove { target, at } => {
                    let queue = model.entry(target).or_default();
                    if !queue.is_empty() {
                        let op = queue.remove(at % queue.len()).expect("below its length");
                        prop_assert!(lane::remove(&mut slab, &mut first, op));
                        prop_assert!(!lane::remove(&mut slab, &mut first, op), "it is gone");
                        // It may enter again, as a redriven operation does.
                        lane::push_back(&mut slab, &mut first, op);
                        queue.push_back(op);
                    }
                }
            }
            model.retain(|_, queue| !queue.is_empty());
            check(&slab, first, &model)?;
        }
    }
}

fn check(slab: &OperationSlab, first: Option<OpIndex>, model: &Model) -> Result<(), TestCaseError> {
    let lanes: BTreeMap<u16, VecDeque<OpIndex>> = lane::lanes(slab, first)
        .map(|lane| (lane.target(slab).0, lane.iter(slab).collect()))
        .collect();
    prop_assert_eq!(&lanes, model);
    prop_assert_eq!(lane::lanes(slab, first).count(), model.len());
    for (target, queue) in model {
        let lane = lane::of(slab, first, Target(*target)).expect("has operations");
        prop_assert_eq!(lane.front(slab), queue[0]);
        prop_assert_eq!(Some(&lane.back()), queue.back());
        let best = queue.iter().map(|op| slab[*op].priority()).min();
        prop_assert_eq!(Some(lane.best_priority(slab)), best);
        for op in queue {
            prop_assert_eq!(lane.find(slab, slab[*op].sequence_low()), Some(*op));
        }
        prop_assert_eq!(lane.find(slab, u32::MAX), None);
    }
    Ok(())
}

#[test]
fn a_lane_of_a_million_operations_empties_in_order_at_every_priority() {
    const COUNT: u32 = 1_000_000;
    let mut slab = OperationSlab::new();
    let mut first = None;
    for number in 0..COUNT {
        // Runs from best to worst: the hardest order for the best priority kept in the head.
        let priority = 1 + (number / (COUNT / 10)) as u8;
        let op = slab.insert(operation(number, 0, priority, OpClass::Update));
        lane::push_back(&mut slab, &mut first, op);
    }
    for number in 0..COUNT {
        let best = lane::of(&slab, first, Target(0))
            .unwrap()
            .best_priority(&slab);
        assert_eq!(Some(best), Priority::new(1 + (number / (COUNT / 10)) as u8));
        let op = lane::pop_front(&mut slab, &mut first, Target(0)).unwrap();
        assert_eq!(slab[op].sequence_low(), number);
        slab.remove(op);
    }
    assert_eq!(first, None);
}
