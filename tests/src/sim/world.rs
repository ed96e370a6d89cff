//! The world of one run: what happens when, until everything has ended.

mod calls;
mod clients;
mod life;
mod lists;
mod mishaps;
mod notices;
mod people;
mod planted;
mod quiet;
mod sets;
mod standings;
mod turns;
mod waiting;
mod words;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use engine::provider::Reply;
use engine::quota::FromShard;
use engine::shard::{AccountPlan, Rendering};
use wal::LogId;
use wal::sim::SimStorage;
use xxhash_rust::xxh3::Xxh3;

use super::clock::Clock;
use super::dice::Dice;
use super::isolation;
use super::leases::Ledger;
use super::marks::Marks;
use super::medium::Medium;
use super::node::{Letter, Node, Saved};
use super::options::Options;
use super::oracle::Oracle;
use super::provider::Provider;
use super::retries::RetryShare;
use super::sets::InForce;
use super::trouble::Troubles;
use super::two_way::ledger::Key;
use super::two_way::notice::Notice;
use super::two_way::options::InboundOptions;
use super::two_way::side::{Place, Side};
use calls::{Call, CallEnd};
use clients::Client;
use lists::List;
use mishaps::Mishap;
use people::People;
use quiet::Phase;
use sets::first_plans;

const MS: u64 = 1_000_000;
const US: u64 = 1_000;
/// How long everything may take to end once the faults are off.
const HEALED_MAX_NS: u64 = 4 * 3600 * 1000 * MS;
/// Events handled in one run at most: a world that spins is a bug as well.
const STEPS_MAX: u64 = 3_000_000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first broken promise.
    pub broken: Option<String>,
    /// What was seen to happen.
    pub marks: Marks,
    /// Hash over everything that happened, in order.
    pub trace_hash: u64,
    /// Virtual time it took.
    pub virtual_time: Duration,
    /// Operations accepted, times their targets.
    pub operations: usize,
    /// Calls at the providers.
    pub calls: u64,
    /// Operations that had ended when all was healed, by account.
    pub ended: BTreeMap<String, usize>,
}

/// Something that happens at a time.
#[derive(Debug)]
enum Due {
    Turn {
        life: u64,
        shard: usize,
    },
    Committed {
        life: u64,
        shard: usize,
    },
    Deliver {
        life: u64,
        shard: usize,
        letter: Letter,
    },
    ToCoordinator {
        life: u64,
        shard: usize,
        word: FromShard,
    },
    Coordinator {
        life: u64,
    },
    Send {
        client: usize,
    },
    Ack {
        client: usize,
        session: u64,
        last: u64,
    },
    CallArrives {
        call: usize,
    },
    CallAnswered {
        call: usize,
    },
    CallEnds {
        call: usize,
        end: CallEnd,
    },
    Mishap(Mishap),
    Person {
        side: usize,
    },
    SetBackThere {
        side: usize,
        place: Place,
    },
    Notice {
        number: u64,
    },
    List {
        life: u64,
        at: usize,
    },
    Restart,
    Heal,
    Inspect,
}

#[derive(Debug)]
struct Scheduled {
    at: u64,
    order: u64,
    due: Due,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct World {
    options: Options,
    plans: Vec<Arc<AccountPlan>>,
    /// The mappings and rules that are kept.
    in_force: InForce,
    rendering: Rendering,
    /// The disk that was full is well again, and holds may still be set.
    lift_again: bool,
    /// The newest that somebody gave.
    given: InForce,
    clock: Clock,
    agenda: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    disk: SimStorage,
    medium: Medium,
    /// The disk's size, while it is scarce.
    capacity: Option<u64>,
    node: Option<Node>,
    /// Counts the lives of the engine; what belongs to an earlier one is void.
    life: u64,
    /// True time before which the next word or parcel of a channel is not delivered.
    channels: BTreeMap<(u8, usize), u64>,
    coordinator_at: Option<u64>,
    clients: Vec<Client>,
    calls: Vec<Call>,
    providers: Vec<Provider>,
    /// The accounts again, as their people see them, where changes come back.
    sides: Vec<Side>,
    people: People,
    notices: BTreeMap<u64, Notice>,
    lists: Vec<List>,
    /// Records whose field a workflow of System A is about to set back.
    set_back: BTreeSet<Key>,
    phase: Phase,
    /// The first answer to each read, for the planted bug that repeats it.
    first_reads: BTreeMap<(usize, String), Reply>,
    checkpoints: BTreeMap<LogId, Vec<Saved>>,
    released: BTreeSet<LogId>,
    /// Commands that were not answered: number and shard.
    commands: BTreeSet<(u64, usize)>,
    last_command: u64,
    /// Of commands that give an account other mappings: their version.
    plan_words: BTreeMap<u64, u32>,
    oracle: Oracle,
    troubles: Troubles,
    leases: Ledger,
    retries: RetryShare,
    marks: Marks,
    healed: bool,
    /// Operations that had ended by then, by account.
    ended: BTreeMap<String, usize>,
    /// The engine does not open any more, and says so: the run ends.
    detected: bool,
    turns: u64,
    net_dice: Dice,
    disk_dice: Dice,
    shard_dice: Dice,
    mishap_dice: Dice,
    trace: Xxh3,
    trace_text: String,
    print: bool,
}

/// Runs a seed to its end. `print` shows everything that happens.
#[must_use]
pub fn run(options: &Options, print: bool) -> Outcome {
    if options.pair {
        isolation::run(options, print)
    } else {
        run_one(options, print)
    }
}

pub(super) fn run_one(options: &Options, print: bool) -> Outcome {
    let mut world = World::new(options.clone(), print);
    world.begin();
    let mut steps = 0;
    while world.oracle.broken.is_none() && !world.is_over() {
        let Some(Reverse(next)) = world.agenda.pop() else {
            world
                .oracle
                .note(Err("I24 nothing happens any more".to_owned()));
            break;
        };
        world.clock.true_ns = world.clock.true_ns.max(next.at);
        world.step(next.due);
        steps += 1;
        if steps > STEPS_MAX {
            world.oracle.note(Err("I24 the world spins".to_owned()));
        }
    }
    world.end()
}

impl World {
    fn new(options: Options, print: bool) -> Self {
        let disk = SimStorage::new();
        let medium = Medium::new(disk.clone(), options.mutant);
        let seed = options.seed;
        Self {
            plans: first_plans(&options),
            in_force: InForce::default(),
            lift_again: false,
            rendering: Rendering::new(u64::from(InForce::default().mappings)),
            given: InForce::default(),
            clock: Clock::default(),
            agenda: BinaryHeap::new(),
            order: 0,
            medium,
            disk,
            capacity: None,
            node: None,
            life: 0,
            channels: BTreeMap::new(),
            coordinator_at: None,
            clients: (0..options.producers)
                .map(|at| Client::new(&options, at))
                .collect(),
            calls: Vec::new(),
            providers: (0..options.accounts.len())
                .map(|at| Provider::new(&options, at))
                .collect(),
            sides: sides(&options),
            people: People::new(&options),
            notices: BTreeMap::new(),
            lists: Vec::new(),
            set_back: BTreeSet::new(),
            phase: Phase::Settling,
            first_reads: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            released: BTreeSet::new(),
            commands: BTreeSet::new(),
            last_command: 0,
            plan_words: BTreeMap::new(),
            oracle: Oracle::new(&options),
            troubles: Troubles::default(),
            leases: Ledger::default(),
            retries: RetryShare::default(),
            marks: Marks::default(),
            healed: false,
            ended: BTreeMap::new(),
            detected: false,
            turns: 0,
            net_dice: Dice::stream(seed, "net"),
            disk_dice: Dice::stream(seed, "disk"),
            shard_dice: Dice::stream(seed, "shards"),
            mishap_dice: Dice::stream(seed, "mishaps"),
            trace: Xxh3::new(),
            trace_text: String::new(),
            print,
            options,
        }
    }

    fn begin(&mut self) {
        self.lists = self.make_lists();
        self.restart();
        self.plan_people();
        for client in 0..self.clients.len() {
            self.after(client as u64 * MS, Due::Send { client });
        }
        self.plan_mishaps();
        self.after(self.options.busy.as_nanos() as u64, Due::Heal);
    }

    fn step(&mut self, due: Due) {
        self.note(&due);
        match due {
            Due::Turn { life, shard } if life == self.life => self.due_turn(shard),
            Due::Committed { life, shard } if life == self.life => self.committed(shard),
            Due::Deliver {
                life,
                shard,
                letter,
            } if life == self.life => self.deliver(shard, letter),
            Due::ToCoordinator { life, shard, word } if life == self.life => {
                self.coordinate(Some((shard, word)))
            }
            Due::Coordinator { life } if life == self.life => self.coordinate(None),
            Due::Turn { .. }
            | Due::Committed { .. }
            | Due::Deliver { .. }
            | Due::ToCoordinator { .. }
            | Due::Coordinator { .. } => {}
            Due::Send { client } => self.client_sends(client),
            Due::Ack {
                client,
                session,
                last,
            } => self.client_hears(client, session, last),
            Due::CallArrives { call } => self.call_arrives(call),
            Due::CallAnswered { call } => self.call_answered(call),
            Due::CallEnds { call, end } => self.call_ends(call, end),
            Due::Mishap(mishap) => self.strike(mishap),
            Due::Person { side } => self.person_edits(side),
            Due::SetBackThere { side, place } => self.set_back_there(side, &place),
            Due::Notice { number } => self.notice_arrives(number),
            Due::List { life, at } if life == self.life => self.ask_list(at),
            Due::List { .. } => {}
            Due::Restart => self.restart(),
            Due::Heal => self.heal(),
            Due::Inspect => self.inspect(),
        }
        if self.node.is_some() && self.disk.is_crashed() {
            self.power_cut();
        }
    }

    fn now_ns(&self) -> u64 {
        self.clock.true_ns
    }

    fn at(&mut self, at: u64, due: Due) {
        self.order += 1;
        self.agenda.push(Reverse(Scheduled {
            at,
            order: self.order,
            due,
        }));
    }

    fn after(&mut self, delay_ns: u64, due: Due) {
        self.at(self.now_ns() + delay_ns, due);
    }

    /// The time of a delivery that does not overtake others of its channel.
    fn in_order(&mut self, channel: (u8, usize), delay_ns: u64) -> u64 {
        let at = self.now_ns() + delay_ns;
        let last = self.channels.entry(channel).or_default();
        *last = at.max(*last);
        *last
    }

    /// Adds to the trace: a hash that two runs of a seed must share.
    fn note(&mut self, due: &Due) {
        self.trace_text.clear();
        // Writing to a text cannot fail.
        write!(self.trace_text, "{:?}", due).ok();
        self.trace.update(&self.clock.true_ns.to_le_bytes());
        self.trace.update(self.trace_text.as_bytes());
        if self.print {
            let text: String = self.trace_text.chars().take(240).collect();
            println!("{:>14} {text}", self.clock.true_ns / 1000);
        }
    }

    fn say(&mut self, text: &str) {
        self.trace.update(text.as_bytes());
        if self.print {
            println!("{:>14}   {text}", self.clock.true_ns / 1000);
        }
    }

    fn is_over(&mut self) -> bool {
        self.detected || (self.rests() && !self.go_on())
    }

    /// Whether all that was accepted has ended, and nothing is on its way.
    fn rests(&self) -> bool {
        self.healed && self.node.is_some() && self.clients.iter().all(Client::is_done) && {
            self.oracle.fold.lanes.is_empty()
                && self.commands.is_empty()
                && (self.options.two_way.is_none() || self.sides_rest())
                && self.calls.iter().all(Call::has_ended)
        }
    }

    fn inspect(&mut self) {
        if self.now_ns() > self.options.busy.as_nanos() as u64 + HEALED_MAX_NS {
            let providers = std::mem::take(&mut self.providers);
            self.oracle.converged(&providers);
            let clients: Vec<String> = self.clients.iter().map(Client::standing).collect();
            let commands = self.commands.len();
            self.oracle.note(Err(format!(
                "I24 not over: clients {clients:?}, {commands} commands"
            )));
            return;
        }
        if std::mem::take(&mut self.lift_again) {
            self.lift_holds();
        }
        self.after(1_000 * MS, Due::Inspect);
    }

    fn end(mut self) -> Outcome {
        if self.oracle.broken.is_none() && !self.detected {
            for client in 0..self.clients.len() {
                let (producer, acked) = (self.clients[client].producer, self.clients[client].acked);
                self.oracle.still_there(producer, acked);
            }
            self.conserve();
            self.check_standings();
            let providers = std::mem::take(&mut self.providers);
            self.oracle.converged(&providers);
            self.providers = providers;
            self.end_clean();
        }
        let operations = self.oracle.fold.accepted_count();
        Outcome {
            seed: self.options.seed,
            broken: self.oracle.broken,
            marks: self.marks,
            trace_hash: self.trace.digest(),
            virtual_time: Duration::from_nanos(self.clock.true_ns),
            operations,
            calls: self.providers.iter().map(|provider| provider.calls).sum(),
            ended: self.ended,
        }
    }
}

fn sides(options: &Options) -> Vec<Side> {
    let two_way = options.two_way.iter();
    let accounts = two_way.flat_map(|two_way| &two_way.accounts).enumerate();
    let side = |(at, account): (usize, &InboundOptions)| {
        let mapped = options.mapped_back.as_ref();
        let mapped = mapped.and_then(|set| set.accounts.get(&options.accounts[at].name));
        Side::new(options.seed, at, account.clone(), mapped.cloned())
    };
    accounts.map(side).collect()
}
