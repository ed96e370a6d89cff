//! One thing after the other.

use std::time::Duration;

use syncline_engine::merge::{ConflictPolicy, Foreign, Rule, Winner};
use syncline_engine::shard::SYSTEM_A;

use super::stage::{Answer, Stage};

fn policy(rule: Rule) -> ConflictPolicy {
    ConflictPolicy {
        default: rule,
        skew: Duration::ZERO,
        ..ConflictPolicy::default()
    }
}

fn two(rule: Rule) -> Stage {
    Stage::new(&["alpha"], 2, &policy(rule))
}

#[track_caller]
fn all_show(stage: &Stage, record_id: &str, fields: &str) {
    for side in stage.stores.keys() {
        let view = stage.view(side);
        assert_eq!(
            view.get(record_id).map(String::as_str),
            Some(fields),
            "{side}: {view:?}"
        );
        assert_eq!(view.len(), 1, "{side}: {view:?}");
    }
}

#[test]
fn a_change_at_the_account_reaches_system_a_and_does_not_come_back() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Ada"}"#);
    stage.edit_there("alpha", "r1", r#"{"name":"Grace"}"#);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Grace"}"#);
    assert_eq!(stage.stores["alpha"].writes, 1);
    assert_eq!(stage.stores[SYSTEM_A].writes, 1);
}

#[test]
fn a_record_made_at_the_account_comes_to_system_a_under_the_accounts_id() {
    let mut stage = two(Rule::LastWriteWins);
    let id = stage.make_there("alpha", r#"{"name":"Ada"}"#);
    stage.settle();
    let key = format!("alpha:{id}");
    all_show(&stage, &key, r#"{"name":"Ada"}"#);
    stage.edit_here(&key, r#"{"name":"Grace"}"#);
    stage.settle();
    all_show(&stage, &key, r#"{"name":"Grace"}"#);
    assert_eq!(stage.stores["alpha"].creates, 0);
}

#[test]
fn three_sides_learn_from_one_another() {
    let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::LastWriteWins));
    stage.edit_here("c-1", r#"{"a":1,"b":1}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"a":2}"#);
    stage.edit_there("beta", "r1", r#"{"b":2}"#);
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":2,"b":2}"#);
}

#[test]
fn the_word_of_our_own_write_costs_a_read_and_nothing_else() {
    let mut stage = two(Rule::Provider);
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    assert_eq!(
        (stage.stores["alpha"].writes, stage.stores[SYSTEM_A].writes),
        (1, 0)
    );
    assert!(stage.reads <= 1, "{}", stage.reads);
}

#[test]
fn of_two_changes_of_a_field_the_rule_says_which_stands() {
    for (rule, expected) in [
        (Rule::SystemA, r#"{"name":"ours"}"#),
        (Rule::Provider, r#"{"name":"theirs"}"#),
        (Rule::LastWriteWins, r#"{"name":"ours"}"#),
    ] {
        let mut stage = two(rule);
        stage.edit_here("c-1", r#"{"name":"first"}"#);
        stage.settle();
        stage.edit_there("alpha", "r1", r#"{"name":"theirs"}"#);
        // The word of theirs is taken first and waits for its read while ours is said.
        let notice = stage.notices.pop_front().unwrap();
        stage.deliver(&notice);
        stage.edit_here("c-1", r#"{"name":"ours"}"#);
        stage.settle();
        all_show(&stage, "c-1", expected);
    }
}

#[test]
fn a_field_of_system_a_that_is_edited_at_the_account_is_written_back_or_left_there() {
    for (foreign, there, writes) in [
        (Foreign::Revert, r#"{"name":"Ada"}"#, 2),
        (Foreign::Refuse, r#"{"name":"Eve"}"#, 1),
    ] {
        let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::Owned(foreign)));
        stage.edit_here("c-1", r#"{"name":"Ada"}"#);
        stage.settle();
        stage.edit_there("alpha", "r1", r#"{"name":"Eve"}"#);
        stage.settle();
        stage.edit_there("alpha", "r1", there);
        stage.settle();
        assert_eq!(stage.stores["alpha"].writes, writes, "{foreign:?}");
        assert_eq!(
            stage.stores["beta"].writes, 1,
            "{foreign:?}: nobody else hears of it"
        );
        assert_eq!(stage.stores[SYSTEM_A].writes, 0, "{foreign:?}");
        let shown = stage.view("alpha");
        assert_eq!(
            shown.get("c-1").map(String::as_str),
            Some(there),
            "{foreign:?}"
        );
        // System A's own changes go on.
        stage.edit_here("c-1", r#"{"name":"Grace"}"#);
        stage.settle();
        all_show(&stage, "c-1", r#"{"name":"Grace"}"#);
    }
}

/// A create fails in doubt, and then comes the word that the record from before it ended. Taken for the
/// end of what the create made, the next CREATE made a second one.
#[test]
fn the_end_of_a_former_record_does_not_end_a_create_in_doubt() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    stage.delete_here("c-1");
    stage.answer(0);
    let gone = stage.notices.pop_front().unwrap();
    stage.edit_here("c-1", r#"{"name":"Bea"}"#);
    stage.end(0, Answer::Lost);
    stage.notices.clear();
    while stage.dead().is_empty() {
        stage.tick(60_000);
        if !stage.calls.is_empty() {
            stage.end(0, Answer::Refused);
        }
    }
    stage.deliver(&gone);
    stage.settle();
    let event = r#"{"operation":"CREATE","record_id":"c-1","data":{"name":"Bea"}}"#;
    stage.say(event);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"Bea"}"#);
    assert_eq!(stage.stores["alpha"].creates, 2);
}

/// Of one change of System A's comes a delete, where its record is gone, and what it met on the way
/// to System A. Under one number a third side was told of one of them alone.
#[test]
fn what_comes_of_one_change_twice_is_told_twice() {
    let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::Provider));
    stage.edit_here("c-1", r#"{"name":"Ada","a":1}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"name":"theirs"}"#);
    let told = stage.notices.pop_front().unwrap();
    stage.deliver(&told);
    stage.answer(0);
    stage.edit_here("c-1", r#"{"name":"ours"}"#);
    let told = stage.calls.iter().position(|call| call.account == SYSTEM_A);
    stage.answer(told.expect("System A is told of theirs"));
    stage.delete_there("alpha", "r1");
    stage.notices.clear();
    stage.settle();
    for side in stage.stores.keys() {
        assert!(
            stage.view(side).is_empty(),
            "{side}: {:?}",
            stage.view(side)
        );
    }
}

#[test]
fn what_system_a_makes_again_under_a_merged_key_is_another_record() {
    let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::LastWriteWins));
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.edit_here("c-2", r#"{"name":"Bea"}"#);
    stage.settle();
    stage.merge_there("alpha", "r1", "r2");
    stage.settle();
    all_show(&stage, "c-2", r#"{"name":"Bea"}"#);
    stage.edit_here("c-1", r#"{"name":"Cleo"}"#);
    stage.settle();
    for side in stage.stores.keys() {
        let view = stage.view(side);
        assert_eq!(view["c-1"], r#"{"name":"Cleo"}"#, "{side}");
        assert_eq!(view["c-2"], r#"{"name":"Bea"}"#, "{side}");
    }
}

#[test]
fn a_workflow_that_undoes_what_is_written_back_is_parked() {
    let mut stage = two(Rule::Owned(Foreign::Revert));
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.settle();
    for _ in 0..9 {
        stage.edit_there("alpha", "r1", r#"{"name":"Eve"}"#);
        stage.settle();
    }
    assert_eq!(
        stage.stores["alpha"].writes,
        1 + 3,
        "its making, and three times back"
    );
    assert_eq!(stage.stores[SYSTEM_A].writes, 0);
}

#[test]
fn a_delete_goes_both_ways_and_is_not_undone() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.edit_here("c-2", r#"{"name":"Bob"}"#);
    stage.settle();
    let old = super::stage::Notice {
        account: "alpha".to_owned(),
        remote_id: "r1".to_owned(),
        what: super::stage::What::Changed,
        at_ms: 0,
        listed: None,
    };
    stage.delete_there("alpha", "r1");
    stage.delete_here("c-2");
    stage.settle();
    stage.deliver(&old);
    stage.settle();
    for side in stage.stores.keys() {
        assert!(
            stage.view(side).is_empty(),
            "{side}: {:?}",
            stage.view(side)
        );
    }
}

#[test]
fn a_crash_anywhere_loses_no_change_of_either_side() {
    for crash_after in 0..12 {
        let mut stage = two(Rule::LastWriteWins);
        stage.edit_here("c-1", r#"{"a":1,"b":1}"#);
        stage.settle();
        stage.edit_there("alpha", "r1", r#"{"a":2}"#);
        stage.edit_here("c-1", r#"{"b":2}"#);
        for step in 0..12 {
            if step == crash_after {
                stage.crash();
            }
            if let Some(notice) = stage.notices.pop_front() {
                stage.deliver(&notice);
            } else if !stage.calls.is_empty() {
                stage.answer(0);
            }
        }
        stage.settle();
        stage.tell_all();
        stage.settle();
        all_show(&stage, "c-1", r#"{"a":2,"b":2}"#);
        assert_eq!(stage.stores["alpha"].creates, 1);
    }
}

#[test]
fn an_undecided_field_stays_as_it_is_on_both_sides_until_an_operator_decides() {
    for (winner, expected) in [
        (Winner::SystemA, r#"{"a":"ours","b":2}"#),
        (Winner::Provider, r#"{"a":"theirs","b":2}"#),
    ] {
        let mut stage = two(Rule::Manual);
        stage.edit_here("c-1", r#"{"a":"first","b":1}"#);
        stage.settle();
        stage.edit_there("alpha", "r1", r#"{"a":"theirs"}"#);
        let notice = stage.notices.pop_front().unwrap();
        stage.deliver(&notice);
        stage.edit_here("c-1", r#"{"a":"ours","b":2}"#);
        stage.settle();
        let conflicts = stage.conflicts();
        assert_eq!(conflicts.len(), 1, "{conflicts:?}");
        let (field, held) = &conflicts[0].held[0];
        assert_eq!(field, "/a");
        assert_eq!(
            (held.ours.as_str(), held.theirs.as_str()),
            (r#""ours""#, r#""theirs""#)
        );
        assert_eq!(stage.view(SYSTEM_A)["c-1"], r#"{"a":"ours","b":2}"#);
        assert_eq!(stage.view("alpha")["c-1"], r#"{"a":"theirs","b":2}"#);

        stage.crash();
        stage.resolve(&conflicts[0], winner);
        stage.settle();
        all_show(&stage, "c-1", expected);
        assert_eq!(stage.conflicts(), []);
    }
}

#[test]
fn of_two_records_merged_there_one_is_left_everywhere() {
    for shards in [1, 2, 4] {
        let mut stage = Stage::new(&["alpha", "beta"], shards, &policy(Rule::LastWriteWins));
        stage.edit_here("c-1", r#"{"a":1}"#);
        stage.edit_here("c-2", r#"{"a":2,"b":2}"#);
        stage.settle();
        let ids: Vec<String> = stage.stores["alpha"].records.keys().cloned().collect();
        stage.merge_there("alpha", &ids[1], &ids[0]);
        stage.settle();
        let (left, _) = stage.view("alpha").pop_first().unwrap();
        all_show(&stage, &left, r#"{"a":1,"b":2}"#);
        assert_eq!(stage.dead(), []);
    }
}

#[test]
fn a_record_follows_into_one_that_nobody_knew() {
    for shards in [1, 2, 4] {
        let mut stage = Stage::new(&["alpha", "beta"], shards, &policy(Rule::LastWriteWins));
        stage.edit_here("c-1", r#"{"a":1}"#);
        stage.settle();
        let stays = stage.make_there("alpha", r#"{"b":2}"#);
        // Nobody has heard of it yet.
        stage.notices.clear();
        stage.merge_there("alpha", "r1", &stays);
        stage.notices.make_contiguous().reverse();
        let merged = stage.notices.pop_back().unwrap();
        stage.deliver(&merged);
        stage.settle();
        stage.edit_here("c-1", r#"{"c":3}"#);
        stage.settle();
        assert_eq!(stage.view(SYSTEM_A)["c-1"], r#"{"a":1,"b":2,"c":3}"#);
        let there = stage.view("alpha");
        assert_eq!(there.len(), 1, "{there:?}");
        assert_eq!(
            there.into_values().next().unwrap(),
            r#"{"a":1,"b":2,"c":3}"#
        );
        assert_eq!(stage.view("beta")["c-1"], r#"{"a":1,"b":2,"c":3}"#);
        assert_eq!(stage.dead(), []);
    }
}

#[test]
fn what_system_a_says_of_a_merged_record_goes_on_to_the_one_that_stays() {
    for shards in [1, 4] {
        for crash_after in 0..8 {
            let mut stage = Stage::new(&["alpha"], shards, &policy(Rule::LastWriteWins));
            stage.edit_here("c-1", r#"{"a":1}"#);
            stage.settle();
            stage.edit_here("c-2", r#"{"b":1}"#);
            stage.settle();
            stage.merge_there("alpha", "r2", "r1");
            let merged = stage.notices.pop_front().unwrap();
            // It changes while the word of the merge is under way.
            stage.deliver(&merged);
            stage.edit_here("c-2", r#"{"b":2}"#);
            for step in 0..8 {
                if step == crash_after {
                    stage.crash();
                }
                if let Some(notice) = stage.notices.pop_front() {
                    stage.deliver(&notice);
                } else if !stage.calls.is_empty() {
                    stage.answer(0);
                }
            }
            stage.settle();
            stage.tell_all();
            stage.settle();
            assert_eq!(stage.view("alpha"), stage.view(SYSTEM_A), "{crash_after}");
            assert_eq!(stage.view("alpha").len(), 1);
        }
    }
}

#[test]
fn a_record_that_is_taken_out_of_the_bin_is_back_everywhere() {
    let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::LastWriteWins));
    stage.edit_here("c-1", r#"{"a":1,"b":1}"#);
    stage.settle();
    stage.delete_there("alpha", "r1");
    stage.settle();
    assert!(stage.view(SYSTEM_A).is_empty() && stage.view("beta").is_empty());
    stage.restore_there("alpha", "r1");
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":1,"b":1}"#);
    stage.edit_here("c-1", r#"{"b":2}"#);
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":1,"b":2}"#);
    assert_eq!(stage.dead(), []);
}

#[test]
fn an_older_word_of_a_restore_brings_nothing_back() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"a":1}"#);
    stage.settle();
    stage.delete_there("alpha", "r1");
    stage.restore_there("alpha", "r1");
    let restored = stage.notices.pop_back().unwrap();
    stage.settle();
    stage.delete_here("c-1");
    stage.settle();
    stage.deliver(&restored);
    stage.settle();
    for side in stage.stores.keys() {
        assert!(
            stage.view(side).is_empty(),
            "{side}: {:?}",
            stage.view(side)
        );
    }
}

#[test]
fn a_word_of_system_a_that_waited_in_its_outbox_is_compared_with_what_it_heard_since() {
    for (rule, expected) in [
        (Rule::Provider, r#"{"name":"theirs"}"#),
        (Rule::SystemA, r#"{"name":"ours"}"#),
        (Rule::LastWriteWins, r#"{"name":"theirs"}"#),
    ] {
        for crash in [false, true] {
            let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(rule.clone()));
            stage.edit_here("c-1", r#"{"name":"first"}"#);
            stage.settle();
            let waits = stage.write_here("c-1", r#"{"name":"ours"}"#);
            stage.edit_there("alpha", "r1", r#"{"name":"theirs"}"#);
            stage.settle();
            if crash {
                stage.crash();
            }
            stage.say_late("c-1", r#"{"name":"ours"}"#, waits);
            stage.settle();
            all_show(&stage, "c-1", expected);
        }
    }
}

#[test]
fn a_list_from_before_the_clock_was_set_is_read_again() {
    let mut stage = two(Rule::LastWriteWins);
    stage.lists = true;
    stage.edit_here("c-1", r#"{"name":"first"}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"other":1}"#);
    let mut stale = stage.notices.pop_front().unwrap();
    stage.edit_here("c-1", r#"{"name":"second"}"#);
    stage.settle();
    stage.set_clock(3_600_000);
    // It was asked for before the write, by a clock that runs ahead since.
    stale.at_ms = stage.wall_ms() - 10;
    stage.deliver(&stale);
    stage.settle();
    all_show(&stage, "c-1", r#"{"name":"second","other":1}"#);
}

#[test]
fn a_field_within_a_field_is_cleared() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"address":{"zip":"1"},"name":"Ada"}"#);
    stage.settle();
    stage.clear_there("alpha", "r1", "/address/zip", "/address");
    stage.settle();
    assert_eq!(stage.view(SYSTEM_A)["c-1"], r#"{"name":"Ada"}"#);
    let writes = stage.stores["alpha"].writes;
    stage.tell_all();
    stage.settle();
    assert_eq!(stage.stores["alpha"].writes, writes);
}

#[test]
fn a_delete_there_takes_along_what_waits_for_it() {
    let mut stage = Stage::new(&["alpha", "beta"], 2, &policy(Rule::LastWriteWins));
    stage.edit_here("c-1", r#"{"a":1,"b":1}"#);
    stage.settle();
    stage.delete_there("alpha", "r1");
    let gone = stage.notices.pop_front().unwrap();
    stage.deliver(&gone);
    stage.say(r#"{"operation":"UPSERT","record_id":"c-1","data":{"a":2}}"#);
    stage.settle();
    for side in stage.stores.keys() {
        let view = stage.view(side);
        assert_eq!(
            view.contains_key("c-1"),
            stage.view(SYSTEM_A).contains_key("c-1"),
            "{side}"
        );
    }
}

#[test]
fn notices_that_wait_behind_one_another_are_looked_at_once() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"a":1}"#);
    stage.settle();
    // A write is under way while somebody edits three times.
    stage.edit_here("c-1", r#"{"b":1}"#);
    for n in 2..5 {
        stage.edit_there("alpha", "r1", &format!(r#"{{"a":{n}}}"#));
    }
    let reads = stage.reads;
    while let Some(notice) = stage.notices.pop_front() {
        stage.deliver(&notice);
    }
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":4,"b":1}"#);
    // One for the notices that waited, one for the word of the write.
    assert!(stage.reads - reads <= 2, "{}", stage.reads - reads);
}

#[test]
fn a_decision_for_the_account_outlasts_the_change_that_waits_there() {
    let mut stage = two(Rule::Manual);
    stage.edit_here("c-1", r#"{"a":"first","b":1}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"a":"theirs"}"#);
    let notice = stage.notices.pop_front().unwrap();
    stage.deliver(&notice);
    stage.edit_here("c-1", r#"{"a":"ours"}"#);
    // The read finds the conflict; what System A said waits behind it.
    stage.answer(0);
    let conflicts = stage.conflicts();
    stage.edit_here("c-1", r#"{"b":2}"#);
    stage.resolve(&conflicts[0], Winner::Provider);
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":"theirs","b":2}"#);
}

#[test]
fn a_record_that_was_merged_there_and_is_restored_elsewhere_is_its_own_again() {
    for shards in [1, 2, 4] {
        let mut stage = Stage::new(&["alpha", "beta"], shards, &policy(Rule::LastWriteWins));
        stage.edit_here("c-1", r#"{"a":1}"#);
        stage.settle();
        stage.edit_here("c-2", r#"{"a":2}"#);
        stage.settle();
        stage.merge_there("alpha", "r1", "r2");
        stage.settle();
        for side in stage.stores.keys() {
            assert!(!stage.view(side).contains_key("c-1"), "{side}");
        }
        stage.restore_there("beta", "r1");
        stage.settle();
        stage.tell_all();
        stage.settle();
        for side in stage.stores.keys() {
            let view = stage.view(side);
            let view: Vec<(&str, &str)> = view.iter().map(|(a, b)| (&**a, &**b)).collect();
            let both = [("c-1", r#"{"a":1}"#), ("c-2", r#"{"a":2}"#)];
            assert_eq!(view, both, "{side}, {shards} shards");
        }
        stage.edit_here("c-1", r#"{"a":3}"#);
        stage.settle();
        assert_eq!(stage.view("alpha")["c-1"], r#"{"a":3}"#);
        assert_eq!(stage.view("alpha")["c-2"], r#"{"a":2}"#);
        assert_eq!(stage.dead(), []);
    }
}

#[test]
fn what_was_handed_over_before_a_crash_is_not_looked_at_twice() {
    let mut stage = Stage::new(&["alpha"], 4, &policy(Rule::LastWriteWins));
    let elsewhere = |id: &String| stage.owner_of(id) != stage.owner_of("alpha:r1");
    let id = (1..).map(|n| format!("c-{n}")).find(elsewhere).unwrap();
    stage.edit_here(&id, r#"{"a":1}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"a":2}"#);
    let notice = stage.notices.pop_front().unwrap();
    stage.deaf = true;
    stage.deliver(&notice);
    stage.settle();
    all_show(&stage, &id, r#"{"a":2}"#);
    // Nobody has told of this one, when what was handed over is, again.
    stage.edit_there("alpha", "r1", r#"{"a":3}"#);
    let untold = stage.notices.pop_front().unwrap();
    let reads = stage.reads;
    stage.crash();
    stage.deaf = false;
    stage.settle();
    assert_eq!(stage.reads, reads);
    // The one that hears nothing in this life either hands it over in the next.
    stage.crash();
    stage.settle();
    assert_eq!(stage.reads, reads);
    stage.deliver(&untold);
    stage.settle();
    all_show(&stage, &id, r#"{"a":3}"#);
}

#[test]
fn a_change_that_is_told_again_after_a_crash_is_told_in_the_same_words() {
    let mut stage = two(Rule::LastWriteWins);
    stage.edit_here("c-1", r#"{"a":1}"#);
    stage.settle();
    stage.edit_there("alpha", "r1", r#"{"a":2}"#);
    let notice = stage.notices.pop_front().unwrap();
    stage.deliver(&notice);
    stage.answer(0);
    let told = |stage: &Stage| {
        let calls = stage.calls.iter().filter(|call| call.account == SYSTEM_A);
        let told: Vec<_> = calls
            .map(|call| {
                let key = call.request.idempotency_key.clone().unwrap();
                (key, String::from_utf8(call.request.body.to_vec()).unwrap())
            })
            .collect();
        told
    };
    let before = told(&stage);
    assert!(before[0].1.contains(r#""remote_id":"r1""#), "{before:?}");
    // Before it is heard there, the record becomes part of another one, and is linked to that.
    let stays = stage.make_there("alpha", r#"{"b":1}"#);
    stage.notices.clear();
    stage.merge_there("alpha", "r1", &stays);
    let merged = stage.notices.pop_front().unwrap();
    stage.deliver(&merged);
    stage.crash();
    assert_eq!(told(&stage), before);
    stage.settle();
    assert_eq!(stage.view(SYSTEM_A)["c-1"], r#"{"a":2,"b":1}"#);
}

#[test]
fn system_a_is_told_which_account_each_field_comes_from() {
    let mut stage = Stage::new(&["alpha", "beta"], 1, &policy(Rule::Provider));
    stage.edit_here("c-1", r#"{"a":1,"b":1,"c":1}"#);
    stage.settle();
    let waits = stage.write_here("c-1", r#"{"a":2,"b":2,"c":2}"#);
    stage.edit_there("alpha", "r1", r#"{"a":3}"#);
    stage.edit_there("beta", "r1", r#"{"b":4}"#);
    stage.settle();
    // It said this before it heard of either.
    stage.say_late("c-1", r#"{"a":2,"b":2,"c":2}"#, waits);
    let mut told = Vec::new();
    while let Some(at) = (0..stage.calls.len()).next() {
        if stage.calls[at].account == SYSTEM_A {
            told.push(String::from_utf8(stage.calls[at].request.body.to_vec()).unwrap());
        }
        stage.answer(at);
    }
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = r#""origin":"system_a","origins":{"/a":"alpha","/b":"beta"}"#;
    assert!(told[0].contains(expected), "{told:?}");
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":3,"b":4,"c":2}"#);
}

#[test]
fn waiting_changes_of_two_accounts_are_told_in_one_with_where_each_comes_from() {
    let mut stage = Stage::new(&["alpha", "beta"], 1, &policy(Rule::LastWriteWins));
    stage.edit_here("c-1", r#"{"a":1,"b":1,"c":1}"#);
    stage.settle();
    // The first one is under way while the others come.
    for (account, patch) in [
        ("alpha", r#"{"c":2}"#),
        ("alpha", r#"{"a":2}"#),
        ("beta", r#"{"b":2}"#),
    ] {
        stage.edit_there(account, "r1", patch);
        let notice = stage.notices.pop_front().unwrap();
        stage.deliver(&notice);
        let elsewhere = |stage: &Stage| {
            let mut calls = stage.calls.iter();
            calls.position(|call| call.account != SYSTEM_A)
        };
        while let Some(at) = elsewhere(&stage) {
            stage.answer(at);
        }
        stage.notices.clear();
    }
    let first = stage.calls.iter().position(|call| call.account == SYSTEM_A);
    stage.answer(first.unwrap());
    let told = stage.calls.iter().find(|call| call.account == SYSTEM_A);
    let told = String::from_utf8(told.unwrap().request.body.to_vec()).unwrap();
    assert!(
        told.contains(
            r#""provider":"alpha","remote_id":"r1","origin":"alpha","origins":{"/b":"beta"}"#
        ),
        "{told}"
    );
    stage.settle();
    all_show(&stage, "c-1", r#"{"a":2,"b":2,"c":2}"#);
}
