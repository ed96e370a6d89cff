//! People and workflows who edit records, at the accounts and at System A.

use engine::shard::SYSTEM_A;
use mock::{Change, Edit};
use serde_json::{Map, Value, json};

use super::{Due, MS, World};
use crate::sim::dice::Dice;
use crate::sim::marks::Mark;
use crate::sim::mutants::Mutant;
use crate::sim::sets::mapping::{DELETION_MARK, Written};
use crate::sim::two_way::leaves::normal;
use crate::sim::two_way::ledger::Key;
use crate::sim::two_way::side::{Place, Touched};

const OBJECTS: [&str; 2] = ["contact", "company"];
const FIELDS: [&str; 6] = ["name", "email", "status", "city", "address", "tags"];
/// Texts of these fields are what a normalising account spells its own way.
const RESPELLED: [&str; 2] = ["name", "email"];
/// The field that the two workflows fight over, and what each wants it to be.
const FOUGHT_OVER: &str = "status";
const THEIRS: &str = "set there";
const OURS: &str = "set here";

/// Something that System A does besides what its clients would do anyway.
#[derive(Debug, Clone)]
pub(super) enum Errand {
    /// A workflow sets a field back.
    SetBack(Key),
    /// One edit while all is quiet, of none of the records so far.
    Quiet(Vec<Key>),
}

/// Who else changes records.
#[derive(Debug)]
pub(super) struct People {
    dice: Dice,
    serial: u64,
    /// Edits that are still to come.
    pub(super) to_come: u64,
    respells: bool,
    /// Cities are numbers, which accounts write as texts.
    numbers: bool,
}

impl People {
    pub(super) fn new(options: &crate::sim::Options) -> Self {
        let two_way = options.two_way.iter();
        let mut accounts = two_way.flat_map(|two_way| &two_way.accounts);
        Self {
            dice: Dice::stream(options.seed, "people"),
            serial: 0,
            to_come: 0,
            respells: accounts.any(|account| account.normalises),
            numbers: options.mapped_back.is_some(),
        }
    }

    /// A number that nothing else has.
    pub(super) fn next(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Some fields with values that nobody has written before.
    fn fields(&mut self, fought_over: bool) -> Map<String, Value> {
        let mut fields = Map::new();
        for _ in 0..self.dice.between(1, 2) {
            let name = *self.dice.pick(&FIELDS);
            if name == FOUGHT_OVER && !fought_over {
                continue;
            }
            let number = self.next();
            let text = match self.dice.below(4) {
                0 if self.respells => format!(" V{number}"),
                1 if self.respells => format!("V{number} "),
                _ => format!("v{number}"),
            };
            let value = match (name, self.dice.below(10)) {
                ("address", _) => {
                    let part = *self.dice.pick(&["street", "zip"]);
                    let null = self.dice.chance(100);
                    json!({ (part): if null { Value::Null } else { text.into() } })
                }
                ("tags", _) => json!([text]),
                (_, 0) => Value::Null,
                ("city", _) if self.numbers => json!(1_000_000 + number),
                (_, 1) => json!(1_000_000 + number),
                _ => text.into(),
            };
            fields.insert(name.to_owned(), value);
        }
        fields
    }
}

impl World {
    pub(super) fn plan_people(&mut self) {
        let Some(two_way) = &self.options.two_way else {
            return;
        };
        let busy = self.options.busy.as_nanos() as u64;
        let edits: Vec<u64> = two_way.accounts.iter().map(|it| it.edits).collect();
        for (side, edits) in edits.into_iter().enumerate() {
            for _ in 0..edits {
                let at = self.people.dice.below(busy);
                self.people.to_come += 1;
                self.at(at, Due::Person { side });
            }
        }
    }

    /// Somebody edits a record at an account.
    pub(super) fn person_edits(&mut self, side: usize) {
        self.people.to_come -= 1;
        let deletes = self.options.two_way.as_ref().is_some_and(|it| it.deletes);
        let places: Vec<Place> = self.sides[side].records.keys().cloned().collect();
        let marked: Vec<Place> = self.sides[side].marked.keys().cloned().collect();
        let dice = &mut self.people.dice;
        match dice.below(100) {
            0..18 => self.make_there(side),
            18..26 if deletes && !places.is_empty() => {
                let place = dice.pick(&places).clone();
                self.delete_there(side, &place);
            }
            26..36 if !marked.is_empty() => {
                let place = dice.pick(&marked).clone();
                self.take_back_there(side, &place);
            }
            36..46 if self.options.merges() => self.merge_there(side, &places),
            _ if !places.is_empty() => {
                let place = dice.pick(&places).clone();
                self.change_there(side, &place);
            }
            _ => {}
        }
    }

    fn make_there(&mut self, side: usize) {
        let object = *self.people.dice.pick(&OBJECTS);
        let mut fields = self.people.fields(!self.fights());
        self.leave_out_there(side, object, &mut fields);
        let Some(id) = self.edit_there(side, object, None, Change::Create(fields.clone())) else {
            return;
        };
        let name = self.providers[side].options.name.clone();
        let key = self.oracle.ledger.born(&name, object, &id, None);
        self.oracle.ledger.wrote(&name, &key, &fields);
        self.side_changed(side, false);
    }

    fn change_there(&mut self, side: usize, place: &Place) {
        let mut fields = self.people.fields(!self.fights());
        self.leave_out_there(side, &place.0, &mut fields);
        self.set_there(side, place, fields);
    }

    fn set_there(&mut self, side: usize, (object, id): &Place, fields: Map<String, Value>) {
        let name = self.providers[side].options.name.clone();
        let Some(key) = self.oracle.ledger.owner(&name, object, id).cloned() else {
            return;
        };
        if fields.is_empty() {
            return;
        }
        let change = Change::Update(fields.clone());
        if self.edit_there(side, object, Some(id), change).is_some() {
            self.oracle.ledger.wrote(&name, &key, &fields);
            self.side_changed(side, false);
        }
    }

    fn delete_there(&mut self, side: usize, (object, id): &Place) {
        let name = self.providers[side].options.name.clone();
        let Some(key) = self.oracle.ledger.owner(&name, object, id).cloned() else {
            return;
        };
        let (change, mark) = match self.sides[side].marks_deletes(object) {
            true => (Change::Update(deletion_mark(true)), Mark::MarkedThere),
            false => (Change::Delete, Mark::DeletedThere),
        };
        if self.edit_there(side, object, Some(id), change).is_some() {
            self.marks.hit(mark);
            self.oracle.ledger.deleted(&name, &key);
            self.side_changed(side, false);
        }
    }

    /// Somebody makes one record of two. The one that stays takes over what it had not.
    fn merge_there(&mut self, side: usize, places: &[Place]) {
        if places.is_empty() {
            return;
        }
        let lost = self.people.dice.pick(places).clone();
        let others = places.iter().filter(|it| it.0 == lost.0 && **it != lost);
        let others: Vec<Place> = others.cloned().collect();
        if others.is_empty() {
            return;
        }
        let kept = self.people.dice.pick(&others).clone();
        let name = self.providers[side].options.name.clone();
        let owner = |place: &Place| self.oracle.ledger.owner(&name, &place.0, &place.1).cloned();
        let (Some(lost_key), Some(kept_key)) = (owner(&lost), owner(&kept)) else {
            return;
        };
        let records = &self.sides[side].records;
        let (of_lost, of_kept) = (&records[&lost].fields, &records[&kept].fields);
        let missing = of_lost.iter().filter(|(name, value)| {
            !value.is_null() && of_kept.get(*name).is_none_or(Value::is_null)
        });
        let mut taken: Map<String, Value> = missing
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        self.leave_out_there(side, &lost.0, &mut taken);
        let (object, lost_id, kept_id) = (&lost.0, &lost.1, &kept.1);
        if self
            .edit_there(side, object, Some(lost_id), Change::Delete)
            .is_none()
        {
            return;
        }
        if !taken.is_empty() {
            self.edit_there(side, object, Some(kept_id), Change::Update(taken));
        }
        self.marks.hit(Mark::MergedThere);
        self.oracle.ledger.became_one(&name, &lost_key, &kept_key);
        self.sides[side].merged_into.insert(lost, kept.1);
        self.side_changed(side, false);
    }

    /// Somebody takes a mark away.
    fn take_back_there(&mut self, side: usize, (object, id): &Place) {
        let name = self.providers[side].options.name.clone();
        let Some(key) = self.oracle.ledger.owner(&name, object, id).cloned() else {
            return;
        };
        let change = Change::Update(deletion_mark(false));
        if self.edit_there(side, object, Some(id), change).is_some() {
            self.marks.hit(Mark::TakenBackThere);
            self.oracle.ledger.restored(&name, &key);
            self.side_changed(side, false);
        }
    }

    fn edit_there(
        &mut self,
        side: usize,
        object: &str,
        id: Option<&str>,
        change: Change,
    ) -> Option<String> {
        if self.print {
            let text = format!("edit at {side}: {object} {id:?} {change:?}");
            self.say(&text);
        }
        let change = self.as_written_there(side, object, change);
        let provider = &mut self.providers[side];
        let now = self.clock.of_provider(provider.options.skew_ppm);
        let edit = Edit {
            object: object.to_owned(),
            id: id.map(str::to_owned),
            change,
        };
        let done = provider.account.edit(now, &edit);
        done.ok().map(|id| id.to_string())
    }

    /// People of an account do not write what only comes to it.
    fn leave_out_there(&self, side: usize, object: &str, fields: &mut Map<String, Value>) {
        let sides = self.sides.get(side);
        if let Some(mapping) = sides.and_then(|side| side.mapping(object)) {
            mapping.without_outgoing(fields);
        }
    }

    /// A change in the names of the account.
    fn as_written_there(&self, side: usize, object: &str, change: Change) -> Change {
        let sides = self.sides.get(side);
        let Some(mapping) = sides.and_then(|side| side.mapping(object)) else {
            return change;
        };
        let mapped = |fields: Map<String, Value>| {
            if fields.contains_key(DELETION_MARK) {
                return fields;
            }
            let mapped = mapping.map(Written::Changes, &fields);
            mapped.expect("people write what can be mapped")
        };
        match change {
            Change::Create(fields) => Change::Create(mapped(fields)),
            Change::Update(fields) => Change::Update(mapped(fields)),
            other => other,
        }
    }

    /// An account's records may have changed: its lists and notices tell of it, its workflows wake
    /// up.
    pub(super) fn side_changed(&mut self, side: usize, by_call: bool) {
        let now_ns = self.now_ns();
        let at_ms = self.provider_wall_ms(side);
        let mut all: Vec<Touched> = Vec::new();
        loop {
            let account = &self.providers[side].account;
            let touched = self.sides[side].look(account);
            let mut respelled = false;
            for touched in &touched {
                respelled |= self.respell(side, touched);
            }
            all.extend(touched);
            if !respelled {
                break;
            }
        }
        let name = self.providers[side].options.name.clone();
        let mut told: Vec<Place> = Vec::new();
        for touched in all {
            let (object, id) = &touched.place;
            if let Some(after) = &touched.after {
                let external_id = after.external_id.as_deref();
                let key = self.oracle.ledger.born(&name, object, id, external_id);
                if touched.taken_back {
                    self.oracle.ledger.shows_again(&name, &key);
                }
            }
            if by_call && self.is_fought_over(side, &touched) {
                let delay = self.people.dice.between(5 * MS, 400 * MS);
                self.people.to_come += 1;
                let place = touched.place.clone();
                self.after(delay, Due::SetBackThere { side, place });
            }
            if !told.contains(&touched.place) {
                let gone = self.sides[side].held(&touched.place).is_none();
                self.sides[side].list_later(&touched.place, now_ns, at_ms);
                self.notify(side, &touched.place, gone);
                told.push(touched.place);
            }
        }
    }

    /// Keeps texts in the account's own spelling. True when one changed.
    fn respell(&mut self, side: usize, touched: &Touched) -> bool {
        let Some(after) = &touched.after else {
            return false;
        };
        let mut own = Map::new();
        for name in RESPELLED {
            if let Some(value) = after.fields.get(name).filter(|it| normal(it) != **it) {
                own.insert(name.to_owned(), normal(value));
            }
        }
        if own.is_empty() || !self.sides[side].options.normalises {
            return false;
        }
        self.marks.hit(Mark::Respelled);
        let (object, id) = &touched.place;
        self.edit_there(side, object, Some(id), Change::Update(own));
        true
    }

    fn fights(&self) -> bool {
        self.options.two_way.as_ref().is_some_and(|it| it.workflow)
    }

    fn is_fought_over(&self, side: usize, touched: &Touched) -> bool {
        let after = touched.after.as_ref();
        let status = after.and_then(|after| after.fields.get(FOUGHT_OVER));
        let before = touched.before.as_ref();
        let was = before.and_then(|before| before.fields.get(FOUGHT_OVER));
        side == 0 && self.fights() && status != was && status.is_some_and(|it| it != THEIRS)
    }

    /// The account's workflow sets a field back.
    pub(super) fn set_back_there(&mut self, side: usize, place: &Place) {
        self.people.to_come -= 1;
        let kept = self.sides[side].records.get(place);
        let status = kept.and_then(|kept| kept.fields.get(FOUGHT_OVER));
        if status.is_some_and(|status| status != THEIRS) {
            let fields = [(FOUGHT_OVER.to_owned(), THEIRS.into())];
            self.set_there(side, place, fields.into_iter().collect());
        }
    }

    /// System A was told of a change: its own workflow may not like it.
    pub(super) fn system_a_was_told(&mut self) {
        if !self.fights() {
            return;
        }
        let system_a = self.providers.len() - 1;
        let fought = |record: &mock::Record| {
            let status = record.fields.get(FOUGHT_OVER);
            status.is_some_and(|status| status == THEIRS)
        };
        let records = self.providers[system_a].account.records();
        let records = records.filter(|(_, _, record)| fought(record));
        let keys: Vec<Key> = records
            .filter_map(|(object, _, record)| {
                Some((object.to_owned(), record.external_id.clone()?))
            })
            .collect();
        for key in keys {
            if self.set_back.insert(key.clone()) {
                let client = self.client_of(&key);
                self.send_on(client, Errand::SetBack(key));
            }
        }
    }

    /// Which client sends what System A says of a record: always the same, so that its order is
    /// kept.
    fn client_of(&self, (object, record_id): &Key) -> usize {
        let sum: usize = object
            .bytes()
            .chain(record_id.bytes())
            .map(usize::from)
            .sum();
        sum % self.clients.len()
    }

    /// What System A does next, as the line that its client sends of it.
    pub(super) fn system_a_does(&mut self, client: usize, errand: Option<Errand>) -> Vec<u8> {
        let wall_ms = self.clock.provider_wall_ms(0);
        let mut line = match errand {
            Some(Errand::SetBack(key)) => {
                self.set_back.remove(&key);
                let fields = [(FOUGHT_OVER.to_owned(), OURS.into())];
                self.change_here(&key, fields.into_iter().collect())
            }
            Some(Errand::Quiet(mut taken)) => {
                taken.extend(self.quiet_keys());
                self.edit_here(client, &taken, true)
            }
            None if self.people.dice.chance(self.options.faults.bad_events) => {
                let mut bad = said("UPDATE", &("contact".to_owned(), "bad".to_owned()), None);
                bad.insert("priority".to_owned(), 99.into());
                bad
            }
            None => self.edit_here(client, &[], false),
        };
        line.insert("changed_at".to_owned(), wall_ms.into());
        let quiet = self.healed;
        let dice = &mut self.people.dice;
        if !line.contains_key("priority") && dice.chance(200) {
            line.insert("priority".to_owned(), dice.between(1, 10).into());
        }
        if !quiet && dice.chance(30) {
            let later = wall_ms + dice.below(4_000) as i64;
            line.insert("scheduled_at".to_owned(), later.into());
        }
        Value::Object(line).to_string().into_bytes()
    }

    fn edit_here(&mut self, client: usize, taken: &[Key], quiet: bool) -> Map<String, Value> {
        let deletes = self.options.two_way.as_ref().is_some_and(|it| it.deletes);
        let system_a = self.providers.len() - 1;
        let records = self.providers[system_a].account.records();
        let records = records.filter_map(|(object, _, record)| {
            Some((object.to_owned(), record.external_id.clone()?))
        });
        let known: Vec<Key> = records.filter(|key| !taken.contains(key)).collect();
        let own: Vec<Key> = known
            .iter()
            .filter(|key| self.client_of(key) == client)
            .cloned()
            .collect();
        let dice = &mut self.people.dice;
        let object = (*dice.pick(&OBJECTS)).to_owned();
        let number = dice.below(self.options.records);
        let new = (object, format!("c{number}"));
        let makes = dice.chance(250) && !quiet;
        let choice = dice.below(100);
        let exists = known.contains(&new) || taken.contains(&new);
        if (makes || own.is_empty()) && !exists && self.client_of(&new) == client && !quiet {
            return self.make_here(&new);
        }
        if own.is_empty() {
            return said("READ", &("contact".to_owned(), "nobody".to_owned()), None);
        }
        let key = self.people.dice.pick(&own).clone();
        match choice {
            0..8 if deletes => self.delete_here(&key),
            8..12 if !quiet => said("READ", &key, None),
            _ => {
                let fields = self.people.fields(!self.fights());
                if fields.is_empty() {
                    return said("READ", &key, None);
                }
                self.change_here(&key, fields)
            }
        }
    }

    fn make_here(&mut self, key: &Key) -> Map<String, Value> {
        let fields = self.people.fields(true);
        let mut body = fields.clone();
        body.insert("external_id".to_owned(), key.1.clone().into());
        let system_a = self.providers.len() - 1;
        let request = mock::Request {
            method: http::Method::POST,
            target: &format!("/{}", key.0),
            idempotency_key: None,
            body: Value::Object(body).to_string().into(),
        };
        let now = self.clock.of_provider(0);
        self.providers[system_a].account.handle(now, &request);
        // A fault of the model may have struck; then there was no edit.
        if self.id_here(key).is_none() {
            return said("READ", key, None);
        }
        self.oracle.ledger.wrote(SYSTEM_A, key, &fields);
        said("CREATE", key, Some(fields))
    }

    fn change_here(&mut self, key: &Key, fields: Map<String, Value>) -> Map<String, Value> {
        let Some(id) = self.id_here(key) else {
            return said("READ", key, None);
        };
        let system_a = self.providers.len() - 1;
        self.edit_there(system_a, &key.0, Some(&id), Change::Update(fields.clone()));
        self.oracle.ledger.wrote(SYSTEM_A, key, &fields);
        let upserts = self.people.dice.chance(300);
        said(if upserts { "UPSERT" } else { "UPDATE" }, key, Some(fields))
    }

    fn delete_here(&mut self, key: &Key) -> Map<String, Value> {
        let Some(id) = self.id_here(key) else {
            return said("READ", key, None);
        };
        let system_a = self.providers.len() - 1;
        self.edit_there(system_a, &key.0, Some(&id), Change::Delete);
        self.oracle.ledger.deleted(SYSTEM_A, key);
        said("DELETE", key, None)
    }

    fn id_here(&self, key: &Key) -> Option<String> {
        let mut records = self.providers.last()?.account.records();
        let own = records.find(|(object, _, record)| {
            *object == key.0 && record.external_id.as_deref() == Some(&key.1)
        });
        own.map(|(_, id, _)| id.to_string())
    }

    /// An edit at an account while all is quiet, of none of the records that are taken. The record.
    pub(super) fn quiet_edit_there(&mut self, side: usize, taken: &[Key]) {
        let deletes = self.options.two_way.as_ref().is_some_and(|it| it.deletes);
        let name = self.providers[side].options.name.clone();
        let places = self.sides[side].records.keys().cloned();
        let ledger = &self.oracle.ledger;
        let free = |place: &Place| {
            let key = ledger.owner(&name, &place.0, &place.1);
            key.is_some_and(|key| !taken.contains(key))
        };
        let places: Vec<Place> = places.filter(free).collect();
        let choice = self.people.dice.below(10);
        if choice < 2 || places.is_empty() {
            return self.make_there(side);
        }
        let place = self.people.dice.pick(&places).clone();
        if choice < 4 && deletes {
            self.delete_there(side, &place);
        } else {
            self.change_there(side, &place);
        }
    }

    /// An account's clock, ms since the epoch.
    pub(super) fn provider_wall_ms(&self, side: usize) -> i64 {
        self.clock
            .provider_wall_ms(self.providers[side].options.skew_ppm)
    }

    /// Whether this planted bug is in the run.
    pub(super) fn has(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }
}

/// The member by which an account marks a record, or takes the mark away.
fn deletion_mark(set: bool) -> Map<String, Value> {
    [(DELETION_MARK.to_owned(), set.into())]
        .into_iter()
        .collect()
}

fn said(operation: &str, key: &Key, data: Option<Map<String, Value>>) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("operation".to_owned(), operation.into());
    line.insert("object".to_owned(), key.0.clone().into());
    line.insert("record_id".to_owned(), key.1.clone().into());
    if let Some(data) = data {
        line.insert("data".to_owned(), Value::Object(data));
    }
    line
}
