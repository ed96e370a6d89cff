//! Every order in which a few edits, the calls they lead to and their notices can come.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use syncline_engine::merge::Rule;
use syncline_engine::provider::CallKind;
use syncline_engine::shard::SYSTEM_A;

use super::stage::{Notice, Stage};

pub(crate) const RECORD: &str = "c";
const REMOTE: &str = "r1";

/// What somebody does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edit {
    Here(&'static str),
    There(&'static str),
    DeleteHere,
    DeleteThere,
}

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The next edit.
    Edit,
    /// A call does its work and is answered.
    Answer(usize),
    /// A notice comes.
    Deliver(usize),
    /// It never comes.
    Lose(usize),
    /// It comes, and will come once more.
    Repeat(usize),
}

/// A stage, what is still to be done on it, and what was seen of it.
pub(crate) struct World<'e> {
    pub(crate) stage: Stage,
    edits: &'e [Edit],
    done: usize,
    /// Notices that may still be lost or come twice.
    faults: usize,
    pub(crate) witness: Witness,
    began_ms: i64,
}

/// From one edit to the next, by the stage's clock.
const EDIT_MS: i64 = 10;

/// What the sides knew when, of edits that set `/a` to their own number, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Witness {
    /// The last edit made here.
    here: u64,
    /// The last one made there.
    there: u64,
    /// The last one of there that was read,
    seen: u64,
    /// the edit at which the account says that this one was made, in the notice that it was read for,
    told: u64,
    /// and the last one of here that had arrived there when it was made.
    seen_after: u64,
    /// The last one of there that System A heard of,
    heard: u64,
    /// and when the last one was made here.
    heard_here: u64,
    /// The last one of here that arrived there,
    arrived: u64,
    /// and when the last one was made there.
    arrived_there: u64,
}

impl<'e> World<'e> {
    fn new(stage: Stage, edits: &'e [Edit], faults: usize) -> Self {
        Self {
            began_ms: stage.wall_ms(),
            stage,
            edits,
            done: 0,
            faults,
            witness: Witness::default(),
        }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        if self.done < self.edits.len() {
            steps.push(Step::Edit);
        }
        steps.extend((0..self.stage.calls.len()).map(Step::Answer));
        let notices = &self.stage.notices;
        for (at, notice) in notices.iter().enumerate() {
            // Of two that say the same it does not matter which one comes first.
            if notices.iter().take(at).any(|before| before == notice) {
                continue;
            }
            steps.push(Step::Deliver(at));
            if self.faults > 0 {
                steps.extend([Step::Lose(at), Step::Repeat(at)]);
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Edit => {
                self.edit(self.edits[self.done]);
                self.done += 1;
            }
            Step::Answer(at) => self.answer(at),
            Step::Deliver(at) => {
                let notice = self.stage.notices.remove(at).unwrap();
                self.stage.deliver(&notice);
            }
            Step::Lose(at) => {
                self.faults -= 1;
                self.stage.notices.remove(at);
            }
            Step::Repeat(at) => {
                self.faults -= 1;
                let notice: Notice = self.stage.notices[at].clone();
                self.stage.deliver(&notice);
            }
        }
    }

    fn edit(&mut self, edit: Edit) {
        let number = self.done as u64 + 1;
        let here = self.stage.stores[SYSTEM_A].records.contains_key(RECORD);
        let witness = &mut self.witness;
        match edit {
            Edit::Here(patch) => {
                (witness.here, witness.heard_here) = (number, witness.heard);
                if here {
                    self.stage.edit_here(RECORD, patch);
                }
            }
            Edit::There(patch) => {
                (witness.there, witness.arrived_there) = (number, witness.arrived);
                self.stage.edit_there("alpha", REMOTE, patch);
            }
            Edit::DeleteHere if here => self.stage.delete_here(RECORD),
            Edit::DeleteHere => {}
            Edit::DeleteThere => self.stage.delete_there("alpha", REMOTE),
        }
    }

    fn answer(&mut self, at: usize) {
        let call = &self.stage.calls[at];
        let (account, reads) = (call.account.clone(), call.request.kind == CallKind::Read);
        let told = (self.stage.changed_ms(call) - self.began_ms) / EDIT_MS;
        self.stage.answer(at);
        let shown = self.shown(&account);
        let by_here = |number: u64| {
            let edit = (number as usize).checked_sub(1).map(|at| self.edits[at]);
            matches!(edit, Some(Edit::Here(_)))
        };
        let witness = &mut self.witness;
        match (account == SYSTEM_A, by_here(shown)) {
            (true, false) => witness.heard = witness.heard.max(shown),
            (false, true) => witness.arrived = witness.arrived.max(shown),
            (false, false) if reads => witness.see(shown, told.unsigned_abs()),
            _ => {}
        }
    }

    /// The number of the edit whose value a side shows.
    pub(crate) fn shown(&self, side: &str) -> u64 {
        let mut records = self.stage.stores[side].records.values();
        let value = records.next().and_then(|kept| kept.fields.get("/a"));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    fn fingerprint(&mut self) -> u128 {
        let stage = self.stage.fingerprint();
        let rest = format!("{} {} {:?}", self.done, self.faults, self.witness);
        stage ^ xxhash_rust::xxh3::xxh3_128(rest.as_bytes())
    }

    fn tell(&self, step: Step) -> String {
        let notices = &self.stage.notices;
        match step {
            Step::Edit => format!("{:?}", self.edits[self.done]),
            Step::Answer(at) => {
                let call = &self.stage.calls[at];
                let body = String::from_utf8_lossy(&call.request.body);
                format!("{} {} {body}", call.account, call.request.kind)
            }
            Step::Deliver(at) => format!("{:?}", notices[at]),
            Step::Lose(at) => format!("lost: {:?}", notices[at]),
            Step::Repeat(at) => format!("not for the last time: {:?}", notices[at]),
        }
    }
}

impl Witness {
    /// An edit of there was read.
    fn see(&mut self, number: u64, told: u64) {
        if number > self.seen {
            (self.seen, self.told, self.seen_after) = (number, told, self.arrived_there);
        }
    }

    /// The edit that both sides have to end with, once all that stands at the account was seen.
    pub(crate) fn expected(mut self, rule: &Rule, standing: u64) -> u64 {
        if standing == self.there {
            self.see(standing, standing);
        }
        match rule {
            // The last one of those that anybody saw: what we wrote over is not known to have been.
            // It is as old as the notice that it was read for, where that is of another edit.
            Rule::LastWriteWins if self.told <= self.here && self.seen_after < self.here => {
                self.here
            }
            Rule::LastWriteWins => self.here.max(self.seen),
            // What System A said last, unless it was changed after that had arrived.
            Rule::SystemA if self.there > self.here && self.arrived_there == self.here => {
                self.there
            }
            Rule::SystemA => self.here,
            // What was seen there last, unless System A knew it and changed it after that.
            Rule::Provider if self.here > self.seen && self.heard_here == self.seen => self.here,
            Rule::Provider => self.seen,
            other => panic!("no fold for {other:?}"),
        }
    }
}

/// A place on the way, and the choice made there.
#[derive(Debug, Clone, Copy)]
struct Choice {
    place: u128,
    taken: usize,
    of: usize,
    /// Orders found from here so far.
    orders: u64,
}

/// The choices on the way to where we are: a path through all orders.
#[derive(Debug, Default)]
struct Path {
    choices: Vec<Choice>,
    at: usize,
}

impl Path {
    /// Whether the next choice has not been made before.
    fn is_new(&self) -> bool {
        self.at == self.choices.len()
    }

    fn choose(&mut self, place: u128, of: usize) -> usize {
        if self.is_new() {
            let (taken, orders) = (0, 0);
            self.choices.push(Choice {
                place,
                taken,
                of,
                orders,
            });
        }
        let choice = self.choices[self.at];
        assert_eq!(choice.of, of, "the same choices lead to the same place");
        self.at += 1;
        choice.taken
    }

    /// Goes to the next path, after one that led to so many orders; `left` is told of places that all
    /// paths have been gone from, and of their orders. False after the last.
    fn advance(&mut self, mut orders: u64, mut left: impl FnMut(u128, u64)) -> bool {
        self.at = 0;
        while let Some(mut choice) = self.choices.pop() {
            choice.orders += orders;
            choice.taken += 1;
            if choice.taken < choice.of {
                self.choices.push(choice);
                return true;
            }
            left(choice.place, choice.orders);
            orders = choice.orders;
        }
        false
    }
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Explored {
    /// Places that differ in what may come of them.
    pub(crate) places: u64,
    /// Places where nothing is left to happen.
    pub(crate) ends: u64,
    /// Orders that lead to one of these.
    pub(crate) orders: u64,
}

/// Goes to every place that the edits, calls and notices can lead to, by one way each, and on from
/// there by all. `check` looks at each end.
pub(crate) fn explore(
    first: &Stage,
    edits: &[Edit],
    faults: usize,
    check: impl Fn(World<'_>) -> Result<(), String>,
) -> Explored {
    let mut path = Path::default();
    // With the orders that lead on from each; none are known of those that the path goes through.
    let mut been: HashMap<u128, Option<u64>> = HashMap::new();
    let mut explored = Explored::default();
    loop {
        let mut world = begin(first, edits, faults);
        let orders = loop {
            let mut place = 0;
            if path.is_new() {
                place = world.fingerprint();
                match been.entry(place) {
                    Entry::Vacant(entry) => drop(entry.insert(None)),
                    Entry::Occupied(entry) => break entry.get().expect("nothing leads back"),
                }
                explored.places += 1;
            }
            let steps = world.steps();
            if steps.is_empty() {
                explored.ends += 1;
                if let Err(found) = check(world) {
                    panic!("{found}: {:#?}", story(first, edits, faults, &path));
                }
                been.insert(place, Some(1));
                break 1;
            }
            let step = steps[path.choose(place, steps.len())];
            world.take(step);
        };
        let left = |place, orders| {
            been.insert(place, Some(orders));
        };
        if !path.advance(orders, left) {
            explored.orders = been.values().flatten().copied().max().unwrap_or(0);
            return explored;
        }
    }
}

/// Goes every way there is, and holds each step against those that were taken before at a place of
/// the same fingerprint. Answers how many orders and places there are.
pub(crate) fn walk_all(first: &Stage, edits: &[Edit], faults: usize) -> (u64, u64) {
    let mut path = Path::default();
    let mut known: HashMap<(u128, String), u128> = HashMap::new();
    let mut been = HashSet::new();
    let mut orders = 0;
    loop {
        let mut world = begin(first, edits, faults);
        let mut place = world.fingerprint();
        loop {
            been.insert(place);
            let steps = world.steps();
            if steps.is_empty() {
                break;
            }
            let step = steps[path.choose(place, steps.len())];
            let told = world.tell(step);
            world.take(step);
            let next = world.fingerprint();
            match known.entry((place, told)) {
                Entry::Vacant(entry) => drop(entry.insert(next)),
                Entry::Occupied(entry) => {
                    let story = || story(first, edits, faults, &path);
                    assert_eq!(*entry.get(), next, "{:?}: {:#?}", entry.key().1, story());
                }
            }
            place = next;
        }
        orders += 1;
        if !path.advance(1, |_, _| {}) {
            return (orders, been.len() as u64);
        }
    }
}

fn begin<'e>(first: &Stage, edits: &'e [Edit], faults: usize) -> World<'e> {
    let mut stage = first.anew();
    stage.edit_here(RECORD, r#"{"a":0,"b":0}"#);
    stage.settle();
    World::new(stage, edits, faults)
}

/// What happened on a path.
fn story(first: &Stage, edits: &[Edit], faults: usize, path: &Path) -> Vec<String> {
    let mut world = begin(first, edits, faults);
    let mut story = Vec::new();
    for choice in &path.choices {
        let step = world.steps()[choice.taken];
        story.push(world.tell(step));
        world.take(step);
    }
    story
}
