//! Beginnings and ends of the engine's lives.

use std::collections::BTreeMap;

use wal::sim::{SimFaults, SimLoss, SimStorage};

use super::{Due, MS, World};
use crate::sim::marks::Mark;
use crate::sim::medium::Medium;
use crate::sim::mutants::Mutant;
use crate::sim::node::{Node, OpenFailure, OpenPlan, Opened, dump};
use crate::sim::two_way::inbound::Inbound;

/// Heap that an index may hold besides what it counts: half-empty chunks and tables.
const MEMORY_SLACK: usize = 1024 * 1024;
/// Promised for each queued operation and each known record.
const BYTES_EACH: usize = 32;

impl World {
    fn faults(&self) -> SimFaults {
        SimFaults {
            capacity_bytes: self.capacity,
            ..SimFaults::default()
        }
    }

    pub(super) fn set_disk_faults(&mut self, faults: SimFaults) {
        self.disk.set_faults(SimFaults {
            capacity_bytes: self.capacity,
            ..faults
        });
    }

    /// Opens the engine on whatever the disk holds.
    pub(super) fn restart(&mut self) {
        if self.node.is_some() {
            return;
        }
        self.disk.set_faults(self.faults());
        if !self.healed
            && self.life > 1
            && self.disk_dice.chance(self.options.faults.crash_in_recovery)
        {
            let crash_at_op = Some(self.disk_dice.between(1, 12));
            self.set_disk_faults(SimFaults {
                crash_at_op,
                ..SimFaults::default()
            });
        }
        match self.open() {
            Ok((node, opened)) => {
                self.set_disk_faults(SimFaults::default());
                self.take_over(node, &opened);
            }
            Err(OpenFailure::Crashed) => {
                self.marks.hit(Mark::CrashInRecovery);
                self.cut(Mark::PowerCut);
            }
            Err(OpenFailure::Full) => {
                self.disk.restart();
                self.disk.set_faults(self.faults());
                self.after(1_000 * MS, Due::Restart);
            }
            Err(failure) => self
                .oracle
                .note(Err(format!("I18 the engine does not open: {failure}"))),
        }
    }

    fn open(&mut self) -> Result<(Node, Vec<Opened>), OpenFailure> {
        Node::open(OpenPlan {
            options: &self.options,
            plans: &mut self.plans,
            in_force: self.in_force,
            rendering: &mut self.rendering,
            medium: &self.medium,
            clock: &self.clock,
            dice: &mut self.disk_dice,
            checkpoints: &self.checkpoints,
            released: &self.released,
        })
    }

    fn take_over(&mut self, node: Node, opened: &[Opened]) {
        for (shard, opened) in opened.iter().enumerate() {
            if opened.report.torn.is_some() {
                self.marks.hit(Mark::TornTail);
            }
            if opened.other_dump.is_some() {
                self.marks.hit(Mark::CheckpointUsed);
            }
            if opened.fell_back {
                self.marks.hit(Mark::CheckpointFallback);
            }
            self.oracle.recovered(shard, opened);
        }
        let dumps: Vec<_> = opened.iter().map(|opened| &opened.dump).collect();
        self.oracle.refold(&dumps);
        self.oracle.note_open_intents(&mut self.marks);
        if node.ingest.has_islands() {
            self.marks.hit(Mark::Islands);
        }
        for client in &self.clients {
            self.oracle.still_there(client.producer, client.acked);
        }
        let mut node = node;
        node.inbound = Inbound::new(self.oracle.fold.delivered.iter().cloned());
        node.inbound.trusts_lists = self.has(Mutant::StaleListTakenForNew);
        let shards = node.shards.len();
        self.oracle.life_begins(self.in_force.mappings);
        self.node = Some(node);
        self.coordinator_at = None;
        for shard in 0..shards {
            self.wake(shard, self.now_ns());
        }
        if self.healed {
            self.lift_holds();
        }
        self.begin_lists();
    }

    /// The process dies; what the kernel has stays.
    pub(super) fn kill(&mut self) {
        if self.node.is_none() {
            return;
        }
        self.marks.hit(Mark::Killed);
        self.die();
        self.disk.restart();
        self.disk.set_faults(self.faults());
        let pause = self.mishap_dice.between(20 * MS, 2_000 * MS);
        self.after(pause, Due::Restart);
    }

    /// The power goes: of what is not synced, any part survives.
    pub(super) fn power_cut(&mut self) {
        if self.disk.is_crashed() {
            self.marks.hit(Mark::CutInWrite);
        }
        self.cut(Mark::PowerCut);
    }

    fn cut(&mut self, mark: Mark) {
        self.marks.hit(mark);
        self.die();
        let keep = *self.disk_dice.pick(&[0, 40, 128, 220, 255]);
        let seed = self.disk_dice.roll();
        let loss = if self.disk_dice.chance(100) {
            SimLoss::All
        } else {
            SimLoss::Random { seed, keep }
        };
        self.disk.crash(loss);
        self.disk.set_faults(self.faults());
        self.clock.reboot();
        let pause = self.mishap_dice.between(20 * MS, 5_000 * MS);
        self.after(pause, Due::Restart);
    }

    fn die(&mut self) {
        self.life += 1;
        self.node = None;
        self.channels.clear();
        self.commands.clear();
        self.plan_words.clear();
        self.coordinator_at = None;
        self.calls_die();
        self.oracle.died();
        self.troubles.died();
        self.leases.died();
        self.retries.died();
        for client in &mut self.clients {
            client.disconnect();
        }
    }

    /// A shard is fenced: whoever watches the engine starts it anew.
    pub(super) fn restart_soon(&mut self) {
        let pause = self.mishap_dice.between(100 * MS, 4_000 * MS);
        self.after(
            pause,
            Due::Mishap(super::Mishap::KillFenced { life: self.life }),
        );
    }

    /// Counts of the engine against those of the logs.
    pub(super) fn conserve(&mut self) {
        let Some(node) = &self.node else { return };
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        let mut dead = 0;
        for own in &node.shards {
            for (account, counts) in own.shard.open_counts() {
                *open.entry(account.to_owned()).or_default() += counts.open;
                dead += counts.dead;
            }
        }
        self.oracle.conserved(&open, dead);
    }

    /// What an index may weigh.
    pub(super) fn check_memory(&mut self, shard: usize) {
        let Some(node) = &self.node else { return };
        let bytes = node.shards[shard].shard.memory_bytes();
        let operations = self
            .oracle
            .fold
            .lanes
            .values()
            .map(std::collections::VecDeque::len)
            .sum::<usize>()
            + self.oracle.fold.dead.len();
        let bound = BYTES_EACH * (operations + self.oracle.fold.expected.len()) + MEMORY_SLACK;
        if bytes > bound {
            self.oracle.note(Err(format!(
                "I22 shard {shard} holds {bytes} bytes for {operations} operations"
            )));
        }
    }

    /// At the end of a good run: a clean stop, then the same index again; and bits that flip
    /// while nobody looks are told, never believed.
    pub(super) fn end_clean(&mut self) {
        let Some(node) = self.node.take() else { return };
        let mut before = Vec::new();
        for (shard, mut own) in node.shards.into_iter().enumerate() {
            if own.shard.is_fenced() {
                // What it has last is not on its disk, and it was about to be ended for that.
                return;
            }
            loop {
                if let Some(answer) = own.answer.take() {
                    if own.journal.log().on_committed(answer).is_err() {
                        // Fenced at the very end: nothing more is promised of this life.
                        return;
                    }
                    continue;
                }
                if own.journal.log().is_idle() && own.sealed_to == own.journal.truly_durable() {
                    break;
                }
                let idle = own.journal.log().is_idle();
                own.journal.log().seal();
                let Some(block) = own.journal.log().take_block(1) else {
                    break;
                };
                if idle {
                    own.sealed_to = block.end();
                }
                own.answer = Some(own.writer.commit(block));
            }
            let fresh = own.journal.take_fresh();
            self.oracle.appended(shard, fresh, &mut self.marks);
            self.oracle.durable(shard, own.journal.truly_durable());
            before.push(dump(&own.shard, &own.journal));
        }
        drop(node.dir);
        self.disk.restart();
        match self.open() {
            Ok((node, opened)) => {
                for (shard, (opened, before)) in opened.iter().zip(&before).enumerate() {
                    self.oracle.recovered(shard, opened);
                    if let Some(difference) = before.difference(&opened.dump) {
                        self.oracle.note(Err(format!(
                            "I19 shard {shard}: live and replayed differ: {difference}"
                        )));
                    }
                }
                drop(node);
            }
            Err(failure) => self
                .oracle
                .note(Err(format!("I18 after a clean stop: {failure}"))),
        }
        if self.options.faults.bit_flips > 0 && self.oracle.broken.is_none() {
            self.flip_and_open();
        }
    }

    fn flip_and_open(&mut self) {
        self.disk.restart();
        let whole = self.disk.snapshot();
        for _ in 0..8 {
            let disk: SimStorage = whole.snapshot();
            let folders: Vec<String> = wal::Storage::list(&disk)
                .unwrap_or_default()
                .into_iter()
                .filter(|name| name.starts_with("log-"))
                .collect();
            let folder = wal::Storage::sub(&disk, self.disk_dice.pick::<String>(&folders));
            let names = wal::Storage::list(&folder).unwrap_or_default();
            let name = self.disk_dice.pick::<String>(&names).clone();
            let bytes = folder.contents(&name).map_or(0, |bytes| bytes.len() as u64);
            // Most of a young segment is zeros yet: look near its beginning.
            let near = bytes >> self.disk_dice.below(6);
            let offset = self.disk_dice.below(near);
            folder.flip(&name, offset, 1 << self.disk_dice.below(8));
            self.disk = disk.clone();
            self.medium = Medium::new(disk, self.options.mutant);
            match self.open() {
                Err(OpenFailure::Damaged(_)) => self.marks.hit(Mark::DamageDetected),
                Err(failure) => self
                    .oracle
                    .note(Err(format!("I18 {name} flipped at {offset}: {failure}"))),
                Ok((_, opened)) => {
                    for (shard, opened) in opened.iter().enumerate() {
                        self.oracle.recovered(shard, opened);
                    }
                }
            }
        }
    }
}
