//! A JSON array of documents, taken apart so that a bad one harms no neighbour.

use super::raw::{skip_space, value_end};
use crate::refusal::{Code, Refusal};

/// The items of an array from outside, each still to be validated.
///
/// Only the commas and brackets of the list itself are judged. When they are broken, the list is
/// refused once and the iteration ends: what follows cannot be told apart.
#[derive(Debug, Clone)]
pub struct ListItems<'a> {
    bytes: &'a [u8],
    at: usize,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    AfterItem,
    Ended,
}

impl<'a> ListItems<'a> {
    /// Takes a list apart; whether `bytes` is one is told by the first item.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            state: State::Start,
        }
    }

    fn step(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        self.at = skip_space(self.bytes, self.at);
        match self.state {
            State::Start => {
                self.expect(b'[')?;
                self.at = skip_space(self.bytes, self.at);
                if self.bytes.get(self.at) == Some(&b']') {
                    return self.end();
                }
            }
            State::AfterItem => {
                if self.bytes.get(self.at) == Some(&b']') {
                    return self.end();
                }
                self.expect(b',')?;
                self.at = skip_space(self.bytes, self.at);
            }
            State::Ended => return Ok(None),
        }
        let start = self.at;
        self.at = value_end(self.bytes, start);
        self.state = State::AfterItem;
        if self.at == start {
            return Err(self.broken());
        }
        Ok(Some(&self.bytes[start..self.at]))
    }

    fn end(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        self.at = skip_space(self.bytes, self.at + 1);
        if self.at < self.bytes.len() {
            return Err(self.broken());
        }
        self.state = State::Ended;
        Ok(None)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Refusal> {
        if self.bytes.get(self.at) != Some(&byte) {
            return Err(self.broken());
        }
        self.at += 1;
        Ok(())
    }

    fn broken(&self) -> Refusal {
        let detail = format!("not a JSON list: broken at byte {}", self.at);
        Refusal::at(Code::Malformed, "", detail)
    }
}

impl<'a> Iterator for ListItems<'a> {
    type Item = Result<&'a [u8], Refusal>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            self.state = State::Ended;
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    use std::str;

    use super::*;

    fn items(text: &str) -> (Vec<&str>, bool) {
        let mut found = Vec::new();
        for item in ListItems::new(text.as_bytes()) {
            match item {
                Ok(item) => found.push(str::from_utf8(item).unwrap()),
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::Malformed);
                    return (found, false);
                }
            }
        }
        (found, true)
    }

    #[test]
    fn a_list_comes_apart_into_its_items() {
        assert_eq!(items("[]"), (vec![], true));
        assert_eq!(
            items(" [ {\"a\":[1,2]} ,\n{\"b\":\"],\"}, 3] "),
            (vec!["{\"a\":[1,2]}", "{\"b\":\"],\"}", "3"], true)
        );
        assert_eq!(
            items("[{\"a\":tru},{}]"),
            (vec!["{\"a\":tru}", "{}"], true),
            "items are judged later"
        );
    }

    #[test]
    fn a_broken_list_is_refused_once_after_what_was_whole() {
        for (text, whole) in [
            ("", 0),
            ("{}", 0),
            ("[", 0),
            ("[,{}]", 0),
            ("[{}", 1),
            ("[{},]", 1),
            ("[{}{}]", 1),
            ("[{}] x", 1),
            ("[{}]]", 1),
        ] {
            let (found, complete) = items(text);
            assert_eq!((found.len(), complete), (whole, false), "{text}");
        }
    }
}
