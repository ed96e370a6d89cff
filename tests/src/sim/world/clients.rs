//! The clients: number events, send them, send them again until they are acknowledged.

use std::collections::VecDeque;

use super::people::Errand;
use super::{Due, MS, US, World};
use crate::sim::dice::Dice;
use crate::sim::ingest::Ended;
use crate::sim::node::Letter;
use crate::sim::options::Options;
use crate::sim::workload::Workload;

/// Numbers a client has on the way at most.
const WINDOW: u64 = 48;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) producer: u64,
    workload: Workload,
    lines: Vec<Vec<u8>>,
    total: u64,
    /// The highest acknowledgement it was told.
    pub(super) acked: u64,
    /// The highest acknowledgement that was sent to it, whether it arrived or not.
    told: u64,
    /// The last number sent in this session.
    cursor: u64,
    session: u64,
    connected: bool,
    /// Its next turn is on the agenda.
    sending: bool,
    /// What it does before all else, where changes come back.
    errands: VecDeque<Errand>,
    dice: Dice,
}

impl Client {
    pub(super) fn new(options: &Options, at: usize) -> Self {
        Self {
            producer: 1_000 + at as u64,
            workload: Workload::new(options, at),
            lines: Vec::new(),
            total: options.events,
            acked: 0,
            told: 0,
            cursor: 0,
            session: 0,
            connected: false,
            sending: true,
            errands: VecDeque::new(),
            dice: Dice::stream(options.seed, &format!("client {at}")),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.acked == self.total
    }

    pub(super) fn disconnect(&mut self) {
        self.session += 1;
        self.connected = false;
    }

    pub(super) fn standing(&self) -> String {
        format!(
            "{} of {} acknowledged, {} sent",
            self.acked, self.total, self.cursor
        )
    }
}

impl World {
    pub(super) fn client_sends(&mut self, at: usize) {
        let gap = self.options.busy.as_nanos() as u64 * 4 / self.options.events.max(1);
        let client = &mut self.clients[at];
        if client.is_done() {
            client.sending = false;
            return;
        }
        let delay = client.dice.below(2 * gap) + 100 * US;
        let Some(node) = &mut self.node else {
            self.after(50 * MS, Due::Send { client: at });
            return;
        };
        if !client.connected {
            let Some(last) = node.ingest.hello(client.producer) else {
                self.after(20 * MS, Due::Send { client: at });
                return;
            };
            if last < client.told {
                let (told, producer) = (client.told, client.producer);
                self.oracle.note(Err(format!(
                    "I1 producer {producer} is welcomed at {last}, was told {told}"
                )));
                return;
            }
            client.connected = true;
            client.cursor = last;
            // Whatever the welcome covers is acknowledged by it.
            client.acked = client.acked.max(last);
        }
        let room = WINDOW.saturating_sub(client.cursor - client.acked.min(client.cursor));
        let count = client
            .dice
            .between(1, 8)
            .min(room)
            .min(client.total - client.cursor);
        if count > 0 {
            let first = client.cursor + 1;
            let wall_ms = self.clock.now().wall.0;
            let wanted = client.cursor + count;
            self.write_lines(at, wanted, wall_ms);
            let (Some(node), client) = (&mut self.node, &mut self.clients[at]) else {
                return;
            };
            let lines = &client.lines[client.cursor as usize..(client.cursor + count) as usize];
            self.oracle
                .offered(client.producer, first, lines, self.in_force);
            client.cursor += count;
            let (parcels, ended) =
                node.ingest
                    .take(wall_ms, (at, client.session), client.producer, first, lines);
            for parcel in parcels {
                let delay = self.net_dice.between(US, 300 * US);
                let deliver_at = self.in_order((2, parcel.shard), delay);
                let (life, shard) = (self.life, parcel.shard);
                self.at(
                    deliver_at,
                    Due::Deliver {
                        life,
                        shard,
                        letter: Letter::Parcel(parcel),
                    },
                );
            }
            if let Some(ended) = ended {
                self.batch_ended(ended);
            }
        } else if self.clients[at].cursor == self.clients[at].total && self.net_dice.chance(20) {
            // An acknowledgement may be lost: a client that hears nothing comes again.
            self.clients[at].disconnect();
        }
        self.after(delay, Due::Send { client: at });
    }

    /// Has a client's lines written up to a number.
    fn write_lines(&mut self, at: usize, wanted: u64, wall_ms: i64) {
        while (self.clients[at].lines.len() as u64) < wanted {
            let line = if self.options.two_way.is_some() {
                let errand = self.clients[at].errands.pop_front();
                self.system_a_does(at, errand)
            } else {
                self.clients[at].workload.next_event(wall_ms)
            };
            self.clients[at].lines.push(line);
        }
    }

    /// Gives a client one more thing to say.
    pub(super) fn send_on(&mut self, at: usize, errand: Errand) {
        let client = &mut self.clients[at];
        client.total += 1;
        client.errands.push_back(errand);
        if !std::mem::replace(&mut client.sending, true) {
            // System A's times are of whole milliseconds: what it heard in the same one it may not
            // have known.
            self.after(3 * MS, Due::Send { client: at });
        }
    }

    /// A batch is settled: its client is told.
    pub(super) fn batch_ended(&mut self, ended: Ended) {
        let client = &mut self.clients[ended.client];
        let (producer, told) = (client.producer, client.told);
        client.told = told.max(ended.last);
        let session = client.session;
        if ended.refused {
            client.disconnect();
        }
        self.oracle.acknowledged(producer, told, ended.last);
        if !self.net_dice.chance(self.options.faults.lost_acks) || self.healed {
            let delay = self.net_dice.between(100 * US, 3 * MS);
            self.after(
                delay,
                Due::Ack {
                    client: ended.client,
                    session,
                    last: ended.last,
                },
            );
        }
    }

    pub(super) fn client_hears(&mut self, at: usize, session: u64, last: u64) {
        let client = &mut self.clients[at];
        if client.session == session {
            client.acked = client.acked.max(last);
        }
    }
}
