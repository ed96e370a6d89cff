//! Every order in which few things can happen.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Rule};
use syncline_engine::shard::SYSTEM_A;

use super::stage::Stage;

/// What somebody does.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Here(&'static str),
    There(&'static str),
    DeleteHere,
    DeleteThere,
}

/// Choices made so far, and how many there were at each point: a path through all orders.
#[derive(Debug, Default)]
struct Path {
    taken: Vec<(usize, usize)>,
    at: usize,
}

impl Path {
    fn choose(&mut self, of: usize) -> usize {
        if self.at == self.taken.len() {
            self.taken.push((0, of));
        }
        let (choice, known) = self.taken[self.at];
        assert_eq!(known, of, "the same choices lead to the same place");
        self.at += 1;
        choice
    }

    /// Goes to the next path; false after the last.
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, of)) = self.taken.pop() {
            if choice + 1 < of {
                self.taken.push((choice + 1, of));
                return true;
            }
        }
        false
    }
}

/// Runs every order of the edits, the calls they lead to and the notices, of which one may be lost or
/// come twice. Answers how many there were.
fn explore(edits: &[Edit], rule: &Rule, check: impl Fn(&Stage, &[String])) -> u64 {
    let policy = ConflictPolicy {
        default: rule.clone(),
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    };
    let mut path = Path::default();
    let mut orders = 0;
    loop {
        let mut stage = Stage::new(&["alpha"], 1, &policy);
        stage.edit_here("c", r#"{"a":0,"b":0}"#);
        stage.settle();
        let mut left = edits.iter();
        let mut next = left.next();
        let mut faults = 1;
        let mut story = Vec::new();
        loop {
            let calls = stage.calls.len().min(2);
            let notices = stage.notices.len().min(2);
            let faulty = if notices > 0 { 2 * faults } else { 0 };
            let choices = usize::from(next.is_some()) + calls + notices + faulty;
            if choices == 0 {
                break;
            }
            let mut choice = path.choose(choices);
            if let Some(edit) = next {
                if choice == 0 {
                    story.push(format!("{edit:?}"));
                    apply(&mut stage, *edit);
                    next = left.next();
                    continue;
                }
                choice -= 1;
            }
            if choice < calls {
                let call = &stage.calls[choice];
                let body = String::from_utf8_lossy(&call.request.body);
                story.push(format!("{} {} {body}", call.account, call.request.kind));
                stage.answer(choice);
                continue;
            }
            choice -= calls;
            if choice < notices {
                let notice = stage.notices.remove(choice).unwrap();
                story.push(format!("{notice:?}"));
                stage.deliver(&notice);
                continue;
            }
            faults = 0;
            let notice = stage.notices.pop_front().unwrap();
            if choice == notices {
                story.push(format!("lost: {notice:?}"));
                continue;
            }
            story.push(format!("twice: {notice:?}"));
            stage.deliver(&notice);
            stage.deliver(&notice);
        }
        stage.settle();
        stage.tell_all();
        stage.settle();
        check(&stage, &story);
        orders += 1;
        if !path.advance() {
            return orders;
        }
    }
}

fn apply(stage: &mut Stage, edit: Edit) {
    match edit {
        Edit::Here(patch) => {
            if stage.stores[SYSTEM_A].records.contains_key("c") {
                stage.edit_here("c", patch);
            }
        }
        Edit::There(patch) => stage.edit_there("alpha", "r1", patch),
        Edit::DeleteHere => {
            if stage.stores[SYSTEM_A].records.contains_key("c") {
                stage.delete_here("c");
            }
        }
        Edit::DeleteThere => stage.delete_there("alpha", "r1"),
    }
}

fn agree(stage: &Stage, story: &[String]) {
    let (here, there) = (stage.view(SYSTEM_A), stage.view("alpha"));
    assert_eq!(here, there, "{story:#?}");
}

#[test]
fn edits_of_different_fields_all_arrive_in_every_order() {
    let edits = [
        Edit::There(r#"{"a":1}"#),
        Edit::Here(r#"{"b":1}"#),
        Edit::There(r#"{"a":2}"#),
    ];
    let orders = explore(&edits, &Rule::LastWriteWins, |stage, story| {
        agree(stage, story);
        let expected = r#"{"a":2,"b":1}"#;
        assert_eq!(stage.view("alpha")["c"], expected, "{story:#?}");
    });
    assert!(orders > 100, "{orders}");
}

/// Edits in a run: three, or as many as `SYNCLINE_EDITS` says. Four take minutes.
fn edits_in_a_run() -> usize {
    let wanted = std::env::var("SYNCLINE_EDITS").ok();
    wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(3)
}

#[test]
fn edits_of_one_field_end_the_same_on_both_sides_in_every_order() {
    let edits = [
        Edit::There(r#"{"a":1}"#),
        Edit::Here(r#"{"a":2}"#),
        Edit::There(r#"{"a":3}"#),
        Edit::Here(r#"{"a":4}"#),
        Edit::There(r#"{"a":5}"#),
    ];
    let count = edits_in_a_run();
    for (rule, count) in [
        (Rule::LastWriteWins, count),
        (Rule::SystemA, count),
        // What it gives back to the account makes many more orders.
        (Rule::Provider, count - 1),
    ] {
        let orders = explore(&edits[..count], &rule, agree);
        println!("{rule:?}, {count} edits: {orders} orders");
        assert!(orders > 100, "{orders}");
    }
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
        explore(&edits, &Rule::LastWriteWins, agree);
    }
}
