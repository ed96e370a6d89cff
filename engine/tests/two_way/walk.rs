//! What a walk asks of the shards: who is linked, what differs, and what nobody was told of yet.

use syncline_engine::merge::{ConflictPolicy, Fields};
use syncline_engine::shard::{
    Command, CommandReply, Comparison, EventBatch, LinkFilter, LinkName, LinkStep, Listed,
    SYSTEM_A, provisional_id,
};

use super::stage::{OBJECT, Stage};

fn stage() -> Stage {
    Stage::new(&["alpha"], 2, &ConflictPolicy::default())
}

/// The links, a record at a time, over all shards.
fn links(stage: &mut Stage) -> Vec<(String, String)> {
    let filter = LinkFilter {
        object: Some(OBJECT.to_owned()),
        account: Some("alpha".to_owned()),
    };
    let mut found = Vec::new();
    for at in 0..stage.shards_len() {
        let mut from = None;
        loop {
            let slice = stage.at(at, |_, shard, log| shard.links_in(log, &filter, from, 1));
            assert_eq!(slice.unreadable, 0);
            let links = slice.links.into_iter();
            found.extend(links.map(|link| (link.record_id, link.remote_id)));
            from = slice.next;
            if from.is_none() {
                break;
            }
        }
    }
    found.sort();
    found
}

fn pair(record_id: &str, remote_id: &str) -> (String, String) {
    (record_id.to_owned(), remote_id.to_owned())
}

fn step(stage: &mut Stage, record_id: &str, step: LinkStep) -> usize {
    match stage.command(record_id, Command::Link(step)) {
        CommandReply::Done { matched } => matched,
        other => panic!("{other:?}"),
    }
}

fn name(record_id: &str, remote_id: &str) -> LinkName {
    LinkName {
        account: "alpha".into(),
        object: OBJECT.to_owned(),
        provisional: provisional_id("alpha", remote_id),
        record_id: record_id.to_owned(),
    }
}

fn set(record_id: &str, remote_id: Option<&str>) -> LinkStep {
    LinkStep::Set {
        account: "alpha".into(),
        object: OBJECT.to_owned(),
        record_id: record_id.to_owned(),
        remote_id: remote_id.map(str::to_owned),
        claimed: remote_id.map_or_else(String::new, |id| provisional_id("alpha", id)),
    }
}

fn compare(stage: &mut Stage, record_id: &str, remote_id: &str, fields: &str) -> Comparison {
    let listed = Listed {
        record_id: record_id.to_owned(),
        remote_id: remote_id.to_owned(),
        fields: fields.into(),
        changed_at_ms: 1,
        read_at_ms: i64::MAX,
    };
    stage.owner(record_id, |now, shard, log| {
        shard.compare(now, log, "alpha", OBJECT, &listed)
    })
}

#[test]
fn links_of_every_shard_are_listed_once_and_an_accounts_own_ids_are_none() {
    let mut stage = stage();
    for id in ["c-1", "c-2", "c-3"] {
        stage.edit_here(id, r#"{"name":"Ada"}"#);
    }
    stage.settle();
    let made = stage.make_there("alpha", r#"{"name":"Bob"}"#);
    stage.settle();
    let found = links(&mut stage);
    assert_eq!(found.len(), 4, "{found:?}");
    assert!(found.contains(&pair(&format!("alpha:{made}"), &made)));
    stage.delete_here("c-2");
    stage.settle();
    assert_eq!(links(&mut stage).len(), 3);
}

#[test]
fn a_link_moves_by_steps_and_what_the_account_tells_follows_it_also_after_a_crash() {
    let mut stage = stage();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    stage.edit_here("c-2", r#"{"name":"Bob"}"#);
    stage.settle();
    let found = links(&mut stage);
    let of = |id: &str| {
        found
            .iter()
            .find(|(record, _)| record == id)
            .unwrap()
            .1
            .clone()
    };
    let (first, second) = (of("c-1"), of("c-2"));
    let own = provisional_id("alpha", &first);
    let claim = LinkStep::Claim(name("c-2", &first));
    assert_eq!(step(&mut stage, &own, claim.clone()), 0, "it is another's");

    assert_eq!(step(&mut stage, "c-1", set("c-1", None)), 1);
    let given = LinkStep::GiveUp(name("c-1", &first));
    assert_eq!(step(&mut stage, &own, given), 1);
    assert_eq!(step(&mut stage, &own, claim), 1);
    assert_eq!(step(&mut stage, "c-2", set("c-2", Some(&first))), 1);
    let given = LinkStep::GiveUp(name("c-2", &second));
    assert_eq!(
        step(&mut stage, &provisional_id("alpha", &second), given),
        1
    );
    stage.crash();
    assert_eq!(links(&mut stage), [pair("c-2", &first)]);
    stage.edit_there("alpha", &first, r#"{"name":"Carol"}"#);
    stage.settle();
    let told = stage.stores[SYSTEM_A].records["c-2"].fields.to_json();
    assert_eq!(told, r#"{"name":"Carol"}"#);
}

#[test]
fn a_link_is_not_set_while_a_call_of_the_record_is_under_way() {
    let mut stage = stage();
    stage.edit_here("c-1", r#"{"name":"Ada"}"#);
    assert_eq!(stage.calls.len(), 1);
    assert_eq!(step(&mut stage, "c-1", set("c-1", Some("r9"))), 0);
    stage.settle();
    assert_eq!(step(&mut stage, "c-1", set("c-1", Some("r9"))), 1);
}

#[test]
fn what_is_listed_is_compared_with_what_both_sides_agreed_on() {
    let mut stage = stage();
    stage.edit_here("c-1", r#"{"name":"Ada","age":1}"#);
    stage.settle();
    let (record_id, remote_id) = links(&mut stage).remove(0);
    let same = compare(
        &mut stage,
        &record_id,
        &remote_id,
        r#"{"name":"Ada","age":1}"#,
    );
    let equal = Comparison {
        linked: true,
        ..Comparison::default()
    };
    assert_eq!(same, equal);
    let other = compare(&mut stage, &record_id, &remote_id, r#"{"name":"Eve"}"#);
    assert_eq!(
        other.differs,
        ["/age", "/name"],
        "a whole record clears what it lacks"
    );
    let again = compare(
        &mut stage,
        &record_id,
        &remote_id,
        r#"{"name":"Ada","age":1}"#,
    );
    assert_eq!(again, equal, "looking changes nothing");
    assert!(!compare(&mut stage, &record_id, "r9", "{}").linked);
    stage.edit_here("c-1", r#"{"age":2}"#);
    assert!(compare(&mut stage, &record_id, &remote_id, "{}").waits);
    let provisional = provisional_id("alpha", &remote_id);
    let whose = stage.owner(&provisional, |_, shard, log| {
        shard.whose(log, "alpha", OBJECT, &remote_id)
    });
    assert_eq!(whose.as_deref(), Some("c-1"));
}

#[test]
fn a_row_is_compared_with_what_both_sides_agreed_on() {
    let mut stage = stage();
    stage.edit_here("c-1", r#"{"name":"Ada","age":1}"#);
    stage.settle();
    let mut row = |id: &str, row: &str| {
        let row = Fields::parse(row);
        stage.owner(id, |_, shard, log| {
            shard.compare_row(log, "alpha", OBJECT, id, &row)
        })
    };
    assert_eq!(
        row("c-1", r#"{"name":"Ada","age":1}"#).differs,
        Vec::<String>::new()
    );
    assert_eq!(
        row("c-1", r#"{"name":"Ada","city":"Rome"}"#).differs,
        ["/age", "/city"]
    );
    assert!(!row("c-9", r#"{"name":"Ada"}"#).linked);
}

#[test]
fn a_first_load_passes_over_what_anybody_said_already() {
    let mut stage = stage();
    stage.edit_here("c-1", r#"{"name":"newer"}"#);
    for (id, done) in [("c-1", 0), ("c-2", 1), ("c-2", 0)] {
        let mut batch = EventBatch::default();
        let event =
            format!(r#"{{"operation":"UPSERT","record_id":"{id}","data":{{"name":"older"}}}}"#);
        stage.encode_for("alpha", &event, &mut batch);
        let reply = stage.command(id, Command::Fill(batch));
        assert_eq!(reply, CommandReply::Partly { through: 1, done }, "{id}");
    }
    stage.settle();
    let view = stage.view("alpha");
    assert_eq!(view["c-1"], r#"{"name":"newer"}"#);
    assert_eq!(view["c-2"], r#"{"name":"older"}"#);
    stage.delete_here("c-2");
    stage.settle();
    let mut batch = EventBatch::default();
    let event = r#"{"operation":"UPSERT","record_id":"c-2","data":{"name":"older"}}"#;
    stage.encode_for("alpha", event, &mut batch);
    let reply = stage.command("c-2", Command::Fill(batch));
    let passed = CommandReply::Partly {
        through: 1,
        done: 0,
    };
    assert_eq!(reply, passed, "a delete is not undone");
}
