//! What System A was told of a record, and whether it knew that when it said something itself.

use std::collections::BTreeMap;

use super::base::decode_value;
use super::fields::Fields;
use crate::codec::{Damaged, Decoder, Encoder};

/// The pointer to a whole record.
const WHOLE: &str = "";
/// What is told of a record that System A made again, and was told late to delete.
const MADE_AGAIN: &str = "{}";

/// What System A was told of a record lately, by field.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToldBook {
    fields: BTreeMap<String, Told>,
}

/// What System A was told of a field, and may not have known when it changed the field itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The value as JSON text.
    pub value: String,
    /// When it was changed where it comes from, ms since the epoch.
    pub changed_at_ms: i64,
    /// The account it comes from.
    pub origin: String,
    /// When System A said last that it has it.
    pub heard: Heard,
    /// When it said so first of this very change. What stands is told once more where it crossed
    /// something.
    pub known: Heard,
}

/// When System A heard something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// By a clock of ours that nobody sets, ms since the epoch.
    pub at_ms: i64,
    /// The newest operation of the record that was accepted by then: up to this one System A cannot
    /// have known.
    pub newest: u64,
}

/// When System A said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// By the same clock as [`Heard::at_ms`], as far as its word tells.
    pub at_ms: i64,
    /// The operation that says it.
    pub seq: u64,
}

impl Told {
    /// Whether System A may have said this before it heard of that.
    #[must_use]
    pub fn crossed(&self, said: Said) -> bool {
        self.heard.crossed(said)
    }

    /// Whether it had heard of that before, though maybe not that it was told once more.
    #[must_use]
    pub fn was_known(&self, said: Said) -> bool {
        !self.known.crossed(said)
    }
}

impl Heard {
    fn crossed(self, said: Said) -> bool {
        said.seq <= self.newest || self.at_ms >= said.at_ms
    }
}

impl ToldBook {
    /// Takes up that System A was told of a change.
    pub fn tell(&mut self, fields: &Fields, changed_at_ms: i64, origin: &str, heard: Heard) {
        for (pointer, value) in fields.iter() {
            let before = self.fields.get(pointer).filter(|before| {
                (&*before.value, &*before.origin) == (value, origin)
                    && before.changed_at_ms == changed_at_ms
            });
            let told = Told {
                value: value.to_owned(),
                changed_at_ms,
                origin: origin.to_owned(),
                heard,
                known: before.map_or(heard, |before| before.known),
            };
            self.fields.insert(pointer.to_owned(), told);
        }
    }

    /// Takes up that System A was told to delete the record.
    pub fn tell_deleted(&mut self, changed_at_ms: i64, origin: &str, heard: Heard) {
        let before = self.fields.remove(WHOLE).map(|told| told.changed_at_ms);
        let changed_at_ms = changed_at_ms.max(before.unwrap_or(changed_at_ms));
        self.fields.clear();
        let told = Told {
            value: "null".to_owned(),
            changed_at_ms,
            origin: origin.to_owned(),
            heard,
            known: heard,
        };
        self.fields.insert(WHOLE.to_owned(), told);
    }

    /// Whether System A was told, after it said something, to delete the record and to make it
    /// again: what it said is not there any more.
    #[must_use]
    pub fn was_remade(&self, said: Said) -> bool {
        let deleted = self.fields.get(WHOLE);
        deleted.is_some_and(|deleted| {
            let remade = self.fields.len() > 1 || deleted.value == MADE_AGAIN;
            remade && deleted.crossed(said)
        })
    }

    /// When a delete happened that System A was told of after it said something, and of nothing
    /// since; ms since the epoch.
    #[must_use]
    pub fn was_deleted(&self, said: Said) -> Option<i64> {
        let deleted = self
            .fields
            .get(WHOLE)
            .filter(|deleted| self.fields.len() == 1 && deleted.value != MADE_AGAIN)?;
        deleted.crossed(said).then_some(deleted.changed_at_ms)
    }

    /// Whether System A knew of a delete as late as `deleted_at_ms`, ms since the epoch, when it said
    /// something.
    #[must_use]
    pub fn knew_of_delete(&self, deleted_at_ms: i64, said: Said) -> bool {
        let deleted = self.fields.get(WHOLE);
        deleted.is_some_and(|told| told.changed_at_ms >= deleted_at_ms && !told.crossed(said))
    }

    /// Takes up that System A had made the record again when it was told to delete it: all that it
    /// said of the new one is to be told again.
    pub fn make_again(&mut self) {
        if let Some(deleted) = self.fields.get_mut(WHOLE) {
            MADE_AGAIN.clone_into(&mut deleted.value);
        }
    }

    /// When System A heard something last, by [`Heard::at_ms`].
    #[must_use]
    pub fn heard_at_ms(&self) -> Option<i64> {
        self.fields.values().map(|told| told.heard.at_ms).max()
    }

    /// What it was told of a field last.
    #[must_use]
    pub fn get(&self, pointer: &str) -> Option<&Told> {
        self.fields.get(pointer)
    }

    /// The fields that it has of which it may not have known when it said something.
    pub fn crossing(&self, said: Said) -> impl Iterator<Item = &str> {
        let fields = self
            .fields
            .iter()
            .filter(|(pointer, _)| *pointer != WHOLE)
            .filter(move |(_, told)| told.crossed(said) && told.value != "null");
        fields.map(|(pointer, _)| pointer.as_str())
    }

    pub(super) fn encode(&self, e: &mut Encoder<'_>) {
        e.u16(self.fields.len() as u16);
        for (pointer, told) in &self.fields {
            e.text(pointer)
                .bytes(told.value.as_bytes())
                .i64(told.changed_at_ms)
                .text(&told.origin)
                .i64(told.heard.at_ms)
                .u64(told.heard.newest)
                .i64(told.known.at_ms)
                .u64(told.known.newest);
        }
    }

    /// `version`: of the state frame that it is part of.
    pub(super) fn decode(d: &mut Decoder<'_>, version: u8) -> Result<Self, Damaged> {
        let mut book = Self::default();
        for _ in 0..d.u16("told")? {
            let pointer = d.text("told field")?.to_owned();
            let mut told = Told {
                value: decode_value(d)?,
                changed_at_ms: d.i64("told at")?,
                origin: d.text("told origin")?.to_owned(),
                heard: Heard {
                    at_ms: if version >= 4 { d.i64("heard at")? } else { 0 },
                    newest: if version >= 5 { d.u64("newest")? } else { 0 },
                },
                known: Heard {
                    at_ms: 0,
                    newest: 0,
                },
            };
            told.known = match version {
                6.. => Heard {
                    at_ms: d.i64("known at")?,
                    newest: d.u64("known newest")?,
                },
                _ => told.heard,
            };
            book.fields.insert(pointer, told);
        }
        Ok(book)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(at_ms: i64, seq: u64) -> Said {
        Said { at_ms, seq }
    }

    fn told() -> ToldBook {
        let mut book = ToldBook::default();
        let heard = Heard {
            at_ms: 100,
            newest: 8,
        };
        book.tell(&Fields::parse(r#"{"a":1,"b":null}"#), 5, "crm", heard);
        book
    }

    #[test]
    fn what_was_accepted_before_it_heard_crossed_whatever_the_clocks_say() {
        let book = told();
        let a = book.get("/a").expect("it was told");
        assert!(a.crossed(said(5_000, 8)), "accepted before");
        assert!(a.crossed(said(100, 12)), "changed before, and came late");
        assert!(!a.crossed(said(101, 12)));
        assert_eq!(book.crossing(said(1, 1)).collect::<Vec<_>>(), ["/a"]);
        assert_eq!(book.crossing(said(200, 12)).count(), 0);
    }

    #[test]
    fn what_is_told_once_more_was_known_before() {
        let mut book = told();
        let again = Heard {
            at_ms: 300,
            newest: 16,
        };
        book.tell(&Fields::parse(r#"{"a":1}"#), 5, "crm", again);
        let a = book.get("/a").expect("it was told").clone();
        assert!(a.crossed(said(200, 12)) && a.was_known(said(200, 12)));
        assert!(!a.was_known(said(90, 12)) && !a.was_known(said(200, 8)));
        // The same value, set anew.
        book.tell(&Fields::parse(r#"{"a":1}"#), 250, "crm", again);
        let a = book.get("/a").expect("it was told");
        assert!(!a.was_known(said(200, 12)));
    }

    #[test]
    fn a_record_made_again_is_told_of_once_as_deleted_and_then_as_made() {
        let mut book = told();
        let heard = Heard {
            at_ms: 200,
            newest: 8,
        };
        book.tell_deleted(150, "crm", heard);
        assert_eq!(book.was_deleted(said(180, 12)), Some(150));
        assert!(!book.was_remade(said(180, 12)));
        assert!(book.knew_of_delete(150, said(201, 12)));
        assert!(!book.knew_of_delete(151, said(201, 12)), "another delete");
        assert!(!book.knew_of_delete(150, said(180, 12)));
        book.make_again();
        assert_eq!(book.was_deleted(said(180, 12)), None);
        assert!(book.was_remade(said(180, 12)));
        book.tell_deleted(100, "crm", heard);
        assert_eq!(book.was_deleted(said(180, 12)), Some(150), "the later one");
    }
}
