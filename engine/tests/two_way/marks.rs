//! Accounts where a record that is deleted is marked, and stays.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Rule};
use syncline_engine::shard::SYSTEM_A;

use super::stage::Stage;

fn two() -> Stage {
    let policy = ConflictPolicy {
        default: Rule::LastWriteWins,
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    };
    Stage::marking(&["alpha", "beta"], 2, &policy, None)
}

/// Whether each account has one record, all told, and it is marked.
#[track_caller]
fn all_are_marked(stage: &Stage) {
    for account in ["alpha", "beta"] {
        let records = &stage.stores[account].records;
        assert_eq!(records.len(), 1, "{account}: {records:?}");
        assert!(records["r1"].is_marked(), "{account}: {records:?}");
    }
    assert!(stage.view(SYSTEM_A).is_empty());
}

#[track_caller]
fn all_show(stage: &Stage, key: &str, fields: &str) {
    for side in stage.stores.keys() {
        let view = stage.view(side);
        assert_eq!(view.get(key).map(String::as_str), Some(fields), "{side}");
        assert_eq!(view.len(), 1, "{side}: {view:?}");
    }
}

fn writes(stage: &Stage) -> u32 {
    stage.stores.values().map(|store| store.writes).sum()
}

#[test]
fn what_system_a_deletes_is_marked_once_at_every_account() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    let before = writes(&stage);
    stage.delete_here("c-1");
    stage.settle();
    all_are_marked(&stage);
    stage.tell_all();
    stage.settle();
    assert_eq!(writes(&stage) - before, 2, "one write each");
}

#[test]
fn what_a_person_marks_is_deleted_everywhere() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_there("alpha", "r1");
    stage.settle();
    all_are_marked(&stage);
}

#[test]
fn a_list_that_shows_the_mark_needs_no_read() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.tick(60_000);
    stage.lists = true;
    stage.delete_there("alpha", "r1");
    let (before, notice) = (stage.reads, stage.notices.pop_front().unwrap());
    stage.tick(60_000);
    stage.deliver(&notice);
    assert_eq!(stage.reads, before);
    stage.settle();
    all_are_marked(&stage);
}

#[test]
fn a_record_that_is_made_again_is_the_one_that_was_marked() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_here("c-1");
    stage.settle();
    stage.edit_here("c-1", r#"{"name":"Grace"}"#);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Grace"}"#);
    for account in ["alpha", "beta"] {
        assert_eq!(stage.stores[account].records.len(), 1, "{account}");
    }
}

#[test]
fn a_record_that_is_made_again_and_deleted_over_a_crash_is_marked_again() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_here("c-1");
    stage.settle();
    stage.edit_here("c-1", r#"{"name":"Grace"}"#);
    // Both accounts have it, and nobody heard of that.
    while !stage.calls.is_empty() {
        stage.arrive(0);
    }
    assert!(!stage.stores["alpha"].records["r1"].is_marked());
    stage.delete_here("c-1");
    stage.crash();
    stage.settle();
    all_are_marked(&stage);
}

#[test]
fn a_record_that_a_person_takes_back_is_back_everywhere() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_here("c-1");
    stage.settle();
    stage.restore_there("beta", "r1");
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Ada"}"#);
}

#[test]
fn a_change_of_a_marked_record_does_not_bring_it_back() {
    let mut stage = two();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_here("c-1");
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"name":"Eve"}"#);
    stage.settle();
    all_are_marked(&stage);
}

#[test]
fn a_marked_record_that_nobody_knew_is_not_made_anywhere() {
    let mut stage = two();
    stage.make_there("alpha", r#"{"name":"Ada","gone":true}"#);
    stage.settle();
    assert!(stage.view(SYSTEM_A).is_empty());
    assert!(stage.stores["beta"].records.is_empty());
    stage.restore_there("alpha", "r1");
    stage.settle();
    all_show(&stage, "alpha:r1", r#"{"name":"Ada"}"#);
}

#[test]
fn a_record_that_was_marked_before_the_engine_knew_of_it_is_taken_over() {
    let mut stage = two();
    let id = stage.make_there("alpha", r#"{"name":"Ada","gone":true}"#);
    let store = stage.stores.get_mut("alpha").unwrap();
    store.records.get_mut(&id).unwrap().external_id = Some("c-1".to_owned());
    stage.settle();
    let event = r#"{"operation":"UPSERT","record_id":"c-1","data":{"name":"Grace"}}"#;
    let store = stage.stores.get_mut(SYSTEM_A).unwrap();
    store.put("c-1", r#"{"name":"Grace"}"#);
    stage.say(event);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Grace"}"#);
    assert_eq!(stage.stores["alpha"].records.len(), 1);
}
