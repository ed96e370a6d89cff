//! What sets a seed comes with.

use std::collections::BTreeMap;

use engine::event::Operation;
use engine::mapping::{Direction, OnNull};
use engine::rules::RuleAction;

use super::ByAccount;
use super::mapping::{
    AccountMappings, Conversion, FieldMapping, MappingFlaw, MappingSet, ObjectMapping,
};
use super::rules::{Only, OwnRule, RuleFlaw, RuleList, Test};
use crate::sim::dice::Dice;
use crate::sim::options::AccountOptions;

/// Sets that follow the first, at most.
const CHANGES_MAX: u64 = 5;
/// Of those, out of a thousand, that must be refused.
const BAD: u32 = 300;

const STATUS: [&str; 3] = ["active", "lead", "gone"];

/// Mappings of all accounts, one set after the other.
pub(super) fn mapping_sets(accounts: &[AccountOptions], dice: &mut Dice) -> Vec<MappingSet> {
    // A provider's names of objects stay: what is renamed is another object.
    let objects: ByAccount<BTreeMap<&'static str, String>> = accounts
        .iter()
        .map(|account| (account.name.clone(), objects(dice)))
        .collect();
    let changes = if dice.chance(700) {
        dice.between(1, CHANGES_MAX)
    } else {
        0
    };
    let mut sets: Vec<MappingSet> = Vec::new();
    for version in 0..=changes {
        let accounts = objects.iter();
        let mut accounts: ByAccount<AccountMappings> = accounts
            .map(|(account, objects)| (account.clone(), account_mappings(objects, version, dice)))
            .collect();
        // Most changes are of one account.
        let whole = dice.chance(300);
        if let Some(before) = sets.last().filter(|_| !whole) {
            let names: Vec<String> = accounts.keys().cloned().collect();
            let changed = dice.pick::<String>(&names).clone();
            for (name, mappings) in &mut accounts {
                if *name != changed {
                    mappings.clone_from(&before.accounts[name]);
                }
            }
        }
        let bad = version > 0 && dice.chance(BAD);
        let flaw = bad.then(|| *dice.pick(&MappingFlaw::ALL));
        sets.push(MappingSet { accounts, flaw });
    }
    sets
}

/// Mappings of accounts whose changes come back.
pub(in crate::sim) fn both_ways(accounts: &[AccountOptions], dice: &mut Dice) -> MappingSet {
    let mut set = MappingSet::default();
    for account in accounts.iter().filter(|account| !account.system_a) {
        let mut objects = BTreeMap::new();
        for object in ["contact", "company"] {
            if dice.chance(800) {
                objects.insert(object, mapping_back(object, dice));
            }
        }
        let mappings = AccountMappings {
            share: 1.0,
            objects,
        };
        set.accounts.insert(account.name.clone(), mappings);
    }
    set
}

/// The same where deletes are marks. All that is mapped goes both ways: what only goes out nobody
/// could tell System A of a record that is taken back.
pub(in crate::sim) fn mark_deletes(set: &mut MappingSet, dice: &mut Dice) {
    for mappings in set.accounts.values_mut() {
        for object in ["contact", "company"] {
            let mapping = mappings.objects.entry(object);
            let mapping = mapping.or_insert_with(|| mapping_back(object, dice));
            mapping.marks_deletes = dice.chance(800);
            for field in &mut mapping.fields {
                field.direction = Direction::Both;
            }
        }
    }
}

fn mapping_back(object: &str, dice: &mut Dice) -> ObjectMapping {
    let plain: [(&'static [&'static str], &str); 3] = [
        (&["name"], "name"),
        (&["email"], "email"),
        (&["status"], "status"),
    ];
    let mut fields: Vec<FieldMapping> = plain.map(|(path, name)| of(path, name, dice)).into();
    for (path, name, convert) in [
        (&["city"], "city", Conversion::Text),
        (&["tags"], "tags", Conversion::Join),
    ] {
        let mut field = of(path, name, dice);
        if dice.chance(800) {
            field.convert = convert;
        }
        fields.push(field);
    }
    if dice.chance(300) {
        fields.push(of(&["address"], "address", dice));
    } else {
        fields.push(of(&["address", "zip"], "zip", dice));
        fields.push(of(&["address", "street"], "street", dice));
    }
    for field in &mut fields {
        field.on_null = OnNull::Clear;
        field.direction = Direction::Both;
        let fought_over = field.local == ["status"];
        if !fought_over && dice.chance(100) {
            field.direction = Direction::Out;
        }
    }
    let source = vec!["Source".to_owned()];
    ObjectMapping {
        remote: object.to_owned(),
        enabled: true,
        share: 1.0,
        fields,
        constants: match dice.chance(300) {
            true => vec![(source, "syncline".into())],
            false => Vec::new(),
        },
        marks_deletes: false,
    }
}

/// The objects that an account maps, by their names there.
fn objects(dice: &mut Dice) -> BTreeMap<&'static str, String> {
    let mut objects = BTreeMap::new();
    if dice.chance(850) {
        let name = *dice.pick(&["Person", "contact"]);
        objects.insert("contact", name.to_owned());
    }
    if dice.chance(600) {
        let name = *dice.pick(&["Firm", "company"]);
        objects.insert("company", name.to_owned());
    }
    objects
}

fn account_mappings(
    objects: &BTreeMap<&'static str, String>,
    version: u64,
    dice: &mut Dice,
) -> AccountMappings {
    let objects = objects.iter();
    let mapped = objects.map(|(object, remote)| (*object, mapping(remote, version, dice)));
    AccountMappings {
        objects: mapped.collect(),
        share: share(100, dice),
    }
}

fn share(some: u32, dice: &mut Dice) -> f64 {
    if dice.chance(some) {
        *dice.pick(&[0.1, 0.5, 0.8])
    } else {
        1.0
    }
}

fn mapping(remote: &str, version: u64, dice: &mut Dice) -> ObjectMapping {
    let mut fields = Vec::new();
    for local in [
        "name", "email", "status", "city", "tags", "amount", "company", "blob",
    ] {
        if dice.chance(850) {
            fields.push(field(local, dice));
        }
    }
    fields.extend(address(dice));
    if fields.is_empty() {
        fields.push(field("name", dice));
    }
    let source = vec![format!("Source{}", dice.below(2))];
    ObjectMapping {
        remote: remote.to_owned(),
        enabled: !dice.chance(50),
        share: share(100, dice),
        fields,
        constants: match dice.chance(500) {
            true => vec![(source, format!("s{version}").into())],
            false => Vec::new(),
        },
        marks_deletes: false,
    }
}

fn field(local: &'static str, dice: &mut Dice) -> FieldMapping {
    let path: &'static [&'static str] = match local {
        "name" => &["name"],
        "email" => &["email"],
        "status" => &["status"],
        "city" => &["city"],
        "tags" => &["tags"],
        "amount" => &["amount"],
        "company" => &["company"],
        _ => &["blob"],
    };
    let conversion = match local {
        "name" => Conversion::Text,
        "amount" => Conversion::Number,
        "city" if dice.chance(500) => Conversion::YesNo,
        "city" => Conversion::OneZero,
        "tags" => Conversion::Join,
        "email" => Conversion::Capitals,
        "status" => {
            let words = *dice.pick(&[["A", "L", "G"], ["on", "new", "off"], ["L", "G", "A"]]);
            Conversion::Table(STATUS.into_iter().zip(words).collect())
        }
        _ => Conversion::Plain,
    };
    let mut field = of(path, local, dice);
    if dice.chance(700) {
        field.convert = conversion;
    }
    let goes_out = field.direction != Direction::In;
    field.required = matches!(local, "name" | "email") && goes_out && dice.chance(150);
    let default = match local {
        "city" => Some(true.into()),
        "amount" => Some("12".into()),
        "company" => Some("none".into()),
        _ => None,
    };
    field.default = default.filter(|_| goes_out && dice.chance(300));
    field
}

/// The address whole, or its parts each.
fn address(dice: &mut Dice) -> Vec<FieldMapping> {
    if dice.chance(300) {
        return vec![of(&["address"], "address", dice)];
    }
    let mut parts = vec![of(&["address", "zip"], "zip", dice)];
    if dice.chance(800) {
        parts.push(of(&["address", "street"], "street", dice));
    }
    parts
}

fn of(local: &'static [&'static str], name: &str, dice: &mut Dice) -> FieldMapping {
    let capital = format!("{}{}", name[..1].to_uppercase(), &name[1..]);
    let remote = match dice.below(4) {
        0 => vec![name.to_owned()],
        1 => vec!["Info".to_owned(), capital],
        2 => vec![format!("{capital}__c")],
        _ => vec![capital],
    };
    FieldMapping {
        local,
        remote,
        convert: Conversion::Plain,
        on_null: *dice.pick(&[OnNull::Clear, OnNull::Clear, OnNull::Omit, OnNull::Keep]),
        required: false,
        direction: match dice.below(20) {
            0 => Direction::In,
            1 | 2 => Direction::Out,
            _ => Direction::Both,
        },
        default: None,
    }
}

/// Rules, one list after the other.
pub(super) fn rule_lists(accounts: &[AccountOptions], dice: &mut Dice) -> Vec<RuleList> {
    let changes = if dice.chance(700) {
        dice.between(1, CHANGES_MAX)
    } else {
        0
    };
    let list = |place: u64, dice: &mut Dice| {
        let bad = place > 0 && dice.chance(BAD);
        let rules = dice.below(6);
        RuleList {
            rules: (0..rules).map(|_| rule(accounts, dice)).collect(),
            flaw: bad.then(|| *dice.pick(&RuleFlaw::ALL)),
        }
    };
    (0..=changes).map(|place| list(place, dice)).collect()
}

fn rule(accounts: &[AccountOptions], dice: &mut Dice) -> OwnRule {
    let mut rule = OwnRule {
        disabled: dice.chance(80),
        ..OwnRule::default()
    };
    if dice.chance(400) {
        rule.provider = Some(dice.pick(accounts).name.clone());
    }
    if dice.chance(300) {
        rule.object = Some(dice.pick::<&str>(&["contact", "company"]));
    }
    if dice.chance(250) {
        rule.share = Some(*dice.pick(&[0.1, 0.5, 0.9]));
    }
    match dice.below(10) {
        0 => rule.forbidden.push(&["do_not_sync"]),
        1 => rule
            .required
            .push(*dice.pick::<&[&str]>(&[&["email"], &["address", "zip"]])),
        2 | 3 => {
            let operation = *dice.pick(&[
                Operation::Create,
                Operation::Update,
                Operation::Upsert,
                Operation::Delete,
                Operation::Read,
            ]);
            let only = *dice.pick(&[Only::Always, Only::Never, Only::Active, Only::HasCompany]);
            rule.only.push((operation, only));
        }
        4 => {
            // A switch for all that comes: rare, for nothing else is decided behind it.
            rule.when = (!dice.chance(200)).then(|| test(2, dice));
            rule.priority = Some(dice.between(1, 10) as u8);
        }
        _ => {
            rule.when = Some(test(2, dice));
            rule.action = Some(*dice.pick(&[
                RuleAction::Sync,
                RuleAction::Skip,
                RuleAction::Skip,
                RuleAction::Reject,
                RuleAction::Create,
                RuleAction::Update,
                RuleAction::Upsert,
                RuleAction::Upsert,
                RuleAction::Delete,
            ]));
            rule.priority = dice.chance(300).then(|| dice.between(1, 10) as u8);
        }
    }
    rule
}

fn test(depth: u32, dice: &mut Dice) -> Test {
    let two = |dice: &mut Dice| Box::new((test(depth - 1, dice), test(depth - 1, dice)));
    match dice.below(if depth > 0 { 10 } else { 6 }) {
        0 | 1 => Test::Operation(*dice.pick(&[
            Operation::Create,
            Operation::Update,
            Operation::Upsert,
            Operation::Delete,
        ])),
        2 => Test::Is("status", dice.pick::<&str>(&STATUS)),
        3 => Test::Over("name", dice.below(1000)),
        4 => Test::Changed(dice.pick::<&str>(&["email", "name", "status"])),
        5 => Test::Was("status", dice.pick::<&str>(&STATUS)),
        6 => Test::Not(Box::new(test(depth - 1, dice))),
        7 | 8 => Test::Both(two(dice)),
        _ => Test::Either(two(dice)),
    }
}
