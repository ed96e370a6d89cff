//! What the settings would make of an event, without an engine, a disk or a network.

use std::sync::Arc;

use engine::event::codec::AcceptedEvent;
use engine::event::{Operation, Surface, TargetAction, parse};
use engine::id::HashKey;
use engine::json::{RawObject, Scratch};
use engine::mapping::{MapFailure, Write, keep_reference, write_unmapped};
use engine::refusal::{Code, Refusal};
use engine::rules::RuleSet;
use engine::shard::AccountPlan;

use super::router::Router;
use super::{StartError, plans};
use crate::settings::Settings;

/// Stands for the record id of a CREATE that leaves it out.
const MADE_RECORD_ID: &str = "0";

/// An engine's schemas, rules and mappings, to be asked.
#[derive(Debug)]
pub struct Rehearsal {
    router: Router,
    accounts: Vec<Arc<AccountPlan>>,
}

/// What became of an event at one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rehearsed {
    /// The account.
    pub account: String,
    /// What it is asked for; `None`: nothing, a rule left it out.
    pub operation: Option<Operation>,
    /// The rule that decided, counted from 1; 0: none.
    pub rule: u16,
    /// The event's priority after the rules.
    pub priority: u8,
    /// The fields as the account gets them, a JSON object; references are record ids. `None`
    /// where no fields are sent.
    pub fields: Option<Result<String, MapFailure>>,
}

impl Rehearsal {
    /// Compiles what the settings say.
    ///
    /// # Errors
    /// [`StartError`], as a start would tell it.
    pub fn new(settings: &Settings) -> Result<Self, StartError> {
        let rules = RuleSet::compile(1, &settings.rules)
            .map_err(|error| StartError::config("rules", error.to_string()))?;
        let accounts = plans::account_plans(settings)?;
        Ok(Self {
            router: plans::router(settings, &accounts, rules, HashKey([0; 16]), 1, 1)?,
            accounts,
        })
    }

    /// Takes an event as the API would, up to the calls.
    ///
    /// # Errors
    /// The refusal that the sender would get.
    pub fn event(&self, bytes: &[u8]) -> Result<Vec<Rehearsed>, Refusal> {
        let mut scratch = Scratch::new();
        let routes = self.router.routes();
        self.router.with_defaults(|defaults| {
            let mut event = parse(bytes, &mut scratch, defaults, Surface::Http)?;
            event.record_id.get_or_insert_with(|| MADE_RECORD_ID.into());
            let mut routed = self.router.route(&routes, event, None, None, 0)?;
            self.router.decide(&routes, &mut routed)?;
            let targets = routed.event.targets.clone();
            Ok(targets
                .iter()
                .map(|target| {
                    let operation = match target.action {
                        TargetAction::Sync => Some(routed.event.event.operation),
                        TargetAction::Instead(operation) => Some(operation),
                        TargetAction::Skip | TargetAction::Observe => None,
                    };
                    Rehearsed {
                        account: target.name.to_owned(),
                        operation,
                        rule: target.rule,
                        priority: routed.event.event.priority.get(),
                        fields: operation.and_then(|operation| {
                            self.fields(&routed.event, target.name, operation)
                        }),
                    }
                })
                .collect())
        })
    }

    /// A provider's record as System A would get it, a JSON object.
    ///
    /// # Errors
    /// A refusal that says what is wrong with the record, or that the account or its mapping of
    /// this object is unknown.
    pub fn back(&self, account: &str, object: &str, remote: &[u8]) -> Result<String, Refusal> {
        let plan = self.accounts.iter().find(|plan| &*plan.name == account);
        let plan = plan.ok_or_else(|| {
            Refusal::new(
                Code::UnknownProvider,
                "no account of this name is configured",
            )
        })?;
        let mapping = plan.mappings.get(object).ok_or_else(|| {
            let detail = format!("{account} has no mapping of {object:?}");
            Refusal::new(Code::NoRoute, detail)
        })?;
        let mut scratch = Scratch::new();
        let remote = scratch.validate_object(remote, engine::event::EVENT_BYTES_MAX)?;
        let mut local = Vec::new();
        mapping
            .unapply(remote.object(), &mut local)
            .map_err(|failure| Refusal::at(Code::InvalidField, failure.pointer, failure.detail))?;
        Ok(String::from_utf8(local).expect("a mapping writes JSON"))
    }

    fn fields(
        &self,
        event: &AcceptedEvent<'_>,
        account: &str,
        operation: Operation,
    ) -> Option<Result<String, MapFailure>> {
        let write = match operation {
            Operation::Create => Write::Create,
            Operation::Upsert => Write::Upsert,
            Operation::Update => Write::Update,
            Operation::Read | Operation::Delete | Operation::Pull => return None,
        };
        let data = event.event.data.unwrap_or(RawObject::EMPTY);
        let plan = self.accounts.iter().find(|plan| &*plan.name == account)?;
        let mut fields = Vec::new();
        let mapping = plan.mappings.get(&*event.event.object);
        match mapping.filter(|mapping| !mapping.is_plain()) {
            Some(mapping) => {
                if let Err(failure) = mapping.apply(data, write, &keep_reference, &mut fields) {
                    return Some(Err(failure));
                }
            }
            None => {
                let record_id = event.event.record_id.as_deref().unwrap_or_default();
                write_unmapped(data, record_id, &mut fields);
            }
        }
        Some(Ok(String::from_utf8(fields).expect("a mapping writes JSON")))
    }
}
