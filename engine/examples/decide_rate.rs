//! Nanoseconds to hold a 400-byte event to a schema, to decide a rule and to map it, on one core:
//! `cargo run --release -p syncline-engine --example decide_rate`.
#![expect(
    clippy::disallowed_methods,
    reason = "a stopwatch around the pure core, not inside it"
)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use syncline_engine::event::{self, Defaults, Surface, Target, TargetAction, Targets};
use syncline_engine::json::Scratch;
use syncline_engine::mapping::{FieldSettings, Mapping, MappingSettings, Write, keep_reference};
use syncline_engine::rules::{RuleAction, RuleSet, RuleSettings};
use syncline_engine::schema::Schema;

const LINE: &[u8] = br#"{"operation":"UPDATE","provider":"crm","object":"contact","record_id":"c-42-0001934","event_id":"01J9ZK3V8Q6T4W2X0Y1A5B7C9D","changed_at":"2026-11-20T10:00:00.123Z","priority":5,"seq":1934,"data":{"first_name":"Ada","last_name":"Lovelace","email":"ada.lovelace@example.com","status":"active","city":"London","score":97.25,"visits":1842,"newsletter":true,"tags":["vip","press"],"note":null,"owner":"u-17"}}"#;

const SCHEMA: &str = r#"{"type":"object","required":["email"],"properties":{
    "email":{"type":"string","format":"email"},"status":{"enum":["active","inactive"]},
    "visits":{"type":"integer","minimum":0},"tags":{"type":"array","items":{"type":"string"}}}}"#;

const ROUND: Duration = Duration::from_millis(300);
const ROUNDS: usize = 5;

fn main() {
    let mut scratch = Scratch::new();
    let event = event::parse(LINE, &mut scratch, &Defaults::default(), Surface::Stream);
    let mut event = event.expect("a valid line");
    let targets = Targets::from_iter([Target {
        name: "crm",
        action: TargetAction::Sync,
        rule: 0,
    }]);
    let schema = Schema::compile(SCHEMA).expect("a valid schema");
    report("schema", || {
        schema.check(black_box(&event)).expect("it fits");
    });
    let shorthand = RuleSettings {
        required_fields: vec!["email".to_owned()],
        disallow_if: vec!["do_not_sync".to_owned()],
        ..RuleSettings::default()
    };
    let listed = RuleSettings {
        provider: Some("crm".to_owned()),
        when: Some(r#"operation == "UPDATE" && data.status != "active""#.to_owned()),
        action: Some(RuleAction::Skip),
        ..RuleSettings::default()
    };
    for (what, rules) in [
        ("no rule", vec![]),
        ("two shorthands", vec![shorthand]),
        ("one condition", vec![listed.clone()]),
        ("ten conditions", vec![listed; 10]),
    ] {
        let set = RuleSet::compile(1, &rules).expect("a valid set");
        report(what, || {
            let routed = set.route(black_box(&mut event), &targets, |_, _, _| None);
            black_box(routed).expect("no rule rejects it");
        });
    }
    let field = |local: &str, convert: &[&str]| FieldSettings {
        local: local.to_owned(),
        remote: local.to_uppercase(),
        convert: convert.iter().map(|&name| name.to_owned()).collect(),
        lossy: true,
        ..FieldSettings::default()
    };
    let settings = MappingSettings {
        remote: "Contact".to_owned(),
        external_id: None,
        fields: vec![
            field("first_name", &[]),
            field("last_name", &[]),
            field("email", &["trim", "lowercase"]),
            field("city", &["truncate:40"]),
            field("visits", &["text"]),
            field("tags", &["join:;"]),
        ],
        match_keys: Vec::new(),
        deleted: None,
    };
    let mapping = Mapping::compile("contact", &settings).expect("a valid mapping");
    let data = event.data.expect("it has data");
    let mut out = Vec::new();
    report("six fields", || {
        out.clear();
        let written = mapping.apply(black_box(data), Write::Update, &keep_reference, &mut out);
        black_box(written).expect("it maps");
    });
}

/// Best and median of a few rounds: the best is the code, the spread is the machine.
fn report(what: &str, mut step: impl FnMut()) {
    let mut nanos: Vec<f64> = (0..ROUNDS).map(|_| round(&mut step)).collect();
    nanos.sort_by(f64::total_cmp);
    println!(
        "{what:>16}: best {:6.0} ns, median {:6.0} ns",
        nanos[0],
        nanos[ROUNDS / 2]
    );
}

fn round(step: &mut impl FnMut()) -> f64 {
    let (start, mut steps) = (Instant::now(), 0_u32);
    while start.elapsed() < ROUND {
        for _ in 0..1_000 {
            step();
        }
        steps += 1_000;
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(steps)
}
