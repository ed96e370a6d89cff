//! Which number an event has, and whether it is new.

use super::intake::Welcome;

/// The numbers of one session.
#[derive(Debug, Default)]
pub(crate) struct Numbering {
    /// The number of the line before; a missing number is this plus one.
    previous: u64,
    /// Highest number taken or refused; the next new one is this plus one.
    taken: u64,
    /// Durable numbers above the welcome's, descending, so that the next is at the end.
    already: Vec<u64>,
}

/// Where an event's number puts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The next new event.
    Fresh(u64),
    /// The next number, but durable since before this session.
    Already(u64),
    /// A number that this session or an earlier one covered.
    Duplicate,
    /// A number that skips some; `expected` is the one that was due.
    Gap { expected: u64 },
}

impl Numbering {
    pub(crate) fn new(welcome: Welcome) -> Self {
        let Welcome {
            last_seq,
            mut already,
        } = welcome;
        already.sort_unstable_by(|a, b| b.cmp(a));
        Numbering {
            previous: last_seq,
            taken: last_seq,
            already,
        }
    }

    /// Places the next event; `explicit` is the number it names itself.
    pub(crate) fn place(&mut self, explicit: Option<u64>) -> Place {
        let expected = self.taken.saturating_add(1);
        let seq = explicit.unwrap_or(self.previous.saturating_add(1));
        // Numbers start at 1. A client counting from 0 would lose its first event in silence if
        // this were a duplicate.
        if seq == 0 || seq > expected {
            return Place::Gap { expected };
        }
        self.previous = seq;
        if seq <= self.taken {
            return Place::Duplicate;
        }
        self.taken = seq;
        while let Some(&next) = self.already.last() {
            if next > seq {
                break;
            }
            self.already.pop();
            if next == seq {
                return Place::Already(seq);
            }
        }
        Place::Fresh(seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbering(last_seq: u64, already: &[u64]) -> Numbering {
        Numbering::new(Welcome {
            last_seq,
            already: already.to_vec(),
        })
    }

    #[test]
    fn missing_numbers_count_on_from_the_welcome() {
        let mut n = numbering(7, &[]);
        assert_eq!(n.place(None), Place::Fresh(8));
        assert_eq!(n.place(Some(9)), Place::Fresh(9));
        assert_eq!(n.place(None), Place::Fresh(10));
        assert_eq!(n.place(None), Place::Fresh(11));
    }

    #[test]
    fn a_missing_number_follows_the_line_before_even_if_that_was_a_duplicate() {
        let mut n = numbering(7, &[]);
        assert_eq!(n.place(Some(6)), Place::Duplicate);
        assert_eq!(n.place(None), Place::Duplicate);
        assert_eq!(n.place(None), Place::Fresh(8));
    }

    #[test]
    fn a_gap_and_a_zero_move_nothing() {
        let mut n = numbering(7, &[]);
        assert_eq!(n.place(Some(9)), Place::Gap { expected: 8 });
        assert_eq!(n.place(Some(0)), Place::Gap { expected: 8 });
        assert_eq!(n.place(Some(8)), Place::Fresh(8));
    }

    #[test]
    fn durable_numbers_above_the_welcome_are_known_once() {
        let mut n = numbering(10, &[12, 14]);
        let places: Vec<Place> = (0..5).map(|_| n.place(None)).collect();
        assert_eq!(
            places,
            [
                Place::Fresh(11),
                Place::Already(12),
                Place::Fresh(13),
                Place::Already(14),
                Place::Fresh(15)
            ]
        );
        assert_eq!(n.place(Some(12)), Place::Duplicate);
    }

    #[test]
    fn the_last_number_of_all_does_not_overflow() {
        let mut n = numbering(u64::MAX - 1, &[]);
        assert_eq!(n.place(None), Place::Fresh(u64::MAX));
        assert_eq!(n.place(None), Place::Duplicate);
    }
}
