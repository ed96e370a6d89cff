//! Words of other shards that the log has no room for yet.

use std::collections::VecDeque;
use std::time::Duration;

use super::links::LinkWord;
use super::{Shard, handoff::HANDING_MAX};
use crate::journal::{Class, Journal};
use crate::time::{Mono, Now};

/// What a word may lead to: an event of a megabyte, and the state of its record.
const WORD_ROOM: usize = 2 * 1024 * 1024;
/// Words kept. What other shards wait for is bounded there; more than this is taken for a log that
/// does not come back, and the shard leaves it to a restart.
const UNHEARD_MAX: usize = 16 * HANDING_MAX;
/// Rest before they are tried again: nobody tells a shard that a disk has space.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// They are heard in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    words: VecDeque<LinkWord>,
    again_at: Option<Mono>,
}

impl Unheard {
    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.again_at
    }
}

impl<T> Shard<T> {
    pub(super) fn on_link_word(&mut self, now: Now, journal: &mut impl Journal, word: LinkWord) {
        if self.fenced {
            return;
        }
        if !word.is_logged() {
            return self.hear(now, journal, word);
        }
        self.unheard.words.push_back(word);
        self.hear_waiting(now, journal);
        if self.unheard.words.len() > UNHEARD_MAX {
            self.fence();
        }
    }

    /// Hears what waits, as far as the log has room.
    pub(super) fn hear_waiting(&mut self, now: Now, journal: &mut impl Journal) {
        while !self.fenced && journal.room(Class::Outcome) >= WORD_ROOM {
            let Some(word) = self.unheard.words.pop_front() else {
                break;
            };
            self.hear(now, journal, word);
        }
        let waits = self.untold.stalled || !self.unheard.words.is_empty();
        self.unheard.again_at = waits.then(|| now.mono.saturating_add(AGAIN_AFTER));
    }

    fn hear(&mut self, now: Now, journal: &mut impl Journal, word: LinkWord) {
        match word {
            LinkWord::Handoff(handoff) => self.on_handoff(now, journal, handoff),
            LinkWord::Handed(handed) => self.on_handed(now, journal, &handed),
            LinkWord::KnownAs(known) => self.on_known(now, journal, &known),
            LinkWord::Claim(claim) => self.on_claim(now, journal, claim),
            LinkWord::Claimed(claimed) => self.on_claimed(now, journal, &claimed),
            LinkWord::Question(question) => self.answer_link(journal, question),
            LinkWord::Answer(answer) => self.take_link(now, journal, answer),
            LinkWord::News(news) => self.take_news(now, &news),
        }
    }
}
