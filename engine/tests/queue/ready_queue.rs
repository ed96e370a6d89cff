use std::collections::BTreeMap;

use proptest::prelude::*;
use syncline_engine::operation_slab::{
    Flow, NewOperation, OpClass, OpIndex, OpState, OperationSlab, Priority,
};
use syncline_engine::ready::{Aside, FlowWeights, OpList, ReadyQueue};

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

/// By priority, rank of the class and arrival.
type Model = BTreeMap<(Priority, usize, u32), OpIndex>;

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
                    model.insert((priority, class.rank(), arrival), op);
                }
                Step::Pop => {
                    let first = model.keys().next().copied();
                    let expected = model.pop_first().map(|(_, op)| op);
                    let best = expected.and_then(|_| queue.best_priority());
                    prop_assert_eq!(best, first.map(|(priority, _, _)| priority));
                    prop_assert_eq!(queue.pop(&mut slab, &FlowWeights::equal()), expected);
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
            prop_assert_eq!(queue.pop(&mut slab, &FlowWeights::equal()), Some(op));
        }
        prop_assert!(queue.is_empty() && queue.pop(&mut slab, &FlowWeights::equal()).is_none());
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

fn pick(model: &Model, at: usize) -> Option<(Priority, usize, u32)> {
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
        model.insert((priority, class.rank(), place), op);
    }
    queue.sort_by_position(&mut slab);
    assert_eq!(queue.len(), 1_000);
    let popped = std::iter::from_fn(|| queue.pop(&mut slab, &FlowWeights::equal()));
    assert!(popped.eq(model.into_values()));
}

/// An operation of a flow.
fn of_flow(number: u32, flow: u16) -> NewOperation {
    NewOperation {
        flow: Flow::new(flow).expect("a flow"),
        ..operation(number, 0, 5, OpClass::Update)
    }
}

const NORMAL: Priority = Priority::DEFAULT;

fn weights(named: &[(u16, u32)]) -> FlowWeights {
    let mut weights = FlowWeights::equal();
    for &(flow, weight) in named {
        weights.set(Flow::new(flow).expect("a flow"), weight);
    }
    weights
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn flows_with_a_backlog_have_calls_by_their_weights(
        named in prop::collection::btree_map(0..512_u16, 1..=20_u32, 2..6),
        calls in 1..400_usize,
    ) {
        let named: Vec<(u16, u32)> = named.into_iter().collect();
        let weights = weights(&named);
        let mut slab = OperationSlab::new();
        let mut queue = ReadyQueue::new();
        let mut number = 0..;
        for &(flow, _) in &named {
            for number in number.by_ref().take(400) {
                let op = slab.insert(of_flow(number, flow));
                queue.push(&mut slab, op, NORMAL);
            }
        }
        let mut had: BTreeMap<u16, usize> = BTreeMap::new();
        for call in 0..calls {
            // Every eighth is for the oldest, whatever its priority; its flow's turn it is too.
            let op = if call % 8 == 7 {
                queue.pop_oldest(&mut slab, &weights)
            } else {
                queue.pop(&mut slab, &weights)
            };
            *had.entry(slab[op.unwrap()].flow().get()).or_default() += 1;
        }
        let round: u32 = named.iter().map(|(_, weight)| weight).sum();
        let rounds = calls / round as usize;
        for (flow, weight) in named {
            let weight = weight as usize;
            let had = had.get(&flow).copied().unwrap_or(0);
            prop_assert!((rounds * weight..=(rounds + 1) * weight).contains(&had));
        }
    }

    #[test]
    fn a_flood_of_one_flow_delays_the_single_operation_of_another_by_one_round(
        flood in 0..512_u16,
        single in 0..512_u16,
        weight in 1..=100_u32,
        before in 0..300_usize,
    ) {
        prop_assume!(flood != single);
        let weights = weights(&[(flood, weight)]);
        let mut slab = OperationSlab::new();
        let mut queue = ReadyQueue::new();
        for number in 0..1_000 {
            let op = slab.insert(of_flow(number, flood));
            queue.push(&mut slab, op, NORMAL);
        }
        for _ in 0..before {
            queue.pop(&mut slab, &weights);
        }
        let op = slab.insert(of_flow(1_000, single));
        queue.push(&mut slab, op, NORMAL);
        let told = queue.ahead_of(&slab, op, &weights, usize::MAX);
        let mut calls = std::iter::from_fn(|| queue.pop(&mut slab, &weights));
        let waited = calls.position(|called| called == op).unwrap();
        prop_assert!(waited <= weight as usize, "it waited for {waited} calls");
        prop_assert!(waited <= told, "{told} were told to be ahead, {waited} were");
    }

    #[test]
    fn what_goes_along_is_charged_to_nobody(companions in 0..50_usize) {
        let weights = weights(&[]);
        let mut slab = OperationSlab::new();
        let mut queue = ReadyQueue::new();
        for number in 0..200 {
            let op = slab.insert(of_flow(number, 1 + (number % 2) as u16));
            queue.push(&mut slab, op, NORMAL);
        }
        let first = queue.pop(&mut slab, &weights).unwrap();
        let flow = slab[first].flow();
        for _ in 0..companions {
            let op = queue.pop_company(&mut slab, flow).unwrap();
            prop_assert_eq!(slab[op].flow(), flow, "its own flow first");
        }
        let next = queue.pop(&mut slab, &weights).unwrap();
        prop_assert!(slab[next].flow() != flow, "the other's turn");
    }
}

#[test]
fn a_better_priority_goes_first_whatever_the_weights() {
    let weights = weights(&[(7, 100)]);
    let mut slab = OperationSlab::new();
    let mut queue = ReadyQueue::new();
    for number in 0..10 {
        let op = slab.insert(of_flow(number, 7));
        queue.push(&mut slab, op, NORMAL);
    }
    let urgent = slab.insert(of_flow(10, 8));
    queue.push(&mut slab, urgent, Priority::BEST);
    assert_eq!(queue.pop(&mut slab, &weights), Some(urgent));
}

#[test]
fn company_of_a_flow_that_has_no_more_comes_from_the_next() {
    let mut slab = OperationSlab::new();
    let mut queue = ReadyQueue::new();
    for (number, flow) in [(0, 3), (1, 5), (2, 5)] {
        let op = slab.insert(of_flow(number, flow));
        queue.push(&mut slab, op, NORMAL);
    }
    let flow = Flow::new(3).unwrap();
    let taken = std::iter::from_fn(|| queue.pop_company(&mut slab, flow));
    let taken: Vec<OpIndex> = taken.collect();
    let numbers: Vec<u32> = taken.iter().map(|&op| slab[op].sequence_low()).collect();
    assert_eq!(numbers, [0, 1, 2]);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_is_set_aside_stays_in_its_list_and_order(
        steps in prop::collection::vec((0..3_u8, 0..3_usize, any::<usize>()), 1..200),
    ) {
        let mut slab = OperationSlab::new();
        let mut aside = Aside::new();
        let mut model: [Vec<OpIndex>; 3] = Default::default();
        for (number, (step, list, at)) in (0..).zip(steps) {
            match step {
                0 if !model[list].is_empty() => {
                    let op = model[list].remove(at % model[list].len());
                    aside.remove(&mut slab, op);
                }
                1 => {
                    let first = (!model[list].is_empty()).then(|| model[list].remove(0));
                    prop_assert_eq!(aside.pop_front(&mut slab, list), first);
                }
                _ => {
                    let op = slab.insert(operation(number, 0, 5, OpClass::Update));
                    aside.push(&mut slab, list, op);
                    model[list].push(op);
                }
            }
            prop_assert_eq!(aside.len(), model.iter().map(Vec::len).sum::<usize>());
            for (list, expected) in model.iter().enumerate() {
                prop_assert_eq!(&aside.iter(&slab, list).collect::<Vec<_>>(), expected);
                for (ahead, &op) in expected.iter().enumerate() {
                    prop_assert_eq!(aside.place_of(&slab, op, usize::MAX), Some((list, ahead)));
                }
            }
        }
    }
}
