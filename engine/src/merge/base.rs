//! What both sides of a link agreed on, and what one of them showing something else means.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::{Fields, alike, same};
use super::policy::{ConflictPolicy, Foreign, Rivals, Winner};
use super::told::ToldBook;
use crate::codec::{Damaged, Decoder, Encoder};
use crate::json::{RawValue, canonical_hash};

/// Times a provider may bring one value of a field back over ours before the field is parked. A
/// workflow at each side that undoes the other's would go on for ever.
const RETURNS_MAX: u8 = 3;
/// A value that comes back after a longer time than this is a change like any other.
const RETURN_WITHIN_MS: i64 = 10 * 60 * 1000;

/// The state of one record that System A and one account last agreed on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base {
    /// System A's values.
    agreed: Fields,
    /// The account's spelling, where it keeps a value in another one.
    shown: Fields,
    /// Fields that were written and not seen since.
    unconfirmed: BTreeSet<String>,
    /// Fields that an operator has to decide.
    held: BTreeMap<String, Held>,
    /// Values that the account brought back over ours.
    returns: BTreeMap<String, Return>,
    /// What System A was told lately, kept at System A's own side.
    told: ToldBook,
    /// The name under which the account's own id was told to lead here; empty before that.
    announced: String,
    /// When our last write was answered, ms since the epoch.
    written_ms: i64,
    /// When the newest of what was compared was asked for, ms since the epoch.
    seen_ms: i64,
}

/// A field that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// System A's value as JSON text.
    pub ours: String,
    /// The account's.
    pub theirs: String,
    /// Since when, ms since the epoch.
    pub since_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Return {
    value: u64,
    count: u8,
    at_ms: i64,
}

/// What an account shows of a record.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    /// Its fields in System A's names.
    pub fields: &'a Fields,
    /// When it was changed there, ms since the epoch.
    pub changed_at_ms: i64,
    /// When it was asked for, ms since the epoch.
    pub read_at_ms: i64,
    /// The wall clock, ms since the epoch.
    pub now_ms: i64,
}

/// A change of System A's that the account does not have yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// What it sets.
    pub fields: Fields,
    /// When System A changed it, ms since the epoch.
    pub changed_at_ms: i64,
}

/// What a sighting comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Absorbed {
    /// What the account changed and everybody else has to learn.
    pub change: Fields,
    /// What of it has to go to the account itself once more: a pending change of System A's that lost
    /// would undo it.
    pub restore: Fields,
    /// Fields that both sides had changed.
    pub conflicts: Vec<Conflict>,
}

/// A field that both sides changed, and how that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The field, as a pointer.
    pub field: String,
    /// System A's value as JSON text.
    pub ours: String,
    /// The account's value as JSON text.
    pub theirs: String,
    /// Whose stands.
    pub winner: Winner,
}

impl Absorbed {
    /// Makes a change the whole record: what the account shows, and what is on its way there. Others
    /// had both, and lost it when they deleted the record.
    pub fn complete(&mut self, shown: &Fields, pending: &[Pending]) {
        let mut whole = shown.clone();
        for pending in pending {
            whole.lay(&pending.fields);
        }
        whole.lay(&self.change);
        self.change = whole;
    }
}

impl Base {
    /// Whether nothing was ever agreed on.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.agreed.is_empty() && self.held.is_empty()
    }

    /// System A's values.
    #[must_use]
    pub fn agreed(&self) -> &Fields {
        &self.agreed
    }

    /// The account's spelling of values that it keeps in another one.
    #[must_use]
    pub fn shown(&self) -> &Fields {
        &self.shown
    }

    /// When our last write was answered, ms since the epoch; 0 before it.
    #[must_use]
    pub fn written_ms(&self) -> i64 {
        self.written_ms
    }

    /// When the newest of what was compared was asked for, ms since the epoch; 0 before it.
    #[must_use]
    pub fn seen_ms(&self) -> i64 {
        self.seen_ms
    }

    /// Fields that wait for an operator, by pointer.
    #[must_use]
    pub fn held(&self) -> &BTreeMap<String, Held> {
        &self.held
    }

    /// Whether what was asked for at `read_at_ms` shows all that was written, and is not older than
    /// what was compared before. A write that was answered in that very millisecond may be missing.
    #[must_use]
    pub fn is_fresh(&self, read_at_ms: i64) -> bool {
        read_at_ms > self.written_ms && read_at_ms >= self.seen_ms
    }

    /// Whether the record was seen at the account after `at_ms`, ms since the epoch.
    #[must_use]
    pub fn seen_after(&self, at_ms: i64) -> bool {
        self.seen_ms > at_ms
    }

    /// Takes up that the account has these values of System A's.
    pub fn sent(&mut self, fields: &Fields, now_ms: i64) {
        self.written_ms = self.written_ms.max(now_ms);
        for (pointer, value) in fields.iter() {
            self.agree(pointer, value);
            self.unconfirmed.insert(pointer.to_owned());
        }
    }

    /// Whether the account has all of these values already, as far as is known.
    #[must_use]
    pub fn has(&self, fields: &Fields) -> bool {
        !fields.is_empty()
            && fields.iter().all(|(pointer, value)| {
                let agreed = self.agreed.get(pointer);
                // What was never told is not known to be absent there.
                agreed.is_some() && same(agreed, Some(value))
            })
    }

    /// Fields of System A's record that are not as both sides agreed. One that waits for an operator
    /// is none of them; one that was never agreed on is, unless it is not kept in step.
    #[must_use]
    pub fn differences(&self, record: &Fields, is_mapped: impl Fn(&str) -> bool) -> Vec<String> {
        let agreed = self.agreed.iter().map(|(pointer, _)| pointer);
        let others = record.iter().map(|(pointer, _)| pointer);
        let others = others.filter(|pointer| !self.agreed.touches(pointer));
        let differs = |pointer: &&str| {
            is_mapped(pointer)
                && !self.held.contains_key(*pointer)
                && !same(self.agreed.get(pointer), record.get(pointer))
        };
        agreed
            .chain(others)
            .filter(differs)
            .map(str::to_owned)
            .collect()
    }

    /// Takes fields out that wait for an operator, keeping what System A says of them now.
    pub fn withhold(&mut self, fields: &mut Fields) -> bool {
        let mut some = false;
        for (pointer, held) in &mut self.held {
            if let Some(ours) = fields.get(pointer) {
                ours.clone_into(&mut held.ours);
                fields.remove(pointer);
                some = true;
            }
        }
        some
    }

    /// Takes up that the account has this value, and no other side need be told.
    pub fn observed(&mut self, pointer: &str, value: &str) {
        self.agree(pointer, value);
    }

    /// Ends the wait of a field. Answers what both sides had of it.
    pub fn resolve(&mut self, pointer: &str) -> Option<Held> {
        self.returns.remove(pointer);
        self.held.remove(pointer)
    }

    /// Takes up that the account's id leads here under this name. True when that is news.
    pub fn announce(&mut self, name: &str) -> bool {
        let news = self.announced != name;
        name.clone_into(&mut self.announced);
        news
    }

    /// The name under which the account's own id was told to lead here; empty before that.
    #[must_use]
    pub fn announced(&self) -> &str {
        &self.announced
    }

    /// What System A was told of the record.
    #[must_use]
    pub fn told(&self) -> &ToldBook {
        &self.told
    }

    /// To take up what it is told.
    pub fn told_mut(&mut self) -> &mut ToldBook {
        &mut self.told
    }

    /// Compares what the account shows with what was agreed on, and with what System A changed
    /// since, oldest first.
    pub fn observe(
        &mut self,
        sighting: &Sighting<'_>,
        pending: &[Pending],
        policy: &ConflictPolicy,
    ) -> Absorbed {
        let mut absorbed = Absorbed::default();
        self.seen_ms = self.seen_ms.max(sighting.read_at_ms);
        for (pointer, value) in sighting.fields.iter() {
            if self.is_known(pointer, value) {
                continue;
            }
            if let Some(held) = self.held.get_mut(pointer) {
                value.clone_into(&mut held.theirs);
                continue;
            }
            let rival = pending
                .iter()
                .rev()
                .find_map(|pending| Some((pending, pending.fields.get(pointer)?)));
            if rival.is_none()
                && let Some(foreign) = policy.owned(pointer)
                && self.dispossess(pointer, value, (foreign, sighting.now_ms), &mut absorbed)
            {
                continue;
            }
            let parked = self.comes_back(pointer, value, sighting.now_ms);
            let winner = match rival {
                _ if parked => Winner::Undecided,
                None => Winner::Provider,
                Some((_, ours)) if same(Some(ours), Some(value)) => {
                    self.agree(pointer, value);
                    continue;
                }
                Some((pending, ours)) => policy.decide(&Rivals {
                    field: pointer,
                    base: self.agreed.get(pointer).unwrap_or("null"),
                    ours,
                    ours_at_ms: pending.changed_at_ms,
                    theirs: value,
                    theirs_at_ms: sighting.changed_at_ms,
                }),
            };
            let ours = rival.map(|(_, ours)| ours).or(self.agreed.get(pointer));
            let conflict = Conflict {
                field: pointer.to_owned(),
                ours: ours.unwrap_or("null").to_owned(),
                theirs: value.to_owned(),
                winner,
            };
            match winner {
                Winner::Provider => {
                    absorbed.change.set(pointer, value);
                    if rival.is_some() {
                        absorbed.restore.set(pointer, value);
                    }
                    self.agree(pointer, value);
                }
                Winner::SystemA => self.agree(pointer, value),
                Winner::Undecided => {
                    let held = Held {
                        ours: conflict.ours.clone(),
                        theirs: conflict.theirs.clone(),
                        since_ms: sighting.now_ms,
                    };
                    self.held.insert(pointer.to_owned(), held);
                }
            }
            if rival.is_some() || parked {
                absorbed.conflicts.push(conflict);
            }
        }
        absorbed
    }

    /// Does not take what somebody changed at the account of a field that is System A's. `false`:
    /// nothing was agreed on, or it was written back too often.
    fn dispossess(
        &mut self,
        pointer: &str,
        value: &str,
        (foreign, now_ms): (Foreign, i64),
        absorbed: &mut Absorbed,
    ) -> bool {
        let Some(ours) = self.agreed.get(pointer).map(str::to_owned) else {
            return false;
        };
        if same(Some(&ours), Some(value)) {
            // As it should be, after something else was refused.
            self.agree(pointer, &ours);
            return true;
        }
        match foreign {
            // Known from now on as the account's own way to have it.
            Foreign::Refuse => self.shown.set(pointer, value),
            Foreign::Revert if self.returned_too_often(pointer, value, now_ms) => return false,
            Foreign::Revert => {
                self.comes_back(pointer, value, now_ms);
                self.agree(pointer, value);
                absorbed.restore.set(pointer, &ours);
            }
        }
        self.unconfirmed.remove(pointer);
        absorbed.conflicts.push(Conflict {
            field: pointer.to_owned(),
            ours,
            theirs: value.to_owned(),
            winner: Winner::SystemA,
        });
        true
    }

    /// Whether the account shows what was agreed on, in its own spelling perhaps.
    fn is_known(&mut self, pointer: &str, value: &str) -> bool {
        let agreed = self.agreed.get(pointer);
        let known = same(self.shown.get(pointer).or(agreed), Some(value));
        let respelled = !known
            && self.unconfirmed.contains(pointer)
            && agreed.is_some_and(|agreed| alike(agreed, value));
        if respelled {
            self.shown.set(pointer, value);
        }
        if known || respelled {
            self.unconfirmed.remove(pointer);
        }
        known || respelled
    }

    fn agree(&mut self, pointer: &str, value: &str) {
        self.agreed.set(pointer, value);
        self.shown.remove(pointer);
        self.unconfirmed.remove(pointer);
    }

    /// Whether it was, if it is once more.
    fn returned_too_often(&self, pointer: &str, value: &str, now_ms: i64) -> bool {
        let value = canonical_hash(RawValue::new(value));
        self.returns.get(pointer).is_some_and(|entry| {
            entry.value == value
                && now_ms.saturating_sub(entry.at_ms) <= RETURN_WITHIN_MS
                && entry.count >= RETURNS_MAX
        })
    }

    /// Whether a value was brought back over ours too often.
    fn comes_back(&mut self, pointer: &str, value: &str, now_ms: i64) -> bool {
        let value = canonical_hash(RawValue::new(value));
        let entry = self.returns.entry(pointer.to_owned()).or_insert(Return {
            value,
            count: 0,
            at_ms: now_ms,
        });
        let again = entry.value == value && now_ms.saturating_sub(entry.at_ms) <= RETURN_WITHIN_MS;
        entry.count = if again {
            entry.count.saturating_add(1)
        } else {
            1
        };
        (entry.value, entry.at_ms) = (value, now_ms);
        entry.count > RETURNS_MAX
    }

    pub(crate) fn encode(&self, e: &mut Encoder<'_>) {
        encode_fields(e, &self.agreed);
        encode_fields(e, &self.shown);
        e.u16(self.unconfirmed.len() as u16);
        for pointer in &self.unconfirmed {
            e.text(pointer);
        }
        e.u16(self.held.len() as u16);
        for (pointer, held) in &self.held {
            e.text(pointer)
                .bytes(held.ours.as_bytes())
                .bytes(held.theirs.as_bytes())
                .i64(held.since_ms);
        }
        e.u16(self.returns.len() as u16);
        for (pointer, back) in &self.returns {
            e.text(pointer)
                .u64(back.value)
                .u8(back.count)
                .i64(back.at_ms);
        }
        self.told.encode(e);
        e.text(&self.announced)
            .i64(self.written_ms)
            .i64(self.seen_ms);
    }

    /// `version`: of the state frame that it is part of.
    pub(crate) fn decode(d: &mut Decoder<'_>, version: u8) -> Result<Self, Damaged> {
        let mut base = Self {
            agreed: decode_fields(d)?,
            shown: decode_fields(d)?,
            ..Self::default()
        };
        for _ in 0..d.u16("unconfirmed")? {
            base.unconfirmed
                .insert(d.text("unconfirmed field")?.to_owned());
        }
        for _ in 0..d.u16("held")? {
            let pointer = d.text("held field")?.to_owned();
            let held = Held {
                ours: decode_value(d)?,
                theirs: decode_value(d)?,
                since_ms: d.i64("held since")?,
            };
            base.held.insert(pointer, held);
        }
        for _ in 0..d.u16("returns")? {
            let pointer = d.text("returned field")?.to_owned();
            let back = Return {
                value: d.u64("returned value")?,
                count: d.u8("return count")?,
                at_ms: d.i64("returned at")?,
            };
            base.returns.insert(pointer, back);
        }
        base.told = ToldBook::decode(d, version)?;
        d.text("announced")?.clone_into(&mut base.announced);
        base.written_ms = d.i64("written at")?;
        base.seen_ms = d.i64("seen at")?;
        Ok(base)
    }
}

fn encode_fields(e: &mut Encoder<'_>, fields: &Fields) {
    e.u16(fields.len() as u16);
    for (pointer, value) in fields.iter() {
        e.text(pointer).bytes(value.as_bytes());
    }
}

fn decode_fields(d: &mut Decoder<'_>) -> Result<Fields, Damaged> {
    let mut fields = Fields::default();
    for _ in 0..d.u16("fields")? {
        let pointer = d.text("field")?.to_owned();
        fields.set(&pointer, &decode_value(d)?);
    }
    Ok(fields)
}

pub(super) fn decode_value(d: &mut Decoder<'_>) -> Result<String, Damaged> {
    let value = d.bytes("value")?.to_vec();
    String::from_utf8(value).map_err(|_| d.damaged("value"))
}

#[cfg(test)]
mod tests {
    use super::super::told::Heard;
    use super::*;
    use crate::merge::Rule;

    fn fields(json: &str) -> Fields {
        Fields::parse(json)
    }

    fn pending(json: &str, changed_at_ms: i64) -> Pending {
        Pending {
            fields: fields(json),
            changed_at_ms,
        }
    }

    fn show(base: &mut Base, json: &str, at_ms: i64, pending: &[Pending], rule: Rule) -> Absorbed {
        let policy = ConflictPolicy {
            default: rule,
            skew: std::time::Duration::ZERO,
            ..ConflictPolicy::default()
        };
        let sighting = Sighting {
            fields: &fields(json),
            changed_at_ms: at_ms,
            read_at_ms: at_ms,
            now_ms: at_ms,
        };
        base.observe(&sighting, pending, &policy)
    }

    fn agreed(json: &str) -> Base {
        let mut base = Base::default();
        base.sent(&fields(json), 0);
        base
    }

    #[test]
    fn our_own_write_coming_back_changes_nothing() {
        let mut base = agreed(r#"{"name":"Ada","phone":"+49 30 1234567"}"#);
        let echo = r#"{"name":"Ada","phone":"+49301234567"}"#;
        let first = show(&mut base, echo, 1, &[], Rule::Provider);
        assert_eq!(first, Absorbed::default());
        let again = show(&mut base, echo, 2, &[], Rule::Provider);
        assert_eq!(again, Absorbed::default());
    }

    #[test]
    fn once_a_spelling_was_seen_another_one_is_a_change() {
        let mut base = agreed(r#"{"name":"Ada"}"#);
        show(&mut base, r#"{"name":"ADA"}"#, 1, &[], Rule::Provider);
        let absorbed = show(&mut base, r#"{"name":"ada"}"#, 2, &[], Rule::Provider);
        assert_eq!(absorbed.change, fields(r#"{"name":"ada"}"#));
    }

    #[test]
    fn changes_of_different_fields_go_both_ways() {
        let mut base = agreed(r#"{"a":1,"b":1}"#);
        let waiting = [pending(r#"{"a":2}"#, 5)];
        let absorbed = show(&mut base, r#"{"a":1,"b":2}"#, 6, &waiting, Rule::SystemA);
        assert_eq!(absorbed.change, fields(r#"{"b":2}"#));
        assert!(absorbed.restore.is_empty() && absorbed.conflicts.is_empty());
    }

    #[test]
    fn a_field_that_both_changed_ends_as_the_rule_says() {
        for (rule, at_ms, winner) in [
            (Rule::SystemA, 9, Winner::SystemA),
            (Rule::Provider, 1, Winner::Provider),
            (Rule::Manual, 9, Winner::Undecided),
            (Rule::LastWriteWins, 9, Winner::Provider),
            (Rule::LastWriteWins, 1, Winner::SystemA),
            (Rule::LastWriteWins, 5, Winner::SystemA),
        ] {
            let mut base = agreed(r#"{"a":1}"#);
            let waiting = [pending(r#"{"a":2}"#, 5)];
            let absorbed = show(&mut base, r#"{"a":3}"#, at_ms, &waiting, rule);
            let expected = Conflict {
                field: "/a".to_owned(),
                ours: "2".to_owned(),
                theirs: "3".to_owned(),
                winner,
            };
            assert_eq!(absorbed.conflicts, [expected]);
            assert_eq!(!absorbed.restore.is_empty(), winner == Winner::Provider);
            assert_eq!(absorbed.change.is_empty(), winner != Winner::Provider);
            assert_eq!(base.held().contains_key("/a"), winner == Winner::Undecided);
        }
    }

    #[test]
    fn the_same_change_on_both_sides_is_no_conflict() {
        let mut base = agreed(r#"{"a":1}"#);
        let waiting = [pending(r#"{"a":2}"#, 5)];
        let absorbed = show(&mut base, r#"{"a":2}"#, 9, &waiting, Rule::Manual);
        assert_eq!(absorbed, Absorbed::default());
        assert!(base.has(&fields(r#"{"a":2}"#)));
    }

    #[test]
    fn what_was_asked_for_before_our_last_write_is_stale() {
        let mut base = Base::default();
        base.sent(&fields(r#"{"a":1}"#), 10);
        assert!(!base.is_fresh(9) && !base.is_fresh(10) && base.is_fresh(11));
        show(&mut base, r#"{"a":2}"#, 20, &[], Rule::Provider);
        assert!(!base.is_fresh(19) && base.is_fresh(20));
    }

    #[test]
    fn a_held_field_is_not_sent_and_keeps_both_sides_newest_value() {
        let mut base = agreed(r#"{"a":1,"b":1}"#);
        let waiting = [pending(r#"{"a":2}"#, 5)];
        show(&mut base, r#"{"a":3}"#, 6, &waiting, Rule::Manual);
        let mut next = fields(r#"{"a":4,"b":2}"#);
        assert!(base.withhold(&mut next));
        assert_eq!(next, fields(r#"{"b":2}"#));
        show(&mut base, r#"{"a":5}"#, 7, &[], Rule::Manual);
        let held = base.resolve("/a").unwrap();
        assert_eq!((held.ours.as_str(), held.theirs.as_str()), ("4", "5"));
    }

    #[test]
    fn a_value_that_keeps_coming_back_is_parked() {
        let mut base = agreed(r#"{"a":1}"#);
        let mut changes = 0;
        for round in 0..10 {
            let absorbed = show(&mut base, r#"{"a":2}"#, round, &[], Rule::LastWriteWins);
            changes += absorbed.change.len();
            let mut ours = fields(r#"{"a":1}"#);
            base.withhold(&mut ours);
            base.sent(&ours, 0);
        }
        assert_eq!(changes, usize::from(RETURNS_MAX));
        assert!(base.held().contains_key("/a"));
    }

    #[test]
    fn what_an_account_changes_of_a_field_of_system_a_is_refused_once_and_not_taken() {
        let mut base = agreed(r#"{"a":1,"b":1}"#);
        let owned = || Rule::Owned(Foreign::Refuse);
        let absorbed = show(&mut base, r#"{"a":2}"#, 1, &[], owned());
        assert!(absorbed.change.is_empty() && absorbed.restore.is_empty());
        assert_eq!(absorbed.conflicts[0].winner, Winner::SystemA);
        let again = show(&mut base, r#"{"a":2}"#, 2, &[], owned());
        assert_eq!(again, Absorbed::default(), "told once");
        let other = show(&mut base, r#"{"a":3}"#, 3, &[], owned());
        assert_eq!(other.conflicts.len(), 1);
        let back = show(&mut base, r#"{"a":1}"#, 4, &[], owned());
        assert_eq!(back, Absorbed::default());
        assert_eq!(base.agreed().get("/a"), Some("1"));
        assert!(!base.has(&fields(r#"{"a":4}"#)), "System A's changes go on");
    }

    #[test]
    fn a_field_of_system_a_is_written_back_until_that_is_undone_too_often() {
        let mut base = agreed(r#"{"a":1}"#);
        let mut written = 0;
        for round in 0..10 {
            let rule = Rule::Owned(Foreign::Revert);
            let absorbed = show(&mut base, r#"{"a":2}"#, round, &[], rule);
            assert!(absorbed.change.is_empty());
            written += absorbed.restore.len();
            assert!(base.withhold(&mut fields(r#"{"a":1}"#)) == absorbed.restore.is_empty());
            base.sent(&absorbed.restore, 0);
        }
        assert_eq!(written, usize::from(RETURNS_MAX));
        assert!(base.held().contains_key("/a"));
    }

    #[test]
    fn a_field_of_system_a_that_it_never_said_is_taken() {
        let mut base = agreed(r#"{"a":1}"#);
        let rule = Rule::Owned(Foreign::Revert);
        let absorbed = show(&mut base, r#"{"b":2}"#, 1, &[], rule);
        assert_eq!(absorbed.change, fields(r#"{"b":2}"#));
    }

    #[test]
    fn a_base_survives_its_bytes_and_no_prefix_of_them_decodes() {
        let mut base = agreed(r#"{"a":1,"b":{"c":"x"}}"#);
        show(&mut base, r#"{"b":{"c":"X"}}"#, 1, &[], Rule::Manual);
        show(
            &mut base,
            r#"{"a":3}"#,
            2,
            &[pending(r#"{"a":2}"#, 1)],
            Rule::Manual,
        );
        let heard = Heard {
            at_ms: 6,
            newest: 4,
        };
        base.told.tell(&fields(r#"{"a":3}"#), 5, "crm", heard);
        let mut bytes = Vec::new();
        base.encode(&mut Encoder::new(&mut bytes));
        let decoded = Base::decode(&mut Decoder::new(&bytes), 6);
        assert_eq!(decoded, Ok(base));
        for cut in 0..bytes.len() {
            assert!(Base::decode(&mut Decoder::new(&bytes[..cut]), 6).is_err());
        }
    }
}
