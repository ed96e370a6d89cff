//! Limits that nobody documents: quick to shrink when the provider refuses, steady to regrow.

use std::time::Duration;

use crate::time::Mono;

/// Steps from nothing back to the ceiling: half of it is regrown in eight windows.
const STEPS: u32 = 16;
/// Shorter windows regrow no faster than this.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Two refusals with hardly anything used between them leave less than this part of the ceiling.
const SMALL: u32 = 8;

/// Additive increase, multiplicative decrease (Chiu and Jain, 1989) of what is used of a limit.
#[derive(Debug)]
pub(super) struct Adaptive {
    ceiling: u32,
    /// Never shrinks below: one call must always be able to go.
    floor: u32,
    allowed: u32,
    step_every: Duration,
    next_step: Option<Mono>,
    /// What it was last halved to, while it has not regrown.
    halved_to: Option<u32>,
}

impl Adaptive {
    pub(super) fn new(ceiling: u32, floor: u32, window: Duration) -> Self {
        Self {
            ceiling,
            floor,
            allowed: ceiling,
            step_every: window.max(STEP_MIN),
            next_step: None,
            halved_to: None,
        }
    }

    /// The limit was changed by hand: what was learned stays, capped.
    pub(super) fn resize(&mut self, ceiling: u32, floor: u32) {
        (self.ceiling, self.floor) = (ceiling, floor);
        if self.next_step.is_none() {
            self.allowed = ceiling;
        }
        self.allowed = self.allowed.clamp(floor, ceiling.max(floor));
        self.settle();
    }

    /// Takes up what an earlier run had learned.
    pub(super) fn recall(&mut self, now: Mono, allowed: u32) {
        self.shrink_to(now, allowed);
    }

    /// The provider refused a call while `in_use` tokens counted.
    pub(super) fn halve(&mut self, now: Mono, in_use: u32) {
        // A refusal right after a pause finds hardly anything in use, which says little: from
        // there a limit is not taken to be below an eighth of what was thought.
        let counted = in_use.max(self.allowed / 4).min(self.allowed);
        self.shrink_to(now, counted / 2);
    }

    /// Regrows by the steps that are due; says whether there were any.
    pub(super) fn tick(&mut self, now: Mono) -> bool {
        let mut grown = false;
        while let Some(step) = self.next_step.filter(|step| *step <= now) {
            let more = (self.ceiling / STEPS).max(1);
            self.allowed = self.allowed.saturating_add(more).min(self.ceiling);
            self.next_step = Some(step.saturating_add(self.step_every));
            grown = true;
            self.settle();
        }
        grown
    }

    /// Tokens that may be used now.
    pub(super) fn allowed(&self) -> u32 {
        self.allowed
    }

    /// Whether so little is left that what is still refused is hardly refused for this.
    pub(super) fn is_small(&self) -> bool {
        self.allowed <= self.floor.max(self.ceiling / SMALL)
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.next_step
    }

    /// What a later run should begin with: the last halving, as long as it matters.
    pub(super) fn learned(&self) -> Option<u32> {
        self.halved_to
    }

    fn shrink_to(&mut self, now: Mono, allowed: u32) {
        self.allowed = allowed.max(self.floor).min(self.ceiling);
        self.halved_to = Some(self.allowed);
        self.next_step = Some(now.saturating_add(self.step_every));
        self.settle();
    }

    fn settle(&mut self) {
        if self.allowed >= self.ceiling {
            self.next_step = None;
            self.halved_to = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000_000)
    }

    fn hundred() -> Adaptive {
        Adaptive::new(100, 1, Duration::from_secs(1))
    }

    #[test]
    fn a_refusal_halves_what_was_in_use_and_time_gives_it_back_in_steps() {
        let mut limit = hundred();
        assert_eq!((limit.allowed(), limit.learned()), (100, None));
        limit.halve(s(10), 80);
        assert_eq!((limit.allowed(), limit.learned()), (40, Some(40)));
        assert_eq!(limit.next_deadline(), Some(s(11)));
        assert!(limit.tick(s(11)));
        assert_eq!(limit.allowed(), 46);
        limit.tick(s(20));
        assert_eq!(limit.allowed(), 100);
        assert_eq!((limit.next_deadline(), limit.learned()), (None, None));
    }

    #[test]
    fn one_call_can_always_go_and_the_ceiling_is_never_passed() {
        let mut limit = hundred();
        for second in 0..20 {
            limit.halve(s(second), 0);
        }
        assert_eq!(limit.allowed(), 1);
        limit.tick(s(100_000));
        assert_eq!(limit.allowed(), 100);
        limit.recall(s(100_000), 7000);
        assert_eq!((limit.allowed(), limit.learned()), (100, None));
    }

    #[test]
    fn a_changed_limit_caps_what_was_learned_and_follows_when_nothing_was() {
        let mut limit = hundred();
        limit.resize(300, 1);
        assert_eq!(limit.allowed(), 300);
        limit.halve(s(1), 300);
        limit.resize(200, 1);
        assert_eq!(limit.allowed(), 150);
        limit.resize(90, 1);
        assert_eq!((limit.allowed(), limit.learned()), (90, None));
    }
}
