//! Every order in which a few edits, the calls they lead to and their notices can come.

mod ranks;
mod witness;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write;

use syncline_engine::merge::Rule;
use syncline_engine::provider::CallKind;
use syncline_engine::shard::SYSTEM_A;
use xxhash_rust::xxh3::xxh3_128;

use super::stage::{Notice, Stage};
use ranks::{Clock, MARK, Ranks};
use witness::Witness;

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

impl Edit {
    /// Whether System A makes it.
    fn is_here(self) -> bool {
        matches!(self, Self::Here(_) | Self::DeleteHere)
    }
}

/// What is to happen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'p> {
    /// What may be done first, second and so on: one of these each.
    pub(crate) edits: &'p [&'p [Edit]],
    /// Notices that may be lost or come twice.
    pub(crate) faults: usize,
    /// Answers may come later than what the call did, and than its notice.
    pub(crate) late: bool,
    /// The rule that says how edits end that set `/a` to their own number.
    pub(crate) rule: Option<&'p Rule>,
}

/// What can happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The next edit, of those that it may be.
    Edit(usize),
    /// A call does its work and is answered.
    Answer(usize),
    /// A call does its work.
    Arrive(usize),
    /// It is answered.
    Hear(usize),
    /// A notice comes.
    Deliver(usize),
    /// It never comes.
    Lose(usize),
    /// It comes, and will come once more.
    Repeat(usize),
}

/// A stage, what is still to be done on it, and what was seen of it.
pub(crate) struct World<'p> {
    pub(crate) stage: Stage,
    plan: Plan<'p>,
    made: Vec<Edit>,
    /// Notices that may still be lost or come twice.
    faults: usize,
    pub(crate) witness: Witness,
    clock: Clock,
    /// That edits may set their field to, as JSON texts.
    values: Vec<String>,
}

/// Where a world is: all that may come of it depends on this.
struct Place {
    id: u128,
    text: String,
    /// The edits that are spoken of.
    ranks: Ranks,
}

/// The number of the edit whose value a text has.
fn number_in(text: &str) -> u64 {
    let value = text.split(MARK).nth(1).unwrap_or_default();
    let digits = value.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Whether System A made the edit of this number.
fn made_here(made: &[Edit], number: u64) -> bool {
    let edit = (number as usize).checked_sub(1).map(|at| made[at]);
    matches!(edit, Some(Edit::Here(_)))
}

/// From one edit to the next, by the stage's clock.
const EDIT_MS: i64 = 10;

impl<'p> World<'p> {
    /// The record is on both sides, and nothing was edited.
    fn begin(first: &Stage, plan: Plan<'p>) -> Self {
        let mut stage = first.anew();
        stage.edit_here(RECORD, r#"{"a":"^0","b":0}"#);
        stage.settle();
        Self {
            clock: Clock::of(stage.wall_ms(), plan.rule),
            stage,
            plan,
            made: Vec::new(),
            faults: plan.faults,
            witness: Witness::default(),
            values: (0..=plan.edits.len())
                .map(|number| format!("\"{MARK}{number}\""))
                .collect(),
        }
    }

    /// After these steps.
    fn after(first: &Stage, plan: Plan<'p>, way: &[Step]) -> Self {
        let mut world = Self::begin(first, plan);
        for step in way {
            world.take(*step);
        }
        world
    }

    /// All that can happen next, once of what is felt as the same.
    fn steps(&self) -> Vec<Step> {
        self.steps_where(|one, other| {
            let felt = |notice: &Notice| {
                let edit = self.clock.edit_at(notice.at_ms, &self.made);
                let edit = edit.expect("it tells of an edit, or of a call that came after one");
                self.clock.moment(edit, &self.made)
            };
            one.is_of_the_same(other) && felt(one) == felt(other)
        })
    }

    /// All that can happen next.
    fn every_step(&self) -> Vec<Step> {
        self.steps_where(|_, _| false)
    }

    fn steps_where(&self, same: impl Fn(&Notice, &Notice) -> bool) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(edits) = self.plan.edits.get(self.made.len()) {
            steps.extend((0..edits.len()).map(Step::Edit));
        }
        let calls = 0..self.stage.calls.len();
        match self.plan.late {
            true => steps.extend(calls.map(Step::Arrive)),
            false => steps.extend(calls.map(Step::Answer)),
        }
        steps.extend((0..self.stage.answers.len()).map(Step::Hear));
        let notices = &self.stage.notices;
        // One that is lost might as well have come at the end, and been lost then.
        let losing = steps.is_empty() && notices.len() <= self.faults;
        for (at, notice) in notices.iter().enumerate() {
            // Of two that say the same it does not matter which one comes first.
            if notices.iter().take(at).any(|before| same(before, notice)) {
                continue;
            }
            steps.push(Step::Deliver(at));
            if self.faults > 0 {
                steps.push(Step::Repeat(at));
            }
            if losing {
                steps.push(Step::Lose(at));
            }
        }
        steps
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Edit(choice) => {
                let edit = self.plan.edits[self.made.len()][choice];
                self.made.push(edit);
                self.edit(edit);
            }
            Step::Answer(at) => {
                self.arrive(at);
                self.hear(self.stage.answers.len() - 1);
            }
            Step::Arrive(at) => self.arrive(at),
            Step::Hear(at) => self.hear(at),
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
        let number = self.made.len() as u64;
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

    fn arrive(&mut self, at: usize) {
        let call = &self.stage.calls[at];
        let (account, reads) = (call.account.clone(), call.request.kind == CallKind::Read);
        let told = self.stage.changed_ms(call);
        let answer = self.stage.arrive(at);
        self.stage.answers.push(answer);
        let shown = self.shown(&account);
        let witness = &mut self.witness;
        match (account == SYSTEM_A, made_here(&self.made, shown)) {
            (false, true) => witness.arrived = witness.arrived.max(shown),
            (false, false) if reads => {
                let told = self.clock.edit_at(told, &self.made);
                witness.see(shown, told.expect("it was told of an edit") as u64);
            }
            _ => {}
        }
    }

    fn hear(&mut self, at: usize) {
        let (call, _) = &self.stage.answers[at];
        // What System A said before the answer it said before it knew, as far as anybody can tell.
        let told = (call.account == SYSTEM_A).then(|| number_in(&call.body()));
        self.stage.hear(at);
        let theirs = told.filter(|number| !made_here(&self.made, *number));
        if let Some(number) = theirs {
            self.witness.heard = self.witness.heard.max(number);
        }
    }

    /// The number of the edit whose value a side shows.
    pub(crate) fn shown(&self, side: &str) -> u64 {
        let mut records = self.stage.stores[side].records.values();
        let value = records.next().and_then(|kept| kept.fields.get("/a"));
        value.map_or(0, number_in)
    }

    fn place(&mut self) -> Place {
        let mut edits = self.plan.edits.iter().copied().flatten();
        let deletes = edits.any(|edit| matches!(edit, Edit::DeleteHere | Edit::DeleteThere));
        let mut text = self.stage.picture(deletes, &self.values);
        let asked = self.plan.rule.map(|rule| self.witness.asked_by(rule));
        let (numbers, compared) = asked.unwrap_or_default();
        for number in numbers {
            write!(text, "{MARK}{number} ").unwrap();
        }
        write!(text, "{compared:?} ").unwrap();
        write!(text, "{} {}", self.made.len(), self.faults).unwrap();
        let ranks = Ranks::of(&text, self.clock, &self.made);
        let text = ranks.apply(&text);
        Place {
            id: xxh3_128(text.as_bytes()),
            text,
            ranks,
        }
    }

    fn tell_ranked(&self, step: Step, ranks: &Ranks) -> String {
        match step {
            // Its number is of no edit that was made.
            Step::Edit(choice) => choice.to_string(),
            _ => ranks.apply(&self.tell(step)),
        }
    }

    fn tell(&self, step: Step) -> String {
        let notices = &self.stage.notices;
        match step {
            Step::Edit(choice) => format!("{:?}", self.plan.edits[self.made.len()][choice]),
            Step::Answer(at) | Step::Arrive(at) => {
                let call = &self.stage.calls[at];
                format!("{} {} {}", call.account, call.request.kind, call.body())
            }
            Step::Hear(at) => {
                let (call, reply) = &self.stage.answers[at];
                let body = String::from_utf8_lossy(&reply.body);
                format!("answer: {} {} {body}", call.account, call.body())
            }
            Step::Deliver(at) => format!("{:?}", notices[at]),
            Step::Lose(at) => format!("lost: {:?}", notices[at]),
            Step::Repeat(at) => format!("not for the last time: {:?}", notices[at]),
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
    plan: Plan<'_>,
    check: impl Fn(World<'_>) -> Result<(), String>,
) -> Explored {
    let mut path = Path::default();
    // With the orders that lead on from each; none are known of those that the path goes through.
    let mut been: HashMap<u128, Option<u64>> = HashMap::new();
    let mut explored = Explored::default();
    loop {
        let mut world = World::begin(first, plan);
        let orders = loop {
            let mut place = 0;
            if path.is_new() {
                place = world.place().id;
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
                    panic!("{found}: {:#?}", story(first, plan, &path));
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

/// Goes on by every step each time that a place is reached, by whatever way, and holds where that leads
/// against where it led the first time. `check` looks at each end that often. Answers how many places
/// there are, and how often they were reached.
pub(crate) fn compare(
    first: &Stage,
    plan: Plan<'_>,
    check: impl Fn(World<'_>) -> Result<(), String>,
) -> (u64, u64) {
    let mut known: HashMap<u128, BTreeSet<(String, u128)>> = HashMap::new();
    let mut reached = 0;
    let mut ways: Vec<Vec<Step>> = vec![Vec::new()];
    while let Some(way) = ways.pop() {
        reached += 1;
        let mut world = World::after(first, plan, &way);
        let place = world.place();
        let mut leads = BTreeSet::new();
        let mut on = Vec::new();
        for step in world.every_step() {
            let told = world.tell_ranked(step, &place.ranks);
            let next = [&way[..], &[step]].concat();
            leads.insert((told, World::after(first, plan, &next).place().id));
            on.push(next);
        }
        if on.is_empty()
            && let Err(found) = check(world)
        {
            panic!("{found}: {way:#?}");
        }
        match known.entry(place.id) {
            Entry::Vacant(entry) => {
                entry.insert(leads);
                ways.extend(on);
            }
            Entry::Occupied(entry) => assert_eq!(entry.get(), &leads, "{way:#?} {}", place.text),
        }
    }
    (known.len() as u64, reached)
}

/// Goes every way there is, and holds each step against those that were taken before at a place that
/// is taken for the same. Answers how many orders and places there are.
pub(crate) fn walk_all(first: &Stage, plan: Plan<'_>) -> (u64, u64) {
    let mut path = Path::default();
    let mut known: HashMap<(u128, String), String> = HashMap::new();
    let mut been = HashSet::new();
    let mut orders = 0;
    loop {
        let mut world = World::begin(first, plan);
        let mut place = world.place();
        loop {
            been.insert(place.id);
            let steps = world.steps();
            if steps.is_empty() {
                break;
            }
            let step = steps[path.choose(place.id, steps.len())];
            let told = world.tell_ranked(step, &place.ranks);
            world.take(step);
            let next = world.place();
            match known.entry((place.id, told)) {
                Entry::Vacant(entry) => drop(entry.insert(next.text.clone())),
                Entry::Occupied(entry) if *entry.get() == next.text => {}
                Entry::Occupied(entry) => {
                    let (step, before) = (&entry.key().1, entry.get());
                    let story = story(first, plan, &path);
                    panic!("{step}: {story:#?}\n{before}\n{}", next.text);
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

/// What happened on a path.
fn story(first: &Stage, plan: Plan<'_>, path: &Path) -> Vec<String> {
    let mut world = World::begin(first, plan);
    let mut story = Vec::new();
    for choice in &path.choices {
        let step = world.steps()[choice.taken];
        story.push(world.tell(step));
        world.take(step);
    }
    story
}
