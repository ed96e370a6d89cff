//! Everything that goes wrong or is meddled with, at times drawn in advance.

use std::time::Duration;

use engine::entry::{HoldChange, HoldScope};
use engine::id::OperationSeq;
use engine::journal::Journal;
use engine::merge::Winner;
use engine::shard::{Command, DeadFilter, Resolution};
use engine::state::Reason;
use wal::Storage;
use wal::sim::SimFaults;

use super::{Due, MS, World};
use crate::sim::fold::OpKey;
use crate::sim::ingest::Ticket;
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::node::{Letter, Taking};
use crate::sim::options::Faults;
use crate::sim::provider::faults;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// Something that happens to the engine.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mishap {
    Kill,
    /// A watcher restarts an engine whose shard is fenced.
    KillFenced {
        life: u64,
    },
    PowerCut,
    FailedWrite,
    DiskFull,
    DiskHealed,
    FailedRead,
    ClockStep,
    Stall,
    Outage,
    Poison,
    Command,
    Checkpoint,
    Relocation,
    /// Somebody gives other mappings.
    Mappings,
    /// Somebody gives other rules.
    Rules,
}

impl World {
    pub(super) fn plan_mishaps(&mut self) {
        let faults = self.options.faults.clone();
        let busy = self.options.busy.as_nanos() as u64;
        for (mishap, count) in [
            (Mishap::Kill, faults.kills),
            (Mishap::PowerCut, faults.power_cuts),
            (Mishap::FailedWrite, faults.failed_writes),
            (Mishap::DiskFull, faults.disk_full),
            (Mishap::FailedRead, faults.failed_reads),
            (Mishap::ClockStep, faults.clock_steps),
            (Mishap::Stall, faults.stalls),
            (Mishap::Outage, faults.outages),
            (Mishap::Poison, faults.poisons),
            (Mishap::Command, self.options.commands),
            (Mishap::Checkpoint, self.options.checkpoints),
            (Mishap::Relocation, self.options.relocations),
            (Mishap::Mappings, self.options.mapping_changes()),
            (Mishap::Rules, self.options.rule_changes()),
        ] {
            for _ in 0..count {
                let at = self.mishap_dice.below(busy);
                self.at(at, Due::Mishap(mishap));
            }
        }
    }

    pub(super) fn strike(&mut self, mishap: Mishap) {
        if let Mishap::KillFenced { life } = mishap {
            if life == self.life {
                self.kill();
            }
            return;
        }
        if let Mishap::DiskHealed = mishap {
            self.capacity = None;
            self.set_disk_faults(SimFaults::default());
            // What was refused for want of room the operator says once more.
            self.lift_again = self.healed;
            return;
        }
        if self.healed || self.node.is_none() {
            return;
        }
        match mishap {
            Mishap::Kill => self.kill(),
            Mishap::PowerCut => {
                if self.mishap_dice.chance(self.options.faults.cut_in_write) {
                    // In the middle of one of the next operations of the disk.
                    let crash_at_op = Some(self.mishap_dice.between(1, 6));
                    self.set_disk_faults(SimFaults {
                        crash_at_op,
                        ..SimFaults::default()
                    });
                } else {
                    self.power_cut();
                }
            }
            Mishap::FailedWrite => {
                let errno = *self.mishap_dice.pick(&[EIO, ENOSPC]);
                let at = Some((self.mishap_dice.between(1, 4), errno));
                let faults = if self.mishap_dice.chance(500) {
                    SimFaults {
                        fail_write_at: at,
                        ..SimFaults::default()
                    }
                } else {
                    SimFaults {
                        fail_sync_at: at,
                        ..SimFaults::default()
                    }
                };
                self.set_disk_faults(faults);
            }
            Mishap::DiskFull => {
                let used =
                    (u64::MAX / 2).saturating_sub(self.disk.free_space().unwrap_or(u64::MAX / 2));
                if self.capacity.is_none() {
                    self.capacity = Some(used + self.mishap_dice.below(64 * 1024));
                    self.set_disk_faults(SimFaults::default());
                    let lasts = self.mishap_dice.between(2_000 * MS, 30_000 * MS);
                    self.after(lasts, Due::Mishap(Mishap::DiskHealed));
                }
            }
            Mishap::FailedRead => {
                self.marks.hit(Mark::ReadFailed);
                let shard = self.any_shard();
                if let Some(node) = &mut self.node {
                    node.shards[shard].journal.fail_reads += 1;
                }
            }
            Mishap::ClockStep => {
                self.marks.hit(Mark::ClockStepped);
                let by_ms = self.mishap_dice.below(7_200_000) as i64 - 3_600_000;
                self.clock.step_wall(by_ms);
            }
            Mishap::Stall => {
                self.marks.hit(Mark::Stalled);
                let shard = self.any_shard();
                let until = self.now_ns() + self.mishap_dice.between(50 * MS, 10_000 * MS);
                if let Some(node) = &mut self.node {
                    node.shards[shard].stalled_until = until;
                }
            }
            Mishap::Outage => {
                let spec = *self.mishap_dice.pick(&[
                    "5xx=1",
                    "reset_before=1",
                    "429=0.7",
                    "reset_after=0.7",
                    "5xx_after=0.8",
                    "item_missing=0.6",
                    "item_lost=0.6",
                ]);
                self.trouble(spec, 4_000);
            }
            Mishap::Poison => {
                let record = self.mishap_dice.below(self.options.records);
                self.trouble(&format!("poison=r{record}"), 10_000);
            }
            Mishap::Command => self.command(),
            Mishap::Mappings => self.give_mappings(),
            Mishap::Rules => self.give_rules(),
            Mishap::Checkpoint => {
                let shard = self.any_shard();
                if let Some(node) = &mut self.node {
                    node.shards[shard]
                        .checkpoint
                        .get_or_insert_with(Taking::default);
                }
                self.wake(shard, self.now_ns());
            }
            Mishap::Relocation => {
                let shard = self.any_shard();
                let Some(node) = &mut self.node else { return };
                let own = &mut node.shards[shard];
                let cut = own
                    .journal
                    .log()
                    .segments()
                    .rfind(|segment| segment.sealed)
                    .map(|segment| segment.end);
                let careless = self.options.mutant == Some(Mutant::CarelessRelease);
                if let Some(cut) = cut.filter(|_| own.relocation.is_none()) {
                    if careless {
                        own.relocation = Some((cut, Some(own.journal.end())));
                    } else if own.shard.relocate(cut) {
                        own.relocation = Some((cut, None));
                    }
                }
                self.wake(shard, self.now_ns());
            }
            Mishap::KillFenced { .. } | Mishap::DiskHealed => {}
        }
    }

    /// From here on nothing goes wrong, and everything has to end.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.ended = self.oracle.fold.ended_by_account();
        self.capacity = None;
        self.set_disk_faults(SimFaults::default());
        self.clock.heal_wall();
        let none = Faults::default();
        for provider in &mut self.providers {
            let spec = format!(
                "{},reset_before=0,reset_after=0,5xx=0,5xx_after=0,429=0,daily=0,401=0,garbage=0,slow=0,stale=0ms,poison=,item_missing=0,item_lost=0,item_4xx=0,item_5xx=0,lock=0,empty=0,shuffle=0",
                none.provider_spec(&provider.options)
            );
            provider.set_faults(&spec);
            provider.end_troubles();
        }
        if let Some(node) = &mut self.node {
            for own in &mut node.shards {
                own.journal.fail_reads = 0;
            }
        }
        self.lift_holds();
        self.after(1_000 * MS, Due::Inspect);
    }

    pub(super) fn lift_holds(&mut self) {
        self.give(Command::Hold(HoldChange {
            scope: HoldScope::default(),
            set: false,
        }));
    }

    fn trouble(&mut self, spec: &str, longest_ms: u64) {
        let at = self.mishap_dice.below(self.providers.len() as u64) as usize;
        let provider = &mut self.providers[at];
        let now = self.clock.of_provider(provider.options.skew_ppm);
        let length = Duration::from_millis(self.mishap_dice.between(100, longest_ms));
        // A crowded scenario is no reason to stop: the window is left out.
        provider.account.add_faults(now, length, faults(spec)).ok();
    }

    fn command(&mut self) {
        let dice = &mut self.mishap_dice;
        let provider = dice
            .chance(500)
            .then(|| dice.pick(&self.options.accounts).name.clone());
        let object = dice.chance(300).then(|| "contact".to_owned());
        let record_id = dice
            .chance(400)
            .then(|| format!("r{}", dice.below(self.options.records)));
        let scope = HoldScope {
            provider: provider.clone(),
            object: object.clone(),
            record_id: record_id.clone(),
        };
        let filter = DeadFilter {
            provider,
            object,
            record_id,
            ..DeadFilter::default()
        };
        if self.options.two_way.is_some() && dice.chance(400) {
            return self.decide();
        }
        let command = match dice.below(10) {
            0..2 => {
                self.marks.hit(Mark::Held);
                Command::Hold(HoldChange { scope, set: true })
            }
            2..4 => Command::Hold(HoldChange { scope, set: false }),
            4 => Command::Drop(filter),
            5 => Command::Count(filter),
            _ => Command::Retry(filter),
        };
        self.give(command);
    }

    /// An operator decides a conflict.
    fn decide(&mut self) {
        let fold = &self.oracle.fold;
        let conflict = |key: &&OpKey| {
            let ended = fold.ops.get(*key).and_then(|op| op.ended);
            let waits = fold.lanes.contains_key(&(key.0.record, key.1.clone()));
            ended.is_some_and(|(_, reason)| reason == Some(Reason::Conflict)) && !waits
        };
        let conflicts: Vec<OpKey> = fold.dead.iter().filter(conflict).cloned().collect();
        let Some(node) = self.node.as_mut().filter(|_| !conflicts.is_empty()) else {
            return;
        };
        let (id, account) = self.mishap_dice.pick(&conflicts).clone();
        let (_, next_seq) = node.ingest.place();
        let seq = OperationSeq(*next_seq);
        *next_seq += OperationSeq::STEP;
        let winner = *self.mishap_dice.pick(&[Winner::SystemA, Winner::Provider]);
        self.give(Command::Resolve(Resolution {
            id,
            account: account.as_str().into(),
            fields: None,
            winner,
            seq,
        }));
    }

    /// Gives a command to every shard.
    pub(super) fn give(&mut self, command: Command) {
        self.last_command += 1;
        let (life, number) = (self.life, self.last_command);
        let shards = self.node.as_ref().map_or(0, |node| node.shards.len());
        for shard in 0..shards {
            self.commands.insert((number, shard));
            let ticket = Ticket::Command(number);
            let letter = Letter::Command {
                command: command.clone(),
                ticket,
            };
            self.after(
                MS,
                Due::Deliver {
                    life,
                    shard,
                    letter,
                },
            );
        }
    }

    fn any_shard(&mut self) -> usize {
        let shards = self.node.as_ref().map_or(1, |node| node.shards.len());
        self.mishap_dice.below(shards as u64) as usize
    }
}
