//! Edits by their order among those that somebody still speaks of.

use std::fmt::Write;

use syncline_engine::merge::Rule;

use super::{EDIT_MS, Edit};

/// Stands before an edit's number where that is a value.
pub(crate) const MARK: char = '^';

/// Digits of a time on a stage, ms since the epoch.
const TIME_DIGITS: usize = 7;

/// What of the times that stand in a place can be felt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Felt {
    /// Their order.
    Order,
    /// Where those of there lie among those of here.
    AmongHere,
    Nothing,
}

/// When edits are made, and what can be felt of that.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    began_ms: i64,
    felt: Felt,
}

/// What a time is felt as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    /// As this edit's, by its number,
    edit: usize,
    /// or as one between that and the next one of here.
    later: bool,
}

impl Clock {
    /// Where nothing is deleted, times are only asked for by the last write: those of the sides are held
    /// against each other then. Without a rule, anything may be asked.
    pub(crate) fn of(began_ms: i64, rule: Option<&Rule>) -> Self {
        let felt = match rule {
            None => Felt::Order,
            Some(Rule::LastWriteWins) => Felt::AmongHere,
            Some(_) => Felt::Nothing,
        };
        Self { began_ms, felt }
    }

    /// The edit, of those that were made, at a time in ms since the epoch.
    pub(crate) fn edit_at(self, at_ms: i64, made: &[Edit]) -> Option<usize> {
        let since_ms = at_ms - self.began_ms;
        let number = usize::try_from(since_ms.div_euclid(EDIT_MS)).ok()?;
        (since_ms % EDIT_MS == 0 && number <= made.len()).then_some(number)
    }

    /// What the time of an edit is felt as; `None`: it is not.
    pub(crate) fn moment(self, edit: usize, made: &[Edit]) -> Option<Moment> {
        let moment = match self.felt {
            Felt::Order => Moment { edit, later: false },
            Felt::AmongHere => {
                let before = made[..edit].iter().rposition(|edit| edit.is_here());
                let last = before.map_or(0, |at| at + 1);
                Moment {
                    edit: last,
                    later: last < edit,
                }
            }
            Felt::Nothing => return None,
        };
        Some(moment)
    }
}

/// The edits that a place speaks of, by their values or their times.
///
/// Two places that differ in nothing but which edits these are, and agree in their order and in who
/// made each, go on alike: values are only compared for being equal, and times for their order.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    clock: Clock,
    made: Vec<Edit>,
    /// By number; 0 is what was before all edits.
    spoken: Vec<bool>,
}

impl Ranks {
    pub(crate) fn of(place: &str, clock: Clock, made: &[Edit]) -> Self {
        let mut ranks = Self {
            clock,
            made: made.to_vec(),
            spoken: vec![false; made.len() + 1],
        };
        let mut left = place;
        while let Some((mention, _, after)) = ranks.next(left) {
            if let Some(moment) = mention {
                ranks.spoken[moment.edit] = true;
            }
            left = after;
        }
        ranks
    }

    /// The text with each edit given by its place among those spoken of, and by its side.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut left = text;
        while let Some((mention, before, after)) = self.next(left) {
            out.push_str(before);
            if let Some(Moment { edit, later }) = mention {
                let rank = self.spoken[..edit].iter().filter(|it| **it).count();
                let side = match edit.checked_sub(1).map(|at| self.made[at]) {
                    None => 'o',
                    Some(edit) if edit.is_here() => 'h',
                    Some(_) => 't',
                };
                let later = if later { "+" } else { "" };
                write!(out, "{rank}{side}{later}").unwrap();
            }
            left = after;
        }
        out.push_str(left);
        out
    }

    /// The next edit that a text speaks of, with what is before and after that; no edit where it is a
    /// time that is not felt.
    fn next<'t>(&self, text: &'t str) -> Option<(Option<Moment>, &'t str, &'t str)> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            while at < bytes.len() && bytes[at].is_ascii_digit() {
                at += 1;
            }
            let (before, digits, after) = (&text[..from], &text[from..at], &text[at..]);
            if !digits.is_empty() && before.ends_with(MARK) {
                let edit = digits.parse().unwrap();
                return Some((Some(Moment { edit, later: false }), before, after));
            }
            if digits.len() == TIME_DIGITS
                && let Some(edit) = self.clock.edit_at(digits.parse().unwrap(), &self.made)
            {
                return Some((self.clock.moment(edit, &self.made), before, after));
            }
            at += 1;
        }
        None
    }
}
