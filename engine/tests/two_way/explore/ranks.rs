//! Edits by their order among those that somebody still speaks of.

use std::fmt::Write;

use super::{EDIT_MS, Edit};

/// Stands before an edit's number where that is a value.
pub(crate) const MARK: char = '^';

/// Digits of a time on a stage, ms since the epoch.
const TIME_DIGITS: usize = 7;

/// The edits that a place speaks of, by their values or their times.
///
/// Two places that differ in nothing but which edits these are, and agree in their order and in who
/// made each, go on alike: values are only compared for being equal, and times for their order.
#[derive(Debug, Clone)]
pub(crate) struct Ranks {
    began_ms: i64,
    made: Vec<Edit>,
    /// By number; 0 is what was before all edits.
    spoken: Vec<bool>,
}

impl Ranks {
    pub(crate) fn of(place: &str, began_ms: i64, made: &[Edit]) -> Self {
        let mut ranks = Self {
            began_ms,
            made: made.to_vec(),
            spoken: vec![false; made.len() + 1],
        };
        let mut left = place;
        while let Some((number, _, after)) = ranks.next(left) {
            ranks.spoken[number] = true;
            left = after;
        }
        ranks
    }

    /// The text with each edit given by its place among those spoken of, and by its side.
    pub(crate) fn apply(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut left = text;
        while let Some((number, before, after)) = self.next(left) {
            let rank = self.spoken[..number].iter().filter(|it| **it).count();
            let side = match number.checked_sub(1).map(|at| self.made[at]) {
                None => 'o',
                Some(Edit::Here(_) | Edit::DeleteHere) => 'h',
                Some(Edit::There(_) | Edit::DeleteThere) => 't',
            };
            write!(out, "{before}{rank}{side}").unwrap();
            left = after;
        }
        out.push_str(left);
        out
    }

    /// The next edit that a text speaks of, with what is before and after that.
    fn next<'t>(&self, text: &'t str) -> Option<(usize, &'t str, &'t str)> {
        let bytes = text.as_bytes();
        let mut at = 0;
        while at < bytes.len() {
            let from = at;
            while at < bytes.len() && bytes[at].is_ascii_digit() {
                at += 1;
            }
            if at > from {
                let marked = text[..from].ends_with(MARK);
                if let Some(number) = self.number(&text[from..at], marked) {
                    return Some((number, &text[..from], &text[at..]));
                }
            }
            at += 1;
        }
        None
    }

    fn number(&self, digits: &str, marked: bool) -> Option<usize> {
        if marked {
            return digits.parse().ok();
        }
        if digits.len() != TIME_DIGITS {
            return None;
        }
        let since_ms = digits.parse::<i64>().ok()? - self.began_ms;
        let number = usize::try_from(since_ms.div_euclid(EDIT_MS)).ok()?;
        (since_ms % EDIT_MS == 0 && number <= self.made.len()).then_some(number)
    }
}
