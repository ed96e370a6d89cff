//! Rules decide what becomes of an event at each account: shorthands first, then the first match.
#![allow(clippy::unwrap_used, reason = "what a test did not expect ends it")]

use proptest::prelude::*;
use syncline_engine::event::codec::AcceptedEvent;
use syncline_engine::event::{
    Defaults, Event, Operation, Priority, Surface, Target, TargetAction, Targets, parse,
};
use syncline_engine::json::{RawObject, Scratch};
use syncline_engine::mapping::{MapFailure, MapFailureCause, Write};
use syncline_engine::refusal::{Code, Refusal};
use syncline_engine::rules::{
    Action, RULES_MAX, RuleAction, RuleError, RuleInput, RuleOutcome, RuleSet, RuleSettings, Trial,
};

fn when(when: &str, action: RuleAction) -> RuleSettings {
    RuleSettings {
        when: Some(when.to_owned()),
        action: Some(action),
        ..RuleSettings::default()
    }
}

fn at(provider: &str, rule: RuleSettings) -> RuleSettings {
    RuleSettings {
        provider: Some(provider.to_owned()),
        ..rule
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn set(rules: &[RuleSettings]) -> RuleSet {
    RuleSet::compile(7, rules).unwrap()
}

fn input<'a>(operation: Operation, provider: &'a str, data: &'a str) -> RuleInput<'a> {
    let data = Some(RawObject::new(data).unwrap());
    RuleInput {
        operation,
        object: "contact",
        provider,
        record_id: "c-42",
        data,
        changed: data,
        before: None,
        linked: None,
    }
}

fn decide(set: &RuleSet, operation: Operation, provider: &str, data: &str) -> RuleOutcome {
    set.decide(&input(operation, provider, data))
}

fn action(set: &RuleSet, operation: Operation, provider: &str, data: &str) -> Action {
    decide(set, operation, provider, data).action
}

fn refused(rule: RuleSettings) -> RuleError {
    RuleSet::compile(1, &[rule]).unwrap_err()
}

/// Salesforce: all creates, updates only of active contacts. HubSpot: creates only with a
/// company, all updates. None while `do_not_sync` is set, and never without an email.
fn founding() -> RuleSet {
    let sent = |create: &str, update: &str| RuleSettings {
        create: Some(create.to_owned()),
        update: Some(update.to_owned()),
        ..RuleSettings::default()
    };
    set(&[
        RuleSettings {
            disallow_if: texts(&["do_not_sync"]),
            ..RuleSettings::default()
        },
        RuleSettings {
            required_fields: texts(&["email"]),
            ..RuleSettings::default()
        },
        at("salesforce", sent("always", "active_only")),
        at("hubspot", sent("has_company", "always")),
    ])
}

#[test]
fn the_rules_of_the_founding_documents_run() {
    use Operation::{Create, Delete, Update};
    let rules = founding();
    for (operation, provider, data, expected) in [
        (
            Create,
            "salesforce",
            r#"{"email":"a@b","status":"inactive"}"#,
            Action::Sync,
        ),
        (Update, "salesforce", r#"{"status":"active"}"#, Action::Sync),
        (
            Update,
            "salesforce",
            r#"{"status":"inactive"}"#,
            Action::Skip,
        ),
        (Update, "salesforce", r#"{"name":"Ada"}"#, Action::Sync),
        (
            Create,
            "hubspot",
            r#"{"email":"a@b","company":"ACME"}"#,
            Action::Sync,
        ),
        (
            Create,
            "hubspot",
            r#"{"email":"a@b","company_id":7}"#,
            Action::Sync,
        ),
        (
            Create,
            "hubspot",
            r#"{"email":"a@b","company":" "}"#,
            Action::Skip,
        ),
        (Create, "hubspot", r#"{"email":"a@b"}"#, Action::Skip),
        (Update, "hubspot", r#"{"status":"inactive"}"#, Action::Sync),
        (Create, "salesforce", r#"{"name":"Ada"}"#, Action::Reject),
        (
            Update,
            "salesforce",
            r#"{"email":null,"status":"active"}"#,
            Action::Reject,
        ),
        (
            Create,
            "hubspot",
            r#"{"email":"a@b","company":"A","do_not_sync":true}"#,
            Action::Skip,
        ),
        (
            Create,
            "hubspot",
            r#"{"email":"a@b","company":"A","do_not_sync":"false"}"#,
            Action::Sync,
        ),
        (Delete, "hubspot", "{}", Action::Sync),
    ] {
        assert_eq!(
            action(&rules, operation, provider, data),
            expected,
            "{operation:?} {provider} {data}"
        );
    }
}

#[test]
fn the_rule_of_the_contract_skips_inactive_contacts() {
    let rules = set(&[RuleSettings {
        provider: Some("salesforce".to_owned()),
        object: Some("contact".to_owned()),
        reason: Some("inactive contacts are not updated".to_owned()),
        ..when(
            r#"operation == "UPDATE" && data.status != "active""#,
            RuleAction::Skip,
        )
    }]);
    let inactive = r#"{"status":"inactive"}"#;
    let outcome = decide(&rules, Operation::Update, "salesforce", inactive);
    assert_eq!(outcome.action, Action::Skip);
    assert_eq!(outcome.rule, 1);
    assert_eq!(outcome.reason, "inactive contacts are not updated");
    assert_eq!(rules.reason(1), Some("inactive contacts are not updated"));
    let other = |o, p, d| action(&rules, o, p, d);
    assert_eq!(
        other(Operation::Create, "salesforce", inactive),
        Action::Sync
    );
    assert_eq!(other(Operation::Update, "hubspot", inactive), Action::Sync);
    assert_eq!(
        other(Operation::Update, "salesforce", r#"{"name":"Ada"}"#),
        Action::Sync,
        "a missing key means no match"
    );
}

#[test]
fn the_first_match_decides_and_shorthands_come_before_the_list() {
    let rules = set(&[
        when("data.a == 1", RuleAction::Sync),
        when("data.a < 3", RuleAction::Skip),
        RuleSettings {
            disallow_if: texts(&["stop"]),
            ..RuleSettings::default()
        },
    ]);
    assert_eq!(rules.version(), 7);
    let rule = |data| decide(&rules, Operation::Update, "crm", data).rule;
    assert_eq!(rule(r#"{"a":1}"#), 1);
    assert_eq!(rule(r#"{"a":2}"#), 2);
    assert_eq!(rule(r#"{"a":1,"stop":true}"#), 3);
    assert_eq!(rule(r#"{"a":9}"#), 0);
}

#[test]
fn a_rule_may_send_another_operation_or_set_the_priority() {
    let rules = set(&[
        RuleSettings {
            priority: Some(1),
            ..when("data.vip", RuleAction::Upsert)
        },
        when(
            r#"operation == "UPDATE" && data.deleted"#,
            RuleAction::Delete,
        ),
        when(r#"operation == "DELETE""#, RuleAction::Update),
        RuleSettings {
            object: Some("contact".to_owned()),
            priority: Some(9),
            ..RuleSettings::default()
        },
    ]);
    let vip = decide(&rules, Operation::Create, "crm", r#"{"vip":true}"#);
    assert_eq!(vip.action, Action::Instead(Operation::Upsert));
    assert_eq!(vip.priority, Priority::new(1));
    let same = decide(&rules, Operation::Upsert, "crm", r#"{"vip":true}"#);
    assert_eq!(same.action, Action::Sync);
    let deleted = r#"{"deleted":true}"#;
    assert_eq!(
        action(&rules, Operation::Update, "crm", deleted),
        Action::Instead(Operation::Delete)
    );
    let bare = RuleInput {
        data: None,
        changed: None,
        ..input(Operation::Delete, "crm", "{}")
    };
    assert_eq!(
        rules.decide(&bare).action,
        Action::Reject,
        "there are no fields to send"
    );
    let rest = decide(&rules, Operation::Read, "crm", "{}");
    assert_eq!(
        (rest.action, rest.priority),
        (Action::Sync, Priority::new(9))
    );
}

#[test]
fn all_that_an_event_has_can_be_asked() {
    let before = r#"{"owner":"eve","name":"Ada"}"#;
    let changed = r#"{"owner":"bob"}"#;
    let data = r#"{"owner":"bob","name":"Ada"}"#;
    let object = |text| Some(RawObject::new(text).unwrap());
    let input = RuleInput {
        data: object(data),
        changed: object(changed),
        before: object(before),
        linked: Some(true),
        ..input(Operation::Update, "crm", "{}")
    };
    for condition in [
        r#"operation == "UPDATE" && object == "contact" && provider == "crm""#,
        r#"record_id == "c-42" && linked"#,
        r#"has(changed.owner) && !has(changed.name) && "owner" in changed"#,
        r#"before.owner == "eve" && data.owner == "bob" && data.name == before.name"#,
    ] {
        let rules = set(&[when(condition, RuleAction::Skip)]);
        assert_eq!(rules.decide(&input).action, Action::Skip, "{condition}");
    }
    let linked = set(&[when("linked", RuleAction::Skip)]);
    assert!(linked.reads_linked());
    let unknown = RuleInput {
        linked: None,
        ..input
    };
    assert_eq!(linked.decide(&unknown).action, Action::Sync);
}

#[test]
fn a_required_field_is_pointed_at() {
    let rules = set(&[RuleSettings {
        required_fields: texts(&["address.city"]),
        ..RuleSettings::default()
    }]);
    let check = |operation, data, pointer: Option<&str>| {
        let outcome = decide(&rules, operation, "crm", data);
        assert_eq!(outcome.pointer.as_deref(), pointer, "{data}");
        assert_eq!(outcome.action == Action::Reject, pointer.is_some());
    };
    let place = Some("/data/address/city");
    check(Operation::Create, r#"{"address":{"city":"Paris"}}"#, None);
    check(Operation::Create, r#"{"address":{}}"#, place);
    check(Operation::Upsert, r#"{"name":"Ada"}"#, place);
    check(Operation::Update, r#"{"name":"Ada"}"#, None);
    check(Operation::Update, r#"{"address":null}"#, place);
    check(Operation::Update, r#"{"address":{"city":null}}"#, place);
    check(Operation::Delete, "{}", None);
}

#[test]
fn a_set_that_cannot_be_right_names_the_rule_and_the_key() {
    for (rule, key, detail) in [
        (RuleSettings::default(), "", "expected an `action`"),
        (when("data.a ==", RuleAction::Skip), "when", "is not CEL"),
        (
            when("x == 1", RuleAction::Skip),
            "when",
            "1:1: `x` is not known",
        ),
        (
            RuleSettings {
                action: None,
                ..when("true", RuleAction::Skip)
            },
            "when",
            "nothing follows",
        ),
        (
            RuleSettings {
                share: Some(1.5),
                ..when("true", RuleAction::Skip)
            },
            "share",
            "0 to 1",
        ),
        (
            RuleSettings {
                priority: Some(11),
                ..RuleSettings::default()
            },
            "priority",
            "1 to 10",
        ),
        (
            RuleSettings {
                share: Some(f64::NAN),
                ..when("true", RuleAction::Skip)
            },
            "share",
            "0 to 1",
        ),
        (
            RuleSettings {
                update: Some("sometimes".to_owned()),
                ..RuleSettings::default()
            },
            "UPDATE",
            "unknown condition",
        ),
        (
            RuleSettings {
                required_fields: texts(&["a..b"]),
                ..RuleSettings::default()
            },
            "required_fields",
            "expected a field",
        ),
    ] {
        let error = refused(rule);
        assert_eq!((error.rule, error.key), (0, key), "{error}");
        assert!(error.detail.contains(detail), "{error}");
    }
    let many = vec![when("true", RuleAction::Skip); RULES_MAX + 1];
    assert!(RuleSet::compile(1, &many).is_err());
    let heavy = "data.tags.exists(t, t == 'a' || t == 'b')";
    let heavy = vec![when(heavy, RuleAction::Skip); RULES_MAX];
    let error = RuleSet::compile(1, &heavy).unwrap_err();
    assert!(error.detail.contains("steps"), "{error}");
}

#[test]
fn a_switched_off_rule_is_not_there() {
    let rules = set(&[RuleSettings {
        enabled: false,
        ..when("true", RuleAction::Skip)
    }]);
    assert!(rules.is_empty());
    let rules = set(&[RuleSettings {
        share: Some(0.0),
        ..when("true", RuleAction::Skip)
    }]);
    assert_eq!(action(&rules, Operation::Create, "crm", "{}"), Action::Sync);
}

#[test]
fn a_share_takes_its_part_of_the_records_and_keeps_them_when_it_grows() {
    let skipped = |share: f64| -> Vec<u32> {
        let rules = set(&[RuleSettings {
            share: Some(share),
            ..when("true", RuleAction::Skip)
        }]);
        let is_skipped = |number: &u32| {
            let record_id = number.to_string();
            let input = RuleInput {
                record_id: &record_id,
                ..input(Operation::Create, "crm", "{}")
            };
            rules.decide(&input).action == Action::Skip
        };
        (0..10_000).filter(is_skipped).collect()
    };
    let (tenth, half) = (skipped(0.1), skipped(0.5));
    assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
    assert!((4_800..5_200).contains(&half.len()), "{}", half.len());
    assert!(tenth.iter().all(|number| half.contains(number)));
    assert_eq!(skipped(1.0).len(), 10_000);
}

fn targets<'a>(names: &[&'a str]) -> Targets<'a> {
    let target = |&name| Target {
        name,
        action: TargetAction::Sync,
        rule: 0,
    };
    names.iter().map(target).collect()
}

fn event(text: &str) -> Event<'_> {
    let mut scratch = Scratch::new();
    let defaults = Defaults::default();
    parse(text.as_bytes(), &mut scratch, &defaults, Surface::Stream).unwrap()
}

/// No mapping requires anything.
fn route<'t>(
    rules: &RuleSet,
    event: &mut Event<'_>,
    targets: &Targets<'t>,
) -> Result<Targets<'t>, Refusal> {
    rules.route(event, targets, |_, _, _| None)
}

#[test]
fn what_a_mapping_requires_is_asked_of_what_is_sent() {
    let rules = set(&[at("b", when("data.n == 1", RuleAction::Skip))]);
    let lacks = |_: &Event<'_>, account: &str, write: Write| {
        (account == "b" && write == Write::Create).then(|| MapFailure {
            cause: MapFailureCause::Required,
            pointer: "/data/email".to_owned(),
            detail: "a required field is absent or null".into(),
        })
    };
    let actions = |text: &str, names: &[&str]| {
        let routed = rules.route(&mut event(text), &targets(names), lacks);
        routed.map(|routed| routed.iter().map(|t| t.action).collect::<Vec<_>>())
    };
    let create = r#"{"op":"CREATE","record_id":"1","data":{"n":2}}"#;
    let both = actions(create, &["a", "b"]).unwrap();
    assert_eq!(both, [TargetAction::Sync, TargetAction::Skip]);
    let refusal = actions(create, &["b"]).unwrap_err();
    assert_eq!(refusal.code, Code::RuleRejected);
    assert_eq!(refusal.pointer.as_deref(), Some("/data/email"));
    let skipped = r#"{"op":"CREATE","record_id":"1","data":{"n":1}}"#;
    assert_eq!(actions(skipped, &["b"]).unwrap(), [TargetAction::Skip]);
}

#[test]
fn an_event_is_refused_only_when_every_account_rejects_it() {
    let rules = set(&[
        RuleSettings {
            reason: Some("no such contacts".to_owned()),
            ..at("a", when("data.bad", RuleAction::Reject))
        },
        at("b", when("data.bad && data.worse", RuleAction::Reject)),
        at("c", when("data.worse", RuleAction::Skip)),
    ]);
    let both = targets(&["a", "b"]);
    let mut bad = event(r#"{"op":"UPDATE","record_id":"1","data":{"bad":true}}"#);
    let routed = route(&rules, &mut bad, &both).unwrap();
    let actions: Vec<_> = routed.iter().map(|t| (t.name, t.action, t.rule)).collect();
    assert_eq!(
        actions,
        [("a", TargetAction::Skip, 1), ("b", TargetAction::Sync, 0)]
    );
    let worse = r#"{"op":"UPDATE","record_id":"1","data":{"bad":true,"worse":true}}"#;
    let refusal = route(&rules, &mut event(worse), &both).unwrap_err();
    assert_eq!(refusal.code, Code::RuleRejected);
    assert_eq!(refusal.detail, "no such contacts");
    let skipped_too = route(&rules, &mut event(worse), &targets(&["a", "b", "c"]));
    assert!(
        skipped_too.is_ok(),
        "an account that skips it does not reject it"
    );
}

#[test]
fn the_best_priority_of_the_accounts_that_get_it_holds() {
    let prioritised = |provider, priority| {
        at(
            provider,
            RuleSettings {
                priority: Some(priority),
                ..RuleSettings::default()
            },
        )
    };
    let rules = set(&[
        at("c", when("true", RuleAction::Skip)),
        prioritised("a", 7),
        prioritised("b", 3),
        prioritised("c", 1),
    ]);
    let text = r#"{"op":"UPDATE","record_id":"1","priority":9,"data":{}}"#;
    let mut event = event(text);
    route(&rules, &mut event, &targets(&["a", "b", "c"])).unwrap();
    assert_eq!(event.priority.get(), 3);
    route(&rules, &mut event, &targets(&["d"])).unwrap();
    assert_eq!(event.priority.get(), 3, "no rule, no change");
}

#[test]
fn the_record_is_what_was_before_with_the_change_applied() {
    let rules = set(&[when(
        r#"data.name == "Ada" && data.status == "left" && !has(data.phone)"#,
        RuleAction::Skip,
    )]);
    let text = r#"{"op":"UPDATE","record_id":"1",
        "before":{"name":"Ada","status":"here","phone":"1"},
        "data":{"status":"left","phone":null}}"#;
    let routed = route(&rules, &mut event(text), &targets(&["a"])).unwrap();
    assert_eq!(routed.iter().next().unwrap().action, TargetAction::Skip);
    let deleted = r#"{"op":"DELETE","record_id":"1","before":{"name":"Ada","status":"left"}}"#;
    let routed = route(&rules, &mut event(deleted), &targets(&["a"])).unwrap();
    assert_eq!(routed.iter().next().unwrap().action, TargetAction::Skip);
}

#[test]
fn a_trial_tells_what_another_set_would_change() {
    let texts: Vec<String> = (0..10)
        .map(|n| format!(r#"{{"op":"UPDATE","record_id":"{n}","data":{{"n":{n}}}}}"#))
        .collect();
    let accepted = |text| AcceptedEvent {
        event: event(text),
        operation_seq: 0,
        record_hash: 0,
        accepted_at_ms: 0,
        producer: None,
        dedup: None,
        targets: targets(&["a"]),
        rules_version: 1,
        mapping_version: 0,
    };
    let events = || texts.iter().map(|text| accepted(text));
    let old = set(&[when("data.n == 0", RuleAction::Skip)]);
    let new = |limit: u32| set(&[when(&format!("data.n < {limit}"), RuleAction::Delete)]);
    let trial = Trial::run(&old, &new(3), events());
    assert_eq!((trial.decisions, trial.changed), (10, 3));
    assert_eq!((trial.before.skipped, trial.after.deleted), (1, 3));
    assert!((trial.share_changed() - 0.3).abs() < 1e-9);
    assert!((trial.points_more_withheld() - 20.0).abs() < 1e-9);
    assert!(!trial.needs_force(), "exactly 20 points are let through");
    assert_eq!(trial.examples.len(), 3);
    assert_eq!(trial.examples[0].before, Action::Skip);
    assert!(Trial::run(&old, &new(4), events()).needs_force());
    let nothing = Trial::run(&old, &new(9), std::iter::empty());
    assert!(!nothing.needs_force());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_condition_is_refused_or_decides(source in "[a-z.()\"'<>=!&|+ 0-9,\\[\\]]{0,40}") {
        if let Ok(rules) = RuleSet::compile(1, &[when(&source, RuleAction::Skip)]) {
            let _outcome = decide(&rules, Operation::Update, "crm", r#"{"a":[1,{"b":2}]}"#);
        }
    }
}
