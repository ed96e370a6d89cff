//! What an event is decided by where it is taken in: the router's part, over the engine's rules and
//! mappings.

use std::sync::Arc;

use engine::event::codec::AcceptedEvent;
use engine::event::{Event, Target, TargetAction};
use engine::mapping::{MapFailure, Mapping, Write};
use engine::refusal::Refusal;
use engine::rules::{RuleSet, Share};
use engine::shard::AccountPlan;

use super::mutants::Mutant;
use super::options::Options;
use super::sets::InForce;
use super::sets::mapping::MappingSet;
use super::sets::rules::RuleList;

/// What is in force where events are taken in.
#[derive(Debug)]
pub(super) struct Judge {
    rules: RuleSet,
    plans: Vec<Arc<AccountPlan>>,
    switches: MappingSet,
    versions: InForce,
    /// How many rules there are.
    count: u16,
    mutant: Option<Mutant>,
}

impl Judge {
    /// By what is in force; `None` in a run without sets.
    pub(super) fn new(
        options: &Options,
        in_force: InForce,
        plans: &[Arc<AccountPlan>],
    ) -> Option<Self> {
        let sets = options.sets.as_ref()?;
        let list = sets.rule_list(in_force.rules)?;
        let rules = compile(in_force.rules, list, options.mutant);
        Some(Self {
            rules: rules.expect("what is in force was taken"),
            plans: plans.to_vec(),
            switches: sets.mapping_set(in_force.mappings)?.clone(),
            versions: in_force,
            count: list.rules.len() as u16,
            mutant: options.mutant,
        })
    }

    /// What becomes of an event at each of its targets.
    pub(super) fn decide(&self, accepted: &mut AcceptedEvent<'_>) -> Result<(), Refusal> {
        accepted.rules_version = self.versions.rules;
        accepted.mapping_version = self.versions.mappings;
        if self.mutant == Some(Mutant::MappingVersionLost) {
            accepted.mapping_version = 1;
        }
        let record_id = accepted.event.record_id.clone().unwrap_or_default();
        let object = accepted.event.object.clone();
        let roll = accepted.operation_seq;
        let switched = accepted.targets.iter().map(|target| Target {
            action: match self.admits(target.name, &object, &record_id, roll) {
                true => target.action,
                false => TargetAction::Skip,
            },
            ..target
        });
        accepted.targets = switched.collect();
        let own_priority = accepted.event.priority;
        let lacks = |event: &Event<'_>, account: &str, write| self.lacks(event, account, write);
        let requires = self.plans.iter().flat_map(|plan| plan.mappings.values());
        if self.rules.is_empty() && !requires.into_iter().any(Mapping::requires_fields) {
            return Ok(());
        }
        match self
            .rules
            .route(&mut accepted.event, &accepted.targets, lacks)
        {
            Ok(targets) => accepted.targets = targets,
            Err(_) if self.mutant == Some(Mutant::RejectedTaken) => {}
            Err(refusal) => return Err(refusal),
        }
        if self.mutant == Some(Mutant::RulePriorityLost) {
            accepted.event.priority = own_priority;
        }
        if self.mutant == Some(Mutant::SecondMatchWins) {
            let rules = self.count;
            let numbered = accepted.targets.iter().map(|target| Target {
                rule: match target.rule {
                    0 => 0,
                    rule => rules + 1 - rule,
                },
                ..target
            });
            accepted.targets = numbered.collect();
        }
        Ok(())
    }

    fn admits(&self, account: &str, object: &str, record_id: &str, roll: u64) -> bool {
        let Some(mappings) = self.switches.accounts.get(account) else {
            return true;
        };
        let thrown = format!("{record_id} {roll}");
        let name = match self.mutant {
            Some(Mutant::ShareOfEachEvent) => &thrown,
            _ => record_id,
        };
        let holds = |share: f64| Share::new(share).is_some_and(|share| share.holds(name));
        let object = mappings.objects.get(object);
        holds(mappings.share)
            && object.is_none_or(|mapping| mapping.enabled && holds(mapping.share))
    }

    /// What an account's mapping requires and the event lacks.
    fn lacks(&self, event: &Event<'_>, account: &str, write: Write) -> Option<MapFailure> {
        if self.mutant == Some(Mutant::RequiredIgnored) {
            return None;
        }
        let plan = self.plans.iter().find(|plan| &*plan.name == account)?;
        let mapping = plan.mappings.get(&*event.object)?;
        mapping.check_required(event.data?, write).err()
    }
}

/// A list as it comes into force; why it does not, in words.
pub(super) fn compile(
    version: u32,
    list: &RuleList,
    mutant: Option<Mutant>,
) -> Result<RuleSet, String> {
    let mut rules = list.settings();
    if mutant == Some(Mutant::SecondMatchWins) {
        rules.reverse();
    }
    if mutant == Some(Mutant::BadRulesTaken) {
        rules.truncate(list.rules.len());
    }
    let set = RuleSet::compile(version, &rules).map_err(|error| error.to_string())?;
    if set.reads_linked() {
        return Err("it asks whether a record is linked".to_owned());
    }
    Ok(set)
}
