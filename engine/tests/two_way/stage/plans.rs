//! What the accounts of a stage are, and System A.

use std::sync::Arc;
use std::time::Duration;

use syncline_engine::mapping::{DeletionMarkSettings, FieldSettings, Mapping, MappingSettings};
use syncline_engine::merge::ConflictPolicy;
use syncline_engine::provider::{Definition, RestSettings, shipped};
use syncline_engine::retry::RetryPolicy;
use syncline_engine::shard::{AccountPlan, DeletePolicy, Role, SYSTEM_A, TwoWay};

use super::super::store::{MARK, Store};
use super::{Mutant, OBJECT};

pub(super) fn plan(
    name: &str,
    accounts: &[&str],
    conflicts: &ConflictPolicy,
    mutant: Option<Mutant>,
) -> AccountPlan {
    let forgets = mutant == Some(Mutant::ForgetsLearner);
    let others = accounts.iter().filter(|other| **other != name && !forgets);
    let learners = [SYSTEM_A].into_iter().chain(others.copied());
    let two_way = TwoWay {
        conflicts: conflicts.clone(),
        deletes: DeletePolicy::Propagate,
        learners: learners.map(Arc::from).collect(),
        inbound: true,
    };
    let role = if name == SYSTEM_A {
        Role::SystemA
    } else {
        Role::Provider
    };
    AccountPlan {
        name: name.into(),
        definition: Definition::parse(shipped("rest").unwrap()).unwrap(),
        mappings: Default::default(),
        retry: RetryPolicy::default(),
        settle: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        fold: true,
        parent_timeout: Duration::from_secs(3600),
        max_wait: Duration::from_millis(50),
        weights: Default::default(),
        role,
        two_way: match role {
            Role::Provider => [(OBJECT.to_owned(), two_way)].into_iter().collect(),
            Role::SystemA => Default::default(),
        },
        renewed: Vec::new(),
    }
}

pub(super) fn store_of(plan: &AccountPlan) -> Store {
    let mapping = plan.mappings.get(OBJECT);
    match mapping.and_then(Mapping::deletion_mark) {
        Some(_) => Store::marking(),
        None => Store::default(),
    }
}

/// The plan of an account where what is deleted is marked; its fields are called as System A's.
pub(super) fn with_marks(mut plan: AccountPlan) -> AccountPlan {
    let field = |name: &str| FieldSettings {
        local: name.to_owned(),
        remote: name.to_owned(),
        ..FieldSettings::default()
    };
    let settings = MappingSettings {
        remote: OBJECT.to_owned(),
        external_id: Some("external_id".to_owned()),
        fields: ["a", "b", "c", "name"].map(field).to_vec(),
        deleted: Some(DeletionMarkSettings {
            remote: MARK.trim_start_matches('/').to_owned(),
            value: "true".to_owned(),
            otherwise: "false".to_owned(),
        }),
        ..MappingSettings::default()
    };
    let mapping = Mapping::compile(OBJECT, &settings).unwrap();
    plan.definition = plan.definition.with_external_id(OBJECT, "external_id");
    plan.mappings.insert(OBJECT.to_owned(), mapping);
    plan
}

/// The plan of an account where records are found by these keys.
pub(super) fn with_matches(mut plan: AccountPlan, keys: &[&[&str]]) -> AccountPlan {
    let key = |key: &&[&str]| key.iter().map(|&field| field.to_owned()).collect();
    let settings = MappingSettings {
        remote: OBJECT.to_owned(),
        external_id: Some("external_id".to_owned()),
        match_keys: keys.iter().map(key).collect(),
        ..MappingSettings::default()
    };
    let mapping = Mapping::compile(OBJECT, &settings).unwrap();
    let rest = RestSettings {
        matching: Some("GET /{object}?{match|query}".to_owned()),
        ..RestSettings::default()
    };
    let definition = plan.definition.with_rest(&rest).unwrap();
    plan.definition = definition.with_external_id(OBJECT, "external_id");
    plan.definition.check_match(&mapping).unwrap();
    plan.mappings.insert(OBJECT.to_owned(), mapping);
    plan
}
