//! What the provider says of a limit, held against our own count: who else spends from it, and
//! how large it really is.

use std::sync::Arc;
use std::time::Duration;

use super::tally::Tally;
use crate::provider::LimitReading;
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

impl Observation {
    /// What a definition read from a reply to a call of that time.
    pub fn of(reading: &LimitReading<'_>, sent_at: Mono, answered_at: Mono) -> Self {
        let tokens = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            limit: reading.limit.into(),
            max: reading.max.map(tokens),
            used: reading.used.map(tokens),
            remaining: reading.remaining.map(tokens),
            resets_at: reading
                .resets_in
                .map(|resets_in| answered_at.saturating_add(resets_in)),
            server_time: None,
            sent_at,
            answered_at,
        }
    }

    /// Whether more is used by this word than by another on the same limit.
    pub(super) fn tells_of_more_than(&self, other: &Self) -> bool {
        let used = |word: &Self| {
            let left = word.remaining.map(|left| -i64::from(left));
            word.used.map(i64::from).or(left)
        };
        used(self) > used(other)
    }
}

/// Others are allowed for this long after they were last surely seen, or for a longer window.
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
    /// The most that others were surely seen to hold, in this memory's time and in the last's.
    peak: u64,
    peak_before: u64,
    /// When the older peak is forgotten.
    fades_at: Mono,
    /// When both are, at a calendar's edge.
    starts_over: Option<Mono>,
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
            peak: 0,
            peak_before: 0,
            fades_at: Mono(0),
            starts_over: None,
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

    /// Reads what the provider counts as used; at `starts_over` that is forgotten.
    ///
    /// The provider counted at one instant between `sent_at` and `answered_at`. At most all our
    /// tokens that were out then are among what it counted: what is more is surely not ours.
    /// At least those of calls that ended before `sent_at` are, and that the provider has not
    /// forgotten since: others hold no more than all but these. So each word sets bounds to what
    /// others hold. The highest lower bound of late is taken, and an eighth and one on top for
    /// what they spend meanwhile, unless a newer upper bound is below it. Alone on an account
    /// the lower bound is never above zero, whatever is in flight.
    pub(super) fn read(
        &mut self,
        now: Mono,
        word: &Observation,
        used: u64,
        own: OwnCount,
        starts_over: Option<Mono>,
    ) {
        let ended = self.ended.since(word.sent_at);
        let returned = self.returned.since(word.sent_at);
        let (Some(ended), Some(returned)) = (ended, returned) else {
            return;
        };
        if word.sent_at < self.newest {
            return;
        }
        self.newest = word.sent_at;
        let own_most = own.leased + own.restoring + returned;
        let own_least = own.restoring.saturating_sub(ended + own.leaving);
        let least = used.saturating_sub(own_most);
        let most = used.saturating_sub(own_least);
        if least > self.peak {
            if self.seen() == 0 {
                self.fades_at = now.saturating_add(self.memory());
            }
            self.next_look = Some(now.saturating_add(LOOK_EVERY));
            self.peak = least;
        }
        self.peak = self.peak.min(most);
        self.peak_before = self.peak_before.min(most);
        self.starts_over = starts_over;
    }

    /// The provider's own size of the limit; a size of nothing is no size.
    pub(super) fn learn_max(&mut self, max: u32) {
        if max > 0 {
            self.max = Some(max);
        }
    }

    /// Forgets what others held when its time is over; says whether that was anything.
    pub(super) fn tick(&mut self, now: Mono) -> bool {
        let before = self.seen();
        if self.starts_over.is_some_and(|edge| edge <= now) {
            (self.peak, self.peak_before, self.starts_over) = (0, 0, None);
        }
        while self.seen() > 0 && self.fades_at <= now {
            self.peak_before = std::mem::take(&mut self.peak);
            self.fades_at = self.fades_at.saturating_add(self.memory());
        }
        self.seen() < before
    }

    /// Whether one call may see if others still hold so much.
    pub(super) fn is_look_due(&self, now: Mono) -> bool {
        self.seen() > 0 && self.next_look.is_some_and(|look| look <= now)
    }

    /// A call goes: looking again waits.
    pub(super) fn on_look(&mut self, now: Mono) {
        self.next_look = Some(now.saturating_add(LOOK_EVERY));
    }

    /// Whether the provider spoke of this limit within its window.
    pub(super) fn is_fresh(&self, now: Mono) -> bool {
        self.newest > Mono(0) && now.saturating_since(self.newest) <= self.memory()
    }

    /// Tokens to leave to others.
    pub(super) fn others(&self) -> u64 {
        let seen = self.seen();
        seen + seen / 8 + u64::from(seen > 0)
    }

    pub(super) fn max(&self) -> Option<u32> {
        self.max
    }

    /// When what others hold changes by itself; `looks`: also when one call may look again.
    pub(super) fn next_deadline(&self, looks: bool) -> Option<Mono> {
        if self.seen() == 0 {
            return None;
        }
        let look = self.next_look.filter(|_| looks);
        [look, self.starts_over, Some(self.fades_at)]
            .into_iter()
            .flatten()
            .min()
    }

    fn seen(&self) -> u64 {
        self.peak.max(self.peak_before)
    }

    /// How long others are allowed for after they were last surely seen, at the least.
    fn memory(&self) -> Duration {
        OTHERS_MEMORY.max(self.window)
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
        truth.read(ms(10_000), &word, used, own, None);
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
    fn a_reading_is_put_on_our_clock() {
        let reading = LimitReading {
            limit: "daily",
            used: None,
            remaining: Some(u64::MAX),
            max: Some(250_000),
            window: None,
            resets_in: Some(Duration::from_secs(3)),
        };
        let word = Observation::of(&reading, ms(900), ms(1000));
        assert_eq!((word.max, word.remaining), (Some(250_000), Some(u32::MAX)));
        assert_eq!(word.resets_at, Some(ms(4000)));
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
    fn what_is_surely_not_ours_is_left_to_others_and_a_part_more() {
        let mut truth = Truth::new(Duration::from_secs(1));
        assert_eq!(told(&mut truth, 140, own(10, 90)), 40 + 5 + 1);
        assert_eq!(
            told(&mut truth, 105, own(60, 40)),
            40 + 5 + 1,
            "or ours are on their way"
        );
        assert_eq!(truth.next_deadline(true), Some(ms(20_000)));
        assert!(!truth.tick(ms(20_000)));
        assert_eq!(truth.others(), 46);
        assert!(truth.tick(ms(30_000)));
        assert_eq!((truth.others(), truth.next_deadline(true)), (0, None));
    }

    #[test]
    fn what_others_cannot_hold_any_more_is_ours_at_once() {
        let mut truth = Truth::new(Duration::from_secs(1));
        told(&mut truth, 140, own(10, 90));
        truth.on_ended(ms(9970), 4);
        assert_eq!(
            told(&mut truth, 100, own(10, 90)),
            14 + 1 + 1,
            "all but 90 - 4"
        );
        assert_eq!(told(&mut truth, 80, own(10, 90)), 0);
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
