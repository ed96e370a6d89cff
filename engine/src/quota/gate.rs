//! Whether an account may be called at all: pauses the provider asks for, and the breaker.

use std::time::Duration;

use super::dice::Dice;
use super::limits::HoldSettings;
use super::message::{Gate, HoldReason, ShardId, Trouble};
use crate::time::Mono;

/// PRODUCT section 10: without valid credentials the account is asked once a minute.
const UNAUTHORIZED_HOLD: Duration = Duration::from_secs(60);
/// PRODUCT section 10: no pause asked for by a provider is longer.
const THROTTLE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A spent quota without a word on when it starts over: reference practice is one probe in
/// this time.
pub(super) const QUOTA_LOOK: Duration = Duration::from_secs(15 * 60);
/// No quota is longer than a month and a bit.
const QUOTA_SPENT_MAX: Duration = Duration::from_secs(32 * 86_400);
/// Accounts of one provider that were held together do not come back in step.
const OPEN_JITTER: u32 = 10;
/// Full jitter may fall next to zero; shorter holds than this would be a busy loop.
const HOLD_MIN: Duration = Duration::from_millis(100);
/// Beyond the call itself: a turn, a lease made durable, a connection.
const PROBE_OVERHEAD: Duration = Duration::from_secs(5);
/// Probes in a row that may come back unused before there is a rest: demand goes elsewhere.
const UNUSED_FREE: u32 = 2;
/// The rest then.
const UNUSED_REST: Duration = Duration::from_millis(100);

/// The health of one account.
#[derive(Debug)]
pub(super) struct Health {
    settings: HoldSettings,
    breaker: Breaker,
    /// Troubles in a row without a success between.
    streak: u32,
    /// When the first of them was told.
    streak_since: Mono,
    paused_until: Option<Mono>,
    last_prober: Option<ShardId>,
    /// Probes in a row for which nobody had a use.
    unused: u32,
    /// Until when nobody is asked to probe, since nobody had a use for it.
    rests_until: Option<Mono>,
    /// Pauses in a row for which the provider named no time.
    pauses: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    Closed,
    Open {
        until: Mono,
        reason: HoldReason,
    },
    /// The hold is over: the next shard with demand probes.
    HalfOpen {
        since: Mono,
        reason: HoldReason,
    },
    Probing {
        shard: ShardId,
        until: Mono,
        reason: HoldReason,
    },
}

impl Health {
    pub(super) fn new(settings: HoldSettings) -> Self {
        Self {
            settings,
            breaker: Breaker::Closed,
            streak: 0,
            streak_since: Mono::default(),
            paused_until: None,
            last_prober: None,
            unused: 0,
            rests_until: None,
            pauses: 0,
        }
    }

    pub(super) fn reconfigure(&mut self, settings: HoldSettings) {
        self.settings = settings;
    }

    pub(super) fn on_trouble(
        &mut self,
        now: Mono,
        dice: &mut Dice,
        from: ShardId,
        report: TroubleReport,
    ) {
        self.unused = if report.probe { 0 } else { self.unused };
        if let Trouble::Throttled { until } | Trouble::Maintenance { until } = report.trouble {
            self.pause(now, dice, until);
            if report.probe && self.is_probed_by(from) {
                // It answered, but not whether it is well: the pause passes, then one more probe.
                let reason = HoldReason::Throttled;
                self.breaker = Breaker::HalfOpen { since: now, reason };
            }
            return;
        }
        let reason = match report.trouble {
            Trouble::Throttled { .. } | Trouble::Maintenance { .. } => HoldReason::Throttled,
            Trouble::QuotaSpent { until } => {
                self.park(now, from, report.probe, until);
                return;
            }
            Trouble::Unreachable => HoldReason::Unreachable,
            Trouble::Failing => HoldReason::Failing,
            Trouble::Unauthorized => HoldReason::Unauthorized,
        };
        match self.breaker {
            Breaker::Closed => {
                // Another shard's success lies between two failures; one from before the row says
                // nothing, however late it is told.
                let broken = report
                    .last_success
                    .is_some_and(|at| at >= self.streak_since);
                if broken || self.streak == 0 {
                    (self.streak, self.streak_since) = (0, now);
                }
                self.streak = self.streak.saturating_add(1);
                let enough = self.streak >= self.settings.failure_threshold;
                if enough || reason == HoldReason::Unauthorized {
                    self.hold(now, dice, reason);
                }
            }
            Breaker::Probing { shard, .. } if report.probe && shard == from => {
                self.hold(now, dice, reason);
            }
            // Calls sent before the hold still come in; they say nothing new.
            Breaker::Open { .. } | Breaker::HalfOpen { .. } | Breaker::Probing { .. } => {}
        }
    }

    pub(super) fn on_healthy(&mut self, probe: bool) {
        // A success of a call sent before the hold does not end it; only a probe's does.
        if self.breaker == Breaker::Closed || probe {
            self.breaker = Breaker::Closed;
            self.streak = 0;
            self.pauses = 0;
            self.unused = 0;
        }
    }

    /// There are other credentials: the account need not wait to show them.
    pub(super) fn on_credentials(&mut self, now: Mono) {
        if let Breaker::Open { until, reason } = &mut self.breaker
            && *reason == HoldReason::Unauthorized
        {
            *until = now.min(*until);
        }
    }

    /// The prober has no use for the probe, or is gone: another one may. One that asks and cannot
    /// call, as on a full disk, would be sent it again and again: so only after a rest.
    pub(super) fn on_probe_unused(&mut self, now: Mono, from: ShardId) {
        if let Breaker::Probing { shard, reason, .. } = self.breaker
            && shard == from
        {
            self.breaker = Breaker::HalfOpen { since: now, reason };
            self.unused = self.unused.saturating_add(1);
            if self.unused > UNUSED_FREE {
                self.rests_until = Some(now.saturating_add(UNUSED_REST));
            }
        }
    }

    pub(super) fn tick(&mut self, now: Mono) {
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        if self.rests_until.is_some_and(|until| until <= now) {
            self.rests_until = None;
        }
        match self.breaker {
            Breaker::Open { until, reason } | Breaker::Probing { until, reason, .. }
                if until <= now =>
            {
                self.breaker = Breaker::HalfOpen { since: now, reason };
            }
            _ => {}
        }
    }

    /// A shard with demand is looked for.
    pub(super) fn seeks_prober(&self) -> bool {
        self.paused_until.is_none()
            && self.rests_until.is_none()
            && matches!(self.breaker, Breaker::HalfOpen { .. })
    }

    pub(super) fn probe_by(&mut self, now: Mono, shard: ShardId, call_timeout: Duration) {
        if let Breaker::HalfOpen { reason, .. } = self.breaker {
            let until = now.saturating_add(call_timeout + PROBE_OVERHEAD);
            self.last_prober = Some(shard);
            self.breaker = Breaker::Probing {
                shard,
                until,
                reason,
            };
        }
    }

    /// Who probed last and is not asked again while another can: it may be stuck.
    pub(super) fn last_prober(&self) -> Option<ShardId> {
        self.last_prober
    }

    /// The provider asked for a pause that is not over.
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// Every shard may call.
    pub(super) fn is_open(&self) -> bool {
        self.paused_until.is_none() && self.breaker == Breaker::Closed
    }

    /// The breaker for people: a pause is not one of its states.
    pub(super) fn breaker(&self) -> BreakerView {
        let (phase, until) = match self.breaker {
            Breaker::Closed => (BreakerPhase::Closed, None),
            Breaker::Open { until, .. } => (BreakerPhase::Open, Some(until)),
            Breaker::HalfOpen { .. } | Breaker::Probing { .. } => (BreakerPhase::HalfOpen, None),
        };
        BreakerView {
            phase,
            until,
            failures_in_row: self.streak,
        }
    }

    /// What `shard` is told.
    pub(super) fn gate(&self, shard: ShardId) -> Gate {
        let held = |until, reason| Gate::Held { until, reason };
        if let Some(until) = self.paused_until {
            return held(until, HoldReason::Throttled);
        }
        match self.breaker {
            Breaker::Closed if self.streak > 0 || self.pauses > 0 => Gate::Suspect,
            Breaker::Closed => Gate::Open,
            Breaker::Open { until, reason } => held(until, reason),
            Breaker::HalfOpen { since, reason } => held(since, reason),
            Breaker::Probing { shard: prober, .. } if prober == shard => Gate::Probe,
            Breaker::Probing { until, reason, .. } => held(until, reason),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        let breaker = match self.breaker {
            Breaker::Open { until, .. } | Breaker::Probing { until, .. } => Some(until),
            Breaker::Closed | Breaker::HalfOpen { .. } => None,
        };
        let pauses = self.paused_until.into_iter().chain(self.rests_until);
        pauses.chain(breaker).min()
    }

    fn is_probed_by(&self, from: ShardId) -> bool {
        matches!(self.breaker, Breaker::Probing { shard, .. } if shard == from)
    }

    fn pause(&mut self, now: Mono, dice: &mut Dice, until: Option<Mono>) {
        let until = until.unwrap_or_else(|| {
            let HoldSettings {
                throttle_base: base,
                throttle_max: max,
                ..
            } = self.settings;
            let ceiling = doubled(base, self.pauses, max);
            // Calls sent before the pause answer 429 as well: one pause, counted once.
            if self.paused_until.is_none() {
                self.pauses = self.pauses.saturating_add(1);
            }
            now.saturating_add(dice.up_to(ceiling).max(HOLD_MIN))
        });
        let until = until.min(now.saturating_add(THROTTLE_MAX));
        if until > now {
            self.paused_until = self.paused_until.max(Some(until));
        }
    }

    /// A spent quota is no failure: it leaves the row of troubles alone, and is seen to be
    /// there again by one probe.
    fn park(&mut self, now: Mono, from: ShardId, probe: bool, until: Option<Mono>) {
        let until = until.unwrap_or_else(|| now.saturating_add(QUOTA_LOOK));
        let until = until.min(now.saturating_add(QUOTA_SPENT_MAX));
        let reason = HoldReason::QuotaSpent;
        let open = Breaker::Open { until, reason };
        match self.breaker {
            Breaker::Closed => self.breaker = open,
            Breaker::Probing { shard, .. } if probe && shard == from => self.breaker = open,
            // A call sent before the hold names a later end.
            Breaker::Open { until: held, .. } if until > held => self.breaker = open,
            Breaker::Open { .. } | Breaker::HalfOpen { .. } | Breaker::Probing { .. } => {}
        }
    }

    fn hold(&mut self, now: Mono, dice: &mut Dice, reason: HoldReason) {
        let length = if reason == HoldReason::Unauthorized {
            UNAUTHORIZED_HOLD
        } else {
            let open_for = self.settings.open_for.max(HOLD_MIN);
            open_for.saturating_add(dice.up_to(open_for / OPEN_JITTER))
        };
        let until = now.saturating_add(length);
        self.breaker = Breaker::Open { until, reason };
    }
}

/// Where an account's breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerView {
    /// Which of its states.
    pub phase: BreakerPhase,
    /// When an open one lets a probe go.
    pub until: Option<Mono>,
    /// Failures since the last success that count towards opening it.
    pub failures_in_row: u32,
}

/// A breaker's states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerPhase {
    /// Calls go.
    Closed,
    /// None go.
    Open,
    /// One probe goes, or will with the next call that is wanted; it decides.
    HalfOpen,
}

/// One trouble as a shard reported it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TroubleReport {
    pub(super) trouble: Trouble,
    pub(super) probe: bool,
    pub(super) last_success: Option<Mono>,
}

fn doubled(base: Duration, times: u32, max: Duration) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    base.saturating_mul(factor).min(max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);
    const SECOND: Duration = Duration::from_secs(1);

    struct Rig {
        health: Health,
        dice: Dice,
        now: Mono,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                health: Health::new(HoldSettings::default()),
                dice: Dice::new(1),
                now: Mono(1_000_000_000),
            }
        }

        fn trouble(&mut self, trouble: Trouble, probe: bool, last_success: Option<Mono>) {
            let report = TroubleReport {
                trouble,
                probe,
                last_success,
            };
            self.health.on_trouble(self.now, &mut self.dice, A, report);
        }

        fn fail(&mut self, times: u32) {
            for _ in 0..times {
                self.trouble(Trouble::Unreachable, false, None);
            }
        }

        fn held_for(&self) -> Option<Duration> {
            match self.health.gate(B) {
                Gate::Held { until, .. } => Some(until.saturating_since(self.now)),
                _ => None,
            }
        }

        fn pass_hold(&mut self) {
            let Some(until) = self.health.next_deadline() else {
                panic!("nothing to wait for: {:?}", self.health);
            };
            self.now = until;
            self.health.tick(until);
        }
    }

    #[test]
    fn five_troubles_in_a_row_hold_the_account_and_four_do_not() {
        let mut rig = Rig::new();
        rig.fail(4);
        assert_eq!(rig.health.gate(A), Gate::Suspect);
        rig.health.on_healthy(false);
        assert_eq!(rig.health.gate(A), Gate::Open);
        rig.fail(4);
        rig.trouble(Trouble::Failing, false, Some(rig.now));
        assert_eq!(rig.health.gate(A), Gate::Suspect, "a success was between");
        rig.now = rig.now.saturating_add(SECOND);
        let before = Some(Mono(0));
        (0..4).for_each(|_| rig.trouble(Trouble::Failing, false, before));
        let held = rig.held_for().expect("held").as_millis();
        assert!((30_000..33_000).contains(&held), "{held} ms");
        assert!(!rig.health.is_open());
    }

    #[test]
    fn one_shard_probes_and_its_success_opens_the_gate_for_all() {
        let mut rig = Rig::new();
        rig.fail(5);
        rig.health.on_healthy(false);
        assert!(rig.held_for().is_some(), "an older call's success");
        rig.pass_hold();
        assert!(rig.health.seeks_prober());
        rig.health.probe_by(rig.now, A, SECOND);
        assert_eq!(rig.health.gate(A), Gate::Probe);
        assert!(rig.held_for().is_some());
        rig.trouble(Trouble::Unreachable, false, None);
        assert_eq!(rig.health.gate(A), Gate::Probe, "an older call's failure");
        rig.health.on_healthy(true);
        assert_eq!(
            (rig.health.gate(A), rig.health.gate(B)),
            (Gate::Open, Gate::Open)
        );
    }

    #[test]
    fn a_failed_probe_holds_the_account_as_long_again() {
        let mut rig = Rig::new();
        rig.fail(5);
        for _ in 0..8 {
            let held = rig.held_for().expect("held").as_millis();
            assert!((30_000..33_000).contains(&held), "{held} ms");
            rig.pass_hold();
            rig.health.probe_by(rig.now, A, SECOND);
            rig.trouble(Trouble::Failing, true, None);
        }
    }

    #[test]
    fn a_spent_quota_parks_the_account_until_it_starts_over_and_one_probe_looks() {
        let mut rig = Rig::new();
        rig.fail(4);
        let until = Some(Mono(rig.now.0 + 3600 * 1_000_000_000));
        rig.trouble(Trouble::QuotaSpent { until }, false, None);
        assert_eq!(rig.held_for(), Some(3600 * SECOND));
        assert!(matches!(
            rig.health.gate(B),
            Gate::Held {
                reason: HoldReason::QuotaSpent,
                ..
            }
        ));
        rig.pass_hold();
        rig.health.probe_by(rig.now, A, SECOND);
        rig.trouble(Trouble::QuotaSpent { until: None }, true, None);
        assert_eq!(rig.held_for(), Some(QUOTA_LOOK), "still spent");
        rig.pass_hold();
        rig.health.probe_by(rig.now, A, SECOND);
        rig.health.on_healthy(true);
        assert_eq!(rig.health.gate(B), Gate::Open);
    }

    #[test]
    fn a_probe_that_is_not_reported_goes_to_the_next() {
        let mut rig = Rig::new();
        rig.fail(5);
        rig.pass_hold();
        rig.health.probe_by(rig.now, A, SECOND);
        rig.health.on_probe_unused(rig.now, B);
        assert!(!rig.health.seeks_prober());
        rig.health.on_probe_unused(rig.now, A);
        assert!(rig.health.seeks_prober());
        rig.health.probe_by(rig.now, B, SECOND);
        rig.pass_hold();
        assert!(rig.health.seeks_prober());
    }

    #[test]
    fn a_pause_asked_for_is_kept_and_leaves_the_breaker_alone() {
        let mut rig = Rig::new();
        rig.fail(4);
        let until = Mono(rig.now.0 + 7_000_000_000);
        rig.trouble(Trouble::Throttled { until: Some(until) }, false, None);
        assert_eq!(rig.held_for(), Some(7 * SECOND));
        let earlier = Some(Mono(rig.now.0 + 1));
        rig.trouble(Trouble::Throttled { until: earlier }, false, None);
        assert_eq!(rig.held_for(), Some(7 * SECOND), "never shortened");
        rig.pass_hold();
        assert_eq!(rig.health.gate(A), Gate::Suspect, "still four in a row");
        rig.fail(1);
        assert!(rig.held_for().is_some());
    }

    #[test]
    fn pauses_are_clamped_to_a_day_and_back_off_when_no_time_is_named() {
        let mut rig = Rig::new();
        let until = Some(Mono(u64::MAX));
        rig.trouble(Trouble::Throttled { until }, false, None);
        assert_eq!(rig.held_for(), Some(THROTTLE_MAX));
        rig.pass_hold();
        for step in 0..10 {
            rig.trouble(Trouble::Throttled { until: None }, false, None);
            let held = rig.held_for().expect("held");
            let ceiling = Duration::from_secs(1 << step).min(Duration::from_secs(60));
            assert!(held <= ceiling && held >= HOLD_MIN, "{held:?} at {step}");
            rig.pass_hold();
        }
    }

    #[test]
    fn refused_credentials_are_tried_once_a_minute() {
        let mut rig = Rig::new();
        rig.trouble(Trouble::Unauthorized, false, None);
        for _ in 0..3 {
            assert_eq!(rig.held_for(), Some(UNAUTHORIZED_HOLD));
            rig.pass_hold();
            rig.health.probe_by(rig.now, A, SECOND);
            rig.trouble(Trouble::Unauthorized, true, None);
        }
        rig.pass_hold();
        rig.health.probe_by(rig.now, A, SECOND);
        rig.health.on_healthy(true);
        assert!(rig.health.is_open());
    }

    #[test]
    fn a_probe_that_nobody_has_a_use_for_is_not_sent_round_and_round() {
        let mut rig = Rig::new();
        rig.fail(5);
        rig.pass_hold();
        let mut sent = 0;
        let end = rig.now.saturating_add(SECOND);
        while rig.now < end {
            rig.health.tick(rig.now);
            if rig.health.seeks_prober() {
                sent += 1;
                rig.health.probe_by(rig.now, A, SECOND);
                rig.health.on_probe_unused(rig.now, A);
            }
            rig.now = rig.now.saturating_add(Duration::from_millis(1));
        }
        assert!((10..=14).contains(&sent), "{sent}");
        rig.health.tick(end.saturating_add(SECOND));
        rig.health.probe_by(end, A, SECOND);
        rig.health.on_healthy(true);
        assert!(rig.health.is_open());
    }
}
