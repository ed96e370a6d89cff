//! What the provider says of a limit, held against our own count: who else spends from it, and
//! how large it really is.

use std::sync::Arc;
use std::time::Duration;

use super::tally::Tally;
use crate::time::{Mono, WallMs};

/// A reply's word on a limit of its account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The limit's name; a word about an unknown one is of use for its clock alone.
    pub limit: Arc<str>,
    /// Tokens the provider gives in all.
    pub max: Option<u32>,
    /// Tokens it counts as used, by whomever.
    pub used: Option<u32>,
    /// Tokens it has left; `max` or the configured limit less this is what it counts as used.
    pub remaining: Option<u32>,
    /// When it starts over, on our clock.
    pub resets_at: Option<Mono>,
    /// The provider's wall clock as the reply shows it, in whole seconds (`Date`).
    pub server_time: Option<WallMs>,
    /// A clock reading before the call's first byte left.
    pub sent_at: Mono,
    /// A clock reading after the reply was read.
    pub answered_at: Mono,
}

/// Others are allowed for this long after they were last surely seen, or for two windows.
const OTHERS_MEMORY: Duration = Duration::from_secs(10);
/// How long a pool that others have used up is left alone before one call looks again:
/// reference practice for daily quotas that roll.
const LOOK_EVERY: Duration = Duration::from_secs(15 * 60);

/// What is known of a limit beyond our own count.
#[derive(Debug)]
pub(super) struct Truth {
    window: Duration,
    /// Tokens of calls that ended, and tokens that came back, in the last seconds.
    ended: Tally,
    returned: Tally,
    /// Tokens others are taken to hold, until then at the latest.
    others: u64,
    others_until: Mono,
    /// Others were surely seen not long before.
    others_live_until: Mono,
    /// The newest word taken: an older one changes nothing.
    newest: Mono,
    next_look: Option<Mono>,
    max: Option<u32>,
}

/// Our own tokens at the instant a word is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct OwnCount {
    pub(super) leased: u64,
    pub(super) restoring: u64,
    /// Of those restoring, tokens whose calls the provider may have forgotten by now.
    pub(super) leaving: u64,
}

impl Truth {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            window,
            ended: Tally::default(),
            returned: Tally::default(),
            others: 0,
            others_until: Mono(0),
            others_live_until: Mono(0),
            newest: Mono(0),
            next_look: None,
            max: None,
        }
    }

    pub(super) fn on_ended(&mut self, now: Mono, tokens: u64) {
        self.ended.add(now, tokens);
    }

    pub(super) fn on_returned(&mut self, now: Mono, tokens: u64) {
        self.returned.add(now, tokens);
    }

    /// Reads what the provider counts as used. `until` is when that must be forgotten.
    ///
    /// The provider counted at one instant between `sent_at` and `answered_at`. At most all our
    /// tokens that were out then are among what it counted, so more than that is surely not
    /// ours. At least those of calls that ended before `sent_at` are, so all but these may be
    /// others'. The first tells whether there are others, the second what to leave to them:
    /// alone on the account, calls in flight are never taken for somebody else's.
    pub(super) fn read(
        &mut self,
        now: Mono,
        word: &Observation,
        used: u64,
        own: OwnCount,
        until: Mono,
    ) {
        let (Some(ended), Some(returned)) = (
            self.ended.since(word.sent_at),
            self.returned.since(word.sent_at),
        ) else {
            return;
        };
        if word.sent_at < self.newest {
            return;
        }
        self.newest = word.sent_at;
        let own_most = own.leased + own.restoring + returned;
        let own_least = own.restoring.saturating_sub(ended + own.leaving);
        if used > own_most {
            let memory = OTHERS_MEMORY.max(self.window.saturating_mul(2));
            self.others_live_until = now.saturating_add(memory);
        }
        if now < self.others_live_until {
            let now_held = used.saturating_sub(own_least);
            // They go on while the word travels: an eighth of a window's worth is more than
            // they spend at a steady pace in the time of a reply.
            self.others = now_held + now_held / 8 + u64::from(now_held > 0);
            self.others_until = until;
            self.next_look = Some(now.saturating_add(LOOK_EVERY));
        } else {
            self.others = 0;
            self.next_look = None;
        }
    }

    /// The provider's own size of the limit; a size of nothing is no size.
    pub(super) fn learn_max(&mut self, max: u32) {
        if max > 0 {
            self.max = Some(max);
        }
    }

    /// Forgets what others held when its time is over; says whether that was anything.
    pub(super) fn tick(&mut self, now: Mono) -> bool {
        let over = self.others > 0 && self.others_until <= now;
        if over {
            self.others = 0;
            self.next_look = None;
        }
        over
    }

    /// Whether one call may see if others still hold so much.
    pub(super) fn is_look_due(&self, now: Mono) -> bool {
        self.others > 0 && self.next_look.is_some_and(|look| look <= now)
    }

    /// A call goes: looking again waits.
    pub(super) fn on_look(&mut self, now: Mono) {
        self.next_look = Some(now.saturating_add(LOOK_EVERY));
    }

    /// Whether the provider spoke of this limit within its window.
    pub(super) fn is_fresh(&self, now: Mono) -> bool {
        self.newest > Mono(0) && now.saturating_since(self.newest) <= self.window.max(OTHERS_MEMORY)
    }

    pub(super) fn others(&self) -> u64 {
        self.others
    }

    pub(super) fn max(&self) -> Option<u32> {
        self.max
    }

    /// When what others hold changes by itself; `looks`: also when one call may look again.
    pub(super) fn next_deadline(&self, looks: bool) -> Option<Mono> {
        let look = self.next_look.filter(|_| looks && self.others > 0);
        let over = (self.others > 0).then_some(self.others_until);
        look.into_iter().chain(over).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    /// A truth that is told at 10 s, by a reply to a call of 50 ms, that so much is used.
    fn told(truth: &mut Truth, used: u64, own: OwnCount) -> u64 {
        let word = Observation {
            limit: "burst".into(),
            max: None,
            used: None,
            remaining: None,
            resets_at: None,
            server_time: None,
            sent_at: ms(9950),
            answered_at: ms(10_000),
        };
        truth.read(ms(10_000), &word, used, own, ms(11_000));
        truth.others()
    }

    fn own(leased: u64, restoring: u64) -> OwnCount {
        OwnCount {
            leased,
            restoring,
            leaving: 0,
        }
    }

    #[test]
    fn calls_of_our_own_in_flight_are_never_taken_for_others() {
        let mut truth = Truth::new(Duration::from_secs(1));
        assert_eq!(told(&mut truth, 100, own(10, 90)), 0);
        truth.on_returned(ms(9990), 5);
        assert_eq!(
            told(&mut truth, 100, own(10, 85)),
            0,
            "counted, and back since"
        );
    }

    #[test]
    fn once_others_are_surely_there_all_that_is_not_surely_ours_is_theirs() {
        let mut truth = Truth::new(Duration::from_secs(1));
        truth.on_ended(ms(9970), 4);
        // 130 counted, 100 of ours at most; at least 90 - 4 of them: 44 and an eighth and one.
        assert_eq!(told(&mut truth, 130, own(10, 90)), 44 + 5 + 1);
        assert_eq!(
            told(&mut truth, 100, own(10, 90)),
            14 + 1 + 1,
            "still allowed for"
        );
        assert_eq!(truth.next_deadline(true), Some(ms(11_000)));
        assert!(truth.tick(ms(11_000)));
        assert_eq!(truth.others(), 0);
    }

    #[test]
    fn a_word_older_than_what_is_remembered_or_than_the_last_says_nothing() {
        let mut truth = Truth::new(Duration::from_secs(1));
        truth.on_ended(ms(9960), 1);
        truth.on_ended(ms(60_000), 1);
        assert_eq!(told(&mut truth, 500, own(0, 0)), 0);
        let mut truth = Truth::new(Duration::from_secs(1));
        truth.newest = ms(9960);
        assert_eq!(told(&mut truth, 500, own(0, 0)), 0);
    }
}
