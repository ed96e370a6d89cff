//! What a seed makes of the way back: how accounts tell of changes, who edits, which rule holds.

use engine::merge::{Foreign, Rule};

use crate::sim::dice::Dice;
use crate::sim::options::{AccountOptions, Options};

/// Runs out of a thousand in which fields are System A's.
const OWNED: u32 = 150;
/// With merges, where deletes are.
const MERGES: u32 = 400;

/// A run in which changes come back.
#[derive(Debug, Clone)]
pub struct TwoWayOptions {
    /// How fields end that both sides changed.
    pub policy: Policy,
    /// One for each provider account, in their order; System A comes behind them.
    pub accounts: Vec<InboundOptions>,
    /// People delete records.
    pub deletes: bool,
    /// And make one of two.
    pub merges: bool,
    /// A workflow of the first account and one of System A undo each other.
    pub workflow: bool,
    /// Edits, one at a time, once all is quiet.
    pub quiet_edits: u32,
}

/// How conflicts end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// The later change.
    LastWriteWins,
    /// System A's.
    SystemA,
    /// The account's.
    Provider,
    /// Nobody's.
    Manual,
    /// All fields are System A's: what accounts change of them stays there,
    Refuses,
    /// or is written back.
    Reverts,
}

/// How one account tells of its changes.
#[derive(Debug, Clone)]
pub struct InboundOptions {
    /// By which way.
    pub channel: Channel,
    /// Edits of people there while the run is busy.
    pub edits: u64,
    /// Texts are kept in another spelling than they were written.
    pub normalises: bool,
    /// Notices out of a thousand that never come; only where there is a list as well.
    pub lost: u32,
    /// That come twice.
    pub doubled: u32,
    /// That come late, behind others.
    pub late: u32,
    /// With each of which comes one that nobody signed.
    pub forged: u32,
    /// Answers to notices that the account never gets.
    pub unheard: u32,
    /// The longest that a list lags behind what was written.
    pub list_lag_ms: u64,
}

/// A way of telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Notices, each sent again until it is taken.
    Notices,
    /// A list of changes that is asked for.
    List,
    /// Both, and notices may be lost.
    Both,
}

impl Policy {
    pub(in crate::sim) fn rule(self) -> Rule {
        match self {
            Self::LastWriteWins => Rule::LastWriteWins,
            Self::SystemA => Rule::SystemA,
            Self::Provider => Rule::Provider,
            Self::Manual => Rule::Manual,
            Self::Refuses => Rule::Owned(Foreign::Refuse),
            Self::Reverts => Rule::Owned(Foreign::Revert),
        }
    }

    /// Whether all sides show the same in the end, field by field, without an operator.
    fn is_shared(self) -> bool {
        matches!(self, Self::LastWriteWins | Self::SystemA | Self::Provider)
    }

    /// Whether fields are System A's.
    pub(in crate::sim) fn is_owned(self) -> bool {
        matches!(self, Self::Refuses | Self::Reverts)
    }
}

impl Options {
    /// The same run, with changes that come back.
    pub(in crate::sim) fn go_both_ways(&mut self, dice: &mut Dice) {
        self.accounts.truncate(2);
        // Few failures, so that there is something to compare in the end.
        let patient = dice.chance(850);
        for account in &mut self.accounts {
            if patient {
                account.max_attempts = 60;
            }
            account.max_in_flight = account.max_in_flight.max(2);
        }
        self.fan_out = 100;
        self.records = dice.between(1, 8);
        self.events = dice.between(8, 60);
        self.producers = self.producers.min(2);
        let accounts = self.accounts.iter().map(|_| InboundOptions::of_dice(dice));
        let accounts = accounts.collect();
        let two_way = TwoWayOptions {
            policy: *dice.pick(&[
                Policy::LastWriteWins,
                Policy::LastWriteWins,
                Policy::SystemA,
                Policy::Provider,
                Policy::Manual,
            ]),
            accounts,
            deletes: dice.chance(500),
            merges: false,
            workflow: dice.chance(200),
            quiet_edits: dice.between(2, 8) as u32,
        };
        self.two_way = Some(two_way);
        self.accounts.push(AccountOptions {
            name: engine::shard::SYSTEM_A.to_owned(),
            system_a: true,
            limits: Vec::new(),
            fixed: None,
            bucket: None,
            max_in_flight: dice.between(2, 16) as u32,
            timeout: self.accounts[0].timeout,
            latency_ms: (dice.between(1, 20), dice.between(0, 40)),
            max_attempts: self.accounts[0].max_attempts,
            skew_ppm: 0,
            fold: dice.chance(700),
            batch_max: 1,
        });
        let mut dice = Dice::stream(self.seed, "whose fields");
        if dice.chance(OWNED) {
            self.own_fields(*dice.pick(&[Policy::Refuses, Policy::Reverts]));
        }
        let two_way = self.two_way.as_ref();
        let may_merge =
            two_way.is_some_and(|it| it.deletes && it.policy.is_shared() && !it.workflow);
        if may_merge && Dice::stream(self.seed, "merges").chance(MERGES) {
            self.merge();
        }
    }

    /// The same run, with merges.
    pub(in crate::sim) fn merge(&mut self) {
        if let Some(two_way) = &mut self.two_way {
            if !two_way.policy.is_shared() {
                two_way.policy = Policy::LastWriteWins;
            }
            (two_way.deletes, two_way.workflow, two_way.merges) = (true, false, true);
        }
    }

    /// Whether people make one record of two.
    pub(in crate::sim) fn merges(&self) -> bool {
        self.two_way.as_ref().is_some_and(|it| it.merges)
    }

    /// The same run, with fields that are System A's.
    pub(in crate::sim) fn own_fields(&mut self, policy: Policy) {
        if let Some(two_way) = &mut self.two_way {
            two_way.policy = policy;
        }
    }
}

impl InboundOptions {
    fn of_dice(dice: &mut Dice) -> Self {
        let channel = *dice.pick(&[Channel::Notices, Channel::List, Channel::Both]);
        let some = |most: u64, dice: &mut Dice| match dice.chance(500) {
            true => dice.between(1, most) as u32,
            false => 0,
        };
        Self {
            channel,
            edits: dice.between(2, 40),
            normalises: dice.chance(300),
            lost: match channel {
                Channel::Both => some(500, dice),
                Channel::Notices | Channel::List => 0,
            },
            doubled: some(300, dice),
            late: some(300, dice),
            forged: some(200, dice),
            unheard: some(200, dice),
            list_lag_ms: dice.below(9_000),
        }
    }

    /// Whether it sends notices.
    pub(in crate::sim) fn notifies(&self) -> bool {
        self.channel != Channel::List
    }

    /// Whether it is asked for lists.
    pub(in crate::sim) fn lists(&self) -> bool {
        self.channel != Channel::Notices
    }
}
