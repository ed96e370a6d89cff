//! Every order in which few things can happen.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Rule};
use syncline_engine::shard::SYSTEM_A;

use super::explore::{Edit, Explored, RECORD, World, explore, walk_all};
use super::stage::Stage;

/// Edits of one field, each sets it to its own number.
const EDITS: [Edit; 5] = [
    Edit::There(r#"{"a":1}"#),
    Edit::Here(r#"{"a":2}"#),
    Edit::There(r#"{"a":3}"#),
    Edit::Here(r#"{"a":4}"#),
    Edit::There(r#"{"a":5}"#),
];
const RULES: [Rule; 3] = [Rule::LastWriteWins, Rule::SystemA, Rule::Provider];

/// A stage, of one account, where nothing has happened yet.
fn stage(rule: &Rule) -> Stage {
    let policy = ConflictPolicy {
        default: rule.clone(),
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    };
    Stage::new(&["alpha"], 1, &policy)
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

/// Every order of edits of one field: both sides end with the one that the rule says.
fn edits_of_one_field(rule: &Rule, count: usize, faults: usize) -> Explored {
    explore(&stage(rule), &EDITS[..count], faults, |mut world| {
        let standing = world.shown("alpha");
        let expected = world.witness.expected(rule, standing);
        agree(&mut world)?;
        match world.shown(SYSTEM_A) {
            shown if shown == expected => Ok(()),
            shown => Err(format!("{shown} in place of {expected}")),
        }
    })
}

/// A number that a longer run than usual may be given.
fn wanted(name: &str, usual: usize) -> usize {
    let wanted = std::env::var(name).ok();
    wanted
        .and_then(|wanted| wanted.parse().ok())
        .unwrap_or(usual)
}

#[test]
fn edits_of_one_field_end_as_the_rule_says_in_every_order() {
    let (count, faults) = (wanted("SYNCLINE_EDITS", 3), wanted("SYNCLINE_FAULTS", 1));
    for rule in RULES {
        let explored = edits_of_one_field(&rule, count, faults);
        println!("{rule:?}, {count} edits, {faults} faults: {explored:?}");
        assert!(explored.ends > 10, "{explored:?}");
    }
}

#[test]
fn places_that_are_taken_for_one_lead_to_the_same_places() {
    let count = wanted("SYNCLINE_EDITS", 2);
    for rule in RULES {
        let (orders, places) = walk_all(&stage(&rule), &EDITS[..count], 1);
        let explored = explore(&stage(&rule), &EDITS[..count], 1, |_| Ok(()));
        println!("{rule:?}, {count} edits: {orders} orders of {places} places");
        assert_eq!((explored.orders, explored.places), (orders, places));
        assert!(orders > places, "{orders}");
    }
}

#[test]
fn edits_of_different_fields_all_arrive_in_every_order() {
    let edits = [
        Edit::There(r#"{"a":1}"#),
        Edit::Here(r#"{"b":1}"#),
        Edit::There(r#"{"a":2}"#),
    ];
    let explored = explore(&stage(&Rule::LastWriteWins), &edits, 1, |mut world| {
        agree(&mut world)?;
        match world.stage.view("alpha")[RECORD].as_str() {
            r#"{"a":2,"b":1}"# => Ok(()),
            other => Err(other.to_owned()),
        }
    });
    assert!(explored.ends > 10, "{explored:?}");
}

#[test]
fn deletes_and_edits_end_the_same_on_both_sides_in_every_order() {
    for edits in [
        [
            Edit::There(r#"{"a":1}"#),
            Edit::DeleteHere,
            Edit::There(r#"{"a":2}"#),
        ],
        [
            Edit::Here(r#"{"a":1}"#),
            Edit::DeleteThere,
            Edit::Here(r#"{"a":2}"#),
        ],
        [
            Edit::DeleteThere,
            Edit::Here(r#"{"b":2}"#),
            Edit::DeleteHere,
        ],
    ] {
        explore(&stage(&Rule::LastWriteWins), &edits, 1, |mut world| {
            agree(&mut world)
        });
    }
}
