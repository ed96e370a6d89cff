//! A record that System A makes may be at the account already, made by somebody else.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Rule};
use syncline_engine::shard::{Command, DeadFilter, LinkStep, SYSTEM_A, provisional_id};
use syncline_engine::state::Reason;

use super::stage::{OBJECT, Stage};

/// Contacts are found by their email; where they have none, by name and company.
fn stage(shards: u16) -> Stage {
    let policy = ConflictPolicy {
        default: Rule::LastWriteWins,
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    };
    Stage::matching(shards, &policy, &[&["email"], &["name", "company"]])
}

/// A record that somebody made at the account, and that nobody has told of.
fn make_untold(stage: &mut Stage, fields: &str) -> String {
    let id = stage.make_there("alpha", fields);
    stage.notices.clear();
    id
}

#[track_caller]
fn all_show(stage: &Stage, fields: &str) {
    for side in stage.stores.keys() {
        let view = stage.view(side);
        let shown: Vec<&String> = view.values().collect();
        assert_eq!(shown, [fields], "{side}");
    }
}

#[test]
fn the_only_record_with_the_same_email_is_linked_and_updated() {
    for shards in [1, 4] {
        for crash_after in 0..8 {
            let mut stage = stage(shards);
            make_untold(&mut stage, r#"{"email":"a@b.c","phone":1}"#);
            stage.edit_here("c-1", r#"{"email":"a@b.c","name":"Ada"}"#);
            for step in 0..8 {
                if step == crash_after {
                    stage.crash();
                }
                if !stage.calls.is_empty() {
                    stage.answer(0);
                }
            }
            stage.settle();
            // What the account had beside that, System A knows now, and the record bears our key.
            all_show(&stage, r#"{"email":"a@b.c","name":"Ada","phone":1}"#);
            assert!(stage.view("alpha").contains_key("c-1"));
            assert_eq!(stage.stores["alpha"].creates, 0);
            stage.edit_there("alpha", "r1", r#"{"phone":2}"#);
            stage.settle();
            all_show(&stage, r#"{"email":"a@b.c","name":"Ada","phone":2}"#);
            assert_eq!(stage.dead(), []);
        }
    }
}

#[test]
fn a_record_that_nothing_matches_is_made() {
    let mut stage = stage(2);
    make_untold(&mut stage, r#"{"email":"x@y.z"}"#);
    stage.edit_here("c-1", r#"{"email":"a@b.c","name":"Ada"}"#);
    stage.settle();
    assert_eq!(stage.stores["alpha"].creates, 1);
    assert_eq!(
        stage.view("alpha")["c-1"],
        r#"{"email":"a@b.c","name":"Ada"}"#
    );
}

#[test]
fn keys_are_asked_in_their_order_and_one_without_a_value_not_at_all() {
    let mut stage = stage(2);
    make_untold(&mut stage, r#"{"company":"Acme","name":"Ada"}"#);
    let asked = |stage: &Stage| {
        let calls = stage.calls.iter();
        let calls = calls.map(|call| call.request.path_and_query.clone());
        calls.collect::<Vec<_>>()
    };
    // Half a key finds nobody.
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    assert_eq!(asked(&stage), ["/contact"]);
    stage.settle();
    stage.edit_here("c-2", r#"{"company":"Acme","email":"a@b.c","name":"Ada"}"#);
    assert_eq!(asked(&stage), ["/contact?email=a%40b.c"]);
    stage.answer(0);
    assert_eq!(asked(&stage), ["/contact?name=Ada&company=Acme"]);
    stage.settle();
    assert_eq!(stage.stores["alpha"].creates, 1);
    let view = stage.view("alpha");
    assert_eq!(
        view["c-2"],
        r#"{"company":"Acme","email":"a@b.c","name":"Ada"}"#
    );
}

#[test]
fn of_several_that_match_a_person_links_one() {
    let mut stage = stage(2);
    make_untold(&mut stage, r#"{"email":"a@b.c","phone":1}"#);
    make_untold(&mut stage, r#"{"email":"a@b.c","phone":2}"#);
    stage.edit_here("c-1", r#"{"email":"a@b.c","name":"Ada"}"#);
    stage.settle();
    let dead = stage.dead();
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].code, Some(Reason::MatchAmbiguous));
    let detail = &dead[0].attempts.last().unwrap().detail;
    assert_eq!(detail, "several records match: r1, r2");
    assert_eq!(stage.stores["alpha"].writes, 0);

    let set = LinkStep::Set {
        account: "alpha".into(),
        object: OBJECT.to_owned(),
        record_id: "c-1".to_owned(),
        remote_id: Some("r2".to_owned()),
        claimed: provisional_id("alpha", "r2"),
    };
    stage.command("c-1", Command::Link(set));
    stage.command("c-1", Command::Retry(DeadFilter::default()));
    stage.settle();
    let view = stage.view("alpha");
    assert!(
        view.values()
            .any(|shown| shown.contains(r#""name":"Ada","phone":2"#)),
        "{view:?}"
    );
    assert_eq!(stage.stores["alpha"].creates, 0);
    assert_eq!(stage.dead(), []);
}

#[test]
fn a_record_that_is_another_ones_here_is_not_taken() {
    for shards in [1, 4] {
        let mut stage = stage(shards);
        let id = stage.make_there("alpha", r#"{"email":"a@b.c"}"#);
        stage.settle();
        let theirs = format!("alpha:{id}");
        assert!(stage.view(SYSTEM_A).contains_key(&theirs));
        stage.edit_here("c-1", r#"{"email":"a@b.c","name":"Ada"}"#);
        stage.settle();
        let dead = stage.dead();
        assert_eq!(dead.len(), 1, "{dead:?}");
        assert_eq!(dead[0].code, Some(Reason::MatchTaken));
        let detail = &dead[0].attempts.last().unwrap().detail;
        assert_eq!(*detail, format!("{id} is linked to {theirs}"));
        assert_eq!(stage.view("alpha")[&theirs], r#"{"email":"a@b.c"}"#);
    }
}
