//! Every order in which few things can happen.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Rule};
use syncline_engine::shard::SYSTEM_A;

use super::explore::{Edit, Explored, Plan, RECORD, World, compare, explore, walk_all};
use super::stage::{Mutant, Stage};

/// Edits of one field, each sets it to its own number: there, or here.
const EDITS: [[Edit; 2]; 5] = [
    [Edit::There(r#"{"a":"^1"}"#), Edit::Here(r#"{"a":"^1"}"#)],
    [Edit::There(r#"{"a":"^2"}"#), Edit::Here(r#"{"a":"^2"}"#)],
    [Edit::There(r#"{"a":"^3"}"#), Edit::Here(r#"{"a":"^3"}"#)],
    [Edit::There(r#"{"a":"^4"}"#), Edit::Here(r#"{"a":"^4"}"#)],
    [Edit::There(r#"{"a":"^5"}"#), Edit::Here(r#"{"a":"^5"}"#)],
];
const RULES: [Rule; 3] = [Rule::LastWriteWins, Rule::SystemA, Rule::Provider];

/// A stage, of one account, where nothing has happened yet.
fn stage(rule: &Rule) -> Stage {
    stage_with(rule, None)
}

fn stage_with(rule: &Rule, bug: Option<Mutant>) -> Stage {
    let policy = ConflictPolicy {
        default: rule.clone(),
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    };
    Stage::mutated(&["alpha"], 1, &policy, bug)
}

/// All that is left to come comes, and the account tells of all it has. Both sides show the same
/// then, and nothing that is told once more leads to a write.
fn agree(world: &mut World<'_>) -> Result<(), String> {
    let stage = &mut world.stage;
    stage.settle();
    stage.tell_all();
    stage.settle();
    let (here, there) = (stage.view(SYSTEM_A), stage.view("alpha"));
    if here != there {
        return Err(format!("{here:?} here, {there:?} there"));
    }
    let writes = |stage: &Stage| -> u32 { stage.stores.values().map(|store| store.writes).sum() };
    let before = writes(stage);
    stage.tell_all();
    stage.settle();
    match writes(stage) - before {
        0 => Ok(()),
        idle => Err(format!("{idle} writes for nothing")),
    }
}

/// So many edits of one field, of either side any.
fn edits_of_any_side(count: usize) -> Vec<&'static [Edit]> {
    EDITS[..count].iter().map(|edit| &edit[..]).collect()
}

/// Every order of edits of one field: both sides end with the one that the rule says.
fn edits_of_one_field(first: &Stage, rule: &Rule, count: usize, late: bool) -> Explored {
    let plan = Plan {
        edits: &edits_of_any_side(count),
        faults: wanted("SYNCLINE_FAULTS").unwrap_or(1),
        late,
        rule: Some(rule),
    };
    explore(first, plan, |world| ends_as_said(world, rule))
}

/// Both sides agree, and show the edit that the rule picks.
fn ends_as_said(mut world: World<'_>, rule: &Rule) -> Result<(), String> {
    let standing = world.shown("alpha");
    let expected = world.witness.expected(rule, standing);
    agree(&mut world)?;
    match world.shown(SYSTEM_A) {
        shown if shown == expected => Ok(()),
        shown => Err(format!("{shown} in place of {expected}")),
    }
}

/// What a longer run than usual is given.
fn wanted(name: &str) -> Option<usize> {
    let wanted = std::env::var(name).ok();
    wanted.and_then(|wanted| wanted.parse().ok())
}

/// Every order of a few edits; of more where a longer run is wanted.
fn in_every_order(rule: &Rule) {
    for (late, name, usual) in [
        (false, "SYNCLINE_EDITS", 3),
        (true, "SYNCLINE_EDITS_ANSWERED_LATE", 2),
    ] {
        let count = wanted(name).unwrap_or(usual);
        let explored = edits_of_one_field(&stage(rule), rule, count, late);
        println!("{rule:?}, {count} edits, late {late}: {explored:?}");
        assert!(explored.orders > 100, "{explored:?}");
    }
}

#[test]
fn edits_of_one_field_end_with_the_last_write_in_every_order() {
    in_every_order(&Rule::LastWriteWins);
}

#[test]
fn edits_of_one_field_end_as_system_a_has_it_in_every_order() {
    in_every_order(&Rule::SystemA);
}

#[test]
fn edits_of_one_field_end_as_the_provider_has_it_in_every_order() {
    in_every_order(&Rule::Provider);
}

#[test]
fn a_planted_bug_is_met_in_some_order() {
    let first = stage_with(&Rule::LastWriteWins, Some(Mutant::StaleReads));
    let met =
        std::panic::catch_unwind(|| edits_of_one_field(&first, &Rule::LastWriteWins, 2, false));
    assert!(met.is_err());
}

#[test]
fn places_that_are_taken_for_one_lead_to_the_same_places() {
    let count = wanted("SYNCLINE_EDITS_WALKED").unwrap_or(2);
    // Answers that come late multiply the orders: without a fault there are few enough of them.
    let runs = RULES
        .iter()
        .flat_map(|rule| [(rule, 1, false), (rule, 0, true)]);
    for (rule, faults, late) in runs {
        let plan = Plan {
            edits: &edits_of_any_side(count),
            faults,
            late,
            rule: Some(rule),
        };
        let (orders, places) = walk_all(&stage(rule), plan);
        let explored = explore(&stage(rule), plan, |_| Ok(()));
        println!("{rule:?}, {count} edits, late {late}: {orders} orders of {places} places");
        assert_eq!((explored.orders, explored.places), (orders, places));
        assert!(orders > places, "{orders}");
    }
}

#[test]
fn a_place_leads_to_the_same_places_whichever_way_it_is_reached() {
    let count = wanted("SYNCLINE_EDITS_COMPARED").unwrap_or(2);
    let runs = RULES.iter().flat_map(|rule| [(rule, false), (rule, true)]);
    for (rule, late) in runs {
        let plan = Plan {
            edits: &edits_of_any_side(count),
            faults: 1,
            late,
            rule: Some(rule),
        };
        let (places, reached) = compare(&stage(rule), plan, |world| ends_as_said(world, rule));
        println!("{rule:?}, {count} edits, late {late}: {places} places, reached {reached} times");
        assert!(reached > places, "{reached}");
    }
}

/// Nobody asks what a rule says of these, but that both sides end the same.
fn in_order<'p>(edits: &'p [&'p [Edit]]) -> Plan<'p> {
    Plan {
        edits,
        faults: 1,
        late: false,
        rule: None,
    }
}

#[test]
fn edits_of_different_fields_all_arrive_in_every_order() {
    let edits: [&[Edit]; 3] = [
        &[Edit::There(r#"{"a":1}"#)],
        &[Edit::Here(r#"{"b":1}"#)],
        &[Edit::There(r#"{"a":2}"#)],
    ];
    let explored = explore(
        &stage(&Rule::LastWriteWins),
        in_order(&edits),
        |mut world| {
            agree(&mut world)?;
            match world.stage.view("alpha")[RECORD].as_str() {
                r#"{"a":2,"b":1}"# => Ok(()),
                other => Err(other.to_owned()),
            }
        },
    );
    assert!(explored.orders > 1_000, "{explored:?}");
}

#[test]
fn deletes_and_edits_end_the_same_on_both_sides_in_every_order() {
    for edits in [
        [
            &[Edit::There(r#"{"a":1}"#)],
            &[Edit::DeleteHere],
            &[Edit::There(r#"{"a":2}"#)],
        ],
        [
            &[Edit::Here(r#"{"a":1}"#)],
            &[Edit::DeleteThere],
            &[Edit::Here(r#"{"a":2}"#)],
        ],
        [
            &[Edit::DeleteThere],
            &[Edit::Here(r#"{"b":2}"#)],
            &[Edit::DeleteHere],
        ],
    ] {
        let edits = edits.map(|edit: &[Edit; 1]| &edit[..]);
        explore(
            &stage(&Rule::LastWriteWins),
            in_order(&edits),
            |mut world| agree(&mut world),
        );
    }
}
