//! The turns of the shards and of the coordinator, as their threads take them.

use engine::journal::{Class, Journal};
use engine::quota::{EndpointWord, FromShard, Gate, ShardId, ToShard};
use engine::refusal::Code;
use engine::shard::{Command, Input, Output};

use super::{Due, MS, US, World};
use crate::sim::ingest::Ticket;
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::node::{Letter, Taking};

/// Room that a reply may need in the log, as the runtime's thread has it.
const REPLY_ROOM: usize = 2 * 1024 * 1024;
/// Batches in a shard's ring: few, so that a full one is near.
const RING_BATCHES_MAX: usize = 8;
/// Virtual shards put into a checkpoint in one turn.
const PARTS_PER_TURN: usize = 200;
/// Idle time after which the log is sealed.
const SEAL_AFTER: u64 = 50 * MS;

impl World {
    pub(super) fn wake(&mut self, shard: usize, at: u64) {
        let life = self.life;
        let Some(node) = &mut self.node else { return };
        let at = at
            .max(self.clock.true_ns)
            .max(node.shards[shard].stalled_until);
        if node.shards[shard].next_turn.is_none_or(|next| at < next) {
            node.shards[shard].next_turn = Some(at);
            self.at(at, Due::Turn { life, shard });
        }
    }

    pub(super) fn deliver(&mut self, shard: usize, letter: Letter) {
        let now = self.now_ns();
        let endless = self.has(Mutant::RingWithoutBound);
        let Some(node) = &mut self.node else { return };
        let mailbox = &mut node.shards[shard].mailbox;
        let is_batch = |letter: &&Letter| matches!(letter, Letter::Parcel(_));
        let waiting = mailbox.iter().filter(is_batch).count();
        match letter {
            Letter::Parcel(parcel) if waiting >= RING_BATCHES_MAX && !endless => {
                self.marks.hit(Mark::RingFull);
                parcel.barrier.close();
                self.refused(parcel.ticket, Code::Overloaded);
            }
            letter => {
                let waiting = waiting + usize::from(is_batch(&&letter));
                mailbox.push_back(letter);
                if waiting > RING_BATCHES_MAX {
                    self.oracle.note(Err(format!(
                        "I22 {waiting} batches wait for shard {shard}, {RING_BATCHES_MAX} may"
                    )));
                }
                self.wake(shard, now);
            }
        }
    }

    /// A batch was not taken.
    fn refused(&mut self, ticket: Ticket, code: Code) {
        let Some(node) = &mut self.node else { return };
        match ticket {
            Ticket::Part { batch, shard } => {
                // A log that broke under a batch may still have kept it: that refusal says
                // only that nobody knows, and the number tells after the restart.
                let unsure = code == Code::ShardDown;
                if let Some((producer, seqs)) = node.ingest.part(batch, shard) {
                    self.oracle.refused(producer, seqs, unsure);
                }
                if let Some(ended) = node.ingest.answered(batch, shard, Some(code)) {
                    self.batch_ended(ended);
                }
            }
            Ticket::Pulls { take, shard } => {
                if let Some(taken) = node.inbound.answered(take, shard, Some(code)) {
                    self.changes_taken(taken);
                }
            }
            Ticket::Command(_) | Ticket::Page { .. } => {
                let told = format!("{ticket:?} was refused: {code:?}");
                self.oracle.note(Err(told));
            }
        }
    }

    pub(super) fn committed(&mut self, shard: usize) {
        let now = self.clock.now();
        let at = self.now_ns();
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        let Some(answer) = own.answer.take() else {
            return;
        };
        let poisoned = own.journal.log().on_committed(answer).is_err();
        own.last_commit_ns = at;
        own.shard
            .handle(now, &mut own.journal, Input::Log { poisoned });
        if poisoned {
            self.marks.hit(Mark::Poisoned);
            self.restart_soon();
        }
        self.wake(shard, at);
    }

    pub(super) fn due_turn(&mut self, shard: usize) {
        let now = self.now_ns();
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        if own.next_turn != Some(now) {
            return;
        }
        if own.stalled_until > now {
            own.next_turn = None;
            let until = own.stalled_until;
            self.wake(shard, until);
            return;
        }
        own.next_turn = None;
        self.turn(shard);
    }

    fn turn(&mut self, shard: usize) {
        self.turns += 1;
        self.take_mail(shard);
        let now = self.clock.now();
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        let (before, open) = (own.journal.end(), own.shard.open_calls());
        own.shard.upkeep(now, &mut own.journal);
        let decided = own.shard.open_calls().saturating_sub(open);
        let fresh = own.journal.take_fresh();
        if self.print {
            fresh
                .iter()
                .for_each(|frame| println!("{:>14}   shard {shard} {frame}", now.mono.0 / 1000));
        }
        let durable = own.journal.truly_durable();
        own.shard.drain_observations().for_each(drop);
        let fenced_itself = own.shard.is_fenced() && !own.journal.log().is_poisoned();
        self.oracle.appended(shard, fresh, &mut self.marks);
        self.oracle.durable(shard, durable);
        self.note_decided(shard, decided, before);
        if fenced_itself {
            self.oracle.note(Err(format!(
                "I24 shard {shard} is fenced, and no write has failed"
            )));
        }
        self.checkpoint(shard);
        self.compact(shard);
        self.let_out(shard);
        self.commit(shard);
        if self.turns.is_multiple_of(64) {
            self.check_memory(shard);
            self.conserve();
        }
        let Some(node) = &mut self.node else { return };
        let own = &node.shards[shard];
        let mut next = own
            .shard
            .next_deadline()
            .map(|mono| self.clock.true_ns_of(mono));
        if own.shard.has_work() || own.checkpoint.is_some() {
            next = Some(self.clock.true_ns + 200 * US);
        }
        if own.answer.is_none() && own.sealed_to != own.journal.end() {
            // What could not be sealed, since there is no room for it, is tried again later.
            let again = self.clock.true_ns + 10 * MS;
            let seal = own.last_commit_ns + SEAL_AFTER;
            let seal = if seal > self.clock.true_ns {
                seal
            } else {
                again
            };
            next = Some(next.map_or(seal, |next| next.min(seal)));
        }
        if own.writer.wants_maintenance() {
            let again = self.clock.true_ns + 100 * MS;
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        if let Some(next) = next {
            self.wake(shard, next.max(self.clock.true_ns + 50 * US));
        }
    }

    fn take_mail(&mut self, shard: usize) {
        let now = self.clock.now();
        let now_ns = self.now_ns();
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        own.journal.refresh_space();
        let letters = std::mem::take(&mut own.mailbox);
        let mut held = std::collections::VecDeque::new();
        let mut ended = Vec::new();
        for letter in letters {
            let input = match letter {
                Letter::Parcel(parcel) => {
                    let full = !own.shard.has_room_for(&own.journal, &parcel.events)
                        && own.journal.intake_open()
                        && !own.shard.is_fenced()
                        && own.journal.log().staged_bytes() > 0;
                    if full
                        || held
                            .iter()
                            .any(|letter| matches!(letter, Letter::Parcel(_)))
                    {
                        held.push_back(Letter::Parcel(parcel));
                        continue;
                    }
                    Input::Events {
                        batch: parcel.events,
                        barrier: parcel.barrier,
                        ticket: parcel.ticket,
                    }
                }
                Letter::Reply {
                    call,
                    result,
                    ended_at,
                } => {
                    if own.journal.room(Class::Outcome) <= REPLY_ROOM && !own.shard.is_fenced() {
                        held.push_back(Letter::Reply {
                            call,
                            result,
                            ended_at,
                        });
                        continue;
                    }
                    ended.push(call);
                    let result = if own.shard.is_fenced() {
                        result
                    } else {
                        Self::taken_in(
                            &self.calls,
                            (self.life, shard, call),
                            (&mut self.troubles, &mut self.leases, &mut self.marks),
                            (now_ns, &self.providers, self.options.mutant),
                            result,
                        )
                    };
                    Input::Reply {
                        call,
                        result,
                        ended_at,
                    }
                }
                Letter::Word(word) => {
                    match &word {
                        ToShard::Gate {
                            gate: Gate::Held { .. },
                            ..
                        } => self.marks.hit(Mark::BreakerOpened),
                        ToShard::Gate {
                            gate: Gate::Probe, ..
                        } => self.marks.hit(Mark::Probed),
                        _ => {}
                    }
                    Input::Coordinator(word)
                }
                Letter::Command { command, ticket } => {
                    if let (Command::Plan(plan), Ticket::Command(number)) = (&command, ticket) {
                        let version = self.plan_words.get(&number).copied().unwrap_or_default();
                        let at = own.journal.end();
                        self.oracle.took_mappings(shard, &plan.name, at, version);
                        let deaf = self.options.mutant == Some(Mutant::MappingsToldToOne);
                        if deaf && shard > 0 {
                            self.commands.remove(&(number, shard));
                            continue;
                        }
                    }
                    Input::Control { command, ticket }
                }
                Letter::Fetch {
                    account,
                    list,
                    endpoint,
                    request,
                    ticket,
                } => Input::Fetch {
                    account,
                    list,
                    endpoint,
                    request,
                    ticket,
                },
                Letter::Link(word) => Input::Link(word),
            };
            own.shard.handle(now, &mut own.journal, input);
        }
        own.mailbox = held;
        for id in ended {
            if let Some(carried) = self.carried_by(shard, id) {
                self.oracle.call_ends(&carried);
            }
        }
    }

    fn let_out(&mut self, shard: usize) {
        let now = self.clock.now();
        loop {
            let Some(node) = &mut self.node else { return };
            let Some(output) = node.shards[shard].shard.poll(now.mono) else {
                return;
            };
            match output {
                Output::Accepted(Ticket::Part { batch, shard }) => {
                    if self.marks.count(Mark::DiskFull) > 0 && self.capacity.is_none() {
                        self.marks.hit(Mark::DiskHealed);
                    }
                    if let Some(ended) = node.ingest.answered(batch, shard, None) {
                        self.batch_ended(ended);
                    }
                }
                Output::Refused { ticket, code } => {
                    if code == Code::DiskFull && matches!(ticket, Ticket::Part { .. }) {
                        self.marks.hit(Mark::DiskFull);
                    }
                    self.refused(ticket, code);
                }
                Output::Accepted(Ticket::Pulls { take, shard }) => {
                    if let Some(taken) = node.inbound.answered(take, shard, None) {
                        self.changes_taken(taken);
                    }
                }
                Output::Fetched {
                    ticket: Ticket::Page { list },
                    result,
                } => self.page_came(list, result),
                Output::Link(word) => {
                    let owner = word.owner().expect("a question or news names its record");
                    let to = owner.vshard().owner(node.shards.len());
                    self.tell_shard(shard, to, word);
                }
                Output::LinkTo(to, word) => self.tell_shard(shard, usize::from(to.0), word),
                Output::Done {
                    ticket: Ticket::Command(number),
                    ..
                } => {
                    self.commands.remove(&(number, shard));
                }
                Output::Call {
                    call,
                    plan,
                    request,
                } => {
                    let account = plan.name.to_string();
                    self.call_leaves(shard, call, &account, request);
                }
                Output::Coordinator(word) => {
                    if matches!(word, FromShard::Unspent { .. }) {
                        self.marks.hit(Mark::LeaseUnspent);
                    }
                    let told = self.leases.tells(shard, &word);
                    self.oracle.note(told);
                    if self.options.mutant == Some(Mutant::TroublesLost) && tells_of_trouble(&word)
                    {
                        continue;
                    }
                    let delay = self.shard_dice.between(US, 300 * US);
                    let at = self.in_order((0, shard), delay);
                    let life = self.life;
                    if self.has(Mutant::ReturnCountedTwice)
                        && matches!(word, FromShard::Unspent { .. })
                    {
                        let word = word.clone();
                        self.at(at, Due::ToCoordinator { life, shard, word });
                    }
                    self.at(at, Due::ToCoordinator { life, shard, word });
                }
                other => self
                    .oracle
                    .note(Err(format!("an effect for the wrong ticket: {other:?}"))),
            }
        }
    }

    /// Hands the writer what waits, as the shard's thread does.
    fn commit(&mut self, shard: usize) {
        let life = self.life;
        let now_ns = self.now_ns();
        let wall_ms = self.clock.now().wall.0.max(0).unsigned_abs();
        let slow = if self.healed {
            0
        } else {
            self.options.faults.slow_commits
        };
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        if own.answer.is_some() {
            return;
        }
        let idle = own.journal.log().is_idle();
        if idle && own.sealed_to != own.journal.end() && now_ns - own.last_commit_ns >= SEAL_AFTER {
            own.journal.log().seal();
        }
        let segments = own.journal.log().segments().count();
        let block = own.journal.log().take_block(wall_ms);
        let Some(block) = block else {
            if own.writer.wants_maintenance() {
                self.maintain(shard);
            }
            return;
        };
        if own.journal.log().segments().count() > segments {
            self.marks.hit(Mark::Rotated);
        }
        if idle {
            own.sealed_to = block.end();
        }
        own.answer = Some(own.writer.commit(block));
        let stays_long = self.disk_dice.chance(slow);
        let delay = if stays_long {
            self.disk_dice.between(100 * MS, 3_000 * MS)
        } else {
            self.disk_dice.skewed(50 * US, 8 * MS)
        };
        self.after(delay, Due::Committed { life, shard });
        self.maintain(shard);
    }

    fn maintain(&mut self, shard: usize) {
        let Some(node) = &mut self.node else { return };
        let own = &mut node.shards[shard];
        for _ in 0..64 {
            match own.writer.maintain(64 * 1024) {
                Ok(done) if done.more => {}
                Ok(_) => return,
                Err(wal::WriteFailed::Poisoned) => return,
                Err(error) => {
                    // Told like the answer of a commit.
                    if own.answer.is_none() {
                        own.answer = Some(Err(error));
                        let life = self.life;
                        self.after(50 * US, Due::Committed { life, shard });
                    }
                    return;
                }
            }
        }
    }

    /// Takes the next slice of a checkpoint; it counts once the log holds all that it has seen.
    fn checkpoint(&mut self, shard: usize) {
        let Some(node) = &mut self.node else { return };
        let layout = node.dir.layout().expect("a running node has a layout");
        let own = &mut node.shards[shard];
        let Some(mut taking) = own.checkpoint.take() else {
            return;
        };
        let seen = own.journal.end();
        if taking.replay_from.is_none() {
            taking.parts.push(own.shard.general_part(&own.journal));
            taking.left = own.shard.owned().collect();
            taking.replay_from = Some(seen);
            taking.seen_to = seen;
        }
        let slice = taking.left.len().saturating_sub(PARTS_PER_TURN);
        for vshard in taking.left.split_off(slice) {
            taking
                .parts
                .extend(own.shard.vshard_part(&own.journal, vshard));
            taking.seen_to = seen;
        }
        let durable = own.journal.truly_durable() >= taking.seen_to;
        if taking.left.is_empty()
            && (durable || self.options.mutant == Some(Mutant::EarlyCheckpoint))
        {
            let saved = self
                .checkpoints
                .entry(layout.log(shard as u16))
                .or_default();
            saved.push(crate::sim::node::Saved {
                parts: taking.parts,
                replay_from: taking.replay_from.expect("set with the first part"),
            });
            if saved.len() > 2 {
                saved.remove(0);
            }
            return;
        }
        own.checkpoint = Some(taking);
    }

    /// Follows a sweep of compaction: once its copies are durable and two checkpoints lie above
    /// it, the segments below go.
    fn compact(&mut self, shard: usize) {
        let Some(node) = &mut self.node else { return };
        let log_id = node
            .dir
            .layout()
            .expect("a running node has a layout")
            .log(shard as u16);
        let own = &mut node.shards[shard];
        let Some((cut, copied_to)) = own.relocation else {
            return;
        };
        match copied_to {
            None if own.shard.relocated_below() >= cut => {
                own.relocation = Some((cut, Some(own.journal.end())));
            }
            Some(copied_to) if own.journal.truly_durable() >= copied_to => {
                let saved = self.checkpoints.get(&log_id);
                let covered = saved.filter(|saved| saved.len() == 2).map(|saved| {
                    saved
                        .iter()
                        .map(|saved| saved.replay_from)
                        .min()
                        .unwrap_or_default()
                });
                match covered {
                    Some(from) if from >= copied_to => {
                        let gone: Vec<_> = own
                            .journal
                            .log()
                            .segments()
                            .filter(|segment| segment.sealed && segment.end <= cut)
                            .map(|segment| segment.number)
                            .collect();
                        for number in gone {
                            if own.journal.log().release(number).is_ok() {
                                self.released.insert(log_id);
                                self.marks.hit(Mark::Released);
                            }
                        }
                        own.relocation = None;
                    }
                    _ if own.checkpoint.is_none() => own.checkpoint = Some(Taking::default()),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// A turn of the coordinator: with a word of a shard, or because time passed.
    pub(super) fn coordinate(&mut self, word: Option<(usize, FromShard)>) {
        let now = self.clock.now();
        let at = self.now_ns();
        let Some(node) = &mut self.node else { return };
        match word {
            Some((shard, word)) => node.coordinator.handle(now, ShardId(shard as u16), word),
            None if self.coordinator_at != Some(at) => return,
            None => self.coordinator_at = None,
        }
        node.coordinator.tick(now);
        let mut words: Vec<_> = std::iter::from_fn(|| node.coordinator.poll()).collect();
        let learned = node.coordinator.take_learned().into_iter();
        words.extend(learned.map(|learned| (ShardId(0), ToShard::Learned(learned))));
        let deadline = node.coordinator.next_deadline();
        for (shard, word) in &words {
            let (shard, mono) = (usize::from(shard.0), now.mono.0);
            self.troubles.told(word);
            let told = self.leases.told(mono, shard, word, &self.options.accounts);
            self.oracle.note(told);
        }
        let words = self.planted_words(words);
        for (shard, word) in words {
            let shard = usize::from(shard.0);
            let delay = self.shard_dice.between(US, 300 * US);
            let deliver_at = self.in_order((1, shard), delay);
            let life = self.life;
            self.at(
                deliver_at,
                Due::Deliver {
                    life,
                    shard,
                    letter: Letter::Word(word),
                },
            );
        }
        if let Some(deadline) = deadline {
            let at = self
                .clock
                .true_ns_of(deadline)
                .max(self.clock.true_ns + 20 * US);
            if self.coordinator_at.is_none_or(|next| at < next) {
                self.coordinator_at = Some(at);
                let life = self.life;
                self.at(at, Due::Coordinator { life });
            }
        }
    }
}

fn tells_of_trouble(word: &FromShard) -> bool {
    matches!(
        word,
        FromShard::Trouble { .. }
            | FromShard::Endpoint {
                word: EndpointWord::Failed { .. },
                ..
            }
    )
}
