//! Mappings and rules that are given while the run is busy.

use std::sync::Arc;

use engine::shard::{AccountPlan, Command};

use super::World;
use crate::sim::judge::{self, Judge};
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::node;
use crate::sim::options::Options;
use crate::sim::plans::plans;
use crate::sim::sets::InForce;

/// The plans that a run starts with.
pub(super) fn first_plans(options: &Options) -> Vec<Arc<AccountPlan>> {
    let first = options.sets.as_ref().and_then(|sets| sets.mapping_set(1));
    let first = first.or(options.mapped_back.as_ref());
    plans(options, first).expect("the first set is a good one")
}

impl World {
    /// The next set of mappings: a bad one is refused, and what is in force stays.
    pub(super) fn give_mappings(&mut self) {
        self.given.mappings += 1;
        let version = self.given.mappings;
        let Some(sets) = self.options.sets.clone() else {
            return;
        };
        let Some(set) = sets.mapping_set(version) else {
            return;
        };
        let mut told = match (plans(&self.options, Some(set)), set.flaw) {
            (Ok(plans), None) => plans,
            (Ok(plans), Some(_)) if self.has(Mutant::BadMappingsTaken) => plans,
            (Ok(plans), Some(flaw)) if maps_something(&plans) => {
                let broken = format!("R3 mappings {version} are taken: {flaw:?}");
                return self.oracle.note(Err(broken));
            }
            (Ok(_), Some(_)) => return,
            (Err(error), None) => {
                let broken = format!("R3 mappings {version} are refused: {error}");
                return self.oracle.note(Err(broken));
            }
            (Err(_), Some(_)) => return self.marks.hit(Mark::SetRefused),
        };
        self.marks.hit(Mark::SetTaken);
        if set.flaw.is_none() {
            self.in_force.mappings = version;
        }
        if let Some(node) = &self.node {
            let run = node.dir.superblock().run_epoch;
            self.rendering.change(run, u64::from(version));
            node::renew(&mut told, &self.rendering, self.options.mutant);
        }
        std::mem::swap(&mut self.plans, &mut told);
        let before = told;
        self.judge_by(self.in_force);
        let told = match self.has(Mutant::MappingsOfBefore) {
            true => before,
            false => self.plans.clone(),
        };
        for plan in told {
            self.give(Command::Plan(plan));
            let version = self.in_force.mappings;
            self.plan_words.insert(self.last_command, version);
        }
    }

    /// The next list of rules: a bad one is refused, and what is in force stays.
    pub(super) fn give_rules(&mut self) {
        self.given.rules += 1;
        let version = self.given.rules;
        let Some(sets) = self.options.sets.clone() else {
            return;
        };
        let Some(list) = sets.rule_list(version) else {
            return;
        };
        match (
            judge::compile(version, list, self.options.mutant),
            list.flaw,
        ) {
            (Ok(_), None) => self.marks.hit(Mark::SetTaken),
            (Ok(_), Some(_)) if self.has(Mutant::BadRulesTaken) => {
                let rules = version;
                return self.judge_by(InForce {
                    rules,
                    ..self.in_force
                });
            }
            (Ok(_), Some(flaw)) => {
                let broken = format!("R3 rules {version} are taken: {flaw:?}");
                return self.oracle.note(Err(broken));
            }
            (Err(error), None) => {
                let broken = format!("R3 rules {version} are refused: {error}");
                return self.oracle.note(Err(broken));
            }
            (Err(_), Some(_)) => return self.marks.hit(Mark::SetRefused),
        }
        self.in_force.rules = version;
        self.judge_by(self.in_force);
    }

    fn judge_by(&mut self, in_force: InForce) {
        if let Some(node) = &mut self.node {
            node.ingest.judge = Judge::new(&self.options, in_force, &self.plans);
        }
    }
}

fn maps_something(plans: &[Arc<AccountPlan>]) -> bool {
    plans.iter().any(|plan| !plan.mappings.is_empty())
}
